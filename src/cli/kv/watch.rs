//! Many keys, or a key over time: lists, history, watching.

use async_nats::HeaderValue;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::kv::{Entry, Operation, Store};
use clap::Args;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::keys::{broken, created, entry_json, operation};
use super::open;
use crate::cli::bucket::{self, Kind};
use crate::cli::output::Boxed;
use crate::cli::{Context, Failure, message, output, units};

/// The longest value a table shows.
const VALUE_CHARS_MAX: usize = 40;

/// Lists the buckets, or the keys of a bucket
#[derive(Args, Debug)]
pub struct List {
    /// Bucket to list the keys of
    bucket: Option<String>,
    /// Only keys that match this
    #[arg(default_value = ">")]
    key: String,
    /// Names of buckets only
    #[arg(long, short)]
    names: bool,
    /// Shows revisions and times of the keys
    #[arg(long, short)]
    verbose: bool,
    /// Shows values, too
    #[arg(long)]
    display_value: bool,
}

impl List {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(bucket) = &self.bucket else {
            return bucket::list(Kind::KeyValue, self.names, context).await;
        };
        let store = open(bucket, context).await?;
        let mut entries = current(&store, &self.key, DeliverPolicy::LastPerSubject).await?;
        entries.retain(|entry| entry.operation == Operation::Put);
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        if context.json {
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            return match self.verbose || self.display_value {
                true => output::print_json(&entries.iter().map(entry_json).collect::<Result<Vec<_>, _>>()?),
                false => output::print_json(&keys),
            };
        }
        if entries.is_empty() {
            output::note("No keys found in bucket");
            return Ok(());
        }
        if !self.verbose && !self.display_value {
            return entries.iter().try_for_each(|entry| output::print(&entry.key));
        }
        let mut headers = vec!["Key", "Created", "Age", "Revision"];
        headers.extend(self.display_value.then_some("Value"));
        let mut table = Boxed::new(format!("Contents for bucket {bucket}"), &headers);
        let now = Timestamp::now();
        for entry in &entries {
            let time = created(entry)?;
            let mut row = vec![
                entry.key.clone(),
                units::show_time(time),
                units::show_since(Some(time), now),
                entry.revision.to_string(),
            ];
            row.extend(self.display_value.then(|| shorten(&entry.value)));
            table.row(row);
        }
        table.print()
    }
}

/// The entries of matching keys as an ordered consumer delivers them.
struct Entries<'a> {
    store: &'a Store,
    messages: Ordered,
    /// How many there were when the consumer was made.
    held: u64,
}

impl<'a> Entries<'a> {
    async fn open(store: &'a Store, key: &str, deliver_policy: DeliverPolicy) -> Result<Self, Failure> {
        let config = OrderedConfig {
            deliver_subject: nuid_inbox(),
            description: Some("mesh kv".to_owned()),
            filter_subject: format!("{}{key}", store.prefix),
            deliver_policy,
            ..OrderedConfig::default()
        };
        let consumer = store.stream.create_consumer(config).await;
        let consumer = consumer.map_err(|error| broken(key, &error))?;
        let held = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| broken(key, &error))?;
        Ok(Self {
            store,
            messages,
            held,
        })
    }

    async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        let Some(message) = self.messages.next().await else {
            return Ok(None);
        };
        let message = message.map_err(|error| broken("watch", &error))?;
        let info = message.info().map_err(Failure::failed)?;
        let operation = match header(&message, "KV-Operation") {
            Some("DEL") => Operation::Delete,
            Some("PURGE") => Operation::Purge,
            // A marker that the server left when it removed the last value by itself.
            _ => match header(&message, "Nats-Marker-Reason") {
                Some("Remove") => Operation::Delete,
                Some(_) => Operation::Purge,
                None => Operation::Put,
            },
        };
        let key = message
            .subject
            .strip_prefix(&self.store.prefix)
            .unwrap_or(&message.subject);
        Ok(Some(Entry {
            bucket: self.store.name.clone(),
            key: key.to_owned(),
            revision: info.stream_sequence,
            delta: info.pending,
            created: info.published,
            operation,
            seen_current: info.pending == 0,
            value: message.payload.clone(),
        }))
    }
}

