//! The publishing side: match through a cache, encode by destination, hand over once a batch.
//!
//! A publisher keeps local tables of the subscriptions and destinations it has met, so that a cached
//! delivery costs two index lookups and the copying of its bytes: no lock, no atomic write, no allocation.
//! Delivery counts and byte counters are summed here and added to the shared ones at [`Publisher::flush`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::protocol::encode::Message;

use super::cache::{Cache, Route};
use super::client::Client;
use super::generation::Seen;
use super::outbox::Flushed;
use super::service::Batch;
use super::subscription::{Subscription, Target};
use super::table::Leaf;
use super::wire::WireBuf;
use super::{OUTBOX_WATERMARK, Router};

/// A destination's scratch is handed over early when it grows beyond this within one batch.
const SCRATCH_MAX: usize = OUTBOX_WATERMARK;
/// How long a publisher waits for a congested service before it goes on.
const SERVICE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Local tables are looked through for closed subscriptions when they have grown to this.
const SWEEP_AT_MIN: usize = 1024;

/// A subscription this publisher has met.
struct Known {
    subscription: Arc<Subscription>,
    destination: u32,
    /// Deliveries since the last flush.
    delivered: u32,
}

/// A destination this publisher has met, with what waits to be handed over.
struct Destination {
    target: Target,
    wire: WireBuf,
    batch: Batch,
    msgs: u64,
    bytes: u64,
    dirty: bool,
}

/// See the module documentation.
pub struct Publisher {
    router: Arc<Router>,
    origin: Option<Arc<Client>>,
    echo: bool,
    cache: Cache,
    known: Vec<Known>,
    known_by_id: HashMap<u64, u32>,
    destinations: Vec<Destination>,
    destination_by_id: HashMap<u64, u32>,
    dirty: Vec<u32>,
    counted: Vec<u32>,
    congested: Vec<Target>,
    finished: Vec<Arc<Subscription>>,
    random: u64,
    sweep_at: usize,
    matches: u64,
    hits: u64,
}

impl Publisher {
    /// A publisher of the server itself.
    pub fn new(router: Arc<Router>) -> Self {
        let random = std::ptr::from_ref(&*router) as u64 ^ router.next_id.fetch_add(1, Ordering::Relaxed);
        Self {
            router,
            origin: None,
            echo: true,
            cache: Cache::default(),
            known: Vec::new(),
            known_by_id: HashMap::new(),
            destinations: Vec::new(),
            destination_by_id: HashMap::new(),
            dirty: Vec::new(),
            counted: Vec::new(),
            congested: Vec::new(),
            finished: Vec::new(),
            random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            sweep_at: SWEEP_AT_MIN,
            matches: 0,
            hits: 0,
        }
    }

    /// The publisher of a client's connection.
    pub fn of_client(router: Arc<Router>, client: Arc<Client>) -> Self {
        Self {
            origin: Some(client),
            ..Self::new(router)
        }
    }

    /// Whether the client's own subscriptions get what it publishes.
    pub fn set_echo(&mut self, echo: bool) {
        if self.echo != echo {
            self.echo = echo;
            self.cache.release();
        }
    }

    /// Publishes on the message's own subject; says how many receive it.
    #[inline]
    pub fn publish(&mut self, message: &Message<'_>, shared: Option<&Bytes>) -> usize {
        self.deliver(message.subject, message, shared)
    }

    /// Routes by `to` what shows the subject of `message`; says how many receive it. With `shared` (the same bytes as the
    /// payload) the payload travels by reference.
    pub fn deliver(&mut self, to: &[u8], message: &Message<'_>, shared: Option<&Bytes>) -> usize {
        let hash = self.router.hash(to);
        self.matches += 1;
        let at = match self.cache.find(hash, to) {
            Some((at, seen)) if self.router.generations.is_current(hash, seen) => {
                self.hits += 1;
                at
            }
            _ => self.look_up(hash, to),
        };
        let mut receivers = 0;
        let mut tables = Tables {
            known: &mut self.known,
            destinations: &mut self.destinations,
            dirty: &mut self.dirty,
            counted: &mut self.counted,
            finished: &mut self.finished,
            origin: self.origin.as_ref(),
        };
        let route = self.cache.route(at);
        for &index in &route.plain {
            receivers += usize::from(tables.hand(index, message, shared));
        }
        for group in &route.groups {
            let start = pick(&mut self.random, group.len());
            let mut members = group[start..].iter().chain(&group[..start]);
            receivers += usize::from(members.any(|&index| tables.hand(index, message, shared)));
        }
        if !self.finished.is_empty() {
            for subscription in self.finished.drain(..) {
                self.router.remove(&subscription);
            }
        }
        receivers
    }

    /// Delivers to the origin's own subscriptions on `to` only; says how many there were.
    pub fn deliver_to_self(&mut self, to: &[u8], message: &Message<'_>) -> usize {
        let Some(origin) = self.origin.clone() else {
            return 0;
        };
        let own = origin.subscriptions();
        let mut receivers = 0;
        for subscription in own
            .iter()
            .filter(|own| crate::protocol::subject::matches(own.pattern(), to))
        {
            let index = self.learn(subscription);
            receivers += usize::from(self.tables().hand(index, message, None));
        }
        receivers
    }

