//! The verbs for people, typed as `nc` and `telnet` send them.

use sovereign_mesh::TestServer;

use super::{client, server};
use crate::support::Wire;

#[test]
fn a_person_with_nc() {
    let server = server(|_| {});
    let address = server.server().local_addr();
    let mut person = Wire::connect(address);
    person.send("watch chat.*\n");
    person.expect("+OK watching chat.*\r\n");
    person.ask("WATCH chat.*\n", "+OK watching chat.* already\r\n");
    let mut other = Wire::connect(address);
    other.ask("say chat.lobby hello   there\r\n", "+OK\r\n");
    person.expect("chat.lobby: hello   there\r\n");
    other.ask("SAY chat.lobby\n", "+OK\r\n");
    person.expect("chat.lobby: \r\n");
    // Control characters of others do not reach the terminal.
    other.ask("PUB chat.x 7\r\na\x1b[31m\n\r\n", "+OK\r\n");
    person.expect("chat.x: a\\u{1b}[31m\\n\r\n");
    person.ask("UNWATCH other\n", "-ERR 'other is not watched'\r\n");
    person.ask("unwatch chat.*\n", "+OK 1 ended\r\n");
    person.ask("UNWATCH\n", "+OK 0 ended\r\n");
    other.ask("SAY chat.lobby gone\n", "+OK\r\n");
    person.send("PING\n");
    person.expect("PONG\r\n");
}

#[test]
fn asking() {
    let server = server(|_| {});
    let mut responder = client(&server);
    responder.send("SUB svc 1\r\n");
    responder.expect_nothing();
    let mut person = Wire::connect(server.server().local_addr());
    person.send("ASK svc what time\nPING\n");
    let line = responder.line();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words[1], words[4]), ("MSG", "svc", "9"), "{line}");
    responder.expect("what time\r\n");
    responder.send(format!(
        "PUB {} 4\r\nnoon\r\nPUB {} 4\r\nlate\r\n",
        words[3], words[3]
    ));
    person.expect("noon\r\n+OK\r\nPONG\r\n");
    person.ask("ASK nobody hello\n", "-ERR 'nobody listens on nobody'\r\n");
    person.ask(
        "ASK svc.* hello\n",
        "-ERR 'expected ASK <subject> <text>, got svc.* hello'\r\n",
    );
}

#[test]
fn mistakes_get_one_line_and_the_connection_stays() {
    let server = server(|_| {});
    let mut person = Wire::connect(server.server().local_addr());
    for (typed, answer) in [
        ("SAY\n", "-ERR 'expected SAY <subject> <text>'\r\n"),
        (
            "SAY a..b x\n",
            "-ERR 'expected SAY <subject> <text>, got a..b x'\r\n",
        ),
        ("WATCH\n", "-ERR 'expected WATCH <subject>'\r\n"),
        ("WATCH a b\n", "-ERR 'expected WATCH <subject>, got a b'\r\n"),
        ("HELP nope\n", "-ERR 'no verb nope, HELP lists them'\r\n"),
        ("HELP it's\n", "-ERR 'no verb it`s, HELP lists them'\r\n"),
        (
            "HELP say\n",
            "SAY <subject> <text> - publish the rest of the line\r\n+OK\r\n",
        ),
    ] {
        person.ask(typed, answer);
    }
    person.send("HELP\n");
    let mut lines = 0;
    while person.line() != "+OK" {
        lines += 1;
    }
    assert!(lines > 5, "{lines} lines of help");
    person.send("PING\r\n");
    person.expect("PONG\r\n");
}

/// A verb that waits does not keep a connection that the server ends, nor one whose peer has gone.
#[test]
fn waiting_verbs_do_not_outlive_the_server() {
    let server = server(|_| {});
    let mut silent = client(&server);
    silent.send("SUB svc 1\r\n");
    silent.expect_nothing();
    let mut person = Wire::connect(server.server().local_addr());
    person.send("ASK svc one\n".repeat(1000));
    assert!(silent.line().starts_with("MSG svc 1 "));
    let began = std::time::Instant::now();
    drop(server);
    // A thousand times five seconds would be more than an hour.
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
    person.expect_end();
}

