//! `mesh conflicts`: instances that act against each other, told of as they come or looked for in what is stored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Since, since, stop_signal};
use crate::cli::serve::unusable;
use crate::cli::{Context, Failure, output, units};
use crate::config::language;
use crate::mesh::conflicts::{Conflict, Labels, Rules, Score};
use crate::mesh::{Catalog, Error, Mesh, Start, identity};

/// Pause before what failed for want of a server is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Finds instances that act against each other and tells the mesh of each conflict, once
///
/// Rules stand in the file of your own events under "conflicts"; some are built in. docs/conflicts.md tells more.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Conflicts {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    follow: Follow,
}

#[derive(Subcommand, Debug)]
enum What {
    Replay(Replay),
    /// Print the rules that hold
    Rules {
        /// The file with the rules (default: that of your own events)
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Follow {
    /// The file with the rules (default: that of your own events)
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The durable reader's name; who shares it shares the work
    #[arg(long, value_name = "NAME", default_value = "conflicts")]
    durable: String,
    /// Where to begin the first time: a duration, a time, or `all`
    #[arg(long, value_parser = since)]
    since: Option<Since>,
}

/// Runs rules over what is stored and prints what would have been told; tells nobody
#[derive(Args, Debug)]
struct Replay {
    /// The file with the rules (default: that of your own events)
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Where to begin: a duration, a time, or `all`
    #[arg(long, default_value = "24h", value_parser = since)]
    since: Since,
    /// What were conflicts, one a line: {"events": [12, 15]}; gives precision and recall
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

impl Conflicts {
    /// Runs until it is told to stop, or to the end of what is stored.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.what {
            Some(What::Replay(replay)) => replay.run(context).await,
            Some(What::Rules { rules }) => list(context, &in_force(rules.as_deref())?),
            None => self.follow.run(context).await,
        }
    }
}

/// The rules of a file, else those of the file of events, else ours alone.
fn in_force(file: Option<&Path>) -> Result<Rules, Failure> {
    let events = identity::events_file();
    match file {
        None if !events.exists() => Ok(Rules::builtin()),
        file => rules_of(file.unwrap_or(&events), Failure::USAGE),
    }
}

/// Whether a file says what the mesh's own commands want to know, and not how to serve.
pub fn is_of_the_mesh(file: &Path) -> bool {
    has(file, "events") || has(file, "conflicts")
}

fn has(file: &Path, key: &str) -> bool {
    let loaded = language::load_file(file, &|name| std::env::var(name).ok());
    loaded.is_ok_and(|loaded| loaded.map.get(key).is_some())
}

/// The rules of a file, or the exit code and all that is wrong with it. If it has events of its own they are those that its
/// rules know.
pub fn rules_of(path: &Path, code: u8) -> Result<Rules, Failure> {
    let events = identity::events_file();
    let catalog = Catalog::load(if has(path, "events") { path } else { &events });
    let catalog = catalog.map_err(|error| Failure::with_code(code, error))?;
    Rules::load(path, &catalog).map_err(|problems| unusable(code, path, &problems))
}

fn list(context: &Context, rules: &Rules) -> Result<(), Failure> {
    if context.json {
        return rules.lines().iter().try_for_each(output::print);
    }
    output::print(shown(rules))
}

/// The rules as a table.
pub fn shown(rules: &Rules) -> String {
    let mut table = super::table(&["RULE", "SUBJECTS", "KEY", "BASE", "OUTCOME", "WINDOW", "BETWEEN"]);
    for rule in rules.rules() {
        let paths = |paths: &[crate::mesh::conflicts::Path]| {
            let texts: Vec<&str> = paths.iter().map(|path| path.text()).collect();
            texts.join(", ")
        };
        table.add_row([
            rule.name.clone(),
            rule.subjects.join(", "),
            paths(&rule.key),
            rule.base.as_ref().map_or("-", |base| base.text()).to_owned(),
            paths(&rule.outcome),
            units::show_duration(rule.window),
            rule.between.name().to_owned(),
        ]);
    }
    table.to_string()
}

impl Follow {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let rules = in_force(self.rules.as_deref())?;
        let mesh = super::open(context).await?;
        let start = first_start(&mesh, self.since).await?;
        let stop = stop_signal();
        let mut detecting = mesh.detect(rules, self.durable, start).await?;
        loop {
            let alerts = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                alerts = detecting.next() => alerts,
            };
            let Some(alerts) = unless_passing(alerts).await? else {
                continue;
            };
            for alert in alerts {
                let line = match context.json {
                    true => alert.json().to_string(),
                    false if alert.is_new => line(&alert.conflict),
                    false => format!(
                        "{} (told before, see event {})",
                        line(&alert.conflict),
                        alert.stream_seq
                    ),
                };
                output::print(line)?;
            }
        }
    }
}

