//! `mesh pub`: publish messages, and with `--jetstream` wait until a stream has them on disk.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::io::AsyncBufReadExt;

use super::context::Connection;
use super::pipeline::Pipeline;
use super::{Context, Failure, api, message, output, template, units};

/// Up to this many messages are each reported; above it a total is.
const REPORTED_MAX: u64 = 20;
/// Publishes that wait for a stream's ack at the same time.
const UNACKED_MAX: u64 = 256;

/// Publishes a message
#[derive(Args, Debug)]
#[command(
    after_help = "Templates in body and subject: {{Count}} {{ID}} {{Time}} {{TimeStamp}} {{Unix}} {{UnixNano}} \
                        {{Random MIN MAX}}.\n\nExamples:\n  mesh pub greet 'hello {{Count}}' --count 3\n  \
                        echo '{\"n\":1}' | mesh pub orders.new -J -H Nats-Msg-Id:1"
)]
pub struct Publish {
    /// Subject to publish to
    subject: String,
    /// Message body; `-`, or nothing with stdin redirected, reads stdin
    body: Option<String>,
    /// Subject that replies should go to
    #[arg(long, value_name = "SUBJECT")]
    reply: Option<String>,
    /// Adds a header, as often as needed
    #[arg(long, short = 'H', value_name = "K:V", value_parser = message::header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Publishes this many messages
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Sleeps between messages
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    sleep: Option<Duration>,
    /// Waits for a stream to acknowledge each message, and prints where it is stored
    #[arg(long, short = 'J')]
    jetstream: bool,
    /// What of stdin makes a message
    #[arg(long, value_enum, default_value = "eof")]
    send_on: SendOn,
    /// Sends body and subject as they are, without filling in {{...}}
    #[arg(long)]
    no_templates: bool,
    /// Shows a progress bar (by itself on a terminal from 21 messages on)
    #[arg(long)]
    progress: bool,
    /// Says nothing but what goes wrong
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SendOn {
    /// All of stdin is one message
    Eof,
    /// Each line of stdin is a message
    Newline,
}

/// One message, ready to go.
struct Outgoing {
    subject: String,
    body: Bytes,
}

impl Publish {
    /// Publishes, then makes sure that the server took it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.jetstream && self.reply.is_some() {
            return Err(Failure::usage(
                "--reply and --jetstream exclude each other: the ack is the reply",
            ));
        }
        if self.subject.split('.').any(|token| matches!(token, "*" | ">")) {
            return Err(Failure::usage(format!(
                "cannot publish to a wildcard: {:?}",
                self.subject
            )));
        }
        let connection = context.open().await?;
        let headers = message::headers(&self.header);
        let started = Instant::now();
        let bar = self.bar();
        let (count, bytes) = match self.jetstream {
            true => self.store(&connection, context, headers, &bar).await?,
            false => self.send(&connection, headers, &bar).await?,
        };
        connection.settle().await?;
        bar.finish_and_clear();
        if count > REPORTED_MAX && !self.quiet {
            output::note(format!(
                "Published {} messages, {}, in {}",
                units::show_count(count),
                units::show_bytes(bytes),
                units::show_duration(started.elapsed())
            ));
        }
        Ok(())
    }

    async fn send(
        &self,
        to: &Connection,
        headers: HeaderMap,
        bar: &ProgressBar,
    ) -> Result<(u64, u64), Failure> {
        let (mut count, mut bytes) = (0, 0);
        let mut messages = self.messages()?;
        while let Some(outgoing) = messages.next().await {
            let Outgoing { subject, body } = outgoing?;
            let size = body.len();
            let client = &to.client;
            // The status block costs bytes on the wire: none unless there are headers.
            let sent = match (&self.reply, headers.is_empty()) {
                (None, true) => client.publish(subject.clone(), body).await,
                (None, false) => {
                    client
                        .publish_with_headers(subject.clone(), headers.clone(), body)
                        .await
                }
                (Some(reply), true) => {
                    client
                        .publish_with_reply(subject.clone(), reply.clone(), body)
                        .await
                }
                (Some(reply), false) => {
                    client
                        .publish_with_reply_and_headers(subject.clone(), reply.clone(), headers.clone(), body)
                        .await
                }
            };
            sent.map_err(|error| Failure::usage(format!("cannot publish to {subject:?}: {error}")))?;
            count += 1;
            bytes += size as u64;
            bar.inc(1);
            if !self.quiet && self.count.max(count) <= REPORTED_MAX {
                output::note(format!("Published {size} bytes to {subject:?}"));
            }
            self.pause(count).await;
        }
        Ok((count, bytes))
    }

    async fn store(
        &self,
        connection: &Connection,
        context: &Context,
        headers: HeaderMap,
        bar: &ProgressBar,
    ) -> Result<(u64, u64), Failure> {
        let window = if self.sleep.is_some() { 1 } else { UNACKED_MAX };
        let mut pipeline = Pipeline::open(&connection.client, context).await?;
        let mut messages = self.messages()?;
        let (mut count, mut bytes, mut more) = (0, 0, true);
        loop {
            // Acks are reported as they come, also while stdin has nothing to say.
            tokio::select! {
                ack = pipeline.ack(), if pipeline.unacked() > 0 => {
                    let ack = ack?;
                    bar.inc(1);
                    if context.json {
                        output::print_json_line(&ack)?;
                    } else if !self.quiet && bar.is_hidden() {
                        output::print(stored(&ack))?;
                    }
                }
                outgoing = messages.next(), if more && pipeline.unacked() < window => {
                    let Some(outgoing) = outgoing.transpose()? else {
                        more = false;
                        continue;
                    };
                    count += 1;
                    bytes += outgoing.body.len() as u64;
                    pipeline.send(&outgoing.subject, headers.clone(), outgoing.body).await?;
                    self.pause(count).await;
                }
                else => return Ok((count, bytes)),
            }
        }
    }

    /// Sleeps as told, but not after the last message.
    async fn pause(&self, count: u64) {
        let last = count == self.count && self.send_on == SendOn::Eof;
        if let Some(pause) = self.sleep.filter(|_| !last) {
            tokio::time::sleep(pause).await;
        }
    }

    /// The messages to send, one after the other: memory does not grow with `--count`.
    fn messages(&self) -> Result<BoxStream<'_, Result<Outgoing, Failure>>, Failure> {
        if self.send_on == SendOn::Newline && matches!(self.body.as_deref(), None | Some("-")) {
            // Read beside the connection, which must go on while a line is waited for.
            let lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
            return Ok(stream::unfold((lines, 1), move |(mut lines, number)| async move {
                let outgoing = match lines.next_line().await.transpose()? {
                    Ok(line) => Ok(self.message(number, &Bytes::from(line))),
                    Err(error) => Err(Failure::from(error)),
                };
                Some((outgoing, (lines, number + 1)))
            })
            .boxed());
        }
        let body = message::body(self.body.as_deref())?;
        let bodies = (1..=self.count).map(move |number| Ok(self.message(number, &body)));
        Ok(stream::iter(bodies).boxed())
    }

    fn message(&self, count: u64, body: &Bytes) -> Outgoing {
        let values = template::Values { count, request: None };
        let fill = |text: &str| match self.no_templates {
            true => text.to_owned(),
            false => template::fill(text, values),
        };
        let body = match std::str::from_utf8(body) {
            Ok(text) if !self.no_templates && template::has_blanks(text) => fill(text).into(),
            _ => body.clone(),
        };
        let subject = fill(&self.subject);
        Outgoing { subject, body }
    }

    fn bar(&self) -> ProgressBar {
        let many = self.count > REPORTED_MAX && self.send_on == SendOn::Eof;
        if !(many || self.progress) || self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec} {eta}");
        let bar = ProgressBar::new(self.count);
        bar.set_style(style.expect("the template is well-formed"));
        bar
    }
}

/// Where a stream says that it has stored a message.
fn stored(ack: &Value) -> String {
    let (stream, sequence) = (api::text(ack, "/stream"), api::count(ack, "/seq"));
    let duplicate = match api::flag(ack, "/duplicate") {
        true => " Duplicate: true",
        false => "",
    };
    let counter = match api::text(ack, "/val") {
        "" => String::new(),
        value => format!(" Value: {value}"),
    };
    format!("Stored in Stream: {stream} Sequence: {sequence}{duplicate}{counter}")
}
