//! `mesh serve`: flags, the environment and a file to a [`Config`]; the start banner.

mod files;
pub(super) mod log;
mod mesh;
mod notify;
pub(super) mod run;
mod sink;
pub(super) mod tls;
mod vitals;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

use crate::account::Auth;
use crate::config::language::Problem;
use crate::config::{self, Config, Process, duration, size, sync};
use crate::store::{self, Sync};
use crate::{Server, ServerError};

use super::Failure;
use run::{Face, Settings};

/// Run the server
///
/// Settings come from flags, from MESH_... variables and from a file (-c): a flag wins over a variable, a variable over the
/// file, the file over the defaults. `mesh config init` prints a file with every setting.
#[derive(Args, Debug)]
pub struct Serve {
    /// Configuration file, in the language of nats-server's
    #[arg(short, long, env = "MESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(short = 'a', long = "addr", visible_alias = "net", env = "MESH_ADDR")]
    addr: Option<String>,
    /// Client port; -1 or 0 picks a free one and prints it [default: 7778]
    #[arg(short, long, env = "MESH_PORT", allow_negative_numbers = true)]
    port: Option<i32>,
    /// Monitoring port (HTTP); 0 turns it off, -1 picks a free one [default: 8778]
    #[arg(long, env = "MESH_MONITOR_PORT", allow_negative_numbers = true)]
    monitor_port: Option<i32>,
    /// Another name by which monitoring may be asked for, such as the one a scraper uses (repeatable)
    #[arg(
        long = "monitor-host",
        env = "MESH_MONITOR_HOSTS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    monitor_hosts: Vec<String>,
    /// Where streams are kept [default: the platform's data directory]
    #[arg(long, env = "MESH_STORE_DIR", value_name = "DIR")]
    store_dir: Option<PathBuf>,
    /// Sync to disk before every acknowledgement (`always`), or only this often (2s, ...): then a power cut takes
    /// back what was acknowledged since [default: always]
    #[arg(long, env = "MESH_SYNC", value_name = "WHEN", value_parser = sync)]
    sync: Option<Sync>,
    /// Leave the mesh's own stream and buckets (MESH, PEERS, SESSIONS, PHOENIX, SPOOLS) out; `mesh setup` makes them, too
    #[arg(long, env = "MESH_NO_MESH", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    no_mesh: Option<bool>,
    /// The server's name [default: its id]
    #[arg(short, long, env = "MESH_NAME")]
    name: Option<String>,
    /// Token that clients must show
    #[arg(long, env = "MESH_TOKEN", conflicts_with_all = ["user", "pass"], hide_env_values = true)]
    token: Option<String>,
    /// User that clients must show
    #[arg(long, env = "MESH_USER", requires = "pass")]
    user: Option<String>,
    /// Password that clients must show
    #[arg(long, env = "MESH_PASS", requires = "user", hide_env_values = true)]
    pass: Option<String>,
    #[command(flatten)]
    tls: tls::TlsFlags,
    /// Listen beyond loopback although anybody may come in
    #[arg(long, env = "MESH_OPEN", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    i_know_this_is_open: Option<bool>,
    /// Largest message, headers and payload (64k, 8MiB, ...) [default: 1MiB]
    #[arg(long, env = "MESH_MAX_PAYLOAD", value_parser = size)]
    max_payload: Option<usize>,
    /// Connections at a time; -1 is no limit [default: 65536]
    #[arg(long, env = "MESH_MAX_CONNECTIONS", value_parser = connections, allow_hyphen_values = true)]
    max_connections: Option<usize>,
    /// Bytes waiting for one client before it is a slow consumer [default: 64MiB]
    #[arg(long, env = "MESH_MAX_PENDING", value_parser = size)]
    max_pending: Option<usize>,
    /// Longest control line [default: 4KiB]
    #[arg(long, env = "MESH_MAX_CONTROL_LINE", value_parser = size)]
    max_control_line: Option<usize>,
    /// Subscriptions of one connection; 0 is no limit [default: 0]
    #[arg(long, env = "MESH_MAX_SUBSCRIPTIONS")]
    max_subscriptions: Option<usize>,
    /// Time between PINGs to a silent client (500ms, 2m, ...) [default: 2m]
    #[arg(long, env = "MESH_PING_INTERVAL", value_parser = duration)]
    ping_interval: Option<Duration>,
    /// Unanswered PINGs before a connection is stale [default: 2]
    #[arg(long, env = "MESH_PING_MAX")]
    ping_max: Option<u32>,
    /// How long a write to a client may make no progress [default: 10s]
    #[arg(long, env = "MESH_WRITE_DEADLINE", value_parser = duration)]
    write_deadline: Option<Duration>,
    /// How long a client may take to show its credentials [default: 2s]
    #[arg(long, env = "MESH_AUTH_TIMEOUT", value_parser = duration)]
    auth_timeout: Option<Duration>,
    /// The log goes to this file instead of stderr; USR1 opens it anew
    #[arg(short, long, env = "MESH_LOG_FILE", value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Shape of the log [default: text]
    #[arg(long, env = "MESH_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Write the process id here
    #[arg(short = 'P', long, env = "MESH_PID_FILE", value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Tell the ports in a file in this directory, as JSON: `mesh_<pid>.ports`
    #[arg(long, env = "MESH_PORTS_FILE_DIR", value_name = "DIR")]
    ports_file_dir: Option<PathBuf>,
    /// Log connections coming and going
    #[arg(short = 'D', long, env = "MESH_DEBUG", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    debug: Option<bool>,
    /// Log every protocol operation
    #[arg(short = 'V', long, env = "MESH_TRACE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    trace: Option<bool>,
}

