//! Operator mode: `operator`, `resolver: MEMORY`, `resolver_preload` and what goes with them.
//!
//! The rules are nats-server's. Stricter than there: an account that no trusted operator has signed, or that makes no sense,
//! and an operator whose time is over, are errors of the file and not of whoever tries to come in. An account whose own time
//! is over is a warning: it may be replaced by a reload.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::account::Auth;
use crate::account::jwt::{Accounts, OperatorFacts, Trust, is_account_key};
use crate::config::Config;
use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Node, Problem, Spot, Value};
use crate::protocol::info::NATS_VERSION;

const OPERATOR: [&str; 6] = [
    "operator",
    "operators",
    "roots",
    "root",
    "root_operators",
    "root_operator",
];
const TRUSTED: [&str; 2] = ["trusted", "trusted_keys"];
const RESOLVER: [&str; 3] = ["resolver", "account_resolver", "accounts_resolver"];
const SYSTEM: [&str; 2] = ["system_account", "system"];
/// What means nothing without an operator.
const REST: [&str; 4] = [
    "resolver_preload",
    "resolver_pinned_accounts",
    "resolver_tls",
    "default_sentinel",
];
/// What a token begins with.
const TOKEN: &str = "eyJ";

/// Whether a file is of operator mode.
pub(super) fn is_on(map: &Map) -> bool {
    find(map, &OPERATOR).is_some() || find(map, &TRUSTED).is_some()
}

/// Whether a key is of operator mode.
pub(super) fn knows(name: &str, is_on: bool) -> bool {
    let names = |keys: &[&str]| keys.contains(&name);
    names(&OPERATOR)
        || names(&TRUSTED)
        || names(&RESOLVER)
        || names(&REST)
        || is_on && (names(&SYSTEM) || names(&["accounts", "mappings", "maps", "no_auth_user"]))
}

fn find<'a>(map: &'a Map, names: &[&str]) -> Option<&'a Entry> {
    let entries = map.entries().iter().rev();
    entries
        .into_iter()
        .find(|entry| names.contains(&entry.name().as_str()))
}

/// Reads what a file says of operator mode, once the rest of it is read.
pub(super) fn read(map: &Map, config: &mut Config, notes: &mut Notes) {
    if !is_on(map) {
        return without(map, notes);
    }
    let now = Timestamp::now();
    refuse_others(map, notes);
    let mut trust = Trust::default();
    let operators = operators(map, &mut trust, now, notes);
    resolver(map, &operators, notes);
    let mut accounts = Accounts::new(trust);
    preload(map, &mut accounts, now, notes);
    let system = system_account(map, &operators, notes);
    if let Some((key, spot)) = &system
        && !named(map).any(|name| name == key)
    {
        let text = format!("error resolving system account: {key} is not in resolver_preload");
        notes.errors.push(Problem::at(spot, text));
    }
    let system = system.map(|(key, _)| key);
    pinned(map, system.as_deref(), &mut accounts, notes);
    if let Some(entry) = find(map, &["default_sentinel"])
        && let Some(text) = entry.text(notes)
        && let Err(why) = accounts.set_sentinel(&text)
    {
        notes.error(entry, format!("\"default_sentinel\" is not usable: {why}"));
    }
    let (operator, specs, warnings) = accounts.finish(now);
    if let Some(entry) = find(map, &["resolver_preload"]) {
        for warning in warnings {
            notes.warn(entry, warning);
        }
    }
    config.auth = Auth::Operator(Arc::new(operator));
    config.accounts = specs;
    config.system_account = system;
}

/// The accounts that are preloaded, usable or not.
fn named(map: &Map) -> impl Iterator<Item = &str> {
    let preload = find(map, &["resolver_preload"]).map(|entry| &entry.node.value);
    let entries = match preload {
        Some(Value::Map(map)) => map.entries(),
        _ => &[],
    };
    entries.iter().map(|entry| entry.key.as_str())
}

/// Without an operator the rest says nothing.
fn without(map: &Map, notes: &mut Notes) {
    if let Some(entry) = find(map, &["default_sentinel"]) {
        notes.error(entry, "default sentinel requires operators and accounts");
    }
    let names = RESOLVER.iter().chain(&REST[..3]);
    for entry in names.filter_map(|name| find(map, &[name])) {
        notes.warn(
            entry,
            format!("\"{}\" has no effect: there is no \"operator\"", entry.key),
        );
    }
}

