//! Ids kept in the order of the texts they stand for: sorted blocks of bounded length.
//!
//! Two binary searches find a place, an insertion moves at most one block. The texts belong to the caller.

const BLOCK_IDS_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// None of them empty.
    blocks: Vec<Vec<u32>>,
}

impl Order {
    pub fn weight(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * 4 + 24).sum()
    }

    pub fn first(&self) -> Option<u32> {
        self.blocks.first()?.first().copied()
    }

    pub fn last(&self) -> Option<u32> {
        self.blocks.last()?.last().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.blocks.iter().flatten().copied()
    }

    /// The block where `text` is or belongs.
    fn block_of<'t>(&self, text: &[u8], text_of: &impl Fn(u32) -> &'t [u8]) -> usize {
        let behind = self.blocks.partition_point(|block| text_of(block[0]) <= text);
        behind.saturating_sub(1)
    }

    pub fn insert<'t>(&mut self, id: u32, text_of: impl Fn(u32) -> &'t [u8]) {
        let text = text_of(id);
        if self.blocks.is_empty() {
            self.blocks.push(vec![id]);
            return;
        }
        let at = self.block_of(text, &text_of);
        let block = &mut self.blocks[at];
        let place = block.partition_point(|&other| text_of(other) < text);
        block.insert(place, id);
        if block.len() > BLOCK_IDS_MAX {
            // What comes in order fills its blocks.
            let keep = if place == block.len() - 1 {
                BLOCK_IDS_MAX
            } else {
                BLOCK_IDS_MAX / 2
            };
            let rest = block.split_off(keep);
            self.blocks.insert(at + 1, rest);
        }
    }

    /// Adds an id whose text is above all others.
    pub fn push(&mut self, id: u32) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK_IDS_MAX => block.push(id),
            _ => self.blocks.push(vec![id]),
        }
    }

    pub fn remove<'t>(&mut self, id: u32, text_of: impl Fn(u32) -> &'t [u8]) {
        if self.blocks.is_empty() {
            return;
        }
        let text = text_of(id);
        let at = self.block_of(text, &text_of);
        let block = &mut self.blocks[at];
        let place = block.partition_point(|&other| text_of(other) < text);
        if block.get(place) == Some(&id) {
            block.remove(place);
            if block.is_empty() {
                self.blocks.remove(at);
            } else if block.len() < BLOCK_IDS_MAX / 4 {
                self.join(at);
            }
        }
    }

    /// Joins a small block with the next one if both fit in one.
    fn join(&mut self, at: usize) {
        let next = self.blocks.get(at + 1).map_or(usize::MAX, Vec::len);
        if next.saturating_add(self.blocks[at].len()) <= BLOCK_IDS_MAX / 2 {
            let next = self.blocks.remove(at + 1);
            self.blocks[at].extend(next);
        }
    }

    /// Ids from the first whose text is at or above `text`.
    pub fn from<'t>(&self, text: &[u8], text_of: impl Fn(u32) -> &'t [u8]) -> impl Iterator<Item = u32> {
        let at = self.block_of(text, &text_of);
        let within = self
            .blocks
            .get(at)
            .map_or(0, |block| block.partition_point(|&id| text_of(id) < text));
        let rest = &self.blocks[at.min(self.blocks.len())..];
        rest.iter().flatten().copied().skip(within)
    }
}
