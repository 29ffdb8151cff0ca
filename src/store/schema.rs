//! The tables, on one page. Numbers are little endian; every row but block data ends in a crc32 of key and
//! body (`wire::seal`). The version is in the table's name: a table that changes gets a new name, and a
//! step in `migrate` that fills it from the old one.
//!
//! | table | key | value |
//! |---|---|---|
//! | `store_v1` | name | `schema`, `applied` (journal entries up to it are in the tables), `epoch` (of the journal), `next_stream`, `sum` (crc32 of the three before) |
//! | `stream_v1` | stream | last seq, last time, messages, bytes, blocks, checkpoint (0, or its seq + 1), meta |
//! | `stream_copy_v1` | stream | its row of `stream_v1` once more, in pages of its own |
//! | `block_v1` | stream, block | last seq, records, live, live bytes, length, first live seq and time, bitmap of the deleted |
//! | `data_v1` | stream, block | stream, block, checksum, then the records as in `record.rs`, compressed or not (`pack.rs`) |
//! | `consumer_v1` | stream, name | meta, state, deltas of the state |
//! | `checkpoint_v1` | stream, part | part 0: length and crc32 of the whole; parts 1..: its bytes; last part: what was removed since |
//! | `note_v1` | stream, number of the first group | number of the last one, until when it is of use, notes; number 0: flags, mark |
//!
//! A block's key is the first sequence it ever held.
//!
//! | schema | what it brought |
//! |---|---|
//! | 1 | |
//! | 2 | `note_v1`; compressed rows of `data_v1`; notes in the journal |

use super::block::{BLOCK_BYTES, Block, Dead};
use super::notes::PageRow;
use super::removals::Removals;
use super::view::{ConsumerRow, Noted, View};
use super::wire::{Reader, name_key, put_bytes, seal, unseal};
use bytes::{BufMut, Bytes};
use redb::{ReadTransaction, TableDefinition, TableHandle, WriteTransaction};

pub(super) const SCHEMA: u64 = 2;
pub(super) const STORE: TableDefinition<&str, u64> = TableDefinition::new("store_v1");
pub(super) const STREAM: TableDefinition<u64, &[u8]> = TableDefinition::new("stream_v1");
/// Losing one row would lose all of a stream: its configuration is nowhere else.
pub(super) const STREAM_COPY: TableDefinition<u64, &[u8]> = TableDefinition::new("stream_copy_v1");
pub(super) const BLOCK: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("block_v1");
pub(super) const DATA: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("data_v1");
pub(super) const CONSUMER: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("consumer_v1");
pub(super) const CHECKPOINT: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("checkpoint_v1");

pub(super) const NOTE: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("note_v1");

/// Flag: blocks are compressed.
const COMPRESS: u8 = 1;
/// In place of a sequence: the list of what was removed is not whole.
const NOT_LISTED: u64 = u64::MAX;
/// Part of `checkpoint_v1` that lists what was removed since.
pub(super) const REMOVED_PART: u32 = u32::MAX;
/// Bytes of a part of a checkpoint.
pub(super) const PART_BYTES: usize = BLOCK_BYTES;

/// What has to be done before the tables can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Current,
    /// There is nothing yet, or a table is to be added.
    Behind,
    /// A version this program does not know.
    Unknown(u64),
    /// This table was there once.
    Lost(&'static str),
}

/// Compares what is there with [`SCHEMA`]. A table is never made where others are: it would hide that one is lost.
pub(super) fn standing(txn: &ReadTransaction) -> Result<Standing, redb::Error> {
    let there: Vec<String> = txn.list_tables()?.map(|table| table.name().to_owned()).collect();
    if there.is_empty() {
        return Ok(Standing::Behind);
    }
    let required = [
        STORE.name(),
        STREAM.name(),
        BLOCK.name(),
        DATA.name(),
        CONSUMER.name(),
        CHECKPOINT.name(),
    ];
    let later = [STREAM_COPY.name(), NOTE.name()];
    if let Some(lost) = required.iter().find(|name| !there.iter().any(|t| t == *name)) {
        return Ok(Standing::Lost(lost));
    }
    Ok(match txn.open_table(STORE)?.get("schema")?.map(|v| v.value()) {
        Some(SCHEMA) if later.iter().all(|name| there.iter().any(|t| t == *name)) => Standing::Current,
        // Nothing but tables is new since; what is in them an older program would not read.
        Some(1 | SCHEMA) => Standing::Behind,
        Some(other) => Standing::Unknown(other),
        None => Standing::Lost(STORE.name()),
    })
}

