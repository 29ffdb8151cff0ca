//! The one page of a database that all else hangs on, put right if a single bit of it is wrong.
//!
//! That page lists the tables with their roots, and both of the commits that a file remembers mostly share it. redb
//! keeps a checksum of it in the first page, of 128 bits: a page that fits it is the page that was written.
//!
//! Deliberately absent: the same for all pages. One of those costs what is in it; rows have checksums of their own.

use super::StorageBackend;
use super::record::{u16_at, u32_at, u64_at};
use std::io;

/// The root in each of the two commits of the first page: page number, then checksum.
const ROOTS: [usize; 2] = [64 + 8, 192 + 8];
const PAGE: usize = 4096;
const LEAF: u8 = 1;

/// Mends the lists of tables in a file whose first page is `head`; says whether one had to be.
pub(super) fn mend_roots(file: &dyn StorageBackend, head: &[u8], region_bytes: u64) -> io::Result<bool> {
    let mut mended = false;
    for at in ROOTS {
        let (Some(number), Some(low), Some(high)) =
            (u64_at(head, at), u64_at(head, at + 8), u64_at(head, at + 16))
        else {
            continue;
        };
        // Of a larger page there would be thousands of tables.
        let (index, region, order) = (number & 0xf_ffff, number >> 20 & 0xf_ffff, number >> 59);
        let place = PAGE as u64 * (1 + index) + region * region_bytes;
        if order != 0 || place + PAGE as u64 > file.len()? {
            continue;
        }
        let mut page = vec![0; PAGE];
        if file.read(place, &mut page).is_ok() && mend(&mut page, (low, high)) {
            file.write(place, &page)?;
            mended = true;
        }
    }
    Ok(mended)
}

/// Puts one wrong bit right; false if none is, or more.
fn mend(page: &mut [u8], wanted: (u64, u64)) -> bool {
    if checksum(page) == Some(wanted) {
        return false;
    }
    for bit in 0..page.len() * 8 {
        page[bit / 8] ^= 1 << (bit % 8);
        if checksum(page) == Some(wanted) {
            return true;
        }
        page[bit / 8] ^= 1 << (bit % 8);
    }
    false
}

/// The checksum of a leaf whose keys and values have no fixed length: of all up to the end of its last value.
fn checksum(page: &[u8]) -> Option<(u64, u64)> {
    let pairs = usize::from(u16_at(page, 2)?);
    let last = pairs.checked_sub(1).filter(|_| page[0] == LEAF)?;
    let end = u32_at(page, 4 + 4 * (pairs + last))? as usize;
    xxh3(page.get(..end)?)
}

const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde,
    0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79,
    0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46,
    0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb,
    0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2,
    0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c,
    0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59,
    0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3,
    0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3,
    0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8,
    0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb,
    0xca, 0xbb, 0x4b, 0x40, 0x7e,
];
const PRIME32: [u64; 3] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D];
const PRIME64: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];
const STRIPE: usize = 64;
/// Stripes between two scrambles: as many as the secret has windows.
const STRIPES: usize = (SECRET.len() - STRIPE) / 8;

fn word(bytes: &[u8], n: usize) -> u64 {
    u64_at(bytes, n * 8).unwrap_or(0)
}

/// XXH3 of 128 bits with seed 0, low half first; `None` for what is so short that it goes another way.
fn xxh3(data: &[u8]) -> Option<(u64, u64)> {
    let last = data.len().checked_sub(STRIPE).filter(|_| data.len() > 240)?;
    let mut acc = [
        PRIME32[2], PRIME64[0], PRIME64[1], PRIME64[2], PRIME64[3], PRIME32[1], PRIME64[4], PRIME32[0],
    ];
    for (n, stripe) in data[..data.len() - 1].chunks_exact(STRIPE).enumerate() {
        if n > 0 && n % STRIPES == 0 {
            scramble(&mut acc);
        }
        accumulate(&mut acc, stripe, &SECRET[n % STRIPES * 8..]);
    }
    if ((data.len() - 1) / STRIPE).is_multiple_of(STRIPES) {
        scramble(&mut acc);
    }
    accumulate(&mut acc, &data[last..], &SECRET[SECRET.len() - STRIPE - 7..]);
    let len = data.len() as u64;
    let low = merge(&acc, &SECRET[11..], PRIME64[0].wrapping_mul(len));
    let high = merge(
        &acc,
        &SECRET[SECRET.len() - STRIPE - 11..],
        !PRIME64[1].wrapping_mul(len),
    );
    Some((low, high))
}

