//! Defaults and checks of a configuration, in the order nats-server 2.15.1 makes them: the first
//! error found is the one answered.

use super::wire::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy};
use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::consumer::duration::{self, MILLISECOND, SECOND};
use crate::protocol::patterns::Patterns;
use crate::protocol::subject;

const ACK_WAIT_DEFAULT: i64 = 30 * SECOND;
const MAX_WAITING_DEFAULT: i64 = 512;
const MAX_ACK_PENDING_DEFAULT: i64 = 1_000;
const PINNED_TTL_DEFAULT: i64 = 120 * SECOND;
/// Ephemerals go after this long without a user, unless they say otherwise.
pub(super) const INACTIVE_THRESHOLD_DEFAULT: i64 = 5 * SECOND;
const FLOW_CONTROL_ACK_HEARTBEAT: i64 = SECOND;
const HEARTBEAT_MIN: i64 = 100 * MILLISECOND;
const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
const METADATA_BYTES_MAX: usize = 128 * 1024;

/// When a stream lets go of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// By its limits.
    #[default]
    Limits,
    /// When every consumer has it acked.
    Interest,
    /// When its one consumer has it acked.
    WorkQueue,
}

/// What a consumer's configuration is checked against: the stream's.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamFacts<'a> {
    /// The stream's subjects.
    pub subjects: &'a [String],
    /// Its retention.
    pub retention: Retention,
    /// Its replicas; 1 here.
    pub num_replicas: i64,
    /// How many consumers it may have; 0 or less is no limit.
    pub max_consumers: i64,
    /// `consumer_limits.inactive_threshold`; 0 is no limit.
    pub inactive_threshold: i64,
    /// `consumer_limits.max_ack_pending`; 0 is no limit.
    pub max_ack_pending: i64,
}

/// The server's (or account's) own limits on consumers; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The largest `max_ack_pending`.
    pub max_ack_pending: i64,
    /// The largest `max_batch`.
    pub max_request_batch: i64,
}

type Checked = Result<(), ApiError>;

fn pedantic_error(why: &str) -> ApiError {
    error::PEDANTIC.with(why)
}

/// Lifts numbers below their least value to it; a pedantic request is told instead.
fn bounds(config: &mut ConsumerConfig, pedantic: bool) -> Checked {
    let adjust = |ok: bool, why: &str| {
        if ok || !pedantic {
            Ok(())
        } else {
            Err(pedantic_error(why))
        }
    };
    adjust(config.max_deliver >= -1, "max_deliver must be set to -1")?;
    if config.max_deliver <= 0 {
        config.max_deliver = -1;
    }
    let at_least = |value: &mut i64, least: i64, why: &str| {
        adjust(*value >= least, why)?;
        *value = (*value).max(least);
        Ok(())
    };
    at_least(&mut config.max_waiting, 0, "max_waiting must not be negative")?;
    at_least(
        &mut config.max_ack_pending,
        -1,
        "max_ack_pending must be set to -1",
    )?;
    at_least(&mut config.max_batch, 0, "max_batch must not be negative")?;
    at_least(&mut config.max_expires, 0, "max_expires must not be negative")?;
    at_least(&mut config.max_bytes, 0, "max_bytes must not be negative")?;
    at_least(
        &mut config.idle_heartbeat,
        0,
        "idle_heartbeat must not be negative",
    )?;
    at_least(
        &mut config.inactive_threshold,
        0,
        "inactive_threshold must not be negative",
    )?;
    at_least(
        &mut config.priority_timeout,
        0,
        "priority_timeout must not be negative",
    )?;
    Ok(())
}

