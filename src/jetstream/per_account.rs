//! JetStream in every account that has streams, over one store: the same names mean different streams in each.
//!
//! An account without streams is told so (`not enabled for account`), as in nats-server. What the store holds for an account
//! that is not there, or no longer has streams, stays in the store untouched.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::account::{Account, GLOBAL, Import, Kind, StreamLimits};
use crate::protocol::encode::Message;
use crate::protocol::subject;
use crate::router::{Batch, Publisher, Router, Service, Subscription};
use crate::store::{Store, StreamRow};

use super::api::error;
use super::offline::account_in;
use super::quota::Quota;
use super::{Error, JetStream, Options, Progress, lock};

/// What is the same in every account.
pub struct Common {
    /// Where file streams are kept; without one only memory streams are taken.
    pub store: Option<Store>,
    /// The name answers give as that of the leader.
    pub server_name: String,
    /// The JetStream domain, if this server has one.
    pub domain: Option<String>,
    /// The largest message there can be.
    pub message_bytes_max: usize,
    /// Refuse requests with fields that are not known.
    pub strict: bool,
    /// Bytes that memory and file streams of all accounts may hold; -1 is unlimited.
    pub bytes_max: (i64, i64),
    /// How far recovery has come.
    pub progress: Arc<Progress>,
}

/// See the module documentation.
pub struct PerAccount {
    common: Common,
    quota: Arc<Quota>,
    by_account: RwLock<BTreeMap<Arc<str>, Arc<JetStream>>>,
    /// Accounts that are told that they have no streams.
    without: Mutex<Vec<(Arc<Router>, Arc<Subscription>)>>,
    /// One reload at a time.
    renewing: tokio::sync::Mutex<()>,
    me: Weak<Self>,
}

impl PerAccount {
    /// Recovers the streams of each account. Needs the runtime its tasks run on; reads files.
    pub fn start(common: Common, accounts: &[Arc<Account>]) -> Result<Arc<Self>, Error> {
        let rows = rows_by_account(common.store.as_ref())?;
        common.progress.begin(rows.values().map(Vec::len).sum());
        let (memory, storage) = common.bytes_max;
        let all = Arc::new_cyclic(|me| Self {
            quota: Quota::new(memory, storage, None),
            common,
            by_account: RwLock::default(),
            without: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            me: me.clone(),
        });
        match all.admit(accounts, rows).into_iter().next() {
            Some((_, error)) => {
                // Those that could be opened are not left at work behind a server that does not start.
                all.all()
                    .iter()
                    .for_each(|(_, jetstream)| jetstream.stopping.cancel());
                Err(error)
            }
            None => Ok(all),
        }
    }

    /// Takes on what a reload has changed: accounts that are new, have other limits, or no streams any more. Says of which
    /// accounts the streams could not be had; the others have theirs.
    pub async fn renew(&self, accounts: Vec<Arc<Account>>) -> Vec<(Arc<str>, Error)> {
        let _one = self.renewing.lock().await;
        let stays = |name: &str| {
            let account = accounts.iter().find(|account| &**account.name() == name);
            account.is_some_and(|account| account.spec().streams.is_some())
        };
        let gone: Vec<_> = {
            let mut known = self.by_account.write().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<_> = known.keys().filter(|name| !stays(name)).cloned().collect();
            gone.iter().filter_map(|name| known.remove(name)).collect()
        };
        for jetstream in gone {
            jetstream.end().await;
        }
        let Some(me) = self.me.upgrade() else {
            return Vec::new();
        };
        let runtime = tokio::runtime::Handle::current();
        // Recovery reads files.
        let admitting = tokio::task::spawn_blocking(move || {
            let _inside = runtime.enter();
            let is_new =
                |account: &Arc<Account>| account.spec().streams.is_some() && me.get(account.name()).is_none();
            let rows = match accounts.iter().any(is_new) {
                true => rows_by_account(me.common.store.as_ref()),
                false => Ok(HashMap::new()),
            };
            match rows {
                Ok(rows) => me.admit(&accounts, rows),
                Err(error) => vec![("".into(), error)],
            }
        });
        admitting.await.expect("recovering streams does not panic")
    }

    /// Gives each account its streams, or its refusal; says which could not have theirs.
    fn admit(
        &self,
        accounts: &[Arc<Account>],
        mut rows: HashMap<String, Vec<StreamRow>>,
    ) -> Vec<(Arc<str>, Error)> {
        let mut failed = Vec::new();
        let mut old = std::mem::take(&mut *lock(&self.without));
        for account in accounts {
            let spec = account.spec();
            let at = old
                .iter()
                .position(|(router, _)| Arc::ptr_eq(router, &account.router));
            let refusal = at.map(|at| old.swap_remove(at));
            let Some(limits) = spec.streams.clone() else {
                if spec.imports.iter().any(is_api) {
                    old.extend(refusal);
                } else {
                    let refuse = || (account.router.clone(), refuse(&account.router));
                    lock(&self.without).push(refusal.unwrap_or_else(refuse));
                }
                continue;
            };
            // Before the streams answer, so that nobody is answered twice.
            if let Some((router, refusal)) = refusal {
                router.remove(&refusal);
            }
            let rows = rows.remove(&**account.name()).unwrap_or_default();
            match self.get(account.name()) {
                Some(jetstream) => jetstream.set_limits(limits),
                None => match self.open(account, limits, rows) {
                    Ok(jetstream) => {
                        let mut known = self.by_account.write().unwrap_or_else(PoisonError::into_inner);
                        known.insert(account.name().clone(), jetstream);
                    }
                    Err(error) => failed.push((account.name().clone(), error)),
                },
            }
        }
        for (router, subscription) in old {
            router.remove(&subscription);
        }
        for (name, rows) in rows.iter().filter(|(name, _)| self.get(name).is_none()) {
            tracing::warn!(
                "The store holds {} streams of account {name}, which has none now: they are left as they are",
                rows.len()
            );
        }
        failed
    }

