//! Requests from inside the server: publish with a reply subject of our own and wait for what comes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::router::{Batch, Publisher, Router, Service, Subscription};

/// Answers kept that nobody has fetched; more are dropped, oldest first.
const WAITING_MAX: usize = 8192;

/// An answer, owned.
pub(crate) struct Answer {
    pub subject: Vec<u8>,
    pub reply: Vec<u8>,
    pub headers: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Answer {
    /// The status code of an answer without content, such as 404.
    pub fn status(&self) -> Option<u16> {
        headers::status(&self.headers)
    }

    /// What stands behind the status code.
    pub fn status_text(&self) -> String {
        let line = self
            .headers
            .split(|&byte| byte == b'\r')
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(line.get(13..).unwrap_or_default()).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Denied,
    NobodyListens,
    TimedOut,
}

#[derive(Default)]
struct Letters {
    answers: Mutex<VecDeque<Answer>>,
    arrived: Notify,
}

impl Service for Letters {
    fn accept(&self, batch: Batch) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for message in batch.iter() {
            if answers.len() >= WAITING_MAX {
                answers.pop_front();
            }
            answers.push_back(Answer {
                subject: message.subject.to_vec(),
                reply: message.reply.to_vec(),
                headers: message.headers.to_vec(),
                payload: message.payload.to_vec(),
            });
        }
        drop(answers);
        self.arrived.notify_one();
    }
}

/// A place for answers; its subscription ends with it.
pub(crate) struct Inbox {
    router: Arc<Router>,
    subject: String,
    letters: Arc<Letters>,
    subscription: Arc<Subscription>,
}

impl Inbox {
    pub fn new(router: Arc<Router>) -> Self {
        let letters = Arc::new(Letters::default());
        let subject = format!("_INBOX.{}", nuid::next());
        let service: Arc<dyn Service> = letters.clone();
        let subscription = router.subscribe_service(&service, subject.as_bytes(), None);
        Self {
            router,
            subject,
            letters,
            subscription,
        }
    }

    /// The subject that answers go to.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The next answer.
    pub async fn next(&self, timeout: Duration) -> Option<Answer> {
        let wait = async {
            loop {
                let answer = self
                    .letters
                    .answers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                if let Some(answer) = answer {
                    return answer;
                }
                self.letters.arrived.notified().await;
            }
        };
        tokio::time::timeout(timeout, wait).await.ok()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.router.remove(&self.subscription);
    }
}

/// Publishes `payload` to `subject` and waits for the first answer. Each request has an inbox of its own, so that a late
/// answer cannot be taken for another's.
pub(crate) async fn request(
    router: &Arc<Router>,
    publisher: &mut Publisher,
    subject: &str,
    payload: &[u8],
    timeout: Duration,
) -> Result<Answer, NoAnswer> {
    if !publisher.may_publish(subject.as_bytes()) {
        return Err(NoAnswer::Denied);
    }
    let inbox = Inbox::new(router.clone());
    let message = Message {
        subject: subject.as_bytes(),
        reply: inbox.subject().as_bytes(),
        headers: &[],
        payload,
    };
    if publisher.publish(&message, None) == 0 {
        return Err(NoAnswer::NobodyListens);
    }
    publisher.flush();
    let answer = inbox.next(timeout).await.ok_or(NoAnswer::TimedOut)?;
    if answer.status() == Some(503) && answer.payload.is_empty() {
        return Err(NoAnswer::NobodyListens);
    }
    Ok(answer)
}
