//! What happens around a consumer: time, its stream, its listeners, its administrators.

use super::{Action, Consumer, Interest, Mode};
use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::consumer::advisory::Advisory;
use crate::jetstream::consumer::config::{AckPolicy, ConsumerConfig, DeliverPolicy};
use crate::jetstream::consumer::pending::NEVER;
use crate::jetstream::consumer::snapshot::Position;
use crate::jetstream::consumer::status::Status;

const DELETED_REASON: &str = "Unacknowledged message was deleted";

impl Consumer {
    /// Time passed. Pump afterwards: late messages are queued, not sent, by this.
    pub fn tick(&mut self, now: i64, interest: &dyn Interest, out: &mut Vec<Action>) {
        if let Some(until) = self.paused_until.filter(|&until| until <= now) {
            self.paused_until = None;
            out.push(Action::Advisory(Advisory::Paused { paused: false, until }));
        }
        self.queue_late(now, out);
        let last = self.delivered;
        let nonce = self.random();
        match &mut self.mode {
            Mode::Push(push) => {
                let beat = push.tick(now, last.consumer, last.stream, out);
                if beat && self.settings.ack_policy == AckPolicy::FlowControl && !self.pending.is_empty() {
                    push.ask(nonce, out);
                }
            }
            Mode::Pull(waiting) => waiting.tick(now, last.consumer, last.stream, out),
        }
        if self.inactive_check.is_some_and(|due| due <= now) {
            self.check_inactive(now, interest, out);
        }
    }

    /// Queues what is late, or gives it up.
    pub(super) fn queue_late(&mut self, now: i64, out: &mut Vec<Action>) {
        let mut late = std::mem::take(&mut self.scratch);
        self.pending.late(now, &mut late);
        if !late.is_empty() {
            // Until now somebody may have been at work on it.
            self.last_active = self.last_active.max(now);
        }
        for &seq in &late {
            let deliveries = self.pending.get(seq).map_or(0, |entry| entry.deliveries);
            if self.settings.is_last_delivery(deliveries) {
                self.exhaust(seq, out);
            } else {
                self.pending.enqueue(seq);
                self.touch(seq);
            }
        }
        self.scratch = late;
    }

    fn check_inactive(&mut self, now: i64, interest: &dyn Interest, out: &mut Vec<Action>) {
        let threshold = self.settings.inactive_threshold;
        if let Mode::Pull(waiting) = &mut self.mode {
            waiting.sweep(now, interest, out);
            if !waiting.is_empty() {
                self.last_active = now;
            }
            // Somebody may still be at work on what was delivered last.
            let last_wait = self
                .pending
                .from(0)
                .map(|entry| entry.deadline)
                .filter(|&due| due != NEVER)
                .max();
            self.last_active = self.last_active.max(last_wait.unwrap_or(i64::MIN));
        }
        let due = self.last_active.saturating_add(threshold);
        if due > now {
            self.inactive_check = Some(due);
        } else {
            self.inactive_check = None;
            out.push(Action::Inactive);
        }
    }

    pub(super) fn arm_inactive(&mut self, now: i64) {
        let threshold = self.settings.inactive_threshold;
        let in_use = matches!(&self.mode, Mode::Push(push) if push.active);
        self.inactive_check = (threshold > 0 && !in_use).then(|| now.saturating_add(threshold));
    }

    /// Push: somebody listens on the deliver subject, or nobody does any more.
    pub fn interest(&mut self, active: bool, now: i64) {
        let Mode::Push(push) = &mut self.mode else { return };
        if std::mem::replace(&mut push.active, active) != active {
            self.last_active = now;
            self.arm_inactive(now);
        }
    }

    /// Pull: nobody listens on this inbox any more.
    pub fn inbox_gone(&mut self, inbox: &[u8]) {
        if let Mode::Pull(waiting) = &mut self.mode {
            waiting.drop_reply(inbox);
        }
    }

    /// The stream got `matching` messages for this consumer, the last sequence of all being `last_seq`. False when not
    /// all of them count: then the owner counts anew.
    #[must_use]
    pub fn appended(&mut self, matching: u64, last_seq: u64) -> bool {
        if last_seq <= self.counted_to {
            return true;
        }
        if self.starts_ahead {
            let none_counts = last_seq < self.counts_from();
            if none_counts {
                self.counted_upto(last_seq);
            }
            return none_counts;
        }
        self.counted_to = last_seq;
        self.num_pending += matching;
        true
    }

    /// `num_pending` is known up to there.
    pub fn counted_upto(&mut self, last_seq: u64) {
        self.counted_to = self.counted_to.max(last_seq);
        self.starts_ahead = self.counts_from() > self.counted_to.saturating_add(1);
    }

    /// A message is gone from the stream. `matches`: the consumer's filters match its subject.
    pub fn message_deleted(&mut self, seq: u64, matches: bool, now: i64, out: &mut Vec<Action>) {
        if seq >= self.next_seq {
            let listed = if seq <= self.skip_until {
                let at = self.skip.binary_search(&seq).ok();
                at.and_then(|at| self.skip.remove(at)).is_some()
            } else {
                matches && seq <= self.counted_to
            };
            if listed {
                self.num_pending = self.num_pending.saturating_sub(1);
                self.end_skip();
            }
            return;
        }
        if let Some((entry, was_first)) = self.pending.remove(seq) {
            self.forget(seq);
            self.raise_floor(was_first);
            self.last_ack = Some(now);
            out.push(Action::Advisory(Advisory::Terminated {
                consumer_seq: entry.consumer_seq,
                stream_seq: seq,
                deliveries: entry.deliveries.into(),
                reason: DELETED_REASON.to_owned(),
            }));
        } else if self.exhausted.remove(&seq).is_some() {
            self.changes.exhausted_gone(seq);
        }
    }

