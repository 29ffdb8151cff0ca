//! Mission control: what the instances notice, drawn together by thread of thought.
//!
//! A thread's group is opened by an event and closed by the server's clock when its window is over; each event is in one group of
//! each of its threads. A synthesis names its sources and is stored under an id drawn from the first of them. An event is
//! settled once it is in a group and all groups that were over by then are told of, so a restart finds every
//! open group between the last settled event and a window before it: what no synthesis names yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::envelope::timestamp;
use super::error::While;
use super::follow::{Fold, Follow, Told};
use super::reader::{Selection, Start};
use super::watch::{Delivery, Filter, Wanted};
use super::{Error, Mesh, Received, catalog};

/// What is drawn together.
const SOURCES: [&str; 4] = [
    "resonance_detected",
    "aha_moment",
    "coherence_alert",
    "conflict_alert",
];
/// What comes of it.
const SYNTHESIS: &str = "mission_control_synthesis";
/// The server's clock must be this far beyond a window: an event may have been stamped before and show only now, behind a
/// slow sync.
const MARGIN: SignedDuration = SignedDuration::from_secs(1);
/// A group with more events is over before its time.
const EVENTS_MAX: usize = 500;
/// More threads than these are not kept open: the oldest is over then.
const GROUPS_MAX: usize = 10_000;
/// Threads of one event; those beyond are not looked at.
const THREADS_MAX: usize = 100;
/// What events say is quoted up to here, in letters.
const QUOTE_MAX: usize = 120;
/// How many of them are quoted.
const QUOTES_MAX: usize = 5;
/// Longest name of a thread, in letters.
const THREAD_MAX: usize = 200;
/// Pause before the server is asked again that did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Shortest wait for the end of a group.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The server's clock is asked for anew after this.
const CLOCK_AGE_MAX: Duration = Duration::from_secs(10);

/// One event of a group.
#[derive(Clone, Debug)]
struct Source {
    stream_seq: u64,
    stored: Timestamp,
    event: String,
    instance: Option<String>,
    session: Option<String>,
    says: String,
}

/// What was said of a thread in a window.
#[derive(Clone, Debug)]
pub struct Group {
    /// The thread.
    pub thread: String,
    /// When it is over.
    pub until: Timestamp,
    sources: Vec<Source>,
}

impl Group {
    /// What its synthesis is stored under: the same whoever draws it.
    fn id(&self) -> String {
        let first = &self.sources[0];
        format!(
            "synthesis.{}.{}.{:08x}",
            first.stream_seq,
            first.stored.as_nanosecond(),
            crc32fast::hash(self.thread.as_bytes())
        )
    }

    fn instances(&self) -> Vec<&str> {
        let instances: BTreeSet<&str> = self
            .sources
            .iter()
            .filter_map(|source| source.instance.as_deref())
            .collect();
        instances.into_iter().collect()
    }

    /// The synthesis as a sentence.
    pub fn text(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for source in &self.sources {
            *counts.entry(&source.event).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(event, count)| format!("{count} {event}"))
            .collect();
        let mut text = format!("{}: {}", self.thread, counts.join(", "));
        let instances = self.instances();
        if !instances.is_empty() {
            text += &format!(" from {}", instances.join(", "));
        }
        let mut quotes: Vec<&str> = Vec::new();
        for source in self.sources.iter().filter(|source| !source.says.is_empty()) {
            if quotes.len() < QUOTES_MAX && !quotes.contains(&source.says.as_str()) {
                quotes.push(&source.says);
            }
        }
        if !quotes.is_empty() {
            text += &format!(": {}", quotes.join("; "));
        }
        text
    }

    /// The body of its synthesis.
    pub fn body(&self) -> Value {
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|source| {
                let mut line = json!({"stream_seq": source.stream_seq, "event": source.event});
                for (name, value) in [("instance", &source.instance), ("session", &source.session)] {
                    if let Some(value) = value {
                        line[name] = value.as_str().into();
                    }
                }
                line
            })
            .collect();
        json!({
            "text": self.text(),
            "thread": self.thread,
            "sources": sources,
            "instances": self.instances(),
            "from": self.sources[0].stored.to_string(),
            "until": self.until.to_string(),
        })
    }
}

