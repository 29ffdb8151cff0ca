//! The publishing side: match through a cache, encode by destination, hand over once a batch.
//!
//! Subjects that are met again have a place of their own in the cache, with their delivery lines. The others (replies,
//! acks, a million sensors) mostly differ in their last token alone: such a family shares one place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::encode::{self, Message};
use crate::protocol::subject;

use super::Router;
use super::cache::{Cache, Route};
use super::client::Client;
use super::fanout::Fanout;
use super::generation::family;
use super::handover::Hand;
use super::service::Crossing;
use super::subscription::{Subscription, Target};

/// How long a publisher waits for a congested service before it goes on.
const SERVICE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Delivery lines are kept ready for subjects with at most so many receivers.
const LINES_MAX: usize = 256;
/// Deliveries after which whoever publishes should hand over and let others have their turn: some milliseconds' work.
const TURN_MAX: usize = 64 << 10;
/// One of so many subjects that are routed as their family gets a place of its own: those met often get it soon.
const OWN_PLACE_EVERY: u32 = 8;

/// Where the route of a subject is.
#[derive(Clone, Copy)]
enum Place {
    Own(usize),
    Family(usize),
}

/// How a fresh match is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// In a place of the subject's own: it has been met again.
    Own,
    /// For all of its family if that goes, else like [`Keep::Own`].
    Shared,
    /// For all of its family if that goes, else until the next of its kind: it will hardly be met again.
    Not,
}

/// Publishes for one connection, or for a room of the server. Nothing reaches anybody before [`Publisher::flush`].
pub struct Publisher {
    router: Arc<Router>,
    echo: bool,
    cache: Cache,
    /// Where the cache had the last subject: most publishers repeat themselves.
    last: usize,
    /// The same of families, by what their subjects have in common.
    families: Cache,
    last_family: usize,
    /// Subjects that were routed as their family.
    as_family: u32,
    /// Where a route is written before it has its place.
    scratch: Route,
    fanout: Fanout,
    hand: Hand,
    /// Deliveries looked at since the last flush.
    turn: usize,
    random: u64,
    matches: u64,
    hits: u64,
}

impl Publisher {
    /// A publisher of the server itself.
    pub fn new(router: Arc<Router>) -> Self {
        let random = std::ptr::from_ref(&*router) as u64 ^ router.next_id.fetch_add(1, Ordering::Relaxed);
        Self {
            router,
            echo: true,
            cache: Cache::default(),
            last: 0,
            families: Cache::default(),
            last_family: 0,
            as_family: 0,
            scratch: Route::default(),
            fanout: Fanout::new(None),
            hand: Hand::default(),
            turn: 0,
            random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            matches: 0,
            hits: 0,
        }
    }

    /// A publisher of the server itself for subjects that others have chosen (see [`Batch::is_answers`](super::Batch::is_answers)).
    pub fn of_answers(router: Arc<Router>) -> Self {
        let mut publisher = Self::new(router);
        publisher.fanout.answers = true;
        publisher
    }

    /// The publisher of a client's connection.
    pub fn of_client(router: Arc<Router>, client: Arc<Client>) -> Self {
        Self {
            fanout: Fanout::new(Some(client)),
            ..Self::new(router)
        }
    }

    /// Whether the client's own subscriptions get what it publishes.
    pub fn set_echo(&mut self, echo: bool) {
        if self.echo != echo {
            self.echo = echo;
            self.cache.release();
            self.families.release();
        }
    }

    /// Says how what is published from now on has come from other accounts. Nothing may be waiting.
    pub fn set_crossing(&mut self, crossing: Crossing) {
        self.fanout.crossing = crossing;
    }

    /// Whether the client whose publisher this is may publish on a subject; the server itself may.
    pub fn may_publish(&self, to: &[u8]) -> bool {
        let origin = self.fanout.origin.as_ref();
        origin.is_none_or(|client| client.may_publish(to))
    }

    /// Publishes on the message's own subject; says how many receive it.
    #[inline]
    pub fn publish(&mut self, message: &Message<'_>, shared: Option<&Bytes>) -> usize {
        self.deliver(message.subject, message, shared)
    }

    /// Publishes on a subject that is hardly met again, such as the reply of one request: it gets no place of its own.
    pub fn publish_once(&mut self, message: &Message<'_>) -> usize {
        self.matches += 1;
        let to = message.subject;
        let place = if self.cache.is_current(&self.router.generations, self.last, to) {
            self.hits += 1;
            Place::Own(self.last)
        } else {
            self.find_family(to)
                .unwrap_or_else(|| self.look_up(to, Keep::Not))
        };
        self.hand_out(place, to, message, None)
    }

