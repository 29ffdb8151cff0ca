//! The log has one line for each connection that ends badly, with the cause that the client is not told.

use serde_json::Value;

use crate::support::{Process, Wire};

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

#[test]
fn each_has_its_line_in_json() {
    let server = server("json");
    provoke(&server);
    let log = server.wait_for("AUTH came before");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ended: Vec<_> = lines
        .iter()
        .filter(|line| line["fields"]["reason"].is_string())
        .collect();
    assert_eq!(ended.len(), TABLE.len() + 1, "{log}");
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
        assert!(fields["cid"].is_u64() && fields["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    assert!(!log.contains(SECRET) && !log.contains("hunter3"), "{log}");
}

#[test]
fn each_has_its_line_in_text() {
    let server = server("text");
    provoke(&server);
    let log = server.wait_for("AUTH came before");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("[WRN]")).collect();
    assert_eq!(lines.len(), TABLE.len() + 1, "{log}");
    let first = lines[0];
    let shape = " - cid:1 - \"it\" - Parse Error: no such operation in [NONSENSE and more]";
    assert!(first.contains("127.0.0.1:") && first.ends_with(shape), "{first}");
    for (line, (bytes, _, cause)) in lines.iter().zip(TABLE) {
        assert!(line.contains(cause), "{bytes}: {line}");
    }
    assert!(!log.contains(SECRET) && !log.contains("hunter3"), "{log}");
}

#[test]
fn who_leaves_in_order_is_not_worth_a_line_unless_asked_for() {
    for (flags, lines) in [(&["-a", "127.0.0.1"][..], 0), (&["-D"][..], 1)] {
        let server = Process::mesh(flags);
        let mut wire = Wire::quiet(server.address(), "");
        wire.finish();
        wire.drain();
        let mut wire = Wire::quiet(server.address(), "");
        wire.send("NONSENSE\r\n");
        wire.drain();
        let log = server.wait_for("[NONSENSE]");
        assert_eq!(log.matches("Client Closed").count(), lines, "{log}");
    }
}
