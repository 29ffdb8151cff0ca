//! What goes by age: the age limit of the stream, times to live of messages, ids of the duplicate window; and the
//! markers that tell of subjects that are gone.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::jetstream::consumer::duration;
use crate::protocol::headers;
use crate::store;

use super::config::SEQ_MAX;
use super::state::{Front, State, Step};

/// Messages removed under one hold of the lock, by age and by time to live.
const EXPIRED_MAX: usize = 10_000;

/// A message that goes: sequence, subject, whether it is a marker.
type Going = (u64, Box<[u8]>, bool);

impl State {
    /// Removes what is over its time, up to a bound; true if there is more of it.
    pub fn expire(&mut self, now: i64) -> Result<bool, store::Error> {
        self.forget_ids(now);
        if self.config.sealed {
            return Ok(false);
        }
        let by_age = self.expire_by_age(now)?;
        let by_ttl = self.expire_by_ttl(now)?;
        Ok(by_age >= EXPIRED_MAX || by_ttl >= EXPIRED_MAX)
    }

    /// Lets ids go that have left the duplicate window.
    pub fn forget_ids(&mut self, now: i64) {
        self.dedupe
            .expire(now.saturating_sub(self.config.duplicate_window));
    }

    /// Sequence and time of the first message that goes by age. Where the search was, it goes on: what is pinned is
    /// passed once.
    fn ageing(&mut self) -> Result<Option<(u64, i64)>, store::Error> {
        let (seq, time) = self.ageing;
        if time != 0 && seq >= self.first_seq {
            return Ok(Some((seq, time)));
        }
        let mut from = seq.max(self.first_seq);
        for &pinned in self.pinned.range(from..) {
            if pinned != from {
                break;
            }
            from += 1;
        }
        let found = self.first_but(from, |seq| self.pinned.contains(&seq))?;
        self.ageing = found.unwrap_or((self.last_seq + 1, 0));
        Ok(found)
    }

    /// Removes what is older than the age limit; says how many were met.
    fn expire_by_age(&mut self, now: i64) -> Result<usize, store::Error> {
        if self.config.max_age <= 0 {
            return Ok(0);
        }
        let limit = now - self.config.max_age;
        let mut met = 0;
        while met < EXPIRED_MAX && self.messages > 0 {
            let Some((start, _)) = self.ageing()?.filter(|first| first.1 <= limit) else {
                break;
            };
            let more = match self.pinned.first() {
                Some(&pinned) if pinned < start => self.expire_between(start, limit)?,
                _ => self.expire_front(limit)?,
            };
            met += more;
            if more == 0 {
                break;
            }
        }
        Ok(met)
    }

    /// The front goes, up to what is pinned or young enough: that is one cut.
    fn expire_front(&mut self, limit: i64) -> Result<usize, store::Error> {
        let marks = self.config.subject_delete_marker_ttl > 0;
        let (mut front, mut markers) = (Front::default(), Vec::new());
        let (mut end, mut stopped) = (0, false);
        self.walk_all(self.first_seq, |step| {
            stopped = self.pinned.contains(&step.seq()) || front.records.len() >= EXPIRED_MAX;
            if let Step::Record(met) = &step {
                // What is not durable yet has just come.
                stopped |= met.time_ns > limit || met.headers.is_none();
                if !stopped {
                    end = met.seq + 1;
                    markers.extend(met.headers.filter(|_| marks).map(is_marker));
                }
            }
            if stopped {
                return ControlFlow::Break(());
            }
            front.push(&step, &self.index);
            ControlFlow::Continue(())
        })?;
        if !stopped && self.last_time <= limit {
            // What cannot be read at the end is no younger than the stream.
            end = self.last_seq + 1;
        }
        if end == 0 || front.is_empty() {
            return Ok(0);
        }
        let mut ended: Vec<Box<[u8]>> = Vec::new();
        let mut left = HashMap::new();
        for (&(_, id), is_marker) in front.records.iter().zip(markers) {
            let left = left.entry(id).or_insert_with(|| self.index.state(id).count);
            *left -= 1;
            if *left == 0 && !is_marker {
                ended.push(self.index.subject(id).into());
            }
        }
        let met = front.records.len();
        self.cut_front(end, &front, true)?;
        let now = limit + self.config.max_age;
        ended.iter().try_for_each(|subject| self.mark(subject, now))?;
        Ok(met)
    }

    /// What goes lies between what is pinned: one by one.
    fn expire_between(&mut self, start: u64, limit: i64) -> Result<usize, store::Error> {
        let (mut gone, mut damaged): (Vec<Going>, _) = (Vec::new(), Vec::new());
        self.walk_all(start, |step| {
            let seq = step.seq();
            if gone.len() >= EXPIRED_MAX {
                return ControlFlow::Break(());
            }
            match step {
                _ if self.pinned.contains(&seq) => {}
                Step::Damaged { .. } => damaged.push(seq),
                Step::Record(met) => match met.headers.filter(|_| met.time_ns <= limit) {
                    Some(headers) => gone.push((seq, met.subject.into(), is_marker(headers))),
                    None => return ControlFlow::Break(()),
                },
            }
            ControlFlow::Continue(())
        })?;
        if self.last_time > limit {
            let end = gone.last().map_or(0, |last| last.0);
            damaged.retain(|&seq| seq < end);
        }
        let met = gone.len();
        self.let_go(gone, &damaged, limit + self.config.max_age)?;
        Ok(met)
    }

    /// Removes what has outlived its own time; says how many were met.
    fn expire_by_ttl(&mut self, now: i64) -> Result<usize, store::Error> {
        let durable = self.log.durable_seq();
        let (mut gone, mut damaged): (Vec<Going>, _) = (Vec::new(), Vec::new());
        let (mut lost, mut failed) = (Vec::new(), None);
        let due = self.expiries.due(now).filter(|&seq| seq <= durable);
        for seq in due.take(EXPIRED_MAX) {
            match self.log.get(seq) {
                Ok(Some(record)) => gone.push((seq, record.subject[..].into(), is_marker(&record.headers))),
                Ok(None) => lost.push(seq),
                Err(store::Error::DamagedRecord { .. }) => damaged.push(seq),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let met = gone.len() + damaged.len() + lost.len();
        lost.into_iter().for_each(|seq| self.expiries.remove(seq));
        self.let_go(gone, &damaged, now)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(met),
        }
    }

    fn let_go(&mut self, mut gone: Vec<Going>, damaged: &[u64], now: i64) -> Result<(), store::Error> {
        gone.sort_unstable_by_key(|(seq, _, _)| *seq);
        for (seq, subject, is_marker) in gone {
            let was_there = self.remove(seq, &subject)?;
            // Its time is over, even if something else has taken it out.
            self.expiries.remove(seq);
            if was_there && !is_marker && self.config.subject_delete_marker_ttl > 0 {
                self.mark(&subject, now)?;
            }
        }
        for &seq in damaged {
            self.expiries.remove(seq);
        }
        self.remove_damaged(damaged)?;
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
            // If it cannot be told now, it is asked for again at once.
            let first = self.ageing().unwrap_or(Some((0, 0)));
            next = first.map_or(next, |(_, time)| time.saturating_add(self.config.max_age));
        }
        if let Some((time, _)) = self.expiries.first() {
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
