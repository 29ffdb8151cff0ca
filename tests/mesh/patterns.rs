//! `docs/patterns.md`, block by block as it is printed; and what it says of those who die.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::on_each_server;
use super::support::{Kind, Running, Server, mesh_bin, python, skipped, until};
use crate::support::pages::{Block, SHELL, blocks, converse, run};

const PAGE: &str = "docs/patterns.md";

on_each_server!(
    the_page_prints_what_it_shows,
    a_dead_leader_is_followed,
    python_paints_and_answers,
);

/// A directory with the files of the page.
fn files(server: &Server) -> PathBuf {
    let directory = server.dir.path().join("page");
    fs::create_dir(&directory).unwrap();
    for block in blocks(PAGE) {
        if let Some(name) = block.file() {
            fs::write(directory.join(name), &block.text).unwrap();
        }
    }
    directory
}

/// A file of the page as a command, as its reader runs it.
fn command(server: &Server, directory: &Path, program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).current_dir(directory);
    server.environment(&mut command, words.last().unwrap());
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = mesh_bin();
    command.env("PATH", format!("{}:{path}", bin.parent().unwrap().display()));
    command
}

fn the_page_prints_what_it_shows(server: Server) {
    let directory = files(&server);
    let here = |block: &Block| server.kind == Kind::MeshServe || block.note != "mesh-serve";
    let blocks = blocks(PAGE);
    let (mut ran, mut told) = (0, 0);
    for (number, block) in blocks.iter().enumerate() {
        match (block.language.as_str(), block.note.as_str()) {
            ("sh", "" | "mesh-serve") => {
                let shown = blocks.get(number + 1).filter(|next| next.note == "prints");
                let shown = shown.unwrap_or_else(|| panic!("what does it print?\n{}", block.text));
                if here(block) {
                    let said = run(block, &block.text, &SHELL, |command| {
                        server.environment(command, "asker");
                        command.current_dir(&directory);
                    });
                    assert_eq!(said, shown.text, "{}", block.text);
                    ran += 1;
                }
            }
            ("text", "") => {
                // Plain verbs are ours alone.
                if server.kind == Kind::MeshServe {
                    let address = (Ipv4Addr::LOCALHOST, server.port).into();
                    told += usize::from(converse(block, address));
                }
            }
            ("text", "prints") => {}
            ("sh" | "python", _) if block.file().is_some() => {}
            other => panic!("{other:?}: nobody runs this"),
        }
    }
    let expected = if server.kind == Kind::MeshServe {
        (9, 1)
    } else {
        (8, 0)
    };
    assert_eq!((ran, told), expected);
}

fn a_dead_leader_is_followed(server: Server) {
    let directory = files(&server);
    let bash = |name: &str| {
        let words = ["leader.sh", name];
        Running::start(command(&server, &directory, Path::new("bash"), &words))
    };
    let token = |name: &str| -> u64 {
        let file = directory.join(format!("{name}.token"));
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    };
    server.ok("r", &["kv", "add", "LEASES", "--marker-ttl", "1m"]);
    let mut alpha = bash("alpha");
    assert_eq!(alpha.line(), "alpha leads");
    let beta = bash("beta");
    alpha.kill();
    assert_eq!(beta.line(), "beta leads");
    assert!(token("beta") > token("alpha"));
    until("its name at the key", || {
        let ran = server.run("r", &["kv", "get", "LEASES", "db", "--raw"]);
        (ran.out == "beta").then_some(())
    });
}

fn python_paints_and_answers(server: Server) {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skipped("Python of the patterns", &why),
    };
    let directory = files(&server);
    let answering = |name: &str| {
        let words = ["answer.py", name];
        Running::start(command(&server, &directory, &python, &words))
    };
    let painting = |seconds: &str| {
        let words = ["worker.py", seconds];
        Running::start(command(&server, &directory, &python, &words))
    };
    let answers = [answering("alpha"), answering("beta")];
    server.ok(
        "r",
        &[
            "stream",
            "add",
            "JOBS",
            "--subjects",
            "jobs.>",
            "--retention",
            "work",
            "--defaults",
        ],
    );
    server.ok(
        "r",
        &["consumer", "add", "JOBS", "crew", "--wait", "1s", "--defaults"],
    );
    server.ok("r", &["pub", "-J", "jobs.paint", "house 1"]);
    let mut first = painting("3600");
    assert_eq!(first.line(), "painting house 1");
    first.kill();
    let second = painting("0");
    assert_eq!(
        [second.line(), second.line()],
        ["painting house 1", "painted house 1"]
    );
    until("both answers", || {
        let asked = server.run(
            "r",
            &[
                "ask",
                "ready",
                "x",
                "--quorum",
                "2/2",
                "--agree",
                "--raw",
                "--timeout",
                "1s",
            ],
        );
        (asked.code == 0).then(|| assert_eq!(asked.out, "yes\n"))
    });
    drop(answers);
}
