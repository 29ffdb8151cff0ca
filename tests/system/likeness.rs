//! The same questions to us and to nats-server: the same outcome, and answers with the same fields of the same types.

use std::collections::BTreeSet;

use async_nats::Client;
use serde_json::Value;

use crate::support::{Process, skip};

use super::{Outcome, THEIRS, answer, ask, connect, event, server};

/// Ours beyond theirs, and theirs for want of the thing here.
const APART: [&str; 11] = [
    "mesh",
    "fix",
    "sync",
    "sync_always",
    "rule",
    "git_commit",
    "feature_flags",
    "disk_io_wait_stats",
    "imports",
    "sync_interval",
    "default_max_consumers",
];

/// Every field with its type, as `path type`; rows of a list count as one.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !APART.contains(&name.as_str())) {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "bool",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let path = format!("{path}.{name}");
                out.insert(format!("{path} {kind}"));
                shape(value, &path, out);
            }
        }
        Value::Array(rows) => rows.iter().for_each(|row| shape(row, &format!("{path}[]"), out)),
        _ => {}
    }
}

/// How two answers differ, if they do.
fn difference(ours: &Value, theirs: &Value, what: &str) -> Option<String> {
    let mut shapes = [BTreeSet::new(), BTreeSet::new()];
    shape(ours, "", &mut shapes[0]);
    shape(theirs, "", &mut shapes[1]);
    let only = |a: usize, b: usize| shapes[a].difference(&shapes[b]).collect::<Vec<_>>();
    let (ours_alone, theirs_alone) = (only(0, 1), only(1, 0));
    let is_alike = ours_alone.is_empty() && theirs_alone.is_empty();
    (!is_alike).then(|| format!("{what}: ours alone {ours_alone:?}, theirs alone {theirs_alone:?}"))
}

