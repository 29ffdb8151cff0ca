//! Who may come in, what they may do, and where their messages go: an account owns its router, so isolation is structural.
//!
//! Nothing crosses from one account to another but by what one exports and another imports. Everyone is in
//! `$G` unless a user says otherwise; the system account, `$SYS` unless named, is where the server speaks of itself.

mod auth;
mod bridge;
mod certificate;
mod check;
pub mod jwt;
mod mapping;
mod permissions;
mod reply;
mod spec;
mod wiring;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Instant;

use crate::router::{Counters, Router, RouterStats};

pub use auth::{Auth, Login, User, Users, Verdict, Verification, is_bcrypt, is_usable_bcrypt, is_user_nkey};
pub use certificate::Certificate;
pub use check::{Problem, check, granting, renaming};
pub use mapping::{Mapped, Mappings};
pub use permissions::{Permissions, RESPONSES_EXPIRE, RESPONSES_MAX, Rule, Rules};
pub use spec::{Export, Import, Kind, Limits, Mapping, Response, Spec, StreamLimits, THRESHOLD, Weighted};

use wiring::Wiring;

/// The name of the account that everyone is in who has no other.
pub const GLOBAL: &str = "$G";
/// The name of the account in which the server speaks of itself, unless another is named.
pub const SYSTEM: &str = "$SYS";

/// An account: what it is to be, and its router.
pub struct Account {
    name: Arc<str>,
    /// What it is to be; a reload replaces it.
    spec: RwLock<Arc<Spec>>,
    mappings: RwLock<Option<Arc<Mappings>>>,
    /// Who gets what among its clients.
    pub router: Arc<Router>,
    clients: AtomicUsize,
    /// What those who have left have sent and got.
    past: Mutex<Traffic>,
    slow_consumers: AtomicU64,
    /// Done once it is used for the first time.
    first_use: Once,
}

/// Messages and bytes, as seen from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
}

impl Traffic {
    /// Adds what one client has sent and got.
    pub fn add(&mut self, counters: &Counters) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.in_msgs += count(&counters.in_msgs);
        self.in_bytes += count(&counters.in_bytes);
        self.out_msgs += count(&counters.out_msgs);
        self.out_bytes += count(&counters.out_bytes);
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.in_msgs += other.in_msgs;
        self.in_bytes += other.in_bytes;
        self.out_msgs += other.out_msgs;
        self.out_bytes += other.out_bytes;
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            in_msgs: self.in_msgs - other.in_msgs,
            in_bytes: self.in_bytes - other.in_bytes,
            out_msgs: self.out_msgs - other.out_msgs,
            out_bytes: self.out_bytes - other.out_bytes,
        }
    }
}

impl Account {
    fn new(spec: Arc<Spec>) -> Arc<Self> {
        let account = Self {
            name: spec.name.clone(),
            spec: RwLock::default(),
            mappings: RwLock::default(),
            router: Arc::new(Router::new()),
            clients: AtomicUsize::new(0),
            past: Mutex::default(),
            slow_consumers: AtomicU64::new(0),
            first_use: Once::new(),
        };
        account.become_as(spec);
        Arc::new(account)
    }

    fn become_as(&self, spec: Arc<Spec>) {
        let mappings = Mappings::new(&spec.mappings).map(Arc::new);
        *self.mappings.write().unwrap_or_else(PoisonError::into_inner) = mappings;
        *self.spec.write().unwrap_or_else(PoisonError::into_inner) = spec;
    }

    /// What its clients' messages are renamed to, if they are.
    pub fn mappings(&self) -> Option<Arc<Mappings>> {
        self.mappings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is to be.
    pub fn spec(&self) -> Arc<Spec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What people call it: its title, where its name is a key.
    pub fn title(&self) -> String {
        self.spec().title.clone().unwrap_or_else(|| self.name.to_string())
    }

    /// What those who have left have sent and got.
    pub fn past(&self) -> Traffic {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what one who leaves has sent and got.
    pub fn add_past(&self, traffic: &Traffic) {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner) += *traffic;
    }

    /// Of those, how many were too slow for what they had asked for.
    pub fn slow_consumers(&self) -> u64 {
        self.slow_consumers.load(Ordering::Relaxed)
    }

    /// Counts one that was too slow.
    pub fn count_slow_consumer(&self) {
        self.slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// Does `prepare` unless it has been done; others wait until it is.
    pub fn on_first_use(&self, prepare: impl FnOnce()) {
        self.first_use.call_once(prepare);
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
    /// Locked before any other, for the whole of a reload.
    wiring: Mutex<Wiring>,
}

impl Drop for Accounts {
    /// Routers that are wired to each other would keep each other for ever.
    fn drop(&mut self) {
        let mut wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        wiring.close();
    }
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
            wiring: Mutex::default(),
        };
        accounts.apply(auth, specs, system);
        accounts
    }

    /// Takes on what a reload has changed. Accounts that are no longer named are left to those who are in still.
    pub fn apply(&self, auth: Auth, specs: &[Spec], system: Option<&str>) {
        // Held throughout: one reload at a time, and logins go on by what was known before.
        let mut wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self
            .by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut by_name = BTreeMap::new();
        let mut defaults = [GLOBAL, system.unwrap_or(SYSTEM)].map(Spec::new);
        // As in nats-server: where accounts are named, those have streams that say so.
        defaults[0].streams = specs.is_empty().then(StreamLimits::default);
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
            account.become_as(spec);
            by_name.insert(account.name.clone(), account);
        }
        let gone = known.iter().filter(|(name, _)| !by_name.contains_key(*name));
        gone.for_each(|(_, account)| account.router.set_imports(Vec::new()));
        wiring.renew(&by_name);
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = by_name;
        if let Some(account) = self.get(system.unwrap_or(SYSTEM)) {
            *self.system.write().unwrap_or_else(PoisonError::into_inner) = account;
        }
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
    }

    /// Gives up requests to other accounts that have waited too long for their answers; to be called now and then.
    pub fn sweep(&self) {
        let mut wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        wiring.sweep(Instant::now());
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
