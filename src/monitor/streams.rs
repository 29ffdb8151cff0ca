//! JetStream as a [`Source`]: `/jsz`, its part of `/varz` and `/healthz`, and the metrics of streams and consumers.

use std::sync::Arc;

use crate::account::GLOBAL;
use crate::jetstream::delivery::ConsumerInfo;
use crate::jetstream::stream::config::Storage;
use crate::jetstream::stream::{Stream, Tallied};
use crate::jetstream::{self, PerAccount};
use crate::protocol::info::API_LEVEL;
use crate::store;

use super::consumers;
use super::source::{
    AccountDetail, Ailment, ApiStats, Detail, Family, JetStream, JetStreamConfig, JetStreamLimits, Labels,
    Scope, Source, StreamDetail, Value,
};

/// Streams and consumers with metrics of their own: the first by name. What Prometheus keeps grows with each, so those
/// beyond are counted instead.
pub(super) const STREAMS_SHOWN_MAX: usize = 1000;
const CONSUMERS_SHOWN_MAX: usize = 2000;

/// See the module documentation.
pub struct Streams {
    accounts: Arc<PerAccount>,
}

impl Streams {
    /// Shows what the accounts hold.
    pub fn new(accounts: Arc<PerAccount>) -> Self {
        Self { accounts }
    }

    fn config(&self) -> JetStreamConfig {
        let common = self.accounts.common();
        let store = common.store.as_ref();
        let sync = store.map(store::Store::sync);
        // Without limits of our own what bounds streams is what the machine has.
        let (max_memory, max_storage) = common.bytes_max;
        JetStreamConfig {
            max_memory,
            max_storage,
            store_dir: store.map_or_else(String::new, |store| store.dir().display().to_string()),
            sync_interval: match sync {
                Some(store::Sync::Interval(every)) => every,
                _ => std::time::Duration::ZERO,
            },
            sync_always: sync == Some(store::Sync::Always),
            domain: common.domain.clone().unwrap_or_default(),
            strict: common.strict,
        }
    }

    fn snapshot(&self) -> jetstream::Snapshot {
        let each = self.accounts.all();
        let each = each.iter().map(|(_, jetstream)| jetstream.snapshot());
        each.fold(jetstream::Snapshot::default(), |sum, one| sum + one)
    }

    /// The streams of all accounts, by account and name.
    fn streams(&self) -> Vec<Placed> {
        let mut all = Vec::new();
        for (account, jetstream) in self.accounts.all() {
            let streams = jetstream.streams().into_iter().map(|stream| Placed {
                account: account.clone(),
                jetstream: jetstream.clone(),
                stream,
            });
            all.extend(streams);
        }
        all
    }
}

/// A stream and where it belongs.
struct Placed {
    account: Arc<str>,
    jetstream: Arc<jetstream::JetStream>,
    stream: Arc<Stream>,
}

impl Placed {
    /// The account is named where it is not everyone's: a label that is empty is one that is not there.
    fn labels(&self) -> Labels {
        let account = Some(&self.account).filter(|name| &***name != GLOBAL);
        let account = account.map(|name| ("account", name.to_string()));
        let stream = ("stream", self.stream.name().to_owned());
        account.into_iter().chain([stream]).collect()
    }
}

fn account(name: &str, jetstream: &jetstream::JetStream, wanted: &Detail) -> AccountDetail {
    let streams = if wanted.streams {
        let streams = jetstream.streams();
        streams
            .iter()
            .map(|stream| detail(jetstream, stream, wanted))
            .collect()
    } else {
        Vec::new()
    };
    let (sums, limits) = (jetstream.snapshot(), jetstream.limits());
    // As nats-server shows an account without limits.
    let reserved = |max: i64| u64::try_from(max).unwrap_or(u64::MAX);
    AccountDetail {
        name: name.to_owned(),
        id: name.to_owned(),
        memory: sums.memory,
        storage: sums.storage,
        reserved_memory: reserved(limits.memory),
        reserved_storage: reserved(limits.storage),
        accounts: 0,
        ha_assets: 0,
        api: ApiStats {
            level: 0,
            total: sums.api_total,
            errors: sums.api_errors,
            inflight: 0,
        },
        stream_detail: streams,
    }
}

