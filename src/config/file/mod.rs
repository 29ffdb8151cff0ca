//! What the keys of a configuration file mean: from its map to a [`Config`] and a [`Process`].
//!
//! Names and meanings are nats-server's (protocol page 2.7); `monitor_hosts`, `log_format`, `i_know_this_is_open`, `no_mesh`, `streams`
//! and `consumers` are our own. A key of a part that is not built is named: an error where somebody relies on it, a warning
//! where it is harmless (`unsupported`). All problems of a file are reported at once.

mod accounts;
mod assets;
mod authorization;
mod jetstream;
mod mappings;
mod operator;
mod shares;
#[cfg(test)]
mod tests;
mod tls;
mod unsupported;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fields::Notes;
use super::language::{self, Entry, Loaded, Map, Problem};
use super::{Config, LogFormat, Process};
use crate::account::Auth;

use authorization::Authorization;

/// The shortest lame duck duration, as in nats-server.
const LAME_DUCK_MIN: Duration = Duration::from_secs(30);
/// The largest payload and control line, as in nats-server.
const PAYLOAD_MAX: usize = (1 << 31) - 1;

/// The keys that mean something.
const KEYS: [&str; 62] = [
    "accounts",
    "addr",
    "allow_non_tls",
    "authorization",
    "client_advertise",
    "consumers",
    "debug",
    "host",
    "http",
    "http_port",
    "https",
    "https_port",
    "i_know_this_is_open",
    "jetstream",
    "lame_duck_duration",
    "listen",
    "log_file",
    "log_format",
    "log_max_num",
    "log_size_limit",
    "logfile",
    "logtime",
    "logtime_utc",
    "mappings",
    "max_conn",
    "max_connections",
    "max_control_line",
    "max_payload",
    "max_pending",
    "max_sub_tokens",
    "max_subs",
    "max_subscriptions",
    "monitor_hosts",
    "monitor_port",
    "net",
    "no_auth_user",
    "no_mesh",
    "operator",
    "pid_file",
    "pidfile",
    "ping_interval",
    "ping_max",
    "port",
    "ports_file_dir",
    "resolver",
    "resolver_preload",
    "server_name",
    "server_tags",
    "store_dir",
    "storedir",
    "streams",
    "system_account",
    "tls",
    "trace",
    "trace_headers",
    "trace_verbose",
    "write_deadline",
    // What is not built, where a misspelling is likely.
    "cluster",
    "gateway",
    "leafnodes",
    "mqtt",
    "websocket",
];

/// What a file says, on top of the settings it was read over.
#[derive(Debug)]
pub struct File {
    /// The server.
    pub config: Config,
    /// The process around it.
    pub process: Process,
    /// Whether streams are wanted, if it says so.
    pub jetstream: Option<bool>,
    /// Where they are kept, if it says so.
    pub store_dir: Option<PathBuf>,
    /// What is odd but harmless.
    pub warnings: Vec<Problem>,
    /// SHA-256 of all that was read, in hexadecimal.
    pub digest: String,
}

/// Reads a file over the settings of `config` and `process`: what it does not mention stays. Variables it does not set come
/// from the environment of this process. Either all problems come back, or none was found.
pub fn load(path: &Path, config: Config, process: Process) -> Result<File, Vec<Problem>> {
    let loaded =
        language::load_file(path, &|name| std::env::var(name).ok()).map_err(|problem| vec![problem])?;
    if loaded.map.entries().is_empty() {
        let text = format!("{}: the file has no values or is empty", path.display());
        return Err(vec![Problem { spot: None, text }]);
    }
    read(loaded, config, process)
}

/// The same for text, called `name` in messages.
pub fn load_text(name: &str, text: &str, config: Config, process: Process) -> Result<File, Vec<Problem>> {
    let loaded =
        language::load_text(name, text, &|name| std::env::var(name).ok()).map_err(|problem| vec![problem])?;
    read(loaded, config, process)
}

