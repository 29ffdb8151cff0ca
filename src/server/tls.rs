//! Certificates and keys at start and at a reload.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Config;
use crate::connection::tls::{Error, Tls};

/// Reads certificates and keys, off the runtime: those are files. Says when one has expired.
pub(super) async fn load(config: &Config) -> Result<Option<Arc<Tls>>, Error> {
    let Some(options) = config.tls.clone() else {
        if config.monitor_tls {
            return Err(Error::new("HTTPS needs a certificate: give one in tls { ... }"));
        }
        return Ok(None);
    };
    let loading = tokio::task::spawn_blocking(|| Tls::load(options));
    let tls = loading.await.expect("reading certificates does not panic")?;
    if let Some(expires) = tls.expires().filter(|expires| *expires < SystemTime::now()) {
        let since =
            jiff::Timestamp::try_from(expires).map_or_else(|_| String::new(), |time| format!(" on {time}"));
        tracing::warn!("A certificate in the tls block has expired{since}: clients will refuse it");
    }
    Ok(Some(Arc::new(tls)))
}

/// Whether settings of TLS or its files differ.
pub(super) fn differs(old: Option<&Tls>, new: Option<&Tls>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => !old.is_same(new),
        (None, None) => false,
        _ => true,
    }
}
