//! The JetStream API: `$JS.API.>` as subjects, JSON in and out.
//!
//! Requests are queued by the publishing connection and answered by a few workers; those of one requester go to one
//! worker, so that they are answered in order, and after the publishes that came before them were taken in. What is
//! large of a batch of messages leaves beside that. A request that ends in a panic is answered with an error, and the
//! worker goes on.

mod account;
mod advisory;
mod batch;
mod consumers;
mod direct;
pub mod error;
mod request;
mod streams;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::info::API_LEVEL;
use crate::router::{Batch, Publisher, Service, Subscription};

use super::JetStream;
use advisory::Advisory;
use batch::Batch as Messages;
use error::ApiError;

const PREFIX: &[u8] = b"$JS.API.";
const NEXT: &[u8] = b"CONSUMER.MSG.NEXT.";
const DIRECT: &str = "DIRECT.GET.";
/// Workers that answer requests side by side.
const WORKERS: usize = 4;
/// Bytes of requests waiting for one worker above which publishers wait, and above which requests are refused.
const QUEUE_HIGH: usize = 1 << 20;
const QUEUE_MAX: usize = 16 << 20;
/// Batches of messages that are sent side by side, beside their first chunk.
const BATCHES: usize = 1024;
/// How long those who do not take their answers hold up others.
const RELIEF_MAX: Duration = Duration::from_secs(1);

/// Requests answered.
#[derive(Debug, Default)]
pub(super) struct Counters {
    total: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    pub fn get(&self) -> (u64, u64) {
        (
            self.total.load(Ordering::Relaxed),
            self.errors.load(Ordering::Relaxed),
        )
    }
}

/// An answer: its type and fields, or the error with the fields that stand beside it.
pub(super) struct Answer {
    kind: &'static str,
    outcome: Result<Map<String, Value>, (ApiError, Map<String, Value>)>,
    advisory: Option<Advisory>,
}

impl Answer {
    fn new(kind: &'static str, outcome: Result<Map<String, Value>, ApiError>) -> Self {
        Self {
            kind,
            outcome: outcome.map_err(|error| (error, Map::new())),
            advisory: None,
        }
    }

    /// What to tell those who watch, should it have succeeded.
    fn advise(mut self, advisory: Advisory) -> Self {
        self.advisory = self.outcome.is_ok().then_some(advisory);
        self
    }

    /// Fields that answers of this type have even beside an error.
    fn beside_error(mut self, fields: Value) -> Self {
        if let (Err((_, beside)), Value::Object(fields)) = (&mut self.outcome, fields) {
            *beside = fields;
        }
        self
    }

    fn is_error(&self) -> bool {
        self.outcome.is_err()
    }

    fn into_json(self) -> Vec<u8> {
        let mut all = Map::new();
        let kind = format!("io.nats.jetstream.api.v1.{}_response", self.kind);
        all.insert("type".to_owned(), kind.into());
        match self.outcome {
            Ok(fields) => all.extend(fields),
            Err((error, beside)) => {
                let error = serde_json::to_value(error).expect("plain fields serialise");
                all.insert("error".to_owned(), error);
                all.extend(beside);
            }
        }
        serde_json::to_vec(&all).expect("a JSON value serialises")
    }
}

/// Subscribes the API and starts its workers.
pub(super) fn serve(jetstream: &Arc<JetStream>) -> Vec<Arc<Subscription>> {
    let queues: Vec<_> = (0..WORKERS).map(|_| Arc::new(Queue::default())).collect();
    let batches = Arc::new(Semaphore::new(BATCHES));
    for queue in &queues {
        let batches = batches.clone();
        let (jetstream, queue) = (jetstream.clone(), queue.clone());
        let stopping = jetstream.stopping.clone();
        jetstream
            .clone()
            .tasks
            .spawn(work(jetstream, queue, batches, stopping));
    }
    let service: Arc<dyn Service> = Arc::new(Api {
        queues,
        jetstream: Arc::downgrade(jetstream),
        domain: jetstream.options.domain.clone(),
    });
    let router = jetstream.router();
    let mut subscriptions = vec![router.subscribe_service(&service, b"$JS.API.>", None)];
    if let Some(domain) = &jetstream.options.domain {
        let pattern = format!("$JS.{domain}.API.>");
        subscriptions.push(router.subscribe_service(&service, pattern.as_bytes(), None));
    }
    subscriptions
}

