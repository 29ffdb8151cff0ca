//! Streams as a whole: make, list, show, change, empty and remove them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{config::Flags, info};
use crate::cli::api::{self, Api, count, text, token};
use crate::cli::output::Boxed;
use crate::cli::{Context, Failure, output, units};

/// Streams that key-value buckets and object stores are made of.
const SYSTEM_PREFIXES: [&str; 3] = ["KV_", "OBJ_", "MQTT_"];

fn is_system(stream: &Value) -> bool {
    let name = text(stream, "/config/name");
    SYSTEM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Makes a stream
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mesh stream add ORDERS --subjects 'orders.>' --max-age 30d\n  \
                        mesh stream add JOBS --subjects 'jobs.*' --retention work\n  \
                        mesh stream info ORDERS --json > orders.json; mesh stream add COPY --config orders.json"
)]
pub struct Add {
    /// Name of the stream (default: as in the file of --config)
    stream: Option<String>,
    /// JSON file to take the configuration from; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Takes the server's defaults for what is not given, without asking
    #[arg(long)]
    defaults: bool,
    /// Prints the configuration instead of making the stream
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Add {
    /// Makes it.
    pub async fn run(mut self, context: &Context) -> Result<(), Failure> {
        let mut config = match &self.config {
            Some(path) => api::config_file(path)?,
            None => Map::from_iter([
                ("retention".to_owned(), json!("limits")),
                ("storage".to_owned(), json!("file")),
                ("discard".to_owned(), json!("old")),
                ("num_replicas".to_owned(), json!(1)),
                ("allow_direct".to_owned(), json!(true)),
            ]),
        };
        let asks = output::can_ask() && !self.defaults && self.config.is_none();
        if asks && self.stream.is_none() {
            self.stream = Some(output::ask("Stream name?")?);
        }
        if let Some(name) = self.stream.take() {
            config.insert("name".to_owned(), name.into());
        }
        if asks && self.flags.subjects.is_empty() {
            let answer = output::ask("Subjects, with commas (nothing: the name of the stream)?")?;
            let subjects = answer.split(',').map(|subject| subject.trim().to_owned());
            self.flags.subjects = subjects.filter(|subject| !subject.is_empty()).collect();
        }
        self.flags.apply(&mut config);
        let config = Value::Object(config);
        if text(&config, "/name").is_empty() {
            return Err(
                Failure::usage("the stream needs a name").hint("mesh stream add NAME --subjects SUBJECTS")
            );
        }
        if self.dry_run {
            return output::print_json(&config);
        }
        create(&Api::connect(context).await?, &config, context).await
    }
}

async fn create(api: &Api, config: &Value, context: &Context) -> Result<(), Failure> {
    let name = token("stream", text(config, "/name"))?;
    let created = api.call(&format!("STREAM.CREATE.{name}"), config).await?;
    if context.json {
        return output::print_json(&created);
    }
    let done = match created.get("did_create") == Some(&Value::Bool(true)) {
        true => "was created",
        false => "was there already, just so",
    };
    output::note(format!("Stream {name} {done}"));
    info::print(&created, false)
}

/// Makes a stream configured like another, without its messages
#[derive(Args, Debug)]
pub struct Copy {
    /// Stream to copy the configuration of
    #[arg(id = "from", value_name = "SOURCE")]
    from: String,
    /// Name of the new stream
    destination: String,
    #[command(flatten)]
    flags: Flags,
}

impl Copy {
    /// Makes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let mut config = match api.stream(&self.from).await?["config"].take() {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        config.insert("name".to_owned(), self.destination.into());
        self.flags.apply(&mut config);
        create(&api, &Value::Object(config), context).await
    }
}

/// Changes the configuration of a stream
#[derive(Args, Debug)]
pub struct Edit {
    /// Stream to change
    stream: String,
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
        let name = token("stream", &self.stream)?;
        let old = api.stream(name).await?["config"].take();
        let mut config = match &self.config {
            Some(path) => api::config_file(path)?,
            None => old.as_object().cloned().unwrap_or_default(),
        };
        config.insert("name".to_owned(), name.into());
        self.flags.apply(&mut config);
        let new = Value::Object(config);
        if !info::print_differences(&old, &new)? {
            output::note("No difference in configuration");
            return Ok(());
        }
        if self.dry_run {
            return Ok(());
        }
        output::confirm(&format!("Really edit Stream {name}?"), self.force)?;
        let updated = api.call(&format!("STREAM.UPDATE.{name}"), &new).await?;
        if context.json {
            return output::print_json(&updated);
        }
        output::note(format!("Stream {name} was updated"));
        info::print(&updated, false)
    }
}

