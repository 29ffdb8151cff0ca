//! `/connz`: the connections, live or closed, sorted and by the page.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::account::{Certificate, GLOBAL};
use crate::connection::{Handle, Reason};
use crate::router::Subscription;

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::is_false;
use super::time::{round_trip, timestamp, uptime};

/// Connections on a page unless asked otherwise, and at most.
const LIMIT: usize = 1024;
const LIMIT_MAX: usize = 16_384;
/// Subscriptions listed on one page in all; `subscriptions` of each connection counts them all.
const LISTED_MAX: usize = 100_000;

#[derive(Serialize)]
struct Connz<'a> {
    server_id: &'a str,
    now: String,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    cid: u64,
    kind: &'static str,
    #[serde(rename = "type")]
    transport: &'static str,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    rtt: String,
    uptime: String,
    idle: String,
    pending_bytes: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher_suite: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_peer_certs: Option<[PeerCertificate; 1]>,
    #[serde(skip_serializing_if = "is_false")]
    tls_first: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    /// Not shown of the account of those who have no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list_detail: Option<Vec<SubscriptionRow>>,
}

/// What a client has shown.
#[derive(Serialize)]
struct PeerCertificate {
    subject: String,
    spki_sha256: String,
    cert_sha256: String,
}

impl PeerCertificate {
    fn of(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject(),
            spki_sha256: certificate.key_sha256.clone(),
            cert_sha256: certificate.sha256.clone(),
        }
    }
}

/// One subscription, here and on `/subsz`.
#[derive(Serialize)]
pub(super) struct SubscriptionRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_tag: Option<Arc<str>>,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<String>,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    cid: u64,
}

impl SubscriptionRow {
    pub fn of(subscription: &Subscription, cid: u64) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            account: None,
            account_tag: None,
            subject: text(subscription.pattern()),
            qgroup: subscription.queue().map(text),
            sid: text(subscription.sid()),
            msgs: subscription.delivered(),
            max: Some(subscription.limit()).filter(|&max| max > 0),
            cid,
        }
    }

    /// The same with the account named.
    pub fn in_account(self, account: &Arc<str>) -> Self {
        Self {
            account: Some(account.clone()),
            account_tag: Some(account.clone()),
            ..self
        }
    }
}

/// A connection of either state, with what it is sorted by read once.
struct Entry {
    handle: Arc<Handle>,
    stop: Option<(SystemTime, Reason)>,
    key: Key,
}

/// What sorts an entry: numbers, or the text of a reason. Ties are broken by `cid`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Up(u128),
    Down(Reverse<u128>),
    Text(&'static str),
}

impl Entry {
    /// How long it has been there, or was.
    fn age(&self) -> Duration {
        match self.stop {
            None => self.handle.uptime(),
            Some((stop, _)) => stop.duration_since(self.handle.start).unwrap_or_default(),
        }
    }

    /// When the client last said something.
    fn last_activity(&self) -> SystemTime {
        self.handle.last_activity()
    }

    fn idle(&self) -> Duration {
        let until = self.stop.map_or_else(SystemTime::now, |(stop, _)| stop);
        until.duration_since(self.last_activity()).unwrap_or_default()
    }

