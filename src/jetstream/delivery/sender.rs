//! What a consumer sends: messages with their ack subject, statuses, advisories.

use std::io::Write as _;
use std::sync::Arc;

use crate::jetstream::consumer::advisory::{Advisory, AdvisoryContext};
use crate::jetstream::consumer::state::{Consumer, Delivery};
use crate::jetstream::consumer::status::Status;
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::router::{Publisher, Router};
use crate::store::RecordRef;

/// See the module documentation.
pub(super) struct Sender {
    router: Arc<Router>,
    pub publisher: Publisher,
    stream: String,
    consumer: String,
    domain: String,
    reply: Vec<u8>,
    block: Vec<u8>,
}

impl Sender {
    pub fn new(router: Arc<Router>, stream: &str, consumer: &str, domain: Option<&str>) -> Self {
        Self {
            publisher: Publisher::of_answers(router.clone()),
            router,
            stream: stream.to_owned(),
            consumer: consumer.to_owned(),
            domain: domain.unwrap_or_default().to_owned(),
            reply: Vec::new(),
            block: Vec::new(),
        }
    }

    /// Delivers a message; says how many receive it.
    #[inline]
    pub fn deliver(
        &mut self,
        consumer: &Consumer,
        delivery: &Delivery,
        record: &RecordRef<'_>,
        headers_only: bool,
    ) -> usize {
        self.reply.clear();
        consumer.write_ack_subject(delivery, &mut self.reply);
        let mut message = Message {
            subject: record.subject,
            reply: &self.reply,
            headers: record.headers,
            payload: record.payload,
        };
        if headers_only {
            self.block.clear();
            with_size(record, &mut self.block);
            (message.headers, message.payload) = (&self.block, b"");
        }
        self.publisher.deliver(&delivery.to, &message, None)
    }

    /// Sends an empty message with a status.
    pub fn status(&mut self, to: &[u8], reply: Option<&[u8]>, status: &Status) {
        self.block.clear();
        status.write(&mut self.block);
        let message = Message {
            subject: to,
            reply: reply.unwrap_or_default(),
            headers: &self.block,
            payload: b"",
        };
        self.publisher.publish(&message, None);
    }

    /// Tells whoever listens; made only then.
    pub fn advise(&mut self, advisory: &Advisory, now: i64) {
        let subject = advisory.subject(&self.stream, &self.consumer);
        if !self.router.has_interest(subject.as_bytes()) {
            return;
        }
        let id = nuid::next();
        let context = AdvisoryContext {
            id: &id,
            now,
            stream: &self.stream,
            consumer: &self.consumer,
            domain: &self.domain,
        };
        let body = advisory.body(&context);
        let message = Message {
            subject: subject.as_bytes(),
            payload: body.as_bytes(),
            ..Message::default()
        };
        self.publisher.publish(&message, None);
    }
}

/// Bytes of headers and payload as they are delivered.
pub(super) fn body_len(record: &RecordRef<'_>, headers_only: bool) -> usize {
    if headers_only {
        let mut block = Vec::new();
        with_size(record, &mut block);
        block.len()
    } else {
        record.headers.len() + record.payload.len()
    }
}

/// The headers of a message whose payload stays behind: `Nats-Msg-Size` says how large that is.
fn with_size(record: &RecordRef<'_>, out: &mut Vec<u8>) {
    match record.headers.strip_suffix(b"\r\n") {
        Some(lines) => out.extend_from_slice(lines),
        None => {
            out.extend_from_slice(headers::VERSION);
            out.extend_from_slice(b"\r\n");
        }
    }
    write!(out, "Nats-Msg-Size: {}\r\n\r\n", record.payload.len()).expect("writing to memory");
}