    /// The stream was purged: everything below `first_seq` is gone, and of the rest what `still_there` does
    /// not know. `num_pending` is the new count of matching messages from [`Consumer::next_seq`] on (after
    /// it was raised to `first_seq`).
    pub fn purged(&mut self, first_seq: u64, num_pending: u64, still_there: impl Fn(u64) -> bool) {
        let gone = |seq: u64| seq < first_seq || !still_there(seq);
        let lost: Vec<u64> = self
            .pending
            .from(0)
            .map(|entry| entry.seq)
            .filter(|&seq| gone(seq))
            .collect();
        for seq in lost {
            if let Some((_, was_first)) = self.pending.remove(seq) {
                self.forget(seq);
                self.raise_floor(was_first);
            }
        }
        let lost: Vec<u64> = self.exhausted.keys().copied().filter(|&seq| gone(seq)).collect();
        for seq in lost {
            self.exhausted.remove(&seq);
            self.changes.exhausted_gone(seq);
        }
        self.next_seq = self.next_seq.max(first_seq);
        if self.pending.is_empty() {
            self.floor.stream = self.floor.stream.max(first_seq.saturating_sub(1));
            self.delivered.stream = self.delivered.stream.max(self.floor.stream);
        }
        self.skip.retain(|&seq| !gone(seq));
        self.num_pending = if self.skip.is_empty() {
            num_pending
        } else {
            self.skip.len() as u64 + num_pending
        };
        self.end_skip();
        self.changes.note();
    }

    /// A message that was counted had gone from the stream before it could be delivered, and what follows has been
    /// delivered meanwhile.
    pub fn passed_over(&mut self) {
        self.num_pending = self.num_pending.saturating_sub(1);
    }

    /// The stream lost what is below `first_seq`, none of which `num_pending` counts but by the list of the last
    /// messages of their subjects.
    pub fn trimmed(&mut self, first_seq: u64) {
        let listed = self.skip.len() as u64;
        self.purged(first_seq, self.num_pending.saturating_sub(listed), |_| true);
    }

    /// Whether [`Consumer::reset`] may go to `seq` (0: back to the ack floor), and where that is.
    /// `seq_at_start_time` is the first sequence at or after `opt_start_time`.
    pub fn check_reset(
        &self,
        config: &ConsumerConfig,
        seq: u64,
        seq_at_start_time: u64,
    ) -> Result<u64, ApiError> {
        let refused = match config.deliver_policy {
            _ if seq == 0 => return Ok(self.floor.stream + 1),
            DeliverPolicy::All => None,
            DeliverPolicy::ByStartSequence => (seq < config.opt_start_seq).then_some("below start seq"),
            DeliverPolicy::ByStartTime => (seq < seq_at_start_time).then_some("below start time"),
            _ => Some("not allowed"),
        };
        refused.map_or(Ok(seq), |why| Err(error::CONSUMER_INVALID_RESET.with(why)))
    }

    /// Starts over at `seq` (from [`Consumer::check_reset`]): the one way back for the floor. `num_pending`
    /// counts from there to `last_seq`, the end of the stream.
    pub fn reset(&mut self, seq: u64, num_pending: u64, last_seq: u64) {
        self.pending.clear();
        self.exhausted.clear();
        self.skip.clear();
        self.skip_until = 0;
        self.next_seq = seq;
        self.delivered = Position {
            consumer: 0,
            stream: seq.saturating_sub(1),
        };
        self.floor = self.delivered;
        self.num_pending = num_pending;
        self.counted_upto(last_seq);
        (self.last_delivery, self.last_ack) = (None, None);
        self.replay = None;
        self.hold_until = i64::MIN;
        self.changes.rebase();
    }

    /// Pauses until then, or goes on (`None`, or a time that is past).
    pub fn pause(&mut self, until: Option<i64>, now: i64, out: &mut Vec<Action>) {
        let paused_until = until.filter(|&until| until > now);
        if self.paused_until == paused_until {
            return;
        }
        let shown = until.or(self.paused_until).unwrap_or(now);
        self.paused_until = paused_until;
        out.push(Action::Advisory(Advisory::Paused {
            paused: paused_until.is_some(),
            until: shown,
        }));
    }

    /// The consumer is deleted: ends its pull requests.
    pub fn delete(&mut self, out: &mut Vec<Action>) {
        if let Mode::Pull(waiting) = &mut self.mode {
            waiting.end_all(|_| Status::ConsumerDeleted, out);
        }
        out.push(Action::Advisory(Advisory::Deleted));
    }

    /// The server stops: ends its pull requests; clients ask again elsewhere or later.
    pub fn shut_down(&mut self, out: &mut Vec<Action>) {
        if let Mode::Pull(waiting) = &mut self.mode {
            waiting.end_all(Status::ServerShutdown, out);
        }
    }
}
