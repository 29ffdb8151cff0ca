//! Rescue of a database that redb refuses to open, or cannot read to its end: what can be read is copied into a new one,
//! and the damaged one is kept beside it. Only when asked for.
//!
//! redb reads a file without its list of free pages, and without verifying it, for those that only follow what another
//! process writes; so that is how it is opened here, over a copy of its first page that is mended in memory (and of the page
//! that lists the tables, `mend.rs`). What comes of
//! that is worth what its rows' own checksums say, which whoever opens the new database looks at.
//!
//! Deliberately absent: a search for rows that no tree leads to. Rows that were removed would come back with them.

use super::StorageBackend;
use super::base::{Boxed, Closing, NAME, guard, io_error};
use super::disk::Disk;
use super::error::Error;
use super::mend::mend_roots;
use super::overlay::Overlay;
use super::record::u64_at;
use super::schema::{BLOCK, CHECKPOINT, CONSUMER, DATA, NOTE, SCHEMA, STORE, STREAM, STREAM_COPY, migrate};
use super::wire::Reader;
use redb::{
    AccessGuard, BackendError, ConcurrencyMode, Database, Key, ReadOnlyDatabase, ReadTransaction,
    ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction,
};
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Where the new database grows.
const NEW: &str = "mesh.redb.new";
/// Where the damaged one is kept.
pub(super) const KEPT: &str = "mesh.redb.damaged";

/// What of the first page is the same in every database, and the byte behind it, see redb's design document.
const GOD_BYTE: usize = 9;
const GEOMETRY: Range<usize> = 12..24;
/// Of each of the two commits the version of the file's format.
const VERSIONS: [usize; 2] = [64, 192];
/// And its number.
const COMMITS: [usize; 2] = [64 + 104, 192 + 104];
/// How many regions are full, and the pages of the last one: what the length of the file says, too.
const REGIONS: Range<usize> = 24..32;
/// What cannot be read is found in pieces of this size.
const PIECE: usize = 4096;
const PRIMARY: u8 = 1;
const TWO_PHASE: u8 = 4;

/// Puts a new database in the place of the damaged one; says what could not be read, a line each.
pub(super) fn rescue(disk: &Arc<dyn Disk>, cache_bytes: usize) -> Result<Vec<String>, Error> {
    let head = first_page(&**disk)?;
    let mut best: Option<(Closing<ReadOnlyDatabase>, Walk)> = None;
    for (age, other) in [(Age::Last, 0), (Age::BeforeLast, PRIMARY)] {
        let mut head = head.clone();
        head[GOD_BYTE] = (head[GOD_BYTE] & PRIMARY ^ other) | TWO_PHASE;
        let number = COMMITS[usize::from(head[GOD_BYTE] & PRIMARY)];
        let number = u64_at(&head, number).unwrap_or(0);
        let Ok(db) = open_doubtful(disk, &head, cache_bytes) else {
            continue;
        };
        let Ok(walk) = walk(&db, age, number) else {
            continue;
        };
        if best.as_ref().is_none_or(|(_, found)| walk.better_than(found)) {
            best = Some((db, walk));
        }
    }
    let Some((db, walk)) = best else {
        return Err(Error::Damaged(format!(
            "nothing of {NAME} can be read: put a copy of the directory in its place, or move {NAME} away to begin anew"
        )));
    };
    copy(disk, &db, cache_bytes)?;
    drop(db);
    disk.replace(NAME, NEW, KEPT).map_err(|e| io_error(&e))?;
    let mut lines = walk.lost;
    if matches!(walk.age, Age::BeforeLast) {
        lines.push("the last checkpoint cannot be read: the one before it was taken".to_owned());
    }
    lines.push(format!(
        "the database was made anew from what could be read; the damaged one is kept as {KEPT}"
    ));
    Ok(lines)
}

#[derive(Debug, Clone, Copy)]
enum Age {
    Last,
    BeforeLast,
}

/// What a reading has come to.
struct Walk {
    age: Age,
    /// Of the commit.
    number: u64,
    rows: u64,
    lost: Vec<String>,
}

impl Walk {
    fn better_than(&self, other: &Walk) -> bool {
        let loss = self.lost.len().cmp(&other.lost.len());
        // Of two whole ones the later one, whichever the file says is that; else the one that says more.
        let by_rows = other.rows.cmp(&self.rows);
        let then = match self.lost.is_empty() {
            true => other.number.cmp(&self.number),
            false => by_rows,
        };
        loss.then(then).is_lt()
    }
}

