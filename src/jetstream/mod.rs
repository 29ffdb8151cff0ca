//! Durability on top of subjects: streams, consumers and their API.
//!
//! [`JetStream`] holds the streams by name. Each stream is a subscriber of its subjects, the API is a subscriber of
//! `$JS.API.>`: nobody is called by a connection. Creation, update and deletion of streams come one at a time; each is
//! durable before it is answered.

pub mod api;
pub mod consumer;
pub mod delivery;
mod limits;
mod offline;
mod options;
mod per_account;
mod progress;
mod quota;
mod snapshot;
pub mod stream;
pub mod time;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{GLOBAL, StreamLimits};
use crate::protocol::subject;
use crate::router::{Router, Service, Subscription};
use crate::store::{self, Log};

use api::error::{self, ApiError};
use delivery::Consumers;
use stream::Stream;
use stream::config::{Compression, Storage, StreamConfig};
use time::now_ns;

pub use offline::{Offline, mended, name_in};
pub use options::{Error, Options};
pub use per_account::{Common, PerAccount};
pub use progress::Progress;
pub use quota::Quota;
pub use snapshot::Snapshot;

/// How often ages are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked at whether a checkpoint is due.
const CHECKPOINT_LOOKS: Duration = Duration::from_secs(1);

/// What the store keeps as a stream's own row.
#[derive(Serialize, Deserialize)]
struct Meta<C> {
    created: i64,
    config: C,
    /// None for `$G`, as it was before there were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
}

/// A stream with its consumers and the subscriptions that feed it.
struct Member {
    stream: Arc<Stream>,
    consumers: Arc<Consumers>,
    subscriptions: Vec<Arc<Subscription>>,
}

/// See the module documentation.
pub struct JetStream {
    options: Options,
    limits: RwLock<StreamLimits>,
    members: RwLock<BTreeMap<String, Member>>,
    /// Streams that are not served.
    offline: Mutex<Vec<Offline>>,
    /// One change of the set of streams at a time.
    changing: tokio::sync::Mutex<()>,
    api_counters: api::Counters,
    stopping: CancellationToken,
    tasks: TaskTracker,
    delivery: Arc<delivery::Context>,
    api_subscriptions: Mutex<Vec<Arc<Subscription>>>,
}

