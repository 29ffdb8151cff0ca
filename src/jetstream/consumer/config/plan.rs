//! What a create request comes to: a new consumer, an update, or an error.

use super::check::{INACTIVE_THRESHOLD_DEFAULT, Limits, Retention, StreamFacts, check, defaults};
use super::request::{Action, CreateRequest};
use super::wire::{AckPolicy, ConsumerConfig, PriorityPolicy, WireTime};
use crate::jetstream::api::error::{self, ApiError};
use crate::protocol::patterns::Patterns;

const DURABLE_NAME_BYTES_MAX: usize = 255;
const REQUIRED_LEVEL_KEY: &str = "_nats.req.level";
const SERVER_KEYS: [&str; 2] = ["_nats.ver", "_nats.level"];

/// The outcome of a request that is in order. Either way the configuration is complete and named.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A consumer that does not exist yet.
    Create(ConsumerConfig),
    /// The new configuration of one that does; it may equal the old.
    Update(ConsumerConfig),
}

/// What stands on the stream when the request arrives.
pub struct Standing<'a> {
    /// The consumer of the requested name, if there is one.
    pub existing: Option<&'a ConsumerConfig>,
    /// Every other consumer of the stream; only asked for by a work queue, and by a stream that limits them.
    pub others: &'a [&'a ConsumerConfig],
    /// Whether somebody listens on the existing consumer's deliver subject.
    pub deliver_subject_in_use: bool,
}

/// Decides what `request` comes to. `fresh_name` makes up a name that no consumer of the stream has.
pub fn plan(
    request: CreateRequest,
    stream: &StreamFacts<'_>,
    limits: &Limits,
    standing: &Standing<'_>,
    fresh_name: impl FnOnce() -> String,
) -> Result<Plan, ApiError> {
    let CreateRequest {
        mut config,
        action,
        pedantic,
        ..
    } = request;
    if config.direct && config.sourcing && !config.name.is_empty() {
        if stream.retention == Retention::Limits {
            config.name = format!("{}-{}", config.name, fresh_name());
            return finish(
                config,
                action,
                pedantic,
                None,
                stream,
                limits,
                standing,
                String::new,
            );
        }
        config.direct = false;
        config.durable_name.clone_from(&config.name);
        config.ack_policy = AckPolicy::FlowControl;
        (config.ack_wait, config.max_deliver, config.inactive_threshold) = (0, 0, 0);
    }
    finish(
        config,
        action,
        pedantic,
        standing.existing,
        stream,
        limits,
        standing,
        fresh_name,
    )
}

#[allow(
    clippy::too_many_arguments,
    reason = "the second half of `plan`, split for its length"
)]
fn finish(
    mut config: ConsumerConfig,
    action: Action,
    pedantic: bool,
    existing: Option<&ConsumerConfig>,
    stream: &StreamFacts<'_>,
    limits: &Limits,
    standing: &Standing<'_>,
    fresh_name: impl FnOnce() -> String,
) -> Result<Plan, ApiError> {
    if let Some(old) = existing {
        // Only `CONSUMER.PAUSE` changes the pause of a consumer that exists.
        config.pause_until = old.pause_until;
    }
    stamp_required_level(&mut config);
    defaults(&mut config, stream, limits, pedantic)?;
    check(&config, stream, limits)?;
    let counted: Vec<_> = standing
        .others
        .iter()
        .copied()
        .filter(|other| !other.direct && !other.sourcing)
        .collect();
    if let Some(old) = existing {
        if action == Action::Create && config != *old {
            return Err(error::CONSUMER_ALREADY_EXISTS);
        }
        if stream.retention == Retention::WorkQueue && !filters_are_free(&config, &counted) {
            return Err(error::CONSUMER_WQ_NOT_UNIQUE);
        }
        updatable(old, &config, standing.deliver_subject_in_use)?;
        // By what it was: giving an ephemeral a durable name does not make it outlive its users.
        stamp_inactive_threshold(&mut config, old.is_durable());
        return Ok(Plan::Update(config));
    }
    if action == Action::Update {
        return Err(error::CONSUMER_DOES_NOT_EXIST);
    }
    if stream.max_consumers > 0 && counted.len() as i64 >= stream.max_consumers {
        return Err(error::MAXIMUM_CONSUMERS);
    }
    if stream.retention == Retention::WorkQueue && !config.direct && !config.sourcing {
        fits_work_queue(&config, &counted)?;
    }
    if config.durable_name.len() > DURABLE_NAME_BYTES_MAX {
        return Err(error::CONSUMER_NAME_TOO_LONG.with(DURABLE_NAME_BYTES_MAX));
    }
    if config.name.is_empty() {
        config.name = if config.is_durable() {
            config.durable_name.clone()
        } else {
            fresh_name()
        };
    }
    let durable = config.is_durable();
    stamp_inactive_threshold(&mut config, durable);
    Ok(Plan::Create(config))
}

