//! Faults: power cuts, IO errors, a full disk, flipped bits. One seed drives the work and the fault; an
//! oracle knows what was acknowledged. `MESH_CRASH_SEEDS=n` runs n seeds of each (and from
//! `MESH_CRASH_FROM` on); a failing one prints itself.

use super::log_tests::{Model, Step, parse_notes, record};
use super::sim_tests::{File, Rng, Sim, SimDisk, options, try_commit};
use super::{Error, Log, Options, State, Store, Sync, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|v: String| v.parse::<u64>().ok())
    };
    let from = number("MESH_CRASH_FROM").unwrap_or(0);
    from..from + number("MESH_CRASH_SEEDS").unwrap_or(default)
}

/// Prints the seed if the test panics.
struct Seed(&'static str, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}: failing seed: MESH_CRASH_FROM={} MESH_CRASH_SEEDS=1",
                self.0, self.1
            );
        }
    }
}

fn random_step(rng: &mut Rng) -> Step {
    match rng.below(20) {
        0..=8 => Step::Append {
            gap: if rng.below(10) == 0 { rng.below(30) } else { 0 },
            size: if rng.below(8) == 0 {
                rng.below(60_000) as usize
            } else {
                rng.below(300) as usize
            },
        },
        9..=12 => Step::Delete(rng.next()),
        13 => Step::DeleteRange(rng.next(), rng.next()),
        14 => Step::Truncate(rng.next()),
        15 => Step::Consumer(rng.below(4) as u8, rng.next() as u8),
        16 => match rng.below(5) {
            0 => Step::RemoveConsumer(rng.below(4) as u8),
            1 => Step::Compress(rng.below(2) == 0),
            _ => Step::Note(rng.below(3000) as u16),
        },
        _ => Step::Commit,
    }
}

fn same(model: &Model, log: &Log) -> bool {
    let mut seen = Vec::new();
    let end = log.scan(0, u64::MAX, |r| {
        seen.push(r.seq);
        ControlFlow::Continue(())
    });
    let rows: BTreeMap<_, _> = log.consumers().into_iter().map(|(n, r)| (n, r.meta)).collect();
    end == Ok(None)
        && seen.iter().eq(model.records.keys())
        && log.state().last_seq == model.last_seq
        && rows == model.consumers
        && model.has_notes(log)
}

/// What callers derive from their logs, by stream, while they take their time with it.
#[derive(Default)]
struct Derived(BTreeMap<u64, (u64, Vec<u8>)>);

impl Derived {
    /// Begins, perhaps: which commits what was put. True if it did.
    fn begin(&mut self, log: &Log, model: &Model, rng: &mut Rng) -> Result<bool, Error> {
        if rng.below(25) > 0 {
            return Ok(false);
        }
        let number = log.begin_checkpoint(model.last_seq)?;
        // It holds which records there are, and how many notes there were.
        let mut bytes = Vec::new();
        for number in [model.notes.len(), model.records.len()] {
            bytes.extend_from_slice(&(number as u64).to_le_bytes());
        }
        model
            .records
            .keys()
            .for_each(|seq| bytes.extend_from_slice(&seq.to_le_bytes()));
        bytes.resize(bytes.len() + rng.below(200_000) as usize, 7);
        let number = number.expect("the model knows the last sequence");
        self.0.insert(log.stream_id().0, (number, bytes));
        Ok(true)
    }

    /// Finishes after a commit that ended well, perhaps.
    fn finish(&mut self, log: &Log, rng: &mut Rng) {
        if rng.below(3) == 0
            && let Some((number, bytes)) = self.0.remove(&log.stream_id().0)
        {
            assert!(log.finish_checkpoint(number, bytes));
        }
    }

    /// Whether a log has all that is needed to derive it again: each removal once, and the notes since.
    fn is_in(model: &Model, log: &Log) -> bool {
        let Some(found) = log.checkpoint().unwrap() else {
            return true;
        };
        let mut numbers = found.bytes.chunks_exact(8);
        let mut number = || u64::from_le_bytes(numbers.next().unwrap().try_into().unwrap());
        let (notes, count) = (number(), number());
        let mut seqs: BTreeSet<u64> = (0..count).map(|_| number()).collect();
        let since = log.notes().unwrap().pages.concat();
        let missing = &model.notes[..model.notes.len() - parse_notes(&since).len()];
        let removed = found.removed.expect("few were removed");
        let known = removed
            .iter()
            .all(|(seq, subject)| seqs.remove(seq) && record(*seq, 0).subject == *subject);
        let read = log.scan(found.upto_seq + 1, u64::MAX, |r| {
            assert!(seqs.insert(r.seq));
            ControlFlow::Continue(())
        });
        read.unwrap();
        known && missing.len() as u64 <= notes && seqs.iter().eq(model.records.keys())
    }
}

