//! The settings of a whole server: in code, from a configuration file, and as text.
//!
//! [`Config`] is what a server is started with, [`Process`] what the program around it does besides. [`load`] reads both
//! from a file in the language of nats-server's; the command line overrides what it says.

pub(crate) mod fields;
mod file;
pub mod language;
mod process;
mod settings;
mod shown;

use std::path::PathBuf;
use std::time::Duration;

use crate::account::{Auth, GLOBAL, Spec};
use crate::connection::{self, tls};
use crate::jetstream::stream::config::StreamConfig;
use crate::store::Sync;

pub use file::{File, load, load_text};
pub use process::{LogFormat, Process};
pub use settings::{effective, effective_lines, sample};

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
    /// Address to serve monitoring on; that of clients when absent.
    pub monitor_host: Option<String>,
    /// Names, besides loopback and the bound address, by which monitoring may be asked for (the `Host` of a request).
    pub monitor_hosts: Vec<String>,
    /// Where streams are kept; `None` runs without streams.
    pub store_dir: Option<PathBuf>,
    /// When what is stored counts as durable.
    pub sync: Sync,
    /// The JetStream domain, if this server has one.
    pub domain: Option<String>,
    /// Refuse JetStream requests with fields that are not known.
    pub strict: bool,
    /// Bytes that the memory streams of all accounts may hold together; none is no limit.
    pub memory_max: Option<u64>,
    /// Bytes that the file streams of all accounts may hold together; none is no limit.
    pub storage_max: Option<u64>,
    /// Streams and consumers that are to be there once the server serves.
    pub assets: Assets,
    /// The server's name; its id when absent.
    pub name: Option<String>,
    /// `host:port` by which clients elsewhere reach this server, where that is not what it listens on.
    pub advertise: Option<String>,
    /// Labels of the server.
    pub tags: Vec<String>,
    /// What clients must show.
    pub auth: Auth,
    /// Accounts: what they share, and what they may use. `$G` and the system account are there even when they are not among
    /// them. Empty: everyone is in `$G`, which has streams without limits. Otherwise an account has streams when its
    /// [`Spec::streams`] says so, and `$G` has none unless it is among them and says so too. What makes no sense together
    /// ([`crate::account::check`]) keeps a server from starting.
    pub accounts: Vec<Spec>,
    /// The account in which the server speaks of itself, made when it is not among `accounts`; `$SYS` when absent.
    pub system_account: Option<String>,
    /// Listen beyond loopback even though anybody may come in.
    pub open_to_all: bool,
    /// Limits and times of connections.
    pub connections: connection::Options,
    /// Encrypts client connections: certificates, and what is asked of clients. `None` serves in clear.
    pub tls: Option<tls::Options>,
    /// Serves monitoring over HTTPS, with the certificates of `tls`.
    pub monitor_tls: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: PORT,
            monitor_port: Some(MONITOR_PORT),
            monitor_host: None,
            monitor_hosts: Vec::new(),
            store_dir: None,
            sync: Sync::Always,
            domain: None,
            strict: true,
            memory_max: None,
            storage_max: None,
            assets: Assets::default(),
            name: None,
            advertise: None,
            tags: Vec::new(),
            auth: Auth::Open,
            accounts: Vec::new(),
            system_account: None,
            open_to_all: false,
            connections: connection::Options::default(),
            tls: None,
            monitor_tls: false,
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

    /// Whether an account has streams, where any are kept; the rule stands at [`Config::accounts`].
    pub fn has_streams(&self, account: &str) -> bool {
        if self.accounts.is_empty() {
            return account == GLOBAL;
        }
        let mut specs = self.accounts.iter();
        specs.any(|spec| &*spec.name == account && spec.streams.is_some())
    }
}

/// Streams and consumers that a configuration declares: created or updated when the server starts, never deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assets {
    /// Streams, in the order they are declared.
    pub streams: Vec<StreamConfig>,
    /// Consumers with the names of their streams; the wire's JSON.
    pub consumers: Vec<(String, serde_json::Map<String, serde_json::Value>)>,
}

impl Assets {
    /// Whether none are declared.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.consumers.is_empty()
    }
}

/// Bytes: a number with an optional unit, powers of 1024.
pub fn size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected bytes such as 4096, 64k or 8MiB".to_owned()),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "expected bytes such as 4096, 64k or 8MiB")?;
    number
        .checked_shl(shift)
        .filter(|&size| size >> shift == number && size > 0)
        .ok_or("not a usable size".to_owned())
}

/// A time such as `500ms`, `2m` or `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "expected a time such as 500ms, 10s or 2m")?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".to_owned())
}

/// `always`, or a time.
pub fn sync(text: &str) -> Result<Sync, String> {
    if text.eq_ignore_ascii_case("always") {
        return Ok(Sync::Always);
    }
    match duration(text)? {
        Duration::ZERO => Ok(Sync::Always),
        every => Ok(Sync::Interval(every)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [("1", 1), ("64k", 65_536), ("8MiB", 8 << 20), ("1 gb", 1 << 30)] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "0",
            "x",
            "1x",
            "-1",
            "99999999999999999999",
            "18446744073709551615k",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("3", 3000), ("500ms", 500), ("2m", 120_000), ("1h30m", 5_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "x", "-1s", "5 parsecs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
