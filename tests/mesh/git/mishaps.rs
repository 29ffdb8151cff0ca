//! What goes wrong with git itself: damage, strangers, a missing repository, an environment that disturbs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use super::super::on_each_server;
use super::super::support::{Ran, Server, mesh_bin};
use super::support::{Repo, event, seqs, skip_without_git};
use super::{DOWN, emit_down, insight};

on_each_server!(
    damage_names_ref_and_commit_and_stops_nobody_else,
    an_event_the_server_refuses_stops_its_instance_alone,
    a_push_that_failed_is_made_up_for,
);

fn damage_names_ref_and_commit_and_stops_nobody_else(server: Server) {
    skip_without_git!();
    let repo = Repo::bare(server.dir.path(), "repo");
    // An event that is lost in the middle.
    repo.spool("lost", 5);
    let lost = repo.git(&["rev-parse", "refs/mesh/lost~2"]);
    repo.lose(&format!("{lost}:event"));
    // A commit that is lost: what lies before it cannot be found.
    repo.spool("cut", 5);
    let cut = repo.git(&["rev-parse", "refs/mesh/cut~2"]);
    repo.lose(&cut);
    // Strangers on and under events.
    let rubbish = vec![
        b"no JSON \xff\n".to_vec(),
        event("lost", 1, 0, b"{}"),
        vec![b'x'; 2 << 20],
    ];
    let mixed = [
        vec![event("strange", 1, 0, b"not UTF-8: \xff\0")],
        rubbish,
        vec![event("strange", 2, 1, b"{}")],
    ];
    repo.chain("strange", mixed.concat());
    repo.spool("gone", 1);
    repo.lose("refs/mesh/gone");
    let tree = repo.git(&["mktree"]);
    for name in ["refs/mesh/tree", "refs/mesh/no.name", "refs/mesh/deep/er"] {
        repo.git(&["update-ref", name, &tree]);
    }
    fs::write(repo.path.join("refs/mesh/garbage"), "garbage\n").unwrap();
    repo.spool("sound", 4);
    // And one of which the mesh has forgotten how far it is.
    repo.spool("keyed", 2);
    server.ok("r", &["setup"]);
    server.ok("r", &["kv", "put", "SPOOLS", "keyed.Jkeyed", "no JSON"]);

    let ran = server.run("r", &["sync", "--git", repo.str()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [
        format!("refs/mesh/lost at commit {}", &lost[..12]),
        "event 4 comes after 3".to_owned(),
        "refs/mesh/cut at ".to_owned(),
        cut.clone(),
        "event 4 comes after 3".to_owned(),
        "refs/mesh/strange at commit ".to_owned(),
        "event of `lost`".to_owned(),
        "at most".to_owned(),
        "refs/mesh/gone at ".to_owned(),
        "refs/mesh/tree at ".to_owned(),
        "refs/mesh/no.name is no spool".to_owned(),
        "refs/mesh/deep/er is no spool".to_owned(),
        "refs/mesh/garbage".to_owned(),
        "--give-up".to_owned(),
        "`mesh kv purge SPOOLS keyed.Jkeyed`".to_owned(),
    ] {
        assert!(ran.err.contains(&part), "{part}: {}", ran.err);
    }
    let stored = || server.json("r", &["log", "-n", "100"]);
    let of = |instance: &str| seqs(&stored(), instance);
    assert_eq!(
        (of("sound"), of("lost"), of("strange")),
        (vec![1, 2, 3, 4], vec![1, 2], vec![1, 2])
    );
    assert!(of("cut").is_empty() && of("keyed").is_empty());
    server.ok("r", &["kv", "purge", "SPOOLS", "keyed.Jkeyed", "-f"]);
    server.run("r", &["sync", "--git", repo.str()]);
    assert_eq!(of("keyed"), [1, 2]);
    assert!(!repo.refs().contains(&"refs/mesh/sound".to_owned()));
    // Nobody emits on top of what is no spool.
    let mut command = server.mesh("tree", &["emit", "fo_insight", &insight(1), "--git", repo.str()]);
    command.env("MESH_URL", DOWN);
    let ran = Ran::of(command);
    assert!(
        ran.code == 1 && ran.err.contains(&format!("refs/mesh/tree is at tree {tree}")),
        "{ran:?}"
    );

    for instance in ["lost", "cut"] {
        let ran = server.run("r", &["sync", "--git", repo.str(), "--give-up", instance]);
        // The others are still as they were.
        assert!(ran.code == 1 && ran.err.contains("refs/mesh/gone at "), "{ran:?}");
    }
    assert_eq!((of("lost"), of("cut")), (vec![1, 2, 4, 5], vec![4, 5]));
    let left = repo.refs();
    assert!(
        !left
            .iter()
            .any(|name| name.ends_with("lost") || name.ends_with("cut")),
        "{left:?}"
    );
}

fn an_event_the_server_refuses_stops_its_instance_alone(server: Server) {
    skip_without_git!();
    let repo = Repo::bare(server.dir.path(), "repo");
    let large = vec![b'x'; 3000];
    repo.chain(
        "alpha",
        vec![
            event("alpha", 1, 0, b"{}"),
            event("alpha", 2, 1, &large),
            event("alpha", 3, 2, b"{}"),
        ],
    );
    repo.spool("beta", 2);
    let commit = repo.git(&["rev-parse", "refs/mesh/alpha~1"]);
    server.ok("r", &["setup"]);
    server.ok("r", &["stream", "edit", "MESH", "--max-msg-size", "2000", "-f"]);
    let report = server.run("r", &["sync", "--git", repo.str(), "--json"]);
    assert_eq!(report.code, 1, "{report:?}");
    let place = format!("refs/mesh/alpha at commit {}: event 2: ", &commit[..12]);
    assert!(report.err.contains(&place), "{report:?}");
    let lines: Vec<serde_json::Value> = report
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((&lines[0]["imported"], &lines[0]["left"]), (&json!(1), &json!(2)));
    assert_eq!((&lines[1]["imported"], &lines[1]["left"]), (&json!(2), &json!(0)));
    let report = server.run("r", &["sync", "--git", repo.str(), "--give-up", "alpha"]);
    assert!(report.code == 0 && report.err.contains(&place), "{report:?}");
    assert_eq!(seqs(&server.json("r", &["log", "-n", "100"]), "alpha"), [1, 3]);
    assert!(repo.refs().is_empty());
}

fn a_push_that_failed_is_made_up_for(server: Server) {
    skip_without_git!();
    let remote = Repo::bare(server.dir.path(), "remote");
    let (one, two) = (remote.cloned("one"), remote.cloned("two"));
    let away = server.dir.path().join("away");
    fs::rename(&remote.path, &away).unwrap();
    let ran = emit_down(&server, &one, "alpha", "1");
    assert!(
        ran.err.contains("refs/mesh/alpha is not pushed to origin yet"),
        "{ran:?}"
    );
    fs::rename(&away, &remote.path).unwrap();
    let ran = emit_down(&server, &one, "alpha", "2");
    assert!(!ran.err.contains("not pushed"), "{ran:?}");
    assert_eq!(remote.git(&["rev-list", "--count", "refs/mesh/alpha"]), "2");
    // Another machine of the same name is told, and its events are kept all the same.
    let mut command = server.mesh("alpha", &["emit", "fo_insight", &insight(1), "--git", two.str()]);
    command
        .env("MESH_STATE_DIR", server.dir.path().join("other"))
        .env("MESH_URL", DOWN);
    let ran = Ran::of(command);
    assert!(
        ran.code == 0 && ran.err.contains("another machine emits under the same name"),
        "{ran:?}"
    );
    for repo in [&one, &two] {
        server.ok("r", &["sync", "--git", repo.str()]);
        assert!(repo.refs().is_empty());
    }
    assert!(remote.refs().is_empty());
    let mut seqs = seqs(&server.json("r", &["log", "-n", "100"]), "alpha");
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 1, 2]);
    // A remote that lets nothing be removed: the next time goes on from what it has.
    let only_adds = "#!/bin/sh\ncase $3 in *[!0]*) exit 0;; esac\nexit 1\n";
    hook(&remote.path.join("hooks"), "update", only_adds);
    for n in ["4", "5"] {
        emit_down(&server, &one, "alpha", n);
        let ran = server.run("r", &["sync", "--git", one.str()]);
        assert!(
            ran.code == 1 && ran.err.contains("cannot take imported spools away"),
            "{ran:?}"
        );
    }
    assert_eq!(server.json("r", &["log", "-n", "100"]).len(), 5);
}