/// Requests waiting for one worker.
#[derive(Default)]
struct Queue {
    batches: Mutex<VecDeque<Batch>>,
    bytes: AtomicUsize,
    filled: Notify,
    relieved: Notify,
}

impl Queue {
    /// Takes a batch, unless too much is waiting.
    fn push(&self, batch: Batch) -> Result<(), Batch> {
        let bytes = batch.bytes();
        if self.bytes.load(Ordering::Relaxed) > QUEUE_MAX {
            return Err(batch);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.push_back(batch);
        drop(batches);
        self.filled.notify_one();
        Ok(())
    }

    fn pop(&self) -> Option<Batch> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.pop_front()
    }

    fn is_congested(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > QUEUE_HIGH
    }
}

struct Api {
    queues: Vec<Arc<Queue>>,
    jetstream: Weak<JetStream>,
    domain: Option<String>,
}

impl Api {
    /// Pull requests go to their consumer at once; what is left is for a worker.
    fn hand_pulls(&self, batch: Batch) -> Option<Batch> {
        let pull = |request: &Message<'_>| {
            let rest = endpoint(request.subject, self.domain.as_deref())?;
            let at = request.subject.len() - rest.strip_prefix(NEXT)?.len();
            Some(at)
        };
        if !batch.iter().any(|request| pull(&request).is_some()) {
            return Some(batch);
        }
        let jetstream = self.jetstream.upgrade()?;
        let mut others = Batch::new(batch.origin().cloned());
        for request in batch.iter() {
            match pull(&request) {
                Some(at) => consumers::hand_pull(&jetstream, &request, &request.subject[at..]),
                None => others.push(&request),
            }
        }
        (!others.is_empty()).then_some(others)
    }
}

impl Service for Api {
    fn accept(&self, batch: Batch) {
        if batch.is_answers() {
            return;
        }
        let Some(batch) = self.hand_pulls(batch) else {
            return;
        };
        let requester = batch.origin().map_or(0, |client| client.id);
        let queue = &self.queues[requester as usize % self.queues.len()];
        if let Err(batch) = queue.push(batch) {
            tracing::warn!("{} API requests dropped: too many are waiting", batch.len());
        }
    }

    fn congested(&self) -> bool {
        self.queues.iter().any(|queue| queue.is_congested())
    }

    fn relief(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            for queue in &self.queues {
                loop {
                    let relieved = queue.relieved.notified();
                    if !queue.is_congested() {
                        break;
                    }
                    relieved.await;
                }
            }
        })
    }
}

async fn work(
    jetstream: Arc<JetStream>,
    queue: Arc<Queue>,
    batches: Arc<Semaphore>,
    stopping: CancellationToken,
) {
    let fresh = || Publisher::of_answers(jetstream.router().clone());
    let mut publisher = fresh();
    loop {
        let Some(batch) = queue.pop() else {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = queue.filled.notified() => continue,
            }
        };
        for request in batch.iter() {
            let answering = AssertUnwindSafe(answer(&jetstream, &request, &mut publisher));
            match answering.catch_unwind().await {
                Ok(None) => {}
                Ok(Some(messages)) => send(&jetstream, messages, &batch, &batches, &mut publisher),
                Err(_) => {
                    // What was answered before leaves; what the panic has left behind is not relied on.
                    catch_unwind(AssertUnwindSafe(|| publisher.flush())).ok();
                    publisher = fresh();
                    apologise(&jetstream, &request, &mut publisher);
                }
            }
            if publisher.is_congested() {
                publisher.relieve_within(RELIEF_MAX).await;
            }
        }
        if catch_unwind(AssertUnwindSafe(|| publisher.flush())).is_err() {
            tracing::error!("answers to API requests were lost to a panic");
            publisher = fresh();
        }
        queue.bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
        queue.relieved.notify_waiters();
        publisher.relieve_within(RELIEF_MAX).await;
    }
}

/// Sends messages: the first of them at once, the rest in a task of its own.
fn send(
    jetstream: &Arc<JetStream>,
    messages: Messages,
    requests: &Batch,
    batches: &Arc<Semaphore>,
    publisher: &mut Publisher,
) {
    let requester = requests.origin();
    let Some(mut left) = messages.begin(requester.map(|client| &**client), publisher) else {
        return;
    };
    let Ok(permit) = batches.clone().try_acquire_owned() else {
        return left.end(publisher);
    };
    publisher.flush();
    let rest = left.go_on(
        requester.cloned(),
        Publisher::of_answers(jetstream.router().clone()),
        jetstream.stopping.clone(),
    );
    jetstream.tasks.spawn(async move {
        rest.await;
        drop(permit);
    });
}

