//! The durable state of a consumer, as bytes: a base and deltas on top of it.
//!
//! A base says everything, a delta what changed since the row before it. Both have one layout, and
//! reading is applying rows in order to an empty [`Snapshot`]. Numbers are LEB128 varints; `gap` is the
//! distance from the end of the run before; `zigzag` folds the sign into the lowest bit.
//!
//! ```text
//! u8 version = 1, u8 kind (0 base, 1 delta)
//! next_seq, delivered.consumer, delivered.stream, floor.consumer, floor.stream, skip_until
//! removed:           count, (gap, length)*
//! in flight:         count, (gap, zigzag consumer_seq step, length, deliveries, zigzag deadline step)*
//! exhausted removed: count, (gap)*
//! exhausted added:   count, (gap, deliveries, reason length, reason)*
//! u32 LE crc32 of everything before it
//! ```
//!
//! A run is neighbours in both sequences that share delivery count and deadline: a batch delivered at once
//! is a few bytes. A message in flight at or below the floor of a row is gone by that alone, so acks in
//! order cost nothing but the header.

use std::collections::BTreeMap;

use thiserror::Error;

use super::pending::InFlight;

const VERSION: u8 = 1;

/// A place in both countings: the consumer's deliveries and the stream's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Position {
    pub consumer: u64,
    pub stream: u64,
}

/// A message in flight when the snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRow {
    /// The sequence of its first delivery.
    pub consumer_seq: u64,
    /// When it is due again, unix nanoseconds; 0 is at once, `i64::MAX` is never.
    pub deadline: i64,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// A message that is not delivered again but not acked either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exhausted {
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why it was given up.
    pub reason: String,
}

/// Everything of a consumer that a restart must not forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first stream sequence not looked at.
    pub next_seq: u64,
    /// The last delivery.
    pub delivered: Position,
    /// Everything up to here is done with.
    pub floor: Position,
    /// Up to here only the last message of each subject is delivered; 0 when that is over.
    pub skip_until: u64,
    /// Messages in flight by stream sequence.
    pub pending: BTreeMap<u64, PendingRow>,
    /// Messages given up, by stream sequence.
    pub exhausted: BTreeMap<u64, Exhausted>,
}

/// Why a row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum SnapshotError {
    #[error("consumer state is damaged (checksum)")]
    Checksum,
    #[error("consumer state has version {0}, this server knows 1")]
    Version(u8),
    #[error("consumer state is malformed")]
    Malformed,
    #[error("consumer state starts with a delta")]
    NoBase,
}

/// The numbers every row starts with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub next_seq: u64,
    pub delivered: Position,
    pub floor: Position,
    pub skip_until: u64,
}

/// What goes into a row; every iterator is in rising order.
pub(super) struct Row<'a, P> {
    pub base: bool,
    pub head: Head,
    pub removed: &'a [u64],
    pub pending: P,
    pub exhausted_removed: &'a [u64],
    pub exhausted_added: &'a mut dyn Iterator<Item = (u64, &'a Exhausted)>,
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A list whose length is known only at its end: written apart, then behind its count.
fn counted(out: &mut Vec<u8>, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> u64) {
    scratch.clear();
    let count = write(scratch);
    put(count, out);
    out.extend_from_slice(scratch);
}

impl<'a, P: Iterator<Item = &'a InFlight>> Row<'a, P> {
    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(!self.base)];
        let mut scratch = Vec::new();
        let Head {
            next_seq,
            delivered,
            floor,
            skip_until,
        } = self.head;
        for number in [
            next_seq,
            delivered.consumer,
            delivered.stream,
            floor.consumer,
            floor.stream,
            skip_until,
        ] {
            put(number, &mut out);
        }
        counted(&mut out, &mut scratch, |out| removed_runs(self.removed, out));
        counted(&mut out, &mut scratch, |out| pending_runs(self.pending, out));
        counted(&mut out, &mut scratch, |out| {
            let mut end = 0;
            for &seq in self.exhausted_removed {
                put(seq - std::mem::replace(&mut end, seq), out);
            }
            self.exhausted_removed.len() as u64
        });
        counted(&mut out, &mut scratch, |out| {
            let (mut end, mut count) = (0, 0);
            for (seq, exhausted) in self.exhausted_added {
                put(seq - std::mem::replace(&mut end, seq), out);
                put(u64::from(exhausted.deliveries), out);
                put(exhausted.reason.len() as u64, out);
                out.extend_from_slice(exhausted.reason.as_bytes());
                count += 1;
            }
            count
        });
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

fn removed_runs(removed: &[u64], out: &mut Vec<u8>) -> u64 {
    let (mut end, mut count) = (0, 0);
    for run in removed.chunk_by(|left, right| left + 1 == *right) {
        put(run[0] - end, out);
        put(run.len() as u64, out);
        end = run[0] + run.len() as u64;
        count += 1;
    }
    count
}

