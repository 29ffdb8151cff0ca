//! `/metrics?format=nats`: the names that nats-io's prometheus-nats-exporter gives to what it reads from a server, so
//! that dashboards made for it work without it.
//!
//! Its flags `-varz -connz -subz -healthz -jsz=all` all at once. `server_id` is the server's id, as with its
//! `-use_internal_server_id`. Names and kinds are its own: nearly all are gauges, whatever they count.
//!
//! Deliberately absent: `connz_detailed` (a set of series for each connection), routes, gateways and leaf nodes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::jetstream::delivery::ConsumerInfo;
use crate::jetstream::time::SECOND;

use super::params::Problem;
use super::source::{AccountDetail, Detail, Family, JetStream, Labels, Scope, StreamDetail, Value};
use super::{View, health, subsz, varz};

/// Connections that the exporter's reading of `/connz` takes in: one page.
const CONNZ_LIMIT: usize = 1024;
/// Texts of `/varz` that become a label.
const TEXTS: [&str; 8] = [
    "server_id",
    "server_name",
    "version",
    "domain",
    "leader",
    "name",
    "start",
    "config_load_time",
];

/// Everything, by name.
pub(super) fn families(view: &View) -> Result<Vec<Family>, Problem> {
    let mut out = Out {
        server_id: view.context.info.server_id.clone(),
        families: BTreeMap::new(),
    };
    out.flatten("gnatsd_varz", &varz::value(view)?);
    out.flatten("gnatsd_subsz", &subsz::figures(view));
    connections(view, &mut out);
    healthy(view, &mut out);
    let detail = Detail {
        accounts: true,
        streams: true,
        consumers: true,
        config: true,
        limit: 1,
        ..Detail::default()
    };
    let found = view.jetstream(&detail);
    jetstream(view, found.as_ref(), &mut out);
    Ok(out.families.into_values().collect())
}

/// Families as they gather.
struct Out {
    server_id: String,
    families: BTreeMap<Cow<'static, str>, Family>,
}

impl Out {
    fn add(&mut self, name: impl Into<Cow<'static, str>>, labels: Labels, value: Value) {
        let family = self
            .families
            .entry(name.into())
            .or_insert_with_key(|name| Family {
                name: name.clone(),
                help: "As prometheus-nats-exporter names it.".into(),
                samples: Vec::new(),
            });
        family.samples.push((labels, value));
    }

    fn gauge(&mut self, name: impl Into<Cow<'static, str>>, labels: Labels, value: f64) {
        self.add(name, labels, Value::Gauge(value));
    }

    fn own(&self) -> Labels {
        vec![("server_id", self.server_id.clone())]
    }

    /// Numbers of an object as gauges, nested ones by their path; some texts as a label, times in milliseconds.
    fn flatten(&mut self, prefix: &str, value: &Json) {
        let Some(fields) = value.as_object() else { return };
        for (key, value) in fields {
            let name = format!("{prefix}_{}", key.trim_start_matches('/').replace('/', "_"));
            let name = name.trim_end_matches('_').to_owned();
            match value {
                Json::Number(number) => {
                    let labels = self.own();
                    self.gauge(name, labels, number.as_f64().unwrap_or_default());
                }
                Json::String(text) if TEXTS.contains(&key.as_str()) => self.text(name, text),
                Json::Object(_) if key != "leaf" => self.flatten(&name, value),
                _ => {}
            }
        }
    }

    fn text(&mut self, name: String, text: &str) {
        let mut labels = self.own();
        if let Ok(time) = text.parse::<Timestamp>() {
            return self.gauge(name, labels, time.as_millisecond() as f64);
        }
        labels.push(("value", text.to_owned()));
        self.gauge(name, labels, 1.0);
    }
}

fn connections(view: &View, out: &mut Out) {
    let live = view.context.registry.live();
    let shown = live.len().min(CONNZ_LIMIT);
    let sum =
        |of: fn(&crate::connection::Handle) -> u64| live.iter().map(|handle| of(handle)).sum::<u64>() as f64;
    for (name, value) in [
        ("num_connections", shown as f64),
        ("total", live.len() as f64),
        ("offset", 0.0),
        ("limit", CONNZ_LIMIT as f64),
        ("pending_bytes", sum(|one| one.client.outbox.pending() as u64)),
        ("subscriptions", sum(|one| one.client.subscription_count() as u64)),
    ] {
        let labels = out.own();
        out.gauge(format!("gnatsd_connz_{name}"), labels, value);
    }
    for (name, value) in [
        (
            "in_bytes",
            sum(|one| one.client.counters.in_bytes.load(Ordering::Relaxed)),
        ),
        (
            "out_bytes",
            sum(|one| one.client.counters.out_bytes.load(Ordering::Relaxed)),
        ),
        (
            "in_msgs",
            sum(|one| one.client.counters.in_msgs.load(Ordering::Relaxed)),
        ),
        (
            "out_msgs",
            sum(|one| one.client.counters.out_msgs.load(Ordering::Relaxed)),
        ),
    ] {
        let labels = out.own();
        out.add(format!("gnatsd_connz_{name}"), labels, Value::Counter(value));
    }
}

