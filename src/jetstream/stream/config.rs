//! The configuration of a stream as the wire has it: fields, defaults, validation, update rules.
//!
//! Field order, omissions and texts are those of the reference server. Features of a later issue (mirror, sources,
//! republish, subject transforms, counters, batches, schedules) are refused by name, never taken and ignored.
//! Source: protocol page 3.3 and the answers of the reference server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::time::SECOND;
use crate::protocol::subject;

const NAME_LEN_MAX: usize = 255;
const DESCRIPTION_LEN_MAX: usize = 4096;
const METADATA_BYTES_MAX: usize = 128 << 10;
const DURATION_MIN: i64 = SECOND / 10;
const DUPLICATE_WINDOW: i64 = 120 * SECOND;
const REPLICAS_MAX: i64 = 5;
/// The highest sequence a stream gives: every client can say it, and a stream that has come to it overflows nowhere.
pub const SEQ_MAX: u64 = i64::MAX as u64;

/// Metadata the server adds to answers and does not keep.
const METADATA_VERSION: &str = "_nats.ver";
const METADATA_LEVEL: &str = "_nats.level";
/// Metadata the server keeps: the API level the configuration asks for.
const METADATA_REQUIRED_LEVEL: &str = "_nats.req.level";

/// When messages leave a stream beside its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Only by limits.
    #[default]
    Limits,
    /// When all consumers have acknowledged them.
    Interest,
    /// When one consumer has acknowledged them.
    WorkQueue,
}

/// What gives way when a stream is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest messages.
    #[default]
    Old,
    /// The new message.
    New,
}

/// Where a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// In the store, on disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// Compression at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// The wire calls it `s2`; what is on disk is the store's own, see its documentation.
    S2,
}

/// How a file stream is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistMode {
    /// As the server is set.
    #[default]
    Default,
    /// Acknowledged before the sync.
    Async,
}

/// Defaults and caps for the consumers of a stream; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerLimits {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub inactive_threshold: i64,
    /// Messages.
    #[serde(skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// See the module documentation. Durations are nanoseconds; -1 stands for unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub struct StreamConfig {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    pub max_msg_size: i64,
    pub discard: Discard,
    pub storage: Storage,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub no_ack: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub duplicate_window: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Value>,
    pub compression: Compression,
    #[serde(skip_serializing_if = "is_default")]
    pub first_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<Value>,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub discard_new_per_subject: bool,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub consumer_limits: ConsumerLimits,
    pub allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub subject_delete_marker_ttl: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_msg_counter: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_atomic: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_msg_schedules: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub persist_mode: PersistMode,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_batched: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Every field of [`StreamConfig`], for requests that must not hold another.
pub const FIELDS: &[&str] = &[
    "name",
    "description",
    "subjects",
    "retention",
    "max_consumers",
    "max_msgs",
    "max_bytes",
    "max_age",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard",
    "storage",
    "num_replicas",
    "no_ack",
    "duplicate_window",
    "placement",
    "mirror",
    "sources",
    "compression",
    "first_seq",
    "subject_transform",
    "republish",
    "allow_direct",
    "mirror_direct",
    "discard_new_per_subject",
    "sealed",
    "deny_delete",
    "deny_purge",
    "allow_rollup_hdrs",
    "consumer_limits",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "allow_msg_counter",
    "allow_atomic",
    "allow_msg_schedules",
    "persist_mode",
    "allow_batched",
    "metadata",
    "pedantic",
];

fn invalid(text: impl std::fmt::Display) -> ApiError {
    error::STREAM_INVALID_CONFIG.with(text)
}

