//! Pages of the database that redb cannot read: what is in them is lost, nothing else.

use super::cache::Cache;
use super::log_tests::record;
use super::sim_tests::{SimDisk, options, try_commit};
use super::{Error, Log, State, Store, lock};
use std::ops::ControlFlow;

/// Records of a log, over a few blocks.
const RECORDS: u64 = 3000;

fn readable(log: &Log) -> Vec<u64> {
    let mut seen = Vec::new();
    let end = log.scan(0, u64::MAX, |record| {
        seen.push(record.seq);
        ControlFlow::Continue(())
    });
    end.unwrap();
    seen
}

/// A store whose tables hold a log, behind every `gap` of whose records a sequence is left out, and of which the first
/// block cannot be read: the sequences of that block, and of the others.
fn hurt(disk: &SimDisk, gap: u64) -> (Store, Log, Vec<u64>, Vec<u64>) {
    let store = Store::open(options(disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    let seqs: Vec<u64> = (0..RECORDS).map(|n| 1 + n + n / gap).collect();
    for &seq in &seqs {
        log.append(&record(seq, 100).as_ref()).unwrap();
    }
    try_commit(&log).unwrap();
    store.close().unwrap();
    let store = Store::open(options(disk)).unwrap();
    let log = store.open_log(log.stream_id()).unwrap();
    let core = log.0.core.clone().unwrap();
    lock(&core.unreadable).insert((log.stream_id().0, 1));
    *lock(&core.cache) = Cache::new(0);
    let whole = readable(&log);
    let (lost, others) = seqs.split_at(seqs.len() - whole.len());
    assert!(lost.len() > 500 && whole == others, "{} of {RECORDS}", lost.len());
    (store, log, lost.to_vec(), whole)
}

#[test]
fn a_record_in_a_page_that_cannot_be_read_is_removed_by_its_sequence() {
    let disk = SimDisk::default();
    let (store, log, lost, whole) = hurt(&disk, u64::MAX);
    assert!(matches!(log.get(11), Err(Error::DamagedRecord { .. })));
    assert_eq!(log.delete(11).unwrap().messages, 1);
    assert_eq!(log.delete(11).unwrap().messages, 0);
    try_commit(&log).unwrap();
    assert_eq!((store.state(), log.state().messages), (State::Ok, RECORDS - 1));
    assert!(log.get(11).unwrap().is_none(), "it is gone, and not damaged");
    // All but the last of them go: the block stays what it is, and nothing of it is written again.
    let last = lost.len() as u64;
    assert_eq!(log.delete_range(1..=last - 1).unwrap().messages, last - 2);
    log.append(&record(RECORDS + 1, 100).as_ref()).unwrap();
    try_commit(&log).unwrap();
    let expected = [&whole[..], &[RECORDS + 1]].concat();
    assert_eq!(readable(&log), expected);
    assert!(matches!(log.get(last), Err(Error::DamagedRecord { .. })));
    let id = log.stream_id();
    store.close().unwrap();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.open_log(id).unwrap();
    assert_eq!(store.info().damage, Vec::<String>::new());
    // The disk has thought better of it.
    assert_eq!(readable(&log), [&[last][..], &expected].concat());
    assert_eq!(log.state().messages, expected.len() as u64 + 1);
    store.close().unwrap();
}

#[test]
fn where_sequences_cannot_be_told_nothing_is_removed_and_nothing_stops() {
    let disk = SimDisk::default();
    let (store, log, lost, whole) = hurt(&disk, 7);
    for seq in [10, lost[lost.len() - 1]] {
        assert_eq!(log.delete(seq).unwrap().messages, 0);
    }
    try_commit(&log).unwrap();
    assert_eq!((store.state(), log.state().messages), (State::Ok, RECORDS));
    // Together they can go.
    let removed = log.truncate_front(whole[0]).unwrap();
    assert_eq!(removed.messages, lost.len() as u64);
    try_commit(&log).unwrap();
    assert_eq!(
        (store.state(), log.state().messages),
        (State::Ok, whole.len() as u64)
    );
    assert_eq!(readable(&log), whole);
    store.close().unwrap();
}