/// Users and accounts come from tokens alone.
fn refuse_others(map: &Map, notes: &mut Notes) {
    let is_filled = |entry: &Entry| match &entry.node.value {
        Value::Map(map) => !map.entries().is_empty(),
        Value::Array(nodes) => !nodes.is_empty(),
        _ => true,
    };
    for name in ["accounts", "mappings", "maps"] {
        if let Some(entry) = find(map, &[name]).filter(|entry| is_filled(entry)) {
            notes.error(entry, "operators do not allow Accounts to be configured directly");
        }
    }
    if let Some(entry) = find(map, &["no_auth_user"]) {
        notes.error(entry, "no_auth_user not compatible with Trusted Operator");
    }
    let block = find(map, &["authorization"]).map(|entry| &entry.node.value);
    let Some(Value::Map(block)) = block else { return };
    if let Some(entry) = find(block, &["users"]).filter(|entry| is_filled(entry)) {
        notes.error(entry, "operators do not allow users to be configured directly");
    }
    for name in ["user", "username", "pass", "password", "token"] {
        if let Some(entry) = find(block, &[name]) {
            let text = format!("\"{}\" has no effect: users show JWTs", entry.key);
            notes.warn(entry, text);
        }
    }
}

/// The texts of a key that takes one or several, each with its place.
fn texts<'a>(entry: &'a Entry, notes: &mut Notes) -> Vec<(&'a str, &'a Spot)> {
    let nodes: &[Node] = match &entry.node.value {
        Value::Array(nodes) => nodes,
        _ => std::slice::from_ref(&entry.node),
    };
    let mut texts = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Text(text) => texts.push((text.as_str(), &node.spot)),
            _ => {
                let text = format!("\"{}\" is made of strings, not of {}", entry.key, node.kind());
                notes.errors.push(Problem::at(&node.spot, text));
            }
        }
    }
    texts
}

/// Whom to trust: operators by their tokens, or by their keys alone.
fn operators(map: &Map, trust: &mut Trust, now: Timestamp, notes: &mut Notes) -> Vec<(OperatorFacts, Spot)> {
    let (operators, trusted) = (find(map, &OPERATOR), find(map, &TRUSTED));
    if let (Some(_), Some(entry)) = (operators, trusted) {
        notes.error(
            entry,
            "conflicting options for 'TrustedKeys' and 'TrustedOperators'",
        );
    }
    let before = notes.errors.len();
    let mut found = Vec::new();
    let tokens = operators.map(|entry| texts(entry, notes)).unwrap_or_default();
    for (text, spot) in tokens {
        let facts = token_of(text, spot).and_then(|token| trust.add_operator(&token, now));
        match facts.and_then(|facts| check_version(&facts).map(|()| facts)) {
            Ok(facts) => found.push((facts, spot.clone())),
            Err(why) => {
                let text = format!("error parsing operator JWT: {why}");
                notes.errors.push(Problem::at(spot, text));
            }
        }
    }
    let mut keys = 0;
    for (key, spot) in trusted.map(|entry| texts(entry, notes)).unwrap_or_default() {
        keys += 1;
        if let Err(why) = trust.add_key(key) {
            notes
                .errors
                .push(Problem::at(spot, format!("trusted key: {why}")));
        }
    }
    if let (Some(entry), true, 0) = (operators.or(trusted), found.is_empty(), keys)
        && notes.errors.len() == before
    {
        notes.error(entry, format!("\"{}\" is empty: nobody could come in", entry.key));
    }
    found
}

/// A token that stands there, or in the file that is named: from where the server is started, else beside the configuration.
fn token_of(text: &str, spot: &Spot) -> Result<String, String> {
    let path = Path::new(text);
    if text.starts_with(TOKEN) && !path.exists() {
        return Ok(text.to_owned());
    }
    let beside = Path::new(&*spot.file)
        .parent()
        .map(|directory| directory.join(path));
    let path = match beside {
        Some(beside) if !path.exists() && beside.exists() => beside,
        _ => path.to_owned(),
    };
    std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn check_version(facts: &OperatorFacts) -> Result<(), String> {
    let Some(wanted) = &facts.version else {
        return Ok(());
    };
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let numbers: Option<Vec<_>> = text.split('.').map(|part| part.parse().ok()).collect();
        numbers.filter(|numbers| numbers.len() == 3)
    };
    let Some(wanted_numbers) = numbers(wanted) else {
        return Err(format!(
            "asserted server version \"{}\" is not of the form <major>.<minor>.<update>",
            wanted.escape_debug()
        ));
    };
    if numbers(NATS_VERSION).is_some_and(|ours| ours < wanted_numbers) {
        return Err(format!(
            "operator {} wants nats-server {wanted}, this is {NATS_VERSION}",
            facts.name.escape_debug()
        ));
    }
    Ok(())
}

