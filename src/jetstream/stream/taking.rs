//! Taking a checkpoint: what a stream derived from its log as it was at one moment, a piece at a time while it goes on.
//!
//! ```text
//! begin: under the lock, all that was put is committed, the log lists what is removed from here on, the index freezes
//!    |      - pieces, the lock let go between any two
//!    v      - in order, as bytes, without a lock
//! finish: once that commit has landed the log has it, and drops the list and the notes from before
//! ```
//!
//! The index is copied as it was. Ids, times and pins are not: what has left them since has left the window, or is
//! listed as removed, and what came has a sequence above. Until the end the checkpoint before stays what it was, so a
//! crash in between costs nothing but the work; an index that is made anew meanwhile, or a panic, ends it.
//!
//! Memory: what the checkpoint takes on the disk twice, and 40 bytes a subject. One at a time in the process.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use crate::store;

use super::Stream;
use super::checkpoint::{put, put_bytes};
use super::config::Storage;
use super::frozen::Frozen;
use super::recover::VERSION;
use super::state::State;

/// Changes since the last checkpoint that make another one worth its writing.
const CHANGES_MIN: u64 = 250_000;
/// And removals: the store gives a checkpoint up when it would have to list too many.
const REMOVALS_MIN: u64 = 50_000;
/// What is copied under one hold of the lock: a fraction of a millisecond.
const PIECE: usize = 2048;

/// Each takes memory by the size of its stream.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// See the module documentation.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(super) struct Taking {
    /// The log's number of it.
    number: u64,
    upto: u64,
    /// What the stream had counted then.
    changes: u64,
    removals: u64,
    last_id: Vec<u8>,
    ids: Counted,
    /// Numbers of the ids that are still to come.
    ids_to_come: std::ops::Range<u64>,
    expiries: Counted,
    next_expiry: (i64, u64),
    pinned: Counted,
    next_pinned: u64,
}

#[derive(Debug, Default)]
struct Counted {
    count: usize,
    bytes: Vec<u8>,
}

impl Counted {
    fn add(&mut self, numbers: &[u64]) {
        self.count += 1;
        numbers.iter().for_each(|&number| put(&mut self.bytes, number));
    }

    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.count as u64);
        out.extend_from_slice(&self.bytes);
    }
}

impl Taking {
    /// The log's number of it.
    #[cfg(test)]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What [`State::recover`] reads.
    pub fn encode(self, index: &Frozen) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, VERSION);
        put_bytes(&mut out, &self.last_id);
        self.ids.put(&mut out);
        self.expiries.put(&mut out);
        self.pinned.put(&mut out);
        index.encode(&mut out);
        out
    }
}

impl State {
    /// Begins a checkpoint of what is here now. The caller commits; if that ends well all of it is durable.
    pub fn begin_checkpoint(&mut self) -> Result<Option<Taking>, store::Error> {
        let Some(number) = self.log.begin_checkpoint(self.last_seq)? else {
            return Ok(None);
        };
        self.index.freeze();
        Ok(Some(Taking {
            number,
            upto: self.last_seq,
            changes: self.changes,
            removals: self.removals,
            last_id: self.last_msg_id.clone(),
            ids: Counted::default(),
            ids_to_come: self.dedupe.numbers(),
            expiries: Counted::default(),
            next_expiry: (i64::MIN, 0),
            pinned: Counted::default(),
            next_pinned: 0,
        }))
    }

    /// Takes up to so many things more, and says whether that is all; none if there is no end to it.
    pub fn take_more(&mut self, taking: &mut Taking, count: usize) -> Option<bool> {
        if self.doubtful || self.gone {
            return None;
        }
        let is_whole = self.index.freeze_more(count.try_into().ok()?)?
            && self.take_ids(taking, count)
            && self.take_expiries(taking, count)
            && self.take_pinned(taking, count);
        Some(is_whole)
    }

    fn take_ids(&self, taking: &mut Taking, count: usize) -> bool {
        let to_come = &mut taking.ids_to_come;
        // Those that have left the window meanwhile are of no more use.
        let from = to_come.start.max(self.dedupe.numbers().start);
        let to = to_come.end.min(from.saturating_add(count as u64));
        if from >= to {
            return true;
        }
        to_come.start = to;
        taking.ids.count += (to - from) as usize;
        self.dedupe.encode(&mut taking.ids.bytes, from..to);
        false
    }

    fn take_expiries(&self, taking: &mut Taking, count: usize) -> bool {
        let mut taken = 0;
        for (time, seq) in self.expiries.range(taking.next_expiry).take(count) {
            taken += 1;
            taking.next_expiry = (time, seq + 1);
            if seq <= taking.upto {
                taking.expiries.add(&[time as u64, seq]);
            }
        }
        taken < count
    }

    fn take_pinned(&self, taking: &mut Taking, count: usize) -> bool {
        let mut taken = 0;
        let own = self.pinned.range(taking.next_pinned..);
        for &seq in own.take_while(|&&seq| seq <= taking.upto).take(count) {
            taken += 1;
            taking.next_pinned = seq + 1;
            taking.pinned.add(&[seq]);
        }
        taken < count
    }

    /// The log has it.
    pub fn checkpoint_taken(&mut self, changes: u64, removals: u64) {
        self.changes = self.changes.saturating_sub(changes);
        self.removals = self.removals.saturating_sub(removals);
    }
}

impl Stream {
    /// Hands the store what opening this stream again will start from, if enough has changed; `always` if anything has.
    /// Takes its time, and lets the stream go on meanwhile.
    pub(in crate::jetstream) fn checkpoint(&self, always: bool) {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (commit, begun) = {
            let mut state = self.lock();
            // One is written whole: the more it holds, the more has to have changed.
            let changes_min = CHANGES_MIN.max(state.index.len() as u64);
            let removals_min = REMOVALS_MIN.max(state.messages / 4);
            let is_due = state.changes >= changes_min || state.removals >= removals_min;
            let is_wanted = is_due || always && state.changes > 0;
            if !is_wanted || state.doubtful || state.gone || state.config.storage == Storage::Memory {
                return;
            }
            (state.start_commit(), state.begin_checkpoint())
        };
        let (tell, told) = mpsc::sync_channel(1);
        let then = move |result: Result<(), store::Error>| {
            tell.send(result.is_ok()).ok();
        };
        self.commit_started(commit, 0, Box::new(then));
        let taking = match begun {
            Ok(Some(taking)) => taking,
            Ok(None) => return,
            // Whoever publishes is told.
            Err(error) => return tracing::debug!(stream = self.name, "no checkpoint: {error}"),
        };
        let (number, changes, removals) = (taking.number, taking.changes, taking.removals);
        let bytes = self.take(taking, always);
        // A commit that was not told of as landed may land yet: then there is a next time.
        let is_durable = told.recv().unwrap_or(false);
        let Some(bytes) = bytes.filter(|_| is_durable) else {
            drop(self.lock().index.frozen());
            return self.log.abandon_checkpoint(number);
        };
        if self.log.finish_checkpoint(number, bytes) {
            self.lock().checkpoint_taken(changes, removals);
        }
    }

    /// All pieces, as bytes.
    fn take(&self, mut taking: Taking, hurries: bool) -> Option<Vec<u8>> {
        loop {
            let start = Instant::now();
            let is_whole = self.lock().take_more(&mut taking, PIECE)?;
            if is_whole {
                break;
            }
            if !hurries {
                // Whoever publishes gets as much of the time.
                std::thread::sleep(start.elapsed());
            }
        }
        let index = self.lock().index.frozen()?;
        Some(taking.encode(&index))
    }
}
