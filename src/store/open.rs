//! The store: the directory, its threads, and the streams in it.

use super::base::io_error;
use super::check::Report;
use super::core::{Core, Submitted, Work};
use super::disk::{DirLock, Disk};
use super::epoch;
use super::error::Error;
use super::info::{State, StoreInfo};
use super::journal::{self, Journal, Replayed};
use super::log::{Done, Inner, Log};
use super::overlay::Overlay;
use super::tables::{Numbers, Tables};
use super::view::View;
use super::writer::{Writer, run_checkpointer, run_lander};
use super::{Options, StreamId, lock};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// What a store holds for one stream when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// The key of the stream.
    pub id: StreamId,
    /// The caller's own bytes.
    pub meta: Bytes,
    /// They are what is left of them: no checksum fits.
    pub damaged: bool,
}

/// An open store. Cloning gives another handle; the last one to go closes the store.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<DirLock>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl Handle {
    fn close(&self) -> Result<(), Error> {
        lock(&self.core.queue).closed = true;
        self.core.wake.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        let result = self.core.accepting();
        self.core.tables.close();
        lock(&self.core.logs).clear();
        *lock(&self.lock) = None;
        result
    }
}

impl Store {
    /// Opens or creates the store in a directory, and recovers what a crash left.
    pub fn open(options: Options) -> Result<Store, Error> {
        let start = Instant::now();
        let dir_lock = match &options.disk {
            Some(_) => None,
            None => Some(DirLock::take(&options.dir)?),
        };
        let disk = options.open_disk();
        let (core, journal) = recover(options, disk)?;
        let core = Arc::new(core);
        for (id, view) in core
            .recovered
            .lock()
            .map(|mut v| std::mem::take(&mut *v))
            .unwrap_or_default()
        {
            let log = Log::file(StreamId(id), core.clone(), view);
            lock(&core.logs).insert(id, log.0);
        }
        tracing::info!(
            streams = lock(&core.logs).len(),
            took = ?start.elapsed(),
            sync = ?core.options.sync,
            "store opened"
        );
        let threads = start_threads(&core, journal)?;
        Ok(Store(Arc::new(Handle {
            core,
            threads: Mutex::new(threads),
            lock: Mutex::new(dir_lock),
        })))
    }

    /// The streams in the store.
    pub fn streams(&self) -> Result<Vec<StreamRow>, Error> {
        let logs = lock(&self.0.core.logs).clone();
        let row = |(id, log): (u64, Arc<super::log::Shared>)| {
            let inner = lock(&log.inner);
            StreamRow {
                id: StreamId(id),
                meta: inner.view.meta.clone(),
                damaged: inner.view.meta_damaged,
            }
        };
        Ok(logs.into_iter().map(row).collect())
    }

    /// Creates a stream. It lasts from the first [`Log::commit`] on, which also holds `meta`.
    pub fn create_stream(&self, meta: impl Into<Bytes>) -> Result<Log, Error> {
        let core = &self.0.core;
        core.accepting_records()?;
        let id = core.next_stream.fetch_add(1, Ordering::AcqRel);
        let log = Log::file(StreamId(id), core.clone(), View::default());
        log.put_meta(meta);
        lock(&core.logs).insert(id, log.0.clone());
        Ok(log)
    }

    /// Removes a stream with all it holds; durable when `done` is called with `Ok`. Its log takes
    /// nothing from now on.
    pub fn remove_stream(&self, id: StreamId, done: Done) {
        let Some(log) = lock(&self.0.core.logs).get(&id.0).cloned() else {
            return done(Err(Error::NoStream(id)));
        };
        // Under the log's lock no commit can slip in behind the removal.
        let mut inner = lock(&log.inner);
        if inner.dropped {
            drop(inner);
            return done(Err(Error::NoStream(id)));
        }
        inner.dropped = true;
        let work = Work {
            log: log.clone(),
            group: None,
        };
        let queued = self.0.core.enqueue(Submitted { work, done });
        drop(inner);
        if let Err((error, done)) = queued {
            done(Err(error));
        }
    }

    /// The log of a stream, as it was recovered or as it is.
    pub fn open_log(&self, id: StreamId) -> Result<Log, Error> {
        lock(&self.0.core.logs)
            .get(&id.0)
            .cloned()
            .map(Log)
            .ok_or(Error::NoStream(id))
    }

