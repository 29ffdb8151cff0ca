//! One client connection: its transport, handshake, operations, keepalive, and the registry of them all.
//!
//! A connection is two tasks. The reader (`reader`) takes bytes, runs operations and hands what they publish to
//! the outboxes; only readers ever wait for a congested destination. The writer (`writer`) moves its client's
//! outbox to the socket and waits for nobody else, so no two tasks can wait on each other.
//! Read buffers are held while bytes come and given back when a connection falls idle.
//!
//! Deliberately absent: JetStream. Streams and their API are subscribers like any other.

mod cause;
mod events;
mod gate;
mod handle;
mod plain;
mod publish_line;
mod reader;
mod reason;
mod registry;
mod reload;
mod session;
pub mod tls;
mod transport;
mod verifier;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::account::{Accounts, Auth, Spec};
use crate::protocol::info::Info;
use crate::router::WireBuf;

pub use events::{Events, Witness};
pub use handle::Handle;
pub use reader::serve;
pub use reason::Reason;
pub use registry::{Closed, Registry, Totals};
pub use transport::Transport;

/// The limits and times of connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of headers and payload in one message.
    pub payload_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
    /// Subscriptions of one connection; zero is no limit.
    pub subscriptions_max: usize,
    /// Tokens of a subscription's subject; zero is no limit.
    pub subscription_tokens_max: usize,
    /// Bytes waiting for one client, above which it is a slow consumer.
    pub pending_max: usize,
    /// Bytes of a control line's arguments.
    pub control_line_max: usize,
    /// Time between PINGs to a silent client.
    pub ping_interval: Duration,
    /// Unanswered PINGs before a connection is stale.
    pub pings_out_max: u32,
    /// How long a write may make no progress.
    pub write_deadline: Duration,
    /// How long a client may take to show its credentials.
    pub auth_timeout: Duration,
    /// Log every operation.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            payload_max: 1 << 20,
            connections_max: 65_536,
            subscriptions_max: 0,
            subscription_tokens_max: 0,
            pending_max: 64 << 20,
            control_line_max: 4096,
            ping_interval: Duration::from_secs(120),
            pings_out_max: 2,
            write_deadline: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(2),
            trace: false,
        }
    }
}

impl Options {
    /// What cannot be meant, in the names that configuration has for it.
    pub fn problem(&self) -> Option<String> {
        if self.payload_max > self.pending_max {
            // A message as large as that would cut off everybody who is to get it.
            let (payload, pending) = (self.payload_max, self.pending_max);
            return Some(format!(
                "max_payload ({payload}) cannot be higher than max_pending ({pending})"
            ));
        }
        if self.ping_interval.is_zero() {
            return Some("ping_interval cannot be zero".to_owned());
        }
        if self.write_deadline.is_zero() {
            return Some("write_deadline cannot be zero".to_owned());
        }
        None
    }
}

/// What all connections share.
pub struct Context {
    /// Limits and times; a reload replaces them.
    options: RwLock<Arc<Options>>,
    /// Moves with every reload: connections look at it once a batch.
    epoch: AtomicU64,
    /// Who may come in, and where their messages go.
    pub accounts: Accounts,
    /// Who this server is, for those who say which one they are connected to.
    server_id: Arc<str>,
    /// INFO without what is each client's own.
    pub info: Info,
    /// Live and closed connections.
    pub registry: Arc<Registry>,
    /// Who is told of connections that come and go.
    pub events: Events,
    /// Keeps the log readable when many connections end badly.
    endings: Arc<cause::Endings>,
    /// Compares what takes its time to compare.
    pub(crate) verifier: verifier::Verifier,
    /// How connections are encrypted, where they are; a reload replaces it.
    tls: RwLock<Option<Arc<tls::Tls>>>,
}

impl Context {
    /// What the connections of a new server share.
    pub fn new(options: Options, accounts: Accounts, info: Info) -> Self {
        Self {
            options: RwLock::new(Arc::new(options)),
            epoch: AtomicU64::new(0),
            accounts,
            server_id: info.server_id.as_str().into(),
            info,
            registry: Arc::default(),
            events: Events::default(),
            endings: Arc::default(),
            verifier: verifier::Verifier::new(),
            tls: RwLock::default(),
        }
    }

    /// Limits and times as they are now.
    pub fn options(&self) -> Arc<Options> {
        self.options
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How connections are encrypted, where they are.
    pub fn tls(&self) -> Option<Arc<tls::Tls>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces how connections are encrypted that come from now on; those that are in keep what they have.
    pub fn set_tls(&self, tls: Option<Arc<tls::Tls>>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// How connections are encrypted and what clients must show, as they belong together.
    pub fn terms(&self) -> (Option<Arc<tls::Tls>>, Arc<Auth>) {
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner);
        (tls.clone(), self.accounts.auth())
    }

    /// Tells a client that it should move on to another server; false when it would not understand.
    pub fn tell_lame_duck(&self, handle: &Handle) -> bool {
        if handle.connect().protocol < 1 {
            return false;
        }
        let mut info = self.info.clone();
        info.ldm = true;
        info.client_id = handle.id();
        info.client_ip.clone_from(&handle.ip);
        tls::advertise(&mut info, self.tls().as_deref(), handle);
        let mut wire = WireBuf::default();
        wire.flat().extend_from_slice(&info.line());
        handle.client.outbox.flush(&mut wire);
        true
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Replaces limits, times, credentials and how connections are encrypted, and ends what the new ones do not allow: connections whose credentials no
    /// longer hold, subscriptions that are no longer permitted.
    pub async fn reload(
        &self,
        options: Options,
        auth: Auth,
        tls: Option<Arc<tls::Tls>>,
        accounts: &[Spec],
        system: Option<&str>,
    ) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        {
            // Together: where certificates say who somebody is, users have a name alone, which must never do by itself.
            let mut current = self.tls.write().unwrap_or_else(PoisonError::into_inner);
            self.accounts.apply(auth, accounts, system);
            *current = tls;
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        reload::enforce(self).await;
        // Once more: those who were looked at have new permissions.
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}
