//! A publisher's own match cache: direct-mapped, checked by generation, no lock on a hit.

use super::generation::Seen;

const SLOTS_MIN: usize = 16;
const SLOTS_MAX: usize = 4096;
/// Subjects longer than this are matched afresh each time, so that the cache stays small.
const KEY_MAX: usize = 256;
/// Cached references in all before the cache starts over: bounds it under wide fan-out.
const REFERENCES_MAX: usize = 1 << 16;

/// The matches of one subject, as indices into the publisher's own tables.
#[derive(Default)]
pub(super) struct Route {
    pub plain: Vec<u32>,
    /// One member of each group gets the message.
    pub groups: Vec<Vec<u32>>,
}

impl Route {
    fn clear(&mut self) {
        self.plain.clear();
        self.groups.clear();
    }

    fn references(&self) -> usize {
        self.plain.len() + self.groups.iter().map(Vec::len).sum::<usize>()
    }
}

#[derive(Default)]
struct Entry {
    hash: u64,
    key: Vec<u8>,
    seen: Seen,
    live: bool,
    route: Route,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Cache {
    entries: Vec<Entry>,
    references: usize,
}

impl Cache {
    /// The place of `key`, and what was seen when it was matched if that is what stands there.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<(usize, Seen)> {
        let at = hash as usize & (self.entries.len().wrapping_sub(1));
        let entry = self.entries.get(at)?;
        (entry.live && entry.hash == hash && entry.key == key).then_some((at, entry.seen))
    }

    /// The route at a place.
    #[inline]
    pub fn route(&self, at: usize) -> &Route {
        &self.entries[at].route
    }

    /// Makes place for `key`, letting `fill` write its route.
    pub fn insert(&mut self, hash: u64, key: &[u8], fill: impl FnOnce(&mut Route) -> Seen) -> usize {
        self.make_room(hash, key);
        let at = hash as usize & (self.entries.len() - 1);
        let entry = &mut self.entries[at];
        self.references -= entry.route.references();
        entry.route.clear();
        entry.seen = fill(&mut entry.route);
        self.references += entry.route.references();
        entry.hash = hash;
        entry.live = key.len() <= KEY_MAX;
        entry.key.clear();
        if entry.live {
            entry.key.extend_from_slice(key);
        }
        at
    }

    /// Grows while two live subjects meet in one place and there is room to grow.
    fn make_room(&mut self, hash: u64, key: &[u8]) {
        if self.entries.is_empty() || self.references > REFERENCES_MAX {
            self.entries.clear();
            self.entries.resize_with(SLOTS_MIN, Entry::default);
            self.references = 0;
            return;
        }
        let occupant = &self.entries[hash as usize & (self.entries.len() - 1)];
        if occupant.live && occupant.key != key && self.entries.len() < SLOTS_MAX {
            let grown = self.entries.len() * 4;
            let old = std::mem::take(&mut self.entries);
            self.entries.resize_with(grown, Entry::default);
            self.references = 0;
            for entry in old.into_iter().filter(|entry| entry.live) {
                self.references += entry.route.references();
                let at = entry.hash as usize & (grown - 1);
                self.entries[at] = entry;
            }
        }
    }

    /// Forgets everything and gives the memory back.
    pub fn release(&mut self) {
        *self = Self::default();
    }
}
