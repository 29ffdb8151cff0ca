//! The consumer itself: a state machine without tokio, disk, locks or clock.
//!
//! ```text
//!             offer                  ack, term, message deleted
//! undelivered ------> in flight -------------------------------> done
//!                      |   ^  |
//!     late, nak (delay)|   |  | max_deliver reached, term with a dead letter
//!                      v   |  v
//!                     queued  exhausted ---- ack, dead_lettered, message deleted ---> done
//! ```
//!
//! Every input takes `now` (unix nanoseconds, never going back) and appends [`Action`]s for the owner to
//! carry out in order. The owner keeps one rule: after any input it *pumps*, that is it asks
//! [`Consumer::want`] and offers messages until the answer is [`Want::Nothing`], and sleeps until
//! [`Consumer::next_deadline`] at most.
//!
//! Invariants, held by the model tests: a message is not delivered again once its ack was taken; no
//! message is delivered more than `max_deliver` times; never more than `max_ack_pending` are in flight;
//! every message in flight is delivered again when it is late; `num_pending` is exact; every message in
//! flight is above the floor and the floor never moves back ([`Consumer::reset`] aside).
//!
//! Deliveries need not be durable before they are sent: a crash forgets at most delivery counts. Acks must
//! be: an [`Action::AckReply`] waits for the commit that holds the [`Consumer::persist`] after it.
//!
//! Deliberately absent: the messages, the stream, routing, timers; the owner has them.

mod acks;
mod deliver;
mod events;
#[cfg(test)]
mod model;
mod persist;
pub use persist::Persist;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ack_subject::{AckNumbers, AckPrefix};
use super::advisory::Advisory;
use super::config::{AckPolicy, ConsumerConfig, ReplayPolicy};
use super::pending::{NEVER, Pending};
use super::pull::{Caps, Waiting};
use super::push::{Flow, Push, Rate};
use super::snapshot::{Exhausted, Position, Snapshot};
use super::start::Start;
use super::status::Status;
use persist::Changes;

/// A message on its way to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The deliver subject or the reply subject of a pull request.
    pub to: Bytes,
    /// The numbers of its ack subject, stream sequence among them.
    pub numbers: AckNumbers,
}

/// What the owner has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the message that was just offered.
    Deliver(Delivery),
    /// Send an empty message with this status, and this reply subject if any.
    #[allow(missing_docs)]
    Status {
        to: Bytes,
        reply: Option<Bytes>,
        status: Status,
    },
    /// Send an empty message, *after* the next commit.
    #[allow(missing_docs)]
    AckReply { to: Bytes },
    /// This consumer no longer needs the message: the stream may drop it if its retention says so, in the
    /// commit that holds the ack. Only sent for streams whose retention asks.
    #[allow(missing_docs)]
    Acked { seq: u64 },
    /// Copy the message to the dead-letter subject, then call [`Consumer::dead_lettered`]. Repeated after a
    /// restart until that was done.
    #[allow(missing_docs)]
    DeadLetter {
        seq: u64,
        deliveries: u64,
        reason: String,
    },
    /// Publish an advisory if somebody listens.
    Advisory(Advisory),
    /// The consumer was not used for its inactive threshold: delete it.
    Inactive,
}

impl Action {
    pub(super) fn status(to: Bytes, status: Status) -> Action {
        Action::Status {
            to,
            reply: None,
            status,
        }
    }
}

/// Who listens where: the router, seen from here.
pub trait Interest {
    /// Changes whenever an answer of [`Interest::listens`] may have changed.
    fn generation(&self) -> u64;
    /// Whether anybody subscribes to `subject`.
    fn listens(&self, subject: &[u8]) -> bool;
}

/// What a message is to a consumer: not its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its sequence in the stream.
    pub seq: u64,
    /// When it was stored, unix nanoseconds.
    pub timestamp: i64,
    /// Length of its subject.
    pub subject_len: usize,
    /// Length of headers and payload as they would be delivered (see `headers_only`).
    pub body_len: usize,
}

/// What the consumer would deliver now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing, until the next input or [`Consumer::next_deadline`].
    Nothing,
    /// This message: [`Consumer::offer`] it, or say it is [`Consumer::missing`].
    Message(u64),
    /// The first matching message at or after this sequence: offer it, or call [`Consumer::caught_up`].
    From(u64),
}