/// `_nats.req.level`: the API level the configuration needs; what the client wrote there is not kept.
fn stamp_required_level(config: &mut ConsumerConfig) {
    let groups = config.priority_policy != PriorityPolicy::None
        || config.priority_timeout != 0
        || !config.priority_groups.is_empty();
    // Go's zero time, year 1, is "not set".
    let paused = config
        .pause_until
        .is_some_and(|until| until.at.as_second() != -62_135_596_800);
    let level = match config.ack_policy {
        AckPolicy::FlowControl => 4,
        _ if paused || groups => 1,
        _ => 0,
    };
    config
        .metadata
        .retain(|key, _| !SERVER_KEYS.contains(&key.as_str()));
    config
        .metadata
        .insert(REQUIRED_LEVEL_KEY.to_owned(), level.to_string());
}

impl ConsumerConfig {
    /// Pauses until then, or not at all.
    pub fn set_pause(&mut self, until: Option<WireTime>) {
        self.pause_until = until;
        stamp_required_level(self);
    }
}

fn stamp_inactive_threshold(config: &mut ConsumerConfig, durable: bool) {
    if !durable && config.inactive_threshold <= 0 {
        config.inactive_threshold = INACTIVE_THRESHOLD_DEFAULT;
    }
}

/// Whether no other consumer of a work queue would get a message that `config` filters for.
fn filters_are_free(config: &ConsumerConfig, others: &[&ConsumerConfig]) -> bool {
    let own: Patterns = config.filters().map(str::as_bytes).collect();
    let is_free = |other: &&ConsumerConfig| {
        other.filters().next().is_some() && other.filters().all(|theirs| !own.overlaps(theirs.as_bytes()))
    };
    config.filters().next().is_none() || others.iter().all(is_free)
}

fn fits_work_queue(config: &ConsumerConfig, others: &[&ConsumerConfig]) -> Result<(), ApiError> {
    if !matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl) {
        return Err(error::CONSUMER_WQ_EXPLICIT_ACK);
    }
    if config.deliver_policy != super::wire::DeliverPolicy::All {
        return Err(error::CONSUMER_WQ_NOT_DELIVER_ALL);
    }
    if !others.is_empty() && config.filters().next().is_none() {
        return Err(error::CONSUMER_WQ_MULTIPLE_UNFILTERED);
    }
    if !filters_are_free(config, others) {
        return Err(error::CONSUMER_WQ_NOT_UNIQUE);
    }
    Ok(())
}

/// Whether `old` may become `new`: what decides which messages were seen, and how, stays.
fn updatable(old: &ConsumerConfig, new: &ConsumerConfig, in_use: bool) -> Result<(), ApiError> {
    let same_start = old.opt_start_time.map(|time| time.at) == new.opt_start_time.map(|time| time.at);
    for (same, refusal) in [
        (
            old.deliver_policy == new.deliver_policy,
            "deliver policy can not be updated",
        ),
        (
            old.mem_storage == new.mem_storage,
            "storage type can not be updated",
        ),
        (old.direct == new.direct, "direct can not be updated"),
        (old.sourcing == new.sourcing, "sourcing can not be updated"),
        (
            old.opt_start_seq == new.opt_start_seq,
            "start sequence can not be updated",
        ),
        (same_start, "start time can not be updated"),
        (old.ack_policy == new.ack_policy, "ack policy can not be updated"),
        (
            old.replay_policy == new.replay_policy,
            "replay policy can not be updated",
        ),
        (
            old.idle_heartbeat == new.idle_heartbeat,
            "heart beats can not be updated",
        ),
        (
            old.flow_control == new.flow_control,
            "flow control can not be updated",
        ),
        (
            old.is_push() || !new.is_push(),
            "can not update pull consumer to push based",
        ),
        (
            !old.is_push() || new.is_push(),
            "can not update push consumer to pull based",
        ),
    ] {
        if !same {
            return Err(error::CONSUMER_CREATE.with(refusal));
        }
    }
    if old.deliver_subject != new.deliver_subject && in_use {
        return Err(error::CONSUMER_NAME_EXISTS);
    }
    if old.max_waiting != new.max_waiting {
        return Err(error::CONSUMER_CREATE.with("max waiting can not be updated"));
    }
    Ok(())
}
