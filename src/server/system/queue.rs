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

/// Requests of one publisher, in the account they were made in.
pub(super) struct Asked {
    pub account: Arc<Account>,
    pub batch: Batch,
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
}

impl Desk {
    pub fn new(account: &Arc<Account>, queue: Arc<Queue>) -> Self {
        Self {
            account: Arc::downgrade(account),
            queue,
        }
    }
}

impl Service for Desk {
    fn accept(&self, batch: Batch) {
        if let Some(account) = self.account.upgrade() {
            self.queue.push(Asked { account, batch });
        }
    }

    fn congested(&self) -> bool {
        self.queue.is_congested()
    }

    fn relief(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let mut relieved = std::pin::pin!(self.queue.relieved.notified());
                relieved.as_mut().enable();
                if !self.queue.is_congested() {
                    return;
                }
                relieved.await;
            }
        })
    }
}
