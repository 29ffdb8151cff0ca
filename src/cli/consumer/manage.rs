//! Consumers as a whole: make, list, show, change, pause and remove them.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::config::{Flags, moment};
use super::info;
use crate::cli::api::{self, Api, count, duration, flag, text, time, token};
use crate::cli::units::{self, Direction};
use crate::cli::{Context, Failure, output, stream};

/// Makes a consumer
#[derive(Args, Debug)]
#[command(
    after_help = "Without --target it is a pull consumer; without a name it goes away when nobody uses it.\n\n\
                        Examples:\n  mesh consumer add ORDERS BILLING --filter orders.paid --max-deliver 5 --wait 1m\n  \
                        mesh consumer add ORDERS --deliver 1h --ack none"
)]
pub struct Add {
    /// Stream to consume
    stream: String,
    /// Name of the consumer
    consumer: Option<String>,
    /// JSON file to take the configuration from; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Makes a named consumer that goes away, too, when nobody uses it
    #[arg(long)]
    ephemeral: bool,
    /// Makes a pull consumer (the default without --target)
    #[arg(long, conflicts_with = "target")]
    pull: bool,
    /// Takes the server's defaults for what is not given
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Add {
    /// Makes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut config = match &self.config {
            Some(path) => api::config_file(path)?,
            None => Map::from_iter([
                ("ack_policy".to_owned(), json!("explicit")),
                ("deliver_policy".to_owned(), json!("all")),
                ("replay_policy".to_owned(), json!("instant")),
            ]),
        };
        if let Some(name) = &self.consumer {
            config.insert("name".to_owned(), json!(name));
            match self.ephemeral {
                true => config.remove("durable_name"),
                false => config.insert("durable_name".to_owned(), json!(name)),
            };
        }
        self.flags.apply(&mut config)?;
        let api = Api::connect(context).await?;
        let created = save(&api, &self.stream, config, "create").await?;
        if context.json {
            return output::print_json(&created);
        }
        output::note(format!(
            "Consumer {} > {} is there",
            self.stream,
            text(&created, "/name")
        ));
        info::print(&created)
    }
}

/// Creates or updates a consumer; one without a name gets one.
async fn save(
    api: &Api,
    stream: &str,
    mut config: Map<String, Value>,
    action: &str,
) -> Result<Value, Failure> {
    let stream = token("stream", stream)?;
    let named = ["durable_name", "name"].map(|field| config.get(field).and_then(Value::as_str));
    let name = match named.into_iter().flatten().find(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => nuid::next().to_string(),
    };
    let name = token("consumer", &name)?;
    config.insert("name".to_owned(), name.into());
    // A single filter is part of the subject, so that permissions can be given by it.
    let filter = match config.get("filter_subject").and_then(Value::as_str) {
        None | Some("") => String::new(),
        Some(filter) => format!(".{filter}"),
    };
    let request = json!({"stream_name": stream, "config": config, "action": action});
    api.call(&format!("CONSUMER.CREATE.{stream}.{name}{filter}"), &request)
        .await
}

/// Changes the configuration of a consumer
#[derive(Args, Debug)]
pub struct Edit {
    /// Stream of the consumer
    stream: String,
    /// Consumer to change
    consumer: String,
    /// JSON file to take the configuration from; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
    /// Shows what would change, and changes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Edit {
    /// Changes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let old = api.consumer(&self.stream, &self.consumer).await?["config"].take();
        let mut config = match &self.config {
            Some(path) => api::config_file(path)?,
            None => old.as_object().cloned().unwrap_or_default(),
        };
        self.flags.apply(&mut config)?;
        if !stream::print_differences(&old, &Value::Object(config.clone()))? {
            output::note("No difference in configuration");
            return Ok(());
        }
        if self.dry_run {
            return Ok(());
        }
        output::confirm(
            &format!("Really edit Consumer {} > {}?", self.stream, self.consumer),
            self.force,
        )?;
        let updated = save(&api, &self.stream, config, "update").await?;
        match context.json {
            true => output::print_json(&updated),
            false => info::print(&updated),
        }
    }
}

/// Lists the consumers of a stream
#[derive(Args, Debug)]
pub struct List {
    /// Stream to look at
    stream: String,
    /// Names only
    #[arg(long, short)]
    names: bool,
}

async fn consumers(api: &Api, stream: &str) -> Result<Vec<Value>, Failure> {
    let endpoint = format!("CONSUMER.LIST.{}", token("stream", stream)?);
    let mut consumers = api.list(&endpoint, "consumers", Map::new()).await?;
    consumers.sort_by(|a, b| text(a, "/name").cmp(text(b, "/name")));
    Ok(consumers)
}

