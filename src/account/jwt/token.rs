//! A token as text: three segments, who says it has signed it, and whether it has.
//!
//! Taken apart and read first, verified last: what can be refused without a signature costs none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Bytes of a token, far beyond what a control line may have: what is longer is not looked at.
const TOKEN_MAX: usize = 1 << 20;
/// Characters of a reader's complaint that are repeated.
const COMPLAINT_MAX: usize = 120;

/// Whom a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Operator,
    Account,
    User,
}

impl Role {
    fn letter(self) -> char {
        match self {
            Role::Operator => 'O',
            Role::Account => 'A',
            Role::User => 'U',
        }
    }

    /// Whether `text` is a public key of such a one.
    pub fn is_key(self, text: &str) -> bool {
        text.starts_with(self.letter()) && nkeys::from_public_key(text).is_ok()
    }
}

/// What all tokens say; times are seconds since 1970, zero where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Common {
    #[serde(rename = "iss")]
    pub issuer: String,
    #[serde(rename = "sub")]
    pub subject: String,
    pub name: String,
    #[serde(rename = "iat")]
    pub issued: i64,
    #[serde(rename = "exp")]
    pub expires: i64,
    #[serde(rename = "nbf")]
    pub not_before: i64,
}

impl Common {
    /// Whether it holds at a time, in seconds; why not.
    pub fn check_times(&self, now: i64) -> Result<(), String> {
        if self.expires != 0 && now >= self.expires {
            return Err(format!("it has expired {} (exp)", date(self.expires)));
        }
        if self.not_before > now {
            return Err(format!("it holds from {} on (nbf)", date(self.not_before)));
        }
        Ok(())
    }
}

/// A time of a token for people.
pub(crate) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    typ: String,
    alg: String,
}

/// A token that could be read; nothing of it has been verified.
pub(crate) struct Token<'a> {
    text: &'a str,
    /// Where its header and its payload end.
    ends: (usize, usize),
    signature: Vec<u8>,
    pub common: Common,
    /// `operator`, `account`, `user`, `activation`.
    pub kind: String,
    /// 1 where the type stands at the top, else what `nats` says.
    pub version: i64,
    /// What stands at the top, without what is null.
    pub top: Map<String, Value>,
    /// What stands in `nats`.
    pub nats: Value,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn read(text: &'a str) -> Result<Self, String> {
        if text.len() > TOKEN_MAX {
            return Err(format!("a token of {} bytes", text.len()));
        }
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err("expected three segments with dots between them".to_owned());
        };
        let head: Header = serde_json::from_slice(&decode(header, "header")?).map_err(unreadable)?;
        if !head.typ.eq_ignore_ascii_case("JWT") {
            return Err(format!("its type is \"{}\", not JWT", short(&head.typ)));
        }
        let known = ["ed25519-nkey", "ed25519"];
        if !known.iter().any(|name| head.alg.eq_ignore_ascii_case(name)) {
            return Err(format!(
                "its algorithm is \"{}\", not ed25519-nkey",
                short(&head.alg)
            ));
        }
        let claims: Value = serde_json::from_slice(&decode(payload, "payload")?).map_err(unreadable)?;
        let Value::Object(mut top) = without_nulls(claims) else {
            return Err("its payload is no JSON object".to_owned());
        };
        let nats = top.remove("nats").unwrap_or_else(|| Value::Object(Map::new()));
        let common = Common::deserialize(&Value::Object(top.clone())).map_err(unreadable)?;
        let old = text_of(top.get("type"));
        let (kind, version) = if old.is_empty() {
            let version = nats.get("version").and_then(Value::as_i64).unwrap_or_default();
            (text_of(nats.get("type")), version)
        } else {
            (old, 1)
        };
        if version > 2 {
            return Err(format!("it is of version {version}, known are 1 and 2"));
        }
        Ok(Self {
            text,
            ends: (header.len(), header.len() + 1 + payload.len()),
            signature: decode(signature, "signature")?,
            common,
            kind,
            version,
            top,
            nats,
        })
    }

    /// Whether it is of a kind and signed by one who may sign such; nothing is verified yet.
    pub fn expect(&self, kind: &str, issuers: &[Role]) -> Result<(), String> {
        if self.kind != kind {
            return Err(format!("it is a \"{}\" token, not of {kind}", short(&self.kind)));
        }
        if !(1..=2).contains(&self.version) {
            return Err(format!("it is of version {}, known are 1 and 2", self.version));
        }
        let issuer = &self.common.issuer;
        if !issuers.iter().any(|role| role.is_key(issuer)) {
            return Err(format!(
                "its issuer \"{}\" is no key that may sign it (iss)",
                short(issuer)
            ));
        }
        Ok(())
    }

    /// Whether the issuer it names has signed it: of an old one, the payload alone.
    pub fn verify(&self) -> Result<(), String> {
        let (header, payload) = self.ends;
        let signed = if self.version <= 1 {
            &self.text[header + 1..payload]
        } else {
            &self.text[..payload]
        };
        if verifies(&self.common.issuer, signed.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(format!(
                "its signature is not that of {}",
                short(&self.common.issuer)
            ))
        }
    }

    /// Reads what stands in `nats`.
    pub fn claims<'de, T: Deserialize<'de>>(&'de self) -> Result<T, String> {
        T::deserialize(&self.nats).map_err(unreadable)
    }

    /// A text that stands at the top.
    pub fn text_at_top(&self, name: &str) -> String {
        text_of(self.top.get(name))
    }
}

/// Whether the owner of a public key has signed something.
pub(crate) fn verifies(key: &str, signed: &[u8], signature: &[u8]) -> bool {
    KeyPair::from_public_key(key).is_ok_and(|key| key.verify(signed, signature).is_ok())
}

/// A token in a file with lines around it that say what it is (`-----BEGIN NATS ... JWT-----`), or alone.
pub(crate) fn undecorated(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    if lines
        .by_ref()
        .any(|line| line.starts_with("---") && line.contains("BEGIN"))
        && let Some(token) = lines.find(|line| !line.is_empty())
    {
        return token;
    }
    text.trim()
}

fn decode(segment: &str, what: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| format!("its {what} is no base64url"))
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What is no JSON, or not of the shape it should have.
#[allow(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
pub(crate) fn unreadable(error: serde_json::Error) -> String {
    format!("it cannot be read: {}", short(&error.to_string()))
}

/// What somebody sent, as much of it as a log needs.
pub(crate) fn short(text: &str) -> String {
    let shown: String = text.chars().take(COMPLAINT_MAX).collect();
    shown.escape_debug().to_string()
}

/// Null mentions nothing, as in Go.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
