//! The JetStream API as loose JSON: what a newer server adds to an answer is shown, not lost.

use std::time::Duration;

use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::context::Connection;
use super::{Context, Failure, units};

/// A stream was found to be configured in another way.
const STREAM_NAME_IN_USE: u64 = 10058;
/// An expected last sequence was not the last: someone else was faster.
pub const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// A connection that speaks to `$JS.API`.
pub struct Api {
    connection: Connection,
    timeout: Duration,
}

impl Api {
    /// Connects to the server of the context.
    pub async fn connect(context: &Context) -> Result<Self, Failure> {
        Ok(Self {
            connection: context.open().await?,
            timeout: context.timeout,
        })
    }

    /// The connection below.
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// The client library's own view, for key-value and object stores.
    pub fn jetstream(&self) -> async_nats::jetstream::Context {
        let mut context = async_nats::jetstream::new(self.client().clone());
        context.set_timeout(self.timeout);
        context
    }

    /// Calls one endpoint, `STREAM.INFO.ORDERS` say, and turns an API error into a failure.
    pub async fn call(&self, endpoint: &str, body: &Value) -> Result<Value, Failure> {
        let payload = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let subject = format!("$JS.API.{endpoint}");
        let answer = self
            .client()
            .request(subject, payload)
            .await
            .map_err(|error| self.unanswered(error.kind(), endpoint))?;
        read(&answer.payload)
    }

    /// Collects every page of a list endpoint.
    pub async fn list(
        &self,
        endpoint: &str,
        key: &str,
        mut body: Map<String, Value>,
    ) -> Result<Vec<Value>, Failure> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            body.insert("offset".to_owned(), all.len().into());
            let mut answer = self.call(endpoint, &Value::Object(body.clone())).await?;
            let page = match answer.get_mut(key).map(Value::take) {
                Some(Value::Array(page)) => page,
                _ => Vec::new(),
            };
            let total = count(&answer, "/total");
            let empty = page.is_empty();
            all.extend(page);
            if empty || all.len() as u64 >= total {
                return Ok(all);
            }
        }
    }

    /// Every stream, or those that hold `subject`, by name.
    pub async fn streams(&self, subject: Option<&str>) -> Result<Vec<Value>, Failure> {
        let mut body = Map::new();
        if let Some(subject) = subject {
            body.insert("subject".to_owned(), subject.into());
        }
        let mut streams = self.list("STREAM.LIST", "streams", body).await?;
        streams.sort_by(|a, b| text(a, "/config/name").cmp(text(b, "/config/name")));
        Ok(streams)
    }

    /// One stream.
    pub async fn stream(&self, name: &str) -> Result<Value, Failure> {
        let name = token("stream", name)?;
        self.call(&format!("STREAM.INFO.{name}"), &Value::Null).await
    }

    /// One consumer.
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<Value, Failure> {
        let (stream, name) = (token("stream", stream)?, token("consumer", name)?);
        self.call(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null)
            .await
    }

    /// One stored message, `{"seq": 7}` or `{"last_by_subj": "a.b"}`.
    pub async fn message(&self, stream: &str, query: &Value) -> Result<Value, Failure> {
        let stream = token("stream", stream)?;
        let mut answer = self.call(&format!("STREAM.MSG.GET.{stream}"), query).await?;
        Ok(answer.get_mut("message").map_or(Value::Null, Value::take))
    }

    fn unanswered(&self, kind: RequestErrorKind, what: &str) -> Failure {
        match kind {
            RequestErrorKind::NoResponders => Failure::unhealthy("JetStream is not enabled on this server")
                .hint("start `mesh serve`, or nats-server with -js"),
            RequestErrorKind::TimedOut => self.connection.refusal().unwrap_or_else(|| {
                let timeout = units::show_duration(self.timeout);
                Failure::unhealthy(format!("no answer to {what} within {timeout}"))
                    .hint("is the server well? wait longer with --timeout")
            }),
            RequestErrorKind::MaxPayloadExceeded => Failure::usage(format!(
                "larger than the {} the server takes",
                units::show_bytes(self.client().max_payload() as u64)
            )),
            RequestErrorKind::InvalidSubject => Failure::usage(format!("not a subject: {what:?}")),
            RequestErrorKind::Other => Failure::failed(format!("could not ask {what}")),
        }
    }
}

