//! The bounded queue of bytes towards one client.
//!
//! Publishers append whole batches under one short lock; the connection's writer takes everything at
//! once. Above the watermark publishers are asked to wait (see [`Outbox::relief`]), for a bounded time: one
//! destination that does not read, or hardly, may slow others down for a second, never for good (see `patience`). Above
//! `max_pending` the client is a slow consumer and its connection is closed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::Sleep;

use super::patience::Patience;
use super::wire::WireBuf;

/// An outbox that stays empty for this long gives its buffers back.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Why an outbox stopped taking bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The connection has ended or is ending.
    Done,
    /// More than `max_pending` bytes were waiting.
    SlowConsumer,
}

/// What a flush found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Taken.
    Taken,
    /// Taken, and the publisher should wait before it goes on.
    Congested,
    /// Dropped: the destination is closed.
    Dropped,
}

#[derive(Debug, Default)]
struct Inner {
    queue: WireBuf,
    /// Bytes the writer has taken and not yet written.
    writing: usize,
    closed: Option<Closed>,
    patience: Patience,
}

/// The clock of a writer that may become idle. It runs on while there is work: a timer set for each piece of work costs
/// more than most of them.
#[derive(Debug, Default)]
pub struct Idle {
    timer: Option<Pin<Box<Sleep>>>,
    /// There was work since the timer was set.
    busy: bool,
}

impl Idle {
    /// Completes when there was no work for [`IDLE_AFTER`], and for no more than twice that.
    async fn reached(&mut self) {
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                self.busy = false;
                Box::pin(tokio::time::sleep(IDLE_AFTER))
            });
            timer.await;
            self.timer = None;
            if !self.busy {
                return;
            }
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Bytes waiting: queued and being written. A copy for readers without the lock.
    pending: AtomicUsize,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes publishers that wait for relief.
    drained: Notify,
    is_closed: AtomicBool,
    watermark: usize,
    pending_max: usize,
    stalls: AtomicU64,
}

impl Outbox {
    /// An empty outbox that holds at most `pending_max` bytes.
    pub fn new(pending_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            pending: AtomicUsize::new(0),
            filled: Notify::new(),
            drained: Notify::new(),
            is_closed: AtomicBool::new(false),
            watermark: (pending_max / 2).min(super::OUTBOX_WATERMARK),
            pending_max,
            stalls: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is plain data, valid at every step: a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over all of `scratch`, which is left empty (and with another buffer's capacity).
    pub fn flush(&self, scratch: &mut WireBuf) -> Flushed {
        if self.pending() > self.watermark {
            scratch.own_small();
        }
        let mut inner = self.lock();
        if inner.closed.is_some() {
            scratch.clear();
            return Flushed::Dropped;
        }
        let was_empty = inner.queue.is_empty();
        inner.queue.append(scratch);
        let pending = inner.queue.len() + inner.writing;
        self.pending.store(pending, Ordering::Relaxed);
        if pending > self.pending_max {
            self.close_locked(&mut inner, Closed::SlowConsumer);
            return Flushed::Dropped;
        }
        let congested = pending > self.watermark && !inner.patience.behind(Instant::now(), true).is_zero();
        drop(inner);
        if was_empty {
            self.filled.notify_one();
        }
        if congested {
            Flushed::Congested
        } else {
            Flushed::Taken
        }
    }

    /// Waits until this outbox has drained below half its watermark, is closed, or was congested too long for a publisher that
    /// has it alone, or others.
    pub async fn relief(&self, alone: bool) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        loop {
            let drained = self.drained.notified();
            let left = {
                let mut inner = self.lock();
                if inner.closed.is_some() || !inner.patience.is_behind() {
                    return;
                }
                inner.patience.behind(Instant::now(), alone)
            };
            if left.is_zero() {
                return;
            }
            // When that is over it may have taken enough to be waited for still.
            tokio::time::timeout(left, drained).await.ok();
        }
    }

    /// The writer's side: everything queued, in exchange for the emptied `written`; `None` once closed and drained.
    pub async fn take(&self, written: &mut WireBuf, idle: &mut Idle) -> Option<()> {
        written.clear();
        let mut is_idle = false;
        loop {
            {
                let mut inner = self.lock();
                if !inner.queue.is_empty() && inner.closed != Some(Closed::SlowConsumer) {
                    std::mem::swap(&mut inner.queue, written);
                    inner.writing = written.len();
                    idle.busy = true;
                    return Some(());
                }
                if inner.closed.is_some() {
                    return None;
                }
                if is_idle {
                    inner.queue.shrink(0);
                }
            }
            if is_idle {
                written.shrink(0);
                self.filled.notified().await;
            } else {
                // A busy destination is refilled within moments and finds its buffers as large as they were.
                tokio::select! {
                    biased;
                    () = self.filled.notified() => {}
                    () = idle.reached() => is_idle = true,
                }
            }
        }
    }

    /// The writer's side: `count` more bytes have been written.
    pub fn wrote(&self, count: usize) {
        let mut inner = self.lock();
        inner.writing = inner.writing.saturating_sub(count);
        let pending = inner.queue.len() + inner.writing;
        self.pending.store(pending, Ordering::Relaxed);
        inner.patience.takes(count);
        if inner.patience.is_behind() && pending <= self.watermark / 2 {
            inner.patience.caught_up(Instant::now());
            drop(inner);
            self.drained.notify_waiters();
        }
    }

    /// Bytes that may wait before the client is a slow consumer.
    pub fn pending_max(&self) -> usize {
        self.pending_max
    }

    /// Bytes waiting to be written.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// How often a publisher waited for this destination.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Stops taking bytes. What is queued is still written, unless the client is a slow consumer.
    pub fn close(&self, why: Closed) {
        self.close_locked(&mut self.lock(), why);
    }

    fn close_locked(&self, inner: &mut Inner, why: Closed) {
        if inner.closed.is_none() {
            inner.closed = Some(why);
            if why == Closed::SlowConsumer {
                inner.queue = WireBuf::default();
                self.pending.store(inner.writing, Ordering::Relaxed);
            }
            self.is_closed.store(true, Ordering::Relaxed);
            self.filled.notify_one();
            self.drained.notify_waiters();
        }
    }

    /// Completes when the client has become a slow consumer: what its writer is stuck in is not worth waiting for.
    pub async fn cut(&self) {
        loop {
            let drained = self.drained.notified();
            if self.closed() == Some(Closed::SlowConsumer) {
                return;
            }
            drained.await;
        }
    }

    /// Gives up on the client: what is queued or stuck in a write is dropped.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        self.close_locked(&mut inner, Closed::SlowConsumer);
        inner.closed = Some(Closed::SlowConsumer);
        inner.queue = WireBuf::default();
        drop(inner);
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// The writer's side, at its end: closes for good and gives back what could not be written.
    pub fn discard(&self) {
        self.close(Closed::Done);
        let mut inner = self.lock();
        inner.queue = WireBuf::default();
        inner.writing = 0;
        self.pending.store(0, Ordering::Relaxed);
    }

    /// Whether and why it no longer takes bytes.
    pub fn closed(&self) -> Option<Closed> {
        if !self.is_closed.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().closed
    }
}
