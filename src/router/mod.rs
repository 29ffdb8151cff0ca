//! Who gets what, in memory: subscriptions, matching, fan-out, outboxes.
//!
//! - [`Router`] holds the subscription table. Reading it takes a shared lock for one lookup, changing it an
//!   exclusive one for one insertion; nothing else is done under it.
//! - [`Publisher`] is owned by whoever publishes (a connection, a stream): its match cache takes no lock on a hit, and
//!   it groups what it encodes by destination, so that each destination is locked and woken once a batch.
//! - [`Client`] is a destination with an [`Outbox`] of bytes; a [`Service`] is a room of this server.
//!
//! Invariants: messages of one publisher reach each destination in order; nothing is delivered after
//! [`Router::unsubscribe`] returned, except what the publisher of another connection already has in its batch: who must
//! know that this is over too waits for [`Router::settled`]; no lock is held while another room is called.
//!
//! Deliberately absent: persistence, sockets, and permissions but for what they mean at delivery (`permit`).

mod cache;
mod client;
mod congestion;
mod fanout;
mod generation;
mod handover;
mod import;
mod outbox;
mod patience;
mod permit;
mod publisher;
mod service;
mod subscription;
mod table;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::DefaultHashBuilder;

pub use client::{About, Client, Counters};
pub use congestion::Congestion;
pub use import::Import;
pub use outbox::{Closed, Flushed, Idle, Outbox};
pub use patience::Patience;
pub use permit::{Denied, Filter, MayPublish, Responses, Terms};
pub use publisher::Publisher;
pub use service::{Batch, Crossing, Service};
pub use subscription::{Subscription, Target};
pub use watch::Watcher;
pub use wire::WireBuf;

use generation::{Generations, Seen, family};
use handover::Handovers;
use import::Imports;
use table::{Leaf, Table};
use watch::Watches;

/// Bytes waiting in one outbox above which its publishers are asked to wait.
pub const OUTBOX_WATERMARK: usize = 1 << 20;

/// Totals of a router since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouterStats {
    /// Live subscriptions of clients; the server's own rooms are not counted.
    pub subscriptions: usize,
    /// Subscriptions ever added.
    pub inserts: u64,
    /// Subscriptions ever removed.
    pub removes: u64,
    /// Lookups made by publishers.
    pub matches: u64,
    /// Of them, answered by a publisher's cache.
    pub cache_hits: u64,
}

/// What to check a match against that is kept.
struct Collected {
    seen: Seen,
    /// The same with the hash of its family, if all of that match alike.
    family: Option<(u64, Seen)>,
}

/// See the module documentation.
pub struct Router {
    table: RwLock<Table>,
    generations: Generations,
    hasher: DefaultHashBuilder,
    next_id: AtomicU64,
    services: AtomicUsize,
    inserts: AtomicU64,
    removes: AtomicU64,
    matches: AtomicU64,
    cache_hits: AtomicU64,
    watches: Watches,
    imports: Imports,
    handovers: Handovers,
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// An empty router.
    pub fn new() -> Self {
        Self {
            table: RwLock::default(),
            generations: Generations::new(),
            hasher: DefaultHashBuilder::default(),
            next_id: AtomicU64::new(1),
            services: AtomicUsize::new(0),
            inserts: AtomicU64::new(0),
            removes: AtomicU64::new(0),
            matches: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            watches: Watches::default(),
            imports: Imports::default(),
            handovers: Handovers::default(),
        }
    }

    fn hash(&self, subject: &[u8]) -> u64 {
        self.hasher.hash_one(subject)
    }

    /// Subscribes a client under its `sid`. A sid in use is left as it is, as NATS does.
    ///
    /// The pattern must be valid ([`crate::protocol::subject::is_pattern`]).
    pub fn subscribe(&self, client: &Arc<Client>, sid: &[u8], pattern: &[u8], queue: Option<&[u8]>) {
        let target = Target::Client(client.clone());
        let subscription = {
            let mut table = client.table();
            // One that another publisher is just ending by its limit no longer counts.
            if table.get(sid).is_some_and(|known| !known.is_closed()) || client.outbox.closed().is_some() {
                return;
            }
            let subscription = Arc::new(self.make(sid, pattern, queue, target, client.id << 1));
            table.insert(sid.into(), subscription.clone());
            subscription
        };
        self.insert(subscription);
    }

