//! Conflicts: two instances act on the same key from the same base with different outcomes, neither having seen the other.
//!
//! `rules` says which events act on what, `detector` folds events into conflicts (pure: the clock is that of the
//! events), `live` follows the stream and tells `conflict_alert`, `replay` runs rules over what is stored and holds
//! them against labels. Both give the same for the same events.
//!
//! What an event's sender had seen, the event says itself; what was delivered to it is not looked at, for nobody
//! knows what became of that. Deliberately absent: settling a conflict.

mod conflict;
mod detector;
mod live;
mod replay;
mod rules;

pub use conflict::{Conflict, Side};
pub use detector::Detector;
pub use live::{Alert, Detecting};
pub use replay::{Labels, Replay, Score};
pub use rules::{BUILTIN, Between, Path, Rule, Rules};
