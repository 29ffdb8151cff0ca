//! `/metrics` in Prometheus' text format: the only place that knows the `prometheus` crate.
//!
//! Nothing is registered or counted for it: a custom collector reads the server's own counters when it is scraped.
//! Messages and bytes count as everywhere in NATS: headers and payload, without control lines.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};

use super::pages::Page;
use super::params::{Params, Problem};
use super::source::{Family, Labels, Scope, Value};
use super::{View, exporter, health, process};
use crate::connection::Reason;

/// The metrics page of one server.
pub(super) struct Exposition {
    registry: Registry,
    view: Arc<View>,
}

struct ServerCollector {
    view: Arc<View>,
    desc: Desc,
}

impl Exposition {
    pub fn new(view: Arc<View>) -> Self {
        let registry = Registry::new();
        // Families come and go with what the server holds, so one descriptor stands for all of them.
        let desc = Desc::new(
            "mesh_info".to_owned(),
            "What this server is.".to_owned(),
            Vec::new(),
            std::collections::HashMap::new(),
        );
        let desc = desc.expect("the name and the help are well formed");
        registry
            .register(Box::new(ServerCollector {
                view: view.clone(),
                desc,
            }))
            .expect("it is the only collector");
        Self { registry, view }
    }

    /// The metrics, by our names or with `format=nats` by those of Prometheus' exporter for NATS.
    pub fn page(&self, params: &Params) -> Result<Page, Problem> {
        let families = match params.text("format") {
            None | Some("prometheus") => self.registry.gather(),
            Some("nats") => exporter::families(&self.view)?.into_iter().map(family).collect(),
            Some(other) => {
                return Err(Problem::bad(format!("no metrics come as {other:?}"))
                    .fix("leave `format` out, or ask for format=nats"));
            }
        };
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder
            .encode(&families, &mut text)
            .map_err(|error| Problem::unavailable("the metrics cannot be written".to_owned()).cause(error))?;
        let text = String::from_utf8(text)
            .map_err(|error| Problem::unavailable("the metrics cannot be written".to_owned()).cause(error))?;
        Ok(Page::text("text/plain; version=0.0.4; charset=utf-8", text))
    }
}

impl Collector for ServerCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = identity(&self.view);
        families.extend(traffic(&self.view));
        families.extend(routing(&self.view));
        families.extend(of_process(&self.view));
        families.extend(self.view.families());
        families.into_iter().map(family).collect()
    }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Counter(value as f64))
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Gauge(value as f64))
}

