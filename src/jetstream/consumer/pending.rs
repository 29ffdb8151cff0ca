//! Messages delivered and not acked yet, their deadlines, and those due again.
//!
//! A stream sequence is delivered for the first time in rising order, so the entries stand in a ring
//! sorted by sequence: appended at the back, marked dead in the middle, dropped at the front. Looking one
//! up is a guess (`seq - front`, right when nothing was filtered out) and then a binary search. Dead
//! entries are squeezed out when they outnumber the live.
//!
//! Deadlines stand in a heap that is allowed to be wrong: an entry of the heap counts only while the ring
//! says the same. Deadlines mostly rise, so a push costs one comparison. The heap is built anew when most
//! of it is stale. Nothing ever scans the pending messages to find the one that is late.
//!
//! Each entry is live or dead; a live one waits for its deadline or is queued to be delivered again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The deadline of a message that has none.
pub(super) const NEVER: i64 = i64::MAX;

/// One message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    /// Its sequence in the stream.
    pub seq: u64,
    /// The sequence of its first delivery.
    pub consumer_seq: u64,
    /// When it is late; [`NEVER`] if it never is, 0 while it is queued.
    pub deadline: i64,
    /// When it was delivered last, or last said to be in progress.
    pub touched: i64,
    /// How often it was delivered.
    pub deliveries: u32,
    live: bool,
    queued: bool,
    /// Already noted as changed since the last snapshot.
    pub noted: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ring: VecDeque<InFlight>,
    live: usize,
    /// Live entries with more than one delivery.
    redelivered: usize,
    deadlines: BinaryHeap<Reverse<(i64, u64)>>,
    queue: VecDeque<u64>,
    queued: usize,
}

impl Pending {
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many are queued to be delivered again.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many were delivered more than once.
    pub fn redelivered(&self) -> usize {
        self.redelivered
    }

    /// The lowest message in flight.
    pub fn first(&self) -> Option<&InFlight> {
        self.ring.front()
    }

