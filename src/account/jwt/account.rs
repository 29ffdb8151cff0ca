//! An account of operator mode: who signs its users, and what it is to be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::account::permissions::Permissions;
use crate::account::spec::{
    Export, Import, Kind, Limits, Mapping, Response, Spec, StreamLimits, THRESHOLD, Weighted,
};
use crate::protocol::subject;
use crate::protocol::transform::Transform;

use super::claims::{
    AccountClaims, AccountLimits, ExportClaim, Grants, ImportClaim, MappingClaim, Revocations, SigningKey,
    TierLimits, UserClaims, is_revoked,
};
use super::token::{Role, short};
use super::{limits, permissions};

/// What is kept of an account to judge its users by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its token.
    pub jwt: String,
    pub key: Arc<str>,
    pub name: String,
    pub tags: Vec<String>,
    /// Who signs its users, and in which role.
    signers: HashMap<String, Option<Grants>>,
    revocations: Revocations,
    disallow_bearer: bool,
    /// Seconds since 1970.
    pub expires: Option<i64>,
    pub not_before: i64,
    default_permissions: Option<Arc<Permissions>>,
    subs: i64,
    payload: i64,
}

/// Why a user may not come in.
pub(super) enum Refusal {
    /// It has been taken back.
    Revoked(String),
    Other(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Refusal::Other(why)
    }
}

/// What a user may do in an account.
pub(super) struct Rights {
    pub grants: Grants,
    pub permissions: Option<Arc<Permissions>>,
    pub subscriptions: Option<usize>,
    pub payload: Option<usize>,
}

impl Member {
    /// From a token; `strict` accounts do not sign with the key that is their name.
    pub fn new(claims: &AccountClaims, jwt: &str, strict: bool) -> Result<Self, String> {
        let mut signers = HashMap::new();
        for signer in &claims.signing_keys {
            if !Role::Account.is_key(signer.key()) {
                let key = short(signer.key());
                return Err(format!(
                    "its signing key \"{key}\" is no public key of an account"
                ));
            }
            let role = match signer {
                SigningKey::Plain(_) => None,
                SigningKey::Scoped { kind, .. } if kind != "user_scope" => {
                    return Err(format!(
                        "its signing key {} is of the unknown kind \"{}\"",
                        signer.key(),
                        short(kind)
                    ));
                }
                SigningKey::Scoped { template, .. } => {
                    limits::check_text(template)?;
                    Some((**template).clone())
                }
            };
            signers.insert(signer.key().to_owned(), role);
        }
        let subject = &claims.common.subject;
        if !strict {
            signers.insert(subject.clone(), None);
        }
        if !claims.authorization.auth_users.is_empty() {
            return Err(
                "users of it are to be asked for elsewhere (authorization), which is not supported"
                    .to_owned(),
            );
        }
        Ok(Self {
            jwt: jwt.to_owned(),
            key: subject.as_str().into(),
            name: match &*claims.common.name {
                "" => subject.clone(),
                name => name.to_owned(),
            },
            tags: claims.tags.clone(),
            signers,
            revocations: claims.revocations.clone(),
            disallow_bearer: claims.limits.disallow_bearer,
            expires: Some(claims.common.expires).filter(|expires| *expires != 0),
            not_before: claims.common.not_before,
            default_permissions: permissions::by_default(&claims.default_permissions)?,
            subs: claims.limits.subs,
            payload: claims.limits.payload,
        })
    }

    pub fn signs(&self, issuer: &str) -> bool {
        self.signers.contains_key(issuer)
    }

    /// Whether what a user may do is that of a role, made from what its token says.
    pub fn fills_role(&self, user: &UserClaims) -> bool {
        matches!(self.signers.get(&user.common.issuer), Some(Some(_)))
    }

