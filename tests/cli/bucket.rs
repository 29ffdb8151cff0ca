//! `mesh kv` and `mesh object`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Server;

#[test]
fn keys_are_written_and_read() {
    let Some(server) = Server::jetstream() else { return };
    server
        .mesh(&["kv", "put", "K", "a", "x"])
        .fails(4, "no Key-Value bucket \"K\"");
    server.mesh(&["kv", "add", "K", "--history", "5"]).ok();
    assert_eq!(server.mesh(&["kv", "put", "K", "a.b", "one"]).ok().out, "one\n");
    assert_eq!(
        server
            .mesh_with(&["kv", "put", "K", "a.b", "--json"], b"two")
            .ok()
            .json()["revision"],
        2
    );
    assert_eq!(server.mesh(&["kv", "get", "K", "a.b", "--raw"]).ok().out, "two");
    assert_eq!(
        server
            .mesh(&["kv", "get", "K", "a.b", "--raw", "--revision", "1"])
            .ok()
            .out,
        "one"
    );
    let entry = server.mesh(&["kv", "get", "K", "a.b", "--json"]).ok().json();
    assert_eq!(
        (&entry["value"], &entry["revision"], &entry["operation"]),
        (&json!("two"), &json!(2), &json!("PUT"))
    );
    let page = server.mesh(&["kv", "get", "K", "a.b"]).ok().out;
    assert!(
        page.starts_with("K > a.b revision: 2 created @ 20") && page.ends_with("\n\ntwo\n\n"),
        "{page}"
    );

    server
        .mesh(&["kv", "create", "K", "a.b", "x"])
        .fails(5, "K > a.b exists");
    server.mesh(&["kv", "create", "K", "new", "x"]).ok();
    server
        .mesh(&["kv", "update", "K", "a.b", "three", "1"])
        .fails(5, "not at revision 1");
    server.mesh(&["kv", "update", "K", "a.b", "three", "2"]).ok();
    server
        .mesh(&["kv", "get", "K", "nope"])
        .fails(4, "K > nope is not there");
    server.mesh(&["kv", "put", "K", "a b", "x"]).fails(2, "a b");
    server.mesh(&["kv", "put", "K", ".a", "x"]).fails(2, ".a");

    server.mesh(&["kv", "del", "K", "a.b"]).fails(2, "--force");
    server.mesh(&["kv", "del", "K", "a.b", "-f"]).ok();
    server.mesh(&["kv", "get", "K", "a.b"]).fails(4, "was deleted");
    server.mesh(&["kv", "revert", "K", "a.b", "1", "-f"]).ok();
    assert_eq!(server.mesh(&["kv", "get", "K", "a.b", "--raw"]).ok().out, "one");
    server.mesh(&["kv", "purge", "K", "a.b", "-f"]).ok();
    let history = server.mesh(&["kv", "history", "K", "a.b", "--json"]).ok().json();
    assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
    assert_eq!(history[0]["operation"], "PURGE");
}

#[test]
fn keys_lapse_unless_they_are_renewed() {
    let Some(server) = Server::jetstream() else { return };
    let until_gone = |key: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.mesh(&["kv", "get", "L", key]).code != 4 {
            assert!(Instant::now() < deadline, "{key} stays");
        }
    };
    server.mesh(&["kv", "add", "PLAIN"]).ok();
    server
        .mesh(&["kv", "create", "PLAIN", "a", "x", "--ttl", "5s"])
        .fails(1, "TTL");
    server.mesh(&["kv", "add", "L", "--marker-ttl", "1h"]).ok();
    for ttl in ["0s", "500ms", "1500ms"] {
        server
            .mesh(&["kv", "create", "L", "a", "x", "--ttl", ttl])
            .fails(2, "whole seconds");
    }
    server.mesh(&["kv", "create", "L", "a", "x", "--ttl", "1s"]).ok();
    server.mesh(&["kv", "create", "L", "b", "x"]).ok();
    let seen = server.mesh(&["kv", "get", "L", "b", "--json"]).ok().json()["revision"].to_string();
    server
        .mesh(&["kv", "update", "L", "b", "y", "1", "--ttl", "1s"])
        .fails(5, "not at revision 1");
    server
        .mesh(&["kv", "update", "L", "b", "y", &seen, "--ttl", "1s"])
        .ok();
    until_gone("a");
    until_gone("b");
    // Who comes after a key that lapsed has his own time, and no more.
    let again = server
        .mesh(&["kv", "create", "L", "a", "z", "--ttl", "1s", "--json"])
        .ok();
    assert!(again.json()["revision"].as_u64().unwrap() > 3);
    until_gone("a");
    // After one that was deleted, too.
    server.mesh(&["kv", "put", "L", "b", "x"]).ok();
    server.mesh(&["kv", "del", "L", "b", "-f"]).ok();
    server.mesh(&["kv", "create", "L", "b", "z"]).ok();
    server
        .mesh(&["kv", "create", "L", "b", "z"])
        .fails(5, "L > b exists");
}

