//! Who follows a stream: the consumers, seen from it. Behind the lock of the stream's state.
//!
//! A listener hears of every message that its filters take: that it came, that it was removed, or that so many went
//! at once that it has to count anew; all of that under the stream's lock, in the order it happens, so that what it
//! has counted and what it has not heard yet add up to what the subject index says. And once a commit has synced,
//! those who got something from it are told that they can read it.
//!
//! A message costs one match of its subject against all filters, however many there are; listeners without filters
//! cost nothing until the batch ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::protocol::subject;

/// A follower of a stream. Its methods are called under the stream's lock (but for the last two): they take note and
/// return.
pub trait Listener: Send + Sync {
    /// So many messages for it have come, the last of them with this sequence. They are not durable yet.
    fn appended(&self, count: u64, last_seq: u64);
    /// A message that its filters take has been removed; readers may see it until the commit with this number.
    fn removed(&self, seq: u64, commit: u64);
    /// Many messages at the front have been removed at once: what it knows has to be counted anew.
    fn trimmed(&self);
    /// What it was told of has become durable. Called without a lock.
    fn durable(&self);
    /// Whether a message that its filters take is still to be delivered or acked there. Called without a lock.
    fn needs(&self, seq: u64) -> bool;
}

type Slot = u32;

struct Member {
    name: String,
    filters: Vec<Box<[u8]>>,
    listener: Arc<dyn Listener>,
    /// Messages since it was last told, and the last of them.
    count: u64,
    last_seq: u64,
    /// It stands in `touched`.
    is_touched: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Audience {
    members: Vec<Option<Member>>,
    /// Slots of members that have gone.
    free: Vec<Slot>,
    by_name: HashMap<String, Slot>,
    everyone: Vec<Slot>,
    filters: Node,
    /// Messages since those without filters were last told.
    count: u64,
    last_seq: u64,
    touched: Vec<Slot>,
    /// Who was touched by commits under way.
    waiting: VecDeque<(u64, Vec<Arc<dyn Listener>>)>,
    /// Counts those who were let in.
    epoch: u64,
}

/// Filters by token.
#[derive(Default)]
struct Node {
    children: HashMap<Box<[u8]>, Node>,
    star: Option<Box<Node>>,
    /// Filters that end here with `>`.
    tail: Vec<Slot>,
    /// Filters that end here.
    here: Vec<Slot>,
}

impl Node {
    fn insert(&mut self, filter: &[u8], slot: Slot) {
        let mut node = self;
        for token in subject::tokens(filter) {
            node = match token {
                b">" => return node.tail.push(slot),
                b"*" => node.star.get_or_insert_default(),
                _ => node.children.entry(token.into()).or_default(),
            };
        }
        node.here.push(slot);
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.tail.is_empty() && self.here.is_empty()
    }

    fn remove(&mut self, filter: &[u8], slot: Slot) {
        let (token, rest) = match memchr::memchr(b'.', filter) {
            Some(dot) => (&filter[..dot], Some(&filter[dot + 1..])),
            None => (filter, None),
        };
        if token == b">" {
            return self.tail.retain(|&member| member != slot);
        }
        let is_star = token == b"*";
        let child = match is_star {
            true => self.star.as_deref_mut(),
            false => self.children.get_mut(token),
        };
        let Some(child) = child else { return };
        match rest {
            Some(rest) => child.remove(rest, slot),
            None => child.here.retain(|&member| member != slot),
        }
        if !child.is_empty() {
            return;
        }
        if is_star {
            self.star = None;
        } else {
            self.children.remove(token);
        }
    }

