//! The commands of the mesh: arguments and output; what they do is in the room `mesh`.

pub mod check;
pub mod emit;
pub mod events;
pub mod hammer;
pub mod join;
pub mod lineage;
pub mod log;
pub mod peers;
pub mod phoenix;
pub mod setup;
pub mod watch;

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Context, Failure};
use crate::mesh::{Catalog, Error, Identity, Mesh, Options, Received, Start, identity};

/// Longest body that is shown on a line for people.
const SHOWN_BYTES_MAX: usize = 240;

/// Connects this session to its mesh.
async fn open(context: &Context) -> Result<Mesh, Failure> {
    open_as(context, Identity::from_env()?).await
}

/// Connects as somebody.
async fn open_as(context: &Context, identity: Identity) -> Result<Mesh, Failure> {
    let options = Options {
        url: context.server.clone(),
        timeout: context.timeout,
        identity,
        catalog: Catalog::load(&identity::events_file())?,
        state_dir: identity::state_dir(),
    };
    Ok(Mesh::open(options).await?)
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
            Error::Unreachable { .. } => Self::unhealthy(&error)
                .hint("start one with `mesh serve`, or name another with --server or MESH_URL"),
            Error::Unconfirmed { .. } => Self::unhealthy(&error).hint(
                "it is kept and goes out before the next event; running the same command again settles it",
            ),
            Error::Server { .. } => Self::unhealthy(&error),
            Error::Superseded { new_session, .. } => Self::conflict(&error).hint(format!(
                "`mesh phoenix resurrect {new_session}` revives the session it goes on as"
            )),
            Error::NotFound(_) => Self::not_found(&error),
            Error::Refused { .. }
            | Error::Journal { .. }
            | Error::Damaged { .. }
            | Error::Command { .. }
            | Error::Io(_) => Self::failed(&error),
        }
    }
}

/// A token that is cancelled by the first SIGINT or SIGTERM; the second one ends the process at once.
fn stop_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        signalled().await;
        cancel.cancel();
        signalled().await;
        std::process::exit(130);
    });
    token
}

async fn signalled() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            tokio::signal::ctrl_c().await.ok();
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.ok();
}

/// Prints a line of data now. `false` when nobody reads any more, which is a reason to end, not an error.
fn print(line: &str) -> Result<bool, Failure> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot write to stdout: {error}"))),
    }
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
        clock(event.stored),
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
    if line.len() > SHOWN_BYTES_MAX {
        line.truncate(line.floor_char_boundary(SHOWN_BYTES_MAX));
        line.push_str("...");
    }
    line
}

/// Day and time here.
fn clock(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// How long ago, in the largest unit that fits.
fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// `1.5 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A table for people: columns, no frame.
fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    table
}

/// `90s`, `1h30m`, `2d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 90s, 30m, 1h or 7d".to_owned();
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(Duration::from_secs(u64::from(days) * 86_400));
    }
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
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
    duration(text)
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
    fn durations_and_times() {
        for (text, expected) in [("90s", 90), ("1h", 3600), ("1h30m", 5400), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        for text in ["", "1", "soon", "-1h"] {
            duration(text).unwrap_err();
        }
        assert!(matches!(since("all"), Ok(Since::All)));
        assert!(matches!(since("2026-11-23T05:20:00Z"), Ok(Since::At(_))));
        assert!(matches!(since("30m"), Ok(Since::Ago(_))));
    }

    #[test]
    fn sizes_and_ages() {
        assert_eq!(
            (size(12), size(1536), size(10 << 20)),
            ("12 B".into(), "1.5 KiB".into(), "10.0 MiB".into())
        );
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (then, now, expected) in [
            (0, 5, "5 s ago"),
            (9, 5, "0 s ago"),
            (0, 7200, "2 h ago"),
            (0, 200_000, "2 d ago"),
        ] {
            assert_eq!(ago(at(then), at(now)), expected);
        }
    }
}
