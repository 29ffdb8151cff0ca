//! `ConsumerConfig` as it travels: field order, omission and number forms of nats-server 2.15.1.

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::Offset;
use jiff::{Timestamp, fmt::temporal::DateTimeParser};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a consumer starts in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// The first message there is.
    #[default]
    #[serde(alias = "undefined")]
    All,
    /// The last message there is.
    Last,
    /// Only what comes after the create.
    New,
    /// At `opt_start_seq`.
    ByStartSequence,
    /// At the first message at or after `opt_start_time`.
    ByStartTime,
    /// The last message of each subject, then what comes after.
    LastPerSubject,
}

/// What counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// Delivered is done.
    #[default]
    None,
    /// An ack covers everything below it.
    All,
    /// Each message on its own.
    Explicit,
    /// Like `All`, by the answers to flow-control requests (push only).
    FlowControl,
}

/// How fast a backlog is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    /// As fast as it goes.
    #[default]
    Instant,
    /// At the pace it was received.
    Original,
}

/// The policy of priority groups; anything but `None` is refused for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PriorityPolicy {
    #[default]
    None,
    Overflow,
    PinnedClient,
    Prioritized,
}

/// An RFC 3339 time that is shown again the way it was given, offset included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireTime {
    /// The instant.
    pub at: Timestamp,
    /// The offset it was written with, in seconds east.
    pub offset_seconds: i32,
}

impl WireTime {
    /// An instant of the server's own clock, in UTC.
    pub fn utc(at: Timestamp) -> WireTime {
        WireTime {
            at,
            offset_seconds: 0,
        }
    }

    /// Unix nanoseconds, saturated at the ends of `i64` (years 1677 and 2262).
    pub fn unix_nanos(&self) -> i64 {
        i64::try_from(self.at.as_nanosecond()).unwrap_or(if self.at.as_second() < 0 {
            i64::MIN
        } else {
            i64::MAX
        })
    }
}

impl fmt::Display for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = Offset::from_seconds(self.offset_seconds).unwrap_or(Offset::UTC);
        write!(
            f,
            "{}",
            offset.to_datetime(self.at).strftime("%Y-%m-%dT%H:%M:%S%.f")
        )?;
        match self.offset_seconds {
            0 => f.write_str("Z"),
            s => {
                let minutes = s.abs() / 60;
                write!(
                    f,
                    "{}{:02}:{:02}",
                    if s < 0 { '-' } else { '+' },
                    minutes / 60,
                    minutes % 60
                )
            }
        }
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WireTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || de::Error::custom(format!("{text:?} is not an RFC 3339 time"));
        let at: Timestamp = text.parse().map_err(|_| bad())?;
        let pieces = DateTimeParser::new().parse_pieces(&text).map_err(|_| bad())?;
        let offset_seconds = pieces.to_numeric_offset().map_or(0, Offset::seconds);
        Ok(WireTime { at, offset_seconds })
    }
}

fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A consumer's configuration, the wire object of `CONSUMER.CREATE` and `CONSUMER.INFO`.
///
/// Durations are nanoseconds. A zero means "not given" until [`super::plan`] has put the defaults in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ConsumerConfig {
    #[serde(skip_serializing_if = "zero")]
    pub durable_name: String,
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    #[serde(skip_serializing_if = "zero")]
    pub description: String,
    pub deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "zero")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "zero")]
    pub opt_start_time: Option<WireTime>,
    pub ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "zero")]
    pub ack_wait: i64,
    #[serde(skip_serializing_if = "zero")]
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "zero")]
    pub backoff: Vec<i64>,
    #[serde(skip_serializing_if = "zero")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "zero")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: ReplayPolicy,
    /// Bits a second.
    #[serde(skip_serializing_if = "zero")]
    pub rate_limit_bps: u64,
    #[serde(skip_serializing_if = "zero")]
    pub sample_freq: String,
    #[serde(skip_serializing_if = "zero")]
    pub max_waiting: i64,
    #[serde(skip_serializing_if = "zero")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "zero")]
    pub flow_control: bool,
    #[serde(skip_serializing_if = "zero")]
    pub headers_only: bool,
    #[serde(skip_serializing_if = "zero")]
    pub max_batch: i64,
    #[serde(skip_serializing_if = "zero")]
    pub max_expires: i64,
    #[serde(skip_serializing_if = "zero")]
    pub max_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub deliver_subject: String,
    #[serde(skip_serializing_if = "zero")]
    pub deliver_group: String,
    #[serde(skip_serializing_if = "zero")]
    pub idle_heartbeat: i64,
    #[serde(skip_serializing_if = "zero")]
    pub inactive_threshold: i64,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "zero")]
    pub mem_storage: bool,
    #[serde(skip_serializing_if = "zero")]
    pub direct: bool,
    #[serde(skip_serializing_if = "zero")]
    pub sourcing: bool,
    #[serde(skip_serializing_if = "zero")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "zero")]
    pub pause_until: Option<WireTime>,
    #[serde(skip_serializing_if = "zero")]
    pub priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub priority_policy: PriorityPolicy,
    #[serde(skip_serializing_if = "zero")]
    pub priority_timeout: i64,
}

/// Metadata key: the subject to which a message goes that exhausted `max_deliver` or was terminated.
pub const DEAD_LETTER_KEY: &str = "mesh.dead_letter";

impl ConsumerConfig {
    /// The names of its fields on the wire: what a strict API knows.
    pub(super) const FIELDS: &[&str] = &[
        "durable_name",
        "name",
        "description",
        "deliver_policy",
        "opt_start_seq",
        "opt_start_time",
        "ack_policy",
        "ack_wait",
        "max_deliver",
        "backoff",
        "filter_subject",
        "filter_subjects",
        "replay_policy",
        "rate_limit_bps",
        "sample_freq",
        "max_waiting",
        "max_ack_pending",
        "flow_control",
        "headers_only",
        "max_batch",
        "max_expires",
        "max_bytes",
        "deliver_subject",
        "deliver_group",
        "idle_heartbeat",
        "inactive_threshold",
        "num_replicas",
        "mem_storage",
        "direct",
        "sourcing",
        "metadata",
        "pause_until",
        "priority_groups",
        "priority_policy",
        "priority_timeout",
    ];

    /// Whether the consumer outlives its users: it has a durable name.
    pub fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// Whether messages go to a deliver subject without being asked for.
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// The subject filters, from either field; none means every message.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let single = Some(self.filter_subject.as_str()).filter(|filter| !filter.is_empty());
        single
            .into_iter()
            .chain(self.filter_subjects.iter().map(String::as_str))
    }

    /// Where exhausted and terminated messages go, if anywhere.
    pub fn dead_letter(&self) -> Option<&str> {
        self.metadata
            .get(DEAD_LETTER_KEY)
            .map(String::as_str)
            .filter(|subject| !subject.is_empty())
    }

    /// The share of acks that are sampled, in percent; 0 when sampling is off.
    pub fn sample_percent(&self) -> u32 {
        let text = self.sample_freq.strip_suffix('%').unwrap_or(&self.sample_freq);
        text.parse().unwrap_or(0)
    }
}
