//! What the account may use and uses.

use serde_json::{Map, Value, json};

use crate::jetstream::JetStream;
use crate::protocol::info::API_LEVEL;

/// `INFO`.
pub(super) fn info(jetstream: &JetStream) -> Map<String, Value> {
    let sums = jetstream.snapshot();
    let limits = jetstream.limits();
    let mut info = json!({
        "memory": sums.memory,
        "storage": sums.storage,
        "reserved_memory": sums.reserved_memory,
        "reserved_storage": sums.reserved_storage,
        "streams": sums.streams,
        "consumers": sums.consumers,
        "limits": {
            "max_memory": limits.memory,
            "max_storage": limits.storage,
            "max_streams": limits.streams,
            "max_consumers": limits.consumers,
            "max_ack_pending": limits.ack_pending,
            "memory_max_stream_bytes": limits.memory_stream,
            "storage_max_stream_bytes": limits.storage_stream,
            "max_bytes_required": limits.bytes_required,
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
