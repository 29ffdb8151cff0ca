//! Publishing an event once: numbered without gaps, stored once however often it is sent.

use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, publish::PublishAck};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::error::Failed;
use super::journal::{Held, Pending};
use super::reader::{Selection, Start};
use super::{Envelope, Error, Identity, Mesh};

/// How long one try waits for its acknowledgement before the event is sent again.
const TRY: Duration = Duration::from_secs(1);
/// Pause before a try that follows a quick refusal.
const PAUSE: Duration = Duration::from_millis(50);
/// What headers may take of a message.
const HEADERS_BYTES_MAX: usize = 1024;

/// An event before it is numbered.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name.
    pub event: String,
    /// Its subject.
    pub subject: String,
    /// Its body.
    pub body: Bytes,
    /// An id of the caller's own, under which the event is stored once whoever sends it; else one is made.
    pub id: Option<String>,
}

/// Where an event ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its number among the instance's events; none if somebody else had stored it already.
    pub seq: Option<u64>,
    /// Its place in the stream.
    pub stream_seq: u64,
}

impl Mesh {
    /// A draft of a catalogued event, its body checked.
    pub fn draft(&self, event: &str, body: impl Into<Bytes>) -> Result<Draft, Error> {
        let event = self.catalog.get(event)?;
        let body = body.into();
        event.check(&body)?;
        Ok(Draft {
            event: event.name.clone(),
            subject: event.subject.clone(),
            body,
            id: None,
        })
    }

    /// Drafts and emits one of the mesh's own events.
    pub(super) async fn tell(
        &self,
        event: &str,
        body: &serde_json::Value,
        id: Option<String>,
    ) -> Result<Receipt, Error> {
        let draft = self.draft(event, body.to_string())?;
        self.emit(&Draft { id, ..draft }).await
    }

    /// Stores the event and returns when the server has it.
    ///
    /// If the outcome stays unknown ([`Error::Unconfirmed`]) the event is kept in the journal and goes out before the
    /// next one. Emitting the very same event again settles that one instead of adding another, so a
    /// caller may simply repeat what failed.
    pub async fn emit(&self, draft: &Draft) -> Result<Receipt, Error> {
        let size_max = self
            .client
            .server_info()
            .max_payload
            .saturating_sub(HEADERS_BYTES_MAX);
        if draft.body.len() > size_max {
            return Err(Error::Refused {
                event: draft.event.clone(),
                why: format!(
                    "its body has {} bytes, the server takes {size_max}",
                    draft.body.len()
                ),
            });
        }
        let mut held = self.journal.hold(self.timeout * 2).await?;
        let mut drained = None;
        if held.base().spool.is_some() {
            let earlier = held.pending().cloned();
            (held, drained) = self.drain(held).await?;
            let spooled =
                earlier.filter(|event| held.pending().is_none() && event.is_same(draft, &self.identity));
            if let Some(event) = spooled {
                return Ok(Receipt {
                    seq: Some(event.seq),
                    stream_seq: held.base().stream_seq,
                });
            }
        }
        if let Some(earlier) = held.pending().cloned() {
            let receipt = self.settle(&mut held, &earlier).await?;
            if earlier.is_same(draft, &self.identity) {
                return Ok(receipt);
            }
        }
        let pending = numbered(&held, draft, &self.identity);
        held.reserve(pending.clone())?;
        let receipt = self.send(&mut held, &pending).await?;
        drop(held);
        if let Some(spool) = drained {
            spool.retire(self.timeout).await;
        }
        Ok(receipt)
    }

    /// Brings an event that an earlier emitter left behind to an end.
    async fn settle(&self, held: &mut Held, pending: &Pending) -> Result<Receipt, Error> {
        // The server forgets message ids after a while: look before sending again.
        let selection = Selection {
            headers_only: true,
            ..Selection::of(
                vec![pending.subject.clone()],
                Start::After(held.base().stream_seq),
            )
        };
        let mut stored = self.read(selection).await?;
        while let Some(event) = stored.next().await? {
            if event.envelope.id.as_ref() == Some(&pending.id) {
                return self.found(held, pending, &event.envelope, event.stream_seq);
            }
        }
        self.send(held, pending).await
    }

    /// An event with the pending one's id is in the stream: ours, or the same thing said by somebody else.
    fn found(
        &self,
        held: &mut Held,
        pending: &Pending,
        stored: &Envelope,
        stream_seq: u64,
    ) -> Result<Receipt, Error> {
        let ours =
            stored.seq == Some(pending.seq) && stored.instance.as_ref() == Some(&self.identity.instance);
        if ours {
            held.confirm(stream_seq)?;
            return Ok(Receipt {
                seq: Some(pending.seq),
                stream_seq,
            });
        }
        held.free()?;
        Ok(Receipt {
            seq: None,
            stream_seq,
        })
    }

