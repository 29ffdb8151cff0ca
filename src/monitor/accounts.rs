//! `/accountz` and `/accstatz`, and the pages of the links to other servers: there is no link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::account::{Account, Traffic};

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::Detail;
use super::subsz::SublistStats;
use super::time::timestamp;

/// The accounts, or one of them.
pub(super) fn accountz(view: &View, params: &Params) -> Result<Page, Problem> {
    let accounts = &view.context.accounts;
    let mut page = json!({
        "server_id": view.context.info.server_id,
        "now": timestamp(SystemTime::now()),
        "system_account": &**accounts.system().name(),
    });
    match params.text("acc") {
        None => {
            let all = accounts.all();
            page["accounts"] = all.iter().map(|account| json!(&**account.name())).collect();
        }
        Some(name) => {
            let found = accounts.get(name);
            let account = found.ok_or_else(|| Problem::bad(format!("Account {name} does not exist")))?;
            page["account_detail"] = account_row(view, &account);
        }
    }
    Page::json(&page)
}

/// One account in detail. Its exports and imports are those of the configuration, which is where they are read.
pub fn account_row(view: &View, account: &Account) -> Value {
    let asked = Detail {
        accounts: true,
        account: Some(account.name().to_string()),
        limit: 1,
        ..Detail::default()
    };
    let found = view.jetstream(&asked);
    let has_streams = found.is_some_and(|found| !found.account_details.is_empty());
    json!({
        "account_name": &**account.name(),
        "name_tag": account.title(),
        "update_time": timestamp(view.started_at),
        "expired": false,
        "complete": true,
        "jetstream_enabled": has_streams,
        "leafnode_connections": 0,
        "client_connections": account.clients(),
        "subscriptions": account.router.stats().subscriptions,
        "sublist_stats": SublistStats::of_account(view, account),
    })
}

/// What the clients of an account have sent and got, those that have left too.
pub(super) fn traffic(view: &View, account: &Account) -> Traffic {
    let mut traffic = account.past();
    for handle in view.context.registry.live() {
        let (at, booked) = handle.booked();
        if std::ptr::eq(&*at, account) {
            traffic += booked;
        }
    }
    traffic
}

/// The figures of several accounts; the connections are gone through once.
pub fn statz(view: &View, accounts: &[Arc<Account>]) -> Vec<Value> {
    let mut by_account: BTreeMap<*const Account, Traffic> = accounts
        .iter()
        .map(|account| (Arc::as_ptr(account), account.past()))
        .collect();
    for handle in view.context.registry.live() {
        let (at, booked) = handle.booked();
        if let Some(traffic) = by_account.get_mut(&Arc::as_ptr(&at)) {
            *traffic += booked;
        }
    }
    let none = json!({ "msgs": 0, "bytes": 0 });
    let shown = |msgs: u64, bytes: u64| json!({ "msgs": msgs, "bytes": bytes, "gateways": none, "routes": none, "leafs": none });
    let row = |account: &Arc<Account>| {
        let traffic = by_account[&Arc::as_ptr(account)];
        json!({
            "acc": &**account.name(),
            "name": account.title(),
            "conns": account.clients(),
            "leafnodes": 0,
            "total_conns": account.clients(),
            "num_subscriptions": account.router.stats().subscriptions,
            "sent": shown(traffic.out_msgs, traffic.out_bytes),
            "received": shown(traffic.in_msgs, traffic.in_bytes),
            "slow_consumers": account.slow_consumers(),
        })
    };
    accounts.iter().map(row).collect()
}

/// Figures of the accounts: those with connections, with `unused` the others too.
pub(super) fn accstatz(view: &View, params: &Params) -> Result<Page, Problem> {
    let mut accounts = view.context.accounts.all();
    let unused = params.switch("unused")?;
    accounts.retain(|account| unused || account.clients() > 0);
    Page::json(&json!({
        "server_id": view.context.info.server_id,
        "now": timestamp(SystemTime::now()),
        "account_statz": statz(view, &accounts),
    }))
}

/// No routes: this server is never one of a cluster.
pub(super) fn routez(view: &View, _: &Params) -> Result<Page, Problem> {
    let name = ("server_name", json!(view.context.info.server_name));
    links(view, &[name], &[("num_routes", json!(0)), ("routes", json!([]))])
}

/// No gateways.
pub(super) fn gatewayz(view: &View, _: &Params) -> Result<Page, Problem> {
    let none = [("outbound_gateways", json!({})), ("inbound_gateways", json!({}))];
    links(view, &[], &none)
}

/// No leaf nodes.
pub(super) fn leafz(view: &View, _: &Params) -> Result<Page, Problem> {
    links(view, &[], &[("leafnodes", json!(0)), ("leafs", json!([]))])
}

fn links(
    view: &View,
    before: &[(&str, serde_json::Value)],
    after: &[(&str, serde_json::Value)],
) -> Result<Page, Problem> {
    let mut page = Map::new();
    page.insert("server_id".to_owned(), json!(view.context.info.server_id));
    page.extend(
        before
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    page.insert("now".to_owned(), json!(timestamp(SystemTime::now())));
    page.extend(
        after
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    Page::json(&page)
}
