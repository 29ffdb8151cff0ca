//! What the integration tests share: servers as processes, and a raw socket that sends and expects.

pub mod chain;
pub mod pages;
pub mod process;
mod server;
pub mod wire;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

pub use process::Process;
pub use server::Server;
pub use wire::Wire;

/// How long anything may take before a test fails; never a measure of speed.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Says on the real stderr, past the test harness, that a test could not do its work here for want of a program; with
/// `MESH_TEST_REQUIRE_ALL` it fails.
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("MESH_TEST_REQUIRE_ALL").is_none(),
        "not tested: {test}: {why}"
    );
    skip_here(test, why);
}

/// The same for what this machine does not allow, and no program that is fetched would change.
pub fn skip_here(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").ok();
}

/// A port for a server that is told where to listen. It lies below those that the system gives to whoever asks for any, so a
/// server that was killed finds it free when it comes back, and nobody else's server answers there meanwhile.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Runs beside this one begin in other places.
    let start = (std::process::id() * 16 % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let place = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", FIRST + place)).is_ok() {
            return FIRST + place;
        }
    }
    panic!("no port is free");
}
