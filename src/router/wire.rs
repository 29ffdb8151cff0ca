//! Bytes on their way to one client: a flat buffer, with large payloads spliced in by reference.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::protocol::encode::{self, Message};

/// From this size on a payload is most of the buffer it was read into: keeping it keeps little else.
const LARGE_MIN: usize = 64 << 10;

/// Encoded output. Small pieces are copied into one buffer; a payload given as [`Bytes`] stays where it
/// is and is spliced in when the buffer leaves through a vectored write.
#[derive(Debug, Default)]
pub struct WireBuf {
    bytes: Vec<u8>,
    /// `(position in bytes, payload that stands there)`, positions never decreasing.
    splices: Vec<(usize, Bytes)>,
    spliced_len: usize,
}

impl WireBuf {
    /// Bytes in all, spliced payloads included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.spliced_len
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.splices.is_empty()
    }

    /// The flat buffer, for encoders that write small things.
    pub fn flat(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Encodes one delivery; with `shared` its payload travels by reference.
    #[inline]
    pub fn delivery(
        &mut self,
        sid: &[u8],
        message: &Message<'_>,
        with_headers: bool,
        shared: Option<&Bytes>,
    ) {
        if with_headers {
            self.bytes.push(b'H');
        }
        encode::delivery_start(&mut self.bytes, message.subject, sid);
        self.rest(message, with_headers, shared);
    }

    /// The same with the start of its line at hand.
    #[inline]
    pub fn delivery_with(
        &mut self,
        line: &[u8],
        message: &Message<'_>,
        with_headers: bool,
        shared: Option<&Bytes>,
    ) {
        if with_headers {
            self.bytes.push(b'H');
        }
        self.bytes.extend_from_slice(line);
        self.rest(message, with_headers, shared);
    }

    #[inline]
    fn rest(&mut self, message: &Message<'_>, with_headers: bool, shared: Option<&Bytes>) {
        let headers = if with_headers { message.headers } else { &[] };
        let total = headers.len() + message.payload.len();
        encode::delivery_end(&mut self.bytes, message.reply, headers.len(), total);
        self.bytes.extend_from_slice(headers);
        match shared {
            Some(payload) => {
                self.spliced_len += payload.len();
                self.splices.push((self.bytes.len(), payload.clone()));
            }
            None => self.bytes.extend_from_slice(message.payload),
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Moves all of `other` behind what is here; `other` is left empty.
    pub fn append(&mut self, other: &mut WireBuf) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.splices
            .extend(other.splices.drain(..).map(|(at, payload)| (base + at, payload)));
        self.spliced_len += other.spliced_len;
        other.clear();
    }

    /// Copies the payloads that are small. Each keeps the whole buffer alive that it was read into, with what lay there for
    /// others: of no account while they leave at once, much where they wait.
    pub fn own_small(&mut self) {
        if self.splices.iter().all(|(_, payload)| payload.len() >= LARGE_MIN) {
            return;
        }
        let old = std::mem::take(self);
        self.bytes.reserve(old.len());
        let mut from = 0;
        for (at, payload) in old.splices {
            self.bytes.extend_from_slice(&old.bytes[from..at]);
            from = at;
            if payload.len() < LARGE_MIN {
                self.bytes.extend_from_slice(&payload);
            } else {
                self.spliced_len += payload.len();
                self.splices.push((self.bytes.len(), payload));
            }
        }
        self.bytes.extend_from_slice(&old.bytes[from..]);
    }

    /// Empties it, keeping the flat capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.splices.clear();
        self.spliced_len = 0;
    }

    /// Gives memory back when more than `keep` bytes of capacity are held.
    pub fn shrink(&mut self, keep: usize) {
        if self.bytes.capacity() > keep {
            self.bytes.shrink_to(keep);
        }
        if self.splices.capacity() > 64 {
            self.splices.shrink_to(64);
        }
    }

    /// A cursor that feeds vectored writes.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor {
            wire: self,
            flat_at: 0,
            splice_at: 0,
            splice_offset: 0,
        }
    }
}

