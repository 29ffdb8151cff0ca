//! The state of one stream behind its lock: counters, index, windows, and what is on its way to the disk.
//!
//! Counters and index have everything that was put into the log counted in; the log itself shows what is durable.
//! The difference is held here: records that are on their way (`tail`), and removed ones the log still shows (`dying`).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::jetstream::quota::Share;
use crate::store::{self, Log, RecordRef};

use super::audience::{Audience, Listener};
use super::config::StreamConfig;
use super::dedupe::Dedupe;
use super::index::{SubjectId, SubjectIndex};

/// A record that is not durable yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnItsWay {
    pub seq: u64,
    pub id: SubjectId,
    pub bytes: u64,
}

/// A record that is still there, as a walk over the stream meets it.
pub(super) struct Met<'a> {
    pub seq: u64,
    pub bytes: u64,
    pub subject: &'a [u8],
    /// Time and headers; none for what is not durable yet.
    pub stored: Option<(i64, &'a [u8])>,
}

pub(super) struct State {
    pub config: Arc<StreamConfig>,
    pub log: Log,
    pub index: SubjectIndex,
    pub dedupe: Dedupe,
    pub messages: u64,
    pub bytes: u64,
    /// At or below the first message; [`State::first`] makes it exact.
    pub first_seq: u64,
    pub last_seq: u64,
    pub first_time: i64,
    pub last_time: i64,
    /// Sequences went by without a message since the last commit.
    pub skipped: bool,
    pub tail: VecDeque<OnItsWay>,
    dying: HashSet<u64>,
    /// What is dying, with the commit after which the log no longer shows it.
    dying_by_commit: VecDeque<(u64, u64)>,
    /// Commits started and landed.
    pub started: u64,
    pub landed: u64,
    /// The last commit that is known to have landed well: what readers see.
    pub landed_well: u64,
    /// The id of the last message, empty if it had none; and its sequence, that of the stream but while it is recovered.
    pub last_msg_id: Vec<u8>,
    pub last_id_seq: u64,
    /// When messages with a time to live go, by time.
    pub expiries: BTreeSet<(i64, u64)>,
    /// Messages that outlive the age limit.
    pub pinned: BTreeSet<u64>,
    /// The consumers: told of what comes and goes, asked who would get a message of an interest stream.
    pub audience: Audience,
    /// What it holds of what its account may.
    pub share: Share,
    /// Changes since the last checkpoint.
    pub changes: u64,
    /// Set when the log may differ from what is here: after a panic in the middle of a change.
    pub doubtful: bool,
    /// Deleted for good: takes nothing more.
    pub gone: bool,
}

impl State {
    pub fn new(config: Arc<StreamConfig>, log: Log) -> Self {
        let index = SubjectIndex::new(config.max_msgs_per_subject > 0);
        Self {
            config,
            log,
            index,
            dedupe: Dedupe::default(),
            messages: 0,
            bytes: 0,
            first_seq: 1,
            last_seq: 0,
            first_time: 0,
            last_time: 0,
            skipped: false,
            tail: VecDeque::new(),
            dying: HashSet::new(),
            dying_by_commit: VecDeque::new(),
            started: 0,
            landed: 0,
            landed_well: 0,
            last_msg_id: Vec::new(),
            last_id_seq: 0,
            expiries: BTreeSet::new(),
            pinned: BTreeSet::new(),
            audience: Audience::default(),
            share: Share::default(),
            changes: 0,
            doubtful: false,
            gone: false,
        }
    }

    /// Puts a message into the log under the next sequence.
    pub fn append(
        &mut self,
        subject: &[u8],
        headers: &[u8],
        payload: &[u8],
        now: i64,
    ) -> Result<u64, store::Error> {
        let record = RecordRef {
            seq: self.last_seq + 1,
            // Times never run backwards within a stream: searching by time relies on it.
            time_ns: now.max(self.last_time),
            subject,
            headers,
            payload,
        };
        self.log.append(&record)?;
        let bytes = record.stored_len();
        let id = self.index.insert(subject, record.seq);
        self.tail.push_back(OnItsWay {
            seq: record.seq,
            id,
            bytes,
        });
        if self.messages == 0 {
            self.first_seq = record.seq;
            self.first_time = record.time_ns;
        }
        self.messages += 1;
        self.bytes += bytes;
        self.last_seq = record.seq;
        self.last_time = record.time_ns;
        self.last_id_is(record.seq, b"");
        self.changes += 1;
        self.audience.appended(subject, record.seq);
        Ok(record.seq)
    }

