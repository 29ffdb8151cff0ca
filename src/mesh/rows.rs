//! The rows of a bucket, read as what it is: a stream. This also tells a key that was deleted from one whose time ran out,
//! and goes on through a lost connection.

use std::collections::BTreeMap;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::kv::UpdateErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::error::{Failed, While};
use super::reader::{Reader, Selection, Start};
use super::{Error, Mesh, Received};

/// How many keys of many are on their way to the server at once.
const SWAPS_AT_ONCE: usize = 256;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A value.
    Live,
    /// Nothing: somebody deleted it.
    Deleted,
    /// Nothing: its time ran out.
    Lapsed,
}

/// A row of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Row {
    bucket: String,
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) state: State,
    pub(super) revision: u64,
    /// When it was stored, by the server's clock.
    pub(super) stored: Timestamp,
}

impl Row {
    /// Reads the value; damage names the key.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.value).map_err(|error| Error::DamagedKey {
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            why: error.to_string(),
        })
    }

    fn of(bucket: &str, message: Received) -> Self {
        let state = match message.marker.as_deref() {
            None => State::Live,
            Some("MaxAge") => State::Lapsed,
            Some(_) => State::Deleted,
        };
        let key = message
            .subject
            .strip_prefix(&subject(bucket, ""))
            .unwrap_or_default()
            .to_owned();
        Self {
            bucket: bucket.to_owned(),
            key,
            value: message.body,
            state,
            revision: message.stream_seq,
            stored: message.stored,
        }
    }
}

/// Where a bucket keeps a key.
pub(super) fn subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The stream behind a bucket.
pub(super) fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The latest row of each key of a bucket, then each change.
pub(super) struct Rows {
    bucket: &'static str,
    reader: Reader,
}

impl Rows {
    /// The next row; never ends while following.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, Error> {
        let message = self.reader.next().await?;
        Ok(message.map(|message| Row::of(self.bucket, message)))
    }
}

impl Mesh {
    /// Rows of the keys that match; `>` is all.
    pub(super) async fn rows(&self, bucket: &'static str, keys: &str, follow: bool) -> Result<Rows, Error> {
        let selection = Selection {
            stream: stream_of(bucket),
            follow,
            ..Selection::of(vec![subject(bucket, keys)], Start::Latest)
        };
        Ok(Rows {
            bucket,
            reader: self.read(selection).await?,
        })
    }

    /// The last that is said of each key, deletions too. A key that is set while this reads comes twice; the later row counts.
    pub(super) async fn last_rows(&self, bucket: &'static str) -> Result<BTreeMap<String, Row>, Error> {
        let mut rows = self.rows(bucket, ">", false).await?;
        let mut last = BTreeMap::new();
        while let Some(row) = rows.next().await? {
            last.insert(row.key.clone(), row);
        }
        Ok(last)
    }

    /// All live rows that can be read, by key, and what is wrong with the others: one of them must not hide the rest.
    pub(super) async fn readable<T: DeserializeOwned>(
        &self,
        bucket: &'static str,
    ) -> Result<(Vec<(Row, T)>, Vec<Error>), Error> {
        let (mut good, mut damaged) = (Vec::new(), Vec::new());
        let rows = self.last_rows(bucket).await?.into_values();
        for row in rows.filter(|row| row.state == State::Live) {
            match row.read() {
                Ok(value) => good.push((row, value)),
                Err(error) => damaged.push(error),
            }
        }
        Ok((good, damaged))
    }

    /// Every kept value of a key, oldest first.
    pub(super) async fn row_history(&self, bucket: &'static str, key: &str) -> Result<Vec<Row>, Error> {
        let selection = Selection {
            stream: stream_of(bucket),
            ..Selection::of(vec![subject(bucket, key)], Start::After(0))
        };
        let mut reader = self.read(selection).await?;
        let mut rows = Vec::new();
        while let Some(message) = reader.next().await? {
            let row = Row::of(bucket, message);
            if row.state == State::Live {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The value of a key as it is now.
    pub(super) async fn row(&self, bucket: &'static str, key: &str) -> Result<Option<Row>, Error> {
        let row = self.last_row(bucket, key).await?;
        Ok(row.filter(|row| row.state == State::Live))
    }

    /// The last that was said of a key, its deletion too: whoever sets it must have seen that revision.
    pub(super) async fn last_row(&self, bucket: &'static str, key: &str) -> Result<Option<Row>, Error> {
        let what = format!("cannot read key `{key}`");
        let stream = self.stream_named(&stream_of(bucket)).await?;
        match stream.direct_get_last_for_subject(subject(bucket, key)).await {
            Ok(message) => Ok(Some(Row::of(bucket, Received::from_stream(message)))),
            Err(error) if error.kind() == async_nats::jetstream::stream::DirectGetErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(Error::server(what)(error.into())),
        }
    }

    /// Sets a key if its revision is still the one seen (0: it has never been set). `None` if it is not.
    pub(super) async fn swap(
        &self,
        bucket: &'static str,
        key: &str,
        value: Vec<u8>,
        seen: u64,
    ) -> Result<Option<u64>, Error> {
        let store = self.bucket(bucket).await?;
        match store.update(key, value.into(), seen).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => {
                let Failed(why) = error.into();
                Err(Error::Server {
                    what: format!("cannot set key `{key}`"),
                    why,
                })
            }
        }
    }

    /// Sets many keys as [`Mesh::swap`] does, many at once on their way. Whether all of them are set.
    pub(super) async fn swap_all(
        &self,
        bucket: &'static str,
        changes: Vec<(String, Vec<u8>, u64)>,
    ) -> Result<bool, Error> {
        let set = |(key, value, seen): (String, Vec<u8>, u64)| async move {
            let message = PublishMessage::build()
                .payload(value.into())
                .expected_last_subject_sequence(seen);
            let sent = self.jetstream.send_publish(subject(bucket, &key), message).await;
            let stored = match sent {
                Ok(sent) => sent.await.map(drop),
                Err(error) => Err(error),
            };
            match stored {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
                Err(error) => Err(Error::server(format!("cannot set key `{key}`"))(error.into())),
            }
        };
        let mut sets = futures_util::stream::iter(changes)
            .map(set)
            .buffer_unordered(SWAPS_AT_ONCE);
        let mut all = true;
        while let Some(done) = sets.next().await {
            all &= done?;
        }
        Ok(all)
    }

    /// Removes every trace of a key up to `revision`; a newer value stays.
    pub(super) async fn forget(&self, bucket: &'static str, key: &str, revision: u64) -> Result<(), Error> {
        let stream = self.stream_named(&stream_of(bucket)).await?;
        let purged = stream
            .purge()
            .filter(subject(bucket, key))
            .sequence(revision + 1)
            .await;
        purged.map(drop).while_doing(format!("cannot remove key `{key}`"))
    }
}
