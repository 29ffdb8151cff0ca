//! Request-reply with one request in flight: what a lone caller waits.
//!
//! Requester and responder are two connections of one thread: with one request in flight they never
//! have work at the same time, and a second thread adds its own wake-ups to every figure. That is also
//! offered, as what two separate programs see.

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::wire::{Conn, Frame, Target};

/// Latencies above this are recorded as this, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// What the requests took.
pub struct Latencies {
    pub time: Duration,
    /// Nanoseconds a request.
    pub histogram: Histogram<u64>,
}

/// Sends `count` requests of `size` bytes, each after the answer to the one before, which is as long.
/// `apart`: the responder has a thread of its own. `mark` is called right before the first measured
/// request and after the last.
pub fn run(
    target: &Target,
    count: u64,
    size: usize,
    apart: bool,
    mut mark: impl FnMut(),
) -> io::Result<Latencies> {
    let subject = format!("bench.{}", &nuid::next()[16..]);
    let inbox = format!("_INBOX.{}", nuid::next());
    let mut requester = Requester {
        conn: subscriber(target, &inbox)?,
        request: publish(&format!("{subject} {inbox}"), size),
        size,
    };
    let mut responder = Responder {
        conn: subscriber(target, &subject)?,
        size,
    };
    if !apart {
        return requester.measure(count, || responder.answer(), &mut mark);
    }
    let socket = responder.conn.stream.try_clone()?;
    thread::scope(|scope| {
        // What goes wrong here is missed by the requester, which reports it.
        scope.spawn(move || while responder.answer().is_ok() {});
        let measured = requester.measure(count, || Ok(()), &mut mark);
        socket.shutdown(Shutdown::Both).ok();
        measured
    })
}

fn subscriber(target: &Target, subject: &str) -> io::Result<Conn> {
    let mut conn = Conn::open(target, usize::MAX)?;
    conn.send(format!("SUB {subject} 1\r\n").as_bytes())?;
    conn.flush()?;
    Ok(conn)
}

struct Requester {
    conn: Conn,
    request: Vec<u8>,
    size: usize,
}

impl Requester {
    fn measure(
        &mut self,
        count: u64,
        mut answer: impl FnMut() -> io::Result<()>,
        mark: &mut impl FnMut(),
    ) -> io::Result<Latencies> {
        let mut exchange = || {
            self.conn.send(&self.request)?;
            answer()?;
            one_message(&mut self.conn, self.size, |_| {})
        };
        let mut histogram = Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(io::Error::other)?;
        for _ in 0..count / 10 {
            exchange()?;
        }
        mark();
        let start = Instant::now();
        let mut before = start;
        for _ in 0..count {
            exchange()?;
            let now = Instant::now();
            histogram.saturating_record((now - before).as_nanos() as u64);
            before = now;
        }
        mark();
        Ok(Latencies {
            time: before - start,
            histogram,
        })
    }
}

struct Responder {
    conn: Conn,
    size: usize,
}

impl Responder {
    fn answer(&mut self) -> io::Result<()> {
        let mut answer = Vec::new();
        one_message(&mut self.conn, self.size, |line| {
            let inbox = line.split(|&byte| byte == b' ').nth(3).unwrap_or_default();
            answer = publish(&String::from_utf8_lossy(inbox), self.size);
        })?;
        self.conn.send(&answer)
    }
}

fn publish(to: &str, size: usize) -> Vec<u8> {
    let mut bytes = format!("PUB {to} {size}\r\n").into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Reads until exactly one message of `size` bytes has come.
fn one_message(conn: &mut Conn, size: usize, mut on: impl FnMut(&[u8])) -> io::Result<()> {
    let mut messages = 0;
    while messages == 0 {
        conn.receive(|frame| {
            if let Frame::Message { line, size: got, .. } = frame {
                messages += 1;
                on(line);
                if got != size {
                    let line = String::from_utf8_lossy(line);
                    return Err(io::Error::other(format!("not what was sent: {line}")));
                }
            }
            Ok(())
        })?;
    }
    if messages > 1 {
        return Err(io::Error::other("more than one message came for one"));
    }
    Ok(())
}
