//! Durations in text, the way Go writes and reads them: status lines, error texts, `-NAK 10s`.
//!
//! Inside JSON a duration is an integer of nanoseconds and needs nothing from here.

/// One second in nanoseconds, the unit of every duration in this room.
pub const SECOND: i64 = 1_000_000_000;
/// One millisecond in nanoseconds.
pub const MILLISECOND: i64 = 1_000_000;

/// `1h2m3.5s`, `1.5ms`, `0s`: the text Go gives a duration.
pub fn text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", value % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() || unit == 1 {
            (value / unit).to_string()
        } else {
            format!("{}.{rest}", value / unit)
        }
    };
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(n, 1_000_000)),
        _ => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Reads `300ms`, `-1.5h`, `2h45m`; `None` for anything else. Saturates rather than overflows.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return None,
        };
        rest = &rest[unit_len..];
        total += value * unit;
    }
    Some(if negative { -total } else { total } as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_500_000, "1.5ms"),
            (SECOND, "1s"),
            (90 * SECOND, "1m30s"),
            (3_600 * SECOND, "1h0m0s"),
            (3_661 * SECOND + 500 * MILLISECOND, "1h1m1.5s"),
            (-SECOND, "-1s"),
        ] {
            assert_eq!(text(nanos), expected);
            if nanos >= 1_000_000 {
                assert_eq!(parse(expected), Some(nanos), "{expected}");
            }
        }
        for (given, expected) in [
            ("2h45m", Some(9_900 * SECOND)),
            ("300ms", Some(300 * MILLISECOND)),
            ("1.5s", Some(1_500 * MILLISECOND)),
            ("0", Some(0)),
            ("-1s", Some(-SECOND)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1d", None),
            ("-", None),
            ("1s x", None),
        ] {
            assert_eq!(parse(given), expected, "{given}");
        }
    }
}