/// One life of a store: random work on two streams until the disk says no. For each stream the last
/// acknowledged model, and those committed since.
fn live(store: &Store, rng: &mut Rng, lives: &mut BTreeMap<u64, Vec<Model>>, steps: u64) {
    while lives.len() < 2 {
        let Ok(log) = store.create_stream("meta") else {
            return;
        };
        if try_commit(&log).is_err() {
            return;
        }
        lives.insert(log.stream_id().0, vec![Model::default()]);
    }
    let ids: Vec<u64> = lives.keys().copied().collect();
    let mut derived = Derived::default();
    for _ in 0..steps {
        let id = ids[rng.below(2) as usize];
        let log = store.open_log(super::StreamId(id)).unwrap();
        let models = lives.get_mut(&id).unwrap();
        let mut model = models.last().unwrap().clone();
        for _ in 0..rng.below(12) {
            if model.apply_quietly(&log, &random_step(rng)).is_err() {
                break;
            }
            match derived.begin(&log, &model, rng) {
                Ok(true) => models.push(model.clone()),
                Ok(false) => {}
                Err(_) => break,
            }
        }
        models.push(model);
        match try_commit(&log) {
            Ok(()) => drop(models.drain(..models.len() - 1)),
            Err(_) => return,
        }
        derived.finish(&log, rng);
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    for seed in seeds(300) {
        let _seed = Seed("power cut", seed);
        let mut rng = Rng(seed);
        let mut disk = SimDisk::default();
        let mut lives = BTreeMap::new();
        for round in 0..3 {
            let mut sim = lock(&disk.0);
            sim.off_at = Some(sim.calls + 12 + rng.below(200));
            drop(sim);
            if let Ok(store) = Store::open(options(&disk)) {
                live(&store, &mut rng, &mut lives, 120);
                drop(store);
            }
            disk = disk.after_power_cut(&mut rng);
            let store = Store::open(options(&disk)).unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(store.info().damage, Vec::<String>::new());
            for (id, models) in &mut lives {
                let log = store.open_log(super::StreamId(*id)).unwrap();
                // What was acknowledged, or that and what was under way, whole.
                let found = models
                    .iter()
                    .rposition(|m| same(m, &log) && Derived::is_in(m, &log));
                let found =
                    found.unwrap_or_else(|| panic!("stream {id}: {:?} is none of\n{models:#?}", log.state()));
                models.drain(..found);
                models.truncate(1);
                models[0].check(&log);
            }
            store.close().unwrap();
        }
    }
}

#[test]
fn an_io_error_stops_the_store_until_it_works_again_and_loses_nothing() {
    for seed in seeds(60) {
        let _seed = Seed("io error", seed);
        let mut rng = Rng(seed);
        let disk = SimDisk::default();
        let store = Store::open(options(&disk)).unwrap();
        let log = store.create_stream("meta").unwrap();
        let mut model = Model::default();
        let calls = lock(&disk.0).calls;
        lock(&disk.0).fail = Some((calls + 1 + rng.below(40), 1 + rng.below(12)));
        let (mut failed, mut derived) = (false, Derived::default());
        for _ in 0..60 {
            for _ in 0..rng.below(8) {
                let step = random_step(&mut rng);
                let applied = model.apply_quietly(&log, &step);
                match applied.and_then(|()| derived.begin(&log, &model, &mut rng)) {
                    Ok(_) => {}
                    Err(Error::Failed(_)) => wait_for_ok(&store),
                    Err(error) => panic!("{error}"),
                }
            }
            match try_commit(&log) {
                Ok(()) => derived.finish(&log, &mut rng),
                Err(error) => {
                    assert!(matches!(error, Error::Failed(_)), "{error}");
                    failed = true;
                    wait_for_ok(&store);
                }
            }
        }
        wait_for_ok(&store);
        while try_commit(&log).is_err() {
            wait_for_ok(&store);
        }
        model.check(&log);
        store.close().unwrap();
        let store = Store::open(options(&disk)).unwrap();
        assert_eq!(store.info().damage, Vec::<String>::new(), "failed: {failed}");
        let log = store.open_log(log.stream_id()).unwrap();
        model.check(&log);
        assert!(Derived::is_in(&model, &log), "failed: {failed}");
    }
}

fn wait_for_ok(store: &Store) {
    for _ in 0..2000 {
        if store.info().state == State::Ok {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the store did not resume: {:?}", store.info().state);
}

#[test]
fn a_full_disk_refuses_clearly_and_resumes_when_there_is_room() {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    lock(&disk.0).quota = Some(6 << 20);
    let mut acked = 0;
    let error = loop {
        let seq = log.head().unwrap().last_seq + 1;
        let put = log.append(&record(seq, 20_000).as_ref());
        match put.and_then(|()| try_commit(&log)) {
            Ok(()) => acked = seq,
            Err(error) => {
                // It may find room again, by what it had kept back, until there is none.
                while store.takes_removals().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if store.state() != State::Ok {
                    break error;
                }
            }
        }
        assert!(seq < 2_000, "40 MB fit into 6");
    };
    assert!(matches!(error, Error::Full(_)), "{error}");
    assert!(matches!(store.info().state, State::Full(_)));
    assert!(matches!(
        log.append(&record(acked + 9, 1).as_ref()),
        Err(Error::Full(_))
    ));
    assert!(log.get(acked).unwrap().is_some(), "reads go on");
    lock(&disk.0).quota = None;
    wait_for_ok(&store);
    let last = log.head().unwrap().last_seq;
    log.append(&record(last + 1, 20_000).as_ref()).unwrap();
    try_commit(&log).unwrap();
    drop(store);
    let store = Store::open(options(&disk)).unwrap();
    let log = store.open_log(log.stream_id()).unwrap();
    assert_eq!((log.state().last_seq, log.state().messages), (last + 1, last + 1));
    assert!(last >= acked);
}

/// Every record that is served is the one that was stored; the others are named, or the store says what
/// is wrong.
fn flip(files: &BTreeMap<String, File>, name: &str, bit: usize, records: u64) -> bool {
    let mut files = files.clone();
    let file = files.get_mut(name).unwrap();
    file.now[bit / 8] ^= 1 << (bit % 8);
    file.synced = file.now.clone();
    let disk = SimDisk(Arc::new(Mutex::new(Sim {
        files,
        ..Sim::default()
    })));
    let store = match Store::open(options(&disk)) {
        Ok(store) => store,
        Err(_) => return true,
    };
    let rows = store.streams().unwrap();
    let mut told = !store.info().damage.is_empty() || store.info().torn_entries > 0;
    let mut good = 0;
    for row in rows {
        let log = store.open_log(row.id).unwrap();
        for seq in 1..=records {
            match log.get(seq) {
                Ok(Some(found)) => {
                    assert_eq!(found, record(seq, 200), "served as good: bit {bit} of {name}");
                    good += 1;
                }
                Ok(None) => {}
                Err(_) => told = true,
            }
        }
        let _ = log.scan(0, u64::MAX, |r| {
            assert_eq!(
                *r,
                record(r.seq, 200).as_ref(),
                "scanned as good: bit {bit} of {name}"
            );
            ControlFlow::Continue(())
        });
    }
    assert!(
        told || good == records,
        "bit {bit} of {name}: {good} of {records} records, and nobody says so"
    );
    told
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    flip_some(false);
}

#[test]
fn a_flipped_bit_of_a_compressed_block_is_found_or_harmless() {
    flip_some(true);
}

fn flip_some(compress: bool) {
    let records = 400;
    let disk = SimDisk::default();
    // One journal file takes it all, whatever the checkpoint thread does meanwhile.
    let roomy = Options {
        journal_bytes_max: 8 << 20,
        ..options(&disk)
    };
    let store = Store::open(roomy).unwrap();
    let log = store.create_stream("meta").unwrap();
    log.compress(compress);
    for seq in 1..=records {
        log.append(&record(seq, 200).as_ref()).unwrap();
        if seq % 40 == 0 {
            try_commit(&log).unwrap();
        }
    }
    try_commit(&log).unwrap();
    // As after a kill: the journal holds it all. Then as after a clean stop: the tables do.
    let killed = lock(&disk.0).files.clone();
    store.close().unwrap();
    let closed = lock(&disk.0).files.clone();
    let mut found = 0;
    let mut rng = Rng(7);
    if compress {
        flip_packed(&closed, &mut rng, records);
    }
    for (files, name) in [(&killed, "journal.0"), (&closed, "mesh.redb")] {
        let used = files[name].now.iter().rposition(|&b| b != 0).unwrap() + 1;
        let flips = seeds(400).end - seeds(400).start;
        for n in 0..flips {
            // Some of them where headers are.
            let byte = if n % 4 == 0 {
                rng.below(4096.min(used as u64))
            } else {
                rng.below(used as u64)
            };
            let bit = byte as usize * 8 + rng.below(8) as usize;
            found += u64::from(flip(files, name, bit, records));
        }
    }
    assert!(found > 100, "only {found} were found");
}

/// Flips bits of compressed rows alone, found by their first bytes; in most of them what stands before is still served.
fn flip_packed(files: &BTreeMap<String, File>, rng: &mut Rng, records: u64) {
    let name = "mesh.redb";
    let bytes = &files[name].now;
    let plain = record(records / 2, 200);
    assert!(
        !bytes.windows(plain.payload.len()).any(|w| w == plain.payload),
        "a record stands in the clear"
    );
    // The row of block 1 of stream 1; its first record has some literals at least.
    let key: Vec<u8> = [1u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let rows = bytes.windows(key.len()).enumerate();
    let starts: Vec<usize> = rows
        .filter(|(at, w)| {
            *w == key
                && super::pack::parse_data_row((1, 1), bytes[*at..bytes.len().min(*at + 4096)].to_vec())
                    .is_some()
        })
        .map(|(at, _)| at)
        .collect();
    assert!(!starts.is_empty(), "no compressed row");
    let mut told = 0;
    for start in &starts {
        for _ in 0..60 {
            let byte = start + rng.below(3000) as usize;
            told += u64::from(flip(files, name, byte * 8 + rng.below(8) as usize, records));
        }
    }
    assert!(told >= 40, "only {told} were found");
}

#[test]
fn a_lazy_store_keeps_a_prefix_through_a_power_cut() {
    for seed in seeds(30) {
        let _seed = Seed("lazy", seed);
        let mut rng = Rng(seed);
        let disk = SimDisk::default();
        let lazy = Options {
            sync: Sync::Interval(Duration::from_millis(2)),
            ..options(&disk)
        };
        let store = Store::open(lazy).unwrap();
        let log = store.create_stream("meta").unwrap();
        try_commit(&log).unwrap();
        let mut sim = lock(&disk.0);
        sim.off_at = Some(sim.calls + 20 + rng.below(100));
        drop(sim);
        let (mut models, mut derived) = (vec![Model::default()], Derived::default());
        loop {
            let mut model = models.last().unwrap().clone();
            let steps = 1 + rng.below(4);
            let done = (0..steps).all(|_| model.apply_quietly(&log, &random_step(&mut rng)).is_ok());
            models.push(model);
            let begun = derived.begin(&log, models.last().unwrap(), &mut rng);
            if !done || begun.is_err() || try_commit(&log).is_err() {
                break;
            }
            derived.finish(&log, &mut rng);
        }
        drop(store);
        let disk = disk.after_power_cut(&mut rng);
        let store = Store::open(options(&disk)).unwrap();
        if let Some(row) = store.streams().unwrap().first() {
            let log = store.open_log(row.id).unwrap();
            let found = models
                .iter()
                .any(|model| same(model, &log) && Derived::is_in(model, &log));
            assert!(found, "{:?} is none of {models:#?}", log.state());
        }
    }
}

/// The journal's last write was lost with the power, the one before it and what the tables hold were not.
#[test]
fn a_lazy_store_replays_nothing_over_what_is_newer() {
    let disk = SimDisk::default();
    let lazy = || Options {
        sync: Sync::Interval(Duration::from_secs(3600)),
        ..options(&disk)
    };
    let writes = || lock(&disk.0).files["journal.0"].writes.len();
    let submit = |log: &Log| {
        let before = writes();
        log.commit(Box::new(|_| {}));
        while writes() == before {
            std::thread::yield_now();
        }
    };
    let store = Store::open(lazy()).unwrap();
    let (slow, log) = (
        store.create_stream("slow").unwrap(),
        store.create_stream("meta").unwrap(),
    );
    log.put_consumer_state("c", "first");
    try_commit(&slow).unwrap();
    try_commit(&log).unwrap();
    let core = slow.0.core.clone().unwrap();
    let landed = || core.landed.load(std::sync::atomic::Ordering::SeqCst);
    let all = landed() + 2;
    let kept = std::thread::scope(|scope| {
        // A checkpoint waits for one log while another one goes on.
        let held = lock(&slow.0.inner);
        let checkpoint = scope.spawn(|| core.checkpoint(None));
        while !lock(&core.dirty).is_empty() {
            std::thread::yield_now();
        }
        log.put_consumer_delta("c", 1, "of the first");
        submit(&log);
        let kept = lock(&disk.0).files["journal.0"].clone();
        log.put_consumer_state("c", "second");
        submit(&log);
        while landed() < all && core.landing.try_lock().is_ok() {
            std::thread::yield_now();
        }
        drop(held);
        checkpoint.join().unwrap().unwrap();
        kept
    });
    let cut = SimDisk::default();
    lock(&cut.0).files = lock(&disk.0).files.clone();
    lock(&cut.0).files.insert("journal.0".to_owned(), kept);
    let store = Store::open(options(&cut)).unwrap();
    let (_, row) = store.open_log(log.stream_id()).unwrap().consumers().remove(0);
    assert_eq!(
        (&row.state[..], row.deltas),
        (&b"first"[..], vec!["of the first".into()])
    );
}
