//! What the integration tests share: servers as processes, and a raw socket that sends and expects.

pub mod chain;
pub mod pages;
pub mod process;
mod server;
pub mod wire;

use std::io::Write;

pub use process::Process;
pub use server::Server;
pub use wire::Wire;

/// How long anything may take before a test fails; never a measure of speed.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

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
