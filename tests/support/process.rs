//! Servers as processes: the `mesh` binary under test, and a real `nats-server` where there is one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::PATIENCE;

/// The line that both servers print once they listen.
const LISTENING: &str = "Listening for client connections on ";

#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

/// A child process whose stderr is gathered; killed by its id when dropped.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    address: String,
    /// Lives as long as the process.
    _directory: TempDir,
}

impl Process {
    /// `mesh serve` with `args` on a free port, unless they say otherwise, and a temporary store directory.
    pub fn mesh(args: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut command = mesh_command();
        command.args(["serve", "--monitor-port", "0"]).args(args);
        if !args.contains(&"-p") {
            command.args(["-p", "-1"]);
        }
        if !args.contains(&"--store-dir") {
            command.arg("--store-dir").arg(directory.path());
        }
        Self::listening(command, directory)
    }

    /// `mesh serve` with a configuration file on a free port, and a temporary store directory.
    pub fn mesh_with(config: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let file = directory.path().join("mesh.conf");
        std::fs::write(&file, config).expect("writing the configuration");
        let mut command = mesh_command();
        command.args(["serve", "-p", "-1", "--monitor-port", "0", "--no-mesh", "-c"]);
        command.arg(file);
        command.arg("--store-dir").arg(directory.path().join("store"));
        Self::listening(command, directory)
    }

    /// A real nats-server with `config` on a free port; none when there is no such program.
    pub fn nats(config: &str) -> Option<Self> {
        let program = nats_server()?;
        let directory = TempDir::new().expect("a temporary directory");
        let file = directory.path().join("server.conf");
        let store = directory.path().display();
        let text = format!("listen: \"127.0.0.1:-1\"\nstore_dir: \"{store}\"\n{config}\n");
        std::fs::write(&file, text).expect("writing the configuration");
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        Some(Self::listening(command, directory))
    }

    /// Starts `command` and waits until it listens.
    pub fn listening(command: Command, directory: TempDir) -> Self {
        let mut process = Self::spawn(command, directory);
        let log = process.wait_for(LISTENING);
        let at = log.rfind(LISTENING).expect("waited for") + LISTENING.len();
        // In JSON the text of the line ends with a quote.
        let address = log[at..].split(['\n', '"']).next();
        process.address = address.expect("an address").trim().to_owned();
        process
    }

    /// Starts `command` with its stderr gathered.
    pub fn spawn(mut command: Command, directory: TempDir) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Log::default());
        let gathered = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = gathered.text.lock().unwrap();
                text.0.push_str(&line);
                text.0.push('\n');
                gathered.grown.notify_all();
            }
            gathered.text.lock().unwrap().1 = true;
            gathered.grown.notify_all();
        });
        Self {
            child,
            log,
            address: String::new(),
            _directory: directory,
        }
    }

    /// `host:port` of the client listener.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port of the client listener.
    pub fn port(&self) -> u16 {
        let port = self.address.rsplit(':').next().expect("host:port");
        port.parse().expect("a port number")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything on stderr once `text` has appeared there.
    pub fn wait_for(&self, text: &str) -> String {
        let log = self.log.text.lock().unwrap();
        let waiting = |log: &mut (String, bool)| !log.0.contains(text) && !log.1;
        let (log, timeout) = self.log.grown.wait_timeout_while(log, PATIENCE, waiting).unwrap();
        let found = log.0.contains(text);
        assert!(
            found,
            "no {text:?} (timed out: {}) in:\n{}",
            timeout.timed_out(),
            log.0
        );
        log.0.clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running:\n{}",
                self.log.text.lock().unwrap().0
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kibibytes of resident memory.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("Linux");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The binary under test, without any setting of the caller's environment.
pub fn mesh_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MESH_") || text.starts_with("NATS_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The nats-server to compare with: the variable `NATS_SERVER`, else the search path.
pub fn nats_server() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("NATS_SERVER") {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("nats-server"))
        .find(|program| program.is_file())
}
