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

#[test]
fn whatever_bit_is_flipped_the_rest_is_served_or_a_repair_brings_it_back() {
    let (killed, closed) = small_store();
    let all = left(&Store::open(options(&on(&closed))).unwrap(), "whole").0;
    assert_eq!(all, STREAMS * (RECORDS - 5 + 2));
    let flips = std::env::var("MESH_CRASH_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(40);
    let mut rng = Rng(11);
    let (mut told_of, mut refused) = (0, 0);
    for (files, name) in [
        (&closed, "mesh.redb"),
        (&killed, "journal.0"),
        (&killed, "mesh.redb"),
    ] {
        // Where something is: most of a small database is empty.
        let used: Vec<usize> = (0..files[name].now.len())
            .filter(|&at| files[name].now[at] != 0)
            .collect();
        for _ in 0..flips {
            let (byte, bit) = (used[rng.below(used.len() as u64) as usize], rng.below(8));
            let at = format!("bit {bit} of byte {byte} of {name}");
            let mut files = files.clone();
            files.get_mut(name).unwrap().now[byte] ^= 1 << bit;
            let disk = on(&files);
            let served = match Store::open(options(&disk)) {
                Ok(store) => {
                    let (whole, told) = left(&store, &at);
                    assert!(told || whole == all, "{at}: {whole} of {all}, and nobody says so");
                    told_of += u64::from(told);
                    whole
                }
                Err(error) => {
                    assert!(matches!(error, Error::Damaged(_)), "{at}: {error}");
                    refused += 1;
                    0
                }
            };
            // As it was found: an open has brought what is whole into the tables.
            let disk = on(&files);
            let report =
                Store::repair(options(&disk), &mend).unwrap_or_else(|e| panic!("{at}: not repaired: {e}"));
            assert_eq!(report.damage, Vec::<String>::new(), "{at}");
            let store = Store::open(options(&disk)).unwrap_or_else(|e| panic!("{at}: after its repair: {e}"));
            let (whole, told) = left(&store, &at);
            assert!(!told, "{at}: told of again: {:?}", store.info().damage);
            assert!(whole >= served, "{at}: {whole} of the {served} that were served");
            let lost = all.saturating_sub(whole);
            assert!(
                lost <= RECORDS - 5 + 2,
                "{at}: {lost} of {all} are lost: {report:?}"
            );
            assert!(
                lost == 0 || !report.gave_up.is_empty() || report.removed + report.torn_entries > 0,
                "{at}: {report:?}"
            );
        }
    }
    assert!(told_of > 20, "only {told_of} were told of, {refused} refused");
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
