//! The settings of JetStream, and why it did not start.

use std::sync::{Arc, Weak};

use crate::account::{GLOBAL, StreamLimits};
use crate::router::Router;
use crate::store::{self, Store, StreamRow};

use super::quota::Quota;
use super::{PerAccount, Progress};

/// What [`super::JetStream::start`] is given.
pub struct Options {
    /// Where file streams are kept; without one only memory streams are taken.
    pub store: Option<Store>,
    /// The account whose streams these are.
    pub account: Arc<str>,
    /// The same in other accounts of this server.
    pub(super) peers: Weak<PerAccount>,
    /// What the store holds for it; found there when absent.
    pub rows: Option<Vec<StreamRow>>,
    /// Where everyone is met.
    pub router: Arc<Router>,
    /// The name answers give as that of the leader.
    pub server_name: String,
    /// The JetStream domain, if this server has one.
    pub domain: Option<String>,
    /// The version answers give.
    pub version: String,
    /// What may be used.
    pub limits: StreamLimits,
    /// The bytes of `limits`, and those of the whole server.
    pub quota: Arc<Quota>,
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
            account: GLOBAL.into(),
            peers: Weak::new(),
            rows: None,
            router,
            server_name: "mesh".to_owned(),
            domain: None,
            version: crate::protocol::info::NATS_VERSION.to_owned(),
            limits: StreamLimits::default(),
            quota: Quota::new(-1, -1, None),
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
    /// What the store holds for a stream does not match its checksum. Nothing was changed.
    #[error("the row of stream {0} in the store is damaged")]
    Damaged(store::StreamId),
    /// What the store holds for a stream is not a stream's configuration. Nothing was changed.
    #[error("the configuration of stream {id} cannot be read: {error}")]
    Config {
        /// Its key in the store.
        id: store::StreamId,
        /// What was expected.
        error: serde_json::Error,
    },
}
