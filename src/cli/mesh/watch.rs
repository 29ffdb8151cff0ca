//! `mesh watch`: events as they come, or from where a durable reader stopped.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Since, both, line, since, stop_signal};
use crate::cli::{Context, Failure, output, units};
use crate::mesh::spool;
use crate::mesh::{
    Backoff, Catalog, Durable, Error, Filter, Mesh, Selection, Start, Wanted, catalog, identity,
};
use crate::protocol::subject;

/// Prints events as they come, or hands each to a command
#[derive(Args, Debug)]
pub struct Watch {
    /// Subjects (mesh.fo.*) or events (fo_insight); everything if none is given
    #[arg(value_name = "SUBJECT or EVENT")]
    what: Vec<String>,
    /// Begin in the past: a duration (1h), a time, or `all`
    #[arg(long, value_parser = since)]
    since: Option<Since>,
    /// Remember under this name how far was read, and go on there next time
    #[arg(long, value_name = "NAME")]
    durable: Option<String>,
    /// Run this command for each event: body on stdin, envelope in MESH_EVENT_*; needs --durable
    #[arg(long, value_name = "COMMAND", requires = "durable")]
    exec: Option<String>,
    /// How often a failing command is run before the event becomes a dead letter
    #[arg(long, value_name = "N", default_value = "5", requires = "exec", value_parser = clap::value_parser!(u64).range(1..))]
    tries: u64,
    /// Pause before a failed command is run again; doubles each time, up to a minute
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "exec", value_parser = units::duration)]
    backoff: Duration,
    /// Only events of this instance
    #[arg(long)]
    instance: Option<String>,
    /// Only events of this session
    #[arg(long)]
    session: Option<String>,
    /// End after this many events
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also read from this git repository what waits there while the mesh is down (also MESH_GIT, or `git` in the file of events)
    #[arg(long, value_name = "REPO", conflicts_with = "durable")]
    git: Option<PathBuf>,
}

impl Watch {
    /// Runs until it is told to stop.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let catalog = Catalog::load(&identity::events_file())?;
        let patterns = patterns(&catalog, &self.what)?;
        let git = spool::configured(self.git.as_deref())?;
        // A durable reader's place is in the mesh.
        if let Some(repository) = git.filter(|_| self.durable.is_none()) {
            let wanted = both::Wanted {
                patterns,
                since: self.since,
                filter: Filter {
                    instance: self.instance,
                    session: self.session,
                },
                count: self.count,
            };
            return both::watch(context, repository, &wanted).await;
        }
        let mesh = super::open(context).await?;
        let start = match self.since {
            Some(since) => {
                mesh.ensure().await?;
                since.start(&mesh).await?
            }
            None => Start::Now,
        };
        let filter = Filter {
            instance: self.instance.clone(),
            session: self.session.clone(),
        };
        match &self.durable {
            Some(name) => {
                let wanted = Wanted {
                    name: name.clone(),
                    patterns,
                    start,
                    filter,
                };
                let durable = mesh.durable(wanted).await?;
                self.durably(context, durable).await
            }
            None => self.live(context, &mesh, patterns, start, &filter).await,
        }
    }

    async fn live(
        &self,
        context: &Context,
        mesh: &Mesh,
        patterns: Vec<String>,
        start: Start,
        filter: &Filter,
    ) -> Result<(), Failure> {
        let stop = stop_signal();
        let mut events = mesh
            .read(Selection {
                follow: true,
                ..Selection::of(patterns, start)
            })
            .await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = events.next() => event?,
            };
            let Some(event) = event else { break };
            if filter.passes(&event) {
                output::print(line(&event, context.json))?;
                left -= 1;
            }
        }
        Ok(())
    }

    async fn durably(&self, context: &Context, mut durable: Durable) -> Result<(), Failure> {
        let stop = stop_signal();
        let backoff = Backoff {
            tries_max: self.tries,
            first: self.backoff,
            ..Backoff::default()
        };
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                delivery = durable.next() => delivery,
            };
            if let Some(command) = &self.exec {
                let event = &delivery.event;
                match durable.run(&delivery, command, &backoff).await {
                    Ok(outcome) => anstream::eprintln!("{} {}: {outcome}", event.stream_seq, event.name()),
                    // Nothing was settled: the event comes again.
                    Err(error) => anstream::eprintln!("{} {}: {error}", event.stream_seq, event.name()),
                }
            } else {
                output::print(line(&delivery.event, context.json))?;
                durable.ack(&delivery).await;
            }
            left -= 1;
        }
        Ok(())
    }
}

/// Turns what was typed into patterns; names of events are looked up.
pub(super) fn patterns(catalog: &Catalog, what: &[String]) -> Result<Vec<String>, Failure> {
    if what.is_empty() {
        return Ok(vec![catalog::ALL.to_owned()]);
    }
    what.iter()
        .map(|typed| {
            if !typed.contains(['.', '*', '>']) {
                return Ok(catalog.get(typed)?.subject.clone());
            }
            let pattern = typed.as_bytes();
            if !subject::is_pattern(pattern) || !subject::is_subset(pattern, catalog::ALL.as_bytes()) {
                let problem = "must be a pattern under mesh.";
                return Err(Error::BadName {
                    what: "subject",
                    value: typed.clone(),
                    problem,
                }
                .into());
            }
            Ok(typed.clone())
        })
        .collect()
}
