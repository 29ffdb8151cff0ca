//! A stream's page, and lists of streams.

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::api::{count, duration, flag, number, text, texts, time};
use crate::cli::output::{Boxed, Columns};
use crate::cli::{Failure, output, units};

/// Prints everything about a stream, or its state alone.
pub fn print(info: &Value, state_only: bool) -> Result<(), Failure> {
    let mut columns = Columns::new();
    if !state_only {
        configuration(&mut columns, &info["config"]);
        durability(&mut columns, text(info, "/sync"));
        copies(&mut columns, info);
    }
    state(&mut columns, info);
    let name = text(info, "/config/name");
    columns.print(&match time(info, "/created") {
        Some(created) => format!(
            "Information for Stream {name} created {}",
            units::show_time(created)
        ),
        None => format!("Information for Stream {name}"),
    })
}

/// When what the stream acknowledges is on the disk, where the server says so.
fn durability(columns: &mut Columns, sync: &str) {
    match sync {
        "" => {}
        "always" => columns.row("Synced", "before each acknowledgement"),
        every => columns.row("Synced", format!("every {every}, NOT before acknowledgements")),
    }
}

/// The fields that have a line of their own; any other is shown as the server sent it.
const SHOWN: [&str; 39] = [
    "name",
    "description",
    "subjects",
    "num_replicas",
    "sealed",
    "storage",
    "compression",
    "persist_mode",
    "first_seq",
    "placement",
    "retention",
    "no_ack",
    "discard",
    "discard_new_per_subject",
    "duplicate_window",
    "allow_direct",
    "mirror_direct",
    "allow_atomic",
    "allow_batched",
    "allow_msg_counter",
    "deny_delete",
    "allow_msg_ttl",
    "deny_purge",
    "allow_msg_schedules",
    "subject_delete_marker_ttl",
    "allow_rollup_hdrs",
    "subject_transform",
    "republish",
    "max_msgs",
    "max_msgs_per_subject",
    "max_bytes",
    "max_age",
    "max_msg_size",
    "max_consumers",
    "consumer_limits",
    "metadata",
    "mirror",
    "sources",
    "template_owner",
];