/// The open groups: a fold over events in the order of the stream.
#[derive(Debug)]
struct Groups {
    window: SignedDuration,
    at_least: usize,
    open: HashMap<String, Group>,
    /// By the end of their windows.
    ends: BTreeSet<(Timestamp, String)>,
    /// Those that are over, in the order in which they ended.
    over: VecDeque<Group>,
    /// What syntheses name already, by thread, and the last of it.
    named: HashSet<(String, u64)>,
    named_last: u64,
    /// Up to here events are in.
    place: u64,
    now: Timestamp,
}

impl Groups {
    fn new(window: Duration, at_least: usize) -> Self {
        Self {
            window: SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX),
            at_least,
            open: HashMap::new(),
            ends: BTreeSet::new(),
            over: VecDeque::new(),
            named: HashSet::new(),
            named_last: 0,
            place: 0,
            now: Timestamp::MIN,
        }
    }

    /// Passes over what syntheses name.
    fn name(&mut self, named: HashSet<(String, u64)>) {
        self.named_last = named.iter().map(|(_, place)| *place).max().unwrap_or(0);
        self.named = named;
    }

    /// Takes in the next event; one that is in already changes nothing.
    fn take(&mut self, event: &Received) {
        if event.stream_seq <= self.place {
            if event.stored <= self.now {
                return;
            }
            // The stream was made anew, and counts from 1 again.
            *self = Self {
                over: std::mem::take(&mut self.over),
                ..Self::new(self.window.unsigned_abs(), self.at_least)
            };
        }
        self.place = event.stream_seq;
        self.now = self.now.max(event.stored);
        self.close(self.now);
        if self.place > self.named_last {
            self.named = HashSet::new();
        }
        for thread in threads(event) {
            if self.named.contains(&(thread.clone(), event.stream_seq)) {
                continue;
            }
            if !self.open.contains_key(&thread) {
                self.begin(&thread);
            }
            let Some(group) = self.open.get_mut(&thread) else {
                continue;
            };
            group.sources.push(Source::of(event));
            if group.sources.len() == EVENTS_MAX {
                self.end(&thread);
            }
        }
    }

    fn begin(&mut self, thread: &str) {
        if self.open.len() == GROUPS_MAX
            && let Some((_, oldest)) = self.ends.first().cloned()
        {
            self.end(&oldest);
        }
        let until = self.now.checked_add(self.window).unwrap_or(Timestamp::MAX);
        self.ends.insert((until, thread.to_owned()));
        let group = Group {
            thread: thread.to_owned(),
            until,
            sources: Vec::new(),
        };
        self.open.insert(thread.to_owned(), group);
    }

    fn end(&mut self, thread: &str) {
        if let Some(group) = self.open.remove(thread) {
            self.ends.remove(&(group.until, group.thread.clone()));
            if group.sources.len() >= self.at_least {
                self.over.push_back(group);
            }
        }
    }

    /// Ends the groups whose window is over.
    fn close(&mut self, now: Timestamp) {
        while let Some((_, thread)) = self.ends.first().filter(|(until, _)| *until <= now).cloned() {
            self.end(&thread);
        }
    }

    /// When the next group is over.
    fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(until, _)| *until)
    }
}

impl Fold for Groups {
    fn reach(&self) -> Option<Duration> {
        None
    }

    fn forget(&mut self) {}

    fn past(&mut self, event: &Received) {
        self.take(event);
    }
}

impl Source {
    fn of(event: &Received) -> Self {
        let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let says = text("text")
            .or_else(|| text("pattern"))
            .or_else(|| text("reason"))
            .unwrap_or_default();
        Self {
            stream_seq: event.stream_seq,
            stored: event.stored,
            event: event.name().to_owned(),
            instance: event.envelope.instance.clone(),
            session: event.envelope.session.clone(),
            says: cut(says, QUOTE_MAX),
        }
    }
}

/// The threads an event belongs to; one that names none, to that of its conflict's key, its session or its instance.
fn threads(event: &Received) -> Vec<String> {
    let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let text = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let mut threads: Vec<String> = Vec::new();
    let listed = body.get("threads").and_then(Value::as_array);
    let named = listed.into_iter().flatten().map(|thread| match thread {
        Value::String(name) => cut(name, THREAD_MAX),
        other => cut(&other.to_string(), THREAD_MAX),
    });
    for thread in text("thread")
        .map(|name| cut(name, THREAD_MAX))
        .into_iter()
        .chain(named)
    {
        if threads.len() < THREADS_MAX && !threads.contains(&thread) {
            threads.push(thread);
        }
    }
    if threads.is_empty() {
        let envelope = &event.envelope;
        let own = text("key")
            .or(envelope.session.as_deref())
            .or(envelope.instance.as_deref());
        threads.push(cut(own.unwrap_or("unnamed"), THREAD_MAX));
    }
    threads
}

