//! `mesh join`: be present, alone or around a command.

use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use super::stop_signal;
use crate::cli::{Context, Failure, units};
use crate::mesh::presence::{News, Presence, Timing};
use crate::mesh::{Error, Identity, Mesh, describe, identity};

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
        if self.lapse.as_secs() < 1 || self.heartbeat >= self.lapse || self.heartbeat.is_zero() {
            return Err(Failure::usage(
                "--lapse must be a second at least, and longer than --heartbeat, which must not be nothing",
            ));
        }
        let mesh = super::open_as(context, identity).await?;
        let timing = Timing {
            heartbeat: self.heartbeat,
            lapse: self.lapse,
        };
        let presence = mesh.join(timing).await?;
        anstream::eprintln!("{} is present", mesh.identity.instance);
        if self.command.is_empty() {
            alone(&mesh, presence, &stop_signal()).await
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
            news = presence.next() => match news {
                Ok(News::Superseded(revived)) => {
                    let session = mesh.identity.session.clone().expect("only a session is superseded");
                    presence.leave("superseded").await?;
                    return Err(revived.error(&session).into());
                }
                Ok(news) => tell(&news),
                Err(error) => pause_after(&error).await,
            },
        }
    }
}

/// A server that is away for a while ends no presence.
async fn pause_after(error: &Error) {
    anstream::eprintln!("{error}");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// We end when the command does, and with its exit code, whatever becomes of the mesh meanwhile. What is typed at the
/// terminal reaches it by itself; what a supervisor sends to us is passed on.
async fn around(mesh: &Mesh, mut presence: Presence, command: &[String]) -> Result<(), Failure> {
    let signal = |kind| {
        tokio::signal::unix::signal(kind)
            .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
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
            let why = format!("cannot run `{}`: {error}", command[0]);
            tell_end(mesh, presence, &why).await;
            return Err(Failure::failed(why));
        }
    };
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pass_on = |signal| {
        // It may have ended just now.
        pid.map(|pid| kill_process(pid, signal).ok());
    };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|error| Failure::failed(format!("lost the command: {error}")))?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => pass_on(Signal::TERM),
            _ = hangup.recv() => pass_on(Signal::HUP),
            news = presence.next() => match news {
                Ok(news) => tell(&news),
                Err(error) => pause_after(&error).await,
            },
        }
    };
    let how = describe(status);
    tell_end(mesh, presence, &how).await;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::with_code(
            u8::try_from(code).unwrap_or(1),
            format!("`{}` {how}", command[0]),
        )),
        None => Err(Failure::failed(format!("`{}` {how}", command[0]))),
    }
}

/// Tells the mesh that the command has ended. If nobody is there to be told, it lapses.
async fn tell_end(mesh: &Mesh, presence: Presence, how: &str) {
    let told = async {
        if let Some(session) = &mesh.identity.session {
            let body = json!({"session": session, "reason": how}).to_string();
            mesh.emit(&mesh.draft("session_ended", body)?).await?;
        }
        presence.leave(how).await
    };
    if let Err(error) = told.await {
        anstream::eprintln!("the mesh is not told ({how}): {error}");
    }
}

fn tell(news: &News) {
    match news {
        News::Lapsed(instance, None) => anstream::eprintln!("{instance} has lapsed"),
        News::Lapsed(instance, Some(session)) => anstream::eprintln!("{instance}/{session} has lapsed"),
        News::Doubled(peer) => anstream::eprintln!(
            "process {} on {} goes by this name too: one of them needs another MESH_INSTANCE or --session",
            peer.pid,
            peer.host
        ),
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
