//! A consumer's page, and lists of consumers.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::api::{count, duration, flag, number, text, texts, time};
use crate::cli::output::{Boxed, Columns};
use crate::cli::stream::capital;
use crate::cli::{Failure, units};

/// Prints everything about a consumer.
pub fn print(info: &Value) -> Result<(), Failure> {
    let mut columns = Columns::new();
    configuration(&mut columns, &info["config"]);
    state(&mut columns, info);
    let (stream, name) = (text(info, "/stream_name"), text(info, "/name"));
    let created = time(info, "/created").map(units::show_time).unwrap_or_default();
    columns.print(&format!(
        "Information for Consumer {stream} > {name} created {created}"
    ))
}

/// The fields that have a line of their own; any other is shown as the server sent it.
const SHOWN: [&str; 34] = [
    "name",
    "durable_name",
    "description",
    "deliver_subject",
    "deliver_group",
    "filter_subject",
    "filter_subjects",
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "ack_wait",
    "replay_policy",
    "max_deliver",
    "sample_freq",
    "rate_limit_bps",
    "max_ack_pending",
    "max_waiting",
    "idle_heartbeat",
    "flow_control",
    "headers_only",
    "inactive_threshold",
    "max_expires",
    "max_batch",
    "max_bytes",
    "backoff",
    "num_replicas",
    "mem_storage",
    "pause_until",
    "priority_policy",
    "priority_groups",
    "priority_timeout",
    "metadata",
    "direct",
];

fn configuration(columns: &mut Columns, config: &Value) {
    columns.section("Configuration");
    let given = |pointer: &str| Some(text(config, pointer).to_owned()).filter(|text| !text.is_empty());
    let timed = |pointer| {
        let value = duration(config, pointer);
        (!value.is_zero()).then(|| units::show_duration(value))
    };
    let pull = text(config, "/deliver_subject").is_empty();
    columns.some("Name", given("/name"));
    columns.some(
        "Durable Name",
        given("/durable_name").filter(|name| *name != text(config, "/name")),
    );
    columns.some("Description", given("/description"));
    match pull {
        true => columns.row("Pull Mode", true),
        false => columns.row("Delivery Subject", text(config, "/deliver_subject")),
    }
    columns.some("Deliver Queue Group", given("/deliver_group"));
    columns.some("Filter Subject", given("/filter_subject"));
    let filters = texts(config, "/filter_subjects");
    columns.some(
        "Filter Subjects",
        (!filters.is_empty()).then(|| filters.join(", ")),
    );
    columns.row("Deliver Policy", start(config));
    columns.row("Ack Policy", capital(text(config, "/ack_policy")));
    columns.some("Ack Wait", timed("/ack_wait"));
    columns.row("Replay Policy", capital(text(config, "/replay_policy")));
    limits(columns, config);
    if let Some(metadata) = config["metadata"].as_object() {
        columns.section("Metadata");
        for (key, value) in metadata {
            columns.row(key, value.as_str().unwrap_or_default());
        }
    }
    columns.section("Other");
    for (field, value) in config.as_object().into_iter().flatten() {
        if !SHOWN.contains(&field.as_str()) {
            columns.row(field, value);
        }
    }
}

