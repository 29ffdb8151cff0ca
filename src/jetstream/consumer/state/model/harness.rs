//! Plays the owner of a consumer and checks all it does.

use super::*;

mod rare;

/// The owner of the consumer, and the judge.
pub(super) struct Harness {
    config: ConsumerConfig,
    now: i64,
    /// Message n is at n - 1: whether it exists and whether it is wanted.
    stream: Vec<(bool, bool)>,
    first: u64,
    consumer: Consumer,
    model: Model,
    committed: Model,
    rows: Vec<Vec<u8>>,
    waiting: BTreeMap<Bytes, (i64, i64)>,
    active: bool,
    paused_until: i64,
    replies_due: BTreeSet<Bytes>,
    requests: u64,
    out: Vec<Action>,
}

const ACTIVE: bool = true;

impl Harness {
    fn options() -> ConsumerOptions<'static> {
        ConsumerOptions {
            stream: "S",
            name: "C",
            ack_prefix: AckPrefix::new("S", "C"),
            reports_acks: true,
            durable_state: true,
            message_bytes_max: 1024,
            active: ACTIVE,
            seed: 7,
        }
    }

    pub fn new(config: ConsumerConfig) -> Harness {
        let start = Start {
            next_seq: 1,
            ..Start::default()
        };
        let model = Model {
            cursor: 1,
            ..Model::default()
        };
        let mut harness = Harness {
            consumer: Consumer::new(&config, &Harness::options(), start, 1_000),
            config,
            now: 1_000,
            stream: Vec::new(),
            first: 1,
            committed: model.clone(),
            model,
            rows: Vec::new(),
            waiting: BTreeMap::new(),
            active: ACTIVE,
            paused_until: 0,
            replies_due: BTreeSet::new(),
            requests: 0,
            out: Vec::new(),
        };
        harness.commit();
        harness
    }

    fn exists(&self, seq: u64) -> bool {
        self.stream.get(seq as usize - 1).is_some_and(|message| message.0)
    }

    fn undelivered(&self) -> impl Iterator<Item = u64> {
        let from = self.model.cursor;
        let last = self.stream.len() as u64;
        let found: Vec<u64> = (from..=last)
            .filter(|&seq| self.stream[seq as usize - 1] == (true, true))
            .collect();
        found.into_iter()
    }

    fn max_deliver(&self) -> u64 {
        self.config.max_deliver.max(0) as u64
    }

    fn max_pending(&self) -> usize {
        match (self.config.ack_policy, self.config.max_ack_pending) {
            (AckPolicy::None, _) | (_, ..=0) => usize::MAX,
            (_, max) => max as usize,
        }
    }

    fn wait(&self, deliveries: u64) -> i64 {
        let step = (deliveries as usize).saturating_sub(1);
        match self.config.backoff.as_slice() {
            [] => self.config.ack_wait,
            steps => steps[step.min(steps.len() - 1)],
        }
    }

    pub fn pump(&mut self) {
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 10_000, "the pump never rests");
            let want = self.consumer.want(self.now, &mut self.out);
            self.settle_actions();
            let seq = match want {
                Want::Nothing => break,
                Want::Message(seq) if self.exists(seq) => seq,
                Want::Message(seq) => {
                    self.consumer.missing(seq, self.now, &mut self.out);
                    assert!(self.model.unacked.remove(&seq).is_some(), "{seq} was not awaited");
                    self.model.done.insert(seq);
                    self.settle_actions();
                    continue;
                }
                Want::From(from) => {
                    assert!(
                        self.undelivered().next().is_none_or(|seq| seq >= from),
                        "skips to {from}"
                    );
                    let Some(seq) = self.undelivered().next() else {
                        self.consumer.caught_up(self.stream.len() as u64, &mut self.out);
                        self.settle_actions();
                        break;
                    };
                    seq
                }
            };
            let message = Offered {
                seq,
                timestamp: seq as i64,
                subject_len: 3,
                body_len: 10,
            };
            self.consumer.offer(&message, self.now, &Everyone, &mut self.out);
            self.settle_actions();
        }
        self.nothing_left_undone();
    }

    /// Carries out the actions, checking each.
    pub fn settle_actions(&mut self) {
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::Deliver(delivery) => self.delivered(&delivery),
                Action::Status { to, status, .. } => {
                    if status.ends_request() && to != "out" {
                        let (remaining, expires) = self.waiting.remove(&to).expect("it waits");
                        if let Status::RequestTimeout(left) = status {
                            assert_eq!(left.messages, remaining);
                            assert!(expires > 0 && self.now > expires);
                        }
                    }
                }
                Action::AckReply { to } => assert!(self.replies_due.remove(&to), "an ack is answered once"),
                Action::Acked { seq } => {
                    assert!(self.model.done.contains(&seq), "{seq} is reported and not done");
                }
                Action::DeadLetter { seq, .. } => {
                    assert!(self.config.dead_letter().is_some() && self.model.exhausted.contains_key(&seq));
                    // Stored in the same commit.
                    let mut out = Vec::new();
                    self.consumer.dead_lettered(seq, &mut out);
                    assert_eq!(out, [Action::Acked { seq }]);
                    self.model.exhausted.remove(&seq);
                    self.model.done.insert(seq);
                }
                Action::Advisory(Advisory::MaxDeliveries {
                    stream_seq,
                    deliveries,
                }) => {
                    let gone = self.model.unacked.remove(&stream_seq).expect("it was unacked");
                    assert_eq!(
                        (gone.deliveries, deliveries),
                        (self.max_deliver(), self.max_deliver())
                    );
                    self.model.exhausted.insert(stream_seq, deliveries);
                }
                Action::Advisory(_) => {}
                Action::Inactive => panic!("there is no threshold"),
            }
        }
    }

    fn delivered(&mut self, delivery: &Delivery) {
        let numbers = delivery.numbers;
        let seq = numbers.stream_seq;
        assert!(
            self.exists(seq) && self.stream[seq as usize - 1].1,
            "{seq} is not wanted"
        );
        assert!(!self.model.done.contains(&seq), "{seq} was acked");
        assert!(!self.model.exhausted.contains_key(&seq), "{seq} is exhausted");
        assert!(self.now >= self.paused_until, "paused");
        if self.config.is_push() {
            assert!(self.active);
        } else {
            let (remaining, _) = self.waiting.get_mut(&delivery.to).expect("the request waits");
            *remaining -= 1;
            if *remaining == 0 {
                self.waiting.remove(&delivery.to);
            }
        }
        let deliveries = match self.model.unacked.get(&seq) {
            Some(unacked) => {
                assert!(
                    unacked.due == 0,
                    "{seq} is not due again: {unacked:?} at {}",
                    self.now
                );
                unacked.deliveries + 1
            }
            None => {
                assert_eq!(self.undelivered().next(), Some(seq), "in order");
                assert!(
                    !self.model.unacked.values().any(|unacked| unacked.due == 0),
                    "redelivery goes first"
                );
                assert!(self.model.unacked.len() < self.max_pending(), "max_ack_pending");
                self.model.cursor = seq + 1;
                1
            }
        };
        assert_eq!(numbers.deliveries, deliveries);
        assert!(self.max_deliver() == 0 || deliveries <= self.max_deliver());
        assert_eq!(numbers.num_pending, self.undelivered().count() as u64);
        if self.config.ack_policy == AckPolicy::None {
            self.model.done.insert(seq);
        } else {
            self.model.unacked.insert(
                seq,
                Unacked {
                    deliveries,
                    due: self.now + self.wait(deliveries),
                },
            );
        }
    }

    fn nothing_left_undone(&mut self) {
        let state = self.consumer.state();
        assert_eq!(
            state.num_pending,
            self.undelivered().count() as u64,
            "num_pending"
        );
        assert_eq!(state.num_ack_pending, self.model.unacked.len(), "num_ack_pending");
        assert_eq!(state.num_waiting, self.waiting.len(), "num_waiting");
        assert!(state.ack_floor.stream >= self.model.floor, "the floor moved back");
        self.model.floor = state.ack_floor.stream;
        assert!(self.model.unacked.keys().all(|&seq| seq > state.ack_floor.stream));
        let more = self
            .model
            .unacked
            .values()
            .filter(|unacked| unacked.deliveries > 1)
            .count();
        if self.max_deliver() != 1 {
            assert_eq!(state.num_redelivered, more + self.model.exhausted.len());
        }
        for seq in self.first..=self.stream.len() as u64 {
            if self.stream[seq as usize - 1] == (true, true) {
                let needed = !self.model.done.contains(&seq);
                assert_eq!(self.consumer.needs(seq), needed, "needs {seq} {:?}", self.model);
            }
        }
        let open = if self.config.is_push() {
            self.active
        } else {
            !self.waiting.is_empty()
        };
        if open && self.now >= self.paused_until {
            assert!(
                !self.model.unacked.values().any(|unacked| unacked.due == 0),
                "a redelivery is left"
            );
            let stalled = self.model.unacked.len() >= self.max_pending();
            assert!(
                stalled || self.undelivered().next().is_none(),
                "a message is left"
            );
        }
        let due = self
            .model
            .unacked
            .values()
            .filter(|unacked| unacked.due > 0 && unacked.due < NEVER);
        if let Some(due) = due.map(|unacked| unacked.due).min() {
            assert!(
                self.consumer.next_deadline().is_some_and(|at| at <= due),
                "would sleep too long"
            );
        }
    }

    fn commit(&mut self) {
        match self.consumer.persist() {
            Some(Persist::Base(bytes)) => self.rows = vec![bytes],
            Some(Persist::Delta { row, bytes }) => {
                assert_eq!(row as usize, self.rows.len());
                self.rows.push(bytes);
            }
            None => {}
        }
        assert!(self.consumer.persist().is_none(), "nothing changed since");
        self.committed = self.model.clone();
        self.replies_due.clear();
        let snapshot = self.snapshot();
        let rows: Vec<_> = snapshot
            .pending
            .iter()
            .map(|(&seq, row)| (seq, row.deliveries, row.deadline))
            .collect();
        let expected: Vec<_> = self
            .model
            .unacked
            .iter()
            .map(|(&seq, unacked)| (seq, unacked.deliveries as u32, unacked.due))
            .collect();
        assert_eq!(rows, expected);
        assert!(snapshot.exhausted.keys().eq(self.model.exhausted.keys()));
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::read(self.rows.iter().map(Vec::as_slice))
            .unwrap()
            .unwrap()
    }

    /// Starts from what is committed; the pull requests are gone with the connections.
    fn start_again(&mut self) {
        self.model = self.committed.clone();
        // What was exhausted and stored as a dead letter since the commit comes again; so be it.
        self.waiting.clear();
        let snapshot = self.snapshot();
        let start = Start {
            last_seq: self.stream.len() as u64,
            num_pending: self.undelivered().count() as u64,
            ..Start::default()
        };
        let options = ConsumerOptions {
            active: self.active,
            ..Harness::options()
        };
        self.config.pause_until = None;
        self.paused_until = 0;
        self.out.clear();
        self.model_time();
        self.consumer = Consumer::restore(&self.config, &options, &snapshot, start, self.now, &mut self.out);
        self.settle_actions();
        // The owner says what left the stream meanwhile.
        let gone: Vec<u64> = (1..=self.stream.len() as u64)
            .filter(|&seq| !self.exists(seq))
            .collect();
        for seq in gone.into_iter().filter(|&seq| seq < snapshot.next_seq) {
            self.consumer.message_deleted(seq, true, self.now, &mut self.out);
            self.model_deleted(seq);
        }
        self.settle_actions();
    }

    fn model_deleted(&mut self, seq: u64) {
        if self.model.unacked.remove(&seq).is_some() || self.model.exhausted.remove(&seq).is_some() {
            self.model.done.insert(seq);
        }
    }

    fn ack(&mut self, pick: usize, ack: Ack<'_>) -> Option<u64> {
        let (&seq, unacked) = self
            .model
            .unacked
            .iter()
            .nth(pick % self.model.unacked.len().max(1))?;
        self.ack_seq(seq, unacked.deliveries, ack);
        Some(seq)
    }

    fn ack_seq(&mut self, seq: u64, deliveries: u64, ack: Ack<'_>) {
        let numbers = AckNumbers {
            deliveries,
            stream_seq: seq,
            consumer_seq: 1,
            timestamp: 0,
            num_pending: 0,
        };
        self.requests += 1;
        let reply = Bytes::from(format!("ack{}", self.requests));
        self.replies_due.insert(reply.clone());
        self.consumer
            .ack(&numbers, ack, Some(reply), self.now, &Everyone, &mut self.out);
    }

    fn model_acked(&mut self, seq: u64) {
        let below = if self.config.ack_policy == AckPolicy::All {
            0
        } else {
            seq
        };
        let acked: Vec<u64> = self
            .model
            .unacked
            .range(below..=seq)
            .map(|(&seq, _)| seq)
            .collect();
        for seq in acked {
            self.model.unacked.remove(&seq);
            self.model.done.insert(seq);
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { wanted } => {
                self.stream.push((true, wanted));
                let end = self.stream.len() as u64;
                if !self.consumer.appended(u64::from(wanted), end) {
                    let count = self.undelivered().count() as u64;
                    self.consumer.purged(self.first, count, |_| true);
                    self.consumer.counted_upto(end);
                }
            }
            Op::Delete { pick } => self.delete(pick),
            Op::Purge { keep } => self.purge(keep),
            Op::Pull {
                batch,
                expires_ms,
                no_wait,
            } => self.pull(batch, expires_ms, no_wait),
            Op::Ack { pick } => {
                if let Some(seq) = self.ack(pick, Ack::Ack) {
                    self.model_acked(seq);
                }
            }
            Op::AckAgain { pick } => {
                let done = self
                    .model
                    .done
                    .iter()
                    .nth(pick % self.model.done.len().max(1))
                    .copied();
                if let Some(seq) = done.filter(|_| self.config.ack_policy == AckPolicy::Explicit) {
                    self.ack_seq(seq, 1, Ack::Ack);
                }
                let given_up = self
                    .model
                    .exhausted
                    .keys()
                    .next()
                    .copied()
                    .filter(|_| pick % 3 == 0);
                if let Some(seq) = given_up.filter(|_| self.config.ack_policy == AckPolicy::Explicit) {
                    self.ack_seq(seq, 1, Ack::Ack);
                    self.model.exhausted.remove(&seq);
                    self.model.done.insert(seq);
                }
            }
            Op::Nak { pick, delay_ms } => {
                let delay = delay_ms * MILLISECOND;
                let Some(seq) = self.ack(pick, Ack::Nak(delay)) else {
                    return;
                };
                let last = self.max_deliver();
                let due = if delay > 0 { self.now + delay } else { 0 };
                let unacked = self.model.unacked.get_mut(&seq).unwrap();
                if delay > 0 || last == 0 || unacked.deliveries < last {
                    unacked.due = due;
                }
            }
            Op::Progress { pick } => {
                let Some(seq) = self.ack(pick, Ack::Progress) else {
                    return;
                };
                let due = self.now + self.wait(self.model.unacked[&seq].deliveries);
                self.model.unacked.get_mut(&seq).unwrap().due = due;
            }
            Op::Term { pick } => {
                let Some(seq) = self.ack(pick, Ack::Term("no good".to_owned())) else {
                    return;
                };
                if self.config.dead_letter().is_some() {
                    self.model
                        .exhausted
                        .insert(seq, self.model.unacked[&seq].deliveries);
                }
                self.model_acked(seq);
                if self.config.dead_letter().is_some() {
                    self.model.done.remove(&seq);
                }
            }
            Op::Advance { ms } => self.advance(ms),
            Op::Pause { ms } => {
                self.paused_until = if ms > 0 { self.now + ms * MILLISECOND } else { 0 };
                let until = (ms > 0).then_some(self.paused_until);
                self.consumer.pause(until, self.now, &mut self.out);
            }
            Op::Listen { active } => {
                self.active = active;
                self.consumer.interest(active, self.now);
            }
            Op::Lost { pick } => self.lose(pick),
            Op::Commit => self.commit(),
            Op::Restart => {
                self.commit();
                self.start_again();
            }
            Op::Crash => self.start_again(),
            Op::Reset { pick } if pick % 4 == 0 => self.reset(pick / 4),
            Op::Reset { .. } => {}
            Op::MaxAckPending { max } => {
                self.config.max_ack_pending = max;
                self.consumer.reconfigure(&self.config, None, self.now);
            }
        }
    }

    fn delete(&mut self, pick: usize) {
        if self.stream.is_empty() {
            return;
        }
        let at = pick % self.stream.len();
        let (exists, wanted) = self.stream[at];
        if exists {
            let seq = at as u64 + 1;
            self.stream[at].0 = false;
            self.consumer
                .message_deleted(seq, wanted, self.now, &mut self.out);
            self.model_deleted(seq);
        }
    }

    fn purge(&mut self, keep: u64) {
        let first = (self.stream.len() as u64 + 1)
            .saturating_sub(keep)
            .max(self.first);
        for seq in self.first..first {
            self.stream[seq as usize - 1].0 = false;
            self.model_deleted(seq);
        }
        self.first = first;
        self.model.cursor = self.model.cursor.max(first);
        let count = self.undelivered().count() as u64;
        let stream = self.stream.clone();
        self.consumer
            .purged(first, count, |seq| stream[seq as usize - 1].0);
    }

    fn pull(&mut self, batch: i64, expires_ms: i64, no_wait: bool) {
        if self.config.is_push() {
            return;
        }
        self.requests += 1;
        let reply = Bytes::from(format!("pull{}", self.requests));
        let expires = expires_ms * MILLISECOND;
        let body = format!(r#"{{"batch":{batch},"expires":{expires},"no_wait":{no_wait}}}"#);
        let until = if expires > 0 { self.now + expires } else { 0 };
        self.waiting.insert(reply.clone(), (batch, until));
        self.consumer
            .pull(body.as_bytes(), reply, self.now, &Everyone, &mut self.out);
    }

    fn advance(&mut self, ms: i64) {
        self.now += ms * MILLISECOND;
        if self.paused_until <= self.now {
            self.paused_until = 0;
        }
        self.model_time();
        let now = self.now;
        self.consumer.tick(now, &Everyone, &mut self.out);
        self.settle_actions();
        let overdue = |unacked: &Unacked| unacked.due > 0 && unacked.due <= now;
        assert!(
            !self.model.unacked.values().any(overdue),
            "exhausted messages stay in flight"
        );
    }

    fn model_time(&mut self) {
        let (now, last) = (self.now, self.max_deliver());
        for unacked in self.model.unacked.values_mut() {
            if unacked.due <= now && (last == 0 || unacked.deliveries < last) {
                unacked.due = 0;
            }
        }
    }
}
