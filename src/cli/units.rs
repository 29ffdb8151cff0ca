//! Durations, sizes, counts and times as people write and read them.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

const NANOS: [(&str, u64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 7 * 86_400 * 1_000_000_000),
    ("M", 30 * 86_400 * 1_000_000_000),
    ("y", 365 * 86_400 * 1_000_000_000),
];

/// Reads `1d3h5m2s`, `500ms`, `1.5h`, or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration like 500ms, 30s, 1h30m or 7d, not {text:?}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected());
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "" if nanos == 0.0 => "s",
            unit => unit,
        };
        let (_, scale) = NANOS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(expected)?;
        nanos += number * *scale as f64;
        rest = &rest[letters..];
    }
    // The wire carries nanoseconds as a signed 64-bit integer.
    if nanos >= i64::MAX as f64 {
        return Err(format!("{text} is too long: the limit is 292 years"));
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// A duration as the nanoseconds of the wire; 0 for "unlimited" or "-1".
pub fn age(text: &str) -> Result<i64, String> {
    match text {
        "" | "-1" | "unlimited" => Ok(0),
        text => duration(text).map(nanos),
    }
}

/// Nanoseconds of the wire.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads `1024`, `64K`, `10MB`, `1GiB` (all powers of 1024, as the field has it), or -1 for unlimited.
pub fn bytes(text: &str) -> Result<i64, String> {
    let expected = || format!("expected a size like 1024, 64KB, 10MiB or 1G, not {text:?}");
    if matches!(text, "-1" | "unlimited") {
        return Ok(-1);
    }
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| expected())?;
    let unit = text[digits..].trim().to_ascii_uppercase();
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" if !unit.contains('I') => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return Err(expected()),
    };
    let size = number * 1024_f64.powi(power);
    if size >= i64::MAX as f64 {
        return Err(format!("{text} is too large"));
    }
    Ok(size.round() as i64)
}

/// Reads a count; -1 or "unlimited" for none.
pub fn limit(text: &str) -> Result<i64, String> {
    match text {
        "unlimited" => Ok(-1),
        text => match text.parse() {
            Ok(count) if count >= -1 => Ok(count),
            _ => Err(format!("expected a count, or -1 for unlimited, not {text:?}")),
        },
    }
}

/// Reads a point in time: RFC 3339, a local date and time, or a duration from `now` in the given direction.
pub fn instant(text: &str, now: Timestamp, direction: Direction) -> Result<Timestamp, String> {
    if let Ok(length) = duration(text) {
        let moved = match direction {
            Direction::Back => now.checked_sub(length),
            Direction::Ahead => now.checked_add(length),
        };
        return moved.map_err(|error| error.to_string());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    text.parse::<jiff::civil::DateTime>()
        .and_then(|time| time.to_zoned(TimeZone::system()))
        .map(|time| time.timestamp())
        .map_err(|_| format!("expected a duration like 1h or a time like 2026-01-31T12:00:00Z, not {text:?}"))
}

/// Which way a duration given for a time counts.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// `1h` is an hour ago.
    Back,
    /// `1h` is in an hour.
    Ahead,
}

/// `412µs`, `53.12ms`, `1.50s`, `2m0s`, `1d2h3m4s`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_nanos() {
        0 => "0s".to_owned(),
        nanos @ 1..1_000 => format!("{nanos}ns"),
        nanos @ 1_000..1_000_000 => format!("{}µs", nanos / 1_000),
        _ if seconds < 60 && duration.subsec_nanos() == 0 => format!("{seconds}s"),
        _ if seconds == 0 => trim(format!("{:.2}", duration.as_secs_f64() * 1e3)) + "ms",
        _ if seconds < 60 => format!("{:.2}s", duration.as_secs_f64()),
        _ => {
            let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
            let mut text = String::new();
            if days > 0 {
                text += &format!("{days}d");
            }
            if hours > 0 || days > 0 {
                text += &format!("{hours}h");
            }
            text + &format!("{minutes}m{}s", seconds % 60)
        }
    }
}

fn trim(number: String) -> String {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number,
    }
}

/// `17 B`, `1.2 KiB`, `10 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit if value < 10.0 => format!("{value:.1} {unit}"),
        unit => format!("{value:.0} {unit}"),
    }
}

/// `1,234,567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Local date and time to the second.
pub fn show_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// How long ago `time` was, `never` for the zero time of the wire.
pub fn show_since(time: Option<Timestamp>, now: Timestamp) -> String {
    match time {
        Some(time) if time.as_second() > -62_135_596_800 => {
            show_duration(Duration::try_from(now.duration_since(time)).unwrap_or_default())
        }
        _ => "never".to_owned(),
    }
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
