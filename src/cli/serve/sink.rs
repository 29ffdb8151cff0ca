//! Where the lines of the log go: stderr, or a file that can be opened anew and is kept small if that is asked for.
//!
//! A file over its limit is renamed to `NAME.2006.01.02.15.04.05.000000000`, as nats-server does it, and a new one begun;
//! of the old ones only the newest are kept. Whatever goes wrong with that, lines still go to the file there is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::config::Process;

use super::super::Failure;

/// See the module documentation; clones write to the same place.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Target>>);

/// A place for lines, opened.
#[derive(Default)]
pub(crate) struct Target {
    path: Option<PathBuf>,
    /// None is stderr.
    file: Option<File>,
    size: u64,
    /// Bytes before a new file is begun; zero is no limit.
    size_limit: u64,
    /// Files kept, the one in use counted; zero is all.
    files_max: usize,
}

impl Target {
    /// Opens what the settings name.
    pub fn open(process: &Process) -> Result<Self, Failure> {
        let mut target = Self {
            path: process.log_file.clone(),
            size_limit: process.log_size_limit,
            files_max: process.log_files_max,
            ..Self::default()
        };
        target.reopen()?;
        Ok(target)
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let failed =
            |error: io::Error| Failure::failed(format!("error opening file: {}: {error}", path.display()));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        self.size = file.metadata().map_err(failed)?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file when this one is full.
    fn rotate(&mut self) {
        let Some(path) = self.path.clone() else { return };
        let stamp = jiff::Zoned::now().strftime("%Y.%m.%d.%H.%M.%S.%9f").to_string();
        let old = with_suffix(&path, &stamp);
        // Not again before as much has come once more, should it not work.
        self.size = 0;
        if std::fs::rename(&path, &old).is_err() || self.reopen().is_err() {
            return;
        }
        if let Some(file) = &mut self.file {
            let line = format!(
                "[{}] [INF] Rotated log, backup saved as {:?}\n",
                std::process::id(),
                old.display()
            );
            file.write_all(line.as_bytes()).ok();
        }
        if self.files_max > 0 {
            remove_oldest(&path, self.files_max.saturating_sub(1));
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Leaves so many of the files that were kept of `path`.
fn remove_oldest(path: &Path, keep: usize) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    let is_stamp =
        |text: &str| text.len() == 29 && text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new(".")));
    let mut old: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let file = entry.file_name();
            let rest = file.to_str().and_then(|file| file.strip_prefix(name));
            rest.and_then(|rest| rest.strip_prefix('.')).is_some_and(is_stamp)
        })
        .map(|entry| entry.path())
        .collect();
    // Their names sort as their times do.
    old.sort();
    let surplus = old.len().saturating_sub(keep);
    for path in &old[..surplus] {
        std::fs::remove_file(path).ok();
    }
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, Target> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines go there from now on.
    pub fn set(&self, target: Target) {
        *self.lock() = target;
    }

    /// Opens the file anew, for it may have been moved away.
    pub fn reopen(&self) -> Result<(), Failure> {
        self.lock().reopen()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut target = self.lock();
        let Some(file) = &mut target.file else {
            return io::stderr().write(bytes);
        };
        let written = file.write(bytes)?;
        target.size += written as u64;
        if target.size_limit > 0 && target.size > target.size_limit && bytes[..written].ends_with(b"\n") {
            target.rotate();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_for_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(directory.path().join("log.other"), "not ours").unwrap();
        let process = Process {
            log_file: Some(path.clone()),
            log_size_limit: 100,
            log_files_max: 3,
            ..Process::default()
        };
        let mut sink = Sink::default();
        sink.set(Target::open(&process).unwrap());
        for at in 0..20 {
            let line = format!("{at:02} {}\n", "x".repeat(57));
            sink.write_all(line.as_bytes()).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let newest = names.iter().rfind(|name| name.starts_with("log.2")).unwrap();
        assert!(read(newest).contains("19 xxx") || read("log").contains("19 xxx"));
        assert!(read("log").starts_with(&format!(
            "[{}] [INF] Rotated log, backup saved as ",
            std::process::id()
        )));
        assert_eq!(read("log.other"), "not ours");
    }
}