/// Puts the defaults in; a pedantic request is told instead.
pub(super) fn defaults(
    config: &mut ConsumerConfig,
    stream: &StreamFacts<'_>,
    limits: &Limits,
    pedantic: bool,
) -> Checked {
    let adjust = |ok: bool, why: &str| {
        if ok || !pedantic {
            Ok(())
        } else {
            Err(pedantic_error(why))
        }
    };
    bounds(config, pedantic)?;
    if !config.is_push() && config.max_waiting == 0 {
        config.max_waiting = MAX_WAITING_DEFAULT;
    }
    if config.ack_wait == 0 && matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::All) {
        config.ack_wait = ACK_WAIT_DEFAULT;
    }
    if let Some(&first) = config.backoff.first() {
        adjust(
            config.ack_wait == first,
            "first backoff value has to equal batch AckWait",
        )?;
        config.ack_wait = first;
    }
    if config.max_ack_pending == 0 {
        adjust(
            stream.max_ack_pending <= 0,
            "max_ack_pending must be set if it's configured in stream limits",
        )?;
        config.max_ack_pending = stream.max_ack_pending;
    }
    if config.inactive_threshold == 0 {
        adjust(
            stream.inactive_threshold <= 0,
            "inactive_threshold must be set if it's configured in stream limits",
        )?;
        config.inactive_threshold = stream.inactive_threshold;
    }
    if config.max_ack_pending == 0 && config.ack_policy != AckPolicy::None {
        let limit = Some(limits.max_ack_pending).filter(|&limit| limit > 0);
        config.max_ack_pending = MAX_ACK_PENDING_DEFAULT.min(limit.unwrap_or(i64::MAX));
    }
    if !config.is_push() && config.max_batch == 0 && limits.max_request_batch > 0 {
        adjust(
            false,
            "max_request_batch must be set if it's JetStream limits are set",
        )?;
        config.max_batch = limits.max_request_batch;
    }
    if config.priority_policy == PriorityPolicy::PinnedClient && config.priority_timeout == 0 {
        config.priority_timeout = PINNED_TTL_DEFAULT;
    }
    if config.ack_policy == AckPolicy::FlowControl && !pedantic {
        config.flow_control = true;
        config.idle_heartbeat = FLOW_CONTROL_ACK_HEARTBEAT;
    }
    Ok(())
}

/// Every check that looks at the configuration, its stream and the limits alone.
pub(super) fn check(config: &ConsumerConfig, stream: &StreamFacts<'_>, limits: &Limits) -> Checked {
    names_and_replicas(config, stream)?;
    acks(config)?;
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(error::CONSUMER_DESCRIPTION_TOO_LONG.with("4096"));
    }
    if config.is_push() {
        push(config, stream)?
    } else {
        pull(config, stream, limits)?
    }
    caps(config, stream, limits)?;
    filters(config)?;
    start(config)?;
    rest(config)?;
    priority_groups(config)?;
    dead_letter(config, stream)
}

/// The rule for names of streams and consumers.
fn is_asset_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([' ', '\t', '\r', '\n', '\x0c', '.', '*', '>', '\\', '/'])
}

fn names_and_replicas(config: &ConsumerConfig, stream: &StreamFacts<'_>) -> Checked {
    if !config.name.is_empty() && !is_asset_name(&config.name) {
        return Err(
            error::STREAM_INVALID_CONFIG.with("consumer name can not contain '.', '*', '>', '\\', '/'")
        );
    }
    if !config.durable_name.is_empty() && !is_asset_name(&config.durable_name) {
        return Err(error::STREAM_INVALID_CONFIG
            .with("consumer durable name can not contain '.', '*', '>', '\\', '/'"));
    }
    if config.num_replicas > 0 && config.num_replicas > stream.num_replicas {
        return Err(error::CONSUMER_REPLICAS_EXCEED_STREAM);
    }
    if config.num_replicas < 0 {
        return Err(error::REPLICAS_NOT_NEGATIVE);
    }
    let bound = stream.retention != Retention::Limits;
    if bound && config.num_replicas != 0 && config.num_replicas != stream.num_replicas {
        return Err(error::CONSUMER_REPLICAS_MATCH_STREAM);
    }
    Ok(())
}

fn acks(config: &ConsumerConfig) -> Checked {
    if config.backoff.iter().any(|&wait| wait < 0) {
        return Err(error::CONSUMER_BACKOFF_NEGATIVE);
    }
    if config.ack_wait < 0 {
        return Err(error::CONSUMER_ACK_WAIT_NEGATIVE);
    }
    if config.ack_policy == AckPolicy::FlowControl {
        flow_control_acks(config)?;
    }
    let steps = config.backoff.len() as i64;
    if steps > 0 && config.max_deliver != -1 && steps > config.max_deliver {
        return Err(error::CONSUMER_MAX_DELIVER_BACKOFF);
    }
    Ok(())
}

fn flow_control_acks(config: &ConsumerConfig) -> Checked {
    if !config.is_push() {
        Err(error::CONSUMER_ACK_FC_REQUIRES_PUSH)
    } else if !config.flow_control {
        Err(error::CONSUMER_ACK_FC_REQUIRES_FC)
    } else if config.idle_heartbeat != FLOW_CONTROL_ACK_HEARTBEAT {
        Err(error::STREAM_INVALID_CONFIG.with("flow control ack policy heartbeat needs to be 1s"))
    } else if config.max_ack_pending <= 0 {
        Err(error::CONSUMER_ACK_FC_MAX_ACK_PENDING)
    } else if config.ack_wait != 0 || !config.backoff.is_empty() {
        Err(error::CONSUMER_ACK_FC_NO_ACK_WAIT)
    } else if config.max_deliver > 0 {
        Err(error::CONSUMER_ACK_FC_NO_MAX_DELIVER)
    } else {
        Ok(())
    }
}

