//! Every field of a stream's configuration as a flag, for `add` and `edit`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::switches::{Switch, Switches, Table};
use crate::cli::{api, units};

/// What of a stream's configuration was given.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Subjects the stream takes in (several with commas or by repeating; default its name)
    #[arg(long, value_name = "SUBJECTS", value_delimiter = ',')]
    pub subjects: Vec<String>,
    /// What the stream is for
    #[arg(long)]
    description: Option<String>,
    /// Where messages are kept (cannot be changed later)
    #[arg(long, value_enum)]
    storage: Option<Storage>,
    /// How messages are compressed on disk
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// When messages go: by limits, when no consumer wants them, or when one has acknowledged them
    #[arg(long, value_enum)]
    retention: Option<Retention>,
    /// What gives way at a limit: old messages, or new ones
    #[arg(long, value_enum)]
    discard: Option<Discard>,
    /// How long messages are kept; 0 for ever
    #[arg(long, value_name = "DURATION", value_parser = units::age, allow_hyphen_values = true)]
    max_age: Option<i64>,
    /// How many bytes are kept; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = units::bytes, allow_hyphen_values = true)]
    max_bytes: Option<i64>,
    /// How many messages are kept; -1 for no limit
    #[arg(long, value_name = "N", value_parser = units::limit, allow_hyphen_values = true)]
    max_msgs: Option<i64>,
    /// How many messages of each subject are kept; -1 for no limit
    #[arg(long, value_name = "N", value_parser = units::limit, allow_hyphen_values = true)]
    max_msgs_per_subject: Option<i64>,
    /// How large one message may be; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = units::bytes, allow_hyphen_values = true)]
    max_msg_size: Option<i64>,
    /// How many consumers there may be; -1 for no limit
    #[arg(long, value_name = "N", value_parser = units::limit, allow_hyphen_values = true)]
    max_consumers: Option<i64>,
    /// How long message ids are remembered, to drop duplicates
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    dupe_window: Option<i64>,
    /// The sequence of the first message
    #[arg(long, value_name = "SEQUENCE")]
    first_sequence: Option<u64>,
    /// Copies of the data in a cluster
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// Server tags to place the stream by, as often as needed
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Cluster to place the stream in
    #[arg(long)]
    cluster: Option<String>,
    /// Mirrors another stream
    #[arg(long, value_name = "STREAM")]
    mirror: Option<String>,
    /// Stops mirroring
    #[arg(long, conflicts_with = "mirror")]
    no_mirror: bool,
    /// Merges another stream into this one, as often as needed
    #[arg(long, value_name = "STREAM")]
    source: Vec<String>,
    /// Subjects that a transform changes
    #[arg(long, value_name = "SUBJECT")]
    transform_source: Option<String>,
    /// What the transform makes of them
    #[arg(long, value_name = "SUBJECT")]
    transform_destination: Option<String>,
    /// Removes the transform
    #[arg(long)]
    no_transform: bool,
    /// Subjects to publish again once stored
    #[arg(long, value_name = "SUBJECT")]
    republish_source: Option<String>,
    /// Where to publish them
    #[arg(long, value_name = "SUBJECT")]
    republish_destination: Option<String>,
    /// Publishes only headers again
    #[arg(long)]
    republish_headers: bool,
    /// Stops publishing again
    #[arg(long)]
    no_republish: bool,
    /// How long the marker of a removed subject stays
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    subject_del_markers_ttl: Option<i64>,
    /// The longest inactive threshold a consumer may have
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    limit_consumer_inactive: Option<i64>,
    /// The most unacknowledged messages a consumer may have
    #[arg(long, value_name = "N")]
    limit_consumer_max_pending: Option<i64>,
    /// How messages reach the disk
    #[arg(long, value_enum)]
    persist_mode: Option<PersistMode>,
    /// Sets metadata, as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = api::pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    switches: Switches<StreamSwitches>,
}

