//! Reading and changing a stream from outside: by sequence, by subject, by time; purge, delete, update.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::time::now_ns;
use crate::protocol::subject;
use crate::store::{self, Record};

use super::acks::store_error;
use super::config::{Compression, SEQ_MAX, StreamConfig};
use super::info::{StreamInfo, StreamState};
use super::{Stream, takes};

/// Bytes looked through under one call into the log while searching.
const SEARCH_BYTES: u64 = 4 << 20;
/// Bytes looked through before the index is asked for what is further away.
const NEAR_BYTES: u64 = 256 << 10;

/// Which message is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The one with this sequence.
    Seq(u64),
    /// The last on a subject; wildcards are taken.
    Last(Vec<u8>),
    /// The first at or above a sequence on a subject; wildcards are taken.
    Next(u64, Vec<u8>),
}

/// A message that was found.
pub type Found = Record;

impl Stream {
    /// A message; what was published before is seen, as soon as it is durable.
    pub async fn find(&self, want: &Want) -> Result<Option<Found>, ApiError> {
        let seq = match want {
            Want::Seq(seq) => Some(*seq),
            Want::Last(filter) => self.last_seq(filter)?,
            Want::Next(from, filter) => {
                self.settled().await;
                return self.next(*from, &[filter.as_slice().into()]);
            }
        };
        let Some(seq) = seq else { return Ok(None) };
        if seq > self.log.durable_seq() || self.is_unsettled() {
            self.settled().await;
            if let Want::Last(filter) = want {
                return match self.last_seq(filter)? {
                    Some(seq) => self.get(seq),
                    None => Ok(None),
                };
            }
        }
        self.get(seq)
    }

    /// Whether removals are on their way that reads do not show yet.
    fn is_unsettled(&self) -> bool {
        let state = self.lock();
        state.landed < state.started && state.has_dying()
    }

    /// The durable message with a sequence.
    pub fn get(&self, seq: u64) -> Result<Option<Found>, ApiError> {
        self.log.get(seq).map_err(|error| store_error(&error))
    }

    fn last_seq(&self, filter: &[u8]) -> Result<Option<u64>, ApiError> {
        self.sound()?.last_of(filter).map_err(|error| store_error(&error))
    }

    /// The first durable message at or above `from` that the filters take (none: all).
    pub fn next(&self, from: u64, filters: &[Box<[u8]>]) -> Result<Option<Found>, ApiError> {
        let failed = |error: store::Error| store_error(&error);
        let mut seq = from;
        // The index looks at every subject that a wildcard takes: it is asked once there is a gap.
        let mut is_near = filters.iter().any(|filter| subject::has_wildcard(filter));
        loop {
            let (bound, bytes) = match std::mem::take(&mut is_near) {
                true => (seq, NEAR_BYTES),
                false => match self.sound()?.next_bound(filters, seq) {
                    Some(bound) => (bound, SEARCH_BYTES),
                    None => return Ok(None),
                },
            };
            let mut found = None;
            let next = self
                .log
                .scan(bound, bytes, |record| {
                    if takes(filters, record.subject) {
                        found = Some(record.seq);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })
                .map_err(failed)?;
            if let Some(seq) = found {
                return self.log.get(seq).map_err(failed);
            }
            // The index may know of a gap: ask again from where the search has come to.
            match next {
                Some(next) => seq = next,
                None => return Ok(None),
            }
        }
    }

    /// Up to `messages_max` durable messages from `from` on that the filters take, and where to go on.
    pub fn read(
        &self,
        from: u64,
        filters: &[Box<[u8]>],
        messages_max: usize,
        bytes_max: u64,
    ) -> Result<(Vec<Found>, u64), ApiError> {
        if filters.is_empty() {
            let found = self
                .log
                .read(from, messages_max, bytes_max)
                .map_err(|error| store_error(&error))?;
            let next = found.last().map_or(from, |last| last.seq + 1);
            return Ok((found, next));
        }
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, from);
        while found.len() < messages_max && bytes < bytes_max {
            let Some(record) = self.next(next, filters)? else {
                break;
            };
            next = record.seq + 1;
            bytes += record.stored_len();
            found.push(record);
        }
        Ok((found, next))
    }

