//! What every client command shares: which server, who we are, how to print.

use std::time::Duration;

use clap::Args;

use super::Failure;

/// Connection and output flags, accepted before or after any subcommand.
#[derive(Args, Clone, Debug)]
pub struct Context {
    /// URL of the server, nats://[user:pass@]host:port
    #[arg(
        long,
        short = 's',
        env = "MESH_URL",
        default_value = "nats://127.0.0.1:7778",
        global = true,
        value_name = "URL"
    )]
    pub server: String,
    /// Print machine-readable JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for answers, in seconds (a fraction is fine)
    #[arg(long, global = true, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Context {
    /// Connects to the server, or says plainly that it is not there.
    pub async fn connect(&self) -> Result<async_nats::Client, Failure> {
        let options = async_nats::ConnectOptions::new()
            .name("mesh")
            .connection_timeout(self.timeout);
        options.connect(&self.server).await.map_err(|error| {
            Failure::unhealthy(format!("cannot reach a server at {}: {error}", self.server))
                .hint("start one with `mesh serve`, or name another with --server or MESH_URL")
        })
    }
}
