//! What the stream holds of the events that are to be imported, and sending the others on conditions that make the
//! answer stay true.

use std::collections::{HashMap, HashSet};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;

use super::entry::Head;
use crate::mesh::emit::is_refusal;
use crate::mesh::error::{Failed, While};
use crate::mesh::reader::{Selection, Start};
use crate::mesh::{Error, Mesh, catalog, setup};

/// The stream up to a sequence.
pub(super) struct Survey {
    mesh: Mesh,
    /// When the stream was made.
    pub(super) stream: String,
    wanted: HashSet<String>,
    found: HashMap<String, u64>,
    /// All that lies up to here was looked at.
    end: u64,
    /// Where events of ours are the last on a subject, though the stream was not read up to there.
    last: HashMap<String, u64>,
}

/// How far a sending went.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Where each of the first events is.
    pub(super) places: Vec<u64>,
    /// What happened to the one after those, if there was one.
    pub(super) stop: Option<Stop>,
}

/// Why an event was not stored.
#[derive(Debug)]
pub(super) enum Stop {
    /// The stream is no longer as it was surveyed.
    Changed,
    /// The server will not take it.
    Refused(String),
    /// It cannot be told whether the server has it.
    Unheard(String),
}

impl Survey {
    /// Looks for events under `wanted` ids after a place of the stream.
    pub(super) async fn of(
        mesh: &Mesh,
        wanted: HashSet<String>,
        after: u64,
        stream: String,
    ) -> Result<Self, Error> {
        let mut survey = Self {
            mesh: mesh.clone(),
            stream,
            wanted,
            found: HashMap::new(),
            end: after,
            last: HashMap::new(),
        };
        survey.go_on().await?;
        Ok(survey)
    }

    /// Where the stream holds an event, as far as it was surveyed.
    pub(super) fn place(&self, id: &str) -> Option<u64> {
        self.found.get(id).copied()
    }

    /// Reads on to the stream's end.
    pub(super) async fn go_on(&mut self) -> Result<(), Error> {
        let selection = Selection {
            headers_only: true,
            ..Selection::of(vec![catalog::ALL.to_owned()], Start::After(self.end))
        };
        let mut reader = self.mesh.read(selection).await?;
        let mut end = reader.end();
        while let Some(event) = reader.next().await? {
            end = end.max(event.stream_seq);
            if let Some(id) = event.envelope.id.filter(|id| self.wanted.contains(id)) {
                self.found.entry(id).or_insert(event.stream_seq);
            }
        }
        if reader.created().to_string() != self.stream {
            return Err(Error::Server {
                what: format!("stream {} was made anew meanwhile", setup::STREAM),
                why: "sync again".to_owned(),
            });
        }
        (self.end, self.last) = (end, HashMap::new());
        Ok(())
    }

    /// Sends events in a row, all at once on their way: each is stored only if the one before it ends the stream.
    pub(super) async fn send(&mut self, events: &[(Head, Bytes)]) -> Sent {
        let mut answers = Vec::with_capacity(events.len());
        let mut before: Option<&Head> = None;
        for ((head, body), end) in events.iter().zip(self.end..) {
            let mut message = message(head, body).expected_last_sequence(end);
            if let Some(before) = before.replace(head) {
                message = message.expected_last_message_id(&before.id);
            }
            let sent = self
                .mesh
                .jetstream
                .send_publish(head.subject.clone(), message)
                .await;
            let failed = sent.is_err();
            answers.push(sent);
            if failed {
                break;
            }
        }
        let mut outcome = Sent::default();
        for (answer, (head, _)) in answers.into_iter().zip(events) {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            if outcome.stop.is_some() {
                // After one that failed: whatever became of it is seen by reading on.
                continue;
            }
            match answer {
                Ok(ack) if !ack.duplicate && ack.sequence == self.end + 1 => {
                    self.end = ack.sequence;
                    outcome.places.push(ack.sequence);
                }
                other => outcome.stop = Some(self.stopped(head, other)),
            }
        }
        outcome
    }

    /// Sends one event on the condition that nobody has published on its subject.
    pub(super) async fn send_alone(&mut self, head: &Head, body: &Bytes) -> Result<Sent, Error> {
        let last = self.last_on(&head.subject).await?;
        if last > self.end && self.last.get(&head.subject) != Some(&last) {
            self.go_on().await?;
            if last > self.end || self.place(&head.id).is_some() {
                return Ok(Sent {
                    places: Vec::new(),
                    stop: Some(Stop::Changed),
                });
            }
        }
        let message = message(head, body).expected_last_subject_sequence(last);
        let sent = self
            .mesh
            .jetstream
            .send_publish(head.subject.clone(), message)
            .await;
        let answer = match sent {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        Ok(match answer {
            Ok(ack) if !ack.duplicate => {
                // What others stored elsewhere meanwhile was not read: the end stays where it is.
                self.last.insert(head.subject.clone(), ack.sequence);
                self.found.insert(head.id.clone(), ack.sequence);
                Sent {
                    places: vec![ack.sequence],
                    stop: None,
                }
            }
            other => Sent {
                places: Vec::new(),
                stop: Some(self.stopped(head, other)),
            },
        })
    }

    fn stopped(&self, head: &Head, answer: Result<PublishAck, PublishError>) -> Stop {
        let error = match answer {
            Ok(_) => return Stop::Changed,
            Err(error) => error,
        };
        match error.kind() {
            PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                return Stop::Changed;
            }
            _ if is_refusal(&error) => {
                let Failed(why) = error.into();
                return Stop::Refused(why);
            }
            _ => {}
        }
        // Without the right to publish there is no answer, only a complaint.
        if let Some(why) = self.mesh.complaints.about(&head.subject) {
            return Stop::Refused(why);
        }
        let Failed(why) = error.into();
        Stop::Unheard(why)
    }

    /// The last sequence on a subject; 0 if there is none.
    async fn last_on(&self, subject: &str) -> Result<u64, Error> {
        let stream = self.mesh.stream().await?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).while_doing(format!("cannot look at subject {subject}")),
        }
    }
}

fn message(head: &Head, body: &Bytes) -> PublishMessage {
    PublishMessage::build()
        .headers(head.envelope().headers())
        .payload(body.clone())
        .expected_stream(setup::STREAM)
}
