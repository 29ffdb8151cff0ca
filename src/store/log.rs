//! A log: the records of one stream, and the rows of its consumers.

use super::block::{Block, Data};
use super::core::{BlockRef, Core};
use super::error::Error;
use super::group::{Group, Pending};
use super::notes::Notes;
use super::ranges::RangeSet;
use super::record::{RECORD_BYTES_MAX, RecordRef, SEQ_MAX};
use super::view::{ConsumerRow, LogState, Source, View};
use super::{StreamId, lock};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

/// Called once when a commit is durable, or when it is not known to be.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// How many records and bytes a removal took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Records.
    pub messages: u64,
    /// Their [`RecordRef::stored_len`].
    pub bytes: u64,
}

/// What the caller derived from a log (a subject index, dedupe ids) as of some sequence.
///
/// Written along with the store's own checkpoints, not with commits: after a crash an older one, or
/// none, may be found. The caller replays the records above `upto_seq`, and takes out `removed`; if that is not known,
/// it reads all records, and the checkpoint is good for what is not derived from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The highest sequence it covers.
    pub upto_seq: u64,
    /// The caller's bytes.
    pub bytes: Bytes,
    /// Records at or below `upto_seq` that were removed since it was taken: sequence and subject. `None` if they were so
    /// many that a list of them is worth less than reading what is left.
    pub removed: Option<Vec<(u64, Bytes)>>,
}

/// The records of one stream. Cloning gives another handle of the same log.
///
/// Writes gather in memory until [`commit`](Log::commit). What is read is durable: a record shows up,
/// or disappears, when the commit that holds the change has synced.
#[derive(Clone)]
pub struct Log(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub id: StreamId,
    pub core: Option<Arc<Core>>,
    pub inner: Mutex<Inner>,
}

/// Counters with everything that is pending counted in.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    messages: u64,
    bytes: u64,
    last_seq: u64,
    last_time: i64,
}

pub(super) struct Inner {
    pub view: View,
    pending: Pending,
    /// Committed groups that are not yet in the view.
    inflight: VecDeque<Arc<Group>>,
    inflight_bytes: usize,
    /// Number of the last group that had notes.
    noted: u64,
    /// Number of the caller's checkpoint that was begun last, or abandoned after that.
    begun: u64,
    /// Removed in `pending` or `inflight`.
    dying: RangeSet,
    head: Head,
    /// The block read last: consumers read one after the other.
    pub hot: Option<(u64, u32, Data)>,
    pub damaged: BTreeSet<u64>,
    /// The stream was removed.
    pub dropped: bool,
}

impl Inner {
    pub fn new(view: View) -> Inner {
        let state = view.state();
        let head = Head {
            messages: state.messages,
            bytes: state.bytes,
            last_seq: state.last_seq,
            last_time: state.last_time,
        };
        Inner {
            noted: view.notes.number,
            begun: 0,
            view,
            pending: Pending::default(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            dying: RangeSet::default(),
            head,
            hot: None,
            damaged: BTreeSet::new(),
            dropped: false,
        }
    }

    /// Moves a durable group into the view. Called in the order of the commits.
    pub fn land(&mut self, group: &Group, source: &mut dyn Source) -> Result<(), Error> {
        let result = self.view.apply(group, source);
        if let Some(number) = group.begins.filter(|&number| number == self.begun) {
            self.view.begin_checkpoint(number);
        }
        if self.inflight.front().is_some_and(|g| std::ptr::eq(&**g, group)) {
            self.inflight.pop_front();
            self.inflight_bytes -= group.bytes;
        }
        for &(a, b) in &group.removed {
            self.dying.remove(a, b);
        }
        if let Some(first) = group.truncate {
            self.dying.remove(0, first - 1);
        }
        result
    }

    /// Live records in `a..=b`, pending ones included, that no pending removal covers.
    fn count(&self, a: u64, b: u64, source: &mut dyn Source) -> Result<Removed, Error> {
        let (mut messages, mut bytes) = (0, 0);
        let (mut from, b) = (a, b.min(SEQ_MAX));
        while from <= b {
            if let Some((_, end)) = self.dying.covering(from) {
                from = end.saturating_add(1);
                continue;
            }
            let to = self.dying.next_start(from).map_or(b, |s| b.min(s - 1));
            let (n, len) = self.view.count(from, to, source)?;
            messages += n;
            bytes += len;
            let waiting = self.inflight.iter().flat_map(|g| g.chunk.range(from, to));
            for record in waiting.chain(self.pending.records.range(from, to)) {
                messages += 1;
                bytes += record.stored_len();
            }
            from = to + 1;
        }
        Ok(Removed { messages, bytes })
    }
}

impl Log {
    /// A log that lives in memory alone.
    pub fn memory() -> Log {
        Log(Arc::new(Shared {
            id: StreamId(0),
            core: None,
            inner: Mutex::new(Inner::new(View::default())),
        }))
    }

