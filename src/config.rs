//! The settings of a whole server, in code; the command line fills them from flags and the environment.

use std::path::PathBuf;

use crate::account::Auth;
use crate::connection;

/// The port of the mesh.
pub const PORT: u16 = 7778;
/// The port of its monitoring.
pub const MONITOR_PORT: u16 = 8778;

/// See the module documentation. `Config::default()` is what `mesh serve` runs without flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on: a name or number without port.
    pub host: String,
    /// Client port; zero picks a free one.
    pub port: u16,
    /// Monitoring port on the same address; `None` turns it off, zero picks a free one.
    pub monitor_port: Option<u16>,
    /// Names, besides loopback and the bound address, by which monitoring may be asked for (the `Host` of a request).
    pub monitor_hosts: Vec<String>,
    /// Where streams are kept; `None` runs without streams.
    pub store_dir: Option<PathBuf>,
    /// The server's name; its id when absent.
    pub name: Option<String>,
    /// What clients must show.
    pub auth: Auth,
    /// Listen beyond loopback even though anybody may come in.
    pub open_to_all: bool,
    /// Limits and times of connections.
    pub connections: connection::Options,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: PORT,
            monitor_port: Some(MONITOR_PORT),
            monitor_hosts: Vec::new(),
            store_dir: None,
            name: None,
            auth: Auth::Open,
            open_to_all: false,
            connections: connection::Options::default(),
        }
    }
}

impl Config {
    /// For a server inside another program: loopback, a free client port, no monitoring, nothing on disk.
    pub fn embedded() -> Self {
        Self {
            port: 0,
            monitor_port: None,
            store_dir: None,
            ..Self::default()
        }
    }
}

/// The platform's place for the data of a program: what `--store-dir` defaults to.
pub fn default_store_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    if let Some(data) = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(data).join("mesh");
    }
    if cfg!(target_os = "macos") {
        home().join("Library/Application Support/mesh")
    } else if cfg!(windows) {
        std::env::var_os("LOCALAPPDATA")
            .map_or_else(home, PathBuf::from)
            .join("mesh")
    } else {
        home().join(".local/share/mesh")
    }
}
