//! What other rooms show here, as plain snapshots.
//!
//! A [`Source`] is written where both sides are known (this room for rooms below it, or the assembly), given to
//! [`View::with_sources`](super::View::with_sources), and asked anew for every page.

use std::borrow::Cow;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::jetstream::delivery::ConsumerInfo;
use crate::jetstream::stream::StreamInfo;
use crate::jetstream::time::rfc3339;

use super::time::nanoseconds;

/// Something with numbers, ailments or streams to show. All of it is asked for on a thread that may block.
pub trait Source: Send + Sync {
    /// Its metric families, as they stand now.
    fn families(&self) -> Vec<Family> {
        Vec::new()
    }

    /// What is wrong with it, within `scope`; nothing when it is well.
    fn ailments(&self, scope: &Scope) -> Vec<Ailment> {
        let _ = scope;
        Vec::new()
    }

    /// What JetStream shows on `/jsz` and `/varz`; only JetStream's own source answers.
    fn jetstream(&self, detail: &Detail) -> Option<JetStream> {
        let _ = detail;
        None
    }

    /// What the store shows on `/storez`; only the store's own source answers.
    fn store(&self) -> Option<Store> {
        None
    }

    /// When what is stored counts as durable: `always`, or how often it is synced.
    fn sync(&self) -> Option<String> {
        None
    }
}

/// Labels of a sample.
pub type Labels = Vec<(&'static str, String)>;

/// A metric family: one name, one type, a sample for each set of labels.
#[derive(Clone, Debug)]
pub struct Family {
    /// `mesh_...`, with `_total` at the end of a counter and the unit before it.
    pub name: Cow<'static, str>,
    /// One sentence.
    pub help: Cow<'static, str>,
    /// Labels and value; all of one kind.
    pub samples: Vec<(Labels, Value)>,
}

impl Family {
    /// A family of one sample without labels.
    pub fn one(name: &'static str, help: &'static str, value: Value) -> Self {
        Self::many(name, help, vec![(Vec::new(), value)])
    }

    /// A family of labelled samples.
    pub fn many(name: &'static str, help: &'static str, samples: Vec<(Labels, Value)>) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            samples,
        }
    }
}

/// The value of one sample.
#[derive(Clone, Debug)]
pub enum Value {
    /// Only ever grows.
    Counter(f64),
    /// Moves both ways.
    Gauge(f64),
    /// A distribution.
    Histogram {
        /// Upper bound and how many were at most that, ascending; the one at infinity is added.
        buckets: Vec<(f64, u64)>,
        /// Of all that were observed.
        sum: f64,
        /// How many were observed.
        count: u64,
    },
}

/// What a health check asks about.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only whether JetStream is on (`js-enabled-only`).
    pub enabled_only: bool,
    /// JetStream as a whole, without its streams and consumers (`js-server-only`).
    pub server_only: bool,
    /// One account.
    pub account: Option<String>,
    /// One stream of it.
    pub stream: Option<String>,
    /// One consumer of that.
    pub consumer: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default)]
pub struct Ailment {
    /// `JETSTREAM`, `ACCOUNT`, `STREAM`, `CONSUMER` or `CONN`, as nats-server names them.
    pub kind: &'static str,
    /// What was asked for is not there, as opposed to unwell.
    pub missing: bool,
    /// All the rest is served, so clients are to be sent here all the same.
    pub serves: bool,
    /// Which account, if one.
    pub account: Option<String>,
    /// Which stream, if one.
    pub stream: Option<String>,
    /// Which consumer, if one.
    pub consumer: Option<String>,
    /// What is wrong, with its figures.
    pub error: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How much of JetStream is asked for.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// Accounts one by one; this one only when `account` is named.
    pub accounts: bool,
    /// The only account asked for.
    pub account: Option<String>,
    /// Their streams.
    pub streams: bool,
    /// The consumers of those.
    pub consumers: bool,
    /// Their configurations.
    pub config: bool,
    /// Accounts to pass over.
    pub offset: usize,
    /// Accounts at most.
    pub limit: usize,
}

/// JetStream as `/jsz` shows it. Names and types are those of nats-server.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct JetStream {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub accounts: usize,
    pub api: ApiStats,
    pub config: JetStreamConfig,
    pub limits: JetStreamLimits,
    pub streams: usize,
    pub consumers: usize,
    pub messages: u64,
    pub bytes: u64,
    pub account_details: Vec<AccountDetail>,
}

/// Requests to the JetStream API.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct ApiStats {
    pub level: u32,
    pub total: u64,
    pub errors: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub inflight: u64,
}

/// Settings of JetStream.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct JetStreamConfig {
    pub max_memory: i64,
    pub max_storage: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store_dir: String,
    #[serde(skip_serializing_if = "Duration::is_zero", serialize_with = "nanoseconds")]
    pub sync_interval: Duration,
    #[serde(skip_serializing_if = "is_false")]
    pub sync_always: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
}

/// Limits of JetStream; zero is none.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct JetStreamLimits {
    #[serde(skip_serializing_if = "is_zero")]
    pub default_max_consumers: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_request_batch: u64,
    #[serde(skip_serializing_if = "Duration::is_zero", serialize_with = "nanoseconds")]
    pub duplicate_window: Duration,
}

/// JetStream in one account.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct AccountDetail {
    pub name: String,
    pub id: String,
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub accounts: usize,
    pub ha_assets: usize,
    pub api: ApiStats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_detail: Vec<StreamDetail>,
}

/// One stream with what its API shows of it: `STREAM.INFO`, and `CONSUMER.INFO` of its consumers.
#[derive(Clone, Debug)]
pub struct StreamDetail {
    /// The stream.
    pub info: StreamInfo,
    /// Its consumers, if asked for.
    pub consumers: Vec<ConsumerInfo>,
    /// Whether configurations are shown.
    pub config: bool,
}

impl Serialize for StreamDetail {
    /// Straight from what there is: a page may show a thousand.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let info = &self.info;
        let mut fields = serializer.serialize_struct("StreamDetail", 6)?;
        fields.serialize_field("name", &info.config.name)?;
        fields.serialize_field("created", &rfc3339(info.created))?;
        match info.shown_cluster() {
            Some(cluster) => fields.serialize_field("cluster", &cluster)?,
            None => fields.skip_field("cluster")?,
        }
        if self.config {
            fields.serialize_field("config", &info.config)?;
        }
        fields.serialize_field("state", &info.shown_state())?;
        if !self.consumers.is_empty() {
            let shown = self.consumers.iter().map(|one| one.shown(self.config));
            fields.serialize_field("consumer_detail", &shown.collect::<Vec<_>>())?;
        }
        fields.end()
    }
}

/// The store as `/storez` and `mesh store info` show it. Counts are of this run of the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct Store {
    pub dir: String,
    pub sync: String,
    /// `ok`, `full` or `failed`.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub logical_bytes: u64,
    pub disk_bytes: u64,
    pub journal_bytes: u64,
    #[serde(default)]
    pub spare_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    pub journal_entries: u64,
    pub commits: u64,
    pub records: u64,
    pub checkpoints: u64,
    /// Records a commit.
    pub batch: Spread,
    /// Write and sync.
    pub commit_seconds: Spread,
    pub sync_seconds: Spread,
    pub checkpoint_seconds: Spread,
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub damaged_records: u64,
    pub damage: Vec<String>,
    pub torn_entries: u64,
}

/// A distribution in four numbers; quantiles are upper bounds, within a factor of two.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the page")]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}
