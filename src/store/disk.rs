//! The seam to the disk: every byte the store keeps goes through a [`StorageBackend`] that a [`Disk`]
//! opened, so that tests can put one in its place that fails, fills up or loses power.

use super::error::Error;
pub use redb::StorageBackend;
use redb::backends::FileBackend;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a directory's lock is asked for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Opens the files of a store by name, creating those that are not there.
pub trait Disk: std::fmt::Debug + Send + std::marker::Sync {
    /// Opens one file; the store may open it again after an error.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Opens a file that is to be read alone; `None` if there is none.
    fn open_existing(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        self.open(name).map(Some)
    }

    /// Puts the file `with` in the place of `name`, which is kept as `keep`. A crash leaves one of the two as `name`.
    fn replace(&self, name: &str, with: &str, keep: &str) -> io::Result<()> {
        let _ = (name, with, keep);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes the files take on disk.
    fn disk_bytes(&self) -> u64;

    /// Bytes they may still grow by before the file system is full; `None` where that is not known.
    fn available_bytes(&self) -> Option<u64> {
        None
    }
}

/// Files in a directory.
#[derive(Debug)]
pub(super) struct Dir(pub PathBuf);

impl Disk for Dir {
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.0.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        File::open(&self.0)?.sync_all()?;
        Ok(Box::new(
            FileBackend::new(file).map_err(|e| io::Error::other(e.to_string()))?,
        ))
    }

    fn open_existing(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let backend = FileBackend::new(file).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Some(Box::new(backend)))
    }

    fn replace(&self, name: &str, with: &str, keep: &str) -> io::Result<()> {
        let path = |name| self.0.join(name);
        match std::fs::remove_file(path(keep)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::hard_link(path(name), path(keep))?;
        std::fs::rename(path(with), path(name))?;
        File::open(&self.0)?.sync_all()
    }

    fn disk_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| allocated(&meta))
            .sum()
    }

    #[cfg(unix)]
    fn available_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.0).ok()?;
        Some(found.f_bavail * found.f_frsize)
    }
}

#[cfg(unix)]
fn allocated(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}

#[cfg(not(unix))]
fn allocated(meta: &std::fs::Metadata) -> u64 {
    meta.len()
}

/// Holds a store directory for one process. The lock ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct DirLock(#[allow(dead_code, reason = "held for its lock")] File);

impl DirLock {
    /// Who holds a directory, without taking it: the process id that was written into it.
    pub fn holder(dir: &Path) -> Result<Option<String>, Error> {
        let open = |e: io::Error| Error::Open(format!("{}: {e}", dir.display()));
        let file = match File::open(dir.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(open(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(std::fs::TryLockError::WouldBlock) => Ok(Some(written_pid(file))),
            Err(std::fs::TryLockError::Error(error)) => Err(open(error)),
        }
    }

    pub fn take(dir: &Path) -> Result<DirLock, Error> {
        let open = |e: io::Error| Error::Open(format!("{}: {e}", dir.display()));
        std::fs::create_dir_all(dir).map_err(open)?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(open)?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Who asks for the holder has it for a moment, and so has a child of a process that held it.
                Err(std::fs::TryLockError::WouldBlock) if asked.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(Error::InUse {
                        dir: dir.display().to_string(),
                        pid: written_pid(file),
                    });
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(open(e)),
            }
        }
        let write = file.set_len(0).and_then(|()| file.rewind());
        match write.and_then(|()| writeln!(file, "{}", std::process::id())) {
            // It is for people to read: a full disk is to be opened all the same.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            other => other.map_err(open)?,
        }
        Ok(DirLock(file))
    }
}

/// What the holder of a lock wrote into its file.
fn written_pid(mut file: File) -> String {
    let mut pid = String::new();
    let read = file.read_to_string(&mut pid);
    read.ok()
        .map(|_| pid.trim().to_string())
        .filter(|p| !p.is_empty())
        .unwrap_or_else(|| "unknown".to_string())
}
