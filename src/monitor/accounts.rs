//! `/accountz` and `/accstatz`, and the pages of the links to other servers: there is one account, and no link.

use std::time::SystemTime;

use serde_json::{Map, json};

use crate::account::GLOBAL;

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::Detail;
use super::subsz::SublistStats;
use super::time::timestamp;

/// The accounts, or one of them.
pub(super) fn accountz(view: &View, params: &Params) -> Result<Page, Problem> {
    let mut page = json!({
        "server_id": view.context.info.server_id,
        "now": timestamp(SystemTime::now()),
    });
    match params.text("acc") {
        None => page["accounts"] = json!([GLOBAL]),
        Some(GLOBAL) => {
            page["account_detail"] = json!({
                "account_name": GLOBAL,
                "name_tag": GLOBAL,
                "update_time": timestamp(view.started_at),
                "expired": false,
                "complete": true,
                "jetstream_enabled": view.jetstream(&Detail::default()).is_some(),
                "leafnode_connections": 0,
                "client_connections": view.context.registry.len(),
                "subscriptions": view.context.accounts.stats().subscriptions,
                "sublist_stats": SublistStats::of(view),
            });
        }
        Some(other) => return Err(Problem::bad(format!("Account {other} does not exist"))),
    }
    Page::json(&page)
}

/// Figures of the accounts: those with connections, with `unused` the others too.
pub(super) fn accstatz(view: &View, params: &Params) -> Result<Page, Problem> {
    let totals = view.context.registry.totals();
    let none = json!({ "msgs": 0, "bytes": 0 });
    let traffic = |msgs: u64, bytes: u64| json!({ "msgs": msgs, "bytes": bytes, "gateways": none, "routes": none, "leafs": none });
    let account = json!({
        "acc": GLOBAL,
        "name": GLOBAL,
        "conns": totals.connections,
        "leafnodes": 0,
        "total_conns": totals.connections,
        "num_subscriptions": view.context.accounts.stats().subscriptions,
        "sent": traffic(totals.out_msgs, totals.out_bytes),
        "received": traffic(totals.in_msgs, totals.in_bytes),
        "slow_consumers": totals.slow_consumers,
    });
    let shown = params.switch("unused")? || totals.connections > 0;
    Page::json(&json!({
        "server_id": view.context.info.server_id,
        "now": timestamp(SystemTime::now()),
        "account_statz": if shown { vec![account] } else { Vec::new() },
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
