//! `$JS.API.DIRECT.GET.>`: messages as they are, not as JSON; one, a batch, or the last of many subjects.
//!
//! On a stream that does not allow it nobody answers: the requester is told so, as the router would.

use std::sync::Arc;

use serde::Deserialize;

use crate::jetstream::JetStream;
use crate::jetstream::stream::{Found, Stream, Want};
use crate::jetstream::time::{parse_rfc3339, rfc3339};
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::info::API_LEVEL;
use crate::router::Publisher;

use super::batch::{Batch, Source};
use super::request;

/// Subjects one request may ask the last messages of.
const RESULTS_MAX: usize = 1024;
/// Bytes in one batch when the request does not say.
const BATCH_BYTES: u64 = 64 << 20;

/// Every field of a request for messages.
pub(super) const FIELDS: [&str; 10] = [
    "seq",
    "last_by_subj",
    "next_by_subj",
    "start_time",
    "batch",
    "max_bytes",
    "multi_last",
    "up_to_seq",
    "up_to_time",
    "no_hdr",
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    seq: u64,
    last_by_subj: String,
    next_by_subj: String,
    start_time: Option<String>,
    batch: i64,
    max_bytes: i64,
    multi_last: Vec<String>,
    up_to_seq: u64,
    up_to_time: Option<String>,
    no_hdr: bool,
}

impl Request {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let object = request::object(body, &FIELDS).map_err(|_| MALFORMED)?;
        let asked: Self = serde_json::from_value(object.into()).map_err(|_| MALFORMED)?;
        time(asked.start_time.as_deref())?;
        time(asked.up_to_time.as_deref())?;
        Ok(asked)
    }

    /// Whether it asks for anything that a subject of its own in the request does not go with.
    fn says_which(&self) -> bool {
        let subjects = [&self.last_by_subj, &self.next_by_subj];
        let is_set = [self.seq > 0, self.batch != 0, self.up_to_seq > 0].contains(&true);
        is_set
            || subjects.iter().any(|subject| !subject.is_empty())
            || self.start_time.is_some()
            || self.up_to_time.is_some()
            || !self.multi_last.is_empty()
    }

    /// Asks for nothing, or for what does not go together.
    fn check(&self) -> Result<(), Refusal> {
        let (seq, start) = (self.seq > 0, self.start_time.is_some());
        let (last, next) = (!self.last_by_subj.is_empty(), !self.next_by_subj.is_empty());
        let multi = !self.multi_last.is_empty();
        if !(seq || last || next || start || multi) {
            return Err(EMPTY);
        }
        if (last && (seq || next || start || multi || self.batch > 0))
            || (multi && next)
            || (seq && start)
            || (self.up_to_seq > 0 && self.up_to_time.is_some())
        {
            return Err(BAD);
        }
        Ok(())
    }
}

/// Why there is no message: the text of the status line.
type Refusal = &'static str;

const NOT_FOUND: Refusal = "404 Message Not Found";
const NO_RESULTS: Refusal = "404 No Results";
const EMPTY: Refusal = "408 Empty Request";
const MALFORMED: Refusal = "408 Malformed Request";
const BAD: Refusal = "408 Bad Request";
const TOO_MANY: Refusal = "413 Too Many Results";
const API_LEVEL_REQUIRED: Refusal = "412 Required Api Level";

/// Answers a request on `DIRECT.GET.<rest>`; a batch is for the caller to send.
pub(super) async fn answer(
    jetstream: &JetStream,
    rest: &str,
    request: &Message<'_>,
    publisher: &mut Publisher,
) -> Option<Batch> {
    if request.reply.is_empty() {
        return None;
    }
    let (name, subject) = rest
        .split_once('.')
        .map_or((rest, None), |(name, last)| (name, Some(last)));
    let stream = jetstream
        .stream(name)
        .filter(|stream| stream.config().allow_direct);
    let mut reply = Reply {
        to: request.reply,
        publisher,
    };
    let Some(stream) = stream else {
        let subject = String::from_utf8_lossy(request.subject);
        reply.send(&headers::build("503", [("Nats-Subject", &*subject)]), b"");
        return None;
    };
    serve(stream, subject, request, &mut reply)
        .await
        .unwrap_or_else(|refusal| {
            reply.send(&headers::build(refusal, []), b"");
            None
        })
}

/// Says that no answer could be made.
pub(super) fn apologise(to: &[u8], publisher: &mut Publisher) {
    if to.is_empty() {
        return;
    }
    Reply { to, publisher }.send(&headers::build("500 Internal Error", []), b"");
}

/// Where the answers go.
pub(super) struct Reply<'a> {
    pub to: &'a [u8],
    pub publisher: &'a mut Publisher,
}

impl Reply<'_> {
    /// Says how many receive it.
    pub fn send(&mut self, headers: &[u8], payload: &[u8]) -> usize {
        let message = Message {
            subject: self.to,
            headers,
            payload,
            ..Message::default()
        };
        self.publisher.publish(&message, None)
    }
}

