//! A service that one account exports and another imports: requests cross over, their answers find the way back.
//!
//! A request is published in the exporting account under its name there, with a reply of our own, `_R_.` and something
//! nobody can guess. What is published on that reply goes back to the requester's. A reply is good for one answer, or for
//! any number where the export says so, and for the export's threshold. As in nats-server every request carries who
//! asks in `Nats-Request-Info`; what a client puts there itself is dropped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::transform::Transform;
use crate::router::{Batch, Client, Publisher, Router, Service, Subscription};

use super::spec::Response;

const REQUEST_INFO: &str = "Nats-Request-Info";
/// Requests of one import that wait for their answers; the oldest is given up for one more.
const WAITING_MAX: usize = 1 << 18;
/// Publishers kept for the next requests.
const PUBLISHERS_KEPT: usize = 16;

/// The requests of one import.
pub(super) struct Bridge {
    /// Where requests come from.
    home: Weak<Router>,
    /// Where they go.
    away: Arc<Router>,
    /// From the names here to those there.
    rename: Transform,
    response: Response,
    threshold: Duration,
    /// Whether requests say all about who asks.
    share: bool,
    /// What those say whose requests come from no client.
    importer: Arc<str>,
    publishers: Mutex<Vec<Publisher>>,
    waiting: Mutex<VecDeque<Waiting>>,
    congested: AtomicBool,
}

/// How a bridge answers.
pub(super) struct Terms {
    pub response: Response,
    pub threshold: Duration,
    pub share: bool,
}

struct Waiting {
    since: Instant,
    reply: Arc<Reply>,
}

impl Bridge {
    pub fn new(
        home: &Arc<Router>,
        away: Arc<Router>,
        rename: Transform,
        importer: Arc<str>,
        terms: Terms,
    ) -> Self {
        Self {
            home: Arc::downgrade(home),
            away,
            rename,
            response: terms.response,
            threshold: terms.threshold,
            share: terms.share,
            importer,
            publishers: Mutex::default(),
            waiting: Mutex::default(),
            congested: AtomicBool::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publisher(&self) -> Publisher {
        let kept = self
            .publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        kept.unwrap_or_else(|| Publisher::new(self.away.clone()))
    }

    fn keep(&self, publisher: Publisher) {
        let mut publishers = self.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        if publishers.len() < PUBLISHERS_KEPT {
            publishers.push(publisher);
        }
    }

    /// One request: over to the other side, with a way back.
    fn request(&self, publisher: &mut Publisher, origin: Option<&Arc<Client>>, message: &Message<'_>) {
        let Some(to) = self.rename.map(message.subject, 0) else {
            return;
        };
        let about = origin.and_then(|origin| origin.about());
        let block = match &about {
            Some(about) => headers::with(message.headers, REQUEST_INFO, &about.request_info(self.share)),
            // It has come over another bridge already, or from the server itself.
            None if headers::get(message.headers, REQUEST_INFO.as_bytes()).is_some() => {
                message.headers.to_vec()
            }
            None => {
                let info = serde_json::json!({ "acc": &*self.importer }).to_string();
                headers::with(message.headers, REQUEST_INFO, &info)
            }
        };
        let reply = (!message.reply.is_empty()).then(|| self.expect(message.reply));
        let request = Message {
            subject: &to,
            reply: reply.as_ref().map_or(&[], |reply| &reply.subject),
            headers: &block,
            payload: message.payload,
        };
        let receivers = publisher.publish(&request, None);
        let Some(reply) = reply else { return };
        if receivers > 0 {
            return self.waiting().push_back(Waiting {
                since: Instant::now(),
                reply,
            });
        }
        reply.end();
        if about.is_none_or(|about| about.wants_no_responders()) {
            let subject = String::from_utf8_lossy(message.subject);
            let block = headers::build("503", [("Nats-Subject", &*subject)]);
            reply.forward(&Message {
                subject: message.reply,
                headers: &block,
                ..Message::default()
            });
        }
    }

    /// A reply subject over there, whose messages come back to `to`.
    fn expect(&self, to: &[u8]) -> Arc<Reply> {
        let reply = Arc::new(Reply {
            subject: format!("_R_.{}", nuid::next()).into_bytes(),
            to: to.into(),
            home: self.home.clone(),
            away: Arc::downgrade(&self.away),
            once: self.response == Response::Singleton,
            done: AtomicBool::new(false),
            began: Instant::now(),
            used_ms: AtomicU64::new(0),
            subscription: Mutex::default(),
        });
        let service: Arc<dyn Service> = reply.clone();
        let subscription = self.away.subscribe_service(&service, &reply.subject, None);
        *reply.subscription() = Some(subscription);
        reply
    }

    /// Gives up requests that have waited too long, and forgets those that are answered.
    pub fn sweep(&self, now: Instant) {
        let mut over = Vec::new();
        {
            let mut waiting = self.waiting();
            let surplus = waiting.len().saturating_sub(WAITING_MAX);
            over.extend(waiting.drain(..surplus).map(|waiting| waiting.reply));
            for _ in 0..waiting.len() {
                let Some(front) = waiting.front() else { break };
                let answered = front.reply.done.load(Ordering::Acquire);
                if !answered && now.saturating_duration_since(front.since) < self.threshold {
                    break;
                }
                let Some(mut front) = waiting.pop_front() else {
                    break;
                };
                let used =
                    front.reply.began + Duration::from_millis(front.reply.used_ms.load(Ordering::Relaxed));
                if !answered && now.saturating_duration_since(used) < self.threshold {
                    // It is still being answered.
                    front.since = used;
                    waiting.push_back(front);
                } else {
                    over.push(front.reply);
                }
            }
        }
        over.iter().for_each(|reply| reply.end());
    }

    /// Gives up every request.
    pub fn close(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.iter().for_each(|waiting| waiting.reply.end());
        self.publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Service for Bridge {
    fn accept(&self, batch: Batch) {
        if self.waiting().len() >= WAITING_MAX {
            self.sweep(Instant::now());
        }
        let mut publisher = match batch.is_answers() {
            false => self.publisher(),
            // What the server has said is no request over there either.
            true => Publisher::of_answers(self.away.clone()),
        };
        for message in batch.iter() {
            self.request(&mut publisher, batch.origin(), &message);
        }
        publisher.flush();
        self.congested.store(publisher.is_congested(), Ordering::Relaxed);
        if !batch.is_answers() {
            self.keep(publisher);
        }
    }

    fn congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed)
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let mut publisher = self.publisher();
            publisher.relieve().await;
            self.congested.store(false, Ordering::Relaxed);
            self.keep(publisher);
        })
    }
}

