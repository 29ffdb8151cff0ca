//! Consumers on their stream: what is delivered, kept, counted and remembered.

use std::time::Instant;

use super::*;

mod edges;

/// A message as it came to a subject the test listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Came {
    subject: String,
    reply: String,
    headers: String,
    payload: String,
}

/// Whoever receives: everything on one pattern, in order.
struct Receiver {
    told: mpsc::Receiver<Came>,
    subscription: Arc<Subscription>,
}

struct Forward(mpsc::Sender<Came>);

impl Service for Forward {
    fn accept(&self, batch: Batch) {
        for message in batch.iter() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let came = Came {
                subject: text(message.subject),
                reply: text(message.reply),
                headers: text(message.headers),
                payload: text(message.payload),
            };
            self.0.try_send(came).expect("the test reads on");
        }
    }
}

impl Rig {
    fn listen(&self, pattern: &str) -> Receiver {
        let (tell, told) = mpsc::channel(100_000);
        let service: Arc<dyn Service> = Arc::new(Forward(tell));
        let router = self.jetstream.router();
        let subscription = router.subscribe_service(&service, pattern.as_bytes(), None);
        Receiver { told, subscription }
    }

    fn send(&self, subject: &str, reply: &str, payload: &str) {
        let mut publisher = Publisher::new(self.jetstream.router().clone());
        let message = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: b"",
            payload: payload.as_bytes(),
        };
        publisher.publish(&message, None);
        publisher.flush();
    }

    async fn consumer(&self, stream: &str, name: &str, mut config: Value) -> Value {
        config["durable_name"] = name.into();
        let body = json!({"stream_name": stream, "config": config});
        let answer = self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), body).await;
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    async fn info(&self, stream: &str, name: &str) -> Value {
        self.api(&format!("CONSUMER.INFO.{stream}.{name}"), Value::Null)
            .await
    }

    /// Pulls what is there: message by message, then the status that ends it.
    async fn pull(&self, stream: &str, name: &str, batch: u64) -> Vec<Came> {
        let inbox = format!("pulled.{}", self.next.fetch_add(1, Ordering::Relaxed));
        let mut receiver = self.listen(&inbox);
        let body = json!({"batch": batch, "no_wait": true}).to_string();
        self.send(
            &format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            &inbox,
            &body,
        );
        let mut all = Vec::new();
        while (all.len() as u64) < batch {
            let came = receiver.next().await;
            if came.reply.is_empty() {
                break;
            }
            all.push(came);
        }
        self.jetstream.router().remove(&receiver.subscription);
        all
    }

    /// Acks, and waits until that is durable.
    async fn ack(&self, message: &Came, body: &str) {
        self.request(&message.reply, b"", body.as_bytes()).await;
    }
}

impl Receiver {
    async fn next(&mut self) -> Came {
        let came = tokio::time::timeout(Duration::from_secs(20), self.told.recv());
        came.await.expect("something comes in time").unwrap()
    }

    /// Everything that comes within a moment.
    async fn rest(&mut self) -> Vec<Came> {
        let mut all = Vec::new();
        while let Ok(Some(came)) = tokio::time::timeout(Duration::from_millis(300), self.told.recv()).await {
            all.push(came);
        }
        all
    }
}

/// The number at a place of an ack subject: 4 deliveries, 5 stream sequence, 6 consumer sequence, 8 pending.
fn number(came: &Came, at: usize) -> u64 {
    came.reply.split('.').nth(at).unwrap().parse().unwrap()
}

fn payloads(all: &[Came]) -> Vec<&str> {
    all.iter().map(|came| came.payload.as_str()).collect()
}

