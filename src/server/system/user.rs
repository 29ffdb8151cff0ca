//! `$SYS.REQ.USER.INFO`: who the asker is, and what it may do.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::account::{Permissions, Rule, Rules};

use super::System;
use super::envelope::Answer;
use super::queue::Asked;
use super::requests::refused;

/// What the server takes the asker for.
pub(super) fn info(system: &System, asked: &Asked) -> Answer {
    let origin = asked.batch.origin();
    let Some(handle) = origin.and_then(|client| system.context.registry.get(client.id)) else {
        return Answer::Refused(refused("the request comes from no connection".to_owned()));
    };
    let account = handle.account();
    let mut data = json!({
        "user": handle.user_name().unwrap_or_default(),
        "account": &**account.name(),
        "account_name": account.title(),
    });
    let user = handle.user();
    let grant = user.as_ref().and_then(|user| user.grant());
    if let Some(grant) = grant.filter(|grant| !grant.name.is_empty()) {
        data["user_name"] = json!(grant.name);
    }
    if let Some(permissions) = user.as_ref().and_then(|user| user.permissions.as_ref()) {
        data["permissions"] = shown(permissions);
    }
    if let Some(left) = grant.and_then(|grant| grant.until).and_then(left) {
        data["expires"] = json!(left);
    }
    Answer::Of("data", data)
}

/// Nanoseconds until a time given in seconds since 1970; none when it is over.
fn left(until: i64) -> Option<u64> {
    let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(until).ok()?))?;
    let left = until.duration_since(SystemTime::now()).ok()?;
    u64::try_from(left.as_nanos()).ok()
}

fn shown(permissions: &Permissions) -> Value {
    let mut value = json!({
        "publish": rules(&permissions.publish),
        "subscribe": rules(&permissions.subscribe),
    });
    if let Some(responses) = &permissions.responses {
        // Nanoseconds; -1 is for ever.
        let ttl = responses
            .expires
            .map_or(-1, |ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX));
        value["responses"] = json!({ "max": responses.max, "ttl": ttl });
    }
    value
}

fn rules(rules: &Rules) -> Value {
    let texts = |rules: &[Rule]| -> Vec<String> {
        let text = |rule: &Rule| match &rule.queue {
            None => rule.pattern.clone(),
            Some(queue) => format!("{} {queue}", rule.pattern),
        };
        rules.iter().map(text).collect()
    };
    let mut value = Map::new();
    if let Some(allow) = rules.allow.as_deref().filter(|allow| !allow.is_empty()) {
        value.insert("allow".to_owned(), json!(texts(allow)));
    }
    if !rules.deny.is_empty() {
        value.insert("deny".to_owned(), json!(texts(&rules.deny)));
    }
    Value::Object(value)
}
