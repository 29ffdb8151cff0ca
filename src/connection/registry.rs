//! All connections of the server: the live ones, the last closed ones, and what the closed ones have added up to.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::handle::Handle;
use super::reason::Reason;

/// Closed connections kept for `connz?state=closed`.
const CLOSED_KEPT_MAX: usize = 10_000;

/// Sums over all connections, live and gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Messages from clients.
    pub in_msgs: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Messages to clients.
    pub out_msgs: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
    /// Live connections.
    pub connections: usize,
    /// Connections ever.
    pub connections_ever: u64,
    /// Connections closed as slow consumers.
    pub slow_consumers: u64,
    /// Connections closed as stale.
    pub stale: u64,
    /// Connections refused for their credentials.
    pub auth_failures: u64,
    /// Times a publisher waited for a congested destination, live connections only.
    pub stalls: u64,
    /// Bytes waiting for live clients.
    pub pending_bytes: u64,
    /// Connections closed, by the number of their [`Reason`].
    pub closed: [u64; Reason::ALL.len()],
}

impl Totals {
    fn add(&mut self, handle: &Handle) {
        let counters = &handle.client.counters;
        self.in_msgs += counters.in_msgs.load(Ordering::Relaxed);
        self.in_bytes += counters.in_bytes.load(Ordering::Relaxed);
        self.out_msgs += counters.out_msgs.load(Ordering::Relaxed);
        self.out_bytes += counters.out_bytes.load(Ordering::Relaxed);
        self.stalls += handle.client.outbox.stalls();
    }
}

/// A connection that has ended.
pub struct Closed {
    /// What it was.
    pub handle: Arc<Handle>,
    /// When it ended.
    pub stop: SystemTime,
    /// Why.
    pub reason: Reason,
}

#[derive(Default)]
struct Inner {
    live: HashMap<u64, Arc<Handle>>,
    closed: VecDeque<Arc<Closed>>,
    gone: Totals,
    /// Set once the server stops: whoever comes still is told at once.
    closing: bool,
}

/// See the module documentation.
#[derive(Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    next_id: AtomicU64,
    emptied: Notify,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new connection.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a connection; false when there are `max` already.
    pub(super) fn add(&self, handle: &Arc<Handle>, max: usize) -> bool {
        let mut inner = self.lock();
        inner.gone.connections_ever += 1;
        if inner.live.len() >= max {
            return false;
        }
        if inner.closing {
            handle.stop(Reason::ServerShutdown);
        }
        inner.live.insert(handle.id(), handle.clone());
        true
    }

    pub(super) fn remove(&self, handle: &Arc<Handle>, reason: Reason) {
        let mut inner = self.lock();
        inner.live.remove(&handle.id());
        inner.gone.add(handle);
        inner.gone.closed[reason as usize] += 1;
        match reason {
            Reason::SlowConsumerPending | Reason::SlowConsumerDeadline => inner.gone.slow_consumers += 1,
            Reason::StaleConnection => inner.gone.stale += 1,
            Reason::AuthenticationFailure | Reason::AuthenticationTimeout => inner.gone.auth_failures += 1,
            _ => {}
        }
        if inner.closed.len() >= CLOSED_KEPT_MAX {
            inner.closed.pop_front();
        }
        inner.closed.push_back(Arc::new(Closed {
            handle: handle.clone(),
            stop: SystemTime::now(),
            reason,
        }));
        let is_empty = inner.live.is_empty();
        drop(inner);
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    /// Sends every connection away, those that are just being accepted too.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        for handle in inner.live.values() {
            handle.stop(Reason::ServerShutdown);
        }
    }

    /// Cuts every connection off, whatever it is still owed.
    pub fn abandon(&self) {
        for handle in self.live() {
            handle.client.outbox.abandon();
        }
    }

    /// A live connection by its number.
    pub fn get(&self, id: u64) -> Option<Arc<Handle>> {
        self.lock().live.get(&id).cloned()
    }

    /// The live connections, in no order.
    pub fn live(&self) -> Vec<Arc<Handle>> {
        self.lock().live.values().cloned().collect()
    }

    /// The last closed connections, oldest first.
    pub fn closed(&self) -> Vec<Arc<Closed>> {
        self.lock().closed.iter().cloned().collect()
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// Whether none is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes when no connection is live.
    pub async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Sums over all connections.
    pub fn totals(&self) -> Totals {
        let inner = self.lock();
        let mut totals = inner.gone;
        totals.connections = inner.live.len();
        for handle in inner.live.values() {
            totals.add(handle);
            totals.pending_bytes += handle.client.outbox.pending() as u64;
        }
        totals
    }
}
