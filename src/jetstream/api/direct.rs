//! `$JS.API.DIRECT.GET.>`: messages as they are, not as JSON; one, a batch, or the last of many subjects.
//!
//! On a stream that does not allow it nobody answers: the requester is told so, as the router would.

use serde::Deserialize;

use crate::jetstream::JetStream;
use crate::jetstream::stream::{Found, Stream, Want};
use crate::jetstream::time::{parse_rfc3339, rfc3339};
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::info::API_LEVEL;
use crate::router::Publisher;

/// Subjects one request may ask the last messages of.
const RESULTS_MAX: usize = 1024;
/// Bytes in one batch when the request does not say.
const BATCH_BYTES: u64 = 64 << 20;

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

/// Why there is no message: the text of the status line.
type Refusal = &'static str;

const NOT_FOUND: Refusal = "404 Message Not Found";
const NO_RESULTS: Refusal = "404 No Results";
const EMPTY: Refusal = "408 Empty Request";
const MALFORMED: Refusal = "408 Malformed Request";
const BAD: Refusal = "408 Bad Request";
const TOO_MANY: Refusal = "413 Too Many Results";
const API_LEVEL_REQUIRED: Refusal = "412 Required Api Level";

/// Answers a request on `DIRECT.GET.<rest>`.
pub(super) async fn answer(
    jetstream: &JetStream,
    rest: &str,
    request: &Message<'_>,
    publisher: &mut Publisher,
) {
    if request.reply.is_empty() {
        return;
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
        return;
    };
    if let Err(refusal) = serve(&stream, subject, request, &mut reply).await {
        reply.send(&headers::build(refusal, []), b"");
    }
}

/// Where the answers go.
struct Reply<'a> {
    to: &'a [u8],
    publisher: &'a mut Publisher,
}

impl Reply<'_> {
    fn send(&mut self, headers: &[u8], payload: &[u8]) {
        let message = Message {
            subject: self.to,
            headers,
            payload,
            ..Message::default()
        };
        self.publisher.publish(&message, None);
    }
}

