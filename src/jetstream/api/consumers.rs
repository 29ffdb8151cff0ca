//! `$JS.API.CONSUMER.>`: create, info, names, list, delete, pause, reset; and the pull requests, which have no answer of
//! their own.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::jetstream::JetStream;
use crate::jetstream::consumer::config::{CreateRequest, WireTime};
use crate::jetstream::delivery::{ConsumerInfo, Consumers, Driver};
use crate::jetstream::time::now_ns;
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::info::API_LEVEL;
use crate::router::Publisher;

use super::error::{self, ApiError};
use super::request::{expect_empty, parse_optional};
use super::streams::{object, page};
use super::{Answer, clustered};

/// Consumers in one answer.
const NAMES_LIMIT: usize = 1024;
const LIST_LIMIT: usize = 256;
/// What the wire shows where there is no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

type Fields = Result<Map<String, Value>, ApiError>;
type Gate = Result<(), ApiError>;

/// Answers a request on `CONSUMER.<tail>`; `tokens` are those of the tail.
pub(super) async fn route(
    jetstream: &JetStream,
    gate: Gate,
    tail: &str,
    tokens: &[&str],
    body: &[u8],
) -> Answer {
    let empty = json!({"total": 0, "offset": 0, "limit": 0, "consumers": []});
    match *tokens {
        ["CREATE", _, ..] | ["DURABLE", "CREATE", _, _] => {
            Answer::new("consumer_create", create(jetstream, gate, tail, body).await)
        }
        ["INFO", stream, consumer] => {
            Answer::new("consumer_info", info(jetstream, gate, stream, consumer, body))
        }
        ["NAMES", stream] => {
            Answer::new("consumer_names", names(jetstream, gate, stream, body)).beside_error(empty)
        }
        ["LIST", stream] => {
            Answer::new("consumer_list", list(jetstream, gate, stream, body)).beside_error(empty)
        }
        ["DELETE", stream, consumer] => Answer::new(
            "consumer_delete",
            delete(jetstream, gate, stream, consumer, body).await,
        ),
        ["PAUSE", stream, consumer] => {
            let outcome = pause(jetstream, gate, stream, consumer, body).await;
            let beside = json!({"paused": false, "pause_until": NO_TIME});
            Answer::new("consumer_pause", outcome).beside_error(beside)
        }
        ["RESET", stream, consumer] => {
            let outcome = reset(jetstream, gate, stream, consumer, body).await;
            Answer::new("consumer_reset", outcome).beside_error(json!({"reset_seq": 0}))
        }
        ["UNPIN", stream, consumer] => {
            Answer::new("consumer_unpin", unpin(jetstream, gate, stream, consumer, body))
        }
        ["LEADER", "STEPDOWN", _, _] => clustered("consumer_leader_stepdown"),
        _ => Answer::new("system", Err(error::BAD_REQUEST)),
    }
}

/// A pull request, if this is one: handed to its consumer. Called by the connection that publishes it.
pub(super) fn hand_pull(jetstream: &JetStream, request: &Message<'_>, rest: &[u8]) {
    let mut tokens = rest.split(|&byte| byte == b'.').map(std::str::from_utf8);
    let driver = match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(Ok(stream)), Some(Ok(consumer)), None) => jetstream
            .consumers(stream)
            .and_then(|consumers| consumers.get(consumer)),
        _ => None,
    };
    if !driver.is_some_and(|driver| driver.pull(request)) {
        nobody(jetstream, request);
    }
}

/// There is no such consumer: what a client hears of a subject that nobody listens on.
fn nobody(jetstream: &JetStream, request: &Message<'_>) {
    if request.reply.is_empty() {
        return;
    }
    let subject = String::from_utf8_lossy(request.subject);
    let block = headers::build("503", [("Nats-Subject", &*subject)]);
    let message = Message {
        subject: request.reply,
        headers: &block,
        ..Message::default()
    };
    let mut publisher = Publisher::of_answers(jetstream.router().clone());
    publisher.publish(&message, None);
    publisher.flush();
}

fn consumers(jetstream: &JetStream, stream: &str) -> Result<Arc<Consumers>, ApiError> {
    jetstream
        .consumers(stream)
        .ok_or_else(|| jetstream.no_stream(stream))
}

fn find(
    jetstream: &JetStream,
    stream: &str,
    consumer: &str,
) -> Result<(Arc<Consumers>, Arc<Driver>), ApiError> {
    let consumers = consumers(jetstream, stream)?;
    let driver = consumers.get(consumer).ok_or(error::CONSUMER_NOT_FOUND)?;
    Ok((consumers, driver))
}

