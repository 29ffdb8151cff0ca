//! Blocks: runs of consecutive records, the unit of reading, caching and writing.
//!
//! A block knows without its data how many records of it live, so that opening a log reads no data.
//! A deleted record stays in the data, marked in a bitmap by its place, until the block is rewritten
//! (mostly dead) or removed (all dead).

use super::record::{Record, RecordRef, SEQ_MAX, u64_at};
use bytes::Bytes;
use std::sync::Arc;

/// A block is closed at this length: with its row header it just fits a power of two of pages.
pub(super) const BLOCK_BYTES: usize = (128 << 10) - 512;
/// Chunks of a tail smaller than this are joined when more follow.
const CHUNK_JOIN_BYTES: usize = 16 << 10;

/// Where one record is within a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub seq: u64,
    pub off: u32,
    /// The bytes did not match their checksum when they were read from disk.
    pub damaged: bool,
}

/// Records one after the other, with their index.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub index: Arc<[Entry]>,
}

impl Chunk {
    pub fn record(&self, place: usize) -> RecordRef<'_> {
        RecordRef::decode(&self.bytes[self.index[place].off as usize..]).expect("indexed records decode")
    }

    /// Place of the first record at or above `seq`.
    fn lower_bound(&self, seq: u64) -> usize {
        let Some(first) = self.index.first() else { return 0 };
        let guess = seq.saturating_sub(first.seq) as usize;
        match self.index.get(guess) {
            Some(entry) if entry.seq == seq => guess,
            _ => self.index.partition_point(|e| e.seq < seq),
        }
    }

    pub fn range(&self, a: u64, b: u64) -> impl Iterator<Item = RecordRef<'_>> {
        let from = self.lower_bound(a);
        (from..self.index.len())
            .take_while(move |&i| self.index[i].seq <= b)
            .map(|i| self.record(i))
    }

    fn last_seq(&self) -> u64 {
        self.index.last().map_or(0, |e| e.seq)
    }

    /// Sequences of the first and the last record.
    pub fn seqs(&self) -> (u64, u64) {
        (self.index.first().map_or(0, |e| e.seq), self.last_seq())
    }

    /// With the number of records it once had: where damage took the bounds of some, entries stand for them, so that the
    /// places of those behind are right.
    pub fn filled(self, records: usize) -> Chunk {
        let missing = records.saturating_sub(self.index.len());
        let Some(bad) = self.index.iter().position(|e| e.damaged).filter(|_| missing > 0) else {
            return self;
        };
        let mut index = self.index.to_vec();
        let next = index.get(bad + 1).copied();
        let (end, bound) = next.map_or((self.bytes.len() as u32, SEQ_MAX), |e| (e.off, e.seq - 1));
        let first = index[bad].seq;
        let fillers = (1..=missing as u64).map(|n| Entry {
            seq: first.saturating_add(n).min(bound.max(first)),
            off: end,
            damaged: true,
        });
        index.splice(bad + 1..bad + 1, fillers);
        Chunk {
            bytes: self.bytes,
            index: index.into(),
        }
    }

    /// The records from place `a` up to but not including `b`.
    pub fn slice(&self, a: usize, b: usize) -> Chunk {
        if (a, b) == (0, self.index.len()) {
            return self.clone();
        }
        let at = |place: usize| self.index.get(place).map_or(self.bytes.len(), |e| e.off as usize);
        let start = at(a);
        let index = self.index[a..b]
            .iter()
            .map(|e| Entry {
                off: e.off - start as u32,
                ..*e
            })
            .collect();
        Chunk {
            bytes: self.bytes.slice(start..at(b)),
            index,
        }
    }
}

/// Collects records into one chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    bytes: Vec<u8>,
    index: Vec<Entry>,
    /// Bytes and records to make room for when the first one comes.
    expected: (usize, usize),
}

