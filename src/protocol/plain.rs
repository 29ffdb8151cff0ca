//! The verbs for people: which there are, what they take, what `HELP` says of them.
//!
//! Lines a person types into `nc` or `telnet`; a NATS client library never sends them. Their arguments are text:
//! each verb's own code reads them and answers a mistake with the usage line from here.

/// A verb for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What can be typed.
    Help,
    /// Publish a line of text.
    Say,
    /// Request: publish and print the first answer.
    Ask,
    /// Print messages as they come.
    Watch,
    /// End watching.
    Unwatch,
    /// Who is present.
    Peers,
    /// The streams, a line each.
    Streams,
    /// One stream.
    Stream,
    /// The consumers of a stream.
    Consumers,
    /// What a stream holds.
    Replay,
    /// Take the next messages of a consumer.
    Next,
    /// Settle a message as done.
    Ack,
    /// Settle a message as to be sent again.
    Nak,
    /// Settle a message as never to be sent again.
    Term,
}

/// One line of the table: name, arguments, what it does.
type Row = (Verb, &'static str, &'static str, &'static str);

const TABLE: [Row; 14] = [
    (Verb::Help, "HELP", "[VERB]", "what can be typed here"),
    (
        Verb::Say,
        "SAY",
        "<subject> <text>",
        "publish the rest of the line",
    ),
    (
        Verb::Ask,
        "ASK",
        "<subject> <text>",
        "publish and print the first answer",
    ),
    (
        Verb::Watch,
        "WATCH",
        "<subject>",
        "print messages as they come, `*` and `>` match any token",
    ),
    (
        Verb::Unwatch,
        "UNWATCH",
        "[<subject>]",
        "stop watching one subject, or all",
    ),
    (Verb::Peers, "PEERS", "", "who is present on the mesh"),
    (Verb::Streams, "STREAMS", "", "the streams, one line each"),
    (Verb::Stream, "STREAM", "<name>", "one stream"),
    (
        Verb::Consumers,
        "CONSUMERS",
        "<stream>",
        "the consumers of a stream, one line each",
    ),
    (
        Verb::Replay,
        "REPLAY",
        "<stream> [<subject>] [FROM <seq>, <duration> or <time>]",
        "print what the stream holds, in order",
    ),
    (
        Verb::Next,
        "NEXT",
        "<stream> <consumer> [<n>]",
        "take the next messages of a consumer, made on first use",
    ),
    (
        Verb::Ack,
        "ACK",
        "<stream> <consumer> <seq>",
        "this message is done",
    ),
    (
        Verb::Nak,
        "NAK",
        "<stream> <consumer> <seq>",
        "send this message again",
    ),
    (
        Verb::Term,
        "TERM",
        "<stream> <consumer> <seq>",
        "never send this message again",
    ),
];

impl Verb {
    /// Every verb, in the order of `HELP`.
    pub fn all() -> impl Iterator<Item = Verb> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .expect("the table has every verb")
    }

    /// The verb of that name, in any case.
    pub fn named(word: &[u8]) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.1.as_bytes().eq_ignore_ascii_case(word))
            .map(|row| row.0)
    }

    /// Whether the unfinished line may still become one of the verbs.
    pub fn may_begin(start: &[u8]) -> bool {
        let end = start.iter().position(|byte| b" \t\r".contains(byte));
        match end {
            Some(end) => Self::named(&start[..end]).is_some(),
            None => TABLE.iter().any(|row| {
                row.1.len() >= start.len() && row.1.as_bytes()[..start.len()].eq_ignore_ascii_case(start)
            }),
        }
    }

    /// Its name in capitals.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// How it is typed.
    pub fn usage(self) -> String {
        let (_, name, arguments, _) = self.row();
        if arguments.is_empty() {
            (*name).to_owned()
        } else {
            format!("{name} {arguments}")
        }
    }

    /// What it does.
    pub fn about(self) -> &'static str {
        self.row().3
    }
}
