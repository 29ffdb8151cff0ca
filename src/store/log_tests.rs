//! A log against a plain model, for random operations.

use super::block::Block;
use super::group::Pending;
use super::tables::take_update;
use super::view::View;
use super::{Error, Log, Options, Record, RecordRef, Store};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::mpsc;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Append { gap: u64, size: usize },
    AppendRemoved,
    Delete(u64),
    DeleteRange(u64, u64),
    Truncate(u64),
    Consumer(u8, u8),
    RemoveConsumer(u8),
    Note(u16),
    Compress(bool),
    Commit,
    Reopen,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop_oneof![9 => Just(0u64), 1 => 0u64..50], prop_oneof![8 => 0usize..300, 1 => 0usize..60_000])
            .prop_map(|(gap, size)| Step::Append { gap, size }),
        1 => Just(Step::AppendRemoved),
        4 => any::<u64>().prop_map(Step::Delete),
        1 => any::<(u64, u64)>().prop_map(|(a, b)| Step::DeleteRange(a, b)),
        1 => any::<u64>().prop_map(Step::Truncate),
        1 => any::<(u8, u8)>().prop_map(|(n, v)| Step::Consumer(n % 4, v)),
        1 => any::<u8>().prop_map(|n| Step::RemoveConsumer(n % 4)),
        2 => (0u16..3000).prop_map(Step::Note),
        1 => any::<bool>().prop_map(Step::Compress),
        4 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

/// What a log has to hold.
#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    pub records: BTreeMap<u64, Record>,
    pub last_seq: u64,
    pub consumers: BTreeMap<String, Bytes>,
    /// All notes ever, by number and length; the last one is the mark.
    pub notes: Vec<(u32, u16)>,
}

impl Model {
    /// Does a step to the log and to the model.
    pub fn apply(&mut self, log: &Log, step: &Step) -> Result<(), Error> {
        match *step {
            Step::Append { gap, size } => {
                let seq = self.last_seq + 1 + gap;
                let record = record(seq, size);
                log.append(&record.as_ref())?;
                self.records.insert(seq, record);
                self.last_seq = seq;
            }
            Step::AppendRemoved => {
                log.append_removed(&record(self.last_seq + 1, 10).as_ref())?;
                self.last_seq += 1;
            }
            Step::Delete(n) => {
                let seq = n % (self.last_seq + 3);
                let removed = log.delete(seq)?;
                let gone = self.records.remove(&seq);
                assert_eq!(removed.messages, u64::from(gone.is_some()));
                assert_eq!(removed.bytes, gone.map_or(0, |r| r.stored_len()));
            }
            Step::DeleteRange(a, b) => {
                let a = a % (self.last_seq + 3);
                let b = a + b % 20;
                let removed = log.delete_range(a..=b)?;
                let before = self.records.len();
                self.records.retain(|s, _| !(a..=b).contains(s));
                assert_eq!(removed.messages as usize, before - self.records.len());
            }
            Step::Truncate(n) => {
                let live: Vec<u64> = self.records.keys().copied().collect();
                let first = match n % 20 {
                    0 => self.last_seq + 1 + n % 5,
                    _ => live.get((n % 20) as usize).copied().unwrap_or(0),
                };
                let removed = log.truncate_front(first)?;
                let before = self.records.len();
                self.records.retain(|&s, _| s >= first);
                self.last_seq = self.last_seq.max(first.saturating_sub(1));
                assert_eq!(removed.messages as usize, before - self.records.len());
            }
            Step::Consumer(n, v) => {
                log.put_consumer(&format!("c{n}"), Bytes::from(vec![v]));
                log.put_consumer_state(&format!("c{n}"), Bytes::from(vec![v; 3]));
                self.consumers.insert(format!("c{n}"), Bytes::from(vec![v]));
            }
            Step::RemoveConsumer(n) => {
                log.remove_consumer(&format!("c{n}"));
                self.consumers.remove(&format!("c{n}"));
            }
            Step::Note(len) => {
                // With a removal: both are durable, or neither.
                let note = (self.notes.len() as u32 + 1, len);
                log.note(0, 0, &note_bytes(note));
                log.put_mark(note_bytes(note));
                self.notes.push(note);
                if let Some((&seq, _)) = self.records.first_key_value() {
                    log.delete(seq)?;
                    self.records.remove(&seq);
                }
            }
            Step::Compress(on) => log.compress(on),
            Step::Commit | Step::Reopen => commit(log)?,
        }
        Ok(())
    }

