//! Time on the wire: RFC 3339 with nanoseconds, UTC; inside, nanoseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

/// What stands for "no time" on the wire.
pub const NEVER: &str = "0001-01-01T00:00:00Z";
/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// Now, in nanoseconds since the Unix epoch.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A time as the wire has it; trailing zeros of the fraction are left out. Zero is [`NEVER`].
pub fn rfc3339(ns: i64) -> String {
    if ns == 0 {
        return NEVER.to_owned();
    }
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| NEVER.to_owned(), |time| time.to_string())
}

/// Reads a time of the wire, in any offset. Times beyond 2262 are as far as a nanosecond count reaches.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    if text == NEVER {
        return Some(0);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    let clamped = time
        .as_nanosecond()
        .clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(clamped).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(parse_rfc3339("1970-01-01T01:00:01+01:00"), Some(SECOND));
        assert_eq!(parse_rfc3339("2999-01-01T00:00:00Z"), Some(i64::MAX));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
