//! What can go wrong in the store, as its callers see it.

use super::StreamId;

/// Errors of the store. Cheap to clone: one failed sync fails every commit that waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another process has the store directory.
    #[error("store {dir} is in use by process {pid}; one server a store")]
    InUse {
        /// The directory.
        dir: String,
        /// Process id of the server that holds it, as it wrote it; `unknown` if it could not be read.
        pid: String,
    },
    /// The disk has no room. The store resumes by itself; what was waiting *may* be stored.
    #[error("store has no room left: {0}")]
    Full(String),
    /// The store stopped on an IO error. What was waiting *may* be stored: never answer "not stored".
    #[error("store has stopped: {0}")]
    Failed(String),
    /// The store was closed.
    #[error("store is closed")]
    Closed,
    /// The file is damaged beyond what single records can carry.
    #[error("store is damaged: {0}")]
    Damaged(String),
    /// A record cannot be served: its checksum does not match.
    #[error("stream {stream} sequence {seq} is damaged")]
    DamagedRecord {
        /// The stream.
        stream: StreamId,
        /// The sequence, or the nearest that is known.
        seq: u64,
    },
    /// Sequences of a log only go up.
    #[error("sequence {seq} is not above {last}")]
    Sequence {
        /// What was appended.
        seq: u64,
        /// The highest so far.
        last: u64,
    },
    /// There is no sequence behind [`SEQ_MAX`](super::SEQ_MAX).
    #[error("the stream has used its last sequence")]
    LastSequence,
    /// The record is larger than the store takes.
    #[error("record of {0} bytes is too large")]
    TooLarge(u64),
    /// No such stream in the store.
    #[error("stream {0} is not in the store")]
    NoStream(StreamId),
    /// The directory or a file could not be opened, or has a schema of another version.
    #[error("cannot open store: {0}")]
    Open(String),
}
