//! How long publishers wait for one destination that does not keep up.
//!
//! One that takes at least [`RATE_MIN`] is waited for as long as it likes: that is what pushing back is for. The time it takes
//! beyond that comes out of an allowance, which returns slowly while it keeps up. So neither one that does not read nor
//! one that reads at a crawl holds up the others for good: it is left to its own bound. Where there are no others, it has the
//! whole allowance each time it falls behind.

use std::time::{Duration, Instant};

/// How long one destination may hold up its publishers.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// Bytes a second that a destination may slow its publishers down to without using up its allowance.
const RATE_MIN: u64 = 4 << 20;
/// A destination that keeps up for so many times as long has its allowance back.
const RECOVERY: u32 = 16;

/// See the module documentation. The clock is an argument.
#[derive(Debug, Default)]
pub struct Patience {
    /// Since when it has been behind.
    since: Option<Instant>,
    /// Bytes it has taken since then.
    taken: u64,
    /// What of its allowance was used up when that last changed.
    used: Duration,
    /// Since when it has kept up.
    rested: Option<Instant>,
}

impl Patience {
    /// It is behind: says how long it is still waited for, zero if no more; by a publisher that has it alone, or others to
    /// hand something to.
    pub fn behind(&mut self, now: Instant, alone: bool) -> Duration {
        let since = *self.since.get_or_insert_with(|| {
            let rest = self.rested.take().map(|rested| now.duration_since(rested));
            self.used = self.used.saturating_sub(rest.unwrap_or_default() / RECOVERY);
            self.taken = 0;
            now
        });
        let left = ALLOWANCE.saturating_sub(self.spent(now));
        if alone {
            left.max(ALLOWANCE.saturating_sub(now.duration_since(since)))
        } else {
            left
        }
    }

    /// Whether it was found behind and has not caught up since.
    pub fn is_behind(&self) -> bool {
        self.since.is_some()
    }

    /// It has taken `bytes`.
    pub fn takes(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }

    /// It has caught up.
    pub fn caught_up(&mut self, now: Instant) {
        self.used = self.spent(now).min(ALLOWANCE);
        self.since = None;
        self.rested = Some(now);
    }

    fn spent(&self, now: Instant) -> Duration {
        let Some(since) = self.since else { return self.used };
        let earned = Duration::from_micros(self.taken.saturating_mul(1_000_000) / RATE_MIN);
        (self.used + now.duration_since(since)).saturating_sub(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_that_takes_nothing_is_waited_for_once() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        assert_eq!(patience.behind(start, false), ALLOWANCE);
        assert_eq!(patience.behind(start + 400 * MS, false), 600 * MS);
        assert_eq!(patience.behind(start + 1001 * MS, false), Duration::ZERO);
        // It takes what has waited, and falls behind again at once: nothing is waited for anew.
        patience.caught_up(start + 2000 * MS);
        assert!(!patience.is_behind());
        assert!(patience.behind(start + 2016 * MS, false) <= MS);
        // But by who has nobody else.
        assert_eq!(patience.behind(start + 2016 * MS, true), ALLOWANCE);
        assert_eq!(patience.behind(start + 3016 * MS, true), Duration::ZERO);
    }

    #[test]
    fn one_that_crawls_is_not_waited_for_for_good() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        let (mut now, mut waited) = (start, Duration::ZERO);
        // A quarter of what it should take, in all a minute; it catches up each time.
        while now < start + 60_000 * MS {
            let wait = patience.behind(now, false).min(100 * MS);
            waited += wait;
            now += 100 * MS;
            patience.takes(RATE_MIN as usize / 40);
            patience.caught_up(now);
        }
        assert!(waited <= 2 * ALLOWANCE, "{waited:?}");
    }

    #[test]
    fn one_that_takes_enough_is_waited_for() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        for round in 0..600 {
            assert!(
                patience.behind(start + round * 100 * MS, false) > 800 * MS,
                "{round}"
            );
            patience.takes(RATE_MIN as usize / 10);
        }
    }

    #[test]
    fn rest_gives_the_allowance_back() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        patience.behind(start, false);
        patience.caught_up(start + 1000 * MS);
        assert_eq!(patience.behind(start + 9000 * MS, false), 500 * MS);
        patience.caught_up(start + 9000 * MS);
        assert_eq!(patience.behind(start + 60_000 * MS, false), ALLOWANCE);
    }
}