fn detail(jetstream: &jetstream::JetStream, stream: &Stream, wanted: &Detail) -> StreamDetail {
    let mut info = stream.info();
    info.leader = Some(jetstream.options().server_name.clone());
    StreamDetail {
        info,
        consumers: if wanted.consumers {
            consumers::of(jetstream, stream.name())
        } else {
            Vec::new()
        },
        config: wanted.config,
    }
}

impl Source for Streams {
    fn jetstream(&self, wanted: &Detail) -> Option<JetStream> {
        let sums = self.snapshot();
        let all = self.accounts.all();
        // A named account is shown whatever the page; an unknown one is not there, without a word.
        let shown = all
            .iter()
            .enumerate()
            .filter(|(at, (name, _))| match &wanted.account {
                Some(named) => **named == **name,
                None => *at >= wanted.offset && at - wanted.offset < wanted.limit,
            });
        let shown = shown.filter(|_| wanted.accounts);
        Some(JetStream {
            memory: sums.memory,
            storage: sums.storage,
            reserved_memory: sums.reserved_memory,
            reserved_storage: sums.reserved_storage,
            accounts: all.len(),
            api: ApiStats {
                level: API_LEVEL,
                total: sums.api_total,
                errors: sums.api_errors,
                inflight: 0,
            },
            config: self.config(),
            limits: JetStreamLimits::default(),
            streams: sums.streams as usize,
            consumers: sums.consumers as usize,
            messages: sums.messages,
            bytes: sums.bytes,
            account_details: shown
                .map(|(_, (name, jetstream))| account(name, jetstream, wanted))
                .collect(),
        })
    }

    fn ailments(&self, scope: &Scope) -> Vec<Ailment> {
        if scope.enabled_only || scope.server_only {
            return Vec::new();
        }
        let missing = missing(&self.accounts, scope);
        offline(&self.accounts, scope)
            .into_iter()
            .chain(missing)
            .collect()
    }

    fn families(&self) -> Vec<Family> {
        let mut families = sums(&self.snapshot());
        let streams = self.streams();
        let shown = &streams[..streams.len().min(STREAMS_SHOWN_MAX)];
        let hidden = streams.len() - shown.len();
        families.push(gauge(
            "mesh_streams_hidden",
            "Streams beyond the first 1000 by name, which have no metrics of their own.",
            hidden as u64,
        ));
        families.extend(of_streams(shown));
        families.extend(of_consumers(shown));
        families
    }
}

/// The streams within `scope` that are not served.
fn offline(accounts: &PerAccount, scope: &Scope) -> Vec<Ailment> {
    let mut found = Vec::new();
    for (account, jetstream) in accounts.all() {
        for stream in jetstream.offline() {
            let (asked, asked_account) = (scope.stream.as_deref(), scope.account.as_deref());
            let is_meant = asked.is_none_or(|asked| stream.name.as_deref() == Some(asked))
                && asked_account.is_none_or(|asked| asked == &*account);
            if !is_meant {
                continue;
            }
            let shown = stream
                .name
                .clone()
                .unwrap_or_else(|| format!("(key {})", stream.id));
            found.push(Ailment {
                kind: "STREAM",
                serves: true,
                account: Some(account.to_string()),
                stream: stream.name,
                error: format!("stream {shown} is offline: {}", stream.why),
                fix: Some(
                    "the other streams are served; stop the server and run `mesh store check --repair`, or delete the stream"
                        .to_owned(),
                ),
                ..Ailment::default()
            });
        }
    }
    found
}

