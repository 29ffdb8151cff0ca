//! Replays what nats-server 2.15.1 answered: `answers.tsv` has a request a line (stream, subject below
//! `$JS.API.CONSUMER.`, body, answer); lines without a blank one between them are one after another on
//! the same stream. An answer is an error (`code err_code text`) or the configuration that came back,
//! without the metadata the server adds to replies.

use std::collections::BTreeMap;

use super::*;
use crate::jetstream::api::error::ApiError;
use crate::jetstream::consumer::duration::SECOND;

fn facts<'a>(stream: &str, subjects: &'a [String]) -> StreamFacts<'a> {
    let base = StreamFacts {
        subjects,
        num_replicas: 1,
        ..StreamFacts::default()
    };
    match stream {
        "LIM" => base,
        "WQ" => StreamFacts {
            retention: Retention::WorkQueue,
            ..base
        },
        "INT" => StreamFacts {
            retention: Retention::Interest,
            ..base
        },
        "CAP" => StreamFacts {
            inactive_threshold: 10 * SECOND,
            max_ack_pending: 50,
            ..base
        },
        "MAX" => StreamFacts {
            max_consumers: 1,
            ..base
        },
        other => panic!("unknown stream {other}"),
    }
}

fn subjects(stream: &str) -> Vec<String> {
    let subjects: &[&str] = match stream {
        "LIM" => &["a.>", "b"],
        "WQ" => &["wq.>"],
        "INT" => &["in.>"],
        "CAP" => &["c.>"],
        _ => &["m.>"],
    };
    subjects.iter().map(|&subject| subject.to_owned()).collect()
}

type Consumers = BTreeMap<String, ConsumerConfig>;

fn ask(
    consumers: &mut Consumers,
    stream: &str,
    tail: &str,
    body: &str,
    in_use: bool,
) -> Result<ConsumerConfig, ApiError> {
    let request = CreateRequest::parse(tail, body.as_bytes(), true)?;
    let subjects = subjects(stream);
    let others: Vec<_> = consumers
        .iter()
        .filter(|(name, _)| **name != request.config.name)
        .map(|(_, config)| config)
        .collect();
    let standing = Standing {
        existing: consumers.get(&request.config.name),
        others: &others,
        deliver_subject_in_use: in_use,
    };
    let limits = Limits::default();
    let (Plan::Create(config) | Plan::Update(config)) =
        plan(request, &facts(stream, &subjects), &limits, &standing, || {
            "fresh".to_owned()
        })?;
    consumers.insert(config.name.clone(), config.clone());
    Ok(config)
}

#[test]
fn answers_as_the_server_did() {
    let (mut consumers, mut rows) = (Consumers::new(), 0);
    let mut wrong = Vec::new();
    for line in include_str!("answers.tsv").lines() {
        if line.is_empty() {
            consumers.clear();
            continue;
        }
        let fields: Vec<_> = line.split('\t').collect();
        let [stream, tail, body, expected] = fields[..] else {
            panic!("bad row {line}")
        };
        rows += 1;
        let got = match ask(&mut consumers, stream, tail, body, false) {
            Ok(config) => serde_json::to_string(&config).unwrap(),
            // The rest of a JSON error's text is the parser's own.
            Err(error) if error.err_code == 10025 && expected.starts_with("400 10025 invalid JSON: ") => {
                assert!(error.description.starts_with("invalid JSON: "));
                expected.to_owned()
            }
            Err(error) => format!("{} {} {}", error.code, error.err_code, error.description),
        };
        if got != expected {
            wrong.push(format!(
                "{stream} {tail} {body}\n  expected {expected}\n  got      {got}"
            ));
        }
    }
    assert!(rows > 450, "{rows}");
    assert!(
        wrong.is_empty(),
        "{} of {rows}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn sizes() {
    let ask = |config: &str| {
        let body = format!(r#"{{"stream_name":"LIM","config":{config}}}"#);
        ask(&mut Consumers::new(), "LIM", "CREATE.LIM.x", &body, false).map_err(|error| error.err_code)
    };
    let described = |bytes| ask(&format!(r#"{{"description":"{}"}}"#, "x".repeat(bytes)));
    assert!(described(4096).is_ok());
    assert_eq!(described(4097), Err(10107));
    // The level the server notes counts too: "_nats.req.level" and "0", and one byte of key.
    let noted = |bytes| ask(&format!(r#"{{"metadata":{{"k":"{}"}}}}"#, "v".repeat(bytes)));
    assert!(noted(128 * 1024 - 17).is_ok());
    assert_eq!(noted(128 * 1024 - 16), Err(10135));
}

#[test]
fn deliver_subject_in_use() {
    let mut consumers = Consumers::new();
    let body =
        |to| format!(r#"{{"stream_name":"LIM","config":{{"durable_name":"x","deliver_subject":"{to}"}}}}"#);
    assert!(ask(&mut consumers, "LIM", "CREATE.LIM.x", &body("out"), true).is_ok());
    let moved = ask(&mut consumers, "LIM", "CREATE.LIM.x", &body("out2"), true);
    assert_eq!(moved.unwrap_err().err_code, 10013);
    assert!(ask(&mut consumers, "LIM", "CREATE.LIM.x", &body("out2"), false).is_ok());
}

#[test]
fn ours() {
    let ask = |config: &str| {
        let body = format!(r#"{{"stream_name":"LIM","config":{config}}}"#);
        ask(&mut Consumers::new(), "LIM", "CREATE.LIM.x", &body, false)
            .map_err(|error| error.description.into_owned())
    };
    for (config, expected) in [
        (
            r#"{"priority_policy":"overflow","priority_groups":["g"]}"#,
            "consumer priority groups are not supported by this server",
        ),
        (
            r#"{"metadata":{"mesh.dead_letter":"dead.*"}}"#,
            "consumer dead letter subject is invalid",
        ),
        (
            r#"{"metadata":{"mesh.dead_letter":"a.dead"}}"#,
            "consumer dead letter subject forms a cycle",
        ),
        (
            r#"{"filter_subject":"a.*","metadata":{"mesh.dead_letter":"a.dead"}}"#,
            "consumer dead letter subject forms a cycle",
        ),
    ] {
        assert_eq!(ask(config).unwrap_err(), expected);
    }
    for config in [
        r#"{"metadata":{"mesh.dead_letter":"dead"}}"#,
        r#"{"metadata":{"mesh.dead_letter":""}}"#,
        r#"{"filter_subject":"a.work","metadata":{"mesh.dead_letter":"a.dead"}}"#,
    ] {
        assert!(ask(config).is_ok(), "{config}");
    }
    let lenient = CreateRequest::parse(
        "CREATE.S.x",
        br#"{"stream_name":"S","config":{"new_thing":1}}"#,
        false,
    );
    assert_eq!(lenient.unwrap().config.name, "x");
    let deep = "[".repeat(100_000);
    let deep = CreateRequest::parse("CREATE.S.x", deep.as_bytes(), false);
    assert_eq!(deep.unwrap_err().err_code, 10025);
}