/// What a consumer is made with, besides its configuration.
#[derive(Clone, Debug)]
pub struct ConsumerOptions<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The consumer's name.
    pub name: &'a str,
    /// How its ack subjects begin.
    pub ack_prefix: AckPrefix,
    /// Whether the stream's retention waits for acks (interest, work queue): turns on [`Action::Acked`].
    pub reports_acks: bool,
    /// Whether [`Consumer::persist`] will be called; without it no changes are kept for it.
    pub durable_state: bool,
    /// The largest message there can be, the burst of a rate limit.
    pub message_bytes_max: usize,
    /// Push: whether somebody listens on the deliver subject.
    pub active: bool,
    /// Seed for sampling and for the names of flow-control requests.
    pub seed: u64,
}

/// The part of the configuration that decides at run time.
#[derive(Debug)]
struct Settings {
    ack_policy: AckPolicy,
    ack_wait: i64,
    backoff: Vec<i64>,
    /// 0 is no limit.
    max_deliver: u64,
    /// 0 is no limit.
    max_ack_pending: usize,
    caps: Caps,
    sample_percent: u32,
    /// 0 is for ever.
    inactive_threshold: i64,
    dead_letter: bool,
}

impl Settings {
    fn new(config: &ConsumerConfig) -> Settings {
        Settings {
            ack_policy: config.ack_policy,
            ack_wait: config.ack_wait,
            backoff: config.backoff.clone(),
            max_deliver: config.max_deliver.max(0).unsigned_abs(),
            max_ack_pending: usize::try_from(config.max_ack_pending).unwrap_or(0),
            caps: Caps {
                batch: config.max_batch,
                expires: config.max_expires,
                bytes: config.max_bytes,
            },
            sample_percent: config.sample_percent(),
            inactive_threshold: config.inactive_threshold,
            dead_letter: config.dead_letter().is_some(),
        }
    }

    /// How long to wait for the ack of a message delivered so often; [`NEVER`] if it is not awaited.
    fn wait(&self, deliveries: u64) -> i64 {
        if self.ack_wait == 0 {
            return NEVER;
        }
        let step = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
        match self.backoff.last() {
            Some(last) => *self.backoff.get(step).unwrap_or(last),
            None => self.ack_wait,
        }
    }

    fn deadline(&self, deliveries: u64, now: i64) -> i64 {
        match self.wait(deliveries) {
            NEVER => NEVER,
            wait => now.saturating_add(wait).min(NEVER - 1),
        }
    }

    fn is_last_delivery(&self, deliveries: u32) -> bool {
        self.max_deliver > 0 && u64::from(deliveries) >= self.max_deliver
    }
}

#[derive(Debug)]
enum Mode {
    Push(Push),
    Pull(Waiting),
}

/// `replay_policy: original`, until caught up with where the stream stood at the start.
#[derive(Debug)]
struct Replay {
    until: u64,
    /// The message before: when it was stored and when it went out.
    last: Option<(i64, i64)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    options: KeptOptions,
    mode: Mode,
    next_seq: u64,
    delivered: Position,
    floor: Position,
    pending: Pending,
    exhausted: BTreeMap<u64, Exhausted>,
    /// The last messages of their subjects, still to be delivered before going on after `skip_until`.
    skip: VecDeque<u64>,
    skip_until: u64,
    num_pending: u64,
    /// `num_pending` knows the stream up to here.
    counted_to: u64,
    /// It starts behind the end of the stream: some of what comes is not for it.
    starts_ahead: bool,
    /// It passed by messages that cannot be read, and does not know whether they are counted.
    passed_unread: bool,
    replay: Option<Replay>,
    rate: Option<Rate>,
    /// No delivery before this: replay pace or rate limit.
    hold_until: i64,
    paused_until: Option<i64>,
    last_active: i64,
    inactive_check: Option<i64>,
    last_delivery: Option<i64>,
    last_ack: Option<i64>,
    random: u64,
    changes: Changes,
    scratch: Vec<u64>,
}

#[derive(Debug)]
struct KeptOptions {
    ack_prefix: AckPrefix,
    reports_acks: bool,
    message_bytes_max: usize,
}

/// A consumer's counters, for `CONSUMER.INFO` and monitoring. Times in unix nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsumerState {
    pub delivered: Position,
    pub last_delivery: Option<i64>,
    pub ack_floor: Position,
    pub last_ack: Option<i64>,
    pub num_ack_pending: usize,
    pub num_redelivered: usize,
    pub num_waiting: usize,
    pub num_pending: u64,
    pub push_bound: bool,
    pub paused_until: Option<i64>,
}

