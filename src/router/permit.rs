//! What the router heeds of a client's permissions at delivery: subjects to leave out, replies to remember.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::subject;

/// Remembered replies of one client, above which old ones are looked for.
const REPLIES_SWEEP: usize = 4096;
/// Bytes of remembered replies of one client.
const REPLIES_BYTES_MAX: usize = 64 << 20;
/// What a remembered reply takes beside its own bytes, about.
const REPLY_OVERHEAD: usize = 64;

/// Subjects that a client does not get, whatever it subscribes to.
#[derive(Debug)]
pub struct Filter {
    denied: Vec<Denied>,
}

/// Subjects that are left out.
#[derive(Debug)]
pub struct Denied {
    /// Which.
    pub pattern: Vec<u8>,
    /// For members of these queue groups alone, itself a pattern; none is everybody.
    pub queue: Option<Vec<u8>>,
}

impl Denied {
    fn is_for(&self, queue: Option<&[u8]>) -> bool {
        let own = self.queue.as_deref();
        own.is_none_or(|own| queue.is_some_and(|queue| subject::matches(own, queue)))
    }
}

impl Filter {
    /// Leaves these out.
    pub fn new(denied: Vec<Denied>) -> Self {
        Self { denied }
    }

    /// Whether a subject is left out, for who subscribes in a queue group or without.
    pub fn leaves_out(&self, to: &[u8], queue: Option<&[u8]>) -> bool {
        let names = |denied: &Denied| denied.is_for(queue) && subject::matches(&denied.pattern, to);
        self.denied.iter().any(names)
    }
}

/// How often, and how long, the reply of a received message may be published to; negative and none are without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Messages to one reply.
    pub max: i64,
    /// Time since the message came.
    pub expires: Option<Duration>,
}

/// Says whether a subject may be published to.
pub type MayPublish = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What the router is told of a client's permissions.
#[derive(Clone)]
pub struct Terms {
    /// What is left out at delivery.
    pub filter: Option<Arc<Filter>>,
    /// What replies may be answered.
    pub responses: Option<Responses>,
    /// What may be published to, for who publishes in the client's name.
    pub publish: MayPublish,
}

#[derive(Default)]
struct Inner {
    terms: Option<Terms>,
    replies: HashMap<Box<[u8]>, (Instant, i64)>,
    replies_bytes: usize,
    /// How many there are when old ones are looked for next.
    sweep_at: usize,
}

impl Inner {
    /// Forgets replies that are too old; the more stay, the longer until the next look.
    fn sweep(&mut self, responses: Responses, now: Instant) {
        let live = |at: &Instant| {
            responses
                .expires
                .is_none_or(|expires| now.duration_since(*at) < expires)
        };
        self.replies.retain(|_, (at, _)| live(at));
        self.replies_bytes = self
            .replies
            .keys()
            .map(|reply| reply.len() + REPLY_OVERHEAD)
            .sum();
        self.sweep_at = self.replies.len() * 2;
    }

    fn responses(&self) -> Option<Responses> {
        self.terms.as_ref().and_then(|terms| terms.responses)
    }
}

/// What is heeded for one client; nothing, for most.
#[derive(Default)]
pub(super) struct Permit {
    filters: AtomicBool,
    remembers: AtomicBool,
    inner: Mutex<Inner>,
}

