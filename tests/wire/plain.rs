//! The verbs for people, typed as `nc` and `telnet` send them.

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
