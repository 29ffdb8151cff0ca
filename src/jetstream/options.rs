//! The settings of JetStream, and why it did not start.

use std::sync::Arc;

use crate::router::Router;
use crate::store::{self, Store};

use super::Progress;

/// What an account may use; -1 is unlimited.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams.
    pub streams_max: i64,
    /// Consumers of all streams.
    pub consumers_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: -1,
            consumers_max: -1,
        }
    }
}

/// What [`super::JetStream::start`] is given.
pub struct Options {
    /// Where file streams are kept; without one only memory streams are taken.
    pub store: Option<Store>,
    /// Where everyone is met.
    pub router: Arc<Router>,
    /// The name answers give as that of the leader.
    pub server_name: String,
    /// The JetStream domain, if this server has one.
    pub domain: Option<String>,
    /// The version answers give.
    pub version: String,
    /// What may be used.
    pub limits: Limits,
    /// The largest message there can be.
    pub message_bytes_max: usize,
    /// Refuse requests with fields that are not known, as the reference server does.
    pub strict: bool,
    /// How far the recovery has come, for others to read.
    pub progress: Arc<Progress>,
}

impl Options {
    /// The defaults.
    pub fn new(router: Arc<Router>, store: Option<Store>) -> Self {
        Self {
            store,
            router,
            server_name: "mesh".to_owned(),
            domain: None,
            version: crate::protocol::info::NATS_VERSION.to_owned(),
            limits: Limits::default(),
            message_bytes_max: 1 << 20,
            strict: true,
            progress: Arc::default(),
        }
    }
}

/// Why JetStream did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What the store holds for a stream is not a stream's configuration. Nothing was changed.
    #[error("the configuration of stream {id} cannot be read: {error}")]
    Config {
        /// Its key in the store.
        id: store::StreamId,
        /// What was expected.
        error: serde_json::Error,
    },
}
