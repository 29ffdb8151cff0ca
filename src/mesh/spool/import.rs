//! Importing spools into the stream; [`super`] says why this is exactly once and in order.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::cursor::{self, Cursor};
use super::entry::Head;
use super::git::Repository;
use super::read::{Blobs, Tip, short};
use super::survey::{Sent, Stop, Survey};
use crate::mesh::journal::Held;
use crate::mesh::{Error, Mesh, setup};

/// How many events are on their way at once.
const RUN_MAX: usize = 256;
/// How many bytes of bodies are on their way at once.
const RUN_BYTES_MAX: usize = 4 << 20;
/// How many events go one by one after the stream's end did not hold still.
const ALONE: u32 = 16;
/// Pause before what was not heard of is looked for.
const PAUSE: Duration = Duration::from_millis(100);
/// How many times the usual patience we wait for the others to leave a gap.
const PATIENCE: u32 = 12;
/// How often an emitter imports what others add to its spool meanwhile, before it does so, too.
const DRAINS_MAX: u32 = 3;
/// Turns without getting on before time decides.
const TURNS_MIN: u32 = 3;
/// How long a remote may take.
const REMOTE: Duration = Duration::from_secs(600);

/// What is to be imported.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Of this instance only.
    pub only: Option<String>,
    /// What cannot be imported of this instance is passed over, for good.
    pub give_up: Option<String>,
    /// Whether the repository's remote is left alone.
    pub local: bool,
}

/// How far an import has got; for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events that were found in spools and are not known to be in the stream.
    pub total: AtomicU64,
    /// Those of them that are now.
    pub done: AtomicU64,
}

/// What became of an instance's spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The instance.
    pub instance: String,
    /// Events stored now.
    pub imported: u64,
    /// Events that the stream had already.
    pub there: u64,
    /// Events passed over for good.
    pub given_up: u64,
    /// Events that stay for another time.
    pub left: u64,
    /// What was in the way.
    pub wrong: Vec<String>,
}

/// What an import came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By instance.
    pub instances: Vec<Imported>,
    /// What went wrong beside them: refs that are no spools, remotes.
    pub wrong: Vec<String>,
    /// Refs whose events are all in the stream.
    finished: Vec<Tip>,
}

/// The events of one journal that are not known to be in the stream, oldest first, each with its commit.
struct Line {
    key: String,
    cursor: Cursor,
    todo: Vec<(String, Head)>,
}

/// Everything that spools hold of an instance.
#[derive(Default)]
struct Spool {
    tips: Vec<Tip>,
    lines: Vec<Line>,
    wrong: Vec<String>,
    /// Events of which it cannot be told whether they are imported.
    stuck: u64,
}

/// Refs that may be taken away once the journal is free again.
pub(in crate::mesh) struct Drained(Vec<(Repository, Vec<Tip>)>);

impl Mesh {
    /// Imports all spools of a repository and of its remote, and takes away those that are in the stream whole.
    pub async fn sync(
        &self,
        repository: &Repository,
        request: &Request,
        progress: &Progress,
    ) -> Result<Outcome, Error> {
        repository.check().await?;
        let remote = match request.local {
            true => None,
            false => repository.remote().await?,
        };
        let fetched = match &remote {
            Some(remote) => repository.fetch(remote, REMOTE).await?,
            None => None,
        };
        let mut outcome = self.import(repository, request, progress).await?;
        outcome.wrong.extend(fetched);
        let retired = repository
            .retire(&outcome.finished, remote.as_ref(), REMOTE)
            .await?;
        outcome.wrong.extend(retired);
        if let Some(remote) = &remote {
            // What has to stay is worth a second try.
            let instance = &self.identity.instance;
            outcome
                .wrong
                .extend(repository.push(remote, instance, REMOTE).await?);
        }
        if request.give_up.as_ref() == Some(&self.identity.instance) {
            let mut held = self.journal.hold(self.timeout * 2).await?;
            if held.base().spool.is_some() {
                let (seq, place) = self.imported_to(&held).await?;
                if held.pending().is_some_and(|pending| pending.seq <= seq) {
                    held.confirm(place)?;
                }
                held.imported(place)?;
            }
        }
        Ok(outcome)
    }

