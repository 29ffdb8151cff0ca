//! A store whose disk has failed or filled up, as `/healthz` shows it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::*;
use crate::store::{Disk, Options, RecordRef, StorageBackend};

const FINE: u8 = 0;
const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// Files in memory, on a disk that takes writes or not.
#[derive(Debug, Default)]
struct Moody {
    files: Mutex<HashMap<String, Arc<Mutex<Vec<u8>>>>>,
    mood: Arc<AtomicU8>,
}

#[derive(Debug)]
struct MoodyFile(Arc<Mutex<Vec<u8>>>, Arc<AtomicU8>);

impl Disk for Moody {
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut files = self.files.lock().unwrap();
        let file = files.entry(name.to_owned()).or_default();
        Ok(Box::new(MoodyFile(file.clone(), self.mood.clone())))
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

impl MoodyFile {
    fn takes(&self) -> io::Result<()> {
        match self.1.load(Ordering::SeqCst) {
            FULL => Err(io::ErrorKind::StorageFull.into()),
            BROKEN => Err(io::Error::other("the cable came off")),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for MoodyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (file, at) = (self.0.lock().unwrap(), offset as usize);
        out.copy_from_slice(&file[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.takes()?;
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.takes()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.takes()?;
        let (mut file, at) = (self.0.lock().unwrap(), offset as usize);
        if file.len() < at + data.len() {
            file.resize(at + data.len(), 0);
        }
        file[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Commits one record and says how that went.
fn publish(log: &store::Log, seq: u64) -> Result<(), store::Error> {
    let record = RecordRef {
        seq,
        time_ns: 1,
        subject: b"a",
        headers: b"",
        payload: b"x",
    };
    log.append(&record)?;
    let (tell, told) = mpsc::channel();
    log.commit(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

#[test]
fn a_store_that_takes_nothing_is_unhealthy_with_the_reason_until_it_goes_on() {
    let disk = Arc::new(Moody::default());
    let mood = disk.mood.clone();
    let mut options = Options::new("/somewhere");
    options.disk = Some(disk);
    options.retry_max = Duration::from_millis(20);
    let opened = store::Store::open(options).unwrap();
    let log = opened.create_stream("a").unwrap();
    publish(&log, 1).unwrap();
    let source = Storage::new(opened.clone());
    assert!(source.ailments(&Scope::default()).is_empty());
    let mut seq = 1;
    for (now, word, state) in [
        (FULL, "no room left", "full"),
        (BROKEN, "the cable came off", "failed"),
    ] {
        mood.store(now, Ordering::SeqCst);
        seq += 1;
        assert!(publish(&log, seq).is_err());
        // Every scope: with `js-enabled-only` too, for a JetStream that takes nothing is not on.
        for scope in [
            Scope::default(),
            Scope {
                enabled_only: true,
                ..Scope::default()
            },
        ] {
            let found = source.ailments(&scope);
            assert_eq!((found.len(), found[0].kind), (1, "JETSTREAM"));
            assert!(found[0].error.contains(word), "{}", found[0].error);
            assert!(found[0].fix.as_ref().unwrap().contains("/somewhere"));
        }
        let shown = source.store().unwrap();
        assert_eq!((shown.state.as_str(), shown.reason.is_some()), (state, true));
        mood.store(FINE, Ordering::SeqCst);
        let began = Instant::now();
        while !source.ailments(&Scope::default()).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not go on");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(source.store().unwrap().state, "ok");
    opened.close().unwrap();
}
