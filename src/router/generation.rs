//! What a publisher's match cache is checked against: counters that move when the table changes.
//!
//! One counter for all would make every inbox that comes or goes empty every cache. So a literal
//! subscription moves one of 4,096 counters picked by its subject's hash, a pattern one of 256 picked by its first
//! token, and only a pattern that begins with a wildcard moves the counter that everyone watches.
//!
//! What is cached for a family, the subjects that differ in their last token alone, stands while its patterns do and no
//! literal subscription is among its subjects: those are counted by the hash of what the family has in common.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::protocol::subject;

const LITERALS: usize = 4096;
const FIRSTS: usize = 256;

/// See the module documentation.
pub(super) struct Generations {
    literal: Box<[AtomicU32]>,
    /// Literal subscriptions there are, by family.
    families: Box<[AtomicU32]>,
    first: Box<[AtomicU32]>,
    any: AtomicU32,
    /// Moves with every change: while it stands still nothing else need be looked at.
    epoch: AtomicU64,
}

/// The counters of one subject, or of a family, at the time it was matched.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    first_index: u16,
    is_family: bool,
    literal: u32,
    first: u32,
    any: u32,
}

fn literal_index(hash: u64) -> usize {
    (hash >> 17) as usize % LITERALS
}

/// FNV-1a folded to a counter's index; a chosen collision costs a needless rematch, nothing else.
fn first_index(pattern: &[u8]) -> u16 {
    let token = subject::tokens(pattern).next().unwrap_or_default();
    let hash = token.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    ((hash ^ (hash >> 16)) as usize % FIRSTS) as u16
}

/// What a subject has in common with its family: all up to and with the last dot. None without one, or with nothing
/// behind it: such a subject matches nothing.
pub(super) fn family(subject: &[u8]) -> Option<&[u8]> {
    let dot = memchr::memrchr(b'.', subject)?;
    (dot + 1 < subject.len()).then(|| &subject[..=dot])
}

impl Generations {
    pub fn new() -> Self {
        let counters = |count| (0..count).map(|_| AtomicU32::new(0)).collect();
        Self {
            literal: counters(LITERALS),
            families: counters(LITERALS),
            first: counters(FIRSTS),
            any: AtomicU32::new(0),
            epoch: AtomicU64::new(1),
        }
    }

    /// The table has changed at `pattern`; called while the table is locked for writing.
    pub fn changed(&self, hash: u64, pattern: &[u8]) {
        let counter = if !subject::has_wildcard(pattern) {
            &self.literal[literal_index(hash)]
        } else if matches!(pattern[0], b'*' | b'>') && (pattern.len() == 1 || pattern[1] == b'.') {
            &self.any
        } else {
            &self.first[first_index(pattern) as usize]
        };
        counter.fetch_add(1, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// A literal subscription joins the family of this hash or leaves it; called while the table is locked for writing, and
    /// before [`Generations::changed`].
    pub fn literal_moved(&self, family: u64, joins: bool) {
        let count = &self.families[literal_index(family)];
        if joins {
            count.fetch_add(1, Ordering::Release);
        } else {
            count.fetch_sub(1, Ordering::Release);
        }
    }

    /// The count of all changes.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The counters of `subject`; read while the table is locked for reading.
    pub fn seen(&self, hash: u64, subject: &[u8]) -> Seen {
        self.now(hash, first_index(subject), false)
    }

    /// The same for the family of a subject; none if a literal subscription may be in it.
    pub fn seen_family(&self, family: u64, subject: &[u8]) -> Option<Seen> {
        let seen = self.now(family, first_index(subject), true);
        (seen.literal == 0).then_some(seen)
    }

    fn now(&self, hash: u64, first_index: u16, is_family: bool) -> Seen {
        let literals = if is_family { &self.families } else { &self.literal };
        Seen {
            first_index,
            is_family,
            literal: literals[literal_index(hash)].load(Ordering::Acquire),
            first: self.first[first_index as usize].load(Ordering::Acquire),
            any: self.any.load(Ordering::Acquire),
        }
    }

    /// Whether nothing that concerns the subject has changed since.
    #[inline]
    pub fn is_current(&self, hash: u64, seen: Seen) -> bool {
        self.now(hash, seen.first_index, seen.is_family) == seen
    }
}
