//! A stream from its log: the last checkpoint, and what came after it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::store::{self, Log, RecordRef};

use super::ask::{Asked, Ttl, parse_ttl};
use super::checkpoint::{decode_index, take, take_bytes};
use super::config::StreamConfig;
use super::dedupe::Dedupe;
use super::index::SubjectIndex;
use super::state::State;

/// The first number of a checkpoint: how the rest is laid out.
pub(super) const VERSION: u64 = 2;

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