fn configuration(columns: &mut Columns, config: &Value) {
    let given = |pointer: &str| Some(text(config, pointer).to_owned()).filter(|text| !text.is_empty());
    columns.some("Description", given("/description"));
    let subjects = texts(config, "/subjects");
    columns.some("Subjects", (!subjects.is_empty()).then(|| subjects.join(", ")));
    columns.row("Replicas", count(config, "/num_replicas"));
    columns.some("Sealed", flag(config, "/sealed").then_some(true));
    columns.row("Storage", capital(text(config, "/storage")));
    columns.some("Compression", given("/compression").filter(|name| name != "none"));
    columns.some(
        "Persistence Mode",
        given("/persist_mode").filter(|name| name != "default"),
    );
    columns.some("First Sequence", some(count(config, "/first_seq")));
    columns.some("Placement Cluster", given("/placement/cluster"));
    let tags = texts(config, "/placement/tags");
    columns.some("Placement Tags", (!tags.is_empty()).then(|| tags.join(", ")));
    options(columns, config);
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

fn options(columns: &mut Columns, config: &Value) {
    columns.section("Options");
    if let Some(destination) = config.pointer("/subject_transform/dest") {
        let source = text(config, "/subject_transform/src");
        let destination = destination.as_str().unwrap_or_default();
        columns.row("Subject Transform", format!("{} to {destination}", all(source)));
    }
    if let Some(republish) = config.get("republish").filter(|republish| republish.is_object()) {
        let label = match flag(republish, "/headers_only") {
            true => "Republishing Headers",
            false => "Republishing",
        };
        columns.row(
            label,
            format!("{} to {}", all(text(republish, "/src")), text(republish, "/dest")),
        );
    }
    columns.row(
        "Retention",
        match text(config, "/retention") {
            "workqueue" => "WorkQueue".to_owned(),
            other => capital(other),
        },
    );
    columns.row("Acknowledgments", !flag(config, "/no_ack"));
    let per_subject = match flag(config, "/discard_new_per_subject") {
        true => " Per Subject",
        false => "",
    };
    columns.row(
        "Discard Policy",
        format!("{}{per_subject}", capital(text(config, "/discard"))),
    );
    columns.row(
        "Duplicate Window",
        units::show_duration(duration(config, "/duplicate_window")),
    );
    for (label, field, shown_off) in [
        ("Direct Get", "/allow_direct", false),
        ("Mirror Direct Get", "/mirror_direct", false),
        ("Allows Atomic Batch Publish", "/allow_atomic", true),
        ("Allows Fast Batch Publish", "/allow_batched", true),
        ("Allows Counters", "/allow_msg_counter", true),
    ] {
        columns.some(
            label,
            (flag(config, field) || shown_off).then(|| flag(config, field)),
        );
    }
    columns.row("Allows Msg Delete", !flag(config, "/deny_delete"));
    columns.row("Allows Per-Message TTL", flag(config, "/allow_msg_ttl"));
    columns.row("Allows Purge", !flag(config, "/deny_purge"));
    columns.row("Allows Schedules", flag(config, "/allow_msg_schedules"));
    let markers = duration(config, "/subject_delete_marker_ttl");
    columns.some(
        "Subject Delete Markers TTL",
        (!markers.is_zero()).then(|| units::show_duration(markers)),
    );
    columns.row("Allows Rollups", flag(config, "/allow_rollup_hdrs"));
}

fn limits(columns: &mut Columns, config: &Value) {
    columns.section("Limits");
    let counted = |field| limit(number(config, field), units::show_count);
    let sized = |field| limit(number(config, field), units::show_bytes);
    columns.row("Maximum Messages", counted("/max_msgs"));
    columns.row("Maximum Per Subject", counted("/max_msgs_per_subject"));
    columns.row("Maximum Bytes", sized("/max_bytes"));
    columns.row(
        "Maximum Age",
        limit(number(config, "/max_age"), |nanos| {
            units::show_duration(std::time::Duration::from_nanos(nanos))
        }),
    );
    columns.row("Maximum Message Size", sized("/max_msg_size"));
    columns.row("Maximum Consumers", counted("/max_consumers"));
    let inactive = duration(config, "/consumer_limits/inactive_threshold");
    columns.some(
        "Consumer Inactive Threshold",
        (!inactive.is_zero()).then(|| units::show_duration(inactive)),
    );
    columns.some(
        "Consumer Max Ack Pending",
        some(count(config, "/consumer_limits/max_ack_pending")),
    );
}

/// `unlimited` for what is not above zero.
pub fn limit(value: i64, show: impl Fn(u64) -> String) -> String {
    match u64::try_from(value) {
        Ok(value) if value > 0 => show(value),
        _ => "unlimited".to_owned(),
    }
}

fn some(count: u64) -> Option<String> {
    (count > 0).then(|| units::show_count(count))
}

fn all(subject: &str) -> &str {
    if subject.is_empty() { ">" } else { subject }
}

/// A word of the wire as a title.
pub fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// Where the messages of mirrors and sources come from, and how far behind they are.
fn copies(columns: &mut Columns, info: &Value) {
    let sources = info["sources"].as_array().into_iter().flatten();
    let mirror = info.get("mirror").filter(|mirror| mirror.is_object());
    for (title, copy) in mirror
        .map(|copy| ("Mirror Information", copy))
        .into_iter()
        .chain(sources.map(|copy| ("Source Information", copy)))
    {
        columns.section(title);
        columns.row("Stream Name", text(copy, "/name"));
        let filter = text(copy, "/filter_subject");
        columns.some("Subject Filter", (!filter.is_empty()).then_some(filter));
        columns.row("Lag", units::show_count(count(copy, "/lag")));
        columns.row(
            "Last Seen",
            match number(copy, "/active") {
                active if active > 0 => units::show_duration(duration(copy, "/active")),
                _ => "never".to_owned(),
            },
        );
        let error = text(copy, "/error/description");
        columns.some("Error", (!error.is_empty()).then_some(error));
    }
    if let Some(cluster) = info
        .get("cluster")
        .filter(|cluster| cluster.get("name").is_some())
    {
        columns.section("Cluster Information");
        columns.row("Name", text(cluster, "/name"));
        columns.row("Leader", text(cluster, "/leader"));
        for replica in cluster["replicas"].as_array().into_iter().flatten() {
            let current = if flag(replica, "/current") {
                "current"
            } else {
                "outdated"
            };
            columns.row("Replica", format!("{}, {current}", text(replica, "/name")));
        }
    }
}

fn state(columns: &mut Columns, info: &Value) {
    columns.section("State");
    let state = &info["state"];
    columns.row("Messages", units::show_count(count(state, "/messages")));
    columns.row("Bytes", units::show_bytes(count(state, "/bytes")));
    if let Some(lost) = state.pointer("/lost/msgs").and_then(Value::as_array) {
        let bytes = units::show_bytes(count(state, "/lost/bytes"));
        columns.row(
            "Lost Messages",
            format!("{} ({bytes})", units::show_count(lost.len() as u64)),
        );
    }
    for (label, sequence, moment) in [
        ("First Sequence", "/first_seq", "/first_ts"),
        ("Last Sequence", "/last_seq", "/last_ts"),
    ] {
        let sequence = units::show_count(count(state, sequence));
        columns.row(
            label,
            match time(state, moment) {
                Some(moment) => format!("{sequence} @ {}", units::show_time(moment)),
                None => sequence,
            },
        );
    }
    columns.some("Deleted Messages", some(count(state, "/num_deleted")));
    columns.row(
        "Active Consumers",
        units::show_count(count(state, "/consumer_count")),
    );
    columns.some("Number of Subjects", some(count(state, "/num_subjects")));
}

/// Prints the table of `ls`.
pub fn print_list(streams: &[Value]) -> Result<(), Failure> {
    let mut table = Boxed::new(
        "Streams",
        &[
            "Name",
            "Description",
            "Created",
            "Messages",
            "Size",
            "Last Message",
        ],
    );
    let now = Timestamp::now();
    for stream in streams {
        table.row([
            text(stream, "/config/name").to_owned(),
            text(stream, "/config/description").to_owned(),
            time(stream, "/created").map(units::show_time).unwrap_or_default(),
            units::show_count(count(stream, "/state/messages")),
            units::show_bytes(count(stream, "/state/bytes")),
            units::show_since(time(stream, "/state/last_ts"), now),
        ]);
    }
    table.print()
}

/// Prints the table of `report`.
pub fn print_report(streams: &[Value]) -> Result<(), Failure> {
    let mut table = Boxed::new(
        "Stream Report",
        &[
            "Stream",
            "Storage",
            "Retention",
            "Consumers",
            "Messages",
            "Bytes",
            "Lost",
            "Deleted",
            "Last Message",
        ],
    );
    let now = Timestamp::now();
    for stream in streams {
        let lost = stream.pointer("/state/lost/msgs").and_then(Value::as_array);
        table.row([
            text(stream, "/config/name").to_owned(),
            capital(text(stream, "/config/storage")),
            capital(text(stream, "/config/retention")),
            units::show_count(count(stream, "/state/consumer_count")),
            units::show_count(count(stream, "/state/messages")),
            units::show_bytes(count(stream, "/state/bytes")),
            units::show_count(lost.map_or(0, |lost| lost.len() as u64)),
            units::show_count(count(stream, "/state/num_deleted")),
            units::show_since(time(stream, "/state/last_ts"), now),
        ]);
    }
    table.print()
}

/// Prints what an edit changes, a line a field.
pub fn print_differences(old: &Value, new: &Value) -> Result<bool, Failure> {
    let empty = serde_json::Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let mut lines = Vec::new();
    for field in old
        .keys()
        .chain(new.keys().filter(|field| !old.contains_key(*field)))
    {
        let (before, after) = (old.get(field), new.get(field));
        if before != after {
            lines.extend(before.map(|value| format!("- {field}: {value}")));
            lines.extend(after.map(|value| format!("+ {field}: {value}")));
        }
    }
    if !lines.is_empty() {
        output::note("Differences (-old +new):");
        for line in &lines {
            output::talk(line);
        }
    }
    Ok(!lines.is_empty())
}
