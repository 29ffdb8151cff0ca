//! The blocks of README.md and docs/ are run as they are written, on free ports.
//!
//! Not here: lines that call `cargo` (they are how this test was started, or would build for minutes) and Rust blocks,
//! which are documentation tests of the crate. Blocks marked `text` are shown, not run, except conversations with `nc`.

use std::io::Write;
use std::path::Path;

use sovereign_mesh::TestServer;

use crate::support::pages::{self, Block, SHELL};

const PAGES: [&str; 3] = ["README.md", "docs/protocol-for-people.md", "docs/monitoring.md"];

fn blocks() -> Vec<Block> {
    PAGES.into_iter().flat_map(pages::blocks).collect()
}

/// The text with the ports of this server for the usual ones.
fn at(server: &TestServer, text: &str) -> String {
    let (clients, monitor) = (
        server.server().local_addr(),
        server.server().monitor_addr().unwrap(),
    );
    text.replace("7778", &clients.port().to_string())
        .replace("8778", &monitor.port().to_string())
}

fn run(server: &TestServer, program: &[&str], block: &Block) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_mesh")).parent().unwrap();
    // A block that puts target/release on the path gets the binary under test.
    let text = at(server, &block.text).replace("$PWD/target/release", &binary.display().to_string());
    pages::run(block, &text, program, |command| {
        command.env("MESH_URL", server.url());
    })
}

#[test]
fn shell_blocks_do_what_they_say() {
    let server = TestServer::start();
    let mut said = String::new();
    let mut ran = 0;
    for block in blocks().iter().filter(|block| block.language == "sh") {
        if block.text.lines().all(|line| line.starts_with("cargo ")) {
            continue;
        }
        assert!(
            !block.text.contains("cargo "),
            "{}: mixes cargo with other commands",
            block.page
        );
        said += &run(&server, &SHELL, block);
        ran += 1;
    }
    assert!(ran >= 3, "only {ran} blocks were run");
    for expected in [
        "You asked: who are you?",
        "{\"status\":\"ok\"",
        "mesh_in_msgs_total",
        "num_connections",
        "+OK",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

#[test]
fn python_blocks_do_what_they_say() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        assert!(
            std::env::var_os("MESH_TEST_REQUIRE_ALL").is_none(),
            "MESH_TEST_PYTHON is needed"
        );
        writeln!(
            std::io::stderr(),
            "SKIPPED Python of the README: MESH_TEST_PYTHON names no Python"
        )
        .unwrap();
        return;
    };
    let server = TestServer::start();
    let python = python.to_str().unwrap();
    for block in blocks().iter().filter(|block| block.language == "python") {
        let said = run(&server, &[python, "-c"], block);
        assert_eq!(said.trim(), "orders.new two of the blue ones");
    }
}

#[test]
fn conversations_go_as_they_are_told() {
    let server = TestServer::start();
    let address = server.server().local_addr();
    let told = blocks()
        .iter()
        .filter(|block| pages::converse(block, address))
        .count();
    assert_eq!(told, 2);
}

#[test]
fn the_two_commands_are_on_the_first_screen() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let first: Vec<_> = text.lines().take(24).collect();
    for command in ["cargo run --release -- serve", "cargo test"] {
        assert!(first.contains(&command), "{command}");
    }
}