fn read(loaded: Loaded, config: Config, process: Process) -> Result<File, Vec<Problem>> {
    let mut reading = Reading {
        notes: Notes::default(),
        config,
        process,
        jetstream: jetstream::Streams::default(),
        accounts: accounts::Accounts::default(),
        authorization: None,
        no_auth_user: None,
        tls: None,
        allow_non_tls: None,
        has_auth_timeout: false,
        monitor: None,
    };
    reading.entries(&loaded.map);
    reading.credentials(operator::is_on(&loaded.map));
    operator::read(&loaded.map, &mut reading.config, &mut reading.notes);
    reading.encryption();
    let Reading {
        notes,
        config,
        process,
        jetstream,
        ..
    } = reading;
    let mut warnings = loaded.warnings;
    warnings.extend(notes.warnings);
    if !notes.errors.is_empty() {
        return Err(notes.errors);
    }
    Ok(File {
        config,
        process,
        jetstream: jetstream.enabled,
        store_dir: jetstream.dir,
        warnings,
        digest: loaded.digest,
    })
}

struct Reading {
    notes: Notes,
    config: Config,
    process: Process,
    jetstream: jetstream::Streams,
    accounts: accounts::Accounts,
    authorization: Option<Authorization>,
    no_auth_user: Option<Entry>,
    tls: Option<tls::Block>,
    allow_non_tls: Option<Entry>,
    has_auth_timeout: bool,
    /// The last key that said where monitoring is: whether over HTTPS, and whether it is on.
    monitor: Option<(bool, Entry, bool)>,
}

impl Reading {
    fn entries(&mut self, map: &Map) {
        let operator = operator::is_on(map);
        for entry in map.entries() {
            let name = entry.name();
            let known = operator::knows(&name, operator)
                || self.addresses(&name, entry)
                || self.limits(&name, entry)
                || self.process(&name, entry)
                || self.blocks(&name, entry)
                || unsupported::key(&name, entry, &mut self.notes);
            if !known {
                self.notes.unknown(entry, &KEYS);
            }
        }
    }

    /// Where the server is met, and by which name.
    fn addresses(&mut self, name: &str, entry: &Entry) -> bool {
        let (notes, config) = (&mut self.notes, &mut self.config);
        match name {
            "listen" => {
                if let Some((host, port)) = entry.listen(notes) {
                    set(&mut config.host, host);
                    set(&mut config.port, client_port(port));
                }
            }
            "host" | "net" | "addr" => set(&mut config.host, entry.text(notes)),
            "port" => set(&mut config.port, entry.port(notes).and_then(client_port)),
            "client_advertise" => config.advertise = entry.text(notes).filter(|text| !text.is_empty()),
            "http" | "https" => {
                if let Some((host, port)) = entry.listen(notes) {
                    config.monitor_host = host.or(config.monitor_host.take());
                    self.monitoring(name, entry, port);
                }
            }
            "http_port" | "monitor_port" | "https_port" => {
                if let Some(port) = entry.port(notes) {
                    self.monitoring(name, entry, port);
                }
            }
            "monitor_hosts" => set(&mut config.monitor_hosts, entry.texts(notes)),
            "server_name" => match entry.text(notes) {
                Some(name) if name.contains(' ') => notes.error(entry, "server name cannot contain spaces"),
                name => config.name = name.filter(|name| !name.is_empty()).or(config.name.take()),
            },
            "server_tags" => set(&mut config.tags, entry.texts(notes)),
            "i_know_this_is_open" => set(&mut config.open_to_all, entry.flag(notes)),
            _ => return false,
        }
        true
    }

    /// The port of monitoring, of which there is one: in clear or encrypted.
    fn monitoring(&mut self, name: &str, entry: &Entry, port: i64) {
        let (notes, config) = (&mut self.notes, &mut self.config);
        let port = monitor_port(port);
        let is_https = name.starts_with("https");
        let other = self.monitor.replace((is_https, entry.clone(), port.is_some()));
        match other {
            Some((was_https, _, true)) if was_https != is_https && port.is_some() => {
                notes.error(entry, "monitoring is served over HTTP or over HTTPS, not both");
            }
            // Zero turns off the one that is asked for, not the other one.
            Some((was_https, before, true)) if was_https != is_https => {
                self.monitor = Some((was_https, before, true));
            }
            _ => {
                config.monitor_port = port;
                config.monitor_tls = is_https && port.is_some();
            }
        }
    }