impl Permit {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, terms: Option<Terms>) {
        let mut inner = self.lock();
        let filters = terms.as_ref().is_some_and(|terms| terms.filter.is_some());
        let remembers = terms.as_ref().is_some_and(|terms| terms.responses.is_some());
        self.filters.store(filters, Ordering::Relaxed);
        self.remembers.store(remembers, Ordering::Relaxed);
        if !remembers {
            inner.replies = HashMap::new();
            inner.replies_bytes = 0;
        }
        inner.terms = terms;
    }

    /// Whether any subject is left out.
    pub fn filters(&self) -> bool {
        self.filters.load(Ordering::Relaxed)
    }

    /// Whether a subject is left out; asked when a route is made, not for each message.
    pub fn leaves_out(&self, to: &[u8], queue: Option<&[u8]>) -> bool {
        if !self.filters() {
            return false;
        }
        let inner = self.lock();
        let filter = inner.terms.as_ref().and_then(|terms| terms.filter.as_ref());
        filter.is_some_and(|filter| filter.leaves_out(to, queue))
    }

    /// Whether messages may be published on a subject, replies apart.
    pub fn may_publish(&self, to: &[u8]) -> bool {
        let publish = self.lock().terms.as_ref().map(|terms| terms.publish.clone());
        publish.is_none_or(|may| may(to))
    }

    /// Remembers a reply that was delivered.
    #[inline]
    pub fn delivered(&self, reply: &[u8]) {
        if self.remembers.load(Ordering::Relaxed) {
            self.remember(reply, Instant::now());
        }
    }

    #[cold]
    fn remember(&self, reply: &[u8], now: Instant) {
        let mut inner = self.lock();
        let Some(responses) = inner.responses() else {
            return;
        };
        if inner.replies.len() >= inner.sweep_at.max(REPLIES_SWEEP) {
            inner.sweep(responses, now);
        }
        let size = reply.len() + REPLY_OVERHEAD;
        if inner.replies_bytes + size <= REPLIES_BYTES_MAX
            && inner.replies.insert(reply.into(), (now, 0)).is_none()
        {
            inner.replies_bytes += size;
        }
    }

    /// Whether a remembered reply may be published to once more; counts it.
    pub fn answer(&self, to: &[u8], now: Instant) -> bool {
        let mut inner = self.lock();
        let Some(responses) = inner.responses() else {
            return false;
        };
        let Some((at, sent)) = inner.replies.get_mut(to) else {
            return false;
        };
        *sent += 1;
        let live = responses
            .expires
            .is_none_or(|expires| now.duration_since(*at) < expires);
        let last = responses.max >= 0 && *sent >= responses.max;
        if (!live || last) && inner.replies.remove(to).is_some() {
            inner.replies_bytes -= to.len() + REPLY_OVERHEAD;
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(max: i64, expires: Option<u64>) -> Option<Terms> {
        Some(Terms {
            filter: None,
            responses: Some(Responses {
                max,
                expires: expires.map(Duration::from_secs),
            }),
            publish: Arc::new(|_| false),
        })
    }

    #[test]
    fn replies_are_good_for_a_while_and_a_number() {
        let permit = Permit::default();
        let now = Instant::now();
        assert!(!permit.answer(b"r", now) && permit.may_publish(b"r"));
        permit.set(answering(2, Some(2)));
        assert!(!permit.may_publish(b"r"));
        permit.remember(b"r", now);
        assert!(permit.answer(b"r", now) && permit.answer(b"r", now));
        assert!(!permit.answer(b"r", now));
        permit.remember(b"r", now);
        assert!(!permit.answer(b"r", now + Duration::from_secs(2)));
        assert!(!permit.answer(b"other", now));
        permit.set(answering(-1, None));
        permit.remember(b"r", now);
        assert!((0..1000).all(|n| permit.answer(b"r", now + Duration::from_secs(n))));
        permit.set(None);
        assert!(!permit.answer(b"r", now));
    }

    #[test]
    fn remembering_is_bounded() {
        let permit = Permit::default();
        let now = Instant::now();
        permit.set(answering(1, Some(1)));
        for n in 0..REPLIES_SWEEP {
            permit.remember(format!("old.{n}").as_bytes(), now);
        }
        permit.remember(b"new", now + Duration::from_secs(5));
        let inner = permit.lock();
        assert_eq!(
            (inner.replies.len(), inner.replies_bytes),
            (1, 3 + REPLY_OVERHEAD)
        );
        drop(inner);
        permit.set(answering(1, None));
        let long = vec![b'x'; 1 << 20];
        for n in 0..100_u8 {
            permit.remember(&[&long[..], &[n]].concat(), now);
        }
        assert!(permit.lock().replies_bytes <= REPLIES_BYTES_MAX);
        assert!(permit.answer(&[&long[..], &[0]].concat(), now));
    }

    #[test]
    fn what_is_denied_to_a_queue_group_is_left_out_for_it() {
        let denied = |pattern: &[u8], queue: Option<&[u8]>| Denied {
            pattern: pattern.to_vec(),
            queue: queue.map(<[u8]>::to_vec),
        };
        let filter = Filter::new(vec![denied(b"a.*", Some(b"q.*")), denied(b"b", None)]);
        for (to, queue, out) in [
            ("a.x", None, false),
            ("a.x", Some("q.1"), true),
            ("a.x", Some("r.1"), false),
            ("a", Some("q.1"), false),
            ("b", None, true),
            ("b", Some("any"), true),
        ] {
            assert_eq!(
                filter.leaves_out(to.as_bytes(), queue.map(str::as_bytes)),
                out,
                "{to} {queue:?}"
            );
        }
    }
}
