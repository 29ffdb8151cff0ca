//! Streams: what was published to their subjects, kept in order.

mod checkpoint;
pub mod config;
pub mod index;
mod trie;
