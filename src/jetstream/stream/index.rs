//! What a stream knows of its subjects without reading the log: first and last sequence and count of each.
//!
//! One entry a subject (some 60 bytes beside the subject itself), found by hash on the publishing path and by
//! token for wildcards (`trie.rs`): a filter looks at the subjects its literal tokens lead to and at no others.
//!
//! `first` may be too low and `last` too high once a message in between was removed: then the entry says so, and
//! who needs the exact one looks into the log and tells ([`SubjectIndex::resolve_first`], `resolve_last`). Streams
//! with a limit a subject keep all sequences of each subject (`keep_sequences`) and are never wrong; a subject of one
//! or two messages has them in its entry.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::protocol::subject;

use super::frozen::Frozen;
use super::slots::Slots;
use super::trie::Trie;

/// Place of a subject in the index; given back to use when its last message has gone.
pub type SubjectId = u32;

/// Arena bytes of removed subjects below which compaction is not worth it.
const DEAD_BYTES_MIN: usize = 1 << 20;

/// Subjects whose table and trie are built side by side.
const THREAD_MIN: usize = 10_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// Offset in the arena, shifted by 16, and length of the subject.
    place: u64,
    first: u64,
    last: u64,
    count: u64,
    first_stale: bool,
    last_stale: bool,
    /// The round of copying that has it, see [`SubjectIndex::freeze`].
    round: u32,
}

impl Entry {
    fn range(self) -> std::ops::Range<usize> {
        let at = (self.place >> 16) as usize;
        at..at + (self.place & 0xffff) as usize
    }

    fn state(self) -> SubjectState {
        SubjectState {
            first: self.first,
            last: self.last,
            count: self.count,
            first_exact: !self.first_stale,
            last_exact: !self.last_stale,
        }
    }
}

/// What the index knows of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectState {
    /// Sequence of its first message, or below it if not exact.
    pub first: u64,
    /// Sequence of its last message, or above it if not exact.
    pub last: u64,
    /// Messages.
    pub count: u64,
    /// Whether `first` is exact.
    pub first_exact: bool,
    /// Whether `last` is exact.
    pub last_exact: bool,
}

/// See the module documentation.
#[derive(Default)]
pub struct SubjectIndex {
    table: Slots,
    hasher: DefaultHashBuilder,
    entries: Vec<Entry>,
    free: Vec<SubjectId>,
    arena: Vec<u8>,
    dead_bytes: usize,
    trie: Trie,
    messages: u64,
    /// All sequences of each subject that has come to three, for streams that need the oldest but one.
    sequences: Option<HashMap<SubjectId, VecDeque<u64>>>,
    /// The last round of copying that was begun, and what it has so far.
    round: u32,
    frozen: Option<Frozen>,
}

impl SubjectIndex {
    /// An empty index; `keep_sequences` for streams with a limit a subject.
    pub fn new(keep_sequences: bool) -> Self {
        Self {
            sequences: keep_sequences.then(HashMap::new),
            ..Self::default()
        }
    }

    /// Whether all sequences of each subject are kept.
    pub fn keeps_sequences(&self) -> bool {
        self.sequences.is_some()
    }

    /// Subjects.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no subject.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Messages of all subjects.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Memory it holds, about.
    pub fn weight(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.table.weight()
            + self.arena.capacity()
            + self.trie.weight()
            + self.sequences.as_ref().map_or(0, |kept| {
                kept.values().map(|seqs| seqs.capacity() * 8 + 48).sum::<usize>()
            })
    }

    fn find(&self, subject: &[u8]) -> Option<SubjectId> {
        let hash = self.hasher.hash_one(subject);
        self.table.find(hash, |id| self.subject(id) == subject)
    }

    /// The subject of an id that is in use.
    pub fn subject(&self, id: SubjectId) -> &[u8] {
        &self.arena[self.entries[id as usize].range()]
    }

    /// The id of a subject that has messages.
    pub fn id(&self, subject: &[u8]) -> Option<SubjectId> {
        self.find(subject)
    }

    /// What is known of a subject.
    pub fn get(&self, subject: &[u8]) -> Option<SubjectState> {
        self.find(subject).map(|id| self.state(id))
    }

