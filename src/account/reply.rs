//! The ways back of requests to other accounts, and which of them still wait for an answer.
//!
//! A reply that has had its answer leaves the table at once; one that has none is given up when its time is over, the oldest
//! when there are too many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::protocol::encode::Message;
use crate::router::{Batch, Congestion, Crossing, Publisher, Router, Service, Subscription};

use super::bridge::HOPS_MAX;

/// Bytes nobody can guess in a reply subject.
const SECRET_LEN: usize = 16;

/// When it was used last, and a number of its own.
type Key = (Instant, u64);

#[derive(Default)]
struct Table {
    replies: BTreeMap<Key, Arc<Reply>>,
    next_id: u64,
    closed: bool,
}

/// The replies of one bridge that wait for answers.
pub(super) struct Waiting {
    table: Mutex<Table>,
    /// The oldest is given up for one more.
    max: usize,
    /// How long one waits.
    threshold: Duration,
}

impl Waiting {
    pub fn new(max: usize, threshold: Duration) -> Self {
        Self {
            table: Mutex::default(),
            max,
            threshold,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.lock().replies.len()
    }

    /// A reply subject in `away`, whose messages come back to `to` in `home`; none once closed.
    pub fn expect(
        self: &Arc<Self>,
        home: &Weak<Router>,
        away: &Arc<Router>,
        to: &[u8],
        once: bool,
    ) -> Option<Arc<Reply>> {
        let id = {
            let mut table = self.lock();
            table.next_id += 1;
            table.next_id
        };
        let reply = Arc::new(Reply {
            subject: secret_subject(),
            to: to.into(),
            home: home.clone(),
            away: Arc::downgrade(away),
            waiting: Arc::downgrade(self),
            id,
            once,
            done: AtomicBool::new(false),
            began: Instant::now(),
            used_ms: AtomicU64::new(0),
            queued_ms: AtomicU64::new(0),
            subscription: Mutex::default(),
            congestion: Congestion::default(),
        });
        let service: Arc<dyn Service> = reply.clone();
        let subscription = away.subscribe_service(&service, &reply.subject, None);
        *reply.subscription() = Some(subscription);
        // Before the request goes out: its answer may be here before that returns.
        let surplus = {
            let mut table = self.lock();
            if table.closed {
                drop(table);
                reply.end();
                return None;
            }
            let full = table.replies.len() >= self.max;
            let surplus = full.then(|| table.replies.pop_first()).flatten();
            table.replies.insert(reply.key(), reply.clone());
            surplus
        };
        if let Some((_, oldest)) = surplus {
            oldest.end();
        }
        Some(reply)
    }

    /// Gives up what has waited too long.
    pub fn sweep(&self, now: Instant) {
        let mut over = Vec::new();
        {
            let mut table = self.lock();
            while let Some((&key, _)) = table.replies.first_key_value() {
                if now.saturating_duration_since(key.0) < self.threshold {
                    break;
                }
                let Some(reply) = table.replies.remove(&key) else {
                    break;
                };
                let used_ms = reply.used_ms.load(Ordering::Relaxed);
                let used = reply.began + Duration::from_millis(used_ms);
                if now.saturating_duration_since(used) < self.threshold {
                    // It is still being answered.
                    reply.queued_ms.store(used_ms, Ordering::Relaxed);
                    table.replies.insert(reply.key(), reply);
                } else {
                    over.push(reply);
                }
            }
        }
        over.iter().for_each(|reply| reply.end());
    }

    /// Gives up all, and takes no more.
    pub fn close(&self) {
        let replies = {
            let mut table = self.lock();
            table.closed = true;
            std::mem::take(&mut table.replies)
        };
        replies.values().for_each(|reply| reply.end());
    }
}

fn secret_subject() -> Vec<u8> {
    let mut secret = [0; SECRET_LEN];
    getrandom::fill(&mut secret).expect("the system has randomness");
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    let digits = secret
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    b"_R_.".iter().copied().chain(digits).collect()
}

/// The way back of one request.
pub(super) struct Reply {
    pub subject: Vec<u8>,
    /// What the requester listens to.
    to: Box<[u8]>,
    home: Weak<Router>,
    away: Weak<Router>,
    /// Where it waits.
    waiting: Weak<Waiting>,
    id: u64,
    once: bool,
    done: AtomicBool,
    began: Instant,
    /// Milliseconds after `began` of the last answer.
    used_ms: AtomicU64,
    /// The same as the table knows it; changed under its lock.
    queued_ms: AtomicU64,
    subscription: Mutex<Option<Arc<Subscription>>>,
    congestion: Congestion,
}

impl Reply {
    fn subscription(&self) -> MutexGuard<'_, Option<Arc<Subscription>>> {
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self) -> Key {
        let queued = Duration::from_millis(self.queued_ms.load(Ordering::Relaxed));
        (self.began + queued, self.id)
    }

    /// Takes no more answers.
    pub fn end(&self) {
        self.done.store(true, Ordering::Release);
        if let Some(waiting) = self.waiting.upgrade() {
            let mut table = waiting.lock();
            table.replies.remove(&self.key());
        }
        let subscription = self.subscription().take();
        if let (Some(away), Some(subscription)) = (self.away.upgrade(), subscription) {
            away.remove(&subscription);
        }
    }

    fn pass(&self, publisher: &mut Publisher, answer: &Message<'_>) {
        // What is routed by its reply may show another subject, as messages of streams do.
        let shown = if answer.subject == self.subject.as_slice() {
            &*self.to
        } else {
            answer.subject
        };
        let answer = Message {
            subject: shown,
            ..*answer
        };
        publisher.deliver(&self.to, &answer, None);
    }
}

impl Service for Reply {
    fn accept(&self, batch: Batch) {
        let hops = batch.crossing().hops;
        let Some(home) = self.home.upgrade().filter(|_| hops < HOPS_MAX) else {
            return;
        };
        let mut publisher = Publisher::of_answers(home);
        // Who answers may have written anything: nothing here says who asks.
        publisher.set_crossing(Crossing {
            hops: hops + 1,
            ..Crossing::default()
        });
        if self.once {
            if self.done.swap(true, Ordering::AcqRel) {
                return;
            }
            if let Some(answer) = batch.iter().next() {
                self.pass(&mut publisher, &answer);
            }
        } else {
            if self.done.load(Ordering::Acquire) {
                return;
            }
            let used = self.began.elapsed().as_millis() as u64;
            self.used_ms.store(used, Ordering::Relaxed);
            batch.iter().for_each(|answer| self.pass(&mut publisher, &answer));
        }
        publisher.flush();
        self.congestion.take_from(&mut publisher);
        if self.once {
            self.end();
        }
    }

    fn congested(&self) -> bool {
        self.congestion.is_any()
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.congestion.relief())
    }
}
