//! The fold of events into conflicts: no clock of its own, bounded memory.
//!
//! For each rule, of two events on one key from one base:
//! - they are at odds if they are of two parties, not more than a window apart, have different outcomes, and neither
//!   party had seen the other's event;
//! - only the latest event of each party on a key and base counts: what it said before, it has taken back;
//! - the same two parties at odds over the same two outcomes are one conflict, told of once, unless they were not at odds for a
//!   whole window.
//!
//! A party has seen what it named, in that event or another one within a window before: a place in the stream names all up to
//! there, a `Mesh-Seq` all of its instance up to there. A session has seen what the session it came from had said. Time is
//! the server's, taken as never going back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::conflict::{Conflict, Said, Side, bounded, digest};
use super::rules::{Between, Rule, Rules};
use crate::mesh::Received;

/// What all rules may keep; the oldest events are forgotten before their time then.
const BYTES_MAX: usize = 64 << 20;
/// Keys that one event can act on; those beyond are not looked at.
const KEYS_MAX: usize = 1000;
/// Instances that one event can name as seen.
const NAMES_MAX: usize = 256;
/// Others that one event is held against on one key, the latest first.
const OTHERS_MAX: usize = 16;
/// Conflicts that one event can make.
const CONFLICTS_MAX: usize = 100;
/// Conflicts that are remembered so as not to tell of them again.
const TOLD_MAX: usize = 100_000;
/// What an event takes besides what is counted, roughly: its names are bounded.
const ACT_BYTES: usize = 1000;
/// What a key takes besides its text, or a name with it, roughly.
const PART_BYTES: usize = 150;

/// Finds conflicts in events that are given in the order of the stream.
#[derive(Debug)]
pub struct Detector {
    rules: Vec<Watch>,
    now: Timestamp,
    bytes_max: usize,
}

impl Detector {
    /// One that has seen nothing.
    pub fn new(rules: &Rules) -> Self {
        Self::with_limit(rules, BYTES_MAX)
    }

    fn with_limit(rules: &Rules, bytes_max: usize) -> Self {
        Self {
            rules: rules.rules().iter().cloned().map(Watch::new).collect(),
            now: Timestamp::MIN,
            bytes_max: bytes_max / rules.rules().len().max(1),
        }
    }

    /// Takes in the next event; the conflicts it makes.
    pub fn take(&mut self, event: &Received) -> Vec<Conflict> {
        self.now = self.now.max(event.stored);
        let mut conflicts = Vec::new();
        let watching = |watch: &&mut Watch| watch.rule.subjects.contains(&event.subject);
        let mut watching = self.rules.iter_mut().filter(watching).peekable();
        if watching.peek().is_none() {
            return conflicts;
        }
        let Ok(body @ Value::Object(_)) = serde_json::from_slice(&event.body) else {
            return conflicts;
        };
        for watch in watching {
            watch.take(event, &body, self.now, self.bytes_max, &mut conflicts);
        }
        conflicts.truncate(CONFLICTS_MAX);
        conflicts
    }
}

/// What is acted on, and from which base.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    key: Said,
    base: Option<Said>,
}

/// An event as a rule sees it.
#[derive(Debug)]
struct Act {
    at: Timestamp,
    party: String,
    side: Side,
    parent: Option<String>,
    thread: Option<String>,
    /// Tells outcomes from each other that read the same.
    outcome: Option<Said>,
    places: Vec<Place>,
    seen: Seen,
}

impl Act {
    /// Whether whoever said this had seen the other.
    fn saw(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.side, &other.side);
        let named = || {
            let place = self.seen.of.get(&theirs.instance)?;
            Some(theirs.seq? <= *place)
        };
        let is_parent = || self.parent.is_some() && self.parent == theirs.session;
        theirs.stream_seq <= self.seen.stream
            || named() == Some(true)
            || (is_parent() && theirs.stream_seq < mine.stream_seq)
    }

    fn cost(&self) -> usize {
        let places: usize = self
            .places
            .iter()
            .map(|place| PART_BYTES + 2 * (place.key.cost() + place.base.as_ref().map_or(0, Said::cost)))
            .sum();
        let outcome = self.outcome.as_ref().map_or(0, |outcome| 2 * outcome.cost());
        // Names are kept here, and with the party.
        ACT_BYTES + places + outcome + 3 * self.party.len() + 2 * PART_BYTES * self.seen.of.len()
    }
}

/// What a party had seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// All up to this place in the stream.
    stream: u64,
    /// All of an instance up to this one of its events.
    of: BTreeMap<String, u64>,
}

/// The largest of the numbers that are still in a window.
#[derive(Debug, Default)]
struct Sliding {
    /// Each smaller than the one before: what is smaller and older than another never counts again.
    numbers: VecDeque<(Timestamp, u64)>,
}

