//! Times and durations as nats-server writes them.

use std::time::{Duration, SystemTime};

use serde::Serializer;

use crate::jetstream::time::utc;

/// RFC 3339 in UTC, with as many digits of the nanoseconds as there are.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    utc(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// `1y2d3h4m5s`, from the largest unit that is there.
pub(super) fn uptime(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let (d, h, m, s) = (days % 365, hours % 24, minutes % 60, seconds % 60);
    match (years, days, hours, minutes) {
        (0, 0, 0, 0) => format!("{s}s"),
        (0, 0, 0, _) => format!("{m}m{s}s"),
        (0, 0, _, _) => format!("{h}h{m}m{s}s"),
        (0, _, _, _) => format!("{d}d{h}h{m}m{s}s"),
        _ => format!("{years}y{d}d{h}h{m}m{s}s"),
    }
}

/// A round trip as Go prints durations, in whole microseconds: `850µs`, `1.25ms`, `2.5s`. Empty for none.
pub(super) fn round_trip(rtt: Duration) -> String {
    let micros = rtt.as_micros();
    match micros {
        0 if rtt.is_zero() => String::new(),
        0 => format!("{}ns", rtt.as_nanos()),
        1..=999 => format!("{micros}µs"),
        1_000..=999_999 => format!("{}ms", micros as f64 / 1e3),
        _ => format!("{}s", micros as f64 / 1e6),
    }
}

/// Nanoseconds as a whole number.
pub(super) fn nanoseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Seconds; a whole number where they are, as Go writes floats.
pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    float(&duration.as_secs_f64(), serializer)
}

/// A number as Go writes floats: `2`, not `2.0`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(super) fn float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (3600, "1h0m0s"),
            (93_784, "1d2h3m4s"),
            (31_536_000 + 86_400, "1y1d0h0m0s"),
        ];
        for (seconds, expected) in table {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn round_trips() {
        let table = [
            (0, ""),
            (500, "500ns"),
            (650_999, "650µs"),
            (1_250_000, "1.25ms"),
            (2_500_000_000, "2.5s"),
        ];
        for (nanos, expected) in table {
            assert_eq!(round_trip(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn timestamps() {
        let at = |seconds, nanos| timestamp(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_795_489_183, 303_153_730), "2026-11-24T02:59:43.30315373Z");
    }
}
