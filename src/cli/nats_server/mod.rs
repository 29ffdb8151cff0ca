//! Standing in for nats-server: `mesh nats-server ...`, or this binary under that name.
//!
//! Takes its flags and files, writes its log lines, pid and ports files, ends with its exit codes, so that scripts and test
//! suites which start a nats-server start this one unchanged. Where it differs from `mesh serve`: port 4222 on all
//! addresses, open ones too, because that is what its users ask for by this name; no monitoring and no streams unless
//! asked for; nothing from MESH_... variables. What is synced before it is acknowledged stays so.
//!
//! Deliberately absent: clusters. Asking for one is an error, not a server without.

mod flags;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::account::Auth;
use crate::config::{self, Config, Process};
use crate::protocol::info::{API_LEVEL, NATS_VERSION};
use crate::{Server, ServerError};

use super::Failure;
use super::ctl;
use super::serve::log::{FATAL, Log};
use super::serve::run::{Face, Settings, run};
use super::serve::tls::TlsFlags;
use flags::Flags;

/// The port of nats-server.
const PORT: u16 = 4222;

/// Whether this process was started under the name of nats-server.
pub(super) fn is_called_so(program: Option<&str>) -> bool {
    program.and_then(|program| Path::new(program).file_stem()) == Some("nats-server".as_ref())
}

/// Runs with nats-server's arguments, the program's name left out.
pub(super) fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(Failure::USAGE);
        }
    };
    let word = flags.rest.first().map(|word| word.to_ascii_lowercase());
    if flags.is_on("version") || word.as_deref() == Some("version") {
        println!("nats-server: v{NATS_VERSION}");
        return ExitCode::SUCCESS;
    }
    if flags.is_on("help") || flags.is_on("help_tls") || word.as_deref() == Some("help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if let Some(word) = flags.rest.first() {
        return say(&format!("unrecognized command: {word:?}"));
    }
    if let Some(command) = flags.text("signal") {
        return match send(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(&error),
        };
    }
    let stand_in = StandIn { flags };
    if stand_in.flags.is_on("t") {
        return stand_in.check();
    }
    match run(&stand_in) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The log may not have been started yet.
            Log::start(&Process::default(), false).ok();
            for line in failure.lines() {
                tracing::error!(target: FATAL, "{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn say(error: &str) -> ExitCode {
    eprintln!("nats-server: {error}");
    ExitCode::FAILURE
}

/// `--signal CMD[=pid or pid file]`
fn send(command: &str) -> Result<(), String> {
    let (command, whom) = match command.split_once('=') {
        Some((command, whom)) => (command, Some(whom)),
        None => (command, None),
    };
    let signal = ctl::signal(command).ok_or_else(|| format!("unknown signal {command:?}"))?;
    let whom = match whom {
        Some(whom) => ctl::process_of(whom)?,
        None => ctl::only_process_called("nats-server")?,
    };
    ctl::send(signal, whom).map_err(|error| format!("\nsignal {command:?} {whom}: {error}"))
}

struct StandIn {
    flags: Flags,
}

impl StandIn {
    /// `-t`: whether the file is usable.
    fn check(&self) -> ExitCode {
        let Some(path) = self.flags.text("config") else {
            return say("must specify [-c, --config] option to check configuration file syntax");
        };
        match load(path) {
            Ok(file) => {
                for warning in &file.warnings {
                    eprintln!("nats-server: {warning}");
                }
                eprintln!(
                    "nats-server: configuration file {path} is valid (sha256:{})",
                    file.digest
                );
                ExitCode::SUCCESS
            }
            Err(problems) => {
                for problem in problems {
                    eprintln!("nats-server: {problem}");
                }
                ExitCode::FAILURE
            }
        }
    }

    /// What this server cannot do though it is asked for by a flag.
    fn refused(&self) -> Option<&'static str> {
        let given = |name| self.flags.text(name).is_some();
        given("routes").then_some("routes: this server connects to no other servers yet")
    }

    fn ignored(&self) -> Vec<String> {
        let names = [
            "cluster",
            "cluster_name",
            "cluster_advertise",
            "no_advertise",
            "connect_retries",
            "syslog",
            "remote_syslog",
            "max_traced_msg_len",
            "profile",
        ];
        let given = names.into_iter().filter(|name| self.flags.text(name).is_some());
        given
            .map(|name| format!("--{name} has no effect on this server"))
            .collect()
    }

    /// Flags over what the file says.
    fn apply(&self, config: &mut Config, process: &mut Process) -> Result<(), Failure> {
        let flags = &self.flags;
        let owned = |name| flags.text(name).map(str::to_owned);
        config.host = owned("addr").unwrap_or_else(|| std::mem::take(&mut config.host));
        if let Some(port) = flags.number("port") {
            config.port = port_of(port)?;
        }
        if let Some(port) = flags.number("http_port") {
            config.monitor_port = Some(port_of(port)?);
            config.monitor_tls = false;
        }
        if let Some(port) = flags.number("https_port") {
            if flags.number("http_port").is_some() {
                return Err(Failure::failed("can't specify both HTTP and HTTPS ports"));
            }
            config.monitor_port = Some(port_of(port)?);
            config.monitor_tls = true;
        }
        config.name = owned("name").or(config.name.take());
        config.advertise = owned("client_advertise").or(config.advertise.take());
        match (owned("auth"), owned("user"), owned("pass")) {
            (Some(token), _, _) => config.auth = Auth::Token(token),
            (None, Some(user), Some(pass)) => config.auth = Auth::User { user, pass },
            (None, None, None) => {}
            (None, _, _) => return Err(Failure::failed("--user and --pass go together")),
        }
        let both = flags.switch("DV");
        process.debug = flags.switch("debug").or(both).unwrap_or(process.debug);
        let trace = &mut config.connections.trace;
        *trace = flags.switch("trace").or(both).unwrap_or(*trace);
        process.log_time = flags.switch("logtime").unwrap_or(process.log_time);
        process.log_utc = flags.switch("logtime_utc").unwrap_or(process.log_utc);
        let path = |name| flags.text(name).map(PathBuf::from);
        if let Some(limit) = flags.number("log_size_limit") {
            process.log_size_limit = limit.unsigned_abs();
        }
        let tls = TlsFlags {
            tls: flags.switch("tls"),
            tlscert: path("tlscert"),
            tlskey: path("tlskey"),
            tlscacert: path("tlscacert"),
            tlsverify: flags.switch("tlsverify"),
        };
        tls.apply(config)?;
        process.log_file = path("log").or(process.log_file.take());
        process.pid_file = path("pid").or(process.pid_file.take());
        process.ports_file_dir = path("ports_file_dir").or(process.ports_file_dir.take());
        // As there, the address of all networks is that of both protocols.
        if config.host == "0.0.0.0" && std::net::TcpListener::bind("[::]:0").is_ok() {
            config.host = "::".to_owned();
        }
        Ok(())
    }
}

