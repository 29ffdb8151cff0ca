//! PING from the server, and what counts as a sign of life.

use std::time::Duration;

use super::{client, eventually, server};

#[test]
fn silence_is_stale_and_any_word_is_life() {
    // Who answers has twice that for it, on a busy machine too.
    let server = server(|config| config.connections.ping_interval = Duration::from_millis(400));
    let mut silent = client(&server);
    let mut answering = client(&server);
    let mut talking = client(&server);
    let mut pings = 0;
    while !silent.ended() || pings < 2 {
        answering.read_some(Duration::from_millis(10));
        assert!(!answering.ended(), "cut off in spite of its answers");
        let came = answering.take();
        for _ in 0..came.windows(6).filter(|word| word == b"PING\r\n").count() {
            answering.send("PONG\r\n");
            pings += 1;
        }
        talking.send("SUB a 1\r\n");
        silent.read_some(Duration::from_millis(1));
    }
    let last_words = silent.take();
    assert_eq!(
        String::from_utf8(last_words).unwrap(),
        "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n"
    );
    eventually("counted", || server.server().totals().stale == 1);
    // The others are still there.
    answering.send("PONG\r\nPING\r\n");
    while !answering.received().ends_with(b"PONG\r\n") {
        assert!(answering.read_some(Duration::from_secs(20)));
    }
    talking.send("PING\r\n");
    while !talking.received().ends_with(b"PONG\r\n") {
        assert!(talking.read_some(Duration::from_secs(20)));
    }
}

#[test]
fn a_round_trip_is_measured() {
    let server = server(|config| config.connections.ping_interval = Duration::from_millis(30));
    let mut wire = client(&server);
    wire.expect("PING\r\n");
    wire.send("PONG\r\n");
    eventually("measured", || {
        let live = server.server().context().registry.live();
        live.first().is_some_and(|handle| !handle.rtt().is_zero())
    });
}

/// A PONG comes behind everything that was published before it, at every destination.
#[test]
fn pong_is_a_flush_barrier() {
    let server = server(|_| {});
    let mut publisher = client(&server);
    let mut subscriber = client(&server);
    subscriber.send("SUB a 1\r\n");
    subscriber.expect_nothing();
    for round in 0..50 {
        let payload = "p".repeat(round * 997);
        publisher.send(format!("PUB a {}\r\n{payload}\r\nPING\r\n", payload.len()).repeat(5));
        publisher.expect("PONG\r\n".repeat(5));
        // All five lie in the outbox by now: the subscriber's own PONG comes behind them.
        subscriber.send("PING\r\n");
        subscriber.expect(format!("MSG a 1 {}\r\n{payload}\r\n", payload.len()).repeat(5));
        subscriber.expect("PONG\r\n");
    }
}
