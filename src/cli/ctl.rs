//! `mesh ctl`: tell a running server to reload, reopen its log, drain or stop, by its process id.

use std::path::Path;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::Failure;

/// Tell a running server to reload its configuration, reopen its log, drain or stop
///
/// A signal to its process: reload is HUP, reopen USR1, ldm (lame duck) USR2, term TERM, quit INT, stop KILL.
#[derive(Args, Debug)]
pub struct Ctl {
    /// What it is to do
    #[arg(value_parser = ["reload", "reopen", "ldm", "term", "quit", "stop"])]
    command: String,
    /// Its process id, or the file it wrote it to (`mesh serve -P FILE`)
    #[arg(env = "MESH_PID_FILE", value_name = "PID|FILE")]
    whom: String,
}

impl Ctl {
    /// Sends the signal.
    pub fn run(self) -> Result<(), Failure> {
        let signal =
            signal(&self.command).ok_or_else(|| Failure::usage(format!("no command {}", self.command)))?;
        let whom = process_of(&self.whom).map_err(Failure::failed)?;
        send(signal, whom).map_err(|error| Failure::failed(format!("cannot signal process {whom}: {error}")))
    }
}

/// The signal of a command, as in nats-server.
pub(super) fn signal(command: &str) -> Option<Signal> {
    Some(match command {
        "stop" => Signal::KILL,
        "quit" => Signal::INT,
        "term" => Signal::TERM,
        "reopen" => Signal::USR1,
        "reload" => Signal::HUP,
        "ldm" => Signal::USR2,
        _ => return None,
    })
}

/// A process id, from its digits or from a file that holds them.
pub(super) fn process_of(whom: &str) -> Result<i32, String> {
    let digits = |text: &str| text.trim().parse::<i32>().ok().filter(|id| *id > 0);
    if let Some(id) = digits(whom) {
        return Ok(id);
    }
    let text =
        std::fs::read_to_string(Path::new(whom)).map_err(|error| format!("cannot read {whom}: {error}"))?;
    digits(&text).ok_or_else(|| format!("{whom} does not hold a process id"))
}

/// The one process of this name, this one apart.
pub(super) fn only_process_called(name: &str) -> Result<i32, String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let Ok(number) = id.parse::<i32>() else { continue };
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if id != own && comm.trim_end() == name {
            found.push(number);
        }
    }
    match found.as_slice() {
        [] => Err(format!("no {name} processes running")),
        [one] => Ok(*one),
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(format!("multiple {name} processes running:\n{}", ids.join("\n")))
        }
    }
}

/// Sends a signal.
pub(super) fn send(signal: Signal, whom: i32) -> Result<(), String> {
    let id = Pid::from_raw(whom).ok_or("no process id")?;
    kill_process(id, signal).map_err(|error| std::io::Error::from(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_named_by_id_or_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "123\n").unwrap();
        assert_eq!((process_of("77"), process_of(path)), (Ok(77), Ok(123)));
        std::fs::write(path, "x").unwrap();
        assert!(
            process_of(path).is_err() && process_of("/nonexistent").is_err() && process_of("-1").is_err()
        );
        assert!(
            only_process_called("no such program")
                .unwrap_err()
                .starts_with("no ")
        );
    }
}