/// Where a partial write of a [`WireBuf`] has come to.
pub struct Cursor<'a> {
    wire: &'a WireBuf,
    flat_at: usize,
    splice_at: usize,
    splice_offset: usize,
}

impl Cursor<'_> {
    /// Pieces between the place reached and the next ones, as `(flat piece, splice piece)` in turn.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let wire = self.wire;
        let mut flat_at = self.flat_at;
        let mut offset = self.splice_offset;
        let splices = wire.splices[self.splice_at..].iter();
        splices
            .map(Some)
            .chain(std::iter::once(None))
            .flat_map(move |splice| match splice {
                Some((position, payload)) => {
                    let flat = &wire.bytes[flat_at..*position];
                    flat_at = *position;
                    let shared = &payload[std::mem::take(&mut offset)..];
                    [flat, shared]
                }
                None => [&wire.bytes[flat_at..], &[][..]],
            })
            .filter(|piece| !piece.is_empty())
    }
}

impl Buf for Cursor<'_> {
    fn remaining(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in out.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let flat_end = self
                .wire
                .splices
                .get(self.splice_at)
                .map_or(self.wire.bytes.len(), |splice| splice.0);
            let flat = count.min(flat_end - self.flat_at);
            self.flat_at += flat;
            count -= flat;
            let Some((_, payload)) = self.wire.splices.get(self.splice_at) else {
                assert_eq!(count, 0, "advanced past the end");
                return;
            };
            let shared = count.min(payload.len() - self.splice_offset);
            self.splice_offset += shared;
            count -= shared;
            if self.flat_at == flat_end && self.splice_offset == payload.len() {
                self.splice_at += 1;
                self.splice_offset = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (WireBuf, Vec<u8>) {
        let mut wire = WireBuf::default();
        let big = Bytes::from(vec![b'x'; 10]);
        let mut other = WireBuf::default();
        for (wire, shared) in [(&mut wire, None), (&mut other, Some(&big))] {
            let payload: &[u8] = shared.map_or(b"small", |b| &b[..]);
            let message = Message {
                subject: b"s",
                reply: b"",
                headers: b"H",
                payload,
            };
            wire.delivery(b"1", &message, true, shared);
            wire.delivery(b"1", &message, false, shared);
        }
        wire.append(&mut other);
        assert!(other.is_empty());
        let expected = "HMSG s 1 1 6\r\nHsmall\r\nMSG s 1 5\r\nsmall\r\nHMSG s 1 1 11\r\nHxxxxxxxxxx\r\nMSG s 1 10\r\nxxxxxxxxxx\r\n";
        (wire, expected.into())
    }

    #[test]
    fn what_waits_keeps_no_small_payload_of_a_large_buffer() {
        let (mut wire, mut expected) = sample();
        let large = Bytes::from(vec![b'l'; LARGE_MIN]);
        let small = Bytes::from(vec![b's'; 10]);
        for shared in [&large, &small, &large] {
            let message = Message {
                subject: b"s",
                payload: shared,
                ..Message::default()
            };
            wire.delivery(b"1", &message, false, Some(shared));
            expected.extend(format!("MSG s 1 {}\r\n", shared.len()).as_bytes());
            expected.extend_from_slice(shared);
            expected.extend_from_slice(b"\r\n");
        }
        wire.own_small();
        assert_eq!((wire.splices.len(), wire.len()), (2, expected.len()));
        assert!(small.is_unique() && !large.is_unique());
        let mut cursor = wire.cursor();
        let length = cursor.remaining();
        assert_eq!(cursor.copy_to_bytes(length), expected);
    }

    #[test]
    fn any_split_of_writes_yields_the_same_bytes() {
        let (wire, expected) = sample();
        assert_eq!(wire.len(), expected.len());
        for step in 1..=expected.len() {
            let mut cursor = wire.cursor();
            let mut out = Vec::new();
            while cursor.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = cursor.chunks_vectored(&mut slices);
                let joined: Vec<u8> = slices[..count]
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                let taken = step.min(joined.len());
                out.extend_from_slice(&joined[..taken]);
                cursor.advance(taken);
            }
            assert_eq!(out, expected, "step {step}");
        }
    }
}
