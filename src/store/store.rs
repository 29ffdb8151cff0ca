//! The store: the directory, its threads, and the streams in it.

use super::block::Data;
use super::error::Error;
use super::group::Group;
use super::log::{Done, Log};
use super::{Options, StreamId};
use bytes::Bytes;
use std::sync::Arc;

/// What a store holds for one stream when it is opened.
#[derive(Debug, Clone)]
pub struct StreamRow {
    /// The key of the stream.
    pub id: StreamId,
    /// The caller's own bytes.
    pub meta: Bytes,
}

/// An open store. Cloning gives another handle of the same store.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
}

pub(super) struct Core {}

impl Core {
    pub fn accepting(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    pub fn load(&self, _stream: StreamId, _block: u64, _version: u32) -> Result<Option<Data>, Error> {
        Err(Error::Closed)
    }

    pub fn load_checkpoint(&self, _stream: StreamId) -> Result<Option<Bytes>, Error> {
        Err(Error::Closed)
    }

    pub fn submit(&self, _log: &Log, _group: Arc<Group>, done: Done) {
        done(Err(Error::Closed));
    }
}

impl Store {
    /// Opens or creates the store in a directory.
    pub fn open(_options: Options) -> Result<Store, Error> {
        Err(Error::Closed)
    }

    /// The streams in the store.
    pub fn streams(&self) -> Result<Vec<StreamRow>, Error> {
        Err(Error::Closed)
    }

    /// Creates a stream; it is there after a crash once the next commit of its log is durable.
    pub fn create_stream(&self, _meta: impl Into<Bytes>) -> Result<Log, Error> {
        Err(Error::Closed)
    }

    /// Removes a stream with all it holds; durable when `done` is called.
    pub fn remove_stream(&self, _id: StreamId, done: Done) {
        done(Err(Error::Closed));
    }

    /// The log of a stream, as it was recovered.
    pub fn open_log(&self, id: StreamId) -> Result<Log, Error> {
        Ok(Log::file(id, self.core.clone(), super::view::View::default()))
    }

    /// Writes what is not yet in the database, and closes it. Waits for all commits.
    pub fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