/// Lists the streams
#[derive(Args, Debug)]
pub struct List {
    /// Only those that take in these subjects
    #[arg(long)]
    subject: Option<String>,
    /// Names only
    #[arg(long, short)]
    names: bool,
    /// Also those of key-value buckets and object stores
    #[arg(long, short)]
    all: bool,
}

impl List {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let mut streams = api.streams(self.subject.as_deref()).await?;
        let known = streams.len();
        streams.retain(|stream| self.all || !is_system(stream));
        match (self.names, context.json) {
            (true, true) => {
                let names: Vec<&str> = streams
                    .iter()
                    .map(|stream| text(stream, "/config/name"))
                    .collect();
                output::print_json(&names)
            }
            (true, false) => streams
                .iter()
                .try_for_each(|stream| output::print(text(stream, "/config/name"))),
            (false, true) => output::print_json(&streams),
            (false, false) if streams.is_empty() => {
                output::note(match known {
                    0 => "No Streams defined".to_owned(),
                    hidden => format!("No Streams defined but {hidden} of buckets, see --all"),
                });
                Ok(())
            }
            (false, false) => info::print_list(&streams),
        }
    }
}

/// Reports on all streams
#[derive(Args, Debug)]
pub struct Report {
    /// Only those that take in these subjects
    #[arg(long)]
    subject: Option<String>,
}

impl Report {
    /// Reports.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let streams = Api::connect(context)
            .await?
            .streams(self.subject.as_deref())
            .await?;
        match context.json {
            true => output::print_json(&streams),
            false => info::print_report(&streams),
        }
    }
}

/// Shows a stream's configuration and state
#[derive(Args, Debug)]
pub struct Info {
    /// Stream to show
    stream: String,
    /// Shows its state only
    #[arg(long)]
    state: bool,
}

impl Info {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        show(&self.stream, self.state, context).await
    }
}

/// Shows a stream's state
#[derive(Args, Debug)]
pub struct State {
    /// Stream to show
    stream: String,
}

impl State {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        show(&self.stream, true, context).await
    }
}

async fn show(stream: &str, state_only: bool, context: &Context) -> Result<(), Failure> {
    let stream = Api::connect(context).await?.stream(stream).await?;
    match (context.json, state_only) {
        (true, true) => output::print_json(&stream["state"]),
        (true, false) => output::print_json(&stream),
        (false, _) => info::print(&stream, state_only),
    }
}

/// Removes messages in bulk
#[derive(Args, Debug)]
pub struct Purge {
    /// Stream to purge
    stream: String,
    /// Only messages on these subjects
    #[arg(long)]
    subject: Option<String>,
    /// Only messages before this sequence
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "keep")]
    seq: Option<u64>,
    /// Keeps this many of the newest
    #[arg(long, value_name = "N")]
    keep: Option<u64>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Purge {
    /// Removes them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = token("stream", &self.stream)?;
        output::confirm(&format!("Really purge Stream {name}?"), self.force)?;
        let api = Api::connect(context).await?;
        let mut request = Map::new();
        request.extend(self.subject.map(|subject| ("filter".to_owned(), json!(subject))));
        request.extend(self.seq.map(|sequence| ("seq".to_owned(), json!(sequence))));
        request.extend(self.keep.map(|count| ("keep".to_owned(), json!(count))));
        let answer = api
            .call(&format!("STREAM.PURGE.{name}"), &Value::Object(request))
            .await?;
        if context.json {
            return output::print_json(&answer);
        }
        let purged = units::show_count(count(&answer, "/purged"));
        output::note(format!("Purged {purged} messages from {name}"));
        info::print(&api.stream(name).await?, true)
    }
}

/// Removes a stream and all it holds
#[derive(Args, Debug)]
pub struct Remove {
    /// Stream to remove
    stream: String,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Remove {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = token("stream", &self.stream)?;
        output::confirm(&format!("Really delete Stream {name}?"), self.force)?;
        let api = Api::connect(context).await?;
        let answer = api.call(&format!("STREAM.DELETE.{name}"), &Value::Null).await?;
        if context.json {
            return output::print_json(&answer);
        }
        output::note(format!("Stream {name} was removed"));
        Ok(())
    }
}

