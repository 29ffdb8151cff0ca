//! Reading a log: what is durable, from memory or through the cache.

use super::block::{Block, Data, Dead, record_at, span};
use super::core::{BlockRef, lost};
use super::error::Error;
use super::log::{Inner, Log};
use super::record::{Record, RecordRef};
use super::view::View;
use std::ops::ControlFlow;

/// What a scan meets.
pub enum Scanned<'a> {
    /// A record.
    Record(&'a RecordRef<'a>),
    /// Its bytes do not match their checksum: what it was cannot be told.
    Damaged {
        /// Its sequence, as far as it can be told.
        seq: u64,
        /// Its bytes.
        bytes: u64,
    },
}

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
        seq: u64,
        bytes_max: u64,
        mut f: impl FnMut(&RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, Error> {
        self.scan_all(seq, bytes_max, |scanned| match scanned {
            Scanned::Record(record) => f(record),
            Scanned::Damaged { .. } => ControlFlow::Continue(()),
        })
    }

    /// The same, with what is damaged.
    pub fn scan_all(
        &self,
        mut seq: u64,
        bytes_max: u64,
        mut f: impl FnMut(Scanned<'_>) -> ControlFlow<()>,
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
                if dead.contains(place) {
                    seq = entry.seq + 1;
                    continue;
                }
                if bytes >= bytes_max {
                    return Ok(Some(entry.seq));
                }
                seq = entry.seq + 1;
                let len = span(chunk, within) as u64;
                bytes += len;
                let flow = match entry.damaged {
                    true => f(Scanned::Damaged {
                        seq: entry.seq,
                        bytes: len,
                    }),
                    false => f(Scanned::Record(&chunk.record(within))),
                };
                if flow.is_break() {
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

    /// The sequences between first and last that hold no record, as inclusive ranges, at most
    /// `ranges_max` of them. A block that was never rewritten tells without its data.
    pub fn deleted(&self, ranges_max: usize) -> Result<Vec<(u64, u64)>, Error> {
        let state = self.state();
        let mut out = Vec::new();
        let mut expected = state.first_seq;
        let mut seq = state.first_seq;
        while out.len() < ranges_max {
            let next = {
                let inner = self.inner();
                let id = inner.view.block_at(seq);
                id.map(|id| {
                    let block = &inner.view.blocks[&id];
                    (id, block.last, u64::from(block.records), block.dead.clone())
                })
            };
            let Some((id, last, records, dead)) = next else {
                break;
            };
            let mut live = |seq: u64| {
                if seq > expected {
                    out.push((expected, seq - 1));
                }
                expected = expected.max(seq + 1);
            };
            if records == last + 1 - id {
                let places = (0..records).filter(|&place| !dead.contains(place as usize));
                places.for_each(|place| live(id + place));
            } else {
                self.scan_block(id, last, live)?;
            }
            seq = last + 1;
        }
        out.truncate(ranges_max);
        if out.len() < ranges_max && expected <= state.last_seq {
            out.push((expected, state.last_seq));
        }
        Ok(out)
    }

    /// Calls `live` with the sequences of the records of a block.
    fn scan_block(&self, id: u64, last: u64, mut live: impl FnMut(u64)) -> Result<(), Error> {
        self.scan_all(id, u64::MAX, |scanned| {
            let seq = match scanned {
                Scanned::Record(record) => record.seq,
                Scanned::Damaged { seq, .. } => seq,
            };
            if seq <= last {
                live(seq);
            }
            match seq < last {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(())
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
                    // A page that does not hold together costs the blocks in it, not those behind.
                    let (data, is_whole) = match self.load(id, &wanted) {
                        Err(Error::Damaged(_)) => (lost(id, &wanted), false),
                        data => (data?, true),
                    };
                    let mut inner = self.inner();
                    let now = inner.view.blocks.get(&id);
                    let Some(now) = now.filter(|now| BlockRef::from(*now) == wanted) else {
                        continue;
                    };
                    let live = |(place, seq)| (!now.dead.contains(place)).then_some(seq);
                    let damaged: Vec<u64> = data.damaged_places().filter_map(live).collect();
                    if !is_whole {
                        let found = place(now, &data);
                        self.name_damaged(&mut inner, damaged);
                        return Ok(match found {
                            Some(place) => Found::Place(data, place),
                            None => Found::NoPlace { id, last },
                        });
                    }
                    self.name_damaged(&mut inner, damaged);
                    inner.hot = Some((id, version, data));
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

impl Log {
    fn name_damaged(&self, inner: &mut Inner, damaged: Vec<u64>) {
        for seq in damaged {
            if inner.damaged.insert(seq) {
                tracing::error!("stream {} sequence {seq} is damaged: it is not served", self.0.id);
            }
        }
    }
}

enum Found {
    NoBlock,
    NoPlace { id: u64, last: u64 },
    Place(Data, usize),
}
