//! What was removed from under the caller's checkpoint: sequences and subjects, as their row has them.
//!
//! Every checkpoint of the tables takes a copy of the list under the log's lock, so all but its end is shared.

use super::wire::{Reader, put_bytes};
use bytes::{BufMut, Bytes};

/// Bytes from which on the end of the list is shared.
const PIECE_BYTES: usize = 64 << 10;

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Removals {
    len: usize,
    pieces: Vec<Bytes>,
    end: Vec<u8>,
}

impl Removals {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, seq: u64, subject: &[u8]) {
        self.len += 1;
        self.end.put_u64_le(seq);
        put_bytes(&mut self.end, subject);
        if self.end.len() >= PIECE_BYTES {
            self.pieces.push(std::mem::take(&mut self.end).into());
        }
    }

    /// The body of its row.
    pub fn bytes(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        pieces.chain([&self.end[..]]).collect::<Vec<_>>().concat()
    }

    /// One after the other.
    pub fn list(&self) -> Vec<(u64, Bytes)> {
        let bytes = self.bytes();
        let mut r = Reader(&bytes);
        let read = || Some((r.u64()?, Bytes::copy_from_slice(r.bytes()?)));
        std::iter::from_fn(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_was_put_into_it() {
        let subject = |n: u64| Bytes::from(format!("some.{n}"));
        let expected: Vec<_> = (1..20_000).map(|n| (n * 3, subject(n))).collect();
        let mut list = Removals::default();
        expected
            .iter()
            .for_each(|(seq, subject)| list.push(*seq, subject));
        assert!(list.pieces.len() > 3 && !list.end.is_empty());
        assert_eq!((list.len(), list.list()), (expected.len(), expected));
        assert_eq!(list.clone(), list);
    }
}
