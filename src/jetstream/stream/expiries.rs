//! When messages with a time to live of their own go.

use std::collections::{BTreeSet, HashMap};

/// Messages by time. An entry goes with its message: it is found by sequence, too.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_time: BTreeSet<(i64, u64)>,
    times: HashMap<u64, i64>,
}

impl Expiries {
    pub fn insert(&mut self, (time, seq): (i64, u64)) {
        if let Some(old) = self.times.insert(seq, time) {
            self.by_time.remove(&(old, seq));
        }
        self.by_time.insert((time, seq));
    }

    pub fn remove(&mut self, seq: u64) {
        if let Some(time) = self.times.remove(&seq) {
            self.by_time.remove(&(time, seq));
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// The first of them.
    pub fn first(&self) -> Option<(i64, u64)> {
        self.by_time.first().copied()
    }

    /// Those from one on, by time.
    pub fn range(&self, from: (i64, u64)) -> impl Iterator<Item = (i64, u64)> {
        self.by_time.range(from..).copied()
    }

    /// Whose time has come, by time.
    pub fn due(&self, now: i64) -> impl Iterator<Item = u64> {
        self.by_time.range(..=(now, u64::MAX)).map(|&(_, seq)| seq)
    }
}
