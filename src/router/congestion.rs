//! Destinations that were found congested by one publisher, and are waited for by another: for services that publish on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::publisher::{Publisher, relieve};
use super::subscription::Target;

/// See the module documentation.
#[derive(Default)]
pub struct Congestion {
    targets: Mutex<Vec<Target>>,
}

impl Congestion {
    fn lock(&self) -> MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what `publisher` found congested at its flushes.
    pub fn take_from(&self, publisher: &mut Publisher) {
        if !publisher.is_congested() {
            return;
        }
        let mut targets = self.lock();
        targets.retain(|target| !is_over(target));
        for target in publisher.take_congested() {
            if !targets.iter().any(|known| is_same(known, &target)) {
                targets.push(target);
            }
        }
    }

    /// Whether [`Congestion::relief`] would wait.
    pub fn is_any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Waits, for a bounded time each, until the destinations have drained. Who waits takes them off: another
    /// publisher waits when it has found one congested itself.
    pub async fn relief(&self) {
        loop {
            let target = self.lock().pop();
            let Some(target) = target else { return };
            relieve(&target, false).await;
        }
    }
}

fn is_over(target: &Target) -> bool {
    matches!(target, Target::Client(client) if client.outbox.closed().is_some())
}

fn is_same(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Client(one), Target::Client(other)) => Arc::ptr_eq(one, other),
        (Target::Service(one), Target::Service(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}
