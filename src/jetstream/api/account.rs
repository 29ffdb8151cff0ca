//! What the account may use and uses.

use serde_json::{Map, Value, json};

use crate::jetstream::JetStream;
use crate::protocol::info::API_LEVEL;

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
