//! `mesh check`: is the mesh well? And one message through it and back.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{ago, shown, table};
use crate::cli::{Context, Failure, output, units};
use crate::mesh::catalog::SYSTEMS;
use crate::mesh::check::Health;

/// Shows whether the mesh is well; exits with 3 if it is not
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Check {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Send a text through the stream and read it back
    Send {
        /// What to send
        text: String,
    },
}

impl Check {
    /// Looks, prints, and fails if something is wrong.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(What::Send { text }) = self.what {
            return send(context, &text).await;
        }
        let found = async {
            let mesh = super::open(context).await?;
            Ok::<_, Failure>(mesh.health().await?)
        };
        let health = match found.await {
            Ok(health) => health,
            Err(failure) => {
                output::print(if context.json {
                    r#"{"online":false}"#
                } else {
                    "Offline"
                })?;
                return Err(failure);
            }
        };
        if context.json {
            let mut line = serde_json::to_value(&health).expect("strings and numbers are always JSON");
            line["online"] = health.problems.is_empty().into();
            output::print(line.to_string())?;
        } else {
            output::print(text(&health).trim_end())?;
        }
        match health.problems.first() {
            None => Ok(()),
            Some(_) => Err(Failure::unhealthy(health.problems.join("; "))),
        }
    }
}

async fn send(context: &Context, text: &str) -> Result<(), Failure> {
    let mesh = super::open(context).await?;
    let trip = mesh.round_trip(text).await?;
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    let line = if context.json {
        let (stored_ms, read_ms) = (millis(trip.stored), millis(trip.read));
        serde_json::json!({"stream_seq": trip.stream_seq, "stored_ms": stored_ms, "read_ms": read_ms})
            .to_string()
    } else {
        format!(
            "stored as {} after {:.1} ms, read back after {:.1} ms",
            trip.stream_seq,
            millis(trip.stored),
            millis(trip.read)
        )
    };
    output::print(line)
}

fn text(health: &Health) -> String {
    let now = Timestamp::now();
    let age = |time: &str| {
        time.parse()
            .map_or_else(|_| time.to_owned(), |time| ago(time, now))
    };
    let online = if health.problems.is_empty() {
        "Online"
    } else {
        "Unwell"
    };
    let mut lines = vec![format!("{online}, {} peers connected", health.peers)];
    let silent = match health.silent.as_slice() {
        [] => String::new(),
        silent if silent.len() == SYSTEMS => String::new(),
        silent => format!("; not {}", silent.join(", ")),
    };
    lines.push(format!(
        "{} of {SYSTEMS} systems seen in the last 24 h{silent}",
        health.systems.len()
    ));
    let of = |max: Option<u64>| max.map_or_else(String::new, |max| format!(" of {}", units::show_bytes(max)));
    let last = health
        .last_event
        .as_deref()
        .map_or_else(|| "none yet".to_owned(), age);
    lines.push(format!(
        "stream   {} events, {}{}, last one {last}",
        health.events,
        units::show_bytes(health.bytes),
        of(health.bytes_max)
    ));
    lines.push(format!(
        "store    {}{} used, one record stored in {:.1} ms",
        units::show_bytes(health.stored),
        of(health.stored_max),
        health.store_ms
    ));
    let beacon = health.beacon.as_ref().map_or_else(
        || "none yet".to_owned(),
        |beacon| {
            let who = beacon.instance.as_deref().unwrap_or("-");
            format!(
                "{}, from {who}: {}",
                age(&beacon.stored),
                shown(beacon.body.as_bytes())
            )
        },
    );
    lines.push(format!("beacon   {beacon}"));
    if health.clock_ahead_seconds.abs() > 2.0 {
        let ahead = health.clock_ahead_seconds;
        let way = if ahead > 0.0 { "ahead of" } else { "behind" };
        lines.push(format!(
            "clock    this machine is {:.1} s {way} the server",
            ahead.abs()
        ));
    }
    for problem in &health.problems {
        lines.push(format!("PROBLEM  {problem}"));
    }
    if !health.consumers.is_empty() {
        let mut table = table(&["READER", "WAITING", "UNSETTLED", "NOW"]);
        for lag in &health.consumers {
            let now = if lag.read { "reading" } else { "away" };
            table.add_row([
                &lag.name,
                &lag.waiting.to_string(),
                &lag.unsettled.to_string(),
                now,
            ]);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}
