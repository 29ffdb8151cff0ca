//! A durable reader: it goes on exactly where it stopped, whoever was restarted meanwhile.
//!
//! One event is in flight at a time. That is what keeps order through a crash: whatever was unsettled is the next to be
//! delivered again. A broker that was killed may have forgotten the latest acknowledgements; the reader
//! remembers what it settled and acknowledges it again without handing it out twice.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, Consumer, DeliverPolicy, FromConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{AckKind, Message, stream};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::error::While;
use super::exec::{Backoff, Outcome, Run};
use super::reader::{filters, wants};
use super::{Error, Mesh, Received, Start, identity};

/// An unsettled event is delivered again after this; while it is worked on we say so more often.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often we say that an event is still being worked on.
const PROGRESS: Duration = Duration::from_millis(1500);
/// An idle server speaks this often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one pull request stands.
const EXPIRES: Duration = Duration::from_secs(20);
/// Pause before what broke is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one acknowledgement is waited for.
const ACK_TRY: Duration = Duration::from_secs(1);
/// Subject of dead letters; a command gets them only if asked for by this name.
const DEAD: &str = "mesh.dead.letter";

/// A pull consumer of the stream.
type Pull = Consumer<pull::Config>;

/// Which of the events on a subject are wanted, by their envelope.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only from this instance.
    pub instance: Option<String>,
    /// Only from this session.
    pub session: Option<String>,
}

impl Filter {
    /// Whether `event` passes.
    pub fn passes(&self, event: &Received) -> bool {
        let fits = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        fits(&self.instance, &event.envelope.instance) && fits(&self.session, &event.envelope.session)
    }
}

/// What a durable reader is to be given.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The durable's name.
    pub name: String,
    /// Patterns; an event is wanted if one of them matches.
    pub patterns: Vec<String>,
    /// Where it begins the very first time.
    pub start: Start,
    /// What else an event must be.
    pub filter: Filter,
}

/// A durable reader.
pub struct Durable {
    mesh: Mesh,
    wanted: Wanted,
    messages: Option<pull::Stream>,
    /// The last sequence that was settled here.
    settled: u64,
    /// How often it was opened, for whoever must know whether all deliveries came here.
    opened: u64,
}

/// An event that must be settled before the next one comes.
pub struct Delivery {
    /// The event.
    pub event: Received,
    message: Message,
}

impl Mesh {
    /// Opens a durable reader, made if it is new.
    pub async fn durable(&self, wanted: Wanted) -> Result<Durable, Error> {
        identity::checked("durable", &wanted.name)?;
        let mut durable = Durable {
            mesh: self.clone(),
            wanted,
            messages: None,
            settled: 0,
            opened: 0,
        };
        durable.open().await?;
        Ok(durable)
    }
}

