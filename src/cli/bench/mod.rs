//! `mesh bench`: how fast is a NATS server, alone or against another one.
//!
//! The generator talks to raw sockets and costs a small part of what a server does with the same
//! messages; a client library would measure itself. With a second server every run of the one is
//! followed by a run of the other, so that what else the machine does falls on both.

mod block;
mod idle;
mod js;
mod load;
mod process;
mod report;
mod request;
mod scenario;
mod scrape;
mod wire;

use std::io;
use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::monitoring::{Monitoring, MonitoringArgs};
use super::{Context, Failure};
use process::Spawned;
use report::Outcome;
use scenario::{Scenario, Side};
use scrape::Scraper;
use wire::Target;

/// How long a run is made to take where its length is free.
const RUN_SECONDS: f64 = 1.5;

/// Measure a NATS server, or two in turn
#[derive(Args, Debug)]
pub struct Bench {
    /// What to run: names, `core` (if nothing is named), `js` or `all`; --list names them
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Messages a run, counted where they are received; default: what the server does in a second and a half
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..).map(i64::unsigned_abs))]
    msgs: Option<u64>,
    /// Payload bytes
    #[arg(long, default_value = "128", value_name = "BYTES")]
    size: usize,
    /// Runs of each scenario; the median counts
    #[arg(long, default_value = "5", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=1000).map(i64::unsigned_abs))]
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
    /// Directory the server stores in, where this program did not start it
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Directory the server compared with stores in
    #[arg(long, value_name = "DIR")]
    compare_store: Option<PathBuf>,
    /// Scrape the metrics page every second during every other run: what do the runs pay for it?
    #[arg(long, conflicts_with_all = ["compare", "compare_spawn"])]
    scrape: bool,
    #[command(flatten)]
    monitoring: MonitoringArgs,
    /// Say what there is to run
    #[arg(long)]
    list: bool,
}

/// A server under test, perhaps our own child.
struct Server {
    side: Side,
    spawned: Option<Spawned>,
}

/// How to come by a server.
struct Source<'a> {
    program: Option<PathBuf>,
    sync: Option<&'a str>,
    url: Option<&'a str>,
    pid: Option<u32>,
    store: Option<&'a PathBuf>,
    /// Whether its metrics are scraped, so that it has to have monitoring.
    scraped: bool,
}

impl Source<'_> {
    fn server(&self) -> Result<Option<Server>, Failure> {
        match (&self.program, self.url) {
            (Some(program), _) => {
                let spawned = Spawned::start(program, self.sync, self.scraped).map_err(Failure::unhealthy)?;
                let side = Side {
                    target: Target::parse(&spawned.url).map_err(Failure::failed)?,
                    pid: Some(spawned.pid()),
                    store: Some(spawned.store()),
                };
                Ok(Some(Server {
                    side,
                    spawned: Some(spawned),
                }))
            }
            (None, Some(url)) => self.reach(url).map(Some).map_err(|error| {
                Failure::unhealthy(format!("cannot reach a server at {url}: {error}"))
                    .hint("start one with `mesh serve`, or let --spawn start one for the measurement")
            }),
            (None, None) => Ok(None),
        }
    }

    fn reach(&self, url: &str) -> io::Result<Server> {
        let target = Target::parse(url)?;
        wire::Conn::open(&target, 0)?;
        let pid = self.pid.or_else(|| process::listening_on(target.address));
        let side = Side {
            target,
            pid,
            store: self.store.cloned(),
        };
        Ok(Server { side, spawned: None })
    }

    /// A server nobody has used yet, if it is ours to start.
    fn refresh(&self, server: &mut Option<Server>) -> Result<(), Failure> {
        if server.as_ref().is_some_and(|server| server.spawned.is_some()) {
            // The old one ends before the new one starts: the two would share the machine.
            *server = None;
            *server = self.server()?;
        }
        Ok(())
    }
}

