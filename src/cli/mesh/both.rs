//! `mesh watch --git`: the mesh and a git repository at once, each event once.
//!
//! An event that was seen in git comes again when somebody imports it; what was shown lately is remembered by its id. An
//! event that the mesh stored just before it went down is shown when it is back.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Since, line, stop_signal};
use crate::cli::{Context, Failure, output};
use crate::mesh::spool::{Follow, Repository, Seen};
use crate::mesh::{Filter, Reader, Received, Selection, Start};
use crate::protocol::subject;

/// Pause before a mesh that is down is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How many events wait to be shown.
const WAITING_MAX: usize = 64;
/// How many ids are remembered.
const IDS_MAX: usize = 100_000;

/// Which events are shown.
pub(super) struct Wanted {
    pub(super) patterns: Vec<String>,
    pub(super) since: Option<Since>,
    pub(super) filter: Filter,
    pub(super) count: Option<u64>,
}

/// What one of the two sides says.
enum Said {
    Event(Box<Received>),
    Talk(String),
    Ended(Failure),
}

/// Shows events of both until it is told to stop.
pub(super) async fn watch(context: &Context, repository: Repository, wanted: &Wanted) -> Result<(), Failure> {
    let stop = stop_signal();
    let (say, mut hear) = mpsc::channel(WAITING_MAX);
    let since = match wanted.since {
        None => None,
        Some(Since::All) => Some(jiff::Timestamp::MIN),
        Some(Since::At(time)) => Some(time),
        Some(Since::Ago(ago)) => Some(
            jiff::Timestamp::now()
                .checked_sub(ago)
                .unwrap_or(jiff::Timestamp::MIN),
        ),
    };
    let began = Instant::now();
    let git = Follow::start(&repository, since).await?;
    let mut sides = JoinSet::new();
    sides.spawn(from_git(git, say.clone()));
    let mesh = Side {
        context: context.clone(),
        place: repository.path().display().to_string(),
        patterns: wanted.patterns.clone(),
        since: wanted.since,
        began,
    };
    sides.spawn(mesh.run(say));
    let mut shown = Shown::default();
    let mut left = wanted.count.unwrap_or(u64::MAX);
    while left > 0 {
        let said = tokio::select! {
            () = stop.cancelled() => break,
            said = hear.recv() => said,
        };
        let event = match said {
            None => break,
            Some(Said::Talk(text)) => {
                output::note(text);
                continue;
            }
            Some(Said::Ended(failure)) => return Err(failure),
            Some(Said::Event(event)) => event,
        };
        let matches = |pattern: &String| subject::matches(pattern.as_bytes(), event.subject.as_bytes());
        let is_wanted = wanted.patterns.iter().any(matches) && wanted.filter.passes(&event);
        if is_wanted && shown.is_new(&event) {
            output::print(line(&event, context.json))?;
            left -= 1;
        }
    }
    Ok(())
}

async fn from_git(mut git: Follow, say: mpsc::Sender<Said>) {
    loop {
        let said = match git.next().await {
            Ok(Seen::Event(event)) => Said::Event(event),
            Ok(Seen::Wrong(wrong)) => Said::Talk(wrong),
            Err(error) => Said::Ended(error.into()),
        };
        let ended = matches!(said, Said::Ended(_));
        if say.send(said).await.is_err() || ended {
            return;
        }
    }
}

/// The mesh's side.
struct Side {
    context: Context,
    place: String,
    patterns: Vec<String>,
    since: Option<Since>,
    began: Instant,
}

impl Side {
    async fn run(self, say: mpsc::Sender<Said>) {
        let mut told = false;
        let mut events = loop {
            match self.open(told).await {
                Ok(events) => break events,
                Err(failure) if failure.code() != Failure::UNHEALTHY => {
                    say.send(Said::Ended(failure)).await.ok();
                    return;
                }
                Err(failure) if !told => {
                    told = true;
                    let cause = failure.lines().next().unwrap_or_default();
                    let text = format!(
                        "The mesh is down ({cause}): reading from git, refs/mesh/* of {}",
                        self.place
                    );
                    if say.send(Said::Talk(text)).await.is_err() {
                        return;
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        let text = match told {
            true => "The mesh is back".to_owned(),
            false => format!(
                "Reading from the mesh, and from git, refs/mesh/* of {}",
                self.place
            ),
        };
        let mut said = Said::Talk(text);
        loop {
            if say.send(said).await.is_err() {
                return;
            }
            said = match events.next().await {
                Ok(Some(event)) => Said::Event(Box::new(event)),
                Ok(None) => return,
                Err(error) => Said::Ended(error.into()),
            };
        }
    }

    /// Connects and begins to read; what came while the mesh was down is read after.
    async fn open(&self, was_down: bool) -> Result<Reader, Failure> {
        let mesh = super::open(&self.context).await?;
        mesh.ensure().await?;
        let start = match self.since {
            Some(since) => since.start(&mesh).await?,
            None if was_down => Since::Ago(self.began.elapsed()).start(&mesh).await?,
            None => Start::Now,
        };
        let selection = Selection {
            follow: true,
            ..Selection::of(self.patterns.clone(), start)
        };
        Ok(mesh.read(selection).await?)
    }
}

/// The ids that were shown lately.
#[derive(Default)]
struct Shown {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Shown {
    /// Whether an event was not shown yet; events without an id are never known.
    fn is_new(&mut self, event: &Received) -> bool {
        let Some(id) = &event.envelope.id else { return true };
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id.clone());
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
