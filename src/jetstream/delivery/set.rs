//! The consumers of one stream by name: made, changed, removed, one change at a time, each durable before it is told.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::consumer::ack_subject::AckPrefix;
use crate::jetstream::consumer::advisory::Advisory;
use crate::jetstream::consumer::config::{
    ConsumerConfig, CreateRequest, Plan, Retention as Waits, Standing, StreamFacts, WireTime, plan,
};
use crate::jetstream::consumer::start::{Start, StreamIndex};
use crate::jetstream::consumer::state::{Consumer, ConsumerOptions};
use crate::jetstream::stream::config::{Retention, Storage, StreamConfig};
use crate::jetstream::stream::{Index, Stream};
use crate::jetstream::time::now_ns;
use crate::router::{Service, Subscription, Watcher};

use super::Context;
use super::dead_letter::answer_prefix;
use super::driver::{Driver, Parts, filters_of, is_listened_to, many_of};
use super::news::stream_news;

/// The longest name of a consumer that is kept in the store; nats-server, which makes a file of it, fails there.
const NAME_BYTES_MAX: usize = 255;

/// What the store keeps as a consumer's own row.
#[derive(Serialize, Deserialize)]
pub(super) struct Meta<C> {
    pub created: i64,
    pub config: C,
}

pub(super) struct Member {
    driver: Arc<Driver>,
    subscriptions: Vec<Arc<Subscription>>,
    /// The deliver subject it is told of.
    watched: Option<String>,
}

/// See the module documentation.
pub struct Consumers {
    pub(super) stream: Arc<Stream>,
    pub(super) context: Arc<Context>,
    members: RwLock<BTreeMap<String, Member>>,
    changing: tokio::sync::Mutex<()>,
    /// Some consumer's row cannot be read: what it waits for is not known.
    pub(super) unread: AtomicBool,
    pub(super) me: std::sync::Weak<Self>,
}

/// What a create request has come to.
pub struct Made {
    /// The consumer.
    pub driver: Arc<Driver>,
    /// It was not there before.
    pub is_new: bool,
}

