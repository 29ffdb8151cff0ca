//! The journal: what was acknowledged but is not yet in the tables.
//!
//! Two files take turns. An entry is one write and one sync; it holds the groups of many logs. When a file
//! is full the other one is begun, once everything in it is in the tables (see `tables.rs`), so the files
//! keep their size and a sync has no file metadata to write.
//!
//! ```text
//! entry, at a multiple of 4 KiB: "MJN1" | crc32 of the header | epoch | lsn | synced lsn | body length
//!                                | crc32 of the body | body: groups
//! group: stream | length | crc32 of stream and payload | payload
//! ```
//!
//! The lsn goes up by one an entry. There is a new epoch, which is written to the tables, whenever the journal
//! begins from nothing, so that no entry of an earlier life is taken for one of this (`epoch.rs`). `synced` is the last
//! lsn that was known to be synced when the entry was written: an entry that is not whole but lies at or
//! below a later `synced` is damage; otherwise it is the torn end, which nobody was promised.

use super::block::{Chunk, index};
use super::disk::{Disk, StorageBackend};
use super::group::{ConsumerChange, Group};
use super::notes::GroupNotes;
use super::record::SEQ_MAX;
use super::wire::{Reader, put_bytes, seal, unseal};
use bytes::{BufMut, Bytes};
use std::io;

const MAGIC: u32 = u32::from_le_bytes(*b"MJN1");
pub(super) const HEADER: usize = 52;
/// First sequence, last sequence and count of a group's records, with their checksum.
const NUMBERS: usize = 24;
pub(super) const ALIGN: u64 = 4096;
/// New room is written with zeros this much at a time.
const GROW_BYTES: u64 = 1 << 20;
pub(super) const NAMES: [&str; 2] = ["journal.0", "journal.1"];

/// Bits in which the epoch of a damaged header may differ from ours.
const EPOCH_BITS_OFF: u32 = 2;

/// As entries had it before [`NUMBERED`]; still read.
const RECORDS: u8 = 1;
const REMOVED: u8 = 2;
const TRUNCATE: u8 = 3;
const META: u8 = 4;
const CONSUMER: u8 = 5;
const DROP_STREAM: u8 = 6;
/// Records with their first and last sequence and their count, sealed: so a damaged one is known by its place.
const NUMBERED: u8 = 8;
const NOTES: u8 = 10;
const MARK: u8 = 11;
const COMPRESS: u8 = 12;
/// The weight that marks the second copy of a stream's own bytes.
const META_ALONE: usize = usize::MAX;

/// One file of the two.
#[derive(Debug)]
struct Segment {
    file: Box<dyn StorageBackend>,
    /// Where the next entry goes.
    pos: u64,
    /// Up to here the file has its blocks.
    room: u64,
    /// The last entry in it; it may be begun anew once the tables hold that.
    last_lsn: u64,
}

#[derive(Debug)]
pub(super) struct Journal {
    segments: [Segment; 2],
    active: usize,
    epoch: u64,
    /// The last entry written, and the last one synced.
    pub lsn: u64,
    pub synced: u64,
}

impl Journal {
    /// Begins an empty journal, whose `epoch` is in the tables.
    pub fn begin(disk: &dyn Disk, epoch: u64, lsn: u64) -> io::Result<Journal> {
        let segment = |name| {
            let file = disk.open(name)?;
            // One that was cut off gets its length back when it grows.
            let room = file.len()? / GROW_BYTES * GROW_BYTES;
            Ok::<_, io::Error>(Segment {
                file,
                pos: 0,
                room,
                last_lsn: 0,
            })
        };
        let segments = [segment(NAMES[0])?, segment(NAMES[1])?];
        Ok(Journal {
            segments,
            active: 0,
            epoch,
            lsn,
            synced: lsn,
        })
    }