    /// What a user may do, going by what its token says: nothing of that is verified here.
    pub fn rights(&self, user: &UserClaims) -> Result<Rights, Refusal> {
        let key = &user.common.subject;
        let Some(role) = self.signers.get(&user.common.issuer) else {
            let issuer = &user.common.issuer;
            return Err(format!("its issuer {issuer} signs no users of account {}", self.name).into());
        };
        let grants = match role {
            None => user.grants.clone(),
            Some(_) if user.grants != Grants::default() => {
                return Err("it names rights of its own, and its issuer signs for a role"
                    .to_owned()
                    .into());
            }
            Some(template) => permissions::Subject {
                user,
                account_name: &self.name,
                account_tags: &self.tags,
            }
            .fill(template)?,
        };
        if grants.bearer_token && self.disallow_bearer {
            return Err(format!("account {} lets no bearers in (disallow_bearer)", self.name).into());
        }
        if is_revoked(&self.revocations, key, user.common.issued) {
            return Err(Refusal::Revoked(format!("account {} has revoked it", self.name)));
        }
        limits::check_text(&grants)?;
        let permissions = permissions::of_user(&grants)?.or_else(|| self.default_permissions.clone());
        Ok(Rights {
            permissions,
            subscriptions: tighter(grants.subs, self.subs),
            payload: tighter(grants.payload, self.payload),
            grants,
        })
    }
}