/// Shape of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `[pid] date time [INF] text`
    Text,
    /// One JSON object a line
    Json,
}

fn port(number: i32, zero: Option<u16>) -> Result<Option<u16>, Failure> {
    match number {
        -1 => Ok(Some(0)),
        0 => Ok(zero),
        _ => u16::try_from(number).map(Some).map_err(|_| {
            Failure::usage(format!(
                "{number} is no port: expected 1 to 65535, or -1 for a free one"
            ))
        }),
    }
}

/// Sets what is given.
/// As in the file: -1 is no limit. That none are let in nobody wants from a flag.
fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(-1) => Ok(usize::MAX),
        Ok(count @ 1i64..) => usize::try_from(count).map_err(|error| error.to_string()),
        Ok(0) => Err("0 would let nobody in; -1 is no limit".to_owned()),
        _ => Err("a count, or -1 for no limit".to_owned()),
    }
}

fn set<T: Clone>(setting: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        setting.clone_from(given);
    }
}

impl Serve {
    /// What is given on the command line or in the environment, over what holds already.
    fn override_config(&self, config: &mut Config) -> Result<(), Failure> {
        set(&mut config.host, &self.addr);
        if let Some(number) = self.port {
            config.port = port(number, Some(0))?.unwrap_or(0);
        }
        if let Some(number) = self.monitor_port {
            config.monitor_port = port(number, None)?;
        }
        if !self.monitor_hosts.is_empty() {
            config.monitor_hosts.clone_from(&self.monitor_hosts);
        }
        if self.store_dir.is_some() {
            config.store_dir.clone_from(&self.store_dir);
        }
        set(&mut config.sync, &self.sync);
        if self.name.is_some() {
            config.name.clone_from(&self.name);
        }
        set(&mut config.open_to_all, &self.i_know_this_is_open);
        if let Some(auth) = self.auth()? {
            config.auth = auth;
        }
        self.tls.apply(config)?;
        let options = &mut config.connections;
        set(&mut options.payload_max, &self.max_payload);
        set(&mut options.connections_max, &self.max_connections);
        set(&mut options.subscriptions_max, &self.max_subscriptions);
        set(&mut options.pending_max, &self.max_pending);
        set(&mut options.control_line_max, &self.max_control_line);
        set(&mut options.ping_interval, &self.ping_interval);
        set(&mut options.pings_out_max, &self.ping_max);
        set(&mut options.write_deadline, &self.write_deadline);
        set(&mut options.auth_timeout, &self.auth_timeout);
        set(&mut options.trace, &self.trace);
        Ok(())
    }

