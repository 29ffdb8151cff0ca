//! What a client library makes of a stream: its ordered consumer.

use std::io;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt;

use super::Stream;

/// Reads all of `stream` through the ordered consumer of async-nats, from its creation to the last message.
pub fn ordered(stream: &Stream, count: u64, mut mark: impl FnMut()) -> io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = async_nats::connect(&stream.target.url)
            .await
            .map_err(io::Error::other)?;
        let jetstream = jetstream::new(client.clone());
        let held = jetstream
            .get_stream(&stream.name)
            .await
            .map_err(io::Error::other)?;
        mark();
        let start = Instant::now();
        let consumer = held
            .create_consumer(OrderedConfig::default())
            .await
            .map_err(io::Error::other)?;
        let mut messages = consumer.messages().await.map_err(io::Error::other)?;
        for expected in 1..=count {
            let Some(message) = messages.next().await else {
                return Err(io::Error::other("the ordered consumer ended"));
            };
            let message = message.map_err(io::Error::other)?;
            let sequence = message.info().map_err(io::Error::other)?.stream_sequence;
            if sequence != expected {
                return Err(io::Error::other(format!(
                    "message {sequence} came where {expected} was due"
                )));
            }
        }
        let took = start.elapsed();
        mark();
        client.drain().await.ok();
        Ok(took)
    })
}
