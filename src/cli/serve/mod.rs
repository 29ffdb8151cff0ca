//! `mesh serve`: flags to a [`Config`], the start banner, signals, the end.

mod log;
mod mesh;
mod notify;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::account::Auth;
use crate::config::{self, Config};
use crate::store::{self, Sync};
use crate::{Server, ServerError, connection};

use super::Failure;

/// How long lame duck waits for clients to move on.
const LAME_DUCK_PATIENCE: Duration = Duration::from_secs(120);

/// Run the server
#[derive(Args, Debug)]
pub struct Serve {
    /// Address to listen on
    #[arg(
        short = 'a',
        long = "addr",
        visible_alias = "net",
        env = "MESH_ADDR",
        default_value = "127.0.0.1"
    )]
    addr: String,
    /// Client port; -1 or 0 picks a free one and prints it
    #[arg(short, long, env = "MESH_PORT", default_value_t = i32::from(config::PORT), allow_negative_numbers = true)]
    port: i32,
    /// Monitoring port (HTTP); 0 turns it off, -1 picks a free one
    #[arg(long, env = "MESH_MONITOR_PORT", default_value_t = i32::from(config::MONITOR_PORT), allow_negative_numbers = true)]
    monitor_port: i32,
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
    /// back what was acknowledged since
    #[arg(long, env = "MESH_SYNC", value_name = "WHEN", default_value = "always", value_parser = sync)]
    sync: Sync,
    /// Leave the mesh's own stream and buckets (MESH, PEERS, SESSIONS, PHOENIX) out; `mesh setup` makes them, too
    #[arg(long, env = "MESH_NO_MESH")]
    no_mesh: bool,
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
    /// Listen beyond loopback although anybody may come in
    #[arg(long, env = "MESH_OPEN")]
    i_know_this_is_open: bool,
    /// Largest message, headers and payload (64k, 8MiB, ...)
    #[arg(long, env = "MESH_MAX_PAYLOAD", default_value = "1MiB", value_parser = size)]
    max_payload: usize,
    /// Connections at a time
    #[arg(long, env = "MESH_MAX_CONNECTIONS", default_value_t = 65_536)]
    max_connections: usize,
    /// Bytes waiting for one client before it is a slow consumer
    #[arg(long, env = "MESH_MAX_PENDING", default_value = "64MiB", value_parser = size)]
    max_pending: usize,
    /// Longest control line
    #[arg(long, env = "MESH_MAX_CONTROL_LINE", default_value = "4KiB", value_parser = size)]
    max_control_line: usize,
    /// Subscriptions of one connection; 0 is no limit
    #[arg(long, env = "MESH_MAX_SUBSCRIPTIONS", default_value_t = 0)]
    max_subscriptions: usize,
    /// Time between PINGs to a silent client (500ms, 2m, ...)
    #[arg(long, env = "MESH_PING_INTERVAL", default_value = "2m", value_parser = duration)]
    ping_interval: Duration,
    /// Unanswered PINGs before a connection is stale
    #[arg(long, env = "MESH_PING_MAX", default_value_t = 2)]
    ping_max: u32,
    /// How long a write to a client may make no progress
    #[arg(long, env = "MESH_WRITE_DEADLINE", default_value = "10s", value_parser = duration)]
    write_deadline: Duration,
    /// Shape of the log
    #[arg(long, env = "MESH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log connections coming and going
    #[arg(short = 'D', long, env = "MESH_DEBUG")]
    debug: bool,
    /// Log every protocol operation
    #[arg(short = 'V', long, env = "MESH_TRACE")]
    trace: bool,
}

/// Shape of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `[pid] date time [INF] text`
    Text,
    /// One JSON object a line
    Json,
}

/// Bytes: a number with an optional unit, powers of 1024.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
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
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "expected a time such as 500ms, 10s or 2m")?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".to_owned())
}

