//! Epochs: which life of the store an entry of the journal is from, and what the journal says of that by itself.
//!
//! Of two epochs it can be told which came later. So tables that have fallen back to a commit of before the journal are
//! found: by redb, by a repair, or because somebody has put an older copy of the file there.

use super::disk::Disk;
use super::error::Error;
use super::journal::{ALIGN, HEADER, NAMES, parse_header};
use std::collections::BTreeSet;
use std::io;

/// Bits of an epoch that are drawn; the others count.
const DRAWN_BITS: u32 = 48;

/// What the headers of the journal say by themselves.
pub(super) struct Outline {
    pub epoch: u64,
    /// The entry before the first one of that epoch that is still there with all behind it: what the tables say, when they
    /// are to be trusted.
    pub applied: u64,
    last: u64,
}

impl Outline {
    /// Whether the journal is one that began after what the tables say: then they have fallen back.
    pub fn follows(&self, epoch: u64, applied: u64) -> bool {
        is_later(self.epoch, epoch) && self.last > applied
    }
}

/// Reads the headers of all entries.
pub(super) fn outline(disk: &dyn Disk) -> io::Result<Outline> {
    let (mut begins, mut headers) = (Vec::new(), Vec::new());
    for name in NAMES {
        let file = disk.open(name)?;
        let (len, mut at, mut header) = (file.len()?, 0, [0; HEADER]);
        while at + HEADER as u64 <= len {
            file.read(at, &mut header)?;
            let found = parse_header(&header).map(|(epoch, lsn, ..)| (lsn, epoch));
            // What a file begins with is an entry; further on it may be what somebody has published.
            begins.extend(found.filter(|_| at == 0));
            headers.extend(found);
            at += ALIGN;
        }
    }
    let later = |a: &(u64, u64), b: &(u64, u64)| match a.1 == b.1 {
        true => a.cmp(b),
        false => is_later(a.1, b.1).cmp(&is_later(b.1, a.1)),
    };
    let epoch = begins.into_iter().max_by(later).map_or(0, |begin| begin.1);
    let ours = headers.iter().filter(|(_, found)| *found == epoch);
    let lsns: BTreeSet<u64> = ours.map(|(lsn, _)| *lsn).collect();
    let last = lsns.last().copied().unwrap_or(0);
    let mut first = last;
    while first > 0 && lsns.contains(&(first - 1)) {
        first -= 1;
    }
    Ok(Outline {
        epoch,
        applied: first.saturating_sub(1),
        last,
    })
}

/// A number no earlier journal of this store used, and nobody can guess: the first bits count the journals, the others are
/// drawn.
pub(super) fn new_epoch(before: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::Failed(e.to_string()))?;
    let count = u64::from(count_of(before).wrapping_add(1));
    Ok((count << DRAWN_BITS | u64::from_le_bytes(bytes) >> (u64::BITS - DRAWN_BITS)).max(1))
}

fn count_of(epoch: u64) -> u16 {
    (epoch >> DRAWN_BITS) as u16
}

/// Whether one journal began after another one; 0 is before any.
fn is_later(epoch: u64, than: u64) -> bool {
    match (epoch, than) {
        (0, _) => false,
        (_, 0) => true,
        _ => count_of(epoch).wrapping_sub(count_of(than)) as i16 > 0,
    }
}