    /// Whether a durable record of the log is one that was removed.
    pub fn is_dying(&self, seq: u64) -> bool {
        seq < self.first_seq || self.dying.contains(&seq)
    }

    /// Whether removals are on their way.
    pub fn has_dying(&self) -> bool {
        !self.dying.is_empty() || self.log.state().first_seq < self.first_seq
    }

    /// Reads the index from the log again, for a configuration that keeps it in another way.
    pub fn rebuild_index(&mut self) -> Result<(), store::Error> {
        let mut index = SubjectIndex::new(self.config.max_msgs_per_subject > 0);
        let mut ids = HashMap::new();
        self.walk(self.first_seq, |met| {
            let id = index.insert(met.subject, met.seq);
            if met.stored.is_none() {
                ids.insert(met.seq, id);
            }
            ControlFlow::Continue(())
        })?;
        // What has become durable meanwhile is met as stored and never asked for its id again.
        for record in &mut self.tail {
            record.id = ids.get(&record.seq).copied().unwrap_or(record.id);
        }
        self.index = index;
        Ok(())
    }

    /// Takes a message out: true if it was there.
    pub fn remove(&mut self, seq: u64, subject: &[u8]) -> Result<bool, store::Error> {
        let removed = self.release(seq, subject)?;
        if removed {
            self.audience.removed(subject, seq, self.started + 1);
        }
        Ok(removed)
    }

    /// The same for a message that every consumer has done with: none need be told.
    pub fn release(&mut self, seq: u64, subject: &[u8]) -> Result<bool, store::Error> {
        if self.is_dying(seq) {
            return Ok(false);
        }
        self.note_gone([seq]);
        let removed = self.log.delete(seq)?;
        if removed.messages == 0 {
            return Ok(false);
        }
        self.index.remove(subject, seq);
        self.forget(seq, removed.bytes);
        self.mark_dying(seq);
        Ok(true)
    }

    /// Counters and windows of a message that was removed.
    fn forget(&mut self, seq: u64, bytes: u64) {
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.changes += 1;
        self.pinned.remove(&seq);
        if self.messages == 0 {
            self.first_seq = self.last_seq + 1;
        } else if seq == self.first_seq {
            self.first_seq += 1;
            self.first_time = 0;
        }
    }

    fn mark_dying(&mut self, seq: u64) {
        if self.dying.insert(seq) {
            self.dying_by_commit.push_back((self.started + 1, seq));
        }
    }

    /// The commit until which readers may still see what was removed; zero when they see nothing of it.
    pub fn unsettled(&self) -> u64 {
        match self.dying_by_commit.back() {
            Some(&(commit, _)) => commit.max(self.started),
            None if self.log.state().first_seq < self.first_seq => self.started,
            None => 0,
        }
    }

    /// Whether no removal is on its way.
    pub fn is_settled(&self) -> bool {
        self.dying_by_commit.is_empty()
    }

    /// A commit begins that holds everything so far.
    pub fn start_commit(&mut self) -> u64 {
        if std::mem::take(&mut self.skipped) && self.messages == 0 {
            // Nothing is there: the log may begin behind what went by. It cannot fail without a removal.
            self.log.truncate_front(self.last_seq + 1).ok();
        }
        self.share.tell(self.bytes);
        self.started += 1;
        self.audience.commit_started(self.started);
        self.started
    }

    /// A commit has ended, well or not; says who can read more now.
    pub fn land_commit(&mut self, commit: u64, ok: bool) -> Vec<Arc<dyn Listener>> {
        self.landed = self.landed.max(commit);
        if !ok {
            // The store keeps the changes and lands them when it goes on: nothing here becomes untrue.
            return Vec::new();
        }
        self.landed_well = self.landed_well.max(commit);
        let durable = self.log.durable_seq();
        while self.tail.front().is_some_and(|record| record.seq <= durable) {
            self.tail.pop_front();
        }
        while let Some(&(of, seq)) = self.dying_by_commit.front() {
            if of > commit {
                break;
            }
            self.dying_by_commit.pop_front();
            self.dying.remove(&seq);
        }
        self.audience.commit_landed(commit)
    }

