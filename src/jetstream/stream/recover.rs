//! A stream from its log: the last checkpoint, and what came after it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::store::{self, Log, RecordRef, Scanned};

use super::ask::{Asked, Ttl, parse_ttl};
use super::checkpoint::{AsOf, decode_index, encode_index, put, put_bytes, take, take_bytes};
use super::config::StreamConfig;
use super::dedupe::Dedupe;
use super::index::SubjectIndex;
use super::state::State;

/// The first number of a checkpoint: how the rest is laid out.
const VERSION: u64 = 2;
/// Above this many sequences that are removed and still shown a checkpoint waits.
const DYING_MAX: u64 = 100_000;

/// Times to live of what is removed and still shown.
#[derive(Default)]
struct Back {
    expiries: Vec<(i64, u64)>,
    pinned: Vec<u64>,
}

impl State {
    /// The state of a stream as its log has it.
    pub fn recover(config: Arc<StreamConfig>, log: Log, now: i64) -> Result<Self, store::Error> {
        let mut state = Self::new(config, log);
        let from = state.load_checkpoint()?.unwrap_or(0);
        let log = state.log.clone();
        let mut next = Some(from + 1);
        while let Some(seq) = next {
            next = log.scan(seq, u64::MAX, |record| {
                state.replay(record, now);
                ControlFlow::Continue(())
            })?;
        }
        state.replay_notes(now)?;
        let durable = log.state();
        state.messages = durable.messages;
        state.bytes = durable.bytes;
        state.first_seq = durable.first_seq;
        state.last_seq = durable.last_seq;
        state.first_time = durable.first_time;
        state.last_time = durable.last_time;
        state.changes += durable.last_seq.saturating_sub(from);
        if state.index.messages() != durable.messages && log.damaged().is_empty() {
            tracing::warn!(
                stream = state.config.name,
                "the checkpoint counts {} messages, the log {}: reading the whole log",
                state.index.messages(),
                durable.messages
            );
            return Self::reread(state, now);
        }
        Ok(state)
    }

    /// Without a checkpoint; only what the log holds counts.
    fn reread(old: Self, now: i64) -> Result<Self, store::Error> {
        let mut state = Self::new(old.config.clone(), old.log.clone());
        // Of messages that are gone no message says the id.
        (state.dedupe, state.last_msg_id) = (old.dedupe, old.last_msg_id);
        state.last_id_seq = old.last_id_seq;
        let mut next = Some(0);
        while let Some(seq) = next {
            next = old.log.scan(seq, u64::MAX, |record| {
                state.replay(record, now);
                ControlFlow::Continue(())
            })?;
        }
        state.dedupe.sort();
        (state.messages, state.bytes) = (old.messages, old.bytes);
        (state.first_seq, state.last_seq) = (old.first_seq, old.last_seq);
        (state.first_time, state.last_time) = (old.first_time, old.last_time);
        state.changes = old.last_seq;
        Ok(state)
    }

    fn replay(&mut self, record: &RecordRef<'_>, now: i64) {
        self.index.insert(record.subject, record.seq);
        if record.headers.is_empty() {
            self.last_id_is(record.seq, b"");
            return;
        }
        let asked = Asked::read(record.headers);
        self.last_id_is(record.seq, asked.msg_id.unwrap_or_default());
        if let Some(id) = asked.msg_id {
            let in_window = record.time_ns >= now.saturating_sub(self.config.duplicate_window);
            if in_window && self.dedupe.find(id).is_none() {
                self.dedupe.insert(id, record.seq, record.time_ns);
            }
        }
        match self.time_to_live(record) {
            Some(Ttl::After(ns)) => {
                self.expiries
                    .insert((record.time_ns.saturating_add(ns), record.seq));
            }
            Some(Ttl::Never) => {
                self.pinned.insert(record.seq);
            }
            None => {}
        }
    }

    /// The time to live a stored message asks for.
    pub(super) fn time_to_live(&self, record: &RecordRef<'_>) -> Option<Ttl> {
        if !self.config.allow_msg_ttl || record.headers.is_empty() {
            return None;
        }
        Some(match parse_ttl(Asked::read(record.headers).ttl?)? {
            Ttl::After(ns) => Ttl::After(ns.max(self.least_ttl())),
            Ttl::Never => Ttl::Never,
        })
    }

