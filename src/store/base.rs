//! The database file under the tables, as redb has it.
//!
//! redb may panic on a damaged file, and refuses everything after an IO error: each use is caught, and the
//! database is opened anew after an error.

use super::StorageBackend;
use super::disk::Disk;
use super::error::Error;
use super::lock;
use super::schema::{Standing, migrate, standing};
use redb::{Database, ReadableDatabase};
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

pub(super) const NAME: &str = "mesh.redb";

/// What redb begins a file with, the page that is in, and what a new file is shorter than.
const MARK_BYTES: usize = 9;
const HEAD_BYTES: usize = 4096;
const UNBORN_BYTES_MAX: u64 = 8 << 20;

/// Holds a count while a database is changed for the first time. A panic of redb over its list of free pages can end the
/// process, for it may panic once more while it unwinds: that is not to go on for ever.
const TRIES: &str = "tries";
const DEATHS_MAX: u8 = 2;

/// Milliseconds that readers are waited for.
const COMPACT_TRIES: u32 = 100;

pub(super) struct Base {
    disk: Arc<dyn Disk>,
    cache_bytes: usize,
    db: Mutex<Option<Arc<Closing<Database>>>>,
    /// Shared with each database that is open or not yet closed: closing one writes, and nothing but this keeps a second
    /// one from the file.
    open: Arc<()>,
    /// The list of free pages was made anew once: what is damaged now is something else.
    was_made_anew: AtomicBool,
    /// The first change has been tried, see [`TRIES`].
    has_changed: AtomicBool,
}

impl Base {
    pub fn open(disk: Arc<dyn Disk>, cache_bytes: usize) -> Result<Base, Error> {
        let base = Base {
            disk,
            cache_bytes,
            db: Mutex::default(),
            open: Arc::default(),
            was_made_anew: AtomicBool::new(false),
            has_changed: AtomicBool::new(false),
        };
        match base.deaths() {
            // It is read whole instead: damage that makes redb fall over is found that way, and said.
            DEATHS_MAX.. => drop(base.db_or(|| base.open_database(true))?),
            _ => drop(base.db()?),
        }
        Ok(base)
    }

    /// How many processes in a row have not come back from their first change.
    fn deaths(&self) -> u8 {
        let mut count = [0];
        let read = self.disk.open(TRIES).and_then(|file| match file.len()? {
            0 => Ok(()),
            _ => file.read(0, &mut count),
        });
        read.map_or(0, |()| count[0])
    }

    /// Leaves a note of that; a disk that does not take it is found by what comes next.
    fn note_tries(&self, tries: Option<u8>) {
        let noted = self.disk.open(TRIES).and_then(|file| {
            match tries {
                Some(tries) => file.write(0, &[tries])?,
                None => file.set_len(0)?,
            }
            file.sync_data()
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "no note of a first change");
        }
    }

    fn db(&self) -> Result<Arc<Closing<Database>>, Error> {
        self.db_or(|| match self.open_database(false) {
            // What redb keeps to find free pages is not what we keep in it: it can be made anew.
            Err(error @ Error::Damaged(_)) => self.open_database(true).map_err(|_| error),
            other => other,
        })
    }

