//! Git repositories of a test.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The end of the test, loudly, on a machine without git.
macro_rules! skip_without_git {
    () => {
        if std::process::Command::new("git")
            .arg("--version")
            .output()
            .is_err()
        {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            return crate::mesh::support::skipped(&test, "no git on PATH");
        }
    };
}
pub(crate) use skip_without_git;

/// The sequences of an instance's events in the order of the stream.
pub fn seqs(events: &[Value], instance: &str) -> Vec<u64> {
    let of_it = events.iter().filter(|event| event["instance"] == instance);
    of_it.map(|event| event["seq"].as_u64().unwrap()).collect()
}

pub struct Repo {
    pub path: PathBuf,
}

impl Repo {
    fn init(dir: &Path, name: &str, options: &[&str]) -> Self {
        let path = dir.join(name);
        fs::create_dir_all(&path).unwrap();
        let repo = Self { path };
        repo.git(&[&["init", "-q", "-b", "main"], options].concat());
        repo
    }

    pub fn bare(dir: &Path, name: &str) -> Self {
        Self::init(dir, name, &["--bare"])
    }

    pub fn sha256(dir: &Path, name: &str) -> Self {
        Self::init(dir, name, &["--bare", "--object-format=sha256"])
    }

    /// One with a commit, and files that are staged, changed and unknown.
    pub fn new(dir: &Path, name: &str) -> Self {
        let repo = Self::init(dir, name, &[]);
        repo.worked_on();
        repo
    }

    /// A clone beside this one, worked on.
    pub fn cloned(&self, name: &str) -> Self {
        let dir = self.path.parent().unwrap();
        let path = dir.join(name);
        self.git(&["clone", "-q", self.str(), path.to_str().unwrap()]);
        let repo = Self { path };
        repo.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
        repo.worked_on();
        repo
    }

    fn worked_on(&self) {
        self.write("file", "one\n");
        self.git(&["add", "file"]);
        self.git(&["commit", "-q", "-m", "first"]);
        self.write("staged", "staged\n");
        self.git(&["add", "staged"]);
        self.write("file", "changed\n");
        self.write("unknown", "unknown\n");
    }

    /// Leaves a merge that met a conflict.
    pub fn in_the_middle_of_a_merge(&self) {
        self.git(&["reset", "-q", "--hard"]);
        self.git(&["checkout", "-q", "-b", "side"]);
        for (branch, text) in [("side", "theirs\n"), ("main", "ours\n")] {
            self.git(&["checkout", "-q", branch]);
            self.write("file", text);
            self.git(&["commit", "-q", "-a", "-m", branch]);
        }
        assert!(!self.try_git(&["merge", "-q", "side"]).0);
        assert!(self.path.join(".git/MERGE_HEAD").exists());
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path.join(name), text).unwrap();
    }

    pub fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Runs git, which must succeed; gives its stdout.
    pub fn git(&self, arguments: &[&str]) -> String {
        let (ok, out, talk) = self.try_git(arguments);
        assert!(ok, "git {arguments:?}: {talk}");
        out
    }

    pub fn try_git(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.path)
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "-c",
                "advice.detachedHead=false",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// All refs of the mesh.
    pub fn refs(&self) -> Vec<String> {
        let list = [
            "for-each-ref",
            "--format=%(refname)",
            "refs/mesh/",
            "refs/mesh-remotes/",
        ];
        self.git(&list).lines().map(str::to_owned).collect()
    }

    /// Every file there is but for objects and the refs of the mesh.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn gather(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let left_out = ["objects", "refs/mesh", "refs/mesh-remotes"];
                if left_out.iter().any(|end| path.ends_with(end)) {
                    continue;
                }
                if path.is_dir() {
                    gather(&path, into);
                } else {
                    into.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        gather(&self.path, &mut found);
        assert!(found.len() > 2);
        found
    }

    /// The spool of an instance that emitted events 1 to `count` on some other machine.
    pub fn spool(&self, instance: &str, count: u64) {
        let blobs = (1..=count).map(|seq| {
            let body = json!({"text": format!("{instance} {seq}")}).to_string();
            event(instance, seq, seq - 1, body.as_bytes())
        });
        self.chain(instance, blobs.collect());
    }

    /// A ref of commits with these files `event`, oldest first.
    pub fn chain(&self, instance: &str, blobs: Vec<Vec<u8>>) {
        let mut stream = Vec::new();
        for blob in blobs {
            let id = blob.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let id = serde_json::from_slice::<Value>(id)
                .ok()
                .and_then(|head| head["id"].as_str().map(str::to_owned));
            let message = id.map_or_else(
                || "whatever\n".to_owned(),
                |id| format!("an event\n\nMesh-Id: {id}\n"),
            );
            write!(
                stream,
                "commit refs/mesh/{instance}\ncommitter t <t@t> 1700000000 +0000\ndata {}\n{message}\nM 100644 inline event\ndata {}\n",
                message.len(),
                blob.len()
            )
            .unwrap();
            stream.extend(blob);
            stream.push(b'\n');
        }
        let mut command = self.command(&["fast-import", "--quiet"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&stream).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Takes an object away, as a disk might.
    pub fn lose(&self, object: &str) {
        let object = self.git(&["rev-parse", object]);
        let git = self.git(&["rev-parse", "--absolute-git-dir"]);
        let (dir, file) = object.split_at(2);
        fs::remove_file(Path::new(&git).join("objects").join(dir).join(file)).unwrap();
    }
}

/// What a commit of a spool holds.
pub fn event(instance: &str, seq: u64, after: u64, body: &[u8]) -> Vec<u8> {
    let head = json!({
        "version": 1,
        "instance": instance,
        "journal": format!("J{instance}"),
        "seq": seq,
        "after": after,
        "id": format!("{instance}.J{instance}.{seq}"),
        "event": "fo_insight",
        "subject": "mesh.fo.insight",
        "time": "2026-11-23T05:20:01Z",
    });
    [head.to_string().as_bytes(), b"\n", body].concat()
}
