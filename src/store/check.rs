//! `mesh store check`: reads everything in a closed store and says, stream by stream, what is whole.
//!
//! Opening brings the journal into the tables, as a server would. Beyond that nothing is changed unless
//! asked to repair; then block rows are rebuilt from their records, and what cannot be read is taken out
//! of its stream, so that it is no longer reported: such sequences become deleted ones.

use super::block::{Block, index};
use super::error::Error;
use super::open::{Store, StreamRow};
use super::pack::parse_data_row;
use super::rescue::{read_through, rescue};
use super::schema::{BLOCK, CONSUMER, DATA, block_row, parse_block_row, parse_consumer_row};
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
    /// What a repair could not bring back, a line each: it is no longer reported.
    pub gave_up: Vec<String>,
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
    /// They are what is left of them.
    pub meta_damaged: bool,
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
        self.damage.is_empty()
            && self
                .streams
                .iter()
                .all(|s| s.damaged.is_empty() && !s.meta_damaged)
    }
}

/// Gives a stream whose own bytes are damaged others, if they cannot stay, and says what that means.
pub type Mend<'a> = &'a dyn Fn(&StreamRow) -> Option<(Bytes, String)>;

/// Checks the closed store of `options`; see the module.
pub(super) fn check(options: Options) -> Result<Report, Error> {
    Ok(look(options, None)?.0)
}

/// Repairs the closed store of `options`; see the module.
pub(super) fn repair(options: Options, mend: Mend<'_>) -> Result<Report, Error> {
    match repair_over(&options, mend, false) {
        // All of it can be read, yet nothing can be written to it: what redb keeps for itself is damaged.
        Err(Error::Damaged(_) | Error::Failed(_)) => repair_over(&options, mend, true),
        other => other,
    }
}

/// Repairs the database as it is, or one made anew from it.
fn repair_over(options: &Options, mend: Mend<'_>, anew: bool) -> Result<Report, Error> {
    let (rebuilt, mut gave_up) = repair_rows(options, anew)?;
    // What the journal had that was damaged is gone with the open that brings the rest into the tables.
    let (found, removed) = look(options.clone(), Some(mend))?;
    gave_up.extend(found.damage);
    gave_up.extend(found.gave_up);
    let (mut report, _) = look(options.clone(), None)?;
    report.damage.retain(|line| !gave_up.contains(line));
    for (stream, before) in report.streams.iter_mut().zip(found.streams) {
        stream.damaged.extend(before.damaged);
    }
    Ok(Report {
        torn_entries: found.torn_entries,
        gave_up,
        rebuilt,
        removed,
        ..report
    })
}

/// Reads everything; takes out the damaged records if asked to, and says how many they were.
fn look(options: Options, mend: Option<Mend<'_>>) -> Result<(Report, u64), Error> {
    let store = Store::open(options)?;
    let info = store.info();
    let mut report = Report {
        damage: info.damage,
        torn_entries: info.torn_entries,
        ..Report::default()
    };
    let mut removed = 0;
    for row in store.streams()? {
        let log = store.open_log(row.id)?;
        let stream = check_stream(&log, &row)?;
        if let Some(mend) = mend {
            if let Some((meta, line)) = mend(&row) {
                log.put_meta(meta);
                report.gave_up.push(line);
            } else if !report.damage.is_empty() {
                // So that its row is written anew, with what is there now.
                log.put_meta(row.meta);
            }
            removed += remove_damaged(&log, &stream.damaged)?;
        }
        report.streams.push(stream);
    }
    store.close()?;
    Ok((report, removed))
}

/// Repairs the tables themselves: the whole database if redb cannot read it, then the rows. How many block rows were
/// rebuilt, and what was given up.
fn repair_rows(options: &Options, anew: bool) -> Result<(u64, Vec<String>), Error> {
    let _lock = options
        .disk
        .is_none()
        .then(|| super::disk::DirLock::take(&options.dir))
        .transpose()?;
    let (disk, cache_bytes) = (options.open_disk(), options.cache_bytes_max / 4);
    let open = || {
        let tables = Tables::open(disk.clone(), cache_bytes)?;
        let (_, lost) = tables.read(read_through)?;
        tables.views()?;
        match lost.first() {
            None => Ok(tables),
            Some(line) => Err(Error::Damaged(line.clone())),
        }
    };
    let opened = match open() {
        Ok(tables) if anew => {
            tables.close();
            Err(Error::Damaged("nothing can be written to it".to_owned()))
        }
        other => other,
    };
    let (tables, mut gave_up) = match opened {
        // A part of the disk that cannot be read is damage as well.
        Err(Error::Damaged(_) | Error::Failed(_)) => {
            let lines = rescue(&disk, cache_bytes)?;
            (open()?, lines)
        }
        other => (other?, Vec::new()),
    };
    let rebuilt = rebuild_block_rows(&tables)?;
    gave_up.extend(drop_consumer_rows(&tables)?);
    tables.close();
    Ok((rebuilt, gave_up))
}

/// Consumer rows whose checksum fails are taken out: which messages those consumers had settled is lost with them.
fn drop_consumer_rows(tables: &Tables) -> Result<Vec<String>, Error> {
    tables.change(|txn| {
        let mut consumers = txn.open_table(CONSUMER)?;
        let mut bad = Vec::new();
        for row in consumers.iter()? {
            let (key, row) = row?;
            let (stream, name) = key.value();
            if parse_consumer_row(stream, name, row.value()).is_none() {
                bad.push((stream, name.to_owned()));
            }
        }
        for (stream, name) in &bad {
            consumers.remove((*stream, &name[..]))?;
        }
        let lines = bad
            .iter()
            .map(|(stream, name)| format!("stream {stream}: consumer {name} was taken out"));
        Ok(lines.collect())
    })
}

fn check_stream(log: &Log, row: &StreamRow) -> Result<StreamReport, Error> {
    let mut report = StreamReport {
        id: row.id,
        meta: row.meta.clone(),
        meta_damaged: row.damaged,
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
