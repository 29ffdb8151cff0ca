//! A subject index as it was at one moment, taken a piece at a time while it goes on changing.
//!
//! From [`freeze`](super::index::SubjectIndex::freeze) on each subject is copied once: when its turn comes, or before it changes, whichever is
//! first. So nobody waits for a million of them. They are copied as bytes, and brought in order when all are there.
//! Memory: the bytes twice, and some 40 a subject.

use super::checkpoint::{put, put_bytes, put_subject, take_bytes};
use super::index::{SubjectId, SubjectState};

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    keeps_sequences: bool,
    /// Subjects one after the other, and where each begins.
    bytes: Vec<u8>,
    starts: Vec<usize>,
    /// The ids whose turn is still to come.
    to_come: std::ops::Range<SubjectId>,
}

impl Frozen {
    /// With room for about so many subjects of so many bytes, to be taken from the ids below `ids`.
    pub fn new(keeps_sequences: bool, subjects: usize, bytes: usize, ids: SubjectId) -> Self {
        Self {
            keeps_sequences,
            bytes: Vec::with_capacity(bytes),
            starts: Vec::with_capacity(subjects),
            to_come: 0..ids,
        }
    }

    /// The ids whose turn it is.
    pub fn next(&mut self, count: SubjectId) -> std::ops::Range<SubjectId> {
        let start = self.to_come.start;
        self.to_come.start = self.to_come.end.min(start.saturating_add(count));
        start..self.to_come.start
    }

    pub fn push(&mut self, subject: &[u8], state: SubjectState, sequences: impl Iterator<Item = u64>) {
        self.starts.push(self.bytes.len());
        put_subject(&mut self.bytes, subject, state, sequences);
    }

    fn subject(&self, at: u32) -> &[u8] {
        take_bytes(&mut &self.bytes[self.starts[at as usize]..]).unwrap_or_default()
    }

    /// Numbers of the subjects in their order: those that begin with the same tokens lie one after the other.
    fn order(&self) -> Vec<u32> {
        let count = u32::try_from(self.starts.len()).expect("fewer than 2^32 subjects fit in memory");
        let first = if count > 0 { self.subject(0) } else { b"" };
        let shared = (0..count).fold(first.len(), |shared, at| {
            let pairs = self.subject(at).iter().zip(&first[..shared]);
            pairs.take_while(|(own, first)| own == first).count()
        });
        // What they differ in lies mostly here, where it is near at hand.
        let key = |at| {
            let (mut key, rest) = ([0; 16], &self.subject(at)[shared..]);
            let len = rest.len().min(key.len());
            key[..len].copy_from_slice(&rest[..len]);
            let [high, low] = [&key[..8], &key[8..]].map(|half| {
                let bytes = half.try_into().expect("a half has eight bytes");
                u64::from_be_bytes(bytes)
            });
            (high, low)
        };
        let mut keyed: Vec<_> = (0..count).map(|at| (key(at), at)).collect();
        keyed.sort_unstable_by(|left, right| {
            let whole = || self.subject(left.1).cmp(self.subject(right.1));
            left.0.cmp(&right.0).then_with(whole)
        });
        keyed.into_iter().map(|(_, at)| at).collect()
    }

    /// Appends it as [`decode_index`](super::checkpoint::decode_index) reads it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + 24);
        put(out, self.starts.len() as u64);
        put(out, u64::from(self.keeps_sequences));
        for at in self.order() {
            let start = self.starts[at as usize];
            let end = self.starts.get(at as usize + 1).copied();
            out.extend_from_slice(&self.bytes[start..end.unwrap_or(self.bytes.len())]);
        }
        // Nothing follows that has no place among them, as there was in earlier versions.
        put_bytes(out, b"");
        put_bytes(out, b"");
    }
}

#[cfg(test)]
impl super::index::SubjectIndex {
    /// All of it as bytes, at once.
    pub fn encoded(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.freeze();
        while self.freeze_more(7) == Some(false) {}
        self.frozen().expect("it was begun").encode(&mut out);
        out
    }
}
