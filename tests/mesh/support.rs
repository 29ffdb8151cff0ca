//! A server of either kind, and the `mesh` command as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::free_port;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which server a test runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NatsServer,
    MeshServe,
}

impl Kind {
    /// The command that starts it, or why there is none here.
    fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::NatsServer => {
                if let Some(named) = std::env::var_os("NATS_SERVER") {
                    return Ok(named.into());
                }
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path)
                    .map(|dir| dir.join("nats-server"))
                    .find(|file| file.is_file());
                found.ok_or_else(|| "no nats-server: set NATS_SERVER or put it on PATH".to_owned())
            }
            Self::MeshServe => {
                let help = Command::new(mesh_bin())
                    .args(["serve", "--help"])
                    .output()
                    .unwrap();
                if help.status.success() {
                    Ok(mesh_bin())
                } else {
                    Err("this build has no `mesh serve`".to_owned())
                }
            }
        }
    }
}

/// Says on the terminal, whatever the test harness captures, that something was not tested.
pub fn skipped(what: &str, why: &str) {
    assert!(
        std::env::var_os("MESH_TEST_REQUIRE_ALL").is_none(),
        "not tested: {what}: {why}"
    );
    writeln!(std::io::stderr(), "SKIPPED {what}: {why}").ok();
}

/// The Python that has nats-py, if there is one.
pub fn python() -> Result<PathBuf, String> {
    let named = std::env::var_os("MESH_TEST_PYTHON").ok_or("MESH_TEST_PYTHON names no Python")?;
    let has = Command::new(&named).args(["-c", "import nats"]).output();
    match has {
        Ok(output) if output.status.success() => Ok(named.into()),
        _ => Err(format!("{} has no nats-py", named.display())),
    }
}

pub fn mesh_bin() -> PathBuf {
    env!("CARGO_BIN_EXE_mesh").into()
}

/// A running server with a store of its own; dropped, it is killed.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    pub dir: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// Starts one, or skips the test loudly.
    pub fn start(kind: Kind) -> Option<Self> {
        if let Err(why) = kind.program() {
            let test = thread::current().name().unwrap_or_default().to_owned();
            skipped(&test, &why);
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = launch(kind, port, dir.path());
        let server = Self {
            kind,
            port,
            dir,
            child,
        };
        if !server.has_streams() {
            let test = thread::current().name().unwrap_or_default().to_owned();
            skipped(&test, &format!("{kind:?} has no JetStream"));
            return None;
        }
        Some(server)
    }

    /// Whether it says in its INFO that it keeps streams.
    fn has_streams(&self) -> bool {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut info = String::new();
        BufReader::new(socket).read_line(&mut info).unwrap();
        info.contains(r#""jetstream":true"#)
    }

    /// SIGKILL: nothing is said, nothing is flushed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = launch(self.kind, self.port, self.dir.path());
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// `mesh` as instance `instance`, with a journal of its own in the test's directory.
    pub fn mesh(&self, instance: &str, args: &[&str]) -> Command {
        let mut command = Command::new(mesh_bin());
        command.args(args);
        self.environment(&mut command, instance);
        command
    }

    /// What every process of the test finds in its environment.
    pub fn environment(&self, command: &mut Command, instance: &str) {
        command
            .env("MESH_URL", self.url())
            .env("MESH_INSTANCE", instance)
            .env("MESH_STATE_DIR", self.dir.path().join("state"))
            .env("MESH_EVENTS", self.dir.path().join("events.json"))
            .env("MESH", mesh_bin())
            .env_remove("MESH_SESSION")
            .env_remove("MESH_PARENT_SESSION");
    }

    /// Runs `mesh` to its end.
    pub fn run(&self, instance: &str, args: &[&str]) -> Ran {
        Ran::of(self.mesh(instance, args))
    }

    /// Runs `mesh`, which must succeed, and gives its stdout.
    pub fn ok(&self, instance: &str, args: &[&str]) -> String {
        let ran = self.run(instance, args);
        assert_eq!(ran.code, 0, "mesh {args:?}: {ran:?}");
        ran.out
    }

    /// Runs `mesh --json`, which must succeed, and gives what each line says.
    pub fn json(&self, instance: &str, args: &[&str]) -> Vec<Value> {
        let args = [args, &["--json"]].concat();
        self.ok(instance, &args)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn launch(kind: Kind, port: u16, dir: &Path) -> Child {
    let program = kind.program().unwrap();
    let mut command = Command::new(program);
    let store = dir.join("store");
    match kind {
        Kind::NatsServer => {
            command
                .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
                .arg(store);
        }
        Kind::MeshServe => {
            command
                .args([
                    "serve",
                    "--monitor-port",
                    "0",
                    "-a",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "--store-dir",
                ])
                .arg(store);
        }
    }
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("server.log"))
        .unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut word = [0; 4];
        let greeted =
            TcpStream::connect(("127.0.0.1", port)).and_then(|mut socket| socket.read_exact(&mut word));
        if greeted.is_ok() && &word == b"INFO" {
            return child;
        }
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "{kind:?} does not start: {ended:?} {}",
            std::fs::read_to_string(dir.join("server.log")).unwrap()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::from_output(command.output().unwrap())
    }

    /// Runs with `input` on stdin.
    pub fn fed(mut command: Command, input: &[u8]) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap().ok();
        Self::from_output(output)
    }

    fn from_output(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A process that runs beside the test; dropped, it is killed.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts it and collects its stdout by lines.
    pub fn start(mut command: Command) -> Self {
        command.stderr(Stdio::inherit());
        Self::start_heard(command)
    }

    /// The same; where its stderr goes is the command's affair.
    pub fn start_heard(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Starts it and listens to nothing it says.
    pub fn start_quiet(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self::start_silent(command)
    }

    /// Starts it; where its stdout goes is the command's affair.
    pub fn start_silent(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let (_, lines) = mpsc::channel();
        Self { child, lines }
    }

    /// The next line; panics when it does not come.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output")
    }

    /// The next line as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// A line that is there already.
    pub fn no_line(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.child.id().to_string());
        let sent = Command::new("kill").args([signal, pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
