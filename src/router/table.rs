//! The subscription table: literal subjects in one hash table, patterns in a trie of tokens.
//!
//! Literal subscriptions (inboxes, most subjects) cost one entry and one lookup. Patterns share a trie whose
//! nodes are tokens; `*` and `>` have places of their own in each node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashTable};

use crate::protocol::subject;

use super::subscription::Subscription;

/// A queue group's name and members.
type Group = (Box<[u8]>, Vec<Arc<Subscription>>);

/// The subscriptions that stand at one subject or pattern.
#[derive(Default)]
pub(super) struct Leaf {
    pub plain: Vec<Arc<Subscription>>,
    pub groups: Vec<Group>,
}

impl Leaf {
    fn insert(&mut self, subscription: Arc<Subscription>) {
        let members = match &subscription.queue {
            None => &mut self.plain,
            Some(queue) => {
                let at = self
                    .groups
                    .iter()
                    .position(|(name, _)| name == queue)
                    .unwrap_or_else(|| {
                        self.groups.push((queue.clone(), Vec::new()));
                        self.groups.len() - 1
                    });
                &mut self.groups[at].1
            }
        };
        let place = u32::try_from(members.len()).expect("fewer than 4 billion subscriptions on one pattern");
        subscription.place.store(place, Ordering::Relaxed);
        members.push(subscription);
    }

    /// Removes it in constant time: the last member takes its place.
    fn remove(&mut self, subscription: &Subscription) {
        let group_at = match &subscription.queue {
            None => None,
            Some(queue) => match self.groups.iter().position(|(name, _)| name == queue) {
                Some(at) => Some(at),
                None => return,
            },
        };
        let members = match group_at {
            None => &mut self.plain,
            Some(at) => &mut self.groups[at].1,
        };
        let place = subscription.place.load(Ordering::Relaxed) as usize;
        if members
            .get(place)
            .is_none_or(|member| member.id != subscription.id)
        {
            return;
        }
        members.swap_remove(place);
        if let Some(moved) = members.get(place) {
            moved.place.store(place as u32, Ordering::Relaxed);
        }
        if members.is_empty() {
            match group_at {
                None => self.plain = Vec::new(),
                Some(at) => drop(self.groups.swap_remove(at)),
            }
        }
    }

