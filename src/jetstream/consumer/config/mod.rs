//! Consumer configuration: the wire object, its defaults and checks, create and update.
//!
//! A create request goes [`CreateRequest::parse`] -> [`plan`]; the outcome is a configuration to create
//! or to update with, or the exact error nats-server 2.15.1 answers. `answers.tsv` holds what that
//! server answered to some 500 requests; the tests replay it.
//!
//! Deliberately absent: priority groups (refused), replicas above one (10074).

mod check;
mod plan;
mod request;
mod wire;

pub use check::{Limits, Retention, StreamFacts};
pub use plan::{Plan, Standing, plan};
pub use request::{Action, CreateRequest};
pub use wire::{
    AckPolicy, ConsumerConfig, DEAD_LETTER_KEY, DeliverPolicy, PriorityPolicy, ReplayPolicy, WireTime,
};

#[cfg(test)]
mod tests;