    /// What the streams of all accounts but one may grow to, where limited: of memory and of file streams.
    pub(super) fn reserved_but(&self, account: &str) -> (u64, u64) {
        let others = self.all();
        let others = others.iter().filter(|(name, _)| &**name != account);
        let sums = others.map(|(_, jetstream)| jetstream.snapshot());
        sums.fold((0, 0), |(memory, storage), sums| {
            (memory + sums.reserved_memory, storage + sums.reserved_storage)
        })
    }

    fn open(
        &self,
        account: &Account,
        limits: StreamLimits,
        rows: Vec<StreamRow>,
    ) -> Result<Arc<JetStream>, Error> {
        let common = &self.common;
        let mut options = Options::new(account.router.clone(), common.store.clone());
        options.account = account.name().clone();
        options.rows = Some(rows);
        options.peers = self.me.clone();
        options.server_name.clone_from(&common.server_name);
        options.domain.clone_from(&common.domain);
        options.message_bytes_max = common.message_bytes_max;
        options.strict = common.strict;
        options.progress = common.progress.clone();
        options.quota = Quota::new(limits.memory, limits.storage, Some(self.quota.clone()));
        options.limits = limits;
        JetStream::start(options)
    }

    /// That of one account, if it has streams.
    pub fn get(&self, account: &str) -> Option<Arc<JetStream>> {
        let known = self.by_account.read().unwrap_or_else(PoisonError::into_inner);
        known.get(account).cloned()
    }

    /// All of them with the names of their accounts.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<JetStream>)> {
        let known = self.by_account.read().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .map(|(name, jetstream)| (name.clone(), jetstream.clone()))
            .collect()
    }

    /// The store they share.
    pub fn store(&self) -> Option<&Store> {
        self.common.store.as_ref()
    }

    /// What is the same in every account.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// Tells the pull requests that wait that the server stops.
    pub fn end_pulls(&self) {
        self.all().iter().for_each(|(_, jetstream)| jetstream.end_pulls());
    }

    /// Stops all of them, then the store.
    pub async fn shutdown(&self) {
        for (_, jetstream) in self.all() {
            jetstream.end().await;
        }
        if let Some(store) = &self.common.store {
            super::close(store.clone()).await;
        }
    }
}

/// The store's streams, by the account they belong to.
fn rows_by_account(store: Option<&Store>) -> Result<HashMap<String, Vec<StreamRow>>, Error> {
    let mut by_account: HashMap<String, Vec<StreamRow>> = HashMap::new();
    for row in store.map(Store::streams).transpose()?.unwrap_or_default() {
        by_account.entry(account_of(&row)).or_default().push(row);
    }
    Ok(by_account)
}

/// The account of a stream, by its row.
pub(super) fn account_of(row: &StreamRow) -> String {
    account_in(&row.meta).unwrap_or_else(|| GLOBAL.to_owned())
}

/// Whether an account without streams of its own has the API of another one under the usual name.
fn is_api(import: &Import) -> bool {
    let here = import.to.as_ref().unwrap_or(&import.subject);
    import.kind == Kind::Service && subject::matches(here.as_bytes(), b"$JS.API.INFO")
}

/// Answers the API of an account that has no streams.
struct Refusal {
    router: Weak<Router>,
}

fn refuse(router: &Arc<Router>) -> Arc<Subscription> {
    let service: Arc<dyn Service> = Arc::new(Refusal {
        router: Arc::downgrade(router),
    });
    router.subscribe_service(&service, b"$JS.API.>", None)
}

impl Service for Refusal {
    fn accept(&self, batch: Batch) {
        let Some(router) = self.router.upgrade() else {
            return;
        };
        let mut publisher = Publisher::of_answers(router);
        for request in batch.iter().filter(|request| !request.reply.is_empty()) {
            let rest = request.subject.strip_prefix(b"$JS.API.").unwrap_or_default();
            let Some(kind) = kind_of(rest) else { continue };
            let answer = serde_json::json!({
                "type": format!("io.nats.jetstream.api.v1.{kind}_response"),
                "error": error::NOT_ENABLED_FOR_ACCOUNT,
            });
            let answer = answer.to_string().into_bytes();
            let answer = Message {
                subject: request.reply,
                payload: &answer,
                ..Message::default()
            };
            publisher.publish(&answer, None);
        }
        publisher.flush();
    }
}

/// The type of the answer to a request, by its endpoint; none for those that nobody answers there.
fn kind_of(endpoint: &[u8]) -> Option<String> {
    let endpoint = std::str::from_utf8(endpoint).ok()?;
    let tokens: Vec<_> = endpoint.split('.').collect();
    let verb = match tokens[..] {
        ["INFO"] => return Some("account_info".to_owned()),
        ["CONSUMER", "DURABLE", "CREATE", ..] => "create".to_owned(),
        ["CONSUMER", "MSG", ..] => return None,
        ["STREAM", "MSG", verb, ..] => format!("msg_{verb}"),
        ["STREAM" | "CONSUMER", verb, ..] => verb.to_owned(),
        _ => return None,
    };
    Some(format!("{}_{verb}", tokens[0]).to_ascii_lowercase())
}
