//! `/varz`: the server in figures.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::pages::Page;
use super::params::{Params, Problem};
use super::source::is_false;
use super::time::{float, nanoseconds, seconds, timestamp, uptime};
use super::{View, jsz, process};

/// Field names, types and order are those of nats-server; `mesh` is our own version. Not shown, for want of the
/// thing: `git_commit`, `feature_flags`, `disk_io_wait_stats`.
#[derive(Serialize)]
struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'a str,
    mesh: &'a str,
    proto: i32,
    go: &'a str,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "is_false")]
    auth_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_verify: bool,
    max_connections: usize,
    #[serde(skip_serializing_if = "is_none")]
    max_subscriptions: usize,
    #[serde(serialize_with = "nanoseconds")]
    ping_interval: Duration,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: &'a str,
    https_port: u16,
    #[serde(serialize_with = "seconds")]
    auth_timeout: Duration,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Value,
    gateway: Value,
    leaf: Value,
    mqtt: Value,
    websocket: Value,
    jetstream: Value,
    #[serde(serialize_with = "seconds")]
    tls_timeout: Duration,
    #[serde(serialize_with = "nanoseconds")]
    write_deadline: Duration,
    start: String,
    now: String,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    #[serde(serialize_with = "float")]
    cpu: f64,
    connections: usize,
    total_connections: u64,
    routes: usize,
    remotes: usize,
    leafnodes: usize,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: usize,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: String,
    config_digest: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [String],
    system_account: String,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<String>,
}

/// Counts by the kind of connection; all of ours are clients.
#[derive(Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    fn clients(clients: u64) -> Self {
        Self {
            clients,
            routes: 0,
            gateways: 0,
            leafs: 0,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(limit: &usize) -> bool {
    *limit == 0
}

pub(super) fn page(view: &View, _: &Params) -> Result<Page, Problem> {
    whole(view, |varz| Page::json(varz))
}

/// The page as a value, for what is made of its fields.
pub(super) fn value(view: &View) -> Result<Value, Problem> {
    whole(view, |varz| {
        serde_json::to_value(varz).map_err(|error| Problem::unavailable(error.to_string()))
    })
}

fn whole<T>(view: &View, then: impl FnOnce(&Varz<'_>) -> T) -> T {
    let (info, options) = (&view.context.info, view.context.options());
    let totals = view.context.registry.totals();
    let tls = view.context.tls();
    let asked = tls.as_ref().map(|tls| tls.options());
    let page_port = |encrypted: bool| {
        if view.encrypted == encrypted {
            view.address.port()
        } else {
            0
        }
    };
    let host = view.clients.ip().to_string();
    then(&Varz {
        server_id: &info.server_id,
        server_name: &info.server_name,
        version: &info.version,
        mesh: &info.mesh,
        proto: info.proto,
        go: &info.go,
        host: &host,
        port: view.clients.port(),
        auth_required: info.auth_required,
        tls_required: asked.is_some_and(|options| !options.allow_plain),
        tls_verify: asked.is_some_and(|options| options.verify),
        max_connections: options.connections_max,
        max_subscriptions: options.subscriptions_max,
        ping_interval: options.ping_interval,
        ping_max: options.pings_out_max,
        http_host: view.address.ip().to_string(),
        http_port: page_port(false),
        http_base_path: "",
        https_port: page_port(true),
        auth_timeout: options.auth_timeout,
        max_control_line: options.control_line_max,
        max_payload: options.payload_max,
        max_pending: options.pending_max,
        cluster: json!({}),
        gateway: json!({}),
        leaf: json!({}),
        mqtt: json!({}),
        websocket: json!({}),
        jetstream: jsz::of_varz(view),
        tls_timeout: asked.map(|options| options.timeout).unwrap_or_default(),
        write_deadline: options.write_deadline,
        start: timestamp(view.started_at),
        now: timestamp(SystemTime::now()),
        uptime: uptime(view.started.elapsed()),
        mem: process::resident_bytes().unwrap_or_default(),
        cores: process::cores(),
        gomaxprocs: process::cores(),
        cpu: view.cpu.percent(),
        connections: totals.connections,
        total_connections: totals.connections_ever,
        routes: 0,
        remotes: 0,
        leafnodes: 0,
        in_msgs: totals.in_msgs,
        in_bytes: totals.in_bytes,
        in_client_msgs: totals.in_msgs,
        in_client_bytes: totals.in_bytes,
        out_msgs: totals.out_msgs,
        out_bytes: totals.out_bytes,
        out_client_msgs: totals.out_msgs,
        out_client_bytes: totals.out_bytes,
        slow_consumers: totals.slow_consumers,
        stale_connections: totals.stale,
        stalled_clients: totals.stalls,
        subscriptions: view.context.accounts.stats().subscriptions,
        http_req_stats: view.requests.counted().collect(),
        config_load_time: timestamp(view.started_at),
        config_digest: "",
        tags: &view.tags,
        system_account: view.context.accounts.system().name().to_string(),
        slow_consumer_stats: ByKind::clients(totals.slow_consumers),
        stale_connection_stats: ByKind::clients(totals.stale),
        tls_cert_not_after: tls.as_ref().and_then(|tls| tls.expires()).map(timestamp),
    })
}
