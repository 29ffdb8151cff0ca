//! What one account exports and another imports, put to work: the only place where two accounts meet.
//!
//! Streams become imports of the importing account's router, services become bridges on it. An import that its exporter does
//! not offer is not wired, and named in the log; a configuration that holds one is refused before it comes here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::router::{self, Router, Service, Subscription};

use super::bridge::{Bridge, Terms};
use super::check::{granting, renaming};
use super::spec::{Export, Import, Kind};
use super::{Account, Spec};

/// See the module documentation.
#[derive(Default)]
pub(super) struct Wiring {
    bridges: Vec<Bound>,
}

/// A bridge at work, and what it was made from.
struct Bound {
    importer: Arc<str>,
    import: Import,
    export: Export,
    home: Arc<Router>,
    bridge: Arc<Bridge>,
    subscription: Arc<Subscription>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.home.remove(&self.subscription);
        self.bridge.close();
    }
}

impl Wiring {
    /// Wires what the accounts say now. What was wired the same way before stays as it is.
    pub fn renew(&mut self, accounts: &BTreeMap<Arc<str>, Arc<Account>>) {
        let mut old = std::mem::take(&mut self.bridges);
        for account in accounts.values() {
            let spec = account.spec();
            let mut streams = Vec::new();
            for import in &spec.imports {
                let Some((exporter, export)) = offered(accounts, &spec, import) else {
                    tracing::error!(
                        "Account {}: import of {} \"{}\" from {} is not exported to it{}",
                        spec.name,
                        import.kind,
                        import.subject,
                        import.account,
                        at(&import.rule)
                    );
                    continue;
                };
                match import.kind {
                    Kind::Stream => streams.extend(taken(&exporter, import)),
                    Kind::Service => {
                        let same = |bound: &Bound| {
                            bound.importer == spec.name
                                && bound.import == *import
                                && bound.export == export
                                && Arc::ptr_eq(&bound.home, &account.router)
                        };
                        let bound = match old.iter().position(same) {
                            Some(at) => Some(old.swap_remove(at)),
                            None => bind(account, &exporter, import, export),
                        };
                        self.bridges.extend(bound);
                    }
                }
            }
            account.router.set_imports(streams);
        }
    }

    /// Gives up what has waited too long for its answer.
    pub fn sweep(&self, now: Instant) {
        self.bridges.iter().for_each(|bound| bound.bridge.sweep(now));
    }
}

fn at(rule: &str) -> String {
    if rule.is_empty() {
        String::new()
    } else {
        format!(" ({rule})")
    }
}

/// The exporter of what is imported, and by which export it may be.
fn offered(
    accounts: &BTreeMap<Arc<str>, Arc<Account>>,
    importer: &Spec,
    import: &Import,
) -> Option<(Arc<Account>, Export)> {
    let exporter = accounts.get(&import.account)?;
    let spec = exporter.spec();
    let export = granting(&spec, &importer.name, import)?;
    Some((exporter.clone(), export.clone()))
}

fn taken(exporter: &Account, import: &Import) -> Option<router::Import> {
    router::Import::new(&exporter.router, renaming(import).ok()?)
}

fn bind(importer: &Account, exporter: &Account, import: &Import, export: Export) -> Option<Bound> {
    let back = renaming(import).ok()?.inverse()?;
    let here = back.source().to_vec();
    let terms = Terms {
        response: export.response,
        threshold: export.threshold,
        share: import.share,
    };
    let away = exporter.router.clone();
    let bridge = Arc::new(Bridge::new(
        &importer.router,
        away,
        back,
        importer.name().clone(),
        terms,
    ));
    let service: Arc<dyn Service> = bridge.clone();
    Some(Bound {
        importer: importer.name().clone(),
        import: import.clone(),
        export,
        home: importer.router.clone(),
        bridge,
        subscription: importer.router.subscribe_service(&service, &here, None),
    })
}
