//! Streams: what was published to their subjects, kept in order.

pub mod config;
