//! What the store's threads share: the tables, the cache, the open logs, the state.

use super::block::{Block, Chunk, Data, Entry};
use super::cache::Cache;
use super::disk::Disk;
use super::error::Error;
use super::group::Group;
use super::info::{Metrics, State};
use super::log::{Done, Inner, Log, Shared};
use super::tables::{Numbers, Part, Tables, take_update};
use super::view::{Source, View};
use super::{Options, StreamId, Sync, lock};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A journal file is not full below this, unless the options say less.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// A commit on its way.
pub(super) struct Submitted {
    pub work: Work,
    pub done: Done,
}

/// What a commit brings.
#[derive(Clone)]
pub(super) struct Work {
    pub log: Arc<Shared>,
    /// `None`: the stream goes.
    pub group: Option<Arc<Group>>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub commits: VecDeque<Submitted>,
    pub closed: bool,
    /// Whether the writer waits: a wake-up is a call of the kernel, and mostly the writer is at work.
    waits: bool,
}

pub(super) struct Core {
    pub options: Options,
    pub disk: Arc<dyn Disk>,
    pub tables: Tables,
    pub cache: Mutex<Cache>,
    pub logs: Mutex<BTreeMap<u64, Arc<Shared>>>,
    pub queue: Mutex<Queue>,
    /// Wakes the writer.
    pub wake: Condvar,
    pub state: Mutex<State>,
    pub stopped: AtomicBool,
    /// The disk was full, and what was kept back for that is in use: see `reserve.rs`.
    pub removals_only: AtomicBool,
    /// Bytes that are kept back.
    pub reserve: Mutex<u64>,
    /// A view is behind the journal: only an open, which replays it, can put that right.
    pub poisoned: AtomicBool,
    /// Entries up to this are in the logs' views.
    pub landed: AtomicU64,
    /// Held while an entry moves into the views: who holds it sees them at an end of an entry.
    pub landing: Mutex<()>,
    /// Entries up to this are in the tables.
    pub applied: AtomicU64,
    pub epoch: AtomicU64,
    pub next_stream: AtomicU64,
    /// Streams with something for the next checkpoint; those that are gone stay in `dropped` until written.
    pub dirty: Mutex<BTreeSet<u64>>,
    pub dropped: Mutex<BTreeSet<u64>>,
    /// Bytes of blocks that removals rewrote and no checkpoint has written.
    pub rewritten: AtomicU64,
    /// Live bytes of all streams at the last checkpoint.
    pub stored_bytes: AtomicU64,
    /// What the journal's files take.
    pub journal_bytes: AtomicU64,
    /// Asks for a checkpoint.
    pub checkpoints: Mutex<Option<SyncSender<()>>>,
    /// The streams between recovery and the first log.
    pub recovered: Mutex<BTreeMap<u64, View>>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    pub metrics: Metrics,
    pub damage: Vec<String>,
    pub torn: u64,
    /// Blocks, by stream, that are to be as if their pages could not be read.
    #[cfg(test)]
    pub unreadable: Mutex<BTreeSet<(u64, u64)>>,
}

impl Core {
    pub fn new(options: Options, disk: Arc<dyn Disk>, tables: Tables) -> Core {
        let cache = Cache::new(options.cache_bytes_max - options.cache_bytes_max / 4);
        Core {
            options,
            disk,
            tables,
            cache: Mutex::new(cache),
            logs: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            state: Mutex::new(State::Ok),
            stopped: AtomicBool::new(false),
            removals_only: AtomicBool::new(false),
            reserve: Mutex::default(),
            poisoned: AtomicBool::new(false),
            landed: AtomicU64::new(0),
            landing: Mutex::default(),
            applied: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            next_stream: AtomicU64::new(0),
            dirty: Mutex::default(),
            dropped: Mutex::default(),
            rewritten: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            checkpoints: Mutex::default(),
            recovered: Mutex::default(),
            checkpointing: Mutex::new(()),
            metrics: Metrics::default(),
            damage: Vec::new(),
            torn: 0,
            #[cfg(test)]
            unreadable: Mutex::default(),
        }
    }

