//! One session's connection to its mesh.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, kv, stream};
use jiff::Timestamp;
use serde::Deserialize;

use super::error::While;
use super::journal::Journal;
use super::{Catalog, Error, Identity, setup};

/// What the server has said against us, for whoever misses an answer: it refuses a publish without a reply.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    last: Arc<Mutex<Option<String>>>,
}

impl Complaints {
    /// Takes down an `-ERR`; called by the owner of the connection.
    pub fn hear(&self, text: &str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    /// Forgets what was said so far.
    pub(super) fn clear(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The last one, if it is about publishing to `subject`.
    pub(super) fn about(&self, subject: &str) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = format!("Publish to \"{subject}\"");
        last.clone().filter(|text| text.contains(&refused))
    }
}

/// What a session needs to know besides its connection.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Who speaks.
    pub identity: Identity,
    /// The events known here.
    pub catalog: Catalog,
    /// Where journals are.
    pub state_dir: PathBuf,
    /// What the server says against us.
    pub complaints: Complaints,
}

/// A session's connection: the handle every operation of this room hangs on.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The connection itself.
    pub client: async_nats::Client,
    /// Its JetStream requests.
    pub jetstream: jetstream::Context,
    /// Who speaks.
    pub identity: Identity,
    /// The events known here.
    pub catalog: Catalog,
    pub(super) journal: Journal,
    pub(super) complaints: Complaints,
    pub(super) timeout: Duration,
}

impl Mesh {
    /// A session on a connection.
    pub fn new(client: async_nats::Client, options: Options) -> Self {
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(options.timeout)
            .ack_timeout(options.timeout)
            .build(client.clone());
        Self {
            client,
            jetstream,
            journal: Journal::new(&options.state_dir, &options.identity.instance),
            complaints: options.complaints,
            identity: options.identity,
            catalog: options.catalog,
            timeout: options.timeout,
        }
    }

    /// Makes the mesh's state on the server if it is not there.
    pub async fn ensure(&self) -> Result<(), Error> {
        setup::setup(&self.jetstream, &setup::Options::default(), false).await
    }

    /// The stream of events, made if it is not there.
    pub(super) async fn stream(&self) -> Result<stream::Stream, Error> {
        self.stream_named(setup::STREAM).await
    }

    /// One of the mesh's streams, made if it is not there.
    pub(super) async fn stream_named(&self, name: &str) -> Result<stream::Stream, Error> {
        if let Ok(stream) = self.jetstream.get_stream(name).await {
            return Ok(stream);
        }
        self.ensure().await?;
        let stream = self.jetstream.get_stream(name).await;
        stream.while_doing(format!("cannot look at stream {name}"))
    }

    /// The last sequence of the stream of events.
    pub async fn last_sequence(&self) -> Result<u64, Error> {
        Ok(self.stream().await?.cached_info().state.last_sequence)
    }

    /// A bucket, made if it is not there.
    pub(super) async fn bucket(&self, name: &str) -> Result<kv::Store, Error> {
        if let Ok(bucket) = self.jetstream.get_key_value(name).await {
            return Ok(bucket);
        }
        self.ensure().await?;
        let bucket = self.jetstream.get_key_value(name).await;
        bucket.while_doing(format!("cannot open bucket {name}"))
    }

    /// The server's clock, so that a wrong one on this machine does not matter; ours if it does not tell.
    pub async fn server_now(&self) -> Result<Timestamp, Error> {
        #[derive(Deserialize)]
        struct Told {
            ts: Option<String>,
        }
        let asked = Instant::now();
        let request = format!("STREAM.INFO.{}", setup::STREAM);
        let answer: Result<Told, _> = self.jetstream.request(request, &()).await;
        let told = answer.while_doing("cannot ask the server for its time")?.ts;
        // Half of the round trip is the best guess of how old the answer is.
        let age = asked.elapsed() / 2;
        let told: Option<Timestamp> = told.and_then(|ts| ts.parse().ok());
        Ok(told.map_or_else(Timestamp::now, |ts| ts.checked_add(age).unwrap_or(ts)))
    }
}