impl Bench {
    /// Runs what was asked for and prints it.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        if self.list {
            for scenario in catalog() {
                anstream::println!("{:<12} {}", scenario.name, scenario.about);
            }
            return Ok(());
        }
        let chosen = choose(&self.scenarios)?;
        process::raise_file_limit();
        if self.spawn.is_some() || self.compare_spawn.is_some() {
            process::end_spawned_on_signals().map_err(Failure::failed)?;
        }
        if let Some(load) = process::other_load() {
            anstream::eprintln!(
                "note: this machine is busy (load {load:.1}): trust the ratios and the server's processor time, not the rates"
            );
        }
        let sources = [self.ours(context)?, self.theirs()];
        let [mut ours, mut theirs] = [sources[0].server()?, sources[1].server()?];
        let bar = self.progress(&chosen, self.scrape || theirs.is_some());
        let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
        for (index, scenario) in chosen.into_iter().enumerate() {
            bar.set_message(scenario.name);
            if index > 0 && !scenario.repeats() {
                sources[0].refresh(&mut ours)?;
                sources[1].refresh(&mut theirs)?;
            }
            let mut sides: Vec<&Side> = ours.iter().chain(&theirs).map(|server| &server.side).collect();
            let scraped = self.scraped(ours.as_ref(), context)?;
            if scraped.is_some() {
                // The same server again: every other run is left alone.
                sides.extend_from_within(..1);
            }
            let outcome = match self.measure(scenario, &sides, scraped.as_ref(), &bar) {
                Ok(outcome) => outcome,
                Err(error) => {
                    bar.suspend(|| anstream::eprintln!("error: {}: {error}", scenario.name));
                    failed.push(scenario.name);
                    continue;
                }
            };
            if context.json {
                let line = serde_json::to_string(&outcome).map_err(Failure::failed)?;
                anstream::println!("{line}");
            }
            outcomes.push(outcome);
        }
        bar.finish_and_clear();
        if !context.json && !outcomes.is_empty() {
            let sides = if self.scrape {
                ["scraped", "left alone"]
            } else {
                ["ours", "theirs"]
            };
            report::print(&outcomes, sides);
        }
        match failed[..] {
            [] => Ok(()),
            _ => Err(Failure::failed(format!("no figures for {}", failed.join(", ")))),
        }
    }

    fn ours<'a>(&'a self, context: &'a Context) -> Result<Source<'a>, Failure> {
        let this = || std::env::current_exe().map_err(Failure::failed);
        Ok(Source {
            program: self
                .spawn
                .clone()
                .map(|named| named.map_or_else(this, Ok))
                .transpose()?,
            sync: self.sync.as_deref(),
            url: Some(&context.server),
            pid: self.pid,
            store: self.store.as_ref(),
            scraped: self.scrape,
        })
    }

    fn theirs(&self) -> Source<'_> {
        Source {
            program: self.compare_spawn.clone(),
            sync: self.compare_sync.as_deref(),
            url: self.compare.as_deref(),
            pid: self.compare_pid,
            store: self.compare_store.as_ref(),
            scraped: false,
        }
    }

    /// The pages to scrape, if they are to be.
    fn scraped(&self, ours: Option<&Server>, context: &Context) -> Result<Option<Monitoring>, Failure> {
        if !self.scrape {
            return Ok(None);
        }
        let spawned = ours.and_then(|server| server.spawned.as_ref()?.monitor.as_deref());
        let pages = match spawned {
            Some(url) => MonitoringArgs::at(url).open(context)?,
            None => self.monitoring.open(context)?,
        };
        Ok(Some(pages))
    }

    /// Runs of each side in turn; those of the first while `scraped` is scraped.
    fn measure(
        &self,
        scenario: &'static Scenario,
        sides: &[&Side],
        scraped: Option<&Monitoring>,
        bar: &ProgressBar,
    ) -> io::Result<Outcome> {
        let mut counts = Vec::new();
        for side in sides {
            counts.push(self.warm_up(scenario, side)?);
        }
        let runs = if scenario.repeats() { self.runs } else { 1 };
        let mut readings = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (at, side) in sides.iter().enumerate() {
                let scraper = scraped.filter(|_| at == 0).map(Scraper::start).transpose()?;
                let mut found = scenario.run(side, self.size, counts[at])?;
                if let Some(scraper) = scraper {
                    found.extend(scraper.end()?);
                }
                readings[at].push(found);
                bar.inc(1);
            }
        }
        Ok(Outcome {
            scenario: scenario.name,
            size: scenario.size(self.size),
            counts,
            figures: report::figures(&readings[0], &readings[1]),
        })
    }

    /// A short run that does not count, but says how many messages make a run of a good length.
    fn warm_up(&self, scenario: &Scenario, side: &Side) -> io::Result<u64> {
        let count = self.msgs.unwrap_or_else(|| scenario.count(self.size));
        if !scenario.repeats() {
            return Ok(count);
        }
        let readings = scenario.run(side, self.size, (count / 10).max(1))?;
        let rate = readings.iter().find(|reading| reading.name == "rate");
        Ok(match rate {
            Some(rate) if self.msgs.is_none() && scenario.paced() => (rate.value * RUN_SECONDS) as u64,
            _ => count,
        }
        .max(1))
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

fn catalog() -> impl Iterator<Item = &'static Scenario> {
    scenario::CORE.iter().chain(scenario::STREAMS)
}

/// The scenarios named, in that order.
fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    let named = |name: &str| -> Vec<&'static Scenario> {
        match name {
            "core" => scenario::CORE.iter().collect(),
            "js" => scenario::STREAMS.iter().collect(),
            "all" => catalog().collect(),
            name => catalog().filter(|scenario| scenario.name == name).collect(),
        }
    };
    if names.is_empty() {
        return Ok(named("core"));
    }
    let mut chosen = Vec::new();
    for name in names {
        let scenarios = named(name);
        if scenarios.is_empty() {
            let failure = Failure::usage(format!("there is no scenario {name:?}"));
            return Err(failure.hint("`mesh bench --list` names them"));
        }
        chosen.extend(scenarios);
    }
    Ok(chosen)
}
