//! The store as its users see it: one owner, bounded files, checks and repairs, what a caller leaves with it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of test functions"
)]

use sovereign_mesh::store::{Error, Log, Options, RecordRef, State, Store, StreamId};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;

fn append(log: &Log, seq: u64, payload: &[u8]) {
    let subject = format!("s.{seq:08}");
    let record = RecordRef {
        seq,
        time_ns: seq as i64,
        subject: subject.as_bytes(),
        headers: b"",
        payload,
    };
    log.append(&record).unwrap();
}

fn commit(log: &Log) {
    let (tx, rx) = mpsc::channel();
    log.commit(Box::new(move |result| tx.send(result).unwrap()));
    rx.recv().unwrap().unwrap();
}

fn open(dir: &Path) -> Store {
    Store::open(Options::new(dir)).unwrap()
}

#[test]
fn a_second_opener_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let Err(error) = Store::open(Options::new(dir.path())) else {
        panic!("opened twice")
    };
    assert!(
        matches!(&error, Error::InUse { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
    store.close().unwrap();
    assert_eq!(open(dir.path()).info().state, State::Ok);
}

#[test]
fn a_closed_store_takes_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = store.create_stream("a").unwrap();
    append(&log, 1, b"x");
    commit(&log);
    store.close().unwrap();
    let (tx, rx) = mpsc::channel();
    log.commit(Box::new(move |result| tx.send(result).unwrap()));
    assert_eq!(rx.recv().unwrap(), Err(Error::Closed));
}

#[test]
fn positions_outlive_the_records_and_stream_keys_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = store.create_stream("first").unwrap();
    (1..=10).for_each(|seq| append(&log, seq, b"x"));
    log.truncate_front(11).unwrap();
    commit(&log);
    let gone = store.create_stream("second").unwrap();
    commit(&gone);
    let (tx, rx) = mpsc::channel();
    store.remove_stream(gone.stream_id(), Box::new(move |result| tx.send(result).unwrap()));
    rx.recv().unwrap().unwrap();
    drop(store);
    let store = open(dir.path());
    let rows = store.streams().unwrap();
    assert_eq!(
        rows.iter().map(|r| (r.id, &r.meta[..])).collect::<Vec<_>>(),
        [(log.stream_id(), &b"first"[..])]
    );
    let state = store.open_log(log.stream_id()).unwrap().state();
    assert_eq!((state.messages, state.first_seq, state.last_seq), (0, 11, 10));
    assert!(store.create_stream("third").unwrap().stream_id() > gone.stream_id());
    assert!(matches!(
        store.open_log(StreamId(99)),
        Err(Error::NoStream(StreamId(99)))
    ));
}

#[test]
fn a_work_queue_and_rolling_expiry_do_not_grow_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (queue, rolling) = (
        store.create_stream("queue").unwrap(),
        store.create_stream("rolling").unwrap(),
    );
    let mut sizes = Vec::new();
    let mut seq = 0;
    for _ in 0..8 {
        for _ in 0..100 {
            for _ in 0..100 {
                seq += 1;
                append(&queue, seq, &[1; 500]);
                append(&rolling, seq, &[1; 500]);
            }
            commit(&queue);
            // Acked in an order of their own.
            (seq - 99..=seq)
                .rev()
                .for_each(|s| assert_eq!(queue.delete(s).unwrap().messages, 1));
            rolling.truncate_front(seq.saturating_sub(2000)).unwrap();
            commit(&queue);
            commit(&rolling);
        }
        assert_eq!(queue.state().messages, 0);
        sizes.push(store.info().disk_bytes);
    }
    // 85 MB went through.
    assert!(sizes.iter().all(|&s| s < 16 << 20), "{sizes:?}");
    assert!(sizes[7] <= sizes[3] + (1 << 20), "{sizes:?}");
}

