//! `mesh phoenix`: save a session's state, bring it back, do so by itself, see what there is.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{Since, ago, shown, since, stop_signal, table};
use crate::cli::{Context, Failure, output, units};
use crate::mesh::phoenix::{Record, Records, Revival, Target};
use crate::mesh::restore::{Restore, SUBJECTS};
use crate::mesh::{Backoff, Error, Filter, Mesh, Received, Selection, Start, Wanted};

/// How many beacons are listed.
const BEACONS_SHOWN: usize = 20;

/// Saves states of sessions and brings them back
#[derive(Args, Debug)]
pub struct Phoenix {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Save a session's state, from a file or stdin
    Save(Save),
    /// Bring a session's state back, on whatever instance this is; one alone can
    Resurrect(Resurrect),
    /// Run a command with the state of each session that lapses or sends a beacon
    Watch(Watch),
    /// List the saved states, or one session's saves, and the latest beacons
    Ls {
        /// The session
        session: Option<String>,
    },
}

#[derive(Args, Debug)]
struct Save {
    /// The session (default: $MESH_SESSION)
    #[arg(long)]
    session: Option<String>,
    /// The file that holds the state, or - for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

#[derive(Args, Debug)]
struct Resurrect {
    /// The session
    #[arg(required_unless_present_any = ["latest", "instance"], conflicts_with_all = ["latest", "instance"])]
    session: Option<String>,
    /// The session that was saved last
    #[arg(long)]
    latest: bool,
    /// The session that was saved last on this instance
    #[arg(long)]
    instance: Option<String>,
    /// The name it goes on under (default: its own, marked with the number of its life)
    #[arg(long = "as", value_name = "SESSION")]
    new_session: Option<String>,
    /// Where to write the state (default: stdout)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Revive it even if another instance has
    #[arg(long)]
    take_over: bool,
}

#[derive(Args, Debug)]
struct Watch {
    /// The command: state on stdin; MESH_SESSION is the session it goes on as, MESH_PARENT_SESSION the one it was
    #[arg(long, value_name = "COMMAND")]
    exec: String,
    /// The durable reader's name; watchers that share it share the work
    #[arg(long, value_name = "NAME", default_value = "phoenix")]
    durable: String,
    /// Where to begin the first time: a duration, a time, or `all`
    #[arg(long, value_parser = since)]
    since: Option<Since>,
    /// How often a failing command is run
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    tries: u64,
    /// Pause before a failed command is run again; doubles each time, up to a minute
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    backoff: Duration,
    /// How long a lapsed peer may take to come back by itself
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    grace: Duration,
}

impl Phoenix {
    /// Runs one of the subcommands.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        match self.what {
            What::Save(save) => save.run(context, &mesh).await,
            What::Resurrect(resurrect) => resurrect.run(context, &mesh).await,
            What::Watch(watch) => watch.run(&mesh).await,
            What::Ls { session } => list(context, &mesh, session).await,
        }
    }
}

impl Save {
    async fn run(self, context: &Context, mesh: &Mesh) -> Result<(), Failure> {
        let session = self.session.or_else(|| mesh.identity.session.clone());
        let session =
            session.ok_or_else(|| Failure::usage("which session? Use --session or MESH_SESSION"))?;
        let record = if self.file.as_os_str() == "-" {
            mesh.save(&session, &mut tokio::io::stdin()).await?
        } else {
            let open = tokio::fs::File::open(&self.file).await;
            let name = self.file.display();
            let mut file = open.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
            mesh.save(&session, &mut file).await?
        };
        let line = if context.json {
            json!(record).to_string()
        } else {
            format!("saved {} of {}", units::show_bytes(record.bytes), record.session)
        };
        output::print(line)
    }
}

impl Resurrect {
    async fn run(self, context: &Context, mesh: &Mesh) -> Result<(), Failure> {
        let revival = Revival {
            target: self
                .session
                .map_or(Target::Latest(self.instance), Target::Session),
            new_session: self.new_session,
            take_over: self.take_over,
            attempt: nuid::next().to_string(),
        };
        // What cannot be written must not be claimed.
        let file = self.output.as_deref().map(StateFile::open).transpose()?;
        let back = match mesh.resurrect(&revival).await {
            Ok(back) => back,
            Err(error) => {
                if let Some(file) = file {
                    file.leave();
                }
                return Err(error.into());
            }
        };
        match file {
            Some(file) => file.write(&back.state),
            None => output::write(&back.state),
        }
        .map_err(|failure| {
            let session = &back.record.session;
            failure.hint(format!(
                "it is revived all the same: `mesh phoenix resurrect {session}` brings the state back again"
            ))
        })?;
        if let Some(why) = &back.untold {
            anstream::eprintln!("the mesh is not told of it: {why}");
        }
        let summary = if context.json {
            json!({"session": back.session, "record": back.record}).to_string()
        } else {
            format!(
                "{} goes on as {} ({})",
                back.session,
                back.record.session,
                units::show_bytes(back.record.bytes)
            )
        };
        if self.output.is_some() {
            output::print(summary)?;
        } else {
            anstream::eprintln!("{summary}");
        }
        Ok(())
    }
}