impl JetStream {
    /// Recovers all streams of the store, subscribes them and the API. Needs the runtime its tasks run on.
    pub fn start(options: Options) -> Result<Arc<Self>, Error> {
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let jetstream = Arc::new_cyclic(|me| {
            let delivery = delivery::Context {
                router: options.router.clone(),
                jetstream: me.clone(),
                domain: options.domain.clone(),
                message_bytes_max: options.message_bytes_max,
                stopping: stopping.clone(),
                tasks: tasks.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
            Self {
                limits: RwLock::new(options.limits.clone()),
                options,
                members: RwLock::default(),
                offline: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
                api_counters: api::Counters::default(),
                stopping,
                tasks,
                delivery: Arc::new(delivery),
                api_subscriptions: Mutex::default(),
            }
        });
        for stream in jetstream.recover()? {
            jetstream.admit(stream);
        }
        for member in jetstream.read().values() {
            member.consumers.recover();
        }
        for member in jetstream.read().values() {
            member.consumers.begin();
        }
        let subscriptions = api::serve(&jetstream);
        *lock(&jetstream.api_subscriptions) = subscriptions;
        jetstream.tasks.spawn(clock(jetstream.clone()));
        jetstream.tasks.spawn(checkpoints(jetstream.clone()));
        Ok(jetstream)
    }

    /// Opens what the store holds, on as many threads as there are processors.
    fn recover(&self) -> Result<Vec<Arc<Stream>>, Error> {
        let Some(store) = &self.options.store else {
            return Ok(Vec::new());
        };
        let rows = self.rows(store)?;
        let progress = &self.options.progress;
        if self.options.rows.is_none() {
            progress.begin(rows.len());
        }
        let rows = Mutex::new(rows);
        let opened = Mutex::new(Vec::new());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(row) = { lock(&rows).pop() } {
                        match self.open(&row) {
                            Ok(stream) => lock(&opened).push(stream),
                            Err(error) => self.leave_out(&row, error.to_string()),
                        }
                        progress.one_done();
                    }
                });
            }
        });
        Ok(opened.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rows of this account.
    fn rows(&self, store: &store::Store) -> Result<Vec<store::StreamRow>, Error> {
        if let Some(rows) = &self.options.rows {
            return Ok(rows.clone());
        }
        let mut ours = Vec::new();
        for row in store.streams()? {
            if per_account::account_of(&row) == *self.options.account {
                ours.push(row);
            }
        }
        Ok(ours)
    }

    fn open(&self, row: &store::StreamRow) -> Result<Arc<Stream>, Error> {
        let id = row.id;
        if row.damaged {
            return Err(Error::Damaged(id));
        }
        let meta: Meta<StreamConfig> =
            serde_json::from_slice(&row.meta).map_err(|error| Error::Config { id, error })?;
        let store = self.options.store.as_ref().expect("rows come from a store");
        let log = store.open_log(id)?;
        Ok(self.make(meta.config, meta.created, log)?)
    }

    fn make(&self, config: StreamConfig, created: i64, log: Log) -> Result<Arc<Stream>, store::Error> {
        let domain = self.options.domain.as_deref();
        let quota = self.options.quota.clone();
        Stream::open(config, created, log, self.options.router.clone(), domain, quota)
    }

    /// Lets a stream take messages.
    fn admit(&self, stream: Arc<Stream>) {
        let config = stream.config();
        let subscriptions = self.subscribe(&stream, &config.subjects);
        let member = Member {
            consumers: Consumers::new(stream.clone(), self.delivery.clone()),
            stream: stream.clone(),
            subscriptions,
        };
        self.write().insert(config.name.clone(), member);
    }

    fn subscribe(&self, stream: &Arc<Stream>, subjects: &[String]) -> Vec<Arc<Subscription>> {
        let service: Arc<dyn Service> = stream.clone();
        let subscribe = |pattern: &String| {
            self.options
                .router
                .subscribe_service_as_client(&service, pattern.as_bytes())
        };
        subjects.iter().map(subscribe).collect()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn router(&self) -> &Arc<Router> {
        &self.options.router
    }

    /// The account whose streams these are.
    pub fn account(&self) -> &Arc<str> {
        &self.options.account
    }

    /// What may be used.
    pub fn limits(&self) -> StreamLimits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what may be used. What is over stays; nothing comes to it.
    pub fn set_limits(&self, limits: StreamLimits) {
        self.options.quota.set(limits.memory, limits.storage);
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// A stream by name.
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.read().get(name).map(|member| member.stream.clone())
    }

    /// The consumers of a stream.
    pub fn consumers(&self, stream: &str) -> Option<Arc<Consumers>> {
        self.read().get(stream).map(|member| member.consumers.clone())
    }

    /// Whether the account may have another consumer.
    fn has_consumer_room(&self) -> bool {
        let max = self.limits().consumers;
        let count = || {
            self.read()
                .values()
                .map(|member| member.consumers.len())
                .sum::<usize>()
        };
        max < 0 || (count() as i64) < max
    }

    /// All streams, by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.read().values().map(|member| member.stream.clone()).collect()
    }

    /// Whether another stream than `name` takes some subject of `patterns`.
    fn overlaps(&self, name: &str, patterns: &[String]) -> bool {
        self.streams()
            .iter()
            .filter(|stream| stream.name() != name)
            .any(|stream| patterns.iter().any(|pattern| stream.overlaps(pattern.as_bytes())))
    }

    /// Creates a stream, durably; one that is there with the same configuration is fine.
    pub async fn create(&self, asked: StreamConfig, pedantic: bool) -> Result<Arc<Stream>, ApiError> {
        let mut config = asked.for_create(pedantic)?;
        self.limits().cap(&mut config)?;
        let _one = self.changing.lock().await;
        if let Some(stream) = self.stream(&config.name) {
            return if *stream.config() == config {
                Ok(stream)
            } else {
                Err(error::STREAM_NAME_EXISTS)
            };
        }
        let streams_max = self.limits().streams;
        if streams_max >= 0 && self.read().len() as i64 >= streams_max {
            return Err(error::MAXIMUM_STREAMS);
        }
        if self.is_offline(&config.name) {
            return Err(error::STREAM_OFFLINE);
        }
        if self.overlaps(&config.name, &config.subjects) {
            return Err(error::SUBJECTS_OVERLAP);
        }
        self.check_reserve(&config)?;
        let created = now_ns();
        let failed = |error: store::Error| error::STREAM_CREATE.with(error);
        let log = match (config.storage, &self.options.store) {
            (Storage::Memory, _) => Log::memory(),
            (Storage::File, Some(store)) => {
                store.create_stream(self.meta(created, &config)).map_err(failed)?
            }
            (Storage::File, None) => return Err(error::STORAGE_RESOURCES_EXCEEDED),
        };
        log.compress(config.compression == Compression::S2);
        if config.first_seq > 1 {
            log.truncate_front(config.first_seq).map_err(failed)?;
        }
        if let Err(error) = committed(&log).await {
            // Not promised, so not to be there after a restart either.
            if let Some(store) = &self.options.store {
                store.remove_stream(log.stream_id(), Box::new(|_| {}));
            }
            return Err(failed(error));
        }
        let stream = self.make(config, created, log).map_err(failed)?;
        self.admit(stream.clone());
        Ok(stream)
    }

    /// Changes the configuration of a stream, durably.
    pub async fn update(&self, asked: StreamConfig, pedantic: bool) -> Result<Arc<Stream>, ApiError> {
        let _one = self.changing.lock().await;
        let stream = self.find(&asked.name)?;
        let mut config = stream.config().for_update(asked, pedantic)?;
        self.limits().cap(&mut config)?;
        self.check_reserve(&config)?;
        if self.overlaps(&config.name, &config.subjects) {
            return Err(error::SUBJECTS_OVERLAP);
        }
        let name = config.name.clone();
        let subjects = config.subjects.clone();
        let meta = self.meta(stream.created(), &config);
        stream.reconfigure(config, meta).await?;
        let subscriptions = self.subscribe_anew(&name, &stream, &subjects);
        // New ones first, then the old ones end: no message falls between.
        for old in subscriptions {
            self.router().remove(&old);
        }
        Ok(stream)
    }

    /// Subscribes what is new; returns the subscriptions that are no longer wanted.
    fn subscribe_anew(
        &self,
        name: &str,
        stream: &Arc<Stream>,
        subjects: &[String],
    ) -> Vec<Arc<Subscription>> {
        let mut members = self.write();
        let Some(member) = members.get_mut(name) else {
            return Vec::new();
        };
        let stays = |old: &Arc<Subscription>| subjects.iter().any(|new| new.as_bytes() == old.pattern());
        let (kept, gone): (Vec<_>, Vec<_>) = member.subscriptions.drain(..).partition(stays);
        let is_new = |new: &&String| !kept.iter().any(|old| old.pattern() == new.as_bytes());
        let new: Vec<_> = subjects.iter().filter(is_new).cloned().collect();
        member.subscriptions = kept;
        member.subscriptions.extend(self.subscribe(stream, &new));
        gone
    }

    /// Deletes a stream with all it holds, durably.
    pub async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let _one = self.changing.lock().await;
        if let Some(store) = &self.options.store {
            // What cannot be removed now stays as it is, and is not on its way out.
            store
                .takes_removals()
                .map_err(|error| error::STREAM_DELETE.with(error))?;
        }
        if let Some(offline) = self.give_up(name) {
            return self.remove_stored(offline.id).await;
        }
        let member = self.write().remove(name).ok_or_else(|| self.no_stream(name))?;
        for subscription in &member.subscriptions {
            self.router().remove(subscription);
        }
        member.stream.retire();
        member.consumers.close(true);
        member.stream.settled().await;
        let id = member.stream.log().stream_id();
        match id.0 {
            0 => Ok(()),
            _ => self.remove_stored(id).await,
        }
    }

    /// Takes a stream out of the store, durably.
    async fn remove_stored(&self, id: store::StreamId) -> Result<(), ApiError> {
        let Some(store) = self.options.store.as_ref() else {
            return Ok(());
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = move |result| {
            tell.send(result).ok();
        };
        store.remove_stream(id, Box::new(done));
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::STREAM_DELETE.with(error)),
            Err(_) => Err(error::STREAM_DELETE.with("store is closed")),
        }
    }

    /// Names of the streams that take some subject of `filter`, in order.
    pub fn names(&self, filter: Option<&str>) -> Vec<String> {
        let takes = |stream: &Arc<Stream>| filter.is_none_or(|filter| stream.overlaps(filter.as_bytes()));
        let streams = self.streams();
        let matching = streams.iter().filter(|stream| takes(stream));
        matching.map(|stream| stream.name().to_owned()).collect()
    }

    /// The stream that takes a subject.
    pub fn stream_of(&self, to: &[u8]) -> Option<Arc<Stream>> {
        self.streams()
            .into_iter()
            .find(|stream| subject::is_subject(to) && stream.config().takes(to))
    }

    /// Tells the pull requests that wait that the server stops: while their clients still hear it.
    pub fn end_pulls(&self) {
        let consumers: Vec<_> = self
            .read()
            .values()
            .map(|member| member.consumers.clone())
            .collect();
        consumers.iter().for_each(|consumers| consumers.end_pulls());
    }

    /// Stops as [`JetStream::end`] does, then closes the store.
    pub async fn shutdown(&self) {
        self.end().await;
        if let Some(store) = self.options.store.clone() {
            close(store).await;
        }
    }

    /// Stops: no more requests or messages, everything that was taken is durable, checkpoints are written.
    pub async fn end(&self) {
        self.stopping.cancel();
        let api = std::mem::take(&mut *lock(&self.api_subscriptions));
        for subscription in &api {
            self.router().remove(subscription);
        }
        let consumers: Vec<_> = self
            .read()
            .values()
            .map(|member| member.consumers.clone())
            .collect();
        consumers.iter().for_each(|consumers| consumers.end());
        self.tasks.close();
        self.tasks.wait().await;
        consumers.iter().for_each(|consumers| consumers.shut_down());
        let streams = self.streams();
        for member in self.read().values() {
            for subscription in &member.subscriptions {
                self.router().remove(subscription);
            }
        }
        for stream in &streams {
            stream.settled().await;
            let last = stream.clone();
            tokio::task::spawn_blocking(move || last.checkpoint(true))
                .await
                .ok();
            stream.forget();
        }
    }

    fn meta(&self, created: i64, config: &StreamConfig) -> Vec<u8> {
        let account = Some(self.options.account.to_string()).filter(|account| account != GLOBAL);
        let meta = Meta {
            created,
            config,
            account,
        };
        serde_json::to_vec(&meta).expect("plain fields serialise")
    }
}

