//! Streams: what was published to their subjects, kept in order.
//!
//! A [`Stream`] subscribes to its subjects and takes whole batches in the publishing connection's flush, under its one
//! lock: checks, sequence, index, append to the log. The commit is asked for outside the lock; when it has synced,
//! a thread of the store publishes the PubAcks of the batch with one flush and moves the tail on.
//!
//! Invariants: no PubAck before the commit that holds the message has synced, a duplicate's no earlier than the
//! original's; sequences have no gap that was not asked for and never repeat; whoever follows the tail sees durable
//! messages only. When a commit fails, the promises of its batch become errors; the store keeps the changes and lands
//! them when it goes on, so that the state here stays true.
//!
//! Deliberately absent: consumers. They let themselves be told ([`Listener`]) and read by sequence.

mod acks;
mod ask;
mod audience;
mod checkpoint;
pub mod config;
mod dedupe;
mod expire;
mod expiries;
mod follow;
mod frozen;
pub mod index;
mod info;
mod ingest;
mod lookup;
mod notes;
mod read;
mod recover;
mod slots;
mod state;
mod taking;
mod tally;
mod trie;

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::quota::{Quota, Share};
use crate::jetstream::time::now_ns;
use crate::router::{Batch, Publisher, Router, Service};
use crate::store::{self, Log};

use acks::{AckPrefix, Acks, store_error};
use config::StreamConfig;
use state::State;

pub use audience::Listener;
pub use follow::Index;
pub use info::{StreamInfo, StreamState};
pub use lookup::takes;
pub use read::{Found, Want};
pub use tally::Tallied;

/// Bytes on their way to the disk above which publishers are asked to wait, and below which they go on.
const PENDING_HIGH: usize = 32 << 20;
const PENDING_LOW: usize = 16 << 20;
/// Bytes on their way to the disk above which publishes are refused.
const PENDING_MAX: usize = 512 << 20;
/// Buffers kept for the next batch.
const SPARE_MAX: usize = 8;

/// See the module documentation.
pub struct Stream {
    name: String,
    created: i64,
    router: Arc<Router>,
    state: Mutex<State>,
    log: Log,
    prefix: AckPrefix,
    /// Publishers not in use: one is taken for the answers of a commit, so that no lock is held while it flushes.
    publishers: Mutex<Vec<Publisher>>,
    pending: AtomicUsize,
    relieved: Notify,
    /// Highest durable sequence.
    tail: watch::Sender<u64>,
    /// Commits landed: what [`Stream::settled`] waits for.
    landed: watch::Sender<u64>,
    /// When the clock has to look at this stream next.
    next_expiry: AtomicI64,
    /// For monitoring alone.
    tally: tally::Tally,
    me: Weak<Self>,
}

