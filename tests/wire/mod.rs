//! The client protocol over real sockets: what conversations alone cannot show (tests/conformance has those).

mod complaints;
mod keepalive;
mod limits;
mod plain;
mod serving;
mod shutdown;
mod slow;
mod splits;

use sovereign_mesh::{Config, TestServer};

use crate::support::Wire;

/// A server with settings, on a free port.
fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    let mut config = Config {
        monitor_port: None,
        ..Config::default()
    };
    change(&mut config);
    TestServer::with(config)
}

/// A client without verbose and pedantic.
fn client(server: &TestServer) -> Wire {
    Wire::quiet(server.server().local_addr(), "")
}

/// Waits until `met`; for what the server does a moment after the client could see anything.
fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !met() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
