//! `mesh store`: figures of a running and of a stopped store, checks and repairs.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Ran, mesh};
use crate::support::Wire;
use crate::support::process::{Process, mesh_command};

const MESSAGES: u64 = 50;

/// A server on a store, with its monitoring.
fn serve(dir: &Path) -> (Process, String) {
    let mut command = mesh_command();
    command.args(["serve", "-p", "-1", "--monitor-port", "-1", "--store-dir"]);
    command.arg(dir);
    let process = Process::spawn(command, tempfile::tempdir().unwrap());
    let log = process.wait_for("Server is ready");
    let at = log.find("http://").unwrap();
    let url = log[at..].split_whitespace().next().unwrap().to_owned();
    (process, url)
}

fn fill(process: &Process) {
    let log = process.wait_for("Listening for client connections on ");
    let address = log.split("Listening for client connections on ").nth(1).unwrap();
    let address = address.lines().next().unwrap();
    let mut wire = Wire::quiet(address, "");
    let config = json!({"name": "ORDERS", "subjects": ["orders"], "storage": "file"}).to_string();
    wire.send(format!(
        "SUB a 1\r\nPUB $JS.API.STREAM.CREATE.ORDERS a {}\r\n{config}\r\n",
        config.len()
    ));
    wire.line();
    assert!(!wire.line().contains("\"error\""));
    for n in 1..=MESSAGES {
        wire.send(format!("PUB orders a 18\r\npayload number {n:03}\r\n"));
        wire.line();
        assert!(wire.line().contains(&format!("\"seq\":{n}")));
    }
}

fn store(arguments: &[&str], dir: &Path) -> Ran {
    let mut all = vec!["store"];
    all.extend_from_slice(&arguments[..1]);
    all.push(dir.to_str().unwrap());
    all.extend_from_slice(&arguments[1..]);
    mesh(&all)
}

/// What a check says of the stream of the test: a server may keep streams of its own.
fn orders(found: &Value) -> &Value {
    let streams = found["streams"].as_array().unwrap();
    streams.iter().find(|stream| stream["name"] == "ORDERS").unwrap()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn figures_of_a_store_that_runs_and_of_one_that_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, url) = serve(dir.path());
    fill(&server);
    let pid = server.id().to_string();
    let running = store(&["info", "--monitor", &url, "--json"], dir.path())
        .ok()
        .json();
    assert_eq!(
        (&running["running"], &running["sync"]),
        (&json!(true), &json!("always"))
    );
    assert_eq!(running["state"], "ok");
    assert!(running["records"].as_u64() >= Some(MESSAGES), "{running}");
    assert!(running["commits"].as_u64() > Some(MESSAGES));
    let page = store(&["info", "--monitor", &url], dir.path()).ok();
    assert_eq!(page.row("Server"), "running");
    assert_eq!(page.row("Synced"), "before each acknowledgement");
    assert!(page.row("Sync Time").contains("99% below"), "{page:?}");
    // Without the directory: whatever store that server has.
    let by_url = mesh(&["store", "info", "--monitor", &url, "--json"]).ok().json();
    assert_eq!(by_url["dir"], running["dir"]);

    // Files that a server has open are left to it.
    store(&["check"], dir.path()).fails(5, &format!("process {pid}"));
    store(&["info", "--monitor", "http://127.0.0.1:1"], dir.path()).fails(3, &format!("process {pid}"));
    store(&["info", "--monitor", "https://localhost"], dir.path()).fails(2, "expected http://");
    let other = tempfile::tempdir().unwrap();
    let (_other, other_url) = serve(other.path());
    store(&["info", "--monitor", &other_url], dir.path()).fails(5, &format!("process {pid}"));
    let dir_text = dir.path().to_str().unwrap();
    let second = [
        "serve",
        "-p",
        "-1",
        "--monitor-port",
        "0",
        "--store-dir",
        dir_text,
    ];
    mesh(&second).fails(5, &format!("process {pid}"));

    // Killed: all of it is in the journal, which a look replays and leaves as it is.
    server.signal(Signal::KILL);
    server.wait();
    let before = files(dir.path());
    let stopped = store(&["info", "--json"], dir.path()).ok().json();
    assert_eq!(stopped["running"], false);
    assert!(stopped["streams"].as_u64() >= Some(1), "{stopped}");
    assert_eq!(stopped["logical_bytes"], running["logical_bytes"]);
    assert_eq!(store(&["info"], dir.path()).ok().row("Server"), "stopped");
    assert!(files(dir.path()) == before, "looking has changed the files");
}

