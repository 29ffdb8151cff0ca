//! The grammar of a client's control line, in nom; lines are complete slices, so nothing is scanned twice.
//!
//! ```text
//! line      = verb [blanks arguments]          verbs in any case, blanks are spaces and tabs
//! publish   = "PUB"  subject [reply] size
//! hpublish  = "HPUB" subject [reply] headers-size total-size
//! subscribe = "SUB"  pattern [queue] sid
//! unsub     = "UNSUB" sid [max]
//! connect   = "CONNECT" json
//! ```
//!
//! The payload is no part of it: it is length-prefixed. Source: the NATS client protocol.

use nom::bytes::complete::{take_while, take_while1};
use nom::combinator::{eof, opt};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::plain;

/// What a client asks for, borrowed from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// `CONNECT {json}`
    Connect(&'a [u8]),
    /// `PUB` and `HPUB`; a payload of `total` bytes (headers included) follows.
    Publish {
        /// Where to.
        subject: &'a [u8],
        /// Where answers go; empty when there is none.
        reply: &'a [u8],
        /// `HPUB` only: bytes of the header block.
        headers: Option<usize>,
        /// Bytes of headers and payload.
        total: usize,
    },
    /// `SUB`
    Subscribe {
        /// What to.
        pattern: &'a [u8],
        /// Queue group.
        queue: Option<&'a [u8]>,
        /// The client's name for it.
        sid: &'a [u8],
    },
    /// `UNSUB`
    Unsubscribe {
        /// Which.
        sid: &'a [u8],
        /// After how many deliveries in all; at once when absent.
        max: Option<u64>,
    },
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `INFO` and `+OK` from a client mean nothing.
    Ignored,
    /// A verb for people.
    Plain(plain::Verb, &'a [u8]),
}

/// What is wrong with a line. Both end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No such verb.
    #[error("Unknown Protocol Operation")]
    UnknownOperation,
    /// A verb with arguments that cannot be: NATS closes without a word.
    #[error("Protocol Violation")]
    Arguments,
}

/// What is looked at byte by byte in a token.
const SHORT: usize = 16;

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `token = 1*(any byte but a blank)`
fn token(input: &[u8]) -> IResult<&[u8], &[u8], ()> {
    // A short token ends before a search by vectors has begun, a long one (an inbox) is worth it.
    let (short, long) = input.split_at(input.len().min(SHORT));
    let end = short
        .iter()
        .position(|&byte| is_blank(byte))
        .unwrap_or_else(|| short.len() + memchr::memchr2(b' ', b'\t', long).unwrap_or(long.len()));
    match end {
        0 => Err(nom::Err::Error(())),
        end => Ok((&input[end..], &input[..end])),
    }
}

/// `blanks = 1*(SP / TAB)`
fn blanks(input: &[u8]) -> IResult<&[u8], &[u8], ()> {
    take_while1(is_blank).parse(input)
}

/// `end = *(SP / TAB) end-of-line`
fn end(input: &[u8]) -> IResult<&[u8], (), ()> {
    (take_while(is_blank), eof).map(|_| ()).parse(input)
}

/// `next = blanks token`
fn next(input: &[u8]) -> IResult<&[u8], &[u8], ()> {
    preceded(blanks, token).parse(input)
}

/// A size: digits only, at most nine, so that it cannot overflow.
fn size(text: &[u8]) -> Result<usize, LineError> {
    if text.len() > 9 {
        return Err(LineError::Arguments);
    }
    text.iter().try_fold(0usize, |sum, &byte| match byte {
        b'0'..=b'9' => Ok(sum * 10 + usize::from(byte - b'0')),
        _ => Err(LineError::Arguments),
    })
}

/// `publish`: the arguments of PUB.
fn publish(input: &[u8]) -> Result<ClientOp<'_>, LineError> {
    let (_, (subject, second, third)) = terminated((token, next, opt(next)), end)
        .parse(input)
        .map_err(|_| LineError::Arguments)?;
    let (reply, total) = match third {
        Some(third) => (second, third),
        None => (&[][..], second),
    };
    Ok(ClientOp::Publish {
        subject,
        reply,
        headers: None,
        total: size(total)?,
    })
}

