//! The blocks of README.md and docs/ are run as they are written, on free ports.
//!
//! Not here: lines that call `cargo` (they are how this test was started, or would build for minutes) and Rust blocks,
//! which are documentation tests of the crate. Blocks marked `text` are shown, not run, except conversations with `nc`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sovereign_mesh::TestServer;

const PAGES: [&str; 3] = ["README.md", "docs/protocol-for-people.md", "docs/monitoring.md"];
const PATIENCE: Duration = Duration::from_secs(30);

/// A fenced block: its language and its text.
struct Block {
    page: &'static str,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for page in PAGES {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    assert!(!language.is_empty(), "{page}: a block without a language");
                    open = Some(Block {
                        page,
                        language: language.to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{page}: a block without an end");
    }
    blocks
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

fn run(server: &TestServer, program: &str, arguments: &[&str], block: &Block) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_mesh")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    // A block that puts target/release on the path gets the binary under test.
    let text = at(server, &block.text).replace("$PWD/target/release", &binary.display().to_string());
    let output = Command::new(program)
        .args(arguments)
        .arg(&text)
        .env("PATH", format!("{}:{path}", binary.display()))
        .env("MESH_URL", server.url())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let (out, talk) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}:\n{text}\nsaid\n{out}\n{talk}",
        block.page
    );
    out
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
        said += &run(
            &server,
            "timeout",
            &["30", "bash", "-euo", "pipefail", "-c"],
            block,
        );
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
        let said = run(&server, python, &["-c"], block);
        assert_eq!(said.trim(), "orders.new two of the blue ones");
    }
}

#[test]
fn conversations_go_as_they_are_told() {
    let server = TestServer::start();
    let mut told = 0;
    for block in blocks() {
        let mut lines = block.text.lines();
        if lines.next() != Some("$ nc localhost 7778") {
            continue;
        }
        told += 1;
        let socket = TcpStream::connect(server.server().local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut socket = BufReader::new(socket);
        let mut heard = String::new();
        socket.read_line(&mut heard).unwrap();
        assert!(heard.starts_with("INFO "));
        for line in lines {
            if let Some(typed) = line.strip_prefix("> ") {
                socket
                    .get_mut()
                    .write_all(format!("{typed}\n").as_bytes())
                    .unwrap();
                continue;
            }
            heard.clear();
            socket.read_line(&mut heard).unwrap();
            assert_eq!(heard.trim_end(), line, "{}", block.page);
        }
    }
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
