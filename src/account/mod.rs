//! Who may come in, and where their messages go: an account owns its router, so isolation is structural.
//!
//! One account today, `$G`, open or guarded by a token or a user and password. Deliberately absent so far:
//! several accounts, permissions, nkeys and JWTs.

use std::sync::Arc;

use crate::protocol::connect::Connect;
use crate::router::Router;

/// The name of the account that everyone is in.
pub const GLOBAL: &str = "$G";

/// What a client must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// `auth_token`.
    Token(String),
    /// `user` and `pass`.
    User {
        /// The name.
        user: String,
        /// The password, in clear.
        pass: String,
    },
}

impl Auth {
    /// Whether a client must show anything.
    pub fn is_required(&self) -> bool {
        *self != Auth::Open
    }

    /// Whether `connect` shows it.
    pub fn admits(&self, connect: &Connect) -> bool {
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        match self {
            Auth::Open => true,
            Auth::Token(token) => same(token, &given(&connect.auth_token)),
            // Both are compared whatever the first one gives: timing tells nothing.
            Auth::User { user, pass } => {
                same(user, &given(&connect.user)) & same(pass, &given(&connect.pass))
            }
        }
    }
}

/// Compares in time that depends on the length given, not on where they differ.
fn same(secret: &str, given: &str) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (at, byte) in given.bytes().enumerate() {
        let other = secret.as_bytes().get(at).copied().unwrap_or_default();
        difference |= usize::from(byte ^ other);
    }
    std::hint::black_box(difference) == 0
}

/// An account: its rule and its router.
pub struct Account {
    /// What its clients must show.
    pub auth: Auth,
    /// Who gets what among its clients.
    pub router: Arc<Router>,
}

impl Account {
    /// An account with an empty router.
    pub fn new(auth: Auth) -> Self {
        Self {
            auth,
            router: Arc::new(Router::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_only_what_matches() {
        let connect = |json: &str| Connect::parse(json.as_bytes()).unwrap();
        let token = Auth::Token("secret".into());
        let user = Auth::User {
            user: "u".into(),
            pass: "p".into(),
        };
        let table = [
            (&Auth::Open, "{}", true),
            (&token, "{}", false),
            (&token, r#"{"auth_token":"secret"}"#, true),
            (&token, r#"{"auth_token":"secre"}"#, false),
            (&token, r#"{"auth_token":"secrets"}"#, false),
            (&token, r#"{"user":"secret"}"#, false),
            (&user, r#"{"user":"u","pass":"p"}"#, true),
            (&user, r#"{"user":"u","pass":""}"#, false),
            (&user, r#"{"user":"","pass":"p"}"#, false),
            (&user, r#"{"user":"u"}"#, false),
        ];
        for (auth, json, expected) in table {
            assert_eq!(auth.admits(&connect(json)), expected, "{auth:?} {json}");
        }
    }
}
