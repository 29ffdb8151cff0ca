//! Consumers as the pages show them: the one place that asks a stream for its own.
//!
//! `/jsz`, `/healthz`, `/metrics` and `?format=nats` all take what [`of`] gives, so a consumer shows everywhere or nowhere.

use serde_json::Value;

use crate::jetstream::JetStream;

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
    /// Messages it may have in flight; 0 is no limit.
    pub ack_pending_max: u64,
    /// Of those in flight, the ones delivered more than once.
    pub num_redelivered: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
    /// Deliveries so far.
    pub deliveries: u64,
    /// The stream sequence up to which everything is settled.
    pub ack_floor: u64,
}

/// Whether a stream has a consumer of this name.
pub(super) fn has(jetstream: &JetStream, stream: &str, consumer: &str) -> bool {
    let consumers = jetstream.consumers(stream);
    consumers.is_some_and(|consumers| consumers.get(consumer).is_some())
}

/// The consumers of a stream, by name.
pub(super) fn of(jetstream: &JetStream, stream: &str) -> Vec<Consumer> {
    let Some(consumers) = jetstream.consumers(stream) else {
        return Vec::new();
    };
    let drivers = consumers.all();
    drivers
        .iter()
        .map(|driver| {
            let info = driver.info();
            let state = &info.state;
            Consumer {
                name: info.name.clone(),
                num_pending: state.num_pending,
                num_ack_pending: state.num_ack_pending as u64,
                ack_pending_max: u64::try_from(info.config.max_ack_pending).unwrap_or(0),
                num_redelivered: state.num_redelivered as u64,
                num_waiting: state.num_waiting as u64,
                deliveries: state.delivered.consumer,
                ack_floor: state.ack_floor.stream,
                info: serde_json::to_value(&info).expect("plain fields serialise"),
            }
        })
        .collect()
}
