//! The reading task of a connection: bytes in, operations run, keepalive, and the end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::protocol::encode;
use crate::router::{About, Client, Closed, WireBuf};

use super::handle::Handle;
use super::reason::Reason;
use super::session::{Pause, Session};
use super::transport::{ReadHalf, Transport};
use super::{Context, cause, tls, writer};

/// Bytes of a line end.
pub(super) const LINE_END: usize = 2;
/// Read buffers start small and grow while they come back full.
const READ_MIN: usize = 4 << 10;
pub(super) const READ_MAX: usize = 128 << 10;
/// A connection silent for this long gives its buffers back.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// Serves one client until it goes or is sent away.
pub async fn serve(transport: Transport, context: Arc<Context>) {
    let options = context.options();
    let client = Client::new(context.registry.next_id(), options.pending_max);
    let (ip, port) = transport.peer();
    let handle = Arc::new(Handle::new(client.clone(), ip, port, &context));
    client.set_about(Arc::downgrade(&(handle.clone() as Arc<dyn About>)));
    let admitted = context.registry.add(&handle, options.connections_max);
    let mut session = Session::new(context.clone(), handle.clone());
    let secured = match context.tls().filter(|_| admitted) {
        // On the heap: a connection in clear has no room for a handshake.
        Some(tls) => Box::pin(tls::secure(transport, &tls, &mut session)).await,
        None => {
            session.greet();
            Ok(transport)
        }
    };
    let transport = match secured {
        Ok(transport) => transport,
        Err(reason) => {
            drop(session);
            return end(&context, &handle, reason);
        }
    };
    let (read, write) = transport.split();
    let writing = tokio::spawn(writer::run(handle.clone(), write, options.write_deadline));
    let reason = if admitted {
        session.admit_unasked();
        tracing::debug!("{} - client connection created", session.label());
        // A panic ends this connection alone, and leaves nothing of it behind.
        let reading = AssertUnwindSafe(Reader::new(read, &mut session).run());
        reading.catch_unwind().await.unwrap_or_else(|panic| {
            handle.note(cause::panic_text(&*panic));
            Reason::InternalError
        })
    } else {
        handle.note(format!("there are {} already", options.connections_max));
        session.refuse(Reason::ConnectionsExceeded);
        Reason::ConnectionsExceeded
    };
    drop(session);
    let reason = handle.reason().unwrap_or(reason);
    handle.account().router.remove_client(&client);
    handle.leave();
    client.outbox.close(Closed::Done);
    // The writer drains what the client is still owed, bounded by the write deadline.
    writing.await.ok();
    end(&context, &handle, reason);
}

fn end(context: &Context, handle: &Arc<Handle>, reason: Reason) {
    context.registry.remove(handle, reason);
    if matches!(reason, Reason::SlowConsumerPending | Reason::SlowConsumerDeadline) {
        handle.account().count_slow_consumer();
    }
    context.endings.log(handle, reason);
    context.events.ended(handle, reason);
}

struct Reader<'a> {
    socket: ReadHalf,
    session: &'a mut Session,
    buffer: BytesMut,
    chunk: usize,
    /// When the next look at the clock is due.
    wake: std::pin::Pin<Box<tokio::time::Sleep>>,
    next_ping: Instant,
    pings_out: u32,
    ping_sent: Option<Instant>,
    /// Whether a PING was ever sent.
    pinged: bool,
    /// Whether bytes came since the last look at the clock, and since the last PING.
    active: bool,
    heard: bool,
    began: Instant,
}

impl<'a> Reader<'a> {
    fn new(socket: ReadHalf, session: &'a mut Session) -> Self {
        let now = Instant::now();
        let options = session.options();
        // The first PING comes early, to learn the round trip; jitter spreads a fleet that reconnects.
        let first = options.ping_interval.min(Duration::from_secs(2));
        let jitter = first.mul_f64(session.jitter() * 0.2);
        let next_ping = now + first + jitter;
        let first_wake = next_ping.min(now + IDLE_AFTER).min(now + options.auth_timeout);
        Self {
            socket,
            session,
            buffer: BytesMut::new(),
            chunk: READ_MIN,
            wake: Box::pin(tokio::time::sleep_until(first_wake)),
            next_ping,
            pings_out: 0,
            ping_sent: None,
            pinged: false,
            active: false,
            heard: false,
            began: now,
        }
    }

    async fn run(mut self) -> Reason {
        let handle = self.session.handle();
        loop {
            let outcome = tokio::select! {
                biased;
                reason = handle.stopped() => Err(reason),
                read = read(&mut self.socket, &mut self.buffer, self.chunk, self.session.wants()) => match read {
                    Ok(0) => Err(Reason::ClientClosed),
                    Ok(count) => self.received(count).await,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(Reason::ClientClosed),
                    Err(error) => {
                        handle.note(error.to_string());
                        Err(Reason::ReadError)
                    }
                },
                () = &mut self.wake => self.look_at_clock(),
            };
            if let Err(reason) = outcome {
                self.session.refuse(reason);
                return reason;
            }
        }
    }

