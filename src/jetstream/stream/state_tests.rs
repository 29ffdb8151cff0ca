//! A stream's state against a plain list of messages; and what it looks at to find things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};

use proptest::prelude::*;

use crate::protocol::{headers, subject};
use crate::store::{Options, Store};

use super::super::ask::Ttl;
use super::super::taking::Taking;
use super::*;

const SECOND: i64 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq)]
struct Message {
    subject: String,
    time: i64,
    ttl: Option<i64>,
    pinned: bool,
}

type Model = BTreeMap<u64, Message>;

fn config(change: impl FnOnce(&mut StreamConfig)) -> Arc<StreamConfig> {
    let mut config = StreamConfig {
        name: "S".to_owned(),
        subjects: vec![">".to_owned()],
        allow_msg_ttl: true,
        ..StreamConfig::default()
    };
    change(&mut config);
    Arc::new(config)
}

/// A state over a memory log, which lands what is committed at once.
struct Rig {
    state: State,
    model: Model,
    now: i64,
}

impl Rig {
    fn new(change: impl FnOnce(&mut StreamConfig)) -> Self {
        Self {
            state: State::new(config(change), Log::memory()),
            model: Model::new(),
            now: SECOND,
        }
    }

    fn publish(&mut self, subject: &str, ttl: Option<Ttl>) {
        let seq = publish(&mut self.state, subject, ttl, self.now);
        let (ttl, pinned) = match ttl {
            Some(Ttl::After(ns)) => (Some(self.now + ns), false),
            Some(Ttl::Never) => (None, true),
            None => (None, false),
        };
        let message = Message {
            subject: subject.to_owned(),
            time: self.now,
            ttl,
            pinned,
        };
        self.model.insert(seq, message);
    }

    fn commit(&mut self) {
        let number = self.state.start_commit();
        self.state.log.commit(Box::new(|result| result.unwrap()));
        self.state.land_commit(number, true);
    }

    fn expire(&mut self) {
        while self.state.expire(self.now).unwrap() {}
        let (max_age, now) = (self.state.config.max_age, self.now);
        self.model.retain(|_, message| {
            let is_old = max_age > 0 && message.time <= now - max_age && !message.pinned;
            !is_old && message.ttl.is_none_or(|ttl| ttl > now)
        });
    }

    fn walked(&self) -> u64 {
        self.state.walked.replace(0)
    }

