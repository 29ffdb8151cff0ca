//! What answers say of a stream: configuration, state, when.

use serde::{Serialize, Serializer};

use crate::jetstream::time::rfc3339;

use super::config::StreamConfig;
use super::state::State;

/// Counters of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// Their bytes, as limits count them.
    pub bytes: u64,
    /// First sequence; `last_seq + 1` when it is empty, zero when it never had a message nor was told where to begin.
    pub first_seq: u64,
    /// Time of the first message, zero for none.
    pub first_time: i64,
    /// Highest sequence.
    pub last_seq: u64,
    /// Time of the last message, zero for none.
    pub last_time: i64,
    /// Subjects.
    pub subjects: u64,
    /// Sequences between first and last without a message.
    pub deleted: u64,
    /// Consumers.
    pub consumers: u64,
}

impl State {
    pub fn counters(&mut self) -> StreamState {
        let (first_seq, first_time) = self.first();
        // A first sequence that was asked for is shown before there is a message.
        let fresh = self.last_seq == 0 && self.config.first_seq == 0;
        StreamState {
            messages: self.messages,
            bytes: self.bytes,
            first_seq: if fresh { 0 } else { first_seq },
            first_time,
            last_seq: self.last_seq,
            last_time: self.last_time,
            subjects: self.index.len() as u64,
            deleted: (self.last_seq + 1).saturating_sub(first_seq + self.messages),
            consumers: self.audience.len() as u64,
        }
    }
}

/// The `state` object of the wire.
#[derive(Debug, Serialize)]
struct WireState<'a> {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    first_ts: String,
    last_seq: u64,
    last_ts: String,
    #[serde(skip_serializing_if = "is_zero")]
    num_subjects: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "as_map")]
    subjects: &'a [(String, u64)],
    #[serde(skip_serializing_if = "is_zero")]
    num_deleted: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    deleted: &'a [u64],
    consumer_count: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn as_map<S: Serializer>(subjects: &&[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(subjects.iter().map(|(subject, count)| (subject, count)))
}

/// A stream as answers show it.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The configuration.
    pub config: StreamConfig,
    /// When it was created.
    pub created: i64,
    /// Counters.
    pub state: StreamState,
    /// Counts of the subjects that were asked for.
    pub subjects: Vec<(String, u64)>,
    /// Deleted sequences, if asked for.
    pub deleted: Vec<u64>,
    /// The leader to name: this server.
    pub leader: Option<String>,
    /// The domain, if there is one.
    pub domain: Option<String>,
    /// When this was said.
    pub time: i64,
}

#[derive(Serialize)]
struct Wire<'a, State: Serialize, Cluster: Serialize> {
    config: &'a StreamConfig,
    created: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    ts: String,
}

#[derive(Serialize)]
struct Cluster<'a> {
    leader: &'a str,
}

impl StreamInfo {
    /// The `state` object alone.
    pub fn shown_state(&self) -> impl Serialize {
        let state = &self.state;
        WireState {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq,
            first_ts: rfc3339(state.first_time),
            last_seq: state.last_seq,
            last_ts: rfc3339(state.last_time),
            num_subjects: state.subjects,
            subjects: &self.subjects,
            num_deleted: state.deleted,
            deleted: &self.deleted,
            consumer_count: state.consumers,
        }
    }

    /// The `cluster` object alone, where a leader is named.
    pub fn shown_cluster(&self) -> Option<impl Serialize> {
        self.leader.as_deref().map(|leader| Cluster { leader })
    }
}

impl Serialize for StreamInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = Wire {
            config: &self.config,
            created: rfc3339(self.created),
            state: self.shown_state(),
            domain: self.domain.as_deref(),
            cluster: self.shown_cluster(),
            ts: rfc3339(self.time),
        };
        wire.serialize(serializer)
    }
}
