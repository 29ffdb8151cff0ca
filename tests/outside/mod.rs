//! Client libraries of other languages against `mesh serve`'s server, unmodified: the same walk in each.
//!
//! They are found through `MESH_TEST_PYTHON` (a Python that has nats-py) and `MESH_TEST_NODE` (a directory whose
//! `node_modules` has `@nats-io/transport-node`, `jetstream`, `kv` and `obj`); without them the walk is skipped, loudly.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// The same for the walks over streams.
const STREAM_STEPS_PYTHON: &str = "\
pull
push and a queue group
ordered, and the last of each
deleted
put and get
conflicts
watch
history, delete, purge
time to live
put and get an object
watch and list objects
overwrite and delete objects
";
const STREAM_STEPS_NODE: &str = "\
pull
ordered
paused and deleted
bucket
watch
history, markers and time to live
objects
";

fn walk(program: &OsStr, script: &str, steps: &str) {
    let (server, _directory) = crate::consumers::ours();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/outside")
        .join(script);
    let output = Command::new(program)
        .arg(script)
        .arg(server.url())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (printed, talk) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "after\n{printed}\n{talk}");
    assert_eq!(printed.replace("\r\n", "\n"), steps, "{talk}");
}

#[test]
fn nats_py_walks_unmodified() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        return skipped("the walk of nats-py", "MESH_TEST_PYTHON names no Python");
    };
    walk(&python, "walk.py", STEPS);
}

#[test]
fn the_node_client_walks_unmodified() {
    if std::env::var_os("MESH_TEST_NODE").is_none() {
        return skipped(
            "the walk of @nats-io/transport-node",
            "MESH_TEST_NODE names no directory",
        );
    }
    walk(OsStr::new("node"), "walk.mjs", STEPS);
}

#[test]
fn nats_py_walks_over_streams() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        return skipped(
            "the walk of nats-py over streams",
            "MESH_TEST_PYTHON names no Python",
        );
    };
    walk(&python, "streams.py", STREAM_STEPS_PYTHON);
}

#[test]
fn the_node_client_walks_over_streams() {
    if std::env::var_os("MESH_TEST_NODE").is_none() {
        return skipped(
            "the walk of @nats-io/kv and @nats-io/obj",
            "MESH_TEST_NODE names no directory",
        );
    }
    walk(OsStr::new("node"), "streams.mjs", STREAM_STEPS_NODE);
}
