//! Pull requests: what they ask for, and those that wait.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};

use super::state::{Action, Interest};
use super::status::{Status, Unfilled};

/// The body of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Messages asked for; less than one means one.
    pub batch: i64,
    /// How long to wait, nanoseconds; 0 is for ever.
    pub expires: i64,
    /// End when there is nothing (left) to deliver.
    pub no_wait: bool,
    /// The most bytes to deliver; 0 is no limit.
    pub max_bytes: i64,
    /// Heartbeat interval, nanoseconds; 0 is none.
    pub heartbeat: i64,
    /// Fields that only consumers with priority groups know.
    pub(super) priority: Priority,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Priority {
    overflow: bool,
    pinned: bool,
    priority: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    #[serde(deserialize_with = "null_is_absent")]
    expires: i64,
    #[serde(deserialize_with = "null_is_absent")]
    batch: i64,
    #[serde(deserialize_with = "null_is_absent")]
    max_bytes: i64,
    #[serde(deserialize_with = "null_is_absent")]
    no_wait: bool,
    #[serde(deserialize_with = "null_is_absent")]
    idle_heartbeat: i64,
    #[serde(deserialize_with = "null_is_absent")]
    id: String,
    #[serde(deserialize_with = "null_is_absent")]
    min_pending: i64,
    #[serde(deserialize_with = "null_is_absent")]
    min_ack_pending: i64,
    #[serde(deserialize_with = "null_is_absent")]
    priority: i64,
}

/// Clients write null for what they leave out.
fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl PullRequest {
    /// Reads a body: empty (one message), a number, or JSON. An error is the status to answer with.
    pub fn parse(body: &[u8]) -> Result<PullRequest, Status> {
        let body = body.trim_ascii();
        let mut request = Body {
            batch: 1,
            ..Body::default()
        };
        if body.first() == Some(&b'{') {
            request = serde_json::from_slice(body).map_err(|error| Status::BadRequest(error.to_string()))?;
            let heartbeat = request.idle_heartbeat;
            if heartbeat > 0 && heartbeat.saturating_mul(2) > request.expires {
                return Err(Status::BadRequest("heartbeat value too large".to_owned()));
            }
        } else if let Some(batch) = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()) {
            request.batch = batch;
        }
        Ok(PullRequest {
            batch: request.batch,
            expires: request.expires,
            no_wait: request.no_wait,
            max_bytes: request.max_bytes.max(0),
            heartbeat: request.idle_heartbeat.max(0),
            priority: Priority {
                overflow: request.min_pending != 0 || request.min_ack_pending != 0,
                pinned: !request.id.is_empty(),
                priority: request.priority,
            },
        })
    }

    /// Checks that do not depend on what is waiting.
    pub(super) fn check(&self, caps: &Caps) -> Result<(), Status> {
        if caps.batch > 0 && self.batch > caps.batch {
            return Err(Status::ExceededMaxRequestBatch(caps.batch));
        }
        if caps.expires > 0 && self.expires > caps.expires {
            return Err(Status::ExceededMaxRequestExpires(caps.expires));
        }
        if caps.bytes > 0 && self.max_bytes > caps.bytes {
            return Err(Status::ExceededMaxRequestMaxBytes(caps.bytes));
        }
        let bad = |why: &str| Err(Status::BadRequest(why.to_owned()));
        if self.priority.overflow {
            return bad("Not a Overflow Priority consumer");
        }
        if self.priority.pinned {
            return bad("Not a Pinned Client Priority consumer");
        }
        if !(0..=9).contains(&self.priority.priority) {
            return bad("Priority must be between 0 and 9");
        }
        Ok(())
    }
}

/// What one request may ask for; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caps {
    pub batch: i64,
    pub expires: i64,
    pub bytes: i64,
}

#[derive(Debug)]
struct Waiter {
    reply: Bytes,
    /// As asked: less than one means one, and is shown as it was asked.
    remaining: i64,
    delivered: bool,
    /// Bytes left; `None` without `max_bytes`.
    bytes: Option<i64>,
    expires: Option<i64>,
    heartbeat: i64,
    next_heartbeat: Option<i64>,
    no_wait: bool,
    /// The interest generation at which somebody was seen to listen on `reply`.
    seen: Option<u64>,
}

impl Waiter {
    fn unfilled(&self) -> Unfilled {
        Unfilled {
            messages: self.remaining,
            bytes: self.bytes.unwrap_or(0),
        }
    }

    fn is_listened_to(&mut self, interest: &dyn Interest) -> bool {
        let generation = interest.generation();
        if self.seen != Some(generation) {
            self.seen = interest.listens(&self.reply).then_some(generation);
        }
        self.seen.is_some()
    }

    fn expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| now > expires)
    }
}

/// Who takes a message, and what to say to them after it.
pub(super) struct Taker {
    pub reply: Bytes,
    pub then: Option<Status>,
}

/// The requests that wait for messages, served in turn.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: VecDeque<Waiter>,
    max: usize,
    /// No waiter expires or wants a heartbeat before this.
    next_due: Option<i64>,
    swept: i64,
}

fn earliest(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, other) => one.or(other),
    }
}