impl Consumers {
    /// No consumers yet.
    pub(in crate::jetstream) fn new(stream: Arc<Stream>, context: Arc<Context>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            stream,
            context,
            members: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
            unread: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A consumer by name.
    pub fn get(&self, name: &str) -> Option<Arc<Driver>> {
        self.read().get(name).map(|member| member.driver.clone())
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Driver>> {
        self.read().values().map(|member| member.driver.clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Creates a consumer or updates the one that is there, durably.
    pub async fn create(&self, request: CreateRequest, room: bool) -> Result<Made, ApiError> {
        let _one = self.changing.lock().await;
        let name = match request.config.name.is_empty() {
            true => request.config.durable_name.clone(),
            false => request.config.name.clone(),
        };
        let stream = self.stream.config();
        let known = self.get(&name);
        let existing = known.as_ref().map(|driver| driver.config());
        // There may be ten thousand: looked at only where it matters what they are.
        let others: Vec<Arc<ConsumerConfig>> = match asks_for_others(&stream) {
            true => {
                let others = self.all().into_iter().filter(|driver| driver.name() != name);
                others.map(|driver| driver.config()).collect()
            }
            false => Vec::new(),
        };
        let others: Vec<&ConsumerConfig> = others.iter().map(|config| &**config).collect();
        let in_use = existing
            .as_ref()
            .is_some_and(|config| config.is_push() && is_listened_to(&self.context.router, config));
        let standing = Standing {
            existing: existing.as_deref(),
            others: &others,
            deliver_subject_in_use: in_use,
        };
        let fresh = || {
            loop {
                let name = nuid::next();
                let name = &name[name.len() - 8..];
                if self.get(name).is_none() {
                    return name.to_owned();
                }
            }
        };
        match plan(request, &facts(&stream), &self.context.limits(), &standing, fresh)? {
            Plan::Create(config) if !room && !config.direct => {
                drop(config);
                Err(error::MAXIMUM_CONSUMERS)
            }
            Plan::Create(config) => self.make(config, &stream).await,
            Plan::Update(config) => {
                let driver = known.expect("what is updated exists");
                self.change(&driver, config).await?;
                Ok(Made {
                    driver,
                    is_new: false,
                })
            }
        }
    }

    async fn make(&self, config: ConsumerConfig, stream: &StreamConfig) -> Result<Made, ApiError> {
        let is_durable = stream.storage == Storage::File && !config.mem_storage;
        let now = now_ns();
        let name = config.name.clone();
        if is_durable && name.len() > NAME_BYTES_MAX {
            return Err(error::CONSUMER_NAME_TOO_LONG.with(NAME_BYTES_MAX));
        }
        let config = Arc::new(config);
        let made = self.stream.with_index(|index| {
            let start = Start::select(&config, index);
            let options = self.options(&config, stream, is_durable);
            let consumer = Consumer::new(&config, &options, start, now);
            let parts = Parts {
                name: name.clone(),
                created: now,
                config: config.clone(),
                is_durable,
                consumer,
                out: Vec::new(),
            };
            self.let_in(parts, index)
        });
        let driver = made.inspect_err(|_| self.forget(&name))?;
        if is_durable {
            // In this order: a row without a configuration was never promised.
            driver.put_state(&mut driver.core());
            self.stream.log().put_consumer(&name, meta(now, &config));
            if let Err(error) = self.committed().await {
                // Not promised, so not to be there after a restart either.
                self.take_out(&driver);
                self.stream.log().remove_consumer(&name);
                return Err(error::CONSUMER_STORE_FAILED.with(error));
            }
        }
        if !self.admit(&driver) {
            return Err(error::STREAM_NOT_FOUND);
        }
        driver.sender_of(|sender| sender.advise(&Advisory::Created, now));
        Ok(Made { driver, is_new: true })
    }

    /// Makes a driver that counts and is asked from here on; it does not work yet. Under the stream's lock.
    pub(super) fn let_in(&self, parts: Parts, index: &Index<'_>) -> Arc<Driver> {
        let (name, filters) = (parts.name.clone(), filters_of(&parts.config));
        let driver = Driver::new(parts, &self.stream, &self.context, &self.me);
        {
            let mut core = driver.core();
            core.unsettled_until = index.unsettled();
            core.heard();
        }
        index.admit(&name, filters, driver.clone());
        let member = Member {
            driver: driver.clone(),
            subscriptions: Vec::new(),
            watched: None,
        };
        self.write().insert(name, member);
        driver
    }

    /// One that could not be made is not there.
    pub(super) fn forget(&self, name: &str) {
        self.write().remove(name);
        self.stream.dismiss(name);
    }

    /// How the state machine is made.
    pub(super) fn options<'a>(
        &'a self,
        config: &'a ConsumerConfig,
        stream: &StreamConfig,
        is_durable: bool,
    ) -> ConsumerOptions<'a> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system has randomness");
        ConsumerOptions {
            stream: self.stream.name(),
            name: &config.name,
            ack_prefix: AckPrefix::new(self.stream.name(), &config.name),
            reports_acks: stream.retention != Retention::Limits,
            durable_state: is_durable,
            message_bytes_max: self.context.message_bytes_max,
            active: config.is_push() && is_listened_to(&self.context.router, config),
            seed: u64::from_le_bytes(seed),
        }
    }

    /// Lets a consumer hear its clients, and starts it; false when it was removed meanwhile, with its stream.
    pub(super) fn admit(&self, driver: &Arc<Driver>) -> bool {
        let config = driver.config();
        let (stream, name) = (self.stream.name(), driver.name());
        let mut patterns = vec![format!("$JS.ACK.{stream}.{name}.>")];
        if config.flow_control {
            patterns.push(format!("$JS.FC.{stream}.{name}.>"));
        }
        if config.dead_letter().is_some() {
            patterns.push(format!("{}*", answer_prefix(stream, name)));
        }
        let mut members = self.write();
        let Some(member) = members
            .get_mut(name)
            .filter(|member| Arc::ptr_eq(&member.driver, driver))
        else {
            return false;
        };
        let service: Arc<dyn Service> = driver.clone();
        let router = &self.context.router;
        let subscribe = |pattern: &String| router.subscribe_service(&service, pattern.as_bytes(), None);
        member.subscriptions = patterns.iter().map(subscribe).collect();
        self.watch(member, &config);
        drop(members);
        driver.start();
        true
    }

    /// Lets a consumer know who comes to its deliver subject.
    fn watch(&self, member: &mut Member, config: &ConsumerConfig) {
        let watcher: Arc<dyn Watcher> = member.driver.clone();
        if let Some(old) = member.watched.take() {
            self.context.router.unwatch(old.as_bytes(), &watcher);
        }
        if config.is_push() {
            self.context
                .router
                .watch(config.deliver_subject.as_bytes(), watcher);
            member.watched = Some(config.deliver_subject.clone());
        }
    }

    /// Puts another configuration in force, durably.
    async fn change(&self, driver: &Arc<Driver>, config: ConsumerConfig) -> Result<(), ApiError> {
        let old = driver.config();
        if *old == config {
            // It may be in a commit that is under way, or that failed.
            return self.committed_if(driver.is_durable).await;
        }
        let now = now_ns();
        let config = Arc::new(config);
        let filters = filters_of(&config);
        let needed = {
            let mut core = driver.core();
            let core = &mut *core;
            stream_news(driver, core, now);
            let needed = core.consumer.needs_from();
            let mut num_pending = None;
            let mut end = None;
            if core.filters != filters {
                self.stream.with_index(|index| {
                    driver.forget_news();
                    num_pending = Some(index.count(&filters, core.consumer.counts_from()));
                    end = Some(index.last_seq());
                    core.unsettled_until = core.unsettled_until.max(index.unsettled());
                    index.admit(driver.name(), filters.clone(), driver.clone());
                })?;
                core.filters.clone_from(&filters);
                core.many = many_of(&filters);
                core.cursor = 0;
            }
            core.consumer.reconfigure(&config, num_pending, now);
            if let Some(last_seq) = end {
                core.consumer.counted_upto(last_seq);
            }
            core.heard();
            core.interest_seen = 0;
            core.config = config.clone();
            if driver.is_durable {
                let row = meta(driver.created, &config);
                self.stream.log().put_consumer(driver.name(), row);
            }
            needed
        };
        if let Some(member) = self.write().get_mut(driver.name()) {
            let answers = format!("{}*", answer_prefix(self.stream.name(), driver.name()));
            let answers_known = member
                .subscriptions
                .iter()
                .any(|known| known.pattern() == answers.as_bytes());
            if config.dead_letter().is_some() && !answers_known {
                let service: Arc<dyn Service> = driver.clone();
                let new = self
                    .context
                    .router
                    .subscribe_service(&service, answers.as_bytes(), None);
                member.subscriptions.push(new);
            }
            self.watch(member, &config);
        }
        driver.nudge();
        if driver.is_durable {
            driver.put_state_for_sure().await?;
        }
        self.committed_if(driver.is_durable).await?;
        let old = filters_of(&old);
        if old != filters && self.stream.config().retention == Retention::Interest {
            self.let_go(&old, needed..u64::MAX).await;
            self.committed().await?;
        }
        Ok(())
    }

    /// Pauses a consumer until then, or lets it go on, durably.
    pub async fn pause(&self, driver: &Arc<Driver>, until: Option<WireTime>) -> Result<(), ApiError> {
        let _one = self.changing.lock().await;
        self.check_there(driver)?;
        let now = now_ns();
        {
            let mut core = driver.core();
            let core = &mut *core;
            let mut config = ConsumerConfig::clone(&core.config);
            config.set_pause(until);
            core.consumer
                .pause(until.map(|until| until.unix_nanos()), now, &mut core.out);
            core.config = Arc::new(config);
            if driver.is_durable {
                let row = meta(driver.created, &core.config);
                self.stream.log().put_consumer(driver.name(), row);
            }
        }
        driver.nudge();
        self.committed_if(driver.is_durable).await?;
        Ok(())
    }

    /// Lets a consumer start over at a sequence (zero: at its ack floor), durably; says where that is.
    pub async fn reset(&self, driver: &Arc<Driver>, seq: u64) -> Result<u64, ApiError> {
        let _one = self.changing.lock().await;
        self.check_there(driver)?;
        let now = now_ns();
        let at = {
            let mut core = driver.core();
            let core = &mut *core;
            stream_news(driver, core, now);
            let at = self.stream.with_index(|index| {
                let config = &core.config;
                let started = config
                    .opt_start_time
                    .map_or(0, |time| index.seq_at_time(time.unix_nanos()));
                let at = core.consumer.check_reset(config, seq, started)?;
                driver.forget_news();
                let count = index.count(&core.filters, at);
                core.consumer.reset(at, count, index.last_seq());
                core.unsettled_until = core.unsettled_until.max(index.unsettled());
                Ok(at)
            })??;
            core.heard();
            core.cursor = 0;
            core.dead_letters = Default::default();
            at
        };
        driver.nudge();
        if driver.is_durable {
            driver.put_state_for_sure().await?;
        }
        self.committed_if(driver.is_durable).await?;
        Ok(at)
    }

    /// Removes a consumer by name, durably.
    pub async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let driver = self.get(name).ok_or(error::CONSUMER_NOT_FOUND)?;
        if self.remove(&driver).await {
            Ok(())
        } else {
            Err(error::CONSUMER_NOT_FOUND)
        }
    }

    /// Removes this very consumer, if it is still there.
    pub(super) async fn remove(&self, driver: &Arc<Driver>) -> bool {
        let _one = self.changing.lock().await;
        let Some(member) = self.take_out(driver) else {
            return false;
        };
        drop(member);
        let confirmed = driver.take_leave();
        if self.stream.config().retention == Retention::Interest {
            let (filters, needed) = {
                let core = driver.core();
                (core.filters.clone(), core.consumer.needs_from())
            };
            // The last one leaves nothing of what it took, also of what it never came to.
            let from = if self.is_empty() { 0 } else { needed };
            self.let_go(&filters, from..u64::MAX).await;
        }
        if driver.is_durable {
            self.stream.log().remove_consumer(driver.name());
        }
        if (driver.is_durable || !confirmed.is_empty())
            && let Err(error) = self.committed().await
        {
            tracing::warn!(
                stream = self.stream.name(),
                consumer = driver.name(),
                "removing: {error}"
            );
            return true;
        }
        self.stream.confirm(confirmed.iter().map(|to| &to[..]));
        true
    }

    /// Nobody hears of it or is heard by it any more.
    pub(super) fn take_out(&self, driver: &Arc<Driver>) -> Option<Member> {
        let member = {
            let mut members = self.write();
            let known = members.get(driver.name())?;
            if !Arc::ptr_eq(&known.driver, driver) {
                return None;
            }
            members.remove(driver.name())?
        };
        driver.end();
        self.stream.dismiss(driver.name());
        for subscription in &member.subscriptions {
            self.context.router.remove(subscription);
        }
        if let Some(watched) = &member.watched {
            let watcher: Arc<dyn Watcher> = driver.clone();
            self.context.router.unwatch(watched.as_bytes(), &watcher);
        }
        Some(member)
    }

    /// One change of the set at a time.
    pub(super) async fn one_change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Whether this very consumer is the one that is there.
    fn check_there(&self, driver: &Arc<Driver>) -> Result<(), ApiError> {
        match self.get(driver.name()) {
            Some(there) if Arc::ptr_eq(&there, driver) => Ok(()),
            _ => Err(error::CONSUMER_NOT_FOUND),
        }
    }

    pub(super) async fn committed_if(&self, is_durable: bool) -> Result<(), ApiError> {
        if is_durable {
            self.committed().await
        } else {
            Ok(())
        }
    }

    pub(super) async fn committed(&self) -> Result<(), ApiError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.stream.commit(move |result| {
            tell.send(result).ok();
        });
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::STORE_FAILED.with(error)),
            Err(_) => Err(error::STORE_FAILED.with("store is closed")),
        }
    }

    /// Those who wait are told that the server stops.
    pub(in crate::jetstream) fn end_pulls(&self) {
        self.all().iter().for_each(|driver| driver.end_pulls());
    }

    /// Ends the tasks.
    pub(in crate::jetstream) fn end(&self) {
        self.all().iter().for_each(|driver| driver.end());
    }

    /// What is known becomes durable with the stream's last commit; nobody hears of a consumer any more.
    pub(in crate::jetstream) fn shut_down(&self) {
        self.all().iter().for_each(|driver| driver.shut_down());
        self.close(false);
    }

    /// The stream is gone, or the server is: everyone is let go.
    pub(in crate::jetstream) fn close(&self, deleted: bool) {
        for driver in self.all() {
            if self.take_out(&driver).is_some() && deleted {
                driver.take_leave();
            }
        }
    }
}