async fn serve(
    stream: &Stream,
    subject: Option<&str>,
    request: &Message<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Refusal> {
    if let Some(level) = headers::get(request.headers, b"Nats-Required-Api-Level") {
        let level = std::str::from_utf8(level)
            .ok()
            .and_then(|level| level.parse::<u32>().ok());
        if level.is_none_or(|level| level > API_LEVEL) {
            return Err(API_LEVEL_REQUIRED);
        }
    }
    if let Some(subject) = subject {
        let asked: Request = if request.payload.is_empty() {
            Request::default()
        } else {
            serde_json::from_slice(request.payload).map_err(|_| MALFORMED)?
        };
        return one(stream, Want::Last(subject.into()), asked.no_hdr, reply).await;
    }
    if request.payload.is_empty() {
        return Err(EMPTY);
    }
    let asked: Request = serde_json::from_slice(request.payload).map_err(|_| MALFORMED)?;
    let start = time(asked.start_time.as_deref())?;
    let last = !asked.last_by_subj.is_empty();
    let next = !asked.next_by_subj.is_empty();
    if asked.seq == 0 && !last && !next && start.is_none() && asked.multi_last.is_empty() {
        return Err(EMPTY);
    }
    let alone =
        !(asked.seq > 0 || next || start.is_some() || asked.batch > 0 || !asked.multi_last.is_empty());
    if (last && !alone)
        || (asked.seq > 0 && start.is_some())
        || (asked.up_to_seq > 0 && asked.up_to_time.is_some())
    {
        return Err(BAD);
    }
    if last {
        return one(
            stream,
            Want::Last(asked.last_by_subj.into_bytes()),
            asked.no_hdr,
            reply,
        )
        .await;
    }
    stream.settled().await;
    let from = match start {
        Some(time) => stream.seq_at(time).map_err(|_| NOT_FOUND)?,
        None => asked.seq,
    };
    if !asked.multi_last.is_empty() {
        return multi_last(stream, &asked, from, reply);
    }
    if asked.batch > 0 {
        return batch(stream, &asked, from, reply);
    }
    let want = match (next, start.is_some()) {
        (true, _) => Want::Next(from, asked.next_by_subj.into_bytes()),
        (false, true) => Want::Next(from, b">".to_vec()),
        (false, false) => Want::Seq(from),
    };
    one(stream, want, asked.no_hdr, reply).await
}

fn time(text: Option<&str>) -> Result<Option<i64>, Refusal> {
    match text {
        None => Ok(None),
        Some(text) => parse_rfc3339(text).map(Some).ok_or(MALFORMED),
    }
}

async fn one(stream: &Stream, want: Want, no_headers: bool, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    let found = stream.find(&want).await.ok().flatten().ok_or(NOT_FOUND)?;
    let block = if no_headers {
        Vec::new()
    } else {
        described(stream, &found, None)
    };
    reply.send(&block, &found.payload);
    Ok(())
}

/// The header block of an answer: the message's own lines, then what it is; in batches also what is left.
fn described(stream: &Stream, found: &Found, left: Option<(u64, u64)>) -> Vec<u8> {
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

/// The end of a batch.
fn end(pending: u64, last: u64, up_to: Option<u64>, reply: &mut Reply<'_>) {
    let (pending, last) = (pending.to_string(), last.to_string());
    let up_to = up_to.map(|seq| seq.to_string());
    let lines = [("Nats-Num-Pending", &*pending), ("Nats-Last-Sequence", &*last)];
    let up_to = up_to.as_deref().map(|seq| ("Nats-UpTo-Sequence", seq));
    reply.send(&headers::build("204 EOB", lines.into_iter().chain(up_to)), b"");
}

fn bytes_max(asked: &Request) -> u64 {
    u64::try_from(asked.max_bytes)
        .ok()
        .filter(|&max| max > 0)
        .unwrap_or(BATCH_BYTES)
}

/// Messages from a sequence on.
fn batch(stream: &Stream, asked: &Request, from: u64, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    let filters: Vec<Box<[u8]>> = match asked.next_by_subj.as_str() {
        "" => Vec::new(),
        filter => vec![filter.as_bytes().into()],
    };
    let wanted = usize::try_from(asked.batch).unwrap_or(usize::MAX);
    let pending = stream.count_from(&filters, from).map_err(|_| NOT_FOUND)?;
    let (found, _) = stream
        .read(from, &filters, wanted, bytes_max(asked))
        .map_err(|_| NOT_FOUND)?;
    send_all(stream, &found, pending, None, asked.no_hdr, NOT_FOUND, reply)
}

/// The last messages of subjects.
fn multi_last(stream: &Stream, asked: &Request, from: u64, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    let filters: Vec<Box<[u8]>> = asked
        .multi_last
        .iter()
        .map(|filter| filter.as_bytes().into())
        .collect();
    let up_to = match time(asked.up_to_time.as_deref())? {
        Some(time) => stream.seq_at(time).map_err(|_| NO_RESULTS)?.saturating_sub(1),
        None if asked.up_to_seq > 0 => asked.up_to_seq,
        None => stream.state().last_seq,
    };
    let mut last = if up_to >= stream.state().last_seq {
        stream.last_of_each(&filters)
    } else {
        stream.last_of_each_upto(&filters, up_to)
    }
    .map_err(|_| NO_RESULTS)?;
    last.retain(|&seq| seq >= from);
    if last.len() > RESULTS_MAX {
        return Err(TOO_MANY);
    }
    let pending = last.len() as u64;
    let wanted = usize::try_from(asked.batch)
        .ok()
        .filter(|&batch| batch > 0)
        .unwrap_or(RESULTS_MAX);
    let mut found = Vec::new();
    let mut bytes = 0;
    for seq in last.into_iter().take(wanted) {
        if bytes >= bytes_max(asked) {
            break;
        }
        if let Some(message) = stream.get(seq).ok().flatten() {
            bytes += message.stored_len();
            found.push(message);
        }
    }
    let up_to = up_to.min(stream.state().last_seq);
    // Headers say which of the subjects a message is: they are sent even when not wanted.
    send_all(stream, &found, pending, Some(up_to), false, NO_RESULTS, reply)
}

fn send_all(
    stream: &Stream,
    found: &[Found],
    mut pending: u64,
    up_to: Option<u64>,
    no_headers: bool,
    none: Refusal,
    reply: &mut Reply<'_>,
) -> Result<(), Refusal> {
    if found.is_empty() {
        return Err(none);
    }
    let mut last = 0;
    for message in found {
        pending = pending.saturating_sub(1);
        let block = if no_headers {
            Vec::new()
        } else {
            described(stream, message, Some((pending, last)))
        };
        reply.send(&block, &message.payload);
        last = message.seq;
    }
    end(pending, last, up_to, reply);
    Ok(())
}
