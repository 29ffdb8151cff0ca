//! A live connection as others see it: who it is, how to end it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::account::jwt::Peer;
use crate::account::{Account, Auth, Traffic, User, Verdict};
use crate::protocol::connect::Connect;
use crate::router::{About, Client};

use super::reason::Reason;
use super::tls::Agreed;
use super::transport::IN_PROCESS;
use super::{Context, Options};

/// Bytes kept of what lies behind an end: it may hold what a client sent, and ended connections are remembered.
const CAUSE_MAX: usize = 512;

/// See the module documentation.
pub struct Handle {
    /// The router's side of it.
    pub client: Arc<Client>,
    /// Remote address, or `in-process`.
    pub ip: String,
    /// Remote port; zero when in process.
    pub port: u16,
    /// The id of the server it is connected to.
    server: Arc<str>,
    /// When it came.
    pub start: SystemTime,
    began: Instant,
    connect: Mutex<Arc<Connect>>,
    /// Where its messages go; nobody is counted in before it has been let in.
    account: Mutex<Place>,
    /// Who it is, once it has been let in; of a server with one user or none, nobody in particular.
    admitted: Mutex<Option<Option<Arc<User>>>>,
    /// Moves with every CONNECT that is taken, and is locked while what it changes here is changed: a reload, which judges
    /// a connection as it was, must not make that of what it has become.
    turn: Mutex<u64>,
    /// When its credentials, or its account, are over.
    over: Mutex<Option<(tokio::time::Instant, Reason)>>,
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
    /// The part of it that names the rule, where one failed it.
    rule_at: OnceLock<usize>,
    stop: Notify,
}

/// The account a connection is in.
struct Place {
    account: Arc<Account>,
    is_counted: bool,
    /// What it had sent and got when it came in: that is not this account's.
    before: Traffic,
}