impl ChunkBuilder {
    /// An empty one that expects about as much as another one held.
    pub fn like(other: &ChunkBuilder) -> ChunkBuilder {
        ChunkBuilder {
            expected: (other.bytes.len(), other.index.len()),
            ..ChunkBuilder::default()
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn append(&mut self, record: &RecordRef<'_>) {
        if self.index.is_empty() {
            self.bytes.reserve(self.expected.0);
            self.index.reserve(self.expected.1);
        }
        self.index.push(Entry {
            seq: record.seq,
            off: self.bytes.len() as u32,
            damaged: false,
        });
        record.encode(&mut self.bytes);
    }

    /// Takes bytes as they are, damaged or not.
    pub fn append_raw(&mut self, entry: Entry, bytes: &[u8]) {
        self.index.push(Entry {
            off: self.bytes.len() as u32,
            ..entry
        });
        self.bytes.extend_from_slice(bytes);
    }

    pub fn finish(mut self) -> Chunk {
        // It may stay in memory for long: with no more room beside it than growing has left.
        if self.bytes.capacity() > 2 * self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        Chunk {
            bytes: self.bytes.into(),
            index: self.index.into(),
        }
    }

    pub fn range(&self, a: u64, b: u64) -> impl Iterator<Item = RecordRef<'_>> {
        let from = self.index.partition_point(|e| e.seq < a);
        self.index[from..]
            .iter()
            .take_while(move |e| e.seq <= b)
            .map(|e| RecordRef::decode(&self.bytes[e.off as usize..]).expect("records just encoded decode"))
    }
}

/// Indexes records that were read from disk. A record that does not match its checksum is kept, marked;
/// if its length is lost too, what follows is found by the next bytes that are a record.
/// `seqs` bounds the sequences that can be right; an end below [`SEQ_MAX`] is that of the last record.
pub(super) fn index(bytes: Bytes, seqs: std::ops::RangeInclusive<u64>) -> Chunk {
    let mut index: Vec<Entry> = Vec::with_capacity(bytes.len() / 128);
    let mut at = 0;
    while at < bytes.len() {
        let floor = index.last().map_or(*seqs.start(), |e| e.seq + 1);
        let good = |at: usize| {
            RecordRef::decode_checked(&bytes[at..]).filter(|r| r.seq >= floor && r.seq <= *seqs.end())
        };
        if let Some(record) = good(at) {
            index.push(Entry {
                seq: record.seq,
                off: at as u32,
                damaged: false,
            });
            at += record.stored_len() as usize;
            continue;
        }
        // Usually its length is whole, and the next record stands where it says.
        let next = RecordRef::decode(&bytes[at..]).map(|r| at + r.stored_len() as usize);
        let next = next.filter(|&n| n == bytes.len() || good(n).is_some());
        let next = next.unwrap_or_else(|| {
            (at + 1..bytes.len())
                .find(|&n| good(n).is_some())
                .unwrap_or(bytes.len())
        });
        let behind = good(next).map(|record| record.seq);
        index.push(Entry {
            seq: damaged_seq(&bytes[at..], floor, *seqs.end(), behind, index.is_empty()),
            off: at as u32,
            damaged: true,
        });
        at = next;
    }
    Chunk {
        bytes,
        index: index.into(),
    }
}

/// The sequence of a damaged record: the one it says, if that can be right, for mostly it is something else that is damaged.
fn damaged_seq(bytes: &[u8], floor: u64, end: u64, behind: Option<u64>, is_first: bool) -> u64 {
    let last = (end < SEQ_MAX).then_some(end);
    let Some(top) = behind.map(|seq| seq.saturating_sub(1)).or(last) else {
        // Nothing bounds it: what it says may be far off, and no later sequence could be below it.
        return floor;
    };
    let says = u64_at(bytes, 8).filter(|seq| (floor..=top).contains(seq));
    // Else the first one stands right before the next one, and the last one is where the records end.
    let guess = if is_first || behind.is_none() { top } else { floor };
    says.unwrap_or(guess.max(floor))
}

/// The records of one block. Cloning shares the bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    chunks: Vec<Chunk>,
    /// Records before each chunk.
    base: Vec<usize>,
    records: usize,
    len: usize,
}

