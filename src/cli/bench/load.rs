//! Throughput: publishers that write blocks of ready-made `PUB`s, subscribers that count and check.
//!
//! - A message counts when a subscriber has read it to its last byte; publish-only counts when the
//!   server has answered a ping behind the last one.
//! - Stamped messages carry their sequence and publisher, so that what is lost, doubled or reordered
//!   is an error of the run even where the counts agree.
//! - Publishers lead the slowest subscriber by a bounded window, so that the generator never is the
//!   reason for a slow consumer.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::block::{Block, Check, Messages, STAMP_BYTES};
use super::wire::{self, Conn, SharedConn, Target};

/// Publishers lead by no more messages than this, nor by more bytes than [`LEAD_BYTES`] over all subscribers.
const LEAD_MESSAGES: u64 = 64 * 1024;
const LEAD_BYTES: u64 = 32 * 1024 * 1024;
/// One message of this many carries a stamp; every one if they are large.
const STAMP_EVERY: u64 = 64;
const LARGE_BYTES: usize = 2048;
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

    fn block(&self, subject: &str, publisher: usize) -> Block {
        Block::new(&Messages {
            subject,
            subjects: self.subjects,
            inbox: None,
            size: self.size,
            publisher,
            offset: publisher as u64 * (self.subjects / self.publishers),
            stamp_every: self.stamp_every(),
        })
    }

    fn check(&self) -> Check {
        Check::new(self.publishers, self.stamp_every(), self.size, self.queue)
    }

    /// What each subscriber receives, a queue group as a whole.
    fn expected(&self) -> u64 {
        self.per_publisher() * self.publishers
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
                let block = self.block(&subject, id);
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
            count: self.expected() * self.fan_out(),
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

/// Records progress of subscriber `index`; true when it has all it will get.
fn progress(run: &Run<'_>, index: usize, count: u64, settled: bool) -> io::Result<bool> {
    // Sequentially consistent: of two members that finish a queue group together, one must see both counts.
    run.received[index].0.store(count, Ordering::SeqCst);
    let count = if run.load.queue { run.delivered() } else { count };
    let expected = run.load.expected();
    if count > expected {
        return Err(io::Error::other(format!("{count} messages came of {expected}")));
    }
    if count < expected || !settled {
        return Ok(false);
    }
    if run.load.queue {
        run.over.store(true, Ordering::SeqCst);
        run.end_reads();
    }
    Ok(true)
}

fn read_one(run: &Run<'_>, index: usize, mut conn: Conn) -> io::Result<Option<Instant>> {
    let mut check = run.load.check();
    loop {
        let read = conn.receive(|frame| check.frame(&frame));
        if read.is_err() && run.over.load(Ordering::SeqCst) {
            return Ok(None);
        }
        read?;
        if progress(run, index, check.count, conn.settled())? {
            return Ok(Some(Instant::now()));
        }
    }
}

/// Many subscribers on one thread.
fn read_many(run: &Run<'_>, subscribers: Vec<Conn>) -> io::Result<Option<Instant>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let buffer = RefCell::new(Vec::new());
    let readers = subscribers.into_iter().enumerate().map(|(index, conn)| {
        let buffer = &buffer;
        async move { read_shared(run, index, conn.into_shared()?, buffer).await }
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
    mut conn: SharedConn,
    buffer: &RefCell<Vec<u8>>,
) -> io::Result<Option<Instant>> {
    let mut check = run.load.check();
    loop {
        conn.receive(buffer, |frame| check.frame(&frame)).await?;
        if progress(run, index, check.count, conn.settled())? {
            return Ok(Some(Instant::now()));
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
