//! The way round a mesh that is down: events wait in real git repositories, and each is imported once and in order.

mod mishaps;
mod support;

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::support::{Repo, seqs, skip_without_git};
use super::on_each_server;
use super::support::{Ran, Running, Server, until};

on_each_server!(
    events_of_two_machines_wait_and_are_imported_once,
    an_emitter_imports_its_own_events_before_the_next,
    an_event_that_was_stored_unheard_is_not_doubled,
    many_at_once_lose_nothing,
    syncs_that_are_killed_neither_lose_nor_double,
    emitters_that_are_killed_neither_skip_nor_double,
    a_reader_sees_git_and_the_mesh_as_one,
);

/// Where no mesh is, and none comes: the port of a server that was killed may be somebody else's a moment later.
const DOWN: &str = "nats://127.0.0.1:1";

fn insight(text: impl std::fmt::Display) -> String {
    json!({"text": text.to_string()}).to_string()
}

fn events_of_two_machines_wait_and_are_imported_once(server: Server) {
    skip_without_git!();
    let remote = Repo::bare(server.dir.path(), "remote");
    let (one, two) = (remote.cloned("one"), remote.cloned("two"));
    one.in_the_middle_of_a_merge();
    let before = [one.everything(), two.everything()];
    assert_eq!(emit_with(&server, &one, "alpha", "1").out, "1 alpha 1\n");
    for n in ["2", "3", "4"] {
        let ran = emit_down(&server, &one, "alpha", n);
        assert_eq!(ran.out, format!("kept alpha {n}\n"));
        assert!(
            ran.err.contains("The mesh is down") && ran.err.contains("refs/mesh/alpha"),
            "{ran:?}"
        );
    }
    for n in ["1", "2"] {
        emit_down(&server, &two, "beta", n);
    }
    // Both are at the remote, and no file of the user's has changed.
    assert_eq!(remote.refs(), ["refs/mesh/alpha", "refs/mesh/beta"]);
    assert_eq!([one.everything(), two.everything()], before);
    let waiting = server.json(
        "r",
        &[
            "watch",
            "--git",
            two.str(),
            "--since",
            "all",
            "-n",
            "5",
            "--server",
            DOWN,
        ],
    );
    let down = server.run("beta", &["sync", "--git", two.str(), "--server", DOWN]);
    assert!(down.code == 3 && down.err.contains("cannot reach"), "{down:?}");

    let report = server.json("beta", &["sync", "--git", two.str()]);
    let counts: Vec<_> = report
        .iter()
        .map(|of| (&of["instance"], &of["imported"], &of["left"]))
        .collect();
    assert_eq!(
        counts,
        [
            (&json!("alpha"), &json!(3), &json!(0)),
            (&json!("beta"), &json!(2), &json!(0))
        ]
    );
    assert!(
        remote.refs().is_empty() && two.refs().is_empty(),
        "{:?}",
        two.refs()
    );
    assert_eq!(
        server.ok("beta", &["sync", "--git", two.str()]),
        "nothing waits\n"
    );
    // The other machine still has its own ref: nothing of it is imported again.
    let late = server.json("alpha", &["sync", "--git", one.str()]);
    assert_eq!((&late[0]["imported"], &late[0]["there"]), (&json!(0), &json!(0)));
    assert!(one.refs().is_empty());
    assert_eq!(
        server.ok("alpha", &["emit", "fo_insight", &insight(5)]),
        "7 alpha 5\n"
    );
    let stored = server.json("r", &["log", "-n", "100"]);
    assert_eq!(
        (seqs(&stored, "alpha"), seqs(&stored, "beta")),
        ((1..=5).collect(), vec![1, 2])
    );
    // With the headers they were given when they were emitted.
    for event in &waiting {
        let same = |other: &&Value| ["instance", "seq"].iter().all(|key| other[*key] == event[*key]);
        let found = stored.iter().find(same).unwrap();
        for key in ["subject", "event", "session", "time", "body"] {
            assert_eq!(found[key], event[key], "{key}");
        }
    }
    assert_eq!([one.everything(), two.everything()], before);
}

fn emit_with(server: &Server, repo: &Repo, instance: &str, text: &str) -> Ran {
    emit_at(&server.url(), server, repo, instance, text)
}

fn emit_down(server: &Server, repo: &Repo, instance: &str, text: &str) -> Ran {
    emit_at(DOWN, server, repo, instance, text)
}

