//! Little-endian fields, and rows sealed with a checksum that covers their key as well.

use super::record::{u16_at, u32_at, u64_at};
use bytes::BufMut;

/// Takes fields off the front of a slice; `None` once it is too short.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        u16_at(self.take(2)?, 0)
    }

    pub fn u32(&mut self) -> Option<u32> {
        u32_at(self.take(4)?, 0)
    }

    pub fn u64(&mut self) -> Option<u64> {
        u64_at(self.take(8)?, 0)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

pub(super) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn checksum(key: (u64, u64), body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.0.to_le_bytes());
    hasher.update(&key.1.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Appends the checksum of key and body.
pub(super) fn seal(key: (u64, u64), mut body: Vec<u8>) -> Vec<u8> {
    let crc = checksum(key, &body);
    body.put_u32_le(crc);
    body
}

/// The body, if the checksum fits it and the key.
pub(super) fn unseal(key: (u64, u64), row: &[u8]) -> Option<&[u8]> {
    let (body, crc) = row.split_at_checked(row.len().checked_sub(4)?)?;
    (checksum(key, body) == u32_at(crc, 0)?).then_some(body)
}

/// A name as the second half of a key, for the checksum alone.
pub(super) fn name_key(name: &str) -> u64 {
    u64::from(crc32fast::hash(name.as_bytes())) | (name.len() as u64) << 32
}
