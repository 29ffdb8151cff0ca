//! What a client must show, and whether it does.
//!
//! Order of nats-server: nkey, then user and password, then `no_auth_user`. A bcrypt hash takes a tenth of a second to
//! compare: [`Auth::check`] hands that back as a [`Verification`] for a thread that may take its time.
//! In operator mode users show JWTs instead ([`Operator`]); users by certificate are found in `certificate`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use jiff::Timestamp;

use crate::protocol::connect::Connect;

use super::jwt::{Grant, Operator, Peer};
use super::permissions::Permissions;

/// What a client must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// `auth_token`, in clear or as a bcrypt hash.
    Token(String),
    /// `user` and `pass`.
    User {
        /// The name.
        user: String,
        /// The password, in clear or as a bcrypt hash.
        pass: String,
    },
    /// The credentials of one of several users.
    Users(Arc<Users>),
    /// A JWT that an account of a trusted operator has signed.
    Operator(Arc<Operator>),
}

/// How a user proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A password, in clear or as a bcrypt hash; empty: the name is enough.
    Password(String),
    /// The signature of a nonce; the user's name is its public nkey.
    NKey,
    /// A JWT, and the signature of a nonce; the user's name is its public nkey.
    Jwt(Arc<Grant>),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::Password(_) => "Password(...)",
            Login::NKey => "NKey",
            Login::Jwt(_) => "Jwt",
        })
    }
}

/// Someone who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, or the public nkey.
    pub name: String,
    /// What it must show.
    pub login: Login,
    /// What it may do; none is everything.
    pub permissions: Option<Arc<Permissions>>,
    /// The account it belongs to: `$G` until there are several.
    pub account: Arc<str>,
    /// Where it was configured, for the log.
    pub rule: String,
}

impl User {
    /// Whether a client that is known to be this user shows its password too; one without a password must show none.
    pub(super) fn compared(self: &Arc<Self>, connect: &Connect) -> Verdict {
        let Login::Password(password) = &self.login else {
            return Verdict::Refused(format!("user {} ({}) signs with its nkey", self.name, self.rule));
        };
        let rule = format!("password of user \"{}\" ({})", self.name, self.rule);
        let given = connect.pass.clone().unwrap_or_default();
        compared(password, given, Some(self.clone()), rule, true)
    }

    /// What its JWT grants, if it came with one.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        match &self.login {
            Login::Jwt(grant) => Some(grant),
            Login::Password(_) | Login::NKey => None,
        }
    }
}

/// Several users, by name and by nkey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    named: HashMap<String, Arc<User>>,
    /// Who a client is that shows nothing.
    default: Option<Arc<User>>,
    has_nkeys: bool,
}

impl Users {
    /// Adds a user; false when the name is taken.
    pub fn add(&mut self, user: User) -> bool {
        if self.named.contains_key(&user.name) {
            return false;
        }
        self.has_nkeys |= user.login == Login::NKey;
        self.named.insert(user.name.clone(), Arc::new(user));
        true
    }

    /// Makes one of them who a client is that shows nothing; false when there is no such user.
    pub fn set_default(&mut self, name: &str) -> bool {
        self.default = self.named.get(name).cloned();
        self.default.is_some()
    }

    /// Who a client is that shows nothing.
    pub fn default_user(&self) -> Option<&Arc<User>> {
        self.default.as_ref()
    }

    /// A user by name or nkey.
    pub fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.named.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.named.values()
    }
}

/// Whether a client may come in.
#[derive(Debug)]
pub enum Verdict {
    /// It may, as this user if there are several.
    Admitted(Option<Arc<User>>),
    /// It may not; the rule that it failed, for the operator.
    Refused(String),
    /// It may no longer: its credentials were taken back.
    Revoked(String),
    /// A hash must be compared first.
    Later(Verification),
}

/// A comparison with a bcrypt hash, to be run where it may take its time.
pub struct Verification {
    hash: String,
    given: String,
    user: Option<Arc<User>>,
    rule: String,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verification({})", self.rule)
    }
}