fn cut(text: &str, letters_max: usize) -> String {
    match text.char_indices().nth(letters_max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// How mission control works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The durable reader's name.
    pub name: String,
    /// Where it begins the very first time.
    pub start: Start,
    /// How long a group is open.
    pub window: Duration,
    /// Groups of fewer events are let go of.
    pub at_least: usize,
}

/// A synthesis that the mesh was told of.
#[derive(Clone, Debug)]
pub struct Synthesis {
    /// What it was drawn from.
    pub group: Group,
    /// Where it is stored.
    pub stream_seq: u64,
    /// Whether it was stored now, and not before or by somebody else.
    pub is_new: bool,
}

/// Mission control at work.
pub struct MissionControl {
    mesh: Mesh,
    options: Options,
    follow: Follow,
    groups: Groups,
    told: Told,
    /// What was told of and not yet returned.
    told_of: Vec<Synthesis>,
    /// What the server's clock said, and when.
    clock: Option<(Timestamp, Instant)>,
}

/// Up to where a durable reader has settled events, and where it began.
struct Settled {
    place: u64,
    stored: Timestamp,
    first: Timestamp,
    first_place: u64,
}

/// The parts of a synthesis that say what is done.
#[derive(Default, Deserialize)]
struct Done {
    #[serde(default)]
    thread: String,
    #[serde(default)]
    sources: Vec<Value>,
}

impl Mesh {
    /// Takes up mission control where it was left.
    pub async fn mission_control(&self, options: Options) -> Result<MissionControl, Error> {
        let mut patterns = Vec::new();
        for event in SOURCES {
            patterns.push(self.catalog.get(event)?.subject.clone());
        }
        let wanted = Wanted {
            name: options.name.clone(),
            patterns,
            start: options.start,
            filter: Filter::default(),
        };
        let mut control = MissionControl {
            mesh: self.clone(),
            follow: self.follow(wanted).await?,
            groups: Groups::new(options.window, options.at_least),
            told: Told::new(SYNTHESIS),
            told_of: Vec::new(),
            clock: None,
            options,
        };
        control.take_up().await?;
        Ok(control)
    }

    /// What syntheses that were stored from `since` on name as their sources.
    async fn named(&self, since: Timestamp) -> Result<HashSet<(String, u64)>, Error> {
        let subject = self.catalog.get(SYNTHESIS)?.subject.clone();
        let mut named = HashSet::new();
        let mut syntheses = self.read(Selection::of(vec![subject], Start::At(since))).await?;
        while let Some(event) = syntheses.next().await? {
            let done: Done = serde_json::from_slice(&event.body).unwrap_or_default();
            for source in &done.sources {
                let place = source.get("stream_seq").unwrap_or(source);
                named.extend(place.as_u64().map(|place| (done.thread.clone(), place)));
            }
        }
        Ok(named)
    }
}

impl MissionControl {
    /// Opens the groups again that were open when the last event was settled.
    async fn take_up(&mut self) -> Result<(), Error> {
        let Some(settled) = self.settled(&self.options.name).await? else {
            return Ok(());
        };
        let since = settled
            .stored
            .checked_sub(self.options.window)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        self.groups.name(self.mesh.named(since).await?);
        let selection = Selection::of(self.follow.patterns().to_vec(), Start::At(since));
        let mut events = self.mesh.read(selection).await?;
        while let Some(event) = events
            .next()
            .await?
            .filter(|event| event.stream_seq <= settled.place)
        {
            if event.stored >= settled.first && event.stream_seq >= settled.first_place {
                self.groups.take(&event);
            }
        }
        // What was over by then was told of before that event was settled.
        self.groups.over.clear();
        self.groups.place = self.groups.place.max(settled.place);
        self.groups.now = self.groups.now.max(settled.stored);
        self.follow.passed(settled.place);
        Ok(())
    }

    /// What the durable reader has settled; none if that is nothing.
    async fn settled(&self, name: &str) -> Result<Option<Settled>, Error> {
        let stream = self.mesh.stream().await?;
        let info = stream.consumer_info(name).await;
        let info = info.while_doing(format!("cannot look at durable `{name}`"))?;
        if info.ack_floor.consumer_sequence == 0 {
            return Ok(None);
        }
        let (mut first, mut first_place) = (Timestamp::MIN, 0);
        match info.config.deliver_policy {
            DeliverPolicy::New => first = timestamp(info.created.unix_timestamp_nanos()),
            DeliverPolicy::ByStartTime { start_time } => first = timestamp(start_time.unix_timestamp_nanos()),
            DeliverPolicy::ByStartSequence { start_sequence } => first_place = start_sequence,
            _ => {}
        }
        let place = info.ack_floor.stream_sequence;
        // If that event was removed, the next one that is there is no earlier.
        let after = Start::After(place.saturating_sub(1));
        let selection = Selection {
            headers_only: true,
            ..Selection::of(vec![catalog::ALL.to_owned()], after)
        };
        let next = self.mesh.read(selection).await?.next().await?;
        Ok(next.map(|event| Settled {
            place,
            stored: event.stored,
            first,
            first_place,
        }))
    }

    /// The next syntheses, told of. May be dropped at any await, and called again after an error that is passing: what was
    /// not settled comes again.
    pub async fn next(&mut self) -> Result<Vec<Synthesis>, Error> {
        loop {
            let wait = self.wait().await;
            // Both may be given up for the other: an event that was not taken in comes again.
            let delivery = tokio::select! {
                delivery = self.follow.durable.next() => Some(delivery),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => None,
            };
            match delivery {
                Some(delivery) => self.delivered(&delivery).await?,
                None => self.by_the_clock().await?,
            }
            if !self.told_of.is_empty() {
                return Ok(std::mem::take(&mut self.told_of));
            }
        }
    }

    /// How long until the next group is over, as far as one can tell from here.
    async fn wait(&mut self) -> Option<Duration> {
        if !self.groups.over.is_empty() {
            return Some(PAUSE);
        }
        let until = self.groups.next_end()?;
        if self.clock.is_none_or(|(_, at)| at.elapsed() > CLOCK_AGE_MAX) {
            let Ok(now) = self.mesh.server_now().await else {
                return Some(PAUSE);
            };
            self.clock = Some((now, Instant::now()));
        }
        let (told, at) = self.clock?;
        let left = until.duration_since(told) + MARGIN;
        let left = Duration::try_from(left).unwrap_or_default();
        Some(left.saturating_sub(at.elapsed()).max(PAUSE_MIN))
    }

    async fn delivered(&mut self, delivery: &Delivery) -> Result<(), Error> {
        if self.follow.begins() && delivery.event.consumer_seq > 1 {
            // Nothing was settled when we began, and what was since then is with others who share the reader.
            delivery.while_working(self.take_up()).await?;
        }
        self.follow.fill(delivery, &mut self.groups).await?;
        self.groups.take(&delivery.event);
        self.follow.passed(self.groups.place);
        delivery.while_working(self.tell()).await?;
        self.follow.durable.ack(delivery).await;
        Ok(())
    }

    /// Ends what is over by the server's clock, once all that was stored by then is in.
    async fn by_the_clock(&mut self) -> Result<(), Error> {
        let now = self.mesh.server_now().await?;
        self.clock = Some((now, Instant::now()));
        let now = now.checked_sub(MARGIN).unwrap_or(Timestamp::MIN);
        if self.groups.next_end().is_some_and(|until| until <= now) {
            self.follow.read_on(&mut self.groups).await?;
            self.groups.close(now);
        }
        self.tell().await
    }

    /// Tells of what is over. What could not be told of stays.
    async fn tell(&mut self) -> Result<(), Error> {
        while let Some(group) = self.groups.over.front() {
            let since = group.sources[0].stored;
            let telling = self
                .told
                .tell(&self.mesh, &group.body(), &group.id(), since)
                .await?;
            self.told_of
                .extend(self.groups.over.pop_front().map(|group| Synthesis {
                    group,
                    stream_seq: telling.stream_seq,
                    is_new: telling.is_new,
                }));
        }
        Ok(())
    }
}

impl Synthesis {
    /// One line for programs.
    pub fn json(&self) -> Value {
        let mut line = self.group.body();
        line["synthesis"] = self.stream_seq.into();
        line["new"] = self.is_new.into();
        line
    }
}

#[cfg(test)]
#[path = "mission_tests.rs"]
mod tests;
