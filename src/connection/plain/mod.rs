//! The verbs for people, typed into `nc` or `telnet`: HELP, SAY, ASK, WATCH and the rest of the table.
//!
//! One line in, data lines out, then `+OK ...` or one `-ERR '...'` line that says what was expected; a mistake
//! never ends the connection. Everything here is done as a client would do it, over the router: what concerns
//! streams goes through the JetStream API subjects ([`streams`]).

mod inbox;
mod streams;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Mapped;
use crate::protocol::encode::{self, Message};
use crate::protocol::plain::Verb;
use crate::protocol::subject;
use crate::router::{Batch, Client, OUTBOX_WATERMARK, Publisher, Router, Service, Subscription, WireBuf};

use super::Context;
use super::handle::Handle;
use super::publish_line::is_reserved_subject;
use super::session::PlainLine;
use inbox::{NoAnswer, request};

/// How long ASK waits for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Subjects one connection may watch at a time.
const WATCHES_MAX: usize = 1000;

/// What a verb ends with: the text behind `+OK`, or of `-ERR`.
type Outcome = Result<String, String>;

/// The plain side of one connection; it exists from the first plain verb on.
pub(super) struct Plain {
    context: Arc<Context>,
    handle: Arc<Handle>,
    watches: Vec<Watch>,
}

struct Watch {
    pattern: String,
    subscription: Arc<Subscription>,
}

impl Drop for Plain {
    fn drop(&mut self) {
        for watch in &self.watches {
            self.router().remove(&watch.subscription);
        }
    }
}

impl Plain {
    pub fn new(context: Arc<Context>, handle: Arc<Handle>) -> Self {
        Self {
            context,
            handle,
            watches: Vec::new(),
        }
    }

    fn router(&self) -> Arc<Router> {
        self.handle.account().router.clone()
    }

    /// Runs one line and writes its answer.
    pub async fn run(&mut self, line: PlainLine, publisher: &mut Publisher) {
        let outcome = self.dispatch(&line, publisher).await;
        let own = publisher.own();
        match outcome {
            Ok(text) if text.is_empty() => own.extend_from_slice(encode::OK),
            Ok(text) => own.extend_from_slice(format!("+OK {text}\r\n").as_bytes()),
            Err(text) => encode::error(own, &text.replace('\'', "`")),
        }
    }

    async fn dispatch(&mut self, line: &PlainLine, publisher: &mut Publisher) -> Outcome {
        let arguments = line.arguments.as_str();
        match line.verb {
            Verb::Help => help(arguments, publisher.own()),
            Verb::Say => self.say(arguments, publisher).await,
            Verb::Ask => self.ask(arguments, publisher).await,
            Verb::Watch => self.watch(arguments),
            Verb::Unwatch => self.unwatch(arguments),
            _ => streams::run(&self.router(), line, publisher).await,
        }
    }

    /// Publishes; when a stream takes the subject, the answer waits until it holds the message durably.
    async fn say(&self, arguments: &str, publisher: &mut Publisher) -> Outcome {
        let (to, text) = subject_and_text(Verb::Say, arguments)?;
        self.check_size(text)?;
        let to = &self.name_of(to, publisher)?;
        if !publisher.may_publish(to.as_bytes()) {
            return Err(denied(to));
        }
        if streams::takes(&self.router(), publisher, to).await {
            return match request(&self.router(), publisher, to, text.as_bytes(), ASK_TIMEOUT).await {
                Ok(answer) => streams::acknowledged(&answer),
                Err(_) => Err(format!(
                    "no acknowledgement within {} s: the message may or may not be stored",
                    5
                )),
            };
        }
        let message = Message {
            subject: to.as_bytes(),
            payload: text.as_bytes(),
            ..Message::default()
        };
        publisher.publish(&message, None);
        Ok(String::new())
    }

    /// What its account's mappings make of a subject that is published to.
    fn name_of(&self, to: &str, publisher: &mut Publisher) -> Result<String, String> {
        if is_reserved_subject(to.as_bytes()) {
            return Err(denied(to));
        }
        let mapped = self.handle.account().mappings();
        let mapped = mapped.map(|mappings| mappings.map(to.as_bytes(), || publisher.random()));
        match mapped {
            None | Some(Mapped::Kept) => Ok(to.to_owned()),
            Some(Mapped::To(to)) => Ok(String::from_utf8_lossy(&to).into_owned()),
            Some(Mapped::Dropped) => Err(format!("the mappings of this account drop what is said on {to}")),
        }
    }

    fn check_size(&self, text: &str) -> Result<(), String> {
        let max = self.handle.payload_max(&self.context.options());
        if text.len() > max {
            Err(format!("text of {} bytes, at most {max} are taken", text.len()))
        } else {
            Ok(())
        }
    }

    async fn ask(&self, arguments: &str, publisher: &mut Publisher) -> Outcome {
        let (to, text) = subject_and_text(Verb::Ask, arguments)?;
        self.check_size(text)?;
        let to = &self.name_of(to, publisher)?;
        match request(&self.router(), publisher, to, text.as_bytes(), ASK_TIMEOUT).await {
            Ok(answer) => {
                let text = printable(&answer.payload);
                publisher
                    .own()
                    .extend_from_slice(format!("{text}\r\n").as_bytes());
                Ok(String::new())
            }
            Err(NoAnswer::Denied) => Err(denied(to)),
            Err(NoAnswer::NobodyListens) => Err(format!("nobody listens on {to}")),
            Err(NoAnswer::TimedOut) => Err(format!("no answer from {to} within {} s", ASK_TIMEOUT.as_secs())),
        }
    }