    /// The database that is open, or the one that `open` opens once all who use an earlier one are done.
    fn db_or(
        &self,
        open: impl Fn() -> Result<Closing<Database>, Error>,
    ) -> Result<Arc<Closing<Database>>, Error> {
        loop {
            let mut slot = lock(&self.db);
            if let Some(db) = &*slot {
                return Ok(db.clone());
            }
            if Arc::strong_count(&self.open) == 1 {
                let db = Arc::new(open()?);
                *slot = Some(db.clone());
                return Ok(db);
            }
            drop(slot);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Opens the file; `anew` reads it whole, and makes the list of free pages anew. Nothing is written unless a table is
    /// missing: a full disk can be opened.
    fn open_database(&self, anew: bool) -> Result<Closing<Database>, Error> {
        let token = self.open.clone();
        guard(|| {
            let file = self.disk.open(NAME)?;
            if is_unborn(&*file)? {
                file.set_len(0)?;
            }
            let opened = Database::builder()
                .set_cache_size(self.cache_bytes)
                .set_check_integrity_on_open(anew)
                .create_with_backend(Boxed(file))?;
            let db = Closing::new(opened, token);
            let found = standing(&db.begin_read()?)?;
            if found == Standing::Behind {
                let mut txn = db.begin_write()?;
                txn.set_quick_repair(true);
                migrate(&txn)?;
                txn.commit()?;
            }
            Ok(match found {
                Standing::Current | Standing::Behind => Ok(db),
                Standing::Unknown(version) => {
                    Err(Error::Open(format!("schema version {version} is not known")))
                }
                Standing::Lost(table) => Err(Error::Damaged(format!("its table {table} is lost"))),
            })
        })?
    }

    /// Runs `f` on the database; after an error the next use opens it anew.
    pub fn using<T>(&self, f: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let db = self.db()?;
        let result = guard(|| f(&db));
        if result.is_err() {
            let mut slot = lock(&self.db);
            if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &db)) {
                *slot = None;
            }
        }
        result
    }

    /// The same for what writes: that finds damage of the list of free pages, which can be made anew.
    pub fn changing<T>(&self, f: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let is_first = !self.has_changed.load(Ordering::Acquire);
        if is_first {
            self.note_tries(Some(self.deaths().saturating_add(1)));
        }
        let result = self.change(f);
        // An error is no death.
        if is_first {
            self.note_tries(None);
            self.has_changed.store(true, Ordering::Release);
        }
        result
    }

    fn change<T>(&self, f: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        match self.using(&f) {
            Err(error @ Error::Damaged(_)) if !self.was_made_anew.swap(true, Ordering::AcqRel) => {
                self.db_or(|| self.open_database(true)).map_err(|_| error)?;
                self.using(f)
            }
            other => other,
        }
    }

    /// Moves what is stored to the front of the file, and cuts it off behind. Readers wait meanwhile.
    pub fn compact(&self) -> Result<(), Error> {
        let mut slot = lock(&self.db);
        let Some(mut shared) = slot.take() else {
            return Ok(());
        };
        for _ in 0..COMPACT_TRIES {
            match Arc::try_unwrap(shared) {
                Ok(mut db) => {
                    guard(|| Ok(db.compact()?))?;
                    *slot = Some(Arc::new(db));
                    return Ok(());
                }
                // Somebody reads just now, and may need the slot to end it.
                Err(used) => shared = used,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        *slot = Some(shared);
        Ok(())
    }

    pub fn close(&self) {
        *lock(&self.db) = None;
    }
}

/// Whether this is a database whose making was cut off: redb writes its mark last, and what it keeps in it later still.
fn is_unborn(file: &dyn StorageBackend) -> io::Result<bool> {
    let len = file.len()?;
    if !(1..=UNBORN_BYTES_MAX).contains(&len) {
        return Ok(false);
    }
    let mut bytes = vec![0; len as usize];
    file.read(0, &mut bytes)?;
    let (mark, rest) = (&bytes[..bytes.len().min(MARK_BYTES)], bytes.get(HEAD_BYTES..));
    Ok(mark.iter().chain(rest.unwrap_or_default()).all(|&byte| byte == 0))
}

/// A database that is closed when it goes, which writes: redb may panic over a damaged file then, too.
pub(super) struct Closing<T> {
    db: Option<T>,
    /// Goes last.
    _token: Arc<()>,
}

impl<T> Closing<T> {
    pub fn new(db: T, token: Arc<()>) -> Closing<T> {
        Closing {
            db: Some(db),
            _token: token,
        }
    }
}

impl<T> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.db.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Closing<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.db.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        let closed = guard(|| {
            drop(self.db.take());
            Ok(())
        });
        if let Err(error) = closed {
            tracing::error!(%error, "closing the database");
        }
    }
}

