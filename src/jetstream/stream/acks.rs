//! The answers to one batch of publishes, gathered until the commit that holds the batch has synced.
//!
//! One buffer for all reply subjects and texts: nothing is allocated for a message.

use std::fmt::Write as _;

use crate::jetstream::api::error::{self, ApiError};
use crate::protocol::encode::{self, Message};
use crate::router::{Batch, Publisher};
use crate::store;

use super::tally::Counts;

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Stored(u64),
    Duplicate(u64),
    /// The text of the error lies behind the reply, up to here.
    Refused(u32),
}

#[derive(Clone, Copy, Debug)]
struct Ack {
    reply_start: u32,
    reply_end: u32,
    outcome: Outcome,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Acks {
    bytes: Vec<u8>,
    items: Vec<Ack>,
    counts: Counts,
}

fn at(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a batch is flushed before 4 GiB")
}

impl Acks {
    /// With room for the answers to a batch.
    pub fn to(batch: &Batch) -> Self {
        Self {
            bytes: Vec::with_capacity(batch.iter().map(|message| message.reply.len()).sum()),
            items: Vec::with_capacity(batch.len()),
            counts: Counts::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What became of the batch, those who asked for no answer counted in.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Answers nobody.
    pub fn silence(&mut self) {
        self.items = Vec::new();
        self.bytes = Vec::new();
    }

    fn push(&mut self, reply: &[u8], outcome: Outcome) {
        if reply.is_empty() {
            return;
        }
        let reply_start = at(&self.bytes);
        self.bytes.extend_from_slice(reply);
        let reply_end = at(&self.bytes);
        self.items.push(Ack {
            reply_start,
            reply_end,
            outcome,
        });
    }

    pub fn stored(&mut self, reply: &[u8], seq: u64) {
        self.counts.stored();
        self.push(reply, Outcome::Stored(seq));
    }

    pub fn duplicate(&mut self, reply: &[u8], seq: u64) {
        self.counts.duplicate();
        self.push(reply, Outcome::Duplicate(seq));
    }

    pub fn refused(&mut self, reply: &[u8], error: &ApiError) {
        self.counts.refused(error);
        if reply.is_empty() {
            return;
        }
        self.push(reply, Outcome::Refused(0));
        serde_json::to_writer(&mut self.bytes, error).expect("plain fields serialise");
        let end = at(&self.bytes);
        self.items.last_mut().expect("just pushed").outcome = Outcome::Refused(end);
    }

    /// Publishes all answers with one flush. `failed` takes the place of every promise.
    pub fn publish(&self, prefix: &AckPrefix, failed: Option<&ApiError>, publisher: &mut Publisher) {
        let failed = failed.map(|error| serde_json::to_string(error).expect("plain fields serialise"));
        let mut text = Vec::with_capacity(128);
        for ack in &self.items {
            text.clear();
            match (ack.outcome, &failed) {
                (Outcome::Refused(end), _) => {
                    prefix.error(&mut text, &self.bytes[ack.reply_end as usize..end as usize]);
                }
                (_, Some(failed)) => prefix.error(&mut text, failed.as_bytes()),
                (Outcome::Stored(seq), None) => {
                    text.extend_from_slice(&prefix.stored);
                    encode::decimal(&mut text, seq as usize);
                    text.push(b'}');
                }
                (Outcome::Duplicate(seq), None) => {
                    text.extend_from_slice(&prefix.stored);
                    encode::decimal(&mut text, seq as usize);
                    text.extend_from_slice(b",\"duplicate\": true}");
                }
            }
            let reply = &self.bytes[ack.reply_start as usize..ack.reply_end as usize];
            let message = Message {
                subject: reply,
                payload: &text,
                ..Message::default()
            };
            publisher.publish_once(&message);
        }
        publisher.flush();
    }
}

/// The parts of a PubAck that are the same for all messages of a stream.
#[derive(Debug)]
pub(super) struct AckPrefix {
    /// `{"stream":"S","seq":`
    stored: Vec<u8>,
    /// `,"stream":"S","seq":0}`
    refused: Vec<u8>,
}

impl AckPrefix {
    pub fn new(stream: &str, domain: Option<&str>) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut which = format!("\"stream\":{}", quoted(stream));
        if let Some(domain) = domain {
            write!(which, ",\"domain\":{}", quoted(domain)).expect("writing to a string");
        }
        Self {
            stored: format!("{{{which},\"seq\":").into_bytes(),
            refused: format!(",{which},\"seq\":0}}").into_bytes(),
        }
    }

    fn error(&self, out: &mut Vec<u8>, error: &[u8]) {
        out.extend_from_slice(b"{\"error\":");
        out.extend_from_slice(error);
        out.extend_from_slice(&self.refused);
    }
}

/// What publishers hear when the store does not take or does not confirm their messages. Those may be stored
/// all the same: the error promises nothing either way.
pub(super) fn store_error(error: &store::Error) -> ApiError {
    match error {
        store::Error::Full(_) => error::STORAGE_RESOURCES_EXCEEDED,
        other => error::STORE_FAILED.with(other),
    }
}