    /// What is known of the subject of an id that is in use.
    pub fn state(&self, id: SubjectId) -> SubjectState {
        self.entries[id as usize].state()
    }

    /// Takes in a message; sequences only go up.
    pub fn insert(&mut self, subject: &[u8], seq: u64) -> SubjectId {
        let hash = self.hasher.hash_one(subject);
        let found = self.table.find(hash, |id| self.subject(id) == subject);
        let id = found.unwrap_or_else(|| self.add(hash, subject, seq));
        self.before_change(id);
        let entry = &mut self.entries[id as usize];
        if let Some(kept) = self.sequences.as_mut().filter(|_| entry.count >= 2) {
            let both = || VecDeque::from([entry.first, entry.last]);
            kept.entry(id).or_insert_with(both).push_back(seq);
        }
        entry.last = seq;
        entry.last_stale = false;
        entry.count += 1;
        self.messages += 1;
        id
    }

    #[cold]
    fn add(&mut self, hash: u64, subject: &[u8], seq: u64) -> SubjectId {
        let entry = Entry {
            place: (self.arena.len() as u64) << 16 | subject.len() as u64,
            first: seq,
            last: seq,
            // Nobody is to copy what has come since.
            round: self.round,
            ..Entry::default()
        };
        self.arena.extend_from_slice(subject);
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 subjects fit in memory")
            }
        };
        self.table.insert(hash, id);
        let (entries, arena) = (&self.entries, &self.arena);
        let text = |id: SubjectId| &arena[entries[id as usize].range()];
        self.trie.insert(id, text);
        id
    }

    /// Takes out one message of a subject. False if the index has none there.
    pub fn remove(&mut self, subject: &[u8], seq: u64) -> bool {
        self.find(subject).is_some_and(|id| self.remove_id(id, seq))
    }

    /// Takes out one message of the subject of an id that is in use.
    pub fn remove_id(&mut self, id: SubjectId, seq: u64) -> bool {
        self.before_change(id);
        let entry = &mut self.entries[id as usize];
        if seq < entry.first || seq > entry.last {
            return false;
        }
        if let Some(kept) = &mut self.sequences {
            let Some(left) = remove_kept(kept, id, *entry, seq) else {
                return false;
            };
            (entry.first, entry.last) = left;
        } else {
            if seq == entry.first {
                entry.first += 1;
                entry.first_stale = true;
            }
            if seq == entry.last {
                entry.last -= 1;
                entry.last_stale = true;
            }
        }
        entry.count -= 1;
        self.messages -= 1;
        match entry.count {
            0 => self.drop_subject(id),
            1 if !entry.first_stale || !entry.last_stale => {
                // One end is exact and it is the only message.
                let only = if entry.first_stale {
                    entry.last
                } else {
                    entry.first
                };
                (entry.first, entry.last) = (only, only);
                (entry.first_stale, entry.last_stale) = (false, false);
            }
            _ => {}
        }
        true
    }

    fn drop_subject(&mut self, id: SubjectId) {
        let (entries, arena) = (&self.entries, &self.arena);
        let text = |id: SubjectId| &arena[entries[id as usize].range()];
        let hash = self.hasher.hash_one(text(id));
        self.trie.remove(id, text);
        self.table.remove(hash, id);
        if let Some(kept) = &mut self.sequences {
            kept.remove(&id);
        }
        self.dead_bytes += self.entries[id as usize].range().len();
        self.entries[id as usize] = Entry::default();
        self.free.push(id);
        if self.dead_bytes > DEAD_BYTES_MIN && self.dead_bytes * 2 > self.arena.len() {
            self.compact();
        }
    }

    /// Rewrites the arena without the subjects that have gone.
    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.dead_bytes);
        for entry in self.entries.iter_mut().filter(|entry| entry.count > 0) {
            let at = arena.len() as u64;
            arena.extend_from_slice(&self.arena[entry.range()]);
            entry.place = at << 16 | entry.place & 0xffff;
        }
        self.arena = arena;
        self.dead_bytes = 0;
    }

    /// Forgets everything but how it was made.
    pub fn clear(&mut self) {
        *self = Self::new(self.keeps_sequences());
    }

    /// Tells the exact first sequence of a subject.
    pub fn resolve_first(&mut self, subject: &[u8], seq: u64) {
        if let Some(id) = self.find(subject) {
            self.before_change(id);
            let entry = &mut self.entries[id as usize];
            (entry.first, entry.first_stale) = (seq, false);
        }
    }

    /// Tells the exact last sequence of a subject.
    pub fn resolve_last(&mut self, subject: &[u8], seq: u64) {
        if let Some(id) = self.find(subject) {
            self.before_change(id);
            let entry = &mut self.entries[id as usize];
            (entry.last, entry.last_stale) = (seq, false);
        }
    }

    /// The sequences of a subject from `from` on, if they are kept.
    pub fn sequences_from(&self, subject: &[u8], from: u64) -> Option<Sequences<'_>> {
        self.sequences.as_ref()?;
        match self.find(subject) {
            Some(id) => self.sequences_of(id, from),
            None => Some(Sequences::default()),
        }
    }

    /// The sequences of an id in use from `from` on, if they are kept.
    pub fn sequences_of(&self, id: SubjectId, from: u64) -> Option<Sequences<'_>> {
        let kept = self.sequences.as_ref()?;
        Some(match kept.get(&id) {
            Some(seqs) => Sequences {
                rest: seqs.range(seqs.partition_point(|&seq| seq < from)..),
                ..Sequences::default()
            },
            None => Sequences::ends(self.entries[id as usize], from),
        })
    }

    /// All sequences of an id in use, if they can be told.
    pub fn told(&self, id: SubjectId) -> Option<Sequences<'_>> {
        let entry = self.entries[id as usize];
        let is_told = entry.count <= 2 && !entry.first_stale && !entry.last_stale;
        if is_told {
            return Some(Sequences::ends(entry, 0));
        }
        self.sequences_of(id, 0)
    }

    /// Calls `f` with every subject a filter matches, in no order, until it says to stop.
    pub fn matching(&self, filter: &[u8], mut f: impl FnMut(&[u8], SubjectState) -> bool) {
        self.matching_ids(filter, |id| f(self.subject(id), self.state(id)));
    }

    /// The same by their ids.
    pub fn matching_ids(&self, filter: &[u8], mut f: impl FnMut(SubjectId) -> bool) {
        if subject::has_wildcard(filter) {
            self.trie.matching(filter, |id| self.subject(id), f);
        } else if let Some(id) = self.find(filter) {
            f(id);
        }
    }

    /// Messages on the subjects a filter matches.
    pub fn count(&self, filter: &[u8]) -> u64 {
        if filter == b">" {
            return self.messages;
        }
        let mut count = 0;
        self.matching(filter, |_, state| {
            count += state.count;
            true
        });
        count
    }

    /// Begins to copy what it is now; a copy that was begun before is given up.
    pub(super) fn freeze(&mut self) {
        self.round += 1;
        let ids = self.entries.len() as SubjectId;
        let bytes = self.arena.len() - self.dead_bytes + self.len() * 12;
        self.frozen = Some(Frozen::new(self.keeps_sequences(), self.len(), bytes, ids));
    }

    /// Copies up to `count` subjects more, and says whether that is all of them; none if there is nothing to copy to.
    pub(super) fn freeze_more(&mut self, count: SubjectId) -> Option<bool> {
        let turn = self.frozen.as_mut()?.next(count);
        for id in turn.clone() {
            self.before_change(id);
        }
        Some(turn.is_empty())
    }

    /// The copy, once it is whole, or to give it up.
    pub(super) fn frozen(&mut self) -> Option<Frozen> {
        self.frozen.take()
    }

    /// A subject is copied before it changes.
    fn before_change(&mut self, id: SubjectId) {
        if self.entries[id as usize].round != self.round {
            self.copy(id);
        }
    }

    #[cold]
    fn copy(&mut self, id: SubjectId) {
        let entry = &mut self.entries[id as usize];
        entry.round = self.round;
        let Some(frozen) = self.frozen.as_mut().filter(|_| entry.count > 0) else {
            return;
        };
        let kept = self.sequences.as_ref().and_then(|kept| kept.get(&id));
        let sequences = kept.into_iter().flatten().copied();
        frozen.push(&self.arena[entry.range()], entry.state(), sequences);
    }

    /// An empty index with room for `subjects`.
    pub(super) fn with_capacity(keep_sequences: bool, subjects: usize) -> Self {
        let mut index = Self::new(keep_sequences);
        index.entries.reserve(subjects);
        index
    }

    /// Takes in a subject that is not there yet, as a checkpoint has it; `sequences` are all of its own where they are
    /// kept and more than two. Nothing can be asked until [`restored`](Self::restored).
    pub(super) fn restore(&mut self, subject: &[u8], state: SubjectState, sequences: Option<VecDeque<u64>>) {
        let id = u32::try_from(self.entries.len()).expect("fewer than 2^32 subjects fit in memory");
        self.entries.push(Entry {
            place: (self.arena.len() as u64) << 16 | subject.len() as u64,
            first: state.first,
            last: state.last,
            count: state.count,
            first_stale: !state.first_exact,
            last_stale: !state.last_exact,
            round: self.round,
        });
        self.arena.extend_from_slice(subject);
        self.messages += state.count;
        if let (Some(kept), Some(sequences)) = (&mut self.sequences, sequences) {
            kept.insert(id, sequences);
        }
    }

    /// Takes in another one, wherever it belongs, once the others are [`restored`](Self::restored).
    pub(super) fn restore_anywhere(
        &mut self,
        subject: &[u8],
        state: SubjectState,
        sequences: Option<VecDeque<u64>>,
    ) {
        self.restore(subject, state, sequences);
        let id = (self.entries.len() - 1) as SubjectId;
        self.table.insert(self.hasher.hash_one(subject), id);
        let (entries, arena) = (&self.entries, &self.arena);
        let text = |id: SubjectId| &arena[entries[id as usize].range()];
        self.trie.insert(id, text);
    }

    /// Ends a restoration; false if the subjects did not come as a [`Frozen`] one has them.
    pub(super) fn restored(&mut self) -> bool {
        let (entries, arena, hasher) = (&self.entries, &self.arena, &self.hasher);
        let text = |id: SubjectId| &arena[entries[id as usize].range()];
        let by_hash = || {
            let mut table = Slots::default();
            table.reserve(entries.len());
            for id in 0..entries.len() as SubjectId {
                table.insert(hasher.hash_one(text(id)), id);
            }
            table
        };
        let by_token = || Trie::of_grouped(entries.len(), text);
        let (table, trie) = if entries.len() < THREAD_MIN {
            (by_hash(), by_token())
        } else {
            std::thread::scope(|scope| {
                let trie = scope.spawn(by_token);
                (by_hash(), trie.join().unwrap_or_default())
            })
        };
        let is_grouped = trie.is_some();
        (self.table, self.trie) = (table, trie.unwrap_or_default());
        is_grouped
    }
}