fn pending_runs<'a>(pending: impl Iterator<Item = &'a InFlight>, out: &mut Vec<u8>) -> u64 {
    struct Run {
        first: InFlight,
        len: u64,
    }
    let (mut seq_end, mut consumer_end, mut deadline, mut count) = (0u64, 0u64, 0i64, 0);
    let mut write = |run: &Run| {
        put(run.first.seq - seq_end, out);
        put(
            zigzag(run.first.consumer_seq.wrapping_sub(consumer_end) as i64),
            out,
        );
        put(run.len, out);
        put(u64::from(run.first.deliveries), out);
        put(zigzag(run.first.deadline.wrapping_sub(deadline)), out);
        seq_end = run.first.seq + run.len;
        consumer_end = run.first.consumer_seq.wrapping_add(run.len);
        deadline = run.first.deadline;
        count += 1;
    };
    let mut run: Option<Run> = None;
    for entry in pending {
        match &mut run {
            Some(Run { first, len })
                if first.seq + *len == entry.seq
                    && first.consumer_seq.wrapping_add(*len) == entry.consumer_seq
                    && (first.deliveries, first.deadline) == (entry.deliveries, entry.deadline) =>
            {
                *len += 1;
            }
            _ => {
                if let Some(done) = run.replace(Run {
                    first: *entry,
                    len: 1,
                }) {
                    write(&done);
                }
            }
        }
    }
    if let Some(done) = &run {
        write(done);
    }
    count
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn get(&mut self) -> Result<u64, SnapshotError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(SnapshotError::Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SnapshotError::Malformed)
    }

    /// A number that continues from `end`.
    fn after(&mut self, end: u64) -> Result<u64, SnapshotError> {
        end.checked_add(self.get()?).ok_or(SnapshotError::Malformed)
    }
}