    /// Brings what this instance has spooled into the stream, because something is to be sent after it.
    ///
    /// The journal is free meanwhile: other emitters of the instance may add to the spool.
    pub(in crate::mesh) async fn drain(&self, mut held: Held) -> Result<(Held, Option<Drained>), Error> {
        let mut wrong = Vec::new();
        for _ in 0..DRAINS_MAX {
            let repositories = held.base().spool.clone().unwrap_or_default().repositories;
            drop(held);
            let drained = match self.journal.lock_for("import", self.timeout * 2).await? {
                Some(_lock) => {
                    wrong.clear();
                    self.import_own(&repositories, &mut wrong).await?
                }
                None => {
                    wrong = vec!["another process is importing them".to_owned()];
                    Drained(Vec::new())
                }
            };
            held = self.journal.hold(self.timeout * 2).await?;
            let Some(spooled) = held.base().spool.as_ref().map(|spool| spool.seq) else {
                return Ok((held, Some(drained)));
            };
            let (seq, place) = self.imported_to(&held).await?;
            if held.pending().is_some_and(|pending| pending.seq <= seq) {
                held.confirm(place)?;
            }
            if spooled <= seq {
                held.imported(place)?;
                return Ok((held, Some(drained)));
            }
            if !wrong.is_empty() {
                break;
            }
        }
        let spool = held.base().spool.clone().unwrap_or_default();
        let shown = |path: &PathBuf| path.display().to_string();
        Err(Error::Waiting {
            seq: spool.seq,
            place: spool
                .repositories
                .iter()
                .map(shown)
                .collect::<Vec<_>>()
                .join(", "),
            why: match wrong.is_empty() {
                true => format!("event {} is not there", spool.seq),
                false => wrong.join("; "),
            },
        })
    }