impl Consumer {
    /// A new consumer.
    pub fn new(config: &ConsumerConfig, options: &ConsumerOptions<'_>, start: Start, now: i64) -> Consumer {
        let before = Position {
            consumer: 0,
            stream: start.next_seq.saturating_sub(1),
        };
        let skip_until = if start.skip.is_empty() { 0 } else { start.last_seq };
        let snapshot = Snapshot {
            next_seq: start.next_seq,
            delivered: before,
            floor: before,
            skip_until,
            ..Snapshot::default()
        };
        Consumer::build(config, options, &snapshot, start, now)
    }

    /// A consumer as it was, from its durable state. Of `start` only `last_seq`, `num_pending` (counted from
    /// `snapshot.next_seq`, or `skip.len()`) and `skip` matter: while `snapshot.skip_until` is not 0, the
    /// last messages per subject in `snapshot.next_seq..=snapshot.skip_until`.
    pub fn restore(
        config: &ConsumerConfig,
        options: &ConsumerOptions<'_>,
        snapshot: &Snapshot,
        start: Start,
        now: i64,
        out: &mut Vec<Action>,
    ) -> Consumer {
        let mut consumer = Consumer::build(config, options, snapshot, start, now);
        for (&seq, row) in &snapshot.pending {
            consumer
                .pending
                .put_back(seq, row.consumer_seq, row.deadline, now, row.deliveries);
        }
        consumer.exhausted.clone_from(&snapshot.exhausted);
        consumer.changes.saved(consumer.next_seq);
        if consumer.settings.dead_letter {
            for (&seq, exhausted) in &consumer.exhausted {
                out.push(exhausted.dead_letter(seq));
            }
        }
        consumer.queue_late(now, out);
        consumer
    }

    fn build(
        config: &ConsumerConfig,
        options: &ConsumerOptions<'_>,
        snapshot: &Snapshot,
        start: Start,
        now: i64,
    ) -> Consumer {
        let mode = if config.is_push() {
            let flow = config
                .flow_control
                .then(|| Flow::new(options.stream, options.name));
            Mode::Push(Push::new(
                &config.deliver_subject,
                options.active,
                config.idle_heartbeat,
                flow,
                now,
            ))
        } else {
            Mode::Pull(Waiting::new(config.max_waiting))
        };
        let original = config.replay_policy == ReplayPolicy::Original;
        let skipping = !start.skip.is_empty();
        let mut consumer = Consumer {
            settings: Settings::new(config),
            options: KeptOptions {
                ack_prefix: options.ack_prefix.clone(),
                reports_acks: options.reports_acks,
                message_bytes_max: options.message_bytes_max,
            },
            mode,
            next_seq: snapshot.next_seq,
            delivered: snapshot.delivered,
            floor: snapshot.floor,
            pending: Pending::default(),
            exhausted: BTreeMap::new(),
            skip: start.skip.into(),
            skip_until: if skipping { snapshot.skip_until } else { 0 },
            num_pending: start.num_pending,
            counted_to: start.last_seq,
            starts_ahead: false,
            passed_unread: false,
            replay: original.then_some(Replay {
                until: start.last_seq,
                last: None,
            }),
            rate: Rate::new(config.rate_limit_bps, options.message_bytes_max, now),
            hold_until: i64::MIN,
            paused_until: config
                .pause_until
                .map(|until| until.unix_nanos())
                .filter(|&until| until > now),
            last_active: now,
            inactive_check: None,
            last_delivery: None,
            last_ack: None,
            random: options.seed | 1,
            changes: Changes::new(options.durable_state),
            scratch: Vec::new(),
        };
        if snapshot.skip_until > 0 && !skipping {
            consumer.next_seq = consumer.next_seq.max(snapshot.skip_until + 1);
        }
        consumer.counted_upto(start.last_seq);
        consumer.arm_inactive(now);
        consumer
    }

