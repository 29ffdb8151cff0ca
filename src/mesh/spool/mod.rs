//! The way round a mesh that is down: events wait in a git repository and are imported when the mesh is back.
//!
//! An instance has a spool of its own, ref `refs/mesh/<instance>`: a commit an event, oldest first, under which file `event`
//! holds envelope and body. `mesh emit` puts events there when the mesh cannot be reached and pushes the ref to the
//! repository's remote, if it has one. `mesh sync` copies the remote's spools to `refs/mesh-remotes/<remote>/<instance>`
//! (so they never meet ours), imports all spools into the stream, and takes away each ref whose events are all there.
//!
//! # Why exactly once, and in order
//!
//! What the stream holds is itself the record of what was imported: an event and the fact that it was imported are one
//! message, so no kill can part them. An importer works in turns:
//!
//! 1. it reads the stream up to its end, sequence `e`, looking for the ids of the events it is about to import;
//! 2. it sends those that it did not find, the first on the condition that the stream still ends at `e`
//!    (`Nats-Expected-Last-Sequence`), each further one that the stream ends with the one before
//!    it, by sequence and by message id (`Nats-Expected-Last-Msg-Id`).
//!
//! So the server stores an event only if it is nowhere in the stream and the one before it was stored: a second importer on
//! another machine, an importer that was stopped for an hour, bytes that lingered in the network are refused by the
//! server, whatever they believe, and nothing depends on the window in which the server remembers message ids.
//! Whoever is refused reads on from `e` and goes on after what the other has done. Where others publish so fast that the
//! end never holds still, the condition is put on the event's own subject instead
//! (`Nats-Expected-Last-Subject-Sequence`), one event at a time: the same argument, with fewer to compete with.
//!
//! Bucket `SPOOLS` holds a cursor for each journal of each instance: the last event imported, and where the stream has it.
//! It is moved after the events, by compare-and-set and only forwards, and is only a lower bound: behind it the stream
//! is read, from it on the stream decides. It is what still says "imported" when the stream has dropped old events, and
//! keeps the reading short.
//!
//! Order: an event names the event that was spooled before it and was not yet known to be in the stream. It is
//! imported only after that one; a hole (damage, a repository that lacks a part) stops this spool with an error that
//! says so, and no other spool. An emitter sends nothing past its own spool: with the mesh back it
//! imports that first, or adds to it (see [`super::journal`]).
//!
//! # What is not promised
//!
//! An importer killed between events and cursor leaves the events to be found in the stream; if they are removed there
//! (purged, or 30 days old) before anybody syncs again, they are imported once more. An event under an id of the
//! caller's own that somebody else had stored already is not stored again and leaves a gap in its instance's numbers. Who may
//! write to the repository or its remote may say anything on the mesh. A spool belongs to one mesh: importing it into
//! another one takes it away from the first.

mod cursor;
mod entry;
mod follow;
mod git;
mod import;
mod offline;
mod read;
mod survey;
mod write;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, identity};

pub use follow::{Follow, Seen};
pub use git::Repository;
pub use import::{Imported, Outcome, Progress, Request};
pub use offline::{Kept, Offline};

/// Where spools are.
const HERE: &str = "refs/mesh/";
/// Where copies of remotes' spools are.
const THERE: &str = "refs/mesh-remotes/";

/// The name of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote(String);

/// The ref of an instance's spool.
fn reference(instance: &str) -> String {
    format!("{HERE}{instance}")
}

/// The ref of our copy of a remote's spool.
fn tracking(remote: &Remote, instance: &str) -> String {
    format!("{THERE}{}/{instance}", remote.0)
}

/// The repository to fall back to: what was said, else `$MESH_GIT`, else `git` in the file of the user's own events.
pub fn configured(said: Option<&Path>) -> Result<Option<Repository>, Error> {
    #[derive(Deserialize)]
    struct File {
        git: Option<PathBuf>,
    }
    let in_environment = || {
        let value = std::env::var_os("MESH_GIT").filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let in_file = || -> Result<Option<PathBuf>, Error> {
        let path = identity::events_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let problem = error.to_string();
                return Err(Error::BadConfig { path, problem });
            }
        };
        let file: Result<File, _> = serde_json::from_slice(&text);
        match file {
            Ok(file) => Ok(file.git),
            Err(error) => Err(Error::BadConfig {
                path,
                problem: error.to_string(),
            }),
        }
    };
    let path = match said.map(Path::to_owned).or_else(in_environment) {
        Some(path) => Some(path),
        None => in_file()?,
    };
    path.map(|path| Repository::at(&path)).transpose()
}
