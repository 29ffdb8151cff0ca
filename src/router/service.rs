//! Rooms of this server as subscribers: they take batches, not lines.

use std::ops::Range;
use std::sync::Arc;

use crate::protocol::encode::Message;

use super::client::Client;

/// A subscriber inside the server: a stream's ingest, the JetStream API, the plain verbs.
pub trait Service: Send + Sync {
    /// Takes all messages of one publisher's read batch that matched, in order. Called without any lock of
    /// the router; it must not block: bounded queues push back through [`Service::congested`].
    fn accept(&self, batch: Batch);

    /// Whether publishers should wait before they send more.
    fn congested(&self) -> bool {
        false
    }

    /// Completes when publishers may go on; bounded in time by the caller.
    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// How messages have come here from other accounts; the default: they have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossing {
    /// Borders crossed.
    pub hops: u8,
    /// Whether their headers say who asks, as the server itself has written.
    pub says_who: bool,
    /// Whether who asks does not want to hear that nobody listens.
    pub is_quiet: bool,
}

/// Messages for one service, copied into one buffer.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    origin: Option<Arc<Client>>,
    answers: bool,
    crossing: Crossing,
}

#[derive(Clone)]
struct Item {
    subject: Range<u32>,
    reply: u32,
    headers: u32,
    payload: u32,
}

impl Batch {
    /// A batch from `origin` (none: from the server itself).
    pub fn new(origin: Option<Arc<Client>>) -> Self {
        Self {
            origin,
            ..Self::default()
        }
    }

    /// The same for what the server itself publishes on subjects that others have chosen.
    pub(super) fn of(origin: Option<Arc<Client>>, answers: bool) -> Self {
        Self {
            answers,
            ..Self::new(origin)
        }
    }

    /// An empty one from where `other` comes, with room for as much.
    pub(super) fn like(other: &Self) -> Self {
        Self {
            bytes: Vec::with_capacity(other.bytes.len()),
            items: Vec::with_capacity(other.items.len()),
            ..Self::of(other.origin.clone(), other.answers)
        }
    }

    /// Adds a copy of `message`.
    pub fn push(&mut self, message: &Message<'_>) {
        let at = |bytes: &Vec<u8>| u32::try_from(bytes.len()).expect("a batch is flushed before 4 GiB");
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(message.subject);
        let subject = start..at(&self.bytes);
        self.bytes.extend_from_slice(message.reply);
        let reply = at(&self.bytes);
        self.bytes.extend_from_slice(message.headers);
        let headers = at(&self.bytes);
        self.bytes.extend_from_slice(message.payload);
        let payload = at(&self.bytes);
        self.items.push(Item {
            subject,
            reply,
            headers,
            payload,
        });
    }

    /// The messages in the order they were published.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'_>> {
        let slice = |from: u32, to: u32| &self.bytes[from as usize..to as usize];
        self.items.iter().map(move |item| Message {
            subject: slice(item.subject.start, item.subject.end),
            reply: slice(item.subject.end, item.reply),
            headers: slice(item.reply, item.headers),
            payload: slice(item.headers, item.payload),
        })
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Who published; none for the server itself.
    pub fn origin(&self) -> Option<&Arc<Client>> {
        self.origin.as_ref()
    }

    /// Whether the server itself has published it on subjects that others have chosen: answers, acks, deliveries. What acts
    /// on requests leaves them alone: nobody with the rights for such a request has made one.
    pub fn is_answers(&self) -> bool {
        self.answers
    }

    /// How it has come here from other accounts.
    pub fn crossing(&self) -> Crossing {
        self.crossing
    }

    pub(super) fn set_crossing(&mut self, crossing: Crossing) {
        self.crossing = crossing;
    }
}
