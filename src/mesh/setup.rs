//! The mesh's own state on the server: stream `MESH`, buckets `PEERS`, `SESSIONS`, `PHOENIX`, `SPOOLS`.
//!
//! Everything is made by ordinary JetStream requests and making it again changes nothing, so `mesh serve` at
//! its first start, `mesh setup` and any command that finds it missing may all call [`setup`].

use std::time::Duration;

use async_nats::jetstream::{self, context, kv, object_store, stream};

use super::error::{Failed, While};
use super::{Error, catalog};

/// The stream of all events.
pub const STREAM: &str = "MESH";
/// Bucket of presence: a key lives as long as its heartbeat.
pub const PEERS: &str = "PEERS";
/// Bucket of lineage: a record a session.
pub const SESSIONS: &str = "SESSIONS";
/// Bucket of saved states: the record of each session, with history; and the object store of the states themselves.
pub const PHOENIX: &str = "PHOENIX";
/// Bucket of imports from git: how far each instance's spool is in the stream.
pub const SPOOLS: &str = "SPOOLS";
/// How many saves of a session are kept.
pub const PHOENIX_HISTORY: i64 = 10;
/// How long the trace of a lapsed peer waits for somebody to report it.
const LAPSE_MARKER: Duration = Duration::from_secs(24 * 60 * 60);
/// Room left to the states, so that they cannot fill the store alone.
const STATES_BYTES_MAX: i64 = 1 << 30;

/// What can be chosen about the mesh's state on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long events are kept.
    pub age_max: Duration,
    /// How many bytes of events are kept; the oldest go first.
    pub bytes_max: i64,
    /// Copies in a cluster.
    pub replicas: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            age_max: Duration::from_secs(30 * 24 * 60 * 60),
            bytes_max: 1 << 30,
            replicas: 1,
        }
    }
}

/// Makes what is missing; with `adjust` also brings an existing stream to `options`.
pub async fn setup(jetstream: &jetstream::Context, options: &Options, adjust: bool) -> Result<(), Error> {
    let wanted = stream_config(options);
    let existing = jetstream.get_stream(STREAM).await;
    match existing {
        Ok(_) if !adjust => {}
        Ok(_) => {
            let updated = jetstream.update_stream(&wanted).await;
            updated.while_doing(format!("cannot change stream {STREAM}"))?;
        }
        Err(error) if missing(&error) => {
            let made = jetstream.create_stream(wanted).await;
            made.while_doing(format!("cannot make stream {STREAM}"))?;
        }
        Err(error) if keeps_none(&error) => return Err(Error::NoStreams),
        Err(error) => {
            return Err(Error::server(format!("cannot look at stream {STREAM}"))(
                error.into(),
            ));
        }
    }
    for bucket in buckets(options) {
        let name = bucket.bucket.clone();
        if let Err(error) = jetstream.get_key_value(&name).await {
            let made = jetstream.create_key_value(bucket).await;
            made.map_err(Failed::from).map_err(|Failed(why)| Error::Server {
                what: format!("cannot make bucket {name}"),
                why: format!("{why} (asked for it: {error})"),
            })?;
        }
    }
    if jetstream.get_object_store(PHOENIX).await.is_err() {
        let states = object_store::Config {
            bucket: PHOENIX.to_owned(),
            description: Some("states of sessions, in chunks".to_owned()),
            max_bytes: STATES_BYTES_MAX,
            num_replicas: options.replicas,
            ..Default::default()
        };
        let made = jetstream.create_object_store(states).await;
        made.while_doing(format!("cannot make object store {PHOENIX}"))?;
    }
    Ok(())
}

pub(super) fn stream_config(options: &Options) -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        description: Some("events of the mesh".to_owned()),
        subjects: vec![catalog::ALL.to_owned()],
        retention: stream::RetentionPolicy::Limits,
        storage: stream::StorageType::File,
        discard: stream::DiscardPolicy::Old,
        max_age: options.age_max,
        max_bytes: options.bytes_max,
        num_replicas: options.replicas,
        duplicate_window: Duration::from_secs(120).min(options.age_max),
        allow_direct: true,
        ..Default::default()
    }
}

fn buckets(options: &Options) -> [kv::Config; 4] {
    let bucket = |name: &str, description: &str| kv::Config {
        bucket: name.to_owned(),
        description: description.to_owned(),
        history: 1,
        num_replicas: options.replicas,
        ..Default::default()
    };
    [
        kv::Config {
            limit_markers: Some(LAPSE_MARKER),
            ..bucket(PEERS, "who is present")
        },
        bucket(SESSIONS, "lineage of sessions"),
        bucket(SPOOLS, "how far spools in git are imported"),
        kv::Config {
            history: PHOENIX_HISTORY,
            ..bucket(PHOENIX, "the latest state of each session")
        },
    ]
}

/// Whether the server keeps no streams at all, or none for this account.
fn keeps_none(error: &context::GetStreamError) -> bool {
    use jetstream::ErrorCode;
    match error.kind() {
        context::GetStreamErrorKind::JetStream(error) => [
            ErrorCode::JETSTREAM_NOT_ENABLED,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
        ]
        .contains(&error.error_code()),
        _ => {
            let source = std::error::Error::source(error);
            let request = source.and_then(|source| source.downcast_ref::<context::RequestError>());
            request.is_some_and(|error| error.kind() == context::RequestErrorKind::NoResponders)
        }
    }
}

/// Whether a look at the stream said that there is none.
pub(super) fn missing(error: &context::GetStreamError) -> bool {
    matches!(error.kind(), context::GetStreamErrorKind::JetStream(error)
        if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND)
}