/// Closes a store, off the runtime: that writes files.
async fn close(store: store::Store) {
    match tokio::task::spawn_blocking(move || store.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("closing the store: {error}"),
        Err(error) => tracing::error!("closing the store: {error}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until what was put into a log is durable.
async fn committed(log: &Log) -> Result<(), store::Error> {
    let (tell, told) = tokio::sync::oneshot::channel();
    log.commit(Box::new(move |result| {
        tell.send(result).ok();
    }));
    told.await.unwrap_or(Err(store::Error::Closed))
}

/// Looks at ages; that reads and writes much, off the runtime.
async fn clock(jetstream: Arc<JetStream>) {
    let mut wait = TICK;
    loop {
        tokio::select! {
            () = jetstream.stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let streams = jetstream.streams();
        let round = tokio::task::spawn_blocking(move || look_after(&streams));
        wait = round.await.unwrap_or(TICK);
    }
}

/// Has the streams take the checkpoints that are due, one after the other; that takes long, and ages do not wait for it.
async fn checkpoints(jetstream: Arc<JetStream>) {
    loop {
        tokio::select! {
            () = jetstream.stopping.cancelled() => return,
            () = tokio::time::sleep(CHECKPOINT_LOOKS) => {}
        }
        let (streams, stopping) = (jetstream.streams(), jetstream.stopping.clone());
        let round = tokio::task::spawn_blocking(move || {
            let due = streams.iter().take_while(|_| !stopping.is_cancelled());
            due.for_each(|stream| stream.checkpoint(false));
        });
        round.await.ok();
    }
}

/// One round over all streams; says how long to wait before the next.
fn look_after(streams: &[Arc<Stream>]) -> Duration {
    let start = Instant::now();
    let now = now_ns();
    let mut is_more = false;
    for stream in streams {
        is_more |= stream.tick(now);
    }
    // There is more to expire: publishers get as much of the time as that has taken.
    if is_more {
        start.elapsed().min(TICK / 2)
    } else {
        TICK
    }
}
