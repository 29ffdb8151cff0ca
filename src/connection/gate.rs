//! The permissions of one connection's user, asked for each publish and subscription.
//!
//! A connection without permissions has no gate: nothing is asked. With one, what was asked about a subject is
//! remembered, so that a publisher which repeats itself pays one lookup a message.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::account::{Permissions, User};
use crate::router::{Client, Router, Terms};

/// Answers remembered before they are forgotten all together.
const KNOWN_MAX: usize = 512;
/// Subjects longer than this are asked about each time.
const KEY_MAX: usize = 256;
/// Violations logged one by one; beyond, every so manieth.
const LOGGED_MAX: u64 = 10;
const LOGGED_EVERY: u64 = 1000;

/// See the module documentation.
pub(super) struct Gate {
    user: Arc<User>,
    permissions: Arc<Permissions>,
    known: HashMap<Box<[u8]>, bool>,
    violations: u64,
}

impl Gate {
    /// The gate of a user; none when it may do everything.
    pub fn of(user: Option<&Arc<User>>) -> Option<Box<Self>> {
        let user = user?;
        let permissions = user
            .permissions
            .clone()
            .filter(|permissions| !permissions.is_open())?;
        Some(Box::new(Self {
            user: user.clone(),
            permissions,
            known: HashMap::new(),
            violations: 0,
        }))
    }

    /// Whether a message may be published on `to`; counts the use of a reply that was received.
    pub fn may_publish(&mut self, to: &[u8], client: &Client) -> bool {
        if let Some(&allowed) = self.known.get(to) {
            return allowed || self.may_answer(to, client);
        }
        let allowed = self.permissions.may_publish(to);
        if to.len() > KEY_MAX {
            return allowed || self.may_answer(to, client);
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(to.into(), allowed);
        allowed || self.may_answer(to, client)
    }

    fn may_answer(&self, to: &[u8], client: &Client) -> bool {
        self.permissions.responses.is_some() && client.may_answer(to)
    }

    pub fn may_subscribe(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        self.permissions.may_subscribe(pattern, queue)
    }

    /// Tells the operator who was refused what, and by which rule; a client that goes on and on does not fill the log.
    pub fn log(&mut self, label: &str, what: &str) {
        self.violations += 1;
        let count = self.violations;
        if count > LOGGED_MAX && !count.is_multiple_of(LOGGED_EVERY) {
            return;
        }
        let (name, rule) = (&self.user.name, &self.user.rule);
        let times = if count > LOGGED_MAX {
            format!(", {count} violations so far")
        } else {
            String::new()
        };
        tracing::error!("{label} - {what} - User \"{name}\", permissions at {rule}{times}");
    }
}

/// Lets the router heed the permissions of a client's user.
pub(super) fn impose(router: &Router, client: &Client, user: Option<&Arc<User>>) {
    let permissions = user
        .and_then(|user| user.permissions.clone())
        .filter(|permissions| !permissions.is_open());
    let terms = permissions.map(|permissions| Terms {
        filter: permissions.filter(),
        responses: permissions.responses,
        publish: Arc::new(move |to: &[u8]| permissions.may_publish(to)),
    });
    router.set_terms(client, terms);
}
