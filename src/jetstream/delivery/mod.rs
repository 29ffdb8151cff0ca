//! Consumers at work: the state machines of [`consumer`](super::consumer), driven by their stream, their clients and
//! the clock.
//!
//! ```text
//! stream (Listener) --.
//! acks, pulls --------+--> Inbox --> round: state machine, log --> Publisher
//! clock, interest ----'                       `--> persist --> commit of the stream --> answers to double acks
//! ```
//!
//! - [`Consumers`] are those of one stream: create, update, delete, find (`set.rs`).
//! - A [`Driver`] is one consumer with a task of its own. Everyone else leaves word in its inbox and wakes it; the task
//!   works in rounds (`round.rs`): take the inbox in, let time pass, deliver what is wanted, ask for a commit.
//!
//! Locks are taken in the order consumer, stream, inbox. No lock is held across an await, and no consumer's lock while
//! another one's is asked for.
//!
//! What holds: nothing is delivered before it is durable. An ack with a reply is answered after the commit that holds
//! its effect, retention included. On streams that wait for acks a message is removed in the log before the ack is
//! written there, so that no crash leaves a message behind that nobody waits for.
//!
//! Deliberately absent: what a consumer decides (that is the state machine), and the wire of the API.

mod dead_letter;
mod driver;
mod inbox;
mod info;
mod news;
mod pump;
mod recover;
mod round;
mod sender;
mod set;

pub use driver::Driver;
pub use info::ConsumerInfo;
pub use set::Consumers;

use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::jetstream::consumer::config::Limits as ConsumerLimits;
use crate::router::Router;

use super::JetStream;

/// What all consumers of a server share.
pub(super) struct Context {
    pub router: Arc<Router>,
    pub jetstream: Weak<JetStream>,
    pub domain: Option<String>,
    pub message_bytes_max: usize,
    /// Ends all drivers.
    pub stopping: CancellationToken,
    /// The tasks of all drivers.
    pub tasks: TaskTracker,
    pub runtime: tokio::runtime::Handle,
}

impl Context {
    /// What the account allows its consumers.
    fn limits(&self) -> ConsumerLimits {
        let account = self.jetstream.upgrade().map(|jetstream| jetstream.limits());
        ConsumerLimits {
            max_ack_pending: account.map_or(0, |limits| limits.ack_pending.max(0)),
            ..ConsumerLimits::default()
        }
    }
}
