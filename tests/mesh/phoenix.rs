//! Phoenix and lineage: states that outlive their sessions, revived by one alone.

use std::process::Stdio;

use super::on_each_server;
use super::support::{Ran, Running, Server, until};

on_each_server!(
    a_large_state_comes_back_on_another_instance,
    of_many_revivers_one_wins,
    the_old_session_is_told,
    saves_are_kept_and_chosen,
    a_lapsed_session_is_restored_once,
    a_beacon_is_served_once_or_loudly_not,
    lineage_is_drawn_and_outlives_the_stream,
);

fn save(server: &Server, instance: &str, session: &str, state: &[u8]) -> Ran {
    Ran::fed(
        server.mesh(instance, &["phoenix", "save", "--session", session]),
        state,
    )
}

fn a_large_state_comes_back_on_another_instance(mut server: Server) {
    let mut alpha = Running::start(server.mesh("alpha", &["join", "--session", "S1"]));
    // Ten MiB that do not repeat.
    let state: Vec<u8> = (0..10u32 << 20 >> 2)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let saved = save(&server, "alpha", "S1", &state);
    assert_eq!(
        (saved.code, saved.out.as_str()),
        (0, "saved 10 MiB of S1\n"),
        "{saved:?}"
    );
    alpha.kill();
    server.kill();
    server.restart();
    let file = server.dir.path().join("back");
    let ran = server.run(
        "beta",
        &["phoenix", "resurrect", "S1", "-o", file.to_str().unwrap()],
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "S1 goes on as S1-g2 (10 MiB)\n"),
        "{ran:?}"
    );
    assert!(std::fs::read(&file).unwrap() == state, "the state is another one");
    // And on, from the life it has now.
    let ran = server.run(
        "gamma",
        &[
            "phoenix",
            "resurrect",
            "S1-g2",
            "--as",
            "fresh",
            "-o",
            file.to_str().unwrap(),
        ],
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "S1-g2 goes on as fresh (10 MiB)\n"),
        "{ran:?}"
    );
    let lineage = server.ok("r", &["lineage", "S1"]);
    assert!(
        lineage.ends_with("└─ S1-g2  resurrected  on beta\n   └─ fresh  resurrected  on gamma\n"),
        "{lineage}"
    );
}