/// Takes one sequence out of those of a subject; says which are the first and the last of what is left, if it was there.
fn remove_kept(
    kept: &mut HashMap<SubjectId, VecDeque<u64>>,
    id: SubjectId,
    entry: Entry,
    seq: u64,
) -> Option<(u64, u64)> {
    let Some(seqs) = kept.get_mut(&id) else {
        return match (seq == entry.first, seq == entry.last) {
            (true, _) => Some((entry.last, entry.last)),
            (_, true) => Some((entry.first, entry.first)),
            _ => None,
        };
    };
    seqs.remove(seqs.binary_search(&seq).ok()?);
    let left = (*seqs.front()?, *seqs.back()?);
    if seqs.len() == 1 {
        kept.remove(&id);
    }
    Some(left)
}

/// Sequences of one subject, going up.
#[derive(Clone, Debug, Default)]
pub struct Sequences<'a> {
    ends: [u64; 2],
    /// Of the ends, those still to come.
    to_come: std::ops::Range<usize>,
    rest: std::collections::vec_deque::Iter<'a, u64>,
}

impl Sequences<'_> {
    /// Those of a subject with no more than two.
    fn ends(entry: Entry, from: u64) -> Self {
        let ends = [entry.first, entry.last];
        let count = entry.count as usize;
        let passed = ends[..count].iter().filter(|&&seq| seq < from).count();
        Self {
            ends,
            to_come: passed..count,
            ..Self::default()
        }
    }
}

impl Iterator for Sequences<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self.to_come.next() {
            Some(at) => Some(self.ends[at]),
            None => self.rest.next().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.to_come.len() + self.rest.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Sequences<'_> {}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