fn port_of(number: i64) -> Result<u16, Failure> {
    match number {
        -1 => Ok(0),
        _ => u16::try_from(number).map_err(|_| Failure::failed(format!("{number}: invalid port"))),
    }
}

/// Reads a file over the defaults of nats-server.
fn load(path: &str) -> Result<config::File, Vec<config::language::Problem>> {
    config::load(Path::new(path), defaults(), Process::default())
}

fn defaults() -> Config {
    Config {
        host: "0.0.0.0".to_owned(),
        port: PORT,
        monitor_port: None,
        // Its users ask for that by its name.
        open_to_all: true,
        ..Config::default()
    }
}

impl Face for StandIn {
    fn settings(&self) -> Result<Settings, Failure> {
        if let Some(why) = self.refused() {
            return Err(Failure::failed(why));
        }
        let (mut config, mut process) = (defaults(), Process::default());
        let (mut jetstream, mut store_dir, mut warnings) = (None, None, self.ignored());
        if let Some(path) = self.flags.text("config") {
            let file = load(path).map_err(|problems| {
                let mut lines = problems.iter().map(|problem| format!("nats-server: {problem}"));
                let first = lines.next().unwrap_or_default();
                Failure::failed(first).hint(lines.collect::<Vec<_>>().join("\n"))
            })?;
            (config, process) = (file.config, file.process);
            (jetstream, store_dir) = (file.jetstream, file.store_dir);
            warnings.extend(file.warnings.iter().map(ToString::to_string));
        }
        self.apply(&mut config, &mut process)?;
        // Streams that nobody made are none of nats-server's.
        process.no_mesh = true;
        if self.flags.switch("jetstream").or(jetstream).unwrap_or(false) {
            let given = self.flags.text("store_dir").map(PathBuf::from).or(store_dir);
            let dir = given.unwrap_or_else(|| std::env::temp_dir().join("nats"));
            config.store_dir = Some(dir.join("jetstream"));
        }
        Ok(Settings {
            config,
            process,
            warnings,
        })
    }

    fn has_file(&self) -> bool {
        self.flags.text("config").is_some()
    }