    /// Subscribes a room of this server; keep the handle to end it with [`Router::remove`].
    ///
    /// It gets what is published here, not what is imported: nobody in another account talks to this account's API.
    pub fn subscribe_service(
        &self,
        service: &Arc<dyn Service>,
        pattern: &[u8],
        queue: Option<&[u8]>,
    ) -> Arc<Subscription> {
        self.admit_service(service, pattern, queue, false)
    }

    /// The same for one that takes imports as a client's subscription does: a stream, a program that embeds this server.
    pub fn subscribe_service_as_client(
        &self,
        service: &Arc<dyn Service>,
        pattern: &[u8],
    ) -> Arc<Subscription> {
        self.admit_service(service, pattern, None, true)
    }

    fn admit_service(
        &self,
        service: &Arc<dyn Service>,
        pattern: &[u8],
        queue: Option<&[u8]>,
        takes_imports: bool,
    ) -> Arc<Subscription> {
        // The address is odd by the mark, a client's id even: the two never meet.
        let target_id = Arc::as_ptr(service).cast::<()>() as u64 | 1;
        let mut made = self.make(b"", pattern, queue, Target::Service(service.clone()), target_id);
        made.takes_imports = takes_imports;
        let subscription = Arc::new(made);
        self.services.fetch_add(1, Ordering::Relaxed);
        self.insert(subscription.clone());
        subscription
    }

    fn make(
        &self,
        sid: &[u8],
        pattern: &[u8],
        queue: Option<&[u8]>,
        target: Target,
        target_id: u64,
    ) -> Subscription {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Subscription::new(id, sid, pattern, queue, target, target_id)
    }

    fn insert(&self, subscription: Arc<Subscription>) {
        let hash = self.hash(&subscription.pattern);
        let is_shadow = subscription.shadow.is_some();
        if let Target::Client(_) = &subscription.target
            && !is_shadow
        {
            self.inserts.fetch_add(1, Ordering::Relaxed);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(hash, subscription.clone());
        self.moved(hash, &subscription.pattern, true);
        drop(table);
        self.watches.changed(&subscription.pattern);
        if subscription.takes_imports && self.has_imports() {
            self.cast_shadows(&subscription);
        }
    }

    /// Ends a client's subscription; with `max`, once it has had that many deliveries in all. True if it has left a queue
    /// group by that.
    pub fn unsubscribe(&self, client: &Client, sid: &[u8], max: Option<u64>) -> bool {
        let subscription = client.table().get(sid).cloned();
        let Some(subscription) = subscription else {
            return false;
        };
        if max.is_some_and(|max| !subscription.set_limit(max)) {
            return false;
        }
        self.remove(&subscription);
        subscription.queue.is_some()
    }

    /// Completes when no member of a queue group that has left before this is called gets anything more: publishers here, and
    /// where this router imports from, have handed over what they had in hand. Who waits has flushed its own publisher.
    pub async fn settled(&self) {
        self.handovers.settled().await;
        for from in self.sources() {
            from.handovers.settled().await;
        }
    }

    /// Ends a subscription; ending it twice is harmless.
    pub fn remove(&self, subscription: &Subscription) {
        if !subscription.close() {
            return;
        }
        let is_shadow = subscription.shadow.is_some();
        if is_shadow || matches!(subscription.target, Target::Service(_)) {
            self.services.fetch_sub(1, Ordering::Relaxed);
        }
        if let Target::Client(client) = &subscription.target
            && !is_shadow
        {
            self.removes.fetch_add(1, Ordering::Relaxed);
            let mut table = client.table();
            // The sid may have been given anew meanwhile.
            if table
                .get(&subscription.sid)
                .is_some_and(|known| known.id == subscription.id)
            {
                table.remove(&subscription.sid);
            }
        }
        let hash = self.hash(&subscription.pattern);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(hash, subscription);
        self.moved(hash, &subscription.pattern, false);
        drop(table);
        self.watches.changed(&subscription.pattern);
        if !is_shadow {
            Self::end_shadows(subscription);
        }
    }

    /// Ends all subscriptions of a client.
    pub fn remove_client(&self, client: &Client) {
        for subscription in client.subscriptions() {
            self.remove(&subscription);
        }
        client.table().shrink_to_fit();
    }

    /// Sets what is heeded of a client's permissions, nothing with none; from its next message on.
    pub fn set_terms(&self, client: &Client, terms: Option<Terms>) {
        client.permit.set(terms);
        // Routes that others have cached were made under the old terms.
        for subscription in client.subscriptions() {
            self.touch(&subscription);
            for (router, shadow) in &*subscription.shadows() {
                if let (Some(router), Some(shadow)) = (router.upgrade(), shadow.upgrade()) {
                    router.touch(&shadow);
                }
            }
        }
    }

    /// A subscription has come or gone; called while the table is locked for writing.
    fn moved(&self, hash: u64, pattern: &[u8], comes: bool) {
        if !crate::protocol::subject::has_wildcard(pattern)
            && let Some(family) = family(pattern)
        {
            self.generations.literal_moved(self.hash(family), comes);
        }
        self.generations.changed(hash, pattern);
    }

    /// Has what was cached of a subscription looked up anew.
    fn touch(&self, subscription: &Subscription) {
        let hash = self.hash(&subscription.pattern);
        self.generations.changed(hash, &subscription.pattern);
    }

    /// Whether anybody would get a message on this literal subject.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        let mut found = false;
        self.collect(self.hash(subject), subject, |_| found = true);
        found
    }

