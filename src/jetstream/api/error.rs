//! Errors of the JetStream API: HTTP-like code, error code and text, all byte-exact.
//!
//! Clients decide by `err_code`, some by the text, so the texts are the protocol's and not ours to improve.
//! Streams and consumers share this one table. Source: protocol page 3.13 and the answers of the reference server.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// An error of the API as it stands in an answer: `{"code","err_code","description"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// Status in the manner of HTTP.
    pub code: u16,
    /// What clients decide by.
    pub err_code: u16,
    /// What people read.
    pub description: Cow<'static, str>,
}

impl ApiError {
    const fn new(code: u16, err_code: u16, description: &'static str) -> Self {
        let description = Cow::Borrowed(description);
        Self {
            code,
            err_code,
            description,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl std::error::Error for ApiError {}

/// An error whose text has a part that is known only when it happens; `{}` marks the place.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    code: u16,
    err_code: u16,
    text: &'static str,
}

impl Template {
    const fn new(code: u16, err_code: u16, text: &'static str) -> Self {
        Self { code, err_code, text }
    }

    /// The error with `part` in its place.
    pub fn with(&self, part: impl fmt::Display) -> ApiError {
        ApiError {
            code: self.code,
            err_code: self.err_code,
            description: self.text.replacen("{}", &part.to_string(), 1).into(),
        }
    }
}

macro_rules! errors {
    ($($kind:ident $name:ident = $code:literal $err_code:literal $text:literal;)+) => {
        $(
            #[doc = concat!(stringify!($err_code), ": ", $text)]
            pub const $name: $kind = $kind::new($code, $err_code, $text);
        )+

        #[cfg(test)]
        const TABLE: &[(&str, u16, u16, &str)] = &[$((stringify!($kind), $code, $err_code, $text)),+];
    };
}

errors! {
    // The server, the account, requests.
    ApiError ACCOUNT_RESOURCES_EXCEEDED = 400 10002 "resource limits exceeded for account";
    ApiError BAD_REQUEST = 400 10003 "bad request";
    ApiError TEMPORARILY_UNAVAILABLE = 503 10008 "JetStream system temporarily unavailable";
    ApiError CLUSTERING_REQUIRED = 503 10010 "JetStream clustering support required";
    ApiError INSUFFICIENT_RESOURCES = 503 10023 "insufficient resources";
    Template INVALID_JSON = 400 10025 "invalid JSON: {}";
    ApiError MEMORY_RESOURCES_EXCEEDED = 500 10028 "insufficient memory resources available";
    ApiError ACCOUNT_NOT_FOUND = 503 10035 "account not found";
    ApiError NOT_EMPTY_REQUEST = 400 10038 "expected an empty request payload";
    ApiError NOT_ENABLED_FOR_ACCOUNT = 503 10039 "JetStream not enabled for account";
    ApiError STORAGE_RESOURCES_EXCEEDED = 500 10047 "insufficient storage resources available";
    ApiError NOT_ENABLED = 503 10076 "JetStream not enabled";
    ApiError REPLICAS_NOT_NEGATIVE = 400 10133 "replicas count cannot be negative";
    Template PEDANTIC = 400 10157 "pedantic mode: {}";
    ApiError REQUIRED_API_LEVEL = 412 10185 "JetStream minimum api level required";

    // Streams.
    ApiError MAXIMUM_STREAMS = 400 10027 "maximum number of streams reached";
    ApiError NO_MESSAGE_FOUND = 404 10037 "no message found";
    Template SEQUENCE_NOT_FOUND = 400 10043 "sequence {} not found";
    Template STREAM_CREATE = 500 10049 "{}";
    Template STREAM_DELETE = 500 10050 "{}";
    Template STREAM_GENERAL = 500 10051 "{}";
    Template STREAM_INVALID_CONFIG = 500 10052 "{}";
    Template STREAM_LIMITS = 500 10053 "{}";
    ApiError MESSAGE_TOO_LARGE = 400 10054 "message size exceeds maximum allowed";
    ApiError MIRROR_NOT_UPDATABLE = 400 10055 "stream mirror configuration can not be updated";
    ApiError STREAM_NAME_MISMATCH = 400 10056 "stream name in subject does not match request";
    Template MSG_DELETE_FAILED = 500 10057 "{}";
    ApiError STREAM_NAME_EXISTS = 400 10058 "stream name already in use with a different configuration";
    ApiError STREAM_NOT_FOUND = 404 10059 "stream not found";
    ApiError EXPECTED_STREAM_MISMATCH = 400 10060 "expected stream does not match";
    ApiError REPLICAS_NOT_UPDATABLE = 400 10061 "Replicas configuration can not be updated";
    Template RESTORE_FAILED = 500 10062 "restore failed: {}";
    Template SNAPSHOT_FAILED = 500 10064 "snapshot failed: {}";
    ApiError SUBJECTS_OVERLAP = 400 10065 "subjects overlap with an existing stream";
    Template STREAM_UPDATE = 500 10069 "{}";
    Template WRONG_LAST_MSG_ID = 400 10070 "wrong last msg ID: {}";
    Template WRONG_LAST_SEQUENCE = 400 10071 "wrong last sequence: {}";
    ApiError REPLICAS_NOT_SUPPORTED = 500 10074 "replicas > 1 not supported in non-clustered mode";
    Template STORE_FAILED = 503 10077 "{}";
    ApiError STREAM_INVALID = 500 10096 "stream not valid";
    ApiError HEADERS_TOO_LARGE = 400 10097 "header size exceeds maximum allowed of 64k";
    ApiError STREAM_SEALED = 400 10109 "invalid operation on sealed stream";
    Template PURGE_FAILED = 500 10110 "{}";
    Template ROLLUP_FAILED = 500 10111 "{}";
    ApiError MAX_BYTES_REQUIRED = 400 10113 "account requires a stream config to have max bytes set";
    ApiError INFO_MAX_SUBJECTS = 500 10117 "subject details would exceed maximum allowed";
    ApiError STREAM_OFFLINE = 500 10118 "stream is offline";
    ApiError MAX_STREAM_BYTES_EXCEEDED = 400 10122 "stream max bytes exceeds account limit max stream bytes";
    ApiError STREAM_NAME_PATH_SEPARATORS = 400 10128 "Stream name can not contain path separators";
    ApiError STREAM_NAME_EXISTS_RESTORE = 400 10130 "stream name already in use, cannot restore";
    ApiError DUPLICATE_IN_PROCESS = 409 10158 "duplicate message id is in process";
    ApiError WRONG_LAST_SEQUENCE_CONSTANT = 400 10164 "wrong last sequence";
    ApiError TTL_INVALID = 400 10165 "invalid per-message TTL";
    ApiError TTL_DISABLED = 400 10166 "per-message TTL is disabled";
    ApiError TOO_MANY_REQUESTS = 429 10167 "too many requests";
    ApiError COUNTERS_DISABLED = 400 10168 "message counters is disabled";
    ApiError COUNTER_INCREMENT_MISSING = 400 10169 "message counter increment is missing";
    ApiError COUNTER_HAS_PAYLOAD = 400 10170 "message counter has payload";
    ApiError COUNTER_INCREMENT_INVALID = 400 10171 "message counter increment is invalid";
    ApiError BATCH_DISABLED = 400 10174 "atomic publish is disabled";
    ApiError MIN_LAST_SEQUENCE = 412 10180 "min last sequence";
    ApiError SCHEDULES_DISABLED = 400 10188 "message schedules is disabled";
    ApiError STREAM_SOURCE_NOT_ALLOWED = 400 10227 "message stream source header is not allowed";
    ApiError EXPECTED_LAST_SUBJECT_SEQUENCE_MISSING = 400 10193
        "missing sequence for expected last sequence per subject";
    ApiError FAST_BATCH_DISABLED = 400 10205 "batch publish is disabled";
    Template STREAM_OFFLINE_REASON = 500 10194 "stream is offline: {}";

    // Consumers.
    Template CONSUMER_CREATE = 500 10012 "{}";
    ApiError CONSUMER_NAME_EXISTS = 400 10013 "consumer name already in use";
    ApiError CONSUMER_NOT_FOUND = 404 10014 "consumer not found";
    ApiError CONSUMER_DURABLE_NOT_IN_SUBJECT = 400 10016
        "consumer expected to be durable but no durable name set in subject";
    ApiError CONSUMER_DURABLE_NAME_MISMATCH = 400 10017
        "consumer name in subject does not match durable name in request";
    ApiError CONSUMER_DURABLE_NOT_SET = 400 10018 "consumer expected to be durable but a durable name was not set";
    ApiError CONSUMER_EPHEMERAL_DURABLE_IN_SUBJECT = 400 10019
        "consumer expected to be ephemeral but detected a durable name set in subject";
    ApiError CONSUMER_EPHEMERAL_DURABLE_NAME = 400 10020
        "consumer expected to be ephemeral but a durable name was set in request";
    ApiError MAXIMUM_CONSUMERS = 400 10026 "maximum consumers limit reached";
    ApiError CONSUMER_CONFIG_REQUIRED = 400 10078 "consumer config required";
    ApiError CONSUMER_DELIVER_WILDCARDS = 400 10079 "consumer deliver subject has wildcards";
    ApiError CONSUMER_PUSH_MAX_WAITING = 400 10080 "consumer in push mode can not set max waiting";
    ApiError CONSUMER_DELIVER_CYCLE = 400 10081 "consumer deliver subject forms a cycle";
    ApiError CONSUMER_MAX_PENDING_ACK_POLICY = 400 10082 "consumer requires ack policy for max ack pending";
    ApiError CONSUMER_SMALL_HEARTBEAT = 400 10083 "consumer idle heartbeat needs to be >= 100ms";
    ApiError CONSUMER_PULL_REQUIRES_ACK = 400 10084
        "consumer in pull mode requires explicit ack policy on workqueue stream";
    ApiError CONSUMER_PULL_NOT_DURABLE = 400 10085 "consumer in pull mode requires a durable name";
    ApiError CONSUMER_PULL_RATE_LIMIT = 400 10086 "consumer in pull mode can not have rate limit set";
    ApiError CONSUMER_MAX_WAITING_NEGATIVE = 400 10087 "consumer max waiting needs to be positive";
    ApiError CONSUMER_HEARTBEAT_REQUIRES_PUSH = 400 10088 "consumer idle heartbeat requires a push based consumer";
    ApiError CONSUMER_FLOW_CONTROL_REQUIRES_PUSH = 400 10089
        "consumer flow control requires a push based consumer";
    ApiError CONSUMER_DIRECT_REQUIRES_PUSH = 400 10090 "consumer direct requires a push based consumer";
    ApiError CONSUMER_DIRECT_REQUIRES_EPHEMERAL = 400 10091 "consumer direct requires an ephemeral consumer";
    ApiError CONSUMER_FILTER_NOT_SUBSET = 400 10093
        "consumer filter subject is not a valid subset of the interest subjects";
    Template CONSUMER_INVALID_POLICY = 400 10094 "{}";
    Template CONSUMER_INVALID_SAMPLING = 400 10095 "failed to parse consumer sampling configuration: {}";
    ApiError CONSUMER_WQ_EXPLICIT_ACK = 400 10098 "workqueue stream requires explicit ack";
    ApiError CONSUMER_WQ_MULTIPLE_UNFILTERED = 400 10099
        "multiple non-filtered consumers not allowed on workqueue stream";
    ApiError CONSUMER_WQ_NOT_UNIQUE = 400 10100 "filtered consumer not unique on workqueue stream";
    ApiError CONSUMER_WQ_NOT_DELIVER_ALL = 400 10101 "consumer must be deliver all on workqueue stream";
    Template CONSUMER_NAME_TOO_LONG = 400 10102 "consumer name is too long, maximum allowed is {}";
    ApiError CONSUMER_BAD_DURABLE_NAME = 400 10103 "durable name can not contain '.', '*', '>'";
    Template CONSUMER_STORE_FAILED = 500 10104 "error creating store for consumer: {}";
    ApiError CONSUMER_EXISTING_ACTIVE = 400 10105 "consumer already exists and is still active";
    ApiError CONSUMER_REPLACEMENT_DIFFERS = 400 10106 "consumer replacement durable config not the same";
    Template CONSUMER_DESCRIPTION_TOO_LONG = 400 10107 "consumer description is too long, maximum allowed is {}";
    ApiError CONSUMER_FLOW_CONTROL_HEARTBEATS = 400 10108 "consumer with flow control also needs heartbeats";
    ApiError CONSUMER_INVALID_DELIVER_SUBJECT = 400 10112 "invalid push consumer deliver subject";
    ApiError CONSUMER_MAX_BATCH_NEGATIVE = 400 10114 "consumer max request batch needs to be > 0";
    ApiError CONSUMER_MAX_EXPIRES_TOO_SMALL = 400 10115 "consumer max request expires needs to be >= 1ms";
    ApiError CONSUMER_MAX_DELIVER_BACKOFF = 400 10116 "max deliver is required to be > length of backoff values";
    Template CONSUMER_MAX_PENDING_EXCESS = 400 10121 "consumer max ack pending exceeds system limit of {}";
    Template CONSUMER_MAX_BATCH_EXCEEDED = 400 10125 "consumer max request batch exceeds server limit of {}";
    ApiError CONSUMER_REPLICAS_EXCEED_STREAM = 400 10126 "consumer config replica count exceeds parent stream";
    ApiError CONSUMER_NAME_PATH_SEPARATORS = 400 10127 "Consumer name can not contain path separators";
    ApiError CONSUMER_CREATE_FILTER_MISMATCH = 400 10131
        "Consumer create request did not match filtered subject from create subject";
    ApiError CONSUMER_DURABLE_AND_NAME_MISMATCH = 400 10132
        "Consumer Durable and Name have to be equal if both are provided";
    ApiError CONSUMER_REPLICAS_MATCH_STREAM = 400 10134
        "consumer config replicas must match interest retention stream's replicas";
    Template CONSUMER_METADATA_LENGTH = 400 10135 "consumer metadata exceeds maximum size of {}";
    ApiError CONSUMER_DUPLICATE_FILTERS = 400 10136
        "consumer cannot have both FilterSubject and FilterSubjects specified";
    ApiError CONSUMER_MULTIPLE_FILTERS = 400 10137
        "consumer with multiple subject filters cannot use subject based API";
    ApiError CONSUMER_OVERLAPPING_FILTERS = 400 10138 "consumer subject filters cannot overlap";
    ApiError CONSUMER_EMPTY_FILTER = 400 10139 "consumer filter in FilterSubjects cannot be empty";
    ApiError CONSUMER_ALREADY_EXISTS = 400 10148 "consumer already exists";
    ApiError CONSUMER_DOES_NOT_EXIST = 400 10149 "consumer does not exist";
    Template CONSUMER_INACTIVE_THRESHOLD_EXCESS = 400 10153
        "consumer inactive threshold exceeds system limit of {}";
    ApiError CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP = 400 10159
        "Setting PriorityPolicy requires at least one PriorityGroup to be set";
    ApiError CONSUMER_INVALID_PRIORITY_GROUP = 400 10160 "Provided priority group does not exist for this consumer";
    ApiError CONSUMER_EMPTY_GROUP_NAME = 400 10161 "Group name cannot be an empty string";
    ApiError CONSUMER_INVALID_GROUP_NAME = 400 10162
        "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters";
    ApiError CONSUMER_PUSH_PRIORITY_GROUP = 400 10178 "priority groups can not be used with push consumers";
    ApiError CONSUMER_ACK_POLICY_INVALID = 400 10181 "consumer ack policy invalid";
    ApiError CONSUMER_REPLAY_POLICY_INVALID = 400 10182 "consumer replay policy invalid";
    ApiError CONSUMER_ACK_WAIT_NEGATIVE = 400 10183 "consumer ack wait needs to be positive";
    ApiError CONSUMER_BACKOFF_NEGATIVE = 400 10184 "consumer backoff needs to be positive";
    ApiError CONSUMER_PRIORITY_GROUP_POLICY_NONE = 400 10196
        "consumer can not have priority groups when policy is none";
    ApiError CONSUMER_PINNED_TTL_POLICY_NONE = 400 10197 "PinnedTTL cannot be set when PriorityPolicy is none";
    Template CONSUMER_INVALID_RESET = 400 10204 "invalid reset: {}";
    ApiError CONSUMER_ACK_FC_REQUIRES_PUSH = 400 10218 "flow control ack policy requires a push based consumer";
    ApiError CONSUMER_ACK_FC_REQUIRES_FC = 400 10219 "flow control ack policy requires flow control";
    ApiError CONSUMER_ACK_FC_MAX_ACK_PENDING = 400 10220 "flow control ack policy requires max ack pending";
    ApiError CONSUMER_ACK_FC_NO_ACK_WAIT = 400 10221 "flow control ack policy requires unset ack wait";
    ApiError CONSUMER_ACK_FC_NO_MAX_DELIVER = 400 10222 "flow control ack policy requires unset max deliver";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_entry_a_code_and_a_place_in_every_template() {
        let mut seen = HashSet::new();
        for (kind, code, err_code, text) in TABLE {
            assert!(seen.insert(err_code), "{err_code} twice");
            assert!((400..600).contains(code) && (10000..10300).contains(err_code));
            assert_eq!(*kind == "Template", text.contains("{}"), "{err_code}");
        }
    }

    #[test]
    fn as_it_stands_in_an_answer() {
        let json = serde_json::to_string(&WRONG_LAST_SEQUENCE.with(7)).unwrap();
        assert_eq!(
            json,
            r#"{"code":400,"err_code":10071,"description":"wrong last sequence: 7"}"#
        );
        assert_eq!(STREAM_NOT_FOUND.to_string(), "stream not found (10059)");
    }
}
