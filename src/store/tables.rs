//! The database behind the journal. A checkpoint writes what changed in the logs' durable state; it is by
//! state, not by operation, so that doing one twice, or over an ambiguous commit, is harmless.
//!
//! Every transaction is a quick-repair one: an open after a kill then costs what changed, not what is stored,
//! and does not fail over a flipped bit in some block, as redb's full repair would.

use super::StreamId;
use super::base::Base;
use super::block::{Block, Data, index};
use super::disk::Disk;
use super::error::Error;
use super::notes::NotesUpdate;
use super::pack::{data_row, parse_data_row};
use super::schema::{
    BLOCK, CHECKPOINT, CONSUMER, DATA, NOTE, PART_BYTES, REMOVED_PART, STORE, STREAM, STREAM_COPY,
    StreamHead, block_row, checkpoint_head, consumer_row, doubtful_meta, mark_row, note_row, parse_block_row,
    parse_checkpoint_head, parse_consumer_row, parse_mark_row, parse_note_row, parse_removed_row,
    parse_stream_row, removed_row, stream_row,
};
use super::view::{Changes, Noted, View};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the tables have of the streams.
#[derive(Default)]
pub(super) struct Views {
    pub views: BTreeMap<u64, View>,
    /// What does not add up, a line each.
    pub damage: Vec<String>,
    /// Streams of whose row one copy is damaged or missing.
    pub rewrite: BTreeSet<u64>,
}

/// One stream's part of a checkpoint.
pub(super) struct Part {
    pub stream: StreamId,
    /// `None`: the stream is to be removed.
    pub update: Option<Update>,
}

pub(super) struct Update {
    pub changes: Changes,
    pub row: Vec<u8>,
    pub blocks: Vec<(u64, Vec<u8>)>,
    pub data: Vec<(u64, u32, Data)>,
    pub consumers: Vec<(String, Option<Vec<u8>>)>,
    pub checkpoint: Option<Noted>,
    pub notes: Option<NotesUpdate>,
    /// Whether the data is to be compressed.
    pub compress: bool,
}

/// The store's own numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    pub applied: u64,
    pub epoch: u64,
    pub next_stream: u64,
}

impl Numbers {
    fn sum(&self) -> u64 {
        let numbers = [self.applied, self.epoch, self.next_stream].map(u64::to_le_bytes);
        u64::from(crc32fast::hash(numbers.as_flattened()))
    }
}

pub(super) struct Tables(Base);

impl Tables {
    pub fn open(disk: Arc<dyn Disk>, cache_bytes: usize) -> Result<Tables, Error> {
        Ok(Tables(Base::open(disk, cache_bytes)?))
    }

