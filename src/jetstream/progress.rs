//! How far the recovery of what is stored has come: for the health pages, and for the log now and then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Counted up by those who recover streams, read by whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    streams: AtomicUsize,
    done: AtomicUsize,
    began: OnceLock<Instant>,
    /// When the log was last told.
    told: Mutex<Option<Instant>>,
}

impl Progress {
    /// There are `streams` more to recover.
    pub(crate) fn begin(&self, streams: usize) {
        self.streams.fetch_add(streams, Ordering::Relaxed);
        self.began.get_or_init(Instant::now);
    }

    /// One more stream is there.
    pub(crate) fn one_done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let streams = self.streams.load(Ordering::Relaxed);
        let Some(began) = self.began.get() else { return };
        if done == streams {
            tracing::info!("Recovered {streams} streams in {:.1?}", began.elapsed());
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.unwrap_or(*began).elapsed() >= LINE_EVERY {
            *told = Some(Instant::now());
            tracing::info!("Recovering streams: {done} of {streams}");
        }
    }

    /// Streams that are there and streams in all; none while it is not known how many there are.
    pub fn get(&self) -> Option<(usize, usize)> {
        self.began.get()?;
        let streams = self.streams.load(Ordering::Relaxed);
        Some((self.done.load(Ordering::Relaxed).min(streams), streams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_done_of_what_there_is() {
        let progress = Progress::default();
        assert_eq!(progress.get(), None);
        progress.begin(2);
        assert_eq!(progress.get(), Some((0, 2)));
        progress.one_done();
        assert_eq!(progress.get(), Some((1, 2)));
        // Another account's.
        progress.begin(1);
        progress.one_done();
        progress.one_done();
        assert_eq!(progress.get(), Some((3, 3)));
    }
}
