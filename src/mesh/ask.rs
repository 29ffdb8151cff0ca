//! Asking everybody who listens on a subject, and counting the answers until enough of them are there.
//!
//! The question is an ordinary request, so whoever answers requests answers it; the counting is [`quorum`](super::quorum).
//! Nothing is stored: who does not listen when it is asked does not hear of it.

use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;

use super::envelope::{INSTANCE, SESSION};
use super::error::While;
use super::quorum::{Heard, Outcome, Rule, Tally, Voice};
use super::{Envelope, Error, Mesh, setup};
use crate::protocol::subject;

/// Header of an answer that says what went wrong in place of one; as services of NATS have it.
const SERVICE_ERROR: &str = "Nats-Service-Error";

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where.
    pub subject: String,
    /// What.
    pub body: Bytes,
    /// How many must answer; whoever does until the time is over if none.
    pub quorum: Option<Rule>,
    /// Whether they must give the same answer.
    pub agree: bool,
}

/// An answer and who gave it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its instance and what it says.
    pub voice: Voice,
    /// Its session.
    pub session: Option<String>,
    /// What went wrong there, if something did.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What it is worth.
    pub heard: Heard,
}

/// Why no more answers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The count has come to an end.
    Decided(Outcome),
    /// The time is over.
    TimedOut,
    /// Nobody listens there.
    Nobody,
}

/// A question that was asked.
pub struct Asked {
    /// The answers so far.
    pub tally: Tally,
    mesh: Mesh,
    subject: String,
    answers: Subscriber,
    sent: Instant,
}

impl Mesh {
    /// Asks; the answers are counted as they are taken with [`Asked::next`].
    pub async fn ask(&self, question: Question) -> Result<Asked, Error> {
        let Question {
            subject,
            body,
            quorum,
            agree,
        } = question;
        if !subject::is_subject(subject.as_bytes()) {
            return Err(Error::BadName {
                what: "subject",
                value: subject,
                problem: "must be words with dots between, without blanks or wildcards",
            });
        }
        let tally = match quorum {
            None => Tally::open(),
            Some(rule) => self.tally(rule, agree).await?,
        };
        let what = format!("cannot ask on `{subject}`");
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let answers = answers.while_doing(what.as_str())?;
        let headers = Envelope::signed(&self.identity).headers();
        self.complaints.clear();
        let sent = Instant::now();
        let asked = self
            .client
            .publish_with_reply_and_headers(subject.clone(), inbox, headers, body)
            .await;
        asked.while_doing(what)?;
        Ok(Asked {
            tally,
            mesh: self.clone(),
            subject,
            answers,
            sent,
        })
    }

    /// A count of answers; of the peers present only those have a voice.
    async fn tally(&self, rule: Rule, agree: bool) -> Result<Tally, Error> {
        if let Rule::Of(quorum) = rule {
            return Ok(Tally::new(quorum, agree));
        }
        let present = self.instances_present().await?;
        match rule.of(present.len()) {
            Ok(quorum) => Ok(Tally::new(quorum, agree).among(present)),
            Err(_) if present.is_empty() => Err(Error::NotFound(format!(
                "no peer is present in {}, so there is no quorum of them",
                setup::PEERS
            ))),
            Err(problem) => Err(Error::NotFound(problem)),
        }
    }
}

impl Asked {
    /// The next answer, or why there will be none that matters.
    pub async fn next(&mut self) -> Result<Result<Answer, End>, Error> {
        if let Some(outcome) = self.tally.outcome() {
            return Ok(Err(End::Decided(outcome)));
        }
        let left = self.mesh.timeout.saturating_sub(self.sent.elapsed());
        // Answers that do not count must not keep it open: with no time left nothing more is taken.
        let next = match left.is_zero() {
            true => None,
            false => tokio::time::timeout(left, self.answers.next())
                .await
                .ok()
                .flatten(),
        };
        let Some(message) = next else {
            return match self.mesh.complaints.about(&self.subject) {
                Some(why) => Err(Error::Server {
                    what: format!("cannot ask on `{}`", self.subject),
                    why,
                }),
                None => Ok(Err(End::TimedOut)),
            };
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Ok(Err(End::Nobody));
        }
        let mut answer = self.read(message);
        answer.heard = self.tally.hear(&answer.voice);
        Ok(Ok(answer))
    }

    fn read(&self, message: Message) -> Answer {
        let text = |name: &str| {
            let value = message.headers.as_ref()?.get(name)?.as_str();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let error = text(SERVICE_ERROR);
        Answer {
            voice: Voice {
                instance: text(INSTANCE),
                failed: error.is_some(),
                body: message.payload.clone(),
            },
            session: text(SESSION),
            error,
            took: self.sent.elapsed(),
            heard: Heard::Unsigned,
        }
    }
}
