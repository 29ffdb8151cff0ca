//! Acks of all kinds, giving up on messages, and pull requests, which an ack may carry.

use bytes::Bytes;

use super::{Action, Consumer, Interest, Mode};
use crate::jetstream::consumer::ack::Ack;
use crate::jetstream::consumer::ack_subject::AckNumbers;
use crate::jetstream::consumer::advisory::Advisory;
use crate::jetstream::consumer::config::AckPolicy;
use crate::jetstream::consumer::pull::PullRequest;
use crate::jetstream::consumer::snapshot::{Exhausted, Position};
use crate::jetstream::consumer::status::Status;

/// Reasons are kept until the dead letter is stored.
const REASON_BYTES_MAX: usize = 512;
const EXHAUSTED_REASON: &str = "maximum deliveries reached";

impl Consumer {
    /// An ack arrived on an ack subject with these numbers. `reply` is answered if it was taken.
    pub fn ack(
        &mut self,
        numbers: &AckNumbers,
        ack: Ack<'_>,
        reply: Option<Bytes>,
        now: i64,
        interest: &dyn Interest,
        out: &mut Vec<Action>,
    ) {
        // Forged, or given by a server that crashed before it noted the delivery: due again anyway.
        let unknown = numbers.stream_seq == 0 || numbers.stream_seq >= self.next_seq;
        if unknown || self.settings.ack_policy == AckPolicy::None {
            if let (Ack::Next(body), Some(reply)) = (ack, reply) {
                self.pull(body, reply, now, interest, out);
            }
            return;
        }
        match ack {
            Ack::Ack => self.settle(numbers, true, now, out),
            Ack::Next(body) => {
                self.settle(numbers, true, now, out);
                if let Some(reply) = reply {
                    self.pull(body, reply, now, interest, out);
                }
                return;
            }
            Ack::Nak(delay) => self.nak(numbers, delay, now, out),
            Ack::Progress => {
                let seq = numbers.stream_seq;
                if let Some(deliveries) = self.pending.get(seq).map(|entry| entry.deliveries) {
                    self.pending
                        .wait(seq, self.settings.deadline(deliveries.into(), now), now);
                    self.touch(seq);
                }
            }
            Ack::Term(reason) => self.term(numbers, reason, now, out),
        }
        if let Some(to) = reply {
            out.push(Action::AckReply { to });
        }
    }

    /// Done with the message, and for ack-all with every one below it.
    fn settle(&mut self, numbers: &AckNumbers, sample: bool, now: i64, out: &mut Vec<Action>) {
        let seq = numbers.stream_seq;
        self.last_ack = Some(now);
        if sample && self.settings.sample_percent > 0 {
            self.sample(numbers, now, out);
        }
        match self.settings.ack_policy {
            AckPolicy::Explicit => {
                if let Some((_, was_first)) = self.pending.remove(seq) {
                    self.forget(seq);
                    self.raise_floor(was_first);
                    self.report(seq, out);
                }
            }
            AckPolicy::All | AckPolicy::FlowControl => self.settle_through(seq, out),
            AckPolicy::None => {}
        }
        if self.exhausted.remove(&seq).is_some() {
            self.changes.exhausted_gone(seq);
            self.report(seq, out);
        }
    }

    fn settle_through(&mut self, seq: u64, out: &mut Vec<Action>) {
        if seq <= self.floor.stream {
            return;
        }
        let mut consumer = self.floor.consumer;
        while let Some(first) = self.pending.first().filter(|first| first.seq <= seq).copied() {
            self.pending.remove(first.seq);
            self.forget(first.seq);
            consumer = consumer.max(first.consumer_seq);
            self.report(first.seq, out);
        }
        self.floor = Position {
            consumer,
            stream: seq,
        };
        self.changes.note();
    }

    /// The answer to a flow-control request, and with `flow_control` acks the positions it names: the last
    /// stream sequence that was received.
    pub fn flow_control_answered(
        &mut self,
        subject: &[u8],
        last_stream: Option<u64>,
        now: i64,
        out: &mut Vec<Action>,
    ) {
        let Mode::Push(push) = &mut self.mode else { return };
        if !push.answered(subject) || self.settings.ack_policy != AckPolicy::FlowControl {
            return;
        }
        if let Some(seq) = last_stream.filter(|&seq| seq > 0 && seq < self.next_seq) {
            self.last_ack = Some(now);
            self.settle_through(seq, out);
        }
    }

    fn nak(&mut self, numbers: &AckNumbers, delay: i64, now: i64, out: &mut Vec<Action>) {
        let seq = numbers.stream_seq;
        let Some(deliveries) = self.pending.get(seq).map(|entry| entry.deliveries) else {
            return;
        };
        out.push(Action::Advisory(Advisory::Naked {
            consumer_seq: numbers.consumer_seq,
            stream_seq: seq,
            deliveries: numbers.deliveries,
        }));
        if delay > 0 {
            self.pending
                .wait(seq, now.saturating_add(delay).min(i64::MAX - 1), now);
        } else if self.settings.is_last_delivery(deliveries) {
            return self.exhaust(seq, out);
        } else {
            self.pending.enqueue(seq);
        }
        self.touch(seq);
    }

