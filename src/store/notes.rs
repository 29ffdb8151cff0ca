//! Notes: small things of the caller that have to outlive a crash although no record holds them.
//!
//! A note becomes durable with the group it was put into, is given back by [`Log::notes`](super::Log::notes), and goes
//! when it is of no more use: at the time it says itself, or when the caller's next checkpoint holds it. One more is kept
//! apart, the mark: each takes the place of the one before. It stands in a row with the log's flags.
//!
//! Notes of one group after the other gather in a page; a page is a row of the tables, written once, and its bytes are
//! let go then. Memory: what no checkpoint of the tables has written, and some 60 bytes a page.

use bytes::Bytes;
use std::collections::BTreeMap;

/// A page is closed at this length.
const PAGE_BYTES: usize = 64 << 10;

/// What a log holds of its caller's notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Notes one after the other, oldest first, cut anywhere between two.
    pub pages: Vec<Bytes>,
    /// The mark; empty for none.
    pub mark: Bytes,
}

/// The notes of one group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct GroupNotes {
    /// Goes up by one a group that has some: so that a replay over a newer state adds nothing twice.
    pub number: u64,
    /// Earlier notes that were of use until before this may go.
    pub now: i64,
    /// How long these are of use.
    pub until: i64,
    pub bytes: Vec<u8>,
    /// The mark, if it is another one.
    pub mark: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct Page {
    /// Number of its last group.
    last: u64,
    until: i64,
    /// `None` once a row holds them.
    bytes: Option<Vec<u8>>,
    is_dirty: bool,
}

/// The notes of a log, in its view.
#[derive(Debug, Default)]
pub(super) struct NoteBook {
    /// By the number of their first group.
    pages: BTreeMap<u64, Page>,
    /// Number of the last group that had some.
    pub number: u64,
    pub mark: Bytes,
    /// Number of the group that brought the mark; 0 if it was there before.
    marked: u64,
}

/// A page for its row: number of the first and the last group, until when, bytes.
pub(super) struct PageRow {
    pub first: u64,
    pub last: u64,
    pub until: i64,
    pub bytes: Vec<u8>,
}

/// What the tables have to do.
pub(super) struct NotesUpdate {
    /// Rows below this go.
    pub from: u64,
    pub pages: Vec<PageRow>,
    pub mark: Bytes,
}

impl NoteBook {
    /// Takes the notes of a durable group; says whether they were new.
    pub fn add(&mut self, notes: &GroupNotes) -> bool {
        if notes.number <= self.number {
            return false;
        }
        self.number = notes.number;
        while self
            .pages
            .first_key_value()
            .is_some_and(|(_, page)| page.until < notes.now)
        {
            self.pages.pop_first();
        }
        if let Some(mark) = &notes.mark {
            self.mark = mark.clone();
            self.marked = notes.number;
        }
        if notes.bytes.is_empty() {
            return true;
        }
        if let Some(mut last) = self.pages.last_entry()
            && let Page {
                is_dirty: true,
                bytes: Some(bytes),
                ..
            } = last.get_mut()
            && bytes.len() + notes.bytes.len() <= PAGE_BYTES
        {
            bytes.extend_from_slice(&notes.bytes);
            let page = last.get_mut();
            page.last = notes.number;
            page.until = page.until.max(notes.until);
            return true;
        }
        let page = Page {
            last: notes.number,
            until: notes.until,
            bytes: Some(notes.bytes.clone()),
            is_dirty: true,
        };
        self.pages.insert(notes.number, page);
        true
    }

    /// The caller's checkpoint holds those of the groups up to this number.
    pub fn clear(&mut self, upto: u64) {
        self.pages.retain(|_, page| page.last > upto);
        if self.marked <= upto {
            self.mark = Bytes::new();
        }
    }

    /// A row as it was read.
    pub fn restore(&mut self, row: &PageRow) {
        let page = Page {
            last: row.last,
            until: row.until,
            bytes: None,
            is_dirty: false,
        };
        self.number = self.number.max(row.last);
        self.pages.insert(row.first, page);
    }

    /// A row that cannot be read: what it holds is lost, and its number is not used again.
    pub fn pass(&mut self, first: u64) {
        self.number = self.number.max(first);
    }

    /// What a checkpoint of the tables has to write.
    pub fn take(&mut self) -> NotesUpdate {
        let mut update = NotesUpdate {
            from: self
                .pages
                .first_key_value()
                .map_or(self.number + 1, |(&first, _)| first),
            pages: Vec::new(),
            mark: self.mark.clone(),
        };
        // What is dirty lies at the end, but for what a checkpoint that failed gave back.
        for (&first, page) in &mut self.pages {
            if let (true, Some(bytes)) = (page.is_dirty, &page.bytes) {
                page.is_dirty = false;
                update.pages.push(PageRow {
                    first,
                    last: page.last,
                    until: page.until,
                    bytes: bytes.clone(),
                });
            }
        }
        update
    }

    /// It could not be written.
    pub fn put_back(&mut self, update: &NotesUpdate) {
        for row in &update.pages {
            if let Some(page) = self.pages.get_mut(&row.first) {
                page.is_dirty = true;
            }
        }
    }

    /// It was written.
    pub fn written(&mut self, update: &NotesUpdate) {
        for row in &update.pages {
            if let Some(page) = self.pages.get_mut(&row.first)
                && !page.is_dirty
            {
                page.bytes = None;
            }
        }
    }

    /// By number: the pages that are here, and `None` for those that are in the tables.
    pub fn pages(&self) -> Vec<(u64, Option<Bytes>)> {
        let pages = self.pages.iter();
        pages
            .map(|(&first, page)| {
                (
                    first,
                    page.bytes.as_ref().map(|bytes| Bytes::copy_from_slice(bytes)),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u64, now: i64, until: i64, len: usize) -> GroupNotes {
        GroupNotes {
            number,
            now,
            until,
            bytes: vec![number as u8; len],
            mark: None,
        }
    }

    #[test]
    fn notes_gather_in_pages_that_are_written_once_and_go_in_time() {
        let mut book = NoteBook::default();
        assert!(book.add(&group(1, 10, 110, 10)) && book.add(&group(2, 20, 120, 10)));
        assert!(!book.add(&group(2, 20, 120, 10)), "twice");
        assert_eq!(book.pages(), [(1, Some([[1; 10], [2; 10]].concat().into()))]);
        let update = book.take();
        assert_eq!((update.from, update.pages.len()), (1, 1));
        // A page that is being written takes no more.
        book.add(&group(3, 30, 130, 10));
        book.written(&update);
        assert_eq!(book.pages(), [(1, None), (3, Some(vec![3; 10].into()))]);
        let update = book.take();
        assert_eq!((update.from, update.pages[0].first), (1, 3));
        book.put_back(&update);
        assert_eq!(book.take().pages.len(), 1);
        // What was of use until 120 goes when it is later than that.
        book.add(&group(4, 120, 220, PAGE_BYTES));
        assert_eq!(book.pages().len(), 3);
        book.add(&group(5, 121, 221, 10));
        assert_eq!(book.take().from, 3);
        let mut again = NoteBook::default();
        for row in &book.take().pages {
            again.restore(row);
        }
        // A page with one that came later stays whole.
        book.clear(4);
        assert_eq!((book.take().from, book.pages().len()), (5, 1));
        book.clear(5);
        assert_eq!((book.take().from, book.pages().len()), (6, 0));
        assert!(book.add(&group(6, 0, 0, 1)), "numbers go on");
    }
}
