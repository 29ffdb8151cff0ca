//! A hash table of numbers that keeps the hash of each beside it.
//!
//! What a number stands for lies elsewhere, mostly far away: a table that had to look there would do so for each of its
//! numbers whenever it grows, and for each that is met on the way to another one.

use hashbrown::HashTable;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    number: u32,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Slots(HashTable<Slot>);

/// The half of a hash that is kept.
fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The table takes places from the low bits of a hash and tags from the high ones: both come from the half that is kept.
fn spread(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

impl Slots {
    /// Numbers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Memory it holds, about.
    pub fn weight(&self) -> usize {
        self.0.capacity() * (size_of::<Slot>() + 1)
    }

    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more, |slot| spread(slot.hash));
    }

    /// The number under a hash for which `is` holds.
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let half = half(hash);
        let found = self
            .0
            .find(spread(half), |slot| slot.hash == half && is(slot.number));
        found.map(|slot| slot.number)
    }

    /// Adds a number that is not there yet.
    pub fn insert(&mut self, hash: u64, number: u32) {
        let hash = half(hash);
        let slot = Slot { hash, number };
        self.0.insert_unique(spread(hash), slot, |slot| spread(slot.hash));
    }

    /// Removes a number, if it is there.
    pub fn remove(&mut self, hash: u64, number: u32) {
        let half = half(hash);
        if let Ok(found) = self.0.find_entry(spread(half), |slot| slot.number == number) {
            found.remove();
        }
    }
}
