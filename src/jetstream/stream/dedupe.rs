//! Message ids seen within the duplicate window, with the sequence each was stored under.
//!
//! Ids lie one after the other in a ring of bytes, oldest first: what leaves the window leaves from the front.
//! Some 40 bytes an id beside the id itself.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::checkpoint::{put, put_bytes, take, take_bytes};

/// Bytes at the front that are given back at once.
const DEAD_BYTES_MIN: usize = 64 << 10;

#[derive(Debug)]
struct Seen {
    seq: u64,
    time_ns: i64,
    /// Where its bytes end, counted from the first id ever.
    end: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Dedupe {
    /// Numbers of entries, counted from the first id ever.
    table: HashTable<u64>,
    hasher: DefaultHashBuilder,
    seen: VecDeque<Seen>,
    /// Number of the first entry that is still here.
    first: u64,
    bytes: Vec<u8>,
    /// Where the bytes here begin, and where those of the first entry do.
    base: u64,
    start: u64,
}

impl Dedupe {
    fn id(&self, number: u64) -> &[u8] {
        let at = (number - self.first) as usize;
        let start = if at == 0 {
            self.start
        } else {
            self.seen[at - 1].end
        };
        &self.bytes[(start - self.base) as usize..(self.seen[at].end - self.base) as usize]
    }

    /// The sequence an id was stored under within the window.
    pub fn find(&self, id: &[u8]) -> Option<u64> {
        if self.seen.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(id);
        let number = self.table.find(hash, |&number| self.id(number) == id)?;
        Some(self.seen[(number - self.first) as usize].seq)
    }

    /// What was stored under the sequences from `a` to `b`.
    pub fn range(&self, a: u64, b: u64) -> impl Iterator<Item = (u64, i64, &[u8])> {
        let start = self.seen.partition_point(|seen| seen.seq < a);
        let end = self.seen.partition_point(|seen| seen.seq <= b).max(start);
        let seen = self.seen.range(start..end).zip(start as u64..);
        seen.map(|(seen, at)| (seen.seq, seen.time_ns, self.id(self.first + at)))
    }

    /// Brings ids that were not remembered in the order of their sequences into it.
    pub fn sort(&mut self) {
        if self.seen.iter().is_sorted_by_key(|seen| seen.seq) {
            return;
        }
        let mut order: Vec<usize> = (0..self.seen.len()).collect();
        order.sort_unstable_by_key(|&at| self.seen[at].seq);
        let mut sorted = Self::default();
        for at in order {
            let Seen { seq, time_ns, .. } = self.seen[at];
            sorted.insert(self.id(self.first + at as u64), seq, time_ns);
        }
        *self = sorted;
    }

    /// Remembers an id that is not there.
    pub fn insert(&mut self, id: &[u8], seq: u64, time_ns: i64) {
        let number = self.first + self.seen.len() as u64;
        self.bytes.extend_from_slice(id);
        let end = self.base + self.bytes.len() as u64;
        self.seen.push_back(Seen { seq, time_ns, end });
        let hash = self.hasher.hash_one(id);
        let mut table = std::mem::take(&mut self.table);
        table.insert_unique(hash, number, |&number| self.hasher.hash_one(self.id(number)));
        self.table = table;
    }

    /// Forgets what was seen before `time_ns`.
    pub fn expire(&mut self, time_ns: i64) {
        while self.seen.front().is_some_and(|seen| seen.time_ns < time_ns) {
            let hash = self.hasher.hash_one(self.id(self.first));
            let first = self.first;
            if let Ok(found) = self.table.find_entry(hash, |&number| number == first) {
                found.remove();
            }
            let gone = self.seen.pop_front().expect("just looked at");
            self.first += 1;
            self.start = gone.end;
        }
        let dead = (self.start - self.base) as usize;
        if dead > DEAD_BYTES_MIN && dead * 2 > self.bytes.len() {
            self.bytes.drain(..dead);
            self.base = self.start;
        }
    }

    /// When the oldest id was seen.
    pub fn oldest(&self) -> Option<i64> {
        self.seen.front().map(|seen| seen.time_ns)
    }

    /// The numbers of what is here; they go up with what comes, and stay.
    pub fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.seen.len() as u64
    }

    /// What is here under these numbers, as bytes.
    pub fn encode(&self, out: &mut Vec<u8>, numbers: Range<u64>) {
        for number in numbers {
            let seen = &self.seen[(number - self.first) as usize];
            put_bytes(out, self.id(number));
            put(out, seen.seq);
            put(out, seen.time_ns as u64);
        }
    }

    /// Reads a count, and so many of what was encoded.
    pub fn decode(input: &mut &[u8]) -> Option<Self> {
        let mut window = Self::default();
        for _ in 0..take(input)? {
            let id = take_bytes(input)?;
            let seq = take(input)?;
            window.insert(id, seq, take(input)? as i64);
        }
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(window: &Dedupe, seq: u64) -> Option<(u64, i64, &[u8])> {
        window.range(seq, seq).next()
    }

    #[test]
    fn ids_are_found_by_sequence_in_whatever_order_they_came() {
        let mut window = Dedupe::default();
        for seq in [5u64, 9, 2, 7] {
            window.insert(format!("id-{seq}").as_bytes(), seq, seq as i64 * 10);
        }
        window.sort();
        assert_eq!(at(&window, 7), Some((7, 70, &b"id-7"[..])));
        assert_eq!((at(&window, 6), window.find(b"id-9")), (None, Some(9)));
        assert_eq!(window.range(3, 8).map(|seen| seen.0).collect::<Vec<_>>(), [5, 7]);
        window.expire(50);
        assert_eq!(
            (at(&window, 2), at(&window, 5)),
            (None, Some((5, 50, &b"id-5"[..])))
        );
        assert_eq!((window.find(b"id-2"), window.oldest()), (None, Some(50)));
    }

    #[test]
    fn remembers_within_the_window() {
        let mut window = Dedupe::default();
        for n in 0..10_000u64 {
            let id = format!("id-{n}");
            assert_eq!(window.find(id.as_bytes()), None);
            window.insert(id.as_bytes(), n + 1, n as i64);
            window.expire(n as i64 - 99);
            assert!(window.seen.len() <= 100);
        }
        assert!(window.bytes.len() < 256 << 10, "{}", window.bytes.len());
        assert_eq!(window.find(b"id-9899"), None);
        assert_eq!(window.find(b"id-9900"), Some(9901));
        let mut bytes = Vec::new();
        put(&mut bytes, 100);
        window.encode(&mut bytes, 9900..9950);
        window.encode(&mut bytes, 9950..window.numbers().end);
        let again = Dedupe::decode(&mut &bytes[..]).unwrap();
        assert_eq!((again.seen.len(), again.find(b"id-9999")), (100, Some(10_000)));
        assert!(Dedupe::decode(&mut &bytes[..bytes.len() - 1]).is_none());
    }
}
