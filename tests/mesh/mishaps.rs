//! Mishaps: keys that were deleted or cannot be read, reviving that was cut short, a stream made anew, a right that is missing,
//! two processes of one name, a command that is told to stop.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use serde_json::json;
use sovereign_mesh::mesh::{self, Catalog, Complaints, Identity, Mesh};
use sovereign_mesh::{Config, TestServer};

use super::on_each_server;
use super::support::{Ran, Running, Server, mesh_bin, until};
use crate::support::free_port;
use crate::support::process::{Process, mesh_command};

on_each_server!(
    a_session_whose_record_was_deleted_is_saved_again,
    a_file_stays_as_it_is_when_nothing_is_revived,
    a_claim_that_was_cut_short_is_taken_up,
    keys_that_cannot_be_read_hide_no_others,
    a_watcher_goes_on_with_a_stream_made_anew,
    who_was_taken_for_gone_says_that_he_is_back,
    two_of_one_name_are_told_of_each_other,
    a_command_hears_its_supervisor_and_keeps_its_exit_code,
);

fn save(server: &Server, session: &str, state: &str) -> Ran {
    Ran::fed(
        server.mesh("alpha", &["phoenix", "save", "--session", session]),
        state.as_bytes(),
    )
}

fn a_session_whose_record_was_deleted_is_saved_again(server: Server) {
    assert_eq!(save(&server, "S1", "one").code, 0);
    for how in ["del", "purge"] {
        server.ok("r", &["kv", how, "PHOENIX", "S1", "--force"]);
        assert_eq!(server.run("r", &["phoenix", "resurrect", "S1"]).code, 4, "{how}");
        let saved = save(&server, "S1", how);
        assert_eq!(saved.code, 0, "{saved:?}");
        let kept = server.json("r", &["phoenix", "ls", "S1"]);
        assert_eq!(kept[0]["record"]["bytes"], how.len(), "{kept:?}");
    }
    // So is the name that a revived session would have.
    assert_eq!(server.ok("beta", &["phoenix", "resurrect", "S1"]), "purge");
    server.ok("r", &["kv", "del", "PHOENIX", "S1-g2", "--force"]);
    assert_eq!(
        server.ok("beta", &["phoenix", "resurrect", "S1", "--take-over"]),
        "purge"
    );
    // And lineage goes on after its rows were deleted.
    for key in ["S1-g2", "cursor.stream"] {
        server.ok("r", &["kv", "del", "SESSIONS", key, "--force"]);
    }
    server.ok("r", &["lineage"]);
    let lineage = server.ok("r", &["lineage"]);
    assert!(lineage.contains("S1-g2  resurrected  on beta"), "{lineage}");
    assert!(
        server
            .ok("r", &["kv", "ls", "SESSIONS"])
            .contains("cursor.stream"),
        "nobody gets on with it"
    );
}

fn a_file_stays_as_it_is_when_nothing_is_revived(server: Server) {
    save(&server, "S1", "the state");
    let file = server.dir.path().join("state");
    let path = file.to_str().unwrap();
    assert_eq!(
        server
            .run("r", &["phoenix", "resurrect", "none", "-o", path])
            .code,
        4
    );
    assert!(!file.exists(), "an empty file is left behind");
    fs::write(&file, "something longer than the state").unwrap();
    server.ok("beta", &["phoenix", "resurrect", "S1", "-o", path]);
    // It was never heard from, but for what it saved.
    let lineage = server.ok("r", &["lineage", "S1"]);
    assert!(
        lineage.starts_with("S1  (unknown: never heard from)\n└─ S1-g2"),
        "{lineage}"
    );
    assert_eq!(server.run("r", &["lineage", "none"]).code, 4);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the state");
    let late = server.run("beta", &["phoenix", "resurrect", "S1", "-o", path]);
    assert!(late.code == 5 && late.err.contains("--take-over"), "{late:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the state");
}

