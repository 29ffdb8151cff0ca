//! What travels beside a body: the `Mesh-*` headers, and an event as it is read back from the stream.
//!
//! Every header may be missing: a bare socket publishes a body and nothing else.

use async_nats::HeaderMap;
use async_nats::jetstream::message::{Message, StreamMessage};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Error, Identity};

/// Header with the event's name.
pub const EVENT: &str = "Mesh-Event";
/// Header with the sender.
pub const INSTANCE: &str = "Mesh-Instance";
/// Header with the sender's session.
pub const SESSION: &str = "Mesh-Session";
/// Header with the session that the sender's session came from.
pub const PARENT: &str = "Mesh-Parent";
/// Header that counts the sender's events.
pub const SEQ: &str = "Mesh-Seq";
/// Header with the sender's clock.
pub const TIME: &str = "Mesh-Time";
/// Header that makes a retry be stored once.
pub const MSG_ID: &str = "Nats-Msg-Id";

/// Header of a message that stands for one the server removed.
const MARKER_REASON: &str = "Nats-Marker-Reason";
/// Header of a message that stands for a deleted key.
const KV_OPERATION: &str = "KV-Operation";

/// The headers of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The event's name.
    pub event: Option<String>,
    /// Who sent it.
    pub instance: Option<String>,
    /// The sender's session.
    pub session: Option<String>,
    /// The session that one came from.
    pub parent: Option<String>,
    /// Its place among the sender's events, from 1.
    pub seq: Option<u64>,
    /// The sender's clock, RFC 3339.
    pub time: Option<String>,
    /// The message id.
    pub id: Option<String>,
}

impl Envelope {
    /// Says who sends, and nothing else.
    pub fn signed(identity: &Identity) -> Self {
        Self {
            instance: Some(identity.instance.clone()),
            session: identity.session.clone(),
            ..Self::default()
        }
    }

    /// Reads the headers of a message.
    pub fn read(headers: Option<&HeaderMap>) -> Self {
        let text = |name: &str| Some(headers?.get(name)?.as_str().to_owned());
        Self {
            event: text(EVENT),
            instance: text(INSTANCE),
            session: text(SESSION),
            parent: text(PARENT),
            seq: text(SEQ).and_then(|seq| seq.parse().ok()),
            time: text(TIME),
            id: text(MSG_ID),
        }
    }

    /// The headers to send.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let seq = self.seq.map(|seq| seq.to_string());
        for (name, value) in [
            (EVENT, &self.event),
            (INSTANCE, &self.instance),
            (SESSION, &self.session),
            (PARENT, &self.parent),
            (SEQ, &seq),
            (TIME, &self.time),
            (MSG_ID, &self.id),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.as_str());
            }
        }
        headers
    }
}

/// An event as the stream holds it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its place in the stream.
    pub stream_seq: u64,
    /// When the server stored it, by the server's clock.
    pub stored: Timestamp,
    /// Where it was published.
    pub subject: String,
    /// Its headers.
    pub envelope: Envelope,
    /// The server's own word in place of a message that it removed.
    pub marker: Option<String>,
    /// Its body as sent.
    pub body: Bytes,
    /// How many events the consumer has yet to deliver after this one.
    pub pending: u64,
    /// How often it was delivered, counting this time.
    pub deliveries: u64,
    /// Its place among the consumer's deliveries.
    pub consumer_seq: u64,
}

