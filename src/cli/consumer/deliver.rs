//! Messages of a consumer: `next` takes some and ends, `sub` goes on.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::Message as JetStreamMessage;
use async_nats::{HeaderValue, Message, Subscriber};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use jiff::Zoned;
use serde_json::{Value, json};

use crate::cli::api::{Api, text};
use crate::cli::{Context, Failure, message, output, units};

/// Takes the next messages of a pull consumer
#[derive(Args, Debug)]
#[command(after_help = "Exit code 1 if no message came within --timeout.\n\n\
                        Examples:\n  mesh consumer next ORDERS BILLING\n  \
                        mesh consumer next ORDERS BILLING --count 100 --json --no-ack")]
pub struct Next {
    /// Stream of the consumer
    stream: String,
    /// Consumer to take from
    consumer: String,
    /// Messages to take
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Takes only what is there, without waiting
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    settle: Settle,
}

/// Takes messages of a consumer as they come, until a count or Ctrl-C
#[derive(Args, Debug)]
pub struct Subscribe {
    /// Stream of the consumer
    stream: String,
    /// Consumer to take from
    consumer: String,
    /// Ends after this many messages
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    settle: Settle,
}

/// What becomes of a message, and how it is shown.
#[derive(Args, Debug)]
struct Settle {
    /// Acknowledges each message (the default)
    #[arg(long, overrides_with = "no_ack", hide = true)]
    ack: bool,
    /// Does not acknowledge: the message comes again later
    #[arg(long)]
    no_ack: bool,
    /// Gives it back: the message comes again soon
    #[arg(long, conflicts_with = "no_ack")]
    nak: bool,
    /// Gives it up: the message never comes again
    #[arg(long, conflicts_with_all = ["no_ack", "nak"])]
    term: bool,
    /// Sleeps before acknowledging
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    wait: Option<Duration>,
    /// Prints bodies only
    #[arg(long, short = 'r')]
    raw: bool,
}

impl Next {
    /// Takes and prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let pull = Pull::open(&api, &self.stream, &self.consumer).await?;
        let request = match self.no_wait {
            true => json!({"batch": self.count, "no_wait": true}),
            false => json!({"batch": self.count, "expires": units::nanos(context.timeout)}),
        };
        let mut messages = pull.ask(&request).await?;
        // The server ends the pull; should it die meanwhile, we still end.
        let deadline = Instant::now() + context.timeout + Duration::from_secs(1);
        let mut taken = 0;
        while taken < self.count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(Some(message)) = tokio::time::timeout(left, messages.next()).await else {
                break;
            };
            match pull.judge(message)? {
                Some(message) => self.settle.take(&api, message, pull.acks, context.json).await?,
                None => break,
            }
            taken += 1;
        }
        match taken {
            0 if self.no_wait => Err(Failure::failed(format!("no message waits in {}", pull.name))),
            0 => Err(Failure::failed(format!(
                "no message in {} within {}",
                pull.name,
                units::show_duration(context.timeout)
            ))
            .hint("wait longer with --timeout; `mesh consumer info` shows what is outstanding")),
            _ => Ok(()),
        }
    }
}

/// A pull consumer that is known to be there.
struct Pull<'a> {
    api: &'a Api,
    endpoint: String,
    name: String,
    /// Whether it expects acknowledgments.
    acks: bool,
}

impl<'a> Pull<'a> {
    async fn open(api: &'a Api, stream: &str, consumer: &str) -> Result<Self, Failure> {
        let info = api.consumer(stream, consumer).await?;
        let name = format!("{stream} > {consumer}");
        if !text(&info, "/config/deliver_subject").is_empty() {
            return Err(Failure::failed(format!("{name} pushes its messages"))
                .hint(format!("take them with `mesh consumer sub {stream} {consumer}`")));
        }
        Ok(Self {
            api,
            endpoint: format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            name,
            acks: text(&info, "/config/ack_policy") != "none",
        })
    }

    async fn ask(&self, request: &Value) -> Result<Subscriber, Failure> {
        let client = self.api.client();
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await.map_err(Failure::failed)?;
        client
            .publish_with_reply(
                format!("$JS.API.{}", self.endpoint),
                inbox,
                request.to_string().into(),
            )
            .await
            .map_err(Failure::failed)?;
        Ok(messages)
    }

    /// Tells messages from statuses: none when the pull is over.
    fn judge(&self, message: Message) -> Result<Option<Message>, Failure> {
        let Some(status) = message.status else {
            return Ok(Some(message));
        };
        let description = message.description.unwrap_or_default();
        match status.as_u16() {
            404 | 408 => Ok(None),
            409 if description.starts_with("Batch Completed") => Ok(None),
            409 if description.starts_with("Consumer Deleted") => {
                Err(Failure::not_found(format!("{} was removed", self.name)))
            }
            503 => Err(Failure::not_found(format!("{} is gone", self.name))),
            code => Err(Failure::failed(format!("{}: {code} {description}", self.name))),
        }
    }
}

