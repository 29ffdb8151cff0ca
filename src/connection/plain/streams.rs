//! The plain verbs that concern streams, consumers and peers, spoken over the JetStream API subjects.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::protocol::encode::Message;
use crate::protocol::plain::Verb;
use crate::protocol::subject;
use crate::router::{Publisher, Router};

use super::inbox::{Answer, Inbox, NoAnswer, request};
use super::{Outcome, expected, printable};
use crate::connection::session::PlainLine;

/// How long an API request may take.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that one NEXT may take.
const NEXT_MAX: usize = 1000;

/// Runs one of the verbs.
pub(super) async fn run(router: &Arc<Router>, line: &PlainLine, publisher: &mut Publisher) -> Outcome {
    let words: Vec<&str> = line.arguments.split_whitespace().collect();
    let names = match line.verb {
        Verb::Stream | Verb::Consumers | Verb::Replay => 1,
        Verb::Next | Verb::Ack | Verb::Nak | Verb::Term => 2,
        _ => 0,
    };
    if !words.iter().take(names).all(|name| is_name(name)) {
        return Err(expected(line.verb, &line.arguments));
    }
    match (line.verb, words.as_slice()) {
        (Verb::Streams, []) => streams(router, publisher).await,
        (Verb::Stream, [name]) => stream(router, publisher, name).await,
        (Verb::Consumers, [stream]) => consumers(router, publisher, stream).await,
        (Verb::Peers, []) => peers(router, publisher).await,
        (Verb::Replay, [stream, rest @ ..]) => {
            let what = Replay::parse(rest).ok_or_else(|| expected(Verb::Replay, &line.arguments))?;
            replay(router, publisher, stream, &what).await
        }
        (Verb::Next, [stream, consumer, rest @ ..]) => {
            let count = match rest {
                [] => Some(1),
                [count] => count.parse().ok().filter(|count| (1..=NEXT_MAX).contains(count)),
                _ => None,
            };
            let count = count.ok_or_else(|| expected(Verb::Next, &line.arguments))?;
            next(router, publisher, stream, consumer, count).await
        }
        (verb @ (Verb::Ack | Verb::Nak | Verb::Term), [stream, consumer, seq]) => {
            let seq = seq.parse().map_err(|_| expected(verb, &line.arguments))?;
            settle(router, publisher, verb, (stream, consumer), seq).await
        }
        (verb, _) => Err(expected(verb, &line.arguments)),
    }
}

/// Whether a word can be the name of a stream or consumer: one token of a subject.
fn is_name(word: &str) -> bool {
    subject::is_subject(word.as_bytes()) && !word.contains('.')
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
        NoAnswer::Denied => format!("Permissions Violation for Publish to \"$JS.API.{subject}\""),
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

/// The instances in the mesh's presence bucket.
async fn peers(router: &Arc<Router>, publisher: &mut Publisher) -> Outcome {
    const NONE: &str = "0";
    let info = api(
        router,
        publisher,
        "STREAM.INFO.KV_PEERS",
        &json!({ "subjects_filter": ">" }),
    )
    .await;
    let Ok(info) = info else {
        return Ok(NONE.to_owned());
    };
    let subjects: Vec<String> = info["state"]["subjects"]
        .as_object()
        .map_or_else(Vec::new, |all| all.keys().cloned().collect());
    let mut count = 0;
    for subject in subjects {
        let get = json!({ "last_by_subj": subject });
        let Ok(found) = api(router, publisher, "STREAM.MSG.GET.KV_PEERS", &get).await else {
            continue;
        };
        let Ok(peer) = serde_json::from_slice::<Value>(&payload(&found["message"])) else {
            continue;
        };
        let text = |field: &str| peer[field].as_str().unwrap_or("-").to_owned();
        let line = format!(
            "{:<24} {:<24} {:<20} since {}",
            text("instance"),
            text("session"),
            text("host"),
            text("since")
        );
        say(publisher, &printable(line.as_bytes()));
        count += 1;
    }
    Ok(count.to_string())
}

/// The payload of a message object of the API.
fn payload(message: &Value) -> Vec<u8> {
    message["data"]
        .as_str()
        .and_then(|data| STANDARD.decode(data).ok())
        .unwrap_or_default()
}

/// What REPLAY is asked for.
#[derive(Debug, PartialEq)]
struct Replay {
    filter: String,
    from: From,
}

#[derive(Debug, PartialEq)]
enum From {
    Sequence(u64),
    Time(Timestamp),
}

impl Replay {
    /// `[<subject>] [FROM <seq>, <duration> or <time>]`
    fn parse(words: &[&str]) -> Option<Self> {
        let (filter, rest) = match words {
            [filter, rest @ ..] if !filter.eq_ignore_ascii_case("FROM") => (*filter, rest),
            rest => (">", rest),
        };
        let from = match rest {
            [] => From::Sequence(1),
            [from, value] if from.eq_ignore_ascii_case("FROM") => From::parse(value)?,
            _ => return None,
        };
        subject::is_pattern(filter.as_bytes()).then(|| Self {
            filter: filter.to_owned(),
            from,
        })
    }
}

impl From {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(sequence) = text.parse() {
            return Some(From::Sequence(sequence));
        }
        if let Ok(time) = text.parse() {
            return Some(From::Time(time));
        }
        let ago: jiff::SignedDuration = text.parse().ok()?;
        Timestamp::now().checked_sub(ago).ok().map(From::Time)
    }
}

