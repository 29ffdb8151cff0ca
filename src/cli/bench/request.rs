//! Request-reply with one request in flight: what a lone caller waits.
//!
//! Requester and responder are two connections of one thread. With one request in flight they never
//! have work at the same time, and a second thread would add its own wake-ups to every figure.

use std::io;
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
/// `around` is called right before the first measured request and after the last.
pub fn run(target: &Target, count: u64, size: usize, mut around: impl FnMut()) -> io::Result<Latencies> {
    let mut pair = Pair::open(target, size)?;
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(io::Error::other)?;
    for _ in 0..count / 10 {
        pair.exchange()?;
    }
    around();
    let start = Instant::now();
    let mut before = start;
    for _ in 0..count {
        pair.exchange()?;
        let now = Instant::now();
        histogram.saturating_record((now - before).as_nanos() as u64);
        before = now;
    }
    around();
    Ok(Latencies {
        time: before - start,
        histogram,
    })
}

struct Pair {
    requester: Conn,
    responder: Conn,
    request: Vec<u8>,
    answer: Vec<u8>,
    size: usize,
}

impl Pair {
    fn open(target: &Target, size: usize) -> io::Result<Self> {
        let subject = format!("bench.{}", &nuid::next()[16..]);
        let inbox = format!("_INBOX.{}", nuid::next());
        let subscriber = |subject: &str| {
            let mut conn = Conn::open(target, usize::MAX)?;
            conn.send(format!("SUB {subject} 1\r\n").as_bytes())?;
            conn.flush()?;
            io::Result::Ok(conn)
        };
        Ok(Self {
            requester: subscriber(&inbox)?,
            responder: subscriber(&subject)?,
            request: publish(&format!("{subject} {inbox}"), size),
            answer: Vec::new(),
            size,
        })
    }

    fn exchange(&mut self) -> io::Result<()> {
        self.requester.send(&self.request)?;
        let answer = &mut self.answer;
        answer.clear();
        one_message(&mut self.responder, self.size, |line| {
            let inbox = line.split(|&byte| byte == b' ').nth(3).unwrap_or_default();
            answer.extend_from_slice(&publish(&String::from_utf8_lossy(inbox), self.size));
        })?;
        self.responder.send(&self.answer)?;
        one_message(&mut self.requester, self.size, |_| {})
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