/// What came of it, or nothing if the server is away: that is said, and may be tried again.
pub(super) async fn unless_passing<T>(done: Result<T, Error>) -> Result<Option<T>, Failure> {
    match done {
        Err(error) if error.is_passing() => {
            output::note(format!("{error}; trying again"));
            tokio::time::sleep(PAUSE).await;
            Ok(None)
        }
        done => Ok(Some(done?)),
    }
}

/// Where a durable reader begins the first time.
pub(super) async fn first_start(mesh: &Mesh, since: Option<Since>) -> Result<Start, Failure> {
    mesh.ensure().await?;
    Ok(match since {
        Some(since) => since.start(mesh).await?,
        None => Start::Now,
    })
}

/// A conflict for people.
fn line(conflict: &Conflict) -> String {
    format!(
        "{}  {}  {}  {}  (events {} and {})",
        units::show_time(conflict.second.stored),
        conflict.rule,
        conflict.key,
        conflict.reason(),
        conflict.first.stream_seq,
        conflict.second.stream_seq
    )
}

impl Replay {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let rules = in_force(self.rules.as_deref())?;
        let mut labels = self.labels.as_deref().map(Labels::load).transpose()?;
        let mesh = super::open(context).await?;
        let start = self.since.start(&mesh).await?;
        let stop = stop_signal();
        let mut replay = mesh.replay(&rules, start).await?;
        let (mut fired, mut right) = (0, 0);
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = replay.next() => next?,
            };
            let Some(conflict) = next else { break };
            let verdict = labels.as_mut().map(|labels| labels.is_right(&conflict));
            fired += 1;
            right += u64::from(verdict == Some(true));
            output::print(judged(context, &conflict, verdict))?;
        }
        let events = replay.events();
        match labels {
            Some(labels) => scored(context, events, &labels.score(fired, right, replay.span())),
            None if context.json => {
                output::print(json!({"summary": {"events": events, "fired": fired}}).to_string())
            }
            None => output::print(format!("{fired} conflicts in {events} events")),
        }
    }
}

/// A conflict with what the labels say of it.
fn judged(context: &Context, conflict: &Conflict, right: Option<bool>) -> String {
    if context.json {
        let mut line = conflict.json();
        if let Some(right) = right {
            line["right"] = right.into();
        }
        return line.to_string();
    }
    match right {
        Some(false) => format!("FALSE ALARM  {}", line(conflict)),
        Some(true) => format!("right        {}", line(conflict)),
        None => line(conflict),
    }
}

fn scored(context: &Context, events: u64, score: &Score) -> Result<(), Failure> {
    if context.json {
        for label in &score.missed {
            output::print(json!({"missed": label}).to_string())?;
        }
        let mut summary = score.json();
        summary["events"] = events.into();
        return output::print(json!({"summary": summary}).to_string());
    }
    for label in &score.missed {
        let places: Vec<String> = label.events.iter().map(u64::to_string).collect();
        let key = label
            .key
            .as_ref()
            .map(|key| format!("{key}  "))
            .unwrap_or_default();
        output::print(format!(
            "MISSED       {key}events {} (line {} of the labels)",
            places.join(" and "),
            label.line
        ))?;
    }
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"));
    output::print(format!(
        "{} conflicts in {events} events: precision {} ({} of {} right), recall {} ({} of {} found)",
        score.fired,
        share(score.precision),
        score.right,
        score.fired,
        share(score.recall),
        score.found,
        score.labels
    ))?;
    if score.beyond > 0 {
        output::talk(format!(
            "{} labels are of events that were not looked at, and do not count",
            score.beyond
        ));
    }
    Ok(())
}
