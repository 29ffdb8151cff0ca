//! A disk in memory for tests of faults: it remembers what was synced, fails at will, and fills up.

use super::{Disk, Error, Log, Options, StorageBackend, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// What a file grows by on the disk.
const BLOCK: usize = 4096;

/// A small generator, so that a seed alone says what happens.
#[derive(Debug, Clone)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct File {
    pub synced: Vec<u8>,
    pub now: Vec<u8>,
    /// Since the last sync.
    pub writes: Vec<Write>,
    /// The blocks it has on the disk.
    pub blocks: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Write {
    At(usize, Vec<u8>),
    Len(usize),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::Len(len) => to.resize(*len, 0),
            Write::At(at, data) => {
                if to.len() < at + data.len() {
                    to.resize(at + data.len(), 0);
                }
                to[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sim {
    pub files: BTreeMap<String, File>,
    /// Calls that change something, so far.
    pub calls: u64,
    /// The power goes at this call; later ones fail.
    pub off_at: Option<u64>,
    /// This many calls from the first number on fail.
    pub fail: Option<(u64, u64)>,
    /// All files together may not take more than this.
    pub quota: Option<usize>,
}

/// A disk in memory that remembers what was synced.
#[derive(Debug, Clone, Default)]
pub(super) struct SimDisk(pub Arc<Mutex<Sim>>);

#[derive(Debug)]
pub(super) struct SimFile(SimDisk, String);

impl Sim {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.off_at.is_some_and(|at| self.calls >= at) {
            return Err(io::Error::other("the power is off"));
        }
        if self
            .fail
            .is_some_and(|(from, n)| (from..from + n).contains(&self.calls))
        {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    /// Gives a file its blocks, as a sparse one gets them: when they are written.
    fn room(&mut self, name: &str, at: usize, len: usize) -> io::Result<()> {
        let used = self.files.values().map(|f| f.blocks.len()).sum::<usize>();
        let file = self.files.get_mut(name).unwrap();
        let wanted = at / BLOCK..(at + len).div_ceil(BLOCK);
        let new: Vec<_> = wanted.filter(|block| !file.blocks.contains(block)).collect();
        match self.quota {
            Some(quota) if (used + new.len()) * BLOCK > quota => Err(io::ErrorKind::StorageFull.into()),
            _ => {
                file.blocks.extend(new);
                Ok(())
            }
        }
    }
}

impl SimDisk {
    pub fn with(files: BTreeMap<String, File>, quota: Option<usize>) -> SimDisk {
        let sim = Sim {
            files,
            quota,
            ..Sim::default()
        };
        SimDisk(Arc::new(Mutex::new(sim)))
    }

    /// The disk as it is found after the power came back: each unsynced write kept, dropped or torn.
    pub fn after_power_cut(&self, rng: &mut Rng) -> SimDisk {
        let mut files = lock(&self.0).files.clone();
        for file in files.values_mut() {
            let mut left = file.synced.clone();
            let keep_all = rng.below(4) == 0;
            for write in &file.writes {
                match (rng.below(3), write) {
                    (0, _) if !keep_all => {}
                    (1, Write::At(at, data)) if !keep_all => {
                        for (n, sector) in data.chunks(512).enumerate() {
                            if rng.below(2) == 0 {
                                Write::At(at + n * 512, sector.to_vec()).apply(&mut left);
                            }
                        }
                    }
                    _ => write.apply(&mut left),
                }
            }
            *file = File {
                synced: left.clone(),
                now: left,
                writes: Vec::new(),
                blocks: file.blocks.clone(),
            };
        }
        SimDisk(Arc::new(Mutex::new(Sim {
            files,
            ..Sim::default()
        })))
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        lock(&self.0).files.entry(name.to_string()).or_default();
        Ok(Box::new(SimFile(self.clone(), name.to_string())))
    }

    fn replace(&self, name: &str, with: &str, keep: &str) -> io::Result<()> {
        let mut sim = lock(&self.0);
        sim.call()?;
        let files = &mut sim.files;
        let (old, new) = (files[name].clone(), files.remove(with).unwrap());
        files.insert(keep.to_owned(), old);
        files.insert(name.to_owned(), new);
        Ok(())
    }

    fn available_bytes(&self) -> Option<u64> {
        let quota = lock(&self.0).quota?;
        Some((quota as u64).saturating_sub(self.disk_bytes()))
    }

    fn disk_bytes(&self) -> u64 {
        let blocks = |f: &File| (f.blocks.len() * BLOCK) as u64;
        lock(&self.0).files.values().map(blocks).sum()
    }
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0.0).files[&self.1].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let sim = lock(&self.0.0);
        let from = sim.files[&self.1]
            .now
            .get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sim = lock(&self.0.0);
        sim.call()?;
        let file = sim.files.get_mut(&self.1).unwrap();
        file.blocks.retain(|block| block * BLOCK < len as usize);
        file.writes.push(Write::Len(len as usize));
        file.now.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sim = lock(&self.0.0);
        sim.call()?;
        let file = sim.files.get_mut(&self.1).unwrap();
        for write in std::mem::take(&mut file.writes) {
            write.apply(&mut file.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sim = lock(&self.0.0);
        let called = sim.call();
        sim.room(&self.1, offset as usize, data.len())?;
        let off = sim.off_at.is_some_and(|at| sim.calls > at);
        let file = sim.files.get_mut(&self.1).unwrap();
        // The write during which the power goes may still reach the disk, in part.
        if called.is_ok() || !off {
            let write = Write::At(offset as usize, data.to_vec());
            write.apply(&mut file.now);
            file.writes.push(write);
        }
        called
    }
}

pub(super) fn options(disk: &SimDisk) -> Options {
    Options {
        disk: Some(Arc::new(disk.clone())),
        cache_bytes_max: 4 << 20,
        retry_max: Duration::from_millis(4),
        journal_bytes_max: 64 << 10,
        ..Options::new("unused")
    }
}

pub(super) fn try_commit(log: &Log) -> Result<(), Error> {
    let (tx, rx) = mpsc::channel();
    log.commit(Box::new(move |result| tx.send(result).unwrap()));
    rx.recv_timeout(Duration::from_secs(20))
        .expect("every commit is answered")
}
