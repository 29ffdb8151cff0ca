//! What is told by the clock: the figures of the server, often at first and every ten seconds then, and the connections of
//! each account. Nothing is made while nobody listens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::monitor;
use crate::router::Publisher;

use super::{System, publish};

/// The first figures come after this time, the next after twice as much, and so on up to the last.
const FIGURES_FIRST: Duration = Duration::from_millis(250);
const FIGURES_EVERY: Duration = Duration::from_secs(10);
/// The connections of accounts are told so often though nothing has changed.
const COUNTS_EVERY: Duration = Duration::from_secs(30);

/// Tells until the server stops.
pub(super) async fn beat(system: Arc<System>) {
    let mut pause = FIGURES_FIRST;
    let mut counted = Instant::now();
    loop {
        tokio::select! {
            () = system.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(FIGURES_EVERY);
        tell(&system).await;
        if counted.elapsed() >= COUNTS_EVERY {
            counted = Instant::now();
            for account in system.context.accounts.all() {
                if account.clients() > 0 {
                    system.count(&account);
                }
            }
        }
    }
}

/// Tells the figures to those who listen.
pub(super) async fn tell(system: &Arc<System>) {
    let subject = format!("$SYS.SERVER.{}.STATSZ", system.identity.id);
    if !system.is_heard(&subject) {
        return;
    }
    let figures = figures(system).await;
    let mut publisher = Publisher::new(system.context.accounts.system().router.clone());
    let event = json!({ "server": system.identity.stamp(), "statsz": figures });
    publish(&mut publisher, &subject, &event);
    publisher.flush();
    publisher.relieve().await;
}

/// The figures, made where it may take its time.
pub(super) async fn figures(system: &Arc<System>) -> Value {
    let system = system.clone();
    let made = tokio::task::spawn_blocking(move || monitor::statsz(&system.view)).await;
    made.unwrap_or_default()
}
