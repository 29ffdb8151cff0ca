//! The store alone: durable appends by records a commit, many lone publishers, replay.
//!
//! `cargo bench --bench store`. The directory is `MESH_BENCH_DIR`, or the system's for temporary files.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sovereign_mesh::store::{Log, Options, RecordRef, Store};
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

const SUBJECT: &[u8] = b"orders.new";

fn store() -> (tempfile::TempDir, Store) {
    let dir = match std::env::var_os("MESH_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a temporary directory");
    let store = Store::open(Options::new(dir.path())).expect("a new store opens");
    (dir, store)
}

fn append(log: &Log, seq: u64, payload: &[u8]) {
    log.append(&RecordRef {
        seq,
        time_ns: seq as i64,
        subject: SUBJECT,
        headers: b"",
        payload,
    })
    .expect("append");
}

fn commit(log: &Log, tx: &SyncSender<usize>, records: usize) {
    let tx = tx.clone();
    log.commit(Box::new(move |result| {
        result.expect("commit");
        tx.send(records).expect("the bench waits");
    }));
}

/// Appends `count` records, `batch` a commit, at most `outstanding` of them not acknowledged.
fn publish(
    log: &Log,
    seq: &mut u64,
    count: u64,
    batch: usize,
    outstanding: usize,
    payload: &[u8],
) -> Duration {
    let (tx, rx): (_, Receiver<usize>) = mpsc::sync_channel(1 << 16);
    let start = Instant::now();
    let (mut waiting, mut left) = (0, count as usize);
    while left > 0 || waiting > 0 {
        while left > 0 && waiting + batch.min(left) <= outstanding {
            let records = batch.min(left);
            for _ in 0..records {
                *seq += 1;
                append(log, *seq, payload);
            }
            commit(log, &tx, records);
            waiting += records;
            left -= records;
        }
        waiting -= rx.recv().expect("an ack");
        while let Ok(records) = rx.try_recv() {
            waiting -= records;
        }
    }
    start.elapsed()
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("append, one commit at a time");
    group
        .throughput(Throughput::Elements(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10);
    for batch in [1, 64, 512, 4096] {
        let (_dir, store) = store();
        let log = store.create_stream("").expect("create");
        let mut seq = 0;
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|n| publish(&log, &mut seq, n, batch, batch, &[7; 128]));
        });
        eprintln!("batch {batch}: {}", summary(&store));
    }
    group.finish();
    let mut group = c.benchmark_group("append, 1000 outstanding");
    group
        .throughput(Throughput::Elements(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10);
    for batch in [16, 128, 500] {
        let (_dir, store) = store();
        let log = store.create_stream("").expect("create");
        let mut seq = 0;
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|n| publish(&log, &mut seq, n, batch, 1000, &[7; 128]));
        });
        eprintln!("batch {batch}: {}", summary(&store));
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let (dir, store) = store();
    let log = store.create_stream("").expect("create");
    let records = 2_000_000;
    publish(&log, &mut 0, records, 4096, 16_384, &[7; 128]);
    let id = log.stream_id();
    store.close().expect("close");
    let start = Instant::now();
    let store = Store::open(Options::new(dir.path())).expect("open");
    eprintln!(
        "open with {records} records after a clean stop: {:?}",
        start.elapsed()
    );
    let log = store.open_log(id).expect("open log");
    let mut group = c.benchmark_group("replay");
    group
        .throughput(Throughput::Elements(records))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10);
    group.bench_function("scan", |b| {
        b.iter(|| {
            let mut bytes = 0;
            let end = log.scan(1, u64::MAX, |r| {
                bytes += r.payload.len();
                ControlFlow::Continue(())
            });
            assert_eq!((end, bytes as u64), (Ok(None), records * 128));
        });
    });
    group.bench_function("get, one by one", |b| {
        b.iter(|| {
            let found = (1..=records)
                .filter_map(|seq| log.get(seq).expect("get"))
                .map(|r| r.payload);
            assert_eq!(found.map(|p: Bytes| p.len() as u64).sum::<u64>(), records * 128);
        });
    });
    group.finish();
}

fn summary(store: &Store) -> String {
    let info = store.info();
    format!(
        "{} commits of {:.0} records, p50 {} us p99 {} us; {} checkpoints p50 {} us; {:.2} bytes on disk a stored byte",
        info.commits,
        info.records as f64 / info.commits as f64,
        info.sync_us.quantile(0.5),
        info.sync_us.quantile(0.99),
        info.checkpoints,
        info.checkpoint_us.quantile(0.5),
        info.disk_bytes as f64 / (info.records * 138) as f64,
    )
}

criterion_group!(benches, appends, replay);
criterion_main!(benches);
