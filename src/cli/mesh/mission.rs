//! `mesh mission-control`: what the instances notice, drawn together.

use std::time::Duration;

use clap::Args;

use super::conflicts::{first_start, unless_passing};
use super::{Since, since, stop_signal};
use crate::cli::{Context, Failure, output, units};
use crate::mesh::mission::{Options, Synthesis};

/// Draws together what all instances notice, by thread, and tells the mesh
///
/// Reads resonance_detected, aha_moment, coherence_alert and conflict_alert; once the window of a thread is over, one
/// mission_control_synthesis names what came in it. docs/conflicts.md tells more.
#[derive(Args, Debug)]
pub struct MissionControl {
    /// How long a thread's events are gathered, from its first one on
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = units::duration)]
    window: Duration,
    /// Draw nothing together from fewer events
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    at_least: u16,
    /// The durable reader's name; who shares it shares the work
    #[arg(long, value_name = "NAME", default_value = "mission-control")]
    durable: String,
    /// Where to begin the first time: a duration, a time, or `all`
    #[arg(long, value_parser = since)]
    since: Option<Since>,
}

/// Longest window; what came in it is read anew at each start.
const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl MissionControl {
    /// Runs until it is told to stop.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.window.is_zero() || self.window > WINDOW_MAX {
            return Err(Failure::usage(
                "--window must be more than nothing and at most 7d",
            ));
        }
        let mesh = super::open(context).await?;
        let options = Options {
            name: self.durable,
            start: first_start(&mesh, self.since).await?,
            window: self.window,
            at_least: self.at_least.into(),
        };
        let stop = stop_signal();
        let mut control = mesh.mission_control(options).await?;
        loop {
            let syntheses = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                syntheses = control.next() => syntheses,
            };
            let Some(syntheses) = unless_passing(syntheses).await? else {
                continue;
            };
            for synthesis in syntheses {
                output::print(line(&synthesis, context.json))?;
            }
        }
    }
}

fn line(synthesis: &Synthesis, json: bool) -> String {
    if json {
        return synthesis.json().to_string();
    }
    let told = if synthesis.is_new { "" } else { " (told before)" };
    format!(
        "{}  {}{told}",
        units::show_time(synthesis.group.until),
        super::shown(synthesis.group.text().as_bytes())
    )
}
