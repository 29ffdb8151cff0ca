//! The client commands of the `mesh` binary, run as people run them.

mod bucket;
mod consumer;
mod endings;
mod pubsub;
mod store;
mod stream;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::support::Server;

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Fails the test unless the command failed with this code, an error and these words in it.
    #[track_caller]
    fn fails(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            self.err.contains("error: ") && self.err.contains(words),
            "{self:?}"
        );
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its stdout as one JSON object a line.
    #[track_caller]
    fn json_lines(&self) -> Vec<Value> {
        let lines = self.out.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value after `label:` on an info page.
    #[track_caller]
    fn row(&self, label: &str) -> &str {
        let rows = self.out.lines().filter_map(|line| line.trim().split_once(": "));
        let mut rows = rows.filter(|(name, _)| *name == label);
        rows.next()
            .unwrap_or_else(|| panic!("no {label:?} in {}", self.out))
            .1
    }
}

/// The binary with no settings of ours in its environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_")) {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end with this on stdin.
fn run_with(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A command that does not read its stdin may be gone by now.
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command that needs no server of the test.
fn mesh(arguments: &[&str]) -> Ran {
    run_with(command(arguments), b"")
}

impl Server {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("MESH_URL", self.url());
        command
    }

    /// Runs a client command against this server.
    fn mesh(&self, arguments: &[&str]) -> Ran {
        self.mesh_with(arguments, b"")
    }

    /// The same with something on stdin.
    fn mesh_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        run_with(self.command(arguments), input)
    }

    /// Starts a command that stays, and waits until it says `ready` on stderr.
    fn start(&self, arguments: &[&str], ready: &str) -> Running {
        let mut child = self.command(arguments).stdin(Stdio::null()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let out = child.stdout.take().unwrap();
        let mut said = String::new();
        while !said.contains(ready) {
            let read = err.read_line(&mut said).unwrap();
            assert_ne!(read, 0, "ended without saying {ready:?}: {said}");
        }
        let rest = std::thread::spawn(move || {
            err.read_to_string(&mut said).ok();
            said
        });
        Running {
            child,
            out,
            rest: Some(rest),
        }
    }
}

/// A command that runs beside the test; it ends with this value at the latest.
struct Running {
    child: Child,
    out: ChildStdout,
    rest: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Waits for its own end.
    fn finish(mut self) -> Ran {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let err = self.rest.take().unwrap().join().unwrap();
        Ran { code, out, err }
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(self) -> Ran {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        self.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