/// The file a state goes to. What is in it stays until there is a state to write.
struct StateFile {
    path: PathBuf,
    file: File,
    /// It was not there before.
    made: bool,
}

impl StateFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        let made = !path.exists();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        Ok(Self {
            file: file.map_err(|error| cannot_write(path, &error))?,
            path: path.to_owned(),
            made,
        })
    }

    fn write(mut self, state: &[u8]) -> Result<(), Failure> {
        let cut = match self.file.metadata() {
            Ok(about) if about.is_file() => self.file.set_len(0),
            // A pipe or a device has no length.
            _ => Ok(()),
        };
        cut.and_then(|()| self.file.write_all(state))
            .map_err(|error| cannot_write(&self.path, &error))
    }

    /// Nothing came of it.
    fn leave(self) {
        if self.made {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

impl Watch {
    async fn run(self, mesh: &Mesh) -> Result<(), Failure> {
        let start = match self.since {
            Some(since) => {
                mesh.ensure().await?;
                since.start(mesh).await?
            }
            None => Start::Now,
        };
        let wanted = Wanted {
            name: self.durable,
            patterns: SUBJECTS.map(str::to_owned).to_vec(),
            start,
            filter: Filter::default(),
        };
        let mut durable = mesh.durable(wanted).await?;
        let restore = Restore {
            command: self.exec,
            backoff: Backoff {
                tries_max: self.tries,
                first: self.backoff,
                ..Backoff::default()
            },
            grace: self.grace,
        };
        let stop = stop_signal();
        // Somebody must notice the lapses when no peer is left to do so.
        let reporter = mesh.clone();
        let lapses = tokio::spawn(async move {
            loop {
                if let Err(error) = reporter.report_lapses().await {
                    anstream::eprintln!("cannot watch for lapses: {error}");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                delivery = durable.next() => delivery,
            };
            if let Some(said) = restore.handle(mesh, &mut durable, &delivery).await {
                anstream::eprintln!("{} {}: {said}", delivery.event.stream_seq, delivery.event.name());
            }
        }
        lapses.abort();
        Ok(())
    }
}

async fn list(context: &Context, mesh: &Mesh, session: Option<String>) -> Result<(), Failure> {
    let Records { found, mut damaged } = match &session {
        Some(session) => {
            let history = mesh.record_history(session).await?;
            if history.found.is_empty() && history.damaged.is_empty() {
                return Err(Error::NotFound(format!("no state is saved for session `{session}`")).into());
            }
            history
        }
        None => mesh.records().await?,
    };
    let mut beacons = beacons(mesh).await?;
    if let Some(session) = &session {
        beacons.retain(|beacon| about(beacon).as_deref() == Some(session));
    }
    let beacons = &beacons[beacons.len().saturating_sub(BEACONS_SHOWN)..];
    if context.json {
        for (stored, record) in &found {
            output::print(json!({"stored": stored.to_string(), "record": record}).to_string())?;
        }
        for beacon in beacons {
            output::print(format!(r#"{{"beacon":{}}}"#, beacon.json()))?;
        }
    } else {
        tables(&found, beacons)?;
    }
    // What can be read was shown.
    damaged.pop().map_or(Ok(()), |error| Err(error.into()))
}

fn tables(found: &[(Timestamp, Record)], beacons: &[Received]) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut states = table(&["SESSION", "LIFE", "INSTANCE", "SIZE", "SAVED", "STATE"]);
    for (stored, record) in found {
        let (session, life, instance) = (&record.session, record.generation.to_string(), &record.instance);
        states.add_row([
            session,
            &life,
            instance,
            &units::show_bytes(record.bytes),
            &ago(*stored, now),
            &state(record),
        ]);
    }
    output::print(states.to_string())?;
    if !beacons.is_empty() {
        let mut table = table(&["BEACON", "FROM", "SESSION", "SAYS"]);
        for beacon in beacons {
            let from = beacon.envelope.instance.as_deref().unwrap_or("-");
            let session = about(beacon).unwrap_or_else(|| "-".to_owned());
            table.add_row([
                &units::show_time(beacon.stored),
                from,
                &session,
                &shown(&beacon.body),
            ]);
        }
        output::print(format!("\n{table}"))?;
    }
    Ok(())
}

fn state(record: &Record) -> String {
    match (&record.revived, &record.restored) {
        (Some(revived), _) => format!("revived by {} as {}", revived.by, revived.session),
        (None, Some(how)) => format!("restored: {how}"),
        (None, None) => "saved".to_owned(),
    }
}

async fn beacons(mesh: &Mesh) -> Result<Vec<Received>, Failure> {
    let selection = Selection::of(vec![SUBJECTS[0].to_owned()], Start::After(0));
    let mut reader = mesh.read(selection).await?;
    let mut beacons = Vec::new();
    while let Some(beacon) = reader.next().await? {
        beacons.push(beacon);
    }
    Ok(beacons)
}

/// The session that a beacon is about.
fn about(beacon: &Received) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(&beacon.body).ok()?;
    Some(body.get("session")?.as_str()?.to_owned())
}
