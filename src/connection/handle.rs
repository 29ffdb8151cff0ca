//! A live connection as others see it: who it is, how to end it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::account::User;
use crate::protocol::connect::Connect;
use crate::router::Client;

use super::reason::Reason;
use super::tls::Agreed;

/// See the module documentation.
pub struct Handle {
    /// The router's side of it.
    pub client: Arc<Client>,
    /// Remote address, or `in-process`.
    pub ip: String,
    /// Remote port; zero when in process.
    pub port: u16,
    /// When it came.
    pub start: SystemTime,
    began: Instant,
    connect: Mutex<Arc<Connect>>,
    /// Who it is, once it has been let in; of a server with one user or none, nobody in particular.
    admitted: Mutex<Option<Option<Arc<User>>>>,
    /// What it was given to sign.
    nonce: OnceLock<String>,
    /// What its TLS handshake has led to.
    tls: OnceLock<Box<Agreed>>,
    /// Milliseconds after `start` of the last sign of life.
    active_ms: AtomicU64,
    rtt_ns: AtomicU64,
    reason: OnceLock<Reason>,
    /// What lies behind the reason, for the log.
    cause: OnceLock<String>,
    stop: Notify,
}

impl Handle {
    pub(super) fn new(client: Arc<Client>, ip: String, port: u16) -> Self {
        Self {
            client,
            ip,
            port,
            start: SystemTime::now(),
            began: Instant::now(),
            connect: Mutex::default(),
            admitted: Mutex::default(),
            nonce: OnceLock::new(),
            tls: OnceLock::new(),
            active_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            reason: OnceLock::new(),
            cause: OnceLock::new(),
            stop: Notify::new(),
        }
    }

    /// The connection's number.
    pub fn id(&self) -> u64 {
        self.client.id
    }

    /// What the client said of itself.
    pub fn connect(&self) -> Arc<Connect> {
        self.connect
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_connect(&self, connect: Arc<Connect>) {
        *self.connect.lock().unwrap_or_else(PoisonError::into_inner) = connect;
    }

    /// The user it was let in as, if the server has several.
    pub fn user(&self) -> Option<Arc<User>> {
        self.admitted().flatten()
    }

    /// As whom it was let in; none while it has not been.
    pub fn admitted(&self) -> Option<Option<Arc<User>>> {
        self.admitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn admit(&self, user: Option<Arc<User>>) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(user);
    }

    /// Undoes an admission that a reload has overtaken.
    pub(super) fn withdraw(&self) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What it was given to sign, if it was.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.get().map(String::as_str)
    }

    pub(super) fn set_nonce(&self, nonce: String) {
        self.nonce.set(nonce).ok();
    }

    /// What its TLS handshake has led to; none when it is not encrypted.
    pub fn tls(&self) -> Option<&Agreed> {
        self.tls.get().map(Box::as_ref)
    }

    pub(super) fn set_tls(&self, agreed: Agreed) {
        self.tls.set(Box::new(agreed)).ok();
    }

    /// Whether it is a pipe inside this process.
    pub fn is_in_process(&self) -> bool {
        self.port == 0
    }

    /// Whether its user may subscribe.
    pub fn may_subscribe(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        let permissions = self.user().and_then(|user| user.permissions.clone());
        permissions.is_none_or(|permissions| permissions.may_subscribe(pattern, queue))
    }

    /// How long it has been there.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long nothing has come from the client.
    pub fn idle(&self) -> Duration {
        self.uptime()
            .saturating_sub(Duration::from_millis(self.active_ms.load(Ordering::Relaxed)))
    }

    /// When something last came from the client, to within the time between two looks at the clock.
    pub fn last_activity(&self) -> SystemTime {
        self.start + Duration::from_millis(self.active_ms.load(Ordering::Relaxed))
    }

    pub(super) fn touch(&self) {
        self.active_ms
            .store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The last measured round trip; zero before the first.
    pub fn rtt(&self) -> Duration {
        Duration::from_nanos(self.rtt_ns.load(Ordering::Relaxed))
    }

    pub(super) fn set_rtt(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Ends the connection; the first reason given stands.
    pub fn stop(&self, reason: Reason) {
        self.reason.set(reason).ok();
        self.stop.notify_one();
    }

    /// Notes what lies behind the reason for which it is about to end; the first one stands.
    pub(super) fn note(&self, cause: String) {
        self.cause.set(cause).ok();
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.get().map(String::as_str)
    }

    /// Why it is ending, once it is.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }

    pub(super) async fn stopped(&self) -> Reason {
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            self.stop.notified().await;
        }
    }
}
