//! Room on the disk that is kept back: once the disk is full, a removal needs some to be written at all.
//!
//! ```text
//! Ok (reserve held) -- disk full --> stopped -- reserve released, tables written --> removals alone
//!        ^                                                                               |
//!        `------------- reserve held again: room was made, by a removal or outside ------'
//! ```
//!
//! Deliberately absent: a bound on what removals and consumers may take of it. They take little, and what they free comes
//! back when the tables are compacted.

use super::base::io_error;
use super::core::Core;
use super::disk::Disk;
use super::error::Error;
use super::info::State;
use super::lock;
use std::sync::atomic::Ordering;

const NAME: &str = "reserve";
const ZEROS_BYTES: usize = 1 << 20;
/// Of a small disk no more than this part is kept back.
const DISK_PART: u64 = 8;

/// Makes the file this long, every block of it on the disk; or empty if there is no room for that.
fn hold(disk: &dyn Disk, bytes: u64) -> Result<u64, Error> {
    let file = disk.open(NAME).map_err(|e| io_error(&e))?;
    let mut at = file.len().map_err(|e| io_error(&e))?;
    if at >= bytes {
        return Ok(at);
    }
    let zeros = vec![0; ZEROS_BYTES];
    let mut fill = || {
        while at < bytes {
            let piece = &zeros[..ZEROS_BYTES.min((bytes - at) as usize)];
            file.set_len(at + piece.len() as u64)?;
            file.write(at, piece)?;
            at += piece.len() as u64;
        }
        file.sync_data()
    };
    match fill() {
        Ok(()) => Ok(bytes),
        Err(error) => {
            // Half of it is nobody's promise, and whoever needs the room is to have it.
            file.set_len(0).map_err(|e| io_error(&e))?;
            Err(io_error(&error))
        }
    }
}

impl Core {
    /// What is to be kept back: what acknowledged records may wait for their place in the tables, and some for the tables'
    /// own pages.
    pub fn reserve_wanted(&self) -> u64 {
        let segment = self.segment_bytes();
        let wanted = 3 * segment + 2 * segment.min(1 << 20);
        match self.disk.available_bytes() {
            Some(available) => wanted.min((available + self.disk.disk_bytes()) / DISK_PART),
            None => wanted,
        }
    }

    /// Keeps room back, if there is some; says whether it is held.
    pub fn hold_reserve(&self) -> bool {
        let wanted = self.reserve_wanted();
        let mut held = lock(&self.reserve);
        if *held >= wanted {
            return true;
        }
        // The last of the disk is not taken for it.
        if self
            .disk
            .available_bytes()
            .is_some_and(|available| available < 2 * (wanted - *held))
        {
            return false;
        }
        match hold(&*self.disk, wanted) {
            Ok(bytes) => *held = bytes,
            Err(error) => {
                *held = 0;
                tracing::debug!(%error, "no room is kept back");
            }
        }
        *held > 0
    }

    /// Gives the room back to the disk.
    pub fn release_reserve(&self) {
        let mut held = lock(&self.reserve);
        let emptied = self.disk.open(NAME).and_then(|file| {
            file.set_len(0)?;
            file.sync_data()
        });
        match emptied {
            Ok(()) => *held = 0,
            Err(error) => tracing::error!(%error, "the room that was kept back cannot be had"),
        }
    }

    /// Whether records are taken, beside removals; the reason if not.
    pub fn accepting_records(&self) -> Result<(), Error> {
        self.accepting()?;
        if !self.removals_only.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*lock(&self.state) {
            State::Full(why) => Err(Error::Full(why.clone())),
            // It has resumed just now.
            _ => Ok(()),
        }
    }
}