    fn term(&mut self, numbers: &AckNumbers, mut reason: String, now: i64, out: &mut Vec<Action>) {
        let seq = numbers.stream_seq;
        let Some(deliveries) = self.pending.get(seq).map(|entry| entry.deliveries) else {
            return self.settle(numbers, false, now, out);
        };
        let cut = (0..=REASON_BYTES_MAX)
            .rev()
            .find(|&at| reason.is_char_boundary(at));
        reason.truncate(cut.unwrap_or(0));
        out.push(Action::Advisory(Advisory::Terminated {
            consumer_seq: numbers.consumer_seq,
            stream_seq: seq,
            deliveries: numbers.deliveries,
            reason: reason.clone(),
        }));
        if self.settings.dead_letter {
            self.give_up(seq, Exhausted { deliveries, reason }, out);
        }
        self.settle_rest_of_term(numbers, now, out);
    }

    /// A dead letter waits in `exhausted` until it is stored; its ack must not take it from there.
    fn settle_rest_of_term(&mut self, numbers: &AckNumbers, now: i64, out: &mut Vec<Action>) {
        let waiting = self.exhausted.remove(&numbers.stream_seq);
        self.settle(numbers, false, now, out);
        if let Some(waiting) = waiting {
            self.exhausted.insert(numbers.stream_seq, waiting);
        }
    }

    /// A message that had all its deliveries: out of flight, but not acked.
    pub(super) fn exhaust(&mut self, seq: u64, out: &mut Vec<Action>) {
        let Some(deliveries) = self.pending.get(seq).map(|entry| entry.deliveries) else {
            return;
        };
        let stream_seq = seq;
        out.push(Action::Advisory(Advisory::MaxDeliveries {
            stream_seq,
            deliveries: deliveries.into(),
        }));
        self.give_up(
            seq,
            Exhausted {
                deliveries,
                reason: EXHAUSTED_REASON.to_owned(),
            },
            out,
        );
    }

    fn give_up(&mut self, seq: u64, exhausted: Exhausted, out: &mut Vec<Action>) {
        let Some((_, was_first)) = self.pending.remove(seq) else {
            return;
        };
        self.forget(seq);
        self.raise_floor(was_first);
        if self.settings.dead_letter {
            out.push(exhausted.dead_letter(seq));
        }
        self.exhausted.insert(seq, exhausted);
        self.changes.exhausted_new(seq);
    }

    /// The dead letter of a message is stored (in this commit): the message itself is done with.
    pub fn dead_lettered(&mut self, seq: u64, out: &mut Vec<Action>) {
        if self.exhausted.remove(&seq).is_some() {
            self.changes.exhausted_gone(seq);
            self.report(seq, out);
        }
    }

    fn report(&self, seq: u64, out: &mut Vec<Action>) {
        if self.options.reports_acks {
            out.push(Action::Acked { seq });
        }
    }

    fn sample(&mut self, numbers: &AckNumbers, now: i64, out: &mut Vec<Action>) {
        let percent = u64::from(self.settings.sample_percent);
        if percent < 100 && self.random() % 100 >= percent {
            return;
        }
        if let Some(entry) = self.pending.get(numbers.stream_seq) {
            out.push(Action::Advisory(Advisory::AckSampled {
                consumer_seq: numbers.consumer_seq,
                stream_seq: numbers.stream_seq,
                deliveries: numbers.deliveries,
                ack_time: now.saturating_sub(entry.touched),
            }));
        }
    }

    /// A pull request. What cannot be served is answered with a status at once.
    pub fn pull(
        &mut self,
        body: &[u8],
        reply: Bytes,
        now: i64,
        interest: &dyn Interest,
        out: &mut Vec<Action>,
    ) {
        let Mode::Pull(waiting) = &mut self.mode else {
            return out.push(Action::status(reply, Status::ConsumerIsPushBased));
        };
        let checked =
            PullRequest::parse(body).and_then(|request| request.check(&self.settings.caps).map(|()| request));
        let request = match checked {
            Ok(request) => request,
            Err(status) => return out.push(Action::status(reply, status)),
        };
        self.last_active = now;
        let full = waiting.is_full(now, interest, out);
        if request.no_wait {
            let there = self.num_pending + self.pending.queued() as u64;
            if there == 0 && request.expires == 0 {
                return out.push(Action::status(reply, Status::NoMessages));
            }
            if there > 0 {
                waiting.sweep(now, interest, out);
                if there < waiting.outstanding() {
                    return out.push(Action::status(reply, Status::RequestsPending));
                }
            }
        }
        if full {
            // A client with heartbeats would ask again at once: let it miss them instead.
            if request.heartbeat == 0 {
                out.push(Action::status(reply, Status::ExceededMaxWaiting));
            }
            return;
        }
        waiting.add(&request, reply, now);
    }
}
