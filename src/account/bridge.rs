//! A service that one account exports and another imports: requests cross over, their answers find the way back.
//!
//! A request is published in the exporting account under its name there, as that account's mappings have it, with a reply of our own, `_R_.` and something
//! nobody can guess. What is published on that reply goes back to the requester's. A reply is good for one answer, or for
//! any number where the export says so, and for the export's threshold. As in nats-server every request carries who
//! asks in `Nats-Request-Info`; what a client puts there itself is dropped.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::transform::Transform;
use crate::router::{About, Batch, Congestion, Crossing, Publisher, Router, Service};

use super::reply::Waiting;
use super::spec::Response;
use super::{Account, Mapped, Mappings};

const REQUEST_INFO: &str = "Nats-Request-Info";
/// Borders that one request may cross: each is crossed on the stack of the one before.
pub(super) const HOPS_MAX: u8 = 64;
/// Requests of one import that wait for their answers; the oldest is given up for one more.
const WAITING_MAX: usize = 1 << 18;
/// Publishers kept for the next requests.
const PUBLISHERS_KEPT: usize = 16;
/// The log hears so often at most of requests that are dropped.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The requests of one import.
pub(super) struct Bridge {
    /// Where requests come from.
    home: Weak<Router>,
    /// Where they go.
    exporter: Arc<Account>,
    /// From the names here to those there.
    rename: Transform,
    terms: Terms,
    /// What those say whose requests come from no client.
    importer: Arc<str>,
    publishers: Mutex<Vec<Publisher>>,
    waiting: Arc<Waiting>,
    congestion: Congestion,
    warned: Mutex<Option<Instant>>,
}

/// How a bridge answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub response: Response,
    pub threshold: Duration,
    /// Whether requests say all about who asks.
    pub share: bool,
}

/// Who asks, for all requests of one batch.
struct Requester {
    about: Option<Arc<dyn About>>,
    crossing: Crossing,
}

impl Requester {
    fn of(batch: &Batch) -> Self {
        Self {
            about: batch.origin().and_then(|origin| origin.about()),
            crossing: batch.crossing(),
        }
    }

    /// Whether it does not want to hear that nobody listens.
    fn is_quiet(&self) -> bool {
        let about = self.about.as_ref();
        about.map_or(self.crossing.is_quiet, |about| !about.wants_no_responders())
    }
}

impl Bridge {
    pub fn new(
        home: &Arc<Router>,
        exporter: Arc<Account>,
        rename: Transform,
        importer: Arc<str>,
        terms: Terms,
    ) -> Self {
        Self {
            home: Arc::downgrade(home),
            exporter,
            rename,
            waiting: Arc::new(Waiting::new(WAITING_MAX, terms.threshold)),
            terms,
            importer,
            publishers: Mutex::default(),
            congestion: Congestion::default(),
            warned: Mutex::default(),
        }
    }

    fn publisher(&self) -> Publisher {
        let kept = self
            .publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        kept.unwrap_or_else(|| Publisher::new(self.exporter.router.clone()))
    }

    fn keep(&self, publisher: Publisher) {
        let mut publishers = self.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        if publishers.len() < PUBLISHERS_KEPT {
            publishers.push(publisher);
        }
    }

    /// The headers of a request, with who asks.
    fn headers(&self, requester: &Requester, block: &[u8]) -> Vec<u8> {
        if let Some(about) = &requester.about {
            return headers::with(block, REQUEST_INFO, &about.request_info(self.terms.share));
        }
        // Another bridge has written it; what anybody else has is not believed.
        if requester.crossing.says_who && headers::get(block, REQUEST_INFO.as_bytes()).is_some() {
            return block.to_vec();
        }
        let info = serde_json::json!({ "acc": &*self.importer }).to_string();
        headers::with(block, REQUEST_INFO, &info)
    }

