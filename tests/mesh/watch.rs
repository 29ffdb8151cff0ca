//! Watching: live, from the past, durable, with a command.

use std::thread;

use super::on_each_server;
use super::support::{Running, Server, until};

on_each_server!(
    live_and_past,
    a_durable_goes_on_where_it_stopped,
    a_durable_survives_a_killed_broker,
    a_command_acknowledges_by_its_exit,
    a_killed_command_comes_again_in_order,
);

fn say(server: &Server, instance: &str, text: &str) {
    server.ok(
        instance,
        &["emit", "fo_insight", &format!(r#"{{"text":"{text}"}}"#)],
    );
}

fn text(event: &serde_json::Value) -> String {
    event["body"]["text"].as_str().unwrap().to_owned()
}

fn texts(events: &[serde_json::Value]) -> Vec<String> {
    events.iter().map(text).collect()
}

fn live_and_past(server: Server) {
    say(&server, "alpha", "before");
    let live = Running::start(server.mesh("r", &["watch", "fo_insight", "mesh.fo.*", "--json"]));
    let only_beta = Running::start(server.mesh("r", &["watch", "--instance", "beta", "--json"]));
    // It reads from now on: it has begun when it shows the first of these.
    let first = until("the watcher", || {
        say(&server, "beta", "tick");
        live.no_line()
    });
    assert!(first.contains("tick"), "{first}");
    say(&server, "alpha", "after");
    server.ok("alpha", &["emit", "aha_moment", r#"{"text":"not asked for"}"#]);
    say(&server, "alpha", "end");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "end") {
        seen.push(text(&live.json()));
    }
    seen.retain(|text| text != "tick");
    assert_eq!(seen, ["after", "end"]);
    say(&server, "beta", "last");
    while text(&only_beta.json()) != "last" {}

    let past = server.json("r", &["watch", "fo_insight", "--since", "1h", "-n", "1"]);
    assert_eq!(texts(&past), ["before"]);
    let past = server.json(
        "r",
        &["watch", "--since", "all", "--instance", "alpha", "-n", "3"],
    );
    assert_eq!(texts(&past), ["before", "after", "not asked for"]);
    let log = server.ok("r", &["log", "-n", "1"]);
    assert!(
        log.contains("fo_insight") && log.contains("beta") && log.contains("last"),
        "{log}"
    );
}

fn a_durable_goes_on_where_it_stopped(server: Server) {
    let watch = &["watch", "fo_insight", "--durable", "d", "--json"];
    // What is said before its first start is not for it.
    say(&server, "alpha", "0");
    let mut reader = Running::start(server.mesh("r", watch));
    until("the durable", || {
        server.ok("r", &["check"]).contains(" d ").then_some(())
    });
    let mut seen = Vec::new();
    for n in 1..=3 {
        say(&server, "alpha", &n.to_string());
        seen.push(text(&reader.json()));
    }
    assert_eq!(reader.terminate(), 0);
    for n in 4..=6 {
        say(&server, "alpha", &n.to_string());
    }
    let mut reader = Running::start(server.mesh("r", watch));
    seen.extend((4..=6).map(|_| text(&reader.json())));
    reader.terminate();
    say(&server, "alpha", "7");
    seen.extend(texts(
        &server.json("r", &["watch", "fo_insight", "--durable", "d", "-n", "1"]),
    ));
    assert_eq!(seen, ["1", "2", "3", "4", "5", "6", "7"]);
}

fn a_durable_survives_a_killed_broker(mut server: Server) {
    let reader = Running::start(server.mesh("r", &["watch", "--since", "all", "--durable", "d", "--json"]));
    let live = Running::start(server.mesh("r", &["watch", "--since", "all", "--json"]));
    let (rounds, each) = (3, 8);
    for round in 0..rounds {
        thread::scope(|scope| {
            let server = &server;
            scope.spawn(move || {
                for n in 0..each {
                    say(server, "alpha", &(round * each + n).to_string());
                }
            });
        });
        server.kill();
        server.restart();
    }
    say(&server, "alpha", "end");
    for reader in [&reader, &live] {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "end") {
            seen.push(text(&reader.json()));
        }
        let mut expected: Vec<String> = (0..rounds * each).map(|n| n.to_string()).collect();
        expected.push("end".to_owned());
        assert_eq!(seen, expected);
    }
}

fn a_command_acknowledges_by_its_exit(server: Server) {
    let out = server.dir.path().join("out");
    let command = format!(
        r#"body=$(cat); echo "$MESH_EVENT_TRY $MESH_EVENT_INSTANCE $MESH_EVENT_SEQ $MESH_EVENT_NAME $body" >> {}; case "$body" in *bad*) exit 7;; *once*) test "$MESH_EVENT_TRY" -gt 1;; esac"#,
        out.display()
    );
    let mut watch = Running::start(server.mesh(
        "r",
        &[
            "watch",
            "--since",
            "all",
            "--durable",
            "worker",
            "--exec",
            &command,
            "--tries",
            "3",
            "--backoff",
            "50ms",
        ],
    ));
    for text in ["fine", "bad", "once", "end"] {
        say(&server, "alpha", text);
    }
    let lines = until("the commands", || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        text.contains("end").then_some(text)
    });
    let tries: Vec<(&str, &str)> = lines
        .lines()
        .map(|line| {
            (
                &line[..1],
                ["fine", "bad", "once", "end"]
                    .into_iter()
                    .find(|text| line.contains(text))
                    .unwrap(),
            )
        })
        .collect();
    // In order all the way: what fails is tried again before the next one is.
    assert_eq!(
        tries,
        [
            ("1", "fine"),
            ("1", "bad"),
            ("2", "bad"),
            ("3", "bad"),
            ("1", "once"),
            ("2", "once"),
            ("1", "end")
        ]
    );
    assert!(
        lines.starts_with(r#"1 alpha 1 fo_insight {"text":"fine"}"#),
        "{lines}"
    );
    let dead = server.json("r", &["watch", "dead_letter", "--since", "all", "-n", "1"]);
    let letter = &dead[0]["body"];
    assert_eq!(
        (
            &letter["consumer"],
            &letter["sequence"],
            &letter["tries"],
            &letter["reason"]
        ),
        (&"worker".into(), &2.into(), &3.into(), &"exited with 7".into())
    );
    assert_eq!(watch.terminate(), 0);
}

fn a_killed_command_comes_again_in_order(server: Server) {
    let out = server.dir.path().join("out");
    let command = format!(
        r#"echo "$MESH_EVENT_TRY $MESH_EVENT_SEQ" >> {}; test "$MESH_EVENT_SEQ$MESH_EVENT_TRY" != 21 || sleep 60"#,
        out.display()
    );
    let args = &[
        "watch",
        "--since",
        "all",
        "--durable",
        "worker",
        "--exec",
        &command,
    ];
    let mut watch = Running::start(server.mesh("r", args));
    for n in 1..=4 {
        say(&server, "alpha", &n.to_string());
    }
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    until("the hanging command", || (read() == "1 1\n1 2\n").then_some(()));
    watch.kill();
    let mut watch = Running::start(server.mesh("r", args));
    until("the end", || read().contains("1 4").then_some(()));
    assert_eq!(read(), "1 1\n1 2\n2 2\n1 3\n1 4\n");
    watch.terminate();
}