    /// Whether writes are taken; the reason if not.
    pub fn accepting(&self) -> Result<(), Error> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*lock(&self.state) {
            // It has resumed just now.
            State::Ok if !self.stopped.load(Ordering::Acquire) => Ok(()),
            State::Ok => Err(Error::Closed),
            State::Full(why) => Err(Error::Full(why.clone())),
            State::Failed(why) => Err(Error::Failed(why.clone())),
        }
    }

    /// Stops taking writes because of an error.
    pub fn stop(&self, error: &Error) {
        let state = match error {
            Error::Full(why) => State::Full(why.clone()),
            other => State::Failed(other.to_string()),
        };
        let mut current = lock(&self.state);
        if *current != state {
            tracing::error!(%error, "store stopped");
            *current = state;
        }
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    /// Stops for good: until the store is opened again.
    pub fn poison(&self, why: &str) {
        self.poisoned.store(true, Ordering::Release);
        self.stop(&Error::Failed(format!("{why}; restart the server")));
    }

    /// Takes writes again; removals alone if the disk was full and has no room to keep back.
    pub fn resume(&self) {
        let was_full = matches!(*lock(&self.state), State::Full(_));
        if was_full && !self.hold_reserve() {
            self.removals_only.store(true, Ordering::Release);
            self.stopped.store(false, Ordering::Release);
            tracing::warn!("the disk is full: the store takes removals alone until there is room");
            return;
        }
        self.removals_only.store(false, Ordering::Release);
        {
            // Both at once, for whoever asks why it does not take what it takes.
            let mut state = lock(&self.state);
            *state = State::Ok;
            self.stopped.store(false, Ordering::Release);
        }
        tracing::info!("store resumed");
    }

    /// When a journal file is full.
    pub fn segment_bytes(&self) -> u64 {
        let stored = self.stored_bytes.load(Ordering::Relaxed);
        let max = self.options.journal_bytes_max;
        (stored / 16).clamp(SEGMENT_BYTES_MIN.min(max), max)
    }

    /// Queues a commit. The caller holds the log's lock, which keeps the order of its commits.
    pub fn submit(&self, log: &Log, group: Arc<Group>, done: Done) -> Result<(), (Error, Done)> {
        self.enqueue(Submitted {
            work: Work {
                log: log.0.clone(),
                group: Some(group),
            },
            done,
        })
    }

    /// The writer waits for a commit, or for whoever else wakes it.
    pub fn wait<'a>(&self, mut queue: MutexGuard<'a, Queue>, at_most: Duration) -> MutexGuard<'a, Queue> {
        queue.waits = true;
        let woken = self.wake.wait_timeout(queue, at_most);
        let (mut queue, _) = woken.unwrap_or_else(PoisonError::into_inner);
        queue.waits = false;
        queue
    }

    pub fn enqueue(&self, commit: Submitted) -> Result<(), (Error, Done)> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err((Error::Closed, commit.done));
        }
        queue.commits.push_back(commit);
        if std::mem::take(&mut queue.waits) {
            drop(queue);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The data of a block that is not in memory. `None` if the block is not what it was meanwhile.
    pub fn load(&self, stream: StreamId, id: u64, block: &BlockRef) -> Result<Data, Error> {
        let key = (stream.0, id, block.version);
        if let Some(data) = lock(&self.cache).get(key) {
            return Ok(data);
        }
        #[cfg(test)]
        if lock(&self.unreadable).contains(&(stream.0, id)) {
            return Err(Error::Damaged("by a test".to_owned()));
        }
        let data = self.tables.load_block((stream.0, id), block.last)?;
        let data = data
            .and_then(|data| fit(data, block))
            .unwrap_or_else(|| lost(id, block));
        if data.damaged().next().is_none() {
            lock(&self.cache).insert(key, data.clone());
        }
        Ok(data)
    }

    /// The same for whoever removes: what is in a page that does not hold together goes by its sequence alone.
    pub fn load_to_remove(&self, stream: StreamId, id: u64, block: &BlockRef) -> Result<Data, Error> {
        match self.load(stream, id, block) {
            Err(Error::Damaged(_)) if block.is_dense(id) => Ok(lost(id, block)),
            // Which of them is which nobody can tell: they stay, named as damaged, until a repair.
            Err(Error::Damaged(_)) => Ok(Data::default()),
            data => data,
        }
    }

    pub fn load_checkpoint(&self, stream: StreamId) -> Result<Option<Bytes>, Error> {
        self.tables.load_checkpoint(stream.0)
    }

    /// Asks for a checkpoint soon.
    pub fn request_checkpoint(&self) {
        if let Some(requests) = &*lock(&self.checkpoints) {
            let _ = requests.try_send(());
        }
    }

    /// Applies a group the journal had.
    pub fn replay(&self, stream: StreamId, inner: &mut Inner, group: &Group) -> Result<(), Error> {
        inner.view.apply(group, &mut Loader { core: self, stream })?;
        lock(&self.dirty).insert(stream.0);
        Ok(())
    }

    /// Writes what a replay changed. If the disk is full that is left for later: the store begins stopped, with `before` in
    /// its tables.
    pub fn write_recovered(
        &self,
        views: &mut BTreeMap<u64, View>,
        numbers: Numbers,
        before: Numbers,
    ) -> Result<(), Error> {
        let dropped = lock(&self.dropped).clone();
        let mut parts: Vec<Part> = dropped
            .into_iter()
            .map(|id| Part {
                stream: StreamId(id),
                update: None,
            })
            .collect();
        for id in lock(&self.dirty).clone() {
            if let Some(view) = views.get_mut(&id) {
                parts.push(Part {
                    stream: StreamId(id),
                    update: Some(take_update(id, view)),
                });
            }
        }
        let written = match self.tables.write(&parts, numbers) {
            Err(error @ Error::Full(_)) => {
                self.stop(&error);
                false
            }
            other => other.map(|()| true)?,
        };
        for part in parts {
            match (part.update, views.get_mut(&part.stream.0)) {
                (Some(update), Some(view)) if written => drop(view.written(update)),
                (Some(update), Some(view)) => view.put_back(update),
                _ => {}
            }
        }
        if written {
            lock(&self.dropped).clear();
            lock(&self.dirty).clear();
        }
        let held = if written { numbers } else { before };
        self.landed.store(numbers.applied, Ordering::Release);
        self.applied.store(held.applied, Ordering::Release);
        self.epoch.store(held.epoch, Ordering::Release);
        self.stored_bytes
            .store(views.values().map(|v| v.bytes).sum(), Ordering::Relaxed);
        Ok(())
    }

    /// Moves a durable commit into its log.
    pub fn land(&self, work: &Work) {
        let stream = work.log.id;
        let Some(group) = &work.group else {
            lock(&self.logs).remove(&stream.0);
            lock(&self.dropped).insert(stream.0);
            return;
        };
        let mut inner = lock(&work.log.inner);
        let before = inner.view.changes.rewritten_bytes;
        if let Err(error) = inner.land(group, &mut Loader { core: self, stream }) {
            // The journal has it, so the next open applies it; going on would serve what is deleted.
            self.poison(&format!("stream {stream}: {error}"));
        }
        let grown = inner.view.changes.rewritten_bytes.saturating_sub(before);
        drop(inner);
        self.rewritten.fetch_add(grown as u64, Ordering::Relaxed);
        if !group.is_empty() {
            lock(&self.dirty).insert(stream.0);
        }
    }

    /// Writes what changed to the tables; afterwards the journal is not needed up to what had landed.
    pub fn checkpoint(&self, epoch: Option<u64>) -> Result<(), Error> {
        let _one = lock(&self.checkpointing);
        let start = Instant::now();
        let epoch = epoch.unwrap_or_else(|| self.epoch.load(Ordering::Acquire));
        // What lands while the changes are taken would be in the tables beyond `applied`. Synced entries are all there to be
        // replayed over that; of the others a power cut may leave the older ones alone, which must not go over what is newer.
        let exact = matches!(self.options.sync, Sync::Interval(_)).then(|| lock(&self.landing));
        let applied = self.landed.load(Ordering::Acquire);
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        let dropped = std::mem::take(&mut *lock(&self.dropped));
        let rewritten = self.rewritten.load(Ordering::Relaxed);
        let logs = lock(&self.logs).clone();
        let mut parts: Vec<Part> = dropped
            .iter()
            .map(|&id| Part {
                stream: StreamId(id),
                update: None,
            })
            .collect();
        for id in dirty.iter().filter(|id| !dropped.contains(id)) {
            if let Some(log) = logs.get(id) {
                let update = take_update(*id, &mut lock(&log.inner).view);
                parts.push(Part {
                    stream: StreamId(*id),
                    update: Some(update),
                });
            }
        }
        drop(exact);
        let next_stream = self.next_stream.load(Ordering::Acquire);
        let result = self.tables.write(
            &parts,
            Numbers {
                applied,
                epoch,
                next_stream,
            },
        );
        if result.is_err() {
            lock(&self.dirty).extend(dirty);
            lock(&self.dropped).extend(dropped);
        } else {
            self.rewritten.fetch_sub(rewritten, Ordering::Relaxed);
            self.epoch.store(epoch, Ordering::Release);
            self.applied.store(applied, Ordering::Release);
            let stored = logs.values().map(|log| lock(&log.inner).view.bytes).sum();
            self.stored_bytes.store(stored, Ordering::Relaxed);
        }
        for part in parts {
            let (Some(update), Some(log)) = (part.update, logs.get(&part.stream.0)) else {
                continue;
            };
            let mut inner = lock(&log.inner);
            if result.is_err() {
                inner.view.put_back(update);
                continue;
            }
            let written = inner.view.written(update);
            drop(inner);
            let mut cache = lock(&self.cache);
            written
                .into_iter()
                .for_each(|(id, version, data)| cache.insert((part.stream.0, id, version), data));
        }
        self.metrics.checkpoint.add_time(start.elapsed());
        result
    }
}