impl Verification {
    /// Compares: a tenth of a second of work.
    pub fn run(self) -> Verdict {
        if bcrypt_matches(&self.hash, &self.given) {
            Verdict::Admitted(self.user)
        } else {
            Verdict::Refused(self.rule)
        }
    }

    /// Whose it is, where there are several users.
    pub fn user(&self) -> Option<&Arc<User>> {
        self.user.as_ref()
    }

    /// What is compared, as one text: equal texts have equal outcomes.
    pub fn key(&self) -> String {
        format!("{}\0{}", self.hash, self.given)
    }

    /// Whether it compares with the hash that `user` was let in by.
    pub fn is_of(&self, user: &User) -> bool {
        let name = self.user.as_ref().map(|user| &user.name);
        name == Some(&user.name) && user.login == Login::Password(self.hash.clone())
    }

    /// The same for one whose comparison is known to have failed.
    pub fn known_bad(self) -> Verdict {
        Verdict::Refused(self.rule)
    }

    /// The outcome without comparing, for one whose comparison is known to have succeeded.
    pub fn known_good(self) -> Verdict {
        Verdict::Admitted(self.user)
    }
}

impl Auth {
    /// Whether a client must show anything.
    pub fn is_required(&self) -> bool {
        match self {
            Auth::Open => false,
            Auth::Token(_) | Auth::User { .. } | Auth::Operator(_) => true,
            Auth::Users(users) => users.default.is_none(),
        }
    }

    /// Whether anybody who reaches the server comes in: shown nothing, it takes a client for somebody.
    pub fn admits_anybody(&self) -> bool {
        match self {
            Auth::Operator(operator) => operator.admits_anybody(),
            _ => !self.is_required(),
        }
    }

    /// A user by name or nkey, where there are several.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        match self {
            Auth::Users(users) => users.get(name).cloned(),
            Auth::Open | Auth::Token(_) | Auth::User { .. } | Auth::Operator(_) => None,
        }
    }

    /// Whether clients need a nonce to sign.
    pub fn has_nkeys(&self) -> bool {
        match self {
            Auth::Users(users) => users.has_nkeys,
            Auth::Operator(_) => true,
            Auth::Open | Auth::Token(_) | Auth::User { .. } => false,
        }
    }

    /// The same where it counts from where the client comes, and when.
    pub fn check_from(&self, connect: &Connect, nonce: Option<&str>, peer: Peer) -> Verdict {
        match self {
            Auth::Operator(operator) => operator.check(connect, nonce, peer, Timestamp::now()),
            _ => self.check(connect, nonce),
        }
    }

    /// The token of an account, in operator mode.
    pub fn account_jwt(&self, key: &str) -> Option<&str> {
        match self {
            Auth::Operator(operator) => operator.account_jwt(key),
            _ => None,
        }
    }

    /// Whether `connect` shows what is asked for; `nonce` is what the client was given to sign.
    pub fn check(&self, connect: &Connect, nonce: Option<&str>) -> Verdict {
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        match self {
            Auth::Open => Verdict::Admitted(None),
            // An empty secret is no secret: it admits nobody.
            Auth::Token(token) if token.is_empty() => {
                Verdict::Refused("authorization token is empty".to_owned())
            }
            Auth::Token(token) => {
                let rule = "authorization token".to_owned();
                compared(token, given(&connect.auth_token), None, rule, true)
            }
            Auth::User { user, pass } => {
                // Both are compared whatever the first one gives: timing tells nothing.
                let name = same(user, &given(&connect.user));
                let rule = match connect.user.as_deref().unwrap_or_default() {
                    "" => "it showed no user".to_owned(),
                    _ if name => format!("the password of user \"{user}\" is another one"),
                    other => format!("there is no user \"{}\"", other.escape_debug()),
                };
                if pass.is_empty() {
                    return Verdict::Refused(rule);
                }
                compared(pass, given(&connect.pass), None, rule, name)
            }
            Auth::Users(users) => users.check(connect, nonce),
            Auth::Operator(operator) => operator.check(connect, nonce, Peer::default(), Timestamp::now()),
        }
    }

    /// The same for who can wait for the outcome.
    #[cfg(test)]
    pub fn admits(&self, connect: &Connect) -> bool {
        let verdict = match self.check(connect, None) {
            Verdict::Later(verification) => verification.run(),
            verdict => verdict,
        };
        matches!(verdict, Verdict::Admitted(_))
    }
}