fn of_many_revivers_one_wins(server: Server) {
    save(&server, "alpha", "S1", b"the state");
    let revivers: Vec<_> = (0..8)
        .map(|n| {
            let mut command = server.mesh(&format!("r{n}"), &["phoenix", "resurrect", "S1"]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let ended: Vec<_> = revivers
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let winners: Vec<usize> = (0..8).filter(|&n| ended[n].status.success()).collect();
    let [winner] = winners[..] else {
        panic!("{winners:?} won: {ended:?}")
    };
    for (n, output) in ended.iter().enumerate() {
        let said = String::from_utf8_lossy(&output.stderr);
        if n == winner {
            assert_eq!(output.stdout, b"the state");
        } else {
            assert_eq!(
                (output.status.code(), output.stdout.as_slice()),
                (Some(5), &b""[..]),
                "{said}"
            );
            assert!(
                said.contains(&format!("was revived by r{winner} as `S1-g2`")),
                "{said}"
            );
        }
    }
    let told = server.json(
        "r",
        &["watch", "session_resurrected", "--since", "all", "-n", "1"],
    );
    assert_eq!(
        (&told[0]["instance"], &told[0]["body"]["session"]),
        (&format!("r{winner}").into(), &"S1".into())
    );
    // A person may overrule the fence, under a name of its own.
    let ran = server.run("r9", &["phoenix", "resurrect", "S1", "--take-over"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "the state"), "{ran:?}");
    assert!(ran.err.contains("S1 goes on as S1-g3"), "{ran:?}");
}

fn the_old_session_is_told(server: Server) {
    save(&server, "alpha", "S1", b"one");
    let mut old = Running::start(server.mesh("alpha", &["join", "--session", "S1"]));
    until("the peer", || {
        server.ok("r", &["peers"]).contains("S1").then_some(())
    });
    server.ok("beta", &["phoenix", "resurrect", "S1"]);
    // At once while it is there, and whenever it comes back.
    assert_eq!(old.wait(), 5);
    let ran = save(&server, "alpha", "S1", b"two");
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.err.contains("session `S1` was revived by beta as `S1-g2`"),
        "{ran:?}"
    );
    let ran = server.run("alpha", &["join", "--session", "S1"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    let ran = save(&server, "beta", "S1-g2", b"three");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(server.ok("gamma", &["phoenix", "resurrect", "S1-g2"]), "three");
}

fn saves_are_kept_and_chosen(server: Server) {
    for (instance, session, state) in [
        ("alpha", "A", "a1"),
        ("beta", "B", "b1"),
        ("alpha", "A", "a2"),
        ("alpha", "A", ""),
    ] {
        assert_eq!(save(&server, instance, session, state.as_bytes()).code, 0);
    }
    let kept = server.json("r", &["phoenix", "ls", "A"]);
    let sizes: Vec<u64> = kept
        .iter()
        .map(|save| save["record"]["bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [0, 2, 2]);
    assert_eq!(server.run("r", &["phoenix", "ls", "none"]).code, 4);
    let ran = server.run("r", &["phoenix", "resurrect", "none"]);
    assert!(
        ran.code == 4 && ran.err.contains("no state is saved for session `none`"),
        "{ran:?}"
    );
    assert_eq!(server.run("r", &["phoenix", "resurrect"]).code, 2);
    assert_eq!(
        server.run("r", &["phoenix", "resurrect", "A", "--as", "B"]).code,
        2
    );
    assert_eq!(
        server.run("r", &["phoenix", "save", "--session", "no name"]).code,
        2
    );
    assert_eq!(
        server.ok("gamma", &["phoenix", "resurrect", "--instance", "beta"]),
        "b1"
    );
    // B goes on as B-g2, saved last; then A is the latest but for that one.
    assert_eq!(
        server.ok("gamma", &["phoenix", "resurrect", "--latest", "--as", "C"]),
        "b1"
    );
    assert_eq!(
        server.ok("gamma", &["phoenix", "resurrect", "--instance", "alpha"]),
        ""
    );
    let ran = server.run("gamma", &["phoenix", "resurrect", "--instance", "alpha"]);
    assert!(
        ran.code == 4 && ran.err.contains("no session of instance `alpha` can be revived"),
        "{ran:?}"
    );
    let listed = server.ok("r", &["phoenix", "ls"]);
    assert!(listed.contains("revived by gamma as B-g2"), "{listed}");
}

/// Two restorers that write down what they run.
fn restorers(server: &Server, command: &str) -> (Vec<Running>, std::path::PathBuf) {
    let out = server.dir.path().join("restored");
    let command = command.replace("OUT", out.to_str().unwrap());
    let args = [
        "phoenix",
        "watch",
        "--exec",
        &command,
        "--grace",
        "1s",
        "--tries",
        "3",
        "--backoff",
        "50ms",
    ];
    let watchers = ["w1", "w2"].map(|instance| Running::start(server.mesh(instance, &args)));
    until("the restorers", || {
        server.ok("r", &["check"]).contains(" phoenix ").then_some(())
    });
    (watchers.into(), out)
}

fn a_lapsed_session_is_restored_once(server: Server) {
    save(&server, "alpha", "S1", b"state of S1");
    let (watchers, out) = restorers(
        &server,
        r#"echo "$MESH_PARENT_SESSION $MESH_SESSION $(cat)" >> OUT"#,
    );
    let join = |instance, session| {
        Running::start(server.mesh(
            instance,
            &["join", "--session", session, "--heartbeat", "1s", "--lapse", "3s"],
        ))
    };
    let mut alpha = join("alpha", "S1");
    // This one saved nothing, so nobody misses it.
    let mut other = join("beta", "S2");
    until("the peers", || {
        server
            .ok("r", &["check"])
            .contains("Online, 2 peers")
            .then_some(())
    });
    alpha.kill();
    other.kill();
    until("the restoring", || {
        std::fs::read_to_string(&out)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    server.ok(
        "gamma",
        &[
            "emit",
            "recovery_beacon",
            r#"{"session":"S1","reason":"too late"}"#,
        ],
    );
    until("the watchers", || {
        let health = &server.json("r", &["check"])[0];
        let lag = health["consumers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|lag| lag["name"] == "phoenix")
            .unwrap()
            .clone();
        (lag["waiting"] == 0 && lag["unsettled"] == 0).then_some(())
    });
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "S1 S1-g2 state of S1\n");
    assert!(server.ok("r", &["phoenix", "ls"]).contains("restored: done"));
    drop(watchers);
}

fn a_beacon_is_served_once_or_loudly_not(server: Server) {
    for session in ["good", "bad", "hangs"] {
        save(&server, "alpha", session, session.as_bytes());
    }
    let (mut watchers, out) = restorers(
        &server,
        r#"state=$(cat); echo "$state $MESH_PHOENIX_TRY" >> OUT; case $state in bad) exit 7;; hangs) sleep 60;; esac"#,
    );
    for session in ["good", "good", "none", "bad", "hangs"] {
        server.ok(
            "beta",
            &[
                "emit",
                "recovery_beacon",
                &format!(r#"{{"session":"{session}"}}"#),
            ],
        );
    }
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    until("the hanging command", || read().contains("hangs").then_some(()));
    // Whoever runs it is killed in the middle: the other one cannot know how far it came.
    watchers.iter_mut().for_each(Running::kill);
    let (_watchers, _) = restorers(&server, "echo again >> OUT");
    let letters = server.json("r", &["watch", "dead_letter", "--since", "all", "-n", "3"]);
    let reasons: Vec<&str> = letters
        .iter()
        .map(|letter| letter["body"]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "no state is saved for session `none`",
            "restoring `bad` as `bad-g2` failed 3 times, the last one exited with 7",
            "interrupted while restoring `hangs`; its state is with `hangs-g2`",
        ]
    );
    assert_eq!(read(), "good 1\nbad 1\nbad 2\nbad 3\nhangs 1\n");
    assert_eq!(server.ok("r", &["phoenix", "resurrect", "hangs-g2"]), "hangs");
    assert!(
        server
            .ok("r", &["phoenix", "ls", "bad"])
            .contains(r#"{"session":"bad"}"#)
    );
}

fn lineage_is_drawn_and_outlives_the_stream(server: Server) {
    let say = |session: &str, parent: &str, event: &str, body: &str| {
        let mut command = server.mesh("alpha", &["emit", event, body]);
        command
            .env("MESH_SESSION", session)
            .env("MESH_PARENT_SESSION", parent);
        let ran = Ran::of(command);
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    say("A", "", "session_started", "{}");
    say("B", "A", "fo_insight", r#"{"text":"x"}"#);
    say("C", "A", "session_started", r#"{"how":"forked"}"#);
    say("X", "lost", "session_started", r#"{"how":"resumed"}"#);
    say("L1", "L2", "session_started", "{}");
    say("L2", "L1", "session_started", "{}");
    let expected = "\
lost  (unknown: never heard from)
└─ X  resumed  on alpha
A  on alpha
├─ B  spawned  on alpha
└─ C  forked  on alpha
L1  spawned  on alpha  (in a cycle)
└─ L2  spawned  on alpha  (in a cycle)
   └─ L1  spawned  (cycle: drawn above)
";
    assert_eq!(server.ok("r", &["lineage"]), expected);
    assert_eq!(
        server.ok("r", &["lineage", "X"]),
        "lost  (unknown: never heard from)\n└─ X  resumed  on alpha\n"
    );
    assert_eq!(server.run("r", &["lineage", "nobody"]).code, 4);
    assert!(
        server
            .ok("r", &["lineage", "--dot"])
            .contains(r#""A" -> "C" [label=forked];"#)
    );
    let json = server.json("r", &["lineage"]);
    let x = json.iter().find(|line| line["session"] == "X").unwrap();
    assert_eq!(
        (&x["parent_known"], &x["cycle"], &x["how"]),
        (&false.into(), &false.into(), &"resumed".into())
    );

    // The events go with time, what they told stays.
    server.ok("r", &["setup", "--max-age", "1s"]);
    until("an empty stream", || {
        server
            .ok("r", &["check"])
            .contains("stream   0 events")
            .then_some(())
    });
    assert_eq!(server.ok("r", &["lineage"]), expected);
    say("D", "C", "session_ended", "{}");
    assert!(
        server
            .ok("r", &["lineage", "D"])
            .contains("   └─ D  spawned  on alpha  ended\n")
    );
}
