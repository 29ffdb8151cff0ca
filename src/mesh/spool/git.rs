//! Running git: plumbing commands on a repository, undisturbed by what surrounds them.
//!
//! A repository may be anything git calls one: with a work tree or bare, a linked worktree, in the middle of a merge,
//! SHA-1 or SHA-256. Nothing here reads or writes its index, HEAD, work tree, reflogs or FETCH_HEAD. The
//! variables of a git that called us (we may run in a hook) and the user's habits (hooks, signatures, a missing name)
//! are set aside; how remotes are reached (ssh, credentials, proxies) is left as the user has it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::mesh::Error;

/// How long a command on the repository itself may take.
pub(super) const LOCAL: Duration = Duration::from_secs(300);
/// Settings that hold whatever the configuration says.
const SETTINGS: [&str; 18] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "core.useReplaceRefs=false",
    // An event that was spooled must outlive a power cut.
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    // Others who write refs at the same moment are waited for.
    "core.filesRefLockTimeout=10000",
    "core.packedRefsTimeout=10000",
    // The repository was named by the user: it is meant.
    "safe.directory=*",
    "safe.bareRepository=all",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "push.recurseSubmodules=no",
    "gc.auto=0",
    "maintenance.auto=false",
    "i18n.commitEncoding=UTF-8",
    "color.ui=false",
];
/// Beginnings of variables of git that say how remotes are reached and where the user's configuration is.
const KEPT: [&str; 11] = [
    "GIT_SSH",
    "GIT_ASKPASS",
    "GIT_PROXY_COMMAND",
    "GIT_SSL_",
    "GIT_HTTP_",
    "GIT_PROTOCOL",
    "GIT_ALLOW_PROTOCOL",
    "GIT_EXEC_PATH",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
];

/// A repository, as the user named it.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
}

/// How a command ended.
pub(super) struct Ran {
    /// What it wrote to stdout.
    pub(super) out: Vec<u8>,
    /// What it wrote to stderr.
    pub(super) talk: String,
    /// Whether it exited with 0.
    pub(super) ok: bool,
}

impl Ran {
    /// Its stdout as text, without the last line break.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end().to_owned()
    }
}

impl Repository {
    /// The repository at `path`; whether it is one shows when it is used.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path)?;
        match path.to_str() {
            Some(_) => Ok(Self { path }),
            // The journal is text.
            None => Err(Error::BadName {
                what: "repository",
                value: path.display().to_string(),
                problem: "must be UTF-8",
            }),
        }
    }

    /// Fails unless git finds a repository there.
    pub async fn check(&self) -> Result<(), Error> {
        self.git(&["rev-parse", "--git-dir"], None).await.map(drop)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error of this repository, without advice beyond what is said.
    pub(super) fn failed(&self, what: &str, why: impl Into<String>) -> Error {
        let why = why.into();
        let shown = self.path.display();
        let next = if why.contains("not a git repository") || why.contains("cannot change to") {
            format!(
                "`git init --bare {shown}` makes one; --git, MESH_GIT or `git` in the file of events names another"
            )
        } else {
            format!("`git -C {shown} fsck` says whether the repository is sound")
        };
        Error::Git {
            what: format!("{shown}: {what}"),
            why,
            next,
        }
    }

    /// Runs a command that must succeed.
    pub(super) async fn git(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<Ran, Error> {
        let ran = self.try_git(arguments, input, LOCAL).await?;
        match ran.ok {
            true => Ok(ran),
            false => Err(self.failed(&format!("git {}", arguments[0]), said(&ran.talk))),
        }
    }

    /// Runs a command to its end, or for `limit` at most.
    pub(super) async fn try_git(
        &self,
        arguments: &[&str],
        input: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Ran, Error> {
        let mut command = self.command(arguments, &[]);
        command.stdin(Stdio::null());
        self.finish(command, arguments[0], input, limit).await
    }

    /// Makes a commit of `tree`, dated and signed by whom it is told; gives its name.
    pub(super) async fn commit(
        &self,
        tree: &str,
        parent: Option<&str>,
        (who, at): (&str, i64),
        message: &str,
    ) -> Result<String, Error> {
        let mut arguments = vec!["commit-tree", tree];
        if let Some(parent) = parent {
            arguments.extend(["-p", parent]);
        }
        let (mail, date) = (format!("{who}@mesh"), format!("@{at} +0000"));
        let command = self.command(
            &arguments,
            &[
                ("GIT_AUTHOR_NAME", who),
                ("GIT_AUTHOR_EMAIL", &mail),
                ("GIT_AUTHOR_DATE", &date),
                ("GIT_COMMITTER_NAME", who),
                ("GIT_COMMITTER_EMAIL", &mail),
                ("GIT_COMMITTER_DATE", &date),
            ],
        );
        let ran = self
            .finish(command, "commit-tree", Some(message.as_bytes()), LOCAL)
            .await?;
        match ran.ok {
            true => Ok(ran.text()),
            false => Err(self.failed("git commit-tree", said(&ran.talk))),
        }
    }

    /// Starts a command that is fed and read meanwhile; dropped, it ends.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<Child, Error> {
        let mut command = self.command(arguments, &[]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().map_err(|error| self.absent(&error))
    }

    async fn finish(
        &self,
        mut command: Command,
        name: &str,
        input: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Ran, Error> {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.absent(&error))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A command that fails need not read its input.
                stdin.write_all(input).await.ok();
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()) };
        let Ok(((), output)) = tokio::time::timeout(limit, both).await else {
            let why = format!("did not end within {} s", limit.as_secs());
            return Err(self.failed(&format!("git {name}"), why));
        };
        let output = output.map_err(|error| self.failed(&format!("git {name}"), error.to_string()))?;
        Ok(Ran {
            out: output.stdout,
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
            ok: output.status.success(),
        })
    }

    fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GIT_") && !KEPT.iter().any(|kept| text.starts_with(kept)) {
                command.env_remove(&name);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .envs(environment.iter().copied())
            .arg("-C")
            .arg(&self.path);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments).kill_on_drop(true);
        command
    }

    fn absent(&self, error: &std::io::Error) -> Error {
        Error::Git {
            what: format!("{}: cannot run git", self.path.display()),
            why: error.to_string(),
            next: "install git (2.29 or later) and have it on PATH, or go without --git and MESH_GIT"
                .to_owned(),
        }
    }
}

/// What git said, on one line.
pub(super) fn said(talk: &str) -> String {
    let lines: Vec<&str> = talk
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    if lines.is_empty() {
        return "it failed and did not say why".to_owned();
    }
    lines.join("; ")
}
