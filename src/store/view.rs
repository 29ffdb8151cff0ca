//! The durable state of one log: its blocks, its counters, its consumers. Pure memory; data of blocks
//! that are not here comes through a `Source`.

use super::block::{BLOCK_BYTES, Block, Chunk, Data};
use super::error::Error;
use super::group::{ConsumerChange, Group};
use super::notes::NoteBook;
use super::removals::Removals;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Counters of a log.
///
/// `bytes` counts subject + headers + payload + [`RECORD_OVERHEAD`](super::RECORD_OVERHEAD) of every live
/// record: the length of its encoding, which is also what it takes on disk before the tables' own share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogState {
    /// Live records.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first live sequence; `last_seq + 1` when there is none.
    pub first_seq: u64,
    /// The highest sequence ever used; 0 for a new log.
    pub last_seq: u64,
    /// Time of the first live record; 0 when there is none.
    pub first_time: i64,
    /// Time of the last appended record, deleted or not.
    pub last_time: i64,
    /// Sequences between first and last that hold no record.
    pub deleted: u64,
}

/// What a log holds for one consumer; both parts belong to the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerRow {
    /// Configuration.
    pub meta: Bytes,
    /// Delivery state, as it was last put whole.
    pub state: Bytes,
    /// What has changed in it since, in order.
    pub deltas: Vec<Bytes>,
}

impl ConsumerRow {
    fn apply(&mut self, change: &ConsumerChange) {
        if let Some(meta) = &change.meta {
            self.meta = meta.clone();
        }
        if let Some(state) = &change.state {
            self.state = state.clone();
            self.deltas.clear();
        }
        for (number, delta) in &change.deltas {
            self.deltas.truncate((*number as usize).saturating_sub(1));
            self.deltas.push(delta.clone());
        }
    }
}

/// Where the data of a block comes from that is not in its `data`.
pub(super) trait Source {
    fn load(&mut self, id: u64, block: &Block) -> Result<Data, Error>;
}

impl<F: FnMut(u64, &Block) -> Result<Data, Error>> Source for F {
    fn load(&mut self, id: u64, block: &Block) -> Result<Data, Error> {
        self(id, block)
    }
}

#[derive(Debug, Default)]
pub(super) struct View {
    /// By the first sequence the block ever had, which never changes.
    pub blocks: BTreeMap<u64, Block>,
    pub last_seq: u64,
    pub last_time: i64,
    pub messages: u64,
    pub bytes: u64,
    pub meta: Bytes,
    /// `meta` is what is left of it.
    pub meta_damaged: bool,
    pub consumers: BTreeMap<String, ConsumerRow>,
    pub checkpoint: Option<Noted>,
    /// The caller's next checkpoint, while that is being made.
    pub coming: Option<Coming>,
    pub notes: NoteBook,
    /// Whether checkpoints compress the blocks they write.
    pub compress: bool,
    /// What the next checkpoint writes beside the dirty blocks.
    pub changes: Changes,
}

/// The caller's checkpoint, and what was removed from under it.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub upto_seq: u64,
    /// Until they are written; then they are read from disk when asked for.
    pub bytes: Option<Bytes>,
    pub removed: Removals,
    /// More was removed than is worth a list.
    pub is_partial: bool,
}

impl Noted {
    /// Whether it is the other one, and not one of the same sequence that has taken its place.
    fn has_bytes_of(&self, other: &Noted) -> bool {
        let same = |own: &Bytes, other: &Bytes| own.as_ptr() == other.as_ptr() && own.len() == other.len();
        let bytes = self.bytes.as_ref().zip(other.bytes.as_ref());
        self.upto_seq == other.upto_seq && bytes.is_some_and(|(own, other)| same(own, other))
    }
}

/// What has to be known of a checkpoint of the caller before its bytes are there.
#[derive(Debug)]
pub(super) struct Coming {
    number: u64,
    noted: Noted,
    /// Notes up to this number are in it.
    notes: u64,
}

/// What a caller's checkpoint says of records, from under which more was removed than this, and than half of what is
/// there, is worth less than a scan.
const REMOVED_MIN: u64 = 64 << 10;

