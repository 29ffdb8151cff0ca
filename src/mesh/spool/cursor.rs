//! How far a journal's spooled events were imported: a row of bucket `SPOOLS`, moved only forwards.

use serde::{Deserialize, Serialize};

use super::entry::Head;
use crate::mesh::rows::{Row, State};
use crate::mesh::setup::SPOOLS;
use crate::mesh::{Error, Mesh};

/// A row: `<instance>.<journal>` says this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The last event that is in the stream, and with it all that were spooled before.
    pub(super) seq: u64,
    /// Where: none that follows it can be further up.
    pub(super) stream_seq: u64,
    /// When that stream was made: another one counts anew.
    stream: String,
    #[serde(skip)]
    revision: u64,
}

impl Cursor {
    fn of(row: Option<Row>) -> Result<Self, Error> {
        let Some(row) = row else {
            return Ok(Self::default());
        };
        let mut cursor = match row.state {
            State::Live => row.read()?,
            State::Deleted | State::Lapsed => Self::default(),
        };
        cursor.revision = row.revision;
        Ok(cursor)
    }

    /// The place in this stream before which nothing needs to be looked for.
    pub(super) fn place(&self, stream: &str) -> u64 {
        if self.stream == stream { self.stream_seq } else { 0 }
    }

    /// Goes on to an event that was found or stored at a place of this stream.
    pub(super) fn advance(&mut self, head: &Head, place: u64, stream: &str) {
        self.stream_seq = self.place(stream).max(place);
        stream.clone_into(&mut self.stream);
        self.seq = self.seq.max(head.seq);
    }
}

/// The row of a journal.
pub(super) fn key(instance: &str, journal: &str) -> String {
    format!("{instance}.{journal}")
}

impl Mesh {
    /// How far a journal's events are imported.
    pub(super) async fn cursor(&self, key: &str) -> Result<Cursor, Error> {
        // The bucket may be older than this.
        self.bucket(SPOOLS).await?;
        Cursor::of(self.last_row(SPOOLS, key).await?)
    }

    /// Writes a cursor down; if somebody is further, takes over what they say.
    pub(super) async fn keep(&self, key: &str, cursor: &mut Cursor) -> Result<(), Error> {
        loop {
            let value = serde_json::to_vec(cursor).expect("strings and numbers are always JSON");
            if let Some(revision) = self.swap(SPOOLS, key, value, cursor.revision).await? {
                cursor.revision = revision;
                return Ok(());
            }
            let theirs = self.cursor(key).await?;
            if theirs.seq >= cursor.seq {
                *cursor = theirs;
                return Ok(());
            }
            cursor.revision = theirs.revision;
        }
    }
}