#[test]
fn keys_are_listed_and_watched() {
    let Some(server) = Server::jetstream() else { return };
    server
        .mesh(&["kv", "add", "K", "--history", "3", "--description", "d"])
        .ok();
    assert!(server.mesh(&["kv", "ls", "K"]).ok().err.contains("No keys found"));
    server.mesh(&["kv", "history", "K", "a"]).fails(4, "no history");
    for value in ["1", "2", "3", "4"] {
        server.mesh(&["kv", "put", "K", "b", value]).ok();
    }
    server.mesh(&["kv", "put", "K", "a.x", "y"]).ok();
    server.mesh(&["kv", "put", "K", "gone", "y"]).ok();
    server.mesh(&["kv", "del", "K", "gone", "-f"]).ok();
    assert_eq!(server.mesh(&["kv", "ls", "K"]).ok().out, "a.x\nb\n");
    assert_eq!(
        server.mesh(&["kv", "ls", "K", "a.*", "--json"]).ok().json(),
        json!(["a.x"])
    );
    assert!(
        server
            .mesh(&["kv", "ls", "K", "-v", "--display-value"])
            .ok()
            .out
            .contains("│ b   ")
    );
    assert_eq!(server.mesh(&["kv", "ls", "-n"]).ok().out, "K\n");
    let history = server.mesh(&["kv", "history", "K", "b", "--json"]).ok().json();
    let values: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["value"].clone())
        .collect();
    assert_eq!(values, ["2", "3", "4"]);

    let all = server
        .mesh(&["kv", "watch", "K", "--history", "--count", "6", "--json"])
        .ok()
        .json_lines();
    assert_eq!(all.len(), 6);
    let now = server.start(
        &["kv", "watch", "K", "b", "--updates", "--count", "2"],
        "Watching",
    );
    server.mesh(&["kv", "put", "K", "b", "5"]).ok();
    server.mesh(&["kv", "del", "K", "b", "-f"]).ok();
    let out = now.finish().ok().out;
    assert!(
        out.contains("] PUT K > b: 5\n") && out.ends_with("] DEL K > b\n"),
        "{out}"
    );
    let page = server.mesh(&["kv", "info", "K"]).ok();
    assert_eq!((page.row("History Kept"), page.row("Description")), ("3", "d"));
    server.mesh(&["kv", "del", "K", "-f"]).ok();
    server.mesh(&["kv", "info", "K"]).fails(4, "no Key-Value bucket");
}

#[test]
fn files_go_in_and_out() {
    let Some(server) = Server::jetstream() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data: Vec<u8> = (0..1_500_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(path("in"), &data).unwrap();

    server
        .mesh(&["object", "put", "B", &path("in")])
        .fails(4, "no Object Store bucket \"B\"");
    server.mesh(&["object", "add", "B"]).ok();
    server
        .mesh(&["object", "put", "B", &path("nope")])
        .fails(4, "nope");
    let page = server
        .mesh(&["object", "put", "B", &path("in"), "--name", "data", "-H", "K:v"])
        .ok();
    assert_eq!(
        (page.row("Size"), page.row("Chunks"), page.row("K")),
        ("1.4 MiB", "12", "v")
    );
    server
        .mesh_with(&["object", "put", "B", "--name", "../up/x"], b"small")
        .ok();
    server
        .mesh_with(&["object", "put", "B"], b"small")
        .fails(2, "--name");

    server
        .mesh(&["object", "get", "B", "data", "-O", &path("out")])
        .ok();
    assert_eq!(std::fs::read(path("out")).unwrap(), data);
    server
        .mesh(&["object", "get", "B", "data", "-O", &path("out")])
        .fails(2, "--force");
    server
        .mesh(&["object", "get", "B", "data", "-O", &path("out"), "-f"])
        .ok();
    let mut here = server.command(&["object", "get", "B", "../up/x"]);
    here.current_dir(directory.path());
    super::run_with(here, b"").ok();
    assert_eq!(
        std::fs::read(path("x")).unwrap(),
        b"small",
        "a name never leads out of the directory"
    );
    assert_eq!(
        server
            .mesh(&["object", "get", "B", "../up/x", "-O", "-"])
            .ok()
            .out,
        "small"
    );
    server
        .mesh(&["object", "get", "B", "nope"])
        .fails(4, "B > nope is not there");
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "no half of a file is left: {left:?}");
}

#[test]
fn objects_are_listed_and_removed() {
    let Some(server) = Server::jetstream() else { return };
    server.mesh(&["object", "add", "B"]).ok();
    server
        .mesh_with(&["object", "put", "B", "--name", "data"], &[7; 1_500_000])
        .ok();
    server
        .mesh_with(&["object", "put", "B", "--name", "../up/x"], b"small")
        .ok();
    assert_eq!(server.mesh(&["obj", "ls", "B", "-n"]).ok().out, "../up/x\ndata\n");
    let info = server
        .mesh(&["object", "info", "B", "data", "--json"])
        .ok()
        .json();
    assert_eq!((&info["size"], &info["bucket"]), (&json!(1_500_000), &json!("B")));
    let watch = server.mesh(&["object", "watch", "B", "--count", "2"]).ok().out;
    assert!(watch.contains("] PUT B > data: 1.4 MiB in "), "{watch}");
    server.mesh(&["object", "rm", "B", "data"]).fails(2, "--force");
    server.mesh(&["object", "rm", "B", "data", "-f"]).ok();
    server
        .mesh(&["object", "info", "B", "data"])
        .fails(4, "B > data is not there");
    server.mesh(&["object", "rm", "B", "-f"]).ok();
    assert!(
        server
            .mesh(&["object", "ls"])
            .ok()
            .err
            .contains("No Object Store buckets found")
    );
}
