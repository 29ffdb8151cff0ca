//! Damage: what a flipped bit may cost, and that a repair always ends it.

use super::block::ChunkBuilder;
use super::group::{Group, Pending};
use super::journal::{self, Journal, Replayed};
use super::log_tests::record;
use super::sim_tests::{File, Rng, Sim, SimDisk, options, try_commit};
use super::{Disk, Error, Log, Options, Record, SEQ_MAX, Store, StreamRow, lock};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

const STREAMS: u64 = 3;
const RECORDS: u64 = 30;
/// Of each stream are left its records, its configuration and its consumer.
const A_STREAM: u64 = RECORDS - 5 + 2;
/// What redb writes at the front of a database, and of it the bits that say which commit is the last, and how long it is.
const HEAD_BYTES: usize = 320;
const HEAD_BITS: [usize; 8] = [72, 73, 74, 199, 214, 215, 516, 1541];

fn on(files: &BTreeMap<String, File>) -> SimDisk {
    let sim = Sim {
        files: files.clone(),
        ..Sim::default()
    };
    SimDisk(Arc::new(Mutex::new(sim)))
}

fn meta(id: u64) -> String {
    format!("the configuration of stream {id}, which is as long as those of streams mostly are")
}

/// Stands in for the owner of the streams' own bytes.
fn mend(row: &StreamRow) -> Option<(Bytes, String)> {
    row.damaged
        .then(|| ("mended".into(), format!("stream {} is mended", row.id)))
}

/// A store with streams of records, removed ones among them, and consumers: as after a kill, and as after a clean stop.
fn small_store() -> (BTreeMap<String, File>, BTreeMap<String, File>) {
    let disk = SimDisk::default();
    let roomy = Options {
        journal_bytes_max: 8 << 20,
        ..options(&disk)
    };
    let store = Store::open(roomy).unwrap();
    for id in 1..=STREAMS {
        let log = store.create_stream(meta(id)).unwrap();
        assert_eq!(log.stream_id().0, id);
        log.put_consumer("c", format!("consumer of {id}"));
        try_commit(&log).unwrap();
        for seq in 1..=RECORDS {
            log.append(&record(seq, 100).as_ref()).unwrap();
            try_commit(&log).unwrap();
        }
        log.delete_range(5..=9).unwrap();
        try_commit(&log).unwrap();
    }
    let killed = lock(&disk.0).files.clone();
    store.close().unwrap();
    let closed = lock(&disk.0).files.clone();
    (killed, closed)
}

/// What is left of what was stored; whatever is served is right.
fn left(store: &Store, at: &str) -> (u64, bool) {
    let (mut whole, mut told) = (
        0,
        !store.info().damage.is_empty() || store.info().torn_entries > 0,
    );
    for row in store.streams().unwrap() {
        let log = store.open_log(row.id).unwrap();
        told |= row.damaged;
        whole += u64::from(!row.damaged && row.meta == meta(row.id.0));
        if !row.damaged && row.meta != "mended" {
            assert_eq!(row.meta, meta(row.id.0), "{at}: another configuration is served");
        }
        let consumers = log.consumers();
        whole += u64::from(
            consumers
                .iter()
                .any(|(n, r)| n == "c" && r.meta == format!("consumer of {}", row.id)),
        );
        let seen = log.scan(0, u64::MAX, |r| {
            assert_eq!(*r, record(r.seq, 100).as_ref(), "{at}: served as good");
            whole += 1;
            ControlFlow::Continue(())
        });
        told |= seen.is_err() || !log.damaged().is_empty();
    }
    (whole, told)
}

/// Leaves the files of a failure on the disk: redb gives pages out in an order that no seed repeats.
struct Kept<'a>(&'a BTreeMap<String, File>);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let dir = tempfile::tempdir().unwrap().keep();
            for (name, file) in self.0 {
                std::fs::write(dir.join(name), &file.now).unwrap();
            }
            eprintln!("the files are in {}", dir.display());
        }
    }
}

/// What a store is after damage, and after its repair.
struct Sweep {
    all: u64,
    /// Records and rows that one damaged spot may cost.
    lost_max: u64,
    told_of: u64,
    refused: u64,
}

impl Sweep {
    fn new(lost_max: u64) -> Sweep {
        Sweep {
            all: STREAMS * A_STREAM,
            lost_max,
            told_of: 0,
            refused: 0,
        }
    }

