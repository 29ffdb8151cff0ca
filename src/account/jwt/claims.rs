//! What the tokens of operators, accounts, users and activations claim, old and new.
//!
//! Source: the JWT library of nats-server, whose field names these are. A number that a token does not mention is zero, and
//! zero is a limit; -1 is none.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::token::{Common, Role, Token, unreadable};

/// An operator: who signs accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct OperatorClaims {
    #[serde(skip)]
    pub common: Common,
    pub signing_keys: Vec<String>,
    pub account_server_url: String,
    pub system_account: String,
    pub assert_server_version: String,
    pub strict_signing_key_usage: bool,
}

impl OperatorClaims {
    pub fn read(text: &str) -> Result<Self, String> {
        let token = Token::read(text)?;
        token.expect("operator", &[Role::Operator])?;
        token.verify()?;
        let claims: Self = token.claims()?;
        Ok(Self {
            common: token.common,
            ..claims
        })
    }
}

/// An account, as its token has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AccountClaims {
    #[serde(skip)]
    pub common: Common,
    pub imports: Vec<ImportClaim>,
    pub exports: Vec<ExportClaim>,
    pub limits: AccountLimits,
    pub signing_keys: Vec<SigningKey>,
    pub revocations: Revocations,
    pub default_permissions: PermissionsClaim,
    pub mappings: HashMap<String, Vec<MappingClaim>>,
    pub authorization: Callout,
    pub tags: Vec<String>,
}

impl AccountClaims {
    /// Reads a token whose issuer is one of those who may sign accounts, by `trusts`.
    pub fn read(text: &str, trusts: impl Fn(&str) -> bool) -> Result<Self, String> {
        let token = Token::read(text)?;
        token.expect("account", &[Role::Account, Role::Operator])?;
        if !trusts(&token.common.issuer) {
            let issuer = &token.common.issuer;
            return Err(format!(
                "no trusted operator has signed it: its issuer is {issuer} (iss)"
            ));
        }
        token.verify()?;
        let mut claims: Self = token.claims()?;
        if token.version == 1 {
            claims.tags = tags_at_top(&token);
            claims.default_permissions = PermissionsClaim::default();
            claims.mappings = HashMap::new();
            claims.limits.without_streams();
        } else if !claims.limits.tiered_limits.is_empty() {
            claims.limits.without_streams();
        }
        if !Role::Account.is_key(&token.common.subject) {
            return Err("its subject is no public key of an account (sub)".to_owned());
        }
        claims.common = token.common;
        Ok(claims)
    }
}

fn tags_at_top(token: &Token<'_>) -> Vec<String> {
    let tags = token.top.get("tags");
    tags.and_then(|tags| Vec::deserialize(tags).ok())
        .unwrap_or_default()
}

/// Public keys, or `*`, and the time up to which what was issued no longer holds.
pub(crate) type Revocations = HashMap<String, i64>;

/// Whether something that was issued for `key` has been taken back.
pub(crate) fn is_revoked(revocations: &Revocations, key: &str, issued: i64) -> bool {
    [key, "*"]
        .iter()
        .any(|key| revocations.get(*key).is_some_and(|until| *until >= issued))
}

/// What an account may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AccountLimits {
    pub subs: i64,
    pub payload: i64,
    pub imports: i64,
    pub exports: i64,
    pub wildcards: bool,
    pub disallow_bearer: bool,
    pub conn: i64,
    pub mem_storage: i64,
    pub disk_storage: i64,
    pub streams: i64,
    pub consumer: i64,
    pub max_ack_pending: i64,
    pub mem_max_stream_bytes: i64,
    pub disk_max_stream_bytes: i64,
    pub max_bytes_required: bool,
    pub tiered_limits: HashMap<String, TierLimits>,
}

impl AccountLimits {
    fn without_streams(&mut self) {
        let tiered_limits = std::mem::take(&mut self.tiered_limits);
        *self = Self {
            subs: self.subs,
            payload: self.payload,
            imports: self.imports,
            exports: self.exports,
            wildcards: self.wildcards,
            disallow_bearer: self.disallow_bearer,
            conn: self.conn,
            tiered_limits,
            ..Self::default()
        };
    }

    /// Those of its streams, where they are not told by tier.
    pub fn tier(&self) -> TierLimits {
        TierLimits {
            mem_storage: self.mem_storage,
            disk_storage: self.disk_storage,
            streams: self.streams,
            consumer: self.consumer,
            max_ack_pending: self.max_ack_pending,
            mem_max_stream_bytes: self.mem_max_stream_bytes,
            disk_max_stream_bytes: self.disk_max_stream_bytes,
            max_bytes_required: self.max_bytes_required,
        }
    }
}

/// What the streams of an account may use, where each replication factor has limits of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TierLimits {
    pub mem_storage: i64,
    pub disk_storage: i64,
    pub streams: i64,
    pub consumer: i64,
    pub max_ack_pending: i64,
    pub mem_max_stream_bytes: i64,
    pub disk_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

/// A key that signs users for an account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum SigningKey {
    /// With whatever rights the user's token names.
    Plain(String),
    /// With the rights of a role.
    Scoped {
        kind: String,
        key: String,
        #[serde(default)]
        role: String,
        #[serde(default = "unlimited", deserialize_with = "template")]
        template: Box<Grants>,
    },
}