    /// Sends until it is acknowledged, refused, or time is up.
    async fn send(&self, held: &mut Held, pending: &Pending) -> Result<Receipt, Error> {
        let deadline = Instant::now() + self.timeout;
        // Whether some try may have been stored without our hearing of it.
        let mut unheard = false;
        // What the server said last: a try that the deadline cuts short says less.
        let mut said = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.complaints.clear();
            let tried = tokio::time::timeout(TRY.min(left), self.publish(pending)).await;
            let why = match tried {
                Ok(Ok(ack)) if ack.duplicate => return self.duplicate(held, pending, ack.sequence).await,
                Ok(Ok(ack)) => {
                    held.confirm(ack.sequence)?;
                    return Ok(Receipt {
                        seq: Some(pending.seq),
                        stream_seq: ack.sequence,
                    });
                }
                Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
                    if let Err(error) = self.ensure().await
                        && (deadline <= Instant::now() || matches!(error, Error::NoStreams))
                    {
                        if !unheard {
                            held.free()?;
                        }
                        return Err(error);
                    }
                    "no stream takes it".to_owned()
                }
                Ok(Err(error)) => {
                    let refused = is_refusal(&error);
                    let Failed(why) = error.into();
                    if refused && !unheard {
                        held.free()?;
                        return Err(Error::Refused {
                            event: pending.event.clone(),
                            why,
                        });
                    }
                    unheard = true;
                    said.insert(why).clone()
                }
                Err(_) if !unheard && self.complaints.about(&pending.subject).is_some() => {
                    // Nothing was stored: kept in the journal it would stand in the way of all that comes after it.
                    held.free()?;
                    return Err(Error::Refused {
                        event: pending.event.clone(),
                        why: self.complaints.about(&pending.subject).unwrap_or_default(),
                    });
                }
                Err(_) => {
                    unheard = true;
                    let silent = || "the server did not acknowledge it in time".to_owned();
                    said.clone().unwrap_or_else(silent)
                }
            };
            if deadline <= Instant::now() {
                if !unheard {
                    held.free()?;
                    return Err(Error::Refused {
                        event: pending.event.clone(),
                        why,
                    });
                }
                return Err(Error::Unconfirmed {
                    seq: pending.seq,
                    why,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn publish(&self, pending: &Pending) -> Result<PublishAck, PublishError> {
        let envelope = Envelope {
            event: Some(pending.event.clone()),
            instance: Some(self.identity.instance.clone()),
            session: pending.session.clone(),
            parent: pending.parent.clone(),
            seq: Some(pending.seq),
            time: Some(pending.time.clone()),
            id: Some(pending.id.clone()),
        };
        let body = Bytes::copy_from_slice(&pending.body);
        let sent = self
            .jetstream
            .publish_with_headers(pending.subject.clone(), envelope.headers(), body);
        sent.await?.await
    }

    /// The id was stored before: by an earlier try of ours, or by somebody else under an id of the caller's.
    async fn duplicate(&self, held: &mut Held, pending: &Pending, stream_seq: u64) -> Result<Receipt, Error> {
        let stream = self.stream().await?;
        match stream.direct_get(stream_seq).await {
            Ok(stored) => self.found(held, pending, &Envelope::read(Some(&stored.headers)), stream_seq),
            Err(error) => {
                let Failed(why) = error.into();
                Err(Error::Unconfirmed {
                    seq: pending.seq,
                    why,
                })
            }
        }
    }
}

impl Pending {
    /// Whether emitting `draft` would only repeat this event.
    pub(super) fn is_same(&self, draft: &Draft, identity: &Identity) -> bool {
        self.event == draft.event
            && self.subject == draft.subject
            && self.body == draft.body
            && self.session == identity.session
            && draft.id.as_ref().is_none_or(|id| *id == self.id)
    }
}

/// The event with the next number.
pub(super) fn numbered(held: &Held, draft: &Draft, identity: &Identity) -> Pending {
    let seq = held.base().seq + 1;
    let own_id = || format!("{}.{}.{seq}", identity.instance, held.base().journal);
    Pending {
        seq,
        id: draft.id.clone().unwrap_or_else(own_id),
        event: draft.event.clone(),
        subject: draft.subject.clone(),
        time: Timestamp::now().to_string(),
        session: identity.session.clone(),
        parent: identity.parent.clone(),
        body: draft.body.to_vec(),
    }
}

/// Whether the server said no for good: the request itself is wrong, so nothing of it is stored.
pub(super) fn is_refusal(error: &PublishError) -> bool {
    if error.kind() == PublishErrorKind::MaxPayloadExceeded {
        return true;
    }
    let source = std::error::Error::source(error);
    let told = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    told.is_some_and(|told| (400..500).contains(&told.code()))
}