/// The smaller of two limits; less than none is no limit.
fn tighter(one: i64, other: i64) -> Option<usize> {
    let limit = |limit| usize::try_from(limit).ok();
    match (limit(one), limit(other)) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What the account is to be, imports apart.
pub(super) fn spec(claims: &AccountClaims, rule: &str) -> Result<Spec, String> {
    let limits = &claims.limits;
    check_counts(claims)?;
    let mut spec = Spec::new(&claims.common.subject);
    spec.title = Some(claims.common.name.clone()).filter(|name| !name.is_empty());
    spec.rule = rule.to_owned();
    for claim in &claims.exports {
        let export = export(claim, rule)?;
        if !limits.wildcards && limits.exports != -1 && subject::has_wildcard(claim.subject.as_bytes()) {
            return Err(format!(
                "it may not export wildcards, and exports \"{}\"",
                claim.subject
            ));
        }
        let within = |other: &Export| {
            let (one, other) = (export.subject.as_bytes(), (other.kind, other.subject.as_bytes()));
            export.kind == other.0 && (subject::is_subset(one, other.1) || subject::is_subset(other.1, one))
        };
        if let Some(other) = spec.exports.iter().find(|other| within(other)) {
            let (one, other) = (&export.subject, &other.subject);
            return Err(format!(
                "its exports \"{one}\" and \"{other}\" are within each other"
            ));
        }
        spec.exports.push(export);
    }
    let mut sources: Vec<_> = claims.mappings.iter().collect();
    sources.sort_by_key(|(source, _)| source.as_str());
    for (source, destinations) in sources {
        spec.mappings.push(mapping(source, destinations)?);
    }
    let limit = |limit| usize::try_from(limit).ok();
    spec.limits = Limits {
        connections: limit(limits.conn),
        subscriptions: limit(limits.subs),
        payload: limit(limits.payload),
    };
    spec.streams = stream_limits(limits)?;
    Ok(spec)
}

fn check_counts(claims: &AccountClaims) -> Result<(), String> {
    for (what, count, max) in [
        ("imports", claims.imports.len(), claims.limits.imports),
        ("exports", claims.exports.len(), claims.limits.exports),
    ] {
        if let Ok(max) = usize::try_from(max)
            && count > max
        {
            return Err(format!("it has {count} {what}, its operator allows {max}"));
        }
    }
    Ok(())
}

fn stream_limits(limits: &AccountLimits) -> Result<Option<StreamLimits>, String> {
    let tiers = &limits.tiered_limits;
    if tiers.contains_key("") {
        return Err("a tier of its stream limits has no name".to_owned());
    }
    let has_streams = |tier: &TierLimits| tier.mem_storage != 0 || tier.disk_storage != 0;
    let own = limits.tier();
    let tier = if tiers.is_empty() {
        Some(&own)
    } else {
        tiers.get("R1")
    };
    let or_unlimited = |limit: i64| if limit > 0 { limit } else { -1 };
    Ok(match tier {
        Some(tier) if has_streams(tier) => Some(StreamLimits {
            memory: tier.mem_storage,
            storage: tier.disk_storage,
            streams: or_unlimited(tier.streams),
            consumers: or_unlimited(tier.consumer),
            ack_pending: or_unlimited(tier.max_ack_pending),
            memory_stream: or_unlimited(tier.mem_max_stream_bytes),
            storage_stream: or_unlimited(tier.disk_max_stream_bytes),
            bytes_required: tier.max_bytes_required,
        }),
        // Streams of one copy are the only ones there are.
        _ => None,
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "stream" => Ok(Kind::Stream),
        "service" => Ok(Kind::Service),
        _ => Err(format!(
            "\"{}\" is neither a stream nor a service (type)",
            short(text)
        )),
    }
}

fn pattern(text: &str, what: &str) -> Result<(), String> {
    if subject::is_pattern(text.as_bytes()) {
        return Ok(());
    }
    Err(format!("\"{}\" is not a valid subject ({what})", short(text)))
}

fn export(claim: &ExportClaim, rule: &str) -> Result<Export, String> {
    let kind = kind(&claim.kind)?;
    pattern(&claim.subject, "exports")?;
    let response = match (kind, &*claim.response_type) {
        (_, "") | (Kind::Service, "Singleton") => Response::Singleton,
        (Kind::Service, "Stream") => Response::Stream,
        (Kind::Service, "Chunked") => Response::Chunked,
        (_, other) => {
            let what = format!("the export \"{}\" of a {kind}", claim.subject);
            return Err(format!("{what} has the response type \"{}\"", short(other)));
        }
    };
    let threshold = match (kind, u64::try_from(claim.response_threshold)) {
        (_, Ok(0)) => THRESHOLD,
        (Kind::Service, Ok(nanoseconds)) => Duration::from_nanos(nanoseconds),
        _ => {
            return Err(format!(
                "the export \"{}\" of a {kind} has a response threshold of {}",
                claim.subject, claim.response_threshold
            ));
        }
    };
    let position = claim.account_token_position;
    if position > 0 && claim.subject.split('.').nth(position - 1) != Some("*") {
        return Err(format!(
            "token {position} of the export \"{}\" is no * (account_token_position)",
            claim.subject
        ));
    }
    Ok(Export {
        kind,
        subject: claim.subject.clone(),
        accounts: None,
        token_required: claim.token_req,
        account_token_position: position,
        response,
        threshold,
        rule: rule.to_owned(),
    })
}

/// An import as the account has it; whether it is activated comes later.
pub(super) fn import(claim: &ImportClaim, rule: &str) -> Result<Import, String> {
    let kind = kind(&claim.kind)?;
    pattern(&claim.subject, "imports")?;
    if claim.account.is_empty() {
        return Err(format!("its import \"{}\" is of no account", claim.subject));
    }
    if claim.share && kind == Kind::Stream {
        return Err(format!(
            "its import \"{}\" shares who asks, and nobody asks a stream",
            claim.subject
        ));
    }
    let subject = claim.subject.clone();
    let (subject, to) = match (kind, &*claim.to, &*claim.local_subject) {
        (_, "", "") => (subject, None),
        (_, "", local) => (subject, Some(local.to_owned())),
        // Of old: before the subject of a stream.
        (Kind::Stream, prefix, "") => {
            let to = format!("{}.{subject}", prefix.strip_suffix('.').unwrap_or(prefix));
            (subject, Some(to))
        }
        // Of old, seen from the other side: what a service is called where it is.
        (Kind::Service, remote, "") => {
            let wrong = |why: String| format!("its import \"{}\": {why}", claim.subject);
            let there = Transform::between(&subject, remote).map_err(wrong)?;
            let back = there
                .inverse()
                .ok_or_else(|| wrong("it has no way back".to_owned()))?;
            let remote = String::from_utf8_lossy(back.source()).into_owned();
            (remote, Some(back.destination().to_owned()))
        }
        _ => {
            return Err(format!(
                "its import \"{}\" has both to and local_subject",
                claim.subject
            ));
        }
    };
    if let Some(to) = &to {
        Transform::between(&subject, to).map_err(|why| format!("its import \"{}\": {why}", claim.subject))?;
    }
    Ok(Import {
        kind,
        account: claim.account.as_str().into(),
        subject,
        to,
        share: claim.share,
        activated: false,
        rule: rule.to_owned(),
    })
}

fn mapping(source: &str, destinations: &[MappingClaim]) -> Result<Mapping, String> {
    let mut mapping = Mapping {
        source: source.to_owned(),
        destinations: Vec::new(),
    };
    let mut total = 0;
    // What is for a cluster is for none of ours.
    for claim in destinations.iter().filter(|claim| claim.cluster.is_empty()) {
        let percent = if claim.weight == 0 { 100 } else { claim.weight };
        total += u32::from(percent);
        if total > 100 {
            return Err(format!(
                "its mapping of \"{}\" is of more than 100 hundredths",
                short(source)
            ));
        }
        let transform = Transform::new(source, &claim.subject)?;
        mapping.destinations.push(Weighted { transform, percent });
    }
    Ok(mapping)
}
