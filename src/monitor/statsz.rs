//! The server in few figures, as nats-server sends them in the system account; no page shows them.

use serde_json::{Value, json};

use super::time::timestamp;
use super::{View, jsz, process};

/// The figures. What is zero and left out there is left out here.
pub fn statsz(view: &View) -> Value {
    let totals = view.context.registry.totals();
    let accounts = view.context.accounts.all();
    let sent = json!({ "msgs": totals.out_msgs, "bytes": totals.out_bytes });
    let received = json!({ "msgs": totals.in_msgs, "bytes": totals.in_bytes });
    let mut stats = json!({
        "start": timestamp(view.started_at),
        "mem": process::resident_bytes().unwrap_or_default(),
        "cores": process::cores(),
        "cpu": view.cpu.percent(),
        "connections": totals.connections,
        "total_connections": totals.connections_ever,
        "active_accounts": accounts.iter().filter(|account| account.clients() > 0).count(),
        "subscriptions": view.context.accounts.stats().subscriptions,
        "sent": sent,
        "sent_to_clients": sent,
        "received": received,
        "received_from_clients": received,
        "slow_consumers": totals.slow_consumers,
        "active_servers": 1,
        "gomaxprocs": process::cores(),
    });
    let by_kind = |clients: u64| json!({ "clients": clients, "routes": 0, "gateways": 0, "leafs": 0 });
    if totals.slow_consumers > 0 {
        stats["slow_consumer_stats"] = by_kind(totals.slow_consumers);
    }
    if totals.stale > 0 {
        stats["stale_connections"] = json!(totals.stale);
        stats["stale_connection_stats"] = by_kind(totals.stale);
    }
    if totals.stalls > 0 {
        stats["stalled_clients"] = json!(totals.stalls);
    }
    let mut jetstream = jsz::of_varz(view);
    if let Some(config) = jetstream.get_mut("config").and_then(Value::as_object_mut) {
        // Where the files lie concerns this machine alone.
        config.shift_remove("store_dir");
        stats["jetstream"] = jetstream;
    }
    stats
}
