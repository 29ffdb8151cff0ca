//! What a client asks for and what it is answered: the operations of the protocol on one connection.
//!
//! No IO here: bytes come in as a buffer, answers and deliveries leave through the publisher. Who comes in, and what it
//! may do, is in `admission`.

mod admission;
mod publish;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, BytesMut};

use crate::account::{Account, Mappings};
use crate::protocol::connect::Connect;
use crate::protocol::encode::{self, Message};
use crate::protocol::grammar::{self, ClientOp, LineError};
use crate::protocol::plain;
use crate::router::{Publisher, Router};

use super::gate::Gate;
use super::handle::Handle;
use super::plain::Plain;
use super::publish_line::PublishLine;
use super::reader::{LINE_END, READ_MAX};
use super::reason::Reason;
use super::{Context, Options, cause, tls};

pub(super) use admission::Pending;

/// Payloads from this size on travel by reference instead of being copied for each receiver.
const SHARE_MIN: usize = 8 << 10;
/// The longest verb with its blank: what a control line may have beyond its arguments.
const VERB_MAX: usize = 16;

/// A verb for people with its argument text, to be run once what came before it is handed over.
pub(super) struct PlainLine {
    pub verb: plain::Verb,
    pub arguments: String,
}

/// Why [`Session::process`] has come back.
pub(super) enum Pause {
    /// Every whole operation has been run.
    Drained,
    /// A verb for people is to be run first.
    Plain(PlainLine),
    /// The credentials of a CONNECT are to be compared first, which takes its time.
    Verify(Box<Pending>),
    /// Much has been delivered already: others have their turn, and destinations that are behind are waited for.
    Turn,
    /// A PING after a queue group was left: it is answered when what others had in hand for it has arrived.
    Left,
}

/// What the parser of a buffer has found at its front.
enum Found {
    /// Not a whole operation yet: look again when this many bytes are there.
    Incomplete(usize),
    /// A control line of this many bytes, line end included; without it, it ends at `end`.
    Line { length: usize, end: usize },
}

/// See the module documentation.
pub(super) struct Session {
    context: Arc<Context>,
    handle: Arc<Handle>,
    /// The settings as of `epoch`; a reload makes new ones.
    options: Arc<Options>,
    epoch: u64,
    /// What is asked before a publish or a subscription; nothing, for most.
    gate: Option<Box<Gate>>,
    /// Where its messages go, and the rules there as of `epoch`.
    account: Arc<Account>,
    /// What messages are renamed to there; nothing, for most.
    mappings: Option<Arc<Mappings>>,
    /// Bytes of a message, and subscriptions where they are limited: the least of what server, account and user allow.
    payload_max: usize,
    subscriptions_max: Option<usize>,
    /// Why it was not let in as who shows nothing, should it show nothing.
    unwelcome: Option<Reason>,
    publisher: Publisher,
    plain: Option<Box<Plain>>,
    connect: Arc<Connect>,
    authorised: bool,
    connected: bool,
    greeted: bool,
    pong: bool,
    /// Whether a queue group was left since the last PING.
    left_group: bool,
    /// Bytes at the front of the buffer that hold no line end.
    scanned: usize,
    /// Bytes the buffer must hold before it is worth looking again.
    need: usize,
    repeat: PublishLine,
    in_msgs: u64,
    in_bytes: u64,
}

