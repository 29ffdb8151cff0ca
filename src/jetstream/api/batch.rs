//! Many messages for one direct get: sent a chunk at a time, no faster than the requester takes them.
//!
//! The worker sends the first chunk; what is left is a task of its own, so that nobody waits behind a large batch. It
//! holds nothing while it waits, ends with the requester or the server, and after a while in any case: the end of a
//! batch says how much is left and where to go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::jetstream::stream::{Found, Stream};
use crate::protocol::headers;
use crate::router::{Client, OUTBOX_WATERMARK, Publisher};

use super::direct::{Reply, described};

/// Messages and bytes read and sent at once.
const CHUNK_MESSAGES: usize = 1024;
const CHUNK_BYTES: u64 = 1 << 20;
/// How long a batch goes on, and how often it looks whether the requester has taken what it was sent.
const TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long those who do not take their answers are waited for, beside the requester.
const RELIEF_MAX: Duration = Duration::from_secs(1);

/// Where the messages come from.
pub(super) enum Source {
    /// All that the filters take (none: all) from a sequence on.
    From(u64, Vec<Box<[u8]>>),
    /// These sequences, going up.
    List(VecDeque<u64>),
}

/// A batch under way. See the module documentation.
pub(super) struct Batch {
    pub stream: Arc<Stream>,
    /// The reply subject.
    pub to: Box<[u8]>,
    pub source: Source,
    pub no_headers: bool,
    /// Messages and bytes that may still be sent.
    pub messages_left: usize,
    pub bytes_left: u64,
    /// Messages there are, beyond those that were sent.
    pub pending: u64,
    /// The last sequence that was sent.
    pub last: u64,
    /// What the end says the batch reaches up to.
    pub up_to: Option<u64>,
}

impl Batch {
    /// Sends the first chunk, if the requester has room for it; gives back what is left to be sent.
    pub fn begin(mut self, requester: Option<&Client>, publisher: &mut Publisher) -> Option<Self> {
        if has_room(requester) && self.advance(publisher) {
            return None;
        }
        Some(self)
    }

    /// Sends what is left.
    pub async fn go_on(
        mut self,
        requester: Option<Arc<Client>>,
        mut publisher: Publisher,
        stopping: CancellationToken,
    ) {
        let until = Instant::now() + TIME_MAX;
        loop {
            let waited = tokio::select! {
                () = stopping.cancelled() => false,
                is_ready = ready(requester.as_deref(), until) => is_ready,
            };
            if !waited {
                self.end(&mut publisher);
                return publisher.flush();
            }
            let is_over = self.advance(&mut publisher);
            publisher.flush();
            if is_over {
                return;
            }
            publisher.relieve_within(RELIEF_MAX).await;
        }
    }

    /// Says that it is over, before it has come to its end.
    pub fn end(&mut self, publisher: &mut Publisher) {
        let (pending, last) = (self.pending.to_string(), self.last.to_string());
        let up_to = self.up_to.map(|seq| seq.to_string());
        let lines = [("Nats-Num-Pending", &*pending), ("Nats-Last-Sequence", &*last)];
        let up_to = up_to.as_deref().map(|seq| ("Nats-UpTo-Sequence", seq));
        let block = headers::build("204 EOB", lines.into_iter().chain(up_to));
        Reply {
            to: &self.to,
            publisher,
        }
        .send(&block, b"");
    }

    /// Sends a chunk; true once everything was sent, the end included.
    fn advance(&mut self, publisher: &mut Publisher) -> bool {
        let chunk = self.read();
        let mut is_over = chunk.is_empty();
        for message in chunk {
            let heard = self.send(&message, publisher);
            self.messages_left -= 1;
            is_over = self.messages_left == 0 || self.bytes_left == 0;
            if heard == 0 {
                // Who asked is no longer there, or has unsubscribed.
                return true;
            }
            if is_over {
                break;
            }
        }
        if is_over {
            self.end(publisher);
        }
        is_over
    }

    fn send(&mut self, message: &Found, publisher: &mut Publisher) -> usize {
        let block = if self.no_headers {
            // Without headers nothing is counted down: the end tells of all there were, as the reference server's.
            Vec::new()
        } else {
            self.pending = self.pending.saturating_sub(1);
            described(&self.stream, message, Some((self.pending, self.last)))
        };
        self.last = message.seq;
        let bytes = message.subject.len() + message.headers.len() + message.payload.len();
        self.bytes_left = self.bytes_left.saturating_sub(bytes as u64);
        Reply {
            to: &self.to,
            publisher,
        }
        .send(&block, &message.payload)
    }

    /// The next messages; none at the end. What cannot be read is the end, too.
    fn read(&mut self) -> Vec<Found> {
        let wanted = self.messages_left.min(CHUNK_MESSAGES);
        match &mut self.source {
            Source::From(next, filters) => {
                let Ok((found, after)) = self.stream.read(*next, filters, wanted, CHUNK_BYTES) else {
                    return Vec::new();
                };
                *next = after;
                found
            }
            Source::List(seqs) => {
                let (mut found, mut bytes) = (Vec::new(), 0);
                while found.len() < wanted && bytes < CHUNK_BYTES {
                    let Some(seq) = seqs.pop_front() else { break };
                    if let Some(message) = self.stream.get(seq).ok().flatten() {
                        bytes += message.stored_len();
                        found.push(message);
                    }
                }
                found
            }
        }
    }
}

/// Whether a requester takes what it is sent.
fn has_room(requester: Option<&Client>) -> bool {
    requester.is_none_or(|client| {
        let outbox = &client.outbox;
        outbox.pending() <= OUTBOX_WATERMARK.min(outbox.pending_max() / 2) / 2
    })
}

/// Waits until the requester has taken most of what it was sent; false when it does not, or has gone.
async fn ready(requester: Option<&Client>, until: Instant) -> bool {
    while !has_room(requester) {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let is_there = requester.is_none_or(|client| client.outbox.closed().is_none());
    is_there && Instant::now() < until
}