    fn before(&self, config: &Config) {
        tracing::info!("Starting nats-server");
        tracing::info!("  Version:  {NATS_VERSION}");
        tracing::info!("  Mesh:     {}", env!("CARGO_PKG_VERSION"));
        if let Some(name) = &config.name {
            tracing::info!("  Name:     {name}");
        }
    }

    fn banner(&self, server: &Server, _: Instant) {
        let config = server.config();
        if config.name.is_none() {
            tracing::info!("  Name:     {}", server.id());
        }
        tracing::info!("  ID:       {}", server.id());
        if let Some(address) = server.monitor_addr() {
            let scheme = if config.monitor_tls { "https" } else { "http" };
            tracing::info!("Starting {scheme} monitor on {}", shown(address));
        }
        if let Some(dir) = &config.store_dir {
            tracing::info!("Starting JetStream");
            tracing::info!("---------------- JETSTREAM ----------------");
            tracing::info!("  Strict:          {}", config.strict);
            tracing::info!("  Store Directory: \"{}\"", dir.display());
            if let Some(domain) = &config.domain {
                tracing::info!("  Domain:          {domain}");
            }
            tracing::info!("  API Level:       {API_LEVEL}");
            tracing::info!("-------------------------------------------");
        }
        tracing::info!(
            "Listening for client connections on {}",
            shown(server.local_addr())
        );
        match &config.tls {
            Some(options) if options.allow_plain => tracing::info!("TLS available for client connections"),
            Some(_) => tracing::info!("TLS required for client connections"),
            None => {}
        }
        tracing::info!("Server is ready");
    }

    fn refusal(&self, error: ServerError) -> Failure {
        match error {
            ServerError::Bind { address, error } => {
                let address = shown(address);
                Failure::failed(format!(
                    "Error listening on port: {address}, \"listen tcp {address}: {error}\""
                ))
            }
            ServerError::Resolve { host, error } => Failure::failed(format!(
                "Error listening on port: {host}, \"listen tcp: lookup {host}: {error}\""
            )),
            ServerError::BindMonitor { address, error } => Failure::failed(format!(
                "Can't listen to the monitor port: {}: {error}",
                shown(address)
            )),
            ServerError::Store(_) | ServerError::JetStream(_) => {
                Failure::failed(format!("Can't start JetStream: {error}"))
            }
            error => Failure::failed(error),
        }
    }

    fn program(&self) -> String {
        "nats-server".to_owned()
    }
}

/// An address as nats-server shows it: all networks are 0.0.0.0.
fn shown(address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("0.0.0.0:{}", address.port())
    } else {
        address.to_string()
    }
}

const USAGE: &str = "
Usage: nats-server [options]

Server Options:
    -a, --addr, --net <host>         Bind to host address (default: 0.0.0.0)
    -p, --port <port>                Use port for clients (default: 4222, -1 for a free one)
    -n, --name
        --server_name <server_name>  Server name (default: auto)
    -P, --pid <file>                 File to store PID
    -m, --http_port <port>           Use port for http monitoring
    -ms,--https_port <port>          Use port for https monitoring
    -c, --config <file>              Configuration file
    -t                               Test configuration and exit
    -sl,--signal <signal>[=<pid>]    Send signal to nats-server process (ldm, stop, quit, term, reopen, reload)
                                     pid can be either a PID (e.g. 1) or the path to a PID file (e.g. /var/run/nats-server.pid)
        --client_advertise <string>  Client HostPort to advertise to clients
        --ports_file_dir <dir>       Create a ports file in the specified directory (<executable_name>_<pid>.ports)
Logging Options:
    -l, --log <file>                 File to redirect log output
    -T, --logtime                    Timestamp log entries (default: true)
        --logtime_utc                Timestamps in UTC instead of local timezone
    -D, --debug                      Enable debugging output
    -V, --trace                      Trace the raw protocol
    -DV                              Debug and trace
JetStream Options:
    -js, --jetstream                 Enable JetStream functionality
    -sd, --store_dir <dir>           Set the storage directory
Authorization Options:
        --user <user>                User required for connections
        --pass <password>            Password required for connections
        --auth <token>               Authorization token required for connections
TLS Options:
        --tls                        Enable TLS, do not verify clients (default: false)
        --tlscert <file>             Server certificate file
        --tlskey <file>              Private key for server certificate
        --tlsverify                  Enable TLS, verify client certificates
        --tlscacert <file>           Client certificate CA for verification
Common Options:
    -h, --help                       Show this message
    -v, --version                    Show version

This is sovereign-mesh standing in for nats-server. Clusters are refused; `mesh serve --help` shows it as itself.";