    fn check(&mut self) {
        let mut seen = Vec::new();
        self.state
            .walk(0, |met| {
                seen.push((met.seq, String::from_utf8(met.subject.to_vec()).unwrap()));
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: Vec<_> = self
            .model
            .iter()
            .map(|(seq, message)| (*seq, message.subject.clone()))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(self.state.messages, expected.len() as u64);
        assert_eq!(self.state.index.messages(), expected.len() as u64);
        let first = expected.first().map_or(self.state.last_seq + 1, |first| first.0);
        assert_eq!(self.state.first().0, first);
        let with_ttl = self.model.values().filter(|message| message.ttl.is_some());
        assert_eq!(self.state.expiries.len(), with_ttl.count());
    }
}

/// As a message comes in.
fn publish(state: &mut State, subject: &str, ttl: Option<Ttl>, now: i64) -> u64 {
    let shown = match ttl {
        Some(Ttl::After(ns)) => format!("{}s", ns / SECOND),
        Some(Ttl::Never) => "never".to_owned(),
        None => String::new(),
    };
    let block = if shown.is_empty() {
        Vec::new()
    } else {
        headers::build("", [("Nats-TTL", &*shown)])
    };
    let seq = state.append(subject.as_bytes(), &block, b"", now).unwrap();
    match ttl {
        Some(Ttl::After(ns)) => state.expiries.insert((now + ns, seq)),
        Some(Ttl::Never) => drop(state.pinned.insert(seq)),
        None => {}
    }
    seq
}

fn ttl() -> impl Strategy<Value = Option<Ttl>> {
    prop_oneof![
        3 => Just(None),
        2 => (1i64..20).prop_map(|secs| Some(Ttl::After(secs * SECOND))),
        2 => Just(Some(Ttl::Never)),
    ]
}

fn subject_of() -> impl Strategy<Value = String> {
    ("[a-c]", "[a-c]").prop_map(|(one, two)| format!("{one}.{two}"))
}

#[derive(Clone, Debug)]
enum Do {
    Publish(String, Option<Ttl>),
    Commit,
    Wait(i64),
    Remove(usize),
    Trim(u64),
    Purge(String, u64, u64),
}

fn step() -> impl Strategy<Value = Do> {
    let filter = prop_oneof![
        subject_of(),
        Just("a.*".to_owned()),
        Just("*.b".to_owned()),
        Just(">".to_owned()),
    ];
    prop_oneof![
        8 => (subject_of(), ttl()).prop_map(|(subject, ttl)| Do::Publish(subject, ttl)),
        4 => Just(Do::Commit),
        2 => (0i64..4).prop_map(|secs| Do::Wait(secs * SECOND)),
        2 => any::<usize>().prop_map(Do::Remove),
        1 => (0u64..30).prop_map(Do::Trim),
        2 => (filter, 0u64..100, 0u64..3).prop_map(|(filter, below, keep)| Do::Purge(filter, below, keep)),
    ]
}

/// Does a step; says what has gone.
fn apply(state: &mut State, model: &mut Model, step: &Do) {
    match step {
        Do::Remove(pick) if !model.is_empty() => {
            let seq = *model.keys().nth(pick % model.len()).unwrap();
            let gone = model.remove(&seq).unwrap();
            assert!(state.remove(seq, gone.subject.as_bytes()).unwrap());
        }
        Do::Trim(keep) => {
            state.trim_front(|messages, _| messages > *keep).unwrap();
            while model.len() as u64 > *keep {
                model.pop_first();
            }
        }
        Do::Purge(filter, below, keep) => {
            let below = if *below < 80 { *below } else { u64::MAX };
            let matching: Vec<_> = model
                .iter()
                .filter(|(_, message)| subject::matches(filter.as_bytes(), message.subject.as_bytes()))
                .map(|(seq, _)| *seq)
                .collect();
            let excess = matching.len().saturating_sub(*keep as usize);
            let gone: Vec<_> = matching[..excess].iter().filter(|&&seq| seq < below).collect();
            let purged = state.purge_subject(filter.as_bytes(), below, *keep).unwrap();
            assert_eq!(purged, gone.len() as u64, "{filter} {below} {keep}");
            for seq in gone {
                model.remove(seq);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn agrees_with_a_list(steps in prop::collection::vec(step(), 1..120), keep in any::<bool>(), max_age in 0i64..12) {
        let mut rig = Rig::new(|config| {
            config.max_msgs_per_subject = if keep { 1000 } else { -1 };
            config.max_age = max_age * SECOND;
        });
        for step in steps {
            match &step {
                Do::Publish(subject, ttl) => rig.publish(subject, *ttl),
                Do::Commit => rig.commit(),
                Do::Wait(time) => {
                    rig.commit();
                    rig.now += time;
                    rig.expire();
                    prop_assert!(rig.state.next_expiry() > rig.now);
                }
                other => apply(&mut rig.state, &mut rig.model, other),
            }
            rig.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What a checkpoint says is what was there when it was begun, whatever comes and goes meanwhile; and a stream that
    /// is opened again has it all.
    #[test]
    fn a_checkpoint_is_what_was_there_when_it_was_begun(
        steps in prop::collection::vec(step(), 1..80),
        keep in any::<bool>(),
        every in 1usize..12,
        piece in 1usize..4,
    ) {
        checkpoints(&steps, keep, every, piece);
    }
}

/// What the log shows: sequences by subject, what goes by its own time, what is pinned.
type Shown = (BTreeMap<Vec<u8>, Vec<u64>>, Vec<(i64, u64)>, Vec<u64>);

fn shown(log: &Log, keep: &State) -> Shown {
    let (mut subjects, mut expiries, mut pinned): Shown = Shown::default();
    log.scan(0, u64::MAX, |record| {
        subjects
            .entry(record.subject.to_vec())
            .or_default()
            .push(record.seq);
        match keep.time_to_live(record) {
            Some(Ttl::After(ns)) => expiries.push((record.time_ns + ns, record.seq)),
            Some(Ttl::Never) => pinned.push(record.seq),
            None => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    expiries.sort_unstable();
    (subjects, expiries, pinned)
}

fn agrees(state: &State, (subjects, expiries, pinned): &Shown) {
    has_subjects(state, subjects);
    assert!(state.expiries.range((i64::MIN, 0)).eq(expiries.iter().copied()));
    assert!(state.pinned.iter().eq(pinned));
}

fn has_subjects(state: &State, subjects: &BTreeMap<Vec<u8>, Vec<u64>>) {
    let mut found = BTreeMap::new();
    state.index.matching(b">", |subject, known| {
        found.insert(subject.to_vec(), known);
        true
    });
    assert!(found.keys().eq(subjects.keys()), "{found:?} {subjects:?}");
    for (subject, seqs) in subjects {
        let known = found[subject];
        let (first, last) = (seqs[0], seqs[seqs.len() - 1]);
        assert_eq!(known.count, seqs.len() as u64, "{known:?} {seqs:?}");
        assert!(
            known.first <= first && (!known.first_exact || known.first == first),
            "{known:?} {seqs:?}"
        );
        assert!(
            known.last >= last && (!known.last_exact || known.last == last),
            "{known:?} {seqs:?}"
        );
        if let Some(kept) = state.index.sequences_from(subject, 0) {
            assert!(known.first_exact && known.last_exact);
            assert_eq!(&kept.collect::<Vec<_>>(), seqs);
        }
    }
}

/// A checkpoint on its way, and what was there when it was begun.
struct Begun(Taking, BTreeMap<Vec<u8>, Vec<u64>>);

impl Begun {
    fn begin(state: &mut State, model: &Model) -> Self {
        let mut subjects: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        for (seq, message) in model {
            let seqs = subjects.entry(message.subject.clone().into_bytes());
            seqs.or_default().push(*seq);
        }
        Self(state.begin_checkpoint().unwrap().unwrap(), subjects)
    }

    /// Goes on; all is there at the end, as it was at the beginning.
    fn go_on(&mut self, state: &mut State, count: usize) -> Option<(u64, Vec<u8>)> {
        if !state.take_more(&mut self.0, count).unwrap() {
            return None;
        }
        let index = state.index.frozen().unwrap();
        let taking = std::mem::take(&mut self.0);
        let number = taking.number();
        let bytes = taking.encode(&index);
        let mut again = State::new(state.config.clone(), state.log.clone());
        again.decode_checkpoint(&bytes, state.last_seq).unwrap();
        has_subjects(&again, &self.1);
        Some((number, bytes))
    }
}

fn checkpoints(steps: &[Do], keep: bool, every: usize, piece: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).unwrap();
    let log = store.create_stream(b"".to_vec()).unwrap();
    let config = config(|config| config.max_msgs_per_subject = if keep { 1000 } else { -1 });
    let state = Arc::new(Mutex::new(State::new(config.clone(), log.clone())));
    let (mut model, mut now, mut begun) = (Model::new(), SECOND, None);
    let commit = || {
        let number = state.lock().unwrap().start_commit();
        let (state, (tell, told)) = (state.clone(), mpsc::channel());
        log.commit(Box::new(move |result| {
            state.lock().unwrap().land_commit(number, true);
            tell.send(result).ok();
        }));
        told
    };
    for (at, step) in steps.iter().enumerate() {
        match step {
            Do::Publish(subject, ttl) => {
                let seq = publish(&mut state.lock().unwrap(), subject, *ttl, now);
                let (subject, ttl, pinned) = (subject.clone(), None, false);
                model.insert(
                    seq,
                    Message {
                        subject,
                        time: now,
                        ttl,
                        pinned,
                    },
                );
                now += SECOND;
            }
            Do::Commit => drop(commit()),
            other => apply(&mut state.lock().unwrap(), &mut model, other),
        }
        let mut held = state.lock().unwrap();
        let is_due = begun.is_none() && at % every == 0;
        let begun_now = is_due.then(|| Begun::begin(&mut held, &model));
        let taken = begun
            .as_mut()
            .and_then(|begun: &mut Begun| begun.go_on(&mut held, piece));
        drop(held);
        begun = begun_now.or(begun);
        if let Some((number, bytes)) = taken {
            commit().recv().unwrap().unwrap();
            assert!(log.finish_checkpoint(number, bytes));
            assert!(log.checkpoint().unwrap().unwrap().removed.is_some());
            begun = None;
        }
    }
    commit().recv().unwrap().unwrap();
    let id = log.stream_id();
    store.close().unwrap();
    let store = Store::open(Options::new(dir.path())).unwrap();
    let log = store.open_log(id).unwrap();
    let again = State::recover(config, log.clone(), now).unwrap();
    agrees(&again, &shown(&log, &again));
    assert_eq!(
        (again.messages, again.index.messages()),
        (model.len() as u64, model.len() as u64)
    );
    store.close().unwrap();
}

#[test]
fn an_index_that_is_made_anew_ends_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).unwrap();
    let log = store.create_stream(b"".to_vec()).unwrap();
    let mut state = State::new(config(|_| {}), log.clone());
    publish(&mut state, "a", None, SECOND);
    publish(&mut state, "b", None, SECOND);
    let mut taking = state.begin_checkpoint().unwrap().unwrap();
    assert_eq!(state.take_more(&mut taking, 1), Some(false));
    let next = state.last_seq + 1;
    assert_eq!(state.remove_below(next).unwrap(), 2);
    assert_eq!(state.take_more(&mut taking, 1), None);
    log.abandon_checkpoint(taking.number());
    let taking = state.begin_checkpoint().unwrap().unwrap();
    // One that is begun while another is under way takes its place.
    let mut other = state.begin_checkpoint().unwrap().unwrap();
    while !state.take_more(&mut other, 1).unwrap() {}
    let (tell, told) = mpsc::channel();
    log.commit(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
    assert!(!log.finish_checkpoint(taking.number(), "of before"));
    assert!(log.finish_checkpoint(other.number(), other.encode(&state.index.frozen().unwrap())));
    store.close().unwrap();
}

#[test]
fn what_is_pinned_costs_nothing() {
    let mut rig = Rig::new(|config| config.max_age = SECOND);
    for _ in 0..500 {
        rig.publish("p", Some(Ttl::Never));
    }
    rig.publish("q", None);
    rig.commit();
    rig.state.next_expiry();
    assert!(rig.walked() < 510);
    rig.now += 10 * SECOND;
    rig.expire();
    rig.state.next_expiry();
    rig.check();
    rig.walked();
    for _ in 0..100 {
        rig.publish("q", None);
        rig.commit();
        assert_eq!(rig.state.next_expiry(), rig.now + SECOND);
        rig.now += 2 * SECOND;
        rig.expire();
        rig.state.next_expiry();
    }
    assert!(rig.walked() < 600);
    rig.check();
}

#[test]
fn a_subject_is_purged_without_a_walk() {
    for limit in [-1, 1, 5] {
        let mut rig = Rig::new(|config| config.max_msgs_per_subject = limit);
        for n in 0..1000 {
            rig.publish(&format!("k.{}", n % 500), None);
            rig.state
                .trim_subject(format!("k.{}", n % 500).as_bytes(), limit as u64)
                .unwrap();
        }
        rig.commit();
        rig.walked();
        let expected = if limit == 1 { 1 } else { 2 };
        assert_eq!(rig.state.purge_subject(b"k.7", u64::MAX, 0).unwrap(), expected);
        assert_eq!(rig.walked(), 0);
    }
    // Where only counts are known the walk ends with the last of them.
    let mut rig = Rig::new(|_| {});
    for n in 0..1000 {
        rig.publish(if n % 100 == 50 && n < 500 { "few" } else { "many" }, None);
    }
    assert_eq!(rig.state.purge_subject(b"few", u64::MAX, 0).unwrap(), 5);
    assert_eq!(rig.walked(), 401);
}

#[test]
fn times_to_live_go_with_their_messages() {
    let mut rig = Rig::new(|config| config.max_msgs_per_subject = 1);
    for n in 0..1000 {
        let subject = format!("k.{}", n % 10);
        rig.publish(&subject, Some(Ttl::After(1000 * SECOND)));
        rig.state.trim_subject(subject.as_bytes(), 1).unwrap();
    }
    assert_eq!(rig.state.expiries.len(), 10);
}
