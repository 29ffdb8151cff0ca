//! Reading spools: which there are, their commits, and the event in each.
//!
//! Damage is told with the ref and the commit, and hides nothing else: what can be read is read.

use std::collections::HashSet;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::entry::{BLOB_BYTES_MAX, FILE, Head};
use super::git::{LOCAL, Repository, said};
use super::{HERE, THERE};
use crate::mesh::{Error, identity};

/// How many commits of a ref that hold no event are explained; the others are counted.
const EXPLAINED_MAX: usize = 3;
/// Longest chain that is read at once.
const COMMITS_MAX: &str = "--max-count=1000000";
/// Letters of a commit's name that are shown.
const SHOWN: usize = 12;

/// Where the spool of an instance ends, here or at a remote when last looked.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) commit: String,
    pub(super) remote: Option<String>,
}

/// The events of a ref.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Each with its commit, oldest first.
    pub(super) heads: Vec<(String, Head)>,
    /// What could not be read.
    pub(super) wrong: Vec<String>,
}

impl Repository {
    /// All spools, and what is wrong with other refs under the same names.
    pub(super) async fn tips(&self) -> Result<(Vec<Tip>, Vec<String>), Error> {
        let list = ["for-each-ref", "--format=%(objectname) %(refname)", HERE, THERE];
        let ran = self.git(&list, None).await?;
        let mut wrong: Vec<String> = ran.talk.lines().map(str::to_owned).collect();
        let mut tips = Vec::new();
        for line in ran.text().lines() {
            let Some((commit, name)) = line.split_once(' ') else {
                continue;
            };
            let (place, instance) = name.rsplit_once('/').unwrap_or(("", name));
            let remote = match format!("{place}/") {
                here if here == HERE => None,
                there => match there.strip_prefix(THERE).and_then(|rest| rest.strip_suffix('/')) {
                    Some(remote) => Some(remote.to_owned()),
                    None => {
                        wrong.push(format!("{name} is no spool: a spool is refs/mesh/INSTANCE"));
                        continue;
                    }
                },
            };
            if !identity::is_name(instance) {
                wrong.push(format!(
                    "{name} is no spool: `{instance}` cannot name an instance"
                ));
                continue;
            }
            tips.push(Tip {
                name: name.to_owned(),
                instance: instance.to_owned(),
                commit: commit.to_owned(),
                remote,
            });
        }
        Ok((tips, wrong))
    }

    /// The events that `tip` leads to, those `known` passed over.
    pub(super) async fn chain(
        &self,
        tip: &Tip,
        known: &HashSet<String>,
        blobs: &mut Blobs,
    ) -> Result<Chain, Error> {
        let list = ["rev-list", "--first-parent", COMMITS_MAX, &tip.commit, "--"];
        let ran = self.try_git(&list, None, LOCAL).await?;
        let mut chain = Chain::default();
        if !ran.ok {
            // What lies before the damage is listed all the same.
            chain.wrong.push(format!(
                "{} at {}: {}",
                tip.name,
                short(&tip.commit),
                said(&ran.talk)
            ));
        }
        let text = ran.text();
        let mut commits: Vec<&str> = text.lines().collect();
        // The one whose parent is missing is not listed.
        let cut = match ran.ok {
            true => None,
            false => self.next_of(commits.last(), tip).await?,
        };
        commits.extend(cut.as_deref());
        if ran.ok && text.is_empty() {
            chain.wrong.push(format!(
                "{} at {}: that is no commit",
                tip.name,
                short(&tip.commit)
            ));
        }
        let mut unread = 0;
        for &commit in commits.iter().rev().filter(|commit| !known.contains(**commit)) {
            match blobs.read(&tip.instance, commit).await? {
                Ok((head, _)) => chain.heads.push((commit.to_owned(), head)),
                Err(_) if unread >= EXPLAINED_MAX => unread += 1,
                Err(why) => {
                    unread += 1;
                    chain
                        .wrong
                        .push(format!("{} at commit {}: {why}", tip.name, short(commit)));
                }
            }
        }
        if unread > EXPLAINED_MAX {
            let more = unread - EXPLAINED_MAX;
            chain
                .wrong
                .push(format!("{}: {more} more commits like these", tip.name));
        }
        Ok(chain)
    }

