//! What is told of connections: who comes, who goes, who is refused, how many there are.
//!
//! A connection leaves a note and goes on; one task writes the messages. How many there are is told once a while however
//! many come and go in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::account::Account;
use crate::connection::{Handle, Reason, Witness};
use crate::monitor::{self, timestamp};
use crate::router::Publisher;

use super::{System, publish};

/// Notes that may wait; what comes beyond is dropped and counted.
const NOTES_MAX: usize = 4096;
/// Notes told between two looks at those who are slow to read them.
const TOLD_AT_ONCE: usize = 64;
/// At most so often the connections of accounts are counted.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// And so often drops are said.
const DROPS_EVERY: Duration = Duration::from_secs(10);

/// Something that somebody listens for.
enum Note {
    Connected(Arc<Handle>, SystemTime),
    Ended(Arc<Handle>, Reason, SystemTime),
    Refused(Arc<Handle>, Reason, SystemTime),
}

/// What is still to be told.
#[derive(Default)]
struct Waiting {
    notes: VecDeque<Note>,
    /// Accounts whose connections have changed in number.
    changed: Vec<Arc<Account>>,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    dropped: AtomicU64,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: Note) {
        let mut waiting = self.lock();
        if waiting.notes.len() >= NOTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.notes.push_back(note);
        drop(waiting);
        self.filled.notify_one();
    }

    fn changed(&self, account: &Arc<Account>) {
        let mut waiting = self.lock();
        if waiting.changed.iter().any(|known| Arc::ptr_eq(known, account)) {
            return;
        }
        waiting.changed.push(account.clone());
        drop(waiting);
        self.filled.notify_one();
    }
}

/// The system account's eyes on connections.
pub(super) struct Lookout {
    /// The server's connections hold this.
    system: Weak<System>,
}

impl Lookout {
    pub fn new(system: &Arc<System>) -> Self {
        Self {
            system: Arc::downgrade(system),
        }
    }
}

impl Witness for Lookout {
    fn moved(&self, account: &Arc<Account>) {
        let Some(system) = self.system.upgrade() else {
            return;
        };
        system.serve_account(account);
        system.count(account);
    }

    fn connected(&self, handle: &Arc<Handle>) {
        let Some(system) = self.system.upgrade() else {
            return;
        };
        if system.is_heard(&format!("$SYS.ACCOUNT.{}.CONNECT", handle.account().name())) {
            system
                .inbox
                .note(Note::Connected(handle.clone(), SystemTime::now()));
        }
    }

    fn ended(&self, handle: &Arc<Handle>, reason: Reason) {
        let Some(system) = self.system.upgrade() else {
            return;
        };
        if system.stop.is_cancelled() {
            return;
        }
        let account = handle.account();
        if reason.is_refusal() && (system.is_heard(&system.refusals()) || is_watched(&system, handle)) {
            let note = Note::Refused(handle.clone(), reason, SystemTime::now());
            system.inbox.note(note);
        }
        if system.is_heard(&format!("$SYS.ACCOUNT.{}.DISCONNECT", account.name())) {
            let note = Note::Ended(handle.clone(), reason, SystemTime::now());
            system.inbox.note(note);
        }
        if handle.admitted().is_some() {
            system.count(&account);
        }
    }
}

/// Where an account is told of those who were refused though they named one of its users.
const OWN_REFUSALS: &str = "$SYS.ACCOUNT.CLIENT.AUTH.ERR";

fn is_watched(system: &System, handle: &Handle) -> bool {
    system
        .account_of(handle)
        .is_some_and(|account| account.router.has_interest(OWN_REFUSALS.as_bytes()))
}

impl System {
    /// Whether somebody listens in the system account.
    pub(super) fn is_heard(&self, subject: &str) -> bool {
        self.context
            .accounts
            .system()
            .router
            .has_interest(subject.as_bytes())
    }

    /// The account of the user that a connection was, or said it was.
    fn account_of(&self, handle: &Handle) -> Option<Arc<Account>> {
        if handle.admitted().is_some() {
            return Some(handle.account());
        }
        let accounts = &self.context.accounts;
        let user = accounts.auth().user(&handle.user_name()?)?;
        accounts.of(Some(&user))
    }

    /// Where it is told who was refused.
    fn refusals(&self) -> String {
        format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", self.identity.id)
    }

    /// Has the connections of an account told, if somebody listens. Not of the account of those who have no other, as in
    /// nats-server.
    pub(super) fn count(&self, account: &Arc<Account>) {
        let is_global = Arc::ptr_eq(account, self.context.accounts.global());
        if !is_global && counts(account).iter().any(|subject| self.is_heard(subject)) {
            self.inbox.changed(account);
        }
    }
}

/// Where the connections of an account are told: by the older name and by the newer.
fn counts(account: &Account) -> [String; 2] {
    let name = account.name();
    [
        format!("$SYS.SERVER.ACCOUNT.{name}.CONNS"),
        format!("$SYS.ACCOUNT.{name}.SERVER.CONNS"),
    ]
}

