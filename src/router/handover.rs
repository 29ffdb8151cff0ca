//! Which publishers have messages for queue groups in hand: encoded for a member, not yet in its outbox.
//!
//! Whoever leaves a group and then asks for a PONG takes that as the end: what came behind it would be lost, though other
//! members were there to take it. So the PONG waits until those who may have picked a member before it left have handed
//! over what they had ([`Handovers::settled`]), which takes them no longer than a batch.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long is waited for; nobody keeps a batch in hand for as long.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Looks before the waiter begins to sleep between them.
const YIELDS: u32 = 100;

/// Odd while its publisher has something in hand.
type Turn = AtomicU64;

/// The publishers of one router that have met a queue group.
#[derive(Default)]
pub(super) struct Handovers {
    turns: Mutex<Vec<Weak<Turn>>>,
}

/// One publisher's part in it, made when it first meets a group.
#[derive(Default)]
pub(super) struct Hand {
    turn: Option<Arc<Turn>>,
    is_full: bool,
}

impl Hand {
    /// The publisher is about to pick members of groups; it sees who has left before [`Handovers::settled`] was called, or
    /// is waited for there.
    #[inline]
    pub fn fill(&mut self, all: &Handovers) {
        if self.is_full {
            return;
        }
        self.is_full = true;
        let turn = self.turn.get_or_insert_with(|| all.join());
        turn.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Everything is where it belongs.
    #[inline]
    pub fn empty(&mut self) {
        if std::mem::take(&mut self.is_full)
            && let Some(turn) = &self.turn
        {
            turn.fetch_add(1, Ordering::Release);
        }
    }
}

impl Handovers {
    fn join(&self) -> Arc<Turn> {
        let turn = Arc::new(Turn::new(0));
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() == turns.capacity() {
            turns.retain(|turn| turn.strong_count() > 0);
            // Twice as many as there are: it is not looked through for each who comes.
            let count = turns.len();
            turns.reserve(count);
        }
        turns.push(Arc::downgrade(&turn));
        turn
    }

    /// Completes when all have handed over what they have in hand now. Who waits has nothing in hand itself.
    pub async fn settled(&self) {
        fence(Ordering::SeqCst);
        let busy: Vec<(Weak<Turn>, u64)> = {
            let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let now = turns.iter().filter_map(|turn| {
                let at = turn.upgrade()?.load(Ordering::SeqCst);
                Some((turn.clone(), at))
            });
            now.filter(|(_, at)| at % 2 == 1).collect()
        };
        let began = Instant::now();
        let mut looks = 0;
        for (turn, at) in busy {
            while turn
                .upgrade()
                .is_some_and(|turn| turn.load(Ordering::Acquire) == at)
            {
                looks += 1;
                if looks <= YIELDS {
                    tokio::task::yield_now().await;
                } else if began.elapsed() < WAIT_MAX {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_in_hand_is_waited_for() {
        let all = Handovers::default();
        let (mut one, mut other) = (Hand::default(), Hand::default());
        all.settled().now_or_never().expect("nobody has anything in hand");
        one.fill(&all);
        other.fill(&all);
        other.empty();
        let waiting = all.settled();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        // What somebody takes up later is not waited for, nor is what comes after.
        other.fill(&all);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        one.empty();
        one.fill(&all);
        waiting.now_or_never().expect("it was handed over");
        drop((one, other));
        all.settled().now_or_never().expect("nobody is there");
    }
}
