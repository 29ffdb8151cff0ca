//! A publisher's own match cache: direct-mapped, checked by generation, no lock on a hit.

use super::generation::{Generations, Seen};

const SLOTS_MIN: usize = 16;
const SLOTS_MAX: usize = 4096;
/// In a full cache every so manieth newcomer takes an occupied place.
const REPLACE_EVERY: u32 = 16;
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
    /// `MSG <subject> <sid> ` of each of `plain`, one behind the other; written when a subject is met again.
    pub lines: Vec<u8>,
    /// Where each of them ends.
    pub line_ends: Vec<u32>,
}

impl Route {
    fn clear(&mut self) {
        self.plain.clear();
        self.groups.clear();
        self.lines.clear();
        self.line_ends.clear();
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
    /// The router's epoch at which the entry was last found current.
    epoch: u64,
    live: bool,
    route: Route,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Cache {
    /// The places, a power of two, and behind them one for what is not kept.
    entries: Vec<Entry>,
    references: usize,
    refused: u32,
}

impl Cache {
    /// The place of `key` if its route is cached and still current.
    #[inline]
    pub fn find(&mut self, generations: &Generations, hash: u64, key: &[u8]) -> Option<usize> {
        let at = hash as usize & self.entries.len().checked_sub(2)?;
        // The key lies elsewhere in memory: it is fetched only for what is most likely a hit.
        if self.entries[at].hash != hash {
            return None;
        }
        self.is_current(generations, at, key).then_some(at)
    }

    /// Whether the entry at `at` is for `key` and still current.
    #[inline]
    pub fn is_current(&mut self, generations: &Generations, at: usize, key: &[u8]) -> bool {
        let Some(entry) = self.entries.get_mut(at) else {
            return false;
        };
        if !entry.live || entry.key != key {
            return false;
        }
        let epoch = generations.epoch();
        if entry.epoch != epoch {
            if !generations.is_current(entry.hash, entry.seen) {
                return false;
            }
            entry.epoch = epoch;
        }
        true
    }

    /// The route at a place.
    #[inline]
    pub fn route(&self, at: usize) -> &Route {
        &self.entries[at].route
    }

    /// The route at a place and its subject, to write its lines.
    pub fn route_mut(&mut self, at: usize) -> (&mut Route, &[u8]) {
        let entry = &mut self.entries[at];
        (&mut entry.route, &entry.key)
    }

    /// Makes place for `key` and puts `route` there, giving back an empty one; the place is good until the next call.
    ///
    /// Where the cache has grown to its full size and another subject stands in the place, that one mostly stays: a
    /// publisher with more subjects than there are places would otherwise only ever replace.
    pub fn insert(&mut self, hash: u64, key: &[u8], seen: Seen, route: &mut Route) -> usize {
        self.make_room(hash);
        let places = self.entries.len() - 1;
        let mut at = hash as usize & (places - 1);
        let occupant = &self.entries[at];
        if places == SLOTS_MAX && occupant.live && occupant.hash != hash {
            self.refused = self.refused.wrapping_add(1);
            if !self.refused.is_multiple_of(REPLACE_EVERY) {
                at = places;
            }
        }
        self.put(at, hash, key, seen, route);
        at
    }

    /// The same for a subject that is hardly met again: it has the place behind the others until the next of its kind.
    pub fn insert_once(&mut self, hash: u64, key: &[u8], seen: Seen, route: &mut Route) -> usize {
        if self.entries.is_empty() {
            self.make_room(hash);
        }
        let at = self.entries.len() - 1;
        self.put(at, hash, key, seen, route);
        at
    }

    fn put(&mut self, at: usize, hash: u64, key: &[u8], seen: Seen, route: &mut Route) {
        let entry = &mut self.entries[at];
        self.references -= entry.route.references();
        self.references += route.references();
        std::mem::swap(&mut entry.route, route);
        route.clear();
        entry.seen = seen;
        entry.hash = hash;
        entry.epoch = 0;
        entry.live = key.len() <= KEY_MAX;
        entry.key.clear();
        if entry.live {
            entry.key.extend_from_slice(key);
        }
    }

    /// Grows while two live subjects meet in one place and there is room to grow.
    fn make_room(&mut self, hash: u64) {
        if self.entries.is_empty() || self.references > REFERENCES_MAX {
            self.entries.clear();
            self.entries.resize_with(SLOTS_MIN + 1, Entry::default);
            self.references = 0;
            return;
        }
        let places = self.entries.len() - 1;
        let occupant = &self.entries[hash as usize & (places - 1)];
        if occupant.live && occupant.hash != hash && places < SLOTS_MAX {
            let grown = places * 4;
            let old = std::mem::take(&mut self.entries);
            self.entries.resize_with(grown + 1, Entry::default);
            self.references = 0;
            for entry in old.into_iter().take(places).filter(|entry| entry.live) {
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
