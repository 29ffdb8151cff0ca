//! The system account: the server answers `$SYS.REQ` requests and tells events, as nats-server does.
//!
//! Whoever is in the system account may ask everything, kick clients and reload. Every other account has four subjects of its
//! own, which speak of that account alone: [`requests::OWN`]. Nothing more of it can be reached from there, nor can events be
//! feigned, for they are published in the router of the system account.
//!
//! Invariants: requests wait in bounded queues, those of the system account apart from all others; pages are made on the
//! blocking pool, one at a time for each queue; events that do not fit are dropped and counted, a connection never waits
//! for them; while nobody listens an event costs a look into the router.
//!
//! Deliberately absent: other servers (there are none to ask), answers in compressed form, claims of accounts.

mod accounts;
mod envelope;
mod events;
mod pulse;
mod queue;
mod requests;
mod user;

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::Account;
use crate::config::Config;
use crate::connection::Context;
use crate::monitor::View;
use crate::protocol::encode::Message;
use crate::protocol::subject;
use crate::router::{Publisher, Service};

use envelope::Identity;
use events::{Inbox, Lookout};
use queue::{Desk, Queue};

/// Requests for a reload that may wait.
const RELOADS_MAX: usize = 4;

/// A request of the system account to read the configuration again. Dropped unanswered, the asker is told that it failed.
pub struct ReloadRequest(oneshot::Sender<Result<(), String>>);

impl ReloadRequest {
    /// Says how it went.
    pub fn answer(self, outcome: Result<(), String>) {
        self.0.send(outcome).ok();
    }
}

/// See the module documentation.
pub(super) struct System {
    context: Arc<Context>,
    view: Arc<View>,
    identity: Identity,
    /// Requests of the system account.
    inside: Arc<Queue>,
    /// Requests of all other accounts.
    outside: Arc<Queue>,
    inbox: Inbox,
    /// Who reads the configuration again, if somebody does.
    reloads: OnceLock<mpsc::Sender<ReloadRequest>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl System {
    /// Serves every account, those that come later too, and starts to tell events.
    pub fn start(config: &Config, context: &Arc<Context>, view: Arc<View>) -> Arc<Self> {
        let system = Arc::new(Self {
            identity: Identity::new(config, &context.info),
            context: context.clone(),
            view,
            inside: Arc::default(),
            outside: Arc::default(),
            inbox: Inbox::default(),
            reloads: OnceLock::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        for queue in [&system.inside, &system.outside] {
            system.tasks.spawn(requests::serve(system.clone(), queue.clone()));
        }
        system.tasks.spawn(events::relay(system.clone()));
        system.tasks.spawn(pulse::beat(system.clone()));
        context.events.tell(Arc::new(Lookout::new(&system)));
        for account in context.accounts.all() {
            system.serve_account(&account);
        }
        system
    }

    /// Subscribes what an account may ask, once.
    fn serve_account(&self, account: &Arc<Account>) {
        account.on_first_use(|| {
            let is_system = self.is_system(account);
            // The system account has a queue to itself.
            let (queue, share_max) = match is_system {
                true => (&self.inside, usize::MAX),
                false => (&self.outside, queue::SHARE_MAX),
            };
            let desk: Arc<dyn Service> = Arc::new(Desk::new(account, queue.clone(), share_max));
            let mut subjects: Vec<_> = requests::OWN.iter().map(|own| (*own).to_owned()).collect();
            if is_system {
                subjects = requests::subjects(&self.identity.id);
            }
            for pattern in subjects {
                account.router.subscribe_service(&desk, pattern.as_bytes(), None);
            }
        });
    }

    fn is_system(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(account, &self.context.accounts.system())
    }

    /// From now on requests for a reload come out here.
    pub fn take_reloads(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, receiver) = mpsc::channel(RELOADS_MAX);
        self.reloads.set(sender).ok();
        receiver
    }

    /// Tells everybody who listens in the system account that the server will go.
    pub fn tell_lame_duck(&self) {
        self.announce("LAMEDUCK");
    }

    /// Tells them that it goes, and tells nothing any more.
    pub fn stop(&self) {
        if !self.stop.is_cancelled() {
            self.announce("SHUTDOWN");
        }
        self.end();
    }

    /// Ends without a word.
    pub fn end(&self) {
        self.stop.cancel();
    }

    fn announce(&self, what: &str) {
        let subject = format!("$SYS.SERVER.{}.{what}", self.identity.id);
        let mut publisher = Publisher::new(self.context.accounts.system().router.clone());
        publish(&mut publisher, &subject, &self.identity.stamp());
        publisher.flush();
    }
}

/// Publishes JSON, unless the name of an account makes the subject one that cannot be.
fn publish(publisher: &mut Publisher, to: &str, json: &serde_json::Value) {
    if !subject::is_subject(to.as_bytes()) {
        return;
    }
    let payload = serde_json::to_vec(json).expect("a JSON value serialises");
    let message = Message {
        subject: to.as_bytes(),
        payload: &payload,
        ..Message::default()
    };
    publisher.publish(&message, None);
}
