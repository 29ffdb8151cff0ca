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
    publish_text(log, seq, "x")
}

fn publish_text(log: &store::Log, seq: u64, text: &str) -> Result<(), store::Error> {
    let record = RecordRef {
        seq,
        time_ns: 1,
        subject: b"a",
        headers: b"",
        payload: text.as_bytes(),
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

#[test]
fn a_damaged_store_serves_the_rest_and_says_what_to_do() {
    let disk = Arc::new(Moody::default());
    let open = || {
        let mut options = Options::new("/somewhere");
        options.disk = Some(disk.clone());
        store::Store::open(options).unwrap()
    };
    let opened = open();
    let log = opened.create_stream("a").unwrap();
    for seq in 1..=3 {
        publish_text(&log, seq, &format!("this is number {seq}")).unwrap();
    }
    let id = log.stream_id();
    opened.close().unwrap();
    {
        let files = disk.files.lock().unwrap();
        let mut bytes = files["mesh.redb"].lock().unwrap();
        let text = b"this is number 2";
        let at = bytes.windows(text.len()).position(|found| found == text).unwrap();
        bytes[at] ^= 1;
    }
    let opened = open();
    let source = Storage::new(opened.clone());
    let log = opened.open_log(id).unwrap();
    assert!(log.get(2).is_err() && log.get(3).is_ok());
    let found = source.ailments(&Scope::default());
    assert_eq!(
        (found.len(), found[0].kind, found[0].serves),
        (1, "JETSTREAM", true)
    );
    assert!(
        found[0].error.contains("1 records do not match their checksum"),
        "{}",
        found[0].error
    );
    let fix = found[0].fix.as_ref().unwrap();
    assert!(
        fix.contains("mesh store check /somewhere") && fix.contains("--repair"),
        "{fix}"
    );
    assert_eq!(source.store().unwrap().damaged_records, 1);
    // What it takes is not held up by it.
    publish(&log, 4).unwrap();
    opened.close().unwrap();
}
