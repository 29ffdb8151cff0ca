//! `mesh rtt`: how long a round trip to the server takes.

use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::{Context, Failure, output, units};

/// Measures round trips to the server
///
/// A round trip is a message to an inbox of our own: through the server's parser, router and out again.
#[derive(Args, Debug)]
pub struct Rtt {
    /// Round trips to make
    #[arg(value_name = "ITERATIONS", conflicts_with = "iterations")]
    rounds: Option<u32>,
    /// Round trips to make
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5)]
    iterations: u32,
}

impl Rtt {
    /// Measures and prints.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let rounds = self.rounds.unwrap_or(self.iterations);
        if rounds == 0 {
            return Err(Failure::usage("no round trips asked for"));
        }
        let started = Instant::now();
        let client = context.connect().await?;
        let connected = started.elapsed();
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.map_err(Failure::failed)?;
        // The first goes with the subscription and is not one of those counted.
        round_trip(&client, &inbox, &mut echo, context.timeout).await?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(round_trip(&client, &inbox, &mut echo, context.timeout).await?);
        }
        times.sort_unstable();
        print(context, &client, connected, &times)
    }
}

async fn round_trip(
    client: &Client,
    inbox: &str,
    echo: &mut Subscriber,
    timeout: Duration,
) -> Result<Duration, Failure> {
    let started = Instant::now();
    let sent = client.publish(inbox.to_owned(), Bytes::new()).await;
    sent.map_err(Failure::failed)?;
    match tokio::time::timeout(timeout, echo.next()).await {
        Ok(Some(_)) => Ok(started.elapsed()),
        _ => Err(Failure::unhealthy(format!(
            "no echo within {}",
            units::show_duration(timeout)
        ))),
    }
}

fn print(
    context: &Context,
    client: &Client,
    connected: Duration,
    sorted: &[Duration],
) -> Result<(), Failure> {
    // Nearest rank: the value that the given share of round trips did not exceed.
    let percentile = |share: usize| sorted[(sorted.len() * share).div_ceil(100).saturating_sub(1)];
    let average = sorted.iter().sum::<Duration>() / sorted.len() as u32;
    let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
    let info = client.server_info();
    let url = context.shown_server();
    if context.json {
        return output::print_json(&json!({
            "url": url,
            "server": {"id": info.server_id, "name": info.server_name, "version": info.version},
            "client_id": info.client_id,
            "client_ip": info.client_ip,
            "connect_ns": units::nanos(connected),
            "iterations": sorted.len(),
            "min_ns": units::nanos(min),
            "avg_ns": units::nanos(average),
            "p50_ns": units::nanos(percentile(50)),
            "p99_ns": units::nanos(percentile(99)),
            "max_ns": units::nanos(max),
        }));
    }
    let mut columns = output::Columns::new();
    columns.row("Server", format!("{} version {}", info.server_name, info.version));
    columns.row("Client", format!("{} from {}", info.client_id, info.client_ip));
    columns.row("Connect", units::show_duration(connected));
    columns.row("Round Trips", sorted.len());
    columns.row("Minimum", units::show_duration(min));
    columns.row("Average", units::show_duration(average));
    columns.row("50th Percentile", units::show_duration(percentile(50)));
    columns.row("99th Percentile", units::show_duration(percentile(99)));
    columns.row("Maximum", units::show_duration(max));
    columns.print(&format!("{url}:"))
}
