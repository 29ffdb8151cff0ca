//! The store: everything that must last, in one directory. The only room that imports redb.

mod block;
mod cache;
mod core;
mod disk;
mod error;
#[cfg(test)]
mod fault_tests;
mod group;
mod info;
mod journal;
mod log;
#[cfg(test)]
mod log_tests;
mod ranges;
mod record;
mod schema;
mod store;
mod tables;
mod view;
mod wire;
mod writer;

pub use disk::{Disk, StorageBackend};
pub use error::Error;
pub use info::{Histogram, State, StoreInfo};
pub use log::{Checkpoint, Done, Log, Removed};
pub use record::{RECORD_BYTES_MAX, RECORD_OVERHEAD, Record, RecordRef};
pub use store::{Store, StreamRow};
pub use view::{ConsumerRow, LogState};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Key of a stream in a store; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// When a commit counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// After the sync that covers it.
    Always,
    /// At once; syncs happen this often. A power cut takes back what came after the last one.
    Interval(Duration),
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; created if it is not there.
    pub dir: PathBuf,
    /// Memory for blocks read from disk, redb's own cache included.
    pub cache_bytes_max: usize,
    /// When commits are acknowledged.
    pub sync: Sync,
    /// Where the files are, instead of the directory: the seam for tests of faults.
    pub disk: Option<Arc<dyn Disk>>,
}

impl Options {
    /// The defaults, in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            cache_bytes_max: 128 << 20,
            sync: Sync::Always,
            disk: None,
        }
    }
}

/// Locks even after a panic elsewhere: a panic in the writer stops the store by its state, not here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