impl Snapshot {
    /// Reads a base and its deltas, in the order they were written.
    pub fn read<'a>(rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Snapshot>, SnapshotError> {
        let mut snapshot = None;
        for row in rows {
            let body = match row.len().checked_sub(4) {
                Some(at) if at >= 2 && row[at..] == crc32fast::hash(&row[..at]).to_le_bytes() => &row[..at],
                _ => return Err(SnapshotError::Checksum),
            };
            if body[0] != VERSION {
                return Err(SnapshotError::Version(body[0]));
            }
            match (body[1], &mut snapshot) {
                (0, _) => snapshot.insert(Snapshot::default()).apply(&body[2..])?,
                (1, Some(base)) => base.apply(&body[2..])?,
                (1, None) => return Err(SnapshotError::NoBase),
                _ => return Err(SnapshotError::Malformed),
            }
        }
        Ok(snapshot)
    }

    fn apply(&mut self, body: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader(body);
        self.next_seq = from.get()?;
        self.delivered = Position {
            consumer: from.get()?,
            stream: from.get()?,
        };
        self.floor = Position {
            consumer: from.get()?,
            stream: from.get()?,
        };
        self.skip_until = from.get()?;
        self.pending = self.pending.split_off(&self.floor.stream.saturating_add(1));
        let mut end = 0;
        for _ in 0..from.get()? {
            let first = from.after(end)?;
            end = from.after(first)?;
            if end - first > self.pending.len() as u64 {
                self.pending.retain(|seq, _| !(first..end).contains(seq));
            } else {
                for seq in first..end {
                    self.pending.remove(&seq);
                }
            }
        }
        self.apply_pending(&mut from)?;
        let mut end = 0;
        for _ in 0..from.get()? {
            end = from.after(end)?;
            self.exhausted.remove(&end);
        }
        let mut end = 0;
        for _ in 0..from.get()? {
            end = from.after(end)?;
            let deliveries = u32::try_from(from.get()?).map_err(|_| SnapshotError::Malformed)?;
            let len = usize::try_from(from.get()?).map_err(|_| SnapshotError::Malformed)?;
            let (reason, rest) = from.0.split_at_checked(len).ok_or(SnapshotError::Malformed)?;
            from.0 = rest;
            let reason = String::from_utf8(reason.to_vec()).map_err(|_| SnapshotError::Malformed)?;
            self.exhausted.insert(end, Exhausted { deliveries, reason });
        }
        if from.0.is_empty() {
            Ok(())
        } else {
            Err(SnapshotError::Malformed)
        }
    }

    fn apply_pending(&mut self, from: &mut Reader<'_>) -> Result<(), SnapshotError> {
        let (mut end, mut consumer_end, mut deadline) = (0u64, 0u64, 0i64);
        for _ in 0..from.get()? {
            let first = from.after(end)?;
            let consumer_first = consumer_end.wrapping_add(unzigzag(from.get()?) as u64);
            let len = from.get()?;
            let deliveries = u32::try_from(from.get()?).map_err(|_| SnapshotError::Malformed)?;
            deadline = deadline.wrapping_add(unzigzag(from.get()?));
            end = first
                .checked_add(len)
                .filter(|&end| end <= self.next_seq)
                .ok_or(SnapshotError::Malformed)?;
            consumer_end = consumer_first.wrapping_add(len);
            for step in 0..len {
                let consumer_seq = consumer_first.wrapping_add(step);
                self.pending.insert(
                    first + step,
                    PendingRow {
                        consumer_seq,
                        deadline,
                        deliveries,
                    },
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::consumer::pending::{NEVER, Pending};
    use proptest::prelude::*;

    fn base(entries: &[(u64, u64, i64, u32)], exhausted: &BTreeMap<u64, Exhausted>) -> (Vec<u8>, Snapshot) {
        let mut pending = Pending::default();
        let mut expected = Snapshot {
            next_seq: 1_000_000,
            delivered: Position {
                consumer: 70,
                stream: 900_000,
            },
            floor: Position {
                consumer: 3,
                stream: 9,
            },
            skip_until: 5,
            exhausted: exhausted.clone(),
            ..Snapshot::default()
        };
        for &(seq, consumer_seq, deadline, deliveries) in entries {
            pending.put_back(seq, consumer_seq, deadline, 0, deliveries);
            expected.pending.insert(
                seq,
                PendingRow {
                    consumer_seq,
                    deadline,
                    deliveries,
                },
            );
        }
        let head = Head {
            next_seq: expected.next_seq,
            delivered: expected.delivered,
            floor: expected.floor,
            skip_until: expected.skip_until,
        };
        let row = Row {
            base: true,
            head,
            removed: &[],
            pending: pending.from(0),
            exhausted_removed: &[],
            exhausted_added: &mut expected.exhausted.iter().map(|(&seq, row)| (seq, row)),
        };
        let bytes = row.encode();
        (bytes, expected)
    }

    #[test]
    fn a_batch_is_a_few_bytes_and_damage_is_seen() {
        let entries: Vec<_> = (10..100_010)
            .map(|seq| (seq, seq - 5, 1_700_000_000_000_000_000, 1))
            .collect();
        let (bytes, expected) = base(&entries, &BTreeMap::new());
        assert!(bytes.len() < 50, "{}", bytes.len());
        assert_eq!(Snapshot::read([&bytes[..]]).unwrap().unwrap(), expected);
        assert_eq!(Snapshot::read([]).unwrap(), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(
                Snapshot::read([&damaged[..]]),
                Err(SnapshotError::Checksum),
                "{at}"
            );
            assert_eq!(
                Snapshot::read([&bytes[..at]]),
                Err(SnapshotError::Checksum),
                "{at}"
            );
        }
        let with_crc = |mut body: Vec<u8>| {
            let crc = crc32fast::hash(&body);
            body.extend_from_slice(&crc.to_le_bytes());
            body
        };
        let read = |body: &[u8]| Snapshot::read([&with_crc(body.to_vec())[..]]).unwrap_err();
        assert_eq!(read(&[2, 0]), SnapshotError::Version(2));
        assert_eq!(read(&[1, 1]), SnapshotError::NoBase);
        assert_eq!(read(&[1, 7]), SnapshotError::Malformed);
        assert_eq!(read(&[1, 0, 1, 1]), SnapshotError::Malformed);
        // A run of 2^60 messages: refused, not expanded.
        let mut huge = vec![1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 5, 0];
        put(1 << 60, &mut huge);
        huge.extend_from_slice(&[1, 0, 0, 0]);
        assert_eq!(read(&huge), SnapshotError::Malformed);
    }

    proptest! {
        #[test]
        fn round_trip(
            steps in prop::collection::vec((1u64..4, 0u64..3, prop_oneof![Just(0i64), Just(NEVER), Just(77i64), any::<i64>()], 1u32..4), 0..60),
            exhausted in prop::collection::btree_map(1u64..1000, (1u32..9, "[a-z]{0,9}"), 0..9),
        ) {
            let (mut seq, mut consumer_seq) = (9, 3);
            let entries: Vec<_> = steps.into_iter().map(|(gap, more, deadline, deliveries)| {
                seq += gap;
                consumer_seq += 1 + more;
                (seq, consumer_seq, deadline, deliveries)
            }).collect();
            let exhausted = exhausted.into_iter()
                .map(|(seq, (deliveries, reason))| (seq, Exhausted { deliveries, reason })).collect();
            let (bytes, expected) = base(&entries, &exhausted);
            prop_assert_eq!(Snapshot::read([&bytes[..]]).unwrap().unwrap(), expected);
        }
    }
}
