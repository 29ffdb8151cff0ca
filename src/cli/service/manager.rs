//! Talking to systemd and launchd, by their own commands.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Manager, agent, unit};
use crate::cli::{Failure, units};

/// How long a manager may take for one thing: starting waits until the server is ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether a service runs, and what its manager calls that.
pub(super) struct State {
    pub running: bool,
    pub word: String,
}

impl State {
    /// Of a service that is not installed.
    pub fn absent() -> Self {
        Self {
            running: false,
            word: "not installed".to_owned(),
        }
    }
}

/// What a command of a manager said.
struct Said {
    ok: bool,
    out: String,
    err: String,
}

impl Manager {
    fn program(self) -> &'static str {
        match self {
            Self::Systemd => "systemctl",
            Self::Launchd => "launchctl",
        }
    }

    async fn ask(self, arguments: &[&str]) -> Result<Said, Failure> {
        let program = self.program();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, child).await.map_err(|_| {
            let patience = units::show_duration(PATIENCE);
            Failure::failed(format!(
                "`{program} {}` took more than {patience}",
                arguments.join(" ")
            ))
        })?;
        let output = output.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let what = match self {
                    Self::Systemd => "there is no systemd here: systemctl is not on the PATH",
                    Self::Launchd => "there is no launchd here: launchctl is not on the PATH",
                };
                Failure::failed(what).hint(
                    "--no-start writes the file all the same; --print shows what to give to another service manager",
                )
            }
            _ => Failure::failed(format!("cannot run {program}: {error}")),
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(Said {
            ok: output.status.success(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        })
    }

    async fn tell(self, arguments: &[&str]) -> Result<(), Failure> {
        let said = self.ask(arguments).await?;
        match said.ok {
            true => Ok(()),
            false => Err(Failure::failed(format!(
                "`{} {}` failed: {}",
                self.program(),
                arguments.join(" "),
                if said.err.is_empty() { &said.out } else { &said.err }
            ))
            .hint(self.advice())),
        }
    }

    /// Fails unless the manager of this user's services is there and answers.
    pub async fn reachable(self) -> Result<(), Failure> {
        let said = match self {
            Self::Systemd => self.ask(&["--user", "show", "--property=Version"]).await?,
            Self::Launchd => self.ask(&["print", &domain()]).await?,
        };
        match said.ok {
            true => Ok(()),
            false => Err(Failure::failed(format!(
                "the service manager of this user does not answer: {}",
                said.err.lines().next().unwrap_or("it does not say why")
            ))
            .hint(match self {
                Self::Systemd => {
                    "it runs while you are logged in: log in as yourself (not by su or sudo), or have it run always with \
                     `loginctl enable-linger`\n--no-start writes the file all the same"
                }
                Self::Launchd => "it runs while you are logged in at the screen; --no-start writes the file all the same",
            })),
        }
    }

    /// Has the service run as `file` says, now and from every login on.
    pub async fn start(self, file: &Path, changed: bool) -> Result<(), Failure> {
        match self {
            Self::Systemd => {
                self.tell(&["--user", "daemon-reload"]).await?;
                self.tell(&["--user", "enable", unit::NAME]).await?;
                // A start leaves one that runs alone; a changed one must not run on as it was.
                let verb = if changed { "restart" } else { "start" };
                self.tell(&["--user", verb, unit::NAME]).await
            }
            Self::Launchd => {
                let loaded = self.ask(&["print", &target()]).await?.ok;
                if loaded && !changed {
                    return self.tell(&["kickstart", &target()]).await;
                }
                if loaded {
                    self.tell(&["bootout", &target()]).await?;
                }
                let file = file
                    .to_str()
                    .ok_or_else(|| Failure::failed("the path of the file is no text"))?;
                self.tell(&["bootstrap", &domain(), file]).await
            }
        }
    }

    /// Stops the service, if it runs.
    pub async fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Systemd => self.tell(&["--user", "disable", "--now", unit::NAME]).await,
            Self::Launchd if self.ask(&["print", &target()]).await?.ok => {
                self.tell(&["bootout", &target()]).await
            }
            Self::Launchd => Ok(()),
        }
    }

    /// Lets go of a file that was removed.
    pub async fn forget(self) -> Result<(), Failure> {
        match self {
            Self::Systemd => self.tell(&["--user", "daemon-reload"]).await,
            Self::Launchd => Ok(()),
        }
    }

    /// How the service is.
    pub(super) async fn state(self) -> Result<State, Failure> {
        match self {
            Self::Systemd => {
                let said = self.ask(&["--user", "is-active", unit::NAME]).await?;
                let word = [said.out, said.err].into_iter().find(|text| !text.is_empty());
                Ok(State {
                    running: said.ok,
                    word: word.unwrap_or_else(|| "unknown".to_owned()),
                })
            }
            Self::Launchd => {
                let said = self.ask(&["print", &target()]).await?;
                let state = said
                    .out
                    .lines()
                    .find_map(|line| line.trim().strip_prefix("state = "));
                Ok(State {
                    running: state == Some("running"),
                    word: state.unwrap_or("not loaded").to_owned(),
                })
            }
        }
    }

    /// Where to look next.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Systemd => {
                "its log: journalctl --user -u mesh\nto run when you are logged out, too: loginctl enable-linger"
            }
            Self::Launchd => "its log: ~/Library/Logs/mesh.log",
        }
    }
}

/// The launchd domain of this user's session.
fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn target() -> String {
    format!("{}/{}", domain(), agent::LABEL)
}
