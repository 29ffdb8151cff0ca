//! Every field of a consumer's configuration as a flag, for `add` and `edit`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::stream::word;
use crate::cli::switches::{Switch, Switches, Table};
use crate::cli::units::{self, Direction};
use crate::cli::{Failure, api};

/// What of a consumer's configuration was given.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// What the consumer is for
    #[arg(long)]
    description: Option<String>,
    /// Takes only these subjects (several with commas or by repeating)
    #[arg(long, value_name = "SUBJECTS", value_delimiter = ',')]
    filter: Vec<String>,
    /// How messages are acknowledged (default explicit)
    #[arg(long, value_enum)]
    ack: Option<AckPolicy>,
    /// Where to start: all, new, last, subject (the last of each), a sequence, an age like 1h, or a time
    #[arg(long, value_name = "POLICY")]
    deliver: Option<String>,
    /// How fast stored messages come: at once, or as they were published
    #[arg(long, value_enum)]
    replay: Option<ReplayPolicy>,
    /// How long an acknowledgment may take before the message comes again
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    wait: Option<i64>,
    /// How often a message is delivered at most; -1 for no limit
    #[arg(long, value_name = "N", value_parser = units::limit, allow_hyphen_values = true)]
    max_deliver: Option<i64>,
    /// How many messages may be unacknowledged; -1 for no limit
    #[arg(long, alias = "max-outstanding", value_name = "N", value_parser = units::limit, allow_hyphen_values = true)]
    max_pending: Option<i64>,
    /// How many pulls may wait
    #[arg(long, value_name = "N")]
    max_waiting: Option<i64>,
    /// The most messages one pull may ask for
    #[arg(long, value_name = "N")]
    max_pull_batch: Option<i64>,
    /// The longest one pull may wait
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    max_pull_expire: Option<i64>,
    /// The most bytes one pull may ask for
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    max_pull_bytes: Option<i64>,
    /// Pauses before redeliveries, as a list: 1s,5s,1m
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = units::duration)]
    backoff: Vec<Duration>,
    /// Pushes messages to this subject instead of waiting to be asked
    #[arg(long, value_name = "SUBJECT")]
    target: Option<String>,
    /// The queue group that shares pushed messages
    #[arg(long, value_name = "GROUP")]
    deliver_group: Option<String>,
    /// How often a quiet push consumer says that it lives
    #[arg(long, value_name = "DURATION", value_parser = units::age, allow_hyphen_values = true)]
    heartbeat: Option<i64>,
    /// Limits pushed messages to so many bits a second
    #[arg(long, value_name = "BITS")]
    bps: Option<u64>,
    /// Publishes a metric for this share of acknowledgments, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    sample: Option<u8>,
    /// Removes the consumer after so long without a client
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    inactive_threshold: Option<i64>,
    /// Copies of the consumer's state in a cluster
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// Delivers nothing until then: 1h, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    pause: Option<String>,
    /// Groups of which one client at a time is served
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pinned_groups: Vec<String>,
    /// How long a served client may be away
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    pinned_ttl: Option<i64>,
    /// Groups that are served when others cannot keep up
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    overflow_groups: Vec<String>,
    /// Groups whose clients say how urgent they are
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    prioritized_groups: Vec<String>,
    /// Sets metadata, as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = api::pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    switches: Switches<ConsumerSwitches>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum AckPolicy {
    None,
    All,
    Explicit,
    FlowControl,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReplayPolicy {
    Instant,
    Original,
}

#[derive(Clone, Debug)]
struct ConsumerSwitches;

impl Table for ConsumerSwitches {
    const ROWS: &'static [Switch] = &[
        Switch {
            flag: "flow-control",
            off: "no-flow-control",
            field: "flow_control",
            inverted: false,
            help: "Keeps a push consumer from running ahead",
        },
        Switch {
            flag: "headers-only",
            off: "no-headers-only",
            field: "headers_only",
            inverted: false,
            help: "Delivers headers without bodies",
        },
        Switch {
            flag: "memory",
            off: "no-memory",
            field: "mem_storage",
            inverted: false,
            help: "Keeps the state in memory only",
        },
    ];
}

