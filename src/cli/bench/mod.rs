//! `mesh bench`: how fast is a NATS server, alone or against another one.
//!
//! The generator talks to raw sockets and costs a small part of what a server does with the same
//! messages; a client library would measure itself. With a second server every run of the one is
//! followed by a run of the other, so that what else the machine does falls on both.

mod idle;
mod load;
mod process;
mod report;
mod request;
mod scenario;
mod wire;

use std::io;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Context, Failure};
use process::Spawned;
use report::Outcome;
use scenario::{Scenario, Side};
use wire::Target;

/// Measure a NATS server, or two in turn
#[derive(Args, Debug)]
pub struct Bench {
    /// What to run; none: everything of the core (see --list)
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Messages a run, counted where they are received
    #[arg(long, value_name = "N")]
    msgs: Option<u64>,
    /// Payload bytes
    #[arg(long, default_value = "128", value_name = "BYTES")]
    size: usize,
    /// Runs of each scenario; the median counts
    #[arg(long, default_value = "5", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: u64,
    /// A second server, run in turn with the first
    #[arg(long, value_name = "URL", conflicts_with = "compare_spawn")]
    compare: Option<String>,
    /// Start this server program (a nats-server or a mesh) to compare with
    #[arg(long, value_name = "PATH")]
    compare_spawn: Option<PathBuf>,
    /// Start a server to measure: this program, or the one named
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    spawn: Option<Option<PathBuf>>,
    /// When a started server syncs its store: always or a duration (the server's default)
    #[arg(long, value_name = "WHEN", requires = "spawn")]
    sync: Option<String>,
    /// The same for the server started to compare with
    #[arg(long, value_name = "WHEN", requires = "compare_spawn")]
    compare_sync: Option<String>,
    /// Process of the server, where its port does not tell
    #[arg(long)]
    pid: Option<u32>,
    /// Process of the server compared with
    #[arg(long)]
    compare_pid: Option<u32>,
    /// Say what there is to run
    #[arg(long)]
    list: bool,
}

/// A server under test, perhaps our own child.
struct Server {
    side: Side,
    _spawned: Option<Spawned>,
}

impl Server {
    fn at(url: &str, pid: Option<u32>) -> io::Result<Self> {
        let target = Target::parse(url)?;
        wire::Conn::open(&target, 0)?;
        let pid = pid.or_else(|| process::listening_on(target.address));
        Ok(Self {
            side: Side { target, pid },
            _spawned: None,
        })
    }

    fn spawned(program: &std::path::Path, sync: Option<&str>) -> io::Result<Self> {
        let spawned = Spawned::start(program, sync)?;
        let side = Side {
            target: Target::parse(&spawned.url)?,
            pid: Some(spawned.pid()),
        };
        Ok(Self {
            side,
            _spawned: Some(spawned),
        })
    }
}

impl Bench {
    /// Runs what was asked for and prints it.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        if self.list {
            for scenario in scenario::CORE {
                anstream::println!("{:<12} {}", scenario.name, scenario.about);
            }
            return Ok(());
        }
        let chosen = choose(&self.scenarios)?;
        process::raise_file_limit();
        let ours = self.ours(context)?;
        let theirs = self.theirs()?;
        let bar = self.progress(&chosen, theirs.is_some());
        let mut outcomes = Vec::new();
        for scenario in chosen {
            bar.set_message(scenario.name);
            let outcome = self
                .measure(
                    scenario,
                    &ours.side,
                    theirs.as_ref().map(|server| &server.side),
                    &bar,
                )
                .map_err(|error| Failure::failed(format!("{}: {error}", scenario.name)))?;
            if context.json {
                let line = serde_json::to_string(&outcome).map_err(Failure::failed)?;
                anstream::println!("{line}");
            }
            outcomes.push(outcome);
        }
        bar.finish_and_clear();
        if !context.json {
            report::print(&outcomes);
        }
        Ok(())
    }

    fn ours(&self, context: &Context) -> Result<Server, Failure> {
        match &self.spawn {
            Some(program) => {
                let program = program
                    .clone()
                    .map_or_else(std::env::current_exe, Ok)
                    .map_err(Failure::failed)?;
                Server::spawned(&program, self.sync.as_deref()).map_err(Failure::unhealthy)
            }
            None => reach(&context.server, self.pid),
        }
    }

    fn theirs(&self) -> Result<Option<Server>, Failure> {
        match (&self.compare_spawn, &self.compare) {
            (Some(program), _) => {
                let server = Server::spawned(program, self.compare_sync.as_deref());
                server.map(Some).map_err(Failure::unhealthy)
            }
            (None, Some(url)) => reach(url, self.compare_pid).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn measure(
        &self,
        scenario: &'static Scenario,
        ours: &Side,
        theirs: Option<&Side>,
        bar: &ProgressBar,
    ) -> io::Result<Outcome> {
        let count = self.msgs.unwrap_or_else(|| scenario.count(self.size));
        let sides = || std::iter::once(ours).chain(theirs);
        if scenario.repeats() {
            for side in sides() {
                scenario.run(side, self.size, count / 10)?;
            }
        }
        let runs = if scenario.repeats() { self.runs } else { 1 };
        let mut readings = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (side, readings) in sides().zip(&mut readings) {
                readings.push(scenario.run(side, self.size, count)?);
                bar.inc(1);
            }
        }
        Ok(Outcome {
            scenario: scenario.name,
            size: scenario.size(self.size),
            count,
            figures: report::figures(&readings[0], &readings[1]),
        })
    }

    fn progress(&self, chosen: &[&Scenario], compared: bool) -> ProgressBar {
        let runs: u64 = chosen
            .iter()
            .map(|scenario| if scenario.repeats() { self.runs } else { 1 })
            .sum();
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left  {msg}");
        let bar = ProgressBar::new(runs * if compared { 2 } else { 1 });
        style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
    }
}

fn reach(url: &str, pid: Option<u32>) -> Result<Server, Failure> {
    Server::at(url, pid).map_err(|error| {
        Failure::unhealthy(format!("cannot reach a server at {url}: {error}"))
            .hint("start one with `mesh serve`, or let --spawn start one for the measurement")
    })
}

/// The scenarios named, in the order of the catalog.
fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| scenario::CORE.iter().all(|known| known.name != **name))
    {
        return Err(Failure::usage(format!("there is no scenario {unknown:?}"))
            .hint("`mesh bench --list` names them"));
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(scenario::CORE.iter().filter(wanted).collect())
}