/// What changed since the last checkpoint, beside the blocks' own flags.
#[derive(Debug, Default, Clone)]
pub(super) struct Changes {
    pub row: bool,
    pub dirty_blocks: std::collections::BTreeSet<u64>,
    pub removed_blocks: std::collections::BTreeSet<u64>,
    pub consumers: std::collections::BTreeSet<String>,
    pub checkpoint: bool,
    pub notes: bool,
    /// Data held in memory because a removal rewrote its block.
    pub rewritten_bytes: usize,
}

impl View {
    pub fn state(&self) -> LogState {
        let head = self.blocks.values().next().map(|b| b.head);
        let first_seq = head.map_or(self.last_seq.saturating_add(1), |h| h.0);
        LogState {
            messages: self.messages,
            bytes: self.bytes,
            first_seq,
            last_seq: self.last_seq,
            first_time: head.map_or(0, |h| h.1),
            last_time: self.last_time,
            deleted: self
                .last_seq
                .saturating_add(1)
                .saturating_sub(first_seq.saturating_add(self.messages)),
        }
    }

    /// The block that holds the first record at or above `seq`.
    pub fn block_at(&self, seq: u64) -> Option<u64> {
        match self.blocks.range(..=seq).next_back() {
            Some((&id, block)) if block.last >= seq => Some(id),
            _ => self.blocks.range(seq.checked_add(1)?..).next().map(|(&id, _)| id),
        }
    }

    /// The block that holds the last record at or below `seq`.
    pub fn block_before(&self, seq: u64) -> Option<u64> {
        self.blocks.range(..=seq).next_back().map(|(&id, _)| id)
    }

    /// Applies a group that is durable. `keep` says that blocks stay in memory for ever.
    pub fn apply(&mut self, group: &Group, source: &mut dyn Source) -> Result<(), Error> {
        // A group that is replayed over a newer state appends nothing twice.
        let known = self.last_seq;
        let from = group.chunk.index.partition_point(|e| e.seq <= known);
        if from < group.chunk.index.len() {
            self.wake_tail(source);
            self.append(group.chunk.slice(from, group.chunk.index.len()));
        }
        if let Some(first) = group.truncate {
            if first > 1 {
                self.remove(0, first - 1, source)?;
            }
            self.last_seq = self.last_seq.max(first.saturating_sub(1));
            self.changes.row = true;
        }
        for &(a, b) in &group.removed {
            self.remove(a, b, source)?;
        }
        if let Some(meta) = &group.meta {
            self.meta = meta.clone();
            self.meta_damaged = false;
            self.changes.row = true;
        }
        for (name, change) in &group.consumers {
            if change.remove {
                self.consumers.remove(name);
            }
            if change.meta.is_some() || change.state.is_some() || !change.deltas.is_empty() {
                self.consumers.entry(name.clone()).or_default().apply(change);
            }
            self.changes.consumers.insert(name.clone());
        }
        if let Some(notes) = &group.notes {
            self.changes.notes |= self.notes.add(notes);
        }
        if let Some(on) = group.compress {
            self.compress = on;
            self.changes.notes = true;
        }
        Ok(())
    }

    /// Brings the data of a short tail back, to be extended: small commits must not leave small blocks.
    fn wake_tail(&mut self, source: &mut dyn Source) {
        let Some(mut tail) = self.blocks.last_entry() else {
            return;
        };
        let id = *tail.key();
        let tail = tail.get_mut();
        if tail.data.is_none()
            && tail.len < BLOCK_BYTES as u64 / 2
            && let Ok(data) = source.load(id, tail)
            && data.damaged().next().is_none()
            && data.records() == tail.records as usize
        {
            tail.data = Some(data);
            tail.version += 1;
        }
    }

