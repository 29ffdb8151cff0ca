//! `mesh store info`: the figures of a store, running or stopped.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{Where, expect_store, refused};
use crate::cli::monitoring::MonitoringArgs;
use crate::cli::output::{self, Columns};
use crate::cli::{Context, Failure, units};
use crate::monitor::{Spread, Store as Figures, shown_store};
use crate::store::{Options, Store};

/// Shows the figures of a store: from the monitoring of a running server, else from the files
///
/// The files are left as they are.
#[derive(Args, Debug)]
pub struct Info {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    monitoring: MonitoringArgs,
}

/// What is read of `/storez`.
#[derive(Deserialize)]
struct Storez {
    pid: u32,
    store: Option<Figures>,
}

impl Info {
    /// Looks and prints.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = self.at.dir();
        if self.monitoring.is_named() && self.at.dir.is_none() {
            return self.print(context, self.running(context, None).await?, None);
        }
        if let Some(pid) = Store::holder(&dir).map_err(|error| refused(&error))? {
            let figures = self.running(context, Some(&pid)).await?;
            return self.print(context, figures, None);
        }
        expect_store(&dir)?;
        let (info, streams) = Store::survey(Options::new(&dir)).map_err(|error| refused(&error))?;
        let mut figures = shown_store(&dir.display().to_string(), info);
        // Nobody has said so: it is how a server starts that decides.
        figures.sync = String::new();
        self.print(context, figures, Some(streams.len()))
    }

    /// The figures of the server that holds the store, from its monitoring.
    async fn running(&self, context: &Context, pid: Option<&str>) -> Result<Figures, Failure> {
        // Who holds a directory of this machine runs on it.
        let pages = self.monitoring.open_on(context, "127.0.0.1")?;
        let url = pages.url();
        let hint = "say where its monitoring is with --monitor URL: `mesh serve` prints it at its start";
        let found: Storez = pages.json("/storez").await.map_err(|failure| match pid {
            Some(pid) => {
                let why = failure.lines().next().unwrap_or_default();
                let what = format!("process {pid} has the store open; {why}");
                Failure::with_code(failure.code(), what).hint(hint)
            }
            None => failure,
        })?;
        let other = found.pid.to_string();
        if let Some(pid) = pid.filter(|pid| other != *pid) {
            return Err(Failure::conflict(format!(
                "process {pid} has the store open, but {url} is the monitoring of process {other}"
            ))
            .hint(hint));
        }
        found
            .store
            .ok_or_else(|| Failure::not_found(format!("the server at {url} has no store")))
    }

    fn print(&self, context: &Context, figures: Figures, streams: Option<usize>) -> Result<(), Failure> {
        if context.json {
            let mut found = json!(figures);
            if let Some(streams) = streams {
                found["streams"] = streams.into();
            }
            found["running"] = streams.is_none().into();
            return output::print_json(&found);
        }
        page(&figures, streams).print(&format!("Information for Store {}", figures.dir))
    }
}

fn page(figures: &Figures, streams: Option<usize>) -> Columns {
    let mut columns = Columns::new();
    match streams {
        None => columns.row("Server", "running"),
        Some(streams) => {
            columns.row("Server", "stopped");
            columns.row("Streams", units::show_count(streams as u64));
        }
    }
    columns.row("State", &figures.state);
    columns.some("Reason", figures.reason.as_ref());
    match figures.sync.as_str() {
        "" => {}
        "always" => columns.row("Synced", "before each acknowledgement"),
        every => columns.row("Synced", format!("every {every}, NOT before acknowledgements")),
    }
    columns.section("Size");
    columns.row("Messages", units::show_bytes(figures.logical_bytes));
    columns.row("On Disk", on_disk(figures));
    columns.row("Journal", units::show_bytes(figures.journal_bytes));
    columns.row("Spare", units::show_bytes(figures.spare_bytes));
    columns.some("Room Left", figures.available_bytes.map(units::show_bytes));
    if streams.is_none() {
        activity(&mut columns, figures);
    }
    let whole = figures.damage.is_empty() && figures.damaged_records == 0;
    if !whole || figures.torn_entries > 0 {
        columns.section("Findings");
        columns.row("Damaged Records", units::show_count(figures.damaged_records));
        columns.row("Cut Off by a Crash", units::show_count(figures.torn_entries));
        figures.damage.iter().for_each(|line| columns.row("Damage", line));
    }
    columns
}

fn on_disk(figures: &Figures) -> String {
    let disk = units::show_bytes(figures.disk_bytes);
    if figures.logical_bytes == 0 {
        return disk;
    }
    let ratio = figures.disk_bytes as f64 / figures.logical_bytes as f64;
    format!("{disk}, {ratio:.2} a stored byte")
}

/// What the server did since its start.
fn activity(columns: &mut Columns, figures: &Figures) {
    columns.section("Since the Start");
    columns.row("Commits", units::show_count(figures.commits));
    columns.row("Records", units::show_count(figures.records));
    columns.row(
        "Records a Commit",
        spread(figures.batch, |n| units::show_count(n.ceil() as u64)),
    );
    columns.row("Commit Time", spread(figures.commit_seconds, time));
    columns.row("Sync Time", spread(figures.sync_seconds, time));
    columns.row("Checkpoints", units::show_count(figures.checkpoints));
    columns.row("Checkpoint Time", spread(figures.checkpoint_seconds, time));
    columns.row(
        "To Replay",
        format!("{} journal entries", units::show_count(figures.journal_entries)),
    );
    columns.row(
        "Cache",
        format!(
            "{} of {}, {} hits, {} misses",
            units::show_bytes(figures.cache_bytes),
            units::show_bytes(figures.cache_bytes_max),
            units::show_count(figures.cache_hits),
            units::show_count(figures.cache_misses)
        ),
    );
}

fn spread(spread: Spread, show: impl Fn(f64) -> String) -> String {
    let Spread { mean, p50, p90, p99 } = spread;
    format!(
        "mean {}, half below {}, 90% below {}, 99% below {}",
        show(mean),
        show(p50),
        show(p90),
        show(p99)
    )
}

fn time(seconds: f64) -> String {
    units::show_duration(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}
