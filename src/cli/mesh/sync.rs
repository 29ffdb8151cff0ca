//! `mesh sync`: what waits in git goes into the mesh.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::table;
use crate::cli::{Context, Failure, output};
use crate::mesh::spool::{self, Imported, Offline, Outcome, Progress, Repository, Request};
use crate::mesh::{Error, Identity, identity};

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);
/// An import of fewer events has no progress bar.
const EVENTS_SHOWN_MIN: u64 = 200;

/// Imports the events that `mesh emit` kept in git while the mesh was down
#[derive(Args, Debug)]
pub struct Sync {
    /// The git repository (also MESH_GIT, or `git` in the file of events)
    #[arg(long, value_name = "REPO")]
    git: Option<PathBuf>,
    /// Leave the repository's remote alone
    #[arg(long)]
    local: bool,
    /// Pass over, for good, what is damaged, missing or refused among this instance's events
    #[arg(long, value_name = "INSTANCE")]
    give_up: Option<String>,
}

impl Sync {
    /// Imports each instance's events as far as it goes; fails afterwards if something stayed.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(repository) = spool::configured(self.git.as_deref())? else {
            return Err(Failure::usage("no git repository is named")
                .hint("--git REPO names one, or MESH_GIT, or `git` in the file of events"));
        };
        repository.check().await?;
        let mesh = match super::open(context).await {
            Ok(mesh) => mesh,
            Err(failure) => {
                if !self.local {
                    push(context, repository).await?;
                }
                return Err(failure);
            }
        };
        let request = Request {
            only: None,
            give_up: self.give_up,
            local: self.local,
        };
        let progress = Arc::new(Progress::default());
        let bar = tokio::spawn(show(Arc::clone(&progress)));
        let outcome = mesh.sync(&repository, &request, &progress).await;
        bar.abort();
        report(context, &outcome?, request.give_up.as_deref())
    }
}

/// The mesh is down: what can be done is to get this instance's events nearer to the others.
async fn push(context: &Context, repository: Repository) -> Result<(), Error> {
    let offline = Offline {
        identity: Identity::from_env()?,
        state_dir: identity::state_dir(),
        timeout: context.timeout,
        repository,
    };
    if let Some(wrong) = offline.push().await? {
        output::note(wrong);
    }
    Ok(())
}

fn report(context: &Context, outcome: &Outcome, give_up: Option<&str>) -> Result<(), Failure> {
    if context.json {
        for spool in &outcome.instances {
            output::print_json_line(spool)?;
        }
    } else if outcome.instances.is_empty() {
        output::print("nothing waits")?;
    } else {
        let mut rows = table(&["INSTANCE", "IMPORTED", "THERE ALREADY", "GIVEN UP", "LEFT"]);
        for spool in &outcome.instances {
            let counts = [spool.imported, spool.there, spool.given_up, spool.left];
            let counts = counts.map(|count| count.to_string());
            rows.add_row(std::iter::once(spool.instance.clone()).chain(counts));
        }
        output::print(rows)?;
    }
    let mut stays = 0;
    for spool in &outcome.instances {
        for wrong in &spool.wrong {
            output::talk(format!("{}: {wrong}", spool.instance));
        }
        // What is given up was known to be wrong.
        if give_up != Some(spool.instance.as_str()) {
            stays += spool.wrong.len() as u64;
        }
    }
    for wrong in &outcome.wrong {
        output::talk(wrong);
    }
    let stuck: Vec<&Imported> = outcome.instances.iter().filter(|spool| spool.left > 0).collect();
    match (&stuck[..], stays + outcome.wrong.len() as u64) {
        ([], 0) => Ok(()),
        ([], _) => Err(Failure::failed("not all was well, see above")),
        ([first, ..], _) => {
            let Imported { instance, left, .. } = first;
            let hint =
                format!("`mesh sync --give-up {instance}` passes over what can never be imported, for good");
            Err(Failure::failed(format!("{left} events of {instance} stay where they are")).hint(hint))
        }
    }
}

/// Draws on stderr, and only if that is a terminal and there is something to see.
async fn show(progress: Arc<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    while count(&progress.total) < EVENTS_SHOWN_MIN {
        tokio::time::sleep(TICK).await;
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(count(&progress.total));
    bar.set_style(style.expect("the template is a constant"));
    loop {
        bar.set_position(count(&progress.done));
        tokio::time::sleep(TICK).await;
    }
}
