//! `mesh sub`: print messages as they come, until a count, a silence or Ctrl-C.

use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use clap::Args;
use futures_util::{StreamExt, stream};
use jiff::Zoned;
use serde_json::Value;

use super::{Context, Failure, message, output, units};

/// Subscribes to subjects and prints what comes
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mesh sub 'orders.>' --count 10\n  mesh sub 'orders.>' --json | jq .text\n  \
                        mesh sub jobs --queue workers --raw"
)]
pub struct Subscribe {
    /// Subjects to subscribe to; * takes one token, > the rest
    #[arg(required = true, value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// Joins a queue group: each message goes to one of its members
    #[arg(long, value_name = "GROUP")]
    queue: Option<String>,
    /// Ends after this many messages
    #[arg(long)]
    count: Option<u64>,
    /// Ends after this long without a message
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    wait: Option<Duration>,
    /// Prints bodies only, a line each
    #[arg(long, short = 'r')]
    raw: bool,
    /// Prints headers only
    #[arg(long)]
    headers_only: bool,
    /// Prints subjects only
    #[arg(long)]
    subjects_only: bool,
    /// Prints the time of arrival
    #[arg(long, short = 't')]
    timestamp: bool,
}

impl Subscribe {
    /// Subscribes and prints.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let connection = context.open().await?;
        let mut subscribers = Vec::new();
        for subject in &self.subjects {
            let subscribed = match &self.queue {
                Some(queue) => {
                    connection
                        .client
                        .queue_subscribe(subject.clone(), queue.clone())
                        .await
                }
                None => connection.client.subscribe(subject.clone()).await,
            };
            let mut subscriber: Subscriber = subscribed
                .map_err(|error| Failure::usage(format!("cannot subscribe to {subject:?}: {error}")))?;
            // What a queue member does not print must go to another member.
            if let (Some(count), [_]) = (self.count, self.subjects.as_slice()) {
                subscriber
                    .unsubscribe_after(count)
                    .await
                    .map_err(Failure::failed)?;
            }
            subscribers.push(subscriber);
        }
        connection.settle().await?;
        let ending = output::interrupted();
        output::note(format!("Subscribing on {}", self.subjects.join(", ")));
        self.receive(stream::select_all(subscribers), ending, context.json)
            .await
    }

    async fn receive(
        &self,
        mut messages: stream::SelectAll<Subscriber>,
        ending: impl Future<Output = ()>,
        json: bool,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let (mut count, mut bytes) = (0_u64, 0_u64);
        let mut ending = std::pin::pin!(ending);
        while self.count.is_none_or(|limit| count < limit) {
            let silence = async {
                match self.wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = messages.next() => message,
                () = silence => None,
                () = &mut ending => None,
            };
            let Some(message) = message else { break };
            count += 1;
            bytes += message.payload.len() as u64;
            self.print(&message, count, json)?;
        }
        output::note(format!(
            "Received {} {}, {}, in {}",
            units::show_count(count),
            if count == 1 { "message" } else { "messages" },
            units::show_bytes(bytes),
            units::show_duration(started.elapsed())
        ));
        Ok(())
    }

    fn print(&self, message: &Message, number: u64, json: bool) -> Result<(), Failure> {
        if json {
            let mut object = message::message_json(message);
            if self.headers_only {
                object.remove("text");
                object.remove("data");
            }
            if self.timestamp {
                object.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
            }
            return output::print_json_line(&Value::Object(object));
        }
        if self.subjects_only {
            return output::print(&message.subject);
        }
        if self.raw {
            return message::print_message(message, None);
        }
        let time = match self.timestamp {
            true => Zoned::now().strftime(" @ %H:%M:%S%.6f").to_string(),
            false => String::new(),
        };
        let reply = match &message.reply {
            Some(reply) => format!(" with reply {:?}", reply.as_str()),
            None => String::new(),
        };
        let heading = format!(
            "[#{number}]{time} Received on {:?}{reply}",
            message.subject.as_str()
        );
        if self.headers_only {
            output::print(heading)?;
            for line in message.headers.iter().flat_map(message::header_lines) {
                output::print(line)?;
            }
            return output::print("");
        }
        message::print_message(message, Some(&heading))
    }
}
