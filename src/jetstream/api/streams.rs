//! `$JS.API.STREAM.>`: create, update, delete, info, names, list, purge, get and delete of messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::jetstream::JetStream;
use crate::jetstream::stream::config::{FIELDS, Storage, StreamConfig};
use crate::jetstream::stream::{Found, Stream, StreamInfo, Want};
use crate::jetstream::time::{parse_rfc3339, rfc3339};
use crate::protocol::info::API_LEVEL;

use super::advisory::{Action, Advisory};
use super::error::{self, ApiError};
use super::request::{expect_empty, parse, parse_optional};
use super::{Answer, clustered, direct};

/// Streams in one answer.
const NAMES_LIMIT: usize = 1024;
const LIST_LIMIT: usize = 256;
/// Subjects in one answer.
const SUBJECTS_LIMIT: usize = 100_000;

type Fields = Result<Map<String, Value>, ApiError>;
type Gate = Result<(), ApiError>;

/// Answers a request on `STREAM.<verb>`; `rest` are the tokens behind the verb.
pub(super) async fn route(
    jetstream: &JetStream,
    gate: Gate,
    verb: &str,
    rest: &[&str],
    body: &[u8],
) -> Answer {
    let paging = json!({"total": 0, "offset": 0, "limit": 0});
    match (verb, rest) {
        ("CREATE", [name]) => {
            let answer = Answer::new("stream_create", create(jetstream, gate, name, body).await);
            answer.advise(advisory(Action::Created, name))
        }
        ("UPDATE", [name]) => {
            let answer = Answer::new("stream_update", update(jetstream, gate, name, body).await);
            answer.advise(advisory(Action::Updated, name))
        }
        ("DELETE", [name]) => {
            let answer = Answer::new("stream_delete", delete(jetstream, gate, name, body).await);
            answer.advise(advisory(Action::Deleted, name))
        }
        ("INFO", [name]) => {
            Answer::new("stream_info", info(jetstream, gate, name, body).await).beside_error(paging)
        }
        ("NAMES", []) => {
            let beside = json!({"total": 0, "offset": 0, "limit": 0, "streams": null});
            Answer::new("stream_names", names(jetstream, gate, body)).beside_error(beside)
        }
        ("LIST", []) => {
            let beside = json!({"total": 0, "offset": 0, "limit": 0, "streams": []});
            Answer::new("stream_list", list(jetstream, gate, body)).beside_error(beside)
        }
        ("PURGE", [name]) => {
            let outcome = purge(jetstream, gate, name, body).await;
            Answer::new("stream_purge", outcome).beside_error(json!({"purged": 0}))
        }
        ("MSG", ["GET", name]) => Answer::new("stream_msg_get", get(jetstream, gate, name, body).await),
        ("MSG", ["DELETE", name]) => Answer::new(
            "stream_msg_delete",
            delete_message(jetstream, gate, name, body).await,
        ),
        ("SNAPSHOT", [_]) => {
            let refused = error::SNAPSHOT_FAILED.with("not supported by this server");
            Answer::new("stream_snapshot", Err(refused))
        }
        ("RESTORE", [_]) => {
            let refused = error::RESTORE_FAILED.with("not supported by this server");
            Answer::new("stream_restore", Err(refused)).beside_error(json!({"deliver_subject": ""}))
        }
        ("LEADER", ["STEPDOWN", _]) => clustered("stream_leader_stepdown"),
        ("PEER", ["REMOVE", _]) => clustered("stream_remove_peer"),
        _ => Answer::new("system", Err(error::BAD_REQUEST)),
    }
}

fn advisory(action: Action, stream: &str) -> Advisory {
    Advisory {
        action,
        stream: stream.to_owned(),
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("built as an object"),
    }
}

/// A stream as an answer shows it.
fn shown(jetstream: &JetStream, mut info: StreamInfo) -> Map<String, Value> {
    info.config = info.config.shown(&jetstream.options.version, API_LEVEL);
    info.domain.clone_from(&jetstream.options.domain);
    object(serde_json::to_value(info).expect("plain fields serialise"))
}

/// The configuration asked for, and whether nothing may be adjusted silently.
fn asked(jetstream: &JetStream, name: &str, body: &[u8]) -> Result<(StreamConfig, bool), ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Mode {
        pedantic: bool,
    }
    if body.is_empty() {
        return Err(error::STREAM_NAME_MISMATCH);
    }
    let strict = jetstream.options.strict;
    let mut config: StreamConfig = parse(body, FIELDS, strict)?;
    let mode: Mode = parse(body, FIELDS, strict)?;
    if i32::try_from(config.max_msg_size).is_err() {
        return Err(error::INVALID_JSON.with("max_msg_size is beyond 32 bits"));
    }
    if let Some(placement) = config.placement.take() {
        config.placement = placed(placement, strict)?;
    }
    if config.name != name {
        return Err(error::STREAM_NAME_MISMATCH);
    }
    Ok((config, mode.pedantic))
}