fn hook(dir: &std::path::Path, name: &str, script: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(name), script).unwrap();
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// `mesh` with no mesh to be reached.
fn alone(dir: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(mesh_bin());
    command
        .args(args)
        .env("MESH_URL", DOWN)
        .env("MESH_INSTANCE", "alpha")
        .env("MESH_STATE_DIR", dir.join("state"))
        .env("MESH_EVENTS", dir.join("events.json"))
        .env_remove("MESH_GIT")
        .env_remove("MESH_SESSION");
    command
}

#[test]
fn where_nothing_can_be_kept_it_says_what_to_do() {
    skip_without_git!();
    let dir = tempfile::tempdir().unwrap();
    let emit = ["emit", "fo_insight", r#"{"text":"a"}"#];
    let plain = dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    for place in [plain.to_str().unwrap(), "/nowhere/at/all"] {
        for args in [&emit[..], &["sync"], &["watch"]] {
            let ran = Ran::of(alone(dir.path(), &[args, &["--git", place]].concat()));
            assert!(ran.code == 1 && ran.out.is_empty(), "{args:?} {ran:?}");
            for part in [place, "git init --bare"] {
                assert!(ran.err.contains(part), "{args:?} {ran:?}");
            }
        }
    }
    let repo = Repo::bare(dir.path(), "repo");
    let mut without = alone(dir.path(), &[&emit[..], &["--git", repo.str()]].concat());
    without.env("PATH", &plain);
    let ran = Ran::of(without);
    assert!(ran.code == 1 && ran.err.contains("install git"), "{ran:?}");
    let ran = Ran::of(alone(dir.path(), &["sync"]));
    assert!(ran.code == 2 && ran.err.contains("MESH_GIT"), "{ran:?}");
    let ran = Ran::of(alone(
        dir.path(),
        &["watch", "--durable", "d", "--git", repo.str()],
    ));
    assert_eq!(ran.code, 2, "{ran:?}");
    // What was not kept took no number; the file of events can name the repository.
    fs::write(
        dir.path().join("events.json"),
        json!({"git": repo.path}).to_string(),
    )
    .unwrap();
    assert_eq!(Ran::of(alone(dir.path(), &emit)).out, "kept alpha 1\n");
    let huge = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let ran = Ran::fed(alone(dir.path(), &["emit", "fo_insight", "-"]), huge.as_bytes());
    assert!(ran.code == 1 && ran.err.contains("a spool takes"), "{ran:?}");
    assert_eq!(Ran::of(alone(dir.path(), &emit)).out, "kept alpha 2\n");
}

#[test]
fn nothing_around_it_disturbs_it() {
    skip_without_git!();
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    fs::create_dir(&trap).unwrap();
    for hook in ["reference-transaction", "pre-push", "post-commit", "pre-auto-gc"] {
        self::hook(&trap, hook, "#!/bin/sh\nexit 1\n");
    }
    let config = dir.path().join("config");
    let text = "[core]\n logAllRefUpdates = always\n autocrlf = true\n[commit]\n gpgSign = true\n\
         [push]\n gpgSign = true\n followTags = true\n[gpg]\n program = false\n[safe]\n bareRepository = explicit\n\
         [user]\n useConfigOnly = true\n[gc]\n auto = 1\n";
    fs::write(&config, text).unwrap();
    let remote = Repo::bare(dir.path(), "remote");
    let (work, merging) = (
        remote.cloned("work"),
        Repo::bare(dir.path(), "another").cloned("merging"),
    );
    merging.in_the_middle_of_a_merge();
    let tree = dir.path().join("tree");
    work.git(&["worktree", "add", "-q", tree.to_str().unwrap(), "-b", "other"]);
    let bare = Repo::bare(dir.path(), "bare");
    let sha256 = Repo::sha256(dir.path(), "sha256");
    let deep = work.path.join("deep");
    fs::create_dir(&deep).unwrap();
    for repo in [&work, &merging, &bare, &sha256] {
        repo.git(&["config", "core.hooksPath", trap.to_str().unwrap()]);
    }
    let before = [work.everything(), merging.everything()];
    let body = "{\"text\":\"line\\r\\nline\"}";
    for (place, repo) in [
        (&work.path, &work),
        (&deep, &work),
        (&tree, &work),
        (&work.path.join(".git"), &work),
        (&merging.path, &merging),
        (&bare.path, &bare),
        (&sha256.path, &sha256),
    ] {
        let mut command = alone(
            dir.path(),
            &["emit", "fo_insight", body, "--git", place.to_str().unwrap()],
        );
        command
            .env("GIT_DIR", &trap)
            .env("GIT_WORK_TREE", &trap)
            .env("GIT_INDEX_FILE", trap.join("index"))
            .env("GIT_OBJECT_DIRECTORY", trap.join("objects"))
            .env("GIT_QUARANTINE_PATH", &trap)
            .env("GIT_NAMESPACE", "elsewhere")
            .env("GIT_TRACE", "1")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "core.bare")
            .env("GIT_CONFIG_VALUE_0", "nonsense")
            .env("GIT_CONFIG_GLOBAL", &config)
            .env_remove("HOME");
        let ran = Ran::of(command);
        assert!(
            ran.code == 0 && !ran.err.contains("not pushed"),
            "{place:?} {ran:?}"
        );
        let held = repo.git(&["cat-file", "blob", "refs/mesh/alpha:event"]);
        assert!(held.ends_with(body), "{held:?}");
    }
    assert_eq!([work.everything(), merging.everything()], before);
    work.git(&["fsck", "--strict"]);
    assert!(!trap.join("index").exists() && !trap.join("objects").exists());
}