/// Reads an answer: an API error becomes a failure.
pub fn read(payload: &[u8]) -> Result<Value, Failure> {
    let answer: Value = serde_json::from_slice(payload).map_err(|error| {
        Failure::failed(format!("the answer is not JSON: {error}"))
            .hint("a stream's ack was expected: does something else listen there?")
    })?;
    match answer.get("error") {
        Some(error) => Err(refusal(error)),
        None => Ok(answer),
    }
}

/// The failure an API error stands for: exit code by cause, and what to try.
fn refusal(error: &Value) -> Failure {
    let code = count(error, "/err_code");
    let what = match code {
        0 => text(error, "/description").to_owned(),
        code => format!("{} ({code})", text(error, "/description")),
    };
    match (count(error, "/code"), code) {
        (_, 10059) => Failure::not_found(what).hint("`mesh stream ls` shows the streams"),
        (_, 10014) => Failure::not_found(what).hint("`mesh consumer ls STREAM` shows the consumers"),
        (_, 10037 | 10043) => {
            Failure::not_found(what).hint("`mesh stream info STREAM` shows its first and last sequence")
        }
        (404, _) => Failure::not_found(what),
        (_, STREAM_NAME_IN_USE) => {
            Failure::conflict(what).hint("`mesh stream edit` changes the one there is")
        }
        (_, 10065) => Failure::conflict(what).hint("`mesh stream ls --subject SUBJECT` shows which"),
        (_, 10013 | 10105 | 10148) => Failure::conflict(what)
            .hint("`mesh consumer edit` changes the one there is, `mesh consumer rm` removes it"),
        (_, code) if WRONG_LAST_SEQUENCE.contains(&code) => {
            Failure::conflict(what).hint("someone wrote in between: read again, then retry")
        }
        (_, 10070) => Failure::conflict(what),
        (503, _) => Failure::unhealthy(what),
        _ => Failure::failed(what),
    }
}

/// Checks a name before it becomes part of a subject.
pub fn token<'a>(kind: &str, name: &'a str) -> Result<&'a str, Failure> {
    match name.is_empty() || name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
        true => Err(Failure::usage(format!("not a {kind} name: {name:?}"))
            .hint("a name has no blanks and none of . * > / \\")),
        false => Ok(name),
    }
}

/// Reads a configuration file: the bare configuration, or an info document around it.
pub fn config_file(path: &std::path::Path) -> Result<Map<String, Value>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found(format!("{shown}: no such file")),
        _ => Failure::failed(format!("{shown}: {error}")),
    })?;
    let mut value: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{shown} is not JSON: {error}")))?;
    if let Some(inner) = value.get_mut("config").filter(|inner| inner.is_object()) {
        value = inner.take();
    }
    match value {
        Value::Object(config) => Ok(config),
        _ => Err(Failure::usage(format!("{shown}: expected a JSON object"))),
    }
}

/// `key=value` pairs as a JSON object of strings.
pub fn metadata(pairs: &[(String, String)]) -> Value {
    let pairs = pairs.iter().map(|(key, value)| (key.clone(), json!(value)));
    Value::Object(pairs.collect())
}

/// Reads `key=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected key=value, not {text:?}")),
    }
}

/// The string at a JSON pointer, or "".
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The count at a JSON pointer, or 0.
pub fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// The number at a JSON pointer, or 0.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The flag at a JSON pointer, or false.
pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The strings of the array at a JSON pointer.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let array = value.pointer(pointer).and_then(Value::as_array);
    array.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The time at a JSON pointer; none when absent or the zero time of the wire.
pub fn time(value: &Value, pointer: &str) -> Option<Timestamp> {
    let time: Timestamp = text(value, pointer).parse().ok()?;
    (time.as_second() > -62_135_596_800).then_some(time)
}

/// The nanoseconds at a JSON pointer as a duration.
pub fn duration(value: &Value, pointer: &str) -> Duration {
    Duration::from_nanos(count(value, pointer))
}