    /// The first sequence stored at or after a time; one above the last if there is none.
    pub fn seq_at(&self, time_ns: i64) -> Result<u64, ApiError> {
        let state = self.log.state();
        let (mut low, mut high) = (state.first_seq, state.last_seq + 1);
        // Times never run backwards within a stream.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.log.next(middle).map_err(|error| store_error(&error))? {
                Some(record) if record.seq < high && record.time_ns < time_ns => low = record.seq + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Messages at or above `from` that the filters take, those on their way to the disk counted in.
    pub fn count_from(&self, filters: &[Box<[u8]>], from: u64) -> Result<u64, ApiError> {
        self.sound()?
            .count_from(filters, from)
            .map_err(|error| store_error(&error))
    }

    /// The last sequence of each subject the filters take, going up.
    pub fn last_of_each(&self, filters: &[Box<[u8]>]) -> Result<Vec<u64>, ApiError> {
        let mut last = self
            .sound()?
            .last_of_each(filters)
            .map_err(|error| store_error(&error))?;
        last.sort_unstable();
        last.dedup();
        Ok(last)
    }

    /// The same, as it was when `up_to` was the last sequence (but for what was removed since).
    pub fn last_of_each_upto(&self, filters: &[Box<[u8]>], up_to: u64) -> Result<Vec<u64>, ApiError> {
        let mut last: HashMap<Box<[u8]>, u64> = HashMap::new();
        let mut next = Some(0);
        while let Some(seq) = next.filter(|&seq| seq <= up_to) {
            let scanned = self.log.scan(seq, SEARCH_BYTES, |record| {
                if record.seq > up_to {
                    return ControlFlow::Break(());
                }
                if takes(filters, record.subject) {
                    last.insert(record.subject.into(), record.seq);
                }
                ControlFlow::Continue(())
            });
            next = scanned.map_err(|error| store_error(&error))?;
        }
        let mut last: Vec<_> = last.into_values().collect();
        last.sort_unstable();
        Ok(last)
    }

    /// Subjects a filter matches with their counts, in order.
    pub fn subjects(&self, filter: &[u8]) -> Vec<(String, u64)> {
        // Under the lock texts are copied, no more.
        let (mut texts, mut found) = (Vec::new(), Vec::new());
        self.lock().index.matching(filter, |subject, state| {
            texts.extend_from_slice(subject);
            found.push((texts.len(), state.count));
            true
        });
        let mut start = 0;
        let mut subjects: Vec<_> = found
            .into_iter()
            .map(|(end, count)| {
                let text = &texts[std::mem::replace(&mut start, end)..end];
                (String::from_utf8_lossy(text).into_owned(), count)
            })
            .collect();
        subjects.sort_unstable();
        subjects
    }

    /// Answers a question that takes long, off the runtime.
    pub async fn aside<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let me = self.me.upgrade().expect("a stream is alive while it is called");
        let answer = tokio::task::spawn_blocking(move || question(&me)).await;
        answer.map_err(|error| error::STORE_FAILED.with(error))
    }

    /// Counters.
    pub fn state(&self) -> StreamState {
        self.lock().counters()
    }

    /// Sequences between the first and the last message that hold none, in order. Without the lock, mostly.
    pub fn deleted(&self) -> Result<Vec<u64>, ApiError> {
        let (first, last, dying) = {
            let mut state = self.sound()?;
            let (first, _) = state.first();
            (first, state.last_seq, state.dying())
        };
        let gaps = self.log.deleted(usize::MAX);
        let gaps = gaps.map_err(|error| store_error(&error))?;
        let within = gaps.into_iter().map(|(a, b)| (a.max(first), b.min(last)));
        let mut deleted: Vec<u64> = within.flat_map(|(a, b)| a..=b).collect();
        let is_within = |seq: &u64| (first..=last).contains(seq);
        deleted.extend(dying.into_iter().filter(is_within));
        deleted.sort_unstable();
        deleted.dedup();
        Ok(deleted)
    }

    /// What answers say of it, without subjects and deleted sequences.
    pub fn info(&self) -> StreamInfo {
        let (config, state) = {
            let mut state = self.lock();
            (state.config.clone(), state.counters())
        };
        StreamInfo {
            config: StreamConfig::clone(&config),
            created: self.created,
            state,
            subjects: Vec::new(),
            deleted: Vec::new(),
            leader: None,
            domain: None,
            time: now_ns(),
        }
    }

    /// Removes one message, durably.
    pub async fn delete(&self, seq: u64) -> Result<(), ApiError> {
        let config = self.config();
        if config.sealed {
            return Err(error::STREAM_SEALED);
        }
        if config.deny_delete {
            return Err(error::MSG_DELETE_FAILED.with("message delete not permitted"));
        }
        if seq == 0 {
            return Err(error::MSG_DELETE_FAILED.with("no message found"));
        }
        self.settled().await;
        let number = {
            let mut state = self.sound()?;
            if seq > state.last_seq {
                return Err(error::MSG_DELETE_FAILED.with("stream store EOF"));
            }
            let removed = match self.log.get(seq) {
                Ok(Some(record)) => state.remove(seq, &record.subject),
                Ok(None) => Ok(false),
                Err(store::Error::DamagedRecord { .. }) => state.remove_damaged(&[seq]).map(|gone| gone > 0),
                Err(error) => Err(error),
            };
            if !removed.map_err(|error| store_error(&error))? {
                return Err(error::SEQUENCE_NOT_FOUND.with(seq));
            }
            state.start_commit()
        };
        self.commit_and_wait(number).await
    }

