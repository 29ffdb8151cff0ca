//! What the router heeds of a client's permissions at delivery: subjects to leave out, replies to remember.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::subject;

/// Bytes of remembered replies of one client: the newer half and the older.
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

/// Replies that were received, each with when that was and how often it was answered.
type Replies = HashMap<Box<[u8]>, (Instant, i64)>;

#[derive(Default)]
struct Inner {
    terms: Option<Terms>,
    /// Those of late. When they are many, or all older ones are over, these become the older ones and those are forgotten:
    /// whoever sends many requests makes room for nobody but those after them.
    replies: Replies,
    older: Replies,
    /// What the replies of late take.
    bytes: usize,
    /// When the first of them came.
    began: Option<Instant>,
}

impl Inner {
    fn responses(&self) -> Option<Responses> {
        self.terms.as_ref().and_then(|terms| terms.responses)
    }

    fn remember(&mut self, reply: &[u8], responses: Responses, now: Instant) {
        let size = reply.len() + REPLY_OVERHEAD;
        let began = *self.began.get_or_insert(now);
        let are_over = responses
            .expires
            .is_some_and(|expires| now.duration_since(began) >= expires);
        if are_over || self.bytes + size > REPLIES_BYTES_MAX / 2 {
            self.older = std::mem::take(&mut self.replies);
            self.bytes = 0;
            self.began = Some(now);
        }
        self.older.remove(reply);
        if self.replies.insert(reply.into(), (now, 0)).is_none() {
            self.bytes += size;
        }
    }

    fn forget(&mut self) {
        self.replies = Replies::new();
        self.older = Replies::new();
        self.bytes = 0;
        self.began = None;
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
            inner.forget();
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
        if let Some(responses) = inner.responses() {
            inner.remember(reply, responses, now);
        }
    }

    /// Whether a remembered reply may be published to once more; counts it.
    pub fn answer(&self, to: &[u8], now: Instant) -> bool {
        let mut inner = self.lock();
        let Some(responses) = inner.responses() else {
            return false;
        };
        let inner = &mut *inner;
        let is_older = !inner.replies.contains_key(to);
        let replies = if is_older {
            &mut inner.older
        } else {
            &mut inner.replies
        };
        let Some((at, sent)) = replies.get_mut(to) else {
            return false;
        };
        *sent += 1;
        let live = responses
            .expires
            .is_none_or(|expires| now.duration_since(*at) < expires);
        let last = responses.max >= 0 && *sent >= responses.max;
        if (!live || last) && replies.remove(to).is_some() && !is_older {
            inner.bytes -= to.len() + REPLY_OVERHEAD;
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
    fn remembering_is_bounded_and_goes_on() {
        let permit = Permit::default();
        let now = Instant::now();
        permit.set(answering(1, Some(9)));
        for n in 0..100 {
            permit.remember(format!("old.{n}").as_bytes(), now);
        }
        permit.remember(b"mid", now + Duration::from_secs(10));
        assert!(permit.answer(b"mid", now + Duration::from_secs(11)));
        permit.remember(b"new", now + Duration::from_secs(20));
        let inner = permit.lock();
        assert_eq!((inner.replies.len(), inner.older.len()), (1, 0));
        assert_eq!(inner.bytes, 3 + REPLY_OVERHEAD);
        drop(inner);
        permit.set(answering(1, None));
        let long = vec![b'x'; 1 << 20];
        for n in 0..200_u8 {
            permit.remember(&[&long[..], &[n]].concat(), now);
        }
        let inner = permit.lock();
        let kept = inner.replies.keys().chain(inner.older.keys());
        assert!(kept.map(|reply| reply.len()).sum::<usize>() <= REPLIES_BYTES_MAX);
        drop(inner);
        // Those of late can be answered, however many came before them.
        permit.remember(b"next", now);
        assert!(permit.answer(b"next", now) && permit.answer(&[&long[..], &[199]].concat(), now));
        assert!(!permit.answer(&[&long[..], &[0]].concat(), now));
    }

    #[test]
    fn a_reply_that_comes_again_counts_anew_and_once() {
        let permit = Permit::default();
        let now = Instant::now();
        permit.set(answering(1, Some(5)));
        permit.remember(b"r", now);
        permit.remember(b"other", now + Duration::from_secs(6));
        // Now `r` is among the older ones.
        permit.remember(b"r", now + Duration::from_secs(6));
        assert!(permit.answer(b"r", now + Duration::from_secs(6)));
        assert!(!permit.answer(b"r", now + Duration::from_secs(6)));
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
