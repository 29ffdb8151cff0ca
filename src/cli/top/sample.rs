//! What the pages said, and what became of it between two looks.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Sort;

/// The pages of one look.
pub(super) struct Sample {
    at: Instant,
    varz: Varz,
    connz: Connz,
    jsz: Jsz,
}

#[derive(Deserialize)]
pub(super) struct Varz {
    server_id: String,
    server_name: String,
    version: String,
    mesh: Option<String>,
    uptime: String,
    now: String,
    cpu: f64,
    mem: u64,
    connections: u64,
    total_connections: u64,
    subscriptions: u64,
    slow_consumers: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
}

#[derive(Deserialize)]
pub(super) struct Connz {
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    cid: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ip: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    lang: String,
    #[serde(default)]
    version: String,
    uptime: String,
    idle: String,
    #[serde(default)]
    rtt: String,
    subscriptions: u64,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
}

#[derive(Deserialize)]
pub(super) struct Jsz {
    #[serde(default)]
    disabled: bool,
    streams: u64,
    consumers: u64,
    messages: u64,
    bytes: u64,
    account_details: Option<Vec<Account>>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    stream_detail: Option<Vec<Stream>>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    state: State,
    consumer_detail: Option<Vec<Consumer>>,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Consumer {
    name: String,
    delivered: Place,
    ack_floor: Place,
    num_ack_pending: u64,
    num_redelivered: u64,
    num_waiting: u64,
    num_pending: u64,
}

#[derive(Deserialize)]
struct Place {
    consumer_seq: u64,
}

impl Sample {
    /// What was read just now.
    pub fn new(varz: Varz, connz: Connz, jsz: Jsz) -> Self {
        Self {
            at: Instant::now(),
            varz,
            connz,
            jsz,
        }
    }

    fn streams(&self) -> impl Iterator<Item = (&str, &Stream)> {
        let accounts = self.jsz.account_details.iter().flatten();
        accounts.flat_map(|account| {
            let streams = account.stream_detail.iter().flatten();
            streams.map(|stream| (account.name.as_str(), stream))
        })
    }

    fn consumers(&self) -> impl Iterator<Item = (&str, &str, &Consumer)> {
        self.streams().flat_map(|(account, stream)| {
            let consumers = stream.consumer_detail.iter().flatten();
            consumers.map(move |consumer| (account, stream.name.as_str(), consumer))
        })
    }
}

/// One picture: totals as they stand, rates a second since the look before. A rate is absent for what was not there then.
#[derive(Serialize)]
pub(super) struct Frame {
    pub server: Server,
    pub cpu_percent: f64,
    pub mem_bytes: u64,
    pub connections_now: u64,
    pub connections_total: u64,
    pub subscriptions: u64,
    pub slow_consumers: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub rates: Option<Rates>,
    pub jetstream: Option<JetStream>,
    pub connections: Vec<ConnectionRow>,
    pub streams: Vec<StreamRow>,
    pub consumers: Vec<ConsumerRow>,
}

#[derive(Serialize)]
pub(super) struct Server {
    pub id: String,
    pub name: String,
    pub version: String,
    /// Of a mesh server, its own version.
    pub mesh: Option<String>,
    pub uptime: String,
    pub now: String,
}

/// Messages and bytes a second, as seen by the server.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Rates {
    pub in_msgs: f64,
    pub out_msgs: f64,
    pub in_bytes: f64,
    pub out_bytes: f64,
}

#[derive(Serialize)]
pub(super) struct JetStream {
    pub streams: u64,
    pub consumers: u64,
    pub messages: u64,
    pub bytes: u64,
}

#[derive(Serialize)]
pub(super) struct ConnectionRow {
    pub cid: u64,
    pub name: String,
    pub address: String,
    pub lang: String,
    pub version: String,
    pub uptime: String,
    pub idle: String,
    pub rtt: String,
    pub subscriptions: u64,
    pub pending_bytes: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub rates: Option<Rates>,
}

#[derive(Serialize)]
pub(super) struct StreamRow {
    pub account: String,
    pub name: String,
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    pub consumers: usize,
    /// Messages stored a second.
    pub stored_rate: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct ConsumerRow {
    pub account: String,
    pub stream: String,
    pub name: String,
    pub pending: u64,
    pub ack_pending: u64,
    pub redelivered: u64,
    pub waiting: u64,
    /// Deliveries a second.
    pub delivered_rate: Option<f64>,
    /// How fast the ack floor rises, a second.
    pub acked_rate: Option<f64>,
}

/// Growth of counters over a time.
#[derive(Clone, Copy)]
struct Over {
    seconds: f64,
}

impl Over {
    fn rate(self, now: u64, before: u64) -> f64 {
        let rate = now.saturating_sub(before) as f64 / self.seconds;
        (rate * 10.0).round() / 10.0
    }
}

impl Frame {
    /// What stands now, with rates since `before` if there was such a look and the server was no other one then.
    pub fn between(before: Option<&Sample>, now: &Sample, sort: Sort, rows: usize) -> Self {
        let before = before.filter(|before| before.varz.server_id == now.varz.server_id);
        let over = Over {
            seconds: before.map_or(1.0, |before| {
                now.at.duration_since(before.at).as_secs_f64().max(1e-3)
            }),
        };
        let varz = &now.varz;
        let mut connections = connections(before, now, over);
        if sort == Sort::Rate {
            let rate = |row: &ConnectionRow| row.rates.map_or(0.0, |rates| rates.in_msgs + rates.out_msgs);
            connections.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.cid.cmp(&b.cid)));
        }
        connections.truncate(rows);
        let mut streams = streams(before, now, over);
        streams.truncate(rows);
        let mut consumers = consumers(before, now, over);
        consumers.truncate(rows);
        Self {
            server: Server {
                id: varz.server_id.clone(),
                name: varz.server_name.clone(),
                version: varz.version.clone(),
                mesh: varz.mesh.clone(),
                uptime: varz.uptime.clone(),
                now: varz.now.clone(),
            },
            cpu_percent: varz.cpu,
            mem_bytes: varz.mem,
            connections_now: varz.connections,
            connections_total: varz.total_connections,
            subscriptions: varz.subscriptions,
            slow_consumers: varz.slow_consumers,
            in_msgs: varz.in_msgs,
            out_msgs: varz.out_msgs,
            in_bytes: varz.in_bytes,
            out_bytes: varz.out_bytes,
            rates: before.map(|before| Rates {
                in_msgs: over.rate(varz.in_msgs, before.varz.in_msgs),
                out_msgs: over.rate(varz.out_msgs, before.varz.out_msgs),
                in_bytes: over.rate(varz.in_bytes, before.varz.in_bytes),
                out_bytes: over.rate(varz.out_bytes, before.varz.out_bytes),
            }),
            jetstream: (!now.jsz.disabled).then_some(JetStream {
                streams: now.jsz.streams,
                consumers: now.jsz.consumers,
                messages: now.jsz.messages,
                bytes: now.jsz.bytes,
            }),
            connections,
            streams,
            consumers,
        }
    }
}