    /// The store's numbers and state.
    pub fn info(&self) -> StoreInfo {
        let core = &self.0.core;
        let logs = lock(&core.logs).clone();
        let (batch, checkpoints) = (core.metrics.batch.read(), core.metrics.checkpoint.read());
        // In this order the difference is never negative for a moment.
        let applied = core.applied.load(Ordering::Acquire);
        let landed = core.landed.load(Ordering::Acquire);
        let cache = lock(&core.cache).figures();
        // What is kept back is not what is stored.
        let disk_bytes = core.disk.disk_bytes().saturating_sub(*lock(&core.reserve));
        let journal_bytes = core.journal_bytes.load(Ordering::Relaxed);
        // What the tables hold since the last checkpoint: the journal has the rest.
        let stored_bytes = core.stored_bytes.load(Ordering::Relaxed);
        StoreInfo {
            logical_bytes: logs.values().map(|log| lock(&log.inner).view.bytes).sum(),
            disk_bytes,
            journal_bytes,
            spare_bytes: disk_bytes.saturating_sub(journal_bytes + stored_bytes),
            available_bytes: core.disk.available_bytes(),
            commits: batch.count(),
            records: batch.sum,
            journal_entries: landed.saturating_sub(applied),
            checkpoints: checkpoints.count(),
            batch_records: batch,
            commit_us: core.metrics.commit.read(),
            sync_us: core.metrics.sync.read(),
            checkpoint_us: checkpoints,
            cache_bytes: cache.bytes,
            cache_bytes_max: cache.bytes_max,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            damaged_records: logs
                .values()
                .map(|log| lock(&log.inner).damaged.len() as u64)
                .sum(),
            damage: core.damage.clone(),
            torn_entries: core.torn,
            state: lock(&core.state).clone(),
            sync: core.options.sync,
        }
    }

    /// Whether it takes writes, and why not: cheap enough to ask before every answer.
    pub fn state(&self) -> State {
        lock(&self.0.core.state).clone()
    }

    /// Whether it takes removals, which a full store does as long as it has its reserve; the reason if not.
    pub fn takes_removals(&self) -> Result<(), Error> {
        self.0.core.accepting()
    }

    /// What was found damaged when it was opened, a line each, and the records found damaged since.
    pub fn damage(&self) -> (Vec<String>, u64) {
        let core = &self.0.core;
        let logs = lock(&core.logs).clone();
        let records = logs.values().map(|log| lock(&log.inner).damaged.len() as u64);
        (core.damage.clone(), records.sum())
    }

    /// Whether only opening it again can make it take writes again.
    pub fn needs_restart(&self) -> bool {
        self.0.core.poisoned.load(Ordering::Acquire)
    }

    /// The directory it is in.
    pub fn dir(&self) -> &Path {
        &self.0.core.options.dir
    }

    /// When commits are acknowledged.
    pub fn sync(&self) -> super::Sync {
        self.0.core.options.sync
    }

    /// The process id of the server that has a directory open, as it wrote it; `None` when none has.
    pub fn holder(dir: &Path) -> Result<Option<String>, Error> {
        super::disk::DirLock::holder(dir)
    }

    /// The figures of a closed store, which is left as it is: what an open would write stays in memory.
    pub fn survey(mut options: Options) -> Result<(StoreInfo, Vec<StreamRow>), Error> {
        options.disk = Some(Arc::new(Overlay::new(options.open_disk())));
        let store = Store::open(options)?;
        let found = (store.info(), store.streams()?);
        store.close()?;
        Ok(found)
    }

    /// Reads everything in a closed store; see [`Report`].
    pub fn check(options: Options) -> Result<Report, Error> {
        super::check::check(options)
    }

    /// Reads everything in a closed store, and takes out what cannot be read; see [`Report`].
    pub fn repair(options: Options, mend: super::Mend<'_>) -> Result<Report, Error> {
        super::check::repair(options, mend)
    }

    /// Answers all commits, brings everything into the tables, and gives up the directory.
    pub fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}