fn healthy(view: &View, out: &mut Out) {
    let ok = health::ailments(view, &Scope::default()).is_empty();
    let (bad, value) = if ok { (0.0, "ok") } else { (1.0, "unavailable") };
    let mut labels = out.own();
    out.gauge("gnatsd_healthz_status", labels.clone(), bad);
    labels.push(("value", value.to_owned()));
    out.gauge("gnatsd_healthz_status_value", labels, 1.0 - bad);
}

fn jetstream(view: &View, found: Option<&JetStream>, out: &mut Out) {
    let none = JetStream::default();
    let sums = found.unwrap_or(&none);
    // There is no cluster here, so this server leads whatever is led.
    let labels: Labels = vec![
        ("server_id", out.server_id.clone()),
        ("server_name", view.context.info.server_name.clone()),
        ("cluster", String::new()),
        ("domain", sums.config.domain.clone()),
        ("meta_leader", String::new()),
        ("is_meta_leader", "true".to_owned()),
    ];
    for (name, value) in [
        ("jetstream_disabled", f64::from(u8::from(found.is_none()))),
        ("max_memory", sums.config.max_memory as f64),
        ("max_storage", sums.config.max_storage as f64),
        ("total_streams", sums.streams as f64),
        ("total_consumers", sums.consumers as f64),
        ("total_messages", sums.messages as f64),
        ("total_message_bytes", sums.bytes as f64),
    ] {
        out.gauge(format!("jetstream_server_{name}"), labels.clone(), value);
    }
    for account in &sums.account_details {
        of_account(account, &labels, out);
    }
}

fn of_account(account: &AccountDetail, server: &Labels, out: &mut Out) {
    let mut labels = server.clone();
    labels.push(("account", account.name.clone()));
    labels.push(("account_name", account.name.clone()));
    labels.push(("account_id", account.id.clone()));
    for (name, value) in [
        ("max_memory", account.reserved_memory),
        ("max_storage", account.reserved_storage),
        ("memory_used", account.memory),
        ("storage_used", account.storage),
    ] {
        out.gauge(format!("jetstream_account_{name}"), labels.clone(), value as f64);
    }
    // As many as have metrics under our own names.
    for stream in account
        .stream_detail
        .iter()
        .take(super::streams::STREAMS_SHOWN_MAX)
    {
        of_stream(stream, &labels, out);
    }
}

fn of_stream(stream: &StreamDetail, account: &Labels, out: &mut Out) {
    let (info, state) = (&stream.info, &stream.info.state);
    let mut labels = account.clone();
    labels.push(("stream_name", info.config.name.clone()));
    labels.push(("stream_leader", info.leader.clone().unwrap_or_default()));
    labels.push(("is_stream_leader", "true".to_owned()));
    labels.push(("stream_raft_group", String::new()));
    for (name, value) in [
        ("jetstream_stream_total_messages", state.messages as f64),
        ("jetstream_stream_total_bytes", state.bytes as f64),
        ("jetstream_stream_first_seq", state.first_seq as f64),
        ("jetstream_stream_last_seq", state.last_seq as f64),
        ("jetstream_stream_consumer_count", state.consumers as f64),
        ("jetstream_stream_subject_count", state.subjects as f64),
        ("jetstream_stream_limit_bytes", info.config.max_bytes as f64),
        ("jetstream_stream_limit_messages", info.config.max_msgs as f64),
    ] {
        out.gauge(name, labels.clone(), value);
    }
    for consumer in &stream.consumers {
        of_consumer(consumer, &labels, out);
    }
}

fn of_consumer(consumer: &ConsumerInfo, stream: &Labels, out: &mut Out) {
    let state = &consumer.state;
    let mut labels = stream.clone();
    labels.push(("consumer_name", consumer.name.clone()));
    labels.push(("consumer_leader", String::new()));
    labels.push(("is_consumer_leader", "true".to_owned()));
    labels.push(("consumer_desc", consumer.config.description.clone()));
    let (delivered, floor) = (state.delivered, state.ack_floor);
    for (name, value) in [
        (
            "jetstream_consumer_delivered_consumer_seq",
            delivered.consumer as f64,
        ),
        ("jetstream_consumer_delivered_stream_seq", delivered.stream as f64),
        ("jetstream_consumer_ack_floor_consumer_seq", floor.consumer as f64),
        ("jetstream_consumer_ack_floor_stream_seq", floor.stream as f64),
        ("jetstream_consumer_num_ack_pending", state.num_ack_pending as f64),
        ("jetstream_consumer_num_redelivered", state.num_redelivered as f64),
        ("jetstream_consumer_num_waiting", state.num_waiting as f64),
        ("jetstream_consumer_num_pending", state.num_pending as f64),
    ] {
        out.gauge(name, labels.clone(), value);
    }
    let since = |last: Option<i64>| last.map(|last| (consumer.now - last) as f64 / SECOND as f64);
    for (name, seconds) in [
        (
            "jetstream_consumer_last_delivery_seconds",
            since(state.last_delivery),
        ),
        ("jetstream_consumer_last_ack_seconds", since(state.last_ack)),
    ] {
        if let Some(seconds) = seconds {
            out.gauge(name, labels.clone(), seconds);
        }
    }
}