impl Flags {
    /// Sets what was given, and leaves the rest of the configuration as it is.
    pub fn apply(&self, config: &mut Map<String, Value>) -> Result<(), Failure> {
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                config.insert(field.to_owned(), value);
            }
        };
        set("description", self.description.clone().map(Value::from));
        set("ack_policy", self.ack.map(word));
        set("replay_policy", self.replay.map(word));
        for (field, number) in [
            ("ack_wait", self.wait),
            ("max_deliver", self.max_deliver),
            ("max_ack_pending", self.max_pending),
            ("max_waiting", self.max_waiting),
            ("max_batch", self.max_pull_batch),
            ("max_expires", self.max_pull_expire),
            ("max_bytes", self.max_pull_bytes),
            ("idle_heartbeat", self.heartbeat),
            ("inactive_threshold", self.inactive_threshold),
            ("priority_timeout", self.pinned_ttl),
        ] {
            set(field, number.map(Value::from));
        }
        set("deliver_subject", self.target.clone().map(Value::from));
        set("deliver_group", self.deliver_group.clone().map(Value::from));
        set("rate_limit_bps", self.bps.map(Value::from));
        set("sample_freq", self.sample.map(|share| format!("{share}%").into()));
        set("num_replicas", self.replicas.map(Value::from));
        let backoff: Vec<i64> = self.backoff.iter().copied().map(units::nanos).collect();
        set("backoff", (!backoff.is_empty()).then(|| json!(backoff)));
        set(
            "metadata",
            (!self.metadata.is_empty()).then(|| api::metadata(&self.metadata)),
        );
        for (policy, groups) in [
            ("pinned_client", &self.pinned_groups),
            ("overflow", &self.overflow_groups),
            ("prioritized", &self.prioritized_groups),
        ] {
            if !groups.is_empty() {
                set("priority_policy", Some(policy.into()));
                set("priority_groups", Some(json!(groups)));
            }
        }
        if let Some(until) = &self.pause {
            set(
                "pause_until",
                Some(moment(until, Direction::Ahead)?.to_string().into()),
            );
        }
        self.switches.apply(config);
        self.apply_filter(config);
        self.apply_start(config)
    }

    fn apply_filter(&self, config: &mut Map<String, Value>) {
        match self.filter.as_slice() {
            [] => return,
            [one] => config.insert("filter_subject".to_owned(), json!(one)),
            many => config.insert("filter_subjects".to_owned(), json!(many)),
        };
        let other = if self.filter.len() == 1 {
            "filter_subjects"
        } else {
            "filter_subject"
        };
        config.remove(other);
    }

    /// `--deliver` names a policy, or the sequence, age or time that one needs.
    fn apply_start(&self, config: &mut Map<String, Value>) -> Result<(), Failure> {
        let Some(start) = &self.deliver else { return Ok(()) };
        let mut set = |field: &str, value: Value| config.insert(field.to_owned(), value);
        match start.as_str() {
            "all" | "new" | "last" => {
                set("deliver_policy", start.as_str().into());
            }
            "subject" | "last_per_subject" => {
                set("deliver_policy", "last_per_subject".into());
            }
            start if start.bytes().all(|byte| byte.is_ascii_digit()) && !start.is_empty() => {
                let sequence: u64 = start.parse().map_err(Failure::usage)?;
                set("deliver_policy", "by_start_sequence".into());
                set("opt_start_seq", sequence.into());
            }
            start => {
                let time = moment(start, Direction::Back)?;
                set("deliver_policy", "by_start_time".into());
                set("opt_start_time", time.to_string().into());
            }
        }
        Ok(())
    }
}

/// A time given as such, or by how far it is away.
pub fn moment(text: &str, direction: Direction) -> Result<Timestamp, Failure> {
    units::instant(text, Timestamp::now(), direction).map_err(Failure::usage)
}
