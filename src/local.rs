//! Publishing and subscribing inside the process that runs the server: no socket, no protocol, no copy of a client.
//!
//! For programs that embed the server and want a few messages of it. What a subscriber has not taken yet is bounded:
//! above a watermark publishers are asked to wait, as they do for a client, above a hard bound messages are dropped and counted.
//!
//! Deliberately absent: streams and consumers. A program that wants them connects a client to
//! [`Server::client_url`](crate::Server::client_url).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::protocol::encode::Message;
use crate::protocol::subject;
use crate::router::{Batch, Patience, Publisher, Router, Service, Subscription};

/// Bytes waiting for one subscriber above which publishers are asked to wait.
const WAITING_WATERMARK: usize = 1 << 20;
/// Bytes waiting for one subscriber above which messages are dropped.
const WAITING_MAX: usize = 64 << 20;

/// A subject or pattern that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no valid subject: tokens separated by dots, none empty, no blanks")]
pub struct InvalidSubject(pub String);

/// A message that a [`Subscriber`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it was published on.
    pub subject: String,
    /// Where an answer goes, when one is asked for.
    pub reply: Option<String>,
    /// The header block as it travels, `NATS/1.0` line included; empty without headers.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
}

impl Received {
    /// The payload as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Received>,
    bytes: usize,
    patience: Patience,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    drained: Notify,
    dropped: AtomicU64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Plain data, valid at every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Received> {
        let mut waiting = self.lock();
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= size(&message);
        waiting.patience.takes(size(&message));
        let relieved = waiting.bytes <= WAITING_WATERMARK / 2 && waiting.patience.is_behind();
        if relieved {
            waiting.patience.caught_up(Instant::now());
        }
        drop(waiting);
        if relieved {
            self.drained.notify_waiters();
        }
        Some(message)
    }
}

/// What a message counts for, with something for its own keeping.
fn size(message: &Received) -> usize {
    let reply = message.reply.as_ref().map_or(0, String::len);
    message.subject.len() + reply + message.headers.len() + message.payload.len() + size_of::<Received>()
}

impl Service for Queue {
    fn accept(&self, batch: Batch) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut waiting = self.lock();
        for message in batch.iter() {
            let message = Received {
                subject: text(message.subject),
                reply: (!message.reply.is_empty()).then(|| text(message.reply)),
                headers: Bytes::copy_from_slice(message.headers),
                payload: Bytes::copy_from_slice(message.payload),
            };
            if waiting.bytes + size(&message) > WAITING_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            waiting.bytes += size(&message);
            waiting.messages.push_back(message);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    fn congested(&self) -> bool {
        let mut waiting = self.lock();
        waiting.bytes > WAITING_WATERMARK && !waiting.patience.behind(Instant::now(), false).is_zero()
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            loop {
                let drained = self.drained.notified();
                let left = {
                    let mut waiting = self.lock();
                    if !waiting.patience.is_behind() {
                        return;
                    }
                    waiting.patience.behind(Instant::now(), false)
                };
                if left.is_zero() {
                    return;
                }
                tokio::time::timeout(left, drained).await.ok();
            }
        })
    }
}

/// A subscription inside this process; it ends when dropped.
pub struct Subscriber {
    queue: Arc<Queue>,
    router: Arc<Router>,
    subscription: Arc<Subscription>,
    ended: CancellationToken,
}

impl Subscriber {
    /// Subscribes to a subject, or to a pattern with `*` and `>`, until `ended`.
    pub(crate) fn new(
        router: &Arc<Router>,
        pattern: &str,
        ended: CancellationToken,
    ) -> Result<Self, InvalidSubject> {
        if !subject::is_pattern(pattern.as_bytes()) {
            return Err(InvalidSubject(pattern.to_owned()));
        }
        let queue = Arc::new(Queue::default());
        let service: Arc<dyn Service> = queue.clone();
        Ok(Self {
            subscription: router.subscribe_service_as_client(&service, pattern.as_bytes()),
            queue,
            router: router.clone(),
            ended,
        })
    }

