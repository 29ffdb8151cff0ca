//! Durability on top of subjects: streams, consumers and their API.

pub mod api;
pub mod consumer;
pub mod stream;
pub mod time;
