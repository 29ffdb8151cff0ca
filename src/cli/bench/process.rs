//! The server as the operating system sees it: which process listens on a port, its processor time
//! and memory, and servers started for one benchmark.
//!
//! Everything read here comes from `/proc`; elsewhere the figures are absent, never guessed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::wire::{Conn, Target};

/// How long a server may take until it answers its first ping.
const START_MAX: Duration = Duration::from_secs(20);

/// The process that listens on the port of `address` on this machine, if this user may see it.
pub fn listening_on(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, address.port()))
        .collect();
    let owns = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|open| {
            open.flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .filter_map(|link| {
                    Some(
                        link.to_str()?
                            .strip_prefix("socket:[")?
                            .trim_end_matches(']')
                            .to_owned(),
                    )
                })
                .any(|inode| inodes.contains(&inode))
        })
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(owns)
}

/// The inodes of the listening sockets on `port` in a table of the form of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let matches = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
            matches.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

/// Processor time a process has used, user and system, all threads.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold blanks: count fields after its closing bracket, where utime is 12th.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(
        (user + system) as f64 / per_second as f64,
    ))
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Processes that wanted a processor over the last minute, if they are more than a quiet machine has.
pub fn other_load() -> Option<f64> {
    let load: f64 = fs::read_to_string("/proc/loadavg")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let processors = thread::available_parallelism().ok()?.get() as f64;
    (load > processors / 2.0).then_some(load)
}

/// Lets this process hold as many connections as the system permits, and says how many files that is.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused only where it was not needed: what holds afterwards is what is reported.
    setrlimit(Resource::Nofile, raised).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Bytes a directory takes on disk: blocks allocated, not lengths.
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// A server started for this benchmark alone, on a free port with a store of its own; gone when dropped.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    directory: PathBuf,
    /// Its URL.
    pub url: String,
    /// The URL of its monitoring, if it was to have any.
    pub monitor: Option<String>,
}

impl Spawned {
    /// Starts `program`, which is a `nats-server` if its name says so and `mesh` otherwise.
    /// `sync` is when its store syncs: `always`, a duration, or the server's default; `monitored` has it show its pages.
    pub fn start(program: &Path, sync: Option<&str>, monitored: bool) -> io::Result<Self> {
        // Held until both are chosen, so that they differ.
        let free = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        ];
        let (port, monitor) = (free[0].local_addr()?.port(), free[1].local_addr()?.port());
        drop(free);
        let monitor = monitored.then_some(monitor);
        let directory = std::env::temp_dir().join(format!("mesh-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let name = program
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let mut command = Command::new(program);
        if name.is_some_and(|name| name.contains("nats-server")) {
            let conf = directory.join("bench.conf");
            fs::write(&conf, nats_server_conf(&directory, sync))?;
            command
                .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c"])
                .arg(conf);
            if let Some(monitor) = monitor {
                command.args(["-m", &monitor.to_string()]);
            }
        } else {
            command.args([
                "serve",
                "-p",
                &port.to_string(),
                "--monitor-port",
                &monitor.unwrap_or(0).to_string(),
                "--store-dir",
            ]);
            command.arg(directory.join("store"));
            if let Some(sync) = sync {
                command.args(["--sync", sync]);
            }
        }
        // Settings meant for another server of this machine, credentials above all, are none of its.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MESH_") {
                command.env_remove(name);
            }
        }
        let log = fs::File::create(directory.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        spawned_now().push((child.id(), directory.clone()));
        let mut spawned = Self {
            child,
            directory,
            url: format!("nats://127.0.0.1:{port}"),
            monitor: monitor.map(|monitor| format!("http://127.0.0.1:{monitor}")),
        };
        spawned.until_ready()?;
        Ok(spawned)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it stores.
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn until_ready(&mut self) -> io::Result<()> {
        let target = Target::parse(&self.url)?;
        let start = Instant::now();
        loop {
            if Conn::open(&target, 0).is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait()?.is_some();
            if ended || start.elapsed() > START_MAX {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "the server did not start: {}",
                    log.trim()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn nats_server_conf(directory: &Path, sync: Option<&str>) -> String {
    let sync = sync
        .map(|sync| format!("sync_interval: {sync}\n"))
        .unwrap_or_default();
    let store = directory.join("store");
    format!(
        "jetstream {{\nstore_dir: {:?}\n{sync}}}\n",
        store.display().to_string()
    )
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Off the list before the process is reaped: from then on its id may be another's.
        spawned_now().retain(|(pid, _)| *pid != self.child.id());
        // It holds nothing anyone wants: no graceful end needed, and errors leave nothing to do.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// The servers started and not yet ended, with their directories.
static SPAWNED: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

fn spawned_now() -> MutexGuard<'static, Vec<(u32, PathBuf)>> {
    SPAWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interrupted benchmark takes the servers it started with it.
pub fn end_spawned_on_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let code = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).ok()?;
            let mut terminate = signal(SignalKind::terminate()).ok()?;
            tokio::select! {
                _ = interrupt.recv() => Some(130),
                _ = terminate.recv() => Some(143),
            }
        });
        let Some(code) = code else { return };
        // Held to the end: nothing may be started any more.
        let spawned = spawned_now();
        for (pid, directory) in spawned.iter() {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL).ok();
            }
            fs::remove_dir_all(directory).ok();
        }
        std::process::exit(code);
    })?;
    Ok(())
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
