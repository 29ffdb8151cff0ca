//! The pages beside those of a real nats-server after the same conversation: the same fields with the same types, and
//! connections in the same order by every sort.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use sovereign_mesh::TestServer;

use super::support::{Client, NatsServer, eventually, get, page, skipped};

/// Ours beyond theirs.
const OURS: [&str; 4] = ["mesh", "fix", "sync", "sync_always"];
/// Theirs for want of the thing here.
const THEIRS: [&str; 7] = [
    "git_commit",
    "feature_flags",
    "disk_io_wait_stats",
    // Of the account: what it imports from the system account.
    "imports",
    "http_req_stats",
    // There messages are synced by time unless it is told otherwise, here before each acknowledgement.
    "sync_interval",
    // Nothing is limited by default here.
    "default_max_consumers",
];

/// What stays when the test lets the clients go.
struct Cast(#[allow(dead_code, reason = "held so that they stay connected")] Vec<Client>);

/// Clients that differ in everything a page shows.
fn play(at: SocketAddr, monitor: SocketAddr) -> Cast {
    let connect = |name: &str| {
        let mut client = Client::connect(
            at,
            &format!(",\"name\":\"{name}\",\"lang\":\"test\",\"version\":\"1\",\"headers\":true"),
        );
        // Sets the clients apart in time.
        client.flush();
        std::thread::sleep(std::time::Duration::from_millis(30));
        client
    };
    let (mut one, mut two, mut three) = (connect("one"), connect("two"), connect("three"));
    one.send("SUB a 1\r\nSUB b.* 2\r\nSUB c q 3\r\nSUB d 4\r\nUNSUB 4 9\r\n");
    two.send("SUB a 1\r\nSUB b.x 2\r\n");
    one.flush();
    two.flush();
    three.send("PUB a 2\r\nhi\r\nPUB b.y 3\r\nhey\r\nPUB c 1\r\nx\r\n");
    two.send("PUB nobody 40\r\n1234567890123456789012345678901234567890\r\n");
    for client in [&mut three, &mut two, &mut one] {
        client.flush();
    }
    let mut wrong = connect("wrong");
    wrong.send("GARBAGE\r\n");
    while !wrong.line().is_empty() {}
    drop(connect("left"));
    eventually(monitor, "/connz?state=closed", |found| found["total"] == 2);
    Cast(vec![one, two, three])
}

/// Streams, messages and consumers. The connection that makes them goes again.
fn fill(at: SocketAddr) {
    let mut client = Client::connect(at, ",\"name\":\"filler\",\"headers\":true");
    client.send("SUB filled 1\r\n");
    let mut ask = |subject: &str, body: &str| {
        client.send(&format!("PUB {subject} filled {}\r\n{body}\r\n", body.len()));
        let answer = client.message();
        assert!(!answer.contains("\"error\""), "{subject}: {answer}");
    };
    for config in [
        r#"{"name":"ORDERS","subjects":["orders.>"],"storage":"file","max_bytes":100000,"max_msgs":100}"#,
        r#"{"name":"LIVE","subjects":["live"],"storage":"memory","max_age":60000000000}"#,
    ] {
        let name = if config.contains("ORDERS") {
            "ORDERS"
        } else {
            "LIVE"
        };
        ask(&format!("$JS.API.STREAM.CREATE.{name}"), config);
    }
    for n in 0..4 {
        ask(&format!("orders.{n}"), "hello");
    }
    ask("$JS.API.STREAM.MSG.DELETE.ORDERS", r#"{"seq":2}"#);
    ask(
        "$JS.API.CONSUMER.CREATE.ORDERS.reader",
        r#"{"stream_name":"ORDERS","config":{"durable_name":"reader","name":"reader","ack_policy":"explicit"}}"#,
    );
    // One message is on its way, so that the consumer has been active.
    ask("$JS.API.CONSUMER.MSG.NEXT.ORDERS.reader", "1");
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every field with its type, as `path type`; rows of a list count as one.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if OURS.contains(&name.as_str()) || THEIRS.contains(&name.as_str()) {
                    continue;
                }
                let path = format!("{path}.{name}");
                out.insert(format!("{path} {}", kind(value)));
                shape(value, &path, out);
            }
        }
        Value::Array(rows) => rows.iter().for_each(|row| shape(row, &format!("{path}[]"), out)),
        _ => {}
    }
}

