//! Tokens of operator mode, judged.

use nkeys::KeyPair;
use serde_json::{Value, json};

use super::chain::{self, sign, with};
use super::*;

pub(super) const NOW: i64 = 1_700_000_000;
const NONCE: &str = "PXoWU7zWAMt75FY";

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// An operator, an account and a user, each with its key.
pub(super) struct Site {
    pub operator: KeyPair,
    pub account: KeyPair,
    pub signer: KeyPair,
    pub user: KeyPair,
}

impl Site {
    pub fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            signer: KeyPair::new_account(),
            user: KeyPair::new_user(),
        }
    }

    pub fn trust(&self, more: &Value) -> Trust {
        let mut trust = Trust::default();
        let token = sign(&with(chain::operator(&self.operator), more), &self.operator);
        trust.add_operator(&token, at(NOW)).unwrap();
        trust
    }

    pub fn account_token(&self, more: &Value) -> String {
        sign(&with(chain::account(&self.account, "acme"), more), &self.operator)
    }

    /// The operator with an account that says `more`.
    pub fn operator(&self, more: &Value) -> Result<Operator, String> {
        let mut accounts = Accounts::new(self.trust(&json!({})));
        let token = self.account_token(more);
        accounts.add(&self.account.public_key(), &token, "test", at(NOW))?;
        Ok(accounts.finish(at(NOW)).0)
    }

    pub fn user_token(&self, more: &Value) -> String {
        sign(&with(chain::user(&self.user, "ann"), more), &self.account)
    }

    fn connect(&self, token: &str) -> Connect {
        let json = format!("{{{}}}", chain::shown(token, &self.user, NONCE));
        Connect::parse(json.as_bytes()).unwrap()
    }

    pub fn check(&self, operator: &Operator, token: &str) -> Verdict {
        operator.check(&self.connect(token), Some(NONCE), outside(), at(NOW))
    }
}

fn outside() -> Peer {
    Peer {
        ip: Some([127, 0, 0, 1].into()),
    }
}

pub(super) fn admitted(verdict: Verdict) -> Arc<User> {
    match verdict {
        Verdict::Admitted(Some(user)) => user,
        other => panic!("{other:?}"),
    }
}