    async fn received(&mut self, count: usize) -> Result<(), Reason> {
        self.active = true;
        self.heard = true;
        let release_at = Instant::now() + IDLE_AFTER;
        if self.wake.deadline() > release_at {
            self.wake.as_mut().reset(release_at);
        }
        if count == self.chunk && self.chunk < READ_MAX {
            self.chunk *= 2;
        }
        let handle = self.session.handle();
        loop {
            let outcome = self.session.process(&mut self.buffer);
            if self.session.take_pong() {
                self.pings_out = 0;
                if let Some(sent) = self.ping_sent.take() {
                    self.session.handle().set_rtt(sent.elapsed());
                }
            }
            self.session.settle().await;
            match outcome? {
                // It may take its time: what came behind it waits in the buffer, an end from elsewhere does not.
                Pause::Plain(line) => tokio::select! {
                    biased;
                    reason = handle.stopped() => return Err(reason),
                    () = self.session.run_plain(line) => {}
                },
                Pause::Left => tokio::select! {
                    biased;
                    reason = handle.stopped() => return Err(reason),
                    () = self.session.take_leave() => {}
                },
                // The time it has to show its credentials runs on.
                Pause::Verify(pending) => {
                    let patience = self.session.options().auth_timeout;
                    let since = if self.session.awaits_credentials() {
                        self.began
                    } else {
                        Instant::now()
                    };
                    let verified = tokio::select! {
                        biased;
                        reason = handle.stopped() => return Err(reason),
                        verified = tokio::time::timeout_at(since + patience, self.session.verify(*pending)) => verified,
                    };
                    verified.unwrap_or(Err(Reason::AuthenticationTimeout))?;
                }
                // Many lines can each mean many deliveries: others get their turn, and an end is seen.
                Pause::Turn => {
                    tokio::task::yield_now().await;
                    if let Some(reason) = handle.reason() {
                        return Err(reason);
                    }
                }
                Pause::Drained => return Ok(()),
            }
        }
    }

    fn look_at_clock(&mut self) -> Result<(), Reason> {
        let now = Instant::now();
        let options = self.session.options();
        let (interval, pings_max, auth_timeout) =
            (options.ping_interval, options.pings_out_max, options.auth_timeout);
        if self.session.awaits_credentials() && now >= self.began + auth_timeout {
            let handle = self.session.handle();
            handle.note(format!("no credentials within {auth_timeout:?}"));
            return Err(Reason::AuthenticationTimeout);
        }
        if now >= self.next_ping {
            self.keep_alive(now, interval, pings_max)?;
        }
        if std::mem::take(&mut self.active) {
            self.session.handle().touch();
        } else {
            self.chunk = READ_MIN;
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            self.session.release();
        }
        let mut wake = self.next_ping;
        if self.buffer.capacity() > 0 {
            wake = wake.min(now + IDLE_AFTER);
        }
        if self.session.awaits_credentials() {
            wake = wake.min(self.began + auth_timeout);
        }
        self.wake.as_mut().reset(wake);
        Ok(())
    }
}

impl Reader<'_> {
    /// Asks a silent client for a sign of life. Any bytes are one; the first PING is sent all the same, to learn the
    /// round trip.
    fn keep_alive(&mut self, now: Instant, interval: Duration, out_max: u32) -> Result<(), Reason> {
        self.next_ping = now + interval;
        if std::mem::take(&mut self.heard) && self.pinged {
            self.pings_out = 0;
            return Ok(());
        }
        if self.pings_out >= out_max {
            let handle = self.session.handle();
            handle.note(format!("{out_max} PINGs without an answer, {interval:?} apart"));
            return Err(Reason::StaleConnection);
        }
        self.pings_out += 1;
        self.pinged = true;
        self.ping_sent = Some(now);
        let mut ping = WireBuf::default();
        ping.flat().extend_from_slice(encode::PING);
        self.session.handle().client.outbox.flush(&mut ping);
        Ok(())
    }
}

/// Reads once. Without a buffer in hand it first waits for bytes, so that an idle connection holds none. A large message, of
/// which the buffer must have `wants` bytes, is read to its end and no further: its payload may be kept by those who are to
/// get it, and keeps nothing else then.
async fn read(
    socket: &mut ReadHalf,
    buffer: &mut BytesMut,
    chunk: usize,
    wants: usize,
) -> std::io::Result<usize> {
    if wants > READ_MAX {
        let missing = wants.saturating_sub(buffer.len()) + LINE_END;
        buffer.reserve(missing);
        return socket.read(buffer, missing).await;
    }
    if buffer.capacity() == 0 {
        socket.ready().await?;
    }
    if buffer.capacity() - buffer.len() < chunk / 2 {
        buffer.reserve(chunk);
    }
    socket.read(buffer, usize::MAX).await
}
