//! Reading a log: what is durable, from memory or through the cache.

use super::block::{Block, Data, Dead, record_at};
use super::core::BlockRef;
use super::error::Error;
use super::log::Log;
use super::record::{Record, RecordRef};
use super::view::View;
use std::ops::ControlFlow;

impl Log {
    /// The record at `seq`.
    pub fn get(&self, seq: u64) -> Result<Option<Record>, Error> {
        let found = self.find(
            |view| view.block_at(seq).filter(|&id| id <= seq),
            |block, data| {
                let place = data.lower_bound(seq);
                let (chunk, within) = data.entry(place)?;
                (chunk.index[within].seq == seq && !block.dead.contains(place)).then_some(place)
            },
        )?;
        match found {
            Found::Place(data, place) => self.record(&data, place).map(Some),
            Found::NoBlock | Found::NoPlace { .. } => Ok(None),
        }
    }

    /// The first live record at or above `seq`. A damaged one is an error that names it: go on behind it.
    pub fn next(&self, mut seq: u64) -> Result<Option<Record>, Error> {
        loop {
            let found = self.find(
                |view| view.block_at(seq),
                |block, data| block.first_live(data, data.lower_bound(seq)),
            )?;
            match found {
                Found::Place(data, place) => return self.record(&data, place).map(Some),
                Found::NoPlace { last, .. } => seq = last + 1,
                Found::NoBlock => return Ok(None),
            }
        }
    }

    /// The last live record at or below `seq`.
    pub fn prev(&self, mut seq: u64) -> Result<Option<Record>, Error> {
        loop {
            let found = self.find(
                |view| view.block_before(seq),
                |block, data| block.last_live(data, data.lower_bound(seq.saturating_add(1))),
            )?;
            match found {
                Found::Place(data, place) => return self.record(&data, place).map(Some),
                Found::NoPlace { id: 0, .. } | Found::NoBlock => return Ok(None),
                Found::NoPlace { id, .. } => seq = id - 1,
            }
        }
    }

    /// Calls `f` with the live records from `seq` on until it breaks, some `bytes_max` of records were
    /// seen, or the end; returns the sequence to go on from, or `None` at the end. No lock is held
    /// while `f` runs. Damaged records are passed over, and counted in [`damaged`](Self::damaged).
    pub fn scan(
        &self,
        mut seq: u64,
        bytes_max: u64,
        mut f: impl FnMut(&RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, Error> {
        let mut bytes = 0;
        loop {
            let (mut dead, mut last) = (Dead::default(), 0);
            let found = self.find(
                |view| view.block_at(seq),
                |block, data| {
                    (dead, last) = (block.dead.clone(), block.last);
                    Some(data.lower_bound(seq))
                },
            )?;
            let Found::Place(data, start) = found else {
                return Ok(None);
            };
            for place in start..data.records() {
                let Some((chunk, within)) = data.entry(place) else {
                    break;
                };
                let entry = chunk.index[within];
                if entry.damaged || dead.contains(place) {
                    seq = entry.seq + 1;
                    continue;
                }
                if bytes >= bytes_max {
                    return Ok(Some(entry.seq));
                }
                seq = entry.seq + 1;
                let record = chunk.record(within);
                bytes += record.stored_len();
                if f(&record).is_break() {
                    return Ok(Some(seq));
                }
            }
            seq = seq.max(last + 1);
        }
    }

    /// Up to `messages_max` live records of about `bytes_max` bytes from `seq` on, sharing the memory of
    /// their blocks: what a consumer reads.
    pub fn read(&self, seq: u64, messages_max: usize, bytes_max: u64) -> Result<Vec<Record>, Error> {
        let mut out = Vec::new();
        let (mut from, mut bytes) = (seq, 0);
        while out.len() < messages_max && bytes < bytes_max {
            let (mut dead, mut last) = (Dead::default(), 0);
            let found = self.find(
                |view| view.block_at(from),
                |block, data| {
                    (dead, last) = (block.dead.clone(), block.last);
                    Some(data.lower_bound(from))
                },
            )?;
            let Found::Place(data, start) = found else { break };
            for place in start..data.records() {
                if out.len() >= messages_max || bytes >= bytes_max {
                    break;
                }
                if dead.contains(place) {
                    continue;
                }
                if let Some(record) = record_at(&data, place) {
                    bytes += record.stored_len();
                    out.push(record);
                }
            }
            from = from.max(last + 1);
        }
        Ok(out)
    }

    /// The sequences between first and last that hold no live record, as inclusive ranges, at most
    /// `ranges_max` of them.
    pub fn deleted(&self, ranges_max: usize) -> Result<Vec<(u64, u64)>, Error> {
        let state = self.state();
        let mut out = Vec::new();
        let mut expected = state.first_seq;
        let mut seq = Some(state.first_seq);
        while let Some(from) = seq {
            seq = self.scan(from, u64::MAX, |record| {
                if record.seq > expected {
                    out.push((expected, record.seq - 1));
                }
                expected = record.seq + 1;
                if out.len() >= ranges_max {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if out.len() >= ranges_max {
                return Ok(out);
            }
        }
        if expected <= state.last_seq {
            out.push((expected, state.last_seq));
        }
        Ok(out)
    }

    /// Sequences whose record was found damaged since the log was opened.
    pub fn damaged(&self) -> Vec<u64> {
        self.inner().damaged.iter().copied().collect()
    }

    fn record(&self, data: &Data, place: usize) -> Result<Record, Error> {
        record_at(data, place).ok_or_else(|| {
            let seq = data
                .entry(place)
                .map_or(0, |(chunk, within)| chunk.index[within].seq);
            Error::DamagedRecord {
                stream: self.0.id,
                seq,
            }
        })
    }

    /// Picks a block, gets its data, and a place in it. The data may be fetched without the lock, so
    /// both questions are asked again until the answers belong together.
    fn find(
        &self,
        pick: impl Fn(&View) -> Option<u64>,
        mut place: impl FnMut(&Block, &Data) -> Option<usize>,
    ) -> Result<Found, Error> {
        loop {
            let mut inner = self.inner();
            let Some(id) = pick(&inner.view) else {
                return Ok(Found::NoBlock);
            };
            let block = &inner.view.blocks[&id];
            let (last, version, wanted) = (block.last, block.version, BlockRef::from(block));
            let data = match (&block.data, &inner.hot) {
                (Some(data), _) => data,
                (None, Some((hot, hot_version, data))) if (*hot, *hot_version) == (id, version) => data,
                _ => {
                    inner.hot = None;
                    drop(inner);
                    let data = self.load(id, &wanted)?;
                    let mut inner = self.inner();
                    let now = inner.view.blocks.get(&id);
                    if let Some(now) = now.filter(|now| BlockRef::from(*now) == wanted) {
                        let live = |(place, seq)| (!now.dead.contains(place)).then_some(seq);
                        let damaged: Vec<u64> = data.damaged_places().filter_map(live).collect();
                        for seq in damaged {
                            if inner.damaged.insert(seq) {
                                tracing::error!(
                                    "stream {} sequence {seq} is damaged: it is not served",
                                    self.0.id
                                );
                            }
                        }
                        inner.hot = Some((id, version, data));
                    }
                    continue;
                }
            };
            return Ok(match place(block, data) {
                Some(place) => Found::Place(data.clone(), place),
                None => Found::NoPlace { id, last },
            });
        }
    }
}

enum Found {
    NoBlock,
    NoPlace { id: u64, last: u64 },
    Place(Data, usize),
}
