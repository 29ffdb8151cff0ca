//! Publishing into streams with many acks outstanding, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;

use super::{Context, Failure, api, units};

/// Messages on their way to streams. They are sent, and their acks handed out, in the order of the calls.
///
/// Requests side by side would not do: their messages overtake each other on the way to the socket.
pub struct Pipeline {
    client: Client,
    timeout: Duration,
    inbox: String,
    acks: Subscriber,
    subjects: BTreeMap<u64, String>,
    /// Acks that came before the one that is due.
    early: BTreeMap<u64, Message>,
    sent: u64,
    acked: u64,
}

impl Pipeline {
    /// A pipeline with nothing in it.
    pub async fn open(client: &Client, context: &Context) -> Result<Self, Failure> {
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.*")).await;
        Ok(Self {
            client: client.clone(),
            timeout: context.timeout,
            inbox,
            acks: acks.map_err(Failure::failed)?,
            subjects: BTreeMap::new(),
            early: BTreeMap::new(),
            sent: 0,
            acked: 0,
        })
    }

    /// How many acks are to come.
    pub fn unacked(&self) -> u64 {
        self.sent - self.acked
    }

    /// Sends a message.
    pub async fn send(&mut self, subject: &str, headers: HeaderMap, body: Bytes) -> Result<(), Failure> {
        let reply = format!("{}.{}", self.inbox, self.sent);
        let client = &self.client;
        let sent = match headers.is_empty() {
            true => client.publish_with_reply(subject.to_owned(), reply, body).await,
            false => {
                client
                    .publish_with_reply_and_headers(subject.to_owned(), reply, headers, body)
                    .await
            }
        };
        sent.map_err(|error| Failure::usage(format!("cannot publish to {subject:?}: {error}")))?;
        self.subjects.insert(self.sent, subject.to_owned());
        self.sent += 1;
        Ok(())
    }

    /// The ack of the oldest message that has none. May be dropped and called again.
    pub async fn ack(&mut self) -> Result<Value, Failure> {
        while !self.early.contains_key(&self.acked) {
            let next = tokio::time::timeout(self.timeout, self.acks.next()).await;
            let Ok(Some(message)) = next else {
                return Err(Failure::unhealthy(format!(
                    "no ack within {}: {} of {} messages were acknowledged",
                    units::show_duration(self.timeout),
                    self.acked,
                    self.sent
                ))
                .hint("does a stream with acks take this subject? wait longer with --timeout"));
            };
            let number = message.subject.rsplit('.').next();
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                self.early.insert(number, message);
            }
        }
        let ack = self.early.remove(&self.acked).expect("waited for just now");
        let subject = self.subjects.remove(&self.acked).unwrap_or_default();
        self.acked += 1;
        if ack.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Failure::not_found(format!("no stream listens on {subject:?}"))
                .hint("`mesh stream ls` shows the streams, `mesh stream add` makes one"));
        }
        api::read(&ack.payload)
    }
}
