//! Durability on top of subjects: streams, consumers and their API.

pub mod consumer;
