//! Throughput: publishers that write blocks of ready-made `PUB`s, subscribers that count and check.
//!
//! - A message counts when a subscriber has read it to its last byte; publish-only counts when the
//!   server has answered a ping behind the last one.
//! - Stamped messages carry their sequence and publisher, so that what is lost, doubled or reordered
//!   is an error of the run even where the counts agree.
//! - Publishers lead the slowest subscriber by a bounded window, so that the generator never is the
//!   reason for a slow consumer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::io::{AsyncRead, ReadBuf};

use super::wire::{self, Conn, Frame, Scanner, Target};

/// Publishers write blocks of about this size.
const BLOCK_BYTES: usize = 64 * 1024;
/// Publishers lead by no more messages than this, nor by more bytes than [`LEAD_BYTES`] over all subscribers.
const LEAD_MESSAGES: u64 = 64 * 1024;
const LEAD_BYTES: u64 = 32 * 1024 * 1024;
/// One message of this many carries a stamp; every one if they are large.
const STAMP_EVERY: u64 = 64;
const LARGE_BYTES: usize = 2048;
/// Sequence (8 bytes), publisher (1), padding.
const STAMP_BYTES: usize = 16;
const UNSTAMPED: u64 = u64::MAX;
/// Up to this many subscribers read on a thread each, more share one.
const THREADED_SUBSCRIBERS: usize = 4;

/// Who publishes what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub publishers: u64,
    pub subscribers: usize,
    /// All subscribers are one queue group: a message goes to one of them.
    pub queue: bool,
    /// Every message of a publisher has the next of this many subjects, received by a wildcard; 0: one subject.
    pub subjects: u64,
    /// Payload bytes.
    pub size: usize,
    /// Messages to count: deliveries, or publishes where nobody subscribes.
    pub count: u64,
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub count: u64,
    pub time: Duration,
}

impl Load {
    fn fan_out(&self) -> u64 {
        if self.queue {
            1
        } else {
            self.subscribers.max(1) as u64
        }
    }

    fn per_publisher(&self) -> u64 {
        (self.count / self.fan_out() / self.publishers).max(1)
    }

    fn stamp_every(&self) -> u64 {
        if self.size >= LARGE_BYTES { 1 } else { STAMP_EVERY }
    }

    /// How far publishers may lead.
    fn lead(&self) -> u64 {
        let copies = self.fan_out() * (self.size as u64 + 64);
        LEAD_MESSAGES.min(LEAD_BYTES / copies).max(64)
    }

