//! Subjects by token, for filters with wildcards: leaves are the ids of the caller, who owns their texts.
//!
//! ```text
//! root -- "orders" --+-- 17.new      a leaf carries the rest of its subject, until another one
//!                    +-- "18" --+-- new        shares its next token: then that becomes a node
//!                               +-- paid
//! ```
//!
//! A child is found by the hash of its parent and token; children of a node are a list too, in the order they came,
//! which is mostly the order they lie in memory.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::protocol::subject;

use super::slots::Slots;

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;
/// Marks a reference to a node among those to leaves.
const NODE: u32 = 1 << 31;

/// Place of a leaf or node among the children of its parent.
#[derive(Clone, Copy, Debug)]
struct Link {
    parent: u32,
    next: u32,
    previous: u32,
}

const UNLINKED: Link = Link {
    parent: NONE,
    next: NONE,
    previous: NONE,
};

#[derive(Debug)]
struct Node {
    link: Link,
    /// Its own token, empty for the root.
    token: Box<[u8]>,
    /// Bytes of its subjects up to and with the dot behind its token.
    prefix_len: usize,
    first_child: u32,
}

#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
    leaves: Vec<Link>,
    children: Slots,
    hasher: DefaultHashBuilder,
}

impl Default for Trie {
    fn default() -> Self {
        let root = Node {
            link: UNLINKED,
            token: Box::default(),
            prefix_len: 0,
            first_child: NONE,
        };
        Self {
            nodes: vec![root],
            free: Vec::new(),
            leaves: Vec::new(),
            children: Slots::default(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// The first token of `rest`, and whether it is the last.
fn head(rest: &[u8]) -> (&[u8], bool) {
    match memchr::memchr(b'.', rest) {
        Some(dot) => (&rest[..dot], false),
        None => (rest, true),
    }
}

/// The first tokens two subjects have in common, where both go on behind them.
fn shared_tokens(left: &[u8], right: &[u8]) -> usize {
    let mut shared = 0;
    for (left, right) in left.iter().zip(right) {
        if left != right {
            break;
        }
        shared += usize::from(*left == b'.');
    }
    shared
}

impl Trie {
    /// The leaves below `count`, whose texts come with those that share their first tokens one after the other (as
    /// [`matching`](Self::matching) gives them): no place has to be looked for. None if they do not.
    pub fn of_grouped<'t>(count: usize, text_of: impl Fn(u32) -> &'t [u8]) -> Option<Self> {
        let mut trie = Self::default();
        trie.leaves.resize(count, UNLINKED);
        trie.children.reserve(count);
        // Nodes on the way to the leaf before, and how many of its tokens this one shares.
        let (mut path, mut shared) = (vec![ROOT], 0);
        for leaf in 0..u32::try_from(count).ok().filter(|&count| count < NODE)? {
            let text = text_of(leaf);
            let next = (leaf as usize + 1 < count).then(|| text_of(leaf + 1));
            let shared_next = next.map_or(0, |next| shared_tokens(text, next));
            path.truncate(shared + 1);
            while path.len() <= shared.max(shared_next) {
                let parent = *path.last()?;
                let prefix_len = trie.nodes[parent as usize].prefix_len;
                let (token, _) = head(&text[prefix_len..]);
                if trie.find(parent, token, false, &text_of).is_some() {
                    return None;
                }
                let node = trie.node(parent, token, prefix_len + token.len() + 1);
                trie.attach(parent, node | NODE, &text_of);
                path.push(node);
            }
            trie.attach(*path.last()?, leaf, &text_of);
            shared = shared_next;
        }
        Some(trie)
    }

    pub fn weight(&self) -> usize {
        self.leaves.capacity() * size_of::<Link>()
            + self.nodes.capacity() * (size_of::<Node>() + 8)
            + self.children.weight()
    }

    fn link(&mut self, child: u32) -> &mut Link {
        match child & NODE {
            0 => &mut self.leaves[child as usize],
            _ => &mut self.nodes[(child & !NODE) as usize].link,
        }
    }

    /// Hash of a child by parent, token and whether its subject ends there.
    fn hash(&self, parent: u32, token: &[u8], ends: bool) -> u64 {
        self.hasher.hash_one((parent, token, ends))
    }

    /// Parent, token, and whether the subject ends there: what a child is found by.
    fn key<'a, 't: 'a>(&'a self, child: u32, text_of: &impl Fn(u32) -> &'t [u8]) -> (u32, &'a [u8], bool) {
        if child & NODE != 0 {
            let node = &self.nodes[(child & !NODE) as usize];
            return (node.link.parent, &node.token, false);
        }
        let parent = self.leaves[child as usize].parent;
        let (token, ends) = head(&text_of(child)[self.nodes[parent as usize].prefix_len..]);
        (parent, token, ends)
    }

    fn find<'t>(
        &self,
        parent: u32,
        token: &[u8],
        ends: bool,
        text_of: &impl Fn(u32) -> &'t [u8],
    ) -> Option<u32> {
        let wanted = (parent, token, ends);
        let hash = self.hash(parent, token, ends);
        self.children
            .find(hash, |child| self.key(child, text_of) == wanted)
    }

    /// Makes `child`, whose link names its parent, one of the parent's children.
    fn attach<'t>(&mut self, parent: u32, child: u32, text_of: &impl Fn(u32) -> &'t [u8]) {
        let next = std::mem::replace(&mut self.nodes[parent as usize].first_child, child);
        *self.link(child) = Link {
            parent,
            next,
            previous: NONE,
        };
        if next != NONE {
            self.link(next).previous = child;
        }
        let (_, token, ends) = self.key(child, text_of);
        let hash = self.hash(parent, token, ends);
        self.children.insert(hash, child);
    }

