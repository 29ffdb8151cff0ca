//! A disk over another one that is never written: what would be written stays in memory.
//!
//! It is how a store is looked at without changing it, its journal replayed and all. Memory: what an open
//! writes, which the size of the journal bounds.

use super::disk::{Disk, StorageBackend};
use super::lock;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// What is kept in memory comes in pieces of this size.
const PIECE: u64 = 4096;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Arc<dyn Disk>,
    /// By name, so that a file that is opened again is as it was left.
    files: Mutex<HashMap<String, Arc<Mutex<Pieces>>>>,
}

#[derive(Debug)]
struct Pieces {
    below: Option<Box<dyn StorageBackend>>,
    /// The length below that still shows: what was cut off does not come back.
    below_len: u64,
    len: u64,
    written: HashMap<u64, Box<[u8]>>,
}

#[derive(Debug)]
struct OverlayFile(Arc<Mutex<Pieces>>);

impl Overlay {
    pub fn new(below: Arc<dyn Disk>) -> Overlay {
        Overlay {
            below,
            files: Mutex::default(),
        }
    }
}

impl Disk for Overlay {
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(name) {
            return Ok(Box::new(OverlayFile(file.clone())));
        }
        let below = self.below.open_existing(name)?;
        let len = below.as_ref().map_or(Ok(0), |below| below.len())?;
        let file = Arc::new(Mutex::new(Pieces {
            below,
            below_len: len,
            len,
            written: HashMap::new(),
        }));
        files.insert(name.to_owned(), file.clone());
        Ok(Box::new(OverlayFile(file)))
    }

    fn disk_bytes(&self) -> u64 {
        self.below.disk_bytes()
    }

    fn available_bytes(&self) -> Option<u64> {
        self.below.available_bytes()
    }
}

impl Pieces {
    /// One piece as it is now; zeros where nothing is.
    fn piece(&self, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(piece) = self.written.get(&number) {
            return Ok(piece.clone());
        }
        let mut piece = vec![0; PIECE as usize].into_boxed_slice();
        let start = number * PIECE;
        let there = self.below_len.saturating_sub(start).min(PIECE) as usize;
        if let (Some(below), true) = (&self.below, there > 0) {
            below.read(start, &mut piece[..there])?;
        }
        Ok(piece)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (piece, from) = (self.piece(at / PIECE)?, (at % PIECE) as usize);
            let count = (PIECE as usize - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&piece[from..from + count]);
            done += count;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, from) = (at / PIECE, (at % PIECE) as usize);
            let count = (PIECE as usize - from).min(data.len() - done);
            let mut piece = self.piece(number)?;
            piece[from..from + count].copy_from_slice(&data[done..done + count]);
            self.written.insert(number, piece);
            done += count;
        }
        self.len = self.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            let (last, keep) = (len / PIECE, (len % PIECE) as usize);
            let mut piece = self.piece(last)?;
            piece[keep..].fill(0);
            self.written.retain(|&number, _| number < last);
            self.written.insert(last, piece);
            self.below_len = self.below_len.min(last * PIECE);
        }
        self.len = len;
        Ok(())
    }
}

impl StorageBackend for OverlayFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        lock(&self.0).read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.0).set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        lock(&self.0).write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Dir;

    #[test]
    fn what_is_written_over_shows_and_what_is_below_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let before: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &before).unwrap();
        let overlay = Overlay::new(Arc::new(Dir(dir.path().to_owned())));
        let file = overlay.open("a").unwrap();
        file.write(4000, &[7; 200]).unwrap();
        file.write(12_000, b"end").unwrap();
        let mut expected = before.clone();
        expected[4000..4200].fill(7);
        expected.resize(12_000, 0);
        expected.extend_from_slice(b"end");
        let read = |len: usize| {
            let mut all = vec![0; len];
            overlay.open("a").unwrap().read(0, &mut all).unwrap();
            all
        };
        assert_eq!(read(12_003), expected);
        // Cut off and grown again: zeros, not what was below.
        file.set_len(4100).unwrap();
        file.set_len(9000).unwrap();
        expected.truncate(4100);
        expected.resize(9000, 0);
        assert_eq!(read(9000), expected);
        assert!(file.read(8999, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // A file that is not there is not made.
        overlay.open("b").unwrap().write(0, b"x").unwrap();
        assert!(!dir.path().join("b").exists());
    }
}
