//! Streams that cannot be served: what the store holds of them is damaged, or not what this version knows. They are left
//! out and named, the others are served. Their messages stay where they are until somebody deletes them or has the store
//! repaired.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{StreamId, StreamRow};

use super::api::error::{self, ApiError};
use super::stream::Stream;
use super::stream::config::{StreamConfig, check_name};
use super::{JetStream, Meta, lock};

/// One of them.
#[derive(Clone, Debug)]
pub struct Offline {
    /// Its key in the store.
    pub id: StreamId,
    /// Its name, if that can be read still.
    pub name: Option<String>,
    /// Why it is not served.
    pub why: String,
}

impl JetStream {
    /// The streams that are not served.
    pub fn offline(&self) -> Vec<Offline> {
        lock(&self.offline).clone()
    }

    /// Leaves a stream out.
    pub(super) fn leave_out(&self, row: &StreamRow, why: String) {
        let name = name_in(&row.meta);
        tracing::error!(
            stream = name.as_deref().unwrap_or_default(),
            id = row.id.0,
            "stream is offline: {why}; the others are served"
        );
        lock(&self.offline).push(Offline {
            id: row.id,
            name,
            why,
        });
    }

    /// A stream by name, or why there is none to be had.
    pub fn find(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        self.stream(name).ok_or_else(|| self.no_stream(name))
    }

    /// What to answer about a stream that is not there.
    pub(super) fn no_stream(&self, name: &str) -> ApiError {
        if self.is_offline(name) {
            error::STREAM_OFFLINE
        } else {
            error::STREAM_NOT_FOUND
        }
    }

    pub(super) fn is_offline(&self, name: &str) -> bool {
        lock(&self.offline)
            .iter()
            .any(|stream| stream.name.as_deref() == Some(name))
    }

    /// Forgets one that is to be deleted; says what it was.
    pub(super) fn give_up(&self, name: &str) -> Option<Offline> {
        let mut offline = lock(&self.offline);
        let at = offline
            .iter()
            .position(|stream| stream.name.as_deref() == Some(name))?;
        Some(offline.swap_remove(at))
    }
}

/// The value of a text field, from what is left of a JSON text.
fn text_after(meta: &[u8], field: &str) -> Option<String> {
    let text = String::from_utf8_lossy(meta);
    let rest = &text[text.find(&format!("\"{field}\":\""))? + field.len() + 4..];
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// The name of a stream, from its own bytes in the store, as far as they can be read.
pub fn name_in(meta: &[u8]) -> Option<String> {
    let name = match serde_json::from_slice::<serde_json::Value>(meta) {
        Ok(meta) => meta["config"]["name"].as_str()?.to_owned(),
        Err(_) => text_after(meta, "name")?,
    };
    check_name(&name).is_ok().then_some(name)
}

/// The account of a stream, as far as its row can be read; none for `$G`.
pub(super) fn account_in(meta: &[u8]) -> Option<String> {
    match serde_json::from_slice::<serde_json::Value>(meta) {
        Ok(meta) => meta["account"].as_str().map(ToOwned::to_owned),
        Err(_) => text_after(meta, "account"),
    }
}

/// What a repair puts in the place of a stream's row that cannot be served, and what is to be said about it; `None` for one
/// that is whole. Its messages stay.
pub fn mended(row: &StreamRow) -> Option<(Bytes, String)> {
    let id = row.id;
    match serde_json::from_slice::<Meta<StreamConfig>>(&row.meta) {
        Ok(_) if !row.damaged => None,
        Ok(meta) => Some((
            row.meta.clone(),
            format!(
                "stream {id}: its row was damaged; {} has the configuration that is left: see whether it is right",
                meta.config.name
            ),
        )),
        Err(_) => {
            let name = format!("RECOVERED_{id}");
            let plain = StreamConfig {
                name: name.clone(),
                ..StreamConfig::default()
            };
            let mut config = plain.clone().for_create(false).unwrap_or(plain);
            config.subjects.clear();
            let meta = Meta {
                created: super::now_ns(),
                config,
                account: account_in(&row.meta),
            };
            let meta = serde_json::to_vec(&meta).expect("plain fields serialise");
            Some((
                meta.into(),
                format!(
                    "stream {id}: its configuration was lost; what it holds is in {name}, which takes no subjects"
                ),
            ))
        }
    }
}