    /// What [`State::load_checkpoint`] reads, as of what the log shows: up to `upto`, with what is removed from `dying`
    /// and still shown. None while too much of that is on its way. The log must show the same throughout.
    pub fn checkpoint(&self, upto: u64, dying: &[(u64, u64)]) -> Result<Option<Vec<u8>>, store::Error> {
        let mut as_of = AsOf {
            upto,
            ..AsOf::default()
        };
        let newer = self.tail.partition_point(|record| record.seq <= upto);
        if (self.tail.len() - newer) as u64 != self.last_seq.saturating_sub(upto) {
            // A sequence went by without a record: a note of it may be there already, which this would not hold.
            return Ok(None);
        }
        for record in self.tail.range(newer..) {
            if !self.is_dying(record.seq) {
                *as_of.newer.entry(record.id).or_default() += 1;
            }
        }
        let Some(back) = self.dying_of(upto, dying, &mut as_of)? else {
            return Ok(None);
        };
        let mut out = Vec::new();
        put(&mut out, VERSION);
        put_bytes(&mut out, &self.last_id_at(upto)?);
        self.dedupe.encode(&mut out, upto);
        let own = self.expiries.iter().filter(|&(_, seq)| seq <= upto);
        let expiries: Vec<_> = own.chain(back.expiries).collect();
        put(&mut out, expiries.len() as u64);
        for (time, seq) in expiries {
            put(&mut out, time as u64);
            put(&mut out, seq);
        }
        let pinned: Vec<_> = self.pinned.range(..=upto).copied().chain(back.pinned).collect();
        put(&mut out, pinned.len() as u64);
        for seq in pinned {
            put(&mut out, seq);
        }
        out.extend_from_slice(&encode_index(&self.index, &as_of));
        Ok(Some(out))
    }

    /// Reads what is removed and still shown.
    fn dying_of(
        &self,
        upto: u64,
        dying: &[(u64, u64)],
        as_of: &mut AsOf,
    ) -> Result<Option<Back>, store::Error> {
        let mut back = Back::default();
        let first = self.log.state().first_seq;
        let ranges = dying.iter().map(|&(a, b)| (a.max(first), b.min(upto)));
        let ranges: Vec<_> = ranges.filter(|(a, b)| a <= b).collect();
        if ranges.iter().map(|(a, b)| b - a + 1).sum::<u64>() > DYING_MAX {
            return Ok(None);
        }
        let mut is_readable = true;
        for (a, b) in ranges {
            self.log.scan_all(a, u64::MAX, |scanned| {
                match scanned {
                    Scanned::Record(record) if record.seq <= b => {
                        as_of.put_back(&self.index, record.subject, record.seq);
                        match self.time_to_live(record) {
                            Some(Ttl::After(ns)) => back
                                .expiries
                                .push((record.time_ns.saturating_add(ns), record.seq)),
                            Some(Ttl::Never) => back.pinned.push(record.seq),
                            None => {}
                        }
                    }
                    Scanned::Damaged { seq, .. } if seq <= b => is_readable = false,
                    _ => return ControlFlow::Break(()),
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(is_readable.then_some(back))
    }

    /// The id of the message that was the last when `upto` was.
    fn last_id_at(&self, upto: u64) -> Result<Vec<u8>, store::Error> {
        if upto == self.last_seq {
            return Ok(self.last_msg_id.clone());
        }
        if let Some((_, _, id)) = self.dedupe.range(upto, upto).next() {
            return Ok(id.to_vec());
        }
        let record = match self.log.get(upto) {
            Err(store::Error::DamagedRecord { .. }) => None,
            record => record?,
        };
        let id = record.and_then(|record| Some(Asked::read(&record.headers).msg_id?.to_vec()));
        Ok(id.unwrap_or_default())
    }

    /// Takes a checkpoint over, and says up to which sequence it goes; none if there is none that fits.
    fn load_checkpoint(&mut self) -> Result<Option<u64>, store::Error> {
        let Some(found) = self.log.checkpoint()? else {
            return Ok(None);
        };
        let decoded = self.decode_checkpoint(&found.bytes, found.upto_seq);
        let Some(removed) = found.removed.filter(|_| decoded.is_some()) else {
            // What is derived from records is read from them again; the ids of those that are gone are good.
            self.index = SubjectIndex::new(self.index.keeps_sequences());
            self.expiries.clear();
            self.pinned.clear();
            return Ok(None);
        };
        (self.changes, self.removals) = (removed.len() as u64, removed.len() as u64);
        for (seq, subject) in &removed {
            self.index.remove(subject, *seq);
            self.pinned.remove(seq);
            self.expiries.remove(*seq);
        }
        Ok(Some(found.upto_seq))
    }

    /// Takes over what a checkpoint says; if it says nothing of use of the records, then at least the ids.
    pub(super) fn decode_checkpoint(&mut self, mut bytes: &[u8], upto_seq: u64) -> Option<()> {
        let input = &mut bytes;
        let version = take(input)?;
        if !(1..=VERSION).contains(&version) {
            return None;
        }
        let (last_id, dedupe) = (take_bytes(input)?, Dedupe::decode(input)?);
        self.last_id_is(upto_seq, last_id);
        self.dedupe = dedupe;
        if version != VERSION {
            return None;
        }
        for _ in 0..take(input)? {
            let time = take(input)? as i64;
            self.expiries.insert((time, take(input)?));
        }
        for _ in 0..take(input)? {
            self.pinned.insert(take(input)?);
        }
        self.index = decode_index(input, self.index.keeps_sequences())?;
        input.is_empty().then_some(())
    }
}