/// Prints what the stream held when the replay began.
async fn replay(router: &Arc<Router>, publisher: &mut Publisher, stream: &str, what: &Replay) -> Outcome {
    let info = api(router, publisher, &format!("STREAM.INFO.{stream}"), &Value::Null).await?;
    let last = info["state"]["last_seq"].as_u64().unwrap_or_default();
    let get = format!("STREAM.MSG.GET.{stream}");
    let mut seq = match &what.from {
        From::Sequence(seq) => *seq,
        From::Time(time) => {
            let found = api(
                router,
                publisher,
                &get,
                &json!({ "start_time": time.to_string() }),
            )
            .await;
            match found {
                Ok(found) => found["message"]["seq"].as_u64().unwrap_or(last + 1),
                Err(text) if text == "no message found" => last + 1,
                Err(text) => return Err(text),
            }
        }
    };
    let mut count = 0;
    while seq <= last {
        let found = api(
            router,
            publisher,
            &get,
            &json!({ "seq": seq, "next_by_subj": what.filter }),
        )
        .await;
        let message = match found {
            Ok(mut found) => found["message"].take(),
            Err(text) if text == "no message found" => break,
            Err(text) => return Err(text),
        };
        let found = message["seq"].as_u64().unwrap_or(u64::MAX);
        if found > last {
            break;
        }
        let subject = message["subject"].as_str().unwrap_or_default();
        say(
            publisher,
            &format!(
                "{found} {}: {}",
                printable(subject.as_bytes()),
                printable(&payload(&message))
            ),
        );
        publisher.flush();
        publisher.relieve().await;
        count += 1;
        seq = found + 1;
    }
    Ok(count.to_string())
}

/// The consumer, made if it is not there: durable, with acks for each message.
async fn consumer_for(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    stream: &str,
    consumer: &str,
) -> Result<Value, String> {
    let info = format!("CONSUMER.INFO.{stream}.{consumer}");
    match api(router, publisher, &info, &Value::Null).await {
        Err(text) if text == "consumer not found" => {}
        known => return known,
    }
    let config = json!({ "durable_name": consumer, "ack_policy": "explicit", "deliver_policy": "all" });
    let request = json!({ "stream_name": stream, "config": config });
    let create = format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
    api(router, publisher, &create, &request).await
}

/// Takes up to `count` messages of a consumer, those that are there.
async fn next(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    stream: &str,
    consumer: &str,
    count: usize,
) -> Outcome {
    let info = consumer_for(router, publisher, stream, consumer).await?;
    let count = match room(&info) {
        Some(0) => {
            return Err(format!(
                "{} messages wait to be settled, ACK or NAK some first",
                info["num_ack_pending"]
            ));
        }
        Some(room) => count.min(room),
        None => count,
    };
    let inbox = Inbox::new(router.clone());
    let ask = json!({ "batch": count, "no_wait": true }).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    if !publisher.may_publish(subject.as_bytes()) {
        return Err(format!("Permissions Violation for Publish to \"{subject}\""));
    }
    let message = Message {
        subject: subject.as_bytes(),
        reply: inbox.subject().as_bytes(),
        headers: &[],
        payload: ask.as_bytes(),
    };
    publisher.publish(&message, None);
    publisher.flush();
    let mut taken = 0;
    while taken < count {
        let answer = inbox.next(API_TIMEOUT).await;
        let answer = answer.ok_or_else(|| format!("no more from {consumer}, {taken} taken"))?;
        match answer.status() {
            None => {}
            Some(404 | 408) => break,
            Some(code) => return Err(format!("{consumer} answered {code} {}", answer.status_text())),
        }
        let seq = stream_sequence(&answer.reply).ok_or("a delivery without its sequence")?;
        let (subject, text) = (printable(&answer.subject), printable(&answer.payload));
        say(publisher, &format!("{seq} {subject}: {text}"));
        publisher.flush();
        publisher.relieve().await;
        taken += 1;
    }
    Ok(taken.to_string())
}