    pub fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.0.using(|db| f(&db.begin_read()?))
    }

    /// `None` if they are damaged.
    pub fn numbers(&self) -> Result<Option<Numbers>, Error> {
        self.read(|txn| {
            let table = txn.open_table(STORE)?;
            let get = |name| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |v| v.value()));
            let numbers = Numbers {
                applied: get("applied")?,
                epoch: get("epoch")?,
                next_stream: get("next_stream")?,
            };
            // Stores of earlier versions have no sum.
            let sum = table.get("sum")?.map(|v| v.value());
            Ok(sum.is_none_or(|sum| sum == numbers.sum()).then_some(numbers))
        })
    }

    /// The records of a block, indexed; damaged ones are marked. `Ok(None)` if the row is not there or is
    /// another block's.
    pub fn load_block(&self, key: (u64, u64), last: u64) -> Result<Option<Data>, Error> {
        let row = self.read(|txn| Ok(txn.open_table(DATA)?.get(key)?.map(|v| v.value().to_vec())))?;
        let records = row.and_then(|row| parse_data_row(key, row));
        Ok(records.map(|bytes| Data::new(index(bytes, key.1..=last))))
    }

    pub fn load_checkpoint(&self, stream: u64) -> Result<Option<Bytes>, Error> {
        let parts = self.read(|txn| {
            let table = txn.open_table(CHECKPOINT)?;
            let Some(head) = table.get((stream, 0))? else {
                return Ok(None);
            };
            let head = parse_checkpoint_head(stream, head.value());
            let mut bytes = Vec::new();
            for part in table.range((stream, 1)..(stream, REMOVED_PART))? {
                bytes.extend_from_slice(part?.1.value());
            }
            Ok(Some((head, bytes)))
        })?;
        let Some((Some((len, crc)), bytes)) = parts else {
            return Ok(None);
        };
        let whole = bytes.len() as u64 == len && crc32fast::hash(&bytes) == crc;
        Ok(whole.then(|| Bytes::from(bytes)))
    }

    /// The bytes of a page of notes, if it is there.
    pub fn load_notes(&self, stream: u64, number: u64) -> Result<Option<Bytes>, Error> {
        self.read(|txn| {
            let row = txn.open_table(NOTE)?.get((stream, number))?;
            let page = row.and_then(|row| parse_note_row((stream, number), row.value()));
            Ok(page.map(|page| page.bytes.into()))
        })
    }

    /// Writes parts and numbers, durably.
    pub fn write(&self, parts: &[Part], numbers: Numbers) -> Result<(), Error> {
        self.change(|txn| {
            for part in parts {
                match &part.update {
                    Some(update) => write_update(txn, part.stream.0, update)?,
                    None => drop_stream(txn, part.stream.0)?,
                }
            }
            let mut store = txn.open_table(STORE)?;
            store.insert("applied", numbers.applied)?;
            store.insert("epoch", numbers.epoch)?;
            store.insert("next_stream", numbers.next_stream)?;
            store.insert("sum", numbers.sum())?;
            Ok(())
        })
    }

    /// Runs one durable transaction.
    pub fn change<T>(&self, f: impl Fn(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.0.changing(|db| {
            let mut txn = db.begin_write()?;
            txn.set_quick_repair(true);
            let out = f(&txn)?;
            txn.commit()?;
            Ok(out)
        })
    }

    /// All streams as the tables have them.
    pub fn views(&self) -> Result<Views, Error> {
        self.read(|txn| {
            let rows = |table: redb::ReadOnlyTable<u64, &[u8]>| {
                let rows = table.iter()?.map(|row| {
                    let (id, row) = row?;
                    Ok((id.value(), row.value().to_vec()))
                });
                rows.collect::<Result<BTreeMap<_, _>, redb::StorageError>>()
            };
            let (rows, copies) = (
                rows(txn.open_table(STREAM)?)?,
                rows(txn.open_table(STREAM_COPY)?)?,
            );
            let mut found = Views::default();
            let ids: BTreeSet<u64> = rows.keys().chain(copies.keys()).copied().collect();
            for id in ids.into_iter().chain(
                without_row(txn, &rows)?
                    .into_iter()
                    .filter(|id| !copies.contains_key(id)),
            ) {
                let (row, copy) = (rows.get(&id), copies.get(&id));
                let whole = |row: Option<&Vec<u8>>| row.and_then(|row| parse_stream_row(id, row));
                let (head, spare) = (whole(row), whole(copy));
                // A row under the key of another one: that one's key was damaged, and its copy has it.
                let strays =
                    row.is_none_or(|row| copies.iter().any(|(other, copy)| *other != id && copy == row));
                if head.is_none() && spare.is_none() && strays && (row.is_some() || copy.is_some()) {
                    continue;
                }
                if head.is_none() || spare.is_none() {
                    found.rewrite.insert(id);
                }
                let head = head.or(spare);
                let view = match head {
                    Some(head) => read_view(txn, id, head, &mut found.damage)?,
                    None => {
                        found.damage.push(format!("stream {id}: its row is damaged"));
                        let left = row.map_or_else(Bytes::new, |row| doubtful_meta(row));
                        let mut view = read_headless(txn, id, left, &mut found.damage)?;
                        view.last_time = last_time(txn, id, &view)?;
                        view
                    }
                };
                found.views.insert(id, view);
            }
            Ok(found)
        })
    }

    /// Moves what is stored to the front of the file, and cuts it off behind. Readers wait meanwhile.
    pub fn compact(&self) -> Result<(), Error> {
        self.0.compact()
    }

    pub fn close(&self) {
        self.0.close();
    }
}

