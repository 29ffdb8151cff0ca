//! `mesh stream`.

use serde_json::{Value, json};

use super::Ran;
use crate::support::Server;

impl Server {
    /// Publishes into a stream and waits for the ack.
    fn store(&self, subject: &str, body: &str) -> Ran {
        self.mesh(&["pub", "-J", "-q", subject, body]).ok()
    }
}

#[test]
fn a_publish_is_acknowledged_by_its_stream() {
    let Some(server) = Server::jetstream() else { return };
    server
        .mesh(&["pub", "-J", "s", "x"])
        .fails(4, "no stream listens on \"s\"");
    server.mesh(&["stream", "add", "S", "--subjects", "s"]).ok();
    let publish = |body| {
        server
            .mesh(&["pub", "-J", "s", body, "-H", "Nats-Msg-Id:1"])
            .ok()
            .out
    };
    assert_eq!(publish("x"), "Stored in Stream: S Sequence: 1\n");
    assert_eq!(
        publish("again"),
        "Stored in Stream: S Sequence: 1 Duplicate: true\n"
    );
    let acks = server
        .mesh(&["pub", "-J", "s", "m{{Count}}", "--count", "500", "--json"])
        .ok()
        .json_lines();
    let sequences: Vec<_> = acks.iter().map(|ack| ack["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (2..502).collect::<Vec<_>>());
    let last = server.mesh(&["stream", "get", "S", "501", "--raw"]).ok();
    assert_eq!(last.out, "m500", "published in order");
    server
        .mesh(&["pub", "-J", "s", "x", "-H", "Nats-Expected-Last-Sequence:7"])
        .fails(5, "wrong last sequence");
}

/// Flags of `stream add`, and what they make of the configuration.
const FLAGS: &[(&[&str], &str, &str)] = &[
    (&["--description", "d"], "description", r#""d""#),
    (
        &["--subjects", "a,b", "--subjects", "c"],
        "subjects",
        r#"["a","b","c"]"#,
    ),
    (&["--storage", "memory"], "storage", r#""memory""#),
    (&["--compression", "s2"], "compression", r#""s2""#),
    (&["--retention", "work"], "retention", r#""workqueue""#),
    (&["--retention", "interest"], "retention", r#""interest""#),
    (&["--discard", "new"], "discard", r#""new""#),
    (&["--max-age", "1d"], "max_age", "86400000000000"),
    (&["--max-bytes", "1MiB"], "max_bytes", "1048576"),
    (&["--max-bytes", "-1"], "max_bytes", "-1"),
    (&["--max-msgs", "7"], "max_msgs", "7"),
    (&["--max-msgs-per-subject", "2"], "max_msgs_per_subject", "2"),
    (&["--max-msg-size", "1K"], "max_msg_size", "1024"),
    (&["--max-consumers", "3"], "max_consumers", "3"),
    (&["--dupe-window", "30s"], "duplicate_window", "30000000000"),
    (&["--first-sequence", "100"], "first_seq", "100"),
    (&["--no-ack"], "no_ack", "true"),
    (&["--allow-rollup"], "allow_rollup_hdrs", "true"),
    (&["--deny-delete"], "deny_delete", "true"),
    (&["--deny-purge"], "deny_purge", "true"),
    (&["--allow-msg-ttl"], "allow_msg_ttl", "true"),
    (&[], "allow_direct", "true"),
    (&["--no-allow-direct"], "allow_direct", "false"),
    (
        &["--limit-consumer-max-pending", "9"],
        "consumer_limits",
        r#"{"max_ack_pending":9}"#,
    ),
    (
        &["--max-msgs-per-subject", "1", "--discard-per-subject"],
        "discard_new_per_subject",
        "true",
    ),
];

#[test]
fn flags_set_the_configuration() {
    let Some(server) = Server::jetstream() else { return };
    for (flags, field, expected) in FLAGS {
        let mut arguments = vec!["stream", "add", "S", "--json"];
        arguments.extend(*flags);
        let config = &server.mesh(&arguments).ok().json()["config"];
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(config[field], expected, "{flags:?}");
        server.mesh(&["stream", "rm", "S", "-f"]).ok();
    }
    let config = server
        .mesh(&[
            "stream",
            "add",
            "S",
            "--dry-run",
            "--metadata",
            "k=v",
            "--mirror",
            "M",
        ])
        .ok()
        .json();
    assert_eq!(config["metadata"], json!({"k": "v"}));
    assert_eq!(config["mirror"], json!({"name": "M"}));
}

#[test]
fn a_configuration_goes_through_a_file() {
    let Some(server) = Server::jetstream() else { return };
    server
        .mesh(&[
            "stream",
            "add",
            "A",
            "--subjects",
            "a.>",
            "--max-age",
            "1h",
            "--metadata",
            "k=v",
        ])
        .ok();
    let info = server.mesh(&["stream", "info", "A", "--json"]).ok().out;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream.json");
    std::fs::write(&path, info).unwrap();
    let path = path.to_str().unwrap();
    server.mesh(&["stream", "rm", "A", "-f"]).ok();
    server
        .mesh(&["stream", "add", "B", "--config", path, "--max-msgs", "5"])
        .ok();
    let config = server.mesh(&["stream", "info", "B", "--json"]).ok().json()["config"].clone();
    assert_eq!(config["subjects"], json!(["a.>"]));
    assert_eq!(config["max_age"], 3_600_000_000_000_u64);
    assert_eq!(config["max_msgs"], 5);
    assert_eq!(config["metadata"]["k"], "v");
    server
        .mesh(&["stream", "add", "--config", "/nonexistent.json"])
        .fails(4, "no such file");
    server
        .mesh(&["stream", "add", "--config", "/dev/null"])
        .fails(2, "not JSON");
}

#[test]
fn streams_are_listed_shown_and_changed() {
    let Some(server) = Server::jetstream() else { return };
    assert!(
        server
            .mesh(&["stream", "ls"])
            .ok()
            .err
            .contains("No Streams defined")
    );
    server.mesh(&["stream", "add", "B", "--subjects", "b"]).ok();
    server.mesh(&["s", "add", "A", "--subjects", "a.>"]).ok();
    server.mesh(&["kv", "add", "K"]).ok();
    assert_eq!(server.mesh(&["stream", "ls", "-n"]).ok().out, "A\nB\n");
    assert_eq!(
        server.mesh(&["stream", "ls", "-n", "-a"]).ok().out,
        "A\nB\nKV_K\n"
    );
    assert_eq!(
        server.mesh(&["stream", "ls", "-n", "--subject", "a.x"]).ok().out,
        "A\n"
    );
    let list = server.mesh(&["str", "ls", "--json"]).ok().json();
    assert_eq!(list[1]["config"]["name"], "B");
    let table = server.mesh(&["stream", "ls"]).ok().out;
    assert!(
        table.starts_with("Streams\n┌") && table.contains("│ A "),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "no colour when piped");
}

#[test]
fn streams_are_changed_and_removed() {
    let Some(server) = Server::jetstream() else { return };
    server.mesh(&["stream", "add", "B", "--subjects", "b"]).ok();
    server.mesh(&["stream", "add", "A", "--subjects", "a.>"]).ok();
    server
        .mesh(&["stream", "edit", "A", "--max-msgs", "9"])
        .fails(2, "--force");
    let ran = server
        .mesh(&["stream", "edit", "A", "--max-msgs", "9", "--dry-run"])
        .ok();
    assert_eq!((ran.out.as_str(), ran.err.contains("+ max_msgs: 9")), ("", true));
    assert_eq!(
        server.mesh(&["stream", "info", "A"]).ok().row("Maximum Messages"),
        "unlimited"
    );
    let page = server
        .mesh(&[
            "stream",
            "edit",
            "A",
            "--max-msgs",
            "9",
            "--no-allow-direct",
            "-f",
        ])
        .ok();
    assert_eq!(page.row("Maximum Messages"), "9");
    assert_eq!(page.row("Subjects"), "a.>");
    server.mesh(&["stream", "copy", "A", "C", "--subjects", "c"]).ok();
    assert_eq!(
        server.mesh(&["stream", "info", "C"]).ok().row("Maximum Messages"),
        "9"
    );

    server
        .mesh(&["stream", "info", "NOPE"])
        .fails(4, "stream not found (10059)");
    server
        .mesh(&["stream", "info", "a.b"])
        .fails(2, "not a stream name");
    server
        .mesh(&["stream", "add", "A", "--subjects", "other"])
        .fails(5, "(10058)");
    server
        .mesh(&["stream", "add", "D", "--subjects", "a.b"])
        .fails(5, "(10065)");
    server.mesh(&["stream", "rm", "A"]).fails(2, "--force");
    server.mesh(&["stream", "rm", "A", "--force"]).ok();
    assert_eq!(server.mesh(&["stream", "ls", "-n"]).ok().out, "B\nC\n");
}

#[test]
fn stored_messages_are_shown() {
    let Some(server) = Server::jetstream() else { return };
    server.mesh(&["stream", "add", "S", "--subjects", "s.*"]).ok();
    server.mesh(&["pub", "-J", "s.a", "one", "-H", "K:v"]).ok();
    for (subject, body) in [("s.b", "two"), ("s.a", "three"), ("s.c", "four")] {
        server.store(subject, body);
    }
    let item = server.mesh(&["stream", "get", "S", "1", "--json"]).ok().json();
    assert_eq!(
        (
            &item["subject"],
            &item["seq"],
            &item["data"],
            &item["text"],
            &item["headers"]
        ),
        (
            &json!("s.a"),
            &json!(1),
            &json!("b25l"),
            &json!("one"),
            &json!({"K": ["v"]})
        )
    );
    let page = server.mesh(&["stream", "get", "S", "1"]).ok().out;
    assert!(
        page.starts_with("Item: S#1 received 20") && page.ends_with("Headers:\n  K: v\n\none\n"),
        "{page}"
    );
    assert_eq!(
        server
            .mesh(&["stream", "get", "S", "-S", "s.a", "--raw"])
            .ok()
            .out,
        "three"
    );
    server
        .mesh(&["stream", "get", "S", "99"])
        .fails(4, "no message found");
}

#[test]
fn a_stream_is_paged_through() {
    let Some(server) = Server::jetstream() else { return };
    server.mesh(&["stream", "add", "S", "--subjects", "s.*"]).ok();
    for (subject, body) in [("s.a", "one"), ("s.b", "two"), ("s.a", "three"), ("s.c", "four")] {
        server.store(subject, body);
    }
    assert_eq!(
        server.mesh(&["stream", "view", "S", "--raw"]).ok().out,
        "one\ntwo\nthree\nfour\n"
    );
    assert_eq!(
        server
            .mesh(&["stream", "view", "S", "--raw", "--subject", "s.a"])
            .ok()
            .out,
        "one\nthree\n"
    );
    let page = server
        .mesh(&["stream", "view", "S", "2", "--raw", "--id", "2"])
        .ok();
    assert_eq!(page.out, "two\nthree\n");
    assert!(page.err.contains("More follow: --id 4"), "{}", page.err);
    assert_eq!(
        server
            .mesh(&["stream", "view", "S", "--raw", "--since", "1h"])
            .ok()
            .out
            .lines()
            .count(),
        4
    );
    assert_eq!(
        server
            .mesh(&["stream", "view", "S", "--since", "2100-01-01T00:00:00Z"])
            .ok()
            .out,
        ""
    );
    let third = server.mesh(&["stream", "get", "S", "3", "--json"]).ok().json()["time"].clone();
    let since = server
        .mesh(&["stream", "view", "S", "--raw", "--since", third.as_str().unwrap()])
        .ok();
    assert_eq!(since.out, "three\nfour\n");

    let subjects = server.mesh(&["stream", "subjects", "S", "--json"]).ok().json();
    assert_eq!(subjects, json!({"s.b": 1, "s.c": 1, "s.a": 2}));
    assert_eq!(
        server.mesh(&["stream", "subjects", "S", "s.a", "-n"]).ok().out,
        "s.a\n"
    );
}

#[test]
fn messages_are_removed() {
    let Some(server) = Server::jetstream() else { return };
    server.mesh(&["stream", "add", "S", "--subjects", "s.*"]).ok();
    for number in 1..=9 {
        server.store(&format!("s.{}", number % 2), "x");
    }
    server.mesh(&["stream", "rmm", "S", "3"]).fails(2, "--force");
    for sequence in ["3", "4", "7"] {
        server.mesh(&["stream", "rmm", "S", sequence, "-f"]).ok();
    }
    assert_eq!(
        server.mesh(&["stream", "gaps", "S", "--json"]).ok().json(),
        json!([[3, 4], [7, 7]])
    );
    server.mesh(&["stream", "purge", "S"]).fails(2, "--force");
    let purge = |flags: &[&str]| {
        let mut arguments = vec!["stream", "purge", "S", "-f", "--json"];
        arguments.extend(flags);
        server.mesh(&arguments).ok().json()["purged"].clone()
    };
    assert_eq!(purge(&["--subject", "s.0"]), 3);
    assert_eq!(purge(&["--seq", "5"]), 1);
    assert_eq!(purge(&["--keep", "1"]), 1);
    let state = server
        .mesh(&["stream", "info", "S", "--state", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&state["messages"], &state["first_seq"], &state["last_seq"]),
        (&json!(1), &json!(9), &json!(9))
    );
    assert_eq!(server.mesh(&["stream", "state", "S"]).ok().row("Messages"), "1");
    server.mesh(&["stream", "seal", "S", "-f"]).ok();
    server.mesh(&["stream", "purge", "S", "-f"]).fails(1, "sealed");
}