    /// Opens the damaged files, and repairs them.
    fn look(&mut self, files: &BTreeMap<String, File>, at: &str) {
        let _kept = Kept(files);
        let disk = on(files);
        let served = match Store::open(options(&disk)) {
            Ok(store) => {
                let (whole, told) = left(&store, at);
                assert!(
                    told || whole == self.all,
                    "{at}: {whole} of {}, and nobody says so",
                    self.all
                );
                self.told_of += u64::from(told);
                whole
            }
            Err(error) => {
                assert!(matches!(error, Error::Damaged(_)), "{at}: {error}");
                self.refused += 1;
                0
            }
        };
        // As it was found: an open has brought what is whole into the tables.
        let disk = on(files);
        let report = match Store::repair(options(&disk), &mend) {
            Ok(report) => report,
            // More than one bit: there may be nothing that could be read.
            Err(Error::Damaged(_)) if self.lost_max > self.all && served == 0 => return,
            Err(error) => panic!("{at}: not repaired: {error}"),
        };
        assert_eq!(report.damage, Vec::<String>::new(), "{at}");
        let store = Store::open(options(&disk)).unwrap_or_else(|e| panic!("{at}: after its repair: {e}"));
        let (whole, told) = left(&store, at);
        assert!(!told, "{at}: told of again: {:?}", store.info().damage);
        assert!(whole >= served, "{at}: {whole} of the {served} that were served");
        let lost = self.all.saturating_sub(whole);
        assert!(
            lost <= self.lost_max,
            "{at}: {lost} of {} are lost: {report:?}",
            self.all
        );
        assert!(
            lost == 0 || !report.gave_up.is_empty() || report.removed + report.torn_entries > 0,
            "{at}: {report:?}"
        );
    }
}

/// Where something is in a file: most of a small database is empty.
fn used(file: &File) -> Vec<usize> {
    (0..file.now.len()).filter(|&at| file.now[at] != 0).collect()
}