/// How many more messages may wait for their ack; none without a limit.
fn room(info: &Value) -> Option<usize> {
    let max = info["config"]["max_ack_pending"]
        .as_u64()
        .filter(|&max| max > 0)?;
    let waiting = info["num_ack_pending"].as_u64().unwrap_or_default();
    usize::try_from(max.saturating_sub(waiting)).ok()
}

/// The stream sequence in a delivery's reply subject, of either form.
fn stream_sequence(reply: &[u8]) -> Option<u64> {
    let tokens: Vec<&[u8]> = subject::tokens(reply).collect();
    let at = if tokens.len() == 9 { 5 } else { 7 };
    std::str::from_utf8(tokens.get(at)?).ok()?.parse().ok()
}

/// Settles one message and waits until that is durable.
async fn settle(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    verb: Verb,
    (stream, consumer): (&str, &str),
    seq: u64,
) -> Outcome {
    let info = format!("CONSUMER.INFO.{stream}.{consumer}");
    let info = api(router, publisher, &info, &Value::Null).await?;
    if info["config"]["ack_policy"] == "none" {
        return Err(format!("{consumer} takes no acks"));
    }
    if seq == 0
        || info["delivered"]["stream_seq"]
            .as_u64()
            .is_none_or(|last| seq > last)
    {
        return Err(format!("message {seq} was not delivered to {consumer}"));
    }
    let body: &[u8] = match verb {
        Verb::Nak => b"-NAK",
        Verb::Term => b"+TERM",
        _ => b"+ACK",
    };
    let subject = format!("$JS.ACK.{stream}.{consumer}.1.{seq}.{seq}.0.0");
    match request(router, publisher, &subject, body, API_TIMEOUT).await {
        Ok(_) => Ok(seq.to_string()),
        Err(NoAnswer::Denied) => Err(format!("Permissions Violation for Publish to \"{subject}\"")),
        Err(NoAnswer::NobodyListens) => Err(format!("no consumer {consumer} on {stream}")),
        Err(NoAnswer::TimedOut) => Err(format!(
            "no answer within {} s: message {seq} may or may not be settled",
            API_TIMEOUT.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_arguments() {
        let ask = |text: &str| Replay::parse(&text.split_whitespace().collect::<Vec<_>>());
        let all = |from| {
            Some(Replay {
                filter: ">".to_owned(),
                from,
            })
        };
        assert_eq!(ask(""), all(From::Sequence(1)));
        assert_eq!(ask("from 7"), all(From::Sequence(7)));
        let time = "2026-01-02T03:04:05Z";
        assert_eq!(
            ask(&format!("FROM {time}")),
            all(From::Time(time.parse().unwrap()))
        );
        assert_eq!(
            ask("a.*"),
            Some(Replay {
                filter: "a.*".to_owned(),
                from: From::Sequence(1)
            })
        );
        assert!(matches!(
            ask("a.* FROM 1h"),
            Some(Replay {
                from: From::Time(_),
                ..
            })
        ));
        for bad in ["a..b", "a b", "FROM", "FROM x", "a FROM 1 2"] {
            assert_eq!(ask(bad), None, "{bad}");
        }
    }

    #[test]
    fn sequences_of_replies() {
        assert_eq!(stream_sequence(b"$JS.ACK.S.C.1.42.7.99.0"), Some(42));
        assert_eq!(stream_sequence(b"$JS.ACK._.hash.S.C.1.42.7.99.0.x"), Some(42));
        assert_eq!(stream_sequence(b"_INBOX.x"), None);
    }
}