impl Data {
    pub fn new(chunk: Chunk) -> Data {
        let mut data = Data::default();
        data.push(chunk);
        data
    }

    pub fn records(&self) -> usize {
        self.records
    }

    /// False for what stands in for a block that cannot be read.
    pub fn has_bytes(&self) -> bool {
        self.len > 0
    }

    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Memory it holds, for the cache.
    pub fn weight(&self) -> usize {
        self.len + self.records * size_of::<Entry>() + 128
    }

    fn push(&mut self, chunk: Chunk) {
        self.records += chunk.index.len();
        self.len += chunk.bytes.len();
        self.base.push(self.records - chunk.index.len());
        self.chunks.push(chunk);
        while let [.., a, b] = &self.chunks[..] {
            if a.bytes.len() > CHUNK_JOIN_BYTES || a.bytes.len() > b.bytes.len() * 2 {
                break;
            }
            let joined = join(&[a.clone(), b.clone()]);
            self.chunks.truncate(self.chunks.len() - 2);
            self.base.pop();
            self.chunks.push(joined);
        }
    }

    /// All records in one piece, as a row of the store.
    pub fn bytes(&self) -> Bytes {
        match &self.chunks[..] {
            [one] => one.bytes.clone(),
            many => join(many).bytes,
        }
    }

    pub fn entry(&self, place: usize) -> Option<(&Chunk, usize)> {
        let chunk = self.base.partition_point(|&b| b <= place).checked_sub(1)?;
        let within = place - self.base[chunk];
        (within < self.chunks[chunk].index.len()).then(|| (&self.chunks[chunk], within))
    }

    /// Sequences whose bytes do not match their checksum.
    pub fn damaged(&self) -> impl Iterator<Item = u64> {
        self.damaged_places().map(|(_, seq)| seq)
    }

    /// The same, with their places.
    pub fn damaged_places(&self) -> impl Iterator<Item = (usize, u64)> {
        let entries = self.chunks.iter().flat_map(|c| c.index.iter());
        entries
            .enumerate()
            .filter(|(_, e)| e.damaged)
            .map(|(place, e)| (place, e.seq))
    }

    /// Place of the first record at or above `seq`; `records()` if there is none.
    pub fn lower_bound(&self, seq: u64) -> usize {
        let chunk = self.chunks.partition_point(|c| c.last_seq() < seq);
        self.chunks
            .get(chunk)
            .map_or(self.records, |c| self.base[chunk] + c.lower_bound(seq))
    }
}

fn join(chunks: &[Chunk]) -> Chunk {
    let mut out = ChunkBuilder::default();
    out.bytes.reserve(chunks.iter().map(|c| c.bytes.len()).sum());
    for chunk in chunks {
        let shift = out.bytes.len() as u32;
        out.bytes.extend_from_slice(&chunk.bytes);
        out.index.extend(chunk.index.iter().map(|e| Entry {
            off: e.off + shift,
            ..*e
        }));
    }
    out.finish()
}

/// Which records of a block are deleted, by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dead(Vec<u64>);

impl Dead {
    pub fn contains(&self, place: usize) -> bool {
        self.0
            .get(place / 64)
            .is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    fn insert(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    pub fn words(&self) -> &[u64] {
        &self.0
    }

    pub fn from_words(words: Vec<u64>) -> Dead {
        Dead(words)
    }
}

/// One block of a log.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Sequence of the last record in the data.
    pub last: u64,
    /// Records in the data, dead ones included.
    pub records: u32,
    pub live: u32,
    pub live_bytes: u64,
    /// Length of the data.
    pub len: u64,
    /// Sequence and time of the first live record.
    pub head: (u64, i64),
    pub dead: Dead,
    /// Counts rewrites, so that a reader that looked away notices.
    pub version: u32,
    /// The data, while it is newer than what redb holds; else it is in the cache or on disk.
    pub data: Option<Data>,
    /// Whether a checkpoint has to write the data.
    pub dirty_data: bool,
}

impl Block {
    pub fn new(chunk: Chunk) -> Block {
        let mut block = Block {
            last: 0,
            records: 0,
            live: 0,
            live_bytes: 0,
            len: 0,
            head: (0, 0),
            dead: Dead::default(),
            version: 0,
            data: Some(Data::default()),
            dirty_data: true,
        };
        block.push(chunk);
        block
    }

