//! What answers say of a consumer.

use serde::{Serialize, Serializer};

use crate::jetstream::consumer::config::ConsumerConfig;
use crate::jetstream::consumer::snapshot::Position;
use crate::jetstream::consumer::state::ConsumerState;
use crate::jetstream::time::rfc3339;

/// A consumer as answers show it.
#[derive(Clone, Debug)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: i64,
    /// The configuration in force.
    pub config: ConsumerConfig,
    /// Counters.
    pub state: ConsumerState,
    /// When this was said.
    pub now: i64,
}

#[derive(Serialize)]
struct Place {
    consumer_seq: u64,
    stream_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
}

impl Place {
    fn new(position: Position, last: Option<i64>) -> Self {
        Self {
            consumer_seq: position.consumer,
            stream_seq: position.stream,
            last_active: last.map(rfc3339),
        }
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    stream_name: &'a str,
    name: &'a str,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a ConsumerConfig>,
    delivered: Place,
    ack_floor: Place,
    num_ack_pending: usize,
    num_redelivered: usize,
    num_waiting: usize,
    num_pending: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    push_bound: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
    ts: String,
}

impl Serialize for ConsumerInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown(true).serialize(serializer)
    }
}

impl ConsumerInfo {
    /// As answers show it, with its configuration or without.
    pub fn shown(&self, with_config: bool) -> impl Serialize {
        let state = &self.state;
        let paused_until = state.paused_until.filter(|&until| until > self.now);
        Wire {
            stream_name: &self.stream,
            name: &self.name,
            created: rfc3339(self.created),
            config: with_config.then_some(&self.config),
            delivered: Place::new(state.delivered, state.last_delivery),
            ack_floor: Place::new(state.ack_floor, state.last_ack),
            num_ack_pending: state.num_ack_pending,
            num_redelivered: state.num_redelivered,
            num_waiting: state.num_waiting,
            num_pending: state.num_pending,
            push_bound: state.push_bound,
            paused: paused_until.is_some(),
            pause_remaining: paused_until.map(|until| until - self.now),
            ts: rfc3339(self.now),
        }
    }
}