fn connections(before: Option<&Sample>, now: &Sample, over: Over) -> Vec<ConnectionRow> {
    let earlier: HashMap<u64, &Connection> = before
        .iter()
        .flat_map(|sample| &sample.connz.connections)
        .map(|connection| (connection.cid, connection))
        .collect();
    let row = |now: &Connection| ConnectionRow {
        cid: now.cid,
        name: now.name.clone(),
        address: match now.ip.is_empty() {
            true => String::new(),
            false if now.ip.contains(':') => format!("[{}]:{}", now.ip, now.port),
            false => format!("{}:{}", now.ip, now.port),
        },
        lang: now.lang.clone(),
        version: now.version.clone(),
        uptime: now.uptime.clone(),
        idle: now.idle.clone(),
        rtt: now.rtt.clone(),
        subscriptions: now.subscriptions,
        pending_bytes: now.pending_bytes,
        in_msgs: now.in_msgs,
        out_msgs: now.out_msgs,
        in_bytes: now.in_bytes,
        out_bytes: now.out_bytes,
        rates: earlier.get(&now.cid).map(|before| Rates {
            in_msgs: over.rate(now.in_msgs, before.in_msgs),
            out_msgs: over.rate(now.out_msgs, before.out_msgs),
            in_bytes: over.rate(now.in_bytes, before.in_bytes),
            out_bytes: over.rate(now.out_bytes, before.out_bytes),
        }),
    };
    now.connz.connections.iter().map(row).collect()
}

/// The fastest growing first, then by name.
fn streams(before: Option<&Sample>, now: &Sample, over: Over) -> Vec<StreamRow> {
    let earlier: HashMap<_, _> = before
        .iter()
        .flat_map(|sample| sample.streams())
        .map(|(account, stream)| ((account, stream.name.as_str()), stream.state.last_seq))
        .collect();
    let row = |(account, stream): (&str, &Stream)| StreamRow {
        account: account.to_owned(),
        name: stream.name.clone(),
        messages: stream.state.messages,
        bytes: stream.state.bytes,
        first_seq: stream.state.first_seq,
        last_seq: stream.state.last_seq,
        consumers: stream.consumer_detail.as_ref().map_or(0, Vec::len),
        stored_rate: earlier
            .get(&(account, stream.name.as_str()))
            .map(|&before| over.rate(stream.state.last_seq, before)),
    };
    let mut rows: Vec<_> = now.streams().map(row).collect();
    let rate = |row: &StreamRow| row.stored_rate.unwrap_or_default();
    rows.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then_with(|| a.name.cmp(&b.name)));
    rows
}

/// Those with most waiting first, then by name.
fn consumers(before: Option<&Sample>, now: &Sample, over: Over) -> Vec<ConsumerRow> {
    let earlier: HashMap<_, _> = before
        .iter()
        .flat_map(|sample| sample.consumers())
        .map(|(account, stream, consumer)| ((account, stream, consumer.name.as_str()), consumer))
        .collect();
    let row = |(account, stream, now): (&str, &str, &Consumer)| {
        let before = earlier.get(&(account, stream, now.name.as_str()));
        ConsumerRow {
            account: account.to_owned(),
            stream: stream.to_owned(),
            name: now.name.clone(),
            pending: now.num_pending,
            ack_pending: now.num_ack_pending,
            redelivered: now.num_redelivered,
            waiting: now.num_waiting,
            delivered_rate: before
                .map(|before| over.rate(now.delivered.consumer_seq, before.delivered.consumer_seq)),
            acked_rate: before
                .map(|before| over.rate(now.ack_floor.consumer_seq, before.ack_floor.consumer_seq)),
        }
    };
    let mut rows: Vec<_> = now.consumers().map(row).collect();
    rows.sort_by(|a, b| {
        let waiting = |row: &ConsumerRow| row.pending + row.ack_pending;
        let names = |row: &ConsumerRow| (row.stream.clone(), row.name.clone());
        waiting(b).cmp(&waiting(a)).then_with(|| names(a).cmp(&names(b)))
    });
    rows
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
