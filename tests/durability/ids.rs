//! Message ids whose messages are gone when the server is killed: within the window a publisher that tries again is told so,
//! and nothing is stored twice.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Client;
use crate::support::Process;

/// The shortest that a stream may have.
const SHORT_WINDOW: Duration = Duration::from_millis(100);

/// Publishes with header lines; says the sequence, `dup` before that of a duplicate, or the error.
fn say(client: &mut Client, subject: &str, lines: &[(&str, &str)]) -> String {
    client.sent += 1;
    let mut headers = "NATS/1.0\r\n".to_owned();
    for (name, value) in lines {
        headers.push_str(&format!("{name}: {value}\r\n"));
    }
    headers.push_str("\r\n");
    let (reply, length) = (format!("_I.{}.{}", client.port, client.sent), headers.len());
    let mut out = Vec::new();
    write!(
        out,
        "HPUB {subject} {reply} {length} {}\r\n{headers}x\r\n",
        length + 1
    )
    .unwrap();
    client.send(&out).unwrap();
    let ack: Value = serde_json::from_slice(&client.answer().unwrap().payload).unwrap();
    match (&ack["error"]["description"], &ack["duplicate"]) {
        (Value::String(error), _) => error.clone(),
        (_, Value::Bool(true)) => format!("dup {}", ack["seq"]),
        _ => ack["seq"].to_string(),
    }
}

fn with_id(client: &mut Client, subject: &str, id: &str) -> String {
    say(client, subject, &[("Nats-Msg-Id", id)])
}

fn after_id(client: &mut Client, subject: &str, id: &str) -> String {
    say(client, subject, &[("Nats-Expected-Last-Msg-Id", id)])
}

/// Takes the next message of a consumer and settles it.
fn work(client: &mut Client, stream: &str, consumer: &str) {
    let mut out = Vec::new();
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    client.publish(&mut out, &next, None, b"{\"batch\":1}");
    client.send(&out).unwrap();
    let message = client.answer().unwrap();
    let mut out = Vec::new();
    client.publish(&mut out, &message.reply, None, b"+ACK");
    client.send(&out).unwrap();
    assert!(client.answer().unwrap().payload.is_empty());
}

fn prepare(client: &mut Client) {
    for (name, more) in [
        ("WORK", json!({ "retention": "workqueue" })),
        ("NONE", json!({ "retention": "interest" })),
        ("KEYS", json!({ "max_msgs_per_subject": 1 })),
        ("GONE", json!({})),
        ("PURGED", json!({})),
        ("FEW", json!({ "max_msgs": 1 })),
        (
            "SHORT",
            json!({ "duplicate_window": SHORT_WINDOW.as_nanos() as u64 }),
        ),
    ] {
        let mut config = json!({ "name": name, "subjects": [name.to_lowercase() + ".*"], "storage": "file" });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        client.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config);
    }
    let worker =
        json!({ "stream_name": "WORK", "config": { "durable_name": "w", "ack_policy": "explicit" } });
    client.ask("$JS.API.CONSUMER.DURABLE.CREATE.WORK.w", &worker);
}

/// Each stream ends with a message, or a gap, that had the id `last`; `one` and `last` are gone.
fn publish(client: &mut Client) {
    for subject in [
        "work.a", "none.a", "keys.a", "gone.a", "purged.a", "few.a", "short.a",
    ] {
        for (seq, id) in ["one", "two", "last"].into_iter().enumerate() {
            assert_eq!(with_id(client, subject, id), (seq + 1).to_string(), "{subject}");
        }
    }
    (0..3).for_each(|_| work(client, "WORK", "w"));
    for seq in [1, 3] {
        client.ask("$JS.API.STREAM.MSG.DELETE.GONE", &json!({ "seq": seq }));
    }
    // All are gone, and the next one comes later than that.
    client.ask("$JS.API.STREAM.PURGE.PURGED", &json!({ "seq": 10 }));
    client.ask("$JS.API.STREAM.PURGE.SHORT", &json!({}));
}

fn check(client: &mut Client, round: &str) {
    for subject in ["work.a", "none.a", "keys.a", "gone.a", "purged.a", "few.a"] {
        for (seq, id) in ["one", "two", "last"].into_iter().enumerate() {
            let answer = with_id(client, subject, id);
            assert_eq!(answer, format!("dup {}", seq + 1), "{round}: {id} on {subject}");
        }
        let wrong = after_id(client, subject, "two");
        assert_eq!(wrong, "wrong last msg ID: last", "{round}: {subject}");
    }
}

#[test]
fn ids_of_messages_that_are_gone_outlive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--store-dir", directory.path().to_str().unwrap()];
    let mut server = Process::mesh(&args);
    let mut client = Client::connect(server.address()).unwrap();
    prepare(&mut client);
    publish(&mut client);
    let published = Instant::now();
    check(&mut client, "before");
    // The journal alone has them; then the tables, too; then a checkpoint.
    for (round, signal) in [
        ("killed", Signal::KILL),
        ("killed again", Signal::KILL),
        ("stopped", Signal::TERM),
        ("killed after a stop", Signal::KILL),
    ] {
        if round == "killed after a stop" {
            // The index of the checkpoint does not fit any more; its ids do.
            let config = json!({ "name": "GONE", "subjects": ["gone.*"], "max_msgs_per_subject": 5 });
            client.ask("$JS.API.STREAM.UPDATE.GONE", &config);
        }
        server.signal(signal);
        server.wait();
        server = Process::mesh(&args);
        client = Client::connect(server.address()).unwrap();
        check(&mut client, round);
    }
    // What left the window is taken again, at once: the clock need not have looked.
    std::thread::sleep(SHORT_WINDOW.saturating_sub(published.elapsed()));
    assert_eq!(with_id(&mut client, "short.a", "one"), "4");
    // The last message may be one without an id, and be gone.
    assert_eq!(say(&mut client, "gone.a", &[]), "4");
    client.ask("$JS.API.STREAM.MSG.DELETE.GONE", &json!({ "seq": 4 }));
    assert_eq!(say(&mut client, "none.a", &[]), "4");
    assert_eq!(with_id(&mut client, "work.a", "more"), "4");
    server.signal(Signal::KILL);
    server.wait();
    server = Process::mesh(&args);
    client = Client::connect(server.address()).unwrap();
    for subject in ["gone.a", "none.a"] {
        assert_eq!(after_id(&mut client, subject, "last"), "wrong last msg ID: ");
        assert_eq!(with_id(&mut client, subject, "two"), "dup 2");
    }
    assert_eq!(after_id(&mut client, "work.a", "more"), "5");
    for (subject, next) in [("purged.a", "10"), ("keys.a", "4"), ("few.a", "4")] {
        assert_eq!(after_id(&mut client, subject, "last"), next, "{subject}");
    }
}
