//! JetStream in every account that has streams, over one store: the same names mean different streams in each.
//!
//! An account without streams is told so (`not enabled for account`), as in nats-server. What the store holds for an account
//! that is not there, or no longer has streams, stays in the store untouched.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::account::{Account, GLOBAL, StreamLimits};
use crate::protocol::encode::Message;
use crate::router::{Batch, Publisher, Router, Service, Subscription};
use crate::store::{Store, StreamRow};

use super::api::error;
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
}

impl PerAccount {
    /// Recovers the streams of each account. Needs the runtime its tasks run on; reads files.
    pub fn start(common: Common, accounts: &[Arc<Account>]) -> Result<Arc<Self>, Error> {
        let rows = rows_by_account(common.store.as_ref())?;
        common.progress.begin(rows.values().map(Vec::len).sum());
        let (memory, storage) = common.bytes_max;
        let all = Arc::new(Self {
            quota: Quota::new(memory, storage, None),
            common,
            by_account: RwLock::default(),
            without: Mutex::default(),
        });
        all.admit(accounts, rows)?;
        Ok(all)
    }

    /// Takes on what a reload has changed: accounts that are new, have other limits, or no streams any more.
    pub async fn renew(&self, accounts: &[Arc<Account>]) -> Result<(), Error> {
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
        let is_new = |account: &&Arc<Account>| stays(account.name()) && self.get(account.name()).is_none();
        let rows = if accounts.iter().any(|account| is_new(&account)) {
            rows_by_account(self.common.store.as_ref())?
        } else {
            HashMap::new()
        };
        self.admit(accounts, rows)
    }

    fn admit(
        &self,
        accounts: &[Arc<Account>],
        mut rows: HashMap<String, Vec<StreamRow>>,
    ) -> Result<(), Error> {
        let old = std::mem::take(&mut *lock(&self.without));
        for account in accounts {
            let Some(limits) = account.spec().streams.clone() else {
                lock(&self.without).push((account.router.clone(), refuse(&account.router)));
                continue;
            };
            let rows = rows.remove(&**account.name()).unwrap_or_default();
            match self.get(account.name()) {
                Some(jetstream) => jetstream.set_limits(limits),
                None => {
                    let jetstream = self.open(account, limits, rows)?;
                    let mut known = self.by_account.write().unwrap_or_else(PoisonError::into_inner);
                    known.insert(account.name().clone(), jetstream);
                }
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
        Ok(())
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
        by_account.entry(account_of(&row)?).or_default().push(row);
    }
    Ok(by_account)
}

/// The account of a stream, by its row.
pub(super) fn account_of(row: &StreamRow) -> Result<String, Error> {
    #[derive(serde::Deserialize)]
    struct Owner {
        account: Option<String>,
    }
    let owner: Owner =
        serde_json::from_slice(&row.meta).map_err(|error| Error::Config { id: row.id, error })?;
    Ok(owner.account.unwrap_or_else(|| GLOBAL.to_owned()))
}

/// Answers the API of an account that has no streams.
struct Refusal {
    router: std::sync::Weak<Router>,
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