    /// What the two files take.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.room).sum()
    }

    /// Whether the active file has reached its limit.
    pub fn full(&self, limit: u64) -> bool {
        self.segments[self.active].pos >= limit
    }

    /// Goes on in the other file, if the tables hold all that is in it.
    pub fn turn(&mut self, applied: u64, limit: u64) -> io::Result<bool> {
        let other = &mut self.segments[1 - self.active];
        if other.last_lsn > applied {
            return Ok(false);
        }
        // One large entry does not make the file large for ever.
        if other.room > 4 * limit.max(GROW_BYTES) {
            let room = limit.next_multiple_of(GROW_BYTES);
            other.file.set_len(room)?;
            other.room = room;
        }
        other.pos = 0;
        self.active = 1 - self.active;
        Ok(true)
    }

    /// Writes one entry, which begins with room for its header, see [`begin_entry`].
    pub fn write(&mut self, entry: &mut [u8]) -> io::Result<()> {
        let lsn = self.lsn + 1;
        fill_header(entry, self.epoch, lsn, self.synced);
        let segment = &mut self.segments[self.active];
        let end = (segment.pos + entry.len() as u64).next_multiple_of(ALIGN);
        if end > segment.room {
            let room = end.next_multiple_of(GROW_BYTES);
            segment.file.set_len(room)?;
            // A file of another length was cut off by somebody else, see `is_cut`.
            segment.file.sync_data()?;
            // The zeros reach the disk with this entry's sync; from then on syncs are of data alone.
            let zeros = vec![0; (room - end) as usize];
            segment.file.write(end, &zeros)?;
            segment.room = room;
        }
        segment.file.write(segment.pos, entry)?;
        segment.pos = end;
        segment.last_lsn = lsn;
        self.lsn = lsn;
        Ok(())
    }

    /// Makes all entries durable.
    pub fn sync(&mut self) -> io::Result<()> {
        // The other file may hold unsynced entries only if it was active since the last sync.
        let other = &self.segments[1 - self.active];
        if other.last_lsn > self.synced {
            other.file.sync_data()?;
        }
        self.segments[self.active].file.sync_data()?;
        self.synced = self.lsn;
        Ok(())
    }
}

/// Makes a buffer that of a new entry, before its groups.
pub(super) fn begin_entry(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER, 0);
}

