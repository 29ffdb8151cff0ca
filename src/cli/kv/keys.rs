//! Single keys: read, write, write only if unchanged, remove.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::kv::{Entry, Operation, Store};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{open, open_with};
use crate::cli::bucket::{self, Kind};
use crate::cli::{Context, Failure, message, output, units};

/// Checks a key: the letters that buckets allow, in tokens that are not empty.
pub(super) fn key(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
    match !text.is_empty() && text.bytes().all(letter) && text.split('.').all(|token| !token.is_empty()) {
        true => Ok(text.to_owned()),
        false => {
            Err("a key has only letters, digits and - / _ = . with no dot first, last or doubled".to_owned())
        }
    }
}

/// Sets a key to a value
#[derive(Args, Debug)]
pub struct Put {
    /// Bucket to write to
    bucket: String,
    /// Key to set
    #[arg(value_parser = key)]
    key: String,
    /// Value; `-`, or nothing with stdin redirected, reads stdin
    value: Option<String>,
}

impl Put {
    /// Sets it, and prints the value as the tool of NATS does, or the revision.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let value = message::body(self.value.as_deref())?;
        let revision = store
            .put(&self.key, value.clone())
            .await
            .map_err(|error| broken(&self.key, &error))?;
        written(&self.bucket, &self.key, &value, revision, context)
    }
}

/// Sets a key to a value if it has none
#[derive(Args, Debug)]
#[command(after_help = "Exit code 5 if the key has a value.")]
pub struct Create {
    /// Bucket to write to
    bucket: String,
    /// Key to set
    #[arg(value_parser = key)]
    key: String,
    /// Value; `-`, or nothing with stdin redirected, reads stdin
    value: Option<String>,
    /// Lets the key expire after so many whole seconds (the bucket needs --marker-ttl)
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
}

impl Create {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let (jetstream, store) = open_with(&self.bucket, context).await?;
        let value = message::body(self.value.as_deref())?;
        let swap = Swap {
            jetstream: &jetstream,
            store: &store,
            key: &self.key,
            value: &value,
            ttl: self.ttl,
        };
        let mut created = swap.at(0).await?;
        // Whatever stands there may be a deletion, or the trace of a key that expired.
        if created.is_none()
            && let Some(entry) = store
                .entry(&self.key)
                .await
                .map_err(|error| broken(&self.key, &error))?
            && entry.operation != Operation::Put
        {
            created = swap.at(entry.revision).await?;
        }
        let revision = created.ok_or_else(|| {
            Failure::conflict(format!("{} > {} exists", self.bucket, self.key))
                .hint("`mesh kv put` overwrites it, `mesh kv update` does if it is unchanged")
        })?;
        written(&self.bucket, &self.key, &value, revision, context)
    }
}

/// Sets a key to a value if its revision is still the given one
#[derive(Args, Debug)]
#[command(after_help = "Exit code 5 if the key was changed meanwhile.")]
pub struct Update {
    /// Bucket to write to
    bucket: String,
    /// Key to set
    #[arg(value_parser = key)]
    key: String,
    /// Value; `-` reads stdin
    value: String,
    /// The revision that the key has now; 0 if it has no value
    revision: u64,
    /// Lets the key expire after so many whole seconds, as a lease does (the bucket needs --marker-ttl)
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
}

impl Update {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let (jetstream, store) = open_with(&self.bucket, context).await?;
        let value = message::body(Some(&self.value))?;
        let swap = Swap {
            jetstream: &jetstream,
            store: &store,
            key: &self.key,
            value: &value,
            ttl: self.ttl,
        };
        let revision = swap.at(self.revision).await?.ok_or_else(|| {
            Failure::conflict(format!(
                "{} > {} is not at revision {}",
                self.bucket, self.key, self.revision
            ))
            .hint(format!("read it again: mesh kv get {} {}", self.bucket, self.key))
        })?;
        written(&self.bucket, &self.key, &value, revision, context)
    }
}

/// Checks how long a key lives: servers count whole seconds.
fn ttl(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        ttl if ttl.as_secs() >= 1 && ttl.subsec_nanos() == 0 => Ok(ttl),
        _ => Err(format!("expected whole seconds, at least one, not {text:?}")),
    }
}

/// A value for a key that nobody else has changed. The client library has this without a time to live, or loses the
/// time when the key was there before.
struct Swap<'a> {
    jetstream: &'a jetstream::Context,
    store: &'a Store,
    key: &'a str,
    value: &'a Bytes,
    ttl: Option<Duration>,
}

impl Swap<'_> {
    /// Sets the key if it stands at `revision`, 0 being nothing; its new revision, or none if it stands at another.
    async fn at(&self, revision: u64) -> Result<Option<u64>, Failure> {
        let Self {
            jetstream,
            store,
            key,
            value,
            ttl,
        } = self;
        let mut message = PublishMessage::build()
            .payload((*value).clone())
            .expected_last_subject_sequence(revision);
        if let Some(ttl) = *ttl {
            message = message.ttl(ttl);
        }
        let prefix = store.put_prefix.as_ref().unwrap_or(&store.prefix);
        let sent = jetstream.send_publish(format!("{prefix}{key}"), message).await;
        match sent.map_err(|error| broken(key, &error))?.await {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(broken(key, &error)),
        }
    }
}

fn written(bucket: &str, key: &str, value: &Bytes, revision: u64, context: &Context) -> Result<(), Failure> {
    match context.json {
        true => output::print_json(&json!({"bucket": bucket, "key": key, "revision": revision})),
        false => {
            output::note(format!("{bucket} > {key} revision: {revision}"));
            output::print(message::printable(value))
        }
    }
}

