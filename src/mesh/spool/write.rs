//! Writing a spool: an event at the end, on to the remote, and away with what is imported.
//!
//! Nothing here overwrites a ref: each change names the value it has seen and fails if there is another. A push is
//! a fast-forward, or the removal of exactly the commit whose events are all in the stream.

use std::time::Duration;

use super::entry::{BODY_BYTES_MAX, FILE, Head};
use super::git::{LOCAL, Repository, said};
use super::{Remote, reference, tracking};
use crate::mesh::Error;

/// How often an event is put at the end while others do the same.
const TRIES_MAX: u32 = 200;
/// Longest pause before the next try, in milliseconds.
const PAUSE_MILLIS_MAX: u64 = 50;
/// Begins the line of a commit's message that tells ours from others.
const MARK: &str = "Mesh-Id: ";
/// How many refs are removed from a remote at once.
const REFS_AT_ONCE: usize = 64;

/// The end of a spool.
struct End {
    commit: String,
    /// What the commit's message says it holds.
    id: Option<String>,
}

impl Repository {
    /// Puts an event at the end of its instance's spool; gives the commit.
    pub(super) async fn append(&self, head: &Head, body: &[u8]) -> Result<String, Error> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::Refused {
                event: head.event.clone(),
                why: format!(
                    "its body has {} bytes, a spool takes {BODY_BYTES_MAX}",
                    body.len()
                ),
            });
        }
        let blob = ["hash-object", "-w", "--stdin", "--no-filters"];
        let blob = self.git(&blob, Some(&head.encode(body))).await?.text();
        let listing = format!("100644 blob {blob}\t{FILE}\n");
        let tree = self.git(&["mktree"], Some(listing.as_bytes())).await?.text();
        let message = format!("{} {}\n\n{MARK}{}\n", head.event, head.seq, head.id);
        let name = reference(&head.instance);
        let mut end = self.end(&head.instance, &name).await?;
        for attempt in 1.. {
            if let Some(found) = end.as_ref().filter(|end| end.id.as_deref() == Some(&head.id)) {
                // An earlier emitter got as far as this.
                return Ok(found.commit.clone());
            }
            // The remote may hold what we have retired here: a push must be able to go on from there.
            let parent = match &end {
                Some(end) => Some(end.commit.clone()),
                None => self.tracked(&head.instance).await?,
            };
            let who = (head.instance.as_str(), head.at().as_second());
            let commit = self.commit(&tree, parent.as_deref(), who, &message).await?;
            let seen = end
                .as_ref()
                .map_or_else(|| zero(&commit), |end| end.commit.clone());
            let moved = self
                .try_git(&["update-ref", &name, &commit, &seen], None, LOCAL)
                .await?;
            if moved.ok {
                return Ok(commit);
            }
            let before = end.map(|end| end.commit);
            end = self.end(&head.instance, &name).await?;
            let now = end.as_ref().map(|end| &end.commit);
            if now == Some(&commit) {
                return Ok(commit);
            }
            if now == before.as_ref() || attempt >= TRIES_MAX {
                return Err(self.failed(&format!("cannot move {name}"), said(&moved.talk)));
            }
            let pause = getrandom::u64().unwrap_or_default() % PAUSE_MILLIS_MAX;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        unreachable!("the last try returns")
    }

    /// Whether an event may be the last of a spool; also if that cannot be told.
    pub(super) async fn may_end_with(&self, instance: &str, id: &str) -> bool {
        match self.look(&reference(instance)).await {
            Ok(found) => found.is_some_and(|(end, _)| end.id.as_deref() == Some(id)),
            Err(_) => true,
        }
    }

    /// The end of a spool; an error if its ref is not one.
    async fn end(&self, instance: &str, name: &str) -> Result<Option<End>, Error> {
        let Some((end, kind)) = self.look(name).await? else {
            return Ok(None);
        };
        if kind == "commit" && end.id.is_some() {
            return Ok(Some(end));
        }
        let (path, commit) = (self.path().display(), end.commit);
        Err(Error::Git {
            what: format!("{path}: {name} is at {kind} {commit}"),
            why: format!("that is no event of `{instance}`"),
            next: format!(
                "`git -C {path} show {commit}` shows it; `git -C {path} update-ref -d {name} {commit}` takes the ref away"
            ),
        })
    }

    /// Where a ref is, with the kind of object that is there.
    async fn look(&self, name: &str) -> Result<Option<(End, String)>, Error> {
        let format = "--format=%(refname)%00%(objectname)%00%(objecttype)%00%(contents:body)%00";
        let ran = self.git(&["for-each-ref", format, name], None).await?;
        let mut fields = ran.out.split(|&byte| byte == 0).map(String::from_utf8_lossy);
        let mut next = || fields.next().unwrap_or_default().into_owned();
        let (found, commit, kind, body) = (next(), next(), next(), next());
        if found != name {
            // What git cannot even read it leaves out, and says so.
            return match ran.talk.is_empty() {
                true => Ok(None),
                false => Err(self.failed(&format!("cannot read {name}"), said(&ran.talk))),
            };
        }
        let id = body
            .lines()
            .find_map(|line| line.strip_prefix(MARK))
            .map(str::to_owned);
        Ok(Some((End { commit, id }, kind)))
    }

    /// Where the remote's copy of the spool was when we last looked.
    async fn tracked(&self, instance: &str) -> Result<Option<String>, Error> {
        let Some(remote) = self.remote().await? else {
            return Ok(None);
        };
        let name = tracking(&remote, instance);
        let found = self.end(instance, &name).await;
        Ok(found.ok().flatten().map(|end| end.commit))
    }

    /// The remote that spools go to: `mesh.remote` of the repository's configuration, `remote.pushDefault`, `origin`, or
    /// the only one there is. None if there is none, or `mesh.remote` is empty.
    pub(super) async fn remote(&self) -> Result<Option<Remote>, Error> {
        let wanted = r"^(remote\..*\.(url|pushurl)|remote\.pushdefault|mesh\.remote)$";
        let ran = self
            .try_git(&["config", "-z", "--get-regexp", wanted], None, LOCAL)
            .await?;
        let text = ran.text();
        let (mut names, mut chosen, mut usual) = (Vec::new(), None, None);
        for line in text.split('\0') {
            let (key, value) = line.split_once('\n').unwrap_or((line, ""));
            let value = value.to_owned();
            match key {
                "mesh.remote" => chosen = Some(value),
                "remote.pushdefault" => usual = Some(value),
                _ => {
                    let name = key.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.'));
                    names.extend(name.map(|(name, _)| name.to_owned()));
                }
            }
        }
        names.dedup();
        let name = match (chosen, usual, &names[..]) {
            (Some(chosen), ..) => Some(chosen).filter(|name| !name.is_empty()),
            (None, Some(usual), _) => Some(usual),
            (None, None, names) if names.iter().any(|name| name == "origin") => Some("origin".to_owned()),
            (None, None, [only]) => Some(only.clone()),
            (None, None, _) => None,
        };
        Ok(name.map(Remote))
    }

    /// Pushes an instance's spool if the remote does not have it yet; gives what went wrong.
    pub(super) async fn push(
        &self,
        remote: &Remote,
        instance: &str,
        limit: Duration,
    ) -> Result<Option<String>, Error> {
        let (tips, _) = self.tips().await?;
        let (here, there) = (reference(instance), tracking(remote, instance));
        let at = |name: &str| tips.iter().find(|tip| tip.name == name).map(|tip| &tip.commit);
        let Some(commit) = at(&here).filter(|commit| at(&there) != Some(commit)) else {
            return Ok(None);
        };
        let mirror = format!("remote.{}.mirror=false", remote.0);
        let change = format!("{commit}:{here}");
        let push = [
            "-c",
            &mirror,
            "push",
            "--quiet",
            "--no-verify",
            &remote.0,
            &change,
        ];
        match self.try_git(&push, None, limit).await {
            Ok(ran) if ran.ok => {
                // Only our own note of it: a fetch at the same moment writes the same.
                self.try_git(&["update-ref", &there, commit], None, LOCAL).await?;
                Ok(None)
            }
            Ok(ran) => Ok(Some(not_pushed(&here, remote, &ran.talk))),
            Err(Error::Git { why, .. }) => Ok(Some(not_pushed(&here, remote, &why))),
            Err(error) => Err(error),
        }
    }

    /// Copies the remote's spools to where they do not meet ours; gives what went wrong.
    pub(super) async fn fetch(&self, remote: &Remote, limit: Duration) -> Result<Option<String>, Error> {
        let copy = format!("+refs/mesh/*:{}", tracking(remote, "*"));
        let fetch = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-filter",
            "--refmap=",
            &remote.0,
            &copy,
        ];
        let why = match self.try_git(&fetch, None, limit).await {
            Ok(ran) if ran.ok => return Ok(None),
            Ok(ran) => said(&ran.talk),
            Err(Error::Git { why, .. }) => why,
            Err(error) => return Err(error),
        };
        Ok(Some(format!("cannot fetch from {}: {why}", remote.0)))
    }

    /// Takes refs away, here and at the remote, each if it is still where all its events were found in the stream.
    /// Gives what went wrong; the objects stay until git collects them.
    pub(super) async fn retire(
        &self,
        tips: &[super::read::Tip],
        remote: Option<&Remote>,
        limit: Duration,
    ) -> Result<Vec<String>, Error> {
        let mut wrong = Vec::new();
        for tip in tips.iter().filter(|tip| tip.remote.is_none()) {
            // If somebody moved it there is more to import: not our affair any more.
            self.try_git(&["update-ref", "-d", &tip.name, &tip.commit], None, LOCAL)
                .await?;
        }
        let Some(remote) = remote else { return Ok(wrong) };
        let theirs: Vec<_> = tips
            .iter()
            .filter(|tip| tip.remote.as_ref() == Some(&remote.0))
            .collect();
        for some in theirs.chunks(REFS_AT_ONCE) {
            let mut arguments = vec!["push".to_owned(), "--quiet".to_owned(), "--no-verify".to_owned()];
            for tip in some {
                let name = reference(&tip.instance);
                arguments.push(format!("--force-with-lease={name}:{}", tip.commit));
            }
            arguments.push(remote.0.clone());
            arguments.extend(some.iter().map(|tip| format!(":{}", reference(&tip.instance))));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let talk = match self.try_git(&arguments, None, limit).await {
                Ok(ran) if ran.ok => String::new(),
                Ok(ran) => ran.talk,
                Err(Error::Git { why, .. }) => why,
                Err(error) => return Err(error),
            };
            if !talk.is_empty() && !is_race(&talk) {
                wrong.push(format!(
                    "cannot take imported spools away from {}: {}",
                    remote.0,
                    said(&talk)
                ));
            }
            if talk.is_empty() {
                for tip in some {
                    self.try_git(&["update-ref", "-d", &tip.name, &tip.commit], None, LOCAL)
                        .await?;
                }
            }
        }
        Ok(wrong)
    }
}

fn not_pushed(name: &str, remote: &Remote, talk: &str) -> String {
    let why = said(talk);
    let Remote(remote) = remote;
    let two = match why.contains("fetch first") || why.contains("non-fast-forward") {
        true => " (another machine emits under the same name? give each its MESH_INSTANCE)",
        false => "",
    };
    format!("{name} is not pushed to {remote} yet: {why}{two}")
}

/// Whether all that a push was refused for is that somebody else had been there.
fn is_race(talk: &str) -> bool {
    let race = |line: &str| line.contains("(stale info)") || line.contains("remote ref does not exist");
    let mut refused = talk
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("! ["))
        .peekable();
    match refused.peek() {
        Some(_) => refused.all(race),
        None => talk.lines().any(race),
    }
}

/// The name of no object, as long as `like`.
fn zero(like: &str) -> String {
    "0".repeat(like.len())
}
