//! A disk that the store itself has filled: what is there can be removed, and what that frees is used again.

use super::log_tests::record;
use super::sim_tests::{SimDisk, options, try_commit};
use super::{Error, Log, State, Store, lock};
use std::time::Duration;

const QUOTA: usize = 6 << 20;

/// Appends until the disk says no; the last sequence that was acknowledged.
fn fill(log: &Log) -> u64 {
    loop {
        let seq = log.head().unwrap().last_seq + 1;
        let put = log.append(&record(seq, 20_000).as_ref());
        if let Err(error) = put.and_then(|()| try_commit(log)) {
            assert!(matches!(error, Error::Full(_)), "{error}");
            return seq - 1;
        }
        assert!(seq < 2_000, "40 MB fit into 6");
    }
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come");
}

#[test]
fn what_filled_the_disk_can_be_purged_and_the_room_used_again() {
    let disk = SimDisk::default();
    let store = Store::open(options(&disk)).unwrap();
    let log = store.create_stream("meta").unwrap();
    try_commit(&log).unwrap();
    let core = log.0.core.clone().unwrap();
    eventually("the reserve", || *lock(&core.reserve) > 0);
    lock(&disk.0).quota = Some(QUOTA);
    for round in 0..4 {
        let acked = fill(&log);
        eventually("a store that takes removals", || store.takes_removals().is_ok());
        if store.state() != State::Ok {
            let refused = log.append(&record(acked + 100, 10).as_ref());
            assert!(
                matches!(refused, Err(Error::Full(_))),
                "round {round}: {refused:?}"
            );
        }
        let last = log.head().unwrap().last_seq;
        log.truncate_front(last).unwrap();
        // It may come right behind the last record that did not fit: then it is kept, and lands when the store goes on.
        if let Err(error) = try_commit(&log) {
            assert!(matches!(error, Error::Full(_)), "round {round}: {error}");
        }
        eventually("room", || store.state() == State::Ok && log.state().messages == 1);
        assert!(*lock(&core.reserve) > 0, "round {round}: nothing is kept back");
        log.append(&record(last + 1, 20_000).as_ref()).unwrap();
        try_commit(&log).unwrap();
    }
    let other = store.create_stream("other").unwrap();
    try_commit(&other).unwrap();
}

#[test]
fn a_full_disk_is_opened_and_freed_after_a_kill_and_after_a_stop() {
    for kill in [true, false] {
        let disk = SimDisk::default();
        let store = Store::open(options(&disk)).unwrap();
        let log = store.create_stream("meta").unwrap();
        try_commit(&log).unwrap();
        let core = log.0.core.clone().unwrap();
        eventually("the reserve", || *lock(&core.reserve) > 0);
        lock(&disk.0).quota = Some(QUOTA);
        let acked = fill(&log);
        drop(core);
        let disk = if kill {
            // Nothing more reaches this disk: it is left as it is.
            let sim = lock(&disk.0);
            SimDisk::with(sim.files.clone(), sim.quota)
        } else {
            let _ = store.close();
            disk
        };
        let store = Store::open(options(&disk)).unwrap_or_else(|e| panic!("kill {kill}: {e}"));
        let log = store.open_log(log.stream_id()).unwrap();
        assert!(log.get(acked).unwrap().is_some(), "kill {kill}: {acked} is lost");
        eventually("a store that takes removals", || store.takes_removals().is_ok());
        let (tell, told) = std::sync::mpsc::channel();
        store.remove_stream(
            log.stream_id(),
            Box::new(move |result| tell.send(result).unwrap()),
        );
        told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
        eventually("room", || store.state() == State::Ok);
        let other = store.create_stream("other").unwrap();
        try_commit(&other).unwrap();
    }
}