fn limits(columns: &mut Columns, config: &Value) {
    let given = |pointer: &str| Some(text(config, pointer).to_owned()).filter(|text| !text.is_empty());
    let counted = |pointer| Some(number(config, pointer)).filter(|count| *count > 0);
    let timed = |pointer| {
        let value = duration(config, pointer);
        (!value.is_zero()).then(|| units::show_duration(value))
    };
    let pull = text(config, "/deliver_subject").is_empty();
    columns.some("Maximum Deliveries", counted("/max_deliver"));
    columns.some("Sampling Rate", given("/sample_freq"));
    columns.some(
        "Rate Limit",
        counted("/rate_limit_bps")
            .map(|bits| format!("{} / second", units::show_bytes(bits.unsigned_abs() / 8))),
    );
    columns.some(
        "Max Ack Pending",
        counted("/max_ack_pending").map(|count| units::show_count(count.unsigned_abs())),
    );
    columns.some("Max Waiting Pulls", counted("/max_waiting"));
    columns.some("Idle Heartbeat", timed("/idle_heartbeat"));
    columns.some("Flow Control", (!pull).then(|| flag(config, "/flow_control")));
    columns.some("Headers Only", flag(config, "/headers_only").then_some(true));
    columns.some("Inactive Threshold", timed("/inactive_threshold"));
    columns.some("Max Pull Expire", timed("/max_expires"));
    columns.some("Max Pull Batch", counted("/max_batch"));
    columns.some(
        "Max Pull MaxBytes",
        counted("/max_bytes").map(|bytes| units::show_bytes(bytes.unsigned_abs())),
    );
    let backoff: Vec<String> = (config["backoff"].as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .map(|nanos| units::show_duration(Duration::from_nanos(nanos)))
        .collect();
    columns.some("Backoff", (!backoff.is_empty()).then(|| backoff.join(", ")));
    columns.some("Replicas", counted("/num_replicas"));
    columns.some("Memory Storage", flag(config, "/mem_storage").then_some(true));
    columns.some(
        "Paused Until Deadline",
        time(config, "/pause_until").map(units::show_time),
    );
    columns.some(
        "Priority Policy",
        given("/priority_policy").filter(|policy| policy != "none"),
    );
    let groups = texts(config, "/priority_groups");
    columns.some("Priority Groups", (!groups.is_empty()).then(|| groups.join(", ")));
    columns.some("Pinned TTL", timed("/priority_timeout"));
}

fn start(config: &Value) -> String {
    match text(config, "/deliver_policy") {
        "last_per_subject" => "Last Per Subject".to_owned(),
        "by_start_sequence" => format!("From Sequence {}", count(config, "/opt_start_seq")),
        "by_start_time" => match time(config, "/opt_start_time") {
            Some(time) => format!("Since {}", units::show_time(time)),
            None => "Since a time".to_owned(),
        },
        other => capital(other),
    }
}

fn state(columns: &mut Columns, info: &Value) {
    columns.section("State");
    let now = Timestamp::now();
    let counted = |pointer: &str| units::show_count(count(info, pointer));
    for (label, at, what) in [
        ("Last Delivered Message", "/delivered", "Last delivery"),
        ("Acknowledgment Floor", "/ack_floor", "Last Ack"),
    ] {
        let mut line = format!(
            "Consumer sequence: {} Stream sequence: {}",
            counted(&format!("{at}/consumer_seq")),
            counted(&format!("{at}/stream_seq"))
        );
        if let Some(active) = time(info, &format!("{at}/last_active")) {
            line += &format!(" {what}: {} ago", units::show_since(Some(active), now));
        }
        columns.row(label, line);
    }
    let pending = counted("/num_ack_pending");
    columns.row(
        "Outstanding Acks",
        match number(info, "/config/max_ack_pending") {
            maximum @ 1.. => format!(
                "{pending} out of maximum {}",
                units::show_count(maximum.unsigned_abs())
            ),
            _ => pending,
        },
    );
    columns.row("Redelivered Messages", counted("/num_redelivered"));
    columns.row("Unprocessed Messages", counted("/num_pending"));
    if text(info, "/config/deliver_subject").is_empty() {
        let waiting = counted("/num_waiting");
        columns.row(
            "Waiting Pulls",
            match count(info, "/config/max_waiting") {
                0 => format!("{waiting} of unlimited"),
                maximum => format!("{waiting} of maximum {}", units::show_count(maximum)),
            },
        );
    } else {
        let interest = if flag(info, "/push_bound") {
            "Active"
        } else {
            "No interest"
        };
        columns.row("Active Interest", interest);
    }
    if flag(info, "/paused") {
        let left = units::show_duration(duration(info, "/pause_remaining"));
        columns.row("Paused", format!("{left} remaining"));
    }
}

/// Prints the table of `ls`.
pub fn print_list(stream: &str, consumers: &[Value]) -> Result<(), Failure> {
    let mut table = Boxed::new(
        format!("Consumers of Stream {stream}"),
        &[
            "Name",
            "Description",
            "Created",
            "Ack Pending",
            "Unprocessed",
            "Last Delivery",
        ],
    );
    let now = Timestamp::now();
    for consumer in consumers {
        table.row([
            text(consumer, "/name").to_owned(),
            text(consumer, "/config/description").to_owned(),
            time(consumer, "/created")
                .map(units::show_time)
                .unwrap_or_default(),
            units::show_count(count(consumer, "/num_ack_pending")),
            units::show_count(count(consumer, "/num_pending")),
            units::show_since(time(consumer, "/delivered/last_active"), now),
        ]);
    }
    table.print()
}

/// Prints the table of `report`; `held` is how many messages the stream holds.
pub fn print_report(stream: &str, held: u64, consumers: &[Value]) -> Result<(), Failure> {
    let mut table = Boxed::new(
        format!(
            "Consumer report for {stream} with {} messages",
            units::show_count(held)
        ),
        &[
            "Consumer",
            "Mode",
            "Ack Policy",
            "Ack Wait",
            "Ack Pending",
            "Redelivered",
            "Unprocessed",
            "Ack Floor",
        ],
    );
    for consumer in consumers {
        let unprocessed = count(consumer, "/num_pending");
        let share = match held {
            0 => 0.0,
            held => unprocessed as f64 * 100.0 / held as f64,
        };
        let push = !text(consumer, "/config/deliver_subject").is_empty();
        table.row([
            text(consumer, "/name").to_owned(),
            if push { "Push" } else { "Pull" }.to_owned(),
            capital(text(consumer, "/config/ack_policy")),
            units::show_duration(duration(consumer, "/config/ack_wait")),
            units::show_count(count(consumer, "/num_ack_pending")),
            units::show_count(count(consumer, "/num_redelivered")),
            match unprocessed {
                0 => "0".to_owned(),
                some => format!("{} / {share:.0}%", units::show_count(some)),
            },
            units::show_count(count(consumer, "/ack_floor/stream_seq")),
        ]);
    }
    table.print()
}
