//! The log has one line for each connection that ends badly, with the cause that the client is not told.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{PATIENCE, Process, Wire};

const SECRET: &str = "hunter2";

/// What a client sends; the reason and a part of the cause in the log.
const TABLE: [(&str, &str, &str); 9] = [
    ("NONSENSE and more\r\n", "parse_error", "[NONSENSE and more]"),
    ("PUB a b c d\r\n", "protocol_violation", "[PUB a b c d]"),
    ("PUB a 5000\r\n", "payload_exceeded", "5000 bytes, at most 4096"),
    ("PUB a 2\r\nlonger\r\n", "parse_error", "2 bytes"),
    (
        "HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "protocol_violation",
        "headers",
    ),
    (
        "CONNECT {\"verbose\":false,\"user\":\"ann\",\"pass\":\"hunter2\",\"protocol\":7}\r\n",
        "bad_client_protocol",
        "protocol 7",
    ),
    (
        "CONNECT {\"user\":\"ann\",\"pass\":\"hunter3\"}\r\n",
        "authentication_failure",
        "the password of user \"ann\"",
    ),
    (
        "CONNECT {\"user\":\"bob\",\"pass\":\"hunter2\"}\r\n",
        "authentication_failure",
        "no user \"bob\"",
    ),
    (
        "CONNECT {\"verbose\":\r\n",
        "protocol_violation",
        "cannot be read",
    ),
];

fn provoke(server: &Process) {
    for (bytes, ..) in TABLE {
        let mut wire = Wire::connect(server.address());
        wire.send(format!(
            "CONNECT {{\"verbose\":false,\"name\":\"it\",\"user\":\"ann\",\"pass\":\"{SECRET}\"}}\r\n"
        ));
        wire.send(bytes);
        wire.drain();
    }
    // Before it has shown anything: what it sends might be a secret.
    let mut wire = Wire::connect(server.address());
    wire.send(format!("AUTH {SECRET}\r\n"));
    wire.drain();
}

fn server(format: &str) -> Process {
    Process::mesh(&[
        "--user",
        "ann",
        "--pass",
        SECRET,
        "--max-payload",
        "4096",
        "--log-format",
        format,
    ])
}

/// The log once it has a line with `mark` for each of the connections: a line may come a moment after the end it is about.
fn complaints(server: &Process, mark: &str) -> String {
    let began = Instant::now();
    loop {
        let log = server.wait_for(mark);
        if log.matches(mark).count() > TABLE.len() {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "too few lines with {mark} in\n{log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_has_its_line_in_json() {
    let server = server("json");
    provoke(&server);
    let log = complaints(&server, "\"reason\":");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut ended: Vec<_> = lines
        .iter()
        .filter(|line| line["fields"]["reason"].is_string())
        .collect();
    assert_eq!(ended.len(), TABLE.len() + 1, "{log}");
    ended.sort_by_key(|line| line["fields"]["cid"].as_u64());
    for (line, (bytes, reason, cause)) in ended.iter().zip(TABLE) {
        let fields = &line["fields"];
        assert_eq!(
            (&line["level"], &fields["reason"]),
            (&"WARN".into(), &reason.into()),
            "{bytes}"
        );
        assert!(
            fields["cause"].as_str().unwrap().contains(cause),
            "{bytes}: {line}"
        );
        assert!(fields["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    assert!(log.contains("AUTH came before"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains("hunter3"), "{log}");
}

#[test]
fn each_has_its_line_in_text() {
    let server = server("text");
    provoke(&server);
    let log = complaints(&server, "[WRN]");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("[WRN]")).collect();
    assert_eq!(lines.len(), TABLE.len() + 1, "{log}");
    let shape = " - \"it\" - Parse Error: no such operation in [NONSENSE and more]";
    assert!(
        lines
            .iter()
            .any(|line| line.contains("127.0.0.1:") && line.contains(" - cid:") && line.ends_with(shape)),
        "{log}"
    );
    for (bytes, _, cause) in TABLE {
        assert!(lines.iter().any(|line| line.contains(cause)), "{bytes}: {log}");
    }
    assert!(!log.contains(SECRET) && !log.contains("hunter3"), "{log}");
}

#[test]
fn who_leaves_in_order_is_not_worth_a_line_unless_asked_for() {
    for (flags, told) in [(&["-a", "127.0.0.1"][..], false), (&["-D"][..], true)] {
        let server = Process::mesh(flags);
        let mut wire = Wire::quiet(server.address(), "");
        wire.finish();
        wire.drain();
        let mut wire = Wire::quiet(server.address(), "");
        wire.send("NONSENSE\r\n");
        wire.drain();
        if told {
            server.wait_for("Client Closed");
        }
        let log = server.wait_for("[NONSENSE]");
        assert_eq!(log.contains("Client Closed"), told, "{log}");
    }
}