/// The first page with what never changes as redb writes it.
fn first_page(disk: &dyn Disk) -> Result<Vec<u8>, Error> {
    let file = Unlocked(disk.open(NAME).map_err(|e| io_error(&e))?);
    let mut page = vec![0; PIECE];
    let len = file.len().map_err(|e| io_error(&e))?;
    file.read(0, &mut page).map_err(|e| io_error(&e))?;
    let fresh = Arc::new(Overlay::new(Arc::new(Nothing)));
    let made = fresh.open(NAME).map_err(|e| io_error(&e))?;
    guard(|| {
        drop(Database::builder().create_with_backend(Boxed(made))?);
        Ok(())
    })?;
    let mut right = vec![0; 4096];
    let made = fresh.open(NAME).map_err(|e| io_error(&e))?;
    made.read(0, &mut right).map_err(|e| io_error(&e))?;
    page[..GOD_BYTE].copy_from_slice(&right[..GOD_BYTE]);
    page[GEOMETRY].copy_from_slice(&right[GEOMETRY]);
    for at in VERSIONS {
        page[at] = right[at];
    }
    page[REGIONS].copy_from_slice(&regions(&right, len).unwrap_or_default());
    Ok(page)
}

/// Length of a page, pages of a region before its data, and of its data.
fn geometry(head: &[u8]) -> Option<(u64, u64, u64)> {
    let mut numbers = Reader(head.get(GEOMETRY)?);
    Some((
        numbers.u32()?.into(),
        numbers.u32()?.into(),
        numbers.u32()?.into(),
    ))
}

fn region_bytes(head: &[u8]) -> Option<u64> {
    geometry(head).map(|(page, header, data)| page * (header + data))
}

/// The regions of a file of this length.
fn regions(head: &[u8], len: u64) -> Option<[u8; 8]> {
    let (page, header, _) = geometry(head)?;
    let region = region_bytes(head)?;
    // One page at least: without any there is nothing to be opened.
    let behind = len.saturating_sub(page).max((header + 1) * page);
    let full = u32::try_from(behind.checked_div(region)?).ok()?;
    let last = ((behind % region) / page).saturating_sub(header) as u32;
    let mut out = [0; 8];
    out[..4].copy_from_slice(&full.to_le_bytes());
    out[4..].copy_from_slice(&last.to_le_bytes());
    Some(out)
}

/// Opens the database over `head`, without changing it.
fn open_doubtful(
    disk: &Arc<dyn Disk>,
    head: &[u8],
    cache_bytes: usize,
) -> Result<Closing<ReadOnlyDatabase>, Error> {
    let over = Overlay::new(disk.clone());
    let file = over.open(NAME).map_err(|e| io_error(&e))?;
    file.write(0, head).map_err(|e| io_error(&e))?;
    let region_bytes = region_bytes(head).unwrap_or_default();
    mend_roots(&*file, head, region_bytes).map_err(|e| io_error(&e))?;
    guard(|| {
        let mut builder = Database::builder();
        builder
            .set_cache_size(cache_bytes)
            .set_concurrency_mode(ConcurrencyMode::SingleWriter);
        Ok(Closing::new(
            builder.open_read_only_with_backend(Unlocked(file))?,
            Arc::default(),
        ))
    })
}

/// Reads all of it.
fn walk(db: &ReadOnlyDatabase, age: Age, number: u64) -> Result<Walk, Error> {
    let (rows, lost) = guard(|| read_through(&db.begin_read()?))?;
    Ok(Walk {
        age,
        number,
        rows,
        lost,
    })
}

/// Reads every row of a database: how many there are, and what cannot be read.
pub(super) fn read_through(txn: &ReadTransaction) -> Result<(u64, Vec<String>), redb::Error> {
    let (mut rows, mut lost) = (0, Vec::new());
    rows += read_table(txn, STORE, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, STREAM, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, STREAM_COPY, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, BLOCK, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, DATA, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, CONSUMER, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, CHECKPOINT, &mut lost, |_, _| Ok(()))?;
    rows += read_table(txn, NOTE, &mut lost, |_, _| Ok(()))?;
    Ok((rows, lost))
}

