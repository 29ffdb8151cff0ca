//! `docs/wiring.md`, block by block as it is printed; the hammer; the files in `deploy/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::on_each_server;
use super::support::{Kind, Ran, Running, Server, mesh_bin, python, skipped, until};

on_each_server!(
    the_command_block,
    the_command_daemon,
    the_nats_py_daemon,
    the_socket_daemon,
    hammered
);

/// A block of the page, written to the test's directory under the name it is given there.
fn block(server: &Server, name: &str) -> PathBuf {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/wiring.md")).unwrap();
    let head = format!("file={name}\n");
    let start = page.find(&head).unwrap_or_else(|| panic!("no block {name}")) + head.len();
    let end = page[start..].find("\n```").unwrap();
    let path = server.dir.path().join(name);
    fs::write(&path, &page[start..=start + end]).unwrap();
    path
}

/// Runs a block with `mesh` on the path, as its reader has it.
fn command(server: &Server, program: &Path, block: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(block);
    server.environment(&mut command, "daemon");
    let bin = mesh_bin();
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env_remove("MESH")
        .env("PATH", format!("{}:{path}", bin.parent().unwrap().display()));
    command
}

/// Any Python, for what needs no package.
fn plain_python() -> Option<PathBuf> {
    let named = std::env::var_os("MESH_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let runs = Command::new(&named).arg("--version").output().is_ok();
    if !runs {
        skipped("a block in Python", "there is no python3");
    }
    runs.then(|| named.into())
}

fn said(server: &Server) -> Vec<String> {
    let events = server.json("r", &["log", "-n", "1000"]);
    let texts = events
        .iter()
        .filter(|event| event["subject"] == "mesh.fo.insight");
    texts
        .map(|event| event["body"]["text"].as_str().unwrap().to_owned())
        .collect()
}

fn until_said(server: &Server, text: &str) {
    until(text, || {
        said(server).iter().any(|said| said == text).then_some(())
    });
}

fn the_command_block(server: Server) {
    let ran = Ran::of(command(&server, Path::new("sh"), &block(&server, "say.sh")));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(said(&server), ["the build is green"]);
}

/// A daemon hears what was said while it was away, once.
fn restarted(server: &Server, python: &Path, name: &str, durable: &str, up: &str) {
    let block = block(server, name);
    let mut daemon = Running::start(command(server, python, &block));
    until_said(server, up);
    until("its durable", || {
        server.ok("r", &["check"]).contains(durable).then_some(())
    });
    server.ok("beta", &["emit", "aha_moment", r#"{"text":"one"}"#]);
    until_said(server, "heard aha_moment from beta");
    daemon.terminate();
    server.ok("gamma", &["emit", "aha_moment", r#"{"text":"two"}"#]);
    let mut daemon = Running::start(command(server, python, &block));
    until_said(server, "heard aha_moment from gamma");
    server.ok("delta", &["emit", "aha_moment", r#"{"text":"three"}"#]);
    until_said(server, "heard aha_moment from delta");
    let heard: Vec<String> = said(server)
        .into_iter()
        .filter(|text| text.starts_with("heard"))
        .collect();
    assert_eq!(
        heard,
        ["beta", "gamma", "delta"].map(|who| format!("heard aha_moment from {who}"))
    );
    // Told to end, it takes along what it started.
    daemon.terminate();
}

fn the_command_daemon(server: Server) {
    if let Some(python) = plain_python() {
        restarted(
            &server,
            &python,
            "command_daemon.py",
            "command-daemon",
            "the command daemon is up",
        );
    }
}

fn the_nats_py_daemon(server: Server) {
    match python() {
        Ok(python) => {
            server.ok("r", &["setup"]);
            restarted(
                &server,
                &python,
                "nats_daemon.py",
                "nats-daemon",
                "the nats-py daemon is up",
            );
        }
        Err(why) => skipped("the nats-py daemon", &why),
    }
}

fn the_socket_daemon(server: Server) {
    if server.kind == Kind::NatsServer {
        // Plain verbs are ours alone: there is nothing to test, which is no test left out.
        return;
    }
    let Some(python) = plain_python() else { return };
    server.ok("r", &["setup"]);
    let ran = Ran::of(command(&server, &python, &block(&server, "socket_daemon.py")));
    assert_eq!((ran.code, ran.out.as_str()), (0, "+OK MESH 1\n"), "{ran:?}");
    assert_eq!(said(&server), ["said over a bare socket"]);
}

fn hammered(server: Server) {
    let report = &server.json(
        "r",
        &["hammer", "--instances", "40", "--seconds", "2", "--rate", "20"],
    )[0];
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(
        [
            count("failed"),
            count("lost"),
            count("doubled"),
            count("misordered")
        ],
        [0; 4],
        "{report}"
    );
    assert!(
        count("acked") >= 40 && count("acked") == count("received"),
        "{report}"
    );
    // It leaves nothing behind, and nobody heard of it.
    assert_eq!(server.json("r", &["check"])[0]["events"], 0);
    let text = server.ok("r", &["hammer", "--instances", "2", "--seconds", "1"]);
    assert!(
        text.contains("0 lost, 0 doubled, 0 out of order") && text.contains("p99.9"),
        "{text}"
    );
}

#[test]
fn the_unit_files_are_well_formed() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let unit = fs::read_to_string(deploy.join("mesh-daemon@.service")).unwrap();
    for line in unit
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        assert!(
            (line.starts_with('[') && line.ends_with(']')) || line.contains('='),
            "{line}"
        );
    }
    assert!(unit.contains("Restart=always") && unit.contains("WantedBy="));
    let Some(python) = plain_python() else { return };
    let check = "import plistlib, sys; p = plistlib.load(open(sys.argv[1], 'rb')); assert p['KeepAlive'] and p['RunAtLoad'] and p['ProgramArguments']";
    let mut command = Command::new(python);
    command
        .args(["-c", check])
        .arg(deploy.join("com.sovereign.mesh.daemon.plist"));
    let ran = Ran::of(command);
    assert_eq!(ran.code, 0, "{ran:?}");
}
