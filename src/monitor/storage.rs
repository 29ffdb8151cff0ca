//! The store as a [`Source`]: `/storez`, health, and the metrics of commits, syncs and bytes.

use crate::store::{self, Histogram, State, StoreInfo};

use super::source::{Ailment, Family, Scope, Source, Spread, Store, Value};

/// Bounds of times, in powers of two of a microsecond: 32 us to 8.4 s.
const TIME_BOUNDS: std::ops::RangeInclusive<usize> = 5..=23;
/// Bounds of batch sizes, in powers of two: 1 to 65,535 records.
const BATCH_BOUNDS: std::ops::RangeInclusive<usize> = 1..=16;

/// See the module documentation.
pub struct Storage {
    store: store::Store,
}

impl Storage {
    /// Shows `store`.
    pub fn new(store: store::Store) -> Self {
        Self { store }
    }
}

impl Source for Storage {
    fn families(&self) -> Vec<Family> {
        let info = self.store.info();
        let mut families = sizes(&info);
        families.extend(work(&info));
        families
    }

    fn ailments(&self, _: &Scope) -> Vec<Ailment> {
        let dir = self.store.dir().display();
        let (error, fix) = match self.store.state() {
            State::Ok => return damage(&self.store).into_iter().collect(),
            State::Full(why) => (
                format!("the store takes no messages: the disk has no room left ({why})"),
                format!("make room on the disk of {dir}; the store goes on by itself within a second"),
            ),
            State::Failed(why) if self.store.needs_restart() => (
                format!("the store has stopped: {why}"),
                "restart the server: what was acknowledged is on the disk".to_owned(),
            ),
            State::Failed(why) => (
                format!("the store has stopped on an error of the disk: {why}"),
                format!(
                    "see the log and the disk of {dir}; the store tries again every second and goes on by itself"
                ),
            ),
        };
        vec![Ailment {
            kind: "JETSTREAM",
            error,
            fix: Some(fix),
            ..Ailment::default()
        }]
    }

    fn store(&self) -> Option<Store> {
        Some(shown(&self.store.dir().display().to_string(), self.store.info()))
    }

    fn sync(&self) -> Option<String> {
        Some(self.store.sync().to_string())
    }
}

/// What is damaged, while all the rest is served.
fn damage(store: &store::Store) -> Option<Ailment> {
    let (lines, records) = store.damage();
    let records = (records > 0).then(|| format!("{records} records do not match their checksum"));
    let found: Vec<_> = lines.into_iter().chain(records).collect();
    (!found.is_empty()).then(|| Ailment {
        kind: "JETSTREAM",
        serves: true,
        error: format!("the store is damaged: {}", found.join("; ")),
        fix: Some(format!(
            "the rest is served; with the server stopped, `mesh store check {dir}` says what is whole, and --repair takes out what is not",
            dir = store.dir().display()
        )),
        ..Ailment::default()
    })
}

/// A store's figures as `/storez` and `mesh store info` show them.
pub fn shown(dir: &str, info: StoreInfo) -> Store {
    const SECOND: f64 = 1e-6;
    let (state, reason) = match info.state {
        State::Ok => ("ok", None),
        State::Full(why) => ("full", Some(why)),
        State::Failed(why) => ("failed", Some(why)),
    };
    Store {
        dir: dir.to_owned(),
        sync: info.sync.to_string(),
        state: state.to_owned(),
        reason,
        logical_bytes: info.logical_bytes,
        disk_bytes: info.disk_bytes,
        journal_bytes: info.journal_bytes,
        spare_bytes: info.spare_bytes,
        available_bytes: info.available_bytes,
        journal_entries: info.journal_entries,
        commits: info.commits,
        records: info.records,
        checkpoints: info.checkpoints,
        batch: spread(&info.batch_records, 1.0),
        commit_seconds: spread(&info.commit_us, SECOND),
        sync_seconds: spread(&info.sync_us, SECOND),
        checkpoint_seconds: spread(&info.checkpoint_us, SECOND),
        cache_bytes: info.cache_bytes,
        cache_bytes_max: info.cache_bytes_max,
        cache_hits: info.cache_hits,
        cache_misses: info.cache_misses,
        damaged_records: info.damaged_records,
        damage: info.damage,
        torn_entries: info.torn_entries,
    }
}

fn spread(histogram: &Histogram, unit: f64) -> Spread {
    let count = histogram.count();
    if count == 0 {
        return Spread::default();
    }
    let quantile = |share| histogram.quantile(share) as f64 * unit;
    Spread {
        mean: histogram.sum as f64 * unit / count as f64,
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
    }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Counter(value as f64))
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Gauge(value as f64))
}

