//! Keeping the durable state: what changed since it was last written.
//!
//! A small consumer is written whole each time. A large one gets a delta, until the deltas outgrow the
//! base. First deliveries cost nothing until the commit: they are the entries from `mark` on.

use super::Consumer;
use crate::jetstream::consumer::snapshot::{Exhausted, Head, Row};

/// Up to here the whole state is no dearer than a delta. (Tests hold few messages and want deltas.)
const BASE_ALWAYS_ENTRIES: usize = if cfg!(test) { 1 } else { 128 };
/// Deltas may sum up to this much more than their base.
const DELTAS_PER_BASE: usize = 2;
const DELTA_BYTES_MIN: usize = 64 * 1024;
const DELTA_ROWS_MAX: u32 = 4096;

/// What to write with the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Row 0, in place of every row there is.
    Base(Vec<u8>),
    /// One more row, by number: 1 is the first after a base.
    #[allow(missing_docs)]
    Delta { row: u32, bytes: Vec<u8> },
}

#[derive(Debug)]
pub(super) struct Changes {
    enabled: bool,
    changed: bool,
    base_due: bool,
    /// Entries from here on were delivered first after the last write.
    mark: u64,
    removed: Vec<u64>,
    touched: Vec<u64>,
    exhausted_removed: Vec<u64>,
    exhausted_added: Vec<u64>,
    base_bytes: usize,
    delta_bytes: usize,
    rows: u32,
}

impl Changes {
    pub fn new(enabled: bool) -> Changes {
        Changes {
            enabled,
            changed: true,
            base_due: true,
            mark: 0,
            removed: Vec::new(),
            touched: Vec::new(),
            exhausted_removed: Vec::new(),
            exhausted_added: Vec::new(),
            base_bytes: 0,
            delta_bytes: 0,
            rows: 0,
        }
    }

    /// Something in the head changed.
    pub fn note(&mut self) {
        self.changed = true;
    }

    /// Too much changed: write a base.
    pub fn rebase(&mut self) {
        (self.changed, self.base_due) = (true, true);
    }

    pub fn exhausted_new(&mut self, seq: u64) {
        self.changed = true;
        if self.enabled && !self.base_due {
            self.exhausted_added.push(seq);
        }
    }

    pub fn exhausted_gone(&mut self, seq: u64) {
        self.changed = true;
        if self.enabled && !self.base_due {
            self.exhausted_removed.push(seq);
        }
    }

    /// Everything below `next_seq` is written.
    pub fn saved(&mut self, next_seq: u64) {
        (self.changed, self.mark) = (false, next_seq);
        self.removed.clear();
        self.touched.clear();
        self.exhausted_removed.clear();
        self.exhausted_added.clear();
    }
}

impl Consumer {
    /// A message left flight.
    pub(super) fn forget(&mut self, seq: u64) {
        let changes = &mut self.changes;
        changes.changed = true;
        if changes.enabled && !changes.base_due && seq < changes.mark {
            changes.removed.push(seq);
        }
    }

    /// A message in flight changed.
    pub(super) fn touch(&mut self, seq: u64) {
        let changes = &mut self.changes;
        changes.changed = true;
        if changes.enabled
            && !changes.base_due
            && seq < changes.mark
            && let Some(entry) = self.pending.get_mut(seq)
            && !std::mem::replace(&mut entry.noted, true)
        {
            changes.touched.push(seq);
        }
    }

    /// What to write with the next commit; `None` when nothing changed. What it returns counts as written:
    /// the owner stops when a commit fails.
    pub fn persist(&mut self) -> Option<Persist> {
        if !self.changes.enabled || !self.changes.changed {
            return None;
        }
        let small = self.pending.len() + self.exhausted.len() <= BASE_ALWAYS_ENTRIES;
        let changes = &self.changes;
        let outgrown = changes.delta_bytes > DELTA_BYTES_MIN.max(changes.base_bytes * DELTAS_PER_BASE);
        let base = small || outgrown || changes.base_due || changes.rows >= DELTA_ROWS_MAX;
        let bytes = if base { self.base() } else { self.delta() };
        let changes = &mut self.changes;
        let persist = if base {
            (changes.base_due, changes.rows, changes.delta_bytes) = (false, 0, 0);
            changes.base_bytes = bytes.len();
            Persist::Base(bytes)
        } else {
            changes.rows += 1;
            changes.delta_bytes += bytes.len();
            Persist::Delta {
                row: changes.rows,
                bytes,
            }
        };
        for index in 0..self.changes.touched.len() {
            let seq = self.changes.touched[index];
            if let Some(entry) = self.pending.get_mut(seq) {
                entry.noted = false;
            }
        }
        let next_seq = self.next_seq;
        self.changes.saved(next_seq);
        Some(persist)
    }

    fn head(&self) -> Head {
        Head {
            next_seq: self.next_seq,
            delivered: self.delivered,
            floor: self.floor,
            skip_until: self.skip_until,
        }
    }

    fn base(&self) -> Vec<u8> {
        let row = Row {
            base: true,
            head: self.head(),
            removed: &[],
            pending: self.pending.from(0),
            exhausted_removed: &[],
            exhausted_added: &mut self.exhausted.iter().map(|(&seq, row)| (seq, row)),
        };
        row.encode()
    }

    fn delta(&mut self) -> Vec<u8> {
        let Changes {
            removed,
            touched,
            exhausted_removed,
            exhausted_added,
            ..
        } = &mut self.changes;
        // At or below the floor a message is gone by that alone.
        removed.retain(|&seq| seq > self.floor.stream);
        for list in [
            removed,
            &mut *touched,
            &mut *exhausted_removed,
            &mut *exhausted_added,
        ] {
            list.sort_unstable();
            list.dedup();
        }
        let (changes, mark) = (&self.changes, self.changes.mark);
        let touched = changes.touched.iter().filter_map(|&seq| self.pending.get(seq));
        let added = changes.exhausted_added.iter();
        let row = Row {
            base: false,
            head: self.head(),
            removed: &changes.removed,
            pending: touched.chain(self.pending.from(mark)),
            exhausted_removed: &changes.exhausted_removed,
            exhausted_added: &mut added
                .filter_map(|seq| Some((*seq, self.exhausted.get(seq)?)))
                .map(same),
        };
        row.encode()
    }
}

fn same(row: (u64, &Exhausted)) -> (u64, &Exhausted) {
    row
}
