//! Consumers: replay without acks, pulls with acks, a work queue.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::publish::{Acks, Publish, Refill};
use super::{Job, Stream, together};
use crate::cli::bench::block::Check;
use crate::cli::bench::wire::{Conn, Frame, SILENCE};

/// Messages a pull asks for.
const PULL_BATCH: u64 = 500;
const QUEUE_BATCH: u64 = 500;
const QUEUE_CLIENTS: u64 = 4;
/// Nanoseconds after which a pull of the queue ends by itself.
const EXPIRES: u64 = 2_000_000_000;
const DURABLE: &str = "bench";

/// Delivers all of `stream` to a push consumer without acks; from the request that creates it to the last message.
pub fn replay(stream: &mut Stream, size: usize, count: u64, mark: impl FnMut()) -> io::Result<Duration> {
    let inbox = format!("_INBOX.{}", nuid::next());
    let mut conn = Conn::open(&stream.target, size)?;
    conn.send(format!("SUB {inbox} 1\r\n").as_bytes())?;
    conn.flush()?;
    let config = json!({
        "name": DURABLE, "deliver_subject": inbox, "deliver_policy": "all", "ack_policy": "none",
        "replay_policy": "instant", "inactive_threshold": 60_000_000_000_u64,
    });
    let mut check = Check::new(1, 1, size, false);
    let receive = Box::new(move || {
        while check.count < count || !conn.settled() {
            conn.receive(|frame| check.frame(&frame))?;
        }
        Ok(Instant::now())
    });
    let create: Job<'_> = Box::new(|| stream.create_consumer(DURABLE, config).map(|()| Instant::now()));
    together(vec![receive, create], mark)
}

fn create_durable(stream: &mut Stream) -> io::Result<()> {
    let config = json!({
        "durable_name": DURABLE, "name": DURABLE, "deliver_policy": "all", "ack_policy": "explicit",
        "replay_policy": "instant", "max_ack_pending": 20_000, "ack_wait": 60_000_000_000_u64,
    });
    stream.create_consumer(DURABLE, config)
}

/// Pulls all of `stream` in batches and acknowledges each message, until the server says that all are.
pub fn pull(stream: &mut Stream, size: usize, count: u64, mut mark: impl FnMut()) -> io::Result<Duration> {
    create_durable(stream)?;
    let mut puller = Puller::open(stream, PULL_BATCH, size)?;
    let mut check = Check::new(1, 1, size, false);
    mark();
    let start = Instant::now();
    puller.ask()?;
    while check.count < count {
        puller.receive(|body| check.message(body))?;
    }
    until(|| {
        let info = stream.request(&format!("CONSUMER.INFO.{}.{DURABLE}", stream.name), &json!({}))?;
        Ok(info["ack_floor"]["stream_seq"] == count)
    })?;
    let took = start.elapsed();
    mark();
    Ok(took)
}

/// Four publishers and four pullers of a work queue, until it has been filled, delivered, acknowledged and is empty.
pub fn work_queue(stream: &mut Stream, size: usize, count: u64, mark: impl FnMut()) -> io::Result<Duration> {
    create_durable(stream)?;
    let publish = Publish {
        publishers: QUEUE_CLIENTS,
        subjects: 0,
        refill: Refill::Steady,
        size,
        count,
    };
    let acks = Mutex::new(Acks::default());
    let received = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let mut jobs = publish.jobs(stream, &acks)?;
    let total = publish.total();
    for _ in 0..QUEUE_CLIENTS {
        let puller = Puller::open(stream, QUEUE_BATCH, size)?;
        let (received, over) = (&received, &over);
        jobs.push(Box::new(move || work(puller, received, total, over)));
    }
    // The time ends when the server has worked off the acks too, seen from the connection of the API.
    let empty = || {
        let done = until(|| Ok(received.load(Ordering::Relaxed) >= total && stream.messages()? == 0));
        over.store(true, Ordering::SeqCst);
        done.map(|()| Instant::now())
    };
    jobs.push(Box::new(empty));
    let took = together(jobs, mark)?;
    publish.verify(&acks)?;
    match received.into_inner() {
        received if received == total => Ok(took),
        received => Err(io::Error::other(format!("{received} messages came of {total}"))),
    }
}

fn work(mut puller: Puller, received: &AtomicU64, total: u64, over: &AtomicBool) -> io::Result<Instant> {
    let mut last = Instant::now();
    puller
        .conn
        .stream
        .set_read_timeout(Some(Duration::from_millis(100)))?;
    puller.ask()?;
    while received.load(Ordering::Relaxed) < total && !over.load(Ordering::Relaxed) {
        let mut count = 0;
        let read = puller.receive(|_| {
            count += 1;
            Ok(())
        });
        match read {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        }
        if count > 0 {
            received.fetch_add(count, Ordering::Relaxed);
            last = Instant::now();
        }
    }
    Ok(last)
}

/// Polls the server until `reached`, for as long as progress may take.
fn until(mut reached: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let limit = Instant::now() + SILENCE * 12;
    while !reached()? {
        if Instant::now() > limit {
            return Err(io::Error::other(
                "the server never came to the end: messages or acks are missing",
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A client that pulls batches and acknowledges what it gets.
struct Puller {
    conn: Conn,
    request: Vec<u8>,
    batch: u64,
    /// Messages of the last request still to come.
    due: u64,
    out: Vec<u8>,
}

impl Puller {
    fn open(stream: &Stream, batch: u64, head: usize) -> io::Result<Self> {
        let inbox = format!("_INBOX.{}", nuid::next());
        let mut conn = Conn::open(&stream.target, head)?;
        conn.send(format!("SUB {inbox} 1\r\n").as_bytes())?;
        conn.flush()?;
        let body = format!(r#"{{"batch":{batch},"expires":{EXPIRES}}}"#);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{DURABLE}", stream.name);
        Ok(Self {
            conn,
            request: format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len()).into_bytes(),
            batch,
            due: 0,
            out: Vec::new(),
        })
    }

    fn ask(&mut self) -> io::Result<()> {
        self.due = self.batch;
        self.conn.send(&self.request)
    }

    /// Reads once, reports the bodies, acknowledges them, and asks for more when the batch is complete.
    fn receive(&mut self, mut on: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (out, due) = (&mut self.out, &mut self.due);
        out.clear();
        self.conn.receive(|frame| {
            let Frame::Message { line, body, .. } = frame else {
                return Ok(());
            };
            if line.starts_with(b"HMSG") {
                // Our messages have no headers, so it is a status: the request expired with the rest of its batch.
                if !body.starts_with(b"NATS/1.0 40") || body.starts_with(b"NATS/1.0 409") {
                    return Err(io::Error::other(format!(
                        "the pull ended: {}",
                        String::from_utf8_lossy(body)
                    )));
                }
                *due = 0;
                return Ok(());
            }
            let reply = line.split(|&byte| byte == b' ').nth(3).unwrap_or_default();
            out.extend_from_slice(b"PUB ");
            out.extend_from_slice(reply);
            out.extend_from_slice(b" 4\r\n+ACK\r\n");
            *due = due.saturating_sub(1);
            on(body)
        })?;
        if *due == 0 {
            *due = self.batch;
            out.extend_from_slice(&self.request);
        }
        self.conn.send(&self.out)
    }
}
