//! One consumer with all that drives it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::jetstream::consumer::config::ConsumerConfig;
use crate::jetstream::consumer::state::{Action, Consumer, Interest};
use crate::jetstream::consumer::status::Status;
use crate::jetstream::stream::{Listener, Stream, takes};
use crate::jetstream::time::now_ns;
use crate::protocol::encode::Message;
use crate::protocol::patterns::Patterns;
use crate::router::{Batch, Router, Service, Watcher};

use super::dead_letter::DeadLetters;
use super::inbox::Inbox;
use super::info::ConsumerInfo;
use super::news::{REMOVED_MAX, stream_news};
use super::sender::Sender;
use super::set::Consumers;
use super::{Context, round};

/// Bytes of acks and requests waiting above which those who send them wait.
const INBOX_HIGH: usize = 4 << 20;
/// Filters that are tried one by one.
const FILTERS_TRIED_MAX: usize = 8;
/// However far away the next deadline is, it is looked at again after this long: clocks are set.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// The state machine and what a round needs beside it.
pub(super) struct Core {
    pub consumer: Consumer,
    pub config: Arc<ConsumerConfig>,
    /// As bytes; none takes everything.
    pub filters: Vec<Box<[u8]>>,
    /// The same, when there are too many to try one by one.
    pub many: Option<Patterns>,
    /// Below this no message is left that the filters take and that was not looked at.
    pub cursor: u64,
    /// Removed messages ahead that the log still shows; and until which commit.
    pub gone: hashbrown::HashSet<u64>,
    pub gone_until: std::collections::VecDeque<(u64, u64)>,
    /// More were removed than are noted: nothing is delivered until that commit has landed.
    pub unsettled_until: u64,
    /// Where it counted from when it last heard of the stream, and what it has delivered first since.
    pub news_at: u64,
    pub offered: Vec<u64>,
    pub out: Vec<Action>,
    /// Double acks to answer after the next commit.
    pub replies: Vec<bytes::Bytes>,
    /// Messages it has done with, on a stream that waits for that.
    pub released: Vec<u64>,
    /// How often some are being removed just now: until none are, no ack is written.
    pub releasing: usize,
    /// Some of those were removed since the last commit.
    pub has_released: bool,
    pub commit_in_flight: bool,
    /// When what has changed is to be committed.
    pub commit_due: Option<i64>,
    /// The router's generation at which the interest in the deliver subject was looked at.
    pub interest_seen: u64,
    pub dead_letters: DeadLetters,
    /// It was not used for too long.
    pub inactive: bool,
    /// It has been removed: nothing is delivered any more.
    pub gone_itself: bool,
}

impl Core {
    /// Whether its filters take a subject.
    #[inline]
    pub fn takes(&self, subject: &[u8]) -> bool {
        match &self.many {
            Some(many) => many.takes(subject),
            None => takes(&self.filters, subject),
        }
    }
}

/// See the module documentation.
pub struct Driver {
    pub(super) name: String,
    pub(super) created: i64,
    pub(super) stream: Arc<Stream>,
    pub(super) context: Arc<Context>,
    pub(super) set: Weak<Consumers>,
    /// Whether its state is written to the log.
    pub(super) is_durable: bool,
    pub(super) core: Mutex<Core>,
    pub(super) inbox: Mutex<Inbox>,
    waiting_bytes: AtomicUsize,
    /// It would deliver a message if there were one: who would not need not be woken for it.
    hungry: AtomicBool,
    /// Only what is in flight keeps it from delivering: it is woken when that goes.
    full: AtomicBool,
    wake: Notify,
    relieved: Notify,
    /// What it had done with has been removed, or could not be.
    pub(super) released: Notify,
    pub(super) stop: CancellationToken,
    pub(super) me: Weak<Self>,
}

/// The router as a consumer sees it.
pub(super) struct Listening<'a>(pub &'a Router);

impl Interest for Listening<'_> {
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    fn listens(&self, subject: &[u8]) -> bool {
        self.0.has_interest(subject)
    }
}