/// The storages of a stream.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Storage {
    /// On disk
    #[value(alias = "f")]
    File,
    /// In memory: gone with the server
    #[value(alias = "m")]
    Memory,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    None,
    S2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Retention {
    Limits,
    Interest,
    #[value(alias = "workq", alias = "workqueue")]
    Work,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Discard {
    Old,
    New,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PersistMode {
    Default,
    Async,
}

/// The word of the wire for a choice.
pub fn word(choice: impl ValueEnum) -> Value {
    let name = choice
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    Value::from(name.unwrap_or_default())
}

#[derive(Clone, Debug)]
struct StreamSwitches;

const fn switch(flag: &'static str, off: &'static str, field: &'static str, help: &'static str) -> Switch {
    Switch {
        flag,
        off,
        field,
        inverted: false,
        help,
    }
}

impl Table for StreamSwitches {
    const ROWS: &'static [Switch] = &[
        Switch {
            flag: "ack",
            off: "no-ack",
            field: "no_ack",
            inverted: true,
            help: "Acknowledges publishes",
        },
        switch(
            "allow-batch",
            "no-allow-batch",
            "allow_atomic",
            "Takes atomic batches",
        ),
        switch(
            "allow-counter",
            "no-allow-counter",
            "allow_msg_counter",
            "Counts instead of storing bodies",
        ),
        switch(
            "allow-direct",
            "no-allow-direct",
            "allow_direct",
            "Answers direct gets",
        ),
        switch(
            "allow-fast",
            "no-allow-fast",
            "allow_batched",
            "Takes fast batches",
        ),
        switch(
            "allow-mirror-direct",
            "no-allow-mirror-direct",
            "mirror_direct",
            "Answers direct gets for its origin",
        ),
        switch(
            "allow-msg-ttl",
            "no-allow-msg-ttl",
            "allow_msg_ttl",
            "Lets messages say how long they live",
        ),
        switch(
            "allow-rollup",
            "no-allow-rollup",
            "allow_rollup_hdrs",
            "Lets a message replace those before it",
        ),
        switch(
            "allow-schedules",
            "no-allow-schedules",
            "allow_msg_schedules",
            "Takes messages to be published later",
        ),
        switch(
            "deny-delete",
            "no-deny-delete",
            "deny_delete",
            "Refuses to delete single messages",
        ),
        switch("deny-purge", "no-deny-purge", "deny_purge", "Refuses to purge"),
        switch(
            "discard-per-subject",
            "no-discard-per-subject",
            "discard_new_per_subject",
            "Refuses new messages by the limit of their subject",
        ),
    ];
}

impl Flags {
    /// Sets what was given, and leaves the rest of the configuration as it is.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                config.insert(field.to_owned(), value);
            }
        };
        set(
            "subjects",
            (!self.subjects.is_empty()).then(|| json!(self.subjects)),
        );
        set("description", self.description.clone().map(Value::from));
        set("storage", self.storage.map(word));
        set("compression", self.compression.map(word));
        set(
            "retention",
            self.retention.map(|retention| match retention {
                Retention::Work => "workqueue".into(),
                other => word(other),
            }),
        );
        set("discard", self.discard.map(word));
        for (field, number) in [
            ("max_age", self.max_age),
            ("max_bytes", self.max_bytes),
            ("max_msgs", self.max_msgs),
            ("max_msgs_per_subject", self.max_msgs_per_subject),
            ("max_msg_size", self.max_msg_size),
            ("max_consumers", self.max_consumers),
            ("duplicate_window", self.dupe_window),
            ("subject_delete_marker_ttl", self.subject_del_markers_ttl),
        ] {
            set(field, number.map(Value::from));
        }
        set("first_seq", self.first_sequence.map(Value::from));
        set("num_replicas", self.replicas.map(Value::from));
        set("persist_mode", self.persist_mode.map(word));
        set(
            "metadata",
            (!self.metadata.is_empty()).then(|| api::metadata(&self.metadata)),
        );
        self.switches.apply(config);
        if self.switches.sets("discard_new_per_subject") {
            config.insert("discard".to_owned(), "new".into());
        }
        self.apply_placement(config);
        self.apply_copies(config);
    }

    fn apply_placement(&self, config: &mut Map<String, Value>) {
        if !self.tag.is_empty() || self.cluster.is_some() {
            config.insert(
                "placement".to_owned(),
                json!({"cluster": self.cluster.clone().unwrap_or_default(), "tags": self.tag}),
            );
        }
        let limits = [
            ("inactive_threshold", self.limit_consumer_inactive),
            ("max_ack_pending", self.limit_consumer_max_pending),
        ];
        for (field, limit) in limits {
            if let Some(limit) = limit {
                let limits = config.entry("consumer_limits").or_insert_with(|| json!({}));
                limits[field] = limit.into();
            }
        }
    }

    /// Mirrors, sources, transforms and republishing: where messages come from and go to.
    fn apply_copies(&self, config: &mut Map<String, Value>) {
        for (gone, field) in [
            (self.no_mirror, "mirror"),
            (self.no_transform, "subject_transform"),
            (self.no_republish, "republish"),
        ] {
            if gone {
                config.remove(field);
            }
        }
        if let Some(name) = &self.mirror {
            config.insert("mirror".to_owned(), json!({ "name": name }));
        }
        if !self.source.is_empty() {
            let sources: Vec<Value> = self.source.iter().map(|name| json!({ "name": name })).collect();
            config.insert("sources".to_owned(), sources.into());
        }
        if let Some(destination) = &self.transform_destination {
            let source = self.transform_source.clone().unwrap_or_default();
            let transform = json!({"src": source, "dest": destination});
            config.insert("subject_transform".to_owned(), transform);
        }
        if let Some(destination) = &self.republish_destination {
            let source = self.republish_source.clone().unwrap_or_default();
            let republish = json!({
                "src": source, "dest": destination, "headers_only": self.republish_headers,
            });
            config.insert("republish".to_owned(), republish);
        }
    }
}
