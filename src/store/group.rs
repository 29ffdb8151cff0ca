//! Groups: all that was put into one log between two commits. A group becomes durable whole or not at all.

use super::block::{Chunk, ChunkBuilder};
use super::notes::GroupNotes;
use super::record::RecordRef;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What happens to one consumer's row: removal first, then the puts, then the deltas.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ConsumerChange {
    pub remove: bool,
    pub meta: Option<Bytes>,
    pub state: Option<Bytes>,
    /// By number, from one: what was put before under the number or a higher one gives way. So a replay that
    /// meets a delta twice ends where it ended before.
    pub deltas: Vec<(u32, Bytes)>,
}

/// Sequences only go up, so within a group appending first and removing after gives the same as the
/// order of the calls.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub chunk: Chunk,
    /// Removed sequences, as inclusive ranges.
    pub removed: Vec<(u64, u64)>,
    pub truncate: Option<u64>,
    pub meta: Option<Bytes>,
    pub consumers: BTreeMap<String, ConsumerChange>,
    pub notes: Option<Box<GroupNotes>>,
    /// Whether blocks are compressed from here on.
    pub compress: Option<bool>,
    /// Number of the caller's checkpoint that begins behind the group. In memory alone: a crash forgets it.
    pub begins: Option<u64>,
    /// About how much memory and journal it takes.
    pub bytes: usize,
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A group being filled.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub records: ChunkBuilder,
    group: Group,
}

impl Pending {
    pub fn bytes(&self) -> usize {
        self.records.len() + self.group.bytes
    }

    pub fn append(&mut self, record: &RecordRef<'_>) {
        self.records.append(record);
    }

    pub fn remove(&mut self, a: u64, b: u64) {
        match self.group.removed.last_mut() {
            Some((_, end)) if *end + 1 == a => *end = b,
            _ => {
                self.group.removed.push((a, b));
                self.group.bytes += 16;
            }
        }
    }

    pub fn truncate(&mut self, first: u64) {
        self.group.bytes += 8;
        self.group.truncate = self.group.truncate.max(Some(first));
    }

    pub fn put_meta(&mut self, meta: Bytes) {
        self.group.bytes += meta.len() + 8;
        self.group.meta = Some(meta);
    }

    pub fn note(&mut self, now: i64, until: i64, note: &[u8]) {
        self.group.bytes += note.len();
        let notes = self.notes();
        notes.now = notes.now.max(now);
        notes.until = notes.until.max(until);
        notes.bytes.extend_from_slice(note);
    }

    pub fn put_mark(&mut self, mark: Bytes) {
        self.group.bytes += mark.len();
        let old = self.notes().mark.replace(mark);
        self.group.bytes -= old.map_or(0, |old| old.len());
    }

    fn notes(&mut self) -> &mut GroupNotes {
        if self.group.notes.is_none() {
            self.group.bytes += 48;
        }
        self.group.notes.get_or_insert_default()
    }

    pub fn compress(&mut self, on: bool) {
        self.group.bytes += 2;
        self.group.compress = Some(on);
    }

    pub fn begin_checkpoint(&mut self, number: u64) {
        self.group.begins = Some(number);
    }

    fn consumer(&mut self, name: &str, bytes: usize) -> &mut ConsumerChange {
        self.group.bytes += name.len() + bytes + 16;
        if !self.group.consumers.contains_key(name) {
            self.group
                .consumers
                .insert(name.to_string(), ConsumerChange::default());
        }
        self.group.consumers.get_mut(name).expect("just inserted")
    }

    pub fn put_consumer(&mut self, name: &str, meta: Bytes) {
        let change = self.consumer(name, meta.len());
        change.meta = Some(meta);
    }

    pub fn put_consumer_state(&mut self, name: &str, state: Bytes) {
        let change = self.consumer(name, state.len());
        // What is replaced weighs no more: a stopped store gathers states for as long as it is stopped.
        let old = change
            .state
            .replace(state)
            .map_or(0, |old| name.len() + old.len() + 16);
        let deltas = std::mem::take(&mut change.deltas);
        let deltas: usize = deltas
            .iter()
            .map(|(_, delta)| name.len() + delta.len() + 24)
            .sum();
        self.group.bytes = self.group.bytes.saturating_sub(old + deltas);
    }

    pub fn put_consumer_delta(&mut self, name: &str, number: u32, delta: Bytes) {
        let change = self.consumer(name, delta.len() + 8);
        change.deltas.push((number, delta));
    }

    pub fn remove_consumer(&mut self, name: &str) {
        *self.consumer(name, 0) = ConsumerChange {
            remove: true,
            ..ConsumerChange::default()
        };
    }

    pub fn take(&mut self) -> Group {
        // What comes next is mostly as much again.
        let next = ChunkBuilder::like(&self.records);
        let records = std::mem::replace(&mut self.records, next);
        let mut group = std::mem::take(&mut self.group);
        group.bytes += records.len();
        group.chunk = records.finish();
        group
    }
}