    fn append(&mut self, chunk: Chunk) {
        self.last_seq = chunk.index.last().map_or(self.last_seq, |e| e.seq);
        if let Some(last) = chunk.index.last().filter(|e| !e.damaged) {
            let place = chunk.index.len() - 1;
            debug_assert_eq!(last.seq, chunk.record(place).seq);
            self.last_time = chunk.record(place).time_ns;
        }
        self.messages += chunk.index.len() as u64;
        self.bytes += chunk.bytes.len() as u64;
        self.changes.row = true;
        let mut from = 0;
        while from < chunk.index.len() {
            let room = match self.blocks.values().next_back() {
                Some(tail) if tail.data.is_some() => BLOCK_BYTES.saturating_sub(tail.len as usize),
                _ => 0,
            };
            let start = chunk.index[from].off as usize;
            let fits = |limit: usize| {
                let end = |place: usize| {
                    chunk
                        .index
                        .get(place + 1)
                        .map_or(chunk.bytes.len(), |e| e.off as usize)
                };
                let (mut lo, mut hi) = (from, chunk.index.len());
                while lo < hi {
                    let mid = (lo + hi) / 2;
                    if end(mid) - start <= limit {
                        lo = mid + 1
                    } else {
                        hi = mid
                    }
                }
                lo
            };
            let to = fits(room);
            if to > from {
                let mut tail = self
                    .blocks
                    .last_entry()
                    .expect("room was found in the last block");
                self.changes.dirty_blocks.insert(*tail.key());
                tail.get_mut().push(chunk.slice(from, to));
                from = to;
            } else {
                // A record larger than a block has a block of its own.
                let to = fits(BLOCK_BYTES).max(from + 1);
                let id = chunk.index[from].seq;
                self.blocks.insert(id, Block::new(chunk.slice(from, to)));
                self.changes.dirty_blocks.insert(id);
                self.changes.removed_blocks.remove(&id);
                from = to;
            }
        }
    }

    /// The caller's next checkpoint is of what is here now: what goes from under it from here on is listed.
    pub fn begin_checkpoint(&mut self, number: u64) {
        self.coming = Some(Coming {
            number,
            noted: Noted {
                upto_seq: self.last_seq,
                bytes: None,
                removed: Removals::default(),
                is_partial: false,
            },
            notes: self.notes.number,
        });
    }

    /// Here it is, in place of the one before. False if it has not begun, or so much went that it is of no use.
    pub fn finish_checkpoint(&mut self, number: u64, bytes: Bytes) -> bool {
        let coming = self.coming.take_if(|coming| coming.number == number);
        let Some(coming) = coming.filter(|coming| !coming.noted.is_partial) else {
            return false;
        };
        self.notes.clear(coming.notes);
        self.checkpoint = Some(Noted {
            bytes: Some(bytes),
            ..coming.noted
        });
        self.changes.notes = true;
        self.changes.checkpoint = true;
        self.changes.row = true;
        true
    }

    /// It will not come.
    pub fn abandon_checkpoint(&mut self) {
        self.coming = None;
    }

    /// Removes the records in `a..=b`.
    fn remove(&mut self, a: u64, b: u64, source: &mut dyn Source) -> Result<(), Error> {
        let start = self.block_before(a).unwrap_or(0);
        let ids: Vec<u64> = self
            .blocks
            .range(start..=b.max(start))
            .map(|(&id, _)| id)
            .collect();
        let noted = self.checkpoint.is_some();
        let removed_max = REMOVED_MIN.max(self.messages / 2) as usize;
        for id in ids {
            let block = self.blocks.get_mut(&id).expect("ids were just listed");
            if block.last < a {
                continue;
            }
            let before = block.live_bytes;
            let whole = a <= block.head.0 && block.last <= b;
            let coming = self.coming.as_mut().map(|coming| &mut coming.noted);
            for noted in self.checkpoint.iter_mut().chain(coming) {
                note_removed(noted, removed_max, id, block, (a, b), source);
            }
            let (count, bytes) = if whole {
                (u64::from(block.live), block.live_bytes)
            } else {
                let data = match &block.data {
                    Some(data) => data.clone(),
                    None => source.load(id, block)?,
                };
                let killed = block.kill(&data, a, b);
                // Of a block that cannot be read nothing could be written again.
                if block.live > 0 && block.mostly_dead() && data.has_bytes() {
                    block.rewrite(&data);
                    self.changes.rewritten_bytes += block.len as usize;
                }
                killed
            };
            let gone = whole || block.live == 0;
            // The bytes of damaged records are not all known one by one.
            let bytes = if gone { before } else { bytes };
            self.messages -= count;
            self.bytes -= bytes;
            if gone {
                self.blocks.remove(&id);
                self.changes.dirty_blocks.remove(&id);
                self.changes.removed_blocks.insert(id);
            } else if count > 0 {
                self.changes.dirty_blocks.insert(id);
            }
            self.changes.row |= count > 0;
            self.changes.checkpoint |= noted && count > 0;
        }
        Ok(())
    }