    /// Whether the numbers of a row that was read can be right.
    pub fn plausible(&self, id: u64) -> bool {
        self.live > 0
            && self.live <= self.records
            && self.last >= id
            && (id..=self.last).contains(&self.head.0)
    }

    /// Appends to a block whose data is here.
    pub fn push(&mut self, chunk: Chunk) {
        let data = self.data.as_mut().expect("only a resident block is appended to");
        if self.live == 0 {
            let entry = &chunk.index[0];
            self.head = (entry.seq, if entry.damaged { 0 } else { chunk.record(0).time_ns });
        }
        self.last = chunk.last_seq();
        self.records += chunk.index.len() as u32;
        self.live += chunk.index.len() as u32;
        self.live_bytes += chunk.bytes.len() as u64;
        self.len += chunk.bytes.len() as u64;
        data.push(chunk);
        self.dirty_data = true;
    }

    /// Marks the live records in `a..=b` dead; says how many and how many bytes they were.
    pub fn kill(&mut self, data: &Data, a: u64, b: u64) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        let mut place = data.lower_bound(a);
        while let Some((chunk, within)) = data.entry(place) {
            if chunk.index[within].seq > b {
                break;
            }
            if !self.dead.contains(place) {
                self.dead.insert(place);
                count += 1;
                bytes += span(chunk, within) as u64;
            }
            place += 1;
        }
        self.live -= count as u32;
        self.live_bytes -= bytes;
        if count > 0 && (a..=b).contains(&self.head.0) {
            self.head = self.first_live(data, 0).map_or((0, 0), |place| {
                let (chunk, within) = data.entry(place).expect("a live place is in the data");
                let entry = chunk.index[within];
                (
                    entry.seq,
                    if entry.damaged {
                        0
                    } else {
                        chunk.record(within).time_ns
                    },
                )
            });
        }
        (count, bytes)
    }

    /// Place of the first live record at or after `place`.
    pub fn first_live(&self, data: &Data, place: usize) -> Option<usize> {
        (place..data.records()).find(|&p| !self.dead.contains(p))
    }

    /// Place of the last live record before `end`.
    pub fn last_live(&self, data: &Data, end: usize) -> Option<usize> {
        (0..end.min(data.records()))
            .rev()
            .find(|&p| !self.dead.contains(p))
    }

    /// Whether rewriting it would free more than half of it.
    pub fn mostly_dead(&self) -> bool {
        self.live_bytes * 2 < self.len
    }

    /// Drops the dead records from the data.
    pub fn rewrite(&mut self, data: &Data) {
        let mut out = ChunkBuilder::default();
        for place in 0..data.records() {
            if !self.dead.contains(place) {
                let (chunk, within) = data.entry(place).expect("places below records() exist");
                let (off, len) = (chunk.index[within].off as usize, span(chunk, within));
                out.append_raw(chunk.index[within], &chunk.bytes[off..off + len]);
            }
        }
        let chunk = out.finish();
        self.dead = Dead::default();
        self.records = self.live;
        self.last = chunk.last_seq();
        self.len = chunk.bytes.len() as u64;
        self.version += 1;
        self.data = Some(Data::new(chunk));
        self.dirty_data = true;
    }
}

/// Length of the record at `within`, by where the next one starts: right even if it is damaged.
pub(super) fn span(chunk: &Chunk, within: usize) -> usize {
    let end = chunk
        .index
        .get(within + 1)
        .map_or(chunk.bytes.len(), |e| e.off as usize);
    end - chunk.index[within].off as usize
}

/// The record at `place`, sharing memory with the data; `None` if its bytes are damaged.
pub(super) fn record_at(data: &Data, place: usize) -> Option<Record> {
    let (chunk, within) = data.entry(place)?;
    (!chunk.index[within].damaged).then(|| chunk.record(within).share(&chunk.bytes))
}
