//! The Sovereign Mesh: event catalog, presence, Phoenix, lineage. A client of any NATS server.
//!
//! Everything here works over the standard client API (JetStream, key-value, object store), so it runs the same
//! against `mesh serve` and against a NATS cluster, and asks nothing special of our server. [`Mesh`] is one
//! session's connection; the other files are what is done with it.
//!
//! Deliberately absent: clap and printing (they live in `cli/`), and any state of record on this
//! machine beyond the [`journal`] that numbers an instance's events and the [`spool`] in git while the mesh is down.

pub mod ask;
pub mod catalog;
pub mod check;
pub mod conflicts;
mod emit;
pub mod envelope;
mod error;
mod exec;
mod follow;
pub mod hammer;
pub mod identity;
pub mod journal;
pub mod lineage;
mod link;
pub mod mission;
pub mod phoenix;
pub mod presence;
pub mod quorum;
mod reader;
pub mod restore;
mod rows;
pub mod setup;
pub mod spool;
mod watch;

pub use catalog::Catalog;
pub use emit::{Draft, Receipt};
pub use envelope::{Envelope, Received};
pub use error::Error;
pub use exec::{Backoff, Outcome, Run, describe};
pub use identity::Identity;
pub use link::{Complaints, Mesh, Options};
pub use reader::{Reader, Selection, Start};
pub use watch::{Delivery, Durable, Filter, Wanted};