/// Creates the tables, or brings them to [`SCHEMA`].
pub(super) fn migrate(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(STORE)?.insert("schema", SCHEMA)?;
    txn.open_table(STREAM)?;
    txn.open_table(STREAM_COPY)?;
    txn.open_table(BLOCK)?;
    txn.open_table(DATA)?;
    txn.open_table(CONSUMER)?;
    txn.open_table(CHECKPOINT)?;
    txn.open_table(NOTE)?;
    Ok(())
}

pub(super) fn stream_row(id: u64, view: &View) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + view.meta.len());
    out.put_u64_le(view.last_seq);
    out.put_i64_le(view.last_time);
    out.put_u64_le(view.messages);
    out.put_u64_le(view.bytes);
    out.put_u64_le(view.blocks.len() as u64);
    out.put_u64_le(view.checkpoint.as_ref().map_or(0, |c| c.upto_seq + 1));
    out.put_slice(&view.meta);
    let mut row = seal((id, 0), out);
    if view.meta_damaged
        && let Some(last) = row.last_mut()
    {
        // What is damaged stays so: a checksum that fits would make it look whole.
        *last ^= 0xff;
    }
    row
}

/// What stands where the caller's own bytes are, in a row that cannot be trusted.
pub(super) fn doubtful_meta(row: &[u8]) -> Bytes {
    let end = row.len().saturating_sub(4);
    Bytes::copy_from_slice(row.get(48..end).unwrap_or_default())
}

/// What a stream row says; the counters are there to be compared with what the blocks say.
pub(super) struct StreamHead {
    pub last_seq: u64,
    pub last_time: i64,
    pub messages: u64,
    pub blocks: u64,
    pub checkpoint: Option<u64>,
    pub meta: Bytes,
}

pub(super) fn parse_stream_row(id: u64, row: &[u8]) -> Option<StreamHead> {
    let mut r = Reader(unseal((id, 0), row)?);
    let (last_seq, last_time, messages, _bytes) = (r.u64()?, r.u64()? as i64, r.u64()?, r.u64()?);
    let (blocks, checkpoint) = (r.u64()?, r.u64()?.checked_sub(1));
    let meta = Bytes::copy_from_slice(r.0);
    Some(StreamHead {
        last_seq,
        last_time,
        messages,
        blocks,
        checkpoint,
        meta,
    })
}

pub(super) fn block_row(key: (u64, u64), block: &Block) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + block.dead.words().len() * 8);
    out.put_u64_le(block.last);
    out.put_u32_le(block.records);
    out.put_u32_le(block.live);
    out.put_u64_le(block.live_bytes);
    out.put_u64_le(block.len);
    out.put_u64_le(block.head.0);
    out.put_i64_le(block.head.1);
    block.dead.words().iter().for_each(|&word| out.put_u64_le(word));
    seal(key, out)
}

pub(super) fn parse_block_row(key: (u64, u64), row: &[u8]) -> Option<Block> {
    let mut r = Reader(unseal(key, row)?);
    let mut block = Block {
        last: r.u64()?,
        records: r.u32()?,
        live: r.u32()?,
        live_bytes: r.u64()?,
        len: r.u64()?,
        head: (r.u64()?, r.u64()? as i64),
        dead: Dead::default(),
        version: 0,
        data: None,
        dirty_data: false,
    };
    let mut words = Vec::with_capacity(r.0.len() / 8);
    while !r.0.is_empty() {
        words.push(r.u64()?);
    }
    block.dead = Dead::from_words(words);
    Some(block)
}

pub(super) fn consumer_row(stream: u64, name: &str, row: &ConsumerRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + row.meta.len() + row.state.len());
    put_bytes(&mut out, &row.meta);
    put_bytes(&mut out, &row.state);
    row.deltas.iter().for_each(|delta| put_bytes(&mut out, delta));
    seal((stream, name_key(name)), out)
}

pub(super) fn parse_consumer_row(stream: u64, name: &str, row: &[u8]) -> Option<ConsumerRow> {
    let mut r = Reader(unseal((stream, name_key(name)), row)?);
    let mut row = ConsumerRow {
        meta: Bytes::copy_from_slice(r.bytes()?),
        state: Bytes::copy_from_slice(r.bytes()?),
        deltas: Vec::new(),
    };
    while !r.0.is_empty() {
        row.deltas.push(Bytes::copy_from_slice(r.bytes()?));
    }
    Some(row)
}

