//! A server for tests of programs that talk to one.

use std::time::Duration;

use crate::config::Config;

use super::Server;

/// A server on a free loopback port, for tests of programs that talk to one; it stops when dropped.
///
/// It runs on a runtime of its own, so that it works in tests with or without an async runtime.
pub struct TestServer {
    server: Option<Server>,
    runtime: Option<tokio::runtime::Runtime>,
    /// Removed when the server has stopped; `None` when the caller named a store directory.
    _directory: Option<TempDir>,
}

impl TestServer {
    /// Starts with default settings, on free ports.
    ///
    /// # Panics
    /// When the system has no free port or no room for a directory.
    pub fn start() -> Self {
        Self::with(Config::default())
    }

    /// Starts with `config`, but on free ports, and with a temporary store directory unless it names one.
    ///
    /// # Panics
    /// When the server does not start.
    pub fn with(mut config: Config) -> Self {
        config.port = 0;
        config.monitor_port = config.monitor_port.map(|_| 0);
        let directory = config.store_dir.is_none().then(TempDir::new);
        if let Some(directory) = &directory {
            config.store_dir = Some(directory.0.clone());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("the system starts threads");
        // A thread of its own: a test may be running on a runtime already.
        let starting = std::thread::spawn(move || {
            let server = runtime.block_on(Server::start(config));
            (runtime, server.expect("a test server starts on a free port"))
        });
        let (runtime, server) = starting.join().expect("the panic has said why");
        Self {
            server: Some(server),
            runtime: Some(runtime),
            _directory: directory,
        }
    }

    /// The running server.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("present until dropped")
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.server().client_url()
    }

    /// Where monitoring is served, without a slash at the end.
    ///
    /// # Panics
    /// When the configuration turned it off.
    pub fn monitor_url(&self) -> String {
        let address = self.server().monitor_addr().expect("monitoring is on");
        let scheme = if self.server().config().monitor_tls {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{address}")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let (Some(server), Some(runtime)) = (self.server.take(), self.runtime.take()) else {
            return;
        };
        // A thread of its own: a test's runtime must not be blocked from within.
        let stopping = std::thread::spawn(move || {
            runtime.block_on(server.shutdown());
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        stopping.join().ok();
    }
}

/// A directory of our own under the system's temporary one.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mesh-test-{}", nuid::next()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