#[test]
fn pages_have_the_fields_of_nats_server() {
    let store = tempfile::tempdir().unwrap();
    let theirs = match NatsServer::start(&["-js", "-sd", store.path().to_str().unwrap()]) {
        Ok(server) => server,
        Err(why) => return skipped("pages beside those of nats-server", &why),
    };
    let ours = TestServer::start();
    let our_monitor = ours.server().monitor_addr().unwrap();
    // At the same time: each waits for the first PING.
    let (_ours_cast, _theirs_cast) = std::thread::scope(|scope| {
        let other = scope.spawn(|| play(theirs.clients, theirs.monitor));
        (
            play(ours.server().local_addr(), our_monitor),
            other.join().unwrap(),
        )
    });
    for (clients, monitor) in [
        (ours.server().local_addr(), our_monitor),
        (theirs.clients, theirs.monitor),
    ] {
        fill(clients);
        eventually(monitor, "/connz?state=closed", |found| found["total"] == 3);
    }
    for path in [
        "/varz",
        "/connz",
        "/connz?subs=1",
        "/connz?subs=detail",
        "/connz?state=closed",
        "/connz?state=any&auth=1",
        "/connz?cid=999",
        "/subsz",
        "/subsz?subs=1&acc=$G",
        "/subsz?subs=1&test=b.x",
        "/jsz",
        "/jsz?accounts=1",
        "/jsz?acc=$G",
        "/jsz?acc=none&streams=1",
        "/jsz?streams=1",
        "/jsz?accounts=1&offset=1",
        "/jsz?accounts=1&streams=1&consumers=1&config=1",
        "/routez",
        "/gatewayz",
        "/leafz",
        "/accountz",
        "/accountz?acc=$G",
        "/accstatz",
        "/healthz",
        "/healthz?js-enabled-only=1",
        "/healthz?details=1",
    ] {
        let mut shapes = [BTreeSet::new(), BTreeSet::new()];
        shape(&page(our_monitor, path), "", &mut shapes[0]);
        shape(&page(theirs.monitor, path), "", &mut shapes[1]);
        let only = |a: usize, b: usize| shapes[a].difference(&shapes[b]).collect::<Vec<_>>();
        assert_eq!(
            (only(0, 1), only(1, 0)),
            (vec![], vec![]),
            "{path}: (ours alone, theirs alone)"
        );
    }
    // Not by what is the same for all (pending): ties are in no order there.
    for sort in [
        "cid",
        "start",
        "subs",
        "msgs_to",
        "msgs_from",
        "bytes_to",
        "bytes_from",
        "uptime",
    ] {
        let path = format!("/connz?sort={sort}");
        assert_eq!(names(our_monitor, &path), names(theirs.monitor, &path), "{path}");
    }
    for query in [
        "sort=stop",
        "sort=reason",
        "sort=start",
        "sort=cid",
        "sort=cid&limit=1&offset=1",
    ] {
        let path = format!("/connz?state=closed&{query}");
        assert_eq!(names(our_monitor, &path), names(theirs.monitor, &path), "{path}");
    }
    for path in [
        "/connz?sort=bogus",
        "/connz?sort=stop",
        "/connz?state=foo",
        "/connz?limit=x",
        "/connz?cid=x",
        "/connz?auth=maybe",
        "/subsz?test=a..b",
        "/jsz?limit=a",
        "/accountz?acc=zzz",
        "/healthz?stream=x",
        "/healthz?account=$G&stream=ORDERS",
        "/healthz?account=$G&stream=none",
        "/healthz?account=$G&stream=none&details=1",
        "/healthz?account=none",
        "/healthz?account=$G&stream=ORDERS&consumer=none",
        "/healthz?account=$G&stream=ORDERS&consumer=reader",
        "/healthz?js-enabled-only=1&account=$G&stream=none",
        "/nothing",
    ] {
        assert_eq!(
            get(our_monitor, path).status,
            get(theirs.monitor, path).status,
            "{path}"
        );
    }
}

fn names(at: SocketAddr, path: &str) -> Vec<String> {
    let found = page(at, path);
    let rows = found["connections"].as_array().unwrap();
    rows.iter()
        .map(|row| row["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}