/// `hpublish`: the arguments of HPUB.
fn publish_with_headers(input: &[u8]) -> Result<ClientOp<'_>, LineError> {
    let (_, (subject, second, third, fourth)) = terminated((token, next, next, opt(next)), end)
        .parse(input)
        .map_err(|_| LineError::Arguments)?;
    let (reply, headers, total) = match fourth {
        Some(total) => (second, third, total),
        None => (&[][..], second, third),
    };
    let (headers, total) = (size(headers)?, size(total)?);
    if headers > total {
        return Err(LineError::Arguments);
    }
    Ok(ClientOp::Publish {
        subject,
        reply,
        headers: Some(headers),
        total,
    })
}

/// `subscribe`: the arguments of SUB.
fn subscribe(input: &[u8]) -> Result<ClientOp<'_>, LineError> {
    let (_, (pattern, second, third)) = terminated((token, next, opt(next)), end)
        .parse(input)
        .map_err(|_| LineError::Arguments)?;
    let (queue, sid) = match third {
        Some(sid) => (Some(second), sid),
        None => (None, second),
    };
    Ok(ClientOp::Subscribe { pattern, queue, sid })
}

/// `unsub`: the arguments of UNSUB. A max that is no positive number means "at once", as in NATS.
fn unsubscribe(input: &[u8]) -> Result<ClientOp<'_>, LineError> {
    let (_, (sid, max)) = terminated((token, opt(next)), end)
        .parse(input)
        .map_err(|_| LineError::Arguments)?;
    let max = max
        .and_then(|max| size(max).ok())
        .filter(|&max| max > 0)
        .map(|max| max as u64);
    Ok(ClientOp::Unsubscribe { sid, max })
}

/// Splits a line into its verb (letters and signs up to the first blank or brace) and the rest behind the blanks.
fn verb(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|&byte| is_blank(byte)).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn starts_with(line: &[u8], verb: &[u8]) -> bool {
    line.len() >= verb.len() && line[..verb.len()].eq_ignore_ascii_case(verb)
}

/// Parses one control line, without its line end.
pub fn control_line(line: &[u8]) -> Result<ClientOp<'_>, LineError> {
    let leading = |rest: &'_ [u8]| rest.iter().take_while(|&&byte| is_blank(byte)).count();
    match line {
        [b'P' | b'p', b'U' | b'u', b'B' | b'b', b' ' | b'\t', rest @ ..] => publish(&rest[leading(rest)..]),
        [
            b'H' | b'h',
            b'P' | b'p',
            b'U' | b'u',
            b'B' | b'b',
            b' ' | b'\t',
            rest @ ..,
        ] => publish_with_headers(&rest[leading(rest)..]),
        [b'S' | b's', b'U' | b'u', b'B' | b'b', b' ' | b'\t', rest @ ..] => subscribe(&rest[leading(rest)..]),
        [
            b'U' | b'u',
            b'N' | b'n',
            b'S' | b's',
            b'U' | b'u',
            b'B' | b'b',
            b' ' | b'\t',
            rest @ ..,
        ] => unsubscribe(&rest[leading(rest)..]),
        _ => rare(line),
    }
}

/// Verbs off the hot path. NATS looks only at the first letters of some: `PINGG` is a PING.
fn rare(line: &[u8]) -> Result<ClientOp<'_>, LineError> {
    if starts_with(line, b"PING") {
        return Ok(ClientOp::Ping);
    }
    if starts_with(line, b"PONG") {
        return Ok(ClientOp::Pong);
    }
    if starts_with(line, b"CONNECT") {
        return Ok(ClientOp::Connect(line[7..].trim_ascii()));
    }
    if starts_with(line, b"+OK") {
        return Ok(ClientOp::Ignored);
    }
    if starts_with(line, b"INFO") {
        return info(line[4..].trim_ascii());
    }
    if starts_with(line, b"-ERR ") || starts_with(line, b"-ERR\t") {
        return Err(LineError::Arguments);
    }
    let (word, rest) = verb(line);
    match plain::Verb::named(word) {
        Some(verb) => Ok(ClientOp::Plain(verb, rest.trim_ascii_end())),
        None => Err(LineError::UnknownOperation),
    }
}

/// A client's INFO is read and means nothing; what cannot be read ends the connection.
fn info(json: &[u8]) -> Result<ClientOp<'_>, LineError> {
    match json.first() {
        Some(b'{' | b'n') if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok() => {
            Ok(ClientOp::Ignored)
        }
        _ => Err(LineError::Arguments),
    }
}