/// Accounts are known from the file alone.
fn resolver(map: &Map, operators: &[(OperatorFacts, Spot)], notes: &mut Notes) {
    const ALONE: &str = "accounts are known from resolver_preload alone: write \"resolver: MEMORY\"";
    if let Some(entry) = find(map, &["resolver_tls"]) {
        notes.warn(
            entry,
            "\"resolver_tls\" has no effect: accounts are fetched from nowhere",
        );
    }
    if let Some(entry) = find(map, &RESOLVER) {
        match &entry.node.value {
            // As loose as nats-server.
            Value::Text(text) if text.to_ascii_lowercase().contains("mem") => {}
            Value::Text(text) if text.to_ascii_lowercase().contains("url") => {
                let text = format!("a resolver that fetches accounts by HTTP is not supported yet: {ALONE}");
                notes.error(entry, text);
            }
            Value::Map(map) if is_memory(map) => {}
            Value::Map(map) => {
                let kind = find(map, &["type"]).map(|entry| entry.node.to_json().to_string());
                let kind = kind.unwrap_or_else(|| "no type".to_owned());
                notes.error(
                    entry,
                    format!("a resolver with a directory ({kind}) is not supported yet: {ALONE}"),
                );
            }
            _ => notes.error(
                entry,
                "error parsing account resolver, should be MEM or  URL(\"url\") or a map containing dir and type \
                 state=[FULL|CACHE])",
            ),
        }
        return;
    }
    let entry = find(map, &OPERATOR).or_else(|| find(map, &TRUSTED));
    match (entry, operators) {
        (Some(entry), [(facts, _)]) if facts.account_server.is_some() => {
            let url = facts.account_server.as_deref().unwrap_or_default();
            let text = format!(
                "the operator's accounts would be fetched from {}, which is not supported yet: {ALONE}",
                url.escape_debug()
            );
            notes.error(entry, text);
        }
        (Some(entry), _) => notes.error(entry, "operators require an account resolver to be configured"),
        (None, _) => {}
    }
}

fn is_memory(resolver: &Map) -> bool {
    let kind = find(resolver, &["type"]).map(|entry| &entry.node.value);
    matches!(kind, Some(Value::Text(kind)) if kind.to_ascii_lowercase().starts_with("mem"))
}

fn preload(map: &Map, accounts: &mut Accounts, now: Timestamp, notes: &mut Notes) {
    let Some(entry) = find(map, &["resolver_preload"]) else {
        return;
    };
    let Value::Map(preload) = &entry.node.value else {
        return notes.error(entry, "preload should be a map of account_public_key:account_jwt");
    };
    for account in preload.entries() {
        let key = account.key.escape_debug();
        let Value::Text(token) = &account.node.value else {
            notes.error(account, "preload map value should be a string JWT");
            continue;
        };
        if !is_account_key(&account.key) {
            notes.error(account, format!("\"{key}\" is no public key of an account"));
            continue;
        }
        match accounts.add(&account.key, token, &account.spot.to_string(), now) {
            Ok(None) => {}
            Ok(Some(warning)) => notes.warn(account, warning),
            Err(why) => notes.error(account, format!("invalid account JWT of {key}: {why}")),
        }
    }
}

/// The account in which the server speaks of itself: that of the file, or of the only operator.
fn system_account(
    map: &Map,
    operators: &[(OperatorFacts, Spot)],
    notes: &mut Notes,
) -> Option<(String, Spot)> {
    let of_operators: Vec<_> = operators
        .iter()
        .filter_map(|(facts, _)| facts.system_account.as_ref())
        .collect();
    let Some(entry) = find(map, &SYSTEM) else {
        return match operators {
            [(facts, spot)] => facts.system_account.clone().map(|key| (key, spot.clone())),
            _ => None,
        };
    };
    let key = entry.text(notes)?;
    if !of_operators.is_empty() && !of_operators.contains(&&key) {
        notes.error(
            entry,
            "system_account in config and operator JWT must be identical",
        );
    }
    if !is_account_key(&key) {
        let text = format!("\"{}\" is no public key of an account", key.escape_debug());
        notes.error(entry, text);
        return None;
    }
    Some((key, entry.spot.clone()))
}

fn pinned(map: &Map, system: Option<&str>, accounts: &mut Accounts, notes: &mut Notes) {
    let Some(entry) = find(map, &["resolver_pinned_accounts"]) else {
        return;
    };
    let mut keys = BTreeSet::new();
    for (key, spot) in texts(entry, notes) {
        if !is_account_key(key) {
            let text = format!(
                "pinned account key \"{}\" is not a valid public account nkey",
                key.escape_debug()
            );
            notes.errors.push(Problem::at(spot, text));
        }
        keys.insert(key.to_owned());
    }
    if keys.is_empty() {
        let text = format!("\"{}\" is empty: nobody could come in", entry.key);
        notes.error(entry, text);
    }
    keys.extend(system.map(ToOwned::to_owned));
    accounts.pin(keys);
}