    fn watch(&mut self, arguments: &str) -> Outcome {
        if !subject::is_pattern(arguments.as_bytes()) {
            return Err(expected(Verb::Watch, arguments));
        }
        if self.watches.iter().any(|watch| watch.pattern == arguments) {
            return Ok(format!("watching {arguments} already"));
        }
        if !self.handle.may_subscribe(arguments.as_bytes(), None) {
            return Err(format!(
                "Permissions Violation for Subscription to \"{arguments}\""
            ));
        }
        let count = self.watches.len() + self.handle.client.subscription_count();
        let max = self.handle.subscriptions_max(&self.context.options());
        if max.is_some_and(|max| count >= max) {
            return Err("maximum subscriptions exceeded".to_owned());
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err(format!(
                "{WATCHES_MAX} subjects are watched already, UNWATCH some first"
            ));
        }
        let service: Arc<dyn Service> = Arc::new(Printer {
            handle: self.handle.clone(),
            pattern: arguments.to_owned(),
        });
        let subscription = self
            .router()
            .subscribe_service_as_client(&service, arguments.as_bytes());
        self.watches.push(Watch {
            pattern: arguments.to_owned(),
            subscription,
        });
        Ok(format!("watching {arguments}"))
    }

    fn unwatch(&mut self, arguments: &str) -> Outcome {
        let all = arguments.is_empty();
        let (ended, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.watches)
            .into_iter()
            .partition(|watch| all || watch.pattern == arguments);
        self.watches = kept;
        for watch in &ended {
            self.router().remove(&watch.subscription);
        }
        if ended.is_empty() && !all {
            return Err(format!("{arguments} is not watched"));
        }
        Ok(format!("{} ended", ended.len()))
    }
}

/// Prints what comes on a watched subject as `subject: text` lines.
struct Printer {
    handle: Arc<Handle>,
    pattern: String,
}

impl Printer {
    fn client(&self) -> &Client {
        &self.handle.client
    }
}

impl Service for Printer {
    fn accept(&self, batch: Batch) {
        // A reload may have taken back what was permitted.
        if !self.handle.may_subscribe(self.pattern.as_bytes(), None) {
            return;
        }
        let mut wire = WireBuf::default();
        for message in batch
            .iter()
            .filter(|message| !self.client().leaves_out(message.subject, None))
        {
            let line = format!(
                "{}: {}\r\n",
                printable(message.subject),
                printable(message.payload)
            );
            wire.flat().extend_from_slice(line.as_bytes());
        }
        self.client().outbox.flush(&mut wire);
    }

    fn congested(&self) -> bool {
        self.client().outbox.pending() > OUTBOX_WATERMARK
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.client().outbox.relief(false))
    }
}

/// What NATS says to one who may not publish.
fn denied(to: &str) -> String {
    format!("Permissions Violation for Publish to \"{to}\"")
}

fn help(arguments: &str, out: &mut Vec<u8>) -> Outcome {
    if arguments.is_empty() {
        for verb in Verb::all() {
            out.extend_from_slice(format!("{:<58} {}\r\n", verb.usage(), verb.about()).as_bytes());
        }
        out.extend_from_slice(b"and the NATS protocol: CONNECT PUB HPUB SUB UNSUB PING\r\n");
        return Ok(String::new());
    }
    let verb = Verb::named(arguments.as_bytes())
        .ok_or_else(|| format!("no verb {}, HELP lists them", printable(arguments.as_bytes())))?;
    out.extend_from_slice(format!("{} - {}\r\n", verb.usage(), verb.about()).as_bytes());
    Ok(String::new())
}

/// What to answer when arguments cannot be read.
fn expected(verb: Verb, got: &str) -> String {
    let mut text = format!("expected {}", verb.usage());
    if !got.is_empty() {
        write!(text, ", got {}", printable(got.as_bytes())).expect("writing to a string");
    }
    text
}

/// Splits off a subject that can be published to; what follows one blank is the text.
fn subject_and_text(verb: Verb, arguments: &str) -> Result<(&str, &str), String> {
    let (to, text) = arguments.split_once([' ', '\t']).unwrap_or((arguments, ""));
    if subject::is_subject(to.as_bytes()) {
        Ok((to, text))
    } else {
        Err(expected(verb, arguments))
    }
}

/// Bytes as one line of text: control characters escaped, what is no UTF-8 replaced.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains(char::is_control) {
        return text.into_owned();
    }
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_whatever_comes() {
        assert_eq!(printable(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(printable(b"a\nb\x1b[31m\xff"), "a\\nb\\u{1b}[31m\u{fffd}");
    }

    #[test]
    fn splits_subject_and_text() {
        assert_eq!(
            subject_and_text(Verb::Say, "a.b hello  there"),
            Ok(("a.b", "hello  there"))
        );
        assert_eq!(subject_and_text(Verb::Say, "a.b"), Ok(("a.b", "")));
        let error = subject_and_text(Verb::Say, "a.* x").unwrap_err();
        assert_eq!(error, "expected SAY <subject> <text>, got a.* x");
        assert!(subject_and_text(Verb::Say, "").is_err());
    }
}