    /// Removes messages, durably: those on `filter` (empty: all), below `seq` (zero: all), but for the `keep` last.
    pub async fn purge(&self, filter: &[u8], seq: u64, keep: u64) -> Result<u64, ApiError> {
        let config = self.config();
        if config.sealed {
            return Err(error::STREAM_SEALED);
        }
        if config.deny_purge {
            return Err(error::PURGE_FAILED.with("stream purge not permitted"));
        }
        let all = filter.is_empty() || filter == b">";
        if all && seq > SEQ_MAX {
            return Err(
                error::PURGE_FAILED.with(format_args!("sequence is too high, maximum allowed is {SEQ_MAX}"))
            );
        }
        self.settled().await;
        let (purged, number) = {
            let mut state = self.sound()?;
            // A filter that stands for everything moves no sequence beyond the last.
            let (all, seq) = if !all && state.is_all(filter) {
                (true, seq.min(state.last_seq + 1))
            } else {
                (all, seq)
            };
            let purged = match (all, seq, keep) {
                (true, 0, 0) => {
                    let next = state.last_seq + 1;
                    state.remove_below(next)
                }
                (true, seq, 0) => state.remove_below(seq),
                (true, _, keep) => {
                    let before = state.messages;
                    state
                        .trim_front(|messages, _| messages > keep)
                        .map(|()| before.saturating_sub(keep))
                }
                (false, 0, keep) => state.purge_subject(filter, u64::MAX, keep),
                (false, seq, keep) => state.purge_subject(filter, seq, keep),
            };
            let purged = purged.map_err(|error| store_error(&error))?;
            (purged, state.start_commit())
        };
        self.commit_and_wait(number).await?;
        Ok(purged)
    }

    /// Puts another configuration in force, durably. It was checked against the present one.
    pub(in crate::jetstream) async fn reconfigure(
        &self,
        config: StreamConfig,
        meta: Vec<u8>,
    ) -> Result<(), ApiError> {
        self.settled().await;
        let number = {
            let mut state = self.sound()?;
            let keeps = state.index.keeps_sequences();
            let old = std::mem::replace(&mut state.config, Arc::new(config));
            if keeps != (state.config.max_msgs_per_subject > 0) {
                state.rebuild_index().map_err(|error| store_error(&error))?;
            }
            self.log.put_meta(meta);
            self.log.compress(state.config.compression == Compression::S2);
            let limit = state.config.max_msgs_per_subject;
            let tightened = |new: i64, old: i64| new > 0 && (old <= 0 || new < old);
            let mut trimmed = Ok(());
            if tightened(limit, old.max_msgs_per_subject) {
                let mut over = Vec::new();
                state.index.matching(b">", |subject, known| {
                    if known.count > limit as u64 {
                        over.push(subject.to_vec());
                    }
                    true
                });
                trimmed = over
                    .iter()
                    .try_for_each(|subject| state.trim_subject(subject, limit as u64));
            }
            if let Err(error) = trimmed.and_then(|()| state.enforce_limits()) {
                tracing::warn!(
                    stream = self.name,
                    "removing what is over the new limits: {error}"
                );
            }
            let next = state.next_expiry();
            self.next_expiry.store(next, std::sync::atomic::Ordering::Relaxed);
            state.start_commit()
        };
        self.commit_and_wait(number).await
    }

    /// Whether the subjects of the stream and a filter have some subject in common.
    pub fn overlaps(&self, filter: &[u8]) -> bool {
        let config = self.config();
        let mut subjects = config.subjects.iter();
        subjects.any(|own| subject::overlap(own.as_bytes(), filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::quota::Quota;
    use crate::router::Router;
    use crate::store::Log;

    #[test]
    fn the_index_is_asked_for_what_is_far_away() {
        let config = StreamConfig {
            name: "S".to_owned(),
            subjects: vec![">".to_owned()],
            ..StreamConfig::default()
        };
        let (router, quota) = (Arc::new(Router::new()), Quota::new(-1, -1, None));
        let stream = Stream::open(config, 0, Log::memory(), router, None, quota).unwrap();
        let put = |subject: &str, bytes: usize| {
            let mut state = stream.lock();
            state.append(subject.as_bytes(), b"", &vec![0; bytes], 1).unwrap();
        };
        for n in 0..1000 {
            put(&format!("n.{n}.{}", if n % 2 == 0 { "x" } else { "y" }), 1);
        }
        (0..10).for_each(|_| put("far", NEAR_BYTES as usize / 5));
        put("n.0.x", 1);
        stream.commit(|result| result.unwrap());
        let filters = [b"n.*.x"[..].into()];
        let asked = || stream.lock().asked.replace(0);
        let (found, next) = stream.read(1, &filters, 500, u64::MAX).unwrap();
        let seqs: Vec<_> = found.iter().map(|found| found.seq).collect();
        assert!(seqs.iter().copied().eq((0..500).map(|n| 2 * n + 1)), "{seqs:?}");
        assert_eq!(asked(), 0);
        let far = stream.next(next, &filters).unwrap().unwrap();
        assert_eq!((far.seq, asked()), (1011, 1));
        assert!(stream.next(1012, &filters).unwrap().is_none());
    }
}
