//! What goes by age: the age limit of the stream, times to live of messages, ids of the duplicate window; and the
//! markers that tell of subjects that are gone.

use std::ops::ControlFlow;

use crate::jetstream::consumer::duration;
use crate::protocol::headers;
use crate::store;

use super::config::SEQ_MAX;
use super::state::State;

/// Messages removed under one hold of the lock.
const EXPIRED_MAX: usize = 10_000;

/// A message past its age: sequence, subject, whether it is a marker.
type Aged = (u64, Box<[u8]>, bool);

impl State {
    /// Removes what is over its time, up to a bound; true if something was removed or written.
    pub fn expire(&mut self, now: i64) -> Result<bool, store::Error> {
        self.dedupe
            .expire(now.saturating_sub(self.config.duplicate_window));
        if self.config.sealed {
            return Ok(false);
        }
        let mut gone = self.over_age(now)?;
        self.over_ttl(now, &mut gone)?;
        if gone.is_empty() {
            return Ok(false);
        }
        gone.sort_unstable_by_key(|(seq, _, _)| *seq);
        gone.dedup_by_key(|(seq, _, _)| *seq);
        for (seq, subject, is_marker) in gone {
            let was_there = self.remove(seq, &subject)?;
            if was_there && !is_marker && self.config.subject_delete_marker_ttl > 0 {
                self.mark(&subject, now)?;
            }
        }
        Ok(true)
    }

    /// Messages older than the age limit: sequence, subject, whether it is a marker.
    fn over_age(&self, now: i64) -> Result<Vec<Aged>, store::Error> {
        let mut gone = Vec::new();
        if self.config.max_age <= 0 || self.messages == 0 {
            return Ok(gone);
        }
        let limit = now - self.config.max_age;
        self.walk(self.first_seq, |met| {
            // What is not durable yet has just come.
            let Some((_, block)) = met.stored.filter(|stored| stored.0 <= limit) else {
                return ControlFlow::Break(());
            };
            if !self.pinned.contains(&met.seq) {
                gone.push((met.seq, met.subject.into(), is_marker(block)));
            }
            if gone.len() < EXPIRED_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(gone)
    }

    fn over_ttl(&mut self, now: i64, gone: &mut Vec<(u64, Box<[u8]>, bool)>) -> Result<(), store::Error> {
        let durable = self.log.durable_seq();
        let due: Vec<_> = self
            .expiries
            .range(..=(now, u64::MAX))
            .take(EXPIRED_MAX)
            .copied()
            .collect();
        for (time, seq) in due {
            if seq > durable {
                continue;
            }
            self.expiries.remove(&(time, seq));
            if let Some(record) = self.log.get(seq)? {
                gone.push((seq, record.subject[..].into(), is_marker(&record.headers)));
            }
        }
        Ok(())
    }

    /// The least time to live: where a subject may have several messages a delete marker is not outlived by what it
    /// marks. (Where it has one, that is replaced by its marker.)
    pub fn least_ttl(&self) -> i64 {
        if self.config.max_msgs_per_subject == 1 {
            0
        } else {
            self.config.subject_delete_marker_ttl
        }
    }

    /// Leaves a marker on a subject whose last message has gone by age.
    fn mark(&mut self, subject: &[u8], now: i64) -> Result<(), store::Error> {
        if self.index.get(subject).is_some() || self.last_seq >= SEQ_MAX {
            return Ok(());
        }
        let ttl = self.config.subject_delete_marker_ttl;
        let shown = duration::text(ttl);
        let block = headers::build(
            "",
            [
                ("Nats-Marker-Reason", "MaxAge"),
                ("Nats-TTL", &shown),
                ("Nats-Rollup", "sub"),
            ],
        );
        let seq = self.append(subject, &block, b"", now)?;
        self.expiries.insert((now.saturating_add(ttl), seq));
        Ok(())
    }

    /// When [`State::expire`] has something to do next.
    pub fn next_expiry(&mut self) -> i64 {
        let mut next = i64::MAX;
        if self.config.max_age > 0 && self.messages > 0 && !self.config.sealed {
            let pinned = self.pinned.len() as u64;
            if pinned < self.messages {
                next = self.first().1.saturating_add(self.config.max_age);
            }
        }
        if let Some(&(time, _)) = self.expiries.first() {
            next = next.min(time);
        }
        if let Some(oldest) = self.dedupe.oldest() {
            next = next.min(oldest.saturating_add(self.config.duplicate_window));
        }
        next
    }
}

/// Whether the message says itself that its subject is gone.
fn is_marker(block: &[u8]) -> bool {
    !block.is_empty()
        && (headers::get(block, b"Nats-Marker-Reason").is_some()
            || headers::get(block, b"KV-Operation") == Some(b"PURGE"))
}
