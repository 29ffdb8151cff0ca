//! `mesh kv`: key-value buckets.

mod keys;
mod watch;

use std::time::Duration;

use async_nats::jetstream::{self, kv::Store};
use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::api::Api;
use super::bucket::{self, Kind};
use super::{Context, Failure, Work, units};

/// Reads and writes key-value buckets
#[derive(Args, Debug)]
pub struct KeyValue {
    #[command(subcommand)]
    command: KeyValueCommand,
}

#[derive(Debug, Subcommand)]
enum KeyValueCommand {
    #[command(alias = "new")]
    Add(Add),
    Create(keys::Create),
    #[command(alias = "rm")]
    Del(keys::Delete),
    Get(keys::Get),
    History(watch::History),
    #[command(alias = "status", alias = "view")]
    Info(Info),
    #[command(alias = "list")]
    Ls(watch::List),
    Purge(keys::Purge),
    Put(keys::Put),
    Revert(keys::Revert),
    Update(keys::Update),
    Watch(watch::Watch),
}

impl KeyValue {
    /// Runs the subcommand.
    pub fn run(self, context: &Context) -> Work<'_> {
        match self.command {
            KeyValueCommand::Add(command) => Box::pin(command.run(context)),
            KeyValueCommand::Create(command) => Box::pin(command.run(context)),
            KeyValueCommand::Del(command) => Box::pin(command.run(context)),
            KeyValueCommand::Get(command) => Box::pin(command.run(context)),
            KeyValueCommand::History(command) => Box::pin(command.run(context)),
            KeyValueCommand::Info(command) => {
                Box::pin(async move { bucket::show(Kind::KeyValue, &command.bucket, context).await })
            }
            KeyValueCommand::Ls(command) => Box::pin(command.run(context)),
            KeyValueCommand::Purge(command) => Box::pin(command.run(context)),
            KeyValueCommand::Put(command) => Box::pin(command.run(context)),
            KeyValueCommand::Revert(command) => Box::pin(command.run(context)),
            KeyValueCommand::Update(command) => Box::pin(command.run(context)),
            KeyValueCommand::Watch(command) => Box::pin(command.run(context)),
        }
    }
}

/// Opens a bucket that is there.
async fn open(bucket: &str, context: &Context) -> Result<Store, Failure> {
    Ok(open_with(bucket, context).await?.1)
}

/// The same, and what it is asked through.
async fn open_with(bucket: &str, context: &Context) -> Result<(jetstream::Context, Store), Failure> {
    let api = Api::connect(context).await?;
    // Asked for by our own call first: it tells a bucket that is missing from a server that is not well.
    let stream = api.stream(&Kind::KeyValue.stream(bucket)?).await;
    stream.map_err(|failure| Kind::KeyValue.explain(bucket, failure))?;
    let jetstream = api.jetstream();
    let store = jetstream.get_key_value(bucket).await.map_err(Failure::failed)?;
    Ok((jetstream, store))
}

/// Makes a bucket
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mesh kv add CONFIG --history 5 --ttl 7d")]
struct Add {
    /// Name of the bucket
    bucket: String,
    /// Values kept of each key, 1 to 64
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=64))]
    history: i64,
    /// How large a value may be; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = units::bytes, allow_hyphen_values = true)]
    max_value_size: Option<i64>,
    /// Lets single keys expire, and keeps the marker of an expired key so long
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    marker_ttl: Option<i64>,
    #[command(flatten)]
    flags: bucket::Flags,
}

impl Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = Kind::KeyValue.stream(&self.bucket)?;
        let mut config = Map::new();
        config.insert("name".to_owned(), name.into());
        config.insert("subjects".to_owned(), json!([format!("$KV.{}.>", self.bucket)]));
        config.insert("max_msgs_per_subject".to_owned(), self.history.into());
        config.insert("discard".to_owned(), "new".into());
        config.insert("num_replicas".to_owned(), 1.into());
        config.insert("storage".to_owned(), "file".into());
        for field in ["allow_rollup_hdrs", "deny_delete", "allow_direct"] {
            config.insert(field.to_owned(), true.into());
        }
        for field in ["max_msgs", "max_bytes", "max_consumers"] {
            config.insert(field.to_owned(), (-1).into());
        }
        config.insert(
            "max_msg_size".to_owned(),
            self.max_value_size.unwrap_or(-1).into(),
        );
        self.flags.apply(&mut config);
        if let Some(ttl) = self.marker_ttl {
            config.insert("allow_msg_ttl".to_owned(), true.into());
            config.insert("subject_delete_marker_ttl".to_owned(), ttl.into());
        }
        // Ids are remembered no longer than values, two minutes at most.
        let window = units::nanos(Duration::from_secs(120));
        let window = match config.get("max_age").and_then(serde_json::Value::as_i64) {
            Some(age) if age > 0 => age.min(window),
            _ => window,
        };
        config.insert("duplicate_window".to_owned(), window.into());
        bucket::create(Kind::KeyValue, &config.into(), context).await
    }
}

/// Shows a bucket's configuration and state
#[derive(Args, Debug)]
struct Info {
    /// Bucket to show
    bucket: String,
}
