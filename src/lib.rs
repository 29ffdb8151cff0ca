//! Sovereign Mesh: an embeddable NATS-compatible message server, durable by default.
//!
//! The rooms, bottom-up (a room uses only rooms on rows below its own; `tests/tidy.rs` holds that):
//!
//! ```text
//! 6  main.rs, cli/        the binary: arguments, subcommands, output
//! 5  mesh/                the Sovereign Mesh, a client of any NATS server
//! 4  server.rs, config.rs assembly: accept loop, lame duck, shutdown order
//! 3b monitor/             HTTP: metrics, health, varz; read-only snapshots
//! 3a connection/          one client connection: io, handshake, state, keepalive
//! 2  jetstream/           streams, consumers and their API on top of subjects
//! 1a account/             credentials; owns its router
//! 1  router/ | store/     who gets what, in memory | everything redb
//! 0  protocol/            subjects, headers, grammar: pure, no IO, no clock
//! ```

pub mod account;
pub mod cli;
pub mod config;
pub mod connection;
pub mod mesh;
pub mod monitor;
pub mod protocol;
pub mod router;
pub mod server;
pub mod store;

pub use config::Config;
pub use server::{Server, ServerError, TestServer};