async fn serve(
    stream: Arc<Stream>,
    subject: Option<&str>,
    request: &Message<'_>,
    reply: &mut Reply<'_>,
) -> Result<Option<Batch>, Refusal> {
    if let Some(level) = headers::get(request.headers, b"Nats-Required-Api-Level") {
        let level = std::str::from_utf8(level)
            .ok()
            .and_then(|level| level.parse::<u32>().ok());
        if level.is_none_or(|level| level > API_LEVEL) {
            return Err(API_LEVEL_REQUIRED);
        }
    }
    let asked = match (request.payload, subject) {
        (b"", None) => return Err(EMPTY),
        (b"", Some(_)) => Request::default(),
        (body, _) => Request::read(body)?,
    };
    let no_headers = asked.no_hdr;
    if let Some(subject) = subject {
        if asked.says_which() {
            return Err(BAD);
        }
        return one(&stream, Want::Last(subject.into()), no_headers, reply).await;
    }
    asked.check()?;
    if !asked.last_by_subj.is_empty() {
        let want = Want::Last(asked.last_by_subj.into_bytes());
        return one(&stream, want, no_headers, reply).await;
    }
    stream.settled().await;
    let start = time(asked.start_time.as_deref())?;
    let from = match start {
        Some(time) => stream.seq_at(time).map_err(|_| NOT_FOUND)?,
        None => asked.seq,
    };
    if !asked.multi_last.is_empty() {
        return multi_last(stream, &asked, from, request.reply).map(Some);
    }
    if asked.batch > 0 {
        return batch(stream, asked, from, request.reply).map(Some);
    }
    let want = match (asked.next_by_subj.is_empty(), start.is_some()) {
        (false, _) => Want::Next(from, asked.next_by_subj.into_bytes()),
        (true, true) => Want::Next(from, b">".to_vec()),
        (true, false) => Want::Seq(from),
    };
    one(&stream, want, no_headers, reply).await
}

fn time(text: Option<&str>) -> Result<Option<i64>, Refusal> {
    match text {
        None => Ok(None),
        Some(text) => parse_rfc3339(text).map(Some).ok_or(MALFORMED),
    }
}

async fn one(
    stream: &Stream,
    want: Want,
    no_headers: bool,
    reply: &mut Reply<'_>,
) -> Result<Option<Batch>, Refusal> {
    let found = stream.find(&want).await.ok().flatten().ok_or(NOT_FOUND)?;
    let block = if no_headers {
        Vec::new()
    } else {
        described(stream, &found, None)
    };
    reply.send(&block, &found.payload);
    Ok(None)
}

/// The header block of an answer: the message's own lines, then what it is; in batches also what is left.
pub(super) fn described(stream: &Stream, found: &Found, left: Option<(u64, u64)>) -> Vec<u8> {
    let mut block = match found.headers.strip_suffix(b"\r\n") {
        Some(own) => own.to_vec(),
        None => b"NATS/1.0\r\n".to_vec(),
    };
    let mut line = |key: &str, value: &[u8]| {
        block.extend_from_slice(key.as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value);
        block.extend_from_slice(b"\r\n");
    };
    line("Nats-Stream", stream.name().as_bytes());
    line("Nats-Subject", &found.subject);
    line("Nats-Sequence", found.seq.to_string().as_bytes());
    line("Nats-Time-Stamp", rfc3339(found.time_ns).as_bytes());
    if let Some((pending, last)) = left {
        line("Nats-Num-Pending", pending.to_string().as_bytes());
        line("Nats-Last-Sequence", last.to_string().as_bytes());
    }
    block.extend_from_slice(b"\r\n");
    block
}

fn bytes_max(asked: &Request) -> u64 {
    u64::try_from(asked.max_bytes)
        .ok()
        .filter(|&max| max > 0)
        .unwrap_or(BATCH_BYTES)
}

/// Messages from a sequence on.
fn batch(stream: Arc<Stream>, asked: Request, from: u64, to: &[u8]) -> Result<Batch, Refusal> {
    let bytes_left = bytes_max(&asked);
    let filters: Vec<Box<[u8]>> = match asked.next_by_subj.as_str() {
        "" => Vec::new(),
        filter => vec![filter.as_bytes().into()],
    };
    let pending = stream.count_from(&filters, from).map_err(|_| NOT_FOUND)?;
    if pending == 0 {
        return Err(NOT_FOUND);
    }
    Ok(Batch {
        stream,
        to: to.into(),
        source: Source::From(from, filters),
        no_headers: asked.no_hdr,
        messages_left: usize::try_from(asked.batch).unwrap_or(usize::MAX),
        bytes_left,
        pending,
        last: 0,
        up_to: None,
    })
}

/// The last messages of subjects.
fn multi_last(stream: Arc<Stream>, asked: &Request, from: u64, to: &[u8]) -> Result<Batch, Refusal> {
    let filters: Vec<Box<[u8]>> = asked
        .multi_last
        .iter()
        .map(|filter| filter.as_bytes().into())
        .collect();
    let last_seq = stream.state().last_seq;
    let up_to = match time(asked.up_to_time.as_deref())? {
        Some(time) => stream.seq_at(time).map_err(|_| NO_RESULTS)?.saturating_sub(1),
        None if asked.up_to_seq > 0 => asked.up_to_seq,
        None => last_seq,
    };
    if up_to > last_seq {
        return Err(NO_RESULTS);
    }
    let mut last = if up_to == last_seq {
        stream.last_of_each(&filters)
    } else {
        stream.last_of_each_upto(&filters, up_to)
    }
    .map_err(|_| NO_RESULTS)?;
    if last.is_empty() {
        return Err(NO_RESULTS);
    }
    if last.len() > RESULTS_MAX {
        return Err(TOO_MANY);
    }
    last.retain(|&seq| seq >= from);
    Ok(Batch {
        stream,
        to: to.into(),
        pending: last.len() as u64,
        source: Source::List(last.into()),
        // Headers say which of the subjects a message is: they are sent even when not wanted.
        no_headers: false,
        messages_left: usize::try_from(asked.batch)
            .ok()
            .filter(|&batch| batch > 0)
            .unwrap_or(RESULTS_MAX),
        bytes_left: bytes_max(asked),
        last: 0,
        up_to: Some(up_to),
    })
}