/// Whether the unfinished line `start` may still become an operation; if not, it need not be waited for.
pub fn may_begin(start: &[u8]) -> bool {
    const WHOLE: [&[u8]; 9] = [
        b"PUB ", b"HPUB ", b"SUB ", b"UNSUB ", b"CONNECT", b"PING", b"PONG", b"INFO", b"+OK",
    ];
    let fits = |verb: &[u8]| {
        let common = verb.len().min(start.len());
        let same =
            |(want, got): (&u8, &u8)| want.eq_ignore_ascii_case(got) || (*want == b' ' && *got == b'\t');
        verb[..common].iter().zip(start).all(same)
    };
    WHOLE.iter().any(|verb| fits(verb)) || fits(b"-ERR ") || plain::Verb::may_begin(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish_op<'a>(
        subject: &'a str,
        reply: &'a str,
        headers: Option<usize>,
        total: usize,
    ) -> ClientOp<'a> {
        ClientOp::Publish {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers,
            total,
        }
    }

    #[test]
    fn lines() {
        let ok = [
            ("PUB foo 2", publish_op("foo", "", None, 2)),
            ("pub \tfoo\t bar  00002 ", publish_op("foo", "bar", None, 2)),
            ("HPUB foo 12 14", publish_op("foo", "", Some(12), 14)),
            ("hPub foo r 0 14", publish_op("foo", "r", Some(0), 14)),
            (
                "SUB a.> 1",
                ClientOp::Subscribe {
                    pattern: b"a.>",
                    queue: None,
                    sid: b"1",
                },
            ),
            (
                "SUB a q x1",
                ClientOp::Subscribe {
                    pattern: b"a",
                    queue: Some(b"q"),
                    sid: b"x1",
                },
            ),
            ("UNSUB 1", ClientOp::Unsubscribe { sid: b"1", max: None }),
            (
                "UNSUB 1 5",
                ClientOp::Unsubscribe {
                    sid: b"1",
                    max: Some(5),
                },
            ),
            ("UNSUB 1 x", ClientOp::Unsubscribe { sid: b"1", max: None }),
            ("UNSUB 1 0", ClientOp::Unsubscribe { sid: b"1", max: None }),
            ("CONNECT {}", ClientOp::Connect(b"{}")),
            ("CONNECT{}", ClientOp::Connect(b"{}")),
            ("ping", ClientOp::Ping),
            ("PING extra", ClientOp::Ping),
            ("PONG", ClientOp::Pong),
            ("+OK", ClientOp::Ignored),
            ("INFO {}", ClientOp::Ignored),
            ("INFO{}", ClientOp::Ignored),
            (
                "say a.b hello  there ",
                ClientOp::Plain(plain::Verb::Say, b"a.b hello  there"),
            ),
            ("HELP", ClientOp::Plain(plain::Verb::Help, b"")),
        ];
        for (line, expected) in ok {
            assert_eq!(control_line(line.as_bytes()), Ok(expected), "{line}");
        }
        let bad_arguments = [
            "PUB foo",
            "PUB foo x",
            "PUB foo -1",
            "PUB foo bar baz 1",
            "PUB foo 9999999999",
            "PUB ",
            "SUB foo",
            "SUB a b c d",
            "UNSUB 1 2 3",
            "HPUB foo 14",
            "HPUB foo 20 14",
            "-ERR 'x'",
            "INFO",
            "INFO []",
            "INFO {bad",
        ];
        for line in bad_arguments {
            assert_eq!(control_line(line.as_bytes()), Err(LineError::Arguments), "{line}");
        }
        for line in [
            "",
            " PING",
            "XXXX",
            "P",
            "PUB",
            "SUB",
            "UNSUB",
            "MSG a 1 0",
            "GET / HTTP/1.1",
            "SAYS x",
            "-ERR",
            "LS+ a",
        ] {
            assert_eq!(
                control_line(line.as_bytes()),
                Err(LineError::UnknownOperation),
                "{line}"
            );
        }
    }

    #[test]
    fn beginnings() {
        for good in [
            "", "P", "PU", "pub", "PUB\ta", "C", "CONNECT{", "SA", "say x", "unw",
        ] {
            assert!(may_begin(good.as_bytes()), "{good}");
        }
        for bad in ["X", "PX", "PUBX", "GET ", " ", "\r", "SAYX"] {
            assert!(!may_begin(bad.as_bytes()), "{bad}");
        }
    }
}
