//! The server as a whole: rooms built bottom-up, the accept loop, lame duck, shutdown in order.

mod assets;
mod reload;
mod streams;
mod system;
mod testing;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{self, Accounts, Auth, GLOBAL};
use crate::config::{Assets, Config};
use crate::connection::{self, Context, Totals, Transport};
use crate::jetstream::{self, JetStream, PerAccount};
use crate::local::{self, InvalidSubject, Subscriber};
use crate::monitor::{self, Monitor, View};
use crate::protocol::info::{API_LEVEL, Info, NATS_VERSION};
use crate::router::{Publisher, Router};
use crate::store;

use system::System;

pub use assets::{AssetError, Planned, Step};
pub use reload::ReloadError;
pub use system::ReloadRequest;
pub use testing::TestServer;

/// Connections the system may queue before they are accepted.
const BACKLOG: u32 = 4096;
/// Bytes an in-process connection holds in each direction.
const PIPE_BYTES: usize = 256 << 10;
/// How often unanswered requests to other accounts are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for clients to take what they are owed.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address means nothing.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// What was asked for.
        host: String,
        /// What the system said.
        error: io::Error,
    },
    /// The port cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The monitoring port cannot be had.
    #[error("cannot listen on {address} for monitoring: {error}")]
    BindMonitor {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The store did not open; nothing in it was changed.
    #[error("cannot open the store: {0}")]
    Store(#[from] store::Error),
    /// The streams in the store could not be recovered; nothing in it was changed.
    #[error("cannot recover the streams: {0}")]
    JetStream(#[from] jetstream::Error),
    /// A stream or consumer that the configuration declares could not be had.
    #[error("cannot have the declared {0}")]
    Asset(#[from] AssetError),
    /// A certificate, or what else TLS is made of, is not usable.
    #[error("cannot have TLS: {0}")]
    Tls(#[from] connection::tls::Error),
    /// Anybody who can reach the port could come in.
    #[error("refusing to listen on {0} without authentication")]
    OpenBind(SocketAddr),
    /// Limits or times of connections that cannot be meant.
    #[error("{0}")]
    Limits(String),
    /// Accounts that make no sense together.
    #[error("accounts make no sense together: {}", reload::told(.0))]
    Accounts(Vec<account::Problem>),
}

/// A running server. Dropping it without [`Server::shutdown`] stops accepting and cuts its connections.
pub struct Server {
    context: Arc<Context>,
    address: SocketAddr,
    accepting: CancellationToken,
    /// Cancelled when all is over, for subscribers inside the process.
    ended: CancellationToken,
    tasks: TaskTracker,
    jetstream: Option<Arc<PerAccount>>,
    monitor: Option<Monitor>,
    system: Arc<System>,
    started: Instant,
    /// What it runs with: what a reload is compared with.
    config: Mutex<Config>,
}

impl Server {
    /// Listens where `config` says and serves.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let listener = bind(&config).await?;
        Self::start_on(listener, config).await
    }

    /// Serves on a listener that the caller has bound: the port of `config` is not looked at, nor whether the address
    /// is safe without authentication. Monitoring, when it is on, listens on the same address.
    pub async fn start_on(listener: TcpListener, config: Config) -> Result<Self, ServerError> {
        let address = listener.local_addr().expect("a bound listener has an address");
        config
            .connections
            .problem()
            .map_or(Ok(()), |problem| Err(ServerError::Limits(problem)))?;
        let monitor = match config.monitor_port {
            None => None,
            Some(port) => {
                let ip = match &config.monitor_host {
                    None => address.ip(),
                    Some(host) => resolve(host, port).await?.ip(),
                };
                let address = SocketAddr::new(ip, port);
                Some(listen(address).map_err(|error| ServerError::BindMonitor { address, error })?)
            }
        };
        let context = Arc::new(Context::new(
            config.connections.clone(),
            accounts(&config)?,
            info(&config, address),
        ));
        context.set_tls(tls::load(&config).await?);
        let accepting = CancellationToken::new();
        let progress = Arc::new(jetstream::Progress::default());
        // Before the store is opened: a server that recovers says so.
        let system_view = View::new(context.clone(), address, accepting.clone()).without_http();
        let system_view = system_view.with_tags(config.tags.clone());
        let monitor = monitor.map(|listener| {
            let hosts = config
                .monitor_hosts
                .iter()
                .chain([&config.host])
                .cloned()
                .collect();
            let view = View::new(context.clone(), address, accepting.clone());
            let view = view.with_hosts(hosts).with_tags(config.tags.clone());
            let view = view.with_progress(progress.clone()).encrypted(config.monitor_tls);
            Monitor::start(listener, view)
        });
        let jetstream = match &config.store_dir {
            None => None,
            Some(_) => Some(streams::start(&config, &context, progress).await?),
        };
        // Who asks in the system account sees what who asks over HTTP sees.
        let view = monitor.as_ref().map(|monitor| monitor.view().clone());
        let view = view.unwrap_or_else(|| Arc::new(system_view));
        view.recovered(streams::sources(jetstream.as_ref()));
        let server = Self {
            system: System::start(&config, &context, view),
            context,
            address,
            accepting,
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
            jetstream,
            monitor,
            started: Instant::now(),
            config: Mutex::new(config),
        };
        if let Err(error) = server.apply(&server.config().assets).await {
            server.stop().await;
            return Err(error.into());
        }
        server
            .tasks
            .spawn(sweep(server.context.clone(), server.accepting.clone()));
        server.tasks.spawn(accept(
            listener,
            server.context.clone(),
            server.accepting.clone(),
            server.tasks.clone(),
        ));
        Ok(server)
    }

    /// Makes sure that declared streams and consumers are there, before the first client comes.
    async fn apply(&self, assets: &Assets) -> Result<(), AssetError> {
        if assets.is_empty() {
            return Ok(());
        }
        let Some(jetstream) = self.jetstream() else {
            return Err(AssetError {
                what: "streams".to_owned(),
                why: "no streams are kept in account $G: jetstream is off there".to_owned(),
            });
        };
        tracing::info!("Declared streams and consumers (nothing is deleted):");
        assets::apply(self, &jetstream, assets, |planned| tracing::info!("  {planned}")).await
    }

    /// Takes on the settings of `config` that can change while the server runs; says which did. When others differ too,
    /// nothing changes. Connections whose credentials no longer hold are closed, subscriptions that are no longer permitted
    /// end; nobody else notices.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, ReloadError> {
        let listens: Vec<_> = std::iter::once(self.address).chain(self.monitor_addr()).collect();
        let mut changed = reload::compare(&self.config(), &config, &listens)?;
        // Its files are read anew even when no setting of it differs: that is how a certificate is renewed.
        let tls = tls::load(&config).await?;
        if tls::differs(self.context.tls().as_deref(), tls.as_deref()) {
            changed.push("tls");
        }
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        if changed.is_empty() {
            self.context.set_tls(tls);
        } else {
            let system = config.system_account.as_deref();
            let context = &self.context;
            context
                .reload(config.connections, config.auth, tls, &config.accounts, system)
                .await;
            if let Some(jetstream) = &self.jetstream {
                for (account, error) in jetstream.renew(context.accounts.all()).await {
                    tracing::error!("Streams of account {account}: {error}");
                }
            }
        }
        Ok(changed)
    }

    /// The settings it runs with.
    pub fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Requests of the system account to read the configuration again come out here; whoever runs the server answers
    /// them. While nobody has taken them they are refused. The first caller gets them.
    pub fn reload_requests(&self) -> tokio::sync::mpsc::Receiver<ReloadRequest> {
        self.system.take_reloads()
    }

    /// Where monitoring is served over HTTP, if it is.
    pub fn monitor_addr(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::local_addr)
    }

    /// The address as client libraries take it.
    pub fn client_url(&self) -> String {
        let required = self.context.tls().is_some_and(|tls| !tls.options().allow_plain);
        format!("{}://{}", if required { "tls" } else { "nats" }, self.address)
    }

    /// The server's id.
    pub fn id(&self) -> &str {
        &self.context.info.server_id
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The router that everything meets at, for publishing and subscribing without a connection.
    pub fn router(&self) -> &Arc<Router> {
        &self.context.accounts.global().router
    }

    /// The streams of `$G`, if it has any.
    pub fn jetstream(&self) -> Option<Arc<JetStream>> {
        self.jetstream_of(GLOBAL)
    }

    /// The streams of an account, if it has any.
    pub fn jetstream_of(&self, account: &str) -> Option<Arc<JetStream>> {
        self.jetstream.as_ref()?.get(account)
    }

    /// Publishes one message from inside this process; says how many subscriptions got it.
    pub async fn publish(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<usize, InvalidSubject> {
        local::publish(self.router(), subject, payload.as_ref()).await
    }

    /// Subscribes inside this process, to a subject or to a pattern with `*` and `>`, until the server ends.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscriber, InvalidSubject> {
        Subscriber::new(self.router(), pattern, self.ended.clone())
    }

    /// A publisher inside this process, for many messages: it batches until its `flush`.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.router().clone())
    }

    /// What all connections share, for monitoring.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Has monitoring show the metrics of `source` besides its own, if there is monitoring.
    pub fn show(&self, source: Arc<dyn monitor::Source>) {
        if let Some(monitor) = &self.monitor {
            monitor.show(source);
        }
    }

    /// Sums over all connections, live and gone.
    pub fn totals(&self) -> Totals {
        self.context.registry.totals()
    }

    /// A client connection without a port: the other end of the pipe speaks the client protocol.
    pub fn connect_in_process(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.tasks
            .spawn(connection::serve(Transport::Pipe(ours), self.context.clone()));
        theirs
    }

    /// Lame duck: takes no new clients, tells the ones there are to move on, and waits up to `patience` for
    /// them to go.
    pub async fn lame_duck(&self, patience: Duration) {
        self.accepting.cancel();
        self.system.tell_lame_duck();
        for handle in self.context.registry.live() {
            self.context.tell_lame_duck(&handle);
        }
        tokio::time::timeout(patience, self.context.registry.emptied())
            .await
            .ok();
    }

    /// Stops: no new clients, what clients are owed is written, connections are closed.
    pub async fn shutdown(self) {
        self.stop().await;
    }

    async fn stop(&self) {
        self.accepting.cancel();
        if let Some(jetstream) = &self.jetstream {
            jetstream.end_pulls();
        }
        self.system.stop();
        self.context.registry.close();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("Clients that do not read are cut off");
            self.context.registry.abandon();
            tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.ok();
        }
        // After those who publish, so that the last commit holds all they sent.
        if let Some(jetstream) = &self.jetstream {
            jetstream.shutdown().await;
        }
        // Last, so that the end can be watched.
        if let Some(monitor) = &self.monitor {
            monitor.shutdown().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.system.end();
        self.context.registry.close();
        // After a shutdown nobody publishes any more; without one this cuts off.
        self.ended.cancel();
    }
}

/// What makes no sense about the accounts. What tokens say of imports was written by others: of that, what is not granted is
/// left out, and said.
fn problems(config: &Config) -> Vec<account::Problem> {
    match &config.auth {
        Auth::Operator(_) => Vec::new(),
        _ => account::check(&config.accounts),
    }
}

/// The accounts of a server; none of them when they make no sense together.
fn accounts(config: &Config) -> Result<Accounts, ServerError> {
    let problems = problems(config);
    if !problems.is_empty() {
        return Err(ServerError::Accounts(problems));
    }
    let system = config.system_account.as_deref();
    Ok(Accounts::new(config.auth.clone(), &config.accounts, system))
}

/// Gives up, now and then, requests to other accounts that nobody has answered.
async fn sweep(context: Arc<Context>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_EVERY);
    while tokio::select! { () = stopping.cancelled() => false, _ = interval.tick() => true } {
        context.accounts.sweep();
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, ServerError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let resolve = |error| ServerError::Resolve {
        host: host.to_owned(),
        error,
    };
    let mut addresses = lookup_host((host, port)).await.map_err(resolve)?;
    addresses
        .next()
        .ok_or_else(|| resolve(io::ErrorKind::NotFound.into()))
}

/// What every client is told of the server.
fn info(config: &Config, address: SocketAddr) -> Info {
    let id = server_id();
    let (host, port) = advertised(config, address);
    Info {
        server_name: config.name.clone().unwrap_or_else(|| id.clone()),
        server_id: id,
        version: NATS_VERSION.to_owned(),
        mesh: env!("CARGO_PKG_VERSION").to_owned(),
        proto: 1,
        go: "rust".to_owned(),
        host,
        port,
        headers: true,
        auth_required: config.auth.is_required(),
        max_payload: config.connections.payload_max,
        api_lvl: API_LEVEL,
        jetstream: config.store_dir.is_some(),
        ..Info::default()
    }
}

/// Host and port as INFO gives them: those by which clients elsewhere reach the server.
fn advertised(config: &Config, address: SocketAddr) -> (String, u16) {
    let Some(advertise) = &config.advertise else {
        let host = match address.ip() {
            // As NATS has it: both protocols' address of all networks.
            ip if ip.is_unspecified() => "0.0.0.0".to_owned(),
            ip => ip.to_string(),
        };
        return (host, address.port());
    };
    let split = advertise.rsplit_once(':');
    match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host.to_owned(), port),
        None => (advertise.clone(), address.port()),
    }
}