/// Part 0: what the parts that follow have to add up to.
pub(super) fn checkpoint_head(stream: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.put_u64_le(bytes.len() as u64);
    out.put_u32_le(crc32fast::hash(bytes));
    seal((stream, 0), out)
}

pub(super) fn parse_checkpoint_head(stream: u64, row: &[u8]) -> Option<(u64, u32)> {
    let mut r = Reader(unseal((stream, 0), row)?);
    Some((r.u64()?, r.u32()?))
}

pub(super) fn removed_row(stream: u64, noted: &Noted) -> Vec<u8> {
    let mut out = Vec::new();
    if noted.is_partial {
        out.put_u64_le(NOT_LISTED);
        put_bytes(&mut out, b"");
    }
    out.extend(noted.removed.bytes());
    seal((stream, noted.upto_seq), out)
}

/// What was removed; `Some(None)` if that was given up.
pub(super) fn parse_removed_row(stream: u64, upto_seq: u64, row: &[u8]) -> Option<Option<Removals>> {
    let mut r = Reader(unseal((stream, upto_seq), row)?);
    let mut out = Removals::default();
    while !r.0.is_empty() {
        let (seq, subject) = (r.u64()?, r.bytes()?);
        if seq == NOT_LISTED {
            return Some(None);
        }
        out.push(seq, subject);
    }
    Some(Some(out))
}

/// The row of number 0: flags and mark.
pub(super) fn mark_row(stream: u64, compress: bool, mark: &[u8]) -> Vec<u8> {
    let mut out = vec![if compress { COMPRESS } else { 0 }];
    out.put_slice(mark);
    seal((stream, 0), out)
}

pub(super) fn parse_mark_row(stream: u64, row: &[u8]) -> Option<(bool, Bytes)> {
    let mut r = Reader(unseal((stream, 0), row)?);
    Some((r.u8()? & COMPRESS != 0, Bytes::copy_from_slice(r.0)))
}

pub(super) fn note_row(stream: u64, page: &PageRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + page.bytes.len());
    out.put_u64_le(page.last);
    out.put_i64_le(page.until);
    out.put_slice(&page.bytes);
    seal((stream, page.first), out)
}

pub(super) fn parse_note_row(key: (u64, u64), row: &[u8]) -> Option<PageRow> {
    let mut r = Reader(unseal(key, row)?);
    Some(PageRow {
        first: key.1,
        last: r.u64()?,
        until: r.u64()? as i64,
        bytes: r.0.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log_tests::{commit, record};
    use crate::store::{Options, Store};
    use redb::{Database, ReadableDatabase};

    /// Makes the store of today one of schema 1.
    fn as_it_was(path: &std::path::Path) {
        let db = Database::create(path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(STORE).unwrap().insert("schema", 1).unwrap();
        txn.delete_table(NOTE).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn a_store_of_schema_1_is_brought_to_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path());
        let store = Store::open(options.clone()).unwrap();
        let log = store.create_stream("meta").unwrap();
        for seq in 1..=10 {
            log.append(&record(seq, 100).as_ref()).unwrap();
        }
        commit(&log).unwrap();
        store.close().unwrap();
        as_it_was(&dir.path().join("mesh.redb"));
        let store = Store::open(options.clone()).unwrap();
        assert_eq!(store.info().damage, Vec::<String>::new());
        let log = store.open_log(log.stream_id()).unwrap();
        assert_eq!((log.state().messages, &log.meta()[..]), (10, &b"meta"[..]));
        assert!(!log.is_compressed() && log.notes().unwrap() == crate::store::Notes::default());
        log.compress(true);
        log.put_mark("mark");
        log.note(1, 2, b"note");
        commit(&log).unwrap();
        store.close().unwrap();
        let store = Store::open(options).unwrap();
        let log = store.open_log(log.stream_id()).unwrap();
        let notes = log.notes().unwrap();
        assert!(log.is_compressed());
        assert_eq!(
            (&notes.pages[..], &notes.mark[..]),
            (&["note".into()][..], &b"mark"[..])
        );
        store.close().unwrap();
        let db = Database::open(dir.path().join("mesh.redb")).unwrap();
        let txn = db.begin_read().unwrap();
        assert_eq!(
            txn.open_table(STORE)
                .unwrap()
                .get("schema")
                .unwrap()
                .unwrap()
                .value(),
            2
        );
    }
}
