//! Who may come in, what they may do, and where their messages go: an account owns its router, so isolation is structural.
//!
//! One account today, `$G`, open or guarded by a token or by users with passwords or nkeys, each with permissions of its
//! own. Deliberately absent so far: several accounts, JWTs.

mod auth;
mod certificate;
mod permissions;

use std::sync::{Arc, PoisonError, RwLock};

use crate::router::Router;

pub use auth::{Auth, Login, User, Users, Verdict, Verification, is_bcrypt, is_usable_bcrypt, is_user_nkey};
pub use certificate::Certificate;
pub use permissions::{Permissions, RESPONSES_EXPIRE, RESPONSES_MAX, Rule, Rules};

/// The name of the account that everyone is in.
pub const GLOBAL: &str = "$G";

/// An account: its rule and its router.
pub struct Account {
    /// What its clients must show; a reload replaces it.
    auth: RwLock<Arc<Auth>>,
    /// Who gets what among its clients.
    pub router: Arc<Router>,
}

impl Account {
    /// An account with an empty router.
    pub fn new(auth: Auth) -> Self {
        Self {
            auth: RwLock::new(Arc::new(auth)),
            router: Arc::new(Router::new()),
        }
    }

    /// What its clients must show.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what its clients must show; those who are in already are not looked at.
    pub fn set_auth(&self, auth: Auth) {
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
    }
}
