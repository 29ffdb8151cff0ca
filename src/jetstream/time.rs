//! Time on the wire: RFC 3339 with nanoseconds, UTC; inside, nanoseconds since the Unix epoch.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What stands for "no time" on the wire.
pub const NEVER: &str = "0001-01-01T00:00:00Z";
/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// Now, in nanoseconds since the Unix epoch, as the streams of this process see it: it never goes back.
///
/// Ages, times to live, ack waits and the like are differences of these. So when the system clock is set back, this one goes
/// on as if it were not, until the process ends: nothing waits for as long as it was set back, and nothing is over early when
/// it is set forward again. A clock that is set forward is followed: it may be that of a machine that has slept.
pub fn now_ns() -> i64 {
    static CLOCK: Mutex<Clock> = Mutex::new(Clock(None));
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let system = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    clock.read(system, Instant::now())
}

/// What was shown last, and when. See [`now_ns`].
struct Clock(Option<(i64, Instant)>);

impl Clock {
    fn read(&mut self, system: i64, at: Instant) -> i64 {
        let now = self.0.map_or(system, |(shown, before)| {
            let passed = at.saturating_duration_since(before).as_nanos();
            system.max(shown.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX)))
        });
        self.0 = Some((now, at));
        now
    }
}

/// A time as the wire has it; trailing zeros of the fraction are left out. Zero is [`NEVER`].
pub fn rfc3339(ns: i64) -> String {
    if ns == 0 { NEVER.to_owned() } else { utc(ns) }
}

/// A time as the wire has it, zero as the epoch. By hand: a page of ten thousand connections shows twice as many.
pub fn utc(ns: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, mut fraction) = (ns.div_euclid(SECOND), ns.rem_euclid(SECOND));
    let second = seconds.rem_euclid(DAY);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, digits: usize, mut value: i64| {
        for digit in out[at..at + digits].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
        (20, 9, fraction),
    ] {
        put(at, digits, value);
    }
    // Without the zeros at the end, nor a point with nothing behind it.
    let mut digits = 9;
    while digits > 0 && fraction % 10 == 0 {
        fraction /= 10;
        digits -= 1;
    }
    let end = if digits == 0 { 19 } else { 20 + digits };
    out[end] = b'Z';
    String::from_utf8_lossy(&out[..=end]).into_owned()
}

/// Year, month and day of a day counted from the epoch, in the Gregorian calendar: eras of 400 years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let of_era = days.rem_euclid(ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + days.div_euclid(ERA) * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Reads a time of the wire, in any offset. Times beyond 2262 are as far as a nanosecond count reaches.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    if text == NEVER {
        return Some(0);
    }
    let time: Result<jiff::Timestamp, _> = match text.strip_prefix("9999-") {
        // The library ends a day before the last year does; as a count of nanoseconds it is any year this late.
        Some(rest) => format!("9998-{rest}").parse(),
        None => text.parse(),
    };
    let time = time.ok()?;
    let clamped = time
        .as_nanosecond()
        .clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(clamped).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_set_back_and_forward_again_moves_nothing() {
        const HOUR: i64 = 3_600;
        let (begin, start) = (Instant::now(), 500_000 * HOUR * SECOND);
        // At so many seconds after the begin, with the system clock so far ahead of the right time.
        let read = |clock: &mut Clock, second: i64, ahead: i64| {
            let at = begin + Duration::from_secs(second as u64);
            clock.read(start + (second + ahead) * SECOND, at) - start
        };
        let mut clock = Clock(None);
        for second in 0..10 {
            assert_eq!(read(&mut clock, second, 0), second * SECOND);
        }
        // An hour back, for an hour, and forward again.
        for second in 10..=HOUR {
            assert_eq!(read(&mut clock, second, -HOUR), second * SECOND);
        }
        assert_eq!(read(&mut clock, HOUR + 1, 0), (HOUR + 1) * SECOND);
        // Forward beyond what was ever right.
        assert_eq!(read(&mut clock, HOUR + 2, HOUR), (2 * HOUR + 2) * SECOND);
    }

    #[test]
    fn as_the_wire_has_it() {
        for (ns, text) in [
            (0, NEVER),
            (SECOND, "1970-01-01T00:00:01Z"),
            (1_795_488_706_215_555_020, "2026-11-24T02:51:46.21555502Z"),
        ] {
            assert_eq!(rfc3339(ns), text);
            assert_eq!(parse_rfc3339(text), Some(ns));
        }
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        // Against the library that reads them, over all that a count of nanoseconds reaches.
        let mut ns = i64::MIN;
        while let Some(next) = ns.checked_add(86_399 * SECOND * 61 + 7_654_321_000) {
            ns = next;
            let expected = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap();
            assert_eq!(utc(ns), expected.to_string());
        }
        assert_eq!(parse_rfc3339("1970-01-01T01:00:01+01:00"), Some(SECOND));
        assert_eq!(parse_rfc3339("2999-01-01T00:00:00Z"), Some(i64::MAX));
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59.999Z"), Some(i64::MAX));
        for bad in ["yesterday", "9999-13-31T00:00:00Z", "9999-12-31"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