impl SigningKey {
    pub fn key(&self) -> &str {
        match self {
            SigningKey::Plain(key) | SigningKey::Scoped { key, .. } => key,
        }
    }
}

fn unlimited() -> Box<Grants> {
    Box::new(Grants {
        subs: -1,
        data: -1,
        payload: -1,
        ..Grants::default()
    })
}

fn template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Grants>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Grants::or_unlimited(&value)
        .map(Box::new)
        .map_err(serde::de::Error::custom)
}

/// An export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ExportClaim {
    pub subject: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub token_req: bool,
    pub revocations: Revocations,
    pub response_type: String,
    /// Nanoseconds.
    pub response_threshold: i64,
    pub account_token_position: usize,
}

/// An import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ImportClaim {
    pub subject: String,
    pub account: String,
    pub token: String,
    /// Of a stream a prefix, of a service the subject in the exporting account; superseded by `local_subject`.
    pub to: String,
    pub local_subject: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub share: bool,
}

/// A destination of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct MappingClaim {
    pub subject: String,
    /// Hundredths; zero is all.
    pub weight: u8,
    pub cluster: String,
}

/// Users that are to be asked for elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Callout {
    pub auth_users: Vec<String>,
}

/// What a user may do, and how and when it may come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Grants {
    #[serde(rename = "pub")]
    pub publish: RulesClaim,
    #[serde(rename = "sub")]
    pub subscribe: RulesClaim,
    pub resp: Option<ResponsesClaim>,
    #[serde(deserialize_with = "networks")]
    pub src: Vec<String>,
    pub times: Vec<Window>,
    pub times_location: String,
    pub subs: i64,
    pub data: i64,
    pub payload: i64,
    pub bearer_token: bool,
    pub proxy_required: bool,
    pub allowed_connection_types: Vec<String>,
}

impl Grants {
    /// Reads them where what is not mentioned is not limited.
    fn or_unlimited(value: &Value) -> Result<Self, serde_json::Error> {
        let mut grants = Self::deserialize(value)?;
        for (field, limit) in [
            ("subs", &mut grants.subs),
            ("data", &mut grants.data),
            ("payload", &mut grants.payload),
        ] {
            if value.get(field).is_none() {
                *limit = -1;
            }
        }
        Ok(grants)
    }
}

/// A list, or one text with commas.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Networks {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Networks::deserialize(deserializer)? {
        Networks::List(list) => list,
        Networks::Text(text) => {
            let parts = text.split(',').map(|part| part.trim().to_ascii_lowercase());
            parts.filter(|part| !part.is_empty()).collect()
        }
    })
}

/// Permissions for all users of an account that have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PermissionsClaim {
    #[serde(rename = "pub")]
    pub publish: RulesClaim,
    #[serde(rename = "sub")]
    pub subscribe: RulesClaim,
    pub resp: Option<ResponsesClaim>,
}

/// Subjects of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RulesClaim {
    pub allow: Option<Vec<String>>,
    pub deny: Option<Vec<String>>,
}

/// Leave to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ResponsesClaim {
    pub max: i64,
    /// Nanoseconds.
    pub ttl: i64,
}

/// Hours of the day, `15:04:05`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    pub start: String,
    pub end: String,
}

/// A user, as its token has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserClaims {
    pub common: Common,
    pub grants: Grants,
    /// For whom the issuer signs, where that is not itself.
    pub issuer_account: String,
    pub tags: Vec<String>,
}

impl UserClaims {
    /// Reads a token that is not verified yet.
    pub fn read(token: &Token<'_>) -> Result<Self, String> {
        token.expect("user", &[Role::Account])?;
        let common = token.common.clone();
        if !Role::User.is_key(&common.subject) {
            return Err("its subject is no public key of a user (sub)".to_owned());
        }
        let (grants, fields) = if token.version == 1 {
            let mut grants = Grants::or_unlimited(&token.nats).map_err(unreadable)?;
            grants.allowed_connection_types = Vec::new();
            let fields = Issued {
                issuer_account: token.text_at_top("issuer_account"),
                tags: tags_at_top(token),
            };
            (grants, fields)
        } else {
            (token.claims()?, token.claims::<Issued>()?)
        };
        if !fields.issuer_account.is_empty() && !Role::Account.is_key(&fields.issuer_account) {
            return Err("its issuer_account is no public key of an account".to_owned());
        }
        Ok(Self {
            common,
            grants,
            issuer_account: fields.issuer_account,
            tags: fields.tags,
        })
    }

    /// The account it is of.
    pub fn account(&self) -> &str {
        match &*self.issuer_account {
            "" => &self.common.issuer,
            account => account,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Issued {
    issuer_account: String,
    tags: Vec<String>,
}

/// Leave to import what is not for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ActivationClaims {
    #[serde(skip)]
    pub common: Common,
    pub subject: String,
    pub kind: String,
    pub issuer_account: String,
}

impl ActivationClaims {
    pub fn read(text: &str) -> Result<Self, String> {
        let token = Token::read(text)?;
        token.expect("activation", &[Role::Account, Role::Operator])?;
        token.verify()?;
        let mut claims: Self = token.claims()?;
        if token.version == 1 {
            claims.issuer_account = token.text_at_top("issuer_account");
            let kind = token.nats.get("type").and_then(Value::as_str);
            claims.kind = kind.unwrap_or_default().to_owned();
        }
        claims.common = token.common;
        Ok(claims)
    }
}
