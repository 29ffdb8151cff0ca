//! The store: everything that must last, in one directory. The only room that imports redb.
//!
//! ```text
//! put -> pending group of a Log -> commit() -> journal entry, synced -> view (readers) -> `done`
//!                                                    `-- later, in bulk --> redb
//! ```
//!
//! Why a journal in front of redb: a commit of redb writes the path of each page it touched and its own
//! bookkeeping, and syncs with file metadata while the file grows; that is most of a 500-record commit. An
//! entry in a file that has its blocks is one write and one `fdatasync`. redb gets whole blocks of 128 KiB
//! some times a second, off the way of the acknowledgement, and everything ends there: the journal is two
//! small files used in turns.
//!
//! What holds, and where:
//! - `done(Ok)` comes after the sync that covers the commit, and after readers can see it (`writer.rs`).
//!   Readers never see what is not durable (`view.rs` is the durable state alone; with
//!   [`Sync::Interval`] "durable" means written).
//! - A commit is whole or absent after a crash: one group in one journal entry (`journal.rs`).
//! - Checkpoints write state, not operations, and replaying a group twice changes nothing, so recovery is:
//!   the tables, then the journal from the entry they hold on (`tables.rs`, `open.rs`). With
//!   [`Sync::Interval`] the tables hold no more than that entry: of later ones some may be lost.
//! - Sequences go up for ever: the last one is in the stream's row, even of an empty log.
//! - After an error nobody is told "not stored". The store stops taking records, keeps what was under way,
//!   opens its files anew, brings all that landed into redb, and then makes the rest durable (`writer.rs`).
//!   Removals and consumer rows put meanwhile wait in their logs for that moment.
//! - A full disk takes removals still: room is kept back for them (`reserve.rs`).
//! - A stream's row is there twice. One that cannot be read at all is marked, and left to the caller; a database that
//!   redb refuses is made anew from what can be read, when asked for (`rescue.rs`, `mend.rs`).
//! - Tables that have fallen back behind the journal, and journals that were cut off, are told of (`epoch.rs`, `journal.rs`).
//! - A record that does not match its checksum is never served; it is named by [`Error::DamagedRecord`],
//!   counted, and stays where it is until a repair is asked for (`block.rs`, `check.rs`).
//! - Memory: pending and in-flight groups (the caller bounds them by [`Log::pending_bytes`]), what the
//!   journal holds, the cache, and about 150 bytes a block or a page of notes.
//!
//! Threads: `store-writer`, `store-lander` (calls `done`), `store-tables`. Locks are taken in the order
//! landing, log, then queue or cache; no lock is held while `done` runs or while the disk is written or read for a
//! reader.
//!
//! Deliberately absent: subjects, limits, expiry, deduplication (the streams room owns them and leaves its
//! index here as a checkpoint, and notes of what a crash would take from it), compression of the journal and of what is
//! in memory (blocks of a log that asks for it are compressed when they are written to the tables), and several processes
//! on one store.

mod base;
mod block;
mod cache;
mod check;
mod core;
#[cfg(test)]
mod damage_tests;
mod disk;
mod epoch;
mod error;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod full_tests;
mod group;
mod info;
mod journal;
mod log;
#[cfg(test)]
mod log_tests;
mod mend;
mod notes;
mod open;
mod overlay;
mod pack;
#[cfg(test)]
mod page_tests;
mod ranges;
mod read;
mod record;
mod removals;
mod rescue;
mod reserve;
mod schema;
#[cfg(test)]
mod sim_tests;
mod tables;
mod view;
mod wire;
mod writer;

pub use check::{Mend, Report, StreamReport};
pub use disk::{Disk, StorageBackend};
pub use error::Error;
pub use info::{Histogram, State, StoreInfo};
pub use log::{Checkpoint, Done, Log, Removed};
pub use notes::Notes;
pub use open::{Store, StreamRow};
pub use read::Scanned;
pub use record::{RECORD_BYTES_MAX, RECORD_OVERHEAD, Record, RecordRef, SEQ_MAX};
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

impl std::fmt::Display for Sync {
    /// As `--sync` takes it: `always`, or a duration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sync::Always => f.write_str("always"),
            Sync::Interval(every) => write!(f, "{every:?}"),
        }
    }
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
    /// Each of the two journal files is full at this size, or at a sixteenth of what is stored if that is
    /// less (but not below 1 MiB). It bounds what an open after a crash replays.
    pub journal_bytes_max: u64,
    /// A store that stopped on an error tries again at least this often.
    pub retry_max: Duration,
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
            journal_bytes_max: 8 << 20,
            retry_max: Duration::from_secs(1),
            disk: None,
        }
    }

    fn open_disk(&self) -> Arc<dyn Disk> {
        self.disk
            .clone()
            .unwrap_or_else(|| Arc::new(disk::Dir(self.dir.clone())))
    }
}

/// Locks even after a panic elsewhere: a panic in the writer stops the store by its state, not here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