    fn detach<'t>(&mut self, child: u32, text_of: &impl Fn(u32) -> &'t [u8]) {
        let (parent, token, ends) = self.key(child, text_of);
        let hash = self.hash(parent, token, ends);
        self.children.remove(hash, child);
        let link = std::mem::replace(self.link(child), UNLINKED);
        match link.previous {
            NONE => self.nodes[parent as usize].first_child = link.next,
            previous => self.link(previous).next = link.next,
        }
        if link.next != NONE {
            self.link(link.next).previous = link.previous;
        }
    }

    /// Adds a leaf that is not there yet.
    pub fn insert<'t>(&mut self, leaf: u32, text_of: impl Fn(u32) -> &'t [u8]) {
        assert!(leaf < NODE, "fewer than 2^31 subjects fit in memory");
        if self.leaves.len() <= leaf as usize {
            self.leaves.resize(leaf as usize + 1, UNLINKED);
        }
        let text = text_of(leaf);
        let mut parent = ROOT;
        loop {
            let prefix_len = self.nodes[parent as usize].prefix_len;
            let (token, ends) = head(&text[prefix_len..]);
            let there = if ends {
                None
            } else {
                self.find(parent, token, false, &text_of)
            };
            parent = match there {
                None => return self.attach(parent, leaf, &text_of),
                Some(node) if node & NODE != 0 => node & !NODE,
                Some(other) => {
                    self.detach(other, &text_of);
                    let node = self.node(parent, token, prefix_len + token.len() + 1);
                    self.attach(parent, node | NODE, &text_of);
                    self.attach(node, other, &text_of);
                    node
                }
            };
        }
    }

    fn node(&mut self, parent: u32, token: &[u8], prefix_len: usize) -> u32 {
        let node = Node {
            link: Link { parent, ..UNLINKED },
            token: token.into(),
            prefix_len,
            first_child: NONE,
        };
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Removes a leaf, and the nodes it leaves empty. Its text must still be known.
    pub fn remove<'t>(&mut self, leaf: u32, text_of: impl Fn(u32) -> &'t [u8]) {
        let mut parent = self.leaves[leaf as usize].parent;
        self.detach(leaf, &text_of);
        while parent != ROOT && self.nodes[parent as usize].first_child == NONE {
            let node = parent;
            parent = self.nodes[node as usize].link.parent;
            self.detach(node | NODE, &text_of);
            self.free.push(node);
        }
    }

    /// Calls `f` with every leaf a filter matches, in no order, until it says to stop.
    pub fn matching<'t>(
        &self,
        filter: &[u8],
        text_of: impl Fn(u32) -> &'t [u8],
        mut f: impl FnMut(u32) -> bool,
    ) {
        self.descend(ROOT, filter, &text_of, &mut f);
    }

    /// Recursion is bounded by the tokens of the filter and of the subjects.
    fn descend<'t>(
        &self,
        node: u32,
        filter: &[u8],
        text_of: &impl Fn(u32) -> &'t [u8],
        f: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let (token, last) = head(filter);
        let rest = &filter[(token.len() + 1).min(filter.len())..];
        if token != b"*" && token != b">" {
            let ends = if last {
                self.find(node, token, true, text_of)
            } else {
                None
            };
            let longer = if last {
                None
            } else {
                self.find(node, token, false, text_of)
            };
            let mut found = ends.into_iter().chain(longer);
            return found.all(|child| self.visit(child, node, filter, rest, text_of, f));
        }
        let mut child = self.nodes[node as usize].first_child;
        while child != NONE {
            let next = match child & NODE {
                0 => self.leaves[child as usize].next,
                _ => self.nodes[(child & !NODE) as usize].link.next,
            };
            // A node stands for more tokens than a last `*` takes.
            let inner_rest = if token == b">" { filter } else { rest };
            let goes_on = child & NODE == 0 || !last || token == b">";
            if goes_on && !self.visit(child, node, filter, inner_rest, text_of, f) {
                return false;
            }
            child = next;
        }
        true
    }

    /// A leaf is compared with what the filter asks for below `node`, a child node is gone into with `rest`.
    fn visit<'t>(
        &self,
        child: u32,
        node: u32,
        filter: &[u8],
        rest: &[u8],
        text_of: &impl Fn(u32) -> &'t [u8],
        f: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        if child & NODE != 0 {
            return self.descend(child & !NODE, rest, text_of, f);
        }
        let prefix_len = self.nodes[node as usize].prefix_len;
        filter != b">" && !subject::matches(filter, &text_of(child)[prefix_len..]) || f(child)
    }
}
