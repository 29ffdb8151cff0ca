//! Consumers as the pages show them: the one place that asks a stream for its own.
//!
//! `/jsz`, `/healthz`, `/metrics` and `?format=nats` all take what [`of`] gives, so a consumer shows everywhere or nowhere.

use crate::jetstream::JetStream;
use crate::jetstream::delivery::ConsumerInfo;

/// Whether a stream has a consumer of this name.
pub(super) fn has(jetstream: &JetStream, stream: &str, consumer: &str) -> bool {
    let consumers = jetstream.consumers(stream);
    consumers.is_some_and(|consumers| consumers.get(consumer).is_some())
}

/// The consumers of a stream, by name.
pub(super) fn of(jetstream: &JetStream, stream: &str) -> Vec<ConsumerInfo> {
    let Some(consumers) = jetstream.consumers(stream) else {
        return Vec::new();
    };
    consumers.all().iter().map(|driver| driver.info()).collect()
}
