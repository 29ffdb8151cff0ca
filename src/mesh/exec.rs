//! Running a user's command for an event: what it reads, what it can know, how its failure is retried.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::{Error, Received};

/// A command line for the shell, with what it is given.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command line.
    pub command: String,
    /// What it reads on stdin.
    pub input: Bytes,
    /// What it finds in its environment, beside our own.
    pub environment: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0.
    Done,
    /// Otherwise; the text says how.
    Failed(String),
}

impl Run {
    /// The command for an event: body on stdin, envelope in `MESH_EVENT_*`.
    ///
    /// The names differ from `MESH_INSTANCE` and `MESH_SESSION`, which say who *we* are: a command may emit as well.
    pub fn for_event(command: &str, event: &Received) -> Self {
        let envelope = &event.envelope;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            command: command.to_owned(),
            input: event.body.clone(),
            environment: vec![
                ("MESH_EVENT_NAME", event.name().to_owned()),
                ("MESH_EVENT_SUBJECT", event.subject.clone()),
                ("MESH_EVENT_INSTANCE", text(&envelope.instance)),
                ("MESH_EVENT_SESSION", text(&envelope.session)),
                ("MESH_EVENT_PARENT", text(&envelope.parent)),
                (
                    "MESH_EVENT_SEQ",
                    envelope.seq.map(|seq| seq.to_string()).unwrap_or_default(),
                ),
                ("MESH_EVENT_TIME", text(&envelope.time)),
                ("MESH_EVENT_ID", text(&envelope.id)),
                ("MESH_EVENT_STORED", event.stored.to_string()),
                ("MESH_EVENT_STREAM_SEQ", event.stream_seq.to_string()),
                ("MESH_EVENT_TRY", event.deliveries.to_string()),
            ],
        }
    }

    /// Starts it; dropped before its end, it is killed.
    pub fn start(&self) -> Result<Child, Error> {
        let mut command = shell(&self.command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).kill_on_drop(true);
        command.spawn().map_err(|error| self.failed(&error))
    }

    /// Runs it to its end.
    pub async fn finish(&self) -> Result<Outcome, Error> {
        let mut child = self.start()?;
        let mut stdin = child.stdin.take().expect("was asked for");
        let feed = async {
            // A command need not read what it is given.
            stdin.write_all(&self.input).await.ok();
            drop(stdin);
        };
        let ((), ended) = tokio::join!(feed, child.wait());
        let status = ended.map_err(|error| self.failed(&error))?;
        Ok(if status.success() {
            Outcome::Done
        } else {
            Outcome::Failed(describe(status))
        })
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::Command {
            command: self.command.clone(),
            why: error.to_string(),
        }
    }
}

/// A command line as the user's shell would run it.
fn shell(line: &str) -> Command {
    if cfg!(windows) {
        let mut command = Command::new("cmd");
        command.args(["/C", line]);
        return command;
    }
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    status
        .code()
        .map_or_else(|| "ended".to_owned(), |code| format!("exited with {code}"))
}

/// How a failing command is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How often it is run at most.
    pub tries_max: u64,
    /// Pause after the first failure; doubles with each one.
    pub first: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            tries_max: 5,
            first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The pause after failure number `tries`, from 1; `None` when it is time to give up.
    pub fn after(&self, tries: u64) -> Option<Duration> {
        if tries >= self.tries_max {
            return None;
        }
        let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        Some(self.first.saturating_mul(1 << doublings).min(self.pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (1..=5)
            .map(|tries| backoff.after(tries).map(|pause| pause.as_secs()))
            .collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(8), None]);
        let patient = Backoff {
            tries_max: u64::MAX,
            ..backoff
        };
        assert_eq!(patient.after(1000), Some(Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_command_gets_body_and_environment() {
        for (command, expected) in [
            (
                r#"test "$(cat)" = body && test "$MESH_TEST_X" = "a b""#,
                Outcome::Done,
            ),
            ("exit 7", Outcome::Failed("exited with 7".to_owned())),
            ("kill -9 $$", Outcome::Failed("was ended by signal 9".to_owned())),
        ] {
            let run = Run {
                command: command.to_owned(),
                input: Bytes::from_static(b"body"),
                environment: vec![("MESH_TEST_X", "a b".to_owned())],
            };
            assert_eq!(run.finish().await.unwrap(), expected, "{command}");
        }
        let big = Run {
            command: "true".to_owned(),
            input: vec![0; 1 << 20].into(),
            environment: vec![],
        };
        assert_eq!(big.finish().await.unwrap(), Outcome::Done);
    }
}
