//! Configuration files, the stand-in for nats-server, and reload, as people and test suites use them.

mod accounts;
mod check;
mod credentials;
mod operator;
mod reload;
mod stand_in;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::Process;
use crate::support::process::mesh_command;

/// A directory with a file `mesh.conf`.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new(text: &str) -> Self {
        let site = Self {
            directory: TempDir::new().unwrap(),
        };
        site.write(text);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self) -> String {
        self.path("mesh.conf").to_str().unwrap().to_owned()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("mesh.conf"), text).unwrap();
    }

    /// `mesh serve -c mesh.conf` once it listens, its streams in a directory of its own.
    fn serve(&self, arguments: &[&str]) -> Process {
        let store = TempDir::new().unwrap();
        let mut command = mesh_command();
        command.args(["serve", "-c", &self.file(), "--no-mesh", "--store-dir"]);
        command.arg(store.path()).args(arguments);
        Process::listening(command, store)
    }
}

/// Runs to the end.
fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output, text)
}

fn mesh(arguments: &[&str]) -> (Output, String) {
    output(mesh_command().args(arguments))
}

/// Waits for a file to hold something that `holds`.
fn wait_for_file(path: &Path, holds: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if holds(&text) {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "{}: {text}", path.display());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