fn accumulate(acc: &mut [u64; 8], stripe: &[u8], secret: &[u8]) {
    for n in 0..acc.len() {
        let (data, key) = (word(stripe, n), word(stripe, n) ^ word(secret, n));
        acc[n ^ 1] = acc[n ^ 1].wrapping_add(data);
        acc[n] = acc[n].wrapping_add((key & 0xffff_ffff) * (key >> 32));
    }
}

fn scramble(acc: &mut [u64; 8]) {
    for (n, x) in acc.iter_mut().enumerate() {
        *x = (*x ^ *x >> 47 ^ word(&SECRET[SECRET.len() - STRIPE..], n)).wrapping_mul(PRIME32[0]);
    }
}

fn merge(acc: &[u64; 8], secret: &[u8], begin: u64) -> u64 {
    let mut sum = begin;
    for n in 0..4 {
        let product = u128::from(acc[2 * n] ^ word(secret, 2 * n))
            * u128::from(acc[2 * n + 1] ^ word(secret, 2 * n + 1));
        sum = sum.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    sum = (sum ^ sum >> 37).wrapping_mul(0x1656_6791_9E37_79F9);
    sum ^ sum >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim_tests::{SimDisk, options};
    use crate::store::{Store, lock};

    #[test]
    fn any_bit_of_the_list_of_tables_is_put_right() {
        let disk = SimDisk::default();
        Store::open(options(&disk)).unwrap().close().unwrap();
        let file = lock(&disk.0).files["mesh.redb"].now.clone();
        let at = ROOTS[usize::from(file[9] & 1)];
        let place = PAGE * (1 + (word(&file[at..], 0) & 0xf_ffff) as usize);
        let wanted = (word(&file[at + 8..], 0), word(&file[at + 8..], 1));
        let right = &file[place..place + PAGE];
        assert_eq!(checksum(right), Some(wanted), "what redb makes of it");
        let mut page = right.to_vec();
        assert!(!mend(&mut page, wanted));
        // Behind its last value a page may hold anything.
        let pairs = usize::from(u16_at(right, 2).unwrap());
        let end = u32_at(right, 8 * pairs).unwrap() as usize;
        for bit in (0..end * 8).step_by(97) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(mend(&mut page, wanted), "bit {bit}");
            assert_eq!(page, right);
        }
        page[100] ^= 1;
        page[200] ^= 1;
        assert!(!mend(&mut page, wanted));
    }

    #[test]
    fn xxh3_is_that_of_others() {
        let data: Vec<u8> = (0..3000u32).map(|n| (n * 7 % 251) as u8).collect();
        assert_eq!(xxh3(&data[..240]), None);
        let known = [
            (241, 0xc614c8c3575348c1, 0x29bc1e9cffb6d79b),
            (1024, 0xf22ef3dc84ff47ea, 0x07fe8eadab1cf098),
            (1025, 0x43f869a83769a435, 0xc89d767cdacc7c76),
            (1088, 0x40d71f037cd0c530, 0x0f364ccf2ca20a84),
            (1089, 0xc1f23f6bfa8243a4, 0x00be0debcd3a9131),
            (2048, 0x3d2649f662a2e191, 0xe55329394a6e046b),
            (2049, 0x4583128afa3a2985, 0xfe3b8ffe8b21e936),
            (2999, 0xf488888ee994d515, 0x147b58288263a3fe),
        ];
        for (len, low, high) in known {
            assert_eq!(xxh3(&data[..len]), Some((low, high)), "{len}");
        }
    }
}