    /// Calls `found` with the slot of every filter that takes a subject.
    fn matching(&self, to: Option<&[u8]>, found: &mut impl FnMut(Slot)) {
        let Some(to) = to else {
            return self.here.iter().copied().for_each(found);
        };
        self.tail.iter().copied().for_each(&mut *found);
        let (token, rest) = match memchr::memchr(b'.', to) {
            Some(dot) => (&to[..dot], Some(&to[dot + 1..])),
            None => (to, None),
        };
        if let Some(star) = &self.star {
            star.matching(rest, found);
        }
        if let Some(child) = self.children.get(token) {
            child.matching(rest, found);
        }
    }
}

impl Audience {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Changes whenever somebody is let in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Lets a listener in, or gives one that is there other filters. With `under_way` it is told of that commit's landing,
    /// too: it counts what is in it.
    pub fn admit(
        &mut self,
        name: &str,
        filters: Vec<Box<[u8]>>,
        listener: Arc<dyn Listener>,
        under_way: Option<u64>,
    ) {
        self.dismiss(name);
        self.epoch += 1;
        if let Some(commit) = under_way {
            self.waiting.push_back((commit, vec![listener.clone()]));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            Slot::try_from(self.members.len() - 1).expect("fewer than 2^32 consumers")
        });
        if filters.is_empty() {
            // Those who are there have to hear of what came before.
            self.tell();
            self.everyone.push(slot);
        }
        for filter in &filters {
            self.filters.insert(filter, slot);
        }
        self.by_name.insert(name.to_owned(), slot);
        self.members[slot as usize] = Some(Member {
            name: name.to_owned(),
            filters,
            listener,
            count: 0,
            last_seq: 0,
            is_touched: false,
        });
    }

    /// Lets one go.
    pub fn dismiss(&mut self, name: &str) {
        self.tell();
        let Some(slot) = self.by_name.remove(name) else {
            return;
        };
        let Some(member) = self.members[slot as usize].take() else {
            return;
        };
        debug_assert_eq!(member.name, name, "names and slots belong together");
        self.everyone.retain(|&other| other != slot);
        for filter in &member.filters {
            self.filters.remove(filter, slot);
        }
        self.touched.retain(|&other| other != slot);
        self.free.push(slot);
    }

    /// Whether anybody would get a message on this subject.
    pub fn is_wanted(&self, to: &[u8]) -> bool {
        let mut wanted = !self.everyone.is_empty();
        if !wanted {
            self.filters.matching(Some(to), &mut |_| wanted = true);
        }
        wanted
    }

    /// Appends everyone who takes messages on this subject, some perhaps twice.
    pub fn takers(&self, to: &[u8], out: &mut Vec<Arc<dyn Listener>>) {
        let mut take = |slot: Slot| {
            let member = self.members[slot as usize].as_ref();
            out.extend(member.map(|member| member.listener.clone()));
        };
        self.everyone.iter().copied().for_each(&mut take);
        self.filters.matching(Some(to), &mut take);
    }

    /// A message has come.
    #[inline]
    pub fn appended(&mut self, to: &[u8], seq: u64) {
        if self.by_name.is_empty() {
            return;
        }
        self.count += 1;
        self.last_seq = seq;
        if self.everyone.len() == self.by_name.len() {
            return;
        }
        let (members, touched) = (&mut self.members, &mut self.touched);
        self.filters.matching(Some(to), &mut |slot| {
            // Two filters of one may take the same subject.
            if let Some(member) = &mut members[slot as usize]
                && member.last_seq != seq
            {
                member.count += 1;
                member.last_seq = seq;
                if !std::mem::replace(&mut member.is_touched, true) {
                    touched.push(slot);
                }
            }
        });
    }

    /// A message has been removed; readers see it until `commit` has landed.
    pub fn removed(&mut self, to: &[u8], seq: u64, commit: u64) {
        if self.by_name.is_empty() {
            return;
        }
        // In the order it happened.
        self.tell();
        let mut concerned = Vec::new();
        self.filters.matching(Some(to), &mut |slot| concerned.push(slot));
        concerned.sort_unstable();
        concerned.dedup();
        for slot in self.everyone.iter().chain(&concerned) {
            if let Some(member) = &self.members[*slot as usize] {
                member.listener.removed(seq, commit);
            }
        }
    }

    /// Many have been removed.
    pub fn trimmed(&mut self) {
        self.tell();
        self.members
            .iter()
            .flatten()
            .for_each(|member| member.listener.trimmed());
    }

    /// Tells everyone what has come since.
    pub fn tell(&mut self) {
        if self.count == 0 {
            return;
        }
        let (count, last_seq) = (std::mem::take(&mut self.count), self.last_seq);
        for &slot in &self.everyone {
            if let Some(member) = &mut self.members[slot as usize] {
                member.listener.appended(count, last_seq);
                if !std::mem::replace(&mut member.is_touched, true) {
                    self.touched.push(slot);
                }
            }
        }
        for &slot in &self.touched {
            if let Some(member) = &mut self.members[slot as usize]
                && member.count > 0
            {
                let count = std::mem::take(&mut member.count);
                member.listener.appended(count, member.last_seq);
            }
        }
    }

