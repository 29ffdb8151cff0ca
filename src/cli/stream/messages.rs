//! Stored messages: page through them, get one, remove one.

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::api::{Api, count, text, time, token};
use crate::cli::units::{self, Direction};
use crate::cli::{Context, Failure, message, output};

/// Shows the messages of a stream, page by page
#[derive(Args, Debug)]
pub struct View {
    /// Stream to look into
    stream: String,
    /// Messages on a page
    #[arg(default_value_t = 10)]
    size: u64,
    /// Starts at this sequence
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
    id: Option<u64>,
    /// Starts at this age or time: 1h, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Shows only messages on these subjects
    #[arg(long, default_value = ">")]
    subject: String,
    /// Prints bodies only
    #[arg(long)]
    raw: bool,
}

impl View {
    /// Prints one page; at a terminal asks for the next.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let stream = api.stream(&self.stream).await?;
        let mut next = self
            .id
            .unwrap_or_else(|| count(&stream, "/state/first_seq"))
            .max(1);
        if let Some(since) = &self.since {
            let start = units::instant(since, Timestamp::now(), Direction::Back).map_err(Failure::usage)?;
            next = match sequence_at(&api, &self.stream, start).await? {
                Some(sequence) => sequence,
                None => return Ok(()),
            };
        }
        let last = count(&stream, "/state/last_seq");
        let mut shown = 0;
        while next <= last {
            let query = json!({"seq": next, "next_by_subj": self.subject});
            let item = match api.message(&self.stream, &query).await {
                Ok(item) => item,
                Err(failure) if failure.code() == Failure::NOT_FOUND => break,
                Err(failure) => return Err(failure),
            };
            next = count(&item, "/seq") + 1;
            self.print(&item, context.json)?;
            shown += 1;
            if shown % self.size.max(1) == 0 {
                if !output::can_ask() || next > last {
                    break;
                }
                if output::ask("Next page? (Y/n)")?.eq_ignore_ascii_case("n") {
                    break;
                }
            }
        }
        if shown == 0 {
            output::note("No messages");
        } else if next <= last && !output::can_ask() {
            output::note(format!("More follow: --id {next}"));
        }
        Ok(())
    }

    fn print(&self, item: &Value, json: bool) -> Result<(), Failure> {
        if json {
            return output::print_json_line(&readable(item));
        }
        let body = body(item);
        if self.raw {
            return output::print(message::printable(&body));
        }
        let received = time(item, "/time").map(units::show_time).unwrap_or_default();
        let mut page = format!(
            "[{}] Subject: {} Received: {received}\n",
            count(item, "/seq"),
            text(item, "/subject")
        );
        let headers = headers(item);
        if !headers.is_empty() {
            page += "Headers:\n";
            for (name, value) in &headers {
                page += &format!("  {name}: {value}\n");
            }
        }
        output::print(format!("{page}\n{}\n", message::printable(&body)))
    }
}

/// The sequence of the first message stored at a time or after it.
///
/// By bisection over the stored messages, as the API that seeks by time is not everywhere.
async fn sequence_at(api: &Api, stream: &str, start: Timestamp) -> Result<Option<u64>, Failure> {
    let info = api.stream(stream).await?;
    let (mut low, mut high) = (
        count(&info, "/state/first_seq"),
        count(&info, "/state/last_seq") + 1,
    );
    while low < high {
        let middle = low + (high - low) / 2;
        let query = json!({"seq": middle, "next_by_subj": ">"});
        let item = match api.message(stream, &query).await {
            Ok(item) => item,
            Err(failure) if failure.code() == Failure::NOT_FOUND => {
                high = middle;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        match time(&item, "/time") {
            Some(stored) if stored < start => low = count(&item, "/seq") + 1,
            _ => high = middle,
        }
    }
    Ok((low <= count(&info, "/state/last_seq")).then_some(low))
}

/// Gets one message of a stream
#[derive(Args, Debug)]
pub struct Get {
    /// Stream to read from
    stream: String,
    /// Sequence of the message
    #[arg(required_unless_present = "last_for")]
    id: Option<u64>,
    /// The last message of a subject
    #[arg(long, short = 'S', value_name = "SUBJECT", conflicts_with = "id")]
    last_for: Option<String>,
    /// Prints the body only
    #[arg(long)]
    raw: bool,
}

impl Get {
    /// Gets and prints it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let query = match (&self.last_for, self.id) {
            (Some(subject), _) => json!({ "last_by_subj": subject }),
            (None, id) => json!({ "seq": id }),
        };
        let item = api.message(&self.stream, &query).await?;
        if context.json {
            return output::print_json(&readable(&item));
        }
        let body = body(&item);
        if self.raw {
            return output::write(&body);
        }
        let stored = time(&item, "/time");
        let mut page = format!(
            "Item: {}#{} received {} ({} ago) on Subject {}\n\n",
            self.stream,
            count(&item, "/seq"),
            stored.map(units::show_time).unwrap_or_default(),
            units::show_since(stored, Timestamp::now()),
            text(&item, "/subject")
        );
        let headers = headers(&item);
        if !headers.is_empty() {
            page += "Headers:\n";
            for (name, value) in &headers {
                page += &format!("  {name}: {value}\n");
            }
            page += "\n";
        }
        output::print(format!("{page}{}", message::printable(&body)))
    }
}

/// Removes one message from a stream, and overwrites it
#[derive(Args, Debug)]
pub struct RemoveMessage {
    /// Stream to remove from
    stream: String,
    /// Sequence of the message
    id: u64,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl RemoveMessage {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { stream, id, force } = self;
        output::confirm(
            &format!("Really remove message {id} from Stream {stream}?"),
            force,
        )?;
        let api = Api::connect(context).await?;
        let endpoint = format!("STREAM.MSG.DELETE.{}", token("stream", &stream)?);
        let answer = api.call(&endpoint, &json!({ "seq": id })).await?;
        if context.json {
            return output::print_json(&answer);
        }
        output::note(format!("Removed message {id} from Stream {stream}"));
        Ok(())
    }
}

fn decode(item: &Value, field: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text(item, field)).unwrap_or_default()
}

fn body(item: &Value) -> Vec<u8> {
    decode(item, "/data")
}

/// The header lines of a stored message, in the order they were sent.
fn headers(item: &Value) -> Vec<(String, String)> {
    let block = decode(item, "/hdrs");
    String::from_utf8_lossy(&block)
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The message as the API gave it, in base64, and beside that its headers and its body as text.
fn readable(item: &Value) -> Value {
    let mut item = item.clone();
    let (headers, body) = (headers(&item), body(&item));
    if let Some(object) = item.as_object_mut() {
        let mut by_name = serde_json::Map::new();
        for (name, value) in headers {
            let values = by_name.entry(name).or_insert_with(|| json!([]));
            values
                .as_array_mut()
                .expect("made as an array")
                .push(value.into());
        }
        if !by_name.is_empty() {
            object.insert("headers".to_owned(), by_name.into());
        }
        if let Ok(text) = String::from_utf8(body) {
            object.insert("text".to_owned(), text.into());
        }
    }
    item
}
