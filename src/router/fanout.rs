//! A publisher's own tables: the subscriptions and destinations it has met, and what waits for each of them.
//!
//! An index here stands for a subscription in the publisher's match cache, so that a cached delivery costs two index
//! lookups and the copying of its bytes: no lock, no shared write, no allocation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::protocol::encode::Message;

use super::OUTBOX_WATERMARK;
use super::client::Client;
use super::outbox::Flushed;
use super::service::{Batch, Crossing};
use super::subscription::{Subscription, Target};
use super::wire::WireBuf;

/// A destination's scratch is handed over early when it grows beyond this within one batch.
const SCRATCH_MAX: usize = OUTBOX_WATERMARK;
/// The tables are looked through for closed subscriptions when they have grown to this.
const SWEEP_AT_MIN: usize = 1024;

/// A subscription that was met.
struct Known {
    subscription: Arc<Subscription>,
    destination: u32,
    /// Deliveries since the last flush.
    delivered: u32,
}

/// A destination that was met, with what waits to be handed over.
struct Destination {
    target: Target,
    wire: WireBuf,
    batch: Batch,
    msgs: u64,
    bytes: u64,
    dirty: bool,
    /// The round in which it was last found congested.
    noted: u64,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Fanout {
    /// Whose publisher it is; none for one of the server itself.
    pub origin: Option<Arc<Client>>,
    /// See [`Batch::is_answers`].
    pub answers: bool,
    /// How what it publishes has come from other accounts.
    pub crossing: Crossing,
    /// Subscriptions that have had their last delivery and are to be removed.
    pub finished: Vec<Arc<Subscription>>,
    /// Destinations found congested when they were handed something.
    pub congested: Vec<Target>,
    /// Moves whenever the first of those is noted.
    round: u64,
    known: Vec<Known>,
    known_by_id: HashMap<u64, u32>,
    destinations: Vec<Destination>,
    destination_by_id: HashMap<u64, u32>,
    dirty: Vec<u32>,
    counted: Vec<u32>,
    sweep_at: usize,
}

impl Fanout {
    pub fn new(origin: Option<Arc<Client>>) -> Self {
        Self {
            origin,
            sweep_at: SWEEP_AT_MIN,
            ..Self::default()
        }
    }