fn copy(disk: &Arc<dyn Disk>, from: &ReadOnlyDatabase, cache_bytes: usize) -> Result<(), Error> {
    let file = disk.open(NEW).map_err(|e| io_error(&e))?;
    // One that was left behind half done.
    file.set_len(0).map_err(|e| io_error(&e))?;
    guard(|| {
        let db = Closing::new(
            Database::builder()
                .set_cache_size(cache_bytes)
                .create_with_backend(Boxed(file))?,
            Arc::default(),
        );
        let from = from.begin_read()?;
        let mut txn = db.begin_write()?;
        txn.set_quick_repair(true);
        migrate(&txn)?;
        let mut lost = Vec::new();
        copy_table(&from, &txn, STORE, &mut lost)?;
        {
            let mut store = txn.open_table(STORE)?;
            store.insert("schema", SCHEMA)?;
            if !lost.is_empty() {
                // A sum that fits nothing: the journal is asked.
                store.insert("sum", u64::MAX)?;
            }
        }
        copy_table(&from, &txn, STREAM, &mut lost)?;
        copy_table(&from, &txn, STREAM_COPY, &mut lost)?;
        copy_table(&from, &txn, BLOCK, &mut lost)?;
        copy_table(&from, &txn, DATA, &mut lost)?;
        copy_table(&from, &txn, CONSUMER, &mut lost)?;
        copy_table(&from, &txn, CHECKPOINT, &mut lost)?;
        copy_table(&from, &txn, NOTE, &mut lost)?;
        txn.commit()?;
        Ok(())
    })
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    lost: &mut Vec<String>,
) -> Result<(), redb::Error> {
    let mut copy = to.open_table(table)?;
    read_table(from, table, lost, |key, value| {
        copy.insert(key, value)?;
        Ok(())
    })?;
    Ok(())
}

/// Gives `f` the rows of a table: from its begin to the first that cannot be read, then from its end. Says how many.
fn read_table<K: Key + 'static, V: Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
    lost: &mut Vec<String>,
    mut f: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), redb::Error>,
) -> Result<u64, redb::Error> {
    use redb::TableHandle;
    let name = table.name().to_owned();
    let opened = guard(|| Ok(txn.open_table(table)?));
    let Ok(open) = opened else {
        lost.push(format!("the table {name} cannot be read"));
        return Ok(0);
    };
    let (mut rows, mut last) = (0, None);
    let Ok(mut forth) = guard(|| Ok(open.iter()?)) else {
        lost.push(format!("the table {name} cannot be read"));
        return Ok(0);
    };
    let mut some_lost = || {
        let line = format!("some rows of the table {name} cannot be read");
        if lost.last() != Some(&line) {
            lost.push(line);
        }
    };
    loop {
        match guard(|| Ok(forth.next().transpose()?)) {
            Ok(None) => return Ok(rows),
            Ok(Some((key, value))) => match key_bytes::<K>(&key) {
                Some(bytes) => {
                    last = Some(bytes);
                    f(key.value(), value.value())?;
                    rows += 1;
                }
                None => some_lost(),
            },
            Err(_) => break,
        }
    }
    some_lost();
    let Ok(mut back) = guard(|| Ok(open.iter()?.rev())) else {
        return Ok(rows);
    };
    while let Ok(Some((key, value))) = guard(|| Ok(back.next().transpose()?)) {
        let bytes = key_bytes::<K>(&key);
        if last.is_some() && bytes == last {
            break;
        }
        if bytes.is_some() {
            f(key.value(), value.value())?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// `None` for what cannot be a key: a name that is no text.
fn key_bytes<K: Key + 'static>(key: &AccessGuard<'_, K>) -> Option<Vec<u8>> {
    guard(|| Ok(K::as_bytes(&key.value()).as_ref().to_vec())).ok()
}

/// A disk with no files.
#[derive(Debug)]
struct Nothing;

impl Disk for Nothing {
    fn open(&self, _: &str) -> io::Result<Box<dyn StorageBackend>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn open_existing(&self, _: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(None)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// A file nobody else has: the directory is locked. What cannot be read of it is zeros, for redb reads nothing more behind an
/// error, as behind the end of a file that was cut off.
#[derive(Debug)]
struct Unlocked(Box<dyn StorageBackend>);

impl StorageBackend for Unlocked {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read(offset, out).is_ok() {
            return Ok(());
        }
        let len = self.0.len()?;
        for (at, piece) in (offset..).step_by(PIECE).zip(out.chunks_mut(PIECE)) {
            let there = (len.saturating_sub(at) as usize).min(piece.len());
            let (there, behind) = piece.split_at_mut(there);
            behind.fill(0);
            if self.0.read(at, there).is_err() {
                there.fill(0);
            }
        }
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