/// The way back of one request.
struct Reply {
    subject: Vec<u8>,
    /// What the requester listens to.
    to: Box<[u8]>,
    home: Weak<Router>,
    away: Weak<Router>,
    once: bool,
    done: AtomicBool,
    began: Instant,
    /// Milliseconds after `began` of the last answer.
    used_ms: AtomicU64,
    subscription: Mutex<Option<Arc<Subscription>>>,
}

impl Reply {
    fn subscription(&self) -> MutexGuard<'_, Option<Arc<Subscription>>> {
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more answers.
    fn end(&self) {
        self.done.store(true, Ordering::Release);
        let subscription = self.subscription().take();
        if let (Some(away), Some(subscription)) = (self.away.upgrade(), subscription) {
            away.remove(&subscription);
        }
    }

    fn forward(&self, answer: &Message<'_>) {
        let Some(home) = self.home.upgrade() else { return };
        let mut publisher = Publisher::of_answers(home);
        self.pass(&mut publisher, answer);
        publisher.flush();
    }

    fn pass(&self, publisher: &mut Publisher, answer: &Message<'_>) {
        // What is routed by its reply may show another subject, as messages of streams do.
        let shown = if answer.subject == self.subject.as_slice() {
            &*self.to
        } else {
            answer.subject
        };
        let answer = Message {
            subject: shown,
            ..*answer
        };
        publisher.deliver(&self.to, &answer, None);
    }
}

impl Service for Reply {
    fn accept(&self, batch: Batch) {
        let Some(home) = self.home.upgrade() else { return };
        let mut publisher = Publisher::of_answers(home);
        if self.once {
            if self.done.swap(true, Ordering::AcqRel) {
                return;
            }
            if let Some(answer) = batch.iter().next() {
                self.pass(&mut publisher, &answer);
            }
        } else {
            let used = self.began.elapsed().as_millis() as u64;
            self.used_ms.store(used, Ordering::Relaxed);
            batch.iter().for_each(|answer| self.pass(&mut publisher, &answer));
        }
        publisher.flush();
        if self.once {
            self.end();
        }
    }
}
