//! What the headers of a published message ask of the stream, read in one pass.

use crate::jetstream::time::SECOND;
use crate::protocol::headers;

/// The value of `Nats-Rollup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollup<'a> {
    /// Replace all messages of the subject.
    Subject,
    /// Replace all messages.
    All,
    /// No such rollup.
    Unknown(&'a [u8]),
}

/// The value of `Nats-TTL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ttl {
    /// Goes after so many nanoseconds.
    After(i64),
    /// Stays, whatever the age limit of the stream.
    Never,
}

/// Header values that are set and not empty. Keys are compared exactly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    pub msg_id: Option<&'a [u8]>,
    pub stream: Option<&'a [u8]>,
    pub last_seq: Option<&'a [u8]>,
    pub last_subject_seq: Option<&'a [u8]>,
    pub last_subject_seq_subject: Option<&'a [u8]>,
    pub last_msg_id: Option<&'a [u8]>,
    pub rollup: Option<&'a [u8]>,
    pub ttl: Option<&'a [u8]>,
    pub increment: Option<&'a [u8]>,
    pub schedule: Option<&'a [u8]>,
    pub source: Option<&'a [u8]>,
    pub batch: Option<&'a [u8]>,
    pub marker: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    pub fn read(block: &'a [u8]) -> Self {
        let mut asked = Self::default();
        for (key, value) in headers::lines(block) {
            let Some(name) = key.strip_prefix(b"Nats-") else {
                continue;
            };
            let field = match name {
                b"Msg-Id" => &mut asked.msg_id,
                b"Expected-Stream" => &mut asked.stream,
                b"Expected-Last-Sequence" => &mut asked.last_seq,
                b"Expected-Last-Subject-Sequence" => &mut asked.last_subject_seq,
                b"Expected-Last-Subject-Sequence-Subject" => &mut asked.last_subject_seq_subject,
                b"Expected-Last-Msg-Id" => &mut asked.last_msg_id,
                b"Rollup" => &mut asked.rollup,
                b"TTL" => &mut asked.ttl,
                b"Incr" => &mut asked.increment,
                b"Schedule" => &mut asked.schedule,
                b"Stream-Source" => &mut asked.source,
                b"Batch-Id" => &mut asked.batch,
                b"Marker-Reason" => &mut asked.marker,
                _ => continue,
            };
            if field.is_none() && !value.is_empty() {
                *field = Some(value);
            }
        }
        asked
    }

    pub fn rollup(&self) -> Option<Rollup<'a>> {
        self.rollup.map(|value| {
            if value.eq_ignore_ascii_case(b"sub") {
                Rollup::Subject
            } else if value.eq_ignore_ascii_case(b"all") {
                Rollup::All
            } else {
                Rollup::Unknown(value)
            }
        })
    }
}

/// Reads a TTL: whole seconds, a duration of a second or more, or `never`.
pub(super) fn parse_ttl(value: &[u8]) -> Option<Ttl> {
    if value.eq_ignore_ascii_case(b"never") {
        return Some(Ttl::Never);
    }
    let text = std::str::from_utf8(value).ok()?;
    // A sign is for durations alone.
    let ns = match text.strip_prefix('+') {
        Some(text) => parse_duration(text)?,
        None => match text.parse::<i64>() {
            Ok(seconds) => seconds.saturating_mul(SECOND),
            Err(_) => parse_duration(text)?,
        },
    };
    (ns >= SECOND).then_some(Ttl::After(ns))
}

/// Numbers with units, one after the other: `1h30m`, `1.5s`.
fn parse_duration(mut text: &str) -> Option<i64> {
    let mut total = 0.0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..digits].parse().ok()?;
        text = &text[digits..];
        let letters = text
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(text.len());
        let unit = match &text[..letters] {
            "h" => 3600e9,
            "m" => 60e9,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return None,
        };
        total += number * unit;
        text = &text[letters..];
    }
    (total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live() {
        for (text, expected) in [
            ("1", Some(Ttl::After(SECOND))),
            ("1s", Some(Ttl::After(SECOND))),
            ("+1s", Some(Ttl::After(SECOND))),
            ("+1", None),
            ("++1s", None),
            ("+", None),
            ("1.5s", Some(Ttl::After(SECOND * 3 / 2))),
            ("1h30m", Some(Ttl::After(5400 * SECOND))),
            ("NEVER", Some(Ttl::Never)),
            ("99999999999", Some(Ttl::After(i64::MAX))),
            ("0", None),
            ("-1", None),
            ("500ms", None),
            ("1d", None),
            ("abc", None),
            (".", None),
            ("s", None),
        ] {
            assert_eq!(parse_ttl(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_exact_and_empty_values_ask_nothing() {
        let block = headers::build(
            "",
            [("nats-msg-id", "x"), ("Nats-Msg-Id", ""), ("Nats-Rollup", "SUB")],
        );
        let asked = Asked::read(&block);
        assert_eq!(asked.msg_id, None);
        assert_eq!(asked.rollup(), Some(Rollup::Subject));
    }
}
