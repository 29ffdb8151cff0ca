//! One stored message and its bytes.
//!
//! ```text
//! u32 length of the whole record | u32 crc32 of all that follows | u64 seq | i64 time (unix ns)
//! | u32 header bytes | u16 subject bytes | subject | headers | payload          (little endian)
//! ```
//!
//! The same bytes stand in the journal, in a block on disk and in memory: a record is encoded once.

use bytes::{BufMut, Bytes};

/// Bytes a record takes beside its subject, headers and payload.
pub const RECORD_OVERHEAD: usize = 30;
/// The largest encoded record a log accepts.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// The last sequence a log can hold: the one behind it is a number still.
pub const SEQ_MAX: u64 = u64::MAX - 1;

/// A stored message; the parts share the memory of the block they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the stream, from 1.
    pub seq: u64,
    /// When it was stored, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The subject it was published to.
    pub subject: Bytes,
    /// The whole header block, or empty.
    pub headers: Bytes,
    /// The body.
    pub payload: Bytes,
}

impl Record {
    /// The same record, borrowed.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            seq: self.seq,
            time_ns: self.time_ns,
            subject: &self.subject,
            headers: &self.headers,
            payload: &self.payload,
        }
    }

    /// The bytes this record counts for in [`LogState::bytes`](super::LogState::bytes).
    pub fn stored_len(&self) -> u64 {
        self.as_ref().stored_len()
    }
}

/// A message to append, or one seen by a scan, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Position in the stream, from 1.
    pub seq: u64,
    /// When it was stored, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The subject it was published to; at most 65,535 bytes.
    pub subject: &'a [u8],
    /// The whole header block, or empty.
    pub headers: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Subject + headers + payload + [`RECORD_OVERHEAD`]: what stream limits count.
    pub fn stored_len(&self) -> u64 {
        (RECORD_OVERHEAD + self.subject.len() + self.headers.len() + self.payload.len()) as u64
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let len = self.stored_len() as usize;
        let mut head = [0; RECORD_OVERHEAD];
        let mut rest = &mut head[..];
        rest.put_u32_le(len as u32);
        rest.put_u32_le(0);
        rest.put_u64_le(self.seq);
        rest.put_i64_le(self.time_ns);
        rest.put_u32_le(self.headers.len() as u32);
        rest.put_u16_le(self.subject.len() as u16);
        out.reserve(len);
        let start = out.len();
        for part in [&head, self.subject, self.headers, self.payload] {
            out.extend_from_slice(part);
        }
        let crc = crc32fast::hash(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at the start of `buf`, whose bytes were checked before.
    pub(super) fn decode(buf: &'a [u8]) -> Option<RecordRef<'a>> {
        let len = u32_at(buf, 0)? as usize;
        if len < RECORD_OVERHEAD || len > buf.len() {
            return None;
        }
        let (headers, subject) = (u32_at(buf, 24)? as usize, u16_at(buf, 28)? as usize);
        let body = &buf[RECORD_OVERHEAD..len];
        if headers.checked_add(subject)? > body.len() {
            return None;
        }
        let (subject, rest) = body.split_at(subject);
        let (headers, payload) = rest.split_at(headers);
        Some(RecordRef {
            seq: u64_at(buf, 8)?,
            time_ns: u64_at(buf, 16)? as i64,
            subject,
            headers,
            payload,
        })
    }

    /// Like [`decode`](Self::decode), for bytes that may be damaged: the checksum decides.
    pub(super) fn decode_checked(buf: &'a [u8]) -> Option<RecordRef<'a>> {
        let record = Self::decode(buf)?;
        let len = record.stored_len() as usize;
        (crc32fast::hash(&buf[8..len]) == u32_at(buf, 4)?).then_some(record)
    }

    /// An owned record whose parts are slices of `from`, in which `self` was decoded.
    pub(super) fn share(&self, from: &Bytes) -> Record {
        Record {
            seq: self.seq,
            time_ns: self.time_ns,
            subject: from.slice_ref(self.subject),
            headers: from.slice_ref(self.headers),
            payload: from.slice_ref(self.payload),
        }
    }
}

pub(super) fn u16_at(buf: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(buf.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(buf: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(buf.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(buf: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(buf.get(at..at + 8)?.try_into().ok()?))
}
