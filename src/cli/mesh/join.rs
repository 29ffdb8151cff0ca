//! `mesh join`: be present, alone or around a command.

use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::stop_signal;
use crate::cli::{Context, Failure, units};
use crate::mesh::presence::{News, Presence, Timing};
use crate::mesh::{Identity, Mesh, describe, identity};

/// Makes this instance a peer for as long as it runs
#[derive(Args, Debug)]
pub struct Join {
    /// The session that is present (default: $MESH_SESSION)
    #[arg(long)]
    session: Option<String>,
    /// How often to say so
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    heartbeat: Duration,
    /// How long a silence ends the presence; at least a second
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = units::duration)]
    lapse: Duration,
    /// Be present while this command runs, and end with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Join {
    /// Runs until it is told to stop, or the command ends.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut identity = Identity::from_env()?;
        if let Some(session) = &self.session {
            identity.session = Some(identity::checked("session", session)?);
        }
        if self.lapse.as_secs() < 1 || self.heartbeat >= self.lapse {
            return Err(Failure::usage(
                "--lapse must be a second at least, and longer than --heartbeat",
            ));
        }
        let mesh = super::open_as(context, identity).await?;
        let timing = Timing {
            heartbeat: self.heartbeat,
            lapse: self.lapse,
        };
        let presence = mesh.join(timing).await?;
        anstream::eprintln!("{} is present", mesh.identity.instance);
        let stop = stop_signal();
        if self.command.is_empty() {
            alone(&mesh, presence, &stop).await
        } else {
            around(&mesh, presence, &self.command).await
        }
    }
}

async fn alone(mesh: &Mesh, mut presence: Presence, stop: &CancellationToken) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                presence.leave("left").await?;
                return Ok(());
            }
            news = presence.next() => match news? {
                News::Superseded(revived) => {
                    let session = mesh.identity.session.clone().expect("only a session is superseded");
                    presence.leave("superseded").await?;
                    return Err(revived.error(&session).into());
                }
                news => tell(&news),
            },
        }
    }
}

/// Signals reach the command by themselves; we end when it does.
async fn around(mesh: &Mesh, mut presence: Presence, command: &[String]) -> Result<(), Failure> {
    let mut process = tokio::process::Command::new(&command[0]);
    process
        .args(&command[1..])
        .stdin(Stdio::inherit())
        .env("MESH_INSTANCE", &mesh.identity.instance);
    if let Some(session) = &mesh.identity.session {
        process.env("MESH_SESSION", session);
        mesh.emit(&mesh.draft("session_started", json!({"session": session}).to_string())?)
            .await?;
    }
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => {
            presence.leave("left").await?;
            return Err(Failure::failed(format!("cannot run `{}`: {error}", command[0])));
        }
    };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|error| Failure::failed(format!("lost the command: {error}")))?,
            news = presence.next() => match news {
                Ok(news) => tell(&news),
                Err(error) => {
                    // The command matters more than its presence.
                    anstream::eprintln!("{error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    };
    let how = describe(status);
    if let Some(session) = &mesh.identity.session {
        let body = json!({"session": session, "reason": how}).to_string();
        mesh.emit(&mesh.draft("session_ended", body)?).await?;
    }
    presence.leave(&how).await?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::with_code(
            u8::try_from(code).unwrap_or(1),
            format!("`{}` {how}", command[0]),
        )),
        None => Err(Failure::failed(format!("`{}` {how}", command[0]))),
    }
}

fn tell(news: &News) {
    match news {
        News::Lapsed(instance, None) => anstream::eprintln!("{instance} has lapsed"),
        News::Lapsed(instance, Some(session)) => anstream::eprintln!("{instance}/{session} has lapsed"),
        News::Returned => anstream::eprintln!("present again, after a silence"),
        News::Superseded(revived) => {
            anstream::eprintln!(
                "this session was revived by {} as `{}`",
                revived.by,
                revived.session
            );
        }
    }
}