/// As if the watcher had been killed right after its claim: no command was run, so the next one runs it.
fn a_claim_that_was_cut_short_is_taken_up(server: Server) {
    save(&server, "S1", "the state");
    server.ok("beta", &["emit", "recovery_beacon", r#"{"session":"S1"}"#]);
    let beacon = &server.json("r", &["log", "-n", "1"])[0];
    let stored: Timestamp = beacon["stored"].as_str().unwrap().parse().unwrap();
    let attempt = format!("{}.{}", beacon["stream_seq"], stored.as_nanosecond());
    let mut record = server.json("r", &["phoenix", "ls", "S1"])[0]["record"].clone();
    record["revived"] = json!({"by": "w", "session": "S1-g2", "at": beacon["stored"], "attempt": attempt});
    server.ok("r", &["kv", "put", "PHOENIX", "S1", &record.to_string()]);

    let late = server.run("r", &["phoenix", "resurrect", "S1"]);
    assert!(late.code == 5 && late.err.contains("--take-over"), "{late:?}");
    let out = server.dir.path().join("restored");
    let command = format!(
        r#"echo "$MESH_PARENT_SESSION $MESH_SESSION $(cat)" >> {}"#,
        out.display()
    );
    let watch = |instance| {
        Running::start(server.mesh(
            instance,
            &["phoenix", "watch", "--since", "all", "--exec", &command],
        ))
    };
    let watchers = [watch("w1"), watch("w2")];
    until("the restoring", || {
        server
            .ok("r", &["phoenix", "ls"])
            .contains("restored: done")
            .then_some(())
    });
    assert_eq!(fs::read_to_string(&out).unwrap(), "S1 S1-g2 the state\n");
    let lineage = server.ok("r", &["lineage"]);
    assert!(lineage.contains("└─ S1-g2  resurrected  on w"), "{lineage}");
    drop(watchers);
}

fn keys_that_cannot_be_read_hide_no_others(server: Server) {
    save(&server, "S1", "the state");
    let peer = Running::start(server.mesh("alpha", &["join"]));
    until("the peer", || {
        server
            .ok("r", &["check"])
            .starts_with("Online, 1 peers")
            .then_some(())
    });
    server.ok("r", &["lineage"]);
    for bucket in ["PEERS", "PHOENIX", "SESSIONS"] {
        server.ok("r", &["kv", "put", bucket, "junk", "no JSON"]);
    }
    for (args, shown, bucket) in [
        (&["peers"][..], "alpha", "PEERS"),
        (&["phoenix", "ls"], "S1", "PHOENIX"),
    ] {
        let ran = server.run("r", args);
        assert!(ran.code == 1 && ran.out.contains(shown), "{ran:?}");
        let advice = format!("`mesh kv purge {bucket} junk` removes it");
        assert!(ran.err.contains(&advice), "{ran:?}");
    }
    let check = server.run("r", &["check"]);
    assert!(
        check.code == 3
            && check
                .out
                .contains("PROBLEM  key `junk` of bucket PHOENIX is damaged"),
        "{check:?}"
    );
    assert!(check.out.starts_with("Unwell, 1 peers connected\n"), "{check:?}");
    assert_eq!(
        server.ok("beta", &["phoenix", "resurrect", "--latest"]),
        "the state"
    );
    assert!(server.ok("r", &["lineage"]).contains("S1-g2  resurrected"));
    assert!(!server.ok("r", &["kv", "ls", "SESSIONS"]).contains("junk"));
    drop(peer);
}

fn a_watcher_goes_on_with_a_stream_made_anew(server: Server) {
    let say = |text: &str| {
        server.ok(
            "alpha",
            &["emit", "aha_moment", &format!(r#"{{"text":"{text}"}}"#)],
        )
    };
    let live = Running::start(server.mesh("r", &["watch", "--json"]));
    until("the watcher", || {
        say("before");
        live.no_line()
    });
    // The new stream is shorter than what was read of the old one.
    for _ in 0..3 {
        say("before");
    }
    server.ok("r", &["stream", "rm", "MESH", "--force"]);
    say("anew");
    while !live.line().contains("anew") {}
}

fn causes(server: &Server) -> Vec<String> {
    let events = server.json("r", &["log", "-n", "1000"]);
    let about = |event: &serde_json::Value| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["event"]), text(&event["body"]["cause"]))
    };
    events.iter().map(about).collect()
}

fn who_was_taken_for_gone_says_that_he_is_back(server: Server) {
    let alpha = Running::start(server.mesh("alpha", &["join", "--heartbeat", "1s", "--lapse", "60s"]));
    until("the peer", || {
        server.ok("r", &["peers"]).contains("alpha").then_some(())
    });
    // As a lapse that somebody has reported leaves it.
    server.ok("r", &["kv", "purge", "PEERS", "alpha", "--force"]);
    until("its return", || {
        causes(&server)
            .contains(&"peer_joined returned".to_owned())
            .then_some(())
    });
    assert!(server.ok("r", &["peers"]).contains("alpha"));
    drop(alpha);
}

fn two_of_one_name_are_told_of_each_other(server: Server) {
    let join = || {
        let mut command = Command::new("sh");
        let line = r#"exec "$MESH" join --session S1 --heartbeat 1s --lapse 60s 2>&1"#;
        command.args(["-c", line]);
        server.environment(&mut command, "alpha");
        let joined = Running::start(command);
        assert_eq!(joined.line(), "alpha is present");
        joined
    };
    let (first, mut second) = (join(), join());
    for process in [&first, &second] {
        let said = process.line();
        assert!(said.contains("goes by this name too"), "{said}");
    }
    // The one that stays is present whatever the other one takes away.
    assert_eq!(second.terminate(), 0);
    until("the first one's next heartbeat", || {
        server.ok("r", &["peers"]).contains("S1").then_some(())
    });
    drop(first);
}

fn a_command_hears_its_supervisor_and_keeps_its_exit_code(mut server: Server) {
    let file = server.dir.path().join("go");
    let script = format!(
        r#"trap "exit 9" TERM; echo up; until test -e {}; do sleep 0.05; done; exit 7"#,
        file.display()
    );
    let args = [
        "--timeout",
        "1s",
        "join",
        "--session",
        "S1",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let mut told = Running::start(server.mesh("alpha", &args));
    assert_eq!(told.line(), "up");
    // What is typed at the terminal is the command's affair, however often.
    told.signal("INT");
    told.signal("INT");
    assert_eq!(told.terminate(), 9);
    assert!(causes(&server).contains(&"peer_left exited with 9".to_owned()));

    let mut alone = Running::start(server.mesh("alpha", &args));
    assert_eq!(alone.line(), "up");
    server.kill();
    fs::write(&file, "").unwrap();
    assert_eq!(alone.wait(), 7);
}

/// Kept in the journal, an event that is never allowed would stand in the way of all that come after it.
#[test]
fn what_is_not_allowed_is_refused_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (port, state) = (free_port(), dir.path().join("state"));
    let config = dir.path().join("mesh.conf");
    let text = format!(
        r#"
        port: {port}
        jetstream {{ store_dir: {:?} }}
        authorization {{ users: [
          {{ user: all, password: a }}
          {{ user: some, password: s, permissions: {{ publish: {{ deny: ["mesh.fo.>", "$JS.API.CONSUMER.MSG.NEXT.>"] }} }} }}
        ] }}
        "#,
        dir.path().join("store")
    );
    fs::write(&config, text).unwrap();
    let mut command = mesh_command();
    command.args(["serve", "--monitor-port", "0", "-c"]).arg(&config);
    let server = Process::spawn(command, dir);
    server.wait_for("Server is ready");
    let run = |user: &str, args: &[&str]| {
        let mut command = Command::new(mesh_bin());
        command
            .args(args)
            .env("MESH_URL", format!("nats://{user}@127.0.0.1:{port}"))
            .env("MESH_INSTANCE", "alpha")
            .env("MESH_STATE_DIR", &state)
            .env("MESH_EVENTS", state.join("none"));
        Ran::of(command)
    };
    let refused = run("some:s", &["emit", "fo_insight", r#"{"text":"x"}"#]);
    assert!(
        refused.code == 1
            && refused.err.contains("the server refused `fo_insight`")
            && refused.err.contains("mesh.fo.insight"),
        "{refused:?}"
    );
    let next = run("some:s", &["emit", "aha_moment", r#"{"text":"x"}"#]);
    assert_eq!((next.code, next.out.as_str()), (0, "1 alpha 1\n"), "{next:?}");
    // Who may not read is told so, and does not wait for ever.
    let log = run("some:s", &["--timeout", "1s", "log"]);
    assert!(
        log.code == 3 && log.err.contains("The server refuses: ") && log.err.contains("MSG.NEXT"),
        "{log:?}"
    );
    assert_eq!(run("all:a", &["log"]).code, 0);
}

/// nats-server is not held to it: there what is left is not exact while a key is set.
#[test]
fn who_says_again_that_he_is_here_is_seen_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::with(Config {
        store_dir: Some(directory.path().to_owned()),
        ..Config::embedded()
    });
    let options = mesh::Options {
        timeout: std::time::Duration::from_secs(10),
        identity: Identity::from_env().unwrap(),
        catalog: Catalog::builtin(),
        state_dir: directory.path().to_owned(),
        complaints: Complaints::default(),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mesh = Mesh::new(async_nats::connect(server.url()).await.unwrap(), options);
        mesh::setup::setup(&mesh.jetstream, &mesh::setup::Options::default(), false)
            .await
            .unwrap();
        let bucket = mesh.jetstream.get_key_value("PEERS").await.unwrap();
        let heartbeats = async || {
            for instance in ["alpha", "beta", "gamma"] {
                let peer = json!({ "instance": instance, "host": "h", "pid": 1, "since": "" });
                bucket.put(instance, peer.to_string().into()).await.unwrap();
            }
        };
        heartbeats().await;
        let look = async {
            for _ in 0..100 {
                let (present, _) = mesh.peers().await.unwrap();
                let seen: Vec<_> = present.iter().map(|present| &present.peer.instance).collect();
                assert_eq!(seen, ["alpha", "beta", "gamma"]);
            }
        };
        tokio::select! {
            () = look => {}
            () = async { loop { heartbeats().await } } => {}
        }
    });
}
