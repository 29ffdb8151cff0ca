//! What the router knows of one client: its outbox, its subscriptions, its counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::outbox::Outbox;
use super::permit::Permit;
use super::subscription::Subscription;

/// Message and byte counters of one client; bytes are headers and payload, not control lines.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages the client published.
    pub in_msgs: AtomicU64,
    /// Bytes the client published.
    pub in_bytes: AtomicU64,
    /// Messages handed to the client's outbox.
    pub out_msgs: AtomicU64,
    /// Bytes handed to the client's outbox.
    pub out_bytes: AtomicU64,
}

/// See the module documentation.
pub struct Client {
    /// Unique in this server.
    pub id: u64,
    /// Bytes on their way to it.
    pub outbox: Outbox,
    /// What went through.
    pub counters: Counters,
    /// Whether it takes HMSG; without, it gets MSG with the headers stripped.
    pub(super) headers: AtomicBool,
    /// What is heeded of its permissions at delivery.
    pub(super) permit: Permit,
    subscriptions: Mutex<HashMap<Box<[u8]>, Arc<Subscription>>>,
}

impl Client {
    /// A client with an empty outbox of at most `pending_max` bytes.
    pub fn new(id: u64, pending_max: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            outbox: Outbox::new(pending_max),
            counters: Counters::default(),
            headers: AtomicBool::new(false),
            permit: Permit::default(),
            subscriptions: Mutex::default(),
        })
    }

    /// Says whether it takes HMSG.
    pub fn set_headers(&self, on: bool) {
        self.headers.store(on, Ordering::Relaxed);
    }

    /// Whether it may publish to `to` because it received a message with this reply; counts it.
    pub fn may_answer(&self, to: &[u8]) -> bool {
        self.permit.answer(to, Instant::now())
    }

    /// Whether messages may be published on a subject in its name, replies apart.
    pub fn may_publish(&self, to: &[u8]) -> bool {
        self.permit.may_publish(to)
    }

    /// Whether a subject is left out for it at delivery.
    pub fn leaves_out(&self, to: &[u8]) -> bool {
        self.permit.leaves_out(to)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<Subscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its live subscriptions, in no order.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.table().values().cloned().collect()
    }

    /// How many subscriptions are live.
    pub fn subscription_count(&self) -> usize {
        self.table().len()
    }
}
