//! Consumers: who gets which message of a stream, again when it is not acked, never when it is.
//!
//! [`config`] says what a consumer may be, [`state`] is the consumer itself (a pure state machine),
//! [`snapshot`] its durable form, [`start`] where it begins; the rest is the grammar around them: acks,
//! ack subjects, pull requests, statuses, advisories.
//!
//! Deliberately absent: streams, routing, storage, timers. The owner of a stream drives its consumers.

pub mod ack;
pub mod ack_subject;
pub mod advisory;
pub mod config;
pub mod duration;
mod pending;
pub mod pull;
mod push;
pub mod snapshot;
pub mod start;
pub mod state;
pub mod status;
