//! `mesh top`: who is busy on a server right now, from its monitoring port.
//!
//! Reads `/varz`, `/connz` and `/jsz`, so it works on nats-server too. Rates are over the time between two looks, so the
//! first picture comes after one interval. Deliberately absent: anything that changes the server.

mod draw;
mod sample;
mod screen;

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::monitoring::{Monitoring, MonitoringArgs};
use super::{Context, Failure, output, units};
use sample::{Frame, Sample};

/// Shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Connections asked for when sorting by rate, which the server cannot.
const RATED_MAX: usize = 1024;

/// Shows the connections, streams and consumers of a server and their rates, live
///
/// Keys: 1 2 3 or Tab choose what is listed, o the order of connections, arrows scroll, space pauses, q ends.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mesh top --sort bytes_to\n  mesh top --once --json | jq '.rates'\n  \
                  mesh top --monitor http://127.0.0.1:8222     a nats-server started with -m 8222"
)]
pub struct Top {
    #[command(flatten)]
    monitoring: MonitoringArgs,
    /// What is listed first; without a terminal, the only thing listed
    #[arg(long, value_enum)]
    view: Option<View>,
    /// Order of connections
    #[arg(long, value_enum, default_value_t = Sort::MsgsTo)]
    sort: Sort,
    /// Time between two looks
    #[arg(long, short = 'i', value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Rows of each list [default: what fits the terminal, else 1024]
    #[arg(long, short = 'n', value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..))]
    limit: Option<u16>,
    /// Print this many pictures one after another and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Print one picture and end, like --count 1
    #[arg(long, conflicts_with = "count")]
    once: bool,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Client connections
    Connections,
    /// Streams, the busiest first
    Streams,
    /// Consumers, those with most waiting first
    Consumers,
}

impl View {
    const ALL: [Self; 3] = [Self::Connections, Self::Streams, Self::Consumers];

    fn next(self) -> Self {
        match self {
            Self::Connections => Self::Streams,
            Self::Streams => Self::Consumers,
            Self::Consumers => Self::Connections,
        }
    }
}

/// Order of connections, most first; as `/connz` sorts, and by rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Sort {
    /// Messages to the client
    MsgsTo,
    /// Messages from the client
    MsgsFrom,
    /// Bytes to the client
    BytesTo,
    /// Bytes from the client
    BytesFrom,
    /// Messages a second, both ways, among the last active
    Rate,
    /// Bytes waiting for the client
    Pending,
    /// Subscriptions
    Subs,
    /// The latest to have said something first
    Last,
    /// The longest silent first
    Idle,
    /// Round trip
    Rtt,
    /// Connection id, the oldest first
    Cid,
}

impl Sort {
    /// The next one, around.
    fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|&sort| sort == self).unwrap_or_default();
        all[(at + 1) % all.len()]
    }

    /// As the command line and `/connz` spell it.
    fn name(self) -> String {
        let value = self.to_possible_value().expect("no variant is skipped");
        value.get_name().to_owned()
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::duration(text)?;
    match interval < INTERVAL_MIN {
        true => Err(format!("at least {}", units::show_duration(INTERVAL_MIN))),
        false => Ok(interval),
    }
}

impl Top {
    /// Shows until told to end, or as often as asked.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let pages = self.monitoring.open(context)?;
        let frames = if self.once { Some(1) } else { self.count };
        if frames.is_none() && !context.json && std::io::stdout().is_terminal() {
            screen::show(&pages, self).await
        } else {
            self.print(&pages, frames, context.json).await
        }
    }

    async fn print(&self, pages: &Monitoring, frames: Option<u32>, json: bool) -> Result<(), Failure> {
        let rows = self.limit.map_or(RATED_MAX, usize::from);
        let mut stop = pin!(output::interrupted());
        let mut before = look(pages, self.sort, rows).await?;
        let mut left = frames;
        while left != Some(0) {
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
            let now = look(pages, self.sort, rows).await?;
            let frame = Frame::between(Some(&before), &now, self.sort, rows);
            if json {
                output::print_json_line(&frame)?;
            } else {
                output::print(draw::page(&frame, self.view, self.sort))?;
            }
            before = now;
            left = left.map(|left| left - 1);
        }
        Ok(())
    }
}

/// Looks once; `rows` connections at most.
async fn look(pages: &Monitoring, sort: Sort, rows: usize) -> Result<Sample, Failure> {
    let (sort, rows) = match sort {
        Sort::Rate => (Sort::Last, rows.max(RATED_MAX)),
        sort => (sort, rows),
    };
    let connz = format!("/connz?sort={}&limit={rows}", sort.name());
    let (varz, connz, jsz) = tokio::try_join!(
        pages.json("/varz"),
        pages.json(&connz),
        pages.json("/jsz?streams=1&consumers=1"),
    )?;
    Ok(Sample::new(varz, connz, jsz))
}
