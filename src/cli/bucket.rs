//! What key-value buckets and object stores share: both are streams made in a certain way.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::api::{self, Api, count, flag, number, text, time, token};
use super::output::{Boxed, Columns};
use super::stream::{Storage, capital, limit, word};
use super::{Context, Failure, output, units};

/// The two kinds of bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys with values: streams `KV_<bucket>`.
    KeyValue,
    /// Objects in chunks: streams `OBJ_<bucket>`.
    Object,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::KeyValue => "KV_",
            Self::Object => "OBJ_",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::KeyValue => "Key-Value",
            Self::Object => "Object Store",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::KeyValue => "kv",
            Self::Object => "object",
        }
    }

    /// The stream behind a bucket.
    pub fn stream(self, bucket: &str) -> Result<String, Failure> {
        token("bucket", bucket)?;
        Ok(format!("{}{bucket}", self.prefix()))
    }

    /// The bucket a stream belongs to.
    fn bucket(self, stream: &Value) -> &str {
        text(stream, "/config/name")
            .strip_prefix(self.prefix())
            .unwrap_or_default()
    }

    /// What "stream not found" means to the person who asked for a bucket.
    pub fn explain(self, bucket: &str, failure: Failure) -> Failure {
        match failure.code() {
            Failure::NOT_FOUND => {
                Failure::not_found(format!("there is no {} bucket {bucket:?}", self.title())).hint(format!(
                    "`mesh {0} ls` shows the buckets, `mesh {0} add {bucket}` makes this one",
                    self.command()
                ))
            }
            _ => failure,
        }
    }
}

/// The flags that both kinds of bucket have.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// What the bucket is for
    #[arg(long)]
    description: Option<String>,
    /// How long entries are kept; 0 for ever
    #[arg(long, value_name = "DURATION", value_parser = units::age)]
    ttl: Option<i64>,
    /// Where entries are kept
    #[arg(long, value_enum)]
    storage: Option<Storage>,
    /// Copies of the data in a cluster
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// How large the bucket may be; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = units::bytes, allow_hyphen_values = true)]
    max_bucket_size: Option<i64>,
    /// Compresses the data on disk
    #[arg(long)]
    compress: bool,
    /// Server tags to place the bucket by, as often as needed
    #[arg(long = "tags", value_name = "TAG")]
    tags: Vec<String>,
    /// Cluster to place the bucket in
    #[arg(long)]
    cluster: Option<String>,
    /// Sets metadata, as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = api::pair)]
    metadata: Vec<(String, String)>,
}

impl Flags {
    /// Sets what was given.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                config.insert(field.to_owned(), value);
            }
        };
        set("description", self.description.clone().map(Value::from));
        set("max_age", self.ttl.map(Value::from));
        set("storage", self.storage.map(word));
        set("num_replicas", self.replicas.map(Value::from));
        set("max_bytes", self.max_bucket_size.map(Value::from));
        set("compression", self.compress.then(|| "s2".into()));
        if !self.tags.is_empty() || self.cluster.is_some() {
            let cluster = self.cluster.clone().unwrap_or_default();
            set("placement", Some(json!({"cluster": cluster, "tags": self.tags})));
        }
        if !self.metadata.is_empty() {
            set("metadata", Some(api::metadata(&self.metadata)));
        }
    }
}

/// Creates the stream of a bucket and shows the bucket.
pub async fn create(kind: Kind, config: &Value, context: &Context) -> Result<(), Failure> {
    let api = Api::connect(context).await?;
    let endpoint = format!("STREAM.CREATE.{}", text(config, "/name"));
    let created = api
        .call(&endpoint, config)
        .await
        .map_err(|failure| match failure.code() {
            Failure::CONFLICT => Failure::conflict("a bucket of this name is there, made in another way")
                .hint(format!("`mesh {} info` shows how", kind.command())),
            _ => failure,
        })?;
    if context.json {
        return output::print_json(&created);
    }
    print_info(kind, &created)
}

/// Shows one bucket.
pub async fn show(kind: Kind, bucket: &str, context: &Context) -> Result<(), Failure> {
    let api = Api::connect(context).await?;
    let stream = api.stream(&kind.stream(bucket)?).await;
    let stream = stream.map_err(|failure| kind.explain(bucket, failure))?;
    match context.json {
        true => output::print_json(&stream),
        false => print_info(kind, &stream),
    }
}