impl Sliding {
    fn push(&mut self, at: Timestamp, number: u64) {
        while self.numbers.back().is_some_and(|(_, last)| *last <= number) {
            self.numbers.pop_back();
        }
        self.numbers.push_back((at, number));
    }

    fn forget(&mut self, until: Timestamp) {
        while self.numbers.front().is_some_and(|(at, _)| *at <= until) {
            self.numbers.pop_front();
        }
    }

    fn largest(&self) -> Option<u64> {
        self.numbers.front().map(|(_, number)| *number)
    }
}

/// What one party has named in the window.
#[derive(Debug, Default)]
struct Party {
    /// Its events in the window.
    events: usize,
    stream: Sliding,
    of: BTreeMap<String, Sliding>,
}

impl Party {
    fn name(&mut self, at: Timestamp, seen: Seen) {
        if seen.stream > 0 {
            self.stream.push(at, seen.stream);
        }
        for (instance, seq) in seen.of {
            self.of.entry(instance).or_default().push(at, seq);
        }
    }

    fn forget(&mut self, until: Timestamp) {
        self.stream.forget(until);
        self.of.retain(|_, named| {
            named.forget(until);
            named.largest().is_some()
        });
    }

    fn seen(&self) -> Seen {
        let of = self
            .of
            .iter()
            .filter_map(|(instance, named)| Some((instance.clone(), named.largest()?)));
        Seen {
            stream: self.stream.largest().unwrap_or(0),
            of: of.collect(),
        }
    }
}

/// A conflict apart from the events that show it, where and who says what, as a digest.
type Matter = String;

/// One rule at work.
#[derive(Debug)]
struct Watch {
    rule: Rule,
    window: SignedDuration,
    /// All events in the window, in order.
    acts: VecDeque<Arc<Act>>,
    bytes: usize,
    /// The latest of each party.
    latest: HashMap<Place, BTreeMap<String, Arc<Act>>>,
    parties: HashMap<String, Party>,
    /// When two were last at odds.
    told: HashMap<Matter, Timestamp>,
    told_order: VecDeque<(Timestamp, Matter)>,
}

impl Watch {
    fn new(rule: Rule) -> Self {
        Self {
            window: SignedDuration::try_from(rule.window).unwrap_or(SignedDuration::MAX),
            rule,
            acts: VecDeque::new(),
            bytes: 0,
            latest: HashMap::new(),
            parties: HashMap::new(),
            told: HashMap::new(),
            told_order: VecDeque::new(),
        }
    }

    fn take(
        &mut self,
        event: &Received,
        body: &Value,
        now: Timestamp,
        bytes_max: usize,
        conflicts: &mut Vec<Conflict>,
    ) {
        self.expire(now);
        let Some(instance) = sender(event, body) else {
            return;
        };
        let session = event.envelope.session.clone().map(bounded);
        let party = match (self.rule.between, &session) {
            (Between::Sessions, Some(session)) => format!("{instance}/{session}"),
            _ => instance.clone(),
        };
        let known = self.parties.entry(party.clone()).or_default();
        known.events += 1;
        known.name(now, named(&self.rule, body));
        let outcome = {
            let values: Vec<_> = self.rule.outcome.iter().map(|path| path.value(body)).collect();
            Said::all(&values)
        };
        let act = Arc::new(Act {
            at: now,
            seen: known.seen(),
            places: outcome
                .as_ref()
                .map(|_| places(&self.rule, body))
                .unwrap_or_default(),
            party,
            side: Side {
                stream_seq: event.stream_seq,
                stored: event.stored,
                event: bounded(event.name().to_owned()),
                instance,
                session,
                seq: event.envelope.seq,
                outcome: outcome
                    .as_ref()
                    .map(|outcome| outcome.shown.clone())
                    .unwrap_or_default(),
            },
            parent: event.envelope.parent.clone().map(bounded),
            thread: body
                .get("thread")
                .and_then(Value::as_str)
                .map(|thread| bounded(thread.to_owned())),
            outcome,
        });
        for place in &act.places {
            self.hold_against(&act, place, conflicts);
            let parties = self.latest.entry(place.clone()).or_default();
            parties.insert(act.party.clone(), act.clone());
        }
        self.bytes += act.cost();
        self.acts.push_back(act);
        while self.bytes > bytes_max {
            self.pop();
        }
    }