fn refused(verdict: Verdict) -> String {
    match verdict {
        Verdict::Refused(why) => why,
        Verdict::Revoked(why) => format!("revoked: {why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_lets_a_user_in() {
    let site = Site::new();
    let operator = site.operator(&json!({})).unwrap();
    let token = site.user_token(&json!({
        "exp": NOW + 100,
        "nats": { "tags": ["team:red"], "subs": 5, "pub": { "allow": ["a"] } },
    }));
    let user = admitted(site.check(&operator, &token));
    assert_eq!(
        (&*user.name, &*user.account),
        (&*site.user.public_key(), &*site.account.public_key())
    );
    let permissions = user.permissions.as_ref().unwrap();
    assert!(permissions.may_publish(b"a") && !permissions.may_publish(b"b"));
    let grant = user.grant().unwrap();
    assert_eq!(
        (grant.subscriptions, grant.payload, grant.until),
        (Some(5), None, Some(NOW + 100))
    );
    assert_eq!((&*grant.name, &grant.tags), ("ann", &vec!["team:red".to_owned()]));
    assert_eq!(grant.issuer, site.account.public_key());
    let key = site.account.public_key();
    assert_eq!(operator.account_tags(&key).unwrap().0, "acme");
    assert!(operator.account_jwt(&key).is_some() && operator.account_jwt("x").is_none());
}

#[test]
fn old_tokens_sign_their_payload_alone() {
    let site = Site::new();
    let old_operator = json!({ "sub": site.operator.public_key(), "type": "operator", "nats": {} });
    let mut trust = Trust::default();
    trust
        .add_operator(&sign(&old_operator, &site.operator), at(NOW))
        .unwrap();
    let limits = chain::account(&site.account, "old")["nats"]["limits"].clone();
    let old_account = json!({
        "sub": site.account.public_key(), "type": "account", "name": "old",
        "nats": { "limits": limits, "signing_keys": [site.signer.public_key()] },
    });
    let mut accounts = Accounts::new(trust);
    let token = sign(&old_account, &site.operator);
    accounts
        .add(&site.account.public_key(), &token, "test", at(NOW))
        .unwrap();
    let (operator, specs, _) = accounts.finish(at(NOW));
    assert_eq!(
        (specs[0].title.as_deref(), &specs[0].streams),
        (Some("old"), &None)
    );
    let old_user = json!({
        "sub": site.user.public_key(), "type": "user", "iat": NOW,
        "nats": { "pub": {}, "sub": { "deny": ["secret"] }, "src": "10.0.0.0/8, 127.0.0.0/8" },
    });
    let user = admitted(site.check(&operator, &sign(&old_user, &site.account)));
    assert!(!user.permissions.as_ref().unwrap().may_subscribe(b"secret", None));
    assert_eq!(user.grant().unwrap().subscriptions, None);
    let by_signer = with(
        old_user.clone(),
        &json!({ "issuer_account": site.account.public_key() }),
    );
    admitted(site.check(&operator, &sign(&by_signer, &site.signer)));
    refused(site.check(&operator, &sign(&old_user, &site.signer)));
    // The header of a new one is signed too: an old signature under it does not do.
    let new = site.user_token(&json!({}));
    let (_, rest) = new.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    let header = new.split('.').next().unwrap();
    let signature = sign(&old_user, &site.account);
    let signature = signature.rsplit('.').next().unwrap();
    let why = refused(site.check(&operator, &format!("{header}.{payload}.{signature}")));
    assert!(why.contains("its signature is not that of"), "{why}");
}

#[test]
fn each_refusal_says_why() {
    let site = Site::new();
    let key = site.user.public_key();
    let other = KeyPair::new_account().public_key();
    let table = [
        (
            json!({}),
            json!({ "exp": NOW }),
            "it has expired 2023-11-14T22:13:20Z (exp)",
        ),
        (json!({}), json!({ "nbf": NOW + 1 }), "it holds from"),
        (
            json!({}),
            json!({ "sub": "UABC" }),
            "no public key of a user (sub)",
        ),
        (
            json!({}),
            json!({ "sub": site.account.public_key() }),
            "no public key of a user",
        ),
        (
            json!({}),
            json!({ "nats": { "type": "account" } }),
            "a \"account\" token, not of user",
        ),
        (
            json!({}),
            json!({ "nats": { "version": 3 } }),
            "it is of version 3",
        ),
        (
            json!({}),
            json!({ "nats": { "version": 0 } }),
            "it is of version 0",
        ),
        (
            json!({}),
            json!({ "nats": { "subs": "many" } }),
            "it cannot be read: invalid type",
        ),
        (
            json!({}),
            json!({ "nats": { "issuer_account": "A" } }),
            "issuer_account is no public key",
        ),
        (
            json!({}),
            json!({ "nats": { "issuer_account": other } }),
            "its account is not known",
        ),
        (
            json!({}),
            json!({ "nats": { "src": ["10.0.0.0/8"] } }),
            "127.0.0.1 is in none of its networks",
        ),
        (
            json!({}),
            json!({ "nats": { "src": ["10.0.0.0"] } }),
            "\"10.0.0.0\" is no network (src)",
        ),
        (
            json!({}),
            json!({ "nats": { "times": [{ "start": "01:00:00", "end": "02:00:00" }], "times_location": "UTC" } }),
            "it may not come at this hour",
        ),
        (
            json!({}),
            json!({ "nats": { "times_location": "Atlantis" } }),
            "no time zone",
        ),
        (
            json!({}),
            json!({ "nats": { "allowed_connection_types": ["MQTT"] } }),
            "type STANDARD are not allowed",
        ),
        (
            json!({}),
            json!({ "nats": { "proxy_required": true } }),
            "through a proxy",
        ),
        (
            json!({}),
            json!({ "nats": { "pub": { "allow": ["a b c"] } } }),
            "not a valid subject",
        ),
        (
            json!({ "nats": { "limits": { "disallow_bearer": true } } }),
            json!({ "nats": { "bearer_token": true } }),
            "lets no bearers in",
        ),
        (json!({ "exp": NOW }), json!({}), "account acme has expired"),
        (json!({ "nbf": NOW + 9 }), json!({}), "account acme holds from"),
        (
            json!({ "nats": { "revocations": { key: NOW } } }),
            json!({ "iat": NOW }),
            "revoked: user U",
        ),
        (
            json!({ "nats": { "revocations": { "*": NOW } } }),
            json!({ "iat": NOW }),
            "acme has revoked it",
        ),
    ];
    for (account, user, says) in table {
        let operator = site.operator(&account).unwrap();
        let why = refused(site.check(&operator, &site.user_token(&user)));
        assert!(why.contains(says), "{account} {user}: {why}");
    }
    // What was issued after the revocation holds.
    let operator = site.operator(&json!({ "nats": { "revocations": { "*": NOW } } }));
    admitted(site.check(&operator.unwrap(), &site.user_token(&json!({ "iat": NOW + 1 }))));
}

#[test]
fn what_is_no_token_is_refused_before_any_signature() {
    let site = Site::new();
    let operator = site.operator(&json!({})).unwrap();
    let good = site.user_token(&json!({}));
    let mut parts = good.split('.');
    let [header, payload, signature] = [(); 3].map(|()| parts.next().unwrap());
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    for (token, says) in [
        (String::new(), "it shows no user's JWT"),
        ("x".to_owned(), "three segments"),
        (format!("{good}.x"), "three segments"),
        (format!("!.{payload}.{signature}"), "header is no base64url"),
        (
            format!("{}.{payload}.{signature}", encode("{}")),
            "its type is \"\"",
        ),
        (
            format!(
                "{}.{payload}.{signature}",
                encode(r#"{"typ":"jwt","alg":"none"}"#)
            ),
            "its algorithm is \"none\"",
        ),
        (
            format!("{header}.{}.{signature}", encode("[1]")),
            "no JSON object",
        ),
        (
            format!("{header}.{}.{signature}", encode("{")),
            "it cannot be read",
        ),
        (format!("{header}.{payload}.!"), "signature is no base64url"),
        (
            format!("{header}.{payload}.{}", encode("short")),
            "its signature is not that of",
        ),
        ("a".repeat(2 << 20), "a token of 2097152 bytes"),
    ] {
        let why = refused(site.check(&operator, &token));
        assert!(why.contains(says), "{says}: {why}");
        assert!(why.len() < 500, "{why}");
    }
    let stranger = KeyPair::new_account();
    let claims = chain::user(&site.user, "ann");
    let why = refused(site.check(&operator, &sign(&claims, &stranger)));
    assert!(why.contains("its account is not known"), "{why}");
    let as_signer = with(
        claims.clone(),
        &json!({ "nats": { "issuer_account": site.account.public_key() } }),
    );
    let why = refused(site.check(&operator, &sign(&as_signer, &stranger)));
    assert!(why.contains("signs no users of account acme"), "{why}");
    // One that names an issuer it was not signed by.
    let forged = with(claims.clone(), &json!({ "iss": site.account.public_key() }));
    let why = refused(site.check(&operator, &chain::sign_as_it_is(&forged, &stranger)));
    assert!(why.contains("its signature is not that of"), "{why}");
    let by_operator = sign(&claims, &site.operator);
    let why = refused(site.check(&operator, &by_operator));
    assert!(why.contains("no key that may sign it (iss)"), "{why}");
}

#[test]
fn the_nonce_must_be_signed_unless_the_token_is_a_bearers() {
    let site = Site::new();
    let operator = site.operator(&json!({})).unwrap();
    let token = site.user_token(&json!({}));
    let shown = |token: &str, nonce| {
        let connect = site.connect(token);
        operator.check(&connect, nonce, outside(), at(NOW))
    };
    let why = refused(shown(&token, Some("another")));
    assert!(why.contains("the signature of the nonce is not its own"), "{why}");
    assert!(refused(shown(&token, None)).contains("it has not signed the nonce"));
    let unsigned = Connect {
        jwt: Some(token.clone()),
        ..Connect::default()
    };
    let why = refused(operator.check(&unsigned, Some(NONCE), outside(), at(NOW)));
    assert!(why.contains("it has not signed the nonce"), "{why}");
    let bearer = site.user_token(&json!({ "nats": { "bearer_token": true } }));
    let unsigned = Connect {
        jwt: Some(bearer),
        ..Connect::default()
    };
    let user = admitted(operator.check(&unsigned, Some(NONCE), outside(), at(NOW)));
    assert!(user.grant().unwrap().is_bearer);
}

#[test]
fn signing_keys_and_roles() {
    let site = Site::new();
    let role = KeyPair::new_account();
    let keys = json!([
        site.signer.public_key(),
        {
            "kind": "user_scope", "key": role.public_key(), "role": "worker",
            "template": { "pub": { "allow": ["done.{{name()}}.>"] }, "sub": { "allow": ["work.{{tag(team)}}"] }, "subs": 3 },
        },
    ]);
    let operator = site
        .operator(&json!({ "nats": { "signing_keys": keys } }))
        .unwrap();
    let own_account = json!({ "nats": { "issuer_account": site.account.public_key() } });
    let by_signer = sign(&with(chain::user(&site.user, "ann"), &own_account), &site.signer);
    let user = admitted(site.check(&operator, &by_signer));
    assert_eq!(user.grant().unwrap().issuer, site.signer.public_key());
    let claims = with(
        chain::user_of_role(&site.user, "ann", &site.account),
        &json!({ "nats": { "tags": ["team:red"] } }),
    );
    let user = admitted(site.check(&operator, &sign(&claims, &role)));
    let permissions = user.permissions.as_ref().unwrap();
    assert!(permissions.may_publish(b"done.ann.x") && !permissions.may_publish(b"done.bob.x"));
    assert!(permissions.may_subscribe(b"work.red", None) && !permissions.may_subscribe(b"work.blue", None));
    let grant = user.grant().unwrap();
    assert_eq!((grant.subscriptions, grant.payload), (Some(3), None));
    let of_its_own = with(claims, &json!({ "nats": { "pub": { "allow": [">"] } } }));
    let why = refused(site.check(&operator, &sign(&of_its_own, &role)));
    assert!(why.contains("it names rights of its own"), "{why}");
    for bad in [
        json!(["AXX"]),
        json!([{ "kind": "other", "key": role.public_key() }]),
    ] {
        assert!(
            site.operator(&json!({ "nats": { "signing_keys": bad } }))
                .is_err()
        );
    }
}

#[test]
fn strict_operators_and_accounts_sign_with_other_keys_only() {
    let site = Site::new();
    let strict = json!({ "nats": {
        "strict_signing_key_usage": true, "signing_keys": [site.operator.public_key()],
    } });
    let deputy = KeyPair::new_operator();
    let with_deputy =
        json!({ "nats": { "strict_signing_key_usage": true, "signing_keys": [deputy.public_key()] } });
    let keys = json!({ "nats": { "signing_keys": [site.signer.public_key()] } });
    let token = site.account_token(&keys);
    let key = site.account.public_key();
    let mut accounts = Accounts::new(site.trust(&with_deputy));
    let why = accounts.add(&key, &token, "test", at(NOW)).unwrap_err();
    assert!(why.contains("no trusted operator has signed it"), "{why}");
    let mut accounts = Accounts::new(site.trust(&strict));
    accounts.add(&key, &token, "test", at(NOW)).unwrap();
    let (operator, ..) = accounts.finish(at(NOW));
    let why = refused(site.check(&operator, &site.user_token(&json!({}))));
    assert!(why.contains("signs no users"), "{why}");
}

#[test]
fn pins_and_sentinels() {
    let site = Site::new();
    let key = site.account.public_key();
    let gathered = || {
        let mut accounts = Accounts::new(site.trust(&json!({})));
        accounts
            .add(&key, &site.account_token(&json!({})), "test", at(NOW))
            .unwrap();
        accounts
    };
    let token = site.user_token(&json!({}));
    let mut accounts = gathered();
    accounts.pin(BTreeSet::from([KeyPair::new_account().public_key()]));
    let why = refused(site.check(&accounts.finish(at(NOW)).0, &token));
    assert!(why.contains("none of resolver_pinned_accounts"), "{why}");

    let mut accounts = gathered();
    assert!(accounts.set_sentinel(&token).is_err() && accounts.set_sentinel("x").is_err());
    let bearer = site.user_token(&json!({ "name": "guest", "nats": { "bearer_token": true } }));
    accounts.set_sentinel(&bearer).unwrap();
    let (operator, ..) = accounts.finish(at(NOW));
    assert!(operator.admits_anybody() && !gathered().finish(at(NOW)).0.admits_anybody());
    let name = |verdict| admitted(verdict).grant().unwrap().name.clone();
    assert_eq!(name(site.check(&operator, "")), "guest");
    assert_eq!(name(site.check(&operator, "no.token.here")), "guest");
    assert_eq!(name(site.check(&operator, &token)), "ann");
    for expires in [1, -1] {
        let why = refused(site.check(&operator, &site.user_token(&json!({ "exp": expires }))));
        assert!(why.contains("it has expired"), "{why}");
    }
}