/// Removes a bucket and all in it.
pub async fn remove(kind: Kind, bucket: &str, force: bool, context: &Context) -> Result<(), Failure> {
    let endpoint = format!("STREAM.DELETE.{}", kind.stream(bucket)?);
    output::confirm(&format!("Really delete bucket {bucket} and all in it?"), force)?;
    let api = Api::connect(context).await?;
    let answer = api.call(&endpoint, &Value::Null).await;
    let answer = answer.map_err(|failure| kind.explain(bucket, failure))?;
    if context.json {
        return output::print_json(&answer);
    }
    output::note(format!("Bucket {bucket} was removed"));
    Ok(())
}

/// Lists the buckets.
pub async fn list(kind: Kind, names: bool, context: &Context) -> Result<(), Failure> {
    let mut streams = Api::connect(context).await?.streams(None).await?;
    streams.retain(|stream| !kind.bucket(stream).is_empty());
    let buckets = || streams.iter().map(|stream| kind.bucket(stream));
    match (names, context.json) {
        (true, true) => output::print_json(&buckets().collect::<Vec<_>>()),
        (true, false) => buckets().try_for_each(output::print),
        (false, true) => output::print_json(&streams),
        (false, false) if streams.is_empty() => {
            output::note(format!("No {} buckets found", kind.title()));
            Ok(())
        }
        (false, false) => print_list(kind, &streams),
    }
}

fn print_list(kind: Kind, streams: &[Value]) -> Result<(), Failure> {
    let mut headers = vec!["Bucket", "Description", "Created", "Size", "Last Update"];
    if kind == Kind::KeyValue {
        headers.insert(4, "Values");
    }
    let mut table = Boxed::new(format!("{} Buckets", kind.title()), &headers);
    let now = Timestamp::now();
    for stream in streams {
        let mut row = vec![
            kind.bucket(stream).to_owned(),
            text(stream, "/config/description").to_owned(),
            time(stream, "/created").map(units::show_time).unwrap_or_default(),
            units::show_bytes(count(stream, "/state/bytes")),
            units::show_since(time(stream, "/state/last_ts"), now),
        ];
        if kind == Kind::KeyValue {
            row.insert(4, units::show_count(count(stream, "/state/messages")));
        }
        table.row(row);
    }
    table.print()
}

fn print_info(kind: Kind, stream: &Value) -> Result<(), Failure> {
    let bucket = kind.bucket(stream);
    let mut columns = Columns::new();
    columns.section("Configuration");
    columns.row("Bucket Name", bucket);
    let description = text(stream, "/config/description");
    columns.some("Description", (!description.is_empty()).then_some(description));
    if kind == Kind::KeyValue {
        columns.row("History Kept", number(stream, "/config/max_msgs_per_subject"));
        columns.row(
            "Values Stored",
            units::show_count(count(stream, "/state/messages")),
        );
        columns.row("Per-Key TTL Supported", flag(stream, "/config/allow_msg_ttl"));
        let marker = api::duration(stream, "/config/subject_delete_marker_ttl");
        columns.some(
            "Limit Marker TTL",
            (!marker.is_zero()).then(|| units::show_duration(marker)),
        );
        let size = limit(number(stream, "/config/max_msg_size"), units::show_bytes);
        columns.row("Maximum Value Size", size);
    }
    columns.row("Compressed", text(stream, "/config/compression") == "s2");
    columns.row("Replicas", count(stream, "/config/num_replicas"));
    columns.some("Sealed", flag(stream, "/config/sealed").then_some(true));
    columns.row("Bucket Size", units::show_bytes(count(stream, "/state/bytes")));
    let size = limit(number(stream, "/config/max_bytes"), units::show_bytes);
    columns.row("Maximum Bucket Size", size);
    let age = limit(number(stream, "/config/max_age"), |nanos| {
        units::show_duration(std::time::Duration::from_nanos(nanos))
    });
    columns.row("Maximum Age", age);
    columns.row("Backing Store Kind", "JetStream");
    columns.row("JetStream Stream", text(stream, "/config/name"));
    columns.row("Storage", capital(text(stream, "/config/storage")));
    if let Some(metadata) = stream.pointer("/config/metadata").and_then(Value::as_object) {
        columns.section("Metadata");
        for (key, value) in metadata {
            columns.row(key, value.as_str().unwrap_or_default());
        }
    }
    let created = time(stream, "/created").map(units::show_time).unwrap_or_default();
    columns.print(&format!(
        "Information for {} Bucket {bucket} created {created}",
        kind.title()
    ))
}