fn push(config: &ConsumerConfig, stream: &StreamFacts<'_>) -> Checked {
    let deliver = config.deliver_subject.as_bytes();
    if subject::has_wildcard(deliver) {
        return Err(error::CONSUMER_DELIVER_WILDCARDS);
    }
    // Deliveries are no requests: see `subject::is_for_requests`.
    if !subject::is_subject(deliver) || subject::is_for_requests(deliver) {
        return Err(error::CONSUMER_INVALID_DELIVER_SUBJECT);
    }
    if stream
        .subjects
        .iter()
        .any(|pattern| subject::matches(pattern.as_bytes(), deliver))
    {
        return Err(error::CONSUMER_DELIVER_CYCLE);
    }
    if config.max_waiting != 0 {
        return Err(error::CONSUMER_PUSH_MAX_WAITING);
    }
    if config.max_ack_pending > 0 && config.ack_policy == AckPolicy::None {
        return Err(error::CONSUMER_MAX_PENDING_ACK_POLICY);
    }
    if config.idle_heartbeat > 0 && config.idle_heartbeat < HEARTBEAT_MIN {
        return Err(error::CONSUMER_SMALL_HEARTBEAT);
    }
    Ok(())
}

fn pull(config: &ConsumerConfig, stream: &StreamFacts<'_>, limits: &Limits) -> Checked {
    if config.ack_policy == AckPolicy::None && stream.retention == Retention::WorkQueue {
        return Err(error::CONSUMER_PULL_REQUIRES_ACK);
    }
    if config.rate_limit_bps > 0 {
        return Err(error::CONSUMER_PULL_RATE_LIMIT);
    }
    if config.idle_heartbeat > 0 {
        return Err(error::CONSUMER_HEARTBEAT_REQUIRES_PUSH);
    }
    if config.flow_control {
        return Err(error::CONSUMER_FLOW_CONTROL_REQUIRES_PUSH);
    }
    if config.max_expires != 0 && config.max_expires < MILLISECOND {
        return Err(error::CONSUMER_MAX_EXPIRES_TOO_SMALL);
    }
    if limits.max_request_batch > 0 && config.max_batch > limits.max_request_batch {
        return Err(error::CONSUMER_MAX_BATCH_EXCEEDED.with(limits.max_request_batch));
    }
    Ok(())
}

fn caps(config: &ConsumerConfig, stream: &StreamFacts<'_>, limits: &Limits) -> Checked {
    for limit in [limits.max_ack_pending, stream.max_ack_pending] {
        if limit > 0 && config.max_ack_pending > limit {
            return Err(error::CONSUMER_MAX_PENDING_EXCESS.with(limit));
        }
    }
    let limit = stream.inactive_threshold;
    if limit > 0 && config.inactive_threshold > limit {
        return Err(error::CONSUMER_INACTIVE_THRESHOLD_EXCESS.with(duration::text(limit)));
    }
    if config.direct && !config.is_push() {
        return Err(error::CONSUMER_DIRECT_REQUIRES_PUSH);
    }
    if config.direct && config.is_durable() {
        return Err(error::CONSUMER_DIRECT_REQUIRES_EPHEMERAL);
    }
    Ok(())
}

fn filters(config: &ConsumerConfig) -> Checked {
    if !config.filter_subject.is_empty() && !config.filter_subjects.is_empty() {
        return Err(error::CONSUMER_DUPLICATE_FILTERS);
    }
    let valid = |filter: &str| subject::is_pattern(filter.as_bytes());
    if !config.filter_subject.is_empty() && !valid(&config.filter_subject) {
        return Err(error::STREAM_INVALID_CONFIG.with("invalid subject"));
    }
    if config.filter_subjects.iter().any(String::is_empty) {
        return Err(error::CONSUMER_EMPTY_FILTER);
    }
    let all = config.filter_subjects.iter();
    let set: Patterns = all
        .filter(|filter| valid(filter))
        .map(|filter| filter.as_bytes())
        .collect();
    for filter in &config.filter_subjects {
        if !valid(filter) {
            return Err(error::STREAM_INVALID_CONFIG.with("invalid subject"));
        }
        if set.covers(filter.as_bytes()) {
            return Err(error::CONSUMER_OVERLAPPING_FILTERS);
        }
    }
    Ok(())
}