async fn bind(config: &Config) -> Result<TcpListener, ServerError> {
    let address = resolve(&config.host, config.port).await?;
    if let (Some(host), Some(port)) = (&config.monitor_host, config.monitor_port) {
        // Monitoring shows what goes on here.
        let monitor = resolve(host, port).await?;
        if !is_loopback(monitor.ip()) && config.auth.admits_anybody() && !config.open_to_all {
            return Err(ServerError::OpenBind(monitor));
        }
    }
    if !is_loopback(address.ip()) && config.auth.admits_anybody() && !config.open_to_all {
        return Err(ServerError::OpenBind(address));
    }
    listen(address).map_err(|error| ServerError::Bind { address, error })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart finds the port of its predecessor free, whatever lingers of its connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// Accepts until told to stop.
async fn accept(listener: TcpListener, context: Arc<Context>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                tasks.spawn(connection::serve(Transport::Tcp(socket), context.clone()));
            }
            Err(error) => {
                // Out of file descriptors, mostly: those that close make room.
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A fresh id of the shape NATS uses: `N` and 55 base-32 letters.
fn server_id() -> String {
    let mut random = [0u8; 55];
    getrandom::fill(&mut random).expect("the system has randomness");
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    std::iter::once('N')
        .chain(
            random
                .iter()
                .map(|&byte| char::from(letters[usize::from(byte) % 32])),
        )
        .collect()
}
