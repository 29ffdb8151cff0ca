//! Credentials on the wire: nkeys, hashes, permissions of the verbs for people, and guessers that slow nobody.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{Process, Wire, skip};

use super::Site;

const HASH: &str = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i";

fn config(authorization: &str) -> String {
    format!("port: -1\nmonitor_port: 0\nauthorization {{ {authorization} }}\n")
}

/// Signs the nonce and says how it went.
fn sign_in(address: &str, key: &nkeys::KeyPair, signer: &nkeys::KeyPair) -> String {
    let mut wire = Wire::connect(address);
    let nonce = wire.info()["nonce"].as_str().expect("a nonce").to_owned();
    assert_eq!(nonce.len(), 15);
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(nonce.as_bytes()).unwrap());
    let key = key.public_key();
    wire.send(format!(
        "CONNECT {{\"verbose\":false,\"nkey\":\"{key}\",\"sig\":\"{signature}\"}}\r\nPING\r\n"
    ));
    wire.line()
}

#[test]
fn nkeys_sign_the_nonce() {
    let (good, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let users = format!("users: [ {{ nkey: {} }} ]", good.public_key());
    let ours = Site::new(&config(&users)).serve(&[]);
    let theirs = Process::nats(&format!("authorization {{ {users} }}"));
    if theirs.is_none() {
        skip(
            "nkeys with nats-server",
            "no program in NATS_SERVER or on the search path",
        );
    }
    for server in [Some(ours), theirs].iter().flatten() {
        let address = server.address();
        assert_eq!(sign_in(address, &good, &good), "PONG");
        assert_eq!(sign_in(address, &good, &other), "-ERR 'Authorization Violation'");
        assert_eq!(sign_in(address, &other, &other), "-ERR 'Authorization Violation'");
    }
}

/// What is denied to a queue group cannot be had by way of a wider subscription in it, nor where others are denied it too.
#[test]
fn what_is_denied_to_a_queue_group_is_not_had_by_a_wildcard() {
    let users = "users: [ { user: a, password: pa, permissions { subscribe { deny: [\"jobs.x q\", both, \"both q\"] } } }
        { user: b, password: pb } ]";
    let ours = Site::new(&config(users)).serve(&[]);
    let theirs = Process::nats(&format!("authorization {{ {users} }}"));
    if theirs.is_none() {
        skip(
            "queue groups with nats-server",
            "no program in NATS_SERVER or on the search path",
        );
    }
    for server in [Some(ours), theirs].iter().flatten() {
        let quiet = |fields: &str| Wire::quiet(server.address(), fields);
        let mut a = quiet("\"user\":\"a\",\"pass\":\"pa\"");
        let mut b = quiet("\"user\":\"b\",\"pass\":\"pb\"");
        for (pattern, queue) in [("jobs.x", "q"), ("both", "q"), ("both", "other")] {
            let refusal = format!(
                "-ERR 'Permissions Violation for Subscription to \"{pattern}\" using queue \"{queue}\"'\r\n"
            );
            a.ask(format!("SUB {pattern} {queue} 9\r\n"), refusal);
        }
        a.send("SUB jobs.* q 1\r\nSUB jobs.* other 2\r\nSUB jobs.x 3\r\n");
        a.expect_nothing();
        b.send("PUB jobs.y 1\r\ny\r\nPUB jobs.x 1\r\nx\r\n");
        b.expect_nothing();
        a.send("PING\r\n");
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|line| line != "PONG") {
            heard.push(a.line());
        }
        heard.retain(|line| line.starts_with("MSG"));
        heard.sort();
        assert_eq!(
            heard,
            [
                "MSG jobs.x 2 1",
                "MSG jobs.x 3 1",
                "MSG jobs.y 1 1",
                "MSG jobs.y 2 1"
            ]
        );
    }
}