impl Subscribe {
    /// Takes and prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let api = Api::connect(context).await?;
        let info = api.consumer(&self.stream, &self.consumer).await?;
        let mut taken = 0;
        let served = async {
            match text(&info, "/config/deliver_subject") {
                "" => self.pull(&api, &mut taken, context.json).await,
                subject => self.push(&api, subject, &info, &mut taken, context.json).await,
            }
        };
        tokio::select! {
            served = served => served?,
            () = output::interrupted() => {}
        }
        output::note(format!("Took {taken} messages"));
        Ok(())
    }

    async fn pull(&self, api: &Api, taken: &mut u64, json: bool) -> Result<(), Failure> {
        const BATCH: u64 = 100;
        let pull = Pull::open(api, &self.stream, &self.consumer).await?;
        while self.count.is_none_or(|limit| *taken < limit) {
            let batch = self.count.map_or(BATCH, |limit| BATCH.min(limit - *taken));
            let request = json!({"batch": batch, "expires": units::nanos(Duration::from_secs(30))});
            let mut messages = pull.ask(&request).await?;
            for _ in 0..batch {
                let next = tokio::time::timeout(Duration::from_secs(35), messages.next()).await;
                let Ok(Some(message)) = next else { break };
                match pull.judge(message)? {
                    Some(message) => self.settle.take(api, message, pull.acks, json).await?,
                    None => break,
                }
                *taken += 1;
            }
        }
        Ok(())
    }

    async fn push(
        &self,
        api: &Api,
        subject: &str,
        info: &Value,
        taken: &mut u64,
        json: bool,
    ) -> Result<(), Failure> {
        let client = api.client();
        let subscribed = match text(info, "/config/deliver_group") {
            "" => client.subscribe(subject.to_owned()).await,
            group => client.queue_subscribe(subject.to_owned(), group.to_owned()).await,
        };
        let mut messages = subscribed.map_err(Failure::failed)?;
        let acks = text(info, "/config/ack_policy") != "none";
        while self.count.is_none_or(|limit| *taken < limit) {
            let Some(message) = messages.next().await else {
                break;
            };
            if message.status.is_some() {
                answer_flow_control(api, &message).await?;
                continue;
            }
            self.settle.take(api, message, acks, json).await?;
            *taken += 1;
        }
        Ok(())
    }
}

/// A flow-control request is answered with an empty message; a heartbeat that tells of one, too.
async fn answer_flow_control(api: &Api, status: &Message) -> Result<(), Failure> {
    let stalled = status
        .headers
        .as_ref()
        .and_then(|headers| headers.get("Nats-Consumer-Stalled"));
    let reply = status.reply.as_deref().or(stalled.map(HeaderValue::as_str));
    match reply {
        Some(reply) => {
            let sent = api.client().publish(reply.to_owned(), Bytes::new()).await;
            sent.map_err(Failure::failed)
        }
        None => Ok(()),
    }
}

impl Settle {
    /// Prints a message, then settles it; an acknowledgment is confirmed by the server.
    async fn take(&self, api: &Api, message: Message, acks: bool, json: bool) -> Result<(), Failure> {
        let reply = message.reply.clone();
        self.print(api, message, json)?;
        let Some(reply) = reply.filter(|_| acks && !self.no_ack) else {
            return Ok(());
        };
        if let Some(pause) = self.wait {
            tokio::time::sleep(pause).await;
        }
        let (body, done) = match (self.nak, self.term) {
            (true, _) => ("-NAK", "Negative Acknowledged message"),
            (_, true) => ("+TERM", "Terminated message"),
            _ => ("+ACK", "Acknowledged message"),
        };
        api.client()
            .request(reply, body.into())
            .await
            .map_err(|error| Failure::unhealthy(format!("the acknowledgment was not confirmed: {error}")))?;
        if !self.raw && !json {
            output::note(done);
        }
        Ok(())
    }

    fn print(&self, api: &Api, message: Message, json: bool) -> Result<(), Failure> {
        let message = JetStreamMessage {
            message,
            context: api.jetstream(),
        };
        let about = message.info().ok();
        if json {
            let mut object = message::message_json(&message.message);
            if let Some(about) = about {
                object.insert("stream".to_owned(), about.stream.into());
                object.insert("consumer".to_owned(), about.consumer.into());
                object.insert("seq".to_owned(), about.stream_sequence.into());
                object.insert("consumer_seq".to_owned(), about.consumer_sequence.into());
                object.insert("delivered".to_owned(), about.delivered.into());
                object.insert("pending".to_owned(), about.pending.into());
                let time = jiff::Timestamp::from_nanosecond(about.published.unix_timestamp_nanos());
                object.insert(
                    "time".to_owned(),
                    time.map_err(Failure::failed)?.to_string().into(),
                );
            }
            return output::print_json_line(&Value::Object(object));
        }
        if self.raw {
            return message::print_message(&message.message, None);
        }
        let now = Zoned::now().strftime("%H:%M:%S").to_string();
        let subject = &message.message.subject;
        let heading = match about {
            Some(about) => format!(
                "[{now}] subj: {subject} / tries: {} / cons seq: {} / str seq: {} / pending: {}\n",
                about.delivered,
                about.consumer_sequence,
                about.stream_sequence,
                units::show_count(about.pending)
            ),
            None => format!("[{now}] subj: {subject}\n"),
        };
        message::print_message(&message.message, Some(&heading))
    }
}