    fn tables(&mut self) -> Tables<'_> {
        Tables {
            known: &mut self.known,
            destinations: &mut self.destinations,
            dirty: &mut self.dirty,
            counted: &mut self.counted,
            finished: &mut self.finished,
            origin: self.origin.as_ref(),
        }
    }

    /// Matches afresh and caches the outcome.
    fn look_up(&mut self, hash: u64, to: &[u8]) -> usize {
        let router = self.router.clone();
        let mut cache = std::mem::take(&mut self.cache);
        let at = cache.insert(hash, to, |route| self.fill(&router, hash, to, route));
        self.cache = cache;
        at
    }

    fn fill(&mut self, router: &Router, hash: u64, to: &[u8], route: &mut Route) -> Seen {
        let own = match &self.origin {
            Some(origin) if !self.echo => origin.id << 1,
            _ => u64::MAX,
        };
        // Groups of one name on several matching patterns are one group.
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let table = router
            .table
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = router.generations.seen(hash, to);
        // A subject with an empty token matches nothing, not even `>`.
        if !crate::protocol::subject::is_well_formed(to) {
            return seen;
        }
        table.collect(hash, to, &mut |leaf: &Leaf| {
            for member in leaf.plain.iter().filter(|member| member.target_id != own) {
                route.plain.push(self.learn(member));
            }
            for (name, members) in &leaf.groups {
                let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                    names.push(name.clone());
                    route.groups.push(Vec::new());
                    names.len() - 1
                });
                let others = members.iter().filter(|member| member.target_id != own);
                route.groups[at].extend(others.map(|member| self.learn(member)));
            }
        });
        seen
    }

    /// The local index of a subscription.
    fn learn(&mut self, subscription: &Arc<Subscription>) -> u32 {
        if let Some(&index) = self.known_by_id.get(&subscription.id) {
            return index;
        }
        let destination = self.destination(subscription.target_id, &subscription.target);
        let index = u32::try_from(self.known.len()).expect("swept long before");
        self.known.push(Known {
            subscription: subscription.clone(),
            destination,
            delivered: 0,
        });
        self.known_by_id.insert(subscription.id, index);
        index
    }

    fn destination(&mut self, id: u64, target: &Target) -> u32 {
        *self.destination_by_id.entry(id).or_insert_with(|| {
            self.destinations.push(Destination {
                target: target.clone(),
                wire: WireBuf::default(),
                batch: Batch::new(self.origin.clone()),
                msgs: 0,
                bytes: 0,
                dirty: false,
            });
            u32::try_from(self.destinations.len() - 1).expect("swept long before")
        })
    }

    /// Where the connection writes its own words (PONG, +OK, -ERR), in order with deliveries to itself.
    ///
    /// Only for a publisher made with [`Publisher::of_client`].
    pub fn own(&mut self) -> &mut Vec<u8> {
        let origin = self.origin.clone().expect("a client's publisher has an origin");
        let index = self.destination(origin.id << 1, &Target::Client(origin));
        let destination = &mut self.destinations[index as usize];
        if !destination.dirty {
            destination.dirty = true;
            self.dirty.push(index);
        }
        destination.wire.flat()
    }

    /// Adds the delivery counts gathered so far to the subscriptions: before a limit is set on one of them.
    pub fn settle(&mut self) {
        for index in self.counted.drain(..) {
            let known = &mut self.known[index as usize];
            known
                .subscription
                .add_delivered(u64::from(std::mem::take(&mut known.delivered)));
        }
    }

    /// Hands everything over, the origin's own bytes last, so that its PONG tells the truth.
    pub fn flush(&mut self) {
        self.settle();
        let own = self.origin.as_ref().map(|origin| origin.id);
        let mut own_index = None;
        let dirty = std::mem::take(&mut self.dirty);
        for &index in &dirty {
            let is_own = matches!((&self.destinations[index as usize].target, own),
                (Target::Client(client), Some(own)) if client.id == own);
            if is_own {
                own_index = Some(index);
            } else {
                self.hand_over(index);
            }
        }
        if let Some(index) = own_index {
            self.hand_over(index);
        }
        self.dirty = dirty;
        self.dirty.clear();
        if self.matches > 0 {
            self.router
                .matches
                .fetch_add(std::mem::take(&mut self.matches), Ordering::Relaxed);
            self.router
                .cache_hits
                .fetch_add(std::mem::take(&mut self.hits), Ordering::Relaxed);
        }
        if self.known.len() > self.sweep_at {
            self.sweep();
        }
    }

    fn hand_over(&mut self, index: u32) {
        if let Some(congested) = hand_over(&mut self.destinations[index as usize]) {
            self.congested.push(congested);
        }
    }

    /// Starts over when most of what is known is gone; otherwise looks again when there is twice as much.
    fn sweep(&mut self) {
        let closed = self
            .known
            .iter()
            .filter(|known| known.subscription.is_closed())
            .count();
        if closed * 2 > self.known.len() {
            self.release();
        } else {
            self.sweep_at = self.known.len() * 2;
        }
    }

    /// Forgets caches and buffers; for a publisher that has become idle. Nothing may be waiting.
    pub fn release(&mut self) {
        debug_assert!(
            self.dirty.is_empty() && self.counted.is_empty(),
            "released with work waiting"
        );
        self.cache.release();
        self.known = Vec::new();
        self.known_by_id = HashMap::new();
        self.destinations = Vec::new();
        self.destination_by_id = HashMap::new();
        self.dirty = Vec::new();
        self.counted = Vec::new();
        self.sweep_at = SWEEP_AT_MIN;
    }

    /// Whether [`Publisher::relieve`] would wait.
    pub fn is_congested(&self) -> bool {
        !self.congested.is_empty()
    }

    /// Waits, for a bounded time, until the destinations that were congested at the last flush have drained.
    pub async fn relieve(&mut self) {
        while let Some(target) = self.congested.pop() {
            match target {
                Target::Client(client) => client.outbox.relief().await,
                Target::Service(service) => {
                    tokio::time::timeout(SERVICE_WAIT_MAX, service.relief())
                        .await
                        .ok();
                }
            }
        }
    }
}