#[test]
fn with_credentials_only() {
    let server = server(|config| config.auth = sovereign_mesh::account::Auth::Token("t".into()));
    for typed in ["HELP\n", "SAY a b\n", "WATCH >\n"] {
        let mut person = Wire::connect(server.server().local_addr());
        person.ask(typed, "-ERR 'Authorization Violation'\r\n");
        person.expect_end();
    }
}

/// Somebody at a server with streams, and a stream to work on.
fn at_a_stream(config: &str) -> (Wire, TestServer, tempfile::TempDir) {
    let (server, directory) = crate::consumers::ours();
    let mut person = Wire::connect(server.server().local_addr());
    person.send(format!("ASK $JS.API.STREAM.CREATE.JOBS {config}\n"));
    let created = person.line();
    assert!(!created.contains("\"error\""), "{created}");
    person.expect("+OK\r\n");
    (person, server, directory)
}

#[test]
fn taking_and_settling() {
    let (mut person, _server, _directory) = at_a_stream(r#"{"name":"JOBS","subjects":["jobs.>"]}"#);
    for (at, text) in ["paint", "dry", "sell"].iter().enumerate() {
        person.ask(
            format!("SAY jobs.house {text}\n"),
            format!("+OK JOBS {}\r\n", at + 1),
        );
    }
    person.ask("CONSUMERS JOBS\n", "+OK 0\r\n");
    // Made on first use.
    person.ask("next JOBS crew\n", "1 jobs.house: paint\r\n+OK 1\r\n");
    person.ask(
        "NEXT JOBS crew 5\n",
        "2 jobs.house: dry\r\n3 jobs.house: sell\r\n+OK 2\r\n",
    );
    person.ask("NEXT JOBS crew 5\n", "+OK 0\r\n");
    person.ask("ACK JOBS crew 1\n", "+OK 1\r\n");
    person.ask("ack JOBS crew 1\n", "+OK 1\r\n");
    person.ask("NAK JOBS crew 2\n", "+OK 2\r\n");
    person.ask("TERM JOBS crew 3\n", "+OK 3\r\n");
    person.ask("NEXT JOBS crew 5\n", "2 jobs.house: dry\r\n+OK 1\r\n");
    person.send("CONSUMERS JOBS\n");
    let line = person.line();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "crew 0 pending 1 ack pending 1 redelivered acked to 1",
        "{line}"
    );
    person.expect("+OK 1\r\n");
    person.ask("ACK JOBS crew 2\n", "+OK 2\r\n");
    person.send("CONSUMERS JOBS\n");
    assert!(person.line().ends_with("acked to 3"));
    person.expect("+OK 1\r\n");
}

#[test]
fn a_work_queue_for_two() {
    let config = r#"{"name":"JOBS","subjects":["jobs.>"],"retention":"workqueue"}"#;
    let (mut one, server, _directory) = at_a_stream(config);
    let mut other = Wire::connect(server.server().local_addr());
    for at in 1..=3 {
        one.ask(format!("SAY jobs.{at} x\n"), format!("+OK JOBS {at}\r\n"));
    }
    one.ask("NEXT JOBS crew\n", "1 jobs.1: x\r\n+OK 1\r\n");
    other.ask("NEXT JOBS crew\n", "2 jobs.2: x\r\n+OK 1\r\n");
    one.ask("ACK JOBS crew 1\n", "+OK 1\r\n");
    other.ask("ACK JOBS crew 2\n", "+OK 2\r\n");
    one.ask("REPLAY JOBS\n", "3 jobs.3: x\r\n+OK 1\r\n");
}

