//! Operator mode: operators sign accounts, accounts sign users, a user shows its token and signs a nonce.
//!
//! Accounts are known beforehand (the resolver MEMORY with preloaded tokens). Pure: time is an argument. What a client shows is
//! read and judged first, by keys that are known; at most two signatures are verified for it, so that wrong ones
//! cost little. Source: protocol page 2.1, and nats-server with its JWT library.
//!
//! Deliberately absent: resolvers that fetch or keep tokens, users asked for elsewhere (auth callout), activations that end
//! between two readings of the configuration.

mod account;
#[cfg(test)]
mod account_tests;
#[cfg(test)]
#[path = "../../../tests/support/chain.rs"]
mod chain;
mod claims;
mod limits;
mod permissions;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::protocol::connect::Connect;
use crate::protocol::subject;

use super::auth::{Login, User, Verdict, decode_signature};
use super::check;
use super::spec::{Export, Import, Kind, Spec};

use account::{Member, Refusal, Rights};
use claims::{AccountClaims, ActivationClaims, ImportClaim, OperatorClaims, UserClaims, is_revoked};
use token::{Role, Token, date, short, undecorated};

pub use limits::Peer;

/// What a user's token grants besides permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What people call the user.
    pub name: String,
    /// The key that has signed its token: that of its account, or one that signs for it.
    pub issuer: String,
    /// Its labels.
    pub tags: Vec<String>,
    /// Whether it need not sign anything: its token is a secret.
    pub is_bearer: bool,
    /// Until when it may stay, in seconds since 1970.
    pub until: Option<i64>,
    /// Until when its account may be used, in seconds since 1970.
    pub account_until: Option<i64>,
    /// Subscriptions of one connection.
    pub subscriptions: Option<usize>,
    /// Bytes of headers and payload in one message.
    pub payload: Option<usize>,
}

/// Who signs accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys that may sign accounts.
    keys: BTreeSet<String>,
    /// Those of them whose accounts sign users with keys of their own only.
    strict: BTreeSet<String>,
}

/// What an operator's token says besides whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorFacts {
    /// What people call it.
    pub name: String,
    /// The account in which the server speaks of itself.
    pub system_account: Option<String>,
    /// Where accounts are to be fetched from unless something else is said.
    pub account_server: Option<String>,
    /// The version of nats-server it wants at least, `major.minor.update`.
    pub version: Option<String>,
}

impl Trust {
    /// Trusts the operator whose token this is, alone or with decoration.
    pub fn add_operator(&mut self, text: &str, now: Timestamp) -> Result<OperatorFacts, String> {
        let claims = OperatorClaims::read(undecorated(text))?;
        claims.common.check_times(now.as_second())?;
        let own = (!claims.strict_signing_key_usage).then_some(&claims.common.subject);
        for key in own.into_iter().chain(&claims.signing_keys) {
            if !Role::Operator.is_key(key) {
                return Err(format!("\"{}\" is no public key of an operator", short(key)));
            }
            self.keys.insert(key.clone());
        }
        if claims.strict_signing_key_usage {
            self.strict.extend(claims.signing_keys);
        }
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(OperatorFacts {
            name: claims.common.name,
            system_account: some(claims.system_account),
            account_server: some(claims.account_server_url),
            version: some(claims.assert_server_version),
        })
    }

    /// Trusts a key.
    pub fn add_key(&mut self, key: &str) -> Result<(), String> {
        if !Role::Operator.is_key(key) {
            return Err(format!("\"{}\" is no public key of an operator", short(key)));
        }
        self.keys.insert(key.to_owned());
        Ok(())
    }
}

/// Whether a text is a public key of an account.
pub fn is_account_key(text: &str) -> bool {
    Role::Account.is_key(text)
}

/// Everything a user is judged by in operator mode.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Operator {
    trust: Trust,
    members: HashMap<Arc<str>, Member>,
    /// The only accounts whose users may come in, where they are named.
    pinned: Option<BTreeSet<String>>,
    /// The token of those who show none.
    sentinel: Option<String>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operator({} accounts)", self.members.len())
    }
}