/// Waits until a stream holds so many messages.
async fn shrinks_to(rig: &Rig, stream: &str, messages: u64) {
    let shrunk = async {
        while summary(&rig.state(stream).await).0 != messages {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shrunk)
        .await
        .expect("what nobody needs goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_lost_consumer_waited_for_goes_at_the_next_start() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "I", "subjects": ["i.>"], "retention": "interest"}))
        .await;
    rig.create(json!({"name": "W", "subjects": ["w.>"], "retention": "workqueue"}))
        .await;
    let explicit = json!({"ack_policy": "explicit"});
    rig.consumer("I", "KEPT", explicit.clone()).await;
    rig.consumer(
        "I",
        "LOST",
        json!({"ack_policy": "explicit", "mem_storage": true}),
    )
    .await;
    rig.consumer(
        "I",
        "PART",
        json!({"ack_policy": "explicit", "filter_subject": "i.b"}),
    )
    .await;
    rig.consumer(
        "W",
        "WORK",
        json!({"ack_policy": "explicit", "filter_subject": "w.a"}),
    )
    .await;
    for subject in ["i.a", "i.a", "i.b", "i.a", "w.a", "w.b", "w.a"] {
        rig.publish(subject, &[], "x").await;
    }
    // Acked by all that are kept: 1. In flight: 2. Acked by one of two: 3. Not come to: 4.
    let came = rig.pull("I", "KEPT", 3).await;
    rig.ack(&came[0], "+ACK").await;
    rig.ack(&came[2], "+ACK").await;
    let came = rig.pull("W", "WORK", 1).await;
    rig.ack(&came[0], "+ACK").await;
    assert_eq!(summary(&rig.state("I").await), (4, 1, 4));
    assert_eq!(summary(&rig.state("W").await), (2, 2, 3));
    let rig = rig.restart().await;
    shrinks_to(&rig, "I", 3).await;
    assert_eq!(summary(&rig.state("I").await), (3, 2, 4));
    // What no consumer takes waits for one that does.
    assert_eq!(summary(&rig.state("W").await), (2, 2, 3));
    let rig = rig.restart().await;
    assert_eq!(summary(&rig.state("I").await), (3, 2, 4));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_is_confirmed_is_durable() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    rig.consumer("S", "C", json!({"ack_policy": "explicit"})).await;
    for _ in 0..3 {
        rig.publish("s.a", &[], "x").await;
    }
    assert_eq!(rig.pull("S", "C", 3).await.len(), 3);
    let consumers = rig.jetstream.consumers("S").unwrap();
    let driver = consumers.get("C").unwrap();
    // While acked messages are being removed no state is written: whoever confirms one waits.
    driver.hold_release(true);
    let mut reset = std::pin::pin!(consumers.reset(&driver, 1));
    let early = tokio::time::timeout(Duration::from_millis(300), reset.as_mut()).await;
    assert!(early.is_err(), "confirmed before it is written: {early:?}");
    driver.hold_release(false);
    assert_eq!(reset.await.unwrap(), 1);
    let rows = rig.jetstream.stream("S").unwrap().log().consumers();
    let row = &rows[0].1;
    let rows = std::iter::once(&row.state).chain(&row.deltas).map(|row| &row[..]);
    let snapshot = crate::jetstream::consumer::snapshot::Snapshot::read(rows).unwrap();
    assert_eq!(snapshot.unwrap().next_seq, 1);
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_delivers_exactly_what_was_not_acked() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    rig.consumer(
        "S",
        "C",
        json!({"ack_policy": "explicit", "ack_wait": 60_000_000_000u64}),
    )
    .await;
    for at in 1..=6 {
        rig.publish("s.a", &[], &at.to_string()).await;
    }
    let first = rig.pull("S", "C", 4).await;
    assert_eq!(payloads(&first), ["1", "2", "3", "4"]);
    assert_eq!(
        first.iter().map(|came| number(came, 8)).collect::<Vec<_>>(),
        [5, 4, 3, 2]
    );
    rig.ack(&first[0], "").await;
    rig.ack(&first[2], "+ACK").await;
    rig.ack(&first[3], "-NAK").await;
    let rig = rig.restart().await;
    let info = rig.info("S", "C").await;
    assert_eq!(
        (
            &info["num_ack_pending"],
            &info["num_pending"],
            &info["ack_floor"]["stream_seq"]
        ),
        (&json!(2), &json!(2), &json!(1)),
        "{info}"
    );
    // What was given back comes at once, what somebody may be at work on when it is late.
    assert_eq!(payloads(&rig.pull("S", "C", 10).await), ["4", "5", "6"]);
    let again = &first[1];
    rig.ack(again, "-NAK").await;
    let again = rig.pull("S", "C", 10).await;
    assert_eq!((payloads(&again), number(&again[0], 4)), (vec!["2"], 2));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_ends_with_the_last_ack_whoever_gives_it() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "I", "subjects": ["i.>"], "retention": "interest"}))
        .await;
    for (name, filter) in [("A", "i.>"), ("B", "i.b")] {
        rig.consumer(
            "I",
            name,
            json!({"ack_policy": "explicit", "filter_subject": filter}),
        )
        .await;
    }
    for subject in ["i.a", "i.b", "i.b", "i.a"] {
        rig.publish(subject, &[], subject).await;
    }
    let (a, b) = (rig.pull("I", "A", 10).await, rig.pull("I", "B", 10).await);
    assert_eq!((a.len(), b.len()), (4, 2));
    rig.ack(&a[0], "").await;
    assert_eq!(summary(&rig.state("I").await), (3, 2, 4));
    rig.ack(&a[1], "").await;
    assert_eq!(summary(&rig.state("I").await), (3, 2, 4), "B has it still to do");
    rig.ack(&b[0], "").await;
    assert_eq!(summary(&rig.state("I").await), (2, 3, 4));
    let rig = rig.restart().await;
    assert_eq!(summary(&rig.state("I").await), (2, 3, 4));
    rig.ack(&a[2], "").await;
    assert_eq!(summary(&rig.state("I").await), (2, 3, 4));
    let deleted = rig.api("CONSUMER.DELETE.I.B", Value::Null).await;
    assert_eq!(deleted["success"], true);
    assert_eq!(
        summary(&rig.state("I").await),
        (1, 4, 4),
        "nobody waits for it any more"
    );
    rig.ack(&a[3], "").await;
    assert_eq!(summary(&rig.state("I").await), (0, 5, 4));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_queue_keeps_what_is_not_done() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "W", "subjects": ["w"], "retention": "workqueue"}))
        .await;
    for at in 1..=100 {
        rig.publish("w", &[], &at.to_string()).await;
    }
    rig.consumer("W", "C", json!({"ack_policy": "explicit"})).await;
    let all = rig.pull("W", "C", 100).await;
    for came in all.iter().filter(|came| number(came, 5).is_multiple_of(2)) {
        rig.ack(came, "").await;
    }
    assert_eq!(summary(&rig.state("W").await), (50, 1, 100));
    let rig = rig.restart().await;
    assert_eq!(summary(&rig.state("W").await), (50, 1, 100));
    assert_eq!(rig.info("W", "C").await["num_ack_pending"], 50);
    rig.ack(&all[0], "+TERM no use").await;
    assert_eq!(summary(&rig.state("W").await), (49, 3, 100));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_is_exact_whatever_comes_and_goes() {
    let rig = Rig::on_disk();
    rig.create(
        json!({"name": "S", "subjects": ["s.>"], "max_msgs_per_subject": 3, "allow_rollup_hdrs": true}),
    )
    .await;
    rig.consumer("S", "ALL", json!({"ack_policy": "none"})).await;
    rig.consumer(
        "S",
        "SOME",
        json!({"ack_policy": "none", "filter_subject": "s.1.*"}),
    )
    .await;
    let mut random = 12_345u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for round in 0..150 {
        let subject = format!("s.{}.{}", below(3), below(3));
        match below(10) {
            0 => drop(rig.publish(&subject, &[("Nats-Rollup", "sub")], "x").await),
            1 => {
                let seq = below(rig.state("S").await["last_seq"].as_u64().unwrap() + 1);
                rig.api("STREAM.MSG.DELETE.S", json!({"seq": seq.max(1)})).await;
            }
            2 if round % 3 == 0 => {
                rig.api("STREAM.PURGE.S", json!({"keep": below(8)})).await;
            }
            3 => drop(rig.api("STREAM.PURGE.S", json!({"filter": subject})).await),
            4 => drop(rig.pull("S", "ALL", below(3) + 1).await),
            5 => drop(rig.pull("S", "SOME", below(3) + 1).await),
            _ => drop(rig.publish(&subject, &[], "x").await),
        }
        for (name, filter) in [("ALL", ">"), ("SOME", "s.1.*")] {
            let info = rig.info("S", name).await;
            let from = info["delivered"]["stream_seq"].as_u64().unwrap() + 1;
            let stream = rig.jetstream.stream("S").unwrap();
            let expected = stream.count_from(&[filter.as_bytes().into()], from).unwrap();
            assert_eq!(info["num_pending"], expected, "round {round}: {info}");
        }
    }
    for name in ["ALL", "SOME"] {
        let pending = rig.info("S", name).await["num_pending"].as_u64().unwrap();
        let all = rig.pull("S", name, 1_000).await;
        assert_eq!(all.len() as u64, pending);
        let left: Vec<u64> = all.iter().map(|came| number(came, 8)).collect();
        assert_eq!(left, (0..pending).rev().collect::<Vec<_>>());
    }
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_waits_for_a_listener_and_beats() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    rig.publish("s.a", &[("k", "v")], "one").await;
    let config = json!({
        "deliver_subject": "out", "ack_policy": "explicit", "idle_heartbeat": 100_000_000,
        "flow_control": true, "headers_only": true,
    });
    rig.consumer("S", "P", config).await;
    assert_eq!(rig.info("S", "P").await["num_pending"], 1);
    let mut receiver = rig.listen("out");
    // On a busy machine a heartbeat may come before it.
    let came = loop {
        let came = receiver.next().await;
        if came.subject == "s.a" {
            break came;
        }
        assert!(came.headers.contains("Idle Heartbeat"), "{came:?}");
    };
    assert_eq!((came.subject.as_str(), came.payload.as_str()), ("s.a", ""));
    assert_eq!(came.headers, "NATS/1.0\r\nk: v\r\nNats-Msg-Size: 3\r\n\r\n");
    let info = rig.info("S", "P").await;
    assert_eq!(
        (&info["push_bound"], &info["num_ack_pending"]),
        (&json!(true), &json!(1))
    );
    let beat = receiver.next().await;
    assert!(
        beat.headers
            .starts_with("NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1"),
        "{beat:?}"
    );
    rig.jetstream.router().remove(&receiver.subscription);
    rig.publish("s.a", &[], "two").await;
    assert_eq!(rig.info("S", "P").await["num_pending"], 1, "nobody listens");
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_goes_to_the_dead_letters() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"], "retention": "workqueue"}))
        .await;
    rig.create(json!({"name": "DEAD", "subjects": ["dead"]})).await;
    let config = json!({
        "ack_policy": "explicit", "ack_wait": 50_000_000, "max_deliver": 2,
        "metadata": {"mesh.dead_letter": "dead"},
    });
    rig.consumer("S", "C", config).await;
    rig.publish("s.late", &[("k", "v")], "late").await;
    rig.publish("s.bad", &[], "bad").await;
    let began = Instant::now();
    let mut termed = false;
    while rig.state("DEAD").await["messages"] != 2 {
        assert!(began.elapsed() < Duration::from_secs(20));
        for came in rig.pull("S", "C", 10).await {
            if came.payload == "bad" && !std::mem::replace(&mut termed, true) {
                rig.ack(&came, "+TERM cannot be read").await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut dead = Vec::new();
    let stream = rig.jetstream.stream("DEAD").unwrap();
    // It counts what is on its way, and is read when that is durable.
    stream.settled().await;
    for seq in 1..=2 {
        let record = stream.get(seq).unwrap().unwrap();
        let header = |name: &str| {
            String::from_utf8_lossy(headers::get(&record.headers, name.as_bytes()).unwrap_or_default())
                .into_owned()
        };
        dead.push((
            header("Mesh-Dead-Letter-Subject"),
            header("Mesh-Dead-Letter-Reason"),
            header("k"),
            String::from_utf8_lossy(&record.payload).into_owned(),
        ));
    }
    dead.sort();
    let text = |all: [&str; 4]| {
        (
            all[0].to_owned(),
            all[1].to_owned(),
            all[2].to_owned(),
            all[3].to_owned(),
        )
    };
    assert_eq!(
        dead,
        [
            text(["s.bad", "cannot be read", "", "bad"]),
            text(["s.late", "maximum deliveries reached", "v", "late"])
        ]
    );
    while rig.state("S").await["messages"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "moved, not copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemerals_go_when_nobody_uses_them() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    let mut gone = rig.listen("$JS.EVENT.ADVISORY.CONSUMER.DELETED.S.*");
    let body =
        json!({"stream_name": "S", "config": {"ack_policy": "explicit", "inactive_threshold": 200_000_000}});
    let made = rig.api("CONSUMER.CREATE.S", body).await;
    let name = made["name"].as_str().unwrap().to_owned();
    assert_eq!(
        rig.api("CONSUMER.NAMES.S", Value::Null).await["consumers"],
        json!([name])
    );
    assert!(gone.next().await.subject.ends_with(&name));
    assert_eq!(rig.api("CONSUMER.NAMES.S", Value::Null).await["total"], 0);
    let rig = rig.restart().await;
    assert_eq!(rig.api("CONSUMER.NAMES.S", Value::Null).await["total"], 0);
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_per_subject_then_what_follows_also_after_a_restart() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"], "max_msgs_per_subject": 5}))
        .await;
    for (subject, payload) in [
        ("s.a", "a1"),
        ("s.b", "b1"),
        ("s.a", "a2"),
        ("s.c", "c1"),
        ("s.b", "b2"),
    ] {
        rig.publish(subject, &[], payload).await;
    }
    let config =
        json!({"ack_policy": "explicit", "deliver_policy": "last_per_subject", "filter_subject": "s.>"});
    let made = rig.consumer("S", "L", config).await;
    assert_eq!(made["num_pending"], 3);
    assert_eq!(payloads(&rig.pull("S", "L", 1).await), ["a2"]);
    rig.publish("s.d", &[], "d1").await;
    let rig = rig.restart().await;
    assert_eq!(rig.info("S", "L").await["num_pending"], 3);
    assert_eq!(payloads(&rig.pull("S", "L", 9).await), ["c1", "b2", "d1"]);
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_update_and_reset() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    for at in 1..=4 {
        rig.publish(["s.a", "s.b"][at % 2], &[], &at.to_string()).await;
    }
    rig.consumer("S", "C", json!({"ack_policy": "explicit"})).await;
    let until = rfc3339_in(Duration::from_secs(3600));
    let paused = rig.api("CONSUMER.PAUSE.S.C", json!({"pause_until": until})).await;
    assert_eq!(paused["paused"], true);
    let rig = rig.restart().await;
    assert_eq!(rig.info("S", "C").await["paused"], true);
    assert!(rig.pull("S", "C", 1).await.is_empty());
    rig.api("CONSUMER.PAUSE.S.C", json!({})).await;
    assert_eq!(payloads(&rig.pull("S", "C", 1).await), ["1"]);
    let info = rig
        .consumer(
            "S",
            "C",
            json!({"ack_policy": "explicit", "filter_subject": "s.a"}),
        )
        .await;
    assert_eq!(
        (&info["num_pending"], &info["num_ack_pending"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(payloads(&rig.pull("S", "C", 9).await), ["2", "4"]);
    let reset = rig.api("CONSUMER.RESET.S.C", json!({"seq": 2})).await;
    assert_eq!(
        (&reset["reset_seq"], &reset["num_pending"]),
        (&json!(2), &json!(2))
    );
    let rig = rig.restart().await;
    assert_eq!(payloads(&rig.pull("S", "C", 9).await), ["2", "4"]);
    rig.jetstream.shutdown().await;
}

fn rfc3339_in(after: Duration) -> String {
    time::rfc3339(now_ns() + i64::try_from(after.as_nanos()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_how_it_ends() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>"]})).await;
    rig.consumer("S", "C", json!({"ack_policy": "explicit"})).await;
    let next = "$JS.API.CONSUMER.MSG.NEXT.S.C";
    let mut receiver = rig.listen("in.*");
    rig.send(next, "in.1", r#"{"batch":2,"expires":200000000}"#);
    rig.publish("s.a", &[], "x").await;
    assert_eq!(receiver.next().await.payload, "x");
    let ended = receiver.next().await;
    assert_eq!(
        ended.headers,
        "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: 0\r\n\r\n"
    );
    rig.send(next, "in.2", r#"{"batch":1,"expires":60000000000}"#);
    rig.send("$JS.API.CONSUMER.MSG.NEXT.S.NONE", "in.3", "1");
    let nobody = receiver.next().await;
    assert!(
        nobody.subject == "in.3" && nobody.headers.starts_with("NATS/1.0 503"),
        "{nobody:?}"
    );
    rig.api("CONSUMER.DELETE.S.C", Value::Null).await;
    let ended = receiver.next().await;
    assert_eq!(
        (ended.subject.as_str(), ended.headers.as_str()),
        ("in.2", "NATS/1.0 409 Consumer Deleted\r\n\r\n")
    );
    assert!(receiver.rest().await.is_empty());
    rig.jetstream.shutdown().await;
}