    /// The counters.
    pub fn state(&self) -> ConsumerState {
        let (num_waiting, push_bound) = match &self.mode {
            Mode::Push(push) => (0, push.active),
            Mode::Pull(waiting) => (waiting.len(), false),
        };
        // With one delivery nothing is redelivered; what is kept is the exhausted.
        let redelivered = self.pending.redelivered() + self.exhausted.len();
        ConsumerState {
            delivered: self.delivered,
            last_delivery: self.last_delivery,
            ack_floor: self.floor,
            last_ack: self.last_ack,
            num_ack_pending: self.pending.len(),
            num_redelivered: if self.settings.max_deliver == 1 {
                0
            } else {
                redelivered
            },
            num_waiting,
            num_pending: self.num_pending,
            push_bound,
            paused_until: self.paused_until,
        }
    }

    /// Appends the ack subject of a delivery.
    pub fn write_ack_subject(&self, delivery: &Delivery, out: &mut Vec<u8>) {
        self.options.ack_prefix.write(&delivery.numbers, out);
    }

    /// Whether the stream must keep a message that matches this consumer's filters.
    pub fn needs(&self, seq: u64) -> bool {
        let waiting = seq >= self.next_seq || self.pending.get(seq).is_some();
        (seq > self.floor.stream && waiting) || self.exhausted.contains_key(&seq)
    }

    /// Below this it needs nothing that it has come to.
    pub fn needs_from(&self) -> u64 {
        let exhausted = self.exhausted.keys().next().copied();
        exhausted
            .unwrap_or(u64::MAX)
            .min(self.floor.stream.saturating_add(1))
    }

    /// When the owner must call [`Consumer::tick`], at the latest; `None` is never.
    pub fn next_deadline(&self) -> Option<i64> {
        let held = (self.hold_until > i64::MIN).then_some(self.hold_until);
        let mode = match &self.mode {
            Mode::Push(push) => push.next_due(),
            Mode::Pull(waiting) => waiting.next_due(),
        };
        [
            held,
            mode,
            self.pending.next_deadline(),
            self.paused_until,
            self.inactive_check,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes over a new configuration (one that [`super::config::plan`] let through). `num_pending` is the
    /// new count from [`Consumer::next_seq`] on if the filters changed.
    pub fn reconfigure(&mut self, config: &ConsumerConfig, num_pending: Option<u64>, now: i64) {
        let old = std::mem::replace(&mut self.settings, Settings::new(config));
        let new = &self.settings;
        if (old.ack_wait, &old.backoff) != (new.ack_wait, &new.backoff) {
            self.pending.rearm(|entry| {
                let (before, after) = (
                    old.wait(entry.deliveries.into()),
                    new.wait(entry.deliveries.into()),
                );
                match (before, after) {
                    (_, NEVER) => NEVER,
                    (NEVER, after) => entry.touched.saturating_add(after),
                    _ => entry.deadline.saturating_add(after.saturating_sub(before)),
                }
            });
            self.changes.rebase();
        }
        self.rate = Rate::new(config.rate_limit_bps, self.options.message_bytes_max, now);
        self.hold_until = i64::MIN;
        if let Mode::Push(push) = &mut self.mode
            && push.to != config.deliver_subject.as_bytes()
        {
            push.to = Bytes::copy_from_slice(config.deliver_subject.as_bytes());
        }
        if let Some(num_pending) = num_pending {
            self.num_pending = num_pending;
            // The list was made for the old filters; what follows is delivered plainly.
            self.skip.clear();
            self.end_skip();
        }
        self.arm_inactive(now);
    }

    /// The first stream sequence not looked at.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// From here on `num_pending` counts every matching message; below, what is listed for delivery.
    pub fn counts_from(&self) -> u64 {
        if self.skip.is_empty() {
            self.next_seq
        } else {
            self.skip_until + 1
        }
    }

    fn end_skip(&mut self) {
        if self.skip.is_empty() && self.skip_until > 0 {
            self.next_seq = self.next_seq.max(self.skip_until + 1);
            self.skip_until = 0;
            self.changes.note();
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// After `removed` was taken out of flight: moves the floor to below the lowest that is left.
    fn raise_floor(&mut self, was_first: bool) {
        let to = match self.pending.first() {
            None => self.delivered,
            Some(first) if was_first => Position {
                consumer: first.consumer_seq.saturating_sub(1),
                stream: first.seq - 1,
            },
            Some(_) => return,
        };
        self.floor.consumer = self.floor.consumer.max(to.consumer);
        self.floor.stream = self.floor.stream.max(to.stream);
    }
}

impl Exhausted {
    fn dead_letter(&self, seq: u64) -> Action {
        Action::DeadLetter {
            seq,
            deliveries: self.deliveries.into(),
            reason: self.reason.clone(),
        }
    }
}
