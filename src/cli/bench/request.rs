//! Request-reply with one request in flight: what a lone caller waits.

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

/// Sends `count` requests of `size` bytes, each after the answer to the one before, to a responder on
/// a connection of its own. `around` is called right before the first measured request and after the last.
pub fn run(target: &Target, count: u64, size: usize, mut around: impl FnMut()) -> io::Result<Latencies> {
    let subject = format!("bench.{}", &nuid::next()[16..]);
    let inbox = format!("_INBOX.{}", nuid::next());
    let mut responder = Conn::open(target, 0)?;
    responder.send(format!("SUB {subject} 1\r\n").as_bytes())?;
    responder.flush()?;
    let mut requester = Conn::open(target, usize::MAX)?;
    requester.send(format!("SUB {inbox} 1\r\n").as_bytes())?;
    requester.flush()?;
    let mut request = format!("PUB {subject} {inbox} {size}\r\n").into_bytes();
    request.resize(request.len() + size, b'x');
    request.extend_from_slice(b"\r\n");
    let body = vec![b'x'; size];

    let socket = responder.stream.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(move || respond(responder, &body));
        let measured = measure(&mut requester, &request, count, size, &mut around);
        socket.shutdown(Shutdown::Both).ok();
        measured
    })
}

fn measure(
    conn: &mut Conn,
    request: &[u8],
    count: u64,
    size: usize,
    around: &mut impl FnMut(),
) -> io::Result<Latencies> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(io::Error::other)?;
    for _ in 0..count / 10 {
        exchange(conn, request, size)?;
    }
    around();
    let start = Instant::now();
    let mut before = start;
    for _ in 0..count {
        exchange(conn, request, size)?;
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

fn exchange(conn: &mut Conn, request: &[u8], expected: usize) -> io::Result<()> {
    conn.send(request)?;
    let mut answers = 0;
    while answers == 0 {
        conn.receive(|frame| match frame {
            Frame::Message { size, line, .. } if size != expected => Err(io::Error::other(format!(
                "not the answer that was sent: {}",
                String::from_utf8_lossy(line)
            ))),
            Frame::Message { .. } => {
                answers += 1;
                Ok(())
            }
            Frame::Control(_) => Ok(()),
        })?;
    }
    if answers > 1 {
        return Err(io::Error::other("more than one answer came"));
    }
    Ok(())
}

/// Answers until the socket is shut down.
fn respond(mut conn: Conn, body: &[u8]) {
    let mut replies = Vec::new();
    loop {
        replies.clear();
        let read = conn.receive(|frame| {
            if let Frame::Message { line, .. } = frame
                && let Some(reply) = line.split(|&byte| byte == b' ').nth(3)
            {
                replies.extend_from_slice(b"PUB ");
                replies.extend_from_slice(reply);
                replies.extend_from_slice(format!(" {}\r\n", body.len()).as_bytes());
                replies.extend_from_slice(body);
                replies.extend_from_slice(b"\r\n");
            }
            Ok(())
        });
        // The requester reports what is missing; here there is nobody to tell.
        if read.is_err() || conn.send(&replies).is_err() {
            return;
        }
    }
}
