//! What the server shows of itself over HTTP: `/metrics` for Prometheus, health for probes, and the pages that tools
//! for nats-server read (`/varz`, `/connz`, `/subsz`, `/jsz` ...), with the field names and types of nats-server 2.15.
//!
//! Invariants:
//! - Read-only: a page is a snapshot taken when it is asked for, nothing is counted for its sake while nobody asks.
//! - Bounded: connections, request heads, time per connection, entries per page, pages rendered at a time. Pages are
//!   rendered on the blocking pool, so that a large one never holds up messages.
//! - Safe beside a browser: only known `Host` names are answered (DNS rebinding), foreign `Origin`s are refused, there is
//!   no CORS header and no JSONP. Beyond loopback everything but health needs the credentials of the server.
//!
//! What other rooms show (a store, JetStream) comes through [`Source`]; the rooms themselves do not know this one.
//!
//! Deliberately absent: actions (closing a connection, reloading), profiles, client certificates.

mod accounts;
mod ask;
mod connz;
mod consumers;
mod exporter;
mod guard;
mod health;
mod jsz;
mod metrics;
mod pages;
mod params;
mod process;
mod serve;
mod source;
mod statsz;
mod storage;
mod storez;
mod streams;
mod subsz;
mod time;
mod varz;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Context;
use crate::jetstream::Progress;

pub use accounts::{account_row, statz};
pub use ask::{Refusal, ask};
pub use source::{
    AccountDetail, Ailment, ApiStats, Detail, Family, JetStream, JetStreamConfig, JetStreamLimits, Labels,
    Scope, Source, Spread, Store, StreamDetail, Value,
};
pub use statsz::statsz;
pub use storage::{Storage, shown as shown_store};
pub use streams::Streams;
pub use time::timestamp;

/// What the pages are made from.
pub struct View {
    context: Arc<Context>,
    /// Where HTTP is served.
    address: SocketAddr,
    /// Where clients connect.
    clients: SocketAddr,
    /// Names besides loopback and the address itself that a `Host` header may show.
    hosts: Vec<String>,
    /// Labels of the server, from its configuration.
    tags: Vec<String>,
    /// Whether it is served over HTTPS.
    encrypted: bool,
    /// Cancelled when no more clients are taken.
    draining: CancellationToken,
    /// How far the server has come while it recovers.
    progress: Arc<Progress>,
    /// Not there while the server recovers what it has stored.
    sources: OnceLock<Vec<Arc<dyn Source>>>,
    /// Sources of metrics alone, which came later.
    more: Mutex<Vec<Arc<dyn Source>>>,
    started: Instant,
    started_at: SystemTime,
    requests: pages::Requests,
    cpu: process::CpuMeter,
}

impl View {
    /// A view of the server behind `context`, which listens for clients at `clients`; `draining` is cancelled when it
    /// stops to take new ones.
    pub fn new(context: Arc<Context>, clients: SocketAddr, draining: CancellationToken) -> Self {
        Self {
            context,
            address: clients,
            clients,
            hosts: Vec::new(),
            tags: Vec::new(),
            progress: Arc::default(),
            encrypted: false,
            draining,
            sources: OnceLock::new(),
            more: Mutex::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            requests: pages::Requests::default(),
            cpu: process::CpuMeter::default(),
        }
    }

    /// Answers requests that name one of `hosts`, besides loopback and the bound address.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Shows these labels of the server.
    #[must_use]
    pub fn with_tags(mut self, tags: Vec<String>) -> Self {
        self.tags = tags;
        self
    }

    /// Shows how far the recovery has come while it lasts.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Serves over HTTPS, with the certificates that clients are shown.
    #[must_use]
    pub fn encrypted(mut self, encrypted: bool) -> Self {
        self.encrypted = encrypted;
        self
    }

    /// Shows what other rooms have to show, too. Until this or [`Monitor::recovered`] the server counts as recovering.
    #[must_use]
    pub fn with_sources(self, sources: Vec<Arc<dyn Source>>) -> Self {
        self.sources.set(sources).ok();
        self
    }

    /// For a server that serves no HTTP, and is asked all the same.
    #[must_use]
    pub fn without_http(mut self) -> Self {
        self.address.set_port(0);
        self
    }

    /// Everything that was stored has been recovered: shows it from now on. Only the first call counts.
    pub fn recovered(&self, sources: Vec<Arc<dyn Source>>) {
        self.sources.set(sources).ok();
    }

    fn sources(&self) -> &[Arc<dyn Source>] {
        self.sources.get().map_or(&[], Vec::as_slice)
    }

    /// The metrics of all sources.
    fn families(&self) -> Vec<Family> {
        let more = lock(&self.more).clone();
        let sources = self.sources().iter().chain(&more);
        sources.flat_map(|source| source.families()).collect()
    }

    /// Whether what was stored is still being recovered.
    fn is_recovering(&self) -> bool {
        self.sources.get().is_none()
    }

    /// What JetStream shows, when there is one.
    fn jetstream(&self, detail: &Detail) -> Option<JetStream> {
        self.sources().iter().find_map(|source| source.jetstream(detail))
    }

    /// What the store shows, when there is one.
    fn store(&self) -> Option<Store> {
        self.sources().iter().find_map(|source| source.store())
    }

    /// When what is stored counts as durable, when there is a store.
    fn sync(&self) -> Option<String> {
        self.sources().iter().find_map(|source| source.sync())
    }
}

/// The running HTTP side. Dropping it stops it.
pub struct Monitor {
    view: Arc<View>,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Monitor {
    /// Serves `view` on a bound listener.
    pub fn start(listener: TcpListener, mut view: View) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        view.address = address;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let view = Arc::new(view);
        tasks.spawn(serve::accept(listener, view.clone(), stop.clone(), tasks.clone()));
        Self {
            view,
            address,
            stop,
            tasks,
        }
    }

    /// Everything that was stored has been recovered: shows it from now on. Only the first call counts.
    pub fn recovered(&self, sources: Vec<Arc<dyn Source>>) {
        self.view.recovered(sources);
    }

    /// What its pages are made from.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Shows the metrics of another source from now on.
    pub fn show(&self, source: Arc<dyn Source>) {
        lock(&self.view.more).push(source);
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops, letting requests under way finish.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