    /// Takes back what a checkpoint that failed had taken.
    pub fn put_back(&mut self, update: super::tables::Update) {
        let taken = update.changes;
        let removed = taken
            .removed_blocks
            .into_iter()
            .filter(|id| !self.blocks.contains_key(id));
        self.changes.removed_blocks.extend(removed);
        let dirty = taken
            .dirty_blocks
            .into_iter()
            .filter(|id| self.blocks.contains_key(id));
        self.changes.dirty_blocks.extend(dirty);
        for (id, _, _) in update.data {
            if let Some(block) = self.blocks.get_mut(&id) {
                block.dirty_data = true;
            }
        }
        self.changes.consumers.extend(taken.consumers);
        self.changes.checkpoint |= taken.checkpoint;
        self.changes.notes |= taken.notes;
        if let Some(notes) = &update.notes {
            self.notes.put_back(notes);
        }
        self.changes.row = true;
    }

    /// Lets go of the data a checkpoint has written; returns it for the cache.
    pub fn written(&mut self, update: super::tables::Update) -> Vec<(u64, u32, Data)> {
        if let (Some(noted), Some(written)) = (&mut self.checkpoint, &update.checkpoint)
            && noted.has_bytes_of(written)
        {
            // What was removed meanwhile is written next time, alone.
            noted.bytes = None;
        }
        if let Some(notes) = &update.notes {
            self.notes.written(notes);
        }
        let mut out = Vec::new();
        for (id, version, _) in update.data {
            if let Some(block) = self.blocks.get_mut(&id)
                && block.version == version
                && !block.dirty_data
            {
                out.extend(block.data.take().map(|data| (id, version, data)));
            }
        }
        out
    }

    /// Live records and bytes in `a..=b`.
    pub fn count(&self, a: u64, b: u64, source: &mut dyn Source) -> Result<(u64, u64), Error> {
        let (mut count, mut bytes) = (0, 0);
        let start = self.block_before(a).unwrap_or(0);
        for (&id, block) in self.blocks.range(start..=b.max(start)) {
            if block.last < a {
                continue;
            }
            if a <= block.head.0 && block.last <= b {
                count += u64::from(block.live);
                bytes += block.live_bytes;
                continue;
            }
            let data = match &block.data {
                Some(data) => data.clone(),
                None => source.load(id, block)?,
            };
            let mut place = data.lower_bound(a);
            while let Some((chunk, within)) = data.entry(place) {
                if chunk.index[within].seq > b {
                    break;
                }
                if !block.dead.contains(place) {
                    count += 1;
                    bytes += super::block::span(chunk, within) as u64;
                }
                place += 1;
            }
        }
        Ok((count, bytes))
    }
}

/// Lists what goes from under the caller's checkpoint, or gives the list up.
fn note_removed(
    noted: &mut Noted,
    removed_max: usize,
    id: u64,
    block: &Block,
    (a, b): (u64, u64),
    source: &mut dyn Source,
) {
    if a.max(id) > noted.upto_seq || noted.is_partial {
        return;
    }
    let room = removed_max.saturating_sub(noted.removed.len());
    let many = a <= id && block.last <= b && block.live as usize > room;
    let data = if many {
        None
    } else {
        block.data.clone().or_else(|| source.load(id, block).ok())
    };
    let Some(data) = data.filter(|data| room > 0 && data.has_bytes()) else {
        noted.removed = Removals::default();
        noted.is_partial = true;
        return;
    };
    let mut place = data.lower_bound(a);
    while let Some((chunk, within)) = data.entry(place) {
        let entry = chunk.index[within];
        if entry.seq > b.min(noted.upto_seq) {
            break;
        }
        if !block.dead.contains(place) && !entry.damaged {
            noted.removed.push(entry.seq, chunk.record(within).subject);
        }
        place += 1;
    }
}