#[test]
fn a_stored_byte_takes_at_most_two_on_disk_and_1_3_in_larger_messages() {
    for (payload, count, most) in [(128, 300_000, 2.0), (1024, 60_000, 1.3)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let log = store.create_stream("a").unwrap();
        for seq in 1..=count {
            append(&log, seq, &vec![1; payload]);
            if seq % 500 == 0 {
                commit(&log);
            }
        }
        let stored = count as usize * (payload + 10);
        let running = store.info().disk_bytes as f64 / stored as f64;
        store.close().unwrap();
        let closed = store.info().disk_bytes as f64 / stored as f64;
        assert!(
            running < most && closed < most,
            "{payload} bytes: {running:.2} running, {closed:.2} closed"
        );
    }
}

#[test]
fn a_compressed_log_takes_less_on_disk_and_reads_the_same() {
    let text = |seq: u64| {
        format!(
            r#"{{"order":{seq},"state":"shipped","lines":[{{"sku":"A-{}"}}]}}"#,
            seq % 97
        )
        .repeat(5)
    };
    let mut grown = Vec::new();
    for (first, later) in [(false, false), (true, true), (false, true), (true, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let log = store.create_stream("a").unwrap();
        log.compress(first);
        for seq in 1..=30_000u64 {
            append(&log, seq, text(seq).as_bytes());
            if seq % 500 == 0 {
                commit(&log);
            }
            if seq == 15_000 {
                log.compress(later);
            }
        }
        for seq in (1..=30_000).step_by(7) {
            assert_eq!(log.delete(seq).unwrap().messages, 1);
        }
        commit(&log);
        let (id, state) = (log.stream_id(), log.state());
        drop(log);
        store.close().unwrap();
        grown.push(std::fs::metadata(dir.path().join("mesh.redb")).unwrap().len());
        let store = open(dir.path());
        let log = store.open_log(id).unwrap();
        assert_eq!((log.state(), log.is_compressed()), (state, later));
        let mut expected = (1..=30_000).filter(|seq| seq % 7 != 1);
        let end = log.scan(0, u64::MAX, |record| {
            let seq = expected.next().unwrap();
            assert_eq!((record.seq, record.payload), (seq, text(seq).as_bytes()));
            ControlFlow::Continue(())
        });
        assert_eq!((end, expected.next()), (Ok(None), None));
        drop((log, store));
        let report = Store::check(Options::new(dir.path())).unwrap();
        assert!(report.is_clean() && report.streams[0].bytes == state.bytes);
    }
    let [plain, packed, later, before] = grown[..] else {
        unreachable!()
    };
    assert!(packed * 2 < plain, "{grown:?}");
    assert!(
        later < plain && before < plain && packed < later && packed < before,
        "{grown:?}"
    );
}

fn put_checkpoint(log: &Log, last_seq: u64, bytes: &[u8]) {
    let number = log.begin_checkpoint(last_seq).unwrap().unwrap();
    commit(log);
    assert!(log.finish_checkpoint(number, bytes.to_vec()));
}

#[test]
fn what_is_not_of_records_outlives_that_most_of_them_were_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = store.create_stream("a").unwrap();
    (1..=300_000).for_each(|seq| append(&log, seq, b""));
    commit(&log);
    log.note(1, 2, b"of before");
    commit(&log);
    put_checkpoint(&log, 300_000, b"derived");
    assert!(log.notes().unwrap().pages.is_empty());
    for first in (1..300_000).step_by(5000) {
        log.note(1, 2, b"x");
        log.delete_range(first + 1..=first + 4998).unwrap();
        commit(&log);
    }
    let id = log.stream_id();
    drop((log, store));
    let store = open(dir.path());
    let log = store.open_log(id).unwrap();
    let found = log.checkpoint().unwrap().unwrap();
    assert_eq!(
        (found.upto_seq, &found.bytes[..], found.removed),
        (300_000, &b"derived"[..], None)
    );
    assert_eq!(log.notes().unwrap().pages.concat(), vec![b'x'; 60]);
    assert_eq!(log.state().messages, 120);
}

