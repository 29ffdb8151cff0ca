//! The store's threads.
//!
//! ```text
//! commit() -> queue -> writer: one journal entry, one sync -> lander: into the views, `done` -> callers
//!                         `-- a full journal file -> checkpointer: tables
//! ```
//!
//! While one entry syncs the next gathers in the queue; while commits land and are answered the next entry
//! is written. After an error the writer stops the store, answers with the error, keeps what was not
//! acknowledged, and tries until it can write the logs' state to the tables and begin a new journal. Then
//! what was kept becomes durable after all: an error never meant "not stored".

use super::base::io_error;
use super::core::{Core, Submitted, Work};
use super::epoch;
use super::error::Error;
use super::info::State;
use super::journal::{self, Journal};
use super::log::{Done, Log};
use super::{Sync, lock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// An entry is closed at about this length.
const ENTRY_BYTES: usize = 4 << 20;
/// A larger buffer is not kept for the next entry: fresh memory costs its page faults, which small entries feel more.
const ENTRY_BUFFER_MAX: usize = 1 << 20;
/// Rewritten blocks in memory that call for a checkpoint.
const REWRITTEN_BYTES: u64 = 16 << 20;
/// A stopped store tries to go on after this, then twice as long each time up to `Options::retry_max`.
const RETRY_MIN: Duration = Duration::from_millis(20);

/// A written entry on its way into the views.
pub(super) struct Batch {
    /// Its last entry; 0 if nothing is to be moved.
    lsn: u64,
    works: Vec<Work>,
    dones: Vec<Done>,
    result: Result<(), Error>,
}

pub(super) struct Writer {
    pub core: Arc<Core>,
    pub journal: Journal,
    pub lander: SyncSender<Batch>,
    pub checkpoints: SyncSender<()>,
    /// The last entry handed to the lander.
    pub sent: u64,
    pub synced_at: Instant,
    /// When a full store last looked for room.
    pub tried_at: Instant,
    /// What the tables took when that was last worth looking at.
    pub tables_bytes: u64,
    /// The bytes of the entry that is being written.
    pub entry: Vec<u8>,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub fn run(mut self) {
        let core = self.core.clone();
        if catch_unwind(AssertUnwindSafe(|| while self.step() {})).is_err() {
            core.poison("the store's writer panicked");
            let mut queue = lock(&core.queue);
            queue.closed = true;
            let left = std::mem::take(&mut queue.commits);
            drop(queue);
            left.into_iter().for_each(|c| (c.done)(core.accepting()));
        }
    }

    fn step(&mut self) -> bool {
        let (commits, closed) = self.gather();
        if self.core.stopped.load(Ordering::Acquire) {
            return self.recover(commits, Vec::new());
        }
        if !commits.is_empty() {
            self.write(commits);
        }
        self.sync_by_interval();
        self.look_for_room();
        !closed
    }

    /// Waits for commits, and takes them; also says whether the queue is closed and empty.
    fn gather(&self) -> (Vec<Submitted>, bool) {
        let mut queue = lock(&self.core.queue);
        while queue.commits.is_empty() && !queue.closed && !self.core.stopped.load(Ordering::Acquire) {
            let wait = match self.core.options.sync {
                Sync::Interval(every) if self.journal.synced < self.journal.lsn => {
                    every.saturating_sub(self.synced_at.elapsed())
                }
                _ if self.core.removals_only.load(Ordering::Acquire) => self
                    .core
                    .options
                    .retry_max
                    .saturating_sub(self.tried_at.elapsed()),
                _ => Duration::from_secs(3600),
            };
            if wait.is_zero() {
                break;
            }
            queue = self.core.wait(queue, wait);
        }
        let mut bytes = 0;
        let mut commits = Vec::new();
        while bytes < ENTRY_BYTES
            && let Some(commit) = queue.commits.pop_front()
        {
            bytes += commit.work.group.as_ref().map_or(0, |g| g.bytes);
            commits.push(commit);
        }
        (commits, queue.closed && queue.commits.is_empty())
    }

    fn write(&mut self, commits: Vec<Submitted>) {
        let start = Instant::now();
        let (works, dones): (Vec<_>, Vec<_>) = commits.into_iter().map(|c| (c.work, c.done)).unzip();
        let result = self.make_room().and_then(|()| self.write_entry(&works));
        match result {
            Ok(written) => {
                if written {
                    let records: usize = works
                        .iter()
                        .filter_map(|w| w.group.as_ref())
                        .map(|g| g.chunk.index.len())
                        .sum();
                    self.core.metrics.commit.add_time(start.elapsed());
                    self.core.metrics.batch.add(records as u64);
                    self.sent = self.journal.lsn;
                }
                self.send(Batch {
                    lsn: self.sent,
                    works,
                    dones,
                    result: Ok(()),
                });
            }
            Err(error) => {
                self.core.stop(&error);
                let works = works.into_iter().collect();
                self.send(Batch {
                    lsn: 0,
                    works: Vec::new(),
                    dones,
                    result: Err(error),
                });
                self.recover(Vec::new(), works);
            }
        }
    }

    /// Writes and syncs one entry; `false` if there was nothing to write.
    fn write_entry(&mut self, works: &[Work]) -> Result<bool, Error> {
        let entry = &mut self.entry;
        journal::begin_entry(entry);
        let empty = entry.len();
        for work in works {
            if work.group.as_ref().is_none_or(|g| !g.is_empty()) {
                journal::put_group(entry, work.log.id.0, work.group.as_deref());
            }
        }
        if entry.len() == empty {
            return Ok(false);
        }
        let written = self.journal.write(entry);
        if entry.capacity() > ENTRY_BUFFER_MAX {
            *entry = Vec::new();
        }
        written.map_err(|e| io_error(&e))?;
        if self.core.options.sync == Sync::Always {
            self.sync()?;
        }
        self.core
            .journal_bytes
            .store(self.journal.bytes(), Ordering::Relaxed);
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        self.journal.sync().map_err(|e| io_error(&e))?;
        self.core.metrics.sync.add_time(start.elapsed());
        Ok(())
    }

    fn sync_by_interval(&mut self) {
        let Sync::Interval(every) = self.core.options.sync else {
            return;
        };
        if self.journal.synced < self.journal.lsn && self.synced_at.elapsed() >= every {
            self.synced_at = Instant::now();
            if let Err(error) = self.sync() {
                self.core.stop(&error);
            }
        }
    }

    /// Turns to the other journal file when this one is full. If the tables are behind, the file grows to
    /// twice its size before anyone has to wait.
    fn make_room(&mut self) -> Result<(), Error> {
        let limit = self.core.segment_bytes();
        while self.journal.full(limit) {
            let applied = self.core.applied.load(Ordering::Acquire);
            let turned = self.journal.turn(applied, limit).map_err(|e| io_error(&e))?;
            self.request_checkpoint();
            if turned || !self.journal.full(2 * limit) {
                return Ok(());
            }
            drop(self.core.wait(lock(&self.core.queue), Duration::from_millis(5)));
            self.core.accepting()?;
        }
        Ok(())
    }

    fn request_checkpoint(&self) {
        match self.checkpoints.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                self.core
                    .stop(&Error::Failed("the checkpoint thread has ended".to_string()));
            }
        }
    }

    fn send(&self, batch: Batch) {
        // Bounded: a lander that is behind holds the writer, which holds the queue.
        if self.lander.send(batch).is_err() {
            self.core
                .stop(&Error::Failed("the landing thread has ended".to_string()));
        }
    }

    /// While the disk is full: whether there is room again. What was removed leaves it inside of the tables' file, so that is
    /// made shorter when it is worth it.
    fn look_for_room(&mut self) {
        let core = &self.core;
        if !core.removals_only.load(Ordering::Acquire) || self.tried_at.elapsed() < core.options.retry_max {
            return;
        }
        self.tried_at = Instant::now();
        let logs = lock(&core.logs).clone();
        let live: u64 = logs.values().map(|log| lock(&log.inner).view.bytes).sum();
        if live + 2 * core.reserve_wanted() <= self.tables_bytes {
            self.tables_bytes = live;
            // Twice: what one checkpoint frees can be used from the next one on.
            let shorter = core.checkpoint(None).and_then(|()| core.checkpoint(None));
            if let Err(error) = shorter.and_then(|()| core.tables.compact()) {
                core.stop(&error);
                return;
            }
        }
        if core.hold_reserve() {
            core.resume();
        }
    }

    /// The store is stopped: answers everyone with the reason, keeps their changes, and tries to go on.
    /// `false` when the store was closed before that.
    fn recover(&mut self, commits: Vec<Submitted>, mut kept: Vec<Work>) -> bool {
        let (mut commits, mut retry) = (commits, RETRY_MIN.min(self.core.options.retry_max));
        loop {
            kept.extend(self.refuse(commits));
            if self.try_again(&kept) {
                self.send(Batch {
                    lsn: self.sent,
                    works: kept,
                    dones: Vec::new(),
                    result: Ok(()),
                });
                self.core.resume();
                // What was put while nothing was taken waits in the logs.
                let logs = lock(&self.core.logs).clone();
                logs.into_values().for_each(|log| Log(log).commit_pending());
                return true;
            }
            let mut queue = lock(&self.core.queue);
            let deadline = Instant::now() + retry;
            // Commits that were on their way are answered at once; the disk is left alone until it is time.
            while !queue.closed && Instant::now() < deadline {
                let late: Vec<Submitted> = queue.commits.drain(..).collect();
                if late.is_empty() {
                    let left = deadline.saturating_duration_since(Instant::now());
                    queue = self.core.wait(queue, left);
                    continue;
                }
                drop(queue);
                kept.extend(self.refuse(late));
                queue = lock(&self.core.queue);
            }
            retry = (retry * 2).min(self.core.options.retry_max);
            commits = queue.commits.drain(..).collect();
            if queue.closed && commits.is_empty() {
                return false;
            }
        }
    }

    /// Answers commits with the reason the store is stopped; their changes are kept.
    fn refuse(&self, commits: Vec<Submitted>) -> Vec<Work> {
        let (works, dones): (Vec<_>, Vec<_>) = commits.into_iter().map(|c| (c.work, c.done)).unzip();
        let result = self.core.accepting();
        self.send(Batch {
            lsn: 0,
            works: Vec::new(),
            dones,
            result,
        });
        works
    }

    /// Makes the tables hold all that landed, begins a new journal, and writes what was kept to it.
    fn try_again(&mut self, kept: &[Work]) -> bool {
        if self.core.poisoned.load(Ordering::Acquire) {
            return false;
        }
        if matches!(*lock(&self.core.state), State::Full(_)) {
            self.core.release_reserve();
            let journal = self.core.journal_bytes.load(Ordering::Relaxed);
            self.tables_bytes = self.core.disk.disk_bytes().saturating_sub(journal);
        }
        while self.core.landed.load(Ordering::Acquire) < self.sent {
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = self.core.epoch.load(Ordering::Acquire);
        let again = epoch::new_epoch(before).and_then(|epoch| {
            self.core.checkpoint(Some(epoch))?;
            self.journal = Journal::begin(&*self.core.disk, epoch, self.sent).map_err(|e| io_error(&e))?;
            self.write_entry(kept)?;
            self.sent = self.journal.lsn;
            Ok(())
        });
        if let Err(error) = &again {
            self.core.stop(error);
        }
        again.is_ok()
    }
}