/// Questions in the system account; `ID` stands for the server's.
const OF_SYSTEM: [(&str, &str); 46] = [
    ("SERVER.PING", ""),
    ("SERVER.PING.IDZ", ""),
    ("SERVER.PING.IDZ", r#"{"tags":["zz"]}"#),
    ("SERVER.ID.STATSZ", ""),
    ("SERVER.PING.VARZ", ""),
    ("SERVER.ID.SUBSZ", ""),
    ("SERVER.ID.SUBSZ", r#"{"subscriptions":true,"account":"A"}"#),
    ("SERVER.ID.SUBSZ", r#"{"subscriptions":true,"account":"NOPE"}"#),
    ("SERVER.ID.SUBSZ", r#"{"test":"a..b"}"#),
    ("SERVER.ID.CONNZ", ""),
    (
        "SERVER.ID.CONNZ",
        r#"{"acc":"A","auth":true,"subscriptions":true}"#,
    ),
    (
        "SERVER.ID.CONNZ",
        r#"{"acc":"A","auth":true,"subscriptions_detail":true}"#,
    ),
    ("SERVER.ID.CONNZ", r#"{"state":1}"#),
    ("SERVER.ID.CONNZ", r#"{"state":"closed"}"#),
    ("SERVER.ID.CONNZ", r#"{"sort":"bogus"}"#),
    ("SERVER.ID.ROUTEZ", ""),
    ("SERVER.ID.GATEWAYZ", ""),
    ("SERVER.ID.LEAFZ", ""),
    ("SERVER.ID.ACCOUNTZ", ""),
    ("SERVER.ID.ACCOUNTZ", r#"{"account":"A"}"#),
    ("SERVER.ID.ACCOUNTZ", r#"{"account":"nope"}"#),
    ("SERVER.ID.JSZ", ""),
    ("SERVER.ID.JSZ", r#"{"account":"nope"}"#),
    ("SERVER.ID.HEALTHZ", ""),
    ("SERVER.ID.HEALTHZ", r#"{"stream":"x"}"#),
    ("SERVER.ID.HEALTHZ", r#"{"account":"nope"}"#),
    ("SERVER.ID.HEALTHZ", r#"{"account":"nope","details":true}"#),
    ("SERVER.ID.RAFTZ", ""),
    ("SERVER.ID.PROFILEZ", ""),
    ("SERVER.ID.PROFILEZ", r#"{"name":"nope"}"#),
    ("SERVER.ID.BOGUS", ""),
    ("SERVER.PING.VARZ", "garbage"),
    ("SERVER.PING.VARZ", r#"{"server_name":"nope"}"#),
    ("SERVER.ID.KICK", r#"{"cid":999}"#),
    ("SERVER.ID.LDM", r#"{"cid":999}"#),
    ("SERVER.PING.KICK", r#"{"cid":1}"#),
    ("ACCOUNT.A.SUBSZ", ""),
    ("ACCOUNT.A.CONNZ", ""),
    ("ACCOUNT.A.LEAFZ", ""),
    ("ACCOUNT.A.INFO", ""),
    ("ACCOUNT.A.STATZ", ""),
    ("ACCOUNT.A.CONNS", ""),
    ("ACCOUNT.NOPE.JSZ", ""),
    ("ACCOUNT.NOPE.INFO", ""),
    ("ACCOUNT.NOPE.STATZ", ""),
    ("ACCOUNT.PING.STATZ", ""),
];

/// Questions in another account.
const OF_OTHERS: [(&str, &str); 14] = [
    ("USER.INFO", ""),
    ("SERVER.PING", ""),
    ("SERVER.PING.CONNZ", r#"{"acc":"B","auth":true}"#),
    ("SERVER.PING.SUBSZ", ""),
    ("SERVER.PING.VARZ", ""),
    ("SERVER.ID.CONNZ", ""),
    ("SERVER.ID.KICK", r#"{"cid":1}"#),
    ("ACCOUNT.PING.STATZ", r#"{"accounts":["B"]}"#),
    ("ACCOUNT.PING.CONNZ", ""),
    ("ACCOUNT.PING.INFO", ""),
    ("ACCOUNT.A.CONNZ", ""),
    ("ACCOUNT.A.STATZ", ""),
    ("ACCOUNT.B.CONNZ", ""),
    ("ACCOUNT.PING.CONNZ", "garbage"),
];

/// Texts of errors that are the reference's own words.
const WORDS_APART: [&str; 2] = ["garbage", r#"{"state":"closed"}"#];

/// A server and those who are on it.
struct Side {
    id: String,
    system: Client,
    client: Client,
    _subscription: async_nats::Subscriber,
    _others: Vec<Client>,
}

impl Side {
    async fn enter(url: &str) -> Self {
        let system = connect(url, "sys").await;
        let client = connect(url, "a").await;
        let subscription = client.subscribe("foo.*").await.unwrap();
        client.flush().await.unwrap();
        let others = vec![connect(url, "b").await, connect(url, "p").await];
        let wrong = async_nats::ConnectOptions::with_user_and_password("a".into(), "x".into());
        assert!(wrong.name("wrong").connect(url).await.is_err());
        let id = answer(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await["id"].take();
        Self {
            id: id.as_str().unwrap().to_owned(),
            system,
            client,
            _subscription: subscription,
            _others: others,
        }
    }

    async fn ask(&self, client: &Client, endpoint: &str, body: &str) -> Outcome {
        let subject = format!("$SYS.REQ.{}", endpoint.replace(".ID.", &format!(".{}.", self.id)));
        ask(client, &subject, body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_fields_of_nats_server() {
    let Some(theirs) = Process::nats(THEIRS) else {
        return skip("system requests beside those of nats-server", "no nats-server");
    };
    let ours = server();
    let (ours, theirs) = tokio::join!(async { Side::enter(&ours.url()).await }, async {
        Side::enter(&format!("nats://{}", theirs.address())).await
    });
    let mut differences = Vec::new();
    let of_system = OF_SYSTEM.iter().map(|row| (true, row));
    for (is_system, (endpoint, body)) in of_system.chain(OF_OTHERS.iter().map(|row| (false, row))) {
        let client = |side: &Side| {
            if is_system {
                side.system.clone()
            } else {
                side.client.clone()
            }
        };
        let (our_client, their_client) = (client(&ours), client(&theirs));
        let outcomes = tokio::join!(
            ours.ask(&our_client, endpoint, body),
            theirs.ask(&their_client, endpoint, body)
        );
        let what = format!("{endpoint} {body} (in the system account: {is_system})");
        match outcomes {
            (Outcome::Answer(ours), Outcome::Answer(theirs)) => {
                differences.extend(difference(&ours, &theirs, &what));
                let text = if WORDS_APART.contains(body) {
                    "code"
                } else {
                    "description"
                };
                for field in ["code", text] {
                    let (ours, theirs) = (&ours["error"][field], &theirs["error"][field]);
                    if ours != theirs {
                        differences.push(format!("{what}: {field} {ours}, theirs {theirs}"));
                    }
                }
            }
            (ours, theirs) if ours != theirs => {
                differences.push(format!("{what}: {ours:?}, theirs {theirs:?}"));
            }
            _ => {}
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is told while one client comes and goes and another is refused.
async fn told(url: &str) -> Vec<(String, Value)> {
    let system = connect(url, "sys").await;
    let id = answer(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await["id"].take();
    let id = id.as_str().unwrap();
    let mut told = system.subscribe("$SYS.>").await.unwrap();
    system.flush().await.unwrap();
    let client = connect(url, "a").await;
    let mut found = Vec::new();
    let refusals = format!("$SYS.SERVER.{id}.CLIENT.AUTH.ERR");
    let figures = format!("$SYS.SERVER.{id}.STATSZ");
    for subject in [
        "$SYS.SERVER.ACCOUNT.A.CONNS",
        "$SYS.ACCOUNT.A.SERVER.CONNS",
        "$SYS.ACCOUNT.A.CONNECT",
    ] {
        // In an order of its own: each from what has come since it was begun.
        let mut again = system.subscribe(subject).await.unwrap();
        system.flush().await.unwrap();
        let other = connect(url, "a").await;
        found.push((subject.to_owned(), event(&mut again, subject).await));
        drop(other);
    }
    // The round trip is known once a PING was answered.
    client.flush().await.unwrap();
    client.drain().await.unwrap();
    found.push((
        "DISCONNECT".to_owned(),
        event(&mut told, "$SYS.ACCOUNT.A.DISCONNECT").await,
    ));
    let wrong = async_nats::ConnectOptions::with_user_and_password("a".into(), "x".into());
    assert!(wrong.name("wrong").connect(url).await.is_err());
    found.push(("AUTH.ERR".to_owned(), event(&mut told, &refusals).await));
    system
        .publish("$SYS.REQ.SERVER.PING.STATSZ", "".into())
        .await
        .unwrap();
    found.push(("STATSZ".to_owned(), event(&mut told, &figures).await));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn events_have_the_fields_of_nats_server() {
    let Some(theirs) = Process::nats(THEIRS) else {
        return skip("events beside those of nats-server", "no nats-server");
    };
    let ours = server();
    let our_url = ours.url();
    let theirs_url = format!("nats://{}", theirs.address());
    let (ours, theirs) = tokio::join!(told(&our_url), told(&theirs_url));
    for ((what, our_event), (_, their_event)) in ours.iter().zip(&theirs) {
        assert_eq!(difference(our_event, their_event, what), None);
        for field in ["type", "reason"] {
            assert_eq!(our_event[field], their_event[field], "{what}");
        }
    }
}