/// What is asked about and not there.
fn missing(accounts: &PerAccount, scope: &Scope) -> Option<Ailment> {
    let account = scope.account.clone()?;
    let (stream, consumer) = (scope.stream.clone(), scope.consumer.clone());
    let ailment = |kind, error| {
        Some(Ailment {
            kind,
            missing: true,
            account: scope.account.clone(),
            error,
            ..Ailment::default()
        })
    };
    let Some(jetstream) = accounts.get(&account) else {
        return ailment("ACCOUNT", format!("JetStream account {account:?} not found"));
    };
    let name = stream?;
    if jetstream.stream(&name).is_none() {
        let error = format!("JetStream stream {name:?} not found on account {account:?}");
        let mut ailment = ailment("STREAM", error)?;
        ailment.stream = Some(name);
        return Some(ailment);
    }
    let consumer = consumer?;
    if consumers::has(&jetstream, &name, &consumer) {
        return None;
    }
    let error =
        format!("JetStream consumer {consumer:?} not found for stream {name:?} on account {account:?}");
    let mut ailment = ailment("CONSUMER", error)?;
    (ailment.stream, ailment.consumer) = (Some(name), Some(consumer));
    Some(ailment)
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Counter(value as f64))
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(name, help, Value::Gauge(value as f64))
}

/// What all streams add up to: the same figures as on `/jsz`.
fn sums(sums: &jetstream::Snapshot) -> Vec<Family> {
    vec![
        gauge("mesh_jetstream_streams", "Streams.", sums.streams),
        gauge(
            "mesh_jetstream_consumers",
            "Consumers of all streams.",
            sums.consumers,
        ),
        gauge(
            "mesh_jetstream_messages",
            "Messages of all streams.",
            sums.messages,
        ),
        gauge(
            "mesh_jetstream_memory_bytes",
            "Bytes of memory streams.",
            sums.memory,
        ),
        gauge(
            "mesh_jetstream_storage_bytes",
            "Bytes of file streams.",
            sums.storage,
        ),
        counter(
            "mesh_jetstream_api_requests_total",
            "Requests to the JetStream API.",
            sums.api_total,
        ),
        counter(
            "mesh_jetstream_api_errors_total",
            "Of them, answered with an error.",
            sums.api_errors,
        ),
    ]
}

/// One family over streams: `value` says what a stream shows, if it does.
fn over(
    streams: &[Placed],
    name: &'static str,
    help: &'static str,
    value: impl Fn(usize) -> Option<Value>,
) -> Family {
    let samples = streams.iter().enumerate();
    Family::many(
        name,
        help,
        samples
            .filter_map(|(at, stream)| Some((stream.labels(), value(at)?)))
            .collect(),
    )
}

fn of_streams(streams: &[Placed]) -> Vec<Family> {
    // Each stream once, so that its figures are of one moment.
    let states: Vec<_> = streams.iter().map(|placed| placed.stream.state()).collect();
    let configs: Vec<_> = streams.iter().map(|placed| placed.stream.config()).collect();
    let tallied: Vec<_> = streams.iter().map(|placed| placed.stream.tallied()).collect();
    let counter = |value: u64| Some(Value::Counter(value as f64));
    let gauge = |value: u64| Some(Value::Gauge(value as f64));
    let limit = |value: i64| (value > 0).then_some(Value::Gauge(value as f64));
    vec![
        over(streams, "mesh_stream_messages", "Messages in a stream.", |at| {
            gauge(states[at].messages)
        }),
        over(
            streams,
            "mesh_stream_bytes",
            "Bytes of a stream, as its limits count them.",
            |at| gauge(states[at].bytes),
        ),
        over(
            streams,
            "mesh_stream_first_sequence",
            "First sequence of a stream.",
            |at| gauge(states[at].first_seq),
        ),
        over(
            streams,
            "mesh_stream_last_sequence",
            "Highest sequence of a stream.",
            |at| gauge(states[at].last_seq),
        ),
        over(
            streams,
            "mesh_stream_subjects",
            "Subjects with messages in a stream.",
            |at| gauge(states[at].subjects),
        ),
        over(
            streams,
            "mesh_stream_deleted_messages",
            "Sequences between first and last of a stream that hold no message.",
            |at| gauge(states[at].deleted),
        ),
        over(streams, "mesh_stream_consumers", "Consumers of a stream.", |at| {
            gauge(states[at].consumers)
        }),
        over(
            streams,
            "mesh_stream_messages_max",
            "Messages a stream may hold, where limited.",
            |at| limit(configs[at].max_msgs),
        ),
        over(
            streams,
            "mesh_stream_bytes_max",
            "Bytes a stream may hold, where limited.",
            |at| limit(configs[at].max_bytes),
        ),
        over(
            streams,
            "mesh_stream_durable",
            "Whether what a stream acknowledges outlives a restart: 0 for memory streams.",
            |at| gauge(u64::from(configs[at].storage == Storage::File)),
        ),
        over(
            streams,
            "mesh_stream_published_total",
            "Messages stored since the start, durable where the stream is.",
            |at| counter(tallied[at].stored),
        ),
        over(
            streams,
            "mesh_stream_duplicates_total",
            "Messages answered as duplicates since the start.",
            |at| counter(tallied[at].duplicates),
        ),
        refused(streams, &tallied),
    ]
}

