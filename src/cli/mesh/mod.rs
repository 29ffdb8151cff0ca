//! The commands of the mesh: arguments and output; what they do is in the room `mesh`.

pub mod answer;
pub mod ask;
mod both;
pub mod check;
pub mod conflicts;
pub mod emit;
pub mod events;
pub mod hammer;
pub mod join;
pub mod lineage;
pub mod log;
pub mod mission;
pub mod peers;
pub mod phoenix;
pub mod setup;
pub mod sync;
pub mod watch;

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Context, Failure, output, units};
use crate::mesh::{Catalog, Error, Identity, Mesh, Options, Received, Start, identity};

/// Longest body that is shown on a line for people.
const SHOWN_LETTERS_MAX: usize = 240;

/// Connects this session to its mesh.
async fn open(context: &Context) -> Result<Mesh, Failure> {
    open_as(context, Identity::from_env()?).await
}

/// Connects as somebody.
async fn open_as(context: &Context, identity: Identity) -> Result<Mesh, Failure> {
    let catalog = Catalog::load(&identity::events_file())?;
    let connection = context.open().await?;
    let options = Options {
        timeout: context.timeout,
        identity,
        catalog,
        state_dir: identity::state_dir(),
        complaints: connection.complaints(),
    };
    Ok(Mesh::new(connection.client, options))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::UnknownEvent { near, .. } if near.is_empty() => {
                Self::not_found(&error).hint("`mesh events` lists those there are")
            }
            Error::UnknownEvent { near, .. } => {
                let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
                Self::not_found(&error).hint(format!(
                    "did you mean {}? `mesh events` lists all",
                    near.join(" or ")
                ))
            }
            Error::BadBody { event, .. } => Self::usage(&error).hint(format!(
                "`mesh events {event}` shows its fields; --force sends it all the same"
            )),
            Error::BadName { .. } | Error::BadConfig { .. } => Self::usage(&error),
            Error::Unconfirmed { .. } => Self::unhealthy(&error).hint(
                "it is kept and goes out before the next event; running the same command again settles it",
            ),
            Error::Server { .. } => Self::unhealthy(&error),
            Error::Superseded {
                session, new_session, ..
            } => Self::conflict(&error).hint(format!(
                "`mesh phoenix resurrect {new_session}` revives the session it goes on as\n\
                 `mesh phoenix resurrect {session} --take-over` brings this state back all the same"
            )),
            Error::DamagedKey { bucket, key, .. } => Self::failed(&error).hint(format!(
                "`mesh kv get {bucket} {key}` shows it, `mesh kv purge {bucket} {key}` removes it"
            )),
            Error::NoStreams => Self::unhealthy(&error).hint("start `mesh serve`, or nats-server with -js"),
            Error::NotFound(_) => Self::not_found(&error),
            Error::Git { next, .. } => Self::failed(&error).hint(next),
            Error::Waiting { place, .. } => {
                Self::unhealthy(&error).hint(format!(
                    "`mesh sync --git {place}` says what is in the way; with --give-up it goes on without what is lost"
                ))
            }
            Error::Journal { .. } => {
                Self::failed(&error).hint("MESH_STATE_DIR names another directory for journals")
            }
            Error::Refused { .. } | Error::Damaged { .. } | Error::Command { .. } | Error::Io(_) => {
                Self::failed(&error)
            }
        }
    }
}

/// A token that is cancelled by the first SIGINT or SIGTERM; the second one ends the process at once.
fn stop_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let first = output::interrupted();
    tokio::spawn(async move {
        first.await;
        let second = output::interrupted();
        cancel.cancel();
        second.await;
        std::process::exit(130);
    });
    token
}

/// An event as a line: for programs, or for people.
fn line(event: &Received, json: bool) -> String {
    if json {
        return event.json();
    }
    let envelope = &event.envelope;
    let who = match (&envelope.instance, &envelope.session) {
        (Some(instance), Some(session)) => format!("{instance}/{session}"),
        (Some(instance), None) => instance.clone(),
        (None, _) => "-".to_owned(),
    };
    format!(
        "{}  {:<20}  {who}  {}",
        units::show_time(event.stored),
        event.name(),
        shown(&event.body)
    )
}

/// A body fit for one line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if let Some((end, _)) = line.char_indices().nth(SHOWN_LETTERS_MAX) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// How long ago, to the second.
fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    format!(
        "{} ago",
        units::show_duration(Duration::from_secs(seconds.unsigned_abs()))
    )
}

/// A table for people: columns, no frame.
fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    table
}

/// `--since`: how far back, or from which moment.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// From the first event that is kept.
    All,
    /// This long ago, by the server's clock.
    Ago(Duration),
    /// From that moment.
    At(Timestamp),
}

fn since(text: &str) -> Result<Since, String> {
    if text == "all" {
        return Ok(Since::All);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::At(time));
    }
    units::duration(text)
        .map(Since::Ago)
        .map_err(|_| "expected a duration (30m, 1h, 7d), a time (2026-11-23T05:20:00Z) or `all`".to_owned())
}

impl Since {
    /// Where reading begins.
    async fn start(self, mesh: &Mesh) -> Result<Start, Error> {
        Ok(match self {
            Self::All => Start::After(0),
            Self::At(time) => Start::At(time),
            Self::Ago(ago) => {
                let now = mesh.server_now().await?;
                Start::At(now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_and_times() {
        assert!(matches!(since("all"), Ok(Since::All)));
        assert!(matches!(since("2026-11-23T05:20:00Z"), Ok(Since::At(_))));
        assert!(matches!(since("30m"), Ok(Since::Ago(_))));
        since("yesterday").unwrap_err();
    }
}