/// Moves durable commits into their logs and answers them, in order.
pub(super) fn run_lander(core: &Core, batches: &Receiver<Batch>, checkpoints: &SyncSender<()>) {
    for batch in batches {
        let landing = lock(&core.landing);
        let landed = catch_unwind(AssertUnwindSafe(|| {
            batch.works.iter().for_each(|work| core.land(work))
        }));
        if landed.is_err() {
            core.poison("the landing thread panicked");
        }
        core.landed.fetch_max(batch.lsn, Ordering::AcqRel);
        drop(landing);
        for done in batch.dones {
            // A caller's panic is its own.
            let _ = catch_unwind(AssertUnwindSafe(|| done(batch.result.clone())));
        }
        if core.rewritten.load(Ordering::Relaxed) > REWRITTEN_BYTES {
            let _ = checkpoints.try_send(());
        }
        while core.rewritten.load(Ordering::Relaxed) > 4 * REWRITTEN_BYTES && core.accepting().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes checkpoints when asked; one more when all senders are gone.
pub(super) fn run_checkpointer(core: &Core, requests: &Receiver<()>) {
    loop {
        // It grows with what is stored. A full store sees to it when there is room.
        if core.accepting_records().is_ok() {
            core.hold_reserve();
        }
        let request = requests.recv_timeout(Duration::from_secs(3600));
        if request == Err(RecvTimeoutError::Timeout) {
            continue;
        }
        if core.accepting().is_ok()
            && let Err(error) = core.checkpoint(None)
        {
            core.stop(&error);
        }
        core.wake.notify_all();
        if request == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