/// What a driver is made of.
pub(super) struct Parts {
    pub name: String,
    pub created: i64,
    pub config: Arc<ConsumerConfig>,
    pub is_durable: bool,
    pub consumer: Consumer,
    pub out: Vec<Action>,
}

impl Driver {
    pub(super) fn new(
        parts: Parts,
        stream: &Arc<Stream>,
        context: &Arc<Context>,
        set: &Weak<Consumers>,
    ) -> Arc<Self> {
        let filters = filters_of(&parts.config);
        Arc::new_cyclic(|me| Self {
            name: parts.name,
            created: parts.created,
            stream: stream.clone(),
            context: context.clone(),
            set: set.clone(),
            is_durable: parts.is_durable,
            core: Mutex::new(Core {
                consumer: parts.consumer,
                many: many_of(&filters),
                filters,
                config: parts.config,
                cursor: 0,
                gone: hashbrown::HashSet::new(),
                gone_until: std::collections::VecDeque::new(),
                unsettled_until: 0,
                news_at: 0,
                offered: Vec::new(),
                out: parts.out,
                replies: Vec::new(),
                released: Vec::new(),
                releasing: 0,
                has_released: false,
                commit_in_flight: false,
                commit_due: None,
                interest_seen: 0,
                dead_letters: DeadLetters::default(),
                inactive: false,
                gone_itself: false,
            }),
            inbox: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            hungry: AtomicBool::new(true),
            full: AtomicBool::new(false),
            wake: Notify::new(),
            relieved: Notify::new(),
            released: Notify::new(),
            stop: context.stopping.child_token(),
            me: me.clone(),
        })
    }

