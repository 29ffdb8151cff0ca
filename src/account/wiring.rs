//! What one account exports and another imports, put to work: the only place where two accounts meet.
//!
//! Streams become imports of the importing account's router, services become bridges on it. An import that its exporter does
//! not offer, that is there twice or that leads around in a circle is not wired, and named in the log; a configuration
//! file that holds one is refused before it comes here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::transform::Transform;
use crate::router::{self, Service, Subscription};

use super::bridge::{Bridge, Terms};
use super::check::{granting, named, renaming, unsound};
use super::spec::{Export, Import, Kind};
use super::{Account, Spec};

/// See the module documentation.
#[derive(Default)]
pub(super) struct Wiring {
    bridges: Vec<Bound>,
    /// Bridges that others have replaced, while answers are awaited on them.
    retired: Vec<Arc<Bridge>>,
}

/// What a bridge is made from; where that is the same, the bridge is.
struct Plan {
    importer: Arc<Account>,
    exporter: Arc<Account>,
    /// What is asked for, in the names of the exporter.
    subject: String,
    /// What it is called here.
    here: String,
    terms: Terms,
}

impl Plan {
    fn new(wanted: &Wanted<'_>) -> Self {
        let Wanted { import, export, .. } = wanted;
        Self {
            importer: wanted.importer.clone(),
            exporter: wanted.exporter.clone(),
            subject: import.subject.clone(),
            here: import.to.as_ref().unwrap_or(&import.subject).clone(),
            terms: Terms {
                response: export.response,
                threshold: export.threshold,
                share: import.share,
            },
        }
    }

    /// Whether both are asked by the same requests.
    fn is_in_place_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.importer, &other.importer) && self.here == other.here
    }

    fn is_same(&self, other: &Self) -> bool {
        self.is_in_place_of(other)
            && Arc::ptr_eq(&self.exporter, &other.exporter)
            && self.subject == other.subject
            && self.terms == other.terms
    }
}

/// A bridge at work.
struct Bound {
    plan: Plan,
    bridge: Arc<Bridge>,
    subscription: Arc<Subscription>,
}

impl Bound {
    fn new(plan: Plan) -> Option<Self> {
        let back = Transform::between(&plan.subject, &plan.here).ok()?.inverse()?;
        let here = back.source().to_vec();
        let (home, exporter) = (&plan.importer.router, plan.exporter.clone());
        let importer = plan.importer.name().clone();
        let bridge = Arc::new(Bridge::new(home, exporter, back, importer, plan.terms.clone()));
        let service: Arc<dyn Service> = bridge.clone();
        Some(Self {
            subscription: home.subscribe_service(&service, &here, None),
            bridge,
            plan,
        })
    }

    /// Takes no more requests.
    fn end(self) -> Arc<Bridge> {
        self.plan.importer.router.remove(&self.subscription);
        self.bridge
    }
}

/// An import that its exporter offers.
struct Wanted<'a> {
    importer: &'a Arc<Account>,
    spec: &'a Spec,
    import: &'a Import,
    exporter: Arc<Account>,
    export: Export,
}

impl Wiring {
    /// Wires what the accounts say now. What was wired the same way before stays as it is.
    pub fn renew(&mut self, accounts: &BTreeMap<Arc<str>, Arc<Account>>) {
        let specs: Vec<_> = accounts
            .values()
            .map(|account| (account, account.spec()))
            .collect();
        let wanted = sound(wanted(accounts, &specs));
        for (account, _) in &specs {
            let of_account = wanted
                .iter()
                .filter(|wanted| wanted.import.kind == Kind::Stream && Arc::ptr_eq(wanted.importer, account));
            account.router.set_imports(of_account.filter_map(taken).collect());
        }
        let services = wanted.iter().filter(|wanted| wanted.import.kind == Kind::Service);
        self.bind(services.map(Plan::new).collect());
    }

    fn bind(&mut self, plans: Vec<Plan>) {
        let mut old = std::mem::take(&mut self.bridges);
        let mut new = Vec::new();
        for plan in plans {
            match old.iter().position(|bound| bound.plan.is_same(&plan)) {
                Some(at) => self.bridges.push(old.swap_remove(at)),
                None => new.push(plan),
            }
        }
        for plan in new {
            // Just before: both at once would ask twice, and who asks meanwhile hears that nobody listens.
            while let Some(at) = old.iter().position(|bound| plan.is_in_place_of(&bound.plan)) {
                let bound = old.swap_remove(at);
                let goes_on = Arc::ptr_eq(&bound.plan.exporter, &plan.exporter);
                let bridge = bound.end();
                if goes_on {
                    self.retired.push(bridge);
                } else {
                    bridge.close();
                }
            }
            self.bridges.extend(Bound::new(plan));
        }
        // What is no longer imported is not answered either.
        old.into_iter().for_each(|bound| bound.end().close());
    }

    /// Gives up what has waited too long for its answer.
    pub fn sweep(&mut self, now: Instant) {
        let bridges = self.bridges.iter().map(|bound| &bound.bridge);
        bridges.chain(&self.retired).for_each(|bridge| bridge.sweep(now));
        self.retired.retain(|bridge| {
            let is_waiting = bridge.waiting() > 0;
            if !is_waiting {
                bridge.close();
            }
            is_waiting
        });
    }

    /// Ends all services; nothing is answered any more.
    pub fn close(&mut self) {
        self.bind(Vec::new());
        self.retired.drain(..).for_each(|bridge| bridge.close());
    }
}

/// What accounts import and are offered; the log hears of the rest.
fn wanted<'a>(
    accounts: &BTreeMap<Arc<str>, Arc<Account>>,
    specs: &'a [(&'a Arc<Account>, Arc<Spec>)],
) -> Vec<Wanted<'a>> {
    let mut wanted = Vec::new();
    for (importer, spec) in specs {
        for import in &spec.imports {
            let exporter = accounts.get(&import.account);
            let offer = exporter.and_then(|exporter| {
                let export = granting(&exporter.spec(), &spec.name, import)?.clone();
                Some((exporter.clone(), export))
            });
            match offer {
                Some((exporter, export)) => wanted.push(Wanted {
                    importer,
                    spec,
                    import,
                    exporter,
                    export,
                }),
                None => tell(spec, import, "is not exported to it"),
            }
        }
    }
    wanted
}

/// Of these, what can be wired: each once, and none that leads around in a circle; the log hears of the rest.
fn sound(mut wanted: Vec<Wanted<'_>>) -> Vec<Wanted<'_>> {
    let imports: Vec<_> = wanted.iter().map(|wanted| (wanted.spec, wanted.import)).collect();
    for (at, why) in unsound(&imports).into_iter().rev() {
        let Wanted { spec, import, .. } = wanted.remove(at);
        tell(spec, import, &format!("is left out: {why}"));
    }
    wanted
}

fn tell(spec: &Spec, import: &Import, what: &str) {
    let at = match import.rule.as_str() {
        "" => String::new(),
        rule => format!(" ({rule})"),
    };
    tracing::error!("Account {}: {} {what}{at}", spec.name, named(import));
}

fn taken(wanted: &Wanted<'_>) -> Option<router::Import> {
    router::Import::new(&wanted.exporter.router, renaming(wanted.import).ok()?)
}

#[cfg(test)]
#[path = "wiring_tests.rs"]
mod tests;
