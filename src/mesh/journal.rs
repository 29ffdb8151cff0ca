//! The journal of an instance: the last sequence it used and the one event that may be on its way.
//!
//! An event is written here, and synced, before it is sent; the acknowledgement is written after. So whatever
//! is killed in between, the next emitter finds the event, looks whether the stream has it, and sends it again
//! under its old id if not: no sequence is used twice and none is left out. Writing the acknowledgement needs
//! no sync for the same reason.
//!
//! While the mesh is down an event may be handed over to a spool in a git repository ([`super::spool`]) instead. The
//! journal then remembers where events were spooled and up to which sequence; nothing is sent past them until they
//! are known to be in the stream. So an event is this journal's business or the spool's, and the spool's goes first.
//!
//! One file an instance, one line a record (`<crc32> <json>`), appended; rewritten when it has grown. A torn last
//! line is what a power cut leaves and is cut off; damage further up is an error. A lock file lets in
//! one process at a time. An instance talks to one mesh: point `$MESH_STATE_DIR` elsewhere for another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Error;

/// The log is rewritten when it is longer than this.
const LOG_BYTES_MAX: u64 = 64 << 10;
/// Pause between tries for the lock.
const LOCK_POLL: Duration = Duration::from_millis(2);

/// Where the journal of one instance is.
#[derive(Clone, Debug)]
pub struct Journal {
    log: PathBuf,
    lock: PathBuf,
}

/// An event that was given a sequence and may or may not be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) event: String,
    pub(super) subject: String,
    pub(super) time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    #[serde(with = "in_base64")]
    pub(super) body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Record {
    /// First line: what is known without any line below.
    Base(Base),
    /// An event takes the next sequence.
    Send(Pending),
    /// The pending event is in the stream.
    Done { stream_seq: u64 },
    /// The pending event is not and will not be: its sequence is free again.
    Free,
    /// From here on events may be in the spool of this repository.
    Spooling { repository: PathBuf },
    /// The pending event is in the spool.
    Spooled,
    /// All that was spooled is in the stream, or given up.
    Imported { stream_seq: u64 },
}

/// What a journal comes down to between events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Tells this journal from one that was lost and begun anew.
    pub(super) journal: String,
    /// The last sequence in the stream.
    pub(super) seq: u64,
    /// Where the stream holds it.
    pub(super) stream_seq: u64,
    /// What went to git and is not known to be in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spool: Option<Spooled>,
}

/// Events that were handed over to git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spooled {
    /// The last of them; 0 while none is known to have got there.
    pub(super) seq: u64,
    /// Where they are: mostly one place.
    pub(super) repositories: Vec<PathBuf>,
}

impl Base {
    fn apply(&mut self, record: Record, pending: &mut Option<Pending>) {
        match record {
            Record::Base(first) => *self = first,
            Record::Send(event) => *pending = Some(event),
            Record::Done { stream_seq } => {
                if let Some(event) = pending.take() {
                    self.seq = event.seq;
                    self.stream_seq = stream_seq;
                }
            }
            Record::Free => *pending = None,
            Record::Spooling { repository } => {
                let spool = self.spool.get_or_insert_default();
                spool.repositories.push(repository);
            }
            Record::Spooled => {
                if let Some(event) = pending.take() {
                    self.seq = event.seq;
                    self.spool.get_or_insert_default().seq = event.seq;
                }
            }
            Record::Imported { stream_seq } => {
                self.stream_seq = stream_seq;
                self.spool = None;
            }
        }
    }
}

/// The journal while it is locked; dropping it unlocks.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    log: File,
    _lock: File,
    base: Base,
    pending: Option<Pending>,
}

impl Journal {
    /// The journal of `instance` under `dir`.
    pub fn new(dir: &Path, instance: &str) -> Self {
        Self {
            log: dir.join(format!("{instance}.journal")),
            lock: dir.join(format!("{instance}.lock")),
        }
    }

    /// A lock of the instance for something else than its journal; none if others keep it for longer than `wait`.
    pub(super) async fn lock_for(&self, what: &str, wait: Duration) -> Result<Option<File>, Error> {
        let path = self.log.with_extension(what);
        let locked = lock(&path, wait).await;
        locked.map_err(|error| bad(&path, format!("cannot lock it: {error}")))
    }

    /// Waits for the lock, then reads the journal; begins one if there is none.
    pub(super) async fn hold(&self, wait: Duration) -> Result<Held, Error> {
        let path = &self.log;
        let failed = |what: &str, error: std::io::Error| bad(path, format!("{what}: {error}"));
        let dir = path.parent().expect("made by joining");
        fs::create_dir_all(dir).map_err(|error| failed("cannot make its directory", error))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let locked = lock(&self.lock, wait).await;
        let Some(lock) = locked.map_err(|error| failed("cannot lock it", error))? else {
            return Err(bad(
                path,
                "another process has been emitting for too long".to_owned(),
            ));
        };
        let mut log = options
            .open(path)
            .map_err(|error| failed("cannot open it", error))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)
            .map_err(|error| failed("cannot read it", error))?;
        let (base, pending, good) = replay(&text).map_err(|why| bad(path, why))?;
        let mut held = Held {
            path: path.clone(),
            log,
            _lock: lock,
            base,
            pending,
        };
        if held.base.journal.is_empty() || (good > LOG_BYTES_MAX && held.pending.is_none()) {
            held.rewrite()?;
        } else {
            held.truncate(good)?;
        }
        Ok(held)
    }
}

