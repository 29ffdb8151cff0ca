mod api;
mod consumers;
mod damage;
mod limits;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::router::{Batch, Publisher};
use crate::store::Store;

/// What came to an inbox: headers and payload.
type Reply = (Vec<u8>, Vec<u8>);

/// A requester inside the process.
struct Inbox {
    waiting: Mutex<HashMap<Vec<u8>, mpsc::Sender<Reply>>>,
}

impl Service for Inbox {
    fn accept(&self, batch: Batch) {
        for message in batch.iter() {
            let waiting = lock(&self.waiting);
            if let Some(to) = waiting.get(message.subject) {
                to.try_send((message.headers.to_vec(), message.payload.to_vec()))
                    .ok();
            }
        }
    }
}

struct Rig {
    jetstream: Arc<JetStream>,
    inbox: Arc<Inbox>,
    next: AtomicU64,
    dir: Option<tempfile::TempDir>,
}

fn open_store(dir: &tempfile::TempDir) -> Store {
    Store::open(store::Options::new(dir.path())).unwrap()
}

impl Rig {
    fn new(store: Option<Store>, dir: Option<tempfile::TempDir>) -> Self {
        let router = Arc::new(Router::new());
        let inbox = Arc::new(Inbox {
            waiting: Mutex::default(),
        });
        let service: Arc<dyn Service> = inbox.clone();
        router.subscribe_service(&service, b"_INBOX.>", None);
        let jetstream = JetStream::start(Options::new(router, store)).unwrap();
        Self {
            jetstream,
            inbox,
            next: AtomicU64::new(1),
            dir,
        }
    }

    fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::new(Some(open_store(&dir)), Some(dir))
    }

    /// Stops and starts again on the same directory.
    async fn restart(self) -> Self {
        self.jetstream.shutdown().await;
        let dir = self.dir.unwrap();
        drop(self.jetstream);
        Self::new(Some(open_store(&dir)), Some(dir))
    }

    fn ask(&self, subject: &str, headers: &[u8], payload: &[u8], answers: usize) -> mpsc::Receiver<Reply> {
        let reply = format!("_INBOX.{}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes();
        let (tell, told) = mpsc::channel(answers);
        lock(&self.inbox.waiting).insert(reply.clone(), tell);
        let mut publisher = Publisher::new(self.jetstream.router().clone());
        let message = Message {
            subject: subject.as_bytes(),
            reply: &reply,
            headers,
            payload,
        };
        publisher.publish(&message, None);
        publisher.flush();
        told
    }

    async fn request(&self, subject: &str, headers: &[u8], payload: &[u8]) -> Reply {
        let mut told = self.ask(subject, headers, payload, 1);
        tokio::time::timeout(Duration::from_secs(20), told.recv())
            .await
            .expect("an answer in time")
            .unwrap()
    }

    async fn api(&self, endpoint: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (_, answer) = self
            .request(&format!("$JS.API.{endpoint}"), b"", body.as_bytes())
            .await;
        serde_json::from_slice(&answer).unwrap()
    }

    async fn create(&self, config: Value) -> Value {
        let name = config["name"].as_str().unwrap().to_owned();
        let answer = self.api(&format!("STREAM.CREATE.{name}"), config).await;
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// Publishes, and says the answer as `seq`, `dup seq` or the error.
    async fn publish(&self, subject: &str, lines: &[(&str, &str)], payload: &str) -> String {
        let block = if lines.is_empty() {
            Vec::new()
        } else {
            headers::build("", lines.iter().copied())
        };
        let (_, answer) = self.request(subject, &block, payload.as_bytes()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        match answer.get("error") {
            Some(error) => {
                assert_eq!(answer["seq"], 0);
                format!("{} {}", error["err_code"], error["description"].as_str().unwrap())
            }
            None if answer["duplicate"] == true => format!("dup {}", answer["seq"]),
            None => answer["seq"].to_string(),
        }
    }

    async fn state(&self, name: &str) -> Value {
        let request = json!({"subjects_filter": ">", "deleted_details": true});
        self.api(&format!("STREAM.INFO.{name}"), request).await["state"].take()
    }
}

fn summary(state: &Value) -> (u64, u64, u64) {
    let number = |field: &str| state[field].as_u64().unwrap();
    (number("messages"), number("first_seq"), number("last_seq"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_are_answered_stored_and_found() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"], "allow_direct": true}))
        .await;
    assert_eq!(rig.publish("s.a", &[], "one").await, "1");
    assert_eq!(rig.publish("s.b", &[("k", "v")], "two").await, "2");
    assert_eq!(rig.publish("s.a", &[], "three").await, "3");
    assert_eq!(summary(&rig.state("S").await), (3, 1, 3));
    let message = rig.api("STREAM.MSG.GET.S", json!({"last_by_subj": "s.b"})).await;
    assert_eq!(message["message"]["data"], "dHdv");
    let (block, payload) = rig.request("$JS.API.DIRECT.GET.S.s.a", b"", b"").await;
    assert_eq!(payload, b"three");
    assert_eq!(headers::get(&block, b"Nats-Sequence"), Some(&b"3"[..]));
    let next = rig
        .api("STREAM.MSG.GET.S", json!({"next_by_subj": "s.a", "seq": 2}))
        .await;
    assert_eq!(next["message"]["seq"], 3);
    let deleted = rig.api("STREAM.MSG.DELETE.S", json!({"seq": 2})).await;
    assert_eq!(deleted["success"], true);
    assert_eq!(rig.state("S").await["deleted"], json!([2]));
    let rig = rig.restart().await;
    let state = rig.state("S").await;
    assert_eq!(summary(&state), (2, 1, 3));
    assert_eq!(state["subjects"], json!({"s.a": 2}));
    assert_eq!(rig.publish("s.c", &[], "four").await, "4");
    let purged = rig
        .api("STREAM.PURGE.S", json!({"filter": "s.a", "keep": 1}))
        .await;
    assert_eq!(purged["purged"], 1);
    assert_eq!(summary(&rig.state("S").await), (2, 3, 4));
    assert_eq!(rig.api("STREAM.DELETE.S", Value::Null).await["success"], true);
    assert_eq!(
        rig.api("STREAM.INFO.S", Value::Null).await["error"]["err_code"],
        10059
    );
    let rig = rig.restart().await;
    assert_eq!(rig.api("STREAM.NAMES", Value::Null).await["total"], 0);
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_in_the_order_of_the_reference() {
    let rig = Rig::new(None, None);
    let config = json!({"name": "A", "subjects": ["a.>"], "storage": "memory", "max_msg_size": 300,
        "discard": "new", "max_msgs": 5});
    rig.create(config).await;
    for n in 0..5 {
        let id = format!("m{n}");
        rig.publish(&format!("a.{n}"), &[("Nats-Msg-Id", &id)], "x").await;
    }
    let long = "v".repeat(400);
    // From the first check to the last.
    let order: &[(&str, &str, &str)] = &[
        ("k", &long, "10054 message size exceeds maximum allowed"),
        ("Nats-Batch-Id", "x", "10174 atomic publish is disabled"),
        ("Nats-Incr", "1", "10168 message counters is disabled"),
        (
            "Nats-Expected-Stream",
            "Z",
            "10060 expected stream does not match",
        ),
        ("Nats-TTL", "1s", "10166 per-message TTL is disabled"),
        (
            "Nats-Expected-Last-Subject-Sequence-Subject",
            "a.1",
            "10193 missing sequence for expected last sequence per subject",
        ),
        (
            "Nats-Expected-Last-Sequence",
            "99",
            "10071 wrong last sequence: 5",
        ),
        ("Nats-Schedule", "x", "10188 message schedules is disabled"),
        (
            "Nats-Stream-Source",
            "x",
            "10227 message stream source header is not allowed",
        ),
        ("Nats-Msg-Id", "m1", "dup 2"),
        ("Nats-Expected-Last-Msg-Id", "zz", "10070 wrong last msg ID: m4"),
        ("Nats-Rollup", "sub", "10111 rollup not permitted"),
    ];
    for (at, (key, value, expected)) in order.iter().enumerate() {
        assert_eq!(rig.publish("a.9", &[(key, value)], "x").await, *expected);
        for (later, other, _) in &order[at + 1..] {
            let both = [(*later, *other), (*key, *value)];
            assert_eq!(
                rig.publish("a.9", &both, "x").await,
                *expected,
                "{key} before {later}"
            );
        }
    }
    assert_eq!(
        rig.publish("a.9", &[], "x").await,
        "10077 maximum messages exceeded"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expectations_hold() {
    let rig = Rig::new(None, None);
    rig.create(json!({"name": "A", "subjects": ["a.>"], "storage": "memory"}))
        .await;
    let last = "Nats-Expected-Last-Subject-Sequence";
    let of = "Nats-Expected-Last-Subject-Sequence-Subject";
    type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let steps: &[Step<'_>] = &[
        ("a.1", &[(last, "0")], "1"),
        ("a.1", &[(last, "0")], "10071 wrong last sequence: 1"),
        ("a.1", &[(last, "x")], "10071 wrong last sequence: 1"),
        ("a.2", &[(last, "1"), (of, "a.1")], "2"),
        ("a.3", &[(last, "2"), (of, "a.>")], "3"),
        ("a.3", &[(last, "9"), (of, "a.>")], "10071 wrong last sequence: 3"),
        ("a.3", &[("Nats-Expected-Last-Sequence", "3")], "4"),
        (
            "a.3",
            &[("Nats-Expected-Last-Msg-Id", "q")],
            "10070 wrong last msg ID: ",
        ),
        ("a.3", &[("Nats-Msg-Id", "q")], "5"),
        ("a.3", &[("Nats-Expected-Last-Msg-Id", "q")], "6"),
        ("a.3", &[("Nats-Msg-Id", "q")], "dup 5"),
    ];
    for (subject, lines, expected) in steps {
        assert_eq!(rig.publish(subject, lines, "x").await, *expected, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_make_way() {
    let rig = Rig::new(None, None);
    let make = |name: &str, more: Value| {
        let mut config = json!({"name": name, "subjects": [format!("{name}.>")], "storage": "memory"});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    rig.create(make("M", json!({"max_msgs": 3}))).await;
    rig.create(make("B", json!({"max_bytes": 80}))).await;
    rig.create(make("P", json!({"max_msgs_per_subject": 2}))).await;
    rig.create(make(
        "N",
        json!({"max_msgs_per_subject": 1, "discard": "new", "max_msgs": 2}),
    ))
    .await;
    rig.create(make("R", json!({"allow_rollup_hdrs": true}))).await;
    rig.create(make("I", json!({"retention": "interest"}))).await;
    for n in 1..=5 {
        let expected = n.to_string();
        for stream in ["M", "B", "P", "R", "I"] {
            let subject = format!("{stream}.{}", n % 2);
            assert_eq!(rig.publish(&subject, &[], "x").await, expected, "{stream}");
        }
    }
    assert_eq!(summary(&rig.state("M").await), (3, 3, 5));
    assert_eq!(summary(&rig.state("B").await), (2, 4, 5));
    assert_eq!(summary(&rig.state("P").await), (4, 2, 5));
    assert_eq!(summary(&rig.state("I").await), (0, 6, 5));
    assert_eq!(rig.publish("R.1", &[("Nats-Rollup", "sub")], "x").await, "6");
    assert_eq!(rig.state("R").await["subjects"], json!({"R.0": 2, "R.1": 1}));
    assert_eq!(rig.publish("R.1", &[("Nats-Rollup", "ALL")], "x").await, "7");
    assert_eq!(summary(&rig.state("R").await), (1, 7, 7));
    let full = "10077 maximum messages exceeded";
    for (subject, expected) in [
        ("N.1", "1"),
        ("N.1", "2"),
        ("N.2", "3"),
        ("N.2", "4"),
        ("N.3", full),
    ] {
        assert_eq!(rig.publish(subject, &[], "x").await, expected, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_is_what_the_configuration_says() {
    let rig = Rig::on_disk();
    let is_compressed = |rig: &Rig| rig.jetstream.stream("C").unwrap().log().is_compressed();
    rig.create(json!({"name": "C", "subjects": ["c"], "compression": "s2"}))
        .await;
    assert!(is_compressed(&rig));
    let rig = rig.restart().await;
    assert!(is_compressed(&rig));
    let plain = json!({"name": "C", "subjects": ["c"]});
    assert!(rig.api("STREAM.UPDATE.C", plain).await.get("error").is_none());
    assert!(!is_compressed(&rig));
    let rig = rig.restart().await;
    assert!(!is_compressed(&rig));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_keeps_what_is_wanted() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "I", "subjects": ["i.>"], "retention": "interest"}))
        .await;
    let config = json!({"durable_name": "C", "ack_policy": "explicit", "filter_subject": "i.a"});
    let made = rig
        .api(
            "CONSUMER.CREATE.I.C",
            json!({"stream_name": "I", "config": config}),
        )
        .await;
    assert!(made.get("error").is_none(), "{made}");
    for (subject, expected) in [
        ("i.b", "1"),
        ("i.a", "2"),
        ("i.b", "3"),
        ("i.a", "4"),
        ("i.b", "5"),
    ] {
        assert_eq!(rig.publish(subject, &[], "x").await, expected);
    }
    assert_eq!(summary(&rig.state("I").await), (2, 2, 5));
    let rig = rig.restart().await;
    assert_eq!(summary(&rig.state("I").await), (2, 2, 5));
    assert_eq!(rig.publish("i.a", &[], "x").await, "6");
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_and_markers() {
    let rig = Rig::on_disk();
    let config = json!({"name": "T", "subjects": ["t.>"], "subject_delete_marker_ttl": 3_600_000_000_000u64});
    rig.create(config).await;
    let stream = rig.jetstream.stream("T").unwrap();
    for (subject, ttl) in [("t.a", "2h"), ("t.b", "never"), ("t.c", "bad")] {
        let answer = rig.publish(subject, &[("Nats-TTL", ttl)], "x").await;
        assert_eq!(answer.starts_with("10165"), ttl == "bad", "{answer}");
    }
    // Two hours on: the clock is an argument.
    stream.tick(now_ns() + 7_201 * time::SECOND);
    stream.settled().await;
    assert_eq!(summary(&rig.state("T").await), (2, 2, 3));
    let marker = stream.get(3).unwrap().unwrap();
    assert_eq!(&marker.subject[..], b"t.a");
    assert_eq!(
        &marker.headers[..],
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1h0m0s\r\nNats-Rollup: sub\r\n\r\n"
    );
    // A marker goes without another one.
    stream.tick(now_ns() + 11_000 * time::SECOND);
    stream.settled().await;
    assert_eq!(rig.state("T").await["subjects"], json!({"t.b": 1}));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_duplicate_window_survives() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "D", "subjects": ["d"]})).await;
    assert_eq!(rig.publish("d", &[("Nats-Msg-Id", "a")], "x").await, "1");
    assert_eq!(rig.publish("d", &[("Nats-Msg-Id", "b")], "x").await, "2");
    rig.api("STREAM.PURGE.D", json!({})).await;
    let rig = rig.restart().await;
    assert_eq!(rig.publish("d", &[("Nats-Msg-Id", "b")], "x").await, "dup 2");
    assert_eq!(rig.publish("d", &[("Nats-Msg-Id", "c")], "x").await, "3");
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_follow_updates() {
    let rig = Rig::new(None, None);
    rig.create(json!({"name": "A", "subjects": ["a", "b"], "storage": "memory"}))
        .await;
    let overlap = json!({"name": "B", "subjects": ["*"], "storage": "memory", "no_ack": true});
    let refused = rig.api("STREAM.CREATE.B", overlap).await;
    assert_eq!(refused["error"]["err_code"], 10065);
    let update = json!({"name": "A", "subjects": ["b", "c"], "storage": "memory", "max_msgs_per_subject": 1});
    assert!(rig.api("STREAM.UPDATE.A", update).await.get("error").is_none());
    let router = rig.jetstream.router();
    assert!(!router.has_interest(b"a") && router.has_interest(b"b") && router.has_interest(b"c"));
    for expected in ["1", "2"] {
        assert_eq!(rig.publish("c", &[], "x").await, expected);
    }
    assert_eq!(summary(&rig.state("A").await), (1, 2, 2));
    let named = rig.api("STREAM.NAMES", json!({"subject": "c"})).await;
    assert_eq!(named["streams"], json!(["A"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense() {
    let rig = Rig::new(None, None);
    for (endpoint, body, code) in [
        ("NOPE", Value::Null, 10003),
        ("STREAM.CREATE.A", json!([1]), 10025),
        ("STREAM.CREATE.A", json!({"name": "B"}), 10056),
        ("STREAM.CREATE.A", json!({"name": "A", "bogus": 1}), 10025),
        ("STREAM.CREATE.A", json!({"name": "A", "storage": "file"}), 10047),
        ("STREAM.DELETE.A", json!({"x": 1}), 10038),
        ("STREAM.DELETE.A", Value::Null, 10059),
        ("STREAM.PURGE.A", json!({"seq": 1, "keep": 1}), 10003),
        ("STREAM.MSG.GET.A", json!({"seq": 1, "last_by_subj": "x"}), 10003),
        ("STREAM.LEADER.STEPDOWN.A", Value::Null, 10010),
        ("CONSUMER.INFO.A.c", Value::Null, 10059),
    ] {
        let answer = rig.api(endpoint, body).await;
        assert_eq!(answer["error"]["err_code"], code, "{endpoint}: {answer}");
    }
    let account = rig.api("INFO", Value::Null).await;
    assert_eq!(
        (&account["api"]["total"], &account["api"]["errors"]),
        (&json!(11), &json!(11))
    );
    let (block, _) = rig.request("$JS.API.DIRECT.GET.A", b"", br#"{"seq":1}"#).await;
    assert_eq!(headers::status(&block), Some(503));
}

/// Flips a bit of what follows each place where `what` stands in the database.
fn flip_in_store(dir: &tempfile::TempDir, what: &[u8]) {
    let path = dir.path().join("mesh.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<_> = (0..bytes.len() - what.len())
        .filter(|&at| &bytes[at..at + what.len()] == what)
        .collect();
    assert!(places.len() >= 2, "a row and its copy hold it: {}", places.len());
    places.into_iter().for_each(|at| bytes[at + what.len() - 1] ^= 1);
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_read_is_left_out_and_the_others_are_served() {
    let mut rig = Rig::on_disk();
    for name in ["GOOD", "BADX", "WORSE"] {
        let description = format!("about {name}");
        rig.create(json!({"name": name, "subjects": [format!("{name}.>")], "description": description}))
            .await;
        assert_eq!(rig.publish(&format!("{name}.a"), &[], "x").await, "1");
    }
    let last_ts = rig.api("STREAM.INFO.WORSE", Value::Null).await["state"]["last_ts"].clone();
    rig.jetstream.shutdown().await;
    let dir = rig.dir.take().unwrap();
    drop(rig);
    flip_in_store(&dir, b"about BADX");
    // What follows is no JSON any more.
    flip_in_store(&dir, b"about WORSE\"");
    let rig = Rig::new(Some(open_store(&dir)), Some(dir));
    let good = rig.api("STREAM.INFO.GOOD", Value::Null).await;
    assert_eq!(good["state"]["messages"], 1, "{good}");
    assert_eq!(rig.publish("GOOD.b", &[], "y").await, "2");
    for name in ["BADX", "WORSE"] {
        let refused = rig.api(&format!("STREAM.INFO.{name}"), Value::Null).await;
        assert_eq!(refused["error"]["err_code"], 10118, "{refused}");
        let taken = rig
            .api(&format!("STREAM.CREATE.{name}"), json!({"name": name}))
            .await;
        assert_eq!(
            taken["error"]["err_code"], 10118,
            "its name is given away: {taken}"
        );
    }
    let list = rig.api("STREAM.LIST", Value::Null).await;
    let why = list["offline"]["BADX"].as_str().unwrap_or_default();
    assert!(why.contains("damaged"), "{list}");
    let names: Vec<_> = rig
        .jetstream
        .offline()
        .into_iter()
        .filter_map(|s| s.name)
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    rig.jetstream.shutdown().await;
    let dir = rig.dir.unwrap();
    drop(rig.jetstream);
    let report = Store::repair(store::Options::new(dir.path()), &mended).unwrap();
    assert_eq!(report.gave_up.len(), 4, "{report:?}");
    let rig = Rig::new(Some(open_store(&dir)), Some(dir));
    assert!(rig.jetstream.offline().is_empty());
    let names = rig.api("STREAM.NAMES", Value::Null).await;
    assert_eq!(names["streams"], json!(["BADX", "GOOD", "RECOVERED_3"]));
    let kept = rig.api("STREAM.INFO.RECOVERED_3", Value::Null).await;
    assert_eq!(kept["state"]["messages"], 1, "{kept}");
    assert_eq!(
        kept["state"]["last_ts"], last_ts,
        "the row is lost, the message knows"
    );
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_offline_can_be_deleted() {
    let mut rig = Rig::on_disk();
    rig.create(json!({"name": "BADX", "subjects": ["bad"], "description": "about BADX"}))
        .await;
    rig.jetstream.shutdown().await;
    let dir = rig.dir.take().unwrap();
    drop(rig);
    flip_in_store(&dir, b"about BADX");
    let rig = Rig::new(Some(open_store(&dir)), Some(dir));
    assert_eq!(rig.api("STREAM.DELETE.BADX", Value::Null).await["success"], true);
    rig.create(json!({"name": "BADX", "subjects": ["bad"]})).await;
    let rig = rig.restart().await;
    assert!(rig.jetstream.offline().is_empty());
    assert_eq!(rig.publish("bad", &[], "x").await, "1");
    rig.jetstream.shutdown().await;
}
