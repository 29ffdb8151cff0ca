//! Messages that a consumer gave up: copied to its dead-letter subject, and only then done with.
//!
//! A stream that takes the copy confirms it like any publish, to an ack subject of the consumer's own; the copy's id is
//! made of stream, consumer and sequence, so that one that is sent again after a restart is stored once. Without a
//! stream whoever listens gets it; while nobody does, the message stays where it is and is tried again.

use std::collections::BTreeMap;

use crate::jetstream::consumer::duration::SECOND;
use crate::protocol::encode::Message;
use crate::protocol::headers;

use super::driver::{Core, Driver};
use super::sender::Sender;

/// How long until a dead letter that nobody took is sent again.
const RETRY: i64 = 5 * SECOND;
/// Dead letters sent in one round.
const ROUND_MAX: usize = 256;
/// Headers of the message that would be taken for the copy's own.
const LEFT_OUT: [&[u8]; 10] = [
    b"Nats-Msg-Id",
    b"Nats-Expected-Stream",
    b"Nats-Expected-Last-Sequence",
    b"Nats-Expected-Last-Subject-Sequence",
    b"Nats-Expected-Last-Subject-Sequence-Subject",
    b"Nats-Expected-Last-Msg-Id",
    b"Nats-Rollup",
    b"Nats-TTL",
    b"Nats-Marker-Reason",
    b"KV-Operation",
];

struct DeadLetter {
    deliveries: u64,
    reason: String,
    due: i64,
}

/// Dead letters that are not confirmed yet, by sequence.
#[derive(Default)]
pub(super) struct DeadLetters(BTreeMap<u64, DeadLetter>);

impl DeadLetters {
    /// One more.
    pub fn add(&mut self, seq: u64, deliveries: u64, reason: String) {
        let letter = DeadLetter {
            deliveries,
            reason,
            due: 0,
        };
        self.0.entry(seq).or_insert(letter);
    }

    /// When one is to be sent (again).
    pub fn next_due(&self) -> Option<i64> {
        self.0.values().map(|letter| letter.due).min()
    }
}

/// Where answers to dead letters go, but for the sequence at the end.
pub(super) fn answer_prefix(stream: &str, consumer: &str) -> String {
    format!("$JS.DEAD.{stream}.{consumer}.")
}

/// Sends what is due.
pub(super) fn send_due(driver: &Driver, core: &mut Core, sender: &mut Sender, now: i64) {
    if core.dead_letters.0.is_empty() {
        return;
    }
    let Some(subject) = core.config.dead_letter().map(str::to_owned) else {
        // The consumer was given another configuration: they stay with the message.
        return core.dead_letters.0.clear();
    };
    let stream = driver
        .context
        .jetstream
        .upgrade()
        .and_then(|jetstream| jetstream.stream_of(subject.as_bytes()))
        // One that acknowledges nothing takes them like any listener.
        .filter(|stream| !stream.config().no_ack);
    let due: Vec<u64> = core
        .dead_letters
        .0
        .iter()
        .filter(|(_, letter)| letter.due <= now)
        .map(|(&seq, _)| seq)
        .take(ROUND_MAX)
        .collect();
    for seq in due {
        let record = driver.stream.log().get(seq);
        let Some(letter) = core.dead_letters.0.get_mut(&seq) else {
            continue;
        };
        letter.due = now + RETRY;
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => {
                settle(core, seq, now);
                continue;
            }
            Err(error) => {
                tracing::warn!(stream = driver.stream.name(), seq, "a dead letter stays: {error}");
                continue;
            }
        };
        let block = block(driver, seq, letter, &record.subject, &record.headers);
        let reply = format!("{}{seq}", answer_prefix(driver.stream.name(), &driver.name));
        let message = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: &block,
            payload: &record.payload,
        };
        let receivers = sender.publisher.publish(&message, None);
        if receivers > 0 && stream.is_none() {
            settle(core, seq, now);
        } else if receivers == 0 {
            tracing::warn!(
                stream = driver.stream.name(),
                consumer = driver.name,
                seq,
                "nobody takes dead letters on {subject}: the message stays"
            );
        }
    }
    super::round::carry(driver, core, sender, None, now);
}

/// The headers of the copy: those of the message, and where it comes from and why.
fn block(driver: &Driver, seq: u64, letter: &DeadLetter, subject: &[u8], original: &[u8]) -> Vec<u8> {
    // Of this very stream and consumer, should others have had their names before.
    let (of, by) = (driver.stream.created(), driver.created);
    let id = format!(
        "dead-letter.{}.{of}.{}.{by}.{seq}",
        driver.stream.name(),
        driver.name
    );
    let (seq, deliveries) = (seq.to_string(), letter.deliveries.to_string());
    let subject = String::from_utf8_lossy(subject);
    let reason = letter.reason.replace(['\r', '\n'], " ");
    let lines = [
        ("Nats-Msg-Id", id.as_str()),
        ("Mesh-Dead-Letter-Stream", driver.stream.name()),
        ("Mesh-Dead-Letter-Consumer", &driver.name),
        ("Mesh-Dead-Letter-Subject", &subject),
        ("Mesh-Dead-Letter-Sequence", &seq),
        ("Mesh-Dead-Letter-Deliveries", &deliveries),
        ("Mesh-Dead-Letter-Reason", &reason),
    ];
    let mut block = headers::build("", lines);
    block.truncate(block.len() - 2);
    for (key, value) in headers::lines(original) {
        if !LEFT_OUT.contains(&key) && !key.starts_with(b"Mesh-Dead-Letter-") {
            block.extend_from_slice(key);
            block.extend_from_slice(b": ");
            block.extend_from_slice(value);
            block.extend_from_slice(b"\r\n");
        }
    }
    block.extend_from_slice(b"\r\n");
    block
}

/// The answer of the stream that takes them.
pub(super) fn answered(core: &mut Core, message: &Message<'_>, now: i64) {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Option<serde_json::Value>,
    }
    let token = message.subject.rsplit(|&byte| byte == b'.').next();
    let seq = token.and_then(|token| std::str::from_utf8(token).ok()?.parse::<u64>().ok());
    let Some(seq) = seq.filter(|seq| core.dead_letters.0.contains_key(seq)) else {
        return;
    };
    match serde_json::from_slice::<Answer>(message.payload) {
        Ok(Answer { error: None }) => settle(core, seq, now),
        Ok(Answer { error: Some(error) }) => tracing::warn!(seq, "a dead letter was refused: {error}"),
        Err(_) => {}
    }
}

/// It is where it belongs: the message itself is done with.
fn settle(core: &mut Core, seq: u64, now: i64) {
    core.dead_letters.0.remove(&seq);
    core.consumer.dead_lettered(seq, &mut core.out);
    core.commit_by(now);
}
