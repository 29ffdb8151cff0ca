//! `/jsz`: JetStream in figures, `disabled` while there is none.

use std::time::SystemTime;

use serde::Serialize;

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::{AccountDetail, ApiStats, Detail, JetStreamConfig, JetStreamLimits, is_false};
use super::time::timestamp;

/// Accounts on one page.
const LIMIT: usize = 1024;

#[derive(Serialize)]
struct Jsz<'a> {
    #[serde(flatten)]
    stats: Stats<'a>,
    server_id: &'a str,
    now: String,
    #[serde(skip_serializing_if = "is_false")]
    disabled: bool,
    config: &'a JetStreamConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<&'a JetStreamLimits>,
    streams: usize,
    consumers: usize,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    account_details: &'a [AccountDetail],
    total: usize,
}

/// The figures that `/jsz` and `/varz` share.
#[derive(Serialize)]
struct Stats<'a> {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: usize,
    ha_assets: usize,
    api: &'a ApiStats,
}

pub(super) fn page(view: &View, params: &Params) -> Result<Page, Problem> {
    let (offset, limit) = params.page(LIMIT, LIMIT)?;
    let account = params.text("acc").map(ToOwned::to_owned);
    let consumers = params.switch("consumers")?;
    let streams = params.switch("streams")? || consumers;
    let detail = Detail {
        accounts: params.switch("accounts")? || streams || account.is_some(),
        account,
        streams,
        consumers,
        config: params.switch("config")?,
        offset,
        limit,
    };
    let found = view.jetstream(&detail);
    let jetstream = found.clone().unwrap_or_default();
    Page::json(&Jsz {
        stats: Stats {
            memory: jetstream.memory,
            storage: jetstream.storage,
            reserved_memory: jetstream.reserved_memory,
            reserved_storage: jetstream.reserved_storage,
            accounts: jetstream.accounts,
            ha_assets: 0,
            api: &jetstream.api,
        },
        server_id: &view.context.info.server_id,
        now: timestamp(SystemTime::now()),
        disabled: found.is_none(),
        config: &jetstream.config,
        limits: found.is_some().then_some(&jetstream.limits),
        streams: jetstream.streams,
        consumers: jetstream.consumers,
        messages: jetstream.messages,
        bytes: jetstream.bytes,
        account_details: &jetstream.account_details,
        total: jetstream.accounts,
    })
}

/// The `jetstream` object of `/varz`: empty while there is none.
pub(super) fn of_varz(view: &View) -> serde_json::Value {
    let Some(jetstream) = view.jetstream(&Detail::default()) else {
        return serde_json::json!({});
    };
    let stats = Stats {
        memory: jetstream.memory,
        storage: jetstream.storage,
        reserved_memory: jetstream.reserved_memory,
        reserved_storage: jetstream.reserved_storage,
        accounts: jetstream.accounts,
        ha_assets: 0,
        api: &jetstream.api,
    };
    serde_json::json!({ "config": jetstream.config, "stats": stats, "limits": jetstream.limits })
}