fn write_update(txn: &WriteTransaction, stream: u64, update: &Update) -> Result<(), redb::Error> {
    txn.open_table(STREAM)?.insert(stream, &update.row[..])?;
    txn.open_table(STREAM_COPY)?.insert(stream, &update.row[..])?;
    let (mut blocks, mut data) = (txn.open_table(BLOCK)?, txn.open_table(DATA)?);
    for &id in &update.changes.removed_blocks {
        blocks.remove((stream, id))?;
        data.remove((stream, id))?;
    }
    for (id, row) in &update.blocks {
        blocks.insert((stream, *id), &row[..])?;
    }
    for (id, _, records) in &update.data {
        let row = data_row((stream, *id), &records.bytes(), update.compress);
        data.insert((stream, *id), &row[..])?;
    }
    let mut consumers = txn.open_table(CONSUMER)?;
    for (name, row) in &update.consumers {
        match row {
            Some(row) => consumers.insert((stream, &name[..]), &row[..])?,
            None => consumers.remove((stream, &name[..]))?,
        };
    }
    if let Some(notes) = &update.notes {
        let mut table = txn.open_table(NOTE)?;
        table.retain_in((stream, 1)..(stream, notes.from), |_, _| false)?;
        table.insert((stream, 0), &mark_row(stream, update.compress, &notes.mark)[..])?;
        for page in &notes.pages {
            table.insert((stream, page.first), &note_row(stream, page)[..])?;
        }
    }
    if update.changes.checkpoint {
        let mut table = txn.open_table(CHECKPOINT)?;
        match &update.checkpoint {
            Some(noted) => {
                if let Some(bytes) = &noted.bytes {
                    table.retain_in((stream, 0)..=(stream, REMOVED_PART), |_, _| false)?;
                    table.insert((stream, 0), &checkpoint_head(stream, bytes)[..])?;
                    for (part, bytes) in (1..).zip(bytes.chunks(PART_BYTES)) {
                        table.insert((stream, part), bytes)?;
                    }
                }
                table.insert((stream, REMOVED_PART), &removed_row(stream, noted)[..])?;
            }
            None => table.retain_in((stream, 0)..=(stream, REMOVED_PART), |_, _| false)?,
        }
    }
    Ok(())
}

fn drop_stream(txn: &WriteTransaction, stream: u64) -> Result<(), redb::Error> {
    txn.open_table(STREAM)?.remove(stream)?;
    txn.open_table(STREAM_COPY)?.remove(stream)?;
    txn.open_table(BLOCK)?
        .retain_in((stream, 0)..=(stream, u64::MAX), |_, _| false)?;
    txn.open_table(DATA)?
        .retain_in((stream, 0)..=(stream, u64::MAX), |_, _| false)?;
    txn.open_table(CHECKPOINT)?
        .retain_in((stream, 0)..=(stream, u32::MAX), |_, _| false)?;
    txn.open_table(NOTE)?
        .retain_in((stream, 0)..=(stream, u64::MAX), |_, _| false)?;
    txn.open_table(CONSUMER)?
        .retain_in((stream, "")..(stream + 1, ""), |_, _| false)?;
    Ok(())
}

/// Takes a log's changes for a checkpoint. Called under the log's lock.
pub(super) fn take_update(stream: u64, view: &mut View) -> Update {
    let changes = std::mem::take(&mut view.changes);
    let mut update = Update {
        row: stream_row(stream, view),
        blocks: Vec::new(),
        data: Vec::new(),
        consumers: Vec::new(),
        checkpoint: if changes.checkpoint {
            view.checkpoint.clone()
        } else {
            None
        },
        notes: changes.notes.then(|| view.notes.take()),
        compress: view.compress,
        changes,
    };
    for &id in &update.changes.dirty_blocks {
        let Some(block) = view.blocks.get_mut(&id) else {
            continue;
        };
        update.blocks.push((id, block_row((stream, id), block)));
        if let (true, Some(data)) = (block.dirty_data, &block.data) {
            update.data.push((id, block.version, data.clone()));
            block.dirty_data = false;
        }
    }
    for name in &update.changes.consumers {
        let row = view
            .consumers
            .get(name)
            .map(|row| consumer_row(stream, name, row));
        update.consumers.push((name.clone(), row));
    }
    update
}

