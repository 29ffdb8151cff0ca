//! The state of one stream behind its lock: counters, index, windows, and what is on its way to the disk.
//!
//! Counters and index have everything that was put into the log counted in; the log itself shows what is durable.
//! The difference is held here: records that are on their way (`tail`), and removed ones the log still shows (`dying`).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::jetstream::quota::Share;
use crate::protocol::subject;
use crate::store::{self, Log, RecordRef, Removed, Scanned};

use super::audience::{Audience, Listener};
use super::config::StreamConfig;
use super::dedupe::Dedupe;
use super::expiries::Expiries;
use super::index::{SubjectId, SubjectIndex};

/// A record that is not durable yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnItsWay {
    pub seq: u64,
    pub id: SubjectId,
    pub bytes: u64,
    pub time_ns: i64,
}

/// A record that is still there, as a walk over the stream meets it.
pub(super) struct Met<'a> {
    pub seq: u64,
    pub bytes: u64,
    pub subject: &'a [u8],
    pub time_ns: i64,
    /// None for what is not durable yet.
    pub headers: Option<&'a [u8]>,
}

/// What a walk meets that counts what cannot be read, too.
pub(super) enum Step<'a> {
    Record(Met<'a>),
    Damaged { seq: u64, bytes: u64 },
}

impl Step<'_> {
    pub fn seq(&self) -> u64 {
        match self {
            Step::Record(met) => met.seq,
            Step::Damaged { seq, .. } => *seq,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Step::Record(met) => met.bytes,
            Step::Damaged { bytes, .. } => *bytes,
        }
    }
}

/// What a walk from the front on has met.
#[derive(Default)]
pub(super) struct Front {
    pub records: Vec<(u64, SubjectId)>,
    is_damaged: bool,
}

