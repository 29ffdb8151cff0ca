//! Advisories of streams: told to whoever listens, made only then.

use serde_json::json;

use crate::jetstream::JetStream;
use crate::jetstream::time::{now_ns, rfc3339};
use crate::protocol::encode::Message;
use crate::router::Publisher;

/// What has been done to a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Created,
    Updated,
    Deleted,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Advisory {
    pub action: Action,
    pub stream: String,
}

impl Advisory {
    pub fn publish(&self, jetstream: &JetStream, publisher: &mut Publisher) {
        let (name, action) = match self.action {
            Action::Created => ("CREATED", "create"),
            Action::Updated => ("UPDATED", "modify"),
            Action::Deleted => ("DELETED", "delete"),
        };
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.{name}.{}", self.stream);
        if !jetstream.router().has_interest(subject.as_bytes()) {
            return;
        }
        let mut body = json!({
            "type": "io.nats.jetstream.advisory.v1.stream_action",
            "id": nuid::next().to_string(),
            "timestamp": rfc3339(now_ns()),
            "stream": self.stream,
            "action": action,
        });
        if let Some(domain) = &jetstream.options.domain {
            body["domain"] = domain.as_str().into();
        }
        let body = body.to_string();
        let message = Message {
            subject: subject.as_bytes(),
            payload: body.as_bytes(),
            ..Message::default()
        };
        publisher.publish(&message, None);
    }
}