fn start(config: &ConsumerConfig) -> Checked {
    let conflict = |policy: &str, what: &str| {
        let text =
            format!("consumer delivery policy is deliver {policy}, but optional start {what} is also set");
        Err(error::CONSUMER_INVALID_POLICY.with(text))
    };
    let missing = |policy: &str, what: &str| {
        let text = format!("consumer delivery policy is deliver {policy}, but optional {what} is not set");
        Err(error::CONSUMER_INVALID_POLICY.with(text))
    };
    let (seq, time) = (config.opt_start_seq > 0, config.opt_start_time.is_some());
    let policy = match config.deliver_policy {
        DeliverPolicy::ByStartSequence if !seq => return missing("by start sequence", "start sequence"),
        DeliverPolicy::ByStartSequence if time => return conflict("by start sequence", "time"),
        DeliverPolicy::ByStartTime if !time => return missing("by start time", "start time"),
        DeliverPolicy::ByStartTime if seq => return conflict("by start time", "start sequence"),
        DeliverPolicy::ByStartSequence | DeliverPolicy::ByStartTime => return Ok(()),
        DeliverPolicy::All => "all",
        DeliverPolicy::Last => "last",
        DeliverPolicy::New => "new",
        DeliverPolicy::LastPerSubject => "last per subject",
    };
    if seq {
        return conflict(policy, "sequence");
    }
    if time {
        return conflict(policy, "time");
    }
    if config.deliver_policy == DeliverPolicy::LastPerSubject && config.filters().next().is_none() {
        return missing(policy, "filter subject");
    }
    Ok(())
}

fn sampling(text: &str) -> Checked {
    let fail = |why: String| Err(error::CONSUMER_INVALID_SAMPLING.with(why));
    let number = text.strip_suffix('%').unwrap_or(text);
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return fail(format!("strconv.Atoi: parsing {number:?}: invalid syntax"));
    }
    match number.parse::<i64>() {
        Err(_) => fail(format!("strconv.Atoi: parsing {number:?}: value out of range")),
        Ok(percent) if percent < 0 => fail("<nil>".to_owned()),
        Ok(_) => Ok(()),
    }
}

fn rest(config: &ConsumerConfig) -> Checked {
    if !config.sample_freq.is_empty() {
        sampling(&config.sample_freq)?;
    }
    if config.flow_control && config.idle_heartbeat == 0 {
        return Err(error::CONSUMER_FLOW_CONTROL_HEARTBEATS);
    }
    if config.is_durable() && !config.name.is_empty() && config.name != config.durable_name {
        return Err(error::CONSUMER_DURABLE_AND_NAME_MISMATCH);
    }
    let bytes: usize = config
        .metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(error::CONSUMER_METADATA_LENGTH.with("128KB"));
    }
    Ok(())
}

fn priority_groups(config: &ConsumerConfig) -> Checked {
    let valid_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/_=-".contains(&byte);
    if config.priority_policy == PriorityPolicy::None {
        if !config.priority_groups.is_empty() {
            return Err(error::CONSUMER_PRIORITY_GROUP_POLICY_NONE);
        }
        if config.priority_timeout > 0 {
            return Err(error::CONSUMER_PINNED_TTL_POLICY_NONE);
        }
        return Ok(());
    }
    if config.is_push() {
        return Err(error::CONSUMER_PUSH_PRIORITY_GROUP);
    }
    if config.priority_groups.is_empty() {
        return Err(error::CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP);
    }
    for group in &config.priority_groups {
        if group.is_empty() {
            return Err(error::CONSUMER_EMPTY_GROUP_NAME);
        }
        if group.len() > 16 || !group.bytes().all(valid_byte) {
            return Err(error::CONSUMER_INVALID_GROUP_NAME);
        }
    }
    Err(error::STREAM_INVALID_CONFIG.with("consumer priority groups are not supported by this server"))
}

/// Our own: a dead letter goes to a subject one can publish to, and never back to its consumer.
fn dead_letter(config: &ConsumerConfig, stream: &StreamFacts<'_>) -> Checked {
    let Some(to) = config.dead_letter().map(str::as_bytes) else {
        return Ok(());
    };
    if !subject::is_subject(to) {
        return Err(error::STREAM_INVALID_CONFIG.with("consumer dead letter subject is invalid"));
    }
    let in_stream = stream
        .subjects
        .iter()
        .any(|pattern| subject::matches(pattern.as_bytes(), to));
    let mut filters = config.filters().peekable();
    let wanted = filters.peek().is_none() || filters.any(|filter| subject::matches(filter.as_bytes(), to));
    if in_stream && wanted {
        return Err(error::STREAM_INVALID_CONFIG.with("consumer dead letter subject forms a cycle"));
    }
    Ok(())
}