    /// A commit begins that holds everything so far.
    pub fn commit_started(&mut self, commit: u64) {
        self.tell();
        if self.touched.is_empty() {
            return;
        }
        let members = &mut self.members;
        let touched = self.touched.drain(..).filter_map(|slot| {
            let member = members[slot as usize].as_mut()?;
            member.is_touched = false;
            Some(member.listener.clone())
        });
        let touched: Vec<_> = touched.collect();
        self.waiting.push_back((commit, touched));
    }

    /// A commit has synced: those who can read more now.
    pub fn commit_landed(&mut self, commit: u64) -> Vec<Arc<dyn Listener>> {
        let mut ready = Vec::new();
        while self.waiting.front().is_some_and(|(number, _)| *number <= commit) {
            let (_, listeners) = self.waiting.pop_front().expect("it is the front");
            if ready.is_empty() {
                ready = listeners;
            } else {
                ready.extend(listeners);
            }
        }
        ready
    }

    /// Everyone, whatever they were told.
    pub fn all(&self) -> Vec<Arc<dyn Listener>> {
        let members = self.members.iter().flatten();
        members.map(|member| member.listener.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Listener for Heard {
        fn appended(&self, count: u64, last_seq: u64) {
            self.note(format!("+{count} to {last_seq}"));
        }
        fn removed(&self, seq: u64, _commit: u64) {
            self.note(format!("-{seq}"));
        }
        fn trimmed(&self) {
            self.note("trimmed".to_owned());
        }
        fn durable(&self) {
            self.note("durable".to_owned());
        }
        fn needs(&self, seq: u64) -> bool {
            self.note(format!("{seq}?"));
            false
        }
    }

    fn filters(all: &[&str]) -> Vec<Box<[u8]>> {
        all.iter().map(|filter| filter.as_bytes().into()).collect()
    }

    #[test]
    fn everyone_hears_what_concerns_them_in_order() {
        let mut audience = Audience::default();
        let (all, some, none) = (
            Arc::new(Heard::default()),
            Arc::new(Heard::default()),
            Arc::new(Heard::default()),
        );
        audience.admit("all", Vec::new(), all.clone(), None);
        audience.admit("some", filters(&["a.*", "b.>"]), some.clone(), None);
        audience.admit("none", filters(&["c"]), none.clone(), None);
        for (seq, subject) in (1..).zip(["a.1", "a", "b.1.2", "a.1.2"]) {
            audience.appended(subject.as_bytes(), seq);
        }
        audience.removed(b"a.1", 1, 1);
        audience.appended(b"c", 5);
        audience.commit_started(1);
        assert_eq!(all.take(), ["+4 to 4", "-1", "+1 to 5"]);
        assert_eq!(some.take(), ["+2 to 3", "-1"]);
        assert_eq!(none.take(), ["+1 to 5"]);
        assert_eq!(audience.commit_landed(0).len(), 0);
        for listener in audience.commit_landed(1) {
            listener.durable();
        }
        assert_eq!(all.take(), ["durable"]);
        assert_eq!(some.take(), ["durable"]);
        audience.appended(b"a.1", 6);
        // Other filters from here on: what came before counts by the old ones.
        audience.admit("some", filters(&["x"]), some.clone(), None);
        audience.appended(b"a.1", 7);
        audience.dismiss("all");
        audience.appended(b"a.1", 8);
        audience.trimmed();
        assert_eq!(some.take(), ["+1 to 6", "trimmed"]);
        // Whom a message does not concern is not asked about it.
        none.take();
        let mut takers = Vec::new();
        audience.takers(b"x", &mut takers);
        assert!(!takers.iter().any(|taker| taker.needs(9)));
        assert_eq!((some.take(), none.take()), (vec!["9?".to_owned()], vec![]));
        assert_eq!(all.take(), ["+1 to 6", "+1 to 7"]);
        assert!(!audience.is_wanted(b"a.1") && audience.is_wanted(b"x") && audience.len() == 2);
        audience.dismiss("some");
        assert!(audience.filters.star.is_none() && audience.filters.children.len() == 1);
    }
}