impl List {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let consumers = consumers(&Api::connect(context).await?, &self.stream).await?;
        let names = || consumers.iter().map(|consumer| text(consumer, "/name"));
        match (self.names, context.json) {
            (true, true) => output::print_json(&names().collect::<Vec<_>>()),
            (true, false) => names().try_for_each(output::print),
            (false, true) => output::print_json(&consumers),
            (false, false) if consumers.is_empty() => {
                output::note(format!("No Consumers defined on {}", self.stream));
                Ok(())
            }
            (false, false) => info::print_list(&self.stream, &consumers),
        }
    }
}

/// Reports on all consumers of a stream
#[derive(Args, Debug)]
pub struct Report {
    /// Stream to look at
    stream: String,
}

impl Report {
    /// Reports.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let consumers = consumers(&api, &self.stream).await?;
        if context.json {
            return output::print_json(&consumers);
        }
        let held = count(&api.stream(&self.stream).await?, "/state/messages");
        info::print_report(&self.stream, held, &consumers)
    }
}

/// Shows a consumer's configuration and state
#[derive(Args, Debug)]
pub struct Info {
    /// Stream of the consumer
    stream: String,
    /// Consumer to show
    consumer: String,
}

impl Info {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let consumer = Api::connect(context)
            .await?
            .consumer(&self.stream, &self.consumer)
            .await?;
        match context.json {
            true => output::print_json(&consumer),
            false => info::print(&consumer),
        }
    }
}

/// Removes a consumer
#[derive(Args, Debug)]
pub struct Remove {
    /// Stream of the consumer
    stream: String,
    /// Consumer to remove
    consumer: String,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Remove {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = format!("{} > {}", self.stream, self.consumer);
        let endpoint = endpoint("DELETE", &self.stream, &self.consumer)?;
        output::confirm(&format!("Really delete Consumer {name}?"), self.force)?;
        let answer = Api::connect(context).await?.call(&endpoint, &Value::Null).await?;
        if context.json {
            return output::print_json(&answer);
        }
        output::note(format!("Consumer {name} was removed"));
        Ok(())
    }
}

/// Stops deliveries until a time
#[derive(Args, Debug)]
pub struct Pause {
    /// Stream of the consumer
    stream: String,
    /// Consumer to pause
    consumer: String,
    /// Until then: 1h, or 2026-01-31T12:00:00Z
    until: String,
    /// Accepted for the sake of scripts: a pause is never asked about
    #[arg(long, short, hide = true)]
    force: bool,
}

impl Pause {
    /// Pauses it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let until = moment(&self.until, Direction::Ahead)?;
        let endpoint = endpoint("PAUSE", &self.stream, &self.consumer)?;
        let request = json!({ "pause_until": until.to_string() });
        let answer = Api::connect(context).await?.call(&endpoint, &request).await?;
        if context.json {
            return output::print_json(&answer);
        }
        let (stream, consumer) = (&self.stream, &self.consumer);
        match flag(&answer, "/paused") {
            true => output::note(format!(
                "Paused {stream} > {consumer} until {} ({})",
                time(&answer, "/pause_until")
                    .map(units::show_time)
                    .unwrap_or_default(),
                units::show_duration(duration(&answer, "/pause_remaining"))
            )),
            false => output::note(format!(
                "{stream} > {consumer} is not paused: that time has passed"
            )),
        }
        Ok(())
    }
}

/// Goes on with deliveries
#[derive(Args, Debug)]
pub struct Resume {
    /// Stream of the consumer
    stream: String,
    /// Consumer to resume
    consumer: String,
    /// Accepted for the sake of scripts: a resume is never asked about
    #[arg(long, short, hide = true)]
    force: bool,
}

impl Resume {
    /// Resumes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let endpoint = endpoint("PAUSE", &self.stream, &self.consumer)?;
        let answer = Api::connect(context).await?.call(&endpoint, &json!({})).await?;
        if context.json {
            return output::print_json(&answer);
        }
        output::note(format!("Resumed {} > {}", self.stream, self.consumer));
        Ok(())
    }
}

/// Sets a consumer back to its start, or to a sequence
#[derive(Args, Debug)]
pub struct Reset {
    /// Stream of the consumer
    stream: String,
    /// Consumer to set back
    consumer: String,
    /// Sequence of the next message to deliver
    #[arg(long)]
    sequence: Option<u64>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Reset {
    /// Sets it back.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = format!("{} > {}", self.stream, self.consumer);
        let endpoint = endpoint("RESET", &self.stream, &self.consumer)?;
        output::confirm(&format!("Really reset Consumer {name}?"), self.force)?;
        let request = self
            .sequence
            .map_or(json!({}), |sequence| json!({ "seq": sequence }));
        let answer = Api::connect(context).await?.call(&endpoint, &request).await?;
        if context.json {
            return output::print_json(&answer);
        }
        output::note(format!("Consumer {name} was reset"));
        info::print(&answer)
    }
}

fn endpoint(verb: &str, stream: &str, consumer: &str) -> Result<String, Failure> {
    let (stream, consumer) = (token("stream", stream)?, token("consumer", consumer)?);
    Ok(format!("CONSUMER.{verb}.{stream}.{consumer}"))
}
