//! What others are told of connections that come and go.
//!
//! The witness looks and returns: it must not block, whatever comes of what it saw. Without one nothing is told.

use std::sync::{Arc, OnceLock};

use crate::account::Account;

use super::handle::Handle;
use super::reason::Reason;

/// Told of connections, on the connection's own task.
pub trait Witness: Send + Sync {
    /// A connection is about to use this account, or has just stopped to.
    fn moved(&self, account: &Arc<Account>);
    /// A client has been let in after its CONNECT.
    fn connected(&self, handle: &Arc<Handle>);
    /// A connection has ended; it is among the closed ones already.
    fn ended(&self, handle: &Arc<Handle>, reason: Reason);
}

/// Where the witness of a server is kept.
#[derive(Default)]
pub struct Events(OnceLock<Arc<dyn Witness>>);

impl Events {
    /// Names the witness; the first one stays.
    pub fn tell(&self, witness: Arc<dyn Witness>) {
        self.0.set(witness).ok();
    }

    pub(super) fn moved(&self, account: &Arc<Account>) {
        if let Some(witness) = self.0.get() {
            witness.moved(account);
        }
    }

    pub(super) fn connected(&self, handle: &Arc<Handle>) {
        if let Some(witness) = self.0.get() {
            witness.connected(handle);
        }
    }

    pub(super) fn ended(&self, handle: &Arc<Handle>, reason: Reason) {
        if let Some(witness) = self.0.get() {
            witness.ended(handle, reason);
        }
    }
}