    /// Those in flight, by sequence, from `seq` on.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = &InFlight> {
        let at = self.ring.partition_point(|entry| entry.seq < seq);
        self.ring.range(at..).filter(|entry| entry.live)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let first = self.ring.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        let at = match self.ring.get(guess) {
            Some(entry) if entry.seq == seq => guess,
            _ => self.ring.binary_search_by_key(&seq, |entry| entry.seq).ok()?,
        };
        self.ring[at].live.then_some(at)
    }

    pub fn get(&self, seq: u64) -> Option<&InFlight> {
        self.index(seq).map(|at| &self.ring[at])
    }

    pub fn get_mut(&mut self, seq: u64) -> Option<&mut InFlight> {
        self.index(seq).map(|at| &mut self.ring[at])
    }

    /// A first delivery. `seq` is above every other.
    pub fn push(&mut self, seq: u64, consumer_seq: u64, deadline: i64, now: i64) {
        self.restore(InFlight {
            seq,
            consumer_seq,
            deadline,
            touched: now,
            deliveries: 1,
            live: true,
            queued: false,
            noted: false,
        });
    }

    /// Puts back what a snapshot held; `seq` rises from call to call.
    pub fn put_back(&mut self, seq: u64, consumer_seq: u64, deadline: i64, touched: i64, deliveries: u32) {
        self.restore(InFlight {
            seq,
            consumer_seq,
            deadline,
            touched,
            deliveries,
            live: true,
            queued: false,
            noted: false,
        });
    }

    fn restore(&mut self, entry: InFlight) {
        debug_assert!(
            self.ring.back().is_none_or(|last| last.seq < entry.seq),
            "first deliveries rise"
        );
        self.ring.push_back(entry);
        self.live += 1;
        self.redelivered += usize::from(entry.deliveries > 1);
        self.arm(entry.deadline, entry.seq);
    }

    fn arm(&mut self, deadline: i64, seq: u64) {
        if deadline == NEVER {
            return;
        }
        if self.deadlines.len() > 2 * self.live + 64 {
            self.rebuild_deadlines();
        }
        self.deadlines.push(Reverse((deadline, seq)));
    }

    fn rebuild_deadlines(&mut self) {
        let waiting = self
            .ring
            .iter()
            .filter(|entry| entry.live && !entry.queued && entry.deadline != NEVER);
        let entries: Vec<_> = waiting
            .map(|entry| Reverse((entry.deadline, entry.seq)))
            .collect();
        self.deadlines = entries.into();
    }

    /// Another delivery of one that was queued: counts it and gives it a deadline.
    pub fn redeliver(&mut self, seq: u64, deadline: i64, now: i64) {
        let Some(at) = self.index(seq) else { return };
        let entry = &mut self.ring[at];
        entry.deliveries = entry.deliveries.saturating_add(1);
        self.redelivered += usize::from(entry.deliveries == 2);
        self.wait(seq, deadline, now);
    }

    /// Gives a message a new deadline; it is no longer queued.
    pub fn wait(&mut self, seq: u64, deadline: i64, now: i64) {
        let Some(at) = self.index(seq) else { return };
        let entry = &mut self.ring[at];
        if std::mem::take(&mut entry.queued) {
            self.queued -= 1;
        }
        (entry.deadline, entry.touched) = (deadline, now);
        self.arm(deadline, seq);
    }

    /// A delivery that reached nobody did not happen: uncounts it and queues the message.
    pub fn undeliver(&mut self, seq: u64) {
        let Some(at) = self.index(seq) else { return };
        let entry = &mut self.ring[at];
        self.redelivered -= usize::from(entry.deliveries == 2);
        entry.deliveries = entry.deliveries.saturating_sub(1);
        self.enqueue(seq);
    }

    /// Queues a message to be delivered again; once is enough.
    pub fn enqueue(&mut self, seq: u64) {
        let Some(at) = self.index(seq) else { return };
        let entry = &mut self.ring[at];
        if !std::mem::replace(&mut entry.queued, true) {
            entry.deadline = 0;
            self.queue.push_back(seq);
            self.queued += 1;
        }
    }

    /// The next message to deliver again. It stays queued until [`Pending::redeliver`] or removal.
    pub fn next_queued(&mut self) -> Option<InFlight> {
        while let Some(&seq) = self.queue.front() {
            match self.get(seq) {
                Some(entry) if entry.queued => return Some(*entry),
                _ => self.queue.pop_front(),
            };
        }
        None
    }

    /// The sequence at the front of [`Pending::next_queued`], as last seen.
    pub fn is_queued(&self, seq: u64) -> bool {
        self.get(seq).is_some_and(|entry| entry.queued)
    }

    /// Takes out those that are late at `now`, by sequence.
    pub fn late(&mut self, now: i64, late: &mut Vec<u64>) {
        late.clear();
        while let Some(&Reverse((deadline, seq))) = self.deadlines.peek() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            if self
                .get(seq)
                .is_some_and(|entry| entry.deadline == deadline && !entry.queued)
            {
                late.push(seq);
            }
        }
        late.sort_unstable();
        late.dedup();
    }

    /// When something may be late next; early, never late.
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.peek().map(|&Reverse((deadline, _))| deadline)
    }

    /// Done with a message. The second value: whether it was the lowest in flight.
    pub fn remove(&mut self, seq: u64) -> Option<(InFlight, bool)> {
        let at = self.index(seq)?;
        let entry = &mut self.ring[at];
        entry.live = false;
        let removed = *entry;
        self.live -= 1;
        self.queued -= usize::from(removed.queued);
        self.redelivered -= usize::from(removed.deliveries > 1);
        while self.ring.front().is_some_and(|entry| !entry.live) {
            self.ring.pop_front();
        }
        if self.live == 0 {
            self.queue.clear();
            self.deadlines.clear();
        } else if self.ring.len() > 2 * self.live + 64 {
            self.ring.retain(|entry| entry.live);
        }
        Some((removed, at == 0))
    }

    /// Moves every deadline, after a change of how long to wait: `wait` gives the new one.
    pub fn rearm(&mut self, wait: impl Fn(&InFlight) -> i64) {
        for entry in self.ring.iter_mut().filter(|entry| entry.live && !entry.queued) {
            entry.deadline = wait(entry);
        }
        self.rebuild_deadlines();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_heap_and_queue_stay_small() {
        let mut pending = Pending::default();
        // One old message holds the front while a million others pass.
        pending.push(1, 1, 1_000_000_000, 0);
        for seq in 2..200_000u64 {
            pending.push(seq, seq, 1_000_000_000 + seq as i64, 0);
            if seq % 3 == 0 {
                pending.enqueue(seq);
                assert_eq!(pending.next_queued().unwrap().seq, seq);
                pending.redeliver(seq, 2_000_000_000, 0);
            }
            assert!(!pending.remove(seq).unwrap().1);
            assert!(pending.remove(seq).is_none());
        }
        assert_eq!(
            (pending.len(), pending.queued(), pending.redelivered()),
            (1, 0, 0)
        );
        assert!(pending.ring.len() < 100 && pending.deadlines.len() < 100 && pending.queue.len() < 2);
        let mut late = Vec::new();
        pending.late(i64::MAX - 1, &mut late);
        assert_eq!(late, [1]);
        assert!(pending.remove(1).unwrap().1);
        assert!(pending.is_empty() && pending.first().is_none());
    }

    #[test]
    fn deadlines() {
        let mut pending = Pending::default();
        for (seq, deadline) in [(10, 50), (20, 40), (30, NEVER), (40, 60)] {
            pending.push(seq, seq / 10, deadline, 0);
        }
        let mut late = Vec::new();
        pending.late(39, &mut late);
        assert!(late.is_empty());
        assert_eq!(pending.next_deadline(), Some(40));
        pending.wait(20, 70, 5);
        pending.late(55, &mut late);
        assert_eq!(late, [10]);
        pending.enqueue(10);
        pending.enqueue(10);
        assert_eq!((pending.queued(), pending.is_queued(10)), (1, true));
        pending.wait(10, 80, 0);
        assert!(pending.next_queued().is_none());
        pending.late(100, &mut late);
        assert_eq!(late, [10, 20, 40]);
        pending.rearm(|entry| entry.seq as i64);
        pending.late(29, &mut late);
        assert_eq!(late, [10, 20]);
    }
}
