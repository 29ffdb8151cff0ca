//! `mesh health`: the health page as an exit code, for the probes of containers and scripts.

use clap::Args;

use super::monitoring::MonitoringArgs;
use super::{Context, Failure, output};

/// Asks a server whether it is well; exits with 3 if it is not, or cannot be reached
///
/// Asks the monitoring port, so that it needs no credentials and leaves no trace among the clients.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mesh health\n  mesh health --ready --monitor http://broker:8778")]
pub struct Health {
    #[command(flatten)]
    monitoring: MonitoringArgs,
    /// Ask only whether the process answers (/livez)
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask whether it takes new clients too (/readyz)
    #[arg(long)]
    ready: bool,
}

/// What the health pages say; nats-server's know no `fix`.
#[derive(Default, serde::Deserialize)]
struct Said {
    #[serde(default)]
    status: String,
    error: Option<String>,
    fix: Option<String>,
}

impl Health {
    /// Asks, prints, and fails unless all is well.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = match (self.live, self.ready) {
            (true, _) => "/livez",
            (_, true) => "/readyz",
            _ => "/healthz",
        };
        let pages = self.monitoring.open(context)?;
        let answer = pages.get(path).await?;
        let said: Said = serde_json::from_str(&answer.body).unwrap_or_default();
        if context.json {
            output::print(answer.body.trim_end())?;
        } else if answer.status == 200 {
            output::print(&said.status)?;
        }
        if answer.status == 200 {
            return Ok(());
        }
        let why = said.error.unwrap_or_else(|| answer.body.trim().to_owned());
        let failure = Failure::unhealthy(format!("{}{path} answered {}: {why}", pages.url(), answer.status));
        Err(match said.fix {
            Some(fix) => failure.hint(fix),
            None => failure,
        })
    }
}