#[test]
fn verbs_for_people_heed_permissions() {
    let users = "users: [ { user: a, password: pa, permissions { publish: \"ok.>\", subscribe { allow: \"ok.>\", deny: \"ok.no\" } } } ]";
    let server = Site::new(&config(users)).serve(&[]);
    let mut wire = Wire::quiet(server.address(), "\"user\":\"a\",\"pass\":\"pa\"");
    let denied =
        |what: &str, subject: &str| format!("-ERR 'Permissions Violation for {what} to \"{subject}\"'\r\n");
    wire.ask("SAY other hello\r\n", denied("Publish", "other"));
    wire.ask("ASK other hello\r\n", denied("Publish", "other"));
    wire.ask("WATCH other\r\n", denied("Subscription", "other"));
    wire.ask("WATCH >\r\n", denied("Subscription", ">"));
    wire.ask("WATCH ok.>\r\n", "+OK watching ok.>\r\n");
    wire.ask("SAY ok.no hidden\r\n", "+OK\r\n");
    wire.ask("SAY ok.yes shown\r\n", "ok.yes: shown\r\n+OK\r\n");
    wire.send("STREAMS\r\n");
    let answer = wire.line();
    assert!(
        answer.starts_with("-ERR 'Permissions Violation for Publish to \"$JS.API."),
        "{answer}"
    );
}

#[test]
fn the_log_says_who_was_refused_what_and_why() {
    let site = Site::new(&config(
        "users: [\n { user: a, password: pa, permissions { publish: ok } }\n ]",
    ));
    let server = site.serve(&[]);
    let mut wrong = Wire::connect(server.address());
    wrong.ask(
        "CONNECT {\"user\":\"a\",\"pass\":\"x\"}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    );
    let log = server.wait_for("authentication error");
    let rule = format!("password of user \"a\" ({}:4:2)", site.file());
    assert!(
        log.contains(" - cid:1 - ")
            && log.contains("authentication error - User \"a\": ")
            && log.contains(&rule),
        "{log}"
    );
    let mut wire = Wire::quiet(server.address(), "\"user\":\"a\",\"pass\":\"pa\"");
    wire.send("PUB other 0\r\n\r\n".repeat(2000));
    wire.expect("-ERR 'Permissions Violation for Publish to \"other\"'\r\n".repeat(2000));
    let log = server.wait_for("2000 violations so far");
    let rule = format!(
        "Publish Violation - Subject \"other\" - User \"a\", permissions at {}:4:2",
        site.file()
    );
    assert!(log.contains(&rule), "{log}");
    // One by one at first, then by the thousand.
    assert_eq!(log.matches("Publish Violation").count(), 12);
}

#[test]
fn guessers_slow_nobody() {
    let users =
        format!("users: [ {{ user: a, password: {HASH} }}, {{ user: b, password: pb }} ], timeout: 1");
    let site = Site::new(&config(&users));
    let server = site.serve(&[]);
    let mut honest = Wire::quiet(server.address(), "\"user\":\"b\",\"pass\":\"pb\"");
    // Once in, one comes in again without a comparison.
    Wire::quiet(server.address(), "\"user\":\"a\",\"pass\":\"abc\"");
    let before = server.resident_kib();
    let guess = |at: usize, user: &str| {
        let mut wire = Wire::connect(server.address());
        wire.send(format!(
            "CONNECT {{\"user\":\"{user}\",\"pass\":\"guess {at}\"}}\r\n"
        ));
        wire
    };
    let mut guessers: Vec<_> = (0..200).map(|at| guess(at, "a")).collect();
    let mut slowest = Duration::ZERO;
    for at in 0..100 {
        let began = Instant::now();
        honest.send("PING\r\n");
        // The server may ask for a sign of life meanwhile.
        while honest.line() != "PONG" {}
        slowest = slowest.max(began.elapsed());
        drop(guess(at, "b"));
    }
    Wire::quiet(server.address(), "\"user\":\"a\",\"pass\":\"abc\"");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for wire in &mut guessers {
        let end = String::from_utf8(wire.drain()).unwrap();
        // Compared, or not before its time was over.
        let is_end = [
            "-ERR 'Authorization Violation'\r\n",
            "-ERR 'Authentication Timeout'\r\n",
        ]
        .contains(&&*end);
        assert!(is_end, "{end:?}");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}
