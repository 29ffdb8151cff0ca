//! `/subsz`: the subscriptions in figures and, asked for, one by one.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::account::Account;
use crate::protocol::subject;
use crate::router::RouterStats;

use super::View;
use super::accounts::traffic;
use super::connz::{SubscriptionRow, in_order};
use super::pages::Page;
use super::params::{Params, Problem};
use super::time::{float, timestamp};

/// Subscriptions on a page unless asked otherwise, and at most.
const LIMIT: usize = 1024;
const LIMIT_MAX: usize = 100_000;

#[derive(Serialize)]
struct Subsz<'a> {
    server_id: &'a str,
    now: String,
    #[serde(flatten)]
    stats: SublistStats,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubscriptionRow>,
}

/// The router in figures. Match caches belong to publishers here, so their entries are not counted: `num_cache` and
/// `max_fanout` are zero, and `avg_fanout` is what was delivered for each message matched.
#[derive(Serialize)]
pub(super) struct SublistStats {
    num_subscriptions: usize,
    num_cache: usize,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    #[serde(serialize_with = "float")]
    cache_hit_rate: f64,
    max_fanout: usize,
    #[serde(serialize_with = "float")]
    avg_fanout: f64,
}

impl SublistStats {
    /// Of all accounts together.
    pub fn of(view: &View) -> Self {
        let totals = view.context.registry.totals();
        Self::made(view.context.accounts.stats(), totals.out_msgs)
    }

    /// Of one.
    pub fn of_account(view: &View, account: &Account) -> Self {
        Self::made(account.router.stats(), traffic(view, account).out_msgs)
    }

    fn made(stats: RouterStats, delivered: u64) -> Self {
        let share = |part: u64| {
            if stats.matches == 0 {
                0.0
            } else {
                part as f64 / stats.matches as f64
            }
        };
        Self {
            num_subscriptions: stats.subscriptions,
            num_cache: 0,
            num_inserts: stats.inserts,
            num_removes: stats.removes,
            num_matches: stats.matches,
            cache_hit_rate: share(stats.cache_hits),
            max_fanout: 0,
            avg_fanout: share(delivered),
        }
    }
}

/// The figures of the page as a value, for what is made of its fields.
pub(super) fn figures(view: &View) -> serde_json::Value {
    serde_json::to_value(SublistStats::of(view)).expect("plain fields serialise")
}

pub(super) fn page(view: &View, params: &Params) -> Result<Page, Problem> {
    let (offset, limit) = params.page(LIMIT, LIMIT_MAX)?;
    let test = params.text("test");
    if let Some(subject) = test.filter(|text| !subject::is_subject(text.as_bytes())) {
        return Err(Problem::bad(format!(
            "invalid test subject, must be valid publish subject: {subject}"
        )));
    }
    // Of an account that is not there: nothing.
    let named = params.text("acc");
    let account = named.and_then(|name| view.context.accounts.get(name));
    let (subscriptions_list, total) = match &account {
        None if named.is_some() => (Vec::new(), 0),
        _ if !params.switch("subs")? => (Vec::new(), 0),
        account => list(view, account.as_ref(), test.map(str::as_bytes), offset, limit),
    };
    let stats = match &account {
        Some(account) => SublistStats::of_account(view, account),
        None if named.is_some() => SublistStats::made(RouterStats::default(), 0),
        None => SublistStats::of(view),
    };
    Page::json(&Subsz {
        server_id: &view.context.info.server_id,
        now: timestamp(SystemTime::now()),
        stats,
        total,
        offset,
        limit,
        subscriptions_list,
    })
}

/// One page of the clients' subscriptions (those that match, with `test`) and how many there are.
fn list(
    view: &View,
    account: Option<&Arc<Account>>,
    test: Option<&[u8]>,
    offset: usize,
    limit: usize,
) -> (Vec<SubscriptionRow>, usize) {
    let mut clients = view.context.registry.live();
    clients.retain(|handle| account.is_none_or(|account| Arc::ptr_eq(account, &handle.account())));
    clients.sort_by_key(|handle| handle.id());
    let (mut rows, mut total) = (Vec::new(), 0);
    for handle in clients {
        let wanted = offset + limit > total;
        if test.is_none() && !wanted {
            // Only counted: the list is full.
            total += handle.client.subscription_count();
            continue;
        }
        let mut subscriptions = in_order(handle.client.subscriptions());
        subscriptions.retain(|own| test.is_none_or(|subject| subject::matches(own.pattern(), subject)));
        let fresh = subscriptions.iter().skip(offset.saturating_sub(total));
        let room = limit - rows.len();
        let account = handle.account();
        rows.extend(
            fresh
                .take(room)
                .map(|own| SubscriptionRow::of(own, handle.id()).in_account(account.name())),
        );
        total += subscriptions.len();
    }
    (rows, total)
}