    fn each(&self, all: &mut Vec<Arc<Subscription>>) {
        all.extend_from_slice(&self.plain);
        for (_, members) in &self.groups {
            all.extend_from_slice(members);
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

#[derive(Default)]
struct Node {
    children: Option<Box<HashMap<Box<[u8]>, Node>>>,
    star: Option<Box<Node>>,
    /// Subscriptions that end here with `>`.
    tail: Option<Box<Leaf>>,
    /// Subscriptions that end here.
    here: Option<Box<Leaf>>,
}

impl Node {
    fn insert(&mut self, subscription: Arc<Subscription>) {
        let pattern = subscription.pattern.clone();
        let mut node = self;
        for token in subject::tokens(&pattern) {
            node = match token {
                b">" => return node.tail.get_or_insert_default().insert(subscription),
                b"*" => node.star.get_or_insert_default(),
                _ => {
                    let children = node.children.get_or_insert_default();
                    if !children.contains_key(token) {
                        children.insert(token.into(), Node::default());
                    }
                    children.get_mut(token).expect("just inserted")
                }
            };
        }
        node.here.get_or_insert_default().insert(subscription);
    }

    /// Removes a subscription and every node that it leaves empty; true when this node is empty.
    fn remove<'a>(
        &mut self,
        mut tokens: impl Iterator<Item = &'a [u8]>,
        subscription: &Subscription,
    ) -> bool {
        match tokens.next() {
            None => remove_from(&mut self.here, subscription),
            Some(b">") => remove_from(&mut self.tail, subscription),
            Some(b"*") => {
                if self
                    .star
                    .as_mut()
                    .is_some_and(|star| star.remove_rest(tokens, subscription))
                {
                    self.star = None;
                }
            }
            Some(token) => {
                if let Some(children) = &mut self.children {
                    if children
                        .get_mut(token)
                        .is_some_and(|child| child.remove_rest(tokens, subscription))
                    {
                        children.remove(token);
                    }
                    if children.is_empty() {
                        self.children = None;
                    }
                }
            }
        }
        self.children.is_none() && self.star.is_none() && self.tail.is_none() && self.here.is_none()
    }

    /// The recursion of [`Node::remove`], boxed so that the type stays finite.
    fn remove_rest<'a>(
        &mut self,
        tokens: impl Iterator<Item = &'a [u8]>,
        subscription: &Subscription,
    ) -> bool {
        let mut tokens = tokens;
        let tokens: &mut dyn Iterator<Item = &'a [u8]> = &mut tokens;
        self.remove(tokens, subscription)
    }

    fn each(&self, all: &mut Vec<Arc<Subscription>>) {
        for leaf in [&self.tail, &self.here].into_iter().flatten() {
            leaf.each(all);
        }
        let children = self.children.iter().flat_map(|children| children.values());
        for node in self.star.as_deref().into_iter().chain(children) {
            node.each(all);
        }
    }

    /// True if any other last token would have found the same.
    fn collect(&self, rest: Option<&[u8]>, found: &mut impl FnMut(&Leaf)) -> bool {
        let Some(rest) = rest else {
            if let Some(leaf) = &self.here {
                found(leaf);
            }
            return true;
        };
        if let Some(leaf) = &self.tail {
            found(leaf);
        }
        let (token, rest) = match memchr::memchr(b'.', rest) {
            Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            None => (rest, None),
        };
        let mut alike = rest.is_some() || self.children.is_none();
        if let Some(star) = &self.star {
            alike &= star.collect(rest, found);
        }
        if let Some(child) = self.children.as_ref().and_then(|children| children.get(token)) {
            alike &= child.collect(rest, found);
        }
        alike
    }
}

fn remove_from(leaf: &mut Option<Box<Leaf>>, subscription: &Subscription) {
    if let Some(inner) = leaf {
        inner.remove(subscription);
        if inner.is_empty() {
            *leaf = None;
        }
    }
}

struct Literal {
    hash: u64,
    subject: Box<[u8]>,
    leaf: Leaf,
}

/// All subscriptions of one router.
#[derive(Default)]
pub(super) struct Table {
    literals: HashTable<Literal>,
    patterns: Node,
    pattern_count: usize,
    count: usize,
}

impl Table {
    /// Adds one; `hash` is that of its pattern.
    pub fn insert(&mut self, hash: u64, subscription: Arc<Subscription>) {
        self.count += 1;
        if subject::has_wildcard(&subscription.pattern) {
            self.pattern_count += 1;
            self.patterns.insert(subscription);
            return;
        }
        let same = |literal: &Literal| literal.subject == subscription.pattern;
        let entry = self.literals.entry(hash, same, |literal| literal.hash);
        let mut entry = entry.or_insert_with(|| Literal {
            hash,
            subject: subscription.pattern.clone(),
            leaf: Leaf::default(),
        });
        entry.get_mut().leaf.insert(subscription);
    }

    /// Removes one that was inserted.
    pub fn remove(&mut self, hash: u64, subscription: &Subscription) {
        self.count -= 1;
        if subject::has_wildcard(&subscription.pattern) {
            self.pattern_count -= 1;
            self.patterns
                .remove(subject::tokens(&subscription.pattern), subscription);
            return;
        }
        let same = |literal: &Literal| literal.subject == subscription.pattern;
        if let Ok(mut entry) = self.literals.find_entry(hash, same) {
            entry.get_mut().leaf.remove(subscription);
            if entry.get().leaf.is_empty() {
                entry.remove();
            }
        }
    }

    /// Calls `found` for each leaf whose pattern matches `subject`; true if the same patterns match all of its family.
    pub fn collect(&self, hash: u64, subject: &[u8], found: &mut impl FnMut(&Leaf)) -> bool {
        if let Some(literal) = self.literals.find(hash, |literal| *literal.subject == *subject) {
            found(&literal.leaf);
        }
        self.pattern_count == 0 || self.patterns.collect(Some(subject), found)
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Subscription>> {
        let mut all = Vec::with_capacity(self.count);
        for literal in &self.literals {
            literal.leaf.each(&mut all);
        }
        self.patterns.each(&mut all);
        all
    }

    /// Subscriptions in all.
    pub fn len(&self) -> usize {
        self.count
    }
}
