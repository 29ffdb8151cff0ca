//! Rows of block data: the records of a block as they are, or compressed (LZ4) as a whole.
//!
//! ```text
//! plain:      stream | block | crc32 of both                     | records
//! compressed: stream | block | length of the records | crc32 of all three and a tag | LZ4 block
//! ```
//!
//! The header says which one it is: its checksum fits only the one. Neither covers the records, which carry checksums of
//! their own; so what stands before damage in a compressed row is still served, and what comes out wrong is found.
//!
//! The tables give a row a power of two of pages. A row that would take as many pages compressed is stored plain: nothing
//! would be saved by it.

use super::record::{RECORD_BYTES_MAX, u32_at};
use bytes::{BufMut, Bytes};

/// Bytes before the records of a plain row, and of a compressed one.
const PLAIN_HEADER: usize = 20;
const PACKED_HEADER: usize = 24;
/// Keeps a checksum of a compressed row from being one of a plain row.
const TAG: &[u8] = b"lz4";
const PAGE: usize = 4096;
/// What LZ4 makes of a byte at most: a length that lies gets no memory.
const RATIO_MAX: usize = 255;

fn plain_header(key: (u64, u64)) -> Vec<u8> {
    let mut out = Vec::with_capacity(PLAIN_HEADER);
    out.put_u64_le(key.0);
    out.put_u64_le(key.1);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

fn packed_header(key: (u64, u64), len: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(PACKED_HEADER);
    out.put_u64_le(key.0);
    out.put_u64_le(key.1);
    out.put_u32_le(len);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&out);
    hasher.update(TAG);
    out.put_u32_le(hasher.finalize());
    out
}

/// What a row takes in the file: short ones share pages.
fn room(len: usize) -> usize {
    if len < PAGE {
        len
    } else {
        len.div_ceil(PAGE).next_power_of_two() * PAGE
    }
}

/// The row of a block; compressed if that is asked for and worth it.
pub(super) fn data_row(key: (u64, u64), records: &[u8], compress: bool) -> Vec<u8> {
    if let (true, Ok(len)) = (compress, u32::try_from(records.len())) {
        let mut row = packed_header(key, len);
        row.resize(
            PACKED_HEADER + lz4_flex::block::get_maximum_output_size(records.len()),
            0,
        );
        if let Ok(packed) = lz4_flex::block::compress_into(records, &mut row[PACKED_HEADER..]) {
            row.truncate(PACKED_HEADER + packed);
            if room(row.len()) < room(PLAIN_HEADER + records.len()) {
                return row;
            }
        }
    }
    let mut row = plain_header(key);
    row.extend_from_slice(records);
    row
}

/// The records of a data row, if it is the row of that block. Those of a compressed row that is damaged are right up to
/// the damage; behind it there may be anything, of the right length.
pub(super) fn parse_data_row(key: (u64, u64), row: Vec<u8>) -> Option<Bytes> {
    if row.get(..PLAIN_HEADER)? == plain_header(key) {
        return Some(Bytes::from(row).slice(PLAIN_HEADER..));
    }
    let len = u32_at(&row, 16)?;
    if row.get(..PACKED_HEADER)? != packed_header(key, len) {
        return None;
    }
    let (packed, len) = (&row[PACKED_HEADER..], len as usize);
    if len > packed.len().saturating_mul(RATIO_MAX) || len > 2 * RECORD_BYTES_MAX {
        return None;
    }
    let mut records = vec![0; len];
    // An error leaves what was unpacked before it; the checksums of the records decide what of it is good.
    lz4_flex::block::decompress_into(packed, &mut records).ok();
    Some(records.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: (u64, u64) = (3, 77);

    fn runs() -> impl Strategy<Value = Vec<u8>> {
        let run = (any::<u8>(), 1usize..3000).prop_map(|(byte, len)| vec![byte; len]);
        let noise = prop::collection::vec(any::<u8>(), 0..600);
        prop::collection::vec(prop_oneof![run, noise], 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(records in runs(), compress in any::<bool>()) {
            let row = data_row(KEY, &records, compress);
            prop_assert!(room(row.len()) <= room(PLAIN_HEADER + records.len()));
            prop_assert_eq!(parse_data_row(KEY, row.clone()).unwrap(), records);
            prop_assert!(parse_data_row((3, 78), row.clone()).is_none());
            prop_assert!(parse_data_row((4, 77), row).is_none());
        }

        #[test]
        fn damage_is_no_panic_and_changes_no_length(
            records in runs(), at in any::<usize>(), bits in 1u8..=255, cut in any::<usize>(),
        ) {
            let row = data_row(KEY, &records, true);
            let mut flipped = row.clone();
            let at = at % row.len();
            flipped[at] ^= bits;
            if let Some(found) = parse_data_row(KEY, flipped) {
                prop_assert!(at >= PLAIN_HEADER);
                prop_assert_eq!(found.len(), records.len());
            }
            parse_data_row(KEY, row[..cut % row.len()].to_vec());
        }
    }

    #[test]
    fn a_block_that_does_not_shrink_is_stored_plain() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert_eq!(data_row(KEY, &noise, true), data_row(KEY, &noise, false));
        // Nor one that would take as many pages: of 100 KB to 70 KB.
        let mut some = noise[..70_000].to_vec();
        some.resize(100_000, b'x');
        assert_eq!(data_row(KEY, &some, true), data_row(KEY, &some, false));
        some[60_000..].fill(b'x');
        assert!(data_row(KEY, &some, true).len() < 65_000);
        let text = b"the same line, over and over\n".repeat(4000);
        assert!(data_row(KEY, &text, true).len() < 2000);
    }

    #[test]
    fn a_length_that_lies_gets_no_memory() {
        let mut row = packed_header(KEY, u32::MAX);
        row.extend_from_slice(&[0xff; 1000]);
        assert_eq!(parse_data_row(KEY, row), None);
        assert_eq!(parse_data_row(KEY, packed_header(KEY, 0)), Some(Bytes::new()));
    }
}