/// One line of `--json` output.
#[derive(Serialize)]
struct Line<'a> {
    stream_seq: u64,
    stored: String,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    /// The body when it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Received {
    /// Takes a message that a consumer delivered.
    pub(crate) fn from_consumer(message: &Message) -> Result<Self, Error> {
        let info = message.info().map_err(|error| Error::Damaged {
            what: format!("a delivery on `{}`", message.subject),
            why: error.to_string(),
        })?;
        Ok(Self {
            stream_seq: info.stream_sequence,
            stored: timestamp(info.published.unix_timestamp_nanos()),
            subject: message.subject.to_string(),
            envelope: Envelope::read(message.headers.as_ref()),
            marker: message.headers.as_ref().and_then(marker),
            body: message.payload.clone(),
            pending: info.pending,
            deliveries: u64::try_from(info.delivered).unwrap_or(1),
            consumer_seq: info.consumer_sequence,
        })
    }

    /// Takes a message that was looked up in the stream.
    pub(crate) fn from_stream(message: StreamMessage) -> Self {
        Self {
            stream_seq: message.sequence,
            stored: timestamp(message.time.unix_timestamp_nanos()),
            subject: message.subject.to_string(),
            envelope: Envelope::read(Some(&message.headers)),
            marker: marker(&message.headers),
            body: message.payload,
            pending: 0,
            deliveries: 1,
            consumer_seq: 0,
        }
    }

    /// The event's name: the header's, else the last words of the subject.
    pub fn name(&self) -> &str {
        let subject = self.subject.strip_prefix("mesh.").unwrap_or(&self.subject);
        self.envelope.event.as_deref().unwrap_or(subject)
    }

    /// One JSON object without line breaks; a body that is not JSON goes into `text`.
    pub fn json(&self) -> String {
        let body = serde_json::from_slice::<&RawValue>(&self.body).ok();
        // A body may be pretty-printed; a line of output may not.
        let one_line = body.filter(|body| !body.get().contains(['\n', '\r']));
        let repacked = match (body, one_line) {
            (Some(body), None) => serde_json::from_str::<serde_json::Value>(body.get())
                .and_then(|value| serde_json::value::to_raw_value(&value))
                .ok(),
            _ => None,
        };
        let text = body
            .is_none()
            .then(|| String::from_utf8_lossy(&self.body).into_owned());
        let line = Line {
            stream_seq: self.stream_seq,
            stored: self.stored.to_string(),
            subject: &self.subject,
            event: self.envelope.event.as_deref(),
            instance: &self.envelope.instance,
            session: &self.envelope.session,
            parent: &self.envelope.parent,
            seq: self.envelope.seq,
            time: &self.envelope.time,
            body: one_line.or(repacked.as_deref()),
            text,
        };
        serde_json::to_string(&line).expect("strings and numbers are always JSON")
    }
}

/// What stands in place of a key's value: how it was deleted, or why the server removed it.
fn marker(headers: &HeaderMap) -> Option<String> {
    let found = headers.get(MARKER_REASON).or_else(|| headers.get(KV_OPERATION));
    found
        .map(|marker| marker.as_str().to_owned())
        .filter(|marker| marker != "PUT")
}

/// A server's nanoseconds since 1970; what no calendar holds becomes 1970.
pub(crate) fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(body: &'static [u8]) -> Received {
        Received {
            stream_seq: 7,
            stored: Timestamp::UNIX_EPOCH,
            subject: "mesh.fo.insight".to_owned(),
            envelope: Envelope::default(),
            marker: None,
            body: Bytes::from_static(body),
            pending: 0,
            deliveries: 1,
            consumer_seq: 1,
        }
    }

    #[test]
    fn headers_come_back() {
        let envelope = Envelope {
            event: Some("fo_insight".to_owned()),
            instance: Some("a".to_owned()),
            session: Some("s".to_owned()),
            parent: None,
            seq: Some(41),
            time: Some("2026-11-23T05:20:01Z".to_owned()),
            id: Some("a.x.41".to_owned()),
        };
        assert_eq!(Envelope::read(Some(&envelope.headers())), envelope);
        assert_eq!(Envelope::read(None), Envelope::default());
    }

    #[test]
    fn json_lines() {
        for (body, expected) in [
            (&br#"{"b":1,"a":2}"#[..], r#""body":{"b":1,"a":2}}"#),
            (b"{\n \"b\": 1 }", r#""body":{"b":1}}"#),
            (b"hello\n\xff", r#""text":"hello\n"#),
            (b"", r#""text":""}"#),
        ] {
            let line = received(body).json();
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
    }
}