    /// Limits and times of connections.
    fn limits(&mut self, name: &str, entry: &Entry) -> bool {
        let (notes, options) = (&mut self.notes, &mut self.config.connections);
        match name {
            "max_payload" => set(
                &mut options.payload_max,
                entry.bytes(notes).and_then(|n| bounded(n, entry, notes)),
            ),
            "max_control_line" => {
                set(
                    &mut options.control_line_max,
                    entry.bytes(notes).and_then(|n| bounded(n, entry, notes)),
                );
            }
            "max_pending" => set(&mut options.pending_max, entry.bytes(notes)),
            // As in nats-server none is none; as nowhere there, less is no limit.
            "max_connections" | "max_conn" => {
                let count = entry.integer(notes);
                set(
                    &mut options.connections_max,
                    count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
                );
            }
            "max_subscriptions" | "max_subs" => {
                let count = entry.integer(notes);
                set(
                    &mut options.subscriptions_max,
                    count.map(|count| usize::try_from(count).unwrap_or(0)),
                );
            }
            "max_sub_tokens" | "max_subscription_tokens" => match entry.count(notes) {
                Some(0) => notes.error(entry, format!("{} value can not be zero", entry.key)),
                Some(count) if count > usize::from(u8::MAX) => {
                    notes.error(entry, format!("{} value is too big", entry.key));
                }
                count => set(&mut options.subscription_tokens_max, count),
            },
            "ping_interval" => match entry.duration(notes) {
                Some(Duration::ZERO) => notes.error(entry, "\"ping_interval\" cannot be zero"),
                interval => set(&mut options.ping_interval, interval),
            },
            "ping_max" => set(
                &mut options.pings_out_max,
                entry.count(notes).and_then(|n| u32::try_from(n).ok()),
            ),
            "write_deadline" => match entry.duration(notes) {
                Some(Duration::ZERO) => notes.error(entry, "\"write_deadline\" cannot be zero"),
                deadline => set(&mut options.write_deadline, deadline),
            },
            "trace" | "trace_verbose" | "trace_headers" => set(&mut options.trace, entry.flag(notes)),
            _ => return false,
        }
        true
    }

    /// The process around the server.
    fn process(&mut self, name: &str, entry: &Entry) -> bool {
        let (notes, process) = (&mut self.notes, &mut self.process);
        let path = |notes: &mut Notes| {
            entry
                .text(notes)
                .filter(|text| !text.is_empty())
                .map(PathBuf::from)
        };
        match name {
            "debug" => set(&mut process.debug, entry.flag(notes)),
            "no_mesh" => set(&mut process.no_mesh, entry.flag(notes)),
            "logtime" => set(&mut process.log_time, entry.flag(notes)),
            "logtime_utc" => set(&mut process.log_utc, entry.flag(notes)),
            "log_size_limit" | "logfile_size_limit" => {
                set(
                    &mut process.log_size_limit,
                    entry.count(notes).map(|bytes| bytes as u64),
                );
            }
            "log_max_num" | "logfile_max_num" => set(&mut process.log_files_max, entry.count(notes)),
            "log_file" | "logfile" => process.log_file = path(notes),
            "pid_file" | "pidfile" => process.pid_file = path(notes),
            "ports_file_dir" => process.ports_file_dir = path(notes),
            "log_format" => match entry.text(notes).as_deref() {
                Some("text") => process.log_format = LogFormat::Text,
                Some("json") => process.log_format = LogFormat::Json,
                Some(_) => notes.error(entry, "\"log_format\" is text or json"),
                None => {}
            },
            "lame_duck_duration" => match entry.duration(notes) {
                Some(duration) if duration < LAME_DUCK_MIN => {
                    notes.error(
                        entry,
                        format!("invalid lame_duck_duration of {duration:?}, minimum is 30 seconds"),
                    );
                }
                duration => set(&mut process.lame_duck_duration, duration),
            },
            _ => return false,
        }
        true
    }

