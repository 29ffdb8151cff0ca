//! The bodies of acks: what the receiver of a message says about it.

use serde::Deserialize;

use super::duration;

/// What the body of an ack asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack<'a> {
    /// Done with it: an empty body, `+ACK` or the old `+OK`.
    Ack,
    /// `-NAK`: again, after so many nanoseconds; 0 is at once.
    Nak(i64),
    /// `+WPI`: still at work, start the wait anew.
    Progress,
    /// `+NXT`: done, and this is a pull request.
    Next(&'a [u8]),
    /// `+TERM`: never again, with a reason that may be empty.
    Term(String),
}

#[derive(Deserialize)]
struct NakOptions {
    #[serde(default)]
    delay: i64,
}

impl<'a> Ack<'a> {
    /// Reads a body, without headers. `None` for what is no ack: it changes nothing and is not answered.
    pub fn parse(body: &'a [u8]) -> Option<Ack<'a>> {
        match body {
            b"" | b"+ACK" | b"+OK" => Some(Ack::Ack),
            b"+WPI" => Some(Ack::Progress),
            _ => {
                if let Some(request) = body.strip_prefix(b"+NXT") {
                    Some(Ack::Next(request))
                } else if let Some(options) = body.strip_prefix(b"-NAK") {
                    Some(Ack::Nak(nak_delay(options.trim_ascii())))
                } else {
                    let reason = body.strip_prefix(b"+TERM")?.trim_ascii();
                    Some(Ack::Term(String::from_utf8_lossy(reason).into_owned()))
                }
            }
        }
    }
}

/// A delay that cannot be read is none, as on nats-server.
fn nak_delay(options: &[u8]) -> i64 {
    let delay = if options.first() == Some(&b'{') {
        serde_json::from_slice::<NakOptions>(options)
            .ok()
            .map(|options| options.delay)
    } else {
        std::str::from_utf8(options).ok().and_then(duration::parse)
    };
    delay.unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let term = |reason: &str| Some(Ack::Term(reason.to_owned()));
        for (body, expected) in [
            ("", Some(Ack::Ack)),
            ("+ACK", Some(Ack::Ack)),
            ("+OK", Some(Ack::Ack)),
            ("-NAK", Some(Ack::Nak(0))),
            ("-NAK {\"delay\": 5000000000}", Some(Ack::Nak(5_000_000_000))),
            ("-NAK {\"delay\":-5}", Some(Ack::Nak(0))),
            ("-NAK {}", Some(Ack::Nak(0))),
            ("-NAK {\"delay\":\"x\"}", Some(Ack::Nak(0))),
            ("-NAK 1.5s", Some(Ack::Nak(1_500_000_000))),
            ("-NAK soon", Some(Ack::Nak(0))),
            ("+WPI", Some(Ack::Progress)),
            ("+NXT", Some(Ack::Next(b""))),
            ("+NXT {\"batch\":2}", Some(Ack::Next(b" {\"batch\":2}"))),
            ("+TERM", term("")),
            ("+TERM  bad payload ", term("bad payload")),
            ("+wpi", None),
            ("+WPI ", None),
            ("hello", None),
        ] {
            assert_eq!(Ack::parse(body.as_bytes()), expected, "{body}");
        }
    }
}
