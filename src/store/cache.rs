//! Blocks read from disk, and blocks just written to it, within a bound. Second chance: a block that was
//! used since the hand last passed it stays for one more round.

use super::block::Data;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Stream, block, version of the block.
pub(super) type BlockKey = (u64, u64, u32);

#[derive(Debug)]
pub(super) struct Cache {
    blocks: HashMap<BlockKey, (Data, bool)>,
    hand: VecDeque<BlockKey>,
    bytes: usize,
    bytes_max: usize,
    hits: u64,
    misses: u64,
}

/// What a cache says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheFigures {
    pub bytes: u64,
    pub bytes_max: u64,
    pub hits: u64,
    pub misses: u64,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        Cache {
            blocks: HashMap::new(),
            hand: VecDeque::new(),
            bytes: 0,
            bytes_max,
            hits: 0,
            misses: 0,
        }
    }

    pub fn figures(&self) -> CacheFigures {
        CacheFigures {
            bytes: self.bytes as u64,
            bytes_max: self.bytes_max as u64,
            hits: self.hits,
            misses: self.misses,
        }
    }

    pub fn get(&mut self, key: BlockKey) -> Option<Data> {
        let Some((data, used)) = self.blocks.get_mut(&key) else {
            self.misses += 1;
            return None;
        };
        *used = true;
        self.hits += 1;
        Some(data.clone())
    }

    pub fn insert(&mut self, key: BlockKey, data: Data) {
        self.bytes += data.weight();
        match self.blocks.insert(key, (data, false)) {
            Some((old, _)) => self.bytes -= old.weight(),
            None => self.hand.push_back(key),
        }
        if self.hand.len() > 2 * self.blocks.len() + 64 {
            self.hand.retain(|key| self.blocks.contains_key(key));
        }
        while self.bytes > self.bytes_max {
            let Some(key) = self.hand.pop_front() else { break };
            match self.blocks.get_mut(&key) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.hand.push_back(key);
                }
                Some(_) => self.remove(key),
                None => {}
            }
        }
    }

    pub fn remove(&mut self, key: BlockKey) {
        if let Some((data, _)) = self.blocks.remove(&key) {
            self.bytes -= data.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::block::ChunkBuilder;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let data = |seq| {
            let mut chunk = ChunkBuilder::default();
            chunk.append(&crate::store::log_tests::record(seq, 1000).as_ref());
            Data::new(chunk.finish())
        };
        let mut cache = Cache::new(20_000);
        for seq in 0..200 {
            cache.insert((1, seq, 0), data(seq));
            assert!(
                cache.get((1, 0, 0)).is_some(),
                "used all the time, yet gone at {seq}"
            );
            assert!(cache.figures().bytes <= 20_000);
        }
        assert!(cache.get((1, 5, 0)).is_none());
        assert!(cache.get((1, 199, 0)).is_some());
        assert_eq!((cache.figures().hits, cache.figures().misses), (201, 1));
    }
}