/// `always`, or a time.
fn sync(text: &str) -> Result<Sync, String> {
    if text == "always" {
        return Ok(Sync::Always);
    }
    match duration(text)? {
        Duration::ZERO => Ok(Sync::Always),
        every => Ok(Sync::Interval(every)),
    }
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

impl Serve {
    fn config(&self) -> Result<Config, Failure> {
        // An empty variable of the environment counts as given: better no server than an open one.
        for (name, value) in [("token", &self.token), ("user", &self.user), ("pass", &self.pass)] {
            if value.as_ref().is_some_and(String::is_empty) {
                let what = format!("--{name} (or MESH_{}) is empty", name.to_uppercase());
                return Err(Failure::usage(what).hint("give it a value, or leave it out to serve without"));
            }
        }
        let auth = match (&self.token, &self.user, &self.pass) {
            (Some(token), _, _) => Auth::Token(token.clone()),
            (None, Some(user), Some(pass)) => Auth::User {
                user: user.clone(),
                pass: pass.clone(),
            },
            _ => Auth::Open,
        };
        let connections = connection::Options {
            payload_max: self.max_payload,
            connections_max: self.max_connections,
            subscriptions_max: self.max_subscriptions,
            pending_max: self.max_pending,
            control_line_max: self.max_control_line,
            ping_interval: self.ping_interval,
            pings_out_max: self.ping_max,
            write_deadline: self.write_deadline,
            trace: self.trace,
            ..connection::Options::default()
        };
        Ok(Config {
            host: self.addr.clone(),
            port: port(self.port, Some(0))?.unwrap_or(0),
            monitor_port: port(self.monitor_port, None)?,
            monitor_hosts: self.monitor_hosts.clone(),
            store_dir: Some(self.store_dir.clone().unwrap_or_else(config::default_store_dir)),
            sync: self.sync,
            name: self.name.clone(),
            auth,
            open_to_all: self.i_know_this_is_open,
            connections,
        })
    }

    /// Serves until told to stop.
    pub fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let config = self.config()?;
        log::start(self.log_format, self.debug, self.trace);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))?;
        let ended = runtime.block_on(serve(config, !self.no_mesh, began));
        // Tasks that a second signal cut short are not waited for.
        runtime.shutdown_timeout(Duration::from_millis(100));
        ended
    }
}

async fn serve(config: Config, with_mesh: bool, began: Instant) -> Result<(), Failure> {
    let watch =
        |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut user2 = watch(SignalKind::user_defined2())?;
    let auth = if config.auth.is_required() {
        "credentials needed"
    } else {
        "no auth needed"
    };
    let kept = match (&config.store_dir, config.sync) {
        (None, _) => String::new(),
        (Some(dir), Sync::Always) => format!("{}   synced before every ack", dir.display()),
        (Some(dir), Sync::Interval(every)) => {
            format!("{}   synced every {every:?}, NOT before acks", dir.display())
        }
    };
    let credentials = config.auth.clone();
    let server = Server::start(config).await.map_err(refusal)?;
    if with_mesh {
        mesh::make(&server, &credentials).await;
    }
    banner(&server, auth, &kept, began);
    let manager = notify::Manager::from_env();
    manager.ready(&server);

    let lame_duck = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        _ = user2.recv() => true,
        () = manager.watch(&server, true) => false,
    };
    let end = async {
        if lame_duck {
            tracing::info!("Entering lame duck mode, stop accepting new clients");
            manager.leaving();
            tokio::select! {
                () = server.lame_duck(LAME_DUCK_PATIENCE) => {}
                _ = terminate.recv() => {}
                () = manager.watch(&server, false) => {}
            }
        }
        manager.stopping();
        tracing::info!("Stopping: clients get what they are owed. A second interrupt stops at once");
        server.shutdown().await;
    };
    tokio::select! {
        () = end => tracing::info!("Stopped"),
        _ = interrupt.recv() => tracing::warn!("Stopped at once"),
    }
    Ok(())
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
                 fix 3: mesh serve --i-know-this-is-open -a {ip}   (anyone who can reach this port may read and write)"
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
        ServerError::Store(store::Error::InUse { pid, .. }) => Failure::conflict(&error).hint(format!(
            "stop that server (kill -TERM {pid}), or give this one a directory of its own with --store-dir"
        )),
        ServerError::Store(store::Error::Damaged(_)) => {
            Failure::unhealthy(&error).hint("`mesh store check` says what is whole; nothing was changed")
        }
        _ => Failure::failed(&error),
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
