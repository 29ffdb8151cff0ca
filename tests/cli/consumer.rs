//! `mesh consumer`.

use serde_json::{Value, json};

use crate::support::Server;

/// A server with stream S holding `count` messages m1, m2, ... on s.1, s.2, ...
fn stream_of(count: u64) -> Option<Server> {
    let server = Server::jetstream()?;
    server.mesh(&["stream", "add", "S", "--subjects", "s.*"]).ok();
    let count = count.to_string();
    server
        .mesh(&["pub", "-J", "-q", "s.{{Count}}", "m{{Count}}", "--count", &count])
        .ok();
    Some(server)
}

/// Flags of `consumer add`, and what they make of the configuration.
const FLAGS: &[(&[&str], &str, &str)] = &[
    (&[], "durable_name", r#""C""#),
    (&["--ephemeral"], "durable_name", "null"),
    (&[], "ack_policy", r#""explicit""#),
    (&["--ack", "all"], "ack_policy", r#""all""#),
    (&["--filter", "s.1"], "filter_subject", r#""s.1""#),
    (&["--filter", "s.1,s.2"], "filter_subjects", r#"["s.1","s.2"]"#),
    (&["--deliver", "last"], "deliver_policy", r#""last""#),
    (
        &["--deliver", "subject", "--filter", "s.*"],
        "deliver_policy",
        r#""last_per_subject""#,
    ),
    (&["--deliver", "7"], "opt_start_seq", "7"),
    (&["--deliver", "1h"], "deliver_policy", r#""by_start_time""#),
    (&["--replay", "original"], "replay_policy", r#""original""#),
    (&["--wait", "1m"], "ack_wait", "60000000000"),
    (&["--max-deliver", "5"], "max_deliver", "5"),
    (&["--max-pending", "12"], "max_ack_pending", "12"),
    (&["--max-waiting", "3"], "max_waiting", "3"),
    (&["--max-pull-batch", "10"], "max_batch", "10"),
    (&["--max-pull-expire", "1s"], "max_expires", "1000000000"),
    (&["--max-pull-bytes", "1K"], "max_bytes", "1024"),
    (
        &["--backoff", "1s,5s", "--max-deliver", "3"],
        "backoff",
        "[1000000000,5000000000]",
    ),
    (&["--headers-only"], "headers_only", "true"),
    (&["--memory"], "mem_storage", "true"),
    (&["--sample", "50"], "sample_freq", r#""50%""#),
    (
        &["--inactive-threshold", "1h"],
        "inactive_threshold",
        "3600000000000",
    ),
    (
        &["--target", "t", "--heartbeat", "1s"],
        "idle_heartbeat",
        "1000000000",
    ),
    (
        &["--target", "t", "--deliver-group", "g"],
        "deliver_group",
        r#""g""#,
    ),
];

#[test]
fn flags_set_the_configuration() {
    let Some(server) = stream_of(1) else { return };
    for (flags, field, expected) in FLAGS {
        let mut arguments = vec!["consumer", "add", "S", "C", "--json"];
        arguments.extend(*flags);
        let config = &server.mesh(&arguments).ok().json()["config"];
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(config[field], expected, "{flags:?}");
        server.mesh(&["consumer", "rm", "S", "C", "-f"]).ok();
    }
}

#[test]
fn next_takes_and_settles() {
    let Some(server) = stream_of(6) else { return };
    server.mesh(&["consumer", "add", "S", "C", "--wait", "10m"]).ok();
    let next = |flags: &[&str]| {
        let mut arguments = vec!["consumer", "next", "S", "C", "--timeout", "10s"];
        arguments.extend(flags);
        server.mesh(&arguments).ok()
    };
    let first = next(&[]);
    assert!(
        first
            .out
            .contains("subj: s.1 / tries: 1 / cons seq: 1 / str seq: 1 / pending: 5\n\nm1\n"),
        "{first:?}"
    );
    assert!(first.err.contains("Acknowledged message"), "{first:?}");
    let more = next(&["--count", "2", "--json"]).json_lines();
    assert_eq!(
        (&more[1]["text"], &more[1]["seq"], &more[1]["delivered"]),
        (&json!("m3"), &json!(3), &json!(1))
    );
    assert_eq!(next(&["--raw", "--nak"]).out, "m4\n");
    assert_eq!(
        next(&["--raw", "--term"]).out,
        "m4\n",
        "given back, it comes again"
    );
    assert_eq!(next(&["--raw", "--no-ack"]).out, "m5\n");
    assert_eq!(next(&["--raw"]).out, "m6\n");
    let info = server.mesh(&["consumer", "info", "S", "C", "--json"]).ok().json();
    assert_eq!(
        (&info["num_ack_pending"], &info["ack_floor"]["stream_seq"]),
        (&json!(1), &json!(4))
    );
    server
        .mesh(&["consumer", "next", "S", "C", "--no-wait"])
        .fails(1, "no message waits");
    server
        .mesh(&["consumer", "next", "S", "C", "--timeout", "100ms"])
        .fails(1, "no message in S > C");
    server
        .mesh(&["consumer", "next", "S", "NOPE"])
        .fails(4, "consumer not found");
    server
        .mesh(&["consumer", "next", "NOPE", "C"])
        .fails(4, "not found");
}

#[test]
fn sub_serves_pull_and_push() {
    let Some(server) = stream_of(150) else { return };
    server.mesh(&["consumer", "add", "S", "PULL"]).ok();
    server
        .mesh(&[
            "consumer",
            "add",
            "S",
            "PUSH",
            "--target",
            "t",
            "--heartbeat",
            "1s",
            "--flow-control",
        ])
        .ok();
    let expected: String = (1..=150).map(|number| format!("m{number}\n")).collect();
    for consumer in ["PULL", "PUSH"] {
        let ran = server
            .mesh(&["consumer", "sub", "S", consumer, "--count", "150", "--raw"])
            .ok();
        assert_eq!(ran.out, expected, "{consumer}");
        let info = server
            .mesh(&["consumer", "info", "S", consumer, "--json"])
            .ok()
            .json();
        assert_eq!(info["ack_floor"]["stream_seq"], 150, "{consumer}");
    }
    server.mesh(&["consumer", "next", "S", "PUSH"]).fails(1, "pushes");
}

#[test]
fn consumers_are_listed_changed_and_paused() {
    let Some(server) = stream_of(3) else { return };
    server.mesh(&["consumer", "ls", "S"]).ok();
    server
        .mesh(&["con", "add", "S", "B", "--filter", "s.1", "--description", "d"])
        .ok();
    server.mesh(&["con", "add", "S", "A"]).ok();
    assert_eq!(server.mesh(&["consumer", "ls", "S", "-n"]).ok().out, "A\nB\n");
    assert_eq!(
        server.mesh(&["consumer", "ls", "S", "--json"]).ok().json()[1]["name"],
        "B"
    );
    assert!(
        server
            .mesh(&["consumer", "report", "S"])
            .ok()
            .out
            .contains("3 / 100%")
    );
    let page = server.mesh(&["consumer", "info", "S", "B"]).ok();
    assert_eq!(
        (page.row("Filter Subject"), page.row("Unprocessed Messages")),
        ("s.1", "1")
    );
    assert_eq!(page.row("Pull Mode"), "true");
    server
        .mesh(&["consumer", "add", "S", "A", "--wait", "7s"])
        .fails(5, "(10148)");

    server
        .mesh(&["consumer", "edit", "S", "B", "--wait", "7s"])
        .fails(2, "--force");
    let page = server
        .mesh(&["consumer", "edit", "S", "B", "--wait", "7s", "-f"])
        .ok();
    assert_eq!((page.row("Ack Wait"), page.row("Description")), ("7s", "d"));

    server.mesh(&["consumer", "pause", "S", "B", "1h"]).ok();
    assert!(
        server
            .mesh(&["consumer", "info", "S", "B"])
            .ok()
            .row("Paused")
            .ends_with("remaining")
    );
    server.mesh(&["consumer", "resume", "S", "B"]).ok();
    let info = server.mesh(&["consumer", "info", "S", "B", "--json"]).ok().json();
    assert_ne!(info["paused"], true);

    server.mesh(&["consumer", "rm", "S", "B"]).fails(2, "--force");
    server.mesh(&["consumer", "rm", "S", "B", "-f"]).ok();
    server
        .mesh(&["consumer", "info", "S", "B"])
        .fails(4, "consumer not found (10014)");
}
