//! Questions about the messages of a stream: the last of a subject, the next one a filter takes, how many there are.
//!
//! The index answers alone where its entry is exact; the log is looked into for the rest.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::protocol::patterns::Patterns;
use crate::protocol::subject;
use crate::store;

use super::index::{SubjectId, SubjectState};
use super::state::{State, Step};

/// Whether one of the filters takes a subject; no filter takes all.
pub fn takes(filters: &[Box<[u8]>], to: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| subject::matches(filter, to))
}

impl State {
    /// The last sequence on the subjects a filter matches.
    pub fn last_of(&mut self, filter: &[u8]) -> Result<Option<u64>, store::Error> {
        loop {
            let mut best: Option<(u64, bool, Box<[u8]>)> = None;
            self.index.matching(filter, |subject, state| {
                if best.as_ref().is_none_or(|best| best.0 < state.last) {
                    let text = if state.last_exact {
                        Box::default()
                    } else {
                        subject.into()
                    };
                    best = Some((state.last, state.last_exact, text));
                }
                true
            });
            match best {
                None => return Ok(None),
                Some((seq, true, _)) => return Ok(Some(seq)),
                Some((seq, false, subject)) => {
                    let exact = self.look_back(&subject, seq)?;
                    self.index.resolve_last(&subject, exact);
                }
            }
        }
    }

    /// The last message of a subject at or below `seq`, found by walking back; it is known that there is one.
    fn look_back(&self, wanted: &[u8], mut seq: u64) -> Result<u64, store::Error> {
        let mut way = self.tail.iter().rev().filter(|record| record.seq <= seq);
        let found = way.find(|record| !self.is_dying(record.seq) && self.index.subject(record.id) == wanted);
        if let Some(record) = found {
            return Ok(record.seq);
        }
        while let Some(record) = self.log.prev(seq)? {
            if record.subject[..] == *wanted && !self.is_dying(record.seq) {
                return Ok(record.seq);
            }
            seq = record.seq - 1;
        }
        Ok(self.first_seq)
    }

    /// The last sequence of each subject the filters take, in no order.
    pub fn last_of_each(&mut self, filters: &[Box<[u8]>]) -> Result<Vec<u64>, store::Error> {
        let mut last = Vec::new();
        let mut doubtful: Vec<Box<[u8]>> = Vec::new();
        self.each(filters, |subject, state| {
            if state.last_exact {
                last.push(state.last);
            } else {
                doubtful.push(subject.into());
            }
        });
        for subject in doubtful {
            last.extend(self.last_of(&subject)?);
        }
        Ok(last)
    }

    /// Every subject the filters take, once.
    fn each(&self, filters: &[Box<[u8]>], mut f: impl FnMut(&[u8], SubjectState)) {
        if filters.is_empty() {
            self.index.matching(b">", |subject, state| {
                f(subject, state);
                true
            });
        }
        let mut before = Patterns::default();
        for (at, filter) in filters.iter().enumerate() {
            self.index.matching(filter, |subject, state| {
                if !before.takes(subject) {
                    f(subject, state);
                }
                true
            });
            if at + 1 < filters.len() {
                before.insert(filter);
            }
        }
    }

    /// The first sequence at or above `from` that the filters take, as far as it can be told without walking: none
    /// if there is none, and never above the right one.
    pub fn next_bound(&self, filters: &[Box<[u8]>], from: u64) -> Option<u64> {
        if filters.is_empty() || filters.iter().any(|filter| **filter == *b">") {
            return (self.messages > 0 && from <= self.last_seq).then_some(from.max(self.first_seq));
        }
        #[cfg(test)]
        self.asked.set(self.asked.get() + 1);
        let mut bound = None;
        for filter in filters {
            self.index.matching_ids(filter, |id| {
                let state = self.index.state(id);
                let next = match self.index.sequences_of(id, from) {
                    Some(mut seqs) => seqs.next(),
                    None if state.last < from => None,
                    // Of two the first lies behind: the other one is known.
                    None if state.count == 2
                        && state.first < from
                        && state.first_exact
                        && state.last_exact =>
                    {
                        Some(state.last)
                    }
                    None => Some(state.first.max(from)),
                };
                bound = [bound, next].into_iter().flatten().min();
                // Nothing can be below `from` itself.
                bound != Some(from)
            });
            if bound == Some(from) {
                break;
            }
        }
        bound
    }