fn fill_header(entry: &mut [u8], epoch: u64, lsn: u64, synced: u64) {
    let (header, body) = entry.split_at_mut(HEADER);
    let mut rest = &mut header[8..];
    rest.put_u64_le(epoch);
    rest.put_u64_le(lsn);
    rest.put_u64_le(synced);
    rest.put_u64_le(body.len() as u64);
    rest.put_u32_le(crc32fast::hash(body));
    let crc = crc32fast::hash(&header[8..]);
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Appends a group to an entry; `None` drops the stream.
pub(super) fn put_group(out: &mut Vec<u8>, stream: u64, group: Option<&Group>) {
    out.put_u64_le(stream);
    let at = out.len();
    out.put_u64_le(0);
    match group {
        None => out.put_u8(DROP_STREAM),
        Some(group) => put_payload(out, group),
    }
    let payload = &out[at + 8..];
    let (len, crc) = (payload.len() as u32, group_crc(stream, payload));
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    if let Some(meta) = group.and_then(|group| group.meta.as_ref())
        && group.is_some_and(|group| group.bytes != META_ALONE)
    {
        // Once more by itself: without its configuration a stream cannot be served.
        let alone = Group {
            meta: Some(meta.clone()),
            bytes: META_ALONE,
            ..Group::default()
        };
        put_group(out, stream, Some(&alone));
    }
}

fn put_payload(out: &mut Vec<u8>, group: &Group) {
    if !group.chunk.bytes.is_empty() {
        out.put_u8(NUMBERED);
        let (first, last) = group.chunk.seqs();
        let mut numbers = Vec::with_capacity(NUMBERS);
        numbers.put_u64_le(first);
        numbers.put_u64_le(last);
        numbers.put_u32_le(group.chunk.index.len() as u32);
        out.put_slice(&seal((0, 0), numbers));
        put_bytes(out, &group.chunk.bytes);
    }
    if !group.removed.is_empty() {
        out.put_u8(REMOVED);
        out.put_u32_le(group.removed.len() as u32);
        for &(a, b) in &group.removed {
            out.put_u64_le(a);
            out.put_u64_le(b);
        }
    }
    if let Some(first) = group.truncate {
        out.put_u8(TRUNCATE);
        out.put_u64_le(first);
    }
    if let Some(meta) = &group.meta {
        out.put_u8(META);
        put_bytes(out, meta);
    }
    for (name, change) in &group.consumers {
        out.put_u8(CONSUMER);
        put_bytes(out, name.as_bytes());
        let flags = [
            change.remove,
            change.meta.is_some(),
            change.state.is_some(),
            !change.deltas.is_empty(),
        ];
        out.put_u8(
            flags
                .iter()
                .enumerate()
                .map(|(bit, &on)| u8::from(on) << bit)
                .sum(),
        );
        change
            .meta
            .iter()
            .chain(&change.state)
            .for_each(|bytes| put_bytes(out, bytes));
        if !change.deltas.is_empty() {
            out.put_u32_le(change.deltas.len() as u32);
            for (number, delta) in &change.deltas {
                out.put_u32_le(*number);
                put_bytes(out, delta);
            }
        }
    }
    if let Some(notes) = &group.notes {
        out.put_u8(NOTES);
        out.put_u64_le(notes.number);
        out.put_i64_le(notes.now);
        out.put_i64_le(notes.until);
        put_bytes(out, &notes.bytes);
        if let Some(mark) = &notes.mark {
            out.put_u8(MARK);
            put_bytes(out, mark);
        }
    }
    if let Some(on) = group.compress {
        out.put_slice(&[COMPRESS, u8::from(on)]);
    }
}

/// A group as it was read back.
pub(super) enum Replayed {
    Group(u64, Group),
    DropStream(u64),
}

/// The records of a group, the damaged ones marked; `None` if nothing can be told about them.
fn parse_records(tag: u8, r: &mut Reader<'_>) -> Option<Chunk> {
    match tag {
        RECORDS => Some(index(Bytes::copy_from_slice(r.bytes()?), 1..=SEQ_MAX)),
        NUMBERED => {
            let numbers = unseal((0, 0), r.take(NUMBERS)?).map(Reader);
            let records = Bytes::copy_from_slice(r.bytes()?);
            let Some(mut numbers) = numbers else {
                return Some(index(records, 1..=SEQ_MAX));
            };
            let (first, last, count) = (numbers.u64()?, numbers.u64()?, numbers.u32()?);
            Some(index(records, first..=last).filled(count as usize))
        }
        _ => None,
    }
}

fn parse_group(stream: u64, payload: &[u8]) -> Option<Replayed> {
    let mut group = Group::default();
    let mut r = Reader(payload);
    while !r.0.is_empty() {
        match r.u8()? {
            tag @ (RECORDS | NUMBERED) => group.chunk = parse_records(tag, &mut r)?,
            REMOVED => {
                for _ in 0..r.u32()? {
                    group.removed.push((r.u64()?, r.u64()?));
                }
            }
            TRUNCATE => group.truncate = Some(r.u64()?),
            META => group.meta = Some(Bytes::copy_from_slice(r.bytes()?)),
            CONSUMER => {
                let name = String::from_utf8(r.bytes()?.to_vec()).ok()?;
                let flags = r.u8()?;
                let mut part = |bit: u8| {
                    if flags & bit == 0 {
                        Some(None)
                    } else {
                        Some(Some(Bytes::copy_from_slice(r.bytes()?)))
                    }
                };
                let (meta, state) = (part(2)?, part(4)?);
                let mut change = ConsumerChange {
                    remove: flags & 1 != 0,
                    meta,
                    state,
                    deltas: Vec::new(),
                };
                if flags & 8 != 0 {
                    for _ in 0..r.u32()? {
                        let number = r.u32()?;
                        change.deltas.push((number, Bytes::copy_from_slice(r.bytes()?)));
                    }
                }
                group.consumers.insert(name, change);
            }
            NOTES => {
                group.notes = Some(Box::new(GroupNotes {
                    number: r.u64()?,
                    now: r.u64()? as i64,
                    until: r.u64()? as i64,
                    bytes: r.bytes()?.to_vec(),
                    mark: None,
                }));
            }
            MARK => group.notes.as_mut()?.mark = Some(Bytes::copy_from_slice(r.bytes()?)),
            COMPRESS => group.compress = Some(r.u8()? != 0),
            DROP_STREAM => return Some(Replayed::DropStream(stream)),
            _ => return None,
        }
    }
    Some(Replayed::Group(stream, group))
}

/// What an opening store found in the journal.
#[derive(Default)]
pub(super) struct Found {
    /// In order.
    pub groups: Vec<Replayed>,
    pub last_lsn: u64,
    /// One line for each damaged spot that held promised data.
    pub damage: Vec<String>,
    /// Entries at the end that were not whole: writes cut off, which nobody was promised.
    pub torn: u64,
}

struct Entry {
    lsn: u64,
    synced: u64,
    /// Whether it matches its checksums.
    whole: bool,
    body: Vec<u8>,
}

/// Reads the entries of `epoch` behind `applied`.
pub(super) fn read(disk: &dyn Disk, epoch: u64, applied: u64) -> io::Result<Found> {
    let (mut entries, mut cut) = (Vec::new(), Vec::new());
    for name in NAMES {
        let file = disk.open(name)?;
        if read_file(&*file, epoch, applied, &mut entries)? {
            cut.push(format!("{name} was cut off: entries at its end are lost"));
        }
    }
    entries.sort_by_key(|e| e.lsn);
    let promised = entries.iter().map(|e| e.synced).max().unwrap_or(0);
    let mut found = Found {
        last_lsn: applied,
        damage: cut,
        ..Found::default()
    };
    for entry in entries {
        let expected = found.last_lsn + 1;
        let missing = entry.lsn != expected;
        if (missing && promised < expected) || (!entry.whole && promised < entry.lsn) {
            found.torn += 1;
            // What follows a torn entry was never promised either, and must not be applied without it.
            break;
        }
        if missing {
            found.damage.push(format!(
                "journal entries {expected} to {} are not readable",
                entry.lsn - 1
            ));
        }
        if !entry.whole {
            found
                .damage
                .push(format!("journal entry {} is damaged", entry.lsn));
        }
        parse_entry(&entry, &mut found);
        found.last_lsn = entry.lsn;
    }
    if found.last_lsn < promised {
        found.damage.push(format!(
            "journal entries {} to {promised} are not readable",
            found.last_lsn + 1
        ));
        found.last_lsn = promised;
    }
    Ok(found)
}

/// Says whether the file was cut off.
fn read_file(file: &dyn StorageBackend, epoch: u64, applied: u64, out: &mut Vec<Entry>) -> io::Result<bool> {
    let len = file.len()?;
    let (mut at, mut header, mut entries_end) = (0, [0; HEADER], 0);
    while at + HEADER as u64 <= len {
        file.read(at, &mut header)?;
        let ours = parse_header(&header).filter(|h| h.0 == epoch);
        if let Some((.., body_len, _)) = ours {
            entries_end = (at + HEADER as u64).saturating_add(body_len);
        }
        let parsed = ours.filter(|h| h.3 <= len - at - HEADER as u64);
        let Some((_, lsn, synced, body_len, crc)) = parsed else {
            if resembles(&header, epoch, applied) {
                let lsn = out.last().map_or(applied, |e: &Entry| e.lsn) + 1;
                out.push(Entry {
                    lsn,
                    synced: 0,
                    whole: false,
                    body: Vec::new(),
                });
            }
            at += ALIGN;
            continue;
        };
        if lsn > applied {
            let mut body = vec![0; body_len as usize];
            file.read(at + HEADER as u64, &mut body)?;
            let whole = crc32fast::hash(&body) == crc;
            out.push(Entry {
                lsn,
                synced,
                whole,
                body,
            });
        }
        at = (at + HEADER as u64 + body_len).next_multiple_of(ALIGN);
    }
    Ok(is_cut(len, entries_end))
}

pub(super) fn parse_header(header: &[u8]) -> Option<(u64, u64, u64, u64, u32)> {
    let mut r = Reader(header);
    if r.u32()? != MAGIC || r.u32()? != crc32fast::hash(r.0) {
        return None;
    }
    Some((r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u32()?))
}

/// Whether a header that is not whole was once one of this epoch. Its epoch has to be left but for a bit or two, and one
/// more mark: nobody outside knows that number, so no payload can be made to look like a header.
fn resembles(header: &[u8], epoch: u64, applied: u64) -> bool {
    let mut r = Reader(header);
    let magic = r.u32() == Some(MAGIC);
    let _crc = r.u32();
    let off = r.u64().map_or(u64::BITS, |found| (found ^ epoch).count_ones());
    let lsn = r.u64().unwrap_or(0);
    off <= EPOCH_BITS_OFF && lsn > applied && (magic || lsn - applied < 1 << 20)
}

fn parse_entry(entry: &Entry, found: &mut Found) {
    let mut r = Reader(&entry.body);
    while !r.0.is_empty() {
        if let Some((stream, payload, rest)) = whole_group(r.0) {
            found.groups.extend(parse_group(stream, payload));
            r = Reader(rest);
            continue;
        }
        let (stream, len, crc) = (r.u64(), r.u32(), r.u32());
        found.damage.push(format!(
            "a group of stream {} in journal entry {} is damaged",
            stream.unwrap_or(0),
            entry.lsn
        ));
        // Mostly its length is whole, and the next group stands behind it; else it is where bytes are a group.
        let payload = len.and_then(|len| Reader(r.0).take(len as usize));
        let behind = payload.map(|payload| &r.0[payload.len()..]);
        let behind = behind.filter(|rest| rest.is_empty() || whole_group(rest).is_some());
        if let (Some(stream), Some(payload), Some(_)) = (stream, payload, behind) {
            salvage(stream, payload, crc.unwrap_or(0), found);
        }
        let search = || {
            (0..r.0.len())
                .map(|at| &r.0[at..])
                .find(|rest| whole_group(rest).is_some())
        };
        r = Reader(behind.or_else(search).unwrap_or_default());
    }
}

/// The group at the start of `bytes`, if it matches its checksum: its stream, its payload, and what follows.
fn whole_group(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let mut r = Reader(bytes);
    let (stream, len, crc) = (r.u64()?, r.u32()?, r.u32()?);
    let payload = r.take(len as usize)?;
    // Earlier versions left the stream out.
    let fits = group_crc(stream, payload) == crc || crc32fast::hash(payload) == crc;
    (!payload.is_empty() && fits).then_some((stream, payload, r.0))
}

fn group_crc(stream: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stream.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Takes the records out of a damaged group. They carry checksums of their own: the good ones are kept, the bad ones marked.
fn salvage(stream: u64, payload: &[u8], crc: u32, found: &mut Found) {
    // It must not go into another stream: perhaps nothing but a bit of that number is damaged.
    let other = (0..u64::BITS).map(|bit| stream ^ (1 << bit));
    if let Some(stream) = { other }.find(|&stream| group_crc(stream, payload) == crc) {
        found.groups.extend(parse_group(stream, payload));
        return;
    }
    let mut r = Reader(payload);
    let records = r.u8().and_then(|tag| parse_records(tag, &mut r));
    if let Some(chunk) = records.filter(|chunk| !chunk.index.is_empty()) {
        let group = Group {
            chunk,
            ..Group::default()
        };
        found.groups.push(Replayed::Group(stream, group));
    }
}

/// Whether somebody has cut a file off: it ends with its last entry, or within it, where a whole one has room behind.
fn is_cut(len: u64, entries_end: u64) -> bool {
    !len.is_multiple_of(GROW_BYTES) && entries_end > 0 && len.saturating_sub(entries_end) < ALIGN
}