impl Handle {
    pub(super) fn new(client: Arc<Client>, ip: String, port: u16, context: &Context) -> Self {
        Self {
            client,
            ip,
            port,
            server: context.server_id.clone(),
            start: SystemTime::now(),
            began: Instant::now(),
            connect: Mutex::default(),
            account: Mutex::new(Place {
                account: context.accounts.global().clone(),
                is_counted: false,
                before: Traffic::default(),
            }),
            admitted: Mutex::default(),
            turn: Mutex::default(),
            over: Mutex::default(),
            nonce: OnceLock::new(),
            tls: OnceLock::new(),
            active_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            reason: OnceLock::new(),
            cause: OnceLock::new(),
            rule_at: OnceLock::new(),
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

    /// Held while the connection becomes somebody.
    pub(super) fn take_turn(&self) -> MutexGuard<'_, u64> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *turn += 1;
        turn
    }

    /// Held while it is looked at: as it is, nothing of a CONNECT is half done.
    pub(super) fn turn(&self) -> MutexGuard<'_, u64> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the credentials of a CONNECT are worth, coming from here.
    pub(super) fn judge(&self, auth: &Auth, connect: &Connect) -> Verdict {
        let ip = self.ip.parse().ok();
        auth.check_from(connect, self.nonce(), Peer { ip })
    }

    pub(super) fn admit(&self, user: Option<Arc<User>>) {
        let over = user.as_deref().and_then(over);
        let before = std::mem::replace(
            &mut *self.over.lock().unwrap_or_else(PoisonError::into_inner),
            over,
        );
        if before != over {
            // Who waits for the end looks again when it is due.
            self.stop.notify_one();
        }
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(user);
    }

    /// Undoes an admission that a reload has overtaken.
    pub(super) fn withdraw(&self) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The account it is in.
    pub fn account(&self) -> Arc<Account> {
        self.place().account.clone()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it into an account, out of the one it was in; false when that is full.
    pub(super) fn enter(&self, account: &Arc<Account>) -> bool {
        let mut place = self.place();
        if place.is_counted && Arc::ptr_eq(&place.account, account) {
            return true;
        }
        if !account.enter() {
            return false;
        }
        let mut all = Traffic::default();
        all.add(&self.client.counters);
        if place.is_counted {
            place.account.leave();
            place.account.add_past(&(all - place.before));
            place.before = all;
        }
        place.account = account.clone();
        place.is_counted = true;
        true
    }

    /// The account it is in, and what it has sent and got there.
    pub fn booked(&self) -> (Arc<Account>, Traffic) {
        let place = self.place();
        let mut all = Traffic::default();
        all.add(&self.client.counters);
        (place.account.clone(), all - place.before)
    }

    /// Takes it out of its account: it has ended.
    pub(super) fn leave(&self) {
        let mut place = self.place();
        if std::mem::take(&mut place.is_counted) {
            place.account.leave();
            let mut all = Traffic::default();
            all.add(&self.client.counters);
            place.account.add_past(&(all - place.before));
            // Whoever still finds it among the live counts nothing twice.
            place.before = all;
        }
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
        self.ip == IN_PROCESS
    }

    /// Whether its user may subscribe.
    pub fn may_subscribe(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        let permissions = self.user().and_then(|user| user.permissions.clone());
        permissions.is_none_or(|permissions| permissions.may_subscribe(pattern, queue))
    }

    /// Bytes of a message it may publish: the least of what the server, its account and its user allow.
    pub(super) fn payload_max(&self, options: &Options) -> usize {
        let user = self.user();
        let own = user
            .as_ref()
            .and_then(|user| user.grant())
            .and_then(|grant| grant.payload);
        let limits = [own, self.account().spec().limits.payload];
        limits.into_iter().flatten().fold(options.payload_max, usize::min)
    }

    /// Subscriptions it may have, where that is limited.
    pub(super) fn subscriptions_max(&self, options: &Options) -> Option<usize> {
        let server = Some(options.subscriptions_max).filter(|max| *max > 0);
        [self.subscriptions_granted(), server].into_iter().flatten().min()
    }

    /// Those that its account and its user grant it, where that is limited.
    pub(super) fn subscriptions_granted(&self) -> Option<usize> {
        let user = self.user();
        let own = user
            .as_ref()
            .and_then(|user| user.grant())
            .and_then(|grant| grant.subscriptions);
        let limits = [own, self.account().spec().limits.subscriptions];
        limits.into_iter().flatten().min()
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
    pub(super) fn note(&self, mut cause: String) {
        shorten(&mut cause);
        self.cause.set(cause).ok();
    }

    /// The same where a rule was not met: its name stands behind `what`.
    pub(super) fn note_rule(&self, what: &str, rule: &str) {
        let mut cause = format!("{what}{rule}");
        shorten(&mut cause);
        let at = if cause.is_char_boundary(what.len()) {
            what.len()
        } else {
            0
        };
        if self.cause.set(cause).is_ok() {
            self.rule_at.set(at).ok();
        }
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.get().map(String::as_str)
    }

    /// The rule that a client did not meet, for the operator; what lies behind its end where there is no rule.
    pub fn rule(&self) -> Option<&str> {
        let at = self.rule_at.get().copied().unwrap_or_default();
        self.cause().map(|cause| &cause[at..])
    }

    /// Whom the client says it is. A token is a secret: only that there was one is shown.
    pub fn user_name(&self) -> Option<String> {
        if let Some(user) = self.user() {
            return Some(user.name.clone());
        }
        let connect = self.connect();
        let said = [&connect.nkey, &connect.user];
        let named = said.into_iter().flatten().find(|name| !name.is_empty()).cloned();
        named.or_else(|| connect.auth_token.as_ref().map(|_| "[REDACTED]".to_owned()))
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
            let over = *self.over.lock().unwrap_or_else(PoisonError::into_inner);
            match over {
                None => self.stop.notified().await,
                Some((at, reason)) => {
                    if tokio::time::timeout_at(at, self.stop.notified()).await.is_err() {
                        self.note("its time is over".to_owned());
                        self.stop(reason);
                    }
                }
            }
        }
    }
}

impl About for Handle {
    fn request_info(&self, detailed: bool) -> String {
        let mut info = serde_json::Map::new();
        let mut say = |key: &str, value: serde_json::Value| {
            if value != "" {
                info.insert(key.to_owned(), value);
            }
        };
        let (account, rtt) = (self.account(), self.rtt().as_nanos() as u64);
        if detailed {
            let connect = self.connect();
            let start = jiff::Timestamp::try_from(self.start).unwrap_or_default();
            say("start", start.to_string().into());
            say("host", self.ip.clone().into());
            say("id", self.id().into());
            say("acc", account.name().to_string().into());
            let user = self.user().map(|user| user.name.clone()).or(connect.user.clone());
            say("user", user.unwrap_or_default().into());
            say("name", connect.name.clone().into());
            say("lang", connect.lang.clone().into());
            say("ver", connect.version.clone().into());
            say("rtt", rtt.into());
            say("server", self.server.to_string().into());
            say("kind", "Client".into());
            say("client_type", "nats".into());
        } else {
            say("acc", account.name().to_string().into());
            say("rtt", rtt.into());
        }
        serde_json::Value::Object(info).to_string()
    }

    fn wants_no_responders(&self) -> bool {
        self.connect().no_responders
    }
}

fn shorten(cause: &mut String) {
    if cause.len() > CAUSE_MAX {
        let end = (0..=CAUSE_MAX).rev().find(|&at| cause.is_char_boundary(at));
        cause.truncate(end.unwrap_or_default());
        cause.push_str("...");
    }
}

/// When a user that came with a JWT must go.
fn over(user: &User) -> Option<(tokio::time::Instant, Reason)> {
    let grant = user.grant()?;
    let ends = [
        (grant.until, Reason::AuthenticationExpired),
        (grant.account_until, Reason::AccountExpired),
    ];
    let ends = ends.into_iter().filter_map(|(until, reason)| {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(until?).unwrap_or_default());
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        // Further away than a clock goes is never.
        Some((tokio::time::Instant::now().checked_add(left)?, reason))
    });
    ends.min_by_key(|(at, _)| *at)
}
