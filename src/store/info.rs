//! What the store says about itself.

use super::Sync;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Whether the store takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Ok,
    /// The disk has no room; tried again a few times a second.
    Full(String),
    /// An IO error; tried again every second, unless the store's own thread died.
    Failed(String),
}

/// A snapshot of the store's numbers.
#[derive(Debug, Clone)]
pub struct StoreInfo {
    /// Bytes of live records over all streams.
    pub logical_bytes: u64,
    /// Bytes the files take on disk.
    pub disk_bytes: u64,
    /// Of them, those of the journal.
    pub journal_bytes: u64,
    /// Bytes of the tables' file that hold no live record, as if none were compressed: free pages, fragments, keys and indexes. What an exact count of
    /// free pages says is within it; that count reads the whole file, so nobody takes it.
    pub spare_bytes: u64,
    /// Bytes the file system has left for them, if it says so.
    pub available_bytes: Option<u64>,
    /// Syncs that acknowledged something (writes, if the sync is by interval).
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Journal entries that are not in the tables yet: what an open after a crash would replay.
    pub journal_entries: u64,
    /// Checkpoints written to the tables.
    pub checkpoints: u64,
    /// Records by commit.
    pub batch_records: Histogram,
    /// Microseconds from when a commit was taken up until it was durable: write and sync.
    pub commit_us: Histogram,
    /// Microseconds of the syncs alone.
    pub sync_us: Histogram,
    /// Microseconds a checkpoint took.
    pub checkpoint_us: Histogram,
    /// Bytes of blocks in memory beside those not yet in the tables.
    pub cache_bytes: u64,
    /// What that may grow to.
    pub cache_bytes_max: u64,
    /// Blocks asked for that were in it.
    pub cache_hits: u64,
    /// Blocks asked for that had to be read.
    pub cache_misses: u64,
    /// Records found damaged since the store was opened.
    pub damaged_records: u64,
    /// What was found damaged when the store was opened, a line each.
    pub damage: Vec<String>,
    /// Entries at the end of the journal that were cut off by the last crash: never acknowledged.
    pub torn_entries: u64,
    /// Whether it takes writes.
    pub state: State,
    /// When commits are acknowledged.
    pub sync: Sync,
}

const BUCKETS: usize = 32;

/// Counts by powers of two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `counts[n]`: values below `2^n` that are not below `2^(n-1)`.
    pub counts: [u64; BUCKETS],
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An upper bound of the value below which `share` (0 to 1) of them lie.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (n, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return 1 << n;
            }
        }
        u64::MAX
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Counts {
    pub fn add(&self, value: u64) {
        let bucket = (64 - value.leading_zeros() as usize).min(BUCKETS - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn add_time(&self, time: Duration) {
        self.add(time.as_micros() as u64);
    }

    pub fn read(&self) -> Histogram {
        let mut out = Histogram {
            sum: self.sum.load(Ordering::Relaxed),
            ..Histogram::default()
        };
        for (to, from) in out.counts.iter_mut().zip(&self.counts) {
            *to = from.load(Ordering::Relaxed);
        }
        out
    }
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub batch: Counts,
    pub commit: Counts,
    pub sync: Counts,
    pub checkpoint: Counts,
}