fn nuid_inbox() -> String {
    format!("_INBOX.{}", nuid::next())
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let headers = message.headers.as_ref()?;
    headers.get(name).map(HeaderValue::as_str)
}

/// What the bucket holds now for matching keys.
async fn current(store: &Store, key: &str, policy: DeliverPolicy) -> Result<Vec<Entry>, Failure> {
    let mut source = Entries::open(store, key, policy).await?;
    let mut entries = Vec::new();
    if source.held == 0 {
        return Ok(entries);
    }
    while let Some(entry) = source.next().await? {
        let last = entry.seen_current;
        entries.push(entry);
        if last {
            break;
        }
    }
    Ok(entries)
}

fn shorten(value: &[u8]) -> String {
    let text = message::printable(value).replace(['\n', '\r'], " ");
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Shows the values that a key has had
#[derive(Args, Debug)]
pub struct History {
    /// Bucket to read from
    bucket: String,
    /// Key to show
    key: String,
}

impl History {
    /// Shows them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let entries = current(&store, &self.key, DeliverPolicy::All).await?;
        if entries.is_empty() {
            return Err(Failure::not_found(format!(
                "{} > {} has no history",
                self.bucket, self.key
            )));
        }
        if context.json {
            return output::print_json(&entries.iter().map(entry_json).collect::<Result<Vec<_>, _>>()?);
        }
        let mut table = Boxed::new(
            format!("History for {} > {}", self.bucket, self.key),
            &["Key", "Revision", "Op", "Created", "Length", "Value"],
        );
        for entry in &entries {
            table.row([
                entry.key.clone(),
                entry.revision.to_string(),
                operation(entry).to_owned(),
                units::show_time(created(entry)?),
                units::show_count(entry.value.len() as u64),
                shorten(&entry.value),
            ]);
        }
        table.print()
    }
}

/// Prints changes of keys as they happen, until Ctrl-C
#[derive(Args, Debug)]
pub struct Watch {
    /// Bucket to watch
    bucket: String,
    /// Keys to watch
    #[arg(default_value = ">")]
    key: String,
    /// Starts with all values kept
    #[arg(long, conflicts_with_all = ["updates", "revision"])]
    history: bool,
    /// Shows changes only, not what is there
    #[arg(long, conflicts_with = "revision")]
    updates: bool,
    /// Starts at this revision
    #[arg(long)]
    revision: Option<u64>,
    /// Leaves out deletions
    #[arg(long)]
    no_deletes: bool,
    /// Ends after this many
    #[arg(long)]
    count: Option<u64>,
}

impl Watch {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let policy = match self.revision {
            Some(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
            None if self.history => DeliverPolicy::All,
            None if self.updates => DeliverPolicy::New,
            None => DeliverPolicy::LastPerSubject,
        };
        let mut entries = Entries::open(&store, &self.key, policy).await?;
        let mut ending = std::pin::pin!(output::interrupted());
        output::note(format!("Watching {} > {}", self.bucket, self.key));
        let mut shown = 0;
        while self.count.is_none_or(|limit| shown < limit) {
            let entry = tokio::select! {
                entry = entries.next() => entry?,
                () = &mut ending => None,
            };
            let Some(entry) = entry else { break };
            if self.no_deletes && entry.operation != Operation::Put {
                continue;
            }
            shown += 1;
            print_change(&entry, context.json)?;
        }
        Ok(())
    }
}

fn print_change(entry: &Entry, json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json_line(&entry_json(entry)?);
    }
    let time = units::show_time(created(entry)?);
    let head = format!("[{time}] {} {} > {}", operation(entry), entry.bucket, entry.key);
    match entry.operation {
        Operation::Put => output::print(format!("{head}: {}", message::printable(&entry.value))),
        _ => output::print(head),
    }
}
