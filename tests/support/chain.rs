//! Tokens of operator mode, made and signed on the spot.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token that says `claims`, signed by `issuer`: of the old kind where its type stands at the top.
pub fn sign(claims: &Value, issuer: &KeyPair) -> String {
    let mut claims = claims.clone();
    claims["iss"] = issuer.public_key().into();
    sign_as_it_is(&claims, issuer)
}

/// The same for claims that name their issuer themselves.
pub fn sign_as_it_is(claims: &Value, signer: &KeyPair) -> String {
    let is_old = claims.get("type").is_some();
    let algorithm = if is_old { "ed25519" } else { "ed25519-nkey" };
    let header = segment(&json!({ "typ": "JWT", "alg": algorithm }));
    let payload = segment(claims);
    let signed = if is_old {
        payload.clone()
    } else {
        format!("{header}.{payload}")
    };
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap());
    format!("{header}.{payload}.{signature}")
}

/// Sets the fields of `more` in `claims`, objects within objects too.
pub fn with(mut claims: Value, more: &Value) -> Value {
    merge(&mut claims, more);
    claims
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// The claims of an operator.
pub fn operator(key: &KeyPair) -> Value {
    json!({
        "sub": key.public_key(), "name": "op", "iat": now(),
        "nats": { "type": "operator", "version": 2 },
    })
}

/// The claims of an account without limits.
pub fn account(key: &KeyPair, name: &str) -> Value {
    json!({
        "sub": key.public_key(), "name": name, "iat": now(),
        "nats": {
            "type": "account", "version": 2,
            "limits": {
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
                "wildcards": true, "conn": -1, "leaf": -1,
            },
            "default_permissions": { "pub": {}, "sub": {} },
        },
    })
}

/// The claims of a user without limits.
pub fn user(key: &KeyPair, name: &str) -> Value {
    json!({
        "sub": key.public_key(), "name": name, "iat": now(),
        "nats": {
            "type": "user", "version": 2, "pub": {}, "sub": {},
            "subs": -1, "data": -1, "payload": -1,
        },
    })
}

/// The claims of a user whose rights are those of a role.
pub fn user_of_role(key: &KeyPair, name: &str, account: &KeyPair) -> Value {
    json!({
        "sub": key.public_key(), "name": name, "iat": now(),
        "nats": { "type": "user", "version": 2, "issuer_account": account.public_key() },
    })
}

/// The fields of a CONNECT that shows a token and signs a nonce.
pub fn shown(token: &str, key: &KeyPair, nonce: &str) -> String {
    let signature = URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes()).unwrap());
    format!(r#""jwt":"{token}","sig":"{signature}""#)
}
