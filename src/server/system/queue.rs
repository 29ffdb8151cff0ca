//! Requests on their way: from the connection that publishes one to the task that answers it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::account::Account;
use crate::router::{Batch, Service};

/// Bytes of requests waiting above which publishers wait, and above which requests are dropped.
const WAITING_HIGH: usize = 1 << 20;
const WAITING_MAX: usize = 8 << 20;
/// Bytes that a request takes besides its own.
const OVERHEAD: usize = 256;
/// Requests of one account that may wait in a queue of all; half as many make its publishers wait.
pub(super) const SHARE_MAX: usize = 64;

/// Requests of one publisher, in the account they were made in.
pub(super) struct Asked {
    pub account: Arc<Account>,
    pub batch: Batch,
    /// Requests of this account that wait or are being answered.
    share: Arc<AtomicUsize>,
}

impl Asked {
    fn weight(&self) -> usize {
        self.batch.bytes() + self.batch.len() * OVERHEAD
    }
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Asked>>,
    weight: AtomicUsize,
    requests: AtomicUsize,
    filled: Notify,
    relieved: Notify,
    /// Requests were dropped since last said so.
    dropping: AtomicBool,
}

impl Queue {
    fn push(&self, asked: Asked) {
        let weight = asked.weight();
        if self.weight.load(Ordering::Relaxed) + weight > WAITING_MAX {
            if !self.dropping.swap(true, Ordering::Relaxed) {
                tracing::warn!("System requests dropped: too many are waiting");
            }
            return;
        }
        self.weight.fetch_add(weight, Ordering::Relaxed);
        self.requests.fetch_add(asked.batch.len(), Ordering::Relaxed);
        asked.share.fetch_add(asked.batch.len(), Ordering::Relaxed);
        self.lock().push_back(asked);
        self.filled.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Asked>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next requests, once there are some; [`Queue::done`] follows.
    pub async fn next(&self) -> Asked {
        loop {
            let next = self.lock().pop_front();
            if let Some(asked) = next {
                return asked;
            }
            self.dropping.store(false, Ordering::Relaxed);
            self.filled.notified().await;
        }
    }

    /// These have been answered.
    pub fn done(&self, asked: &Asked) {
        self.weight.fetch_sub(asked.weight(), Ordering::Relaxed);
        self.requests.fetch_sub(asked.batch.len(), Ordering::Relaxed);
        asked.share.fetch_sub(asked.batch.len(), Ordering::Relaxed);
        self.relieved.notify_waiters();
    }

    /// Requests that wait or are being answered.
    pub fn len(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn is_congested(&self) -> bool {
        self.weight.load(Ordering::Relaxed) > WAITING_HIGH
    }
}

/// Where the requests of one account arrive.
pub(super) struct Desk {
    /// The account holds this through its router.
    account: Weak<Account>,
    queue: Arc<Queue>,
    share: Arc<AtomicUsize>,
    share_max: usize,
}

impl Desk {
    /// At most `share_max` requests of the account wait at a time.
    pub fn new(account: &Arc<Account>, queue: Arc<Queue>, share_max: usize) -> Self {
        Self {
            account: Arc::downgrade(account),
            queue,
            share: Arc::default(),
            share_max,
        }
    }

    /// As many of them as the account may have waiting.
    fn within_share(&self, batch: Batch) -> Batch {
        let room = self.share_max.saturating_sub(self.share.load(Ordering::Relaxed));
        if batch.len() <= room {
            return batch;
        }
        let surplus = batch.len() - room;
        tracing::debug!(
            "{surplus} system requests dropped: their account has {} waiting",
            self.share_max
        );
        let mut taken = Batch::new(batch.origin().cloned());
        batch.iter().take(room).for_each(|request| taken.push(&request));
        taken
    }

    fn is_congested(&self) -> bool {
        self.queue.is_congested() || self.share.load(Ordering::Relaxed) > self.share_max / 2
    }
}

impl Service for Desk {
    fn accept(&self, batch: Batch) {
        if batch.is_answers() {
            return;
        }
        let batch = self.within_share(batch);
        if let Some(account) = self.account.upgrade().filter(|_| !batch.is_empty()) {
            let share = self.share.clone();
            self.queue.push(Asked {
                account,
                batch,
                share,
            });
        }
    }

    fn congested(&self) -> bool {
        self.is_congested()
    }

    fn relief(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let mut relieved = std::pin::pin!(self.queue.relieved.notified());
                relieved.as_mut().enable();
                if !self.is_congested() {
                    return;
                }
                relieved.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Accounts, Auth};
    use crate::protocol::encode::Message;
    use crate::router::Publisher;

    #[tokio::test]
    async fn one_account_waits_for_itself_alone_and_answers_are_no_requests() {
        let accounts = Accounts::new(Auth::Open, &[], None);
        let account = accounts.global();
        let queue = Arc::new(Queue::default());
        let desk = Arc::new(Desk::new(account, queue.clone(), SHARE_MAX));
        let other = Desk::new(account, queue.clone(), SHARE_MAX);
        let service: Arc<dyn Service> = desk.clone();
        account.router.subscribe_service(&service, b"$SYS.REQ.>", None);
        let message = Message {
            subject: b"$SYS.REQ.USER.INFO",
            ..Message::default()
        };
        let mut answers = Publisher::of_answers(account.router.clone());
        answers.publish(&message, None);
        answers.flush();
        answers.release();
        answers.publish(&message, None);
        answers.flush();
        assert_eq!(queue.len(), 0);

        let mut publisher = Publisher::new(account.router.clone());
        for _ in 0..2 * SHARE_MAX {
            publisher.publish(&message, None);
        }
        publisher.flush();
        assert_eq!(queue.len(), SHARE_MAX);
        assert!(desk.congested() && !other.congested());
        let asked = queue.next().await;
        queue.done(&asked);
        desk.relief().await;
        assert_eq!((queue.len(), desk.congested()), (0, false));
    }
}