/// Accounts while they are gathered: imports are looked at once all are there.
pub struct Accounts {
    operator: Operator,
    specs: Vec<Spec>,
    imports: Vec<(usize, ImportClaim, Import)>,
    revocations: Vec<Vec<claims::Revocations>>,
}

impl Accounts {
    /// None yet, of operators that are trusted.
    pub fn new(trust: Trust) -> Self {
        Self {
            operator: Operator {
                trust,
                ..Operator::default()
            },
            specs: Vec::new(),
            imports: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// Adds the account whose token this is; `key` is what it is called, `rule` where. A warning comes back where its time is
    /// over, or has not come.
    pub fn add(
        &mut self,
        key: &str,
        text: &str,
        rule: &str,
        now: Timestamp,
    ) -> Result<Option<String>, String> {
        let text = undecorated(text);
        let trust = &self.operator.trust;
        let claims = AccountClaims::read(text, |issuer| trust.keys.contains(issuer))?;
        if claims.common.subject != key {
            let subject = &claims.common.subject;
            return Err(format!("it is the token of another account, {subject} (sub)"));
        }
        let strict = trust.strict.contains(&claims.common.issuer);
        let member = Member::new(&claims, text, strict)?;
        let at = self.specs.len();
        for claim in &claims.imports {
            self.imports
                .push((at, claim.clone(), account::import(claim, rule)?));
        }
        self.specs.push(account::spec(&claims, rule)?);
        let revocations = claims.exports.iter().map(|export| export.revocations.clone());
        self.revocations.push(revocations.collect());
        let warning = claims.common.check_times(now.as_second()).err();
        self.operator.members.insert(member.key.clone(), member);
        Ok(warning.map(|why| format!("nobody can come into account {}: {why}", claims.common.name)))
    }

    /// Lets in users of some accounts only.
    pub fn pin(&mut self, keys: BTreeSet<String>) {
        self.operator.pinned = Some(keys);
    }

    /// Sets the token of those who show none.
    pub fn set_sentinel(&mut self, text: &str) -> Result<(), String> {
        let token = Token::read(text)?;
        let claims = UserClaims::read(&token)?;
        token.verify()?;
        let is_scoped = !claims.issuer_account.is_empty() && claims.grants == claims::Grants::default();
        if !claims.grants.bearer_token && !is_scoped {
            return Err("it is no bearer's, and nobody could sign for it".to_owned());
        }
        self.operator.sentinel = Some(text.to_owned());
        Ok(())
    }

    /// All accounts, imports looked at; with a warning for each that cannot be, which is left out as nats-server does.
    pub fn finish(mut self, now: Timestamp) -> (Operator, Vec<Spec>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut granted = Vec::new();
        for (at, claim, mut import) in std::mem::take(&mut self.imports) {
            match self.authorise(at, &claim, &mut import, now.as_second()) {
                Ok(()) => granted.push((at, import)),
                Err(why) => warnings.push(self.without(at, import.kind, &claim.subject, &why)),
            }
        }
        let imports: Vec<_> = granted
            .iter()
            .map(|(at, import)| (&self.specs[*at], import))
            .collect();
        for (index, why) in check::unsound(&imports).into_iter().rev() {
            let (at, import) = granted.remove(index);
            warnings.push(self.without(at, import.kind, &import.subject, why));
        }
        for (at, import) in granted {
            self.specs[at].imports.push(import);
        }
        (self.operator, self.specs, warnings)
    }

    /// What is said of an import that is left out.
    fn without(&self, at: usize, kind: Kind, subject: &str, why: &str) -> String {
        let spec = &self.specs[at];
        let (name, subject) = (spec.title.as_deref().unwrap_or(&spec.name), short(subject));
        format!("account {name} does without its import of {kind} \"{subject}\": {why}")
    }

    /// Whether the account at `at` may import something.
    fn authorise(&self, at: usize, claim: &ImportClaim, import: &mut Import, now: i64) -> Result<(), String> {
        let exporter = &*import.account;
        let Some(from) = self.specs.iter().position(|spec| &*spec.name == exporter) else {
            return Err(format!("there is no account {}", short(exporter)));
        };
        let covers = |export: &&(usize, &Export)| {
            let (import, export) = (import.subject.as_bytes(), export.1);
            export.kind == claim_kind(claim) && subject::is_subset(import, export.subject.as_bytes())
        };
        let exports: Vec<_> = self.specs[from].exports.iter().enumerate().collect();
        let Some((index, export)) = exports.iter().find(covers) else {
            return Err(format!(
                "account {exporter} exports no such {}",
                claim_kind(claim)
            ));
        };
        let importer = &*self.specs[at].name;
        if export.account_token_position > 0 {
            let token = import.subject.split('.').nth(export.account_token_position - 1);
            return match token {
                Some(token) if token == importer => Ok(()),
                _ => Err("its subject does not name the account where it must".to_owned()),
            };
        }
        if !export.token_required && claim.token.is_empty() {
            return Ok(());
        }
        let revocations = &self.revocations[from][*index];
        let member = &self.operator.members[&self.specs[from].name];
        match activation(claim, import, importer, member, revocations, now) {
            Ok(()) => import.activated = true,
            Err(why) if export.token_required => return Err(format!("its activation: {why}")),
            Err(_) => {}
        }
        Ok(())
    }
}

fn claim_kind(claim: &ImportClaim) -> Kind {
    match &*claim.kind {
        "service" => Kind::Service,
        _ => Kind::Stream,
    }
}

/// Whether an import comes with leave of the account it is from.
fn activation(
    claim: &ImportClaim,
    import: &Import,
    importer: &str,
    exporter: &Member,
    revocations: &claims::Revocations,
    now: i64,
) -> Result<(), String> {
    if claim.token.is_empty() {
        return Err("there is none".to_owned());
    }
    let token = ActivationClaims::read(&claim.token)?;
    let (common, key) = (&token.common, &*exporter.key);
    let is_theirs = match &*token.issuer_account {
        "" => common.issuer == key,
        account => account == key && exporter.signs(&common.issuer),
    };
    if !is_theirs {
        return Err(format!("it is not signed for account {key}"));
    }
    if common.subject != importer {
        return Err("it is for another account (sub)".to_owned());
    }
    if token.kind != claim.kind {
        return Err(format!("it is for a {}", short(&token.kind)));
    }
    if !subject::is_pattern(token.subject.as_bytes())
        || !subject::is_subset(import.subject.as_bytes(), token.subject.as_bytes())
    {
        return Err(format!("it is for \"{}\"", short(&token.subject)));
    }
    common.check_times(now)?;
    if is_revoked(revocations, &common.subject, common.issued) {
        return Err("it has been revoked".to_owned());
    }
    Ok(())
}

impl Operator {
    /// Whether `connect` shows the token of a user that may come in, and that it is that user; `nonce` is what it was given to
    /// sign.
    pub fn check(&self, connect: &Connect, nonce: Option<&str>, peer: Peer, now: Timestamp) -> Verdict {
        let shown = connect.jwt.as_deref().unwrap_or_default();
        let signature = connect.sig.as_deref().unwrap_or_default();
        let outcome = match (self.judge(shown, nonce, signature, peer, now), &self.sentinel) {
            (Err(Judgement::NoToken(_)), Some(sentinel)) => self.judge(sentinel, nonce, signature, peer, now),
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(user) => Verdict::Admitted(Some(Arc::new(user))),
            Err(Judgement::NoToken(why)) => Verdict::Refused(why),
            Err(Judgement::Refused(who, Refusal::Other(why))) => Verdict::Refused(format!("{who}: {why}")),
            Err(Judgement::Refused(who, Refusal::Revoked(why))) => Verdict::Revoked(format!("{who}: {why}")),
        }
    }

    /// Whether the token of those who show none lets anybody in. One of a role may: what that grants is not in the token.
    pub fn admits_anybody(&self) -> bool {
        let Some(sentinel) = &self.sentinel else {
            return false;
        };
        let claims = Token::read(sentinel).and_then(|token| UserClaims::read(&token));
        let Ok(user) = claims else { return true };
        let role = self
            .members
            .get(user.account())
            .map(|member| member.rights(&user));
        user.grants.bearer_token || matches!(role, Some(Ok(rights)) if rights.grants.bearer_token)
    }

    /// Everything that costs little first, the signatures last.
    fn judge(
        &self,
        text: &str,
        nonce: Option<&str>,
        signature: &str,
        peer: Peer,
        now: Timestamp,
    ) -> Result<User, Judgement> {
        if text.is_empty() {
            return Err(Judgement::NoToken("it shows no user's JWT".to_owned()));
        }
        let no_token = |why: String| Judgement::NoToken(format!("its JWT is not usable: {why}"));
        let token = Token::read(text).map_err(no_token)?;
        let user = UserClaims::read(&token).map_err(no_token)?;
        let who = || format!("user {} of account {}", user.common.subject, user.account());
        let refused = |why: String| Judgement::Refused(who(), Refusal::Other(why));
        user.common.check_times(now.as_second()).map_err(refused)?;
        let member = self.member(&user, now.as_second()).map_err(refused)?;
        // What a role grants is made from what the token says: that is its issuer's word first.
        let fills = member.fills_role(&user);
        if fills {
            token.verify().map_err(no_token)?;
        }
        let rights = member
            .rights(&user)
            .map_err(|refusal| Judgement::Refused(who(), refusal))?;
        limits::check_peer(&rights.grants, peer).map_err(refused)?;
        let window = limits::window(&rights.grants, now).map_err(refused)?;
        let is_bearer = rights.grants.bearer_token;
        let signature = decode_signature(signature);
        if !is_bearer && (nonce.is_none() || signature.is_none()) {
            return Err(refused("it has not signed the nonce (sig)".to_owned()));
        }
        if !fills {
            token.verify().map_err(no_token)?;
        }
        if !is_bearer {
            let key = &user.common.subject;
            let signed = nonce.unwrap_or_default().as_bytes();
            if !token::verifies(key, signed, &signature.unwrap_or_default()) {
                return Err(refused(
                    "the signature of the nonce is not its own (sig)".to_owned(),
                ));
            }
        }
        Ok(self.admit(user, member, rights, window))
    }

    fn admit(&self, user: UserClaims, member: &Member, rights: Rights, window: Option<i64>) -> User {
        let expires = Some(user.common.expires).filter(|expires| *expires != 0);
        let until = [expires, window].into_iter().flatten().min();
        let issuer = user.common.issuer;
        User {
            name: user.common.subject,
            permissions: rights.permissions,
            account: member.key.clone(),
            rule: format!("its JWT, signed by {issuer}"),
            login: Login::Jwt(Arc::new(Grant {
                name: user.common.name,
                issuer,
                tags: user.tags,
                is_bearer: rights.grants.bearer_token,
                until,
                account_until: member.expires,
                subscriptions: rights.subscriptions,
                payload: rights.payload,
            })),
        }
    }

    /// The account of a user, if it is known and usable.
    fn member(&self, user: &UserClaims, now: i64) -> Result<&Member, String> {
        let key = user.account();
        if self.pinned.as_ref().is_some_and(|pinned| !pinned.contains(key)) {
            return Err("its account is none of resolver_pinned_accounts".to_owned());
        }
        let Some(member) = self.members.get(key) else {
            return Err("its account is not known (resolver_preload)".to_owned());
        };
        match member.expires {
            Some(expires) if now >= expires => {
                Err(format!("account {} has expired {}", member.name, date(expires)))
            }
            _ if member.not_before > now => Err(format!(
                "account {} holds from {} on",
                member.name,
                date(member.not_before)
            )),
            _ => Ok(member),
        }
    }

    /// The token of an account.
    pub fn account_jwt(&self, key: &str) -> Option<&str> {
        let member = self.members.get(key)?;
        Some(member.jwt.as_str()).filter(|jwt| !jwt.is_empty())
    }

    /// What people call an account, and its labels.
    pub fn account_tags(&self, key: &str) -> Option<(&str, &[String])> {
        let member = self.members.get(key)?;
        Some((&member.name, &member.tags))
    }

    /// How many accounts are known.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

enum Judgement {
    /// What is shown is no token of a user.
    NoToken(String),
    /// It is one, and not let in: who, and why.
    Refused(String, Refusal),
}