/// Seals a stream: nothing in it can change any more, ever
#[derive(Args, Debug)]
pub struct Seal {
    /// Stream to seal
    stream: String,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Seal {
    /// Seals it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = token("stream", &self.stream)?;
        output::confirm(
            &format!("Really seal Stream {name}? It cannot be unsealed."),
            self.force,
        )?;
        let api = Api::connect(context).await?;
        let mut config = api.stream(name).await?["config"].take();
        config["sealed"] = true.into();
        let updated = api.call(&format!("STREAM.UPDATE.{name}"), &config).await?;
        if context.json {
            return output::print_json(&updated);
        }
        output::note(format!("Stream {name} is sealed"));
        info::print(&updated, false)
    }
}

/// Lists the subjects a stream holds messages of
#[derive(Args, Debug)]
pub struct Subjects {
    /// Stream to look into
    stream: String,
    /// Only subjects that match this
    #[arg(default_value = ">")]
    filter: String,
    /// The order of the list
    #[arg(long, value_enum, default_value = "messages")]
    sort: Order,
    /// The other way round
    #[arg(long, short = 'R')]
    reverse: bool,
    /// Names only
    #[arg(long, short)]
    names: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    #[value(alias = "subjects")]
    Name,
    #[value(alias = "count")]
    Messages,
}

impl Subjects {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let mut subjects = self.collect(&api).await?;
        subjects.sort_by(|a, b| match self.sort {
            Order::Name => a.0.cmp(&b.0),
            Order::Messages => (a.1, &a.0).cmp(&(b.1, &b.0)),
        });
        if self.reverse {
            subjects.reverse();
        }
        if context.json {
            let object: Map<String, Value> = subjects
                .into_iter()
                .map(|(name, count)| (name, count.into()))
                .collect();
            return output::print_json(&object);
        }
        if self.names {
            return subjects.iter().try_for_each(|(name, _)| output::print(name));
        }
        if subjects.is_empty() {
            output::note(format!("No subjects found matching {}", self.filter));
            return Ok(());
        }
        let title = format!("{} Subjects in stream {}", subjects.len(), self.stream);
        let mut table = Boxed::new(title, &["Subject", "Count"]);
        for (name, count) in subjects {
            table.row([name, units::show_count(count)]);
        }
        table.print()
    }

    /// All pages of subjects, with how many messages each has.
    async fn collect(&self, api: &Api) -> Result<Vec<(String, u64)>, Failure> {
        let endpoint = format!("STREAM.INFO.{}", token("stream", &self.stream)?);
        let mut subjects = Vec::new();
        loop {
            let request = json!({"subjects_filter": self.filter, "offset": subjects.len()});
            let mut answer = api.call(&endpoint, &request).await?;
            let page = match answer.pointer_mut("/state/subjects").map(Value::take) {
                Some(Value::Object(page)) => page,
                _ => Map::new(),
            };
            let empty = page.is_empty();
            subjects.extend(
                page.into_iter()
                    .map(|(name, count)| (name, count.as_u64().unwrap_or(0))),
            );
            if empty || subjects.len() as u64 >= count(&answer, "/total") {
                return Ok(subjects);
            }
        }
    }
}

/// Lists the sequences that are missing inside a stream
#[derive(Args, Debug)]
pub struct Gaps {
    /// Stream to look into
    stream: String,
}

impl Gaps {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let endpoint = format!("STREAM.INFO.{}", token("stream", &self.stream)?);
        let answer = api.call(&endpoint, &json!({"deleted_details": true})).await?;
        let deleted = answer.pointer("/state/deleted").and_then(Value::as_array);
        let gaps = runs(deleted.into_iter().flatten().filter_map(Value::as_u64));
        if context.json {
            return output::print_json(&gaps);
        }
        if gaps.is_empty() {
            output::note(format!("No deleted messages in {}", self.stream));
            return Ok(());
        }
        let mut table = Boxed::new(
            format!("Gaps in Stream {}", self.stream),
            &["First", "Last", "Messages"],
        );
        for (first, last) in gaps {
            table.row([first, last, last - first + 1].map(units::show_count));
        }
        table.print()
    }
}

/// Joins rising sequences into runs of (first, last).
fn runs(sequences: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for sequence in sequences {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => runs.push((sequence, sequence)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn sequences_join_into_runs() {
        assert_eq!(runs([].into_iter()), []);
        assert_eq!(runs([3, 4, 5, 9, 11, 12].into_iter()), [(3, 5), (9, 9), (11, 12)]);
    }
}