    /// Calls `f` with what is there from `from` on, durable or not, until it breaks.
    pub fn walk(&self, from: u64, mut f: impl FnMut(Met<'_>) -> ControlFlow<()>) -> Result<(), store::Error> {
        let mut stopped = false;
        let mut next = Some(from.max(self.first_seq));
        let mut above = 0;
        while let (Some(seq), false) = (next, stopped) {
            next = self.log.scan(seq, u64::MAX, |record| {
                above = record.seq;
                if self.is_dying(record.seq) {
                    return ControlFlow::Continue(());
                }
                let flow = f(Met {
                    seq: record.seq,
                    bytes: record.stored_len(),
                    subject: record.subject,
                    stored: Some((record.time_ns, record.headers)),
                });
                stopped = flow.is_break();
                flow
            })?;
        }
        if stopped {
            return Ok(());
        }
        // The log may have become durable further than the tail was told.
        let from = from.max(above + 1);
        for record in self.tail.iter().filter(|record| record.seq >= from) {
            if self.is_dying(record.seq) {
                continue;
            }
            let met = Met {
                seq: record.seq,
                bytes: record.bytes,
                subject: self.index.subject(record.id),
                stored: None,
            };
            if f(met).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Sequence and time of the first message; `last_seq + 1` when there is none.
    pub fn first(&mut self) -> (u64, i64) {
        if self.messages == 0 {
            return (self.last_seq + 1, 0);
        }
        if self.first_time == 0 {
            let mut found = None;
            let walked = self.walk(self.first_seq, |met| {
                found = Some((met.seq, met.stored.map(|stored| stored.0)));
                ControlFlow::Break(())
            });
            if let (Ok(()), Some((seq, time))) = (walked, found) {
                self.first_seq = seq;
                self.first_time = time.unwrap_or(self.last_time);
            }
        }
        (self.first_seq, self.first_time)
    }

    /// Removes from the front as long as `more` says so, given messages and bytes that are left.
    pub fn trim_front(&mut self, more: impl Fn(u64, u64) -> bool) -> Result<(), store::Error> {
        let (mut messages, mut bytes) = (self.messages, self.bytes);
        let mut gone: Vec<(u64, u64, SubjectId)> = Vec::new();
        let mut first = self.last_seq + 1;
        self.walk(self.first_seq, |met| {
            if !more(messages, bytes) {
                first = met.seq;
                return ControlFlow::Break(());
            }
            messages -= 1;
            bytes = bytes.saturating_sub(met.bytes);
            let id = self.index.id(met.subject).expect("what is there is indexed");
            gone.push((met.seq, met.bytes, id));
            ControlFlow::Continue(())
        })?;
        if gone.is_empty() {
            return Ok(());
        }
        self.note_gone(gone.iter().map(|(seq, ..)| *seq));
        self.log.truncate_front(first)?;
        for (seq, bytes, id) in gone {
            self.index.remove_id(id, seq);
            self.forget(seq, bytes);
        }
        self.first_seq = first;
        self.first_time = 0;
        self.audience.trimmed();
        Ok(())
    }

    /// Removes the given messages, which were met on a walk; says how many were there.
    pub fn remove_all(&mut self, seqs: &[(u64, Box<[u8]>)]) -> Result<u64, store::Error> {
        let mut removed = 0;
        for (seq, subject) in seqs {
            removed += u64::from(self.remove(*seq, subject)?);
        }
        Ok(removed)
    }

    /// Removes everything below `seq`; the next message comes at or after it.
    pub fn remove_below(&mut self, seq: u64) -> Result<u64, store::Error> {
        let before = self.messages;
        if seq > self.last_seq {
            self.note_all_gone(seq);
            self.log.truncate_front(seq)?;
            self.index.clear();
            self.expiries.clear();
            self.pinned.clear();
            (self.messages, self.bytes, self.first_time) = (0, 0, 0);
            self.last_seq = self.last_seq.max(seq - 1);
            self.last_id_seq = self.last_seq;
            self.first_seq = self.last_seq + 1;
            self.changes += before;
            self.audience.trimmed();
            return Ok(before);
        }
        let gone = std::cell::Cell::new(0);
        // A walk that stops at the sequence: what lies before it is counted down.
        let mut below = 0;
        self.walk(self.first_seq, |met| {
            if met.seq >= seq {
                return ControlFlow::Break(());
            }
            below += 1;
            ControlFlow::Continue(())
        })?;
        self.trim_front(|_, _| {
            gone.set(gone.get() + 1);
            gone.get() <= below
        })?;
        Ok(before - self.messages)
    }
}