/// Hands one destination what waits for it; returns it when its publishers should wait.
fn hand_over(destination: &mut Destination) -> Option<Target> {
    destination.dirty = false;
    match &destination.target {
        Target::Client(client) => {
            let msgs = std::mem::take(&mut destination.msgs);
            let bytes = std::mem::take(&mut destination.bytes);
            let flushed = client.outbox.flush(&mut destination.wire);
            if flushed != Flushed::Dropped && msgs > 0 {
                client.counters.out_msgs.fetch_add(msgs, Ordering::Relaxed);
                client.counters.out_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            (flushed == Flushed::Congested).then(|| destination.target.clone())
        }
        Target::Service(service) => {
            let origin = destination.batch.origin().cloned();
            service.accept(std::mem::replace(&mut destination.batch, Batch::new(origin)));
            service.congested().then(|| destination.target.clone())
        }
    }
}

/// The local tables, borrowed apart from the cache that is being read.
struct Tables<'a> {
    known: &'a mut Vec<Known>,
    destinations: &'a mut Vec<Destination>,
    dirty: &'a mut Vec<u32>,
    counted: &'a mut Vec<u32>,
    finished: &'a mut Vec<Arc<Subscription>>,
    origin: Option<&'a Arc<Client>>,
}

impl Tables<'_> {
    /// Encodes one delivery; false when the subscription takes no more.
    #[inline]
    fn hand(&mut self, index: u32, message: &Message<'_>, shared: Option<&Bytes>) -> bool {
        let known = &mut self.known[index as usize];
        let subscription = &known.subscription;
        let limit = subscription.limit();
        if limit != 0 {
            match subscription.take_one(limit) {
                None => return false,
                Some(true) => self.finished.push(subscription.clone()),
                Some(false) => {}
            }
        } else {
            if subscription.is_closed() {
                return false;
            }
            if known.delivered == 0 {
                self.counted.push(index);
            }
            known.delivered += 1;
        }
        let at = known.destination;
        let destination = &mut self.destinations[at as usize];
        if !destination.dirty {
            destination.dirty = true;
            self.dirty.push(at);
        }
        match &destination.target {
            Target::Client(client) => {
                let headers = !message.headers.is_empty() && client.headers.load(Ordering::Relaxed);
                destination
                    .wire
                    .delivery(&subscription.sid, message, headers, shared);
                destination.msgs += 1;
                destination.bytes += if headers {
                    message.len()
                } else {
                    message.payload.len()
                } as u64;
                if destination.wire.len() > SCRATCH_MAX && !self.is_origin(at) {
                    self.hand_over_early(at);
                }
            }
            Target::Service(_) => {
                destination.batch.push(message);
                if destination.batch.bytes() > SCRATCH_MAX {
                    self.hand_over_early(at);
                }
            }
        }
        true
    }

    fn is_origin(&self, at: u32) -> bool {
        matches!((&self.destinations[at as usize].target, self.origin),
            (Target::Client(client), Some(origin)) if client.id == origin.id)
    }

    /// Keeps scratch bounded under wide fan-out; congestion is noticed at the next flush.
    #[cold]
    fn hand_over_early(&mut self, at: u32) {
        let destination = &mut self.destinations[at as usize];
        hand_over(destination);
        destination.dirty = true;
    }
}

/// A random index below `len` (xorshift; queue groups need spread, not secrecy).
fn pick(state: &mut u64, len: usize) -> usize {
    if len < 2 {
        return 0;
    }
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    ((*state >> 32) as usize * len) >> 32
}