    /// Keys with maps behind them.
    fn blocks(&mut self, name: &str, entry: &Entry) -> bool {
        let notes = &mut self.notes;
        match name {
            "authorization" => self.authorization = authorization::read(entry, notes),
            "accounts" => self.accounts.read(entry, notes),
            "mappings" | "maps" => self.accounts.global_mappings(entry, notes),
            "system_account" | "system" => self.accounts.set_system(entry),
            "no_auth_user" => self.no_auth_user = Some(entry.clone()),
            "jetstream" => self.jetstream.read(entry, &mut self.config, notes),
            "store_dir" | "storedir" => self.jetstream.set_dir(entry, notes),
            "streams" => assets::streams(entry, &mut self.config.assets, notes),
            "tls" => self.tls = tls::read(entry, notes),
            "allow_non_tls" => self.allow_non_tls = Some(entry.clone()),
            "consumers" => assets::consumers(entry, &mut self.config.assets, notes),
            _ => return false,
        }
        true
    }

    /// How clients are met, once it is known who they may be.
    fn encryption(&mut self) {
        let notes = &mut self.notes;
        let allow_plain = self.allow_non_tls.as_ref().and_then(|entry| entry.flag(notes)) == Some(true);
        let has_block = self.tls.is_some();
        if let Some(block) = self.tls.take() {
            let has_users = matches!(self.config.auth, Auth::Users(_));
            self.config.tls = block
                .options(allow_plain, has_users, notes)
                .or(self.config.tls.take());
            if self.config.tls.as_ref().is_some_and(|options| options.map) {
                notes
                    .warnings
                    .retain(|warning| !warning.text.ends_with(authorization::NAME_ALONE));
            }
            // As in nats-server: the handshake takes its time, too.
            let explicit = self.has_auth_timeout;
            if let Some(options) = self.config.tls.as_ref().filter(|_| !explicit) {
                self.config.connections.auth_timeout = options.timeout + Duration::from_secs(1);
            }
        } else if let Some(entry) = self.allow_non_tls.as_ref().filter(|_| allow_plain) {
            notes.warn(entry, "\"allow_non_tls\" has no effect: there is no tls block");
        }
        if let Some((true, entry, true)) = self.monitor.as_ref().filter(|_| !has_block) {
            notes.error(entry, "HTTPS needs a certificate: give one in tls { ... }");
        }
    }

    /// What clients must show, once all of the file is read.
    fn credentials(&mut self, is_operator: bool) {
        let notes = &mut self.notes;
        let no_auth_user = self.no_auth_user.as_ref();
        if is_operator {
            // Who is who, and what accounts there are, the tokens say.
            if let Some(authorization) = self.authorization.take() {
                self.has_auth_timeout = authorization.timeout.is_some();
                set(&mut self.config.connections.auth_timeout, authorization.timeout);
            }
            return;
        }
        let accounts = std::mem::take(&mut self.accounts).finish(&mut self.config, notes);
        let auth = match self.authorization.take() {
            Some(authorization) => {
                self.has_auth_timeout = authorization.timeout.is_some();
                set(&mut self.config.connections.auth_timeout, authorization.timeout);
                authorization.auth(accounts.users, no_auth_user, notes)
            }
            None => authorization::of_accounts(accounts.users, accounts.is_system_alone, no_auth_user, notes),
        };
        set(&mut self.config.auth, auth);
    }
}

/// Sets what was read; what could not be read has been noted.
fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

/// -1 picks a free port, which zero stands for; zero itself means nothing.
fn client_port(port: i64) -> Option<u16> {
    match port {
        -1 => Some(0),
        0 => None,
        port => u16::try_from(port).ok(),
    }
}

/// The same, where zero turns monitoring off.
fn monitor_port(port: i64) -> Option<u16> {
    client_port(port)
}

fn bounded(number: usize, entry: &Entry, notes: &mut Notes) -> Option<usize> {
    if number > PAYLOAD_MAX {
        notes.error(entry, format!("{} value is too big", entry.key));
        return None;
    }
    Some(number)
}
