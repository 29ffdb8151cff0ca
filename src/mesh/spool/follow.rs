//! Watching spools: the events that are in git, then each that comes, in order per instance.
//!
//! Across instances the past is ordered by the emitters' clocks, as far as that keeps each instance's own order; nothing
//! better is known without the stream.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::entry::Head;
use super::git::{LOCAL, Repository};
use super::read::{Blobs, Tip};
use crate::mesh::{Error, Received};

/// How often refs are looked at.
const POLL: Duration = Duration::from_millis(300);
/// How often the remote is asked.
const FETCH: Duration = Duration::from_secs(5);
/// How long the first look at the remote may keep a reader.
const FIRST_FETCH_LIMIT: Duration = Duration::from_secs(10);
/// How long one look at the remote may take.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// A reader of all spools of a repository.
pub struct Follow {
    repository: Repository,
    blobs: Blobs,
    /// Where each ref was when it was last read.
    read: HashMap<String, String>,
    /// How far each journal was handed out, by (instance, journal).
    handed: HashMap<(String, String), u64>,
    queue: VecDeque<(String, Head)>,
    since: Option<Timestamp>,
    /// What was said to be wrong, once.
    told: HashSet<String>,
    wrong: VecDeque<String>,
    fetching: tokio::task::JoinHandle<()>,
}

/// What comes out of git.
pub enum Seen {
    /// An event.
    Event(Box<Received>),
    /// Something that cannot be read.
    Wrong(String),
}

impl Follow {
    /// Reads events emitted at `since` or later; without it, those that come from now on.
    pub async fn start(repository: &Repository, since: Option<Timestamp>) -> Result<Self, Error> {
        repository.check().await?;
        let mut follow = Self {
            repository: repository.clone(),
            blobs: Blobs::of(repository),
            read: HashMap::new(),
            handed: HashMap::new(),
            queue: VecDeque::new(),
            since,
            told: HashSet::new(),
            wrong: VecDeque::new(),
            fetching: tokio::spawn(fetch(repository.clone())),
        };
        if since.is_none() {
            // What the remote holds already is the past.
            if let Some(remote) = repository.remote().await? {
                repository.fetch(&remote, FIRST_FETCH_LIMIT).await?;
            }
            let (tips, _) = repository.tips().await?;
            follow.read = tips.into_iter().map(|tip| (tip.name, tip.commit)).collect();
        }
        Ok(follow)
    }

    /// The next event; waits for it. Losing this future loses nothing.
    pub async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            if let Some(wrong) = self.wrong.pop_front() {
                return Ok(Seen::Wrong(wrong));
            }
            if let Some((commit, head)) = self.queue.front() {
                let found = self.blobs.read(&head.instance, commit).await?;
                let Some((_, head)) = self.queue.pop_front() else {
                    continue;
                };
                match found {
                    Ok((_, body)) => return Ok(Seen::Event(Box::new(head.received(body)))),
                    Err(why) => self.tell(why),
                }
                continue;
            }
            if !self.look().await? {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Looks what is new; whether there was anything.
    async fn look(&mut self) -> Result<bool, Error> {
        let (tips, wrong) = self.repository.tips().await?;
        wrong.into_iter().for_each(|wrong| self.tell(wrong));
        let mut fresh: Vec<(Timestamp, String, Head)> = Vec::new();
        let mut read = self.read.clone();
        for tip in tips {
            if read.get(&tip.name) == Some(&tip.commit) {
                continue;
            }
            let known = self.known(&tip).await?;
            let chain = self.repository.chain(&tip, &known, &mut self.blobs).await?;
            chain.wrong.into_iter().for_each(|wrong| self.tell(wrong));
            // A clock that was set back does not change the order of what it stamped.
            let mut latest = Timestamp::MIN;
            for (commit, head) in chain.heads {
                latest = latest.max(head.at());
                fresh.push((latest, commit, head));
            }
            read.insert(tip.name, tip.commit);
        }
        fresh.sort_by_key(|(at, ..)| *at);
        for (_, commit, head) in fresh {
            let journal = (head.instance.clone(), head.journal.clone());
            let handed = self.handed.entry(journal).or_default();
            if head.seq > *handed {
                *handed = head.seq;
                if self.since.is_none_or(|since| head.at() >= since) {
                    self.queue.push_back((commit, head));
                }
            }
        }
        self.read = read;
        Ok(!self.queue.is_empty() || !self.wrong.is_empty())
    }

    /// The commits of a ref that were read before.
    async fn known(&self, tip: &Tip) -> Result<HashSet<String>, Error> {
        let before: Vec<&str> = self.read.values().map(String::as_str).collect();
        if before.is_empty() {
            return Ok(HashSet::new());
        }
        let list = [
            &["rev-list", "--ignore-missing", "--first-parent"][..],
            &before,
            &["--"],
        ]
        .concat();
        let ran = self.repository.try_git(&list, None, LOCAL).await?;
        let mut known: HashSet<String> = ran.text().lines().map(str::to_owned).collect();
        known.remove(&tip.commit);
        Ok(known)
    }

    fn tell(&mut self, wrong: String) {
        if self.told.insert(wrong.clone()) {
            self.wrong.push_back(wrong);
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

/// Copies the remote's spools now and then, for as long as the repository has a remote.
async fn fetch(repository: Repository) {
    while let Ok(Some(remote)) = repository.remote().await {
        // A remote that is away is no news here: what is in the repository is shown.
        repository.fetch(&remote, FETCH_LIMIT).await.ok();
        tokio::time::sleep(FETCH).await;
    }
}