/// Tells what is noted until the server stops.
pub(super) async fn relay(system: Arc<System>) {
    let mut publisher = Publisher::new(system.context.accounts.system().router.clone());
    let mut told = tokio::time::Instant::now();
    let mut counted: Option<tokio::time::Instant> = None;
    loop {
        let (notes, is_counting) = {
            let mut waiting = system.inbox.lock();
            let many = waiting.notes.len().min(TOLD_AT_ONCE);
            let notes: Vec<_> = waiting.notes.drain(..many).collect();
            (notes, !waiting.changed.is_empty())
        };
        for note in &notes {
            tell(&system, note, &mut publisher);
        }
        let since = counted.map_or(COUNT_EVERY, |counted| counted.elapsed());
        if is_counting && since >= COUNT_EVERY {
            counted = Some(tokio::time::Instant::now());
            tell_counts(&system, &mut publisher).await;
        }
        publisher.flush();
        publisher.relieve().await;
        if told.elapsed() >= DROPS_EVERY {
            told = tokio::time::Instant::now();
            let dropped = system.inbox.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!("{dropped} events of the system account dropped: there were too many at once");
            }
        }
        if system.stop.is_cancelled() {
            return;
        }
        if !notes.is_empty() {
            continue;
        }
        let pause = if is_counting {
            COUNT_EVERY.saturating_sub(since)
        } else {
            DROPS_EVERY
        };
        tokio::select! {
            () = system.stop.cancelled() => return,
            () = system.inbox.filled.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn tell_counts(system: &Arc<System>, publisher: &mut Publisher) {
    let changed = std::mem::take(&mut system.inbox.lock().changed);
    for account in changed {
        let (making, of) = (system.clone(), account.clone());
        let made = tokio::task::spawn_blocking(move || connections(&making, &of)).await;
        let Ok(mut event) = made else { continue };
        for subject in counts(&account) {
            event["server"] = system.identity.stamp();
            publish(publisher, &subject, &event);
        }
    }
}

fn tell(system: &System, note: &Note, publisher: &mut Publisher) {
    match note {
        Note::Connected(handle, at) => {
            let mut event = typed(system, "client_connect", *at);
            event["client"] = client(handle, None);
            publish(
                publisher,
                &format!("$SYS.ACCOUNT.{}.CONNECT", handle.account().name()),
                &event,
            );
        }
        Note::Ended(handle, reason, at) => {
            let event = ended(system, handle, *reason, *at);
            publish(
                publisher,
                &format!("$SYS.ACCOUNT.{}.DISCONNECT", handle.account().name()),
                &event,
            );
        }
        Note::Refused(handle, reason, at) => {
            let mut event = ended(system, handle, *reason, *at);
            if let Some(account) = system.account_of(handle)
                && account.router.has_interest(OWN_REFUSALS.as_bytes())
            {
                let mut own = Publisher::new(account.router.clone());
                let mut event = event.clone();
                event["client"]["acc"] = json!(&**account.name());
                event["client"]["name_tag"] = json!(account.title());
                publish(&mut own, OWN_REFUSALS, &event);
                own.flush();
            }
            // Ours beyond nats-server's, and the operator's alone: it may name a file of this machine.
            event["rule"] = json!(handle.rule().unwrap_or_default());
            publish(publisher, &system.refusals(), &event);
        }
    }
}

/// What all events begin with.
fn typed(system: &System, name: &str, at: SystemTime) -> Value {
    json!({
        "type": format!("io.nats.server.advisory.v1.{name}"),
        "id": nuid::next().to_string(),
        "timestamp": timestamp(at),
        "server": system.identity.stamp(),
    })
}

fn ended(system: &System, handle: &Handle, reason: Reason, at: SystemTime) -> Value {
    let counters = &handle.client.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut event = typed(system, "client_disconnect", at);
    event["client"] = client(handle, Some(at));
    // As seen from the client.
    event["sent"] = json!({ "msgs": count(&counters.in_msgs), "bytes": count(&counters.in_bytes) });
    event["received"] = json!({ "msgs": count(&counters.out_msgs), "bytes": count(&counters.out_bytes) });
    event["reason"] = json!(reason.text());
    event
}

/// The connection; with when it stopped, where it has.
fn client(handle: &Handle, stop: Option<SystemTime>) -> Value {
    let (connect, account) = (handle.connect(), handle.account());
    let mut client = json!({
        "start": timestamp(handle.start),
        "host": handle.ip,
        "id": handle.id(),
        "acc": &**account.name(),
    });
    let texts = [
        ("user", handle.user_name().unwrap_or_default()),
        ("name", connect.name.clone()),
        ("lang", connect.lang.clone()),
        ("ver", connect.version.clone()),
    ];
    for (name, text) in texts {
        if !text.is_empty() {
            client[name] = json!(text);
        }
    }
    if let Some(stop) = stop {
        let rtt = u64::try_from(handle.rtt().as_nanos()).unwrap_or(u64::MAX);
        if rtt > 0 {
            client["rtt"] = json!(rtt);
        }
        client["stop"] = json!(timestamp(stop));
    }
    // Not its JWT: there are some that are as good as a password.
    if let Some(grant) = handle.user().as_ref().and_then(|user| user.grant()) {
        client["issuer_key"] = json!(grant.issuer);
        if !grant.tags.is_empty() {
            client["tags"] = json!(grant.tags);
        }
    }
    client["name_tag"] = json!(account.title());
    client["kind"] = json!("Client");
    client["client_type"] = json!("nats");
    client
}

/// The connections of an account and their traffic.
pub(super) fn connections(system: &System, account: &Arc<Account>) -> Value {
    let mut event = typed(system, "account_connections", SystemTime::now());
    let rows = monitor::statz(&system.view, std::slice::from_ref(account));
    if let (Some(event), Some(Value::Object(row))) = (event.as_object_mut(), rows.into_iter().next()) {
        event.extend(row);
    }
    event
}