    /// Holds an event against the latest of the others on the same key and base.
    fn hold_against(&mut self, act: &Arc<Act>, place: &Place, conflicts: &mut Vec<Conflict>) {
        let others = self.latest.get(place).into_iter().flat_map(BTreeMap::values);
        let at_odds = |other: &&Arc<Act>| {
            other.party != act.party && other.outcome != act.outcome && !other.saw(act) && !act.saw(other)
        };
        let mut others: Vec<Arc<Act>> = others.filter(at_odds).cloned().collect();
        others.sort_by_key(|other| std::cmp::Reverse(other.side.stream_seq));
        others.truncate(OTHERS_MAX);
        for other in others {
            if conflicts.len() >= CONFLICTS_MAX || self.is_told(act.at, matter(place, &other, act)) {
                continue;
            }
            let base = place.base.as_ref();
            conflicts.push(Conflict {
                rule: self.rule.name.clone(),
                key: place.key.shown.clone(),
                base: base.map(|base| base.shown.clone()),
                thread: other.thread.clone().or_else(|| act.thread.clone()),
                place: digest(&[&place.key.id, base.map_or("", |base| &base.id)]),
                first: other.side.clone(),
                second: act.side.clone(),
            });
        }
    }

    /// Whether the two were at odds over it within the window; they are now.
    fn is_told(&mut self, now: Timestamp, matter: Matter) -> bool {
        self.told_order.push_back((now, matter.clone()));
        let told = self.told.insert(matter, now).is_some();
        if self.told_order.len() > TOLD_MAX {
            self.forget_told();
        }
        told
    }

    fn forget_told(&mut self) {
        if let Some((at, matter)) = self.told_order.pop_front()
            && self.told.get(&matter) == Some(&at)
        {
            self.told.remove(&matter);
        }
    }

    /// Lets go of what is more than a window old.
    fn expire(&mut self, now: Timestamp) {
        let since = now.checked_sub(self.window).unwrap_or(Timestamp::MIN);
        while self.acts.front().is_some_and(|act| act.at < since) {
            self.pop();
        }
        while self.told_order.front().is_some_and(|(at, _)| *at < since) {
            self.forget_told();
        }
    }

    /// Forgets the oldest event.
    fn pop(&mut self) {
        let Some(act) = self.acts.pop_front() else {
            return;
        };
        self.bytes -= act.cost();
        for place in &act.places {
            if let Some(parties) = self.latest.get_mut(place) {
                if parties
                    .get(&act.party)
                    .is_some_and(|latest| Arc::ptr_eq(latest, &act))
                {
                    parties.remove(&act.party);
                }
                if parties.is_empty() {
                    self.latest.remove(place);
                }
            }
        }
        if let Some(party) = self.parties.get_mut(&act.party) {
            party.events -= 1;
            party.forget(act.at);
            if party.events == 0 {
                self.parties.remove(&act.party);
            }
        }
    }
}

fn matter(place: &Place, one: &Act, other: &Act) -> Matter {
    let side = |act: &Act| {
        let outcome = act.outcome.as_ref().map_or("", |outcome| &outcome.id);
        digest(&[&act.party, outcome])
    };
    let mut sides = [side(one), side(other)];
    sides.sort();
    let base = place.base.as_ref().map_or("", |base| &base.id);
    digest(&[&place.key.id, base, &sides[0], &sides[1]])
}

/// Who said it: the envelope, else the body of those that have no envelope.
fn sender(event: &Received, body: &Value) -> Option<String> {
    let instance = event.envelope.instance.as_deref();
    let instance = instance.or_else(|| body.get("instance")?.as_str())?;
    (!instance.is_empty()).then(|| bounded(instance.to_owned()))
}

/// What an event acts on. An object in a list stands for its `id`, if it has one.
fn places(rule: &Rule, body: &Value) -> Vec<Place> {
    let base = rule.base.as_ref().and_then(|path| path.value(body)).map(Said::of);
    let keys: Vec<Said> = match rule.key.as_slice() {
        [path] => {
            let values = path.values(body, KEYS_MAX).into_iter();
            let key = |value: &Value| {
                let id = value.get("id").filter(|id| id.is_string() || id.is_number());
                Said::of(id.filter(|_| path.is_many()).unwrap_or(value))
            };
            values.map(key).collect()
        }
        paths => {
            let values: Option<Vec<_>> = paths.iter().map(|path| path.value(body).map(Some)).collect();
            values.and_then(|values| Said::all(&values)).into_iter().collect()
        }
    };
    let mut places: Vec<Place> = Vec::with_capacity(keys.len());
    let mut known = std::collections::HashSet::new();
    for key in keys {
        if known.insert(key.clone()) {
            places.push(Place {
                key,
                base: base.clone(),
            });
        }
    }
    places
}

/// What an event names as seen.
fn named(rule: &Rule, body: &Value) -> Seen {
    let mut seen = Seen::default();
    for value in rule.seen.iter().filter_map(|path| path.value(body)) {
        match value {
            Value::Number(place) => seen.stream = seen.stream.max(place.as_u64().unwrap_or(0)),
            Value::Object(instances) => {
                for (instance, seq) in instances {
                    if seen.of.len() < NAMES_MAX
                        && let Some(seq) = seq.as_u64()
                    {
                        let named = seen.of.entry(bounded(instance.clone())).or_default();
                        *named = seq.max(*named);
                    }
                }
            }
            _ => {}
        }
    }
    seen
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
