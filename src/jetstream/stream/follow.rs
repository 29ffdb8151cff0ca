//! A stream as its consumers use it: being told, counting, reading on, letting go of what all have done with.

use std::cell::RefCell;
use std::sync::Arc;

use crate::jetstream::api::error::ApiError;
use crate::jetstream::consumer::start::StreamIndex;
use crate::protocol::encode::Message;
use crate::router::Publisher;
use crate::store;

use super::Stream;
use super::acks::store_error;
use super::audience::Listener;
use super::state::State;

/// A stream under its lock, as a new consumer asks it where to start. The first error is kept.
pub struct Index<'a> {
    state: RefCell<&'a mut State>,
    at_time: Box<dyn Fn(i64) -> Result<u64, ApiError> + 'a>,
    failed: RefCell<Option<ApiError>>,
}

impl Index<'_> {
    fn ask<T: Default>(&self, question: impl FnOnce(&mut State) -> Result<T, store::Error>) -> T {
        let answer = question(&mut self.state.borrow_mut());
        answer.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(store_error(&error));
            T::default()
        })
    }

    /// Messages at or above `from` that the filters take.
    pub fn count(&self, filters: &[Box<[u8]>], from: u64) -> u64 {
        self.ask(|state| state.count_from(filters, from))
    }

    /// The commit until which readers may still see what was removed and is not counted; zero for none.
    pub fn unsettled(&self) -> u64 {
        self.state.borrow().unsettled()
    }

    /// Lets a listener be told from here on of what its filters take, instead of what it was told of so far.
    pub fn admit(&self, name: &str, filters: Vec<Box<[u8]>>, listener: Arc<dyn Listener>) {
        let mut state = self.state.borrow_mut();
        let under_way = (state.landed < state.started).then_some(state.started);
        state.audience.admit(name, filters, listener, under_way);
    }
}

fn boxed(filters: &[&str]) -> Vec<Box<[u8]>> {
    filters.iter().map(|filter| filter.as_bytes().into()).collect()
}

impl StreamIndex for Index<'_> {
    fn first_seq(&self) -> u64 {
        self.ask(|state| Ok(if state.last_seq == 0 { 0 } else { state.first().0 }))
    }

    fn last_seq(&self) -> u64 {
        self.state.borrow().last_seq
    }

    fn max_msgs_per_subject(&self) -> i64 {
        self.state.borrow().config.max_msgs_per_subject
    }

    fn seq_at_time(&self, unix_nanos: i64) -> u64 {
        (self.at_time)(unix_nanos).unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            0
        })
    }

    fn last_matching(&self, filters: &[&str]) -> u64 {
        let filters = if filters.is_empty() { &[">"] } else { filters };
        let last = |filter: &&str| self.ask(|state| state.last_of(filter.as_bytes())).unwrap_or(0);
        filters.iter().map(last).max().unwrap_or(0)
    }

    fn last_per_subject(&self, filters: &[&str]) -> Vec<u64> {
        let mut last = self.ask(|state| state.last_of_each(&boxed(filters)));
        last.sort_unstable();
        last
    }

    fn count_from(&self, seq: u64, filters: &[&str]) -> u64 {
        self.count(&boxed(filters), seq)
    }
}

impl Stream {
    /// Asks the stream under its lock: nothing comes or goes meanwhile, and what listeners were told before is all
    /// that is counted.
    pub fn with_index<T>(&self, question: impl FnOnce(&Index<'_>) -> T) -> Result<T, ApiError> {
        let mut state = self.sound()?;
        state.audience.tell();
        let index = Index {
            state: RefCell::new(&mut state),
            at_time: Box::new(|time| self.seq_at(time)),
            failed: RefCell::new(None),
        };
        let answer = question(&index);
        match index.failed.take() {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    /// Tells a listener nothing more.
    pub fn dismiss(&self, name: &str) {
        self.lock().audience.dismiss(name);
    }

    /// The last commit that readers see.
    pub fn visible_commit(&self) -> u64 {
        self.lock().landed_well
    }

    /// Whether it was deleted.
    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Tells everyone of all that has come and gone so far.
    pub fn tell(&self) {
        self.lock().audience.tell();
    }

    /// A sequence at or above `from` below which no message is left that the filters take; none if there is none.
    pub fn next_bound(&self, filters: &[Box<[u8]>], from: u64) -> Result<Option<u64>, ApiError> {
        Ok(self.sound()?.next_bound(filters, from))
    }

    /// Removes messages that a consumer has done with; they are gone with the next commit. If it `asks`, those that any
    /// consumer needs stay.
    pub fn release(&self, seqs: &[u64], asks: bool) -> Result<usize, ApiError> {
        let epoch = self.sound()?.audience.epoch();
        let mut gone = Vec::with_capacity(seqs.len());
        let mut followers = Vec::new();
        for &seq in seqs {
            match self.log.get(seq) {
                Ok(Some(record)) => {
                    if asks {
                        self.lock().audience.takers(&record.subject, &mut followers);
                    }
                    if !followers.drain(..).any(|follower| follower.needs(seq)) {
                        gone.push((seq, record.subject));
                    }
                }
                Ok(None) => {}
                // What cannot be read cannot be taken out: named and counted by the store, it stays.
                Err(store::Error::DamagedRecord { .. }) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        let mut state = self.sound()?;
        // Whoever was let in meanwhile was not asked, and has counted them.
        let is_told = state.audience.epoch() != epoch;
        let mut released = 0;
        for (seq, subject) in &gone {
            let was_there = match is_told {
                true => state.remove(*seq, subject),
                false => state.release(*seq, subject),
            };
            released += usize::from(was_there.map_err(|error| store_error(&error))?);
        }
        Ok(released)
    }

    /// Sends empty messages, as double acks are answered.
    pub fn confirm<'a>(&self, replies: impl IntoIterator<Item = &'a [u8]>) {
        let spare = self.spare().pop();
        let mut publisher = spare.unwrap_or_else(|| Publisher::of_answers(self.router.clone()));
        for subject in replies {
            let message = Message {
                subject,
                ..Message::default()
            };
            publisher.publish(&message, None);
        }
        publisher.flush();
        self.keep(publisher);
    }
}