impl Users {
    fn check(&self, connect: &Connect, nonce: Option<&str>) -> Verdict {
        // Where there are none, an nkey means nothing, as in nats-server.
        let key = connect
            .nkey
            .as_deref()
            .filter(|key| self.has_nkeys && !key.is_empty());
        if let Some(key) = key {
            return self.check_nkey(key, connect, nonce);
        }
        let name = connect.user.as_deref().unwrap_or_default();
        if !name.is_empty() {
            let Some(user) = self.get(name) else {
                return Verdict::Refused(format!("no user \"{}\" is configured", name.escape_debug()));
            };
            return user.compared(connect);
        }
        let shows_nothing = |field: &Option<String>| field.as_deref().unwrap_or_default().is_empty();
        match &self.default {
            Some(user) if shows_nothing(&connect.pass) && shows_nothing(&connect.auth_token) => {
                Verdict::Admitted(Some(user.clone()))
            }
            _ => Verdict::Refused("users are configured, and the client names none of them".to_owned()),
        }
    }

    fn check_nkey(&self, key: &str, connect: &Connect, nonce: Option<&str>) -> Verdict {
        let Some(user) = self.get(key).filter(|user| user.login == Login::NKey) else {
            return Verdict::Refused(format!("no nkey {} is configured", key.escape_debug()));
        };
        let signature = connect.sig.as_deref().unwrap_or_default();
        if nonce.is_some_and(|nonce| is_signed(key, nonce, signature)) {
            Verdict::Admitted(Some(user.clone()))
        } else {
            Verdict::Refused(format!("signature of nkey {key} ({})", user.rule))
        }
    }
}

/// Compares a secret, in clear at once.
fn compared(secret: &str, given: String, user: Option<Arc<User>>, rule: String, or_not: bool) -> Verdict {
    if is_bcrypt(secret) && or_not {
        let hash = secret.to_owned();
        return Verdict::Later(Verification {
            hash,
            given,
            user,
            rule,
        });
    }
    if same(secret, &given) & or_not {
        Verdict::Admitted(user)
    } else {
        Verdict::Refused(rule)
    }
}

/// Whether a configured secret is a bcrypt hash.
pub fn is_bcrypt(secret: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| secret.starts_with(prefix))
}

/// Whether a bcrypt hash can be compared with at all.
pub fn is_usable_bcrypt(hash: &str) -> bool {
    hash.parse::<bcrypt::HashParts>().is_ok()
}

fn bcrypt_matches(hash: &str, given: &str) -> bool {
    bcrypt::verify(given, hash).unwrap_or(false)
}

/// Whether a text is a public nkey of a user.
pub fn is_user_nkey(text: &str) -> bool {
    text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok()
}

/// Whether `signature` is that of `nonce` by the owner of a public key: base64 of either alphabet, padded or not.
fn is_signed(key: &str, nonce: &str, signature: &str) -> bool {
    let signature = decode_signature(signature);
    let pair = nkeys::KeyPair::from_public_key(key);
    match (pair, signature) {
        (Ok(pair), Some(signature)) => pair.verify(nonce.as_bytes(), &signature).is_ok(),
        _ => false,
    }
}