impl Waiting {
    pub fn new(max: i64) -> Waiting {
        let max = usize::try_from(max).unwrap_or(0).max(1);
        Waiting {
            queue: VecDeque::new(),
            max,
            next_due: None,
            swept: i64::MIN,
        }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Full, also after those without a listener went. Looks for those at most once a second.
    pub fn is_full(&mut self, now: i64, interest: &dyn Interest, out: &mut Vec<Action>) -> bool {
        if self.queue.len() >= self.max && now.saturating_sub(self.swept) > super::duration::SECOND {
            self.sweep(now, interest, out);
        }
        self.queue.len() >= self.max
    }

    /// Messages asked for by all who wait.
    pub fn outstanding(&self) -> u64 {
        self.queue
            .iter()
            .map(|waiter| waiter.remaining.max(1).unsigned_abs())
            .sum()
    }

    pub fn add(&mut self, request: &PullRequest, reply: Bytes, now: i64) {
        let expires = (request.expires != 0).then(|| now.saturating_add(request.expires));
        let next_heartbeat = (request.heartbeat > 0).then(|| now.saturating_add(request.heartbeat));
        self.next_due = earliest(self.next_due, earliest(expires, next_heartbeat));
        self.queue.push_back(Waiter {
            reply,
            remaining: request.batch,
            delivered: false,
            bytes: (request.max_bytes > 0).then_some(request.max_bytes),
            expires,
            heartbeat: request.heartbeat,
            next_heartbeat,
            no_wait: request.no_wait,
            seen: None,
        });
    }

    /// Finds the waiter for a message of `size` bytes and counts it as delivered. Those who expired, went
    /// away or cannot take so large a message leave the queue.
    pub fn take(
        &mut self,
        size: usize,
        now: i64,
        interest: &dyn Interest,
        out: &mut Vec<Action>,
    ) -> Option<Taker> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        loop {
            let waiter = self.queue.front_mut()?;
            let refusal = if waiter.expired(now) {
                Some(Status::RequestTimeout(waiter.unfilled()))
            } else if waiter.bytes.is_some_and(|left| size > left) {
                Some(Status::MessageSizeExceedsMaxBytes(waiter.unfilled()))
            } else {
                None
            };
            if let Some(status) = refusal {
                out.push(Action::status(waiter.reply.clone(), status));
                self.queue.pop_front();
            } else if !waiter.is_listened_to(interest) {
                self.queue.pop_front();
            } else {
                break;
            }
        }
        Some(self.serve_front(size, now))
    }

    fn serve_front(&mut self, size: i64, now: i64) -> Taker {
        let waiter = self.queue.front_mut().expect("the caller saw it");
        if let Some(left) = &mut waiter.bytes {
            *left -= size;
            if *left == 0 {
                waiter.remaining = 1;
            }
        }
        waiter.remaining -= 1;
        waiter.delivered = true;
        if waiter.remaining > 0 {
            if waiter.heartbeat > 0 {
                waiter.next_heartbeat = Some(now.saturating_add(waiter.heartbeat));
            }
            let reply = waiter.reply.clone();
            if self.queue.len() > 1 {
                self.queue.rotate_left(1);
            }
            return Taker { reply, then: None };
        }
        let waiter = self.queue.pop_front().expect("it is the front");
        let then = waiter
            .bytes
            .filter(|&left| left > 0)
            .map(|_| Status::BatchCompleted(waiter.unfilled()));
        Taker {
            reply: waiter.reply,
            then,
        }
    }

    /// There is nothing to deliver now: ends those who do not wait for more.
    pub fn nothing_left(&mut self, out: &mut Vec<Action>) {
        self.queue.retain(|waiter| {
            let over = waiter.no_wait && (waiter.expires.is_none() || waiter.delivered);
            if over {
                out.push(Action::status(waiter.reply.clone(), Status::NoMessages));
            }
            !over
        });
    }

    /// Expires and heartbeats what is due.
    pub fn tick(&mut self, now: i64, last_consumer: u64, last_stream: u64, out: &mut Vec<Action>) {
        if self.next_due.is_none_or(|due| due > now) {
            return;
        }
        let mut next_due = None;
        self.queue.retain_mut(|waiter| {
            if waiter.expired(now) {
                out.push(Action::status(
                    waiter.reply.clone(),
                    Status::RequestTimeout(waiter.unfilled()),
                ));
                return false;
            }
            if waiter.next_heartbeat.is_some_and(|due| now >= due) {
                let status = Status::IdleHeartbeat {
                    last_consumer,
                    last_stream,
                    stalled: None,
                };
                out.push(Action::status(waiter.reply.clone(), status));
                waiter.next_heartbeat = Some(now.saturating_add(waiter.heartbeat));
            }
            // A request lives through its last nanosecond.
            let expires = waiter.expires.map(|expires| expires.saturating_add(1));
            next_due = earliest(next_due, earliest(expires, waiter.next_heartbeat));
            true
        });
        self.next_due = next_due;
    }

    pub fn next_due(&self) -> Option<i64> {
        self.next_due.filter(|_| !self.queue.is_empty())
    }

    /// Drops those nobody listens for any more, and those who expired.
    pub fn sweep(&mut self, now: i64, interest: &dyn Interest, out: &mut Vec<Action>) {
        self.swept = now;
        self.queue.retain_mut(|waiter| {
            if waiter.expired(now) {
                out.push(Action::status(
                    waiter.reply.clone(),
                    Status::RequestTimeout(waiter.unfilled()),
                ));
                return false;
            }
            waiter.is_listened_to(interest)
        });
    }

    /// Nobody was there: forgets the requests with this reply subject.
    pub fn drop_reply(&mut self, reply: &[u8]) {
        self.queue.retain(|waiter| waiter.reply != reply);
    }

    /// Ends every request with a status.
    pub fn end_all(&mut self, status: impl Fn(Unfilled) -> Status, out: &mut Vec<Action>) {
        for waiter in self.queue.drain(..) {
            out.push(Action::status(waiter.reply.clone(), status(waiter.unfilled())));
        }
    }
}