/// Refusals, for the reasons that were met: most streams refuse nothing.
fn refused(streams: &[Placed], tallied: &[Tallied]) -> Family {
    let mut samples = Vec::new();
    for (stream, tallied) in streams.iter().zip(tallied) {
        for &(reason, count) in tallied.refused.iter().filter(|(_, count)| *count > 0) {
            let mut labels = stream.labels();
            labels.push(("reason", reason.to_owned()));
            samples.push((labels, Value::Counter(count as f64)));
        }
    }
    Family::many(
        "mesh_stream_refused_total",
        "Messages refused since the start, by reason.",
        samples,
    )
}

fn of_consumers(streams: &[Placed]) -> Vec<Family> {
    let mut found: Vec<(Labels, ConsumerInfo)> = Vec::new();
    let mut hidden = 0u64;
    for placed in streams {
        for consumer in consumers::of(&placed.jetstream, placed.stream.name()) {
            if found.len() == CONSUMERS_SHOWN_MAX {
                hidden += 1;
                continue;
            }
            let mut labels = placed.labels();
            labels.push(("consumer", consumer.name.clone()));
            found.push((labels, consumer));
        }
    }
    let family = |name, help, value: fn(&ConsumerInfo) -> Value| {
        let samples = found.iter().map(|(labels, one)| (labels.clone(), value(one)));
        Family::many(name, help, samples.collect())
    };
    let with_limit = found.iter().filter(|(_, one)| one.config.max_ack_pending > 0);
    let limited = Family::many(
        "mesh_consumer_ack_pending_max",
        "Messages a consumer may have delivered and not settled, where limited.",
        with_limit
            .map(|(labels, one)| (labels.clone(), Value::Gauge(one.config.max_ack_pending as f64)))
            .collect(),
    );
    vec![
        gauge(
            "mesh_consumers_hidden",
            "Consumers of the streams shown beyond the first 2000, which have no metrics of their own.",
            hidden,
        ),
        family(
            "mesh_consumer_pending",
            "Messages a consumer has yet to deliver.",
            |one| Value::Gauge(one.state.num_pending as f64),
        ),
        family(
            "mesh_consumer_ack_pending",
            "Messages a consumer has delivered that are not settled.",
            |one| Value::Gauge(one.state.num_ack_pending as f64),
        ),
        limited,
        family(
            "mesh_consumer_redelivered",
            "Messages not settled that were delivered more than once.",
            |one| Value::Gauge(one.state.num_redelivered as f64),
        ),
        family(
            "mesh_consumer_waiting",
            "Pull requests that wait for messages.",
            |one| Value::Gauge(one.state.num_waiting as f64),
        ),
        family(
            "mesh_consumer_deliveries_total",
            "Deliveries of a consumer, redeliveries included.",
            |one| Value::Counter(one.state.delivered.consumer as f64),
        ),
        family(
            "mesh_consumer_ack_floor_sequence",
            "The stream sequence up to which a consumer has settled everything.",
            |one| Value::Gauge(one.state.ack_floor.stream as f64),
        ),
    ]
}
