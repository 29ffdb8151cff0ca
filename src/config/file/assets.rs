//! `streams { NAME { ... } }` and `consumers { STREAM { NAME { ... } } }`: the wire's fields, with times such as "24h".
//!
//! Streams are checked here as the API would; consumers are checked by it when they are applied.

use serde_json::{Map as Json, Value as JsonValue};

use crate::config::Assets;
use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Node, Problem, Value};
use crate::jetstream::stream::config::{FIELDS, StreamConfig};

/// Fields that are nanoseconds on the wire.
const TIMES: [&str; 9] = [
    "max_age",
    "duplicate_window",
    "subject_delete_marker_ttl",
    "ack_wait",
    "backoff",
    "idle_heartbeat",
    "inactive_threshold",
    "max_expires",
    "priority_timeout",
];
/// Fields that are lists on the wire, and may be one value here.
const LISTS: [&str; 2] = ["subjects", "filter_subjects"];

pub(super) fn streams(block: &Entry, assets: &mut Assets, notes: &mut Notes) {
    let Some(map) = block.map(notes) else { return };
    for entry in map.entries() {
        let Some(fields) = entry.map(notes) else { continue };
        for field in fields
            .entries()
            .iter()
            .filter(|field| !FIELDS.contains(&field.key.as_str()))
        {
            notes.unknown(field, FIELDS);
        }
        let Some(mut json) = wire(fields, notes) else {
            continue;
        };
        if let Some(other) = json.get("name").filter(|name| **name != entry.key.as_str()) {
            notes.error(entry, format!("stream {} is called {other} inside", entry.key));
            continue;
        }
        json.insert("name".to_owned(), entry.key.clone().into());
        let read = serde_json::from_value::<StreamConfig>(JsonValue::Object(json));
        let checked = read
            .map_err(|error| error.to_string())
            .and_then(|config| config.for_create(false).map_err(|error| error.to_string()));
        match checked {
            Ok(config) => assets.streams.push(config),
            Err(error) => notes.error(entry, format!("stream {}: {error}", entry.key)),
        }
    }
}

pub(super) fn consumers(block: &Entry, assets: &mut Assets, notes: &mut Notes) {
    let Some(map) = block.map(notes) else { return };
    for stream in map.entries() {
        let Some(list) = stream.map(notes) else { continue };
        for entry in list.entries() {
            let Some(fields) = entry.map(notes) else { continue };
            let Some(mut json) = wire(fields, notes) else {
                continue;
            };
            json.insert("name".to_owned(), entry.key.clone().into());
            json.insert("durable_name".to_owned(), entry.key.clone().into());
            assets.consumers.push((stream.key.clone(), json));
        }
    }
}

/// The fields as the wire has them; none when a time in them is no time.
fn wire(fields: &Map, notes: &mut Notes) -> Option<Json<String, JsonValue>> {
    let mut json = Json::new();
    let mut good = true;
    for field in fields
        .entries()
        .iter()
        .filter(|field| !field.is_variable || FIELDS.contains(&field.key.as_str()))
    {
        let value = if TIMES.contains(&field.key.as_str()) {
            nanoseconds(&field.node, notes)
        } else if LISTS.contains(&field.key.as_str()) && !matches!(field.node.value, Value::Array(_)) {
            Some(vec![field.node.to_json()].into())
        } else {
            Some(field.node.to_json())
        };
        good &= value.is_some();
        json.insert(field.key.clone(), value.unwrap_or_default());
    }
    good.then_some(json)
}

/// Text to nanoseconds; numbers are nanoseconds already.
fn nanoseconds(node: &Node, notes: &mut Notes) -> Option<JsonValue> {
    match &node.value {
        Value::Text(text) => match crate::config::duration(text) {
            Ok(duration) => i64::try_from(duration.as_nanos()).ok().map(JsonValue::from),
            Err(error) => {
                notes.errors.push(Problem::at(&node.spot, error));
                None
            }
        },
        Value::Array(nodes) => nodes.iter().map(|node| nanoseconds(node, notes)).collect(),
        _ => Some(node.to_json()),
    }
}