fn rounds(default: u64) -> u64 {
    let given = std::env::var("MESH_CRASH_SEEDS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_bit_is_flipped_the_rest_is_served_or_a_repair_brings_it_back() {
    let (killed, closed) = small_store();
    let all = left(&Store::open(options(&on(&closed))).unwrap(), "whole").0;
    assert_eq!(all, STREAMS * A_STREAM);
    let mut rng = Rng(11);
    let mut sweep = Sweep::new(A_STREAM);
    for (files, name) in [
        (&closed, "mesh.redb"),
        (&killed, "journal.0"),
        (&killed, "mesh.redb"),
    ] {
        let used = used(&files[name]);
        for _ in 0..rounds(40) {
            let (byte, bit) = (used[rng.below(used.len() as u64) as usize], rng.below(8));
            let mut files = files.clone();
            files.get_mut(name).unwrap().now[byte] ^= 1 << bit;
            sweep.look(&files, &format!("bit {bit} of byte {byte} of {name}"));
        }
    }
    let Sweep { told_of, refused, .. } = sweep;
    assert!(told_of > 20, "only {told_of} were told of, {refused} refused");
}

#[test]
fn whatever_bit_of_the_first_page_is_flipped_nothing_is_lost() {
    let (killed, closed) = small_store();
    let mut sweep = Sweep::new(0);
    // All of them if rounds are asked for; else some of each kind.
    let step = if rounds(0) > 0 { 1 } else { 37 };
    for (files, kind) in [(&closed, "closed"), (&killed, "killed")] {
        for bit in (0..HEAD_BYTES * 8).step_by(step).chain(HEAD_BITS) {
            let mut files = files.clone();
            files.get_mut("mesh.redb").unwrap().now[bit / 8] ^= 1 << (bit % 8);
            sweep.look(&files, &format!("bit {bit} of mesh.redb, {kind}"));
        }
    }
    assert!(
        sweep.told_of + sweep.refused > 5,
        "{} were told of",
        sweep.told_of
    );
}

/// Hurts a file where something is, and says how. Deliberately absent: a journal that is empty or gone, which looks like one
/// that was never written to, and an old page in the place of a newer one, which only redb's own checksums would tell.
fn hurt(file: &mut File, rng: &mut Rng) -> String {
    let used = used(file);
    let mut pick = |to: usize| used[rng.below(used.len() as u64) as usize] / to * to;
    let (a, b, sector, page) = (pick(1), pick(1), pick(512), pick(4096));
    let bytes = &mut file.now;
    match rng.below(6) {
        0 => {
            bytes[a] ^= 1 << rng.below(8);
            bytes[b] ^= 1 << rng.below(8);
            format!("flipped at {a} and {b}")
        }
        1 => {
            bytes[sector..sector + 512].fill(0);
            format!("no sector {sector}")
        }
        2 => {
            bytes[page..page + 4096].fill(0);
            format!("no page {page}")
        }
        3 => {
            bytes.truncate(page.max(4096));
            format!("cut to the pages before {page}")
        }
        4 => {
            bytes.truncate(a);
            format!("cut to {a}")
        }
        _ => {
            let end = bytes.len().min(a + 1 + rng.below(64) as usize);
            bytes[a..end].fill_with(|| rng.next() as u8);
            format!("anything in {a}..{end}")
        }
    }
}

#[test]
fn whatever_is_hurt_is_found_and_never_served() {
    let (killed, closed) = small_store();
    let mut rng = Rng(5);
    let mut sweep = Sweep::new(u64::MAX);
    for _ in 0..rounds(12) {
        for (files, name) in [
            (&closed, "mesh.redb"),
            (&killed, "journal.0"),
            (&killed, "mesh.redb"),
        ] {
            let mut files = files.clone();
            let how = hurt(files.get_mut(name).unwrap(), &mut rng);
            sweep.look(&files, &format!("{name}: {how}"));
        }
    }
    assert!(
        sweep.told_of + sweep.refused > 10,
        "only {} were told of",
        sweep.told_of
    );
}

#[test]
fn tables_older_than_the_journal_are_told_of() {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream(meta(1)).unwrap();
    let put = |log: &Log, seqs: std::ops::RangeInclusive<u64>| {
        for seq in seqs {
            log.append(&record(seq, 100).as_ref()).unwrap();
        }
        try_commit(log).unwrap();
    };
    put(&log, 1..=5);
    store.close().unwrap();
    let old = lock(&disk.0).files["mesh.redb"].clone();
    let store = Store::open(options(&disk)).unwrap();
    put(&store.open_log(log.stream_id()).unwrap(), 6..=9);
    // As after a kill, with a copy of the tables from before that life.
    let mut files = lock(&disk.0).files.clone();
    files.insert("mesh.redb".to_owned(), old);
    let store = Store::open(options(&on(&files))).unwrap();
    let log = store.open_log(log.stream_id()).unwrap();
    assert_eq!(log.state().messages, 9, "what the journal has is there");
    assert_eq!(store.info().damage.len(), 1, "{:?}", store.info().damage);
}

/// Cuts the power at every `step`th call of `work`, until it is not reached; what is left has to be good for `after`.
fn cut_everywhere(
    files: &BTreeMap<String, File>,
    step: usize,
    work: impl Fn(&SimDisk) -> bool,
    after: impl Fn(SimDisk, u64),
) {
    for call in (1..).step_by(step) {
        let disk = on(files);
        lock(&disk.0).off_at = Some(call);
        let is_done = work(&disk) && lock(&disk.0).calls < call;
        let mut rng = Rng(call);
        after(disk.after_power_cut(&mut rng), call);
        if is_done {
            assert!(call > 10, "{call} calls are not much work");
            return;
        }
    }
}

fn synced(mut files: BTreeMap<String, File>) -> BTreeMap<String, File> {
    for file in files.values_mut() {
        (file.synced, file.writes) = (file.now.clone(), Vec::new());
    }
    files
}

#[test]
fn a_repair_that_is_cut_off_is_done_again() {
    let (killed, closed) = small_store();
    // Without its first bytes redb takes it for nothing: it is made anew.
    for files in [killed, closed] {
        let mut files = synced(files);
        let file = files.get_mut("mesh.redb").unwrap();
        file.now[3] ^= 1;
        file.synced[3] ^= 1;
        cut_everywhere(
            &files,
            if rounds(0) > 0 { 1 } else { 9 },
            |disk| Store::repair(options(disk), &mend).is_ok(),
            |disk, call| {
                Store::repair(options(&disk), &mend).unwrap_or_else(|e| panic!("cut at {call}: {e}"));
                let store = Store::open(options(&disk)).unwrap();
                assert_eq!(
                    left(&store, "cut").0,
                    STREAMS * A_STREAM,
                    "cut at {call}: {:?}",
                    store.info().damage
                );
            },
        );
    }
}

#[test]
fn a_first_open_that_is_cut_off_is_done_again() {
    let open = |disk: &SimDisk| Store::open(options(disk)).and_then(|store| store.close());
    cut_everywhere(
        &BTreeMap::new(),
        1,
        |disk| open(disk).is_ok(),
        |disk, call| {
            let store = Store::open(options(&disk)).unwrap_or_else(|e| panic!("cut at {call}: {e}"));
            assert_eq!(store.info().damage, Vec::<String>::new(), "cut at {call}");
            let log = store.create_stream(meta(1)).unwrap();
            try_commit(&log).unwrap();
        },
    );
}

fn journal_with(disk: &dyn Disk, epoch: u64, logs: &[(u64, Group)]) -> Journal {
    let mut journal = Journal::begin(disk, epoch, 0).unwrap();
    for (stream, group) in logs {
        write(&mut journal, *stream, group);
    }
    journal
}

fn write(journal: &mut Journal, stream: u64, group: &Group) {
    let mut entry = Vec::new();
    journal::begin_entry(&mut entry);
    journal::put_group(&mut entry, stream, Some(group));
    journal.write(&mut entry).unwrap();
    journal.sync().unwrap();
}

fn group_of(seq: u64, payload: Vec<u8>) -> Group {
    let mut pending = Pending::default();
    let mut record = record(seq, 0);
    record.payload = payload.into();
    pending.append(&record.as_ref());
    pending.take()
}

#[test]
fn a_payload_that_looks_like_an_entry_is_not_taken_for_one() {
    let (disk, epoch) = (SimDisk::default(), 0x1234_5678_9abc_def0);
    // Headers at every place where one can stand, with what can be known from outside: the mark and the numbers to come.
    let mut fakes = Vec::new();
    for _ in 0..(16 << 10) {
        fakes.extend_from_slice(b"MJN1");
        fakes.extend_from_slice(&[0; 12]);
    }
    let begin = group_of(1, fakes.clone());
    let mut journal = journal_with(&disk, epoch, &[(1, begin)]);
    // Where the payload came to stand, put the mark and a number that comes, at multiples of what entries stand at.
    let first = lock(&disk.0).files["journal.0"].now.clone();
    let payload = first.windows(4).position(|w| w == b"MJN1").unwrap();
    let payload = first[payload + 4..]
        .windows(4)
        .position(|w| w == b"MJN1")
        .unwrap()
        + payload
        + 4;
    let mut faked = fakes;
    for at in (0..first.len()).step_by(4096).filter(|at| *at > payload) {
        let Some(within) = faked.get_mut(at - payload..at - payload + 24) else {
            break;
        };
        within[..4].copy_from_slice(b"MJN1");
        within[16..].copy_from_slice(&4u64.to_le_bytes());
    }
    drop(journal);
    journal = journal_with(&disk, epoch, &[(1, group_of(1, faked))]);
    assert!(journal.turn(0, 0).unwrap());
    write(&mut journal, 1, &group_of(2, vec![1]));
    assert!(journal.turn(2, 0).unwrap());
    write(&mut journal, 1, &group_of(3, vec![2]));
    assert!(journal.turn(2, 0).unwrap());
    write(&mut journal, 1, &group_of(4, vec![3]));
    let found = journal::read(&disk, epoch, 2).unwrap();
    assert_eq!((found.torn, found.last_lsn, found.groups.len()), (0, 4, 2));
    assert_eq!(found.damage, Vec::<String>::new());
}

#[test]
fn a_damaged_record_alone_in_its_entry_keeps_its_sequence() {
    let (disk, epoch) = (SimDisk::default(), 7);
    let mut journal = journal_with(&disk, epoch, &[(1, group_of(25, b"MARK".to_vec()))]);
    let mut sim = lock(&disk.0);
    let file = &mut sim.files.get_mut("journal.0").unwrap().now;
    // Of all it is made of, what it says of its own sequence: the last number of that kind.
    let at = file.windows(8).rposition(|w| w == 25u64.to_le_bytes()).unwrap();
    file[at] ^= 2;
    drop(sim);
    // What comes behind says that it was promised.
    write(&mut journal, 1, &group_of(40, vec![1]));
    let found = journal::read(&disk, epoch, 0).unwrap();
    assert!(!found.damage.is_empty());
    let [Replayed::Group(1, group), _] = &found.groups[..] else {
        panic!("the record is gone")
    };
    assert_eq!(
        group
            .chunk
            .index
            .iter()
            .map(|e| (e.seq, e.damaged))
            .collect::<Vec<_>>(),
        [(25, true)]
    );
}

#[test]
fn journals_of_earlier_versions_are_read() {
    let mut records = ChunkBuilder::default();
    records.append(&record(3, 10).as_ref());
    records.append(&record(4, 10).as_ref());
    let chunk = records.finish();
    let mut payload = vec![1];
    super::wire::put_bytes(&mut payload, &chunk.bytes);
    let mut entry = Vec::new();
    journal::begin_entry(&mut entry);
    entry.extend_from_slice(&9u64.to_le_bytes());
    entry.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    entry.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    entry.extend_from_slice(&payload);
    let disk = SimDisk::default();
    let mut journal = Journal::begin(&disk, 5, 0).unwrap();
    journal.write(&mut entry).unwrap();
    let found = journal::read(&disk, 5, 0).unwrap();
    let [Replayed::Group(9, group)] = &found.groups[..] else {
        panic!("not read")
    };
    assert_eq!(group.chunk.seqs(), (3, 4));
}

#[test]
fn damaged_records_are_named_after_others_were_removed() {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    for seq in 1..=50 {
        let mut record = record(seq, 0);
        record.payload = format!("MARK{seq:04}").repeat(8).into_bytes().into();
        log.append(&record.as_ref()).unwrap();
    }
    log.delete_range(1..=24).unwrap();
    log.delete_range(26..=48).unwrap();
    try_commit(&log).unwrap();
    store.close().unwrap();
    let mut sim = lock(&disk.0);
    let file = &mut sim.files.get_mut("mesh.redb").unwrap().now;
    while let Some(at) = file.windows(8).position(|w| w == b"MARK0025") {
        file[at] ^= 1;
    }
    drop(sim);
    let report = Store::check(options(&disk)).unwrap();
    assert_eq!(report.streams[0].damaged, [25]);
}

fn far(seq: u64) -> Record {
    Record { seq, ..record(1, 10) }
}

#[test]
fn a_group_goes_into_no_other_stream() {
    let disk = SimDisk::default();
    let mut journal = journal_with(&disk, 7, &[(3, group_of(1, vec![1]))]);
    // The stream of the group stands behind the header of the entry.
    lock(&disk.0).files.get_mut("journal.0").unwrap().now[52] ^= 64;
    write(&mut journal, 5, &group_of(1, vec![2]));
    let found = journal::read(&disk, 7, 0).unwrap();
    assert!(!found.damage.is_empty());
    let to = |replayed: &Replayed| match replayed {
        Replayed::Group(stream, group) => (*stream, group.chunk.seqs()),
        Replayed::DropStream(stream) => panic!("{stream} is dropped"),
    };
    let to: Vec<_> = found.groups.iter().map(to).collect();
    assert_eq!(to, [(3, (1, 1)), (5, (1, 1))]);
}

fn numbers_at_the_end(log: &Log) {
    let last = log.head().unwrap().last_seq;
    assert_eq!(log.truncate_front(SEQ_MAX).unwrap().messages, u64::from(last > 0));
    log.append(&far(SEQ_MAX).as_ref()).unwrap();
    assert_eq!(log.append(&far(u64::MAX).as_ref()), Err(Error::LastSequence));
    assert_eq!(log.delete_range(1..=u64::MAX).unwrap().messages, 1);
    assert_eq!(log.delete_range(0..=u64::MAX).unwrap().messages, 0);
    assert_eq!(log.delete(u64::MAX).unwrap().messages, 0);
    try_commit(log).unwrap();
    assert_eq!(log.truncate_front(u64::MAX).unwrap().messages, 0);
    try_commit(log).unwrap();
    let state = log.state();
    assert_eq!(
        (state.messages, state.last_seq, state.first_seq),
        (0, SEQ_MAX, u64::MAX)
    );
    assert_eq!(log.head().unwrap().deleted, 0);
}

#[test]
fn the_last_sequences_neither_loop_nor_wrap() {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    try_commit(&log).unwrap();
    numbers_at_the_end(&log);
    let kept = store.create_stream("kept").unwrap();
    kept.append(&far(SEQ_MAX).as_ref()).unwrap();
    try_commit(&kept).unwrap();
    // As after a kill: the journal has it.
    let killed = on(&lock(&disk.0).files.clone());
    let store = Store::open(options(&killed)).unwrap();
    assert_eq!(store.open_log(log.stream_id()).unwrap().state().last_seq, SEQ_MAX);
    assert_eq!(
        store.open_log(kept.stream_id()).unwrap().get(SEQ_MAX).unwrap(),
        Some(far(SEQ_MAX))
    );
    numbers_at_the_end(&Log::memory());
}