impl Stream {
    /// A stream over its log, as it was recovered.
    pub(super) fn open(
        config: StreamConfig,
        created: i64,
        log: Log,
        router: Arc<Router>,
        domain: Option<&str>,
        quota: Arc<Quota>,
    ) -> Result<Arc<Self>, store::Error> {
        let prefix = AckPrefix::new(&config.name, domain);
        let name = config.name.clone();
        let storage = config.storage;
        let is_compressed = config.compression == config::Compression::S2;
        if log.is_compressed() != is_compressed {
            // Of a store older than the setting's effect: from the next commit on.
            log.compress(is_compressed);
        }
        let mut state = State::recover(Arc::new(config), log.clone(), now_ns())?;
        state.share = Share::new(quota, storage);
        state.share.tell(state.bytes);
        let next_expiry = AtomicI64::new(state.next_expiry());
        Ok(Arc::new_cyclic(|me| Self {
            name,
            created,
            router,
            tail: watch::Sender::new(state.last_seq),
            landed: watch::Sender::new(0),
            state: Mutex::new(state),
            log,
            prefix,
            publishers: Mutex::default(),
            pending: AtomicUsize::new(0),
            relieved: Notify::new(),
            next_expiry,
            tally: tally::Tally::default(),
            me: me.clone(),
        }))
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was created, nanoseconds since the Unix epoch.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<StreamConfig> {
        self.lock().config.clone()
    }

    /// The log: for the rows of consumers, which become durable with [`Stream::commit`].
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The highest durable sequence; it changes when more messages can be delivered.
    pub fn tail(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of a change leaves counters that may be off: the log decides.
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state: MutexGuard<'_, State> = poisoned.into_inner();
            state.doubtful = true;
            self.state.clear_poison();
            state
        })
    }

    /// The state, read from the log again after a panic.
    fn sound(&self) -> Result<MutexGuard<'_, State>, ApiError> {
        let mut state = self.lock();
        if state.gone {
            return Err(error::STREAM_NOT_FOUND);
        }
        if state.doubtful {
            if state.landed < state.started {
                return Err(error::STORE_FAILED.with("stream is recovering"));
            }
            if self.log.pending_bytes() > 0 {
                let number = state.start_commit();
                drop(state);
                self.commit_quietly(number);
                return Err(error::STORE_FAILED.with("stream is recovering"));
            }
            let again = State::recover(state.config.clone(), self.log.clone(), now_ns())
                .map_err(|error| store_error(&error))?;
            let old = std::mem::replace(&mut *state, again);
            state.audience = old.audience;
            state.share = old.share;
            state.audience.trimmed();
            (state.started, state.landed) = (old.started, old.landed);
        }
        Ok(state)
    }

    /// Makes what was put into the log durable; `then` hears how it went, on a thread of the store or at once.
    pub fn commit(&self, then: impl FnOnce(Result<(), store::Error>) + Send + 'static) {
        let number = self.lock().start_commit();
        self.commit_started(number, 0, Box::new(then));
    }

    fn commit_started(&self, number: u64, bytes: usize, then: store::Done) {
        let me = self.me.upgrade().expect("a stream is alive while it is called");
        self.log.commit(Box::new(move |result| {
            let ready = me.land(number, bytes, &result);
            then(result);
            me.announce(number, &ready);
        }));
    }

    /// A commit has ended: counters first, then whoever waits. Says who can read more now.
    fn land(&self, number: u64, bytes: usize, result: &Result<(), store::Error>) -> Vec<Arc<dyn Listener>> {
        if let Err(error) = result {
            tracing::error!(stream = self.name, "a commit failed: {error}");
        }
        let ready = self.lock().land_commit(number, result.is_ok());
        if bytes > 0 {
            let before = self.pending.fetch_sub(bytes, Ordering::Relaxed);
            if before >= PENDING_LOW && before - bytes < PENDING_LOW {
                self.relieved.notify_waiters();
            }
        }
        ready
    }

    /// Tells who follows: after the acks have left.
    fn announce(&self, number: u64, ready: &[Arc<dyn Listener>]) {
        ready.iter().for_each(|listener| listener.durable());
        let durable = self.log.durable_seq();
        self.tail.send_if_modified(|tail| {
            let moved = durable > *tail;
            *tail = durable.max(*tail);
            moved
        });
        self.landed.send_if_modified(|landed| {
            let moved = number > *landed;
            *landed = number.max(*landed);
            moved
        });
    }

    /// Takes a batch in: answers and tail follow when it is durable.
    fn take_in(&self, batch: &Batch) {
        let mut acks = Acks::to(batch);
        let now = now_ns();
        let bytes = batch.bytes();
        let commit = match self.sound() {
            Err(error) => {
                for message in batch.iter() {
                    acks.refused(message.reply, &error);
                }
                None
            }
            Ok(mut state) => {
                let changes = state.changes;
                for message in batch.iter() {
                    state.ingest(&message, now, &mut acks);
                }
                if let Err(error) = state.enforce_limits() {
                    tracing::warn!(stream = self.name, "removing what is over the limits: {error}");
                }
                if state.config.no_ack {
                    acks.silence();
                }
                self.note_expiry(&mut state, now);
                // Answers to duplicates wait for the original: a commit of their own comes after its.
                let waits = state.changes != changes || state.landed < state.started;
                waits.then(|| state.start_commit())
            }
        };
        let Some(number) = commit else {
            self.publish(&acks, None);
            return;
        };
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        let me = self.me.upgrade().expect("a stream is alive while it is called");
        self.log.commit(Box::new(move |result| {
            let ready = me.land(number, bytes, &result);
            me.publish(&acks, result.err().map(|error| store_error(&error)).as_ref());
            me.announce(number, &ready);
        }));
    }

    fn publish(&self, acks: &Acks, failed: Option<&ApiError>) {
        self.tally.add(acks.counts(), failed);
        if acks.is_empty() {
            return;
        }
        let spare = self.spare().pop();
        let mut publisher = spare.unwrap_or_else(|| Publisher::of_answers(self.router.clone()));
        acks.publish(&self.prefix, failed, &mut publisher);
        self.keep(publisher);
    }

    fn keep(&self, publisher: Publisher) {
        let mut publishers = self.spare();
        if publishers.len() < SPARE_MAX {
            publishers.push(publisher);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Publisher>> {
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_expiry(&self, state: &mut State, now: i64) {
        // Nothing that is there already goes later than thought: looking too early does no harm.
        if self.next_expiry.load(Ordering::Relaxed) > now {
            let next = state.next_expiry();
            self.next_expiry.store(next, Ordering::Relaxed);
        }
    }

    /// The clock: removes what is over its time, if something may be; true if there is more of it. Reads the log.
    pub(super) fn tick(&self, now: i64) -> bool {
        if self.log.durable_seq() > *self.tail.borrow() {
            // Landed by the store when it went on after an error.
            let everyone = self.lock().audience.all();
            self.announce(0, &everyone);
        }
        if self.log.pending_bytes() == 0 {
            // Commits that ended in an error have landed since, without a word.
            let ready = {
                let mut state = self.lock();
                let landed = state.landed;
                if state.landed_well < landed {
                    state.land_commit(landed, true)
                } else {
                    Vec::new()
                }
            };
            ready.iter().for_each(|listener| listener.durable());
        }
        if self.next_expiry.load(Ordering::Relaxed) > now {
            return false;
        }
        let Ok(mut state) = self.sound() else { return false };
        let changes = state.changes;
        let more = state.expire(now).unwrap_or_else(|error| {
            tracing::warn!(stream = self.name, "removing what is over its age: {error}");
            false
        });
        let next = state.next_expiry();
        self.next_expiry.store(next, Ordering::Relaxed);
        if state.changes != changes {
            let number = state.start_commit();
            drop(state);
            self.commit_quietly(number);
        }
        more
    }

    fn commit_quietly(&self, number: u64) {
        self.commit_started(number, 0, Box::new(|_| {}));
    }

    /// Waits until everything that was published before is durable, or known not to be.
    pub async fn settled(&self) {
        let (started, landed) = {
            let state = self.lock();
            (state.started, state.landed)
        };
        if landed >= started {
            return;
        }
        let mut follow = self.landed.subscribe();
        follow.wait_for(|landed| *landed >= started).await.ok();
    }

    /// Commits and waits.
    pub(super) async fn commit_and_wait(&self, number: u64) -> Result<(), ApiError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let then = move |result| {
            tell.send(result).ok();
        };
        self.commit_started(number, 0, Box::new(then));
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(store_error(&error)),
            Err(_) => Err(error::STORE_FAILED.with("store is closed")),
        }
    }

    /// Takes nothing more.
    pub(super) fn retire(&self) {
        self.lock().gone = true;
        self.forget();
        self.spare().clear();
    }

    /// It no longer counts for what its account may hold, whoever still knows of it.
    pub(super) fn forget(&self) {
        self.lock().share = Share::default();
    }
}

impl Service for Stream {
    fn accept(&self, batch: Batch) {
        if self.pending.load(Ordering::Relaxed) > PENDING_MAX {
            let mut acks = Acks::default();
            for message in batch.iter() {
                acks.refused(message.reply, &error::TOO_MANY_REQUESTS);
            }
            self.publish(&acks, None);
            return;
        }
        self.take_in(&batch);
    }

    fn congested(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > PENDING_HIGH
    }

    fn relief(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let relieved = self.relieved.notified();
                if self.pending.load(Ordering::Relaxed) <= PENDING_LOW {
                    return;
                }
                relieved.await;
            }
        })
    }
}