    /// Imports this instance's events from where its journal says they are.
    async fn import_own(&self, repositories: &[PathBuf], wrong: &mut Vec<String>) -> Result<Drained, Error> {
        let request = Request {
            only: Some(self.identity.instance.clone()),
            ..Request::default()
        };
        let mut drained = Drained(Vec::new());
        for path in repositories {
            let repository = Repository::at(path)?;
            match self.import(&repository, &request, &Progress::default()).await {
                Ok(outcome) => {
                    wrong.extend(outcome.instances.into_iter().flat_map(|spool| spool.wrong));
                    drained.0.push((repository, outcome.finished));
                }
                // Perhaps it was pushed, and imported by somebody else.
                Err(error @ Error::Git { .. }) => wrong.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(drained)
    }

    /// Up to where this instance's journal is imported, and where that is in the stream.
    async fn imported_to(&self, held: &Held) -> Result<(u64, u64), Error> {
        let key = cursor::key(&self.identity.instance, &held.base().journal);
        let cursor = self.cursor(&key).await?;
        let stream = self.stream().await?.cached_info().created.unix_timestamp_nanos();
        Ok((cursor.seq, cursor.place(&stream.to_string())))
    }

    /// Imports what a repository holds, as far as it goes.
    async fn import(
        &self,
        repository: &Repository,
        request: &Request,
        progress: &Progress,
    ) -> Result<Outcome, Error> {
        let (tips, wrong) = repository.tips().await?;
        let mut outcome = Outcome {
            wrong,
            ..Outcome::default()
        };
        let mut blobs = Blobs::of(repository);
        let spools = self.gather(repository, tips, request, &mut blobs).await?;
        let lines = || spools.values().flat_map(|spool| &spool.lines);
        let total = lines().map(|line| line.todo.len() as u64).sum();
        progress.total.store(total, Ordering::Relaxed);
        let stream = self.stream().await?.cached_info().created.unix_timestamp_nanos();
        let stream = stream.to_string();
        let waiting = || lines().filter(|line| !line.todo.is_empty());
        let survey = match waiting().map(|line| line.cursor.place(&stream)).min() {
            Some(after) => {
                let wanted = waiting()
                    .flat_map(|line| &line.todo)
                    .map(|(_, head)| head.id.clone());
                Some(Survey::of(self, wanted.collect(), after, stream).await?)
            }
            None => None,
        };
        let mut work = Work {
            mesh: self,
            survey,
            blobs,
            progress,
        };
        for (instance, spool) in spools {
            let give_up = request.give_up.as_ref() == Some(&instance);
            let mut report = Imported {
                instance,
                wrong: spool.wrong,
                left: spool.stuck,
                ..Imported::default()
            };
            for mut line in spool.lines {
                work.import(&mut line, give_up, &mut report).await?;
            }
            if report.left == 0 && (report.wrong.is_empty() || give_up) {
                outcome.finished.extend(spool.tips);
            }
            outcome.instances.push(report);
        }
        Ok(outcome)
    }

    /// Reads the spools by instance, and how far each journal's events are imported.
    async fn gather(
        &self,
        repository: &Repository,
        tips: Vec<Tip>,
        request: &Request,
        blobs: &mut Blobs,
    ) -> Result<BTreeMap<String, Spool>, Error> {
        let mut spools: BTreeMap<String, Spool> = BTreeMap::new();
        let wanted = |tip: &Tip| request.only.as_ref().is_none_or(|only| *only == tip.instance);
        for tip in tips.into_iter().filter(wanted) {
            spools.entry(tip.instance.clone()).or_default().tips.push(tip);
        }
        for (instance, spool) in &mut spools {
            let (mut known, mut journals, mut heads) = (HashSet::new(), Vec::new(), BTreeMap::new());
            for tip in &spool.tips {
                let chain = repository.chain(tip, &known, blobs).await?;
                spool.wrong.extend(chain.wrong);
                for (commit, head) in chain.heads {
                    if !journals.contains(&head.journal) {
                        journals.push(head.journal.clone());
                    }
                    known.insert(commit.clone());
                    heads.insert((head.journal.clone(), head.seq), (commit, head));
                }
            }
            // A journal that was lost and begun anew comes after the lost one.
            for journal in journals {
                let key = cursor::key(instance, &journal);
                let cursor = match self.cursor(&key).await {
                    Ok(cursor) => cursor,
                    Err(error @ Error::DamagedKey { .. }) => {
                        let advice = format!(
                            "`mesh kv purge {} {key}` has the stream read instead",
                            setup::SPOOLS
                        );
                        spool.wrong.push(format!("{error}; {advice}"));
                        let of_it = |name: &&(String, u64)| name.0 == journal;
                        spool.stuck += heads.keys().filter(of_it).count() as u64;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let todo = heads
                    .range((journal.clone(), cursor.seq.saturating_add(1))..=(journal, u64::MAX))
                    .map(|(_, found)| found.clone())
                    .collect();
                spool.lines.push(Line { key, cursor, todo });
            }
        }
        Ok(spools)
    }
}

impl Drained {
    /// Takes away what is imported. What does not succeed is left to the next sync, which says why.
    pub(in crate::mesh) async fn retire(self, limit: Duration) {
        for (repository, finished) in self.0 {
            let remote = repository.remote().await.unwrap_or_default();
            repository.retire(&finished, remote.as_ref(), limit).await.ok();
        }
    }
}

/// What an import works with.
struct Work<'a> {
    mesh: &'a Mesh,
    survey: Option<Survey>,
    blobs: Blobs,
    progress: &'a Progress,
}

/// How an import of a line fares.
struct Pace {
    /// How many events to send at once.
    width: usize,
    /// How many to send one by one first.
    alone: u32,
    /// When it last got on.
    progress: Instant,
    /// How often it did not since: a process that was stopped for long has not tried for long.
    turns: u32,
}

impl Pace {
    fn got_on(&mut self) {
        (self.progress, self.turns) = (Instant::now(), 0);
    }

    fn is_over(&self, patience: Duration) -> bool {
        self.turns >= TURNS_MIN && self.progress.elapsed() >= patience
    }
}

impl Work<'_> {
    /// Imports the events of one journal, up to what is in the way.
    async fn import(&mut self, line: &mut Line, give_up: bool, report: &mut Imported) -> Result<(), Error> {
        let Some(mut survey) = self.survey.take() else {
            return Ok(());
        };
        let mut at = 0;
        let outcome = self.walk(&mut survey, line, &mut at, give_up, report).await;
        report.left += (line.todo.len() - at) as u64;
        self.survey = Some(survey);
        outcome
    }

    async fn walk(
        &mut self,
        survey: &mut Survey,
        line: &mut Line,
        at: &mut usize,
        give_up: bool,
        report: &mut Imported,
    ) -> Result<(), Error> {
        let mut pace = Pace {
            width: RUN_MAX,
            alone: 0,
            progress: Instant::now(),
            turns: 0,
        };
        let mut kept = line.cursor.seq;
        while let Some((_, head)) = line.todo.get(*at) {
            if head.after > line.cursor.seq && !give_up {
                let Head { seq, after, .. } = head;
                let missing =
                    format!("event {seq} comes after {after}, which was not imported and is not here");
                report.wrong.push(missing);
                break;
            }
            if let Some(place) = survey.place(&head.id) {
                line.cursor.advance(head, place, &survey.stream);
                report.there += 1;
                self.step(at);
                pace.got_on();
                continue;
            }
            let width = if pace.alone > 0 { 1 } else { pace.width };
            let mut unread = None;
            let run = self.load(survey, line, *at, width, &mut unread).await?;
            let sent = match (&run[..], unread) {
                ([], unread) => Sent {
                    places: Vec::new(),
                    stop: unread.map(Stop::Refused),
                },
                ([(head, body)], _) if pace.alone > 0 => {
                    survey.send_alone(head, body).await.unwrap_or_else(unheard)
                }
                (run, _) => survey.send(run).await,
            };
            for (place, (head, _)) in sent.places.iter().zip(&run) {
                line.cursor.advance(head, *place, &survey.stream);
                report.imported += 1;
                self.step(at);
            }
            if line.cursor.seq > kept {
                self.mesh.keep(&line.key, &mut line.cursor).await?;
                kept = line.cursor.seq;
                pace.got_on();
            }
            if let Some(why) = self.pace(survey, &mut pace, sent).await? {
                let (commit, head) = &line.todo[*at];
                let name = super::reference(&head.instance);
                let wrong = format!("{name} at commit {}: event {}: {why}", short(commit), head.seq);
                report.wrong.push(wrong);
                if !give_up {
                    break;
                }
                report.given_up += 1;
                self.step(at);
            }
        }
        if line.cursor.seq > kept {
            self.mesh.keep(&line.key, &mut line.cursor).await?;
        }
        Ok(())
    }

    fn step(&self, at: &mut usize) {
        *at += 1;
        self.progress.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The next events to send with their bodies: as many as may go together.
    async fn load(
        &mut self,
        survey: &Survey,
        line: &Line,
        at: usize,
        width: usize,
        unread: &mut Option<String>,
    ) -> Result<Vec<(Head, Bytes)>, Error> {
        let (mut run, mut bytes, mut before) = (Vec::new(), 0, None);
        for (commit, head) in line.todo[at..].iter().take(width) {
            let follows = before.is_none_or(|before| head.after <= before);
            if !follows || survey.place(&head.id).is_some() || bytes > RUN_BYTES_MAX {
                break;
            }
            match self.blobs.read(&head.instance, commit).await? {
                Ok((again, body)) if again == *head => {
                    bytes += body.len();
                    before = Some(head.seq);
                    run.push((again, body));
                }
                Ok(_) => {
                    *unread = Some("it is not what it was".to_owned());
                    break;
                }
                Err(why) => {
                    *unread = Some(why);
                    break;
                }
            }
        }
        Ok(run)
    }

    /// Goes by what became of a run; gives why the next event will never be stored, if so.
    async fn pace(&self, survey: &mut Survey, pace: &mut Pace, sent: Sent) -> Result<Option<String>, Error> {
        let stored = sent.places.len();
        let why = match sent.stop {
            None if pace.alone > 0 => {
                pace.alone -= 1;
                if pace.alone > 0 {
                    return Ok(None);
                }
                // What others have stored meanwhile was passed by.
                None
            }
            None => {
                pace.width = (pace.width * 2).min(RUN_MAX);
                return Ok(None);
            }
            Some(Stop::Refused(why)) => return Ok(Some(why)),
            Some(Stop::Changed) => {
                pace.width = stored.max(1);
                if stored == 0 {
                    pace.alone = ALONE;
                }
                None
            }
            Some(Stop::Unheard(why)) => {
                tokio::time::sleep(PAUSE).await;
                Some(why)
            }
        };
        let patience = match &why {
            Some(_) => self.mesh.timeout,
            None => self.mesh.timeout * PATIENCE,
        };
        loop {
            pace.turns += 1;
            match survey.go_on().await {
                Ok(()) if !pace.is_over(patience) => return Ok(None),
                Err(_) if !pace.is_over(patience) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
                Ok(()) => {
                    let why = why.unwrap_or_else(|| "others publish too fast".to_owned());
                    let what = "cannot import from git".to_owned();
                    return Err(Error::Server { what, why });
                }
            }
        }
    }
}

fn unheard(error: Error) -> Sent {
    Sent {
        places: Vec::new(),
        stop: Some(Stop::Unheard(error.to_string())),
    }
}
