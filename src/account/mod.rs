//! Who may come in, what they may do, and where their messages go: an account owns its router, so isolation is structural.
//!
//! Nothing crosses from one account to another but by what one exports and another imports. Everyone is in
//! `$G` unless a user says otherwise; the system account, `$SYS` unless named, is where the server speaks of itself.

mod auth;
pub mod jwt;
mod permissions;
mod spec;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::router::{Router, RouterStats};

pub use auth::{Auth, Login, User, Users, Verdict, Verification, is_bcrypt, is_usable_bcrypt, is_user_nkey};
pub use permissions::{Permissions, RESPONSES_EXPIRE, RESPONSES_MAX, Rule, Rules};
pub use spec::{Export, Import, Kind, Limits, Mapping, Response, Spec, StreamLimits, THRESHOLD, Weighted};

/// The name of the account that everyone is in who has no other.
pub const GLOBAL: &str = "$G";
/// The name of the account in which the server speaks of itself, unless another is named.
pub const SYSTEM: &str = "$SYS";

/// An account: what it is to be, and its router.
pub struct Account {
    name: Arc<str>,
    /// What it is to be; a reload replaces it.
    spec: RwLock<Arc<Spec>>,
    /// Who gets what among its clients.
    pub router: Arc<Router>,
    clients: AtomicUsize,
}

impl Account {
    fn new(spec: Arc<Spec>) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.clone(),
            spec: RwLock::new(spec),
            router: Arc::new(Router::new()),
            clients: AtomicUsize::new(0),
        })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is to be.
    pub fn spec(&self) -> Arc<Spec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that are in it.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Counts a connection in; false when there are as many as there may be.
    pub fn enter(&self) -> bool {
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        let room = self.spec().limits.connections.is_none_or(|max| before < max);
        if !room {
            self.leave();
        }
        room
    }

    /// Counts a connection out.
    pub fn leave(&self) {
        self.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All accounts of a server, and who may come into them.
pub struct Accounts {
    /// What clients must show; a reload replaces it.
    auth: RwLock<Arc<Auth>>,
    by_name: RwLock<BTreeMap<Arc<str>, Arc<Account>>>,
    global: Arc<Account>,
    system: RwLock<Arc<Account>>,
}

impl Accounts {
    /// The accounts of `specs`, and `$G` and `$SYS` besides.
    pub fn new(auth: Auth, specs: &[Spec], system: Option<&str>) -> Self {
        let global = Account::new(Arc::new(Spec::new(GLOBAL)));
        let accounts = Self {
            auth: RwLock::default(),
            by_name: RwLock::default(),
            system: RwLock::new(global.clone()),
            global,
        };
        accounts.apply(auth, specs, system);
        accounts
    }

    /// Takes on what a reload has changed. Accounts that are no longer named are left to those who are in still.
    pub fn apply(&self, auth: Auth, specs: &[Spec], system: Option<&str>) {
        let mut by_name = BTreeMap::new();
        {
            let mut known = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
            let defaults = [GLOBAL, system.unwrap_or(SYSTEM)].map(Spec::new);
            let unnamed = defaults
                .iter()
                .filter(|spec| specs.iter().all(|other| other.name != spec.name));
            for spec in specs.iter().chain(unnamed) {
                let spec = Arc::new(spec.clone());
                let is_global = &*spec.name == GLOBAL;
                let account = match known.get(&spec.name) {
                    None if is_global => self.global.clone(),
                    None => Account::new(spec.clone()),
                    Some(account) => account.clone(),
                };
                *account.spec.write().unwrap_or_else(PoisonError::into_inner) = spec;
                by_name.insert(account.name.clone(), account);
            }
            *known = by_name;
        }
        if let Some(account) = self.get(system.unwrap_or(SYSTEM)) {
            *self.system.write().unwrap_or_else(PoisonError::into_inner) = account;
        }
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
    }

    /// What clients must show.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The account of those who have no other.
    pub fn global(&self) -> &Arc<Account> {
        &self.global
    }

    /// The account in which the server speaks of itself.
    pub fn system(&self) -> Arc<Account> {
        self.system.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An account by name.
    pub fn get(&self, name: &str) -> Option<Arc<Account>> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Sums over the routers of all accounts.
    pub fn stats(&self) -> RouterStats {
        let each = self.all().into_iter().map(|account| account.router.stats());
        each.fold(RouterStats::default(), |sum, stats| RouterStats {
            subscriptions: sum.subscriptions + stats.subscriptions,
            inserts: sum.inserts + stats.inserts,
            removes: sum.removes + stats.removes,
            matches: sum.matches + stats.matches,
            cache_hits: sum.cache_hits + stats.cache_hits,
        })
    }

    /// The account of a user; none when it is gone.
    pub fn of(&self, user: Option<&User>) -> Option<Arc<Account>> {
        match user {
            None => Some(self.global.clone()),
            Some(user) => self.get(&user.account),
        }
    }
}