impl Front {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && !self.is_damaged
    }

    pub fn push(&mut self, step: &Step<'_>, index: &SubjectIndex) {
        match step {
            Step::Record(met) => self.records.extend(index.id(met.subject).map(|id| (met.seq, id))),
            Step::Damaged { .. } => self.is_damaged = true,
        }
    }
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
    pub expiries: Expiries,
    /// Messages that outlive the age limit.
    pub pinned: BTreeSet<u64>,
    /// Below it all messages are pinned; and when its message came, zero if that is to be found out.
    pub ageing: (u64, i64),
    /// The consumers: told of what comes and goes, asked who would get a message of an interest stream.
    pub audience: Audience,
    /// What it holds of what its account may.
    pub share: Share,
    /// Changes since the last checkpoint, and the removals among them.
    pub changes: u64,
    pub removals: u64,
    /// Set when the log may differ from what is here: after a panic in the middle of a change.
    pub doubtful: bool,
    /// Deleted for good: takes nothing more.
    pub gone: bool,
    /// Records met on walks.
    #[cfg(test)]
    pub walked: std::cell::Cell<u64>,
    /// Questions where a filter's next message may be.
    #[cfg(test)]
    pub asked: std::cell::Cell<u64>,
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
            expiries: Expiries::default(),
            pinned: BTreeSet::new(),
            ageing: (0, 0),
            audience: Audience::default(),
            share: Share::default(),
            changes: 0,
            removals: 0,
            doubtful: false,
            gone: false,
            #[cfg(test)]
            walked: std::cell::Cell::default(),
            #[cfg(test)]
            asked: std::cell::Cell::default(),
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
            time_ns: record.time_ns,
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

    /// What the log still shows of what was removed one by one.
    pub fn dying(&self) -> Vec<u64> {
        self.dying.iter().copied().collect()
    }

    /// Whether a filter takes everything that is there.
    pub fn is_all(&self, filter: &[u8]) -> bool {
        let takes = |own: &String| subject::is_subset(own.as_bytes(), filter);
        self.config.subjects.iter().all(takes) && self.index.count(filter) == self.index.messages()
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
            if met.headers.is_none() {
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

    /// The same by the id of its subject.
    pub fn remove_by_id(&mut self, seq: u64, id: SubjectId) -> Result<bool, store::Error> {
        let Some(removed) = self.take_out(seq)? else {
            return Ok(false);
        };
        self.audience
            .removed(self.index.subject(id), seq, self.started + 1);
        self.index.remove_id(id, seq);
        self.forget(seq, removed);
        Ok(true)
    }

    /// The same for a message that every consumer has done with: none need be told.
    pub fn release(&mut self, seq: u64, subject: &[u8]) -> Result<bool, store::Error> {
        let Some(removed) = self.take_out(seq)? else {
            return Ok(false);
        };
        self.index.remove(subject, seq);
        self.forget(seq, removed);
        Ok(true)
    }

    /// Has the log remove what is at a sequence, with a note of its id; none if nothing is there.
    fn take_out(&mut self, seq: u64) -> Result<Option<Removed>, store::Error> {
        if self.is_dying(seq) {
            return Ok(None);
        }
        self.note_gone(seq);
        let removed = self.log.delete(seq)?;
        Ok((removed.messages > 0).then_some(removed))
    }

    /// Takes out records that cannot be read, by their sequences; says how many. Nothing tells their subjects: the
    /// index is made anew of what can be read.
    pub fn remove_damaged(&mut self, seqs: &[u64]) -> Result<u64, store::Error> {
        let before = self.messages;
        for &seq in seqs {
            if let Some(removed) = self.take_out(seq)? {
                self.forget(seq, removed);
            }
        }
        if self.messages < before {
            self.rebuild_index()?;
            self.audience.trimmed();
        }
        Ok(before - self.messages)
    }

    /// Counters and windows of what was removed under one sequence.
    fn forget(&mut self, seq: u64, removed: Removed) {
        self.uncount(removed);
        self.unwatch(seq);
        if self.messages == 0 {
            self.first_seq = self.last_seq + 1;
        } else if seq == self.first_seq {
            self.first_seq += 1;
            self.first_time = 0;
        }
        self.mark_dying(seq);
    }

    fn uncount(&mut self, removed: Removed) {
        self.messages = self.messages.saturating_sub(removed.messages);
        self.bytes = self.bytes.saturating_sub(removed.bytes);
        self.changes += removed.messages;
        self.removals += removed.messages;
    }

    /// It no longer goes, or stays, by a time of its own.
    fn unwatch(&mut self, seq: u64) {
        self.pinned.remove(&seq);
        self.expiries.remove(seq);
        if seq == self.ageing.0 {
            self.ageing.1 = 0;
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

    /// Calls `f` with what is there from `from` on, durable or not, until it breaks. What is damaged is passed over.
    pub fn walk(&self, from: u64, mut f: impl FnMut(Met<'_>) -> ControlFlow<()>) -> Result<(), store::Error> {
        self.walk_all(from, |step| match step {
            Step::Record(met) => f(met),
            Step::Damaged { .. } => ControlFlow::Continue(()),
        })
    }

    /// The same, with what is damaged.
    pub fn walk_all(
        &self,
        from: u64,
        mut f: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), store::Error> {
        #[cfg(test)]
        let mut f = |step: Step<'_>| {
            self.walked.set(self.walked.get() + 1);
            f(step)
        };
        let mut stopped = false;
        let mut next = Some(from.max(self.first_seq));
        let mut above = 0;
        while let (Some(seq), false) = (next, stopped) {
            next = self.log.scan_all(seq, u64::MAX, |scanned| {
                let step = match scanned {
                    Scanned::Record(record) => Step::Record(Met {
                        seq: record.seq,
                        bytes: record.stored_len(),
                        subject: record.subject,
                        time_ns: record.time_ns,
                        headers: Some(record.headers),
                    }),
                    Scanned::Damaged { seq, bytes } => Step::Damaged { seq, bytes },
                };
                above = step.seq();
                if self.is_dying(above) {
                    return ControlFlow::Continue(());
                }
                let flow = f(step);
                stopped = flow.is_break();
                flow
            })?;
        }
        if stopped {
            return Ok(());
        }
        // The log may have become durable further than the tail was told.
        let from = from.max(above + 1);
        let at = self.tail.partition_point(|record| record.seq < from);
        for record in self.tail.range(at..) {
            if self.is_dying(record.seq) {
                continue;
            }
            let met = Met {
                seq: record.seq,
                bytes: record.bytes,
                subject: self.index.subject(record.id),
                time_ns: record.time_ns,
                headers: None,
            };
            if f(Step::Record(met)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Sequence and time of the first message; `last_seq + 1` when there is none. One that cannot be read is there,
    /// too, and as old as the next.
    pub fn first(&mut self) -> (u64, i64) {
        if self.messages == 0 {
            return (self.last_seq + 1, 0);
        }
        if self.first_time == 0
            && let Ok(Some(found)) = self.first_but(self.first_seq, |_| false)
        {
            (self.first_seq, self.first_time) = found;
        }
        (self.first_seq, self.first_time)
    }

    /// Sequence and time of the first message from `from` on that is not passed over.
    pub fn first_but(
        &self,
        from: u64,
        passes: impl Fn(u64) -> bool,
    ) -> Result<Option<(u64, i64)>, store::Error> {
        let (mut first, mut time) = (None, self.last_time);
        self.walk_all(from, |step| {
            if passes(step.seq()) {
                return ControlFlow::Continue(());
            }
            first = first.or(Some(step.seq()));
            match step {
                Step::Damaged { .. } => ControlFlow::Continue(()),
                Step::Record(met) => {
                    time = met.time_ns;
                    ControlFlow::Break(())
                }
            }
        })?;
        Ok(first.map(|first| (first, time)))
    }

    /// Removes from the front as long as `more` says so, given messages and bytes that are left.
    pub fn trim_front(&mut self, more: impl Fn(u64, u64) -> bool) -> Result<(), store::Error> {
        let (mut messages, mut bytes) = (self.messages, self.bytes);
        let mut front = Front::default();
        let mut first = self.last_seq + 1;
        self.walk_all(self.first_seq, |step| {
            if !more(messages, bytes) {
                first = step.seq();
                return ControlFlow::Break(());
            }
            messages = messages.saturating_sub(1);
            bytes = bytes.saturating_sub(step.bytes());
            front.push(&step, &self.index);
            ControlFlow::Continue(())
        })?;
        if front.is_empty() {
            return Ok(());
        }
        self.cut_front(first, &front, false)?;
        self.audience.trimmed();
        Ok(())
    }

    /// Lets the stream begin at `first`; `front` is all that was met below it. The audience is told of each if `tells`.
    pub fn cut_front(&mut self, first: u64, front: &Front, tells: bool) -> Result<(), store::Error> {
        self.note_front_gone(first);
        let removed = self.log.truncate_front(first)?;
        self.uncount(removed);
        for &(seq, id) in &front.records {
            if tells {
                let subject = self.index.subject(id);
                self.audience.removed(subject, seq, self.started + 1);
            }
            self.index.remove_id(id, seq);
            self.unwatch(seq);
        }
        (self.first_seq, self.first_time) = (first, 0);
        if front.is_damaged {
            self.rebuild_index()?;
        }
        Ok(())
    }

    /// Removes everything below `seq`; the next message comes at or after it.
    pub fn remove_below(&mut self, seq: u64) -> Result<u64, store::Error> {
        let before = self.messages;
        if seq > self.last_seq {
            self.note_front_gone(seq);
            self.log.truncate_front(seq)?;
            self.index.clear();
            self.expiries.clear();
            self.pinned.clear();
            self.ageing = (0, 0);
            (self.messages, self.bytes, self.first_time) = (0, 0, 0);
            self.last_seq = self.last_seq.max(seq - 1);
            self.last_id_seq = self.last_seq;
            self.first_seq = self.last_seq + 1;
            self.changes += before;
            self.removals += before;
            self.audience.trimmed();
            return Ok(before);
        }
        let gone = std::cell::Cell::new(0);
        // A walk that stops at the sequence: what lies before it is counted down.
        let mut below = 0;
        self.walk_all(self.first_seq, |step| {
            if step.seq() >= seq {
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

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