impl Driver {
    /// Sends something beside its rounds.
    fn sender_of(&self, send: impl FnOnce(&mut super::sender::Sender)) {
        let mut sender = self.sender();
        send(&mut sender);
        sender.publisher.flush();
    }

    /// What was told of the stream no longer counts: everything is counted anew, under the stream's lock.
    fn forget_news(&self) {
        let mut inbox = self.inbox();
        inbox.appended = 0;
        inbox.trimmed = false;
        inbox.removed.clear();
    }
}

pub(super) fn meta(created: i64, config: &ConsumerConfig) -> Vec<u8> {
    serde_json::to_vec(&Meta { created, config }).expect("plain fields serialise")
}

/// Whether a new consumer has to agree with those that are there.
fn asks_for_others(stream: &StreamConfig) -> bool {
    stream.retention == Retention::WorkQueue || stream.max_consumers > 0
}

/// The stream as a consumer's configuration is checked against it.
fn facts(config: &StreamConfig) -> StreamFacts<'_> {
    StreamFacts {
        subjects: &config.subjects,
        retention: match config.retention {
            Retention::Limits => Waits::Limits,
            Retention::Interest => Waits::Interest,
            Retention::WorkQueue => Waits::WorkQueue,
        },
        num_replicas: config.num_replicas,
        max_consumers: config.max_consumers,
        inactive_threshold: config.consumer_limits.inactive_threshold,
        max_ack_pending: config.consumer_limits.max_ack_pending,
    }
}
