//! Limits are checked before anything is kept; what is over them gets its one line and the connection ends.

use std::time::Duration;

use sovereign_mesh::TestServer;

use super::{client, eventually, server};
use crate::support::{Process, Wire};

#[test]
fn endless_lines_and_huge_sizes_cost_no_memory() {
    let process = Process::mesh(&[]);
    let before = process.resident_kib();
    let endless: [(&str, &str); 6] = [
        ("PUB ", "-ERR 'maximum control line exceeded'\r\n"),
        ("SUB ", "-ERR 'maximum control line exceeded'\r\n"),
        ("CONNECT {\"name\":\"", "-ERR 'maximum control line exceeded'\r\n"),
        ("SAY x ", "-ERR 'maximum control line exceeded'\r\n"),
        ("PING", "-ERR 'maximum control line exceeded'\r\n"),
        ("", "-ERR 'Unknown Protocol Operation'\r\n"),
    ];
    let chunk = vec![b'a'; 1 << 20];
    for (start, answer) in endless {
        let mut wire = Wire::connect(process.address());
        wire.send(start);
        for _ in 0..16 {
            if wire.try_send(&chunk).is_err() {
                break;
            }
        }
        wire.expect(answer);
        wire.expect_end();
    }
    for line in ["PUB a 999999999\r\n", "PUB a 1048577\r\n"] {
        let mut wire = Wire::connect(process.address());
        wire.send(line);
        wire.expect("-ERR 'Maximum Payload Violation'\r\n");
        wire.expect_end();
    }
    // A size that is allowed is not paid for before the bytes come.
    let waiting: Vec<Wire> = (0..64)
        .map(|_| {
            let mut wire = Wire::quiet(process.address(), "");
            wire.send("PUB a 1048576\r\nx");
            wire
        })
        .collect();
    Wire::quiet(process.address(), "").expect_nothing();
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    drop(waiting);
}

#[test]
fn garbage_of_every_first_byte() {
    let server = server(|_| {});
    let address = server.server().local_addr();
    for byte in 0..=255u8 {
        let mut wire = Wire::connect(address);
        wire.send([&[byte; 40][..], b"\r\n"].concat());
        wire.expect("-ERR 'Unknown Protocol Operation'\r\n");
        wire.expect_end();
    }
    client(&server).expect_nothing();
    eventually("all are gone", || server.server().totals().connections == 0);
}

#[test]
fn connections() {
    let server = server(|config| config.connections.connections_max = 2);
    let first = client(&server);
    let mut second = client(&server);
    let mut third = Wire::connect(server.server().local_addr());
    third.expect("-ERR 'maximum connections exceeded'\r\n");
    third.expect_end();
    second.expect_nothing();
    drop(first);
    // A place is free once the server has seen it go.
    eventually("one place is free", || server.server().totals().connections == 1);
    client(&server).expect_nothing();
}

/// One publish that a thousand subscriptions of one reader get: more than a batch may hand over at once, and the reader
/// reads, so that it is nobody's fault.
#[test]
fn wide_fan_out_to_one_reader_is_not_slow() {
    let server = server(|config| config.connections.pending_max = 4 << 20);
    for own in [false, true] {
        fan_out(&server, own);
    }
    assert_eq!(server.server().totals().slow_consumers, 0);
}

fn fan_out(server: &TestServer, own: bool) {
    const SUBSCRIPTIONS: usize = 1000;
    const MESSAGES: usize = 100;
    let mut reader = client(server);
    for sid in 0..SUBSCRIPTIONS {
        reader.send(format!("SUB wide {sid}\r\n"));
    }
    reader.expect_nothing();
    let payload = "x".repeat(128);
    let batch = format!("PUB wide 128\r\n{payload}\r\n").repeat(MESSAGES) + "PING\r\n";
    let mut publisher = client(server);
    let sender = if own { &mut reader } else { &mut publisher };
    sender.send(batch);
    let mut left = SUBSCRIPTIONS * MESSAGES;
    while left > 0 {
        let line = reader.line();
        if line.starts_with("MSG wide ") {
            reader.expect(&payload);
            reader.expect("\r\n");
            left -= 1;
        } else if line.starts_with("PING") {
            // The server's first look at whether we live.
        } else {
            panic!("{line} with {left} deliveries to come");
        }
    }
    if !own {
        reader.send("PING\r\n");
    }
    // Nothing else comes before it.
    loop {
        match reader.line().trim_end() {
            "PONG" => break,
            "PING" => {}
            line => panic!("{line} instead of PONG"),
        }
    }
}

#[test]
fn credentials_in_time() {
    let server = server(|config| {
        config.auth = sovereign_mesh::account::Auth::Token("secret".into());
        config.connections.auth_timeout = Duration::from_millis(100);
    });
    let address = server.server().local_addr();
    let mut silent = Wire::connect(address);
    let mut slow = Wire::connect(address);
    slow.send("CONNECT {\"auth_token\":\"sec");
    let mut good = Wire::quiet(address, "\"auth_token\":\"secret\"");
    for wire in [&mut silent, &mut slow] {
        wire.expect("-ERR 'Authentication Timeout'\r\n");
        wire.expect_end();
    }
    good.expect_nothing();
    eventually("both are counted", || server.server().totals().auth_failures == 2);
}

#[test]
fn subscriptions_with_many_tokens() {
    let server = server(|config| config.connections.control_line_max = 1 << 20);
    let mut wire = client(&server);
    let tokens = |count: usize, token: &str| vec![token; count].join(".");
    for token in ["a", "*"] {
        wire.send(format!("SUB {} 1\r\n", tokens(2048, token)));
        wire.ask(
            format!("PUB {} 0\r\n\r\n", tokens(2048, "a")),
            format!("MSG {} 1 0\r\n\r\n", tokens(2048, "a")),
        );
        wire.send("UNSUB 1\r\n");
        wire.ask(
            format!("SUB {} 1\r\n", tokens(100_000, token)),
            "-ERR 'Invalid Subject'\r\n",
        );
        wire.send(format!("WATCH {}\r\n", tokens(100_000, token)));
        assert!(wire.line().starts_with("-ERR 'expected WATCH <subject>"));
    }
    wire.send(format!("PUB {} 0\r\n\r\n", tokens(100_000, "a")));
    wire.expect_nothing();
}
