//! One subscription: whose, on what, how many deliveries at most.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::protocol::transform::Transform;

use super::Router;
use super::client::Client;
use super::service::Service;

/// Where the messages of a subscription go.
#[derive(Clone)]
pub enum Target {
    /// To a client, as MSG lines in its outbox.
    Client(Arc<Client>),
    /// To a room of this server, as batches.
    Service(Arc<dyn Service>),
}

/// What makes a subscription the shadow of one in another router (see `import`).
pub(super) struct Shadow {
    pub primary: Arc<Subscription>,
    /// The router of the primary.
    pub home: Weak<Router>,
    /// From the names here to those there; none when they are the same.
    pub rename: Option<Arc<Transform>>,
}

/// The shadows of a subscription, with the routers they are in, which own them.
type Shadows = Vec<(Weak<Router>, Weak<Subscription>)>;

/// A live subscription; the router's table and the publishers' caches share it.
pub struct Subscription {
    pub(super) id: u64,
    pub(super) sid: Box<[u8]>,
    pub(super) pattern: Box<[u8]>,
    pub(super) queue: Option<Box<[u8]>>,
    pub(super) target: Target,
    /// Identity of the target: subscriptions of one client share it, and so do those of one service.
    pub(super) target_id: u64,
    /// None for one that was asked for here.
    pub(super) shadow: Option<Box<Shadow>>,
    shadows: Mutex<Shadows>,
    /// Whether it gets what its router imports: clients do, rooms of this server only where they stand for clients.
    pub(super) takes_imports: bool,
    /// Deliveries allowed in all; zero is no limit.
    limit: AtomicU64,
    delivered: AtomicU64,
    closed: AtomicBool,
    /// Index in its leaf of the table, kept by the table under its lock.
    pub(super) place: AtomicU32,
}

impl Subscription {
    pub(super) fn new(
        id: u64,
        sid: &[u8],
        pattern: &[u8],
        queue: Option<&[u8]>,
        target: Target,
        target_id: u64,
    ) -> Self {
        Self {
            id,
            sid: sid.into(),
            pattern: pattern.into(),
            queue: queue.map(Into::into),
            target,
            target_id,
            shadow: None,
            shadows: Mutex::default(),
            takes_imports: true,
            limit: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            place: AtomicU32::new(0),
        }
    }

    /// The pattern subscribed to.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// The queue group, if any.
    pub fn queue(&self) -> Option<&[u8]> {
        self.queue.as_deref()
    }

    /// The client's name for it.
    pub fn sid(&self) -> &[u8] {
        &self.sid
    }

    /// The subscription that was asked for: itself, unless it is a shadow.
    #[inline]
    fn primary(&self) -> &Self {
        self.shadow.as_ref().map_or(self, |shadow| &shadow.primary)
    }

    pub(super) fn shadows(&self) -> MutexGuard<'_, Shadows> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its receiver calls a subject.
    #[inline]
    pub(super) fn renamed<'a>(&self, to: &'a [u8]) -> Cow<'a, [u8]> {
        let rename = self.shadow.as_ref().and_then(|shadow| shadow.rename.as_ref());
        match rename.and_then(|rename| rename.map(to, 0)) {
            Some(renamed) => Cow::Owned(renamed),
            None => Cow::Borrowed(to),
        }
    }

    /// Deliveries so far.
    pub fn delivered(&self) -> u64 {
        self.primary().delivered.load(Ordering::Relaxed)
    }

    /// The limit set by `UNSUB sid max`, zero for none.
    pub fn limit(&self) -> u64 {
        self.primary().limit.load(Ordering::Relaxed)
    }

    /// Whether a subject is left out for its client at delivery.
    pub(super) fn leaves_out(&self, to: &[u8]) -> bool {
        let queue = self.queue();
        matches!(&self.target, Target::Client(client) if client.leaves_out(&self.renamed(to), queue))
    }

    /// Whether subjects may be left out for its client.
    pub(super) fn filters(&self) -> bool {
        matches!(&self.target, Target::Client(client) if client.permit.filters())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.primary().closed.load(Ordering::Relaxed)
    }

    /// Marks it closed; true for the first caller only.
    pub(super) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn add_delivered(&self, count: u64) {
        self.primary().delivered.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the limit; true when it is reached already.
    pub(super) fn set_limit(&self, limit: u64) -> bool {
        self.limit.store(limit, Ordering::SeqCst);
        self.delivered.load(Ordering::SeqCst) >= limit
    }

    /// Counts one delivery against the limit: `None` when it may not be made, else whether it was the last.
    pub(super) fn take_one(&self, limit: u64) -> Option<bool> {
        let delivered = &self.primary().delivered;
        let before = delivered.fetch_add(1, Ordering::SeqCst);
        if before >= limit {
            delivered.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(before + 1 == limit)
    }
}
