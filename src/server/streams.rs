//! The streams of all accounts: opened before anybody is served, shown to monitoring.

use std::sync::Arc;

use crate::config::Config;
use crate::connection::Context;
use crate::jetstream::{self, Common, PerAccount};
use crate::monitor;
use crate::store::{self, Store};

use super::ServerError;

/// Opens the store and recovers its streams, off the runtime: that reads files.
pub(super) async fn start(
    config: &Config,
    context: &Context,
    progress: Arc<jetstream::Progress>,
) -> Result<Arc<PerAccount>, ServerError> {
    let dir = config.store_dir.clone().expect("asked for with a directory");
    let mut options = store::Options::new(dir);
    options.sync = config.sync;
    let (domain, strict) = (config.domain.clone(), config.strict);
    let accounts = context.accounts.all();
    let server_name = context.info.server_name.clone();
    let message_bytes_max = context.options().payload_max;
    let limit = |max: Option<u64>| max.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
    let bytes_max = (limit(config.memory_max), limit(config.storage_max));
    let runtime = tokio::runtime::Handle::current();
    let started = tokio::task::spawn_blocking(move || {
        let store = Store::open(options)?;
        let _inside = runtime.enter();
        let common = Common {
            store: Some(store),
            server_name,
            domain,
            message_bytes_max,
            strict,
            progress,
            bytes_max,
        };
        Ok(PerAccount::start(common, &accounts)?)
    });
    started.await.expect("opening the store does not panic")
}

/// What monitoring shows beside connections.
pub(super) fn sources(jetstream: Option<&Arc<PerAccount>>) -> Vec<Arc<dyn monitor::Source>> {
    let Some(jetstream) = jetstream else {
        return Vec::new();
    };
    let mut sources: Vec<Arc<dyn monitor::Source>> = vec![Arc::new(monitor::Streams::new(jetstream.clone()))];
    if let Some(store) = jetstream.store().cloned() {
        sources.push(Arc::new(monitor::Storage::new(store)));
    }
    sources
}