#[test]
fn a_check_names_what_is_damaged_and_repairs_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, _) = serve(dir.path());
    fill(&server);
    server.signal(Signal::TERM);
    server.wait();
    let found = store(&["check", "--json"], dir.path()).ok().json();
    assert_eq!(found["clean"], true);
    let stream = orders(&found);
    assert_eq!(
        (&stream["name"], &stream["messages"], &stream["damaged"]),
        (&json!("ORDERS"), &json!(MESSAGES), &json!([]))
    );
    let page = store(&["check"], dir.path()).ok();
    assert!(
        page.out.contains("ORDERS") && page.out.contains("whole"),
        "{page:?}"
    );

    let file = dir.path().join("mesh.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let text = b"payload number 042";
    let at = bytes.windows(text.len()).position(|found| found == text).unwrap();
    bytes[at] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = store(&["check"], dir.path()).fails(3, "1 records");
    assert!(
        damaged.out.contains("1: 42") && damaged.err.contains("--repair"),
        "{damaged:?}"
    );
    let repaired = store(&["check", "--repair"], dir.path()).ok();
    assert!(repaired.out.contains("taken out"), "{repaired:?}");
    let after = store(&["check", "--json"], dir.path()).ok().json();
    assert_eq!(
        (&after["clean"], &orders(&after)["messages"]),
        (&json!(true), &json!(MESSAGES - 1))
    );
}

#[test]
fn a_stream_that_is_damaged_is_named_by_health_until_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let stop = |mut server: Process| {
        server.signal(Signal::TERM);
        server.wait();
    };
    let (server, _) = serve(dir.path());
    fill(&server);
    stop(server);
    let file = dir.path().join("mesh.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let text = br#""subjects":["orders"]"#;
    let places: Vec<usize> = (0..bytes.len() - text.len())
        .filter(|&at| &bytes[at..at + text.len()] == text)
        .collect();
    assert!(places.len() >= 2, "a row and its copy: {places:?}");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&file, &bytes).unwrap();

    let (server, url) = serve(dir.path());
    let health = |arguments: &[&str]| mesh(&[&["health", "--monitor", &url], arguments].concat());
    health(&[]).fails(3, "stream ORDERS is offline");
    health(&[]).fails(3, "mesh store check --repair");
    health(&["--ready"]).ok();
    health(&["--live"]).ok();
    stop(server);
    store(&["check"], dir.path()).fails(3, "the store is damaged");
    let repaired = store(&["check", "--repair"], dir.path()).ok();
    assert!(repaired.out.contains("RECOVERED_"), "{repaired:?}");

    let (server, url) = serve(dir.path());
    mesh(&["health", "--monitor", &url]).ok();
    let log = server.wait_for("Listening for client connections on ");
    let address = log.split("Listening for client connections on ").nth(1).unwrap();
    let at = format!("nats://{}", address.lines().next().unwrap());
    let names = mesh(&["--server", &at, "stream", "ls", "--names"]).ok().out;
    let name = names.lines().find(|name| name.starts_with("RECOVERED_")).unwrap();
    let info = mesh(&["--server", &at, "stream", "info", name, "--json"])
        .ok()
        .json();
    assert_eq!(info["state"]["messages"], MESSAGES);
    let last = info["state"]["last_ts"].as_str().unwrap();
    assert!(last > "2020", "its last message is of {last}");
    stop(server);
}

#[test]
fn where_no_store_is_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    for command in ["check", "info"] {
        store(&[command], &nowhere).fails(4, "no store in");
        store(&[command], dir.path()).fails(4, "no store in");
    }
    assert!(!nowhere.exists() && files(dir.path()).is_empty());
}
