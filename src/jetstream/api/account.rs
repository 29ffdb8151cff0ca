//! What the account may use and uses.

use serde_json::{Map, Value, json};

use crate::jetstream::JetStream;
use crate::protocol::info::API_LEVEL;

use super::{Answer, error};

/// `INFO`.
pub(super) fn info(jetstream: &JetStream) -> Map<String, Value> {
    let sums = jetstream.snapshot();
    let limits = jetstream.options.limits;
    let mut info = json!({
        "memory": sums.memory,
        "storage": sums.storage,
        "reserved_memory": sums.reserved_memory,
        "reserved_storage": sums.reserved_storage,
        "streams": sums.streams,
        "consumers": sums.consumers,
        "limits": {
            "max_memory": -1,
            "max_storage": -1,
            "max_streams": limits.streams_max,
            "max_consumers": limits.consumers_max,
            "max_ack_pending": -1,
            "memory_max_stream_bytes": -1,
            "storage_max_stream_bytes": -1,
            "max_bytes_required": false,
        },
    });
    if let Some(domain) = &jetstream.options.domain {
        info["domain"] = domain.as_str().into();
    }
    info["api"] = json!({"level": API_LEVEL, "total": sums.api_total, "errors": sums.api_errors});
    match info {
        Value::Object(fields) => fields,
        _ => unreachable!("built as an object"),
    }
}

/// What a server without consumers says of them.
pub(super) fn without_consumers(jetstream: &JetStream, tokens: &[&str]) -> Answer {
    let known = |stream: &str| jetstream.stream(stream).ok_or(error::STREAM_NOT_FOUND);
    let empty = json!({"total": 0, "offset": 0, "limit": 0, "consumers": []});
    let fields = |limit: u64| {
        let mut fields = Map::new();
        fields.insert("total".to_owned(), 0.into());
        fields.insert("offset".to_owned(), 0.into());
        fields.insert("limit".to_owned(), limit.into());
        fields.insert("consumers".to_owned(), Value::Array(Vec::new()));
        fields
    };
    match *tokens {
        ["NAMES", stream] => {
            Answer::new("consumer_names", known(stream).map(|_| fields(1024))).beside_error(empty)
        }
        ["LIST", stream] => {
            Answer::new("consumer_list", known(stream).map(|_| fields(256))).beside_error(empty)
        }
        ["INFO", stream, _] => {
            let missing = known(stream).and(Err(error::CONSUMER_NOT_FOUND));
            Answer::new("consumer_info", missing)
        }
        ["DELETE", stream, _] => {
            let missing = known(stream).and(Err(error::CONSUMER_NOT_FOUND));
            Answer::new("consumer_delete", missing)
        }
        ["LEADER", "STEPDOWN", _, _] => super::clustered("consumer_leader_stepdown"),
        ["CREATE" | "DURABLE", ..] => {
            let refused = error::CONSUMER_CREATE.with("consumers are not supported by this server");
            Answer::new("consumer_create", Err(refused))
        }
        _ => Answer::new("system", Err(error::BAD_REQUEST)),
    }
}
