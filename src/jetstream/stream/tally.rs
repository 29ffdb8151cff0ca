//! What became of the messages published to a stream since the server started, for monitoring: counted a batch at a
//! time, when its answers leave.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::jetstream::api::error::{self, ApiError};

use super::Stream;

/// Why messages were refused. Full names the stream's own limits, not those of the disk.
const REASONS: [&str; 10] = [
    "sealed",
    "too_large",
    "wrong_expectation",
    "bad_header",
    "not_allowed",
    "stream_full",
    "disk_full",
    "overload",
    "store",
    "other",
];
const FULL: usize = 5;
const STORE: usize = 8;
const OTHER: usize = 9;

/// The place of an error among [`REASONS`].
fn reason(error: &ApiError) -> usize {
    let is = |known: &ApiError| known.err_code == error.err_code;
    match error.err_code {
        _ if is(&error::STREAM_SEALED) => 0,
        _ if is(&error::MESSAGE_TOO_LARGE) || is(&error::HEADERS_TOO_LARGE) => 1,
        10060 | 10070 | 10071 | 10164 => 2,
        10165 | 10193 => 3,
        10111 | 10166 | 10168 | 10174 | 10188 | 10227 => 4,
        10077 if error.description.starts_with("maximum ") => FULL,
        _ if is(&error::STORAGE_RESOURCES_EXCEEDED) => 6,
        _ if is(&error::TOO_MANY_REQUESTS) => 7,
        10077 => STORE,
        _ => OTHER,
    }
}

/// The counts of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    stored: u64,
    duplicates: u64,
    refused: [u64; REASONS.len()],
}

impl Counts {
    pub fn stored(&mut self) {
        self.stored += 1;
    }

    pub fn duplicate(&mut self) {
        self.duplicates += 1;
    }

    pub fn refused(&mut self, error: &ApiError) {
        self.refused[reason(error)] += 1;
    }
}

/// The counts of a stream.
#[derive(Debug, Default)]
pub(super) struct Tally {
    stored: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
}

impl Tally {
    /// Adds a batch. `failed` is what its promises became instead.
    pub fn add(&self, counts: &Counts, failed: Option<&ApiError>) {
        let add = |to: &AtomicU64, count: u64| {
            if count > 0 {
                to.fetch_add(count, Ordering::Relaxed);
            }
        };
        match failed {
            None => {
                add(&self.stored, counts.stored);
                add(&self.duplicates, counts.duplicates);
            }
            Some(error) => add(&self.refused[reason(error)], counts.stored + counts.duplicates),
        }
        for (to, count) in self.refused.iter().zip(counts.refused) {
            add(to, count);
        }
    }
}

/// What became of the messages published to a stream since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Stored.
    pub stored: u64,
    /// Known already.
    pub duplicates: u64,
    /// Refused, by reason; all reasons, in the same order always.
    pub refused: Vec<(&'static str, u64)>,
}

impl Stream {
    /// What became of the messages published since the server started.
    pub fn tallied(&self) -> Tallied {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tallied {
            stored: get(&self.tally.stored),
            duplicates: get(&self.tally.duplicates),
            refused: REASONS
                .into_iter()
                .zip(self.tally.refused.iter().map(get))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_reasons() {
        let name = |error: &ApiError| REASONS[reason(error)];
        for (error, expected) in [
            (error::STREAM_SEALED, "sealed"),
            (error::MESSAGE_TOO_LARGE, "too_large"),
            (error::HEADERS_TOO_LARGE, "too_large"),
            (error::WRONG_LAST_SEQUENCE.with(3), "wrong_expectation"),
            (error::EXPECTED_STREAM_MISMATCH, "wrong_expectation"),
            (error::TTL_INVALID, "bad_header"),
            (error::TTL_DISABLED, "not_allowed"),
            (error::ROLLUP_FAILED.with("x"), "not_allowed"),
            (error::STORE_FAILED.with("maximum bytes exceeded"), "stream_full"),
            (error::STORE_FAILED.with("store is closed"), "store"),
            (error::STORAGE_RESOURCES_EXCEEDED, "disk_full"),
            (error::TOO_MANY_REQUESTS, "overload"),
            (error::STREAM_NOT_FOUND, "other"),
        ] {
            assert_eq!(name(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_commit_that_fails_stores_nothing() {
        let (tally, mut counts) = (Tally::default(), Counts::default());
        counts.stored();
        counts.duplicate();
        counts.refused(&error::STREAM_SEALED);
        tally.add(&counts, Some(&error::STORE_FAILED.with("gone")));
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((get(&tally.stored), get(&tally.duplicates)), (0, 0));
        assert_eq!((get(&tally.refused[STORE]), get(&tally.refused[0])), (2, 1));
        tally.add(&counts, None);
        assert_eq!((get(&tally.stored), get(&tally.duplicates)), (1, 1));
    }
}
