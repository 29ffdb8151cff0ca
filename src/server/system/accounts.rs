//! Requests about one account, and about all by `PING`.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::account::Account;
use crate::monitor::{self, Refusal, timestamp};

use super::System;
use super::envelope::Answer;
use super::events;
use super::requests::{made, page, refused};

/// What is answered about the account called `account`.
pub(super) async fn answer(
    system: &Arc<System>,
    account: &str,
    name: &str,
    mut map: Map<String, Value>,
) -> Answer {
    let account = account.to_owned();
    match name {
        "CONNZ" => {
            map.insert("acc".to_owned(), json!(account));
            page(system, "CONNZ", map).await
        }
        "SUBSZ" => {
            map.insert("account".to_owned(), json!(account));
            map.insert("subscriptions".to_owned(), json!(true));
            page(system, "SUBSZ", map).await
        }
        "LEAFZ" => page(system, "LEAFZ", map).await,
        "JSZ" => made(system, move |system| Answer::from(streams(system, &account, map))).await,
        "INFO" => made(system, move |system| Answer::from(info(system, &account))).await,
        "STATZ" => {
            let unused = matches!(map.get("include_unused"), Some(Value::Bool(true)));
            made(system, move |system| figures(system, Some(&[account]), unused)).await
        }
        "CONNS" => made(system, move |system| connections(system, &account)).await,
        _ => Answer::Silence,
    }
}

/// What is answered about all accounts.
pub(super) async fn answer_all(system: &Arc<System>, name: &str, map: Map<String, Value>) -> Answer {
    match name {
        "STATZ" => {
            let unused = matches!(map.get("include_unused"), Some(Value::Bool(true)));
            let accounts = match names(map.get("accounts")) {
                Ok(accounts) => accounts,
                Err(refusal) => return Answer::Refused(refusal),
            };
            made(system, move |system| figures(system, accounts.as_deref(), unused)).await
        }
        // Not as in nats-server, which takes PING for the name of an account that has none.
        "CONNZ" => page(system, "CONNZ", map).await,
        _ => answer(system, "PING", name, map).await,
    }
}

/// A list of names; an empty one is none.
fn names(value: Option<&Value>) -> Result<Option<Vec<String>>, Refusal> {
    let value = value.filter(|value| !value.is_null());
    let Some(value) = value else { return Ok(None) };
    let names: Option<Vec<String>> = value.as_array().and_then(|names| {
        names
            .iter()
            .map(|name| name.as_str().map(ToOwned::to_owned))
            .collect()
    });
    let names = names.ok_or_else(|| Refusal {
        code: 400,
        text: "option \"accounts\" must be a list of names".to_owned(),
    })?;
    Ok(Some(names).filter(|names| !names.is_empty()))
}

/// The figures of those named, or of all; of those with connections unless the others are wanted, too. With nothing to say
/// nothing is said.
fn figures(system: &System, names: Option<&[String]>, unused: bool) -> Answer {
    let accounts = &system.context.accounts;
    let mut chosen = match names {
        None => accounts.all(),
        Some(names) => names.iter().filter_map(|name| accounts.get(name)).collect(),
    };
    chosen.retain(|account| unused || account.clients() > 0);
    if chosen.is_empty() && !unused {
        return Answer::Silence;
    }
    Answer::Of(
        "data",
        json!({
            "server_id": system.identity.id,
            "now": timestamp(SystemTime::now()),
            "account_statz": monitor::statz(&system.view, &chosen),
        }),
    )
}

fn find(system: &System, name: &str) -> Option<Arc<Account>> {
    system.context.accounts.get(name)
}

fn info(system: &System, name: &str) -> Result<Value, Refusal> {
    let account = find(system, name).ok_or_else(|| refused(format!("Account {name} does not exist")))?;
    Ok(monitor::account_row(&system.view, &account))
}

/// The streams of one account: its row of the page of all.
fn streams(system: &System, name: &str, mut map: Map<String, Value>) -> Result<Value, Refusal> {
    if find(system, name).is_none() {
        return Err(refused(format!("account {name:?} not found")));
    }
    map.insert("account".to_owned(), json!(name));
    map.shift_remove("offset");
    let page = monitor::ask(&system.view, "JSZ", &map);
    let mut page = page.unwrap_or_else(|| Err(refused("there is no such page".to_owned())))?;
    if page.get("disabled") == Some(&Value::Bool(true)) {
        return Err(refused("jetstream not enabled".to_owned()));
    }
    let rows = page.get_mut("account_details").and_then(Value::as_array_mut);
    let row = rows.and_then(|rows| rows.drain(..).next());
    row.ok_or_else(|| refused(format!("account {name:?} not jetstream enabled")))
}

/// The connections of an account as the event tells them; nothing of an account without.
fn connections(system: &System, name: &str) -> Answer {
    match find(system, name) {
        Some(account) if account.clients() > 0 => Answer::Bare(events::connections(system, &account)),
        _ => Answer::Silence,
    }
}