impl Session {
    pub fn new(context: Arc<Context>, handle: Arc<Handle>) -> Self {
        let epoch = context.epoch();
        let (account, options) = (handle.account(), context.options());
        Self {
            publisher: Publisher::of_client(account.router.clone(), handle.client.clone()),
            payload_max: handle.payload_max(&options),
            subscriptions_max: handle.subscriptions_max(&options),
            options,
            epoch,
            mappings: account.mappings(),
            account,
            unwelcome: None,
            gate: None,
            authorised: false,
            context,
            handle,
            plain: None,
            connect: Arc::default(),
            connected: false,
            greeted: false,
            pong: false,
            left_group: false,
            scanned: 0,
            need: 1,
            repeat: PublishLine::default(),
            in_msgs: 0,
            in_bytes: 0,
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }

    /// A number in 0..1 that differs between connections.
    pub fn jitter(&self) -> f64 {
        (self.handle.id().wrapping_mul(0x9e37_79b9) % 1000) as f64 / 1000.0
    }

    /// How the log names this connection.
    pub fn label(&self) -> String {
        format!(
            "{}:{} - cid:{}",
            self.handle.ip,
            self.handle.port,
            self.handle.id()
        )
    }

    pub fn awaits_credentials(&self) -> bool {
        !self.authorised
    }

    /// Something else than a CONNECT from a client that is not in.
    fn too_early(&self, line: &[u8]) -> Reason {
        match self.unwelcome {
            // The cause was noted then.
            Some(reason) => reason,
            None => self.fatal(Reason::AuthenticationFailure, || cause::too_early(line)),
        }
    }

    /// Bytes that must be in the buffer before anything can be made of it.
    pub fn wants(&self) -> usize {
        self.need
    }

    /// Whether a PONG came since last asked.
    pub fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.pong)
    }

    /// Sends the first INFO.
    pub fn greet(&mut self) {
        let line = self.greeting();
        self.publisher.own().extend_from_slice(&line);
        self.publisher.flush();
    }

    /// The first INFO, for who sends it before there is a writer.
    pub fn greeting(&mut self) -> Vec<u8> {
        if self.context.accounts.auth().has_nkeys() {
            self.handle.set_nonce(nonce());
        }
        self.info(false)
    }

    fn info(&self, connect_info: bool) -> Vec<u8> {
        let mut info = self.context.info.clone();
        info.client_id = self.handle.id();
        info.client_ip.clone_from(&self.handle.ip);
        let auth = self.context.accounts.auth();
        info.auth_required = auth.is_required();
        info.max_payload = self.payload_max;
        tls::advertise(&mut info, self.context.tls().as_deref(), &self.handle);
        if auth.has_nkeys() {
            info.nonce = self.handle.nonce().unwrap_or_default().to_owned();
        }
        if connect_info {
            info.connect_info = true;
            info.remote_account = self.account.name().to_string();
            info.acc_is_sys = Arc::ptr_eq(&self.account, &self.context.accounts.system());
        }
        info.line()
    }

    /// Tells the client why it is sent away, where NATS does.
    pub fn refuse(&mut self, reason: Reason) {
        if let Some(text) = reason.error_text() {
            encode::error(self.publisher.own(), text);
        }
        self.publisher.flush();
    }

    /// Tells the client of an error that does not end the connection.
    fn error(&mut self, text: &str) {
        tracing::debug!("{} - told: {text}", self.label());
        encode::error(self.publisher.own(), text);
    }

    /// Hands over what this batch has published, then waits for congested destinations, for a bounded time.
    pub async fn settle(&mut self) {
        self.publisher.flush();
        self.count_in();
        if self.publisher.is_congested() {
            self.publisher.relieve().await;
        }
    }

    /// Adds what has come since the last time to what others see.
    fn count_in(&mut self) {
        if self.in_msgs > 0 {
            let counters = &self.handle.client.counters;
            counters
                .in_msgs
                .fetch_add(std::mem::take(&mut self.in_msgs), Ordering::Relaxed);
            counters
                .in_bytes
                .fetch_add(std::mem::take(&mut self.in_bytes), Ordering::Relaxed);
        }
    }

    /// Gives memory back; for a connection that has fallen idle.
    pub fn release(&mut self) {
        self.repeat = PublishLine::default();
        self.publisher.release();
    }

    /// Runs every whole operation in `buffer`; stops early at a verb for people, which may take its time, and when much
    /// has been delivered.
    pub fn process(&mut self, buffer: &mut BytesMut) -> Result<Pause, Reason> {
        if self.context.epoch() != self.epoch {
            self.reload();
        }
        let mut at = 0;
        let outcome = loop {
            if buffer.len() - at < self.need {
                break Ok(Pause::Drained);
            }
            match self.step(buffer, &mut at) {
                Ok(Step::Done) => {
                    self.scanned = 0;
                    self.need = 1;
                    if self.publisher.has_had_its_turn() {
                        break Ok(Pause::Turn);
                    }
                }
                Ok(Step::Incomplete(need)) => {
                    self.need = need;
                    break Ok(Pause::Drained);
                }
                Ok(Step::Pause(pause)) => {
                    self.scanned = 0;
                    self.need = 1;
                    break Ok(pause);
                }
                Err(reason) => break Err(reason),
            }
        };
        buffer.advance(at);
        if self.need > buffer.len() {
            // The size was checked against max_payload, so this is bounded.
            buffer.reserve(self.need - buffer.len() + LINE_END);
        }
        outcome
    }

    /// Runs one operation at `at`.
    fn step(&mut self, buffer: &mut BytesMut, at: &mut usize) -> Result<Step, Reason> {
        if self.repeat.stands_at(&buffer[*at..]) && !self.options.trace {
            return self.publish_at(buffer, at);
        }
        let (length, end) = match self.find_line(&buffer[*at..])? {
            Found::Incomplete(need) => return Ok(Step::Incomplete(need)),
            Found::Line { length, end } => (length, end),
        };
        let whole = &buffer[*at..*at + length];
        let line = &whole[..end];
        let operation = match grammar::control_line(line) {
            Ok(operation) => operation,
            Err(error) => return Err(self.line_error(line, error)),
        };
        if !self.authorised && !matches!(operation, ClientOp::Connect(_)) {
            return Err(self.too_early(line));
        }
        if self.options.trace {
            self.trace(&operation, line);
        }
        let ClientOp::Publish {
            subject,
            reply,
            headers,
            total,
        } = operation
        else {
            let step = self.control(operation)?;
            *at += length;
            return Ok(step);
        };
        self.check_publish(headers.is_some(), total)?;
        self.repeat
            .remember(whole, subject, reply, headers.unwrap_or_default(), total);
        self.publish_at(buffer, at)
    }

    /// Publishes the message at `at`, whose control line is the one remembered.
    fn publish_at(&mut self, buffer: &mut BytesMut, at: &mut usize) -> Result<Step, Reason> {
        let PublishLine {
            subject,
            reply,
            headers,
            total,
            ..
        } = self.repeat.spans();
        let body = *at + self.repeat.line.len();
        let found = body_end(&buffer[body..], total);
        let wrong = |reason| {
            let why = || format!("a payload that does not end after the {total} bytes it was said to have");
            self.fatal(reason, why)
        };
        let Some(line_end) = found.map_err(wrong)? else {
            // One byte of line end may do; a CR that is there already wants its LF.
            let have = buffer.len() - *at;
            return Ok(Step::Incomplete(
                (self.repeat.line.len() + total + 1).max(have + 1),
            ));
        };
        let after = body + total + line_end;
        let (start, payload) = (*at, body + headers..body + total);
        if payload.len() >= SHARE_MIN {
            let frame = buffer.split_to(after).freeze();
            *at = 0;
            if after > READ_MAX {
                // What comes next is not read into the room behind it, to be kept with it or to keep it.
                *buffer = BytesMut::from(&buffer[..]);
            }
            let message = Message {
                subject: &frame[start + subject.start..start + subject.end],
                reply: &frame[start + reply.start..start + reply.end],
                headers: &frame[body..body + headers],
                payload: &frame[payload.clone()],
            };
            self.publish(&message, Some(&frame.slice(payload)));
        } else {
            let message = Message {
                subject: &buffer[start + subject.start..start + subject.end],
                reply: &buffer[start + reply.start..start + reply.end],
                headers: &buffer[body..body + headers],
                payload: &buffer[payload],
            };
            self.publish(&message, None);
            *at = after;
        }
        Ok(Step::Done)
    }

    /// Whether a publish may go on to its payload.
    fn check_publish(&self, has_headers: bool, total: usize) -> Result<(), Reason> {
        if has_headers && !self.connect.headers {
            let why = || "a message with headers from a client whose CONNECT does not know them".to_owned();
            return Err(self.fatal(Reason::ProtocolViolation, why));
        }
        let max = self.payload_max;
        if total > max {
            let why = || format!("a message of {total} bytes, at most {max} are allowed");
            return Err(self.fatal(Reason::PayloadExceeded, why));
        }
        Ok(())
    }

    /// Logs an operation; what a CONNECT may hold of secrets is not for a log.
    #[cold]
    fn trace(&self, operation: &ClientOp<'_>, line: &[u8]) {
        let shown = match operation {
            ClientOp::Connect(_) => &b"CONNECT {...}"[..],
            _ => line,
        };
        tracing::trace!("{} - <<- [{}]", self.label(), shown.escape_ascii());
    }

    /// Finds the line at the front of `data`, without looking twice at the same bytes. What comes out does not depend on
    /// how the bytes were split: a line is bounded as a whole, and its arguments besides.
    fn find_line(&mut self, data: &[u8]) -> Result<Found, Reason> {
        let max = self.options.control_line_max;
        let from = self.scanned.min(data.len());
        let Some(found) = memchr::memchr(b'\n', &data[from..]) else {
            self.scanned = data.len();
            let line = data.strip_suffix(b"\r").unwrap_or(data);
            if !grammar::may_begin(line) {
                return Err(self.line_error(data, LineError::UnknownOperation));
            }
            if line.len() > max + VERB_MAX {
                return Err(self.too_long(line));
            }
            return Ok(Found::Incomplete(data.len() + 1));
        };
        let newline = from + found;
        // Remembered for the case that the payload behind the line is not all there yet.
        self.scanned = newline;
        let end = if newline > 0 && data[newline - 1] == b'\r' {
            newline - 1
        } else {
            newline
        };
        if end > max {
            self.check_length(&data[..end])?;
        }
        Ok(Found::Line {
            length: newline + 1,
            end,
        })
    }

    #[cold]
    fn check_length(&self, line: &[u8]) -> Result<(), Reason> {
        if !grammar::may_begin(line) {
            return Err(self.line_error(line, LineError::UnknownOperation));
        }
        let max = self.options.control_line_max;
        let verb = line.iter().position(|byte| b" \t".contains(byte));
        let arguments = verb.map_or(&[][..], |verb| line[verb..].trim_ascii_start());
        if line.len() > max + VERB_MAX || arguments.len() > max {
            return Err(self.too_long(line));
        }
        Ok(())
    }

    /// A line over the limit; one that is not allowed at all comes first.
    fn too_long(&self, line: &[u8]) -> Reason {
        if self.authorised
            || line
                .first()
                .is_some_and(|first| first.eq_ignore_ascii_case(&b'C'))
        {
            let max = self.options.control_line_max;
            self.fatal(Reason::ControlLineExceeded, || {
                format!("more than {max} bytes in [{}]", cause::shown(line))
            })
        } else {
            self.fatal(Reason::AuthenticationFailure, || cause::too_early(line))
        }
    }

    /// Notes what lies behind an end.
    #[cold]
    pub(super) fn fatal(&self, reason: Reason, why: impl FnOnce() -> String) -> Reason {
        self.handle.note(why());
        reason
    }

    fn line_error(&self, line: &[u8], error: LineError) -> Reason {
        if !self.authorised {
            return self.fatal(Reason::AuthenticationFailure, || cause::too_early(line));
        }
        let (reason, what) = match error {
            LineError::UnknownOperation => (Reason::ParseError, "no such operation"),
            LineError::Arguments => (Reason::ProtocolViolation, "arguments that cannot be"),
        };
        self.fatal(reason, || format!("{what} in [{}]", cause::shown(line)))
    }

    /// Every operation but a publish.
    fn control(&mut self, operation: ClientOp<'_>) -> Result<Step, Reason> {
        match operation {
            ClientOp::Subscribe { pattern, queue, sid } => self.subscribe(pattern, queue, sid),
            ClientOp::Unsubscribe { sid, max } => {
                // The limit counts what was delivered before it, in this batch too.
                self.publisher.settle();
                self.left_group |= self.router().unsubscribe(&self.handle.client, sid, max);
                self.acknowledge();
            }
            ClientOp::Ping if std::mem::take(&mut self.left_group) => return Ok(Step::Pause(Pause::Left)),
            ClientOp::Ping => self.answer_ping(),
            ClientOp::Pong => self.pong = true,
            ClientOp::Connect(json) => {
                if let Some(pending) = self.connect(json)? {
                    return Ok(Step::Pause(Pause::Verify(Box::new(pending))));
                }
            }
            ClientOp::Plain(verb, arguments) => {
                let arguments = String::from_utf8_lossy(arguments).into_owned();
                return Ok(Step::Pause(Pause::Plain(PlainLine { verb, arguments })));
            }
            ClientOp::Ignored | ClientOp::Publish { .. } => {}
        }
        Ok(Step::Done)
    }

    fn answer_ping(&mut self) {
        self.publisher.own().extend_from_slice(encode::PONG);
        if self.connected && self.connect.protocol >= 1 && !std::mem::replace(&mut self.greeted, true) {
            let info = self.info(true);
            self.publisher.own().extend_from_slice(&info);
        }
    }

    /// Answers a PING when nobody has anything in hand any more for a group that was left.
    pub async fn take_leave(&mut self) {
        self.router().settled().await;
        self.answer_ping();
    }

    fn router(&self) -> &Router {
        &self.account.router
    }

    fn acknowledge(&mut self) {
        if self.connect.verbose {
            self.publisher.own().extend_from_slice(encode::OK);
        }
    }

    /// Runs a verb for people to its end.
    pub async fn run_plain(&mut self, line: PlainLine) {
        let (context, handle) = (&self.context, &self.handle);
        let plain = self
            .plain
            .get_or_insert_with(|| Box::new(Plain::new(context.clone(), handle.clone())));
        plain.run(line, &mut self.publisher).await;
        self.settle().await;
    }
}

/// Something to sign: 11 random bytes, as text.
fn nonce() -> String {
    let mut random = [0; 11];
    getrandom::fill(&mut random).expect("the system has randomness");
    URL_SAFE_NO_PAD.encode(random)
}

/// What became of one look at the buffer.
enum Step {
    Done,
    Incomplete(usize),
    /// Something else comes first.
    Pause(Pause),
}

/// Bytes of the line end behind a payload; `None` while it is not all there.
fn body_end(rest: &[u8], total: usize) -> Result<Option<usize>, Reason> {
    match rest.get(total..) {
        None | Some([]) | Some([b'\r']) => Ok(None),
        Some([b'\r', b'\n', ..]) => Ok(Some(2)),
        Some([b'\n', ..]) => Ok(Some(1)),
        Some(_) => Err(Reason::ParseError),
    }
}

#[cfg(test)]
mod tests;
