//! What becomes of a message: its name, whether it may be published, and what its publisher is told.

use bytes::Bytes;

use crate::account::Mapped;
use crate::connection::publish_line::{is_reserved_reply, is_reserved_subject};
use crate::protocol::encode::{self, Message};
use crate::protocol::subject;

use super::Session;

impl Session {
    #[inline]
    pub(super) fn publish(&mut self, message: &Message<'_>, shared: Option<&Bytes>) {
        self.in_msgs += 1;
        self.in_bytes += message.len() as u64;
        if self.connect.pedantic && !subject::is_subject(message.subject) {
            self.error("Invalid Publish Subject");
        }
        if self.mappings.is_some() {
            return self.publish_mapped(message, shared);
        }
        self.publish_as(message, shared);
    }

    /// Renames first; permissions hold for the new name, as in nats-server.
    #[cold]
    fn publish_mapped(&mut self, message: &Message<'_>, shared: Option<&Bytes>) {
        let publisher = &mut self.publisher;
        let mapped = self
            .mappings
            .as_ref()
            .map(|mappings| mappings.map(message.subject, || publisher.random()));
        match mapped {
            None | Some(Mapped::Kept) => self.publish_as(message, shared),
            Some(Mapped::To(to)) => {
                let message = Message {
                    subject: &to,
                    ..*message
                };
                self.publish_as(&message, shared);
            }
            Some(Mapped::Dropped) if self.connect.verbose => {
                self.publisher.own().extend_from_slice(encode::OK);
            }
            Some(Mapped::Dropped) => {}
        }
    }

    /// Publishes a message under the name its account's mappings have given it.
    #[inline]
    fn publish_as(&mut self, message: &Message<'_>, shared: Option<&Bytes>) {
        if let Some(gate) = &mut self.gate
            && !gate.may_publish(message.subject, &self.handle.client)
        {
            return self.publish_denied(message.subject);
        }
        if is_reserved_subject(message.subject) {
            let subject = String::from_utf8_lossy(message.subject).into_owned();
            return self.error(&format!("Permissions Violation for Publish to \"{subject}\""));
        }
        if is_reserved_reply(message.reply) {
            let reply = String::from_utf8_lossy(message.reply).into_owned();
            return self.error(&format!(
                "Permissions Violation for Publish with Reply of \"{reply}\""
            ));
        }
        if self.connect.verbose {
            self.publisher.own().extend_from_slice(encode::OK);
        }
        let receivers = self.publisher.publish(message, shared);
        if receivers == 0 && self.connect.no_responders && !message.reply.is_empty() {
            self.no_responders(message);
        }
    }

    /// Tells a requester that nobody listens, if it listens for the answer itself.
    fn no_responders(&mut self, message: &Message<'_>) {
        // The subject as it came, which need not be text.
        let headers = [b"NATS/1.0 503\r\nNats-Subject: ", message.subject, b"\r\n\r\n"].concat();
        let answer = Message {
            subject: message.reply,
            headers: &headers,
            ..Message::default()
        };
        self.publisher.deliver_to_self(message.reply, &answer);
    }

    #[cold]
    fn publish_denied(&mut self, to: &[u8]) {
        let to = String::from_utf8_lossy(to).into_owned();
        let label = self.label();
        if let Some(gate) = &mut self.gate {
            gate.log(
                &label,
                &format!("Publish Violation - Subject \"{}\"", to.escape_debug()),
            );
        }
        self.error(&format!("Permissions Violation for Publish to \"{to}\""));
    }
}
