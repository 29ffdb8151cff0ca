//! What an operator gets: the files in `deploy/`, `mesh service`, `mesh health`, `mesh top`, and what the server tells
//! its service manager.

mod alerts;
mod files;
mod metrics;
mod notify;
mod pages;
mod service;
mod top;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::PATIENCE;
use crate::support::process::{Process, mesh_command};

/// What a program did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(mut command: Command) -> Self {
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Fails the test unless the program ended with this code and said this, on either stream.
    #[track_caller]
    fn says(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "no {words:?} in {self:?}"
        );
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn mesh(arguments: &[&str]) -> Command {
    let mut command = mesh_command();
    command.args(arguments).env("TZ", "UTC").env_remove("NO_COLOR");
    command
}

/// A server as a process, started by `command` with `serve` and more; and where its monitoring answers.
fn serve(mut command: Command, arguments: &[&str]) -> (Process, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    command
        .args(["serve", "-p", "-1", "--monitor-port", "-1"])
        .args(arguments);
    if !arguments.contains(&"--store-dir") {
        command.arg("--store-dir").arg(directory.path());
    }
    let server = Process::listening(command, directory);
    let log = server.wait_for("Server is ready");
    let (_, rest) = log.split_once("http://").unwrap();
    let address = rest.split_whitespace().next().unwrap();
    (server, address.parse().unwrap())
}

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program on the search path, or a loud skip.
fn program(name: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        crate::support::skip(test, &format!("there is no {name}"));
    }
    found
}

/// A Python for what needs no package, or a loud skip.
fn python(test: &str) -> Option<PathBuf> {
    match std::env::var_os("MESH_TEST_PYTHON") {
        Some(python) => Some(python.into()),
        None => program("python3", test),
    }
}

/// The body of a page of a monitoring port, or of anything that speaks HTTP.
fn get(at: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(at).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// What `check` finds, once it finds something.
#[track_caller]
fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