    /// Runs it once against `target`; `around` is called right before the first message and right after the last.
    pub fn run(&self, target: &Target, mut around: impl FnMut()) -> io::Result<Took> {
        let subject = format!("bench.{}", &nuid::next()[16..]);
        let mut subscribers = Vec::new();
        for _ in 0..self.subscribers {
            let mut conn = Conn::open(target, STAMP_BYTES)?;
            let wildcard = if self.subjects > 0 { ".*" } else { "" };
            let group = if self.queue { " bench" } else { "" };
            conn.send(format!("SUB {subject}{wildcard}{group} 1\r\n").as_bytes())?;
            conn.flush()?;
            subscribers.push(conn);
        }
        let publishers: Vec<Conn> = (0..self.publishers)
            .map(|_| Conn::open(target, 0))
            .collect::<io::Result<_>>()?;
        let shared = Run::new(self, &subscribers)?;
        let run = &shared;
        let start = thread::scope(|scope| {
            for (id, conn) in publishers.into_iter().enumerate() {
                let block = Block::new(self, &subject, id);
                scope.spawn(move || run.guard(|| publish(run, conn, block)));
            }
            if subscribers.len() > THREADED_SUBSCRIBERS {
                scope.spawn(move || run.guard(|| read_many(run, subscribers)));
            } else {
                for (index, conn) in subscribers.into_iter().enumerate() {
                    scope.spawn(move || run.guard(|| read_one(run, index, conn)));
                }
            }
            around();
            let start = Instant::now();
            run.start.wait();
            start
        });
        around();
        let end = shared.finish()?;
        Ok(Took {
            count: self.per_publisher() * self.publishers * self.fan_out(),
            time: end - start,
        })
    }
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// What the threads of one run share.
struct Run<'a> {
    load: &'a Load,
    start: Barrier,
    sent: Counter,
    received: Vec<Counter>,
    /// Everything was received, or something failed: nobody waits any longer.
    over: AtomicBool,
    failure: Mutex<Option<io::Error>>,
    last: Mutex<Option<Instant>>,
    /// Handles to end reads that would wait for ever.
    sockets: Vec<TcpStream>,
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, subscribers: &[Conn]) -> io::Result<Self> {
        Ok(Self {
            load,
            start: Barrier::new(load.publishers as usize + 1),
            sent: Counter::default(),
            received: subscribers.iter().map(|_| Counter::default()).collect(),
            over: AtomicBool::new(false),
            failure: Mutex::new(None),
            last: Mutex::new(None),
            sockets: subscribers
                .iter()
                .map(|conn| conn.stream.try_clone())
                .collect::<io::Result<_>>()?,
        })
    }

    /// Runs a thread's work; the first failure ends the run for all, and the last end is the time.
    fn guard(&self, work: impl FnOnce() -> io::Result<Option<Instant>>) {
        let result = work();
        if let Ok(Some(end)) = result {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(Some(end));
        }
        if let Err(error) = result
            && !self.over.swap(true, Ordering::SeqCst)
        {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.explain(error));
            self.end_reads();
        }
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let what = if silent {
            format!("nothing came for {} s", wire::SILENCE.as_secs())
        } else {
            error.to_string()
        };
        let sent = self.sent.0.load(Ordering::Relaxed);
        let counts: Vec<String> = self
            .received
            .iter()
            .take(8)
            .map(|count| count.0.load(Ordering::Relaxed).to_string())
            .collect();
        io::Error::new(
            error.kind(),
            format!("{what} ({sent} sent, received: {})", counts.join(", ")),
        )
    }

    fn end_reads(&self) {
        for socket in &self.sockets {
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    fn finish(self) -> io::Result<Instant> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => self
                .last
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .ok_or_else(|| io::Error::other("the run ended without an end")),
        }
    }

    /// Messages every subscriber (of a queue group: all together) has received.
    fn delivered(&self) -> u64 {
        let counts = self.received.iter().map(|count| count.0.load(Ordering::SeqCst));
        if self.load.queue {
            counts.sum()
        } else {
            counts.min().unwrap_or(u64::MAX)
        }
    }

    /// Waits until `more` messages may be sent.
    fn admit(&self, more: u64, lead: &mut Lead) -> io::Result<()> {
        let sent = self.sent.0.fetch_add(more, Ordering::Relaxed) + more;
        let mut since = None;
        while sent > lead.up_to {
            lead.up_to = self.delivered().saturating_add(self.load.lead());
            if sent <= lead.up_to {
                break;
            }
            if self.over.load(Ordering::Relaxed) {
                return Err(io::Error::other("the run is over"));
            }
            if since.get_or_insert_with(Instant::now).elapsed() > wire::SILENCE * 2 {
                return Err(io::Error::other("subscribers fell behind for good"));
            }
            thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

/// How far a publisher knows it may send.
#[derive(Default)]
struct Lead {
    up_to: u64,
}

/// Ready-made publishes of one length each, of which stamps and subjects are overwritten in place.
struct Block {
    bytes: Vec<u8>,
    record: usize,
    count: u64,
    number_at: usize,
    stamp_at: Option<usize>,
    every: u64,
    subjects: u64,
    offset: u64,
}

/// Digits of a message's own subject token.
const NUMBER_DIGITS: usize = 6;

impl Block {
    fn new(load: &Load, subject: &str, publisher: usize) -> Self {
        let size = load.size;
        let distinct = load.subjects > 0;
        let token = if distinct { ".000000" } else { "" };
        let head = format!("PUB {subject}{token} {size}\r\n");
        let mut payload = vec![b'x'; size];
        let stamped = size >= STAMP_BYTES;
        if stamped {
            payload[..8].copy_from_slice(&UNSTAMPED.to_le_bytes());
            payload[8] = publisher as u8;
        }
        let mut record = head.clone().into_bytes();
        record.extend_from_slice(&payload);
        record.extend_from_slice(b"\r\n");
        // A whole number of stamps, so that every block is stamped at the same places.
        let every = load.stamp_every();
        let count = ((BLOCK_BYTES / record.len()) as u64 / every * every).max(every);
        Self {
            bytes: record.repeat(count as usize),
            record: record.len(),
            count,
            number_at: "PUB ".len() + subject.len() + 1,
            stamp_at: stamped.then_some(head.len()),
            every,
            subjects: load.subjects,
            offset: publisher as u64 * (load.subjects / load.publishers),
        }
    }

    /// The next `count` messages, the first of which has sequence `base`.
    fn fill(&mut self, base: u64, count: u64) -> &[u8] {
        if let Some(at) = self.stamp_at {
            for index in (0..count).step_by(self.every as usize) {
                let at = index as usize * self.record + at;
                self.bytes[at..at + 8].copy_from_slice(&(base + index).to_le_bytes());
            }
        }
        if self.subjects > 0 {
            for index in 0..count {
                let at = index as usize * self.record + self.number_at;
                let number = (self.offset + base + index) % self.subjects;
                write_digits(&mut self.bytes[at..at + NUMBER_DIGITS], number);
            }
        }
        &self.bytes[..count as usize * self.record]
    }
}

/// Writes `number` in decimal over all of `out`.
fn write_digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn publish(run: &Run<'_>, mut conn: Conn, mut block: Block) -> io::Result<Option<Instant>> {
    run.start.wait();
    let total = run.load.per_publisher();
    let mut lead = Lead::default();
    let mut sent = 0;
    while sent < total {
        let count = block.count.min(total - sent);
        run.admit(count, &mut lead)?;
        conn.send(block.fill(sent, count))?;
        sent += count;
    }
    conn.flush()?;
    Ok(run.received.is_empty().then(Instant::now))
}

/// Counts and checks what one subscriber receives.
struct Check {
    next: Vec<u64>,
    every: u64,
    queue: bool,
    stamped: bool,
    count: u64,
    expected: u64,
}

impl Check {
    fn new(load: &Load) -> Self {
        Self {
            next: vec![0; load.publishers as usize],
            every: load.stamp_every(),
            queue: load.queue,
            stamped: load.size >= STAMP_BYTES,
            count: 0,
            expected: load.per_publisher() * load.publishers,
        }
    }

    fn message(&mut self, body: &[u8]) -> io::Result<()> {
        self.count += 1;
        if !self.stamped {
            return Ok(());
        }
        let Some((Ok(stamp), &publisher)) = body.get(..8).map(<[u8; 8]>::try_from).zip(body.get(8)) else {
            return Err(io::Error::other("a message came shorter than it was sent"));
        };
        let stamp = u64::from_le_bytes(stamp);
        if stamp == UNSTAMPED {
            return Ok(());
        }
        let Some(next) = self.next.get_mut(usize::from(publisher)) else {
            return Err(io::Error::other("a message came damaged"));
        };
        // A member of a queue group sees some of the messages, any other subscriber all of them.
        if stamp < *next || (!self.queue && stamp != *next) {
            return Err(io::Error::other(format!(
                "message {stamp} of publisher {publisher} came where {next} was due: lost, doubled or reordered"
            )));
        }
        *next = stamp + self.every;
        Ok(())
    }

    /// Records progress; true when this subscriber has all it will get.
    fn progress(&self, run: &Run<'_>, index: usize, settled: bool) -> io::Result<bool> {
        // Sequentially consistent: of two members that finish a queue group together, one must see both counts.
        run.received[index].0.store(self.count, Ordering::SeqCst);
        let count = if self.queue { run.delivered() } else { self.count };
        if count > self.expected {
            return Err(io::Error::other(format!(
                "{count} messages came of {}",
                self.expected
            )));
        }
        if count < self.expected || !settled {
            return Ok(false);
        }
        if self.queue {
            run.over.store(true, Ordering::SeqCst);
            run.end_reads();
        }
        Ok(true)
    }
}

fn read_one(run: &Run<'_>, index: usize, mut conn: Conn) -> io::Result<Option<Instant>> {
    let mut check = Check::new(run.load);
    loop {
        let read = conn.receive(|frame| match frame {
            Frame::Message { body, .. } => check.message(body),
            Frame::Control(_) => Ok(()),
        });
        if read.is_err() && run.over.load(Ordering::SeqCst) {
            return Ok(None);
        }
        read?;
        if check.progress(run, index, conn.settled())? {
            return Ok(Some(Instant::now()));
        }
    }
}

/// Many subscribers on one thread, with one buffer for all: what is counted is the server, not a
/// hundred cold caches.
fn read_many(run: &Run<'_>, subscribers: Vec<Conn>) -> io::Result<Option<Instant>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let buffer = RefCell::new(Vec::new());
    let readers = subscribers.into_iter().enumerate().map(|(index, conn)| {
        let buffer = &buffer;
        async move {
            let (stream, scanner) = conn.into_parts();
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            read_shared(run, index, stream, scanner, buffer).await
        }
    });
    runtime.block_on(async {
        tokio::select! {
            ends = try_join_all(readers) => Ok(ends?.into_iter().flatten().max()),
            silence = watch_silence(run) => Err(silence),
        }
    })
}

/// Ends when for a while nothing has come for anyone.
async fn watch_silence(run: &Run<'_>) -> io::Error {
    let mut before = u64::MAX;
    loop {
        let received = run
            .received
            .iter()
            .map(|count| count.0.load(Ordering::Relaxed))
            .sum();
        if received == before {
            return io::ErrorKind::TimedOut.into();
        }
        before = received;
        tokio::time::sleep(wire::SILENCE).await;
    }
}

async fn read_shared(
    run: &Run<'_>,
    index: usize,
    mut stream: tokio::net::TcpStream,
    mut scanner: Scanner,
    buffer: &RefCell<Vec<u8>>,
) -> io::Result<Option<Instant>> {
    let mut check = Check::new(run.load);
    loop {
        let done = poll_fn(|cx| {
            let mut buffer = buffer.borrow_mut();
            let carried = scanner.carry(&mut buffer);
            let mut into = ReadBuf::new(&mut buffer[carried..]);
            std::task::ready!(Pin::new(&mut stream).poll_read(cx, &mut into))?;
            let read = into.filled().len();
            if read == 0 {
                return std::task::Poll::Ready(Err(io::Error::other("the server closed the connection")));
            }
            scanner.scan(&buffer[..carried + read], |frame| match frame {
                Frame::Message { body, .. } => check.message(body),
                Frame::Control(line) => wire::control(line, Unsent(&stream)),
            })?;
            std::task::Poll::Ready(check.progress(run, index, scanner.settled()))
        });
        if done.await? {
            return Ok(Some(Instant::now()));
        }
    }
}

/// A pong fits into any socket buffer of a connection that sends nothing else.
struct Unsent<'a>(&'a tokio::net::TcpStream);

impl Write for Unsent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