    /// Like `apply`, but a commit is the caller's.
    pub fn apply_quietly(&mut self, log: &Log, step: &Step) -> Result<(), Error> {
        match step {
            Step::Commit | Step::Reopen => Ok(()),
            step => self.apply(log, step),
        }
    }

    /// Whether a log has the notes from some checkpoint on, all in order, up to the last; and that one as its mark.
    pub fn has_notes(&self, log: &Log) -> bool {
        let found = log.notes().unwrap();
        let seen = parse_notes(&found.pages.concat());
        let last = self.notes.last().map(|&note| Bytes::from(note_bytes(note)));
        self.notes.ends_with(&seen) && (found.mark.is_empty() && seen.is_empty() || last == Some(found.mark))
    }

    /// Every way of reading agrees.
    pub fn check(&self, log: &Log) {
        let state = log.state();
        let bytes: u64 = self.records.values().map(Record::stored_len).sum();
        assert_eq!((state.messages, state.bytes), (self.records.len() as u64, bytes));
        assert_eq!(state.last_seq, self.last_seq);
        let first = self.records.first_key_value();
        assert_eq!(state.first_seq, first.map_or(self.last_seq + 1, |(&s, _)| s));
        assert_eq!(state.first_time, first.map_or(0, |(_, r)| r.time_ns));
        let mut seen = Vec::new();
        let end = log.scan(0, u64::MAX, |r| {
            seen.push((r.seq, r.payload.len()));
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(end, Ok(None));
        let expected: Vec<_> = self.records.values().map(|r| (r.seq, r.payload.len())).collect();
        assert_eq!(seen, expected);
        let read = log.read(0, usize::MAX, u64::MAX).unwrap();
        assert!(read.iter().eq(self.records.values()));
        let mut missing = Vec::new();
        let mut from = state.first_seq;
        for &seq in self.records.keys().chain([&(self.last_seq + 1)]) {
            if seq > from {
                missing.push((from, seq - 1));
            }
            from = seq + 1;
        }
        assert_eq!(log.deleted(usize::MAX).unwrap(), missing);
        for seq in (0..self.last_seq + 2).step_by(1 + self.last_seq as usize / 100) {
            assert_eq!(log.get(seq).unwrap().as_ref(), self.records.get(&seq));
            assert_eq!(
                log.next(seq).unwrap().as_ref(),
                self.records.range(seq..).next().map(|(_, r)| r)
            );
            assert_eq!(
                log.prev(seq).unwrap().as_ref(),
                self.records.range(..=seq).next_back().map(|(_, r)| r)
            );
        }
        let rows: BTreeMap<_, _> = log.consumers().into_iter().map(|(n, r)| (n, r.meta)).collect();
        assert_eq!(rows, self.consumers);
    }

    /// Counters with pending changes agree at any time.
    pub fn check_head(&self, log: &Log) {
        let head = log.head().unwrap();
        assert_eq!(
            (head.messages, head.last_seq),
            (self.records.len() as u64, self.last_seq)
        );
        assert_eq!(
            head.bytes,
            self.records.values().map(Record::stored_len).sum::<u64>()
        );
        let first = self.records.keys().next().copied();
        assert_eq!(head.first_seq, first.unwrap_or(self.last_seq + 1));
    }
}

pub(super) fn parse_notes(mut at: &[u8]) -> Vec<(u32, u16)> {
    let mut seen = Vec::new();
    while let Some((head, rest)) = at.split_at_checked(6) {
        let number = u32::from_le_bytes(head[..4].try_into().unwrap());
        let len = u16::from_le_bytes(head[4..].try_into().unwrap());
        seen.push((number, len));
        at = &rest[usize::from(len)..];
    }
    seen
}

fn note_bytes((number, len): (u32, u16)) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.extend_from_slice(&len.to_le_bytes());
    out.resize(6 + usize::from(len), number as u8);
    out
}

pub(super) fn record(seq: u64, size: usize) -> Record {
    Record {
        seq,
        time_ns: seq as i64 * 1000,
        subject: format!("a.{}", seq % 7).into(),
        headers: if seq.is_multiple_of(3) {
            Bytes::from_static(b"NATS/1.0\r\n\r\n")
        } else {
            Bytes::new()
        },
        payload: (0..size).map(|i| (i as u64 * 31 + seq) as u8).collect(),
    }
}

pub(super) fn commit(log: &Log) -> Result<(), Error> {
    let (tx, rx) = mpsc::channel();
    log.commit(Box::new(move |result| tx.send(result).unwrap()));
    rx.recv().unwrap()
}

proptest! {
    #[test]
    fn memory_log_agrees_with_a_model(steps in prop::collection::vec(step(), 0..400)) {
        let (log, mut model) = (Log::memory(), Model::default());
        for step in &steps {
            let landed = matches!(step, Step::Commit | Step::Reopen);
            model.apply(&log, step).unwrap();
            model.check_head(&log);
            if landed {
                model.check(&log);
                prop_assert_eq!(log.pending_bytes(), 0);
            }
        }
        commit(&log).unwrap();
        model.check(&log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn file_log_agrees_with_a_model(steps in prop::collection::vec(step(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { cache_bytes_max: 1 << 20, ..Options::new(dir.path()) };
        let mut store = Store::open(options.clone()).unwrap();
        let (mut log, mut model) = (store.create_stream("meta").unwrap(), Model::default());
        for step in &steps {
            model.apply(&log, step).unwrap();
            model.check_head(&log);
            if matches!(step, Step::Reopen) {
                store.close().unwrap();
                store = Store::open(options.clone()).unwrap();
                let rows = store.streams().unwrap();
                prop_assert_eq!((rows.len(), &rows[0].meta[..]), (1, &b"meta"[..]));
                log = store.open_log(rows[0].id).unwrap();
            }
            if matches!(step, Step::Commit | Step::Reopen) {
                model.check(&log);
                prop_assert!(model.has_notes(&log) && log.notes().unwrap().pages.is_empty() == model.notes.is_empty());
                prop_assert_eq!(log.pending_bytes(), 0);
            }
        }
        commit(&log).unwrap();
        model.check(&log);
        prop_assert_eq!(store.info().damage, Vec::<String>::new());
    }
}

#[test]
fn nothing_is_seen_before_the_commit() {
    let log = Log::memory();
    log.append(&record(1, 10).as_ref()).unwrap();
    assert_eq!(
        (
            log.get(1).unwrap(),
            log.durable_seq(),
            log.head().unwrap().last_seq
        ),
        (None, 0, 1)
    );
    commit(&log).unwrap();
    assert_eq!(log.get(1).unwrap(), Some(record(1, 10)));
    assert_eq!(log.delete(1).unwrap().messages, 1);
    assert_eq!(log.delete(1).unwrap().messages, 0);
    assert_eq!(log.get(1).unwrap(), Some(record(1, 10)));
    commit(&log).unwrap();
    assert_eq!((log.get(1).unwrap(), log.durable_seq()), (None, 1));
}

#[test]
fn sequences_only_go_up() {
    let log = Log::memory();
    let at = |seq| {
        log.append(&RecordRef {
            seq,
            time_ns: 0,
            subject: b"a",
            headers: b"",
            payload: b"",
        })
    };
    assert_eq!(at(0), Err(Error::Sequence { seq: 0, last: 0 }));
    assert_eq!((at(5), at(5)), (Ok(()), Err(Error::Sequence { seq: 5, last: 5 })));
    log.truncate_front(10).unwrap();
    assert_eq!(
        (at(9), at(10)),
        (Err(Error::Sequence { seq: 9, last: 9 }), Ok(()))
    );
}

#[test]
fn a_callers_checkpoint_is_written_once_whatever_is_removed_meanwhile() {
    let mut source = |_: u64, _: &Block| unreachable!("all of it is in memory");
    let mut put = |view: &mut View, seqs: std::ops::Range<u64>, gone: u64| {
        let mut pending = Pending::default();
        seqs.for_each(|seq| pending.append(&record(seq, 10).as_ref()));
        pending.remove(gone, gone);
        view.apply(&pending.take(), &mut source).unwrap();
    };
    let mut view = View::default();
    put(&mut view, 1..100, 1);
    view.begin_checkpoint(1);
    assert!(view.finish_checkpoint(1, "derived".into()));
    let update = take_update(1, &mut view);
    put(&mut view, 100..101, 2);
    view.written(update);
    let update = take_update(1, &mut view);
    let written = update.checkpoint.as_ref().unwrap();
    assert_eq!((&written.bytes, written.removed.len()), (&None, 1));
    view.written(update);
    // Another one of the same sequence is not the one that is being written.
    view.begin_checkpoint(2);
    assert!(view.finish_checkpoint(2, "derived again".into()));
    let update = take_update(1, &mut view);
    view.begin_checkpoint(3);
    assert!(view.finish_checkpoint(3, "and again".into()));
    view.written(update);
    let update = take_update(1, &mut view);
    assert_eq!(update.checkpoint.unwrap().bytes, Some("and again".into()));
}