/// Where a stream is asked to be, without what says nothing: kept and shown, there is one server.
fn placed(asked: Value, strict: bool) -> Result<Option<Value>, ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Placement {
        cluster: String,
        tags: Vec<String>,
        preferred: String,
    }
    let body = asked.to_string();
    let asked: Placement = parse(body.as_bytes(), &["cluster", "tags", "preferred"], strict)?;
    if !asked.preferred.is_empty() {
        return Err(error::STREAM_INVALID_CONFIG.with("preferred server not permitted in placement"));
    }
    let mut fields = Map::new();
    if !asked.cluster.is_empty() {
        fields.insert("cluster".to_owned(), asked.cluster.into());
    }
    if !asked.tags.is_empty() {
        fields.insert("tags".to_owned(), asked.tags.into());
    }
    Ok((!fields.is_empty()).then_some(Value::Object(fields)))
}

async fn create(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    gate?;
    let (config, pedantic) = asked(jetstream, name, body)?;
    let stream = jetstream.create(config, pedantic).await?;
    let mut fields = shown(jetstream, stream.info());
    fields.insert("did_create".to_owned(), true.into());
    Ok(fields)
}

async fn update(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    gate?;
    let (config, pedantic) = asked(jetstream, name, body)?;
    let stream = jetstream.update(config, pedantic).await?;
    Ok(shown(jetstream, stream.info()))
}

async fn delete(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    gate?;
    expect_empty(body)?;
    jetstream.delete(name).await?;
    Ok(object(json!({"success": true})))
}

/// A page: where it begins within `total`.
pub(super) fn page(total: usize, offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(0).min(total)
}

async fn info(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        deleted_details: bool,
        subjects_filter: String,
        offset: i64,
    }
    gate?;
    let fields = ["deleted_details", "subjects_filter", "offset"];
    let request: Request = parse_optional(body, &fields, jetstream.options.strict)?;
    let stream = jetstream.find(name)?;
    let mut info = stream.info();
    info.leader = Some(jetstream.options.server_name.clone());
    let (mut total, mut offset, mut limit) = (0, 0, 0);
    if !request.subjects_filter.is_empty() {
        let filter = request.subjects_filter.into_bytes();
        let mut subjects = stream.aside(move |stream| stream.subjects(&filter)).await?;
        if !subjects.is_empty() {
            total = subjects.len();
            // Said again as it was asked for, even beyond the end.
            offset = request.offset.max(0);
            limit = SUBJECTS_LIMIT;
            info.subjects = subjects.drain(page(total, offset)..).take(limit).collect();
        }
    }
    if request.deleted_details {
        info.deleted = stream.aside(Stream::deleted).await??;
    }
    let mut all = object(json!({"total": total, "offset": offset, "limit": limit}));
    let is_file = info.config.storage == Storage::File;
    all.extend(shown(jetstream, info));
    if let (Some(store), true) = (&jetstream.options.store, is_file) {
        // Ours beyond the reference server's: when what it acknowledges is on the disk.
        all.insert("sync".to_owned(), store.sync().to_string().into());
    }
    Ok(all)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listing {
    offset: i64,
    subject: String,
}

impl Listing {
    fn read(jetstream: &JetStream, body: &[u8]) -> Result<Self, ApiError> {
        parse_optional(body, &["offset", "subject"], jetstream.options.strict)
    }

    fn names(&self, jetstream: &JetStream) -> Vec<String> {
        jetstream.names((!self.subject.is_empty()).then_some(&self.subject))
    }
}

fn names(jetstream: &JetStream, gate: Gate, body: &[u8]) -> Fields {
    gate?;
    let request = Listing::read(jetstream, body)?;
    let names = request.names(jetstream);
    let offset = page(names.len(), request.offset);
    let shown = &names[offset..names.len().min(offset + NAMES_LIMIT)];
    // Upstream answers null for none; clients expect either.
    let streams = if shown.is_empty() {
        Value::Null
    } else {
        json!(shown)
    };
    Ok(object(json!({
        "total": names.len(), "offset": offset, "limit": NAMES_LIMIT, "streams": streams,
    })))
}