thread_local! {
    /// Whether a panic of this thread is one that [`guard`] catches.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Turns a panic of redb over a damaged file into an error.
pub(super) fn guard<T>(f: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Error> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // It is told of as damage, by whoever meets it: a backtrace would look as if the server had fallen over.
            if !IS_GUARDED.get() {
                others(info);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_GUARDED.set(before);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(convert(error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::Damaged(format!(
                "the database file does not hold together ({})",
                text.unwrap_or("nobody says why")
            )))
        }
    }
}

fn convert(error: redb::Error) -> Error {
    match &error {
        // It is not redb's, or shorter than it says.
        redb::Error::Io(io) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            Error::Damaged(error.to_string())
        }
        redb::Error::Io(io) => io_error(io),
        redb::Error::PreviousIo
        | redb::Error::DatabaseClosed
        | redb::Error::DatabaseAlreadyOpen
        | redb::Error::LockPoisoned(_) => Error::Failed(error.to_string()),
        // What else redb complains of is not what we have left in it.
        _ => Error::Damaged(error.to_string()),
    }
}

pub(super) fn io_error(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full(error.to_string()),
        _ => Error::Failed(error.to_string()),
    }
}

/// redb takes a backend by value.
#[derive(Debug)]
pub(super) struct Boxed(pub Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim_tests::SimDisk;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    /// Counts the files that are open at once.
    #[derive(Debug, Default)]
    struct Counted(SimDisk, Arc<(AtomicUsize, AtomicUsize)>);

    #[derive(Debug)]
    struct CountedFile(Box<dyn StorageBackend>, Arc<(AtomicUsize, AtomicUsize)>);

    impl Disk for Counted {
        fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
            let now = self.1.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.1.1.fetch_max(now, Ordering::SeqCst);
            Ok(Box::new(CountedFile(self.0.open(name)?, self.1.clone())))
        }

        fn disk_bytes(&self) -> u64 {
            self.0.disk_bytes()
        }
    }

    impl Drop for CountedFile {
        fn drop(&mut self) {
            self.1.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl StorageBackend for CountedFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    #[test]
    fn who_has_died_of_a_database_twice_reads_it_whole() {
        let disk = SimDisk::default();
        let open = || Base::open(Arc::new(disk.clone()), 1 << 20);
        let number = 0x1122_3344_5566_7788u64;
        let put = |db: &Database| {
            let txn = db.begin_write()?;
            txn.open_table(crate::store::schema::STORE)?
                .insert("next_stream", number)?;
            Ok(txn.commit()?)
        };
        open().unwrap().changing(put).unwrap();
        assert_eq!(open().unwrap().deaths(), 0);
        // A plain open does not look at it.
        let mut file = crate::store::lock(&disk.0).files[NAME].now.clone();
        while let Some(at) = file.windows(8).position(|w| w == number.to_le_bytes()) {
            file[at] ^= 1;
        }
        crate::store::lock(&disk.0).files.get_mut(NAME).unwrap().now = file;
        let tries = |n| disk.open(TRIES).unwrap().write(0, &[n]).unwrap();
        tries(1);
        assert_eq!(open().unwrap().deaths(), 1);
        tries(2);
        assert!(matches!(open(), Err(Error::Damaged(_))));
    }

    #[test]
    fn damage_met_while_somebody_writes_opens_no_second_database() {
        let disk = Counted::default();
        let counts = disk.1.clone();
        let base = Base::open(Arc::new(disk), 1 << 20).unwrap();
        std::thread::scope(|scope| {
            let ((begun, has_begun), (go, gone)) = (channel(), channel());
            let base = &base;
            let writer = scope.spawn(move || {
                base.using(|db| {
                    begun.send(()).unwrap();
                    gone.recv().unwrap();
                    let txn = db.begin_write()?;
                    Ok(txn.commit()?)
                })
            });
            has_begun.recv().unwrap();
            let damage = || Err::<(), _>(redb::Error::Corrupted("here".to_owned()));
            assert!(matches!(base.using(|_| damage()), Err(Error::Damaged(_))));
            let reader = scope.spawn(|| base.using(|_| Ok(())));
            // One that does not wait has time to show that it does not.
            std::thread::sleep(Duration::from_millis(30));
            go.send(()).unwrap();
            writer.join().unwrap().unwrap();
            reader.join().unwrap().unwrap();
        });
        assert_eq!(counts.1.load(Ordering::SeqCst), 1, "files open at once");
    }
}
