//! What the router knows of one client: its outbox, its subscriptions, its counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
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

/// What whoever serves a client's connection can say of it.
pub trait About: Send + Sync {
    /// Who asks, as JSON for the header `Nats-Request-Info`; all there is to say, or the account alone.
    fn request_info(&self, detailed: bool) -> String;

    /// Whether it wants to hear that nobody listens to its request.
    fn wants_no_responders(&self) -> bool;
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
    about: OnceLock<Weak<dyn About>>,
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
            about: OnceLock::new(),
        })
    }

    /// Says whom to ask about it.
    pub fn set_about(&self, about: Weak<dyn About>) {
        self.about.set(about).ok();
    }

    /// Whoever serves its connection, while it does.
    pub fn about(&self) -> Option<Arc<dyn About>> {
        self.about.get()?.upgrade()
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

    /// Whether a subject is left out at delivery where it subscribes in a queue group, or without.
    pub fn leaves_out(&self, to: &[u8], queue: Option<&[u8]>) -> bool {
        self.permit.leaves_out(to, queue)
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