#[test]
fn what_a_caller_derived_comes_back_with_what_was_removed_since() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = store.create_stream("a").unwrap();
    (1..=3000).for_each(|seq| append(&log, seq, &[2; 200]));
    commit(&log);
    let blob: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7) as u8).collect();
    put_checkpoint(&log, 3000, &blob);
    assert_eq!(log.delete(17).unwrap().messages, 1);
    (3001..=3010).for_each(|seq| append(&log, seq, &[2; 200]));
    log.truncate_front(4).unwrap();
    log.delete(3005).unwrap();
    commit(&log);
    let id = log.stream_id();
    drop((log, store));
    let store = open(dir.path());
    let found = store.open_log(id).unwrap().checkpoint().unwrap().unwrap();
    assert_eq!((found.upto_seq, &found.bytes[..]), (3000, &blob[..]));
    let mut removed = found.removed.expect("few were removed");
    removed.sort();
    let expected = [1, 2, 3, 17].map(|seq| (seq, format!("s.{seq:08}").into()));
    assert_eq!(removed, expected);
}

#[test]
fn a_check_names_what_is_damaged_and_a_repair_takes_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = store.create_stream("a").unwrap();
    for seq in 1..=100 {
        append(&log, seq, format!("payload number {seq:03}").as_bytes());
    }
    commit(&log);
    store.close().unwrap();
    let file = dir.path().join("mesh.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes
        .windows(18)
        .position(|w| w == b"payload number 042")
        .unwrap();
    bytes[at] ^= 4;
    std::fs::write(&file, &bytes).unwrap();

    let report = Store::check(Options::new(dir.path())).unwrap();
    assert_eq!(
        (report.streams[0].messages, &report.streams[0].damaged[..]),
        (99, &[42][..])
    );
    assert!(!report.is_clean());
    let store = open(dir.path());
    let log = store.open_log(report.streams[0].id).unwrap();
    let damaged = Error::DamagedRecord {
        stream: log.stream_id(),
        seq: 42,
    };
    assert_eq!(log.get(42), Err(damaged.clone()));
    assert_eq!(
        (log.next(42), log.next(43).unwrap().unwrap().seq),
        (Err(damaged), 43)
    );
    let mut seen = 0;
    log.scan(0, u64::MAX, |_| {
        seen += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((seen, store.info().damaged_records), (99, 1));
    store.close().unwrap();

    let report = Store::repair(Options::new(dir.path()), &|_| None).unwrap();
    assert_eq!((report.removed, &report.streams[0].damaged[..]), (1, &[42][..]));
    let report = Store::check(Options::new(dir.path())).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.streams[0].messages, 99);
}

#[test]
fn memory_stays_bounded_while_a_large_log_is_read_and_thinned_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        cache_bytes_max: 2 << 20,
        ..Options::new(dir.path())
    };
    let store = Store::open(options).unwrap();
    let log = store.create_stream("a").unwrap();
    for seq in 1..=40_000 {
        append(&log, seq, &[3; 400]);
        if seq % 1000 == 0 {
            commit(&log);
        }
    }
    for seq in (1..=40_000).step_by(3) {
        assert!(log.get(seq).unwrap().is_some());
    }
    assert!(store.info().cache_bytes <= 2 << 20);
    for seq in (1..=40_000).filter(|seq| seq % 10 != 0) {
        assert_eq!(log.delete(seq).unwrap().messages, 1);
    }
    commit(&log);
    let state = log.state();
    assert_eq!(
        (state.messages, state.first_seq, state.deleted),
        (4000, 10, 40_000 - 9 - 4000)
    );
    store.close().unwrap();
    let store = open(dir.path());
    let log = store.open_log(log.stream_id()).unwrap();
    assert_eq!(log.state(), state);
    assert_eq!(log.read(0, usize::MAX, u64::MAX).unwrap().len(), 4000);
}
