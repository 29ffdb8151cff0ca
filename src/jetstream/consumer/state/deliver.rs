//! Delivering: what to deliver next, to whom, and the books.

use super::{Action, Consumer, Delivery, Interest, Mode, Offered, Want};
use crate::jetstream::consumer::ack_subject::AckNumbers;
use crate::jetstream::consumer::config::AckPolicy;
use crate::jetstream::consumer::snapshot::Position;

impl Consumer {
    /// What would be delivered now. Ends the pull requests that do not wait when there is nothing.
    pub fn want(&mut self, now: i64, out: &mut Vec<Action>) -> Want {
        if now >= self.hold_until {
            self.hold_until = i64::MIN;
        }
        if self.paused_until.is_some_and(|until| now < until) {
            self.nothing_left(out);
            return Want::Nothing;
        }
        let open = match &self.mode {
            Mode::Push(push) => push.is_open(),
            Mode::Pull(waiting) => !waiting.is_empty(),
        };
        if !open || now < self.hold_until {
            return Want::Nothing;
        }
        while let Some(entry) = self.pending.next_queued() {
            if !self.settings.is_last_delivery(entry.deliveries) {
                return Want::Message(entry.seq);
            }
            self.exhaust(entry.seq, out);
        }
        let max = self.settings.max_ack_pending;
        if max > 0 && self.settings.ack_policy != AckPolicy::None && self.pending.len() >= max {
            return Want::Nothing;
        }
        match self.skip.front() {
            Some(&seq) => Want::Message(seq),
            None => Want::From(self.next_seq),
        }
    }

    /// A message that [`Consumer::want`] asked for. Not delivered (and `false`) when there turned out to be
    /// nobody to take it now.
    pub fn offer(
        &mut self,
        message: &Offered,
        now: i64,
        interest: &dyn Interest,
        out: &mut Vec<Action>,
    ) -> bool {
        let again = message.seq < self.next_seq;
        debug_assert!(
            !again || self.pending.is_queued(message.seq),
            "want() asked for another message"
        );
        if !again && self.replay_holds(message, now) {
            return false;
        }
        let deliveries = match self.pending.get(message.seq).filter(|_| again) {
            Some(entry) => u64::from(entry.deliveries) + 1,
            None => 1,
        };
        let numbers = AckNumbers {
            deliveries,
            stream_seq: message.seq,
            consumer_seq: self.delivered.consumer + 1,
            timestamp: message.timestamp,
            num_pending: if again {
                self.num_pending
            } else {
                self.num_pending.saturating_sub(1)
            },
        };
        let size = |to: usize| to + self.options.ack_prefix.len_with(&numbers) + message.body_len;
        if let Some(rate) = &mut self.rate
            && let Err(until) = rate.take(size(message.subject_len), now)
        {
            self.hold_until = until;
            return false;
        }
        let (to, then) = match &mut self.mode {
            Mode::Push(push) => (push.to.clone(), None),
            Mode::Pull(waiting) => match waiting.take(size(message.subject_len), now, interest, out) {
                Some(taker) => (taker.reply, taker.then),
                None => {
                    waiting.nothing_left(out);
                    return false;
                }
            },
        };
        let sent = match &self.mode {
            Mode::Push(push) if push.flow.is_some() => size(to.len()),
            _ => 0,
        };
        out.push(Action::Deliver(Delivery {
            to: to.clone(),
            numbers,
        }));
        self.count_delivery(message, &numbers, again, now, out);
        if let Some(status) = then {
            out.push(Action::status(to, status));
        }
        self.after_delivery(sent, now, out);
        true
    }

    fn replay_holds(&mut self, message: &Offered, now: i64) -> bool {
        let Some(replay) = &mut self.replay else {
            return false;
        };
        if message.seq > replay.until {
            self.replay = None;
            return false;
        }
        if let Some((stored, sent)) = replay.last {
            let due = sent.saturating_add(message.timestamp.saturating_sub(stored));
            if due > now {
                self.hold_until = due;
                return true;
            }
        }
        replay.last = Some((message.timestamp, now));
        false
    }