    /// Routes by `to` what shows the subject of `message`; says how many receive it. With `shared` (the same bytes as the
    /// payload) the payload travels by reference.
    pub fn deliver(&mut self, to: &[u8], message: &Message<'_>, shared: Option<&Bytes>) -> usize {
        self.matches += 1;
        let place = if self.cache.is_current(&self.router.generations, self.last, to) {
            self.hits += 1;
            Place::Own(self.last)
        } else {
            self.find(to)
        };
        self.hand_out(place, to, message, shared)
    }

    /// Hands a message to all of a route.
    #[inline]
    fn hand_out(&mut self, place: Place, to: &[u8], message: &Message<'_>, shared: Option<&Bytes>) -> usize {
        let Self {
            cache,
            last,
            families,
            fanout,
            hand,
            turn,
            random,
            router,
            ..
        } = self;
        let route = match place {
            Place::Own(at) => {
                *last = at;
                cache.route(at)
            }
            Place::Family(at) => families.route(at),
        };
        *turn += route.plain.len() + route.groups.len();
        let mut receivers = 0;
        if route.line_ends.len() == route.plain.len() && std::ptr::eq(to, message.subject) {
            let mut start = 0;
            for (&index, &end) in route.plain.iter().zip(&route.line_ends) {
                let line = &route.lines[start..end as usize];
                start = end as usize;
                receivers += usize::from(fanout.hand(index, message, shared, Some(line)));
            }
        } else {
            for &index in &route.plain {
                receivers += usize::from(fanout.hand_to(index, to, message, shared));
            }
        }
        for group in &route.groups {
            hand.fill(&router.handovers);
            let start = pick(random, group.len());
            let mut members = group[start..].iter().chain(&group[..start]);
            receivers += usize::from(members.any(|&index| fanout.hand_to(index, to, message, shared)));
        }
        if !fanout.finished.is_empty() {
            for subscription in fanout.finished.drain(..) {
                router.finish(&subscription);
            }
        }
        receivers
    }

    /// Answers the origin itself on a subject it listens to: as in NATS one of its plain subscriptions gets it, one with
    /// wildcards before a literal one, and no limit counts it. False when it does not listen.
    #[cold]
    pub fn deliver_to_self(&mut self, to: &[u8], message: &Message<'_>) -> bool {
        let Some(origin) = &self.fanout.origin else {
            return false;
        };
        let own_id = origin.id << 1;
        let mut chosen: Option<Arc<Subscription>> = None;
        self.router.collect(self.router.hash(to), to, |leaf| {
            let is_literal = |chosen: &Arc<Subscription>| !subject::has_wildcard(chosen.pattern());
            if chosen.as_ref().is_none_or(is_literal)
                && let Some(own) = leaf.plain.iter().find(|member| member.target_id == own_id)
            {
                chosen = Some(own.clone());
            }
        });
        let Some(subscription) = chosen else {
            return false;
        };
        self.fanout.hand_to_origin(subscription.sid(), message);
        true
    }

    /// The cached route of a subject that is not the last one, matched afresh when need be.
    fn find(&mut self, to: &[u8]) -> Place {
        let hash = self.router.hash(to);
        let Some(at) = self.cache.find(&self.router.generations, hash, to) else {
            let Some(place) = self.find_family(to) else {
                return self.look_up(to, Keep::Shared);
            };
            self.as_family = self.as_family.wrapping_add(1);
            if self.as_family.is_multiple_of(OWN_PLACE_EVERY) {
                return self.look_up(to, Keep::Own);
            }
            return place;
        };
        self.hits += 1;
        // Met again: from now on its delivery lines are written once, not each time.
        let (route, subject) = self.cache.route_mut(at);
        if route.line_ends.len() != route.plain.len() && route.plain.len() <= LINES_MAX {
            for &index in &route.plain {
                let subscription = self.fanout.subscription(index);
                encode::delivery_start(
                    &mut route.lines,
                    &subscription.renamed(subject),
                    subscription.sid(),
                );
                route.line_ends.push(route.lines.len() as u32);
            }
        }
        Place::Own(at)
    }

    /// The cached route of a subject's family.
    fn find_family(&mut self, to: &[u8]) -> Option<Place> {
        let key = family(to)?;
        let generations = &self.router.generations;
        if !self.families.is_current(generations, self.last_family, key) {
            self.last_family = self.families.find(generations, self.router.hash(key), key)?;
        }
        self.hits += 1;
        Some(Place::Family(self.last_family))
    }