fn sizes(info: &StoreInfo) -> Vec<Family> {
    let state = |name: &str, is: bool| {
        (
            vec![("state", name.to_owned())],
            Value::Gauge(f64::from(u8::from(is))),
        )
    };
    let mut families = vec![
        Family::many(
            "mesh_store_state",
            "The state the store is in: 1 for that one. Beside `ok` it takes no messages.",
            vec![
                state("ok", info.state == State::Ok),
                state("full", matches!(info.state, State::Full(_))),
                state("failed", matches!(info.state, State::Failed(_))),
            ],
        ),
        Family::one(
            "mesh_store_sync_interval_seconds",
            "How often acknowledged messages are synced; 0 when each is before it is acknowledged.",
            Value::Gauge(match info.sync {
                store::Sync::Always => 0.0,
                store::Sync::Interval(every) => every.as_secs_f64(),
            }),
        ),
        gauge(
            "mesh_store_logical_bytes",
            "Bytes of live messages in the store.",
            info.logical_bytes,
        ),
        gauge(
            "mesh_store_disk_bytes",
            "Bytes the store's files take on disk.",
            info.disk_bytes,
        ),
        gauge(
            "mesh_store_journal_bytes",
            "Of them, those of the journal.",
            info.journal_bytes,
        ),
        gauge(
            "mesh_store_spare_bytes",
            "Bytes of the tables' file without live messages: free pages, fragments, keys.",
            info.spare_bytes,
        ),
        gauge(
            "mesh_store_journal_entries",
            "Journal entries that an open after a crash would replay.",
            info.journal_entries,
        ),
        gauge(
            "mesh_store_cache_bytes",
            "Bytes of blocks in the store's cache.",
            info.cache_bytes,
        ),
        gauge(
            "mesh_store_cache_bytes_max",
            "What the store's cache may grow to.",
            info.cache_bytes_max,
        ),
    ];
    families.extend(info.available_bytes.map(|bytes| {
        gauge(
            "mesh_store_available_bytes",
            "Bytes the file system of the store has left.",
            bytes,
        )
    }));
    families
}

fn work(info: &StoreInfo) -> Vec<Family> {
    vec![
        Family::one(
            "mesh_store_commit_seconds",
            "Time from when the writer took a commit until it was durable.",
            times(&info.commit_us),
        ),
        Family::one(
            "mesh_store_sync_seconds",
            "Time of the syncs of the journal.",
            times(&info.sync_us),
        ),
        Family::one(
            "mesh_store_checkpoint_seconds",
            "Time of writing the journal's content to the tables.",
            times(&info.checkpoint_us),
        ),
        Family::one(
            "mesh_store_batch_records",
            "Records by commit.",
            histogram(&info.batch_records, BATCH_BOUNDS, 1.0, |n| {
                ((1u64 << n) - 1) as f64
            }),
        ),
        counter(
            "mesh_store_cache_hits_total",
            "Blocks asked for that were in the cache.",
            info.cache_hits,
        ),
        counter(
            "mesh_store_cache_misses_total",
            "Blocks asked for that were read from disk.",
            info.cache_misses,
        ),
        gauge(
            "mesh_store_damaged_records",
            "Records found damaged since the start; they are not served.",
            info.damaged_records,
        ),
        gauge(
            "mesh_store_torn_entries",
            "Journal entries the last crash cut off; nobody was promised them.",
            info.torn_entries,
        ),
    ]
}

fn times(found: &Histogram) -> Value {
    histogram(found, TIME_BOUNDS, 1e-6, |n| (1u64 << n) as f64 * 1e-6)
}

/// A histogram by powers of two in Prometheus' form: `counts[n]` holds what is below `2^n`.
fn histogram(
    found: &Histogram,
    bounds: std::ops::RangeInclusive<usize>,
    unit: f64,
    bound: impl Fn(usize) -> f64,
) -> Value {
    let below = |n: usize| found.counts[..=n].iter().sum();
    Value::Histogram {
        buckets: bounds.map(|n| (bound(n), below(n))).collect(),
        sum: found.sum as f64 * unit,
        count: found.count(),
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod faults;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounded_by_what_they_hold() {
        let mut found = Histogram::default();
        // 0, 1, 2, 3 and 100,000.
        for (n, count) in [(0, 1), (1, 1), (2, 2), (17, 1)] {
            found.counts[n] = count;
        }
        found.sum = 100_006;
        let Value::Histogram { buckets, sum, count } =
            histogram(&found, BATCH_BOUNDS, 1.0, |n| ((1u64 << n) - 1) as f64)
        else {
            panic!("a histogram");
        };
        assert_eq!((sum, count), (100_006.0, 5));
        assert_eq!(buckets[..3], [(1.0, 2), (3.0, 4), (7.0, 4)]);
        assert_eq!(buckets.last(), Some(&(65_535.0, 4)));
        let spread = spread(&found, 1e-6);
        assert!(spread.p50 <= 4e-6 && spread.p99 > 0.1, "{spread:?}");
    }
}