impl Durable {
    /// The next event that is wanted; waits for it, through restarts of the server.
    pub async fn next(&mut self) -> Delivery {
        loop {
            let Some(messages) = &mut self.messages else {
                if self.open().await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            };
            let Some(Ok(message)) = messages.next().await else {
                self.messages = None;
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(event) = Received::from_consumer(&message) else {
                continue;
            };
            let delivery = Delivery { event, message };
            let again = delivery.event.stream_seq <= self.settled;
            let wanted = wants(&self.wanted.patterns, &delivery.event.subject)
                && self.wanted.filter.passes(&delivery.event);
            if again || !wanted {
                self.ack(&delivery).await;
                continue;
            }
            return delivery;
        }
    }

    /// Settles an event: it will not come again. Whether the server confirmed it; if not, it is settled when
    /// the server brings it back to this reader.
    pub async fn ack(&mut self, delivery: &Delivery) -> bool {
        self.settle(delivery, AckKind::Ack).await
    }

    /// Has the event delivered again, not before `pause`.
    pub async fn retry(&mut self, delivery: &Delivery, pause: Duration) {
        // If this is lost, the event comes again by itself.
        delivery.message.ack_with(AckKind::Nak(Some(pause))).await.ok();
    }

    async fn settle(&mut self, delivery: &Delivery, kind: AckKind) -> bool {
        self.settled = self.settled.max(delivery.event.stream_seq);
        let Some(reply) = &delivery.message.reply else {
            return false;
        };
        let deadline = Instant::now() + self.mesh.timeout;
        while Instant::now() < deadline {
            // A request, so that "nobody is there to take it" does not pass for a confirmation.
            let told = self.mesh.client.request(reply.clone(), kind.into());
            match tokio::time::timeout(ACK_TRY, told).await {
                Ok(Ok(_)) => return true,
                Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
                Err(_) => {}
            }
        }
        false
    }

    /// Runs `command` for the event and settles it by the outcome: done, tried again later, or given up as
    /// a dead letter. What is returned is for the reader's log.
    pub async fn run(
        &mut self,
        delivery: &Delivery,
        command: &str,
        backoff: &Backoff,
    ) -> Result<String, Error> {
        let event = &delivery.event;
        if event.subject == DEAD
            && !self
                .wanted
                .patterns
                .iter()
                .any(|pattern| pattern.starts_with("mesh.dead."))
        {
            self.ack(delivery).await;
            return Ok("passed over".to_owned());
        }
        let why = if event.deliveries > backoff.tries_max {
            "it ended this reader each time".to_owned()
        } else {
            let run = Run::for_event(command, event);
            match delivery.while_working(run.finish()).await? {
                Outcome::Done => {
                    self.ack(delivery).await;
                    return Ok("done".to_owned());
                }
                Outcome::Failed(why) => why,
            }
        };
        if let Some(pause) = backoff.after(event.deliveries) {
            self.retry(delivery, pause).await;
            return Ok(format!("{why}; again in {pause:?}"));
        }
        self.give_up(delivery, &why).await?;
        Ok(format!(
            "{why}; given up after {} tries, see event dead_letter",
            event.deliveries
        ))
    }

    /// Reports the event as a dead letter, then settles it for good.
    pub async fn give_up(&mut self, delivery: &Delivery, why: &str) -> Result<(), Error> {
        let event = &delivery.event;
        let letter = json!({
            "consumer": self.wanted.name,
            "sequence": event.stream_seq,
            "subject": event.subject,
            "reason": why,
            "tries": event.deliveries,
        });
        let id = format!(
            "dead.{}.{}.{}",
            self.wanted.name,
            event.stream_seq,
            event.stored.as_nanosecond()
        );
        self.mesh.tell("dead_letter", &letter, Some(id)).await?;
        self.settle(delivery, AckKind::Term).await;
        Ok(())
    }

    /// Finds the consumer, or makes it, and begins to pull.
    async fn open(&mut self) -> Result<(), Error> {
        let what = format!("cannot open durable `{}`", self.wanted.name);
        let stream = self.mesh.stream().await?;
        let consumer = match stream.consumer_info(&self.wanted.name).await {
            Ok(info) => self.adjusted(&stream, info.config).await?,
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => self.made(&stream).await?,
            Err(error) => return Err(Error::server(what)(error.into())),
        };
        let pull = consumer
            .stream()
            .max_messages_per_batch(1)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES);
        self.messages = Some(pull.messages().await.while_doing(what)?);
        self.opened += 1;
        Ok(())
    }

    /// How often the consumer was opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// The existing consumer, with the patterns of this run; its position stays.
    async fn adjusted(&self, stream: &stream::Stream, config: consumer::Config) -> Result<Pull, Error> {
        let what = format!("durable `{}` exists and is none of ours", self.wanted.name);
        let mut config = pull::Config::try_from_consumer_config(config).map_err(|error| Error::Server {
            what: what.clone(),
            why: error.to_string(),
        })?;
        config.filter_subject = String::new();
        config.filter_subjects = filters(&self.wanted.patterns);
        config.ack_wait = ACK_WAIT;
        config.max_ack_pending = 1;
        stream.create_consumer(config).await.while_doing(what)
    }

    async fn made(&mut self, stream: &stream::Stream) -> Result<Pull, Error> {
        let what = format!("cannot make durable `{}`", self.wanted.name);
        let end = stream.cached_info().state.last_sequence;
        // Somebody may have removed the consumer, or the whole stream, while we were reading.
        if self.settled > end {
            self.settled = 0;
        }
        let deliver_policy = match self.wanted.start {
            _ if self.settled > 0 => DeliverPolicy::ByStartSequence {
                start_sequence: self.settled + 1,
            },
            Start::Now => DeliverPolicy::New,
            Start::Latest => DeliverPolicy::LastPerSubject,
            Start::After(0) => DeliverPolicy::All,
            Start::After(seq) => DeliverPolicy::ByStartSequence {
                start_sequence: seq + 1,
            },
            Start::At(time) => DeliverPolicy::ByStartTime {
                start_time: async_nats::datetime::from_nanos(time.as_nanosecond()).map_err(|error| {
                    Error::Server {
                        what: what.clone(),
                        why: error.to_string(),
                    }
                })?,
            },
        };
        let config = pull::Config {
            durable_name: Some(self.wanted.name.clone()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1,
            filter_subjects: filters(&self.wanted.patterns),
            ..Default::default()
        };
        stream.create_consumer(config).await.while_doing(what)
    }
}

impl Delivery {
    /// Waits for `work`, telling the server meanwhile that the event is being worked on.
    pub async fn while_working<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(PROGRESS) => {
                    self.message.ack_with(AckKind::Progress).await.ok();
                }
            }
        }
    }
}
