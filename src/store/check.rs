//! `mesh store check`: reads everything in a closed store and says, stream by stream, what is whole.
//!
//! Opening brings the journal into the tables, as a server would. Beyond that nothing is changed unless
//! asked to repair; then block rows are rebuilt from their records, and what cannot be read is taken out
//! of its stream, so that it is no longer reported: such sequences become deleted ones.

use super::block::{Block, index};
use super::error::Error;
use super::open::Store;
use super::pack::parse_data_row;
use super::schema::{BLOCK, DATA, block_row, parse_block_row};
use super::tables::Tables;
use super::{Log, Options, StreamId};
use bytes::Bytes;
use redb::ReadableTable;
use std::ops::ControlFlow;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// By stream, in the order of their keys.
    pub streams: Vec<StreamReport>,
    /// What was wrong beyond single records, a line each.
    pub damage: Vec<String>,
    /// Journal entries cut off by the last crash; they were never acknowledged.
    pub torn_entries: u64,
    /// Block rows rebuilt from their records.
    pub rebuilt: u64,
    /// Sequences taken out of their streams because they could not be read.
    pub removed: u64,
}

/// One stream of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Its key.
    pub id: StreamId,
    /// The caller's own bytes.
    pub meta: Bytes,
    /// Live records that were read and are whole.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Live records that are damaged.
    pub damaged: Vec<u64>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.streams.iter().all(|s| s.damaged.is_empty())
    }
}

/// Checks the closed store of `options`; see the module.
pub(super) fn check(options: Options, repair: bool) -> Result<Report, Error> {
    let mut rebuilt = 0;
    if repair {
        let _lock = options
            .disk
            .is_none()
            .then(|| super::disk::DirLock::take(&options.dir))
            .transpose()?;
        let tables = Tables::open(options.open_disk(), options.cache_bytes_max / 4)?;
        rebuilt = rebuild_block_rows(&tables)?;
        tables.close();
    }
    let store = Store::open(options.clone())?;
    let info = store.info();
    let mut report = Report {
        damage: info.damage,
        torn_entries: info.torn_entries,
        rebuilt,
        ..Report::default()
    };
    for row in store.streams()? {
        let log = store.open_log(row.id)?;
        let stream = check_stream(&log, row.meta)?;
        if repair && !stream.damaged.is_empty() {
            report.removed += remove_damaged(&log, &stream.damaged)?;
        }
        report.streams.push(stream);
    }
    store.close()?;
    Ok(report)
}

fn check_stream(log: &Log, meta: Bytes) -> Result<StreamReport, Error> {
    let mut report = StreamReport {
        id: log.stream_id(),
        meta,
        messages: 0,
        bytes: 0,
        damaged: Vec::new(),
    };
    log.scan(0, u64::MAX, |record| {
        report.messages += 1;
        report.bytes += record.stored_len();
        ControlFlow::Continue(())
    })?;
    for seq in log.damaged() {
        if matches!(log.get(seq), Err(Error::DamagedRecord { .. })) {
            report.damaged.push(seq);
        }
    }
    Ok(report)
}

fn remove_damaged(log: &Log, damaged: &[u64]) -> Result<u64, Error> {
    let mut removed = 0;
    for &seq in damaged {
        removed += log.delete(seq)?.messages;
    }
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    log.commit(Box::new(move |result| {
        let _ = tx.send(result);
    }));
    rx.recv().map_err(|_| Error::Closed)??;
    Ok(removed)
}

/// Block rows whose checksum fails are written anew from their records; which of them had been deleted is
/// lost with the row, so those come back. A row without readable records goes.
fn rebuild_block_rows(tables: &Tables) -> Result<u64, Error> {
    tables.change(|txn| {
        let (mut blocks, mut data) = (txn.open_table(BLOCK)?, txn.open_table(DATA)?);
        let mut bad = Vec::new();
        for row in blocks.iter()? {
            let (key, row) = row?;
            if parse_block_row(key.value(), row.value()).is_none_or(|b| !b.plausible(key.value().1)) {
                bad.push(key.value());
            }
        }
        for &key in &bad {
            let records = data
                .get(key)?
                .and_then(|row| parse_data_row(key, row.value().to_vec()));
            let chunk = index(records.unwrap_or_default(), key.1..=u64::MAX - 1);
            if chunk.index.iter().all(|e| e.damaged) {
                blocks.remove(key)?;
                data.remove(key)?;
            } else {
                blocks.insert(key, &block_row(key, &Block::new(chunk))[..])?;
            }
        }
        Ok(bad.len() as u64)
    })
}