    /// Messages at or above `from` that the filters take: exact.
    pub fn count_from(&self, filters: &[Box<[u8]>], from: u64) -> Result<u64, store::Error> {
        if from > self.last_seq {
            return Ok(0);
        }
        let mut count = 0;
        // Subjects with messages on both sides of `from`, whose own cannot be told apart without a look.
        let mut split: HashSet<Box<[u8]>> = HashSet::new();
        let all = filters.is_empty() || filters.iter().any(|filter| **filter == *b">");
        if all && from <= self.first_seq {
            return Ok(self.messages);
        }
        self.each(filters, |subject, state| {
            if from <= state.first {
                count += state.count;
            } else if from <= state.last {
                match self.index.sequences_from(subject, from) {
                    Some(seqs) => count += seqs.len() as u64,
                    None => {
                        split.insert(subject.into());
                    }
                }
            }
        });
        if !split.is_empty() {
            self.walk(from, |met| {
                count += u64::from(split.contains(met.subject));
                ControlFlow::Continue(())
            })?;
        }
        Ok(count)
    }

    /// Removes the oldest messages of a subject until `keep` are left.
    pub fn trim_subject(&mut self, subject: &[u8], keep: u64) -> Result<(), store::Error> {
        while let Some(state) = self.index.get(subject) {
            if state.count <= keep {
                break;
            }
            if !state.first_exact {
                self.purge_subject(subject, u64::MAX, keep)?;
                break;
            }
            if !self.remove(state.first, subject)? {
                break;
            }
        }
        Ok(())
    }

    /// Removes the messages of the subjects a filter matches that are below `below`, but for the `keep` last of all of
    /// them; says how many. The log is walked only for subjects whose sequences the index cannot tell.
    pub fn purge_subject(&mut self, filter: &[u8], below: u64, keep: u64) -> Result<u64, store::Error> {
        let mut total = 0;
        let mut gone: Vec<(u64, SubjectId)> = Vec::new();
        let mut sought = Sought::default();
        self.index.matching_ids(filter, |id| {
            let state = self.index.state(id);
            total += state.count;
            match self.index.told(id) {
                Some(seqs) => gone.extend(seqs.take_while(|&seq| seq < below).map(|seq| (seq, id))),
                None if state.first < below => sought.add(id, state),
                None => {}
            }
            true
        });
        let excess = total.saturating_sub(keep);
        if excess == 0 {
            return Ok(0);
        }
        let damaged = self.seek(filter, &mut sought, below, excess)?;
        gone.append(&mut sought.found);
        gone.sort_unstable();
        gone.truncate(usize::try_from(excess).unwrap_or(usize::MAX));
        let mut removed = 0;
        for (seq, id) in gone {
            removed += u64::from(self.remove_by_id(seq, id)?);
        }
        Ok(removed + self.remove_damaged(&damaged)?)
    }

    /// Finds the messages below `below` of subjects that a filter takes, up to `max` of them. Returns what cannot be
    /// read, if that is as many as are counted and were not found.
    fn seek(
        &self,
        filter: &[u8],
        sought: &mut Sought,
        below: u64,
        max: u64,
    ) -> Result<Vec<u64>, store::Error> {
        let mut damaged = Vec::new();
        if sought.missing == 0 {
            return Ok(damaged);
        }
        let mut cut_short = false;
        self.walk_all(sought.first, |step| {
            if step.seq() > sought.last {
                return ControlFlow::Break(());
            }
            cut_short = step.seq() >= below;
            match step {
                _ if cut_short => {}
                Step::Damaged { seq, .. } => damaged.push(seq),
                Step::Record(met) if subject::matches(filter, met.subject) => {
                    let id = self.index.id(met.subject).filter(|id| sought.ids.contains(id));
                    sought.found.extend(id.map(|id| (met.seq, id)));
                    sought.missing -= u64::from(id.is_some());
                }
                Step::Record(_) => {}
            }
            cut_short |= sought.missing == 0 || sought.found.len() as u64 >= max;
            if cut_short {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if cut_short || damaged.len() as u64 != sought.missing {
            damaged.clear();
        }
        Ok(damaged)
    }
}

/// Subjects whose messages are to be found in the log.
struct Sought {
    ids: HashSet<SubjectId>,
    /// No message of theirs is below or above.
    first: u64,
    last: u64,
    /// Messages of theirs that were not met yet.
    missing: u64,
    found: Vec<(u64, SubjectId)>,
}

impl Default for Sought {
    fn default() -> Self {
        Self {
            ids: HashSet::new(),
            first: u64::MAX,
            last: 0,
            missing: 0,
            found: Vec::new(),
        }
    }
}

impl Sought {
    fn add(&mut self, id: SubjectId, state: SubjectState) {
        self.ids.insert(id);
        self.first = self.first.min(state.first);
        self.last = self.last.max(state.last);
        self.missing += state.count;
    }
}