fn identity(view: &View) -> Vec<Family> {
    let info = &view.context.info;
    let labels = vec![
        ("version", info.mesh.clone()),
        ("nats_version", info.version.clone()),
        ("server_id", info.server_id.clone()),
        ("server_name", info.server_name.clone()),
    ];
    let build = vec![
        ("version", info.mesh.clone()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch", std::env::consts::ARCH.to_owned()),
    ];
    let ailments = health::ailments(view, &Scope::default());
    let healthy = ailments.is_empty();
    vec![
        Family::many(
            "mesh_info",
            "What this server is.",
            vec![(labels, Value::Gauge(1.0))],
        ),
        Family::many(
            "mesh_build_info",
            "What this program was built from, and for what.",
            vec![(build, Value::Gauge(1.0))],
        ),
        gauge("mesh_healthy", "Whether /healthz says ok.", u64::from(healthy)),
        gauge(
            "mesh_ready",
            "Whether /readyz says ok: the server takes new clients.",
            u64::from(health::is_ready(view, &ailments)),
        ),
    ]
}

fn traffic(view: &View) -> Vec<Family> {
    let totals = view.context.registry.totals();
    let closed = |reason: Reason| {
        let count = totals.closed[reason as usize];
        (
            vec![("reason", reason.name().to_owned())],
            Value::Counter(count as f64),
        )
    };
    vec![
        gauge(
            "mesh_connections",
            "Client connections now.",
            totals.connections as u64,
        ),
        gauge(
            "mesh_connections_max",
            "Client connections allowed at a time.",
            view.context.options().connections_max as u64,
        ),
        counter(
            "mesh_connections_total",
            "Client connections ever accepted.",
            totals.connections_ever,
        ),
        counter("mesh_in_msgs_total", "Messages from clients.", totals.in_msgs),
        counter("mesh_out_msgs_total", "Messages to clients.", totals.out_msgs),
        counter(
            "mesh_in_bytes_total",
            "Bytes of messages from clients.",
            totals.in_bytes,
        ),
        counter(
            "mesh_out_bytes_total",
            "Bytes of messages to clients.",
            totals.out_bytes,
        ),
        gauge(
            "mesh_pending_bytes",
            "Bytes waiting to be written to clients.",
            totals.pending_bytes,
        ),
        counter(
            "mesh_slow_consumers_total",
            "Clients closed because they did not read.",
            totals.slow_consumers,
        ),
        counter(
            "mesh_stale_connections_total",
            "Clients closed because they did not answer PING.",
            totals.stale,
        ),
        counter(
            "mesh_auth_failures_total",
            "Clients refused for their credentials.",
            totals.auth_failures,
        ),
        counter(
            "mesh_stalls_total",
            "Times a publisher waited for a client that reads slowly.",
            totals.stalls,
        ),
        counter(
            "mesh_parse_errors_total",
            "Clients closed because they sent what is no operation of the protocol.",
            totals.closed[Reason::ParseError as usize],
        ),
        Family::many(
            "mesh_connections_closed_total",
            "Client connections that ended, by reason.",
            Reason::ALL.into_iter().map(closed).collect(),
        ),
    ]
}

fn routing(view: &View) -> Vec<Family> {
    let router = view.context.accounts.stats();
    vec![
        gauge(
            "mesh_subscriptions",
            "Subscriptions now.",
            router.subscriptions as u64,
        ),
        counter(
            "mesh_subscription_inserts_total",
            "Subscriptions ever made.",
            router.inserts,
        ),
        counter(
            "mesh_subscription_removes_total",
            "Subscriptions ever ended.",
            router.removes,
        ),
        counter(
            "mesh_router_matches_total",
            "Subjects matched against the subscriptions.",
            router.matches,
        ),
        counter(
            "mesh_router_cache_hits_total",
            "Of them, answered by a publisher's cache.",
            router.cache_hits,
        ),
        Family::many(
            "mesh_http_requests_total",
            "Monitoring requests answered, by page.",
            view.requests
                .counted()
                .map(|(path, count)| (vec![("path", path.to_owned())], Value::Counter(count as f64)))
                .collect(),
        ),
    ]
}

fn of_process(view: &View) -> Vec<Family> {
    let uptime = Family::one(
        "mesh_uptime_seconds",
        "How long the server has been running.",
        Value::Gauge(view.started.elapsed().as_secs_f64()),
    );
    let cpu = process::cpu_time().map(|time| {
        Family::one(
            "mesh_process_cpu_seconds_total",
            "CPU time used, user and system.",
            Value::Counter(time.as_secs_f64()),
        )
    });
    let memory = process::resident_bytes()
        .map(|bytes| gauge("mesh_process_resident_memory_bytes", "Resident memory.", bytes));
    let files =
        process::open_files().map(|count| gauge("mesh_process_open_fds", "Open file descriptors.", count));
    let files_max = process::open_files_max()
        .map(|count| gauge("mesh_process_max_fds", "File descriptors allowed.", count));
    [Some(uptime), cpu, memory, files, files_max]
        .into_iter()
        .flatten()
        .collect()
}

/// In the types of the `prometheus` crate.
fn family(family: Family) -> MetricFamily {
    let mut out = MetricFamily::default();
    out.set_name(family.name.into_owned());
    out.set_help(family.help.into_owned());
    out.set_field_type(match family.samples.first() {
        Some((_, Value::Counter(_))) => MetricType::COUNTER,
        Some((_, Value::Histogram { .. })) => MetricType::HISTOGRAM,
        _ => MetricType::GAUGE,
    });
    out.set_metric(
        family
            .samples
            .into_iter()
            .map(|(labels, value)| metric(labels, value))
            .collect(),
    );
    out
}

fn metric(labels: Labels, value: Value) -> Metric {
    let labels = labels.into_iter().map(|(name, text)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(text);
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    match value {
        Value::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Value::Histogram { buckets, sum, count } => {
            let buckets = buckets.into_iter().map(|(bound, below)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(below);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_sum(sum);
            histogram.set_sample_count(count);
            metric.set_histogram(histogram);
        }
    }
    metric
}
