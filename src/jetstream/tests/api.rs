//! The API as its requesters meet it: what is answered, how large batches leave, what a panic leaves behind.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::jetstream::stream::Listener;
use crate::router::{Client, Idle, WireBuf};

/// The status line and the headers that tell what a message is, then the payload, all as text.
fn told(answer: &Reply) -> String {
    let block = String::from_utf8_lossy(&answer.0);
    let lines = block.lines().filter_map(|line| match line.split_once(": ") {
        Some((key, value)) => match key {
            "Nats-Sequence" => Some(value.to_owned()),
            "Nats-Num-Pending" => Some(format!("({value})")),
            "Nats-UpTo-Sequence" => Some(format!("to {value}")),
            _ => None,
        },
        None => line.strip_prefix("NATS/1.0 ").map(str::to_owned),
    });
    let lines: Vec<_> = lines.collect();
    format!("{} {}", lines.join(" "), String::from_utf8_lossy(&answer.1))
        .trim()
        .to_owned()
}

impl Rig {
    /// The answers to a direct get up to its end, in short.
    async fn direct(&self, rest: &str, body: &str) -> String {
        let mut answers = self.ask(&format!("$JS.API.DIRECT.GET.{rest}"), b"", body.as_bytes(), 64);
        let is_batch = body.contains("batch") || body.contains("multi_last");
        let mut all = Vec::new();
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(20), answers.recv());
            let answer = answer.await.expect("an answer in time").unwrap();
            all.push(told(&answer));
            if !is_batch || headers::status(&answer.0).is_some() {
                return all.join(", ");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_gets_as_the_reference_answers_them() {
    let rig = Rig::new(None, None);
    rig.create(json!({"name": "D", "subjects": ["d.>"], "storage": "memory", "allow_direct": true}))
        .await;
    for n in 1..=6 {
        rig.publish(&format!("d.{}", n % 2), &[], &format!("{n}x")).await;
    }
    for (rest, body, expected) in [
        ("D.d.1", "", "5 5x"),
        ("D.d.1", "null", "5 5x"),
        ("D.d.1", r#"{"no_hdr":true}"#, "5x"),
        ("D.d.1", r#"{"seq":3}"#, "408 Bad Request"),
        ("D.d.1", r#"{"batch":3}"#, "408 Bad Request"),
        ("D.d.1", r#"{"multi_last":["d.1"]}"#, "408 Bad Request"),
        ("D.d.1", r#"{"next_by_subj":"d.1"}"#, "408 Bad Request"),
        ("D.d.1", r#"{"last_by_subj":"d.1"}"#, "408 Bad Request"),
        ("D.d.1", r#"{"start_time":"x"}"#, "408 Malformed Request"),
        ("D.d.1", "[]", "408 Malformed Request"),
        ("D", "[]", "408 Malformed Request"),
        ("D", "null", "408 Empty Request"),
        ("D", r#"{"seq":null}"#, "408 Empty Request"),
        ("D", r#"{"Seq":2}"#, "2 2x"),
        ("D", r#"{"seq":1,"up_to_time":"x"}"#, "408 Malformed Request"),
        (
            "D",
            r#"{"multi_last":["d.>"],"next_by_subj":"d.1"}"#,
            "408 Bad Request",
        ),
        ("D", r#"{"multi_last":["d.>"],"up_to_seq":7}"#, "404 No Results"),
        ("D", r#"{"multi_last":["d.>"],"seq":7}"#, "204 EOB (0) to 6"),
        (
            "D",
            r#"{"multi_last":["d.>"],"up_to_seq":3}"#,
            "2 (1) 2x, 3 (0) 3x, 204 EOB (0) to 3",
        ),
        ("D", r#"{"seq":5,"batch":9}"#, "5 (1) 5x, 6 (0) 6x, 204 EOB (0)"),
        (
            "D",
            r#"{"seq":1,"batch":2,"next_by_subj":"d.0"}"#,
            "2 (2) 2x, 4 (1) 4x, 204 EOB (1)",
        ),
        ("D", r#"{"seq":5,"batch":9,"no_hdr":true}"#, "5x, 6x, 204 EOB (2)"),
        // Subject and payload count, five bytes each; what is kept beside them does not.
        (
            "D",
            r#"{"seq":1,"batch":9,"max_bytes":10}"#,
            "1 (5) 1x, 2 (4) 2x, 204 EOB (4)",
        ),
        ("D", r#"{"seq":7,"batch":9}"#, "404 Message Not Found"),
        (
            "D",
            r#"{"seq":18446744073709551615,"batch":9}"#,
            "404 Message Not Found",
        ),
    ] {
        assert_eq!(rig.direct(rest, body).await, expected, "{rest} {body}");
    }
}

/// A client whose connection writes only when the test says so.
struct Slow {
    client: Arc<Client>,
    publisher: Publisher,
    written: WireBuf,
    idle: Idle,
}

impl Slow {
    fn new(rig: &Rig, pending_max: usize) -> Self {
        let router = rig.jetstream.router().clone();
        let client = Client::new(1_000_003, pending_max);
        client.set_headers(true);
        router.subscribe(&client, b"1", b"in", None);
        Self {
            publisher: Publisher::of_client(router, client.clone()),
            client,
            written: WireBuf::default(),
            idle: Idle::default(),
        }
    }

    fn ask(&mut self, subject: &str, body: &str) {
        let message = Message {
            subject: subject.as_bytes(),
            reply: b"in",
            headers: b"",
            payload: body.as_bytes(),
        };
        self.publisher.publish(&message, None);
        self.publisher.flush();
    }

    /// What has come until so many batches have ended, the most bytes that waited, and what came at the end.
    async fn read(&mut self, batches: usize) -> (usize, usize, String) {
        let (mut messages, mut most, mut ended) = (0, 0, 0);
        loop {
            most = most.max(self.client.outbox.pending());
            let taken = self.client.outbox.take(&mut self.written, &mut self.idle);
            let taken = tokio::time::timeout(Duration::from_secs(20), taken);
            taken.await.expect("more in time").expect("it is not cut off");
            let text = String::from_utf8_lossy(self.written.flat()).into_owned();
            self.client.outbox.wrote(self.written.len());
            messages += text.matches("Nats-Sequence: ").count();
            ended += text.matches("204 EOB").count();
            if ended == batches {
                let at = text.rfind("204 EOB").unwrap();
                return (messages, most, text[at..].replace("\r\n", " ").trim().to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_leaves_as_fast_as_it_is_taken() {
    const MESSAGES: usize = 80;
    let rig = Rig::new(None, None);
    rig.create(json!({"name": "D", "subjects": ["d"], "storage": "memory", "allow_direct": true}))
        .await;
    let payload = "x".repeat(100_000);
    for _ in 0..MESSAGES {
        rig.publish("d", &[], &payload).await;
    }
    // Eight million bytes for a client that is cut off at four.
    let mut slow = Slow::new(&rig, 4 << 20);
    slow.ask("$JS.API.DIRECT.GET.D", r#"{"seq":1,"batch":1000}"#);
    let (messages, most, end) = slow.read(1).await;
    assert_eq!(messages, MESSAGES);
    assert_eq!(end, "204 EOB Nats-Num-Pending: 0 Nats-Last-Sequence: 80");
    assert!(most < 3 << 20, "{most} bytes waited");
    // Many at once: each goes on when there is room.
    for _ in 0..5 {
        slow.ask("$JS.API.DIRECT.GET.D", r#"{"seq":41,"batch":1000}"#);
    }
    assert_eq!(slow.read(5).await.0, 5 * 40);
    // Who has gone is not written for.
    slow.ask("$JS.API.DIRECT.GET.D", r#"{"seq":1,"batch":1000}"#);
    slow.client.outbox.abandon();
    rig.jetstream.router().remove_client(&slow.client);
    assert_eq!(rig.publish("d", &[], "x").await, "81");
    let ended = tokio::time::timeout(Duration::from_secs(10), rig.jetstream.shutdown());
    ended.await.expect("nothing is left at work");
}

/// Fails whenever a message is removed.
struct Trap(AtomicUsize);

impl Listener for Trap {
    fn appended(&self, _: u64, _: u64) {}
    fn removed(&self, _: u64, _: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a trap of the test");
    }
    fn trimmed(&self) {}
    fn durable(&self) {}
    fn needs(&self, _: u64) -> bool {
        false
    }
}

/// Fails with every batch that comes to it.
struct Mine;

impl Service for Mine {
    fn accept(&self, _: Batch) {
        panic!("a mine of the test");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_request_and_no_more() {
    let rig = Rig::new(None, None);
    rig.create(json!({"name": "S", "subjects": ["s"], "storage": "memory", "allow_direct": true}))
        .await;
    for n in 1..=12 {
        assert_eq!(rig.publish("s", &[], "x").await, n.to_string());
    }
    let trap = Arc::new(Trap(AtomicUsize::new(0)));
    let stream = rig.jetstream.stream("S").unwrap();
    stream
        .with_index(|index| index.admit("trap", Vec::new(), trap.clone()))
        .unwrap();
    // More often than there are workers.
    let mut errors = 0;
    for seq in 1..=6 {
        loop {
            let answer = rig.api("STREAM.MSG.DELETE.S", json!({"seq": seq})).await;
            errors += 1;
            if answer["error"]["err_code"] == 10008 {
                break;
            }
            // The stream reads itself again, after what has happened to it.
            assert_eq!(answer["error"]["description"], "stream is recovering");
        }
    }
    assert_eq!(trap.0.load(Ordering::Relaxed), 6);
    // Nor does it matter that the answer cannot be delivered.
    let mine: Arc<dyn Service> = Arc::new(Mine);
    let router = rig.jetstream.router();
    router.subscribe_service(&mine, b"mine", None);
    for _ in 0..6 {
        let mut publisher = Publisher::new(router.clone());
        let message = Message {
            subject: b"$JS.API.INFO",
            reply: b"mine",
            ..Message::default()
        };
        publisher.publish(&message, None);
        publisher.flush();
    }
    let account = rig.api("INFO", Value::Null).await;
    assert_eq!(account["api"]["errors"], errors, "{account}");
    assert_eq!(rig.direct("S", r#"{"seq":12}"#).await, "12 x");
    stream.dismiss("trap");
    let mut answer = rig.publish("s", &[], "x").await;
    while answer == "10077 stream is recovering" {
        answer = rig.publish("s", &[], "x").await;
    }
    assert_eq!(answer, "13");
    assert_eq!(summary(&rig.state("S").await), (7, 7, 13));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_things_as_the_reference_has_them() {
    let rig = Rig::on_disk();
    let code = |answer: &Value| answer["error"]["err_code"].as_u64().unwrap_or(0);
    let asked = async |endpoint: &str, body: &str| -> Value {
        let subject = format!("$JS.API.{endpoint}");
        let (_, answer) = rig.request(&subject, b"", body.as_bytes()).await;
        serde_json::from_slice(&answer).unwrap()
    };
    for (body, expected) in [
        ("null", 10056),
        (r#"{"Name":"A","RETENTION":"interest"}"#, 0),
        (r#"{"name":"A","retention":null}"#, 10025),
        (r#"{"name":"A","storage":null}"#, 10025),
        (r#"{"name":"A","placement":{"cluster":1}}"#, 10025),
        (r#"{"name":"A","placement":[]}"#, 10025),
        (r#"{"name":"A","placement":{"bogus":1}}"#, 10025),
        (r#"{"name":"A","placement":{"preferred":"x"}}"#, 10052),
        (r#"{"name":"A","max_msg_size":2147483648}"#, 10025),
        (
            r#"{"name":"A","placement":{"cluster":"","tags":[]},"subjects":["a.>"],"first_seq":1,"max_msg_size":2147483647}"#,
            0,
        ),
    ] {
        let answer = asked("STREAM.CREATE.A", body).await;
        assert_eq!(code(&answer), expected, "{body}: {answer}");
        if body.contains("RETENTION") {
            assert_eq!(answer["config"]["retention"], "interest");
            asked("STREAM.DELETE.A", "").await;
        }
        if body.contains("first_seq") {
            assert_eq!(summary(&answer["state"]), (0, 1, 0));
            assert_eq!(answer["config"].get("placement"), None);
        }
    }
    let updated = asked("STREAM.UPDATE.A", r#"{"name":"A","subjects":["a.>"]}"#).await;
    assert_eq!((code(&updated), updated.get("cluster")), (0, None), "{updated}");
    for (ttl, expected) in [
        ("bad", 10165),
        ("0", 10165),
        ("+1", 10165),
        ("1", 10166),
        ("+1s", 10166),
    ] {
        let answer = rig.publish("a.1", &[("Nats-TTL", ttl)], "x").await;
        assert!(answer.starts_with(&expected.to_string()), "{ttl}: {answer}");
    }
    assert_eq!(rig.publish("a.1", &[], "x").await, "1");
    for (body, expected) in [
        ("{}", 10003),
        (r#"{"seq":0}"#, 10057),
        (r#"{"seq":1,"no_erase":"x"}"#, 10025),
        ("[]", 10025),
        (r#"{"seq":9}"#, 10057),
    ] {
        assert_eq!(
            code(&asked("STREAM.MSG.DELETE.A", body).await),
            expected,
            "{body}"
        );
    }
    for (body, expected) in [
        (r#"{"seq":1,"up_to_seq":1}"#, 0),
        (r#"{"seq":1,"batch":2}"#, 10003),
        (r#"{"seq":1,"max_bytes":2}"#, 10003),
        (r#"{"multi_last":["a.1"]}"#, 10003),
        (r#"{"start_time":"9999-12-31T00:00:00Z"}"#, 10037),
        (r#"{"start_time":"x"}"#, 10025),
    ] {
        assert_eq!(code(&asked("STREAM.MSG.GET.A", body).await), expected, "{body}");
    }
    let info = asked("STREAM.INFO.A", r#"{"subjects_filter":">","offset":7}"#).await;
    assert_eq!((&info["total"], &info["offset"]), (&json!(1), &json!(7)));
    rig.jetstream.shutdown().await;
}