    /// What a request is called on the other side; none when it goes nowhere.
    fn name_of(
        &self,
        subject: &[u8],
        mappings: Option<&Mappings>,
        publisher: &mut Publisher,
    ) -> Option<Vec<u8>> {
        let to = self.rename.map(subject, 0)?;
        match mappings.map(|mappings| mappings.map(&to, || publisher.random())) {
            None | Some(Mapped::Kept) => Some(to),
            Some(Mapped::To(to)) => Some(to),
            Some(Mapped::Dropped) => None,
        }
    }

    /// One request: over to the other side, with a way back.
    fn request(
        &self,
        publisher: &mut Publisher,
        requester: &Requester,
        mappings: Option<&Mappings>,
        message: &Message<'_>,
    ) {
        let Some(to) = self.name_of(message.subject, mappings, publisher) else {
            return;
        };
        let block = self.headers(requester, message.headers);
        let reply = if message.reply.is_empty() {
            None
        } else {
            let once = self.terms.response == Response::Singleton;
            let expected = self
                .waiting
                .expect(&self.home, &self.exporter.router, message.reply, once);
            let Some(reply) = expected else { return };
            Some(reply)
        };
        let request = Message {
            subject: &to,
            reply: reply.as_ref().map_or(&[], |reply| &reply.subject),
            headers: &block,
            payload: message.payload,
        };
        let receivers = publisher.publish(&request, None);
        let Some(reply) = reply.filter(|_| receivers == 0) else {
            return;
        };
        reply.end();
        if !requester.is_quiet() {
            self.tell_nobody_listens(message);
        }
    }

    /// Tells who asks, as nats-server does, that nobody gets its request.
    fn tell_nobody_listens(&self, request: &Message<'_>) {
        let Some(home) = self.home.upgrade() else { return };
        let mut publisher = Publisher::of_answers(home);
        let subject = String::from_utf8_lossy(request.subject);
        let block = headers::build("503", [("Nats-Subject", &*subject)]);
        let answer = Message {
            subject: request.reply,
            headers: &block,
            ..Message::default()
        };
        publisher.deliver(request.reply, &answer, None);
        publisher.flush();
        self.congestion.take_from(&mut publisher);
    }

    /// Requests that have come too far reach nobody, and are answered so; the log hears of it now and then.
    fn refuse(&self, batch: &Batch, requester: &Requester) {
        self.warn_of_distance(batch);
        if requester.is_quiet() {
            return;
        }
        for message in batch.iter().filter(|message| !message.reply.is_empty()) {
            self.tell_nobody_listens(&message);
        }
    }

    fn warn_of_distance(&self, batch: &Batch) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let subject = batch.iter().next().map(|message| message.subject.to_vec());
            tracing::error!(
                "Account {}: a request on \"{}\" is dropped: it has come through {HOPS_MAX} imports, one more would be too many",
                self.importer,
                String::from_utf8_lossy(&subject.unwrap_or_default()).escape_debug()
            );
        }
    }

    /// Requests that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives up requests that have waited too long.
    pub fn sweep(&self, now: Instant) {
        self.waiting.sweep(now);
    }

    /// Gives up every request, those to come too.
    pub fn close(&self) {
        self.waiting.close();
        self.publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Service for Bridge {
    fn accept(&self, batch: Batch) {
        let requester = Requester::of(&batch);
        let hops = requester.crossing.hops;
        if hops >= HOPS_MAX {
            return self.refuse(&batch, &requester);
        }
        let mut publisher = match batch.is_answers() {
            false => self.publisher(),
            // What the server has said is no request over there either.
            true => Publisher::of_answers(self.exporter.router.clone()),
        };
        publisher.set_crossing(Crossing {
            hops: hops + 1,
            says_who: true,
            is_quiet: requester.is_quiet(),
        });
        let mappings = self.exporter.mappings();
        for message in batch.iter() {
            self.request(&mut publisher, &requester, mappings.as_deref(), &message);
        }
        publisher.flush();
        self.congestion.take_from(&mut publisher);
        if !batch.is_answers() {
            self.keep(publisher);
        }
    }

    fn congested(&self) -> bool {
        self.congestion.is_any()
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.congestion.relief())
    }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
