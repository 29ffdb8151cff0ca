//! Client libraries of other languages against `mesh serve`'s server, unmodified: the same walk in each.
//!
//! They are found through `MESH_TEST_PYTHON` (a Python that has nats-py) and `MESH_TEST_NODE` (a directory whose
//! `node_modules` has `@nats-io/transport-node`); without them the walk is skipped, loudly.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use sovereign_mesh::TestServer;

/// What every walk prints, so that none of them can pass by doing nothing.
const STEPS: &str = "\
connected
published and received in order
wildcards
queue group shares the work
headers
request and reply
no responders
limit of a subscription
drained
";

/// Says on the terminal, whatever the test harness captures, that something was not tested.
fn skipped(what: &str, why: &str) {
    assert!(
        std::env::var_os("MESH_TEST_REQUIRE_ALL").is_none(),
        "not tested: {what}: {why}"
    );
    writeln!(std::io::stderr(), "SKIPPED {what}: {why}").ok();
}

fn walk(program: &OsStr, script: &str) {
    let server = TestServer::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/outside")
        .join(script);
    let output = Command::new(program)
        .arg(script)
        .arg(server.url())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (steps, talk) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "after\n{steps}\n{talk}");
    assert_eq!(steps.replace("\r\n", "\n"), STEPS, "{talk}");
}

#[test]
fn nats_py_walks_unmodified() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        return skipped("the walk of nats-py", "MESH_TEST_PYTHON names no Python");
    };
    walk(&python, "walk.py");
}

#[test]
fn the_node_client_walks_unmodified() {
    if std::env::var_os("MESH_TEST_NODE").is_none() {
        return skipped(
            "the walk of @nats-io/transport-node",
            "MESH_TEST_NODE names no directory",
        );
    }
    walk(OsStr::new("node"), "walk.mjs");
}