    /// The commit that a cut walk should have listed next, if it can be read.
    async fn next_of(&self, listed: Option<&&str>, tip: &Tip) -> Result<Option<String>, Error> {
        let spec = listed.map_or_else(|| tip.commit.clone(), |last| format!("{last}^"));
        let next = ["rev-parse", "--verify", "--quiet", "--end-of-options", &spec];
        let next = self.try_git(&next, None, LOCAL).await?.text();
        let sound = self
            .try_git(&["cat-file", "commit", &next], None, LOCAL)
            .await?
            .ok;
        Ok(Some(next).filter(|_| sound))
    }
}

/// A commit's name as people read it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..SHOWN).unwrap_or(commit)
}

/// `git cat-file --batch`, started anew where damage ended it.
pub(super) struct Blobs {
    repository: Repository,
    running: Option<Running>,
}

struct Running {
    // Ends when it is dropped.
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Blobs {
    pub(super) fn of(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            running: None,
        }
    }

    /// The event in a commit; why it is none, if it is none.
    pub(super) async fn read(
        &mut self,
        instance: &str,
        commit: &str,
    ) -> Result<Result<(Head, Bytes), String>, Error> {
        let Ok(found) = self.ask(commit).await else {
            return Ok(Err(self.explain(commit).await?));
        };
        match found {
            Some(blob) if blob.is_empty() => Ok(Err("its file `event` is empty".to_owned())),
            Some(blob) => Ok(Head::decode(instance, &blob)),
            None => Ok(Err(self.explain(commit).await?)),
        }
    }

    /// The blob of a commit's event, if there is one of a sound size.
    async fn ask(&mut self, commit: &str) -> Result<Option<Vec<u8>>, std::io::Error> {
        // Taken out meanwhile: whoever gives up waiting leaves an answer in the pipe that is for nobody.
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let started = self.repository.start(&["cat-file", "--batch"]);
                let mut child = started.map_err(std::io::Error::other)?;
                let broken = || std::io::Error::other("no pipe");
                let stdin = child.stdin.take().ok_or_else(broken)?;
                let stdout = BufReader::new(child.stdout.take().ok_or_else(broken)?);
                Running {
                    _child: child,
                    stdin,
                    stdout,
                }
            }
        };
        running
            .stdin
            .write_all(format!("{commit}:{FILE}\n").as_bytes())
            .await?;
        let mut line = Vec::new();
        running.stdout.read_until(b'\n', &mut line).await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.trim_end().rsplitn(3, ' ').collect();
        let (size, kind) = match &words[..] {
            [size, kind, _] => (size.parse::<u64>().ok(), *kind),
            _ if line.ends_with('\n') => {
                self.running = Some(running);
                return Ok(None);
            }
            _ => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        };
        let size = size.ok_or(std::io::ErrorKind::InvalidData)?;
        if kind != "blob" || size > BLOB_BYTES_MAX {
            let mut rest = (&mut running.stdout).take(size + 1);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            self.running = Some(running);
            return Ok(None);
        }
        let mut blob = vec![0; usize::try_from(size).unwrap_or_default() + 1];
        running.stdout.read_exact(&mut blob).await?;
        blob.pop();
        self.running = Some(running);
        Ok(Some(blob))
    }

    /// Why there is no event in a commit.
    async fn explain(&self, commit: &str) -> Result<String, Error> {
        let spec = format!("{commit}:{FILE}");
        let named = ["rev-parse", "--verify", "--end-of-options", &spec];
        let named = self.repository.try_git(&named, None, LOCAL).await?;
        if !named.ok {
            return Ok(format!(
                "it is no event of ours: no file `{FILE}` of it can be read"
            ));
        }
        let object = named.text();
        let sized = self
            .repository
            .try_git(&["cat-file", "-s", &object], None, LOCAL)
            .await?;
        if !sized.ok {
            return Ok(format!(
                "object {} cannot be read: {}",
                short(&object),
                said(&sized.talk)
            ));
        }
        let checked = self
            .repository
            .try_git(&["cat-file", "-t", &object], None, LOCAL)
            .await?;
        match sized.text().parse::<u64>() {
            Ok(size) if size > BLOB_BYTES_MAX => {
                Ok(format!("its event has {size} bytes, at most {BLOB_BYTES_MAX}"))
            }
            _ if checked.text() != "blob" => Ok(format!("its `{FILE}` is a {}", checked.text())),
            _ => Ok(format!(
                "object {} cannot be read; `git fsck` says more",
                short(&object)
            )),
        }
    }
}
