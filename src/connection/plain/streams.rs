//! The plain verbs that concern streams, consumers and peers, spoken over the JetStream API subjects.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::protocol::plain::Verb;
use crate::router::{Publisher, Router};

use super::inbox::{Answer, NoAnswer, request};
use super::{Outcome, expected, printable};
use crate::connection::session::PlainLine;

/// How long an API request may take.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one of the verbs.
pub(super) async fn run(router: &Arc<Router>, line: &PlainLine, publisher: &mut Publisher) -> Outcome {
    let words: Vec<&str> = line.arguments.split_whitespace().collect();
    match (line.verb, words.as_slice()) {
        (Verb::Streams, []) => streams(router, publisher).await,
        (Verb::Stream, [name]) => stream(router, publisher, name).await,
        (Verb::Consumers, [stream]) => consumers(router, publisher, stream).await,
        (verb, _) => Err(expected(verb, &line.arguments)),
    }
}

/// One API request; an error object becomes its description.
async fn api(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    subject: &str,
    body: &Value,
) -> Result<Value, String> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let answer = request(
        router,
        publisher,
        &format!("$JS.API.{subject}"),
        &body,
        API_TIMEOUT,
    )
    .await;
    let answer = answer.map_err(|why| match why {
        NoAnswer::NobodyListens => "streams are not enabled on this server".to_owned(),
        NoAnswer::TimedOut => format!("no answer within {} s", API_TIMEOUT.as_secs()),
    })?;
    let value: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| format!("unreadable answer: {error}"))?;
    match value.get("error") {
        Some(error) => Err(error["description"].as_str().unwrap_or("failed").to_owned()),
        None => Ok(value),
    }
}

/// Whether a stream takes messages on `subject`.
pub(super) async fn takes(router: &Arc<Router>, publisher: &mut Publisher, subject: &str) -> bool {
    if !router.has_interest(b"$JS.API.STREAM.NAMES") {
        return false;
    }
    match api(router, publisher, "STREAM.NAMES", &json!({ "subject": subject })).await {
        Ok(answer) => answer["streams"]
            .as_array()
            .is_some_and(|streams| !streams.is_empty()),
        Err(_) => false,
    }
}

/// What SAY answers once a stream has acknowledged.
pub(super) fn acknowledged(answer: &Answer) -> Outcome {
    let value: Value = serde_json::from_slice(&answer.payload)
        .map_err(|_| format!("unexpected acknowledgement: {}", printable(&answer.payload)))?;
    match (
        value["error"]["description"].as_str(),
        value["stream"].as_str(),
        value["seq"].as_u64(),
    ) {
        (Some(error), _, _) => Err(error.to_owned()),
        (None, Some(stream), Some(seq)) => Ok(format!("{stream} {seq}")),
        _ => Err(format!(
            "unexpected acknowledgement: {}",
            printable(&answer.payload)
        )),
    }
}

fn say(publisher: &mut Publisher, line: &str) {
    publisher.own().extend_from_slice(line.as_bytes());
    publisher.own().extend_from_slice(b"\r\n");
}

/// All pages of a list.
async fn list(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    subject: &str,
    field: &str,
) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    loop {
        let page = api(router, publisher, subject, &json!({ "offset": all.len() })).await?;
        let items = page[field].as_array().cloned().unwrap_or_default();
        let total = page["total"].as_u64().unwrap_or_default();
        let ended = items.is_empty();
        all.extend(items);
        if ended || all.len() as u64 >= total {
            return Ok(all);
        }
    }
}

fn stream_line(info: &Value) -> String {
    let (name, state) = (
        info["config"]["name"].as_str().unwrap_or_default(),
        &info["state"],
    );
    let subjects = info["config"]["subjects"]
        .as_array()
        .map_or_else(String::new, |subjects| {
            subjects
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(",")
        });
    format!(
        "{name:<24} {:>12} messages {:>14} bytes  seq {}-{}  {} consumers  {subjects}",
        state["messages"], state["bytes"], state["first_seq"], state["last_seq"], state["consumer_count"],
    )
}

async fn streams(router: &Arc<Router>, publisher: &mut Publisher) -> Outcome {
    let all = list(router, publisher, "STREAM.LIST", "streams").await?;
    for info in &all {
        say(publisher, &stream_line(info));
    }
    Ok(all.len().to_string())
}

async fn stream(router: &Arc<Router>, publisher: &mut Publisher, name: &str) -> Outcome {
    let info = api(router, publisher, &format!("STREAM.INFO.{name}"), &Value::Null).await?;
    say(publisher, &stream_line(&info));
    Ok(String::new())
}

async fn consumers(router: &Arc<Router>, publisher: &mut Publisher, stream: &str) -> Outcome {
    let all = list(router, publisher, &format!("CONSUMER.LIST.{stream}"), "consumers").await?;
    for info in &all {
        let line = format!(
            "{:<24} {:>12} pending {:>8} ack pending {:>8} redelivered  acked to {}",
            info["name"].as_str().unwrap_or_default(),
            info["num_pending"],
            info["num_ack_pending"],
            info["num_redelivered"],
            info["ack_floor"]["stream_seq"],
        );
        say(publisher, &line);
    }
    Ok(all.len().to_string())
}