    fn override_process(&self, process: &mut Process) {
        let given = |ours: &mut Option<PathBuf>, given: &Option<PathBuf>| {
            if given.is_some() {
                ours.clone_from(given);
            }
        };
        given(&mut process.log_file, &self.log_file);
        given(&mut process.pid_file, &self.pid_file);
        given(&mut process.ports_file_dir, &self.ports_file_dir);
        set(&mut process.no_mesh, &self.no_mesh);
        set(&mut process.debug, &self.debug);
        if let Some(format) = self.log_format {
            process.log_format = match format {
                LogFormat::Text => config::LogFormat::Text,
                LogFormat::Json => config::LogFormat::Json,
            };
        }
    }

    /// What clients must show, if that is given.
    fn auth(&self) -> Result<Option<Auth>, Failure> {
        // An empty variable of the environment counts as given: better no server than an open one.
        for (name, value) in [("token", &self.token), ("user", &self.user), ("pass", &self.pass)] {
            if value.as_ref().is_some_and(String::is_empty) {
                let what = format!("--{name} (or MESH_{}) is empty", name.to_uppercase());
                return Err(Failure::usage(what).hint("give it a value, or leave it out to serve without"));
            }
        }
        Ok(match (&self.token, &self.user, &self.pass) {
            (Some(token), _, _) => Some(Auth::Token(token.clone())),
            (None, Some(user), Some(pass)) => Some(Auth::User {
                user: user.clone(),
                pass: pass.clone(),
            }),
            _ => None,
        })
    }

    /// Serves until told to stop.
    pub fn run(self) -> Result<(), Failure> {
        run::run(&self)
    }
}

/// All that is wrong with a file, and where.
pub(super) fn unusable(code: u8, path: &std::path::Path, problems: &[Problem]) -> Failure {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let more = if lines.len() > 1 {
        format!(" ({} problems)", lines.len())
    } else {
        String::new()
    };
    Failure::with_code(code, format!("{}: not usable{more}", path.display())).hint(lines.join("\n"))
}

/// The settings of `mesh serve` with a file: what `mesh config check` shows too.
pub(super) fn with_file(path: &std::path::Path) -> Result<Settings, Failure> {
    let file = config::load(path, Config::default(), Process::default())
        .map_err(|problems| unusable(1, path, &problems))?;
    let mut config = file.config;
    let on = file.jetstream.unwrap_or(true);
    config.store_dir = on.then(|| file.store_dir.unwrap_or_else(config::default_store_dir));
    Ok(Settings {
        config,
        process: file.process,
        warnings: file.warnings.iter().map(ToString::to_string).collect(),
    })
}

impl Face for Serve {
    fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = match &self.config {
            Some(path) => with_file(path)?,
            None => Settings {
                config: Config {
                    store_dir: Some(config::default_store_dir()),
                    ..Config::default()
                },
                process: Process::default(),
                warnings: Vec::new(),
            },
        };
        self.override_config(&mut settings.config)?;
        self.override_process(&mut settings.process);
        Ok(settings)
    }

    fn has_file(&self) -> bool {
        self.config.is_some()
    }

    fn banner(&self, server: &Server, began: Instant) {
        let config = server.config();
        let auth = if config.auth.is_required() {
            "credentials needed"
        } else {
            "no auth needed"
        };
        let encrypted = match &config.tls {
            None => "",
            Some(options) if options.map => "TLS, users by certificate, ",
            Some(options) if options.verify => "TLS, certificate needed, ",
            Some(options) if options.allow_plain => "TLS or in clear, ",
            Some(_) => "TLS, ",
        };
        let auth = &format!("{encrypted}{auth}");
        let kept = match (&config.store_dir, config.sync) {
            (None, _) => String::new(),
            (Some(dir), Sync::Always) => format!("{}   synced before every ack", dir.display()),
            (Some(dir), Sync::Interval(every)) => {
                format!("{}   synced every {every:?}, NOT before acks", dir.display())
            }
        };
        banner(server, auth, &kept, began);
    }

    fn refusal(&self, error: ServerError) -> Failure {
        refusal(error)
    }

    fn program(&self) -> String {
        "mesh".to_owned()
    }
}