    /// The same for a queue group: whether it has members there.
    pub fn has_group_interest(&self, subject: &[u8], group: &[u8]) -> bool {
        let mut found = false;
        self.collect(self.hash(subject), subject, |leaf| {
            found |= leaf.groups.iter().any(|(name, _)| &**name == group);
        });
        found
    }

    /// Counts every change of the table: what [`Router::has_interest`] said stays true while this stays the same.
    pub fn generation(&self) -> u64 {
        self.generations.epoch()
    }

    /// Lets `watcher` know whenever subscriptions that match a literal subject come or go.
    pub fn watch(&self, subject: &[u8], watcher: Arc<dyn Watcher>) {
        self.watches.add(subject, watcher);
    }

    /// Ends a [`Router::watch`].
    pub fn unwatch(&self, subject: &[u8], watcher: &Arc<dyn Watcher>) {
        self.watches.remove(subject, watcher);
    }

    /// Calls `found` for what matches `subject`; returns what to check a cached match against. A subject with an empty
    /// token matches nothing, not even `>`.
    fn collect(&self, hash: u64, subject: &[u8], mut found: impl FnMut(&Leaf)) -> Collected {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let seen = self.generations.seen(hash, subject);
        let alike =
            crate::protocol::subject::is_well_formed(subject) && table.collect(hash, subject, &mut found);
        let family = family(subject).filter(|_| alike).and_then(|family| {
            let hash = self.hash(family);
            Some((hash, self.generations.seen_family(hash, subject)?))
        });
        Collected { seen, family }
    }

    /// Totals for monitoring.
    pub fn stats(&self) -> RouterStats {
        let all = self.table.read().unwrap_or_else(PoisonError::into_inner).len();
        RouterStats {
            subscriptions: all.saturating_sub(self.services.load(Ordering::Relaxed)),
            inserts: self.inserts.load(Ordering::Relaxed),
            removes: self.removes.load(Ordering::Relaxed),
            matches: self.matches.load(Ordering::Relaxed),
            cache_hits: self.cache_hits.load(Ordering::Relaxed),
        }
    }
}
