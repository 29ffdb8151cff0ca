//! `$SYS.REQ.USER.INFO`: who the asker is, and what it may do.

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
    let permissions = handle.user().and_then(|user| user.permissions.clone());
    if let Some(permissions) = permissions {
        data["permissions"] = shown(&permissions);
    }
    Answer::Of("data", data)
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