fn banner(server: &Server, auth: &str, kept: &str, began: Instant) {
    let address = server.local_addr();
    let reach = if address.ip().is_loopback() {
        "loopback only, "
    } else {
        ""
    };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        "mesh {version} (NATS protocol 1, features of NATS {})",
        crate::protocol::info::NATS_VERSION
    );
    tracing::info!("Name       {}", server.context().info.server_name);
    tracing::info!("Clients    {}   {reach}{auth}", server.client_url());
    match server.monitor_addr() {
        Some(address) if server.config().monitor_tls => {
            tracing::info!("Monitor    https://{address}   /metrics, /healthz");
        }
        Some(address) => tracing::info!("Monitor    http://{address}   /metrics, /healthz"),
        None => tracing::info!("Monitor    off"),
    }
    if let Some(jetstream) = server.jetstream() {
        let sums = jetstream.snapshot();
        let (streams, messages) = (sums.streams, sums.messages);
        tracing::info!("Streams    {streams}, {messages} messages   {kept}");
    }
    // The line that people's scripts and client test suites look for.
    tracing::info!("Listening for client connections on {address}");
    let (ready, port) = (began.elapsed().as_millis(), address.port());
    tracing::info!("Server is ready in {ready} ms. Try: printf 'SUB hi 1\\r\\n' | nc localhost {port}");
}

/// A start that failed, as one clear line with the way out.
fn refusal(error: ServerError) -> Failure {
    match &error {
        ServerError::OpenBind(address) => {
            let ip = address.ip();
            Failure::usage(&error).hint(format!(
                "fix 1: mesh serve --token $(openssl rand -hex 16) -a {ip}\n\
                 fix 2: mesh serve --user NAME --pass SECRET -a {ip}\n\
                 fix 3: mesh serve --i-know-this-is-open -a {ip}   (anyone who can reach this port may read and write)\n\
                 or in the file: authorization {{ token: ... }}, see mesh config init"
            ))
        }
        ServerError::Bind {
            address,
            error: cause,
        } if cause.kind() == std::io::ErrorKind::AddrInUse => {
            Failure::failed(format!("port {} on {} is in use", address.port(), address.ip())).hint(
                "another server runs there: stop it, or choose another port with -p (-1 picks a free one)",
            )
        }
        ServerError::BindMonitor {
            address,
            error: cause,
        } if cause.kind() == std::io::ErrorKind::AddrInUse => Failure::failed(format!(
            "monitoring port {} on {} is in use",
            address.port(),
            address.ip()
        ))
        .hint("choose another with --monitor-port (-1 picks a free one), or turn monitoring off with --monitor-port 0"),
        ServerError::BindMonitor { .. } => Failure::failed(&error)
            .hint("choose another port with --monitor-port (-1 picks a free one), or turn monitoring off with 0"),
        ServerError::Bind { error: cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::failed(&error).hint("ports below 1024 need privileges: choose another with -p")
        }
        ServerError::Tls(_) => Failure::failed(&error)
            .hint("name PEM files with --tlscert and --tlskey, or in the file: tls { cert_file: ..., key_file: ... }"),
        ServerError::Store(store::Error::InUse { pid, .. }) => Failure::conflict(&error).hint(format!(
            "stop that server (kill -TERM {pid}), or give this one a directory of its own with --store-dir"
        )),
        ServerError::Store(store::Error::Damaged(_)) => {
            Failure::unhealthy(&error).hint(
                "nothing was changed; copy the directory, then `mesh store check --repair` makes it anew from what can be read",
            )
        }
        ServerError::Store(store::Error::Open(_)) => Failure::failed(&error)
            .hint("is the directory there for this user to write to? --store-dir names another"),
        ServerError::Limits(_) => Failure::usage(&error),
        _ => Failure::failed(&error),
    }
}