/// The cause of a failure, which the client library keeps behind its kind.
pub(super) fn broken(key: &str, error: &dyn std::error::Error) -> Failure {
    let mut what = format!("{key}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        what += &format!(": {inner}");
        cause = inner.source();
    }
    Failure::failed(what)
}

/// Prints the value of a key
#[derive(Args, Debug)]
pub struct Get {
    /// Bucket to read from
    bucket: String,
    /// Key to read
    #[arg(value_parser = key)]
    key: String,
    /// The value it had at this revision
    #[arg(long)]
    revision: Option<u64>,
    /// Prints the value only
    #[arg(long, short = 'r')]
    raw: bool,
}

impl Get {
    /// Prints it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let entry = find(&store, &self.key, self.revision).await?;
        if context.json {
            return output::print_json(&entry_json(&entry)?);
        }
        if self.raw {
            return output::write(&entry.value);
        }
        output::print(format!(
            "{} > {} revision: {} created @ {}\n\n{}\n",
            entry.bucket,
            entry.key,
            entry.revision,
            units::show_time(created(&entry)?),
            message::printable(&entry.value)
        ))
    }
}

/// The entry of a key, a live one.
async fn find(store: &Store, key: &str, revision: Option<u64>) -> Result<Entry, Failure> {
    let entry = match revision {
        Some(revision) => store.entry_for_revision(key, revision).await,
        None => store.entry(key).await,
    };
    let missing = |why: &str| {
        Failure::not_found(format!("{} > {key} {why}", store.name))
            .hint(format!("`mesh kv ls {}` shows the keys", store.name))
    };
    match entry.map_err(|error| broken(key, &error))? {
        Some(entry) if entry.operation == Operation::Put => Ok(entry),
        Some(_) => Err(missing("was deleted")),
        None if revision.is_some() => Err(missing("has no such revision")),
        None => Err(missing("is not there")),
    }
}

/// When an entry was written.
pub(super) fn created(entry: &Entry) -> Result<Timestamp, Failure> {
    Timestamp::from_nanosecond(entry.created.unix_timestamp_nanos()).map_err(Failure::failed)
}

/// The word for an entry's operation.
pub(super) fn operation(entry: &Entry) -> &'static str {
    match entry.operation {
        Operation::Put => "PUT",
        Operation::Delete => "DEL",
        Operation::Purge => "PURGE",
    }
}

/// An entry as one JSON object.
pub(super) fn entry_json(entry: &Entry) -> Result<Value, Failure> {
    let mut object = Map::new();
    object.insert("bucket".to_owned(), entry.bucket.as_str().into());
    object.insert("key".to_owned(), entry.key.as_str().into());
    object.insert("revision".to_owned(), entry.revision.into());
    object.insert("created".to_owned(), created(entry)?.to_string().into());
    object.insert("operation".to_owned(), operation(entry).into());
    if entry.operation == Operation::Put {
        message::insert_body(&mut object, "value", &entry.value);
    }
    Ok(object.into())
}

/// Deletes a key, or a bucket with all its keys
#[derive(Args, Debug)]
pub struct Delete {
    /// Bucket to delete from
    bucket: String,
    /// Key to delete; without one the bucket goes
    #[arg(value_parser = key)]
    key: Option<String>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Delete {
    /// Deletes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(key) = &self.key else {
            return bucket::remove(Kind::KeyValue, &self.bucket, self.force, context).await;
        };
        output::confirm(&format!("Really delete {} > {key}?", self.bucket), self.force)?;
        let store = open(&self.bucket, context).await?;
        store.delete(key).await.map_err(|error| broken(key, &error))?;
        removed(&self.bucket, key, "deleted", context)
    }
}

fn removed(bucket: &str, key: &str, how: &str, context: &Context) -> Result<(), Failure> {
    match context.json {
        true => output::print_json(&json!({"bucket": bucket, "key": key, "success": true})),
        false => {
            output::note(format!("{bucket} > {key} was {how}"));
            Ok(())
        }
    }
}

/// Deletes a key and its history
#[derive(Args, Debug)]
pub struct Purge {
    /// Bucket to purge from
    bucket: String,
    /// Key to purge
    #[arg(value_parser = key)]
    key: String,
    /// How many whole seconds the marker of the purge stays (the bucket needs --marker-ttl)
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Purge {
    /// Purges it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        output::confirm(
            &format!("Really purge {} > {}?", self.bucket, self.key),
            self.force,
        )?;
        let store = open(&self.bucket, context).await?;
        let purged = match self.ttl {
            Some(ttl) => store.purge_with_ttl(&self.key, ttl).await,
            None => store.purge(&self.key).await,
        };
        purged.map_err(|error| broken(&self.key, &error))?;
        removed(&self.bucket, &self.key, "purged", context)
    }
}

/// Sets a key to the value it had at a revision
#[derive(Args, Debug)]
pub struct Revert {
    /// Bucket to write to
    bucket: String,
    /// Key to set
    #[arg(value_parser = key)]
    key: String,
    /// Revision to take the value of
    revision: u64,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Revert {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let question = format!(
            "Really revert {} > {} to {}?",
            self.bucket, self.key, self.revision
        );
        output::confirm(&question, self.force)?;
        let store = open(&self.bucket, context).await?;
        let value = find(&store, &self.key, Some(self.revision)).await?.value;
        let revision = store
            .put(&self.key, value.clone())
            .await
            .map_err(|error| broken(&self.key, &error))?;
        written(&self.bucket, &self.key, &value, revision, context)
    }
}
