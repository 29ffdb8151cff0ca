//! Those who do not read: closed, counted, and nobody else loses anything.

use std::time::Duration;

use super::{client, eventually, server};
use crate::support::{Process, Wire};

#[test]
fn a_client_that_stops_reading_harms_nobody() {
    const MESSAGES: usize = 3000;
    const SIZE: usize = 16 << 10;
    let server = server(|config| {
        config.connections.pending_max = 8 << 20;
        config.connections.write_deadline = Duration::from_secs(600);
    });
    let address = server.server().local_addr();
    let mut stuck = client(&server);
    stuck.send("SUB load.> 1\r\n");
    stuck.expect_nothing();
    let mut reader = client(&server);
    reader.send("SUB load.> 1\r\n");
    reader.expect_nothing();
    let publishing = std::thread::spawn(move || {
        let mut publisher = Wire::quiet(address, "");
        for number in 0..MESSAGES {
            publisher.send(format!("PUB load.{number} {SIZE}\r\n{}\r\n", "x".repeat(SIZE)));
        }
        publisher.send("PING\r\n");
        while publisher.line() != "PONG" {}
    });
    for number in 0..MESSAGES {
        let mut line = reader.line();
        // The server's own, sooner or later.
        if line == "PING" {
            line = reader.line();
        }
        assert_eq!(line, format!("MSG load.{number} 1 {SIZE}"));
        assert_eq!(reader.bytes(SIZE + 2).len(), SIZE + 2);
        assert!(server.server().totals().pending_bytes < 32 << 20);
    }
    publishing.join().unwrap();
    // The deadline of the write it is stuck in is far away: it is cut all the same.
    eventually("counted", || server.server().totals().slow_consumers == 1);
    let closed = server.server().context().registry.closed();
    let record = closed
        .iter()
        .find(|closed| closed.reason.text().starts_with("Slow"))
        .unwrap();
    assert_eq!(record.reason.text(), "Slow Consumer (Pending Bytes)");
    assert_eq!(
        record.handle.client.outbox.pending(),
        0,
        "what it was owed is given back"
    );
    while stuck.read_some(Duration::from_secs(20)) {
        stuck.take();
    }
    assert!(stuck.ended());
    reader.expect_nothing();
}

#[test]
fn a_write_that_does_not_move_ends() {
    let server = server(|config| config.connections.write_deadline = Duration::from_millis(100));
    let mut stuck = client(&server);
    stuck.send("SUB a 1\r\n");
    stuck.expect_nothing();
    let mut publisher = client(&server);
    let big = format!("PUB a 1048576\r\n{}\r\n", "x".repeat(1 << 20));
    // More than the system's own buffers take, less than makes a slow consumer by bytes.
    for _ in 0..24 {
        publisher.send(&big);
    }
    publisher.expect_nothing();
    eventually("counted", || server.server().totals().slow_consumers == 1);
    let closed = server.server().context().registry.closed();
    assert_eq!(closed[0].reason.text(), "Slow Consumer (Write Deadline)");
    assert_eq!(
        closed[0].handle.client.outbox.pending(),
        0,
        "what it was owed is given back"
    );
}

/// What waits for a client is what it is owed, whatever was read together with it.
#[test]
fn what_waits_keeps_nothing_else_in_memory() {
    const ROUNDS: usize = 300;
    let process = Process::mesh(&["--no-mesh"]);
    let mut stuck = Wire::quiet(process.address(), "");
    stuck.send("SUB small 1\r\n");
    stuck.expect_nothing();
    let mut publisher = Wire::quiet(process.address(), "");
    let large = format!("PUB large 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    publisher.send(&large);
    publisher.expect_nothing();
    let before = process.resident_kib();
    for _ in 0..ROUNDS {
        publisher.send(format!("PUB small 16000\r\n{}\r\n", "x".repeat(16_000)));
        publisher.send(&large);
    }
    publisher.expect_nothing();
    let grown = process.resident_kib().saturating_sub(before);
    // 5 MB wait; the buffers they were read into are 300 MB.
    assert!(grown < 100 << 10, "{grown} KiB more");
}

/// Publishing to oneself without reading is bounded like anything else.
#[test]
fn flooding_oneself_is_bounded() {
    let server = server(|config| config.connections.pending_max = 4 << 20);
    let mut wire = client(&server);
    for sid in 0..2000 {
        wire.send(format!("SUB flood {sid}\r\n"));
    }
    wire.expect_nothing();
    // 2,000 deliveries of 100 bytes for each of 2,000 messages.
    let flood = format!("PUB flood 100\r\n{}\r\n", "x".repeat(100)).repeat(2000);
    wire.send(flood);
    eventually("cut", || server.server().totals().slow_consumers == 1);
    let mut other = client(&server);
    other.ask("SUB a 1\r\nPUB a 1\r\nx\r\n", "MSG a 1 1\r\nx\r\n");
}

#[test]
fn a_thousand_come_and_go() {
    let server = server(|_| {});
    let address = server.server().local_addr();
    let workers: Vec<_> = (0..10)
        .map(|worker| {
            std::thread::spawn(move || {
                for round in 0..100 {
                    let mut wire = Wire::connect(address);
                    let subject = format!("room.{worker}.{round}");
                    wire.send("CONNECT {\"verbose\":false}\r\n");
                    wire.send(format!(
                        "SUB {subject} 1\r\nSUB room.> q 2\r\nPUB {subject} 2\r\nhi\r\nPING\r\n"
                    ));
                    match round % 4 {
                        // Gone in the middle of a frame, of a line, or with its answers unread.
                        0 => wire.send("PUB half 100\r\nha"),
                        1 => wire.send("PUB hal"),
                        2 => {}
                        _ => loop {
                            if wire.line() == "PONG" {
                                break;
                            }
                        },
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    eventually("all are gone", || server.server().totals().connections == 0);
    assert_eq!(server.server().totals().connections_ever, 1000);
    assert_eq!(server.server().router().stats().subscriptions, 0);
    assert!(server.server().context().registry.closed().iter().all(|closed| {
        let outbox = &closed.handle.client.outbox;
        outbox.pending() == 0
    }));
}