/// Whether a name can be a token of an API subject.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name.contains(['/', '\\']) {
        return Err(error::STREAM_NAME_PATH_SEPARATORS);
    }
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || matches!(c, '.' | '*' | '>')) {
        return Err(invalid(
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(invalid(format_args!(
            "stream name is too long, maximum allowed is {NAME_LEN_MAX}"
        )));
    }
    Ok(())
}

impl StreamConfig {
    /// Fills defaults in and checks everything that concerns this configuration alone.
    pub fn check(mut self, pedantic: bool) -> Result<Self, ApiError> {
        check_name(&self.name)?;
        self.check_texts()?;
        self.check_features()?;
        self.fill_limits();
        self.check_replicas()?;
        self.check_times(pedantic)?;
        self.check_storage()?;
        self.check_subjects()?;
        self.check_permissions()?;
        self.set_required_level();
        Ok(self)
    }

    fn check_texts(&self) -> Result<(), ApiError> {
        if self.description.len() > DESCRIPTION_LEN_MAX {
            return Err(invalid(format_args!(
                "stream description is too long, maximum allowed is {DESCRIPTION_LEN_MAX}"
            )));
        }
        let metadata: usize = self
            .metadata
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if metadata > METADATA_BYTES_MAX {
            return Err(invalid(format_args!(
                "stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// Refuses what this server does not do yet.
    fn check_features(&self) -> Result<(), ApiError> {
        let asked = [
            ("mirror", self.mirror.is_some()),
            ("sources", !self.sources.is_empty()),
            ("republish", self.republish.is_some()),
            ("subject_transform", self.subject_transform.is_some()),
            ("allow_msg_counter", self.allow_msg_counter),
            ("allow_atomic", self.allow_atomic),
            ("allow_batched", self.allow_batched),
            ("allow_msg_schedules", self.allow_msg_schedules),
        ];
        match asked.iter().find(|(_, set)| *set) {
            Some((feature, _)) => Err(invalid(format_args!("{feature} is not supported by this server"))),
            None => Ok(()),
        }
    }

    fn fill_limits(&mut self) {
        for limit in [
            &mut self.max_consumers,
            &mut self.max_msgs,
            &mut self.max_bytes,
            &mut self.max_msgs_per_subject,
            &mut self.max_msg_size,
        ] {
            if *limit <= 0 {
                *limit = -1;
            }
        }
        if self.subjects.is_empty() {
            self.subjects = vec![self.name.clone()];
        }
        self.metadata.remove(METADATA_VERSION);
        self.metadata.remove(METADATA_LEVEL);
    }

    fn check_replicas(&mut self) -> Result<(), ApiError> {
        match self.num_replicas {
            i64::MIN..0 => Err(error::REPLICAS_NOT_NEGATIVE),
            0 | 1 => {
                self.num_replicas = 1;
                Ok(())
            }
            2..=REPLICAS_MAX => Err(error::REPLICAS_NOT_SUPPORTED),
            _ => Err(invalid(format_args!("maximum replicas is {REPLICAS_MAX}"))),
        }
    }

    fn check_times(&mut self, pedantic: bool) -> Result<(), ApiError> {
        match self.max_age {
            i64::MIN..0 => return Err(invalid("max age can not be negative")),
            0 => {}
            1..DURATION_MIN => return Err(invalid("max age needs to be >= 100ms")),
            _ => {}
        }
        if self.duplicate_window == 0 {
            self.duplicate_window = DUPLICATE_WINDOW;
            if self.max_age != 0 && self.max_age < DUPLICATE_WINDOW {
                if pedantic {
                    return Err(error::PEDANTIC.with("duplicate window cannot be bigger than max age"));
                }
                self.duplicate_window = self.max_age;
            }
        }
        if self.duplicate_window < 0 {
            return Err(invalid("duplicates window can not be negative"));
        }
        if self.max_age != 0 && self.duplicate_window > self.max_age {
            return Err(invalid("duplicates window can not be larger then max age"));
        }
        if self.duplicate_window < DURATION_MIN {
            return Err(invalid("duplicates window needs to be >= 100ms"));
        }
        match self.subject_delete_marker_ttl {
            i64::MIN..0 => Err(invalid("subject delete marker TTL must not be negative")),
            0 => Ok(()),
            1..SECOND => Err(invalid("subject delete marker TTL must be at least 1 second")),
            _ if pedantic && !self.allow_msg_ttl => Err(invalid(
                "subject delete marker cannot be set if message TTLs are disabled",
            )),
            _ => {
                // Markers are removed by their TTL and take the place of what was there.
                self.allow_msg_ttl = true;
                self.allow_rollup_hdrs = true;
                self.deny_purge = false;
                Ok(())
            }
        }
    }

    fn check_storage(&self) -> Result<(), ApiError> {
        if self.discard_new_per_subject {
            if self.discard != Discard::New {
                return Err(invalid(
                    "discard new per subject requires discard new policy to be set",
                ));
            }
            if self.max_msgs_per_subject <= 0 {
                return Err(invalid(
                    "discard new per subject requires max msgs per subject > 0",
                ));
            }
        }
        if self.first_seq > SEQ_MAX {
            return Err(invalid(format_args!(
                "first sequence is too high, maximum allowed is {SEQ_MAX}"
            )));
        }
        if self.persist_mode == PersistMode::Async && self.storage != Storage::File {
            return Err(invalid("async persist mode is only supported on file storage"));
        }
        Ok(())
    }

    fn check_subjects(&self) -> Result<(), ApiError> {
        for (at, pattern) in self.subjects.iter().enumerate() {
            let bytes = pattern.as_bytes();
            if !subject::is_pattern(bytes) {
                return Err(invalid("invalid subject"));
            }
            let mut others = self.subjects[..at].iter();
            if let Some(other) = others.find(|other| subject::overlap(other.as_bytes(), bytes)) {
                return Err(invalid(format_args!(
                    "subject \"{other}\" overlaps with \"{pattern}\""
                )));
            }
            if !self.no_ack {
                check_reserved(bytes)?;
            }
        }
        Ok(())
    }

    fn check_permissions(&self) -> Result<(), ApiError> {
        if self.mirror_direct {
            return Err(invalid("stream has no mirror but does have mirror direct"));
        }
        if self.deny_purge && self.allow_rollup_hdrs {
            return Err(invalid("roll-ups require the purge permission"));
        }
        Ok(())
    }

    fn set_required_level(&mut self) {
        let level = if self.persist_mode != PersistMode::Default {
            "2"
        } else if self.allow_msg_ttl {
            "1"
        } else {
            "0"
        };
        self.metadata
            .insert(METADATA_REQUIRED_LEVEL.to_owned(), level.to_owned());
    }

    /// What a new stream asks for, checked.
    pub fn for_create(self, pedantic: bool) -> Result<Self, ApiError> {
        let config = self.check(pedantic)?;
        if config.sealed {
            return Err(invalid("stream configuration for create can not be sealed"));
        }
        Ok(config)
    }

    /// What `self` becomes when `asked` for, checked against what may change.
    pub fn for_update(&self, asked: Self, pedantic: bool) -> Result<Self, ApiError> {
        let mut asked = asked.check(pedantic)?;
        let refuse = |what: &str| {
            Err(invalid(format_args!(
                "stream configuration update can not {what}"
            )))
        };
        if asked.storage != self.storage {
            return refuse("change storage type");
        }
        let work_queue = |config: &Self| config.retention == Retention::WorkQueue;
        if work_queue(self) != work_queue(&asked) {
            return refuse("change retention policy to/from workqueue");
        }
        if self.sealed && !asked.sealed {
            return refuse("unseal a sealed stream");
        }
        if self.deny_delete && !asked.deny_delete {
            return refuse("cancel deny message deletes");
        }
        if self.deny_purge && !asked.deny_purge {
            return refuse("cancel deny purge");
        }
        if self.allow_msg_ttl && !asked.allow_msg_ttl {
            return Err(invalid("message TTL status can not be disabled"));
        }
        if self.persist_mode != asked.persist_mode {
            return refuse("change persist mode");
        }
        if asked.sealed {
            asked.max_age = 0;
            asked.discard = Discard::New;
            asked.deny_delete = true;
            asked.deny_purge = true;
            asked.allow_rollup_hdrs = false;
        }
        Ok(asked)
    }

    /// The configuration as answers show it: with what the server adds to the metadata.
    pub fn shown(&self, version: &str, level: u32) -> Self {
        let mut shown = self.clone();
        shown
            .metadata
            .insert(METADATA_VERSION.to_owned(), version.to_owned());
        shown
            .metadata
            .insert(METADATA_LEVEL.to_owned(), level.to_string());
        shown
    }

    /// Whether a message on `subject` belongs to the stream.
    pub fn takes(&self, to: &[u8]) -> bool {
        self.subjects
            .iter()
            .any(|pattern| subject::matches(pattern.as_bytes(), to))
    }
}

/// Subjects whose requests the server answers may be captured without acknowledgement only: the requester would
/// take the PubAck for the answer.
fn check_reserved(pattern: &[u8]) -> Result<(), ApiError> {
    if pattern == b">" {
        return Err(invalid("capturing all subjects requires no-ack to be true"));
    }
    let spaces: [(&[u8], &[u8], &str); 2] = [
        (b"$JS.>", b"$JS.EVENT.>", "jetstream"),
        (b"$SYS.>", b"$SYS.ACCOUNT.>", "system"),
    ];
    for (space, open, name) in spaces {
        if subject::overlap(pattern, space) && !subject::is_subset(pattern, open) {
            return Err(invalid(format_args!(
                "subjects that overlap with {name} api require no-ack to be true"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
