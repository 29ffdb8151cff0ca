//! `mesh store check`: reads everything in a stopped store, and with `--repair` takes out what cannot be read.

use clap::Args;
use serde_json::{Value, json};

use super::{Where, expect_store, refused};
use crate::cli::output::{self, Boxed};
use crate::cli::{Context, Failure, units};
use crate::jetstream;
use crate::store::{Options, Report, Store, StreamReport};

/// Damaged sequences of one stream that are named on the page; JSON names all.
const NAMED_MAX: usize = 8;

/// Reads everything in a stopped store and says what is whole; exits with 3 if something is not
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    at: Where,
    /// Take out what cannot be read, so that its sequences count as deleted
    #[arg(long)]
    repair: bool,
}

impl Check {
    /// Checks, prints, and fails if something is damaged still.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = self.at.dir();
        expect_store(&dir)?;
        let options = Options::new(&dir);
        let report = if self.repair {
            Store::repair(options, &jetstream::mended)
        } else {
            Store::check(options)
        };
        let report = report.map_err(|error| refused(&error))?;
        if context.json {
            let mut found = as_json(&report);
            found["dir"] = dir.display().to_string().into();
            output::print_json(&found)?;
        } else {
            print(&dir.display().to_string(), &report)?;
        }
        let damaged: usize = report.streams.iter().map(|stream| stream.damaged.len()).sum();
        let offline = report.streams.iter().filter(|stream| stream.meta_damaged).count();
        if report.damage.is_empty() && offline == 0 && (damaged == 0 || self.repair) {
            return Ok(());
        }
        let what = format!(
            "the store is damaged: {damaged} records, {} other findings",
            report.damage.len().max(offline)
        );
        Err(Failure::unhealthy(what).hint(if self.repair {
            "what is left could not be repaired: restore the stream from a copy, or delete it"
        } else {
            "the rest is served as it is; `mesh store check --repair` takes out what cannot be read"
        }))
    }
}

/// The name of a stream, from what the store keeps of it.
fn name(stream: &StreamReport) -> String {
    let name = jetstream::name_in(&stream.meta);
    match (name, stream.meta_damaged) {
        (Some(name), false) => name,
        (Some(name), true) => format!("{name} (configuration damaged)"),
        (None, _) => format!("(stream {})", stream.id),
    }
}

fn as_json(report: &Report) -> Value {
    let streams: Vec<_> = report
        .streams
        .iter()
        .map(|stream| {
            json!({
                "id": stream.id.0,
                "name": name(stream),
                "messages": stream.messages,
                "bytes": stream.bytes,
                "damaged": stream.damaged,
                "offline": stream.meta_damaged,
            })
        })
        .collect();
    json!({
        "clean": report.is_clean(),
        "streams": streams,
        "damage": report.damage,
        "gave_up": report.gave_up,
        "torn_entries": report.torn_entries,
        "rebuilt": report.rebuilt,
        "removed": report.removed,
    })
}

fn print(dir: &str, report: &Report) -> Result<(), Failure> {
    if report.streams.is_empty() {
        output::print(format!("No streams in {dir}"))?;
    } else {
        let mut table = Boxed::new(
            format!("Streams in {dir}"),
            &["Stream", "Messages", "Size", "Damaged"],
        );
        for stream in &report.streams {
            table.row([
                name(stream),
                units::show_count(stream.messages),
                units::show_bytes(stream.bytes),
                named(&stream.damaged),
            ]);
        }
        table.print()?;
    }
    for line in &report.damage {
        output::print(format!("DAMAGE  {line}"))?;
    }
    for line in &report.gave_up {
        output::print(format!("GAVE UP  {line}"))?;
    }
    let count = |count: u64, what: &str| match count {
        0 => Ok(()),
        count => output::print(format!("{} {what}", units::show_count(count))),
    };
    count(
        report.torn_entries,
        "journal entries cut off by the last crash; nobody was promised them",
    )?;
    count(report.rebuilt, "blocks rebuilt from their records")?;
    count(
        report.removed,
        "damaged records taken out; their sequences count as deleted",
    )?;
    if report.is_clean() {
        output::print("All of it is whole")?;
    }
    Ok(())
}

/// `3: 17, 42, 99`, shortened.
fn named(damaged: &[u64]) -> String {
    if damaged.is_empty() {
        return "none".to_owned();
    }
    let first: Vec<_> = damaged.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if damaged.len() > NAMED_MAX { ", ..." } else { "" };
    format!("{}: {}{more}", damaged.len(), first.join(", "))
}