/// What a reader has to know of a block to fetch its data without the log's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRef {
    pub version: u32,
    pub last: u64,
    pub records: u32,
}

impl From<&Block> for BlockRef {
    fn from(block: &Block) -> BlockRef {
        BlockRef {
            version: block.version,
            last: block.last,
            records: block.records,
        }
    }
}

impl BlockRef {
    /// Whether it has a record for each sequence.
    fn is_dense(&self, id: u64) -> bool {
        self.last - id + 1 == u64::from(self.records)
    }
}

/// Fetches blocks for changes to a view, under its lock.
pub(super) struct Loader<'a> {
    pub core: &'a Core,
    pub stream: StreamId,
}

impl Source for Loader<'_> {
    fn load(&mut self, id: u64, block: &Block) -> Result<Data, Error> {
        self.core.load_to_remove(self.stream, id, &BlockRef::from(block))
    }
}

/// Gives damaged data the number of records it had, so that the places of those behind the damage are right.
fn fit(data: Data, block: &BlockRef) -> Option<Data> {
    let missing = (block.records as usize).checked_sub(data.records())?;
    if missing == 0 {
        return Some(data);
    }
    let chunk = data.chunks().first()?.clone().filled(block.records as usize);
    (chunk.index.len() == block.records as usize).then(|| Data::new(chunk))
}

/// Stands in for a block whose row cannot be read. Which sequences it held is known if there was one for each number.
pub(super) fn lost(id: u64, block: &BlockRef) -> Data {
    let is_dense = block.is_dense(id);
    let entry = |n| Entry {
        seq: if is_dense { id + n } else { block.last },
        off: 0,
        damaged: true,
    };
    Data::new(Chunk {
        bytes: Bytes::new(),
        index: (0..u64::from(block.records)).map(entry).collect(),
    })
}
