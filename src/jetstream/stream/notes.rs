//! What has to outlive a crash although no message holds it: ids of the duplicate window whose messages are gone, or never
//! were stored, and the id of the last message. While a message is there its id is read from it.
//!
//! Each goes into the log as a note, before the removal that makes it needed: both are in one commit, or the note is there
//! early and says what the message says. A message without an id leaves none. Checkpoints hold all of them.

use crate::store;

use super::checkpoint::{put, put_bytes, take, take_bytes};
use super::state::State;

/// Appends an id of the window.
fn put_id(out: &mut Vec<u8>, seq: u64, time_ns: i64, id: &[u8]) {
    put(out, seq);
    put(out, time_ns as u64);
    put_bytes(out, id);
}

fn mark(seq: u64, id: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + id.len());
    put(&mut out, seq);
    out.extend_from_slice(id);
    out
}

fn take_id<'a>(input: &mut &'a [u8]) -> Option<(u64, i64, &'a [u8])> {
    let seq = take(input)?;
    Some((seq, take(input)? as i64, take_bytes(input)?))
}

impl State {
    /// Notes what a message that is about to be removed leaves behind.
    pub fn note_gone(&self, seq: u64) {
        self.note_ids(self.dedupe.range(seq, seq));
        if seq == self.last_seq {
            self.note_last(seq);
        }
    }

    /// The same for all messages below `first`; the next one comes at or after it.
    pub fn note_front_gone(&self, first: u64) {
        self.note_ids(self.dedupe.range(self.first_seq, first - 1));
        if first > self.last_seq {
            self.note_last(first - 1);
        }
    }

    fn note_ids<'a>(&self, ids: impl Iterator<Item = (u64, i64, &'a [u8])>) {
        let (mut note, mut until) = (Vec::new(), i64::MIN);
        for (seq, time, id) in ids {
            put_id(&mut note, seq, time, id);
            until = until.max(self.leaves(time));
        }
        if !note.is_empty() {
            self.log.note(self.last_time, until, &note);
        }
    }

    /// Notes the id, if there is one, of a message that takes the last sequence and is not stored.
    pub fn note_passed(&self, seq: u64, now: i64, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.note_ids(std::iter::once((seq, now, id)));
            self.log.put_mark(mark(seq, id));
        }
    }

    /// Notes the id of the last message, which will not be there to say it: the stream ends at `seq`.
    fn note_last(&self, seq: u64) {
        if !self.last_msg_id.is_empty() {
            self.log.put_mark(mark(seq, &self.last_msg_id));
        }
    }

    /// When an id leaves the window.
    fn leaves(&self, time: i64) -> i64 {
        time.saturating_add(self.config.duplicate_window)
    }

    /// Takes in what was noted; after the messages.
    pub fn replay_notes(&mut self, now: i64) -> Result<(), store::Error> {
        let notes = self.log.notes()?;
        let last_seq = self.log.state().last_seq;
        for page in &notes.pages {
            let mut input = &page[..];
            while let Some((seq, time, id)) = take_id(&mut input) {
                // A sequence that did not come to be was promised to nobody.
                let counts = seq <= last_seq && self.leaves(time) >= now;
                if counts && self.dedupe.find(id).is_none() {
                    self.dedupe.insert(id, seq, time);
                }
            }
        }
        self.dedupe.sort();
        let mut mark = &notes.mark[..];
        if let Some(seq) = take(&mut mark) {
            self.last_id_is(seq, mark);
        }
        if self.last_id_seq != last_seq {
            // The last message had none, or it cannot be told.
            self.last_msg_id.clear();
            self.last_id_seq = last_seq;
        }
        Ok(())
    }

    /// The message at `seq` has this id, or none if it is empty; the last one counts.
    pub fn last_id_is(&mut self, seq: u64, id: &[u8]) {
        if seq >= self.last_id_seq {
            self.last_id_seq = seq;
            self.last_msg_id.clear();
            self.last_msg_id.extend_from_slice(id);
        }
    }
}