    /// The consumer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<ConsumerConfig> {
        self.core().config.clone()
    }

    /// What answers say of it.
    pub fn info(&self) -> ConsumerInfo {
        let mut core = self.core();
        self.catch_up(&mut core);
        ConsumerInfo {
            stream: self.stream.name().to_owned(),
            name: self.name.clone(),
            created: self.created,
            config: ConsumerConfig::clone(&core.config),
            state: core.consumer.state(),
            now: now_ns(),
        }
    }

    /// Counts what has come to the stream and gone from it since the last round.
    fn catch_up(&self, core: &mut Core) {
        core.forget_gone(self.stream.visible_commit());
        stream_news(self, core, now_ns());
        if !core.out.is_empty() {
            self.nudge();
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pull request; false when it comes too late, the consumer has gone.
    pub fn pull(&self, request: &Message<'_>) -> bool {
        let mut inbox = self.inbox();
        if inbox.closed {
            return false;
        }
        if inbox.pulls.bytes() > INBOX_HIGH {
            drop(inbox);
            let mut sender = self.sender();
            sender.status(request.reply, None, &Status::ExceededMaxWaiting);
            sender.publisher.flush();
            return true;
        }
        inbox.pull(request);
        self.waiting_bytes.store(inbox.bytes(), Ordering::Relaxed);
        drop(inbox);
        self.nudge();
        true
    }

    /// Lets the task have a round.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Says whether it would deliver more. `true` before it looks what is durable: nothing that becomes so meanwhile
    /// is missed.
    pub(super) fn set_hungry(&self, hungry: bool) {
        self.hungry.store(hungry, Ordering::SeqCst);
    }

    /// Says whether only what is in flight keeps it from delivering.
    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn make_room(&self) {
        if self.full.load(Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// What was left is being worked on.
    pub(super) fn emptied(&self) {
        if self.waiting_bytes.swap(0, Ordering::Relaxed) > INBOX_HIGH {
            self.relieved.notify_waiters();
        }
    }

    /// Starts the task.
    pub(super) fn start(&self) {
        let me = self.me.upgrade().expect("a driver is alive while it is called");
        self.nudge();
        self.context.tasks.spawn_on(drive(me), &self.context.runtime);
    }

    /// Its task has panicked in the middle of a round: it is made anew.
    fn revive(&self) {
        tracing::error!(
            stream = self.stream.name(),
            consumer = self.name,
            "a consumer has panicked and is made anew from what was written of it"
        );
        let (Some(set), Some(me)) = (self.set.upgrade(), self.me.upgrade()) else {
            return;
        };
        let revival = async move { set.revive(&me).await };
        self.context.tasks.spawn_on(revival, &self.context.runtime);
    }

    /// Ends the task; what it has not worked on stays undone.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    pub(super) fn sender(&self) -> Sender {
        let domain = self.context.domain.as_deref();
        Sender::new(
            self.context.router.clone(),
            self.stream.name(),
            &self.name,
            domain,
        )
    }
}

/// Push: whether somebody listens on the deliver subject, of the right queue group if it names one.
pub(super) fn is_listened_to(router: &Router, config: &ConsumerConfig) -> bool {
    let subject = config.deliver_subject.as_bytes();
    match config.deliver_group.as_str() {
        "" => router.has_interest(subject),
        group => router.has_group_interest(subject, group.as_bytes()),
    }
}

/// Filters as a set, if one by one they would take longer.
pub(super) fn many_of(filters: &[Box<[u8]>]) -> Option<Patterns> {
    let many = filters.len() > FILTERS_TRIED_MAX;
    many.then(|| filters.iter().map(|filter| &**filter).collect())
}

pub(super) fn filters_of(config: &ConsumerConfig) -> Vec<Box<[u8]>> {
    config.filters().map(|filter| filter.as_bytes().into()).collect()
}

/// The task: rounds, as long as there is work, and sleep.
async fn drive(driver: Arc<Driver>) {
    let mut sender = driver.sender();
    loop {
        let turn = AssertUnwindSafe(|| round::round(&driver, &mut sender));
        let Ok(next) = std::panic::catch_unwind(turn) else {
            return driver.revive();
        };
        if sender.publisher.is_congested() {
            tokio::select! {
                () = driver.stop.cancelled() => return,
                () = sender.publisher.relieve() => {}
            }
        }
        let deadline = match next {
            round::Next::Again => {
                tokio::task::yield_now().await;
                if driver.stop.is_cancelled() {
                    return;
                }
                continue;
            }
            round::Next::Ended => return,
            round::Next::Sleep(deadline) => deadline,
        };
        let left = deadline.map_or(SLEEP_MAX, |deadline| {
            let ns = deadline.saturating_sub(now_ns());
            Duration::from_nanos(u64::try_from(ns).unwrap_or(0)).min(SLEEP_MAX)
        });
        tokio::select! {
            biased;
            () = driver.stop.cancelled() => return,
            () = driver.wake.notified() => {}
            () = tokio::time::sleep_until(Instant::now() + left) => {}
        }
    }
}

impl Service for Driver {
    fn accept(&self, batch: Batch) {
        let mut inbox = self.inbox();
        inbox.batches.push(batch);
        self.waiting_bytes.store(inbox.bytes(), Ordering::Relaxed);
        drop(inbox);
        self.nudge();
    }

    fn congested(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) > INBOX_HIGH
    }

    fn relief(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let relieved = self.relieved.notified();
                if !self.congested() {
                    return;
                }
                relieved.await;
            }
        })
    }
}

impl Listener for Driver {
    fn appended(&self, count: u64, last_seq: u64) {
        let mut inbox = self.inbox();
        inbox.appended += count;
        inbox.last_seq = last_seq;
    }

    fn removed(&self, seq: u64, commit: u64) {
        let mut inbox = self.inbox();
        inbox.removed_until = inbox.removed_until.max(commit);
        // Nobody looks at a list that long one by one.
        if inbox.removed.len() < REMOVED_MAX {
            inbox.removed.push(seq);
        } else {
            inbox.trimmed = true;
        }
        drop(inbox);
        self.make_room();
    }

    fn trimmed(&self) {
        self.inbox().trimmed = true;
        self.make_room();
    }

    fn needs(&self, seq: u64) -> bool {
        self.core().consumer.needs(seq)
    }

    fn durable(&self) {
        if self.hungry.load(Ordering::SeqCst) {
            self.nudge();
        }
    }
}

impl Watcher for Driver {
    fn interest_changed(&self) {
        self.nudge();
    }
}
