//! `mesh request`: ask, and print the answer, or say plainly that nobody listens.

use std::time::{Duration, Instant};

use async_nats::{HeaderName, HeaderValue, Message, StatusCode, Subscriber};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;

use super::context::Connection;
use super::{Context, Failure, message, output, template, units};

/// Sends a request and prints the reply
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 answered, 1 no answer in time, 4 nobody listens.\n\n\
                        Examples:\n  mesh request time.now\n  mesh request fleet.status --replies 0 --timeout 2s"
)]
pub struct Request {
    /// Subject to send the request to
    subject: String,
    /// Body; `-`, or nothing with stdin redirected, reads stdin
    body: Option<String>,
    /// Prints bodies only
    #[arg(long, short = 'r')]
    raw: bool,
    /// Adds a header, as often as needed
    #[arg(long, short = 'H', value_name = "K:V", value_parser = message::header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Sends this many requests, one after the other
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Takes this many replies; 0 takes what comes until --timeout
    #[arg(long, default_value_t = 1)]
    replies: u64,
    /// The longest pause between replies, when there are several
    #[arg(long, value_name = "DURATION", default_value = "300ms", value_parser = units::duration)]
    reply_timeout: Duration,
    /// Sends body and subject as they are, without filling in {{...}}
    #[arg(long)]
    no_templates: bool,
}

impl Request {
    /// Asks and prints.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let connection = context.open().await?;
        let body = message::body(self.body.as_deref())?;
        for count in 1..=self.count {
            let values = template::Values { count, request: None };
            let (subject, body) = match (self.no_templates, std::str::from_utf8(&body)) {
                (false, Ok(text)) => (
                    template::fill(&self.subject, values),
                    template::fill(text, values).into(),
                ),
                _ => (self.subject.clone(), body.clone()),
            };
            self.ask(&connection, &subject, body, context).await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        connection: &Connection,
        subject: &str,
        body: Bytes,
        context: &Context,
    ) -> Result<(), Failure> {
        let client = &connection.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(Failure::failed)?;
        if !self.raw && !context.json {
            output::note(format!("Sending request on {subject:?}"));
        }
        let sent = Instant::now();
        let headers = message::headers(&self.header);
        let published = match headers.is_empty() {
            true => client.publish_with_reply(subject.to_owned(), inbox, body).await,
            false => {
                client
                    .publish_with_reply_and_headers(subject.to_owned(), inbox, headers, body)
                    .await
            }
        };
        published
            .map_err(|error| Failure::usage(format!("cannot send a request on {subject:?}: {error}")))?;
        let deadline = sent + context.timeout;
        let mut received = 0;
        while self.replies == 0 || received < self.replies {
            let Some(answer) = self.next(&mut answers, received, deadline).await else {
                break;
            };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(Failure::not_found(format!("nobody listens on {subject:?}"))
                    .hint(format!("answer there with `mesh reply {subject} BODY`")));
            }
            received += 1;
            self.print(&answer, sent.elapsed(), context.json)?;
        }
        match received {
            0 => Err(connection.refusal().unwrap_or_else(|| {
                Failure::failed(format!(
                    "no reply on {subject:?} within {}",
                    units::show_duration(context.timeout)
                ))
                .hint("someone listens, but did not answer in time; wait longer with --timeout")
            })),
            some if some < self.replies => Err(Failure::failed(format!(
                "{some} of {} replies came",
                self.replies
            ))),
            _ => Ok(()),
        }
    }

    /// The next reply; none when the time for it is over.
    async fn next(&self, answers: &mut Subscriber, received: u64, deadline: Instant) -> Option<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Replies come in a burst: a pause after some of them means that was all, unless more are owed.
        let wait = match (received, self.replies) {
            (0, _) | (_, 0) => left,
            _ => left.min(self.reply_timeout),
        };
        tokio::time::timeout(wait, answers.next()).await.ok().flatten()
    }

    fn print(&self, answer: &Message, elapsed: Duration, json: bool) -> Result<(), Failure> {
        if json {
            let mut object = message::message_json(answer);
            object.insert("rtt_ns".to_owned(), units::nanos(elapsed).into());
            return output::print_json_line(&Value::Object(object));
        }
        if !self.raw {
            output::note(format!("Received with rtt {}", units::show_duration(elapsed)));
            for line in answer.headers.iter().flat_map(message::header_lines) {
                output::note(line);
            }
        }
        message::print_message(answer, None)
    }
}