    fn count_delivery(
        &mut self,
        message: &Offered,
        numbers: &AckNumbers,
        again: bool,
        now: i64,
        out: &mut Vec<Action>,
    ) {
        let (seq, consumer_seq) = (message.seq, numbers.consumer_seq);
        self.delivered.consumer = consumer_seq;
        self.delivered.stream = self.delivered.stream.max(seq);
        self.last_delivery = Some(now);
        self.last_active = now;
        self.changes.note();
        let deadline = self.settings.deadline(numbers.deliveries, now);
        if again {
            self.pending.redeliver(seq, deadline, now);
            self.touch(seq);
            return;
        }
        self.next_seq = seq + 1;
        self.num_pending = numbers.num_pending;
        if self.skip.front() == Some(&seq) {
            self.skip.pop_front();
            self.end_skip();
        }
        if self.settings.ack_policy == AckPolicy::None {
            self.floor = Position {
                consumer: consumer_seq,
                stream: seq,
            };
            if self.options.reports_acks {
                out.push(Action::Acked { seq });
            }
        } else {
            self.pending.push(seq, consumer_seq, deadline, now);
        }
    }

    fn after_delivery(&mut self, sent: usize, now: i64, out: &mut Vec<Action>) {
        let nonce = if sent > 0 { self.random() } else { 0 };
        let full = self.settings.ack_policy == AckPolicy::FlowControl
            && self.settings.max_ack_pending > 0
            && self.pending.len() >= self.settings.max_ack_pending;
        if let Mode::Push(push) = &mut self.mode {
            push.delivered(sent, full, nonce, now, out);
        }
    }

    /// The message that [`Consumer::want`] named is not in the stream any more.
    pub fn missing(&mut self, seq: u64, now: i64, out: &mut Vec<Action>) {
        self.message_deleted(seq, true, now, out);
        // A list entry behind `next_seq` cannot be, but must not be asked for for ever.
        self.skip.retain(|&skipped| skipped != seq);
        self.end_skip();
    }

    /// A message at or after the wanted sequence cannot be read, nor told whether it is for this consumer: if it was
    /// counted, that shows when the consumer has caught up.
    pub fn passed_unread(&mut self) {
        self.passed_unread = true;
    }

    /// No message at or after the wanted sequence matches, up to `last_seq`, the end of the stream.
    pub fn caught_up(&mut self, last_seq: u64, out: &mut Vec<Action>) {
        if last_seq >= self.next_seq {
            self.next_seq = last_seq + 1;
        }
        if self.counted_to <= last_seq {
            let is_counted = std::mem::take(&mut self.passed_unread) || self.num_pending == 0;
            debug_assert!(is_counted, "nothing is left, so nothing is pending");
            self.num_pending = 0;
        }
        self.replay = None;
        self.nothing_left(out);
    }

    fn nothing_left(&mut self, out: &mut Vec<Action>) {
        if let Mode::Pull(waiting) = &mut self.mode {
            waiting.nothing_left(out);
        }
    }

    /// A delivery reached nobody: the subscriber went between the look and the send. It does not count; the
    /// message is due again at once, to somebody else. Without acks it is gone, as it would be on the wire.
    pub fn undelivered(&mut self, delivery: &Delivery, now: i64) {
        match &mut self.mode {
            Mode::Push(_) => self.interest(false, now),
            Mode::Pull(waiting) => waiting.drop_reply(&delivery.to),
        }
        let seq = delivery.numbers.stream_seq;
        if self
            .pending
            .get(seq)
            .is_some_and(|entry| u64::from(entry.deliveries) == delivery.numbers.deliveries)
        {
            self.pending.undeliver(seq);
            self.touch(seq);
        }
    }
}
