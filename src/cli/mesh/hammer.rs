//! `mesh hammer`: how much the mesh bears.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{stop_signal, table};
use crate::cli::{Context, Failure, output};
use crate::mesh::hammer::{Load, Percentiles, Progress, Report};

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(200);

/// Lets many made-up instances speak at once, and checks that nothing is lost, doubled or out of order
#[derive(Args, Debug)]
pub struct Hammer {
    /// How many instances speak
    #[arg(long, short = 'i', default_value = "16", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=4096))]
    instances: u16,
    /// For how many seconds
    #[arg(long, short = 'S', default_value = "10", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many events each may have on the way
    #[arg(long, short = 'w', default_value = "32", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Events a second of each instance (default: as many as go)
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

impl Hammer {
    /// Runs on all cores: the load must not be what is measured.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))?;
        runtime.block_on(self.hammer(context))
    }

    async fn hammer(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        let mut clients = Vec::with_capacity(usize::from(self.instances));
        for _ in 0..self.instances {
            clients.push(context.connect().await?);
        }
        let load = Load {
            clients,
            time: Duration::from_secs(u64::from(self.seconds)),
            window: usize::from(self.window),
            rate: self.rate,
        };
        let progress = Arc::new(Progress::default());
        let bar = tokio::spawn(show(Arc::clone(&progress), load.time));
        let report = mesh.hammer(&load, progress, stop_signal()).await;
        bar.abort();
        let report = report?;
        let json = || serde_json::to_string(&report).expect("numbers are always JSON");
        output::print(if context.json { json() } else { text(&report) })?;
        if report.is_clean() {
            return Ok(());
        }
        let Report {
            failed,
            lost,
            doubled,
            misordered,
            ..
        } = report;
        Err(Failure::failed(format!(
            "{failed} not acknowledged, {lost} lost, {doubled} doubled, {misordered} out of order"
        )))
    }
}

/// Draws on stderr, and only if that is a terminal.
async fn show(progress: Arc<Progress>, time: Duration) {
    let bar = ProgressBar::new(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("{bar:40} {elapsed} {msg}").expect("the template is a constant");
    bar.set_style(style);
    loop {
        tokio::time::sleep(TICK).await;
        let (acked, received) = (
            progress.acked.load(Ordering::Relaxed),
            progress.received.load(Ordering::Relaxed),
        );
        bar.set_position(u64::try_from(bar.elapsed().as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{acked} stored, {received} read"));
    }
}

fn text(report: &Report) -> String {
    let mut latency = table(&["LATENCY (ms)", "p50", "p90", "p99", "p99.9", "MAX"]);
    let mut row = |name: &str, found: &Percentiles| {
        let cells =
            [found.p50, found.p90, found.p99, found.p999, found.max].map(|millis| format!("{millis:.2}"));
        latency.add_row(std::iter::once(name.to_owned()).chain(cells));
    };
    row("stored", &report.ack_ms);
    row("read", &report.delivery_ms);
    format!(
        "{} instances, {:.1} s: {} events stored, {:.0} a second\n\
         {} not acknowledged, {} lost, {} doubled, {} out of order\n{latency}",
        report.instances,
        report.seconds,
        report.acked,
        report.events_per_second,
        report.failed,
        report.lost,
        report.doubled,
        report.misordered
    )
}
