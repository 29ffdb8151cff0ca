//! How the mesh is: peers, systems heard from, lag, storage, the last beacon.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

use super::error::While;
use super::phoenix::Record;
use super::presence::Peer;
use super::reader::{Selection, Start};
use super::{Error, Mesh, Received, setup};

/// A system counts as heard from for this long.
pub const HEARD: Duration = Duration::from_secs(24 * 60 * 60);
/// Storage is short from here on.
const FULL_PERCENT: u64 = 95;

/// The key of the record that is stored and removed to see whether the server stores.
const PROBE: &str = "probe.store";

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// How many peers are present.
    pub peers: usize,
    /// Systems heard from lately.
    pub systems: Vec<String>,
    /// Systems that were not.
    pub silent: Vec<String>,
    /// Events kept.
    pub events: u64,
    /// Their size.
    pub bytes: u64,
    /// Most bytes of events that are kept; the oldest go then.
    pub bytes_max: Option<u64>,
    /// When the last event was stored, RFC 3339; none if there was none.
    pub last_event: Option<String>,
    /// The durable readers.
    pub consumers: Vec<Lag>,
    /// The last recovery beacon.
    pub beacon: Option<Beacon>,
    /// Bytes the server has stored for this account, of all its streams.
    pub stored: u64,
    /// Most it may store; none if that is not limited.
    pub stored_max: Option<u64>,
    /// How long the server took to store one record, in milliseconds.
    pub store_ms: f64,
    /// How far this machine's clock is ahead of the server's, in seconds.
    pub clock_ahead_seconds: f64,
    /// What is wrong; nothing if all is well.
    pub problems: Vec<String>,
}

/// How far behind a durable reader is.
#[derive(Clone, Debug, Serialize)]
pub struct Lag {
    /// Its name.
    pub name: String,
    /// Events it has not been given yet.
    pub waiting: u64,
    /// Events it was given and has not settled.
    pub unsettled: usize,
    /// Whether somebody is reading.
    pub read: bool,
}

/// The last call for help.
#[derive(Clone, Debug, Serialize)]
pub struct Beacon {
    /// Who called.
    pub instance: Option<String>,
    /// When it was stored, RFC 3339.
    pub stored: String,
    /// What it said.
    pub body: String,
}

/// A round trip through the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrip {
    /// Where the message was stored.
    pub stream_seq: u64,
    /// Until the server had stored it.
    pub stored: Duration,
    /// Until it was read back.
    pub read: Duration,
}

impl Mesh {
    /// Looks at everything; what is wrong is in [`Health::problems`].
    pub async fn health(&self) -> Result<Health, Error> {
        let stream = self.stream().await?;
        let info = stream.cached_info().clone();
        let now = self.server_now().await?;
        let ahead = Timestamp::now().duration_since(now);
        let account = self
            .jetstream
            .query_account()
            .await
            .while_doing("cannot ask for the storage used")?;
        let store = Instant::now();
        let probe = self.bucket(setup::SESSIONS).await?.put(PROBE, "".into()).await;
        let store_ms = store.elapsed().as_secs_f64() * 1000.0;
        let mut problems = Vec::new();
        match probe {
            // Asked every few seconds by probes: it leaves nothing behind.
            Ok(revision) => self.forget(setup::SESSIONS, PROBE, revision).await?,
            Err(error) => problems.push(format!("the server does not store: {error}")),
        }
        let (systems, silent) = self.heard_from(now).await?;
        let mut consumers = Vec::new();
        let mut listed = stream.consumers();
        while let Some(consumer) = listed.next().await {
            let consumer = consumer.while_doing("cannot list the readers")?;
            if consumer.config.durable_name.is_some() {
                consumers.push(Lag {
                    name: consumer.name,
                    waiting: consumer.num_pending,
                    unsettled: consumer.num_ack_pending,
                    read: consumer.num_waiting > 0 || consumer.num_ack_pending > 0,
                });
            }
        }
        let limit = |limit: i64| u64::try_from(limit).ok().filter(|&limit| limit > 0);
        let (stored, stored_max) = (account.storage as u64, account.limits.max_storage.and_then(limit));
        if let Some(max) = stored_max.filter(|&max| stored > max / 100 * FULL_PERCENT) {
            problems.push(format!("storage is nearly full: {stored} of {max} bytes"));
        }
        let beacon = self
            .last_on("mesh.phoenix.recovery_beacon")
            .await?
            .map(|event| Beacon {
                instance: event.envelope.instance,
                stored: event.stored.to_string(),
                body: String::from_utf8_lossy(&event.body).into_owned(),
            });
        let (peers, damaged) = self.readable::<Peer>(setup::PEERS).await?;
        let states = self.readable::<Record>(setup::PHOENIX).await?.1;
        problems.extend(damaged.iter().chain(&states).map(Error::to_string));
        let last = super::envelope::timestamp(info.state.last_timestamp.unix_timestamp_nanos());
        Ok(Health {
            peers: peers.len(),
            systems,
            silent,
            events: info.state.messages,
            bytes: info.state.bytes,
            bytes_max: limit(info.config.max_bytes),
            last_event: (info.state.last_sequence > 0).then(|| last.to_string()),
            consumers,
            beacon,
            stored,
            stored_max,
            store_ms,
            clock_ahead_seconds: ahead.as_secs_f64(),
            problems,
        })
    }

    /// Which of the twelve systems were heard from lately, and which were not.
    async fn heard_from(&self, now: Timestamp) -> Result<(Vec<String>, Vec<String>), Error> {
        let (mut heard, mut silent) = (Vec::new(), Vec::new());
        let since = now.checked_sub(HEARD).unwrap_or(Timestamp::UNIX_EPOCH);
        for system in self.catalog.systems() {
            let mut last = Timestamp::MIN;
            for event in self
                .catalog
                .events()
                .iter()
                .filter(|event| event.system == system)
            {
                if let Some(event) = self.last_on(&event.subject).await? {
                    last = last.max(event.stored);
                }
            }
            if last >= since {
                heard.push(system.to_owned())
            } else {
                silent.push(system.to_owned())
            }
        }
        Ok((heard, silent))
    }

    /// The last event on a subject.
    async fn last_on(&self, subject: &str) -> Result<Option<Received>, Error> {
        let stream = self.jetstream.get_stream_no_info(setup::STREAM).await;
        let stream = stream.while_doing("cannot look at the stream")?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some(Received::from_stream(message))),
            Err(error) if error.kind() == async_nats::jetstream::stream::DirectGetErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(Error::server(format!("cannot look at `{subject}`"))(error.into())),
        }
    }

    /// Sends `text` through the stream and reads it back.
    pub async fn round_trip(&self, text: &str) -> Result<RoundTrip, Error> {
        let draft = self.draft("check_message", serde_json::json!({"text": text}).to_string())?;
        let selection = Selection::of(vec![draft.subject.clone()], Start::Now);
        let mut reader = self
            .read(Selection {
                follow: true,
                ..selection
            })
            .await?;
        let begun = Instant::now();
        let receipt = self.emit(&draft).await?;
        let stored = begun.elapsed();
        let back = async {
            while let Some(event) = reader.next().await? {
                if event.stream_seq == receipt.stream_seq {
                    return Ok(());
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.timeout, back).await {
            Ok(read) => read.map(|()| RoundTrip {
                stream_seq: receipt.stream_seq,
                stored,
                read: begun.elapsed(),
            }),
            Err(_) => Err(Error::Server {
                what: format!("message {} was stored", receipt.stream_seq),
                why: "it could not be read back in time".to_owned(),
            }),
        }
    }
}