    /// Matches afresh.
    fn look_up(&mut self, to: &[u8], keep: Keep) -> Place {
        let hash = self.router.hash(to);
        let Self {
            router,
            fanout,
            scratch,
            ..
        } = self;
        let own = match &fanout.origin {
            Some(origin) if !self.echo => origin.id << 1,
            _ => u64::MAX,
        };
        let mut filtered = false;
        let mut takes = |member: &&Arc<Subscription>| {
            filtered |= member.filters();
            member.target_id != own && !member.leaves_out(to)
        };
        // Groups of one name on several matching patterns are one group.
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let found = router.collect(hash, to, |leaf| {
            for member in leaf.plain.iter().filter(&mut takes) {
                scratch.plain.push(fanout.learn(member));
            }
            for (name, members) in &leaf.groups {
                let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                    names.push(name.clone());
                    scratch.groups.push(Vec::new());
                    names.len() - 1
                });
                let others = members.iter().filter(&mut takes);
                scratch.groups[at].extend(others.map(|member| fanout.learn(member)));
            }
        });
        match (found.family, family(to)) {
            (Some((hash, seen)), Some(key)) if keep != Keep::Own && !filtered => {
                self.last_family = self.families.insert(hash, key, seen, scratch);
                Place::Family(self.last_family)
            }
            _ if keep == Keep::Not => Place::Own(self.cache.insert_once(hash, to, found.seen, scratch)),
            _ => Place::Own(self.cache.insert(hash, to, found.seen, scratch)),
        }
    }

    /// A number drawn as those are that pick the member of a queue group.
    pub fn random(&mut self) -> u32 {
        step(&mut self.random)
    }

    /// Where the connection writes its own words (PONG, +OK, -ERR), in order with deliveries to itself.
    ///
    /// Only for a publisher made with [`Publisher::of_client`].
    pub fn own(&mut self) -> &mut Vec<u8> {
        self.fanout.own()
    }

    /// Adds the delivery counts gathered so far to the subscriptions: before a limit is set on one of them.
    pub fn settle(&mut self) {
        self.fanout.settle();
    }

    /// Hands everything over, the origin's own bytes last, so that its PONG tells the truth.
    pub fn flush(&mut self) {
        self.fanout.flush();
        self.hand.empty();
        self.turn = 0;
        if self.matches > 0 {
            self.router
                .matches
                .fetch_add(std::mem::take(&mut self.matches), Ordering::Relaxed);
            self.router
                .cache_hits
                .fetch_add(std::mem::take(&mut self.hits), Ordering::Relaxed);
        }
        if self.fanout.is_stale() {
            self.release();
        }
    }

    /// Forgets caches and buffers; for a publisher that has become idle. Nothing may be waiting.
    pub fn release(&mut self) {
        self.cache.release();
        self.families.release();
        self.fanout.release();
    }

    /// Whether it is time for [`Publisher::flush`], and for others to have their turn.
    #[inline]
    pub fn has_had_its_turn(&self) -> bool {
        self.turn >= TURN_MAX || self.is_congested()
    }

    /// Whether [`Publisher::relieve`] would wait.
    pub fn is_congested(&self) -> bool {
        !self.fanout.congested.is_empty()
    }

    /// The same for `time` in all at most. For whoever answers requests: who waits for its own queue waits in vain.
    pub async fn relieve_within(&mut self, time: Duration) {
        tokio::time::timeout(time, self.relieve()).await.ok();
        self.fanout.congested.clear();
    }

    /// Waits, for a bounded time, until the destinations that were congested at the last flush have drained.
    pub async fn relieve(&mut self) {
        let alone = !self.fanout.has_others();
        while let Some(target) = self.fanout.congested.pop() {
            relieve(&target, alone).await;
        }
    }

    /// The destinations that were congested, for whoever waits in its place.
    pub(super) fn take_congested(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.fanout.congested)
    }
}

/// Waits for one destination, for a bounded time; `alone`: the publisher has no others.
pub(super) async fn relieve(target: &Target, alone: bool) {
    match target {
        Target::Client(client) => client.outbox.relief(alone).await,
        Target::Service(service) => {
            tokio::time::timeout(SERVICE_WAIT_MAX, service.relief())
                .await
                .ok();
        }
    }
}

/// A random index below `len` (xorshift; queue groups need spread, not secrecy).
fn pick(state: &mut u64, len: usize) -> usize {
    if len < 2 {
        return 0;
    }
    (step(state) as usize * len) >> 32
}

fn step(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u32
}