/// A consumer as an answer shows it.
fn shown(jetstream: &JetStream, mut info: ConsumerInfo) -> Map<String, Value> {
    let metadata = &mut info.config.metadata;
    metadata.insert("_nats.level".to_owned(), API_LEVEL.to_string());
    metadata.insert("_nats.ver".to_owned(), jetstream.options.version.clone());
    object(serde_json::to_value(info).expect("plain fields serialise"))
}

async fn create(jetstream: &JetStream, gate: Gate, tail: &str, body: &[u8]) -> Fields {
    gate?;
    let request = CreateRequest::parse(tail, body, jetstream.options.strict)?;
    let consumers = consumers(jetstream, &request.stream)?;
    let made = consumers.create(request, jetstream.has_consumer_room()).await?;
    Ok(shown(jetstream, made.driver.info()))
}

fn info(jetstream: &JetStream, gate: Gate, stream: &str, consumer: &str, body: &[u8]) -> Fields {
    gate?;
    expect_empty(body)?;
    let (_, driver) = find(jetstream, stream, consumer)?;
    Ok(shown(jetstream, driver.info()))
}

/// Where a listing is to begin, and the consumers of the stream.
fn listing(
    jetstream: &JetStream,
    gate: Gate,
    stream: &str,
    body: &[u8],
) -> Result<(usize, Vec<Arc<Driver>>), ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        offset: i64,
    }
    gate?;
    let request: Request = parse_optional(body, &["offset"], jetstream.options.strict)?;
    let all = consumers(jetstream, stream)?.all();
    Ok((page(all.len(), request.offset), all))
}

fn names(jetstream: &JetStream, gate: Gate, stream: &str, body: &[u8]) -> Fields {
    let (offset, all) = listing(jetstream, gate, stream, body)?;
    let page = all[offset..].iter().take(NAMES_LIMIT);
    let names: Vec<_> = page.map(|driver| driver.name()).collect();
    Ok(object(json!({
        "total": all.len(), "offset": offset, "limit": NAMES_LIMIT, "consumers": names,
    })))
}

fn list(jetstream: &JetStream, gate: Gate, stream: &str, body: &[u8]) -> Fields {
    let (offset, all) = listing(jetstream, gate, stream, body)?;
    let page = all[offset..].iter().take(LIST_LIMIT);
    let infos: Vec<_> = page.map(|driver| driver.info()).collect();
    Ok(object(json!({
        "total": all.len(), "offset": offset, "limit": LIST_LIMIT, "consumers": infos,
    })))
}

async fn delete(jetstream: &JetStream, gate: Gate, stream: &str, consumer: &str, body: &[u8]) -> Fields {
    gate?;
    expect_empty(body)?;
    consumers(jetstream, stream)?.delete(consumer).await?;
    Ok(object(json!({"success": true})))
}

async fn pause(jetstream: &JetStream, gate: Gate, stream: &str, consumer: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        pause_until: Option<WireTime>,
    }
    gate?;
    let request: Request = parse_optional(body, &["pause_until"], jetstream.options.strict)?;
    let (consumers, driver) = find(jetstream, stream, consumer)?;
    consumers.pause(&driver, request.pause_until).await?;
    let now = now_ns();
    let until = request.pause_until;
    let mut fields = object(json!({
        "paused": false,
        "pause_until": until.map_or(NO_TIME.to_owned(), |until| until.to_string()),
    }));
    if let Some(until) = until.filter(|until| until.unix_nanos() > now) {
        fields.insert("paused".to_owned(), true.into());
        fields.insert("pause_remaining".to_owned(), (until.unix_nanos() - now).into());
    }
    Ok(fields)
}

async fn reset(jetstream: &JetStream, gate: Gate, stream: &str, consumer: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        seq: u64,
    }
    gate?;
    let request: Request = match body.trim_ascii() {
        b"" => Request::default(),
        body => super::request::parse(body, &["seq"], jetstream.options.strict)?,
    };
    let (consumers, driver) = find(jetstream, stream, consumer)?;
    let at = consumers.reset(&driver, request.seq).await?;
    let mut fields = shown(jetstream, driver.info());
    fields.insert("reset_seq".to_owned(), at.into());
    Ok(fields)
}

/// Priority groups are refused at creation: no consumer has one to unpin.
fn unpin(jetstream: &JetStream, gate: Gate, stream: &str, consumer: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        #[serde(rename = "group")]
        _group: String,
    }
    gate?;
    let _: Request = super::request::parse(body, &["group"], jetstream.options.strict)?;
    find(jetstream, stream, consumer)?;
    Err(error::CONSUMER_INVALID_PRIORITY_GROUP)
}
