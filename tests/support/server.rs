//! Servers to test against: ours, and nats-server where it is found.
//!
//! Core features are tested against `mesh serve`. What needs JetStream runs against ours as soon as its INFO
//! says that it has it, and until then against nats-server (`NATS_SERVER`, or `nats-server` on the PATH).
//! `MESH_TEST_SERVER=nats` runs everything against nats-server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A server of its own on a free port of loopback, with an empty store; it ends with this value.
pub struct Server {
    process: Child,
    port: u16,
    _store: tempfile::TempDir,
}

impl Server {
    /// A server with the core protocol; none is a loud skip.
    pub fn core() -> Option<Self> {
        Self::core_with(&[])
    }

    /// A server with more flags that both servers know (`--user`, `--pass`).
    pub fn core_with(flags: &[&str]) -> Option<Self> {
        match std::env::var("MESH_TEST_SERVER").as_deref() {
            Ok("nats") => Self::nats(flags),
            _ => Some(Self::ours(flags)),
        }
    }

    /// A server with JetStream; none is a loud skip.
    pub fn jetstream() -> Option<Self> {
        if std::env::var("MESH_TEST_SERVER").as_deref() != Ok("nats") {
            let ours = Self::ours(&[]);
            if ours.info().contains(r#""jetstream":true"#) {
                return Some(ours);
            }
        }
        Self::nats(&["-js"])
    }

    /// The URL of its client port.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address of its client port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn ours(flags: &[&str]) -> Self {
        let store = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args([
            "serve",
            "-p",
            "-1",
            "--monitor-port",
            "0",
            "--no-mesh",
            "--store-dir",
        ]);
        command.arg(store.path()).args(flags);
        Self::launch(command, store).expect("mesh serve starts")
    }

    /// nats-server itself; none is a loud skip.
    pub fn nats(flags: &[&str]) -> Option<Self> {
        let store = tempfile::tempdir().unwrap();
        let program = std::env::var_os("NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from);
        let mut command = Command::new(&program);
        command.args(["-a", "127.0.0.1", "-p", "-1", "-sd"]);
        command.arg(store.path()).args(flags);
        Self::launch(command, store)
            .map_err(|error| {
                // Written past the capture of the test harness: a test that did not run must not look like one that did.
                let name = std::thread::current().name().unwrap_or("a test").to_owned();
                let skip = format!(
                    "\nSKIPPED {name}: {}: {error}; set NATS_SERVER\n",
                    program.display()
                );
                std::io::stderr().write_all(skip.as_bytes()).ok();
            })
            .ok()
    }

    /// Starts a server and waits until it says on stderr where it listens: both do so in the same words.
    fn launch(mut command: Command, store: tempfile::TempDir) -> std::io::Result<Self> {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_")) {
            command.env_remove(name);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = process.stderr.take().expect("stderr is piped");
        let (found, port) = mpsc::channel();
        // Reads on for as long as the server lives: a full pipe would stop it.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let address = line.split("Listening for client connections on ").nth(1);
                let port = address.and_then(|address| address.trim().rsplit(':').next()?.parse().ok());
                if let Some(port) = port {
                    found.send(port).ok();
                }
            }
        });
        let mut server = Self {
            process,
            port: 0,
            _store: store,
        };
        server.port = port
            .recv_timeout(Duration::from_secs(20))
            .map_err(|_| std::io::Error::other("it did not say where it listens"))?;
        Ok(server)
    }

    fn info(&self) -> String {
        let mut socket = TcpStream::connect(self.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while socket.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