    /// The index of a subscription.
    pub fn learn(&mut self, subscription: &Arc<Subscription>) -> u32 {
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

    /// The subscription at an index.
    pub fn subscription(&self, index: u32) -> &Subscription {
        &self.known[index as usize].subscription
    }

    fn destination(&mut self, id: u64, target: &Target) -> u32 {
        *self.destination_by_id.entry(id).or_insert_with(|| {
            self.destinations.push(Destination {
                target: target.clone(),
                wire: WireBuf::default(),
                batch: Batch::of(self.origin.clone(), self.answers),
                msgs: 0,
                bytes: 0,
                dirty: false,
                noted: 0,
            });
            u32::try_from(self.destinations.len() - 1).expect("swept long before")
        })
    }

    /// Encodes one delivery of what was routed by `to`, under the name its receiver has for it.
    pub fn hand_to(&mut self, index: u32, to: &[u8], message: &Message<'_>, shared: Option<&Bytes>) -> bool {
        let renames = self.subscription(index).shadow.is_some() && to == message.subject;
        if !renames {
            return self.hand(index, message, shared, None);
        }
        let renamed = self.known[index as usize].subscription.clone();
        let renamed = renamed.renamed(to);
        let message = Message {
            subject: &renamed,
            ..*message
        };
        self.hand(index, &message, shared, None)
    }

    /// Encodes one delivery, with the start of its line if that is at hand; false when the subscription takes no more.
    #[inline]
    pub fn hand(
        &mut self,
        index: u32,
        message: &Message<'_>,
        shared: Option<&Bytes>,
        line: Option<&[u8]>,
    ) -> bool {
        let known = &mut self.known[index as usize];
        let subscription = &known.subscription;
        if subscription.is_closed() {
            return false;
        }
        let limit = subscription.limit();
        if limit != 0 {
            // What was handed out before the limit was set counts towards it.
            subscription.add_delivered(u64::from(std::mem::take(&mut known.delivered)));
            match subscription.take_one(limit) {
                None => {
                    // The last delivery was counted by somebody who did not know of the limit.
                    self.finished.push(subscription.clone());
                    return false;
                }
                Some(true) => self.finished.push(subscription.clone()),
                Some(false) => {}
            }
        } else {
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
        let waiting = match &destination.target {
            Target::Client(client) => {
                let headers = !message.headers.is_empty() && client.headers.load(Ordering::Relaxed);
                if !message.reply.is_empty() {
                    client.permit.delivered(message.reply);
                }
                match line {
                    Some(line) => destination.wire.delivery_with(line, message, headers, shared),
                    None => destination
                        .wire
                        .delivery(&subscription.sid, message, headers, shared),
                }
                destination.msgs += 1;
                destination.bytes += if headers {
                    message.len()
                } else {
                    message.payload.len()
                } as u64;
                destination.wire.len()
            }
            Target::Service(_) if subscription.shadow.is_some() && line.is_some() => {
                let renamed = Message {
                    subject: &subscription.renamed(message.subject),
                    ..*message
                };
                destination.batch.push(&renamed);
                destination.batch.bytes()
            }
            Target::Service(_) => {
                destination.batch.push(message);
                destination.batch.bytes()
            }
        };
        if waiting > SCRATCH_MAX {
            self.hand_over_early(at);
        }
        true
    }

    /// Keeps scratch bounded under wide fan-out, and says when it is time to wait. What the origin itself gets may hold a
    /// PONG: all that was published before it goes first.
    #[cold]
    fn hand_over_early(&mut self, at: u32) {
        // Who sees a delivery may set a limit next, which counts it.
        self.settle();
        let is_origin = self.is_origin(at);
        if is_origin {
            let others = self.dirty.clone();
            for other in others.into_iter().filter(|&other| other != at) {
                self.hand_over(other);
                self.destinations[other as usize].dirty = true;
            }
        }
        self.hand_over(at);
        let destination = &mut self.destinations[at as usize];
        // It stands in the list of what is to be handed over still.
        destination.dirty = true;
        // An origin that no longer takes anything has its batch cut short the same way.
        if let Target::Client(client) = &destination.target
            && is_origin
            && client.outbox.closed().is_some()
        {
            self.note_congested(at);
        }
    }

    /// Encodes one delivery to the origin itself, whatever it subscribes to.
    pub fn hand_to_origin(&mut self, sid: &[u8], message: &Message<'_>) {
        self.own();
        let Some(origin) = &self.origin else { return };
        let headers = origin.headers.load(Ordering::Relaxed);
        let at = self.destination_by_id[&(origin.id << 1)];
        let destination = &mut self.destinations[at as usize];
        destination.wire.delivery(sid, message, headers, None);
        destination.msgs += 1;
        destination.bytes += message.len() as u64;
    }

    fn is_origin(&self, at: u32) -> bool {
        matches!((&self.destinations[at as usize].target, &self.origin),
            (Target::Client(client), Some(origin)) if client.id == origin.id)
    }

    /// The flat scratch of the origin itself.
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

    /// Adds the delivery counts gathered so far to the subscriptions.
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
        let mut own = None;
        let mut dirty = std::mem::take(&mut self.dirty);
        for &index in &dirty {
            if self.is_origin(index) {
                own = Some(index);
            } else {
                self.hand_over(index);
            }
        }
        if let Some(index) = own {
            self.hand_over(index);
        }
        dirty.clear();
        self.dirty = dirty;
    }

    /// Hands one destination what waits for it.
    fn hand_over(&mut self, at: u32) {
        let destination = &mut self.destinations[at as usize];
        destination.dirty = false;
        let is_congested = match &destination.target {
            Target::Client(client) => {
                let msgs = std::mem::take(&mut destination.msgs);
                let bytes = std::mem::take(&mut destination.bytes);
                let flushed = client.outbox.flush(&mut destination.wire);
                if flushed != Flushed::Dropped && msgs > 0 {
                    client.counters.out_msgs.fetch_add(msgs, Ordering::Relaxed);
                    client.counters.out_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                flushed == Flushed::Congested
            }
            Target::Service(service) => {
                let next = Batch::like(&destination.batch);
                let mut batch = std::mem::replace(&mut destination.batch, next);
                batch.set_crossing(self.crossing);
                if !batch.is_empty() {
                    service.accept(batch);
                }
                service.congested()
            }
        };
        if is_congested {
            self.note_congested(at);
        }
    }

    /// Each once: whoever waits for them waits for each.
    fn note_congested(&mut self, at: u32) {
        if self.congested.is_empty() {
            self.round += 1;
        }
        let destination = &mut self.destinations[at as usize];
        if destination.noted != self.round {
            destination.noted = self.round;
            self.congested.push(destination.target.clone());
        }
    }

    /// Whether there are destinations besides those that are congested, and besides the origin itself.
    pub fn has_others(&self) -> bool {
        let is_other = |target: &Target| match target {
            Target::Client(client) => {
                let is_own = self.origin.as_ref().is_some_and(|origin| origin.id == client.id);
                !is_own && client.outbox.closed().is_none()
            }
            Target::Service(_) => true,
        };
        let congested = self.congested.iter().filter(|target| is_other(target)).count();
        let all = self.destinations.iter();
        all.filter(|destination| is_other(&destination.target)).count() > congested
    }

    /// Whether so many subscriptions are known, and most of them closed, that it is time to start over.
    pub fn is_stale(&mut self) -> bool {
        if self.known.len() <= self.sweep_at {
            return false;
        }
        let closed = self
            .known
            .iter()
            .filter(|known| known.subscription.is_closed())
            .count();
        self.sweep_at = self.known.len() * 2;
        closed * 2 > self.known.len()
    }

    /// Forgets everything and gives the memory back. Nothing may be waiting.
    pub fn release(&mut self) {
        debug_assert!(
            self.dirty.is_empty() && self.counted.is_empty(),
            "released with work waiting"
        );
        let congested = std::mem::take(&mut self.congested);
        *self = Self {
            congested,
            answers: self.answers,
            crossing: self.crossing,
            ..Self::new(self.origin.take())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Closed;
    use super::*;

    #[test]
    fn who_has_others_to_hand_something_to() {
        let clients: Vec<_> = (1..=3).map(|id| Client::new(id, 2000)).collect();
        let subscription = |client: &Arc<Client>| {
            let target = Target::Client(client.clone());
            Arc::new(Subscription::new(
                client.id,
                b"1",
                b"a",
                None,
                target,
                client.id << 1,
            ))
        };
        let message = Message {
            subject: b"a",
            payload: &[0; 1500],
            ..Message::default()
        };
        let mut fanout = Fanout::new(Some(clients[0].clone()));
        let slow = fanout.learn(&subscription(&clients[1]));
        fanout.own().extend_from_slice(b"PONG\r\n");
        assert!(fanout.hand(slow, &message, None, None));
        fanout.flush();
        assert!(fanout.congested.len() == 1 && !fanout.has_others());
        fanout.learn(&subscription(&clients[2]));
        assert!(fanout.has_others());
        clients[2].outbox.close(Closed::Done);
        assert!(!fanout.has_others());
    }
}