    pub(super) fn file(id: StreamId, core: Arc<Core>, view: View) -> Log {
        Log(Arc::new(Shared {
            id,
            core: Some(core),
            inner: Mutex::new(Inner::new(view)),
        }))
    }

    /// The stream this log belongs to; 0 for a memory log.
    pub fn stream_id(&self) -> StreamId {
        self.0.id
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0.inner)
    }

    fn check_open(&self) -> Result<(), Error> {
        self.0.core.as_ref().map_or(Ok(()), |core| core.accepting())
    }

    /// Adds a record to the pending group. The caller assigns sequences, which only go up; those left
    /// out count as deleted. Refused while the store is stopped, so that nothing piles up.
    pub fn append(&self, record: &RecordRef<'_>) -> Result<(), Error> {
        self.put(record).map(drop)
    }

    /// The same for one that nobody is to see: no commit comes between it and its removal.
    pub fn append_removed(&self, record: &RecordRef<'_>) -> Result<(), Error> {
        let mut inner = self.put(record)?;
        inner.pending.remove(record.seq, record.seq);
        inner.dying.insert(record.seq, record.seq);
        inner.head.messages -= 1;
        inner.head.bytes -= record.stored_len();
        Ok(())
    }

    fn put(&self, record: &RecordRef<'_>) -> Result<MutexGuard<'_, Inner>, Error> {
        if let Some(core) = &self.0.core {
            core.accepting_records()?;
        }
        let len = record.stored_len();
        if len > RECORD_BYTES_MAX as u64 || record.subject.len() > usize::from(u16::MAX) {
            return Err(Error::TooLarge(len));
        }
        let mut inner = self.inner();
        if record.seq > SEQ_MAX {
            return Err(Error::LastSequence);
        }
        if record.seq <= inner.head.last_seq {
            return Err(Error::Sequence {
                seq: record.seq,
                last: inner.head.last_seq,
            });
        }
        inner.pending.append(record);
        inner.head.messages += 1;
        inner.head.bytes += len;
        (inner.head.last_seq, inner.head.last_time) = (record.seq, record.time_ns);
        Ok(inner)
    }

    /// Removes one record with the next commit. `messages` is 0 if there is none.
    pub fn delete(&self, seq: u64) -> Result<Removed, Error> {
        self.delete_range(seq..=seq)
    }

    /// Removes the records in a range with the next commit; what a pending removal covers counts no more.
    pub fn delete_range(&self, range: RangeInclusive<u64>) -> Result<Removed, Error> {
        let (removed, mut inner) = self.count_range(*range.start(), *range.end())?;
        let last = inner.head.last_seq;
        if removed.messages > 0 {
            let (a, b) = (*range.start(), (*range.end()).min(last));
            inner.pending.remove(a, b);
            inner.dying.insert(a, b);
            inner.head.messages -= removed.messages;
            inner.head.bytes -= removed.bytes;
        }
        Ok(removed)
    }

    /// Removes everything below `first_seq`, and lets the log begin there: the next sequence is at
    /// least `first_seq`, even if the log is empty.
    pub fn truncate_front(&self, first_seq: u64) -> Result<Removed, Error> {
        if first_seq <= 1 {
            return Ok(Removed::default());
        }
        let (removed, mut inner) = self.count_range(0, first_seq - 1)?;
        if removed.messages > 0 || first_seq > inner.head.last_seq.saturating_add(1) {
            inner.pending.truncate(first_seq);
            inner.dying.insert(0, first_seq - 1);
            inner.head.messages -= removed.messages;
            inner.head.bytes -= removed.bytes;
            inner.head.last_seq = inner.head.last_seq.max(first_seq - 1);
        }
        Ok(removed)
    }

    /// Counts what is live in a range. Blocks that are not in memory are fetched without the lock.
    fn count_range(&self, a: u64, b: u64) -> Result<(Removed, MutexGuard<'_, Inner>), Error> {
        let mut loaded: Vec<(u64, u32, Data)> = Vec::new();
        loop {
            let inner = self.inner();
            let mut missing = None;
            let counted = inner.count(a, b, &mut |id: u64, block: &Block| {
                let known = loaded
                    .iter()
                    .chain(&inner.hot)
                    .find(|(i, v, _)| (*i, *v) == (id, block.version));
                match known {
                    Some((_, _, data)) => Ok(data.clone()),
                    None => {
                        missing = Some((id, BlockRef::from(block)));
                        Err(Error::Closed)
                    }
                }
            });
            match (counted, missing) {
                (Ok(removed), _) => return Ok((removed, inner)),
                (Err(_), Some((id, block))) => {
                    drop(inner);
                    let core = self.0.core.as_ref().ok_or(Error::Closed)?;
                    let data = core.load_to_remove(self.0.id, id, &block)?;
                    loaded.push((id, block.version, data));
                }
                (Err(error), None) => return Err(error),
            }
        }
    }

    /// Fetches a block that is not in memory, without the lock.
    pub(super) fn load(&self, id: u64, block: &BlockRef) -> Result<Data, Error> {
        let core = self
            .0
            .core
            .as_ref()
            .expect("a memory log has its blocks in memory");
        core.load(self.0.id, id, block)
    }

    /// Replaces the bytes the caller keeps for the stream itself.
    pub fn put_meta(&self, meta: impl Into<Bytes>) {
        self.inner().pending.put_meta(meta.into());
    }

    /// The stream's own bytes, as they are durable.
    pub fn meta(&self) -> Bytes {
        self.inner().view.meta.clone()
    }

    /// Creates or replaces what the caller keeps as a consumer's configuration.
    pub fn put_consumer(&self, name: &str, meta: impl Into<Bytes>) {
        self.inner().pending.put_consumer(name, meta.into());
    }

    /// Replaces what the caller keeps as a consumer's state.
    pub fn put_consumer_state(&self, name: &str, state: impl Into<Bytes>) {
        self.inner().pending.put_consumer_state(name, state.into());
    }

    /// Adds what changed since to a consumer's state: numbered from one after each
    /// [`put_consumer_state`](Self::put_consumer_state).
    pub fn put_consumer_delta(&self, name: &str, number: u32, delta: impl Into<Bytes>) {
        self.inner()
            .pending
            .put_consumer_delta(name, number, delta.into());
    }

    /// Removes a consumer, its configuration and state.
    pub fn remove_consumer(&self, name: &str) {
        self.inner().pending.remove_consumer(name);
    }

    /// The durable consumer rows by name.
    pub fn consumers(&self) -> Vec<(String, ConsumerRow)> {
        self.inner()
            .view
            .consumers
            .iter()
            .map(|(n, r)| (n.clone(), r.clone()))
            .collect()
    }

    /// Begins a checkpoint of the caller, of all that was put before and of nothing that is put later; what was put is
    /// committed. The caller may take its time with the bytes: what is removed meanwhile is listed, as it is after
    /// [`finish_checkpoint`](Self::finish_checkpoint), which takes the number given here. One at a time: the next one
    /// takes the place of one that was not finished. `None` if the last sequence put is not `last_seq`, and for a memory
    /// log, which keeps no checkpoint.
    pub fn begin_checkpoint(&self, last_seq: u64) -> Result<Option<u64>, Error> {
        let mut inner = self.inner();
        if inner.dropped {
            return Err(Error::NoStream(self.0.id));
        }
        self.check_open()?;
        if self.0.core.is_none() || inner.head.last_seq != last_seq {
            return Ok(None);
        }
        inner.begun += 1;
        let number = inner.begun;
        inner.pending.begin_checkpoint(number);
        self.cut(inner, Box::new(|_| {}));
        Ok(Some(number))
    }

    /// Keeps what the caller derived, with the store's next checkpoint: to be called when a commit made after
    /// [`begin_checkpoint`](Self::begin_checkpoint) has ended well. False if so much was removed meanwhile that it is
    /// worth nothing, or another one was begun: then the one before stays.
    pub fn finish_checkpoint(&self, number: u64, bytes: impl Into<Bytes>) -> bool {
        let Some(core) = &self.0.core else { return false };
        let mut inner = self.inner();
        if inner.dropped || !inner.view.finish_checkpoint(number, bytes.into()) {
            return false;
        }
        drop(inner);
        lock(&core.dirty).insert(self.0.id.0);
        core.request_checkpoint();
        true
    }

    /// Nothing is derived after all.
    pub fn abandon_checkpoint(&self, number: u64) {
        let mut inner = self.inner();
        if inner.begun == number {
            inner.begun += 1;
            inner.view.abandon_checkpoint();
        }
    }

    /// Puts a note into the pending group: bytes that say themselves where they end, of use until the time `until`. Those
    /// whose time is over `now` may go, and all go with the next checkpoint. A memory log keeps none.
    pub fn note(&self, now: i64, until: i64, note: &[u8]) {
        if self.0.core.is_some() {
            self.inner().pending.note(now, until, note);
        }
    }

    /// Replaces the one note that stays until the next one, or a checkpoint.
    pub fn put_mark(&self, mark: impl Into<Bytes>) {
        if self.0.core.is_some() {
            self.inner().pending.put_mark(mark.into());
        }
    }

    /// The durable notes.
    pub fn notes(&self) -> Result<Notes, Error> {
        let (pages, mark) = {
            let inner = self.inner();
            (inner.view.notes.pages(), inner.view.notes.mark.clone())
        };
        let mut notes = Notes {
            pages: Vec::with_capacity(pages.len()),
            mark,
        };
        for (number, bytes) in pages {
            let bytes = match (bytes, &self.0.core) {
                (Some(bytes), _) => Some(bytes),
                (None, Some(core)) => core.tables.load_notes(self.0.id.0, number)?,
                (None, None) => None,
            };
            // One that has gone meanwhile was of no more use.
            notes.pages.extend(bytes);
        }
        Ok(notes)
    }

    /// Whether the blocks written from the next commit on are compressed, where that makes them smaller. What is in
    /// memory is not, so a memory log does not care.
    pub fn compress(&self, on: bool) {
        if self.0.core.is_some() {
            self.inner().pending.compress(on);
        }
    }

    /// Whether it is so, durably.
    pub fn is_compressed(&self) -> bool {
        self.inner().view.compress
    }

    /// The latest checkpoint.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        let noted = self.inner().view.checkpoint.clone();
        let (Some(noted), Some(core)) = (noted, &self.0.core) else {
            return Ok(None);
        };
        let bytes = match noted.bytes {
            Some(bytes) => bytes,
            None => match core.load_checkpoint(self.0.id)? {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        Ok(Some(Checkpoint {
            upto_seq: noted.upto_seq,
            bytes,
            removed: (!noted.is_partial).then(|| noted.removed.list()),
        }))
    }

    /// Makes everything put so far durable together, then calls `done`: for a file log on a thread of the
    /// store, in the order of the commits of this log; for a memory log before this returns.
    /// An error says that the changes *may* be durable, now or after the store resumed.
    /// The caller holds no lock of its own that `done` takes.
    pub fn commit(&self, done: Done) {
        let inner = self.inner();
        // Nothing is cut while the store is stopped: it gathers here, later puts replacing earlier ones.
        let refused = if inner.dropped {
            Err(Error::NoStream(self.0.id))
        } else {
            self.check_open()
        };
        if let Err(error) = refused {
            drop(inner);
            return done(Err(error));
        }
        self.cut(inner, done);
    }

    /// Makes what is pending a group, and sends it on its way.
    fn cut(&self, mut inner: MutexGuard<'_, Inner>, done: Done) {
        let mut group = inner.pending.take();
        if let Some(notes) = &mut group.notes {
            inner.noted += 1;
            notes.number = inner.noted;
        }
        let Some(core) = &self.0.core else {
            let landed = inner.land(&group, &mut |_: u64, _: &Block| {
                unreachable!("a memory log has its blocks in memory")
            });
            drop(inner);
            return done(landed);
        };
        let group = Arc::new(group);
        inner.inflight_bytes += group.bytes;
        inner.inflight.push_back(group.clone());
        // Under the lock: groups of one log queue in the order they were cut.
        let queued = core.submit(self, group, done);
        drop(inner);
        if let Err((error, done)) = queued {
            done(Err(error));
        }
    }

    /// Queues what was put while the store was stopped.
    pub(super) fn commit_pending(&self) {
        if self.inner().pending.bytes() > 0 {
            self.commit(Box::new(|_| {}));
        }
    }

    /// Bytes that were put but are not yet durable. The caller holds back its publishers above a bound.
    pub fn pending_bytes(&self) -> usize {
        let inner = self.inner();
        inner.pending.bytes() + inner.inflight_bytes
    }

    /// The highest sequence that is durable.
    pub fn durable_seq(&self) -> u64 {
        self.inner().view.last_seq
    }

    /// Counters of what is durable.
    pub fn state(&self) -> LogState {
        self.inner().view.state()
    }

    /// Counters with everything pending counted in: what limits are checked against.
    pub fn head(&self) -> Result<LogState, Error> {
        let first = self.head_first()?;
        let inner = self.inner();
        let head = inner.head;
        let (first_seq, first_time) = first.unwrap_or((head.last_seq.saturating_add(1), 0));
        Ok(LogState {
            messages: head.messages,
            bytes: head.bytes,
            first_seq,
            last_seq: head.last_seq,
            first_time,
            last_time: head.last_time,
            deleted: head
                .last_seq
                .saturating_add(1)
                .saturating_sub(first_seq.saturating_add(head.messages)),
        })
    }

    /// Sequence and time of the first record no pending removal covers, pending records included.
    fn head_first(&self) -> Result<Option<(u64, i64)>, Error> {
        let mut from = 0;
        loop {
            if let Some((_, end)) = self.inner().dying.covering(from) {
                from = end.saturating_add(1);
            }
            let Some(record) = self.next_entry(from)? else {
                break;
            };
            if !self.inner().dying.contains(record.0) {
                return Ok(Some(record));
            }
            from = record.0 + 1;
        }
        let inner = self.inner();
        let waiting = inner.inflight.iter().flat_map(|g| g.chunk.range(0, u64::MAX));
        let mut waiting = waiting.chain(inner.pending.records.range(0, u64::MAX));
        Ok(waiting
            .find(|r| !inner.dying.contains(r.seq))
            .map(|r| (r.seq, r.time_ns)))
    }

    fn next_entry(&self, from: u64) -> Result<Option<(u64, i64)>, Error> {
        let inner = self.inner();
        let state = inner.view.state();
        if from <= state.first_seq {
            return Ok((state.messages > 0).then_some((state.first_seq, state.first_time)));
        }
        drop(inner);
        Ok(self.next(from)?.map(|r| (r.seq, r.time_ns)))
    }
}