#[test]
fn mistakes_with_consumers() {
    let (mut person, _server, _directory) = at_a_stream(r#"{"name":"JOBS","subjects":["jobs.>"]}"#);
    person.ask("SAY jobs.a x\n", "+OK JOBS 1\r\n");
    let few = r#"{"stream_name":"JOBS","config":{"durable_name":"few","ack_policy":"explicit","max_ack_pending":1}}"#;
    let none = r#"{"stream_name":"JOBS","config":{"durable_name":"none","ack_policy":"none"}}"#;
    let push = r#"{"stream_name":"JOBS","config":{"durable_name":"push","ack_policy":"explicit","deliver_subject":"out"}}"#;
    for (name, body) in [("few", few), ("none", none), ("push", push)] {
        person.send(format!(
            "ASK $JS.API.CONSUMER.DURABLE.CREATE.JOBS.{name} {body}\n"
        ));
        assert!(!person.line().contains("\"error\""));
        person.expect("+OK\r\n");
    }
    person.ask("NEXT JOBS none\n", "1 jobs.a: x\r\n+OK 1\r\n");
    person.ask("SAY jobs.a y\n", "+OK JOBS 2\r\n");
    person.ask("NEXT JOBS few 9\n", "1 jobs.a: x\r\n+OK 1\r\n");
    for (typed, answer) in [
        ("CONSUMERS", "expected CONSUMERS <stream>"),
        ("CONSUMERS A.B", "expected CONSUMERS <stream>, got A.B"),
        ("CONSUMERS NONE", "stream not found"),
        ("NEXT JOBS", "expected NEXT <stream> <consumer> [<n>], got JOBS"),
        (
            "NEXT JOBS c 0",
            "expected NEXT <stream> <consumer> [<n>], got JOBS c 0",
        ),
        (
            "NEXT JOBS c x",
            "expected NEXT <stream> <consumer> [<n>], got JOBS c x",
        ),
        (
            "NEXT JOBS a.b",
            "expected NEXT <stream> <consumer> [<n>], got JOBS a.b",
        ),
        (
            "NEXT JOBS *",
            "expected NEXT <stream> <consumer> [<n>], got JOBS *",
        ),
        ("NEXT NONE c", "stream not found"),
        (
            "NEXT JOBS few",
            "1 messages wait to be settled, ACK or NAK some first",
        ),
        ("NEXT JOBS push", "push answered 409 Consumer is push based"),
        (
            "ACK JOBS few",
            "expected ACK <stream> <consumer> <seq>, got JOBS few",
        ),
        (
            "ACK JOBS few x",
            "expected ACK <stream> <consumer> <seq>, got JOBS few x",
        ),
        ("NAK JOBS few 2", "message 2 was not delivered to few"),
        ("TERM JOBS few 0", "message 0 was not delivered to few"),
        ("ACK JOBS none 1", "none takes no acks"),
        ("ACK JOBS nobody 1", "consumer not found"),
        ("ACK NONE few 1", "stream not found"),
        ("PEERS all", "expected PEERS, got all"),
    ] {
        person.ask(format!("{typed}\n"), format!("-ERR '{answer}'\r\n"));
    }
    person.ask("ACK JOBS few 1\n", "+OK 1\r\n");
    person.ask("NEXT JOBS few 9\n", "2 jobs.a: y\r\n+OK 1\r\n");
}

#[test]
fn who_is_there() {
    let (server, _directory) = crate::consumers::ours();
    let mut person = Wire::connect(server.server().local_addr());
    person.ask("PEERS\n", "+OK 0\r\n");
    person.send(concat!(
        r#"ASK $JS.API.STREAM.CREATE.KV_PEERS {"name":"KV_PEERS","subjects":["$KV.PEERS.>"],"#,
        r#""max_msgs_per_subject":1,"allow_rollup_hdrs":true}"#,
        "\n"
    ));
    person.line();
    person.expect("+OK\r\n");
    let peer = r#"{"instance":"oak","session":"s-1","host":"here","pid":7,"since":"2026-01-02T03:04:05Z"}"#;
    person.ask(format!("SAY $KV.PEERS.oak {peer}\n"), "+OK KV_PEERS 1\r\n");
    // One who left: a marker has no value.
    person.ask("SAY $KV.PEERS.elm\n", "+OK KV_PEERS 2\r\n");
    person.send("PEERS\n");
    let words: Vec<String> = person.line().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["oak", "s-1", "here", "since", "2026-01-02T03:04:05Z"]);
    person.expect("+OK 1\r\n");
}
