//! Many at once: floods of pull requests, slow ones beside fast ones, consumers that come and go by the thousand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Process, Wire};

use super::client::{Client, parse};
use super::ours;

fn api(client: &mut Client, subject: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client.request(&format!("$JS.API.{subject}"), "", &body);
    let value: Value = serde_json::from_str(&answer.payload).expect("JSON");
    assert!(value.get("error").is_none(), "{subject} {body}: {value}");
    value
}

fn stream_and_consumer(client: &mut Client, config: Value) {
    let stream = json!({"name": "S", "subjects": ["s.>"]});
    api(client, "STREAM.CREATE.S", &stream);
    let mut config = config;
    config["durable_name"] = "C".into();
    config["ack_policy"] = "explicit".into();
    let body = json!({"stream_name": "S", "config": config});
    api(client, "CONSUMER.DURABLE.CREATE.S.C", &body);
}

/// The statuses that come for `count` requests, by their text.
fn statuses(wire: &mut Wire, count: usize) -> std::collections::BTreeMap<String, usize> {
    let mut found = std::collections::BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        while let Some((message, length)) = parse(wire.received()) {
            let mut rest = wire.take();
            rest.drain(..length);
            wire.put_back(rest);
            let Some(message) = message else { continue };
            let text = match message.headers.lines().next() {
                Some(line) => line.trim_start_matches("NATS/1.0 ").to_owned(),
                None => "a message".to_owned(),
            };
            *found.entry(text).or_default() += 1;
            seen += 1;
        }
        assert!(Instant::now() < deadline, "only {found:?}");
        if seen < count {
            wire.read_some(Duration::from_millis(200));
        }
    }
    found
}

