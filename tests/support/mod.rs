//! What the integration tests share: real processes on free ports, and a raw socket that sends and expects.

pub mod process;
pub mod wire;

use std::io::Write;

pub use process::Process;
pub use wire::Wire;

/// How long anything may take before a test fails; never a measure of speed.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Says on the real stderr, past the test harness, that a test could not do its work here.
pub fn skip(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").ok();
}
