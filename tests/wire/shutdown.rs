//! The end: lame duck, graceful, at once, with clients that do not let go.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{client, server};
use crate::support::{PATIENCE, Process, Wire};

#[test]
fn terminate_drains() {
    let mut process = Process::mesh(&[]);
    let mut subscriber = Wire::quiet(process.address(), "");
    subscriber.send("SUB a 1\r\n");
    subscriber.expect_nothing();
    let mut publisher = Wire::quiet(process.address(), "");
    let payload = "x".repeat(1 << 20);
    for _ in 0..4 {
        publisher.send(format!("PUB a {}\r\n{payload}\r\n", payload.len()));
    }
    publisher.expect_nothing();
    process.signal(Signal::TERM);
    for _ in 0..4 {
        subscriber.expect(format!("MSG a 1 {}\r\n", payload.len()));
        subscriber.expect(&payload);
        subscriber.expect("\r\n");
    }
    subscriber.expect_end();
    assert!(process.wait().success());
    process.wait_for("Stopped");
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let mut process = Process::mesh(&[]);
    // A client that is owed more than it takes keeps a graceful stop waiting.
    let mut stuck = Wire::quiet(process.address(), "");
    stuck.send("SUB a 1\r\n");
    stuck.expect_nothing();
    let mut publisher = Wire::quiet(process.address(), "");
    for _ in 0..32 {
        publisher.send(format!("PUB a 1048576\r\n{}\r\n", "x".repeat(1 << 20)));
    }
    publisher.expect_nothing();
    process.signal(Signal::INT);
    process.wait_for("A second interrupt stops at once");
    process.signal(Signal::INT);
    assert!(process.wait().success());
    process.wait_for("Stopped at once");
}

#[test]
fn lame_duck_tells_and_waits() {
    let mut process = Process::mesh(&[]);
    let mut old = Wire::quiet(process.address(), "\"protocol\":0");
    let mut new = Wire::quiet(process.address(), "\"protocol\":1");
    assert!(new.line().contains("\"connect_info\":true"));
    process.signal(Signal::USR2);
    let line = new.line();
    let info: serde_json::Value = serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap();
    assert_eq!(info["ldm"], true);
    assert_eq!(info["client_id"], new.info()["client_id"]);
    // Those who are there are served on, nobody else comes in.
    old.ask(
        "SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n",
        "MSG a 1 1\r\nx\r\nPONG\r\n",
    );
    // The listener is closed by another task than the one that tells.
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(process.address()).is_ok() {
        assert!(Instant::now() < deadline, "others still come in");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((old, new));
    assert!(process.wait().success());
}

/// A client that never reads delays a shutdown for a bounded time, and nothing of it stays behind.
#[test]
fn a_library_shutdown_ends_everything() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = sovereign_mesh::Config {
            monitor_port: None,
            store_dir: None,
            ..Default::default()
        };
        let server = sovereign_mesh::Server::start_on(listener, config).await.unwrap();
        assert_eq!(server.local_addr(), address);
        let mut pipe = server.connect_in_process();
        pipe.write_all(b"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n")
            .await
            .unwrap();
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        assert_eq!(tcp.read_u8().await.unwrap(), b'I', "accepted and greeted");
        let mut said = Vec::new();
        while !said.ends_with(b"PONG\r\n") {
            assert!(pipe.read_buf(&mut said).await.unwrap() > 0);
        }
        let context = server.context().clone();
        server.shutdown().await;
        assert!(context.registry.is_empty());
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest).await.unwrap();
        pipe.read_to_end(&mut rest).await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off_in_the_end() {
    let server = server(|config| config.connections.write_deadline = Duration::from_secs(600));
    let mut stuck = client(&server);
    stuck.send("SUB a 1\r\n");
    stuck.expect_nothing();
    let mut publisher = client(&server);
    for _ in 0..32 {
        publisher.send(format!("PUB a 1048576\r\n{}\r\n", "x".repeat(1 << 20)));
    }
    publisher.expect_nothing();
    let context = server.server().context().clone();
    let began = Instant::now();
    drop(server);
    assert!(
        context.registry.is_empty(),
        "still {} after {:?}",
        context.registry.len(),
        began.elapsed()
    );
}