fn emit_at(url: &str, server: &Server, repo: &Repo, instance: &str, text: &str) -> Ran {
    let mut command = server.mesh(instance, &["emit", "fo_insight", &insight(text)]);
    command
        .env("MESH_GIT", &repo.path)
        .env("MESH_SESSION", "S1")
        .env("MESH_URL", url);
    let ran = Ran::of(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn an_emitter_imports_its_own_events_before_the_next(server: Server) {
    skip_without_git!();
    let (first, second) = (
        Repo::bare(server.dir.path(), "first"),
        Repo::new(server.dir.path(), "second"),
    );
    server.ok("alpha", &["emit", "fo_insight", &insight(1)]);
    // The place may change meanwhile.
    for (n, repo) in [(2, &first), (3, &first), (4, &second)] {
        let kept = server.json(
            "alpha",
            &[
                "emit",
                "fo_insight",
                &insight(n),
                "--git",
                repo.str(),
                "--server",
                DOWN,
            ],
        );
        assert_eq!(
            (&kept[0]["seq"], &kept[0]["stream_seq"]),
            (&json!(n), &Value::Null)
        );
        assert_eq!(
            kept[0]["kept"]["commit"],
            repo.git(&["rev-parse", "refs/mesh/alpha"])
        );
    }
    // What comes later alone is not imported.
    let early = server.run("r", &["sync", "--git", second.str()]);
    assert!(
        early.code == 1 && early.err.contains("event 4 comes after 3"),
        "{early:?}"
    );
    // Nobody says any more where the repositories are: the journal knows.
    assert_eq!(
        server.ok("alpha", &["emit", "fo_insight", &insight(5)]),
        "5 alpha 5\n"
    );
    let stored = server.json("r", &["log", "-n", "100"]);
    assert_eq!(seqs(&stored, "alpha"), [1, 2, 3, 4, 5]);
    assert!(first.refs().is_empty() && second.refs().is_empty());
    // A second time down: it goes on where it was.
    server.ok(
        "alpha",
        &[
            "emit",
            "fo_insight",
            &insight(6),
            "--git",
            second.str(),
            "--server",
            DOWN,
        ],
    );
    fs::rename(&second.path, server.dir.path().join("away")).unwrap();
    let stuck = server.run("alpha", &["emit", "fo_insight", &insight(7)]);
    assert!(
        stuck.code == 3 && stuck.err.contains("events up to 6 wait in"),
        "{stuck:?}"
    );
    assert!(stuck.err.contains("mesh sync --git"), "{stuck:?}");
    // With a place to keep it in it waits behind them.
    assert_eq!(
        server.ok(
            "alpha",
            &["emit", "fo_insight", &insight(7), "--git", first.str()]
        ),
        "kept alpha 7\n"
    );
    fs::rename(server.dir.path().join("away"), &second.path).unwrap();
    server.ok("alpha", &["emit", "fo_insight", &insight(8)]);
    assert_eq!(
        seqs(&server.json("r", &["log", "-n", "100"]), "alpha"),
        (1..=8).collect::<Vec<_>>()
    );
    // A place that is lost for good: on without what was there.
    server.ok(
        "alpha",
        &[
            "emit",
            "fo_insight",
            &insight(9),
            "--git",
            second.str(),
            "--server",
            DOWN,
        ],
    );
    fs::remove_dir_all(&second.path).unwrap();
    let second = Repo::bare(server.dir.path(), "second");
    let stuck = server.run("alpha", &["emit", "fo_insight", &insight(10)]);
    assert!(
        stuck.code == 3 && stuck.err.contains("event 9 is not there"),
        "{stuck:?}"
    );
    server.ok("alpha", &["sync", "--git", second.str(), "--give-up", "alpha"]);
    server.ok("alpha", &["emit", "fo_insight", &insight(10)]);
    assert_eq!(
        seqs(&server.json("r", &["log", "-n", "100"]), "alpha"),
        [1, 2, 3, 4, 5, 6, 7, 8, 10]
    );
}

fn an_event_that_was_stored_unheard_is_not_doubled(server: Server) {
    skip_without_git!();
    let repo = Repo::bare(server.dir.path(), "repo");
    let deaf = super::emit::Relay::start(server.port, true);
    let through = format!("nats://127.0.0.1:{}", deaf.port);
    let unheard = |text: &str, more: &[&str]| {
        let body = insight(text);
        let args = [
            "emit",
            "fo_insight",
            &body,
            "--server",
            &through,
            "--timeout",
            "1",
        ];
        server.run("alpha", &[&args, more].concat())
    };
    // Once known only to the journal, once to git as well.
    assert_eq!(unheard("1", &[]).code, 3);
    let kept = unheard("2", &["--git", repo.str()]);
    assert_eq!((kept.code, kept.out.as_str()), (0, "kept alpha 2\n"), "{kept:?}");
    assert_eq!(repo.git(&["rev-list", "--count", "refs/mesh/alpha"]), "2");
    let report = server.json("r", &["sync", "--git", repo.str()]);
    assert_eq!(report[0]["left"], 0, "{report:?}");
    assert_eq!(
        server.ok("alpha", &["emit", "fo_insight", &insight(3)]),
        "3 alpha 3\n"
    );
    let stored = server.json("r", &["log", "-n", "100"]);
    assert_eq!(seqs(&stored, "alpha"), [1, 2, 3]);
    let texts: Vec<_> = stored
        .iter()
        .map(|event| event["body"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["1", "2", "3"]);
}

fn many_at_once_lose_nothing(server: Server) {
    skip_without_git!();
    let repo = Repo::new(server.dir.path(), "repo");
    let (writers, each) = (6, 4);
    thread::scope(|scope| {
        for writer in 0..writers {
            let (server, repo) = (&server, &repo);
            scope.spawn(move || {
                // The last two are one name on two machines: only git keeps them apart.
                let (instance, state) = [
                    ("a", "s"),
                    ("a", "s"),
                    ("b", "s"),
                    ("b", "s"),
                    ("c", "x"),
                    ("c", "y"),
                ][writer];
                for n in 0..each {
                    let body = insight(format!("{writer}.{n}"));
                    let mut command =
                        server.mesh(instance, &["emit", "fo_insight", &body, "--git", repo.str()]);
                    command
                        .env("MESH_STATE_DIR", server.dir.path().join(state))
                        .env("MESH_URL", DOWN);
                    let ran = Ran::of(command);
                    assert_eq!(ran.code, 0, "{ran:?}");
                }
            });
        }
    });
    assert_eq!(repo.git(&["rev-list", "--count", "refs/mesh/c"]), "8");
    // As if pulled: the other repository has them under the names they have here.
    let other = Repo::bare(server.dir.path(), "other");
    other.git(&["fetch", "-q", repo.str(), "refs/mesh/*:refs/mesh/*"]);
    thread::scope(|scope| {
        for place in [&repo, &other] {
            let server = &server;
            scope.spawn(move || server.ok("r", &["sync", "--git", place.str()]));
        }
    });
    let stored = server.json("r", &["log", "-n", "100"]);
    for instance in ["a", "b"] {
        assert_eq!(seqs(&stored, instance), (1..=8).collect::<Vec<_>>(), "{instance}");
    }
    let mut twice = seqs(&stored, "c");
    twice.sort_unstable();
    assert_eq!(twice, [1, 1, 2, 2, 3, 3, 4, 4]);
    for writer in 0..writers {
        let of_it = |event: &&Value| {
            event["body"]["text"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{writer}."))
        };
        let texts: Vec<_> = stored
            .iter()
            .filter(of_it)
            .map(|event| event["body"]["text"].clone())
            .collect();
        let expected: Vec<_> = (0..each).map(|n| json!(format!("{writer}.{n}"))).collect();
        assert_eq!(texts, expected);
    }
}

fn syncs_that_are_killed_neither_lose_nor_double(mut server: Server) {
    skip_without_git!();
    let count = 250;
    let places = ["one", "two"].map(|name| Repo::bare(server.dir.path(), name));
    for repo in &places {
        repo.spool("alpha", count);
        repo.spool("beta", count);
    }
    server.ok("r", &["setup"]);
    for round in 0..4 {
        let sync = |repo: &Repo| Running::start_quiet(server.mesh("r", &["sync", "--git", repo.str()]));
        let mut syncs = places.each_ref().map(sync);
        // Others speak meanwhile: the stream's end does not hold still.
        server.ok("noise", &["emit", "fo_insight", &insight(round)]);
        // The broker dies too, now and then.
        let pause = some_pause(round);
        thread::sleep(pause);
        if round == 2 {
            server.kill();
        }
        syncs.iter_mut().for_each(Running::kill);
        if round == 2 {
            server.restart();
        }
    }
    for repo in &places {
        server.ok("r", &["sync", "--git", repo.str()]);
        assert!(repo.refs().is_empty());
    }
    let stored = server.json("r", &["log", "-n", "10000"]);
    for instance in ["alpha", "beta"] {
        assert_eq!(
            seqs(&stored, instance),
            (1..=count).collect::<Vec<_>>(),
            "{instance}"
        );
    }
}

/// Whatever the mesh did meanwhile: what was said to be stored or kept is there once, and no number is missing.
fn emitters_that_are_killed_neither_skip_nor_double(mut server: Server) {
    skip_without_git!();
    let repo = Repo::bare(server.dir.path(), "repo");
    let mut told = Vec::new();
    for round in 0..4 {
        let url = if round % 2 == 1 { DOWN } else { &server.url() };
        for n in 0..6 {
            let text = format!("{round}.{n}");
            let body = insight(&text);
            let mut command = server.mesh("alpha", &["emit", "fo_insight", &body, "--git", repo.str()]);
            command.env("MESH_URL", url);
            if n % 2 == 0 {
                let mut emitter = Running::start_quiet(command);
                thread::sleep(some_pause(round));
                emitter.kill();
            } else {
                let ran = Ran::of(command);
                assert_eq!(ran.code, 0, "{ran:?}");
                told.push(text);
            }
        }
        server.kill();
        server.restart();
    }
    emit_with(&server, &repo, "alpha", "9.9");
    // A killed one may have left its event in git alone.
    server.ok("r", &["sync", "--git", repo.str()]);
    let stored = server.json("r", &["log", "-n", "100"]);
    let texts: Vec<_> = stored
        .iter()
        .map(|event| event["body"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        seqs(&stored, "alpha"),
        (1..=texts.len() as u64).collect::<Vec<_>>()
    );
    assert!(texts.is_sorted_by(|one, next| one < next), "{texts:?}");
    assert!(
        told.iter().all(|text| texts.contains(&text.as_str())),
        "{told:?} {texts:?}"
    );
    assert!(repo.refs().is_empty());
}

/// A pause that differs from run to run; nothing depends on which it is.
fn some_pause(round: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_millis((u64::from(now.subsec_micros()) + round) % 150)
}

fn a_reader_sees_git_and_the_mesh_as_one(server: Server) {
    skip_without_git!();
    let remote = Repo::bare(server.dir.path(), "remote");
    let (one, two) = (remote.cloned("one"), remote.cloned("two"));
    server.ok("alpha", &["emit", "fo_insight", &insight(1)]);
    emit_down(&server, &one, "alpha", "2");
    let gate = super::emit::Relay::closed(server.port);
    let all = [
        "watch",
        "fo_insight",
        "--git",
        two.str(),
        "--since",
        "all",
        "--json",
    ];
    let (talk, now) = (
        server.dir.path().join("talk"),
        fs::File::create(server.dir.path().join("talk")).unwrap(),
    );
    let mut watch = server.mesh("r", &all);
    watch
        .stderr(now)
        .env("MESH_URL", format!("nats://127.0.0.1:{}", gate.port));
    let watch = Running::start_heard(watch);
    let next = || {
        let event = watch.json();
        format!("{} {}", event["instance"].as_str().unwrap(), event["seq"])
    };
    assert_eq!(next(), "alpha 2");
    emit_down(&server, &two, "beta", "1");
    assert_eq!(next(), "beta 1");
    gate.open();
    // What only the mesh has, and then what comes by it.
    assert_eq!(next(), "alpha 1");
    for n in [3, 4] {
        emit_with(&server, &one, "alpha", "later");
        assert_eq!(next(), format!("alpha {n}"));
    }
    server.ok("r", &["sync", "--git", two.str()]);
    emit_with(&server, &two, "beta", "2");
    assert_eq!(next(), "beta 2");
    assert!(watch.no_line().is_none());
    let talk = until("what it says", || {
        let talk = fs::read_to_string(&talk).unwrap();
        talk.contains("is back").then_some(talk)
    });
    assert_eq!(talk.matches("reading from git").count(), 1, "{talk}");
}
