//! Messages on the command line: headers given as `K:V`, bodies from arguments or stdin, and how both are shown.

use std::io::{self, IsTerminal, Read};

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Failure, output};

/// Reads `K:V` as a header.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("expected Key:Value, not {text:?}"))?;
    if name.is_empty() {
        return Err(format!(
            "a header has a name before the colon, which {text:?} has not"
        ));
    }
    if text.contains(['\r', '\n', '\0']) {
        return Err(format!("a header is one line of text, which {text:?} is not"));
    }
    let name = name
        .parse::<HeaderName>()
        .map_err(|error| format!("{name:?}: {error}"))?;
    let value = value
        .trim()
        .parse::<HeaderValue>()
        .map_err(|error| format!("{value:?}: {error}"))?;
    Ok((name, value))
}

/// The headers of a message to send.
pub fn headers(pairs: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.clone(), value.clone());
    }
    map
}

/// The body given as an argument; from stdin when that is `-`, or when there is none and stdin is not a terminal.
pub fn body(argument: Option<&str>) -> Result<Bytes, Failure> {
    match argument {
        Some("-") => stdin(),
        Some(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        None if io::stdin().is_terminal() => Ok(Bytes::new()),
        None => stdin(),
    }
}

fn stdin() -> Result<Bytes, Failure> {
    if io::stdin().is_terminal() {
        output::note("Reading payload from stdin, up to an end of file (Ctrl-D)");
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body)?;
    Ok(body.into())
}

/// Header lines as `Key: value`, by name: the map has no order of its own.
pub fn header_lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")))
        .collect();
    lines.sort();
    lines
}

/// Headers as `{"Key": ["value", ...]}`.
pub fn header_json(headers: &HeaderMap) -> Value {
    let mut names: Vec<_> = headers.iter().collect();
    names.sort_by_key(|(name, _)| name.to_string());
    let entries = names.into_iter().map(|(name, values)| {
        let values: Vec<&str> = values.iter().map(HeaderValue::as_str).collect();
        (name.to_string(), json!(values))
    });
    Value::Object(entries.collect())
}

/// Puts a body into a JSON object: as `key` when it is text, else as `data` in base64.
pub fn insert_body(object: &mut Map<String, Value>, key: &str, body: &[u8]) {
    match std::str::from_utf8(body) {
        Ok(text) => object.insert(key.to_owned(), text.into()),
        Err(_) => object.insert("data".to_owned(), BASE64_STANDARD.encode(body).into()),
    };
}

/// A received message as one JSON object.
pub fn message_json(message: &Message) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("subject".to_owned(), message.subject.as_str().into());
    if let Some(reply) = &message.reply {
        object.insert("reply".to_owned(), reply.as_str().into());
    }
    if let Some(headers) = &message.headers {
        object.insert("headers".to_owned(), header_json(headers));
    }
    insert_body(&mut object, "text", &message.payload);
    object
}

/// A payload for a terminal: text as it is, anything else as base64.
pub fn printable(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => BASE64_STANDARD.encode(body),
    }
}

/// Prints headers, a blank line, the body and a blank line; or the body alone.
pub fn print_message(message: &Message, heading: Option<&str>) -> Result<(), Failure> {
    let Some(heading) = heading else {
        let mut raw = message.payload.to_vec();
        raw.push(b'\n');
        return output::write(&raw);
    };
    let mut text = format!("{heading}\n").into_bytes();
    if let Some(headers) = &message.headers {
        for line in header_lines(headers) {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        text.push(b'\n');
    }
    text.extend_from_slice(&message.payload);
    text.extend_from_slice(b"\n\n");
    output::write(&text)
}