    /// The next message, once there is one; none when the server has ended and all it had is taken. Safe to abandon: no
    /// message is lost with it.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            // Looked at before the queue: what came until then is in it.
            let ended = self.ended.is_cancelled();
            if let Some(message) = self.queue.pop() {
                return Some(message);
            }
            if ended {
                return None;
            }
            tokio::select! {
                () = self.queue.filled.notified() => {}
                () = self.ended.cancelled() => {}
            }
        }
    }

    /// The next message if there is one already.
    pub fn try_next(&mut self) -> Option<Received> {
        self.queue.pop()
    }

    /// Messages dropped because more than 64 MiB were waiting.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.router.remove(&self.subscription);
        // Nobody will drain it any more: publishers that wait for it go on.
        *self.queue.lock() = Waiting::default();
        self.queue.drained.notify_waiters();
    }
}

/// Publishes one message; says how many subscriptions got it.
pub(crate) async fn publish(
    router: &Arc<Router>,
    subject: &str,
    payload: &[u8],
) -> Result<usize, InvalidSubject> {
    if !subject::is_subject(subject.as_bytes()) {
        return Err(InvalidSubject(subject.to_owned()));
    }
    let mut publisher = Publisher::new(router.clone());
    let message = Message {
        subject: subject.as_bytes(),
        payload,
        ..Message::default()
    };
    let receivers = publisher.publish(&message, None);
    publisher.flush();
    publisher.relieve().await;
    Ok(receivers)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_published_arrives_in_order() {
        let router = Arc::new(Router::new());
        let mut subscriber = Subscriber::new(&router, "a.*", CancellationToken::new()).unwrap();
        for n in 0..100 {
            assert_eq!(publish(&router, &format!("a.{n}"), b"x").await, Ok(1));
        }
        assert_eq!(publish(&router, "b", b"x").await, Ok(0));
        for n in 0..100 {
            assert_eq!(subscriber.next().await.unwrap().subject, format!("a.{n}"));
        }
        assert_eq!(subscriber.try_next(), None);
        drop(subscriber);
        assert_eq!(publish(&router, "a.1", b"x").await, Ok(0));
    }

    #[tokio::test]
    async fn the_end_comes_after_what_was_there() {
        let router = Arc::new(Router::new());
        let ended = CancellationToken::new();
        let mut subscriber = Subscriber::new(&router, ">", ended.clone()).unwrap();
        publish(&router, "a", b"x").await.unwrap();
        ended.cancel();
        assert_eq!(subscriber.next().await.unwrap().subject, "a");
        assert_eq!(subscriber.next().await, None);
        assert_eq!(subscriber.next().await, None);
    }

    #[tokio::test]
    async fn the_end_wakes_who_waits_for_it() {
        let router = Arc::new(Router::new());
        let ended = CancellationToken::new();
        let mut subscriber = Subscriber::new(&router, ">", ended.clone()).unwrap();
        let next = subscriber.next();
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        ended.cancel();
        assert_eq!(next.await, None);
    }

    #[tokio::test]
    async fn what_nobody_takes_holds_up_publishers_until_it_is_taken() {
        let router = Arc::new(Router::new());
        let mut subscriber = Subscriber::new(&router, ">", CancellationToken::new()).unwrap();
        let large = vec![0; WAITING_WATERMARK + 1];
        let publishing = publish(&router, "a", &large);
        tokio::pin!(publishing);
        // Delivered, and now waiting for relief.
        assert!(futures_util::poll!(publishing.as_mut()).is_pending());
        assert_eq!(subscriber.next().await.unwrap().payload.len(), large.len());
        assert_eq!(publishing.await, Ok(1));
    }

    #[tokio::test]
    async fn what_nobody_ever_takes_holds_up_publishers_once() {
        let router = Arc::new(Router::new());
        let subscriber = Subscriber::new(&router, ">", CancellationToken::new()).unwrap();
        let large = vec![0; WAITING_WATERMARK + 1];
        assert_eq!(publish(&router, "a", &large).await, Ok(1));
        for _ in 0..3 {
            let published = publish(&router, "a", b"x").now_or_never();
            assert_eq!(published, Some(Ok(1)), "without waiting again");
        }
        assert_eq!(subscriber.dropped(), 0);
    }

    #[tokio::test]
    async fn what_is_no_subject_is_refused() {
        let router = Arc::new(Router::new());
        for bad in ["", "a..b", "a b", "a.*", ">", ".a"] {
            assert_eq!(
                publish(&router, bad, b"").await,
                Err(InvalidSubject(bad.to_owned()))
            );
        }
        for bad in ["", "a..b", "a b", ">.a"] {
            assert!(
                Subscriber::new(&router, bad, CancellationToken::new()).is_err(),
                "{bad}"
            );
        }
    }
}