/// A request has ended in a panic: says so to whoever asked.
fn apologise(jetstream: &JetStream, request: &Message<'_>, publisher: &mut Publisher) {
    let subject = String::from_utf8_lossy(request.subject);
    tracing::error!("the API request on {subject} ended in a panic");
    let counters = &jetstream.api_counters;
    counters.total.fetch_add(1, Ordering::Relaxed);
    counters.errors.fetch_add(1, Ordering::Relaxed);
    let rest = endpoint(request.subject, jetstream.options.domain.as_deref());
    if rest.is_some_and(|rest| rest.starts_with(DIRECT.as_bytes())) {
        direct::apologise(request.reply, publisher);
    } else {
        let answer = Answer::new("system", Err(error::TEMPORARILY_UNAVAILABLE));
        reply(request, answer, publisher);
    }
}

/// Answers one request; messages without end are for the caller to send.
async fn answer(jetstream: &JetStream, request: &Message<'_>, publisher: &mut Publisher) -> Option<Messages> {
    let rest = endpoint(request.subject, jetstream.options.domain.as_deref())?;
    let rest = std::str::from_utf8(rest).ok()?;
    let (total, errors) = (&jetstream.api_counters.total, &jetstream.api_counters.errors);
    if let Some(rest) = rest.strip_prefix(DIRECT) {
        let messages = direct::answer(jetstream, rest, request, publisher).await;
        total.fetch_add(1, Ordering::Relaxed);
        return messages;
    }
    let mut answer = route(jetstream, rest, request).await;
    total.fetch_add(1, Ordering::Relaxed);
    errors.fetch_add(u64::from(answer.is_error()), Ordering::Relaxed);
    let advisory = answer.advisory.take();
    reply(request, answer, publisher);
    if let Some(advisory) = advisory {
        advisory.publish(jetstream, publisher);
    }
    None
}

fn reply(request: &Message<'_>, answer: Answer, publisher: &mut Publisher) {
    if request.reply.is_empty() {
        return;
    }
    let json = answer.into_json();
    let message = Message {
        subject: request.reply,
        payload: &json,
        ..Message::default()
    };
    publisher.publish(&message, None);
}

/// What follows the prefix of the API, with or without a domain.
fn endpoint<'a>(subject: &'a [u8], domain: Option<&str>) -> Option<&'a [u8]> {
    subject.strip_prefix(PREFIX).or_else(|| {
        let rest = subject.strip_prefix(b"$JS.")?.strip_prefix(domain?.as_bytes())?;
        rest.strip_prefix(b".API.")
    })
}

async fn route(jetstream: &JetStream, endpoint: &str, request: &Message<'_>) -> Answer {
    let tokens: Vec<_> = endpoint.split('.').collect();
    let level = headers::get(request.headers, b"Nats-Required-Api-Level");
    let level_ok = level.is_none_or(|level| {
        let level = std::str::from_utf8(level)
            .ok()
            .and_then(|level| level.parse().ok());
        level.is_some_and(|level: u32| level <= API_LEVEL)
    });
    let body = request.payload;
    let gate = if level_ok {
        Ok(())
    } else {
        Err(error::REQUIRED_API_LEVEL)
    };
    match tokens[..] {
        ["INFO"] => Answer::new("account_info", gate.map(|()| account::info(jetstream))),
        ["STREAM", verb, ..] => streams::route(jetstream, gate, verb, &tokens[2..], body).await,
        ["CONSUMER", ..] => {
            let tail = endpoint.strip_prefix("CONSUMER.").unwrap_or_default();
            consumers::route(jetstream, gate, tail, &tokens[1..], body).await
        }
        ["META", "LEADER", "STEPDOWN"] => clustered("meta_leader_stepdown"),
        ["SERVER", "REMOVE"] => clustered("meta_server_remove"),
        _ => Answer::new("system", Err(error::BAD_REQUEST)),
    }
}

fn clustered(kind: &'static str) -> Answer {
    Answer::new(kind, Err(error::CLUSTERING_REQUIRED))
}