#[test]
fn a_flood_of_requests_is_bounded_and_answered() {
    let (server, _directory) = ours();
    let address = server.server().local_addr().to_string();
    let mut client = Client::connect(&address);
    stream_and_consumer(&mut client, json!({"max_waiting": 10, "ack_wait": 1_000_000_000}));
    let mut flood = Wire::quiet(&address, r#""headers":true,"no_responders":true"#);
    flood.send("SUB in.> 1\r\n");
    let body = r#"{"batch":1,"expires":60000000000}"#;
    let requests: String = (0..5_000)
        .map(|at| {
            format!(
                "PUB $JS.API.CONSUMER.MSG.NEXT.S.C in.{at} {}\r\n{body}\r\n",
                body.len()
            )
        })
        .collect();
    flood.send(&requests);
    let found = statuses(&mut flood, 4_990);
    assert_eq!(found.get("409 Exceeded MaxWaiting"), Some(&4_990), "{found:?}");
    assert_eq!(
        api(&mut client, "CONSUMER.INFO.S.C", &Value::Null)["num_waiting"],
        10
    );
    // Whoever leaves makes room.
    drop(flood);
    client.act("pub", "s.a one");
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.act("pull", "S C 1");
        let came = client.gather(Duration::from_secs(1), 1);
        if came.iter().any(|line| line.contains("\"one\"")) {
            break;
        }
        // While the server has not seen it leave, it may be full, or have sent it the message.
        assert!(Instant::now() < deadline, "{came:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn garbage_is_answered_or_ignored_and_harms_nobody() {
    let (server, _directory) = ours();
    let address = server.server().local_addr().to_string();
    let mut client = Client::connect(&address);
    stream_and_consumer(&mut client, json!({}));
    let mut rude = Wire::quiet(&address, r#""headers":true,"no_responders":true"#);
    let bodies: [&[u8]; 9] = [
        b"{",
        b"{\"batch\":\"many\"}",
        b"{\"batch\":99999999999999999999}",
        b"{\"batch\":1e400}",
        b"{\"expires\":9223372036854775807,\"batch\":9223372036854775807,\"max_bytes\":9223372036854775807}",
        b"{\"expires\":-9223372036854775808,\"batch\":-9223372036854775808,\"idle_heartbeat\":-1}",
        b"\xff\xfe\x00\x01",
        b"[1,2,3]",
        &[b'{'; 5_000],
    ];
    for subject in [
        "$JS.API.CONSUMER.MSG.NEXT.S.C",
        "$JS.ACK.S.C.1.1.1.0.0",
        "$JS.ACK.S.C.x",
        "$JS.ACK.S.C.",
    ] {
        for body in bodies {
            rude.send(format!("PUB {subject} nobody {}\r\n", body.len()).as_bytes());
            rude.send(body);
            rude.send("\r\n");
        }
    }
    for numbers in [
        "18446744073709551615.18446744073709551615.18446744073709551615.1.1",
        "-1.-1.-1.-1.-1",
        "1.2.3",
    ] {
        rude.send(format!("PUB $JS.ACK.S.C.{numbers} nobody 4\r\n-NAK\r\n"));
    }
    rude.send("PING\r\n");
    assert!(rude.line().starts_with("PONG") || !rude.ended());
    client.act("pub", "s.a one");
    client.act("pull", r#"S C {"batch":1,"expires":10000000000}"#);
    let lines = client.gather(PATIENCE, 1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("s.a C times 1 seq 1 cseq 1"), "{lines:?}");
    assert_eq!(client.act("ack", "S C 1"), ["confirmed"]);
}

#[test]
fn a_slow_client_does_not_hold_up_a_fast_one() {
    let (server, _directory) = ours();
    let address = server.server().local_addr().to_string();
    let mut client = Client::connect(&address);
    stream_and_consumer(&mut client, json!({"max_ack_pending": -1}));
    let body = json!({"stream_name": "S", "config": {"durable_name": "SLOW", "ack_policy": "none"}});
    api(&mut client, "CONSUMER.DURABLE.CREATE.S.SLOW", &body);
    for _ in 0..64 {
        client.act("pub", "s.a <<x*262144>>");
    }
    // Asks for 16 MiB and reads nothing of them.
    let mut slow = Wire::quiet(&address, r#""headers":true"#);
    slow.send("SUB in 1\r\nPUB $JS.API.CONSUMER.MSG.NEXT.S.SLOW in 2\r\n64\r\n");
    client.act("pull", r#"S C {"batch":64,"expires":30000000000}"#);
    assert_eq!(client.gather(PATIENCE, 64).len(), 64);
    let found = statuses(&mut slow, 64);
    assert_eq!(found.get("a message"), Some(&64), "{found:?}");
}

#[test]
fn a_thousand_ephemerals_leave_nothing_behind() {
    let server = Process::mesh(&["--no-mesh"]);
    let mut client = Client::connect(server.address());
    api(
        &mut client,
        "STREAM.CREATE.S",
        &json!({"name": "S", "subjects": ["s.>"]}),
    );
    client.act("pub", "s.a x");
    let round = |client: &mut Client, count: usize| {
        let mut names = Vec::new();
        for at in 0..count {
            let config = json!({"ack_policy": "none", "mem_storage": true, "filter_subject": format!("s.{at}.>"),
                "deliver_subject": format!("out.{at}"), "inactive_threshold": 300_000_000_000u64});
            let made = api(
                client,
                "CONSUMER.CREATE.S",
                &json!({"stream_name": "S", "config": config}),
            );
            names.push(made["name"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            api(client, "STREAM.INFO.S", &Value::Null)["state"]["consumer_count"],
            count
        );
        for name in names {
            api(client, &format!("CONSUMER.DELETE.S.{name}"), &Value::Null);
        }
        assert_eq!(api(client, "CONSUMER.NAMES.S", &Value::Null)["total"], 0);
        assert_eq!(api(client, "INFO", &Value::Null)["consumers"], 0);
    };
    round(&mut client, 1_000);
    let before = server.resident_kib();
    for _ in 0..2 {
        round(&mut client, 1_000);
    }
    let grown = server.resident_kib().saturating_sub(before);
    // A consumer takes kilobytes: 2,000 forgotten ones would be seen.
    assert!(grown < 6_000, "{grown} KiB more");
}