/// The bytes of a signature that a client shows; none where there are none.
pub(super) fn decode_signature(text: &str) -> Option<Vec<u8>> {
    let decoders = [&URL_SAFE_NO_PAD, &STANDARD, &URL_SAFE, &STANDARD_NO_PAD];
    let decoded = decoders.iter().find_map(|decoder| decoder.decode(text).ok());
    decoded.filter(|bytes| !bytes.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(json: &str) -> Connect {
        Connect::parse(json.as_bytes()).unwrap()
    }

    fn user(name: &str, login: Login) -> User {
        User {
            name: name.to_owned(),
            login,
            permissions: None,
            account: super::super::GLOBAL.into(),
            rule: "test".to_owned(),
        }
    }

    #[test]
    fn admits_only_what_matches() {
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
            (&Auth::Token(String::new()), r#"{"auth_token":""}"#, false),
            (&Auth::Token(String::new()), "{}", false),
        ];
        for (auth, json, expected) in table {
            assert_eq!(auth.admits(&connect(json)), expected, "{auth:?} {json}");
        }
    }

    #[test]
    fn a_hash_is_compared_later() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let mut users = Users::default();
        assert!(users.add(user("a", Login::Password(hash.clone()))));
        let auth = Auth::Users(Arc::new(users));
        for (auth, good, bad) in [
            (
                &auth,
                r#"{"user":"a","pass":"secret"}"#,
                r#"{"user":"a","pass":"x"}"#,
            ),
            (
                &Auth::Token(hash),
                r#"{"auth_token":"secret"}"#,
                r#"{"auth_token":"x"}"#,
            ),
        ] {
            assert!(matches!(auth.check(&connect(good), None), Verdict::Later(_)));
            assert!(auth.admits(&connect(good)) && !auth.admits(&connect(bad)));
        }
        assert!(matches!(
            auth.check(&connect(r#"{"user":"b","pass":"x"}"#), None),
            Verdict::Refused(_)
        ));
        assert!(!is_usable_bcrypt("$2a$11$short") && is_bcrypt("$2a$11$short"));
    }

    #[test]
    fn one_of_several_users() {
        let pair = nkeys::KeyPair::new_user();
        let mut users = Users::default();
        assert!(users.add(user("a", Login::Password("pa".into()))));
        assert!(users.add(user("b", Login::Password(String::new()))));
        assert!(users.add(user(&pair.public_key(), Login::NKey)));
        assert!(!users.add(user("a", Login::Password("other".into()))));
        let name = |auth: &Auth, json: &str, nonce| match auth.check(&connect(json), nonce) {
            Verdict::Admitted(user) => user.map(|user| user.name.clone()),
            _ => None,
        };
        let auth = Auth::Users(Arc::new(users.clone()));
        assert!(auth.is_required() && auth.has_nkeys());
        assert_eq!(
            name(&auth, r#"{"user":"a","pass":"pa"}"#, None).as_deref(),
            Some("a")
        );
        assert_eq!(name(&auth, r#"{"user":"b"}"#, None).as_deref(), Some("b"));
        for bad in [
            "{}",
            r#"{"user":"a","pass":"pb"}"#,
            r#"{"user":"a"}"#,
            r#"{"pass":"pa"}"#,
        ] {
            assert_eq!(name(&auth, bad, None), None, "{bad}");
        }

        let nonce = "PXoWU7zWAMt75FY";
        let signature = pair.sign(nonce.as_bytes()).unwrap();
        for engine in [&URL_SAFE_NO_PAD, &STANDARD] {
            let signed = engine.encode(&signature);
            let json = format!(r#"{{"nkey":"{}","sig":"{signed}"}}"#, pair.public_key());
            assert_eq!(name(&auth, &json, Some(nonce)), Some(pair.public_key()));
            assert_eq!(name(&auth, &json, Some("another")), None);
            assert_eq!(name(&auth, &json, None), None);
        }
        let user_with_key = format!(r#"{{"user":"{}","pass":""}}"#, pair.public_key());
        assert_eq!(name(&auth, &user_with_key, Some(nonce)), None);

        assert!(!users.set_default("nobody"));
        assert!(users.set_default("b"));
        let auth = Auth::Users(Arc::new(users));
        assert!(!auth.is_required());
        assert_eq!(name(&auth, "{}", None).as_deref(), Some("b"));
        assert_eq!(name(&auth, r#"{"auth_token":"x"}"#, None), None);
        let mut named = Users::default();
        named.add(user("a", Login::Password("pa".into())));
        let both = r#"{"nkey":"UABC","user":"a","pass":"pa"}"#;
        assert_eq!(
            name(&Auth::Users(Arc::new(named)), both, None).as_deref(),
            Some("a")
        );
        assert!(is_user_nkey(&pair.public_key()) && !is_user_nkey("UABC"));
    }
}