/// Reads the tables, replays the journal over them, and begins a new journal.
fn recover(options: Options, disk: Arc<dyn Disk>) -> Result<(Core, Journal), Error> {
    let tables = Tables::open(disk.clone(), (options.cache_bytes_max / 4).max(1 << 20))?;
    let (numbers, found) = (tables.numbers()?, tables.views()?);
    let (views, mut damage, rewrite) = (found.views, found.damage, found.rewrite);
    let outline = epoch::outline(&*disk).map_err(|e| io_error(&e))?;
    let numbers = match numbers {
        Some(numbers) if outline.follows(numbers.epoch, numbers.applied) => {
            damage
                .push("the tables are older than the journal: what only lay between them is lost".to_owned());
            Numbers {
                applied: outline.applied.max(numbers.applied),
                epoch: outline.epoch,
                ..numbers
            }
        }
        Some(numbers) => numbers,
        None => {
            damage.push("the store's own numbers are damaged: those of the journal are taken".to_owned());
            Numbers {
                applied: outline.applied,
                epoch: outline.epoch,
                next_stream: 0,
            }
        }
    };
    let found = journal::read(&*disk, numbers.epoch, numbers.applied).map_err(|e| io_error(&e))?;
    damage.extend(found.damage);
    for line in &damage {
        tracing::error!("store damage: {line}");
    }
    let mut core = Core::new(options, disk, tables);
    core.damage = damage;
    core.torn = found.torn;
    lock(&core.dirty).extend(rewrite);
    let mut next_stream = numbers
        .next_stream
        .max(views.keys().next_back().map_or(1, |id| id + 1));
    let mut logs: BTreeMap<u64, Inner> = views
        .into_iter()
        .map(|(id, view)| (id, Inner::new(view)))
        .collect();
    for replayed in &found.groups {
        match replayed {
            Replayed::Group(id, group) => {
                next_stream = next_stream.max(id + 1);
                // Until its configuration comes: the group that held it may be damaged.
                let inner = logs.entry(*id).or_insert_with(|| {
                    Inner::new(View {
                        meta_damaged: true,
                        ..View::default()
                    })
                });
                core.replay(StreamId(*id), inner, group)?;
            }
            Replayed::DropStream(id) => {
                logs.remove(id);
                lock(&core.dropped).insert(*id);
                next_stream = next_stream.max(id + 1);
            }
        }
    }
    let epoch = epoch::new_epoch(numbers.epoch)?;
    core.next_stream.store(next_stream, Ordering::Release);
    let mut recovered: BTreeMap<u64, View> = logs.into_iter().map(|(id, inner)| (id, inner.view)).collect();
    let last = found.last_lsn;
    core.write_recovered(
        &mut recovered,
        Numbers {
            applied: last,
            epoch,
            next_stream,
        },
        numbers,
    )?;
    let journal = Journal::begin(&*core.disk, epoch, last).map_err(|e| io_error(&e))?;
    *lock(&core.recovered) = recovered;
    Ok((core, journal))
}

fn start_threads(core: &Arc<Core>, journal: Journal) -> Result<Vec<JoinHandle<()>>, Error> {
    let (lander, batches) = sync_channel(4);
    let (checkpoints, requests) = sync_channel(1);
    *lock(&core.checkpoints) = Some(checkpoints.clone());
    let spawn = |name: &str, f: Box<dyn FnOnce() + Send>| {
        Builder::new()
            .name(name.to_string())
            .spawn(f)
            .map_err(|e| Error::Open(e.to_string()))
    };
    let writer = Writer {
        core: core.clone(),
        sent: journal.lsn,
        journal,
        lander,
        checkpoints: checkpoints.clone(),
        synced_at: Instant::now(),
        tried_at: Instant::now(),
        tables_bytes: u64::MAX,
        entry: Vec::new(),
    };
    let (landing, checkpointing) = (core.clone(), core.clone());
    Ok(vec![
        spawn("store-writer", Box::new(move || writer.run()))?,
        spawn(
            "store-lander",
            Box::new(move || {
                run_lander(&landing, &batches, &checkpoints);
                *lock(&landing.checkpoints) = None;
            }),
        )?,
        spawn(
            "store-tables",
            Box::new(move || run_checkpointer(&checkpointing, &requests)),
        )?,
    ])
}