/// The blocks and consumers of a stream, without what its row says.
fn read_headless(
    txn: &ReadTransaction,
    stream: u64,
    meta: Bytes,
    damage: &mut Vec<String>,
) -> Result<View, redb::Error> {
    let mut view = View {
        meta,
        meta_damaged: true,
        ..View::default()
    };
    for row in txn.open_table(BLOCK)?.range((stream, 0)..=(stream, u64::MAX))? {
        let (key, row) = row?;
        let key = key.value();
        match parse_block_row(key, row.value()).filter(|b| Block::plausible(b, key.1)) {
            Some(block) if key.1 > view.last_seq => {
                view.messages += u64::from(block.live);
                view.bytes += block.live_bytes;
                view.last_seq = block.last;
                view.blocks.insert(key.1, block);
            }
            _ => damage.push(format!("stream {stream}: block {} is damaged", key.1)),
        }
    }
    for row in txn.open_table(CONSUMER)?.range((stream, "")..(stream + 1, ""))? {
        let (key, row) = row?;
        let (_, name) = key.value();
        match parse_consumer_row(stream, name, row.value()) {
            Some(row) => drop(view.consumers.insert(name.to_string(), row)),
            None => damage.push(format!("stream {stream}: consumer {name} is damaged")),
        }
    }
    for row in txn.open_table(NOTE)?.range((stream, 0)..=(stream, u64::MAX))? {
        let (key, row) = row?;
        let key = key.value();
        if let (0, Some((compress, mark))) = (key.1, parse_mark_row(stream, row.value())) {
            (view.compress, view.notes.mark) = (compress, mark);
            continue;
        }
        match parse_note_row(key, row.value()) {
            Some(page) => view.notes.restore(&page),
            None => {
                view.notes.pass(key.1);
                damage.push(format!("stream {stream}: notes {} are damaged", key.1));
            }
        }
    }
    Ok(view)
}

/// The time of the last record that can be read, for a stream whose row does not say it.
fn last_time(txn: &ReadTransaction, stream: u64, view: &View) -> Result<i64, redb::Error> {
    let data = txn.open_table(DATA)?;
    for (&first, block) in view.blocks.iter().rev() {
        let Some(row) = data.get((stream, first))? else {
            continue;
        };
        let Some(records) = parse_data_row((stream, first), row.value().to_vec()) else {
            continue;
        };
        let chunk = index(records, first..=block.last);
        if let Some(place) = chunk.index.iter().rposition(|entry| !entry.damaged) {
            return Ok(chunk.record(place).time_ns);
        }
    }
    Ok(0)
}

fn read_view(
    txn: &ReadTransaction,
    stream: u64,
    head: StreamHead,
    damage: &mut Vec<String>,
) -> Result<View, redb::Error> {
    let mut view = read_headless(txn, stream, head.meta, damage)?;
    view.meta_damaged = false;
    if (head.blocks, head.messages) != (view.blocks.len() as u64, view.messages) {
        let lost = head.messages.saturating_sub(view.messages);
        damage.push(format!(
            "stream {stream}: {lost} messages are in blocks that cannot be read"
        ));
    }
    view.last_seq = view.last_seq.max(head.last_seq);
    view.last_time = head.last_time;
    view.checkpoint = match head.checkpoint {
        Some(upto_seq) => {
            let row = txn.open_table(CHECKPOINT)?.get((stream, REMOVED_PART))?;
            let removed = row.and_then(|row| parse_removed_row(stream, upto_seq, row.value()));
            // Without the list the checkpoint is still good for what is not of records.
            let removed = removed.flatten();
            let is_partial = removed.is_none();
            Some(Noted {
                upto_seq,
                bytes: None,
                removed: removed.unwrap_or_default(),
                is_partial,
            })
        }
        None => None,
    };
    Ok(view)
}

/// Streams of which there are blocks, but no row at all.
fn without_row(txn: &ReadTransaction, rows: &BTreeMap<u64, Vec<u8>>) -> Result<Vec<u64>, redb::Error> {
    let blocks = txn.open_table(BLOCK)?;
    let (mut from, mut out) = (0, Vec::new());
    while let Some(block) = blocks.range((from, 0)..)?.next() {
        let id = block?.0.value().0;
        if !rows.contains_key(&id) {
            out.push(id);
        }
        let Some(next) = id.checked_add(1) else { break };
        from = next;
    }
    Ok(out)
}