impl Held {
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Writes `pending` down, synced. From here on it is this journal's business until confirmed or freed.
    pub(super) fn reserve(&mut self, pending: Pending) -> Result<(), Error> {
        debug_assert!(self.pending.is_none() && pending.seq == self.base.seq + 1);
        self.append(&Record::Send(pending.clone()))?;
        self.sync()?;
        self.pending = Some(pending);
        Ok(())
    }

    /// The stream holds the pending event.
    pub(super) fn confirm(&mut self, stream_seq: u64) -> Result<(), Error> {
        match self.pending {
            Some(_) => self.note(Record::Done { stream_seq }),
            None => Ok(()),
        }
    }

    /// The stream does not hold the pending event and never will.
    pub(super) fn free(&mut self) -> Result<(), Error> {
        self.note(Record::Free)
    }

    /// Events may be in the spool of `repository` from here on. Synced: whoever comes next must look there first.
    pub(super) fn spooling(&mut self, repository: &Path) -> Result<(), Error> {
        let spool = self.base.spool.as_ref();
        if spool.is_some_and(|spool| spool.repositories.iter().any(|known| known == repository)) {
            return Ok(());
        }
        self.note(Record::Spooling {
            repository: repository.to_owned(),
        })?;
        self.sync()
    }

    /// The spool holds the pending event.
    pub(super) fn spooled(&mut self) -> Result<(), Error> {
        self.note(Record::Spooled)
    }

    /// The stream holds all that was spooled, the last of it at `stream_seq`.
    pub(super) fn imported(&mut self, stream_seq: u64) -> Result<(), Error> {
        self.note(Record::Imported { stream_seq })
    }

    fn note(&mut self, record: Record) -> Result<(), Error> {
        self.append(&record)?;
        self.base.apply(record, &mut self.pending);
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        self.log
            .sync_data()
            .map_err(|error| bad(&self.path, format!("cannot sync it: {error}")))
    }

    fn append(&mut self, record: &Record) -> Result<(), Error> {
        self.log
            .write_all(&line(record))
            .map_err(|error| bad(&self.path, format!("cannot write it: {error}")))
    }

    /// Drops a torn last line and goes to the end.
    fn truncate(&mut self, good: u64) -> Result<(), Error> {
        let cut = |log: &mut File| {
            log.set_len(good)?;
            log.seek(SeekFrom::End(0))
        };
        cut(&mut self.log)
            .map_err(|error| bad(&self.path, format!("cannot cut its torn end off: {error}")))?;
        Ok(())
    }

    /// Replaces the log by its first line alone.
    fn rewrite(&mut self) -> Result<(), Error> {
        if self.base.journal.is_empty() {
            self.base.journal = nuid::next().to_string();
        }
        let fresh = self.path.with_extension("fresh");
        let write = || -> std::io::Result<File> {
            let mut log = File::create(&fresh)?;
            log.write_all(&line(&Record::Base(self.base.clone())))?;
            log.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            // The new name must outlive a power cut as well.
            File::open(self.path.parent().expect("made by joining"))?.sync_all()?;
            Ok(log)
        };
        self.log = write().map_err(|error| bad(&self.path, format!("cannot rewrite it: {error}")))?;
        Ok(())
    }
}

/// Locks a file, made if it is not there, waiting for whoever has it.
async fn lock(path: &Path, wait: Duration) -> std::io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(path)?;
    let deadline = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn bad(path: &Path, why: String) -> Error {
    Error::Journal {
        path: path.to_owned(),
        why,
    }
}

fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("strings and numbers are always JSON");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// Reads one line back; `None` if it is torn or damaged.
fn record(line: &[u8]) -> Option<Record> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.trim_end(), 16).ok()?;
    (crc32fast::hash(json) == crc).then(|| serde_json::from_slice(json).ok())?
}

/// What the log says, and how many of its bytes are good.
fn replay(text: &[u8]) -> Result<(Base, Option<Pending>, u64), String> {
    let mut base = Base::default();
    let mut pending: Option<Pending> = None;
    let mut good = 0;
    let mut rest = text;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let Some(record) = record(&rest[..end]) else { break };
        base.apply(record, &mut pending);
        good += end + 1;
        rest = &rest[end + 1..];
    }
    let torn_only = memchr::memchr_iter(b'\n', rest).all(|end| end + 1 == rest.len());
    if !torn_only || (base.journal.is_empty() && !text.is_empty()) {
        let line = 1 + memchr::memchr_iter(b'\n', &text[..good]).count();
        return Err(format!(
            "line {line} is damaged; move the file away to begin at 1 again, with new message ids"
        ));
    }
    Ok((base, pending, good as u64))
}

/// Bodies are bytes, journal lines are text.
mod in_base64 {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(body))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