    /// In the order of nats-server: counts and times descending, except `cid`, `start`, `uptime` and `reason`.
    fn key(&self, sort: Sort) -> Key {
        let client = &self.handle.client;
        let counters = &client.counters;
        let nanos = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_nanos()
        };
        let down = |value: u128| Key::Down(Reverse(value));
        let count =
            |counter: &std::sync::atomic::AtomicU64| down(u128::from(counter.load(Ordering::Relaxed)));
        match sort {
            Sort::Cid => Key::Up(0),
            Sort::Start => Key::Up(nanos(self.handle.start)),
            Sort::Subs => down(client.subscription_count() as u128),
            Sort::Pending => down(client.outbox.pending() as u128),
            Sort::MsgsTo => count(&counters.out_msgs),
            Sort::MsgsFrom => count(&counters.in_msgs),
            Sort::BytesTo => count(&counters.out_bytes),
            Sort::BytesFrom => count(&counters.in_bytes),
            Sort::Last => down(nanos(self.last_activity())),
            Sort::Idle => down(self.idle().as_nanos()),
            Sort::Uptime => Key::Up(self.age().as_nanos()),
            Sort::Stop => down(self.stop.map_or(0, |(stop, _)| nanos(stop))),
            Sort::Reason => Key::Text(self.stop.map_or("", |(_, reason)| reason.text())),
            Sort::Rtt => down(self.handle.rtt().as_nanos()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Cid,
    Start,
    Subs,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Stop,
    Reason,
    Rtt,
}

const SORTS: [(&str, Sort); 14] = [
    ("cid", Sort::Cid),
    ("start", Sort::Start),
    ("subs", Sort::Subs),
    ("pending", Sort::Pending),
    ("msgs_to", Sort::MsgsTo),
    ("msgs_from", Sort::MsgsFrom),
    ("bytes_to", Sort::BytesTo),
    ("bytes_from", Sort::BytesFrom),
    ("last", Sort::Last),
    ("idle", Sort::Idle),
    ("uptime", Sort::Uptime),
    ("stop", Sort::Stop),
    ("reason", Sort::Reason),
    ("rtt", Sort::Rtt),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subs {
    Count,
    List,
    Detail,
}

/// What was asked for.
struct Ask {
    sort: Sort,
    state: State,
    subs: Subs,
    auth: bool,
    cid: Option<u64>,
    user: Option<String>,
    account: Option<String>,
    offset: usize,
    limit: usize,
}

impl Ask {
    fn of(params: &Params) -> Result<Self, Problem> {
        let sort = match params.text("sort") {
            None => Sort::Cid,
            Some(name) => {
                let known = SORTS.iter().find(|(known, _)| *known == name);
                known.map(|(_, sort)| *sort).ok_or_else(|| {
                    let names: Vec<_> = SORTS.iter().map(|(name, _)| *name).collect();
                    Problem::bad(format!("invalid sorting option: {name}"))
                        .fix(format!("one of {}", names.join(", ")))
                })?
            }
        };
        let state = match params.text("state").map(str::to_ascii_lowercase).as_deref() {
            None | Some("open") => State::Open,
            Some("closed") => State::Closed,
            Some("any" | "all") => State::Any,
            Some(other) => {
                return Err(
                    Problem::bad(format!("Error decoding state for {other}")).fix("one of open, closed, any")
                );
            }
        };
        if matches!(sort, Sort::Stop | Sort::Reason) && state != State::Closed {
            let name = if sort == Sort::Stop { "stop" } else { "reason" };
            return Err(
                Problem::bad(format!("sort by {name} only valid on closed connections"))
                    .fix("add state=closed"),
            );
        }
        let subs = if params
            .text("subs")
            .is_some_and(|subs| subs.eq_ignore_ascii_case("detail"))
        {
            Subs::Detail
        } else if params.switch("subs")? {
            Subs::List
        } else {
            Subs::Count
        };
        let (offset, limit) = params.page(LIMIT, LIMIT_MAX)?;
        Ok(Self {
            sort,
            state,
            subs,
            auth: params.switch("auth")?,
            cid: params.number("cid")?.filter(|&cid| cid > 0),
            user: params.text("user").map(ToOwned::to_owned),
            account: params.text("acc").map(ToOwned::to_owned),
            offset,
            limit,
        })
    }

    /// The connections asked for, and how many there are of that state.
    fn select(&self, view: &View) -> (Vec<Entry>, usize) {
        let registry = &view.context.registry;
        let mut entries = Vec::new();
        let entry = |handle, stop| Entry {
            handle,
            stop,
            key: Key::Up(0),
        };
        if self.state != State::Closed {
            entries.extend(registry.live().into_iter().map(|handle| entry(handle, None)));
        }
        if self.state != State::Open {
            let closed = registry.closed().into_iter();
            entries.extend(
                closed.map(|closed| entry(closed.handle.clone(), Some((closed.stop, closed.reason)))),
            );
        }
        if let Some(name) = &self.account {
            // Who has not been let in is in no account yet.
            let is_in = |handle: &Handle| handle.admitted().is_some() && **handle.account().name() == **name;
            entries.retain(|entry| is_in(&entry.handle));
        }
        let total = entries.len();
        entries.retain(|entry| {
            self.cid.is_none_or(|cid| cid == entry.handle.id())
                && self
                    .user
                    .as_ref()
                    .is_none_or(|user| entry.handle.user_name().as_ref() == Some(user))
        });
        for entry in &mut entries {
            entry.key = entry.key(self.sort);
        }
        entries.sort_by(|left, right| {
            left.key
                .cmp(&right.key)
                .then_with(|| left.handle.id().cmp(&right.handle.id()))
        });
        (entries, total)
    }

    fn row(&self, entry: &Entry, listed: &mut usize) -> Row {
        let (handle, client) = (&entry.handle, &entry.handle.client);
        let (connect, tls) = (handle.connect(), handle.tls());
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut subscriptions = Vec::new();
        if self.subs != Subs::Count {
            subscriptions = in_order(client.subscriptions());
            subscriptions.truncate(LISTED_MAX - *listed);
            *listed += subscriptions.len();
        }
        // As nats-server: an empty list is not shown.
        let shown = |subs| self.subs == subs && !subscriptions.is_empty();
        let list = || {
            subscriptions
                .iter()
                .map(|s| String::from_utf8_lossy(s.pattern()).into_owned())
        };
        let token = if self.auth {
            Token::of(handle)
        } else {
            Token::default()
        };
        let detail = || subscriptions.iter().map(|s| SubscriptionRow::of(s, handle.id()));
        Row {
            cid: handle.id(),
            kind: "Client",
            transport: "nats",
            ip: handle.ip.clone(),
            port: handle.port,
            start: timestamp(handle.start),
            last_activity: timestamp(entry.last_activity()),
            stop: entry.stop.map(|(stop, _)| timestamp(stop)),
            reason: entry.stop.map(|(_, reason)| reason.text()),
            rtt: round_trip(handle.rtt()),
            uptime: uptime(entry.age()),
            idle: uptime(entry.idle()),
            pending_bytes: client.outbox.pending(),
            in_msgs: count(&client.counters.in_msgs),
            out_msgs: count(&client.counters.out_msgs),
            in_bytes: count(&client.counters.in_bytes),
            out_bytes: count(&client.counters.out_bytes),
            subscriptions: client.subscription_count(),
            name: connect.name.clone(),
            lang: connect.lang.clone(),
            version: connect.version.clone(),
            tls_version: tls.map(|tls| tls.version),
            tls_cipher_suite: tls.map(|tls| tls.cipher_suite.clone()),
            tls_peer_certs: tls
                .filter(|_| self.auth)
                .and_then(|tls| tls.certificate.as_ref())
                .map(|certificate| [PeerCertificate::of(certificate)]),
            tls_first: tls.is_some_and(|tls| tls.first),
            authorized_user: self.auth.then(|| handle.user_name()).flatten(),
            account: self
                .auth
                .then(|| handle.account().name().to_string())
                .filter(|name| name != GLOBAL),
            jwt: token.jwt,
            issuer_key: token.issuer_key,
            name_tag: self.auth.then(|| handle.account().title()),
            tags: token.tags,
            subscriptions_list: shown(Subs::List).then(|| list().collect()),
            subscriptions_list_detail: shown(Subs::Detail).then(|| detail().collect()),
        }
    }
}

/// By sid, numbers by their value, so that pages follow each other.
pub(super) fn in_order(mut subscriptions: Vec<Arc<Subscription>>) -> Vec<Arc<Subscription>> {
    subscriptions.sort_by(|left, right| {
        let key = |own: &Subscription| (own.sid().len(), own.sid().to_vec());
        key(left).cmp(&key(right))
    });
    subscriptions
}

/// What is shown of the token a client came with.
#[derive(Default)]
struct Token {
    jwt: Option<String>,
    issuer_key: Option<String>,
    tags: Vec<String>,
}

impl Token {
    /// That of a bearer is a secret, and not shown.
    fn of(handle: &Handle) -> Self {
        let user = handle.user();
        let Some(grant) = user.as_ref().and_then(|user| user.grant()) else {
            return Self::default();
        };
        let jwt = handle.connect().jwt.clone();
        Self {
            jwt: jwt.filter(|_| !grant.is_bearer),
            issuer_key: Some(grant.issuer.clone()),
            tags: grant.tags.clone(),
        }
    }
}

pub(super) fn page(view: &View, params: &Params) -> Result<Page, Problem> {
    let mut ask = Ask::of(params)?;
    let (entries, total) = ask.select(view);
    if ask.cid.is_some() {
        ask.limit = 1;
    }
    let mut listed = 0;
    let connections: Vec<_> = entries
        .iter()
        .skip(ask.offset)
        .take(ask.limit)
        .map(|entry| ask.row(entry, &mut listed))
        .collect();
    Page::json(&Connz {
        server_id: &view.context.info.server_id,
        now: timestamp(SystemTime::now()),
        num_connections: connections.len(),
        total,
        offset: ask.offset,
        limit: ask.limit,
        connections,
    })
}