fn list(jetstream: &JetStream, gate: Gate, body: &[u8]) -> Fields {
    gate?;
    let request = Listing::read(jetstream, body)?;
    let names = request.names(jetstream);
    let offset = page(names.len(), request.offset);
    let shown = names[offset..].iter().take(LIST_LIMIT);
    let streams: Vec<_> = shown
        .filter_map(|name| jetstream.stream(name))
        .map(|stream| {
            let mut info = stream.info();
            info.domain.clone_from(&jetstream.options.domain);
            info
        })
        .collect();
    let mut page = object(json!({
        "total": names.len(), "offset": offset, "limit": LIST_LIMIT, "streams": streams,
    }));
    // As upstream tells of streams it does not serve.
    let offline = jetstream.offline();
    let named = offline
        .iter()
        .filter_map(|stream| Some((stream.name.clone()?, Value::from(stream.why.clone()))));
    let named: Map<String, Value> = named.collect();
    if !named.is_empty() {
        page.insert("offline".to_owned(), named.into());
    }
    Ok(page)
}

async fn purge(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        filter: String,
        seq: u64,
        keep: u64,
    }
    gate?;
    let fields = ["filter", "seq", "keep"];
    let request: Request = parse_optional(body, &fields, jetstream.options.strict)?;
    if request.seq > 0 && request.keep > 0 {
        return Err(error::BAD_REQUEST);
    }
    let stream = jetstream.find(name)?;
    let purged = stream
        .purge(request.filter.as_bytes(), request.seq, request.keep)
        .await?;
    Ok(object(json!({"success": true, "purged": purged})))
}

async fn get(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        seq: u64,
        last_by_subj: String,
        next_by_subj: String,
        start_time: Option<String>,
        no_hdr: bool,
        batch: i64,
        max_bytes: i64,
        multi_last: Vec<String>,
        #[serde(rename = "up_to_seq")]
        _up_to_seq: u64,
        up_to_time: Option<String>,
    }
    gate?;
    if body.is_empty() {
        return Err(error::BAD_REQUEST);
    }
    let request: Request = parse(body, &direct::FIELDS, jetstream.options.strict)?;
    let (seq, last, next) = (request.seq, request.last_by_subj, request.next_by_subj);
    let time = |name, text: Option<&String>| match text.map(|text| parse_rfc3339(text)) {
        Some(None) => Err(error::INVALID_JSON.with(format_args!("{name} is no time"))),
        time => Ok(time.flatten()),
    };
    let start = time("start_time", request.start_time.as_ref())?;
    time("up_to_time", request.up_to_time.as_ref())?;
    // Many messages are for direct gets.
    let many = request.batch != 0 || request.max_bytes != 0 || !request.multi_last.is_empty();
    let nothing = seq == 0 && last.is_empty() && next.is_empty() && start.is_none();
    let too_much = (seq > 0 && !last.is_empty())
        || (!last.is_empty() && (!next.is_empty() || start.is_some()))
        || (seq > 0 && start.is_some());
    if nothing || too_much || many {
        return Err(error::BAD_REQUEST);
    }
    let stream = jetstream.find(name)?;
    let want = if !last.is_empty() {
        Want::Last(last.into_bytes())
    } else if let Some(time) = start {
        stream.settled().await;
        let filter = if next.is_empty() {
            b">".to_vec()
        } else {
            next.into_bytes()
        };
        Want::Next(stream.seq_at(time)?, filter)
    } else if !next.is_empty() {
        Want::Next(seq, next.into_bytes())
    } else {
        Want::Seq(seq)
    };
    let found = stream.find(&want).await?.ok_or(error::NO_MESSAGE_FOUND)?;
    Ok(object(json!({"message": message(&found, request.no_hdr)})))
}

/// A message as `MSG.GET` shows it; empty parts are left out.
fn message(found: &Found, no_headers: bool) -> Value {
    let mut fields = Map::new();
    let subject = String::from_utf8_lossy(&found.subject).into_owned();
    fields.insert("subject".to_owned(), subject.into());
    fields.insert("seq".to_owned(), found.seq.into());
    if !found.headers.is_empty() && !no_headers {
        fields.insert("hdrs".to_owned(), STANDARD.encode(&found.headers).into());
    }
    if !found.payload.is_empty() {
        fields.insert("data".to_owned(), STANDARD.encode(&found.payload).into());
    }
    fields.insert("time".to_owned(), rfc3339(found.time_ns).into());
    Value::Object(fields)
}

async fn delete_message(jetstream: &JetStream, gate: Gate, name: &str, body: &[u8]) -> Fields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        seq: u64,
        #[serde(rename = "no_erase")]
        _no_erase: bool,
    }
    gate?;
    if expect_empty(body).is_ok() {
        return Err(error::BAD_REQUEST);
    }
    let request: Request = parse(body, &["seq", "no_erase"], jetstream.options.strict)?;
    let stream = jetstream.find(name)?;
    stream.delete(request.seq).await?;
    Ok(object(json!({"success": true})))
}
