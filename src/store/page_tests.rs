//! Pages of the database that redb cannot read: what is in them is lost, nothing else.

use super::base::NAME;
use super::log_tests::record;
use super::sim_tests::{SimDisk, options, try_commit};
use super::{Error, Log, State, Store, lock};
use std::ops::ControlFlow;

/// Records of a log, over three blocks and more.
const RECORDS: u64 = 4000;

/// A store whose tables hold a log of records with a gap behind each of `gaps`.
fn filled(gaps: &[u64]) -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    let mut seqs = Vec::new();
    for n in 1..=RECORDS {
        let gap = gaps.iter().filter(|&&gap| gap < n).count() as u64;
        log.append(&record(n + gap, 100).as_ref()).unwrap();
        seqs.push(n + gap);
    }
    try_commit(&log).unwrap();
    store.close().unwrap();
    (disk, seqs)
}

/// Makes the page that holds a record one that is none, wherever it is.
fn hurt(disk: &SimDisk, seq: u64) {
    let mut sim = lock(&disk.0);
    let file = &mut sim.files.get_mut(NAME).unwrap().now;
    // Its sequence and its time, as they stand beside each other.
    let wanted = [seq.to_le_bytes(), (seq * 1000).to_le_bytes()].concat();
    let places: Vec<usize> = (0..file.len() - wanted.len())
        .filter(|&at| file[at..].starts_with(&wanted))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        // A leaf begins with a one and says how many pairs it has.
        let pages = (0..=at / 4096).rev().map(|page| page * 4096);
        let leaf = { pages }.find(|&page| file[page] == 1 && file[page + 2] > 0 && file[page + 3] == 0);
        file[leaf.unwrap()] = 0xee;
    }
}

fn readable(log: &Log) -> Vec<u64> {
    let mut seen = Vec::new();
    let end = log.scan(0, u64::MAX, |record| {
        seen.push(record.seq);
        ControlFlow::Continue(())
    });
    end.unwrap();
    seen
}

/// The log of a store that was opened before a page of it went bad. (In debug builds redb reads all pages when it commits:
/// nothing is brought into the tables here.)
fn hurt_one(gaps: &[u64], seq: u64) -> (Store, Log, Vec<u64>, u64) {
    let (disk, seqs) = filled(gaps);
    let store = Store::open(options(&disk)).unwrap();
    let log = store.open_log(store.streams().unwrap()[0].id).unwrap();
    hurt(&disk, seq);
    let whole = readable(&log);
    let lost = (seqs.len() - whole.len()) as u64;
    assert!(lost > 100 && whole.len() > 1000, "{lost} of {}", seqs.len());
    assert_eq!(whole, seqs[lost as usize..], "nothing else");
    (store, log, whole, lost)
}

#[test]
fn a_record_in_a_page_that_cannot_be_read_is_removed_by_its_sequence() {
    let (store, log, whole, lost) = hurt_one(&[], 10);
    assert!(matches!(log.get(11), Err(Error::DamagedRecord { .. })));
    assert_eq!(log.delete(11).unwrap().messages, 1);
    assert_eq!(log.delete(11).unwrap().messages, 0);
    try_commit(&log).unwrap();
    assert_eq!((store.state(), log.state().messages), (State::Ok, RECORDS - 1));
    assert!(log.get(11).unwrap().is_none(), "it is gone, and not damaged");
    // All but one of those go, and the block stays what it is.
    assert_eq!(log.delete_range(1..=lost - 1).unwrap().messages, lost - 2);
    log.append(&record(RECORDS + 1, 100).as_ref()).unwrap();
    try_commit(&log).unwrap();
    assert_eq!(readable(&log), [&whole[..], &[RECORDS + 1]].concat());
    assert!(matches!(log.get(lost), Err(Error::DamagedRecord { .. })));
    assert_eq!(log.truncate_front(lost + 1).unwrap().messages, 1);
    try_commit(&log).unwrap();
    let state = log.state();
    assert_eq!((state.messages, state.first_seq), (RECORDS + 1 - lost, whole[0]));
    assert_eq!(store.state(), State::Ok);
}

#[test]
fn where_sequences_cannot_be_told_nothing_is_removed_and_nothing_stops() {
    let (store, log, whole, lost) = hurt_one(&[5], 10);
    assert_eq!(log.delete(10).unwrap().messages, 0);
    // Together they can go.
    assert_eq!(log.truncate_front(whole[0]).unwrap().messages, lost);
    log.append(&record(RECORDS + 2, 100).as_ref()).unwrap();
    try_commit(&log).unwrap();
    let messages = whole.len() as u64 + 1;
    assert_eq!((store.state(), log.state().messages), (State::Ok, messages));
}
