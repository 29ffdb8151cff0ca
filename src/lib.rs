//! Sovereign Mesh: an embeddable NATS-compatible message server, durable by default.
//!
//! [`Server`] is built from a [`Config`] and runs on the tokio runtime it is started on. Any NATS client library connects
//! to [`Server::client_url`]; the program around it can publish and subscribe without a socket:
//!
//! ```
//! use sovereign_mesh::{Config, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! // Loopback, a free port, no monitoring, nothing on disk.
//! let server = Server::start(Config::embedded()).await?;
//! println!("clients connect to {}", server.client_url());
//!
//! let mut orders = server.subscribe("orders.*")?;
//!
//! // A client of the network, as another program would be.
//! let client = async_nats::connect(server.client_url()).await?;
//! client.publish("orders.new", "two of the blue ones".into()).await?;
//! client.flush().await?;
//! let order = orders.next().await.expect("until the server ends");
//! assert_eq!((order.subject.as_str(), order.text().as_str()), ("orders.new", "two of the blue ones"));
//!
//! // And from inside.
//! let receivers = server.publish("orders.paid", "thanks").await?;
//! let thanks = orders.next().await.expect("until the server ends");
//! assert_eq!((receivers, thanks.text().as_str()), (1, "thanks"));
//!
//! // Clients get what they are owed, then everything ends.
//! server.shutdown().await;
//! assert!(orders.next().await.is_none());
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! In tests, [`TestServer`] runs on free ports with a temporary store, on a runtime of its own, and stops when dropped:
//!
//! ```
//! let server = sovereign_mesh::TestServer::start();
//! println!("point the program under test at {}", server.url());
//! ```
//!
//! What else there is: [`Server::start_on`] for a listener of your own, [`Server::connect_in_process`] for the client
//! protocol over a pipe, [`Server::monitor_addr`] and [`Server::totals`] to watch it.
//!
//! The rooms, bottom-up (a room uses only rooms on rows below its own; `tests/tidy.rs` holds that):
//!
//! ```text
//! 6  main.rs, cli/        the binary: arguments, subcommands, output
//! 5  mesh/                the Sovereign Mesh, a client of any NATS server
//! 4  server.rs, config/   assembly: accept loop, lame duck, shutdown order;
//!    local.rs             publish and subscribe inside the process
//!    local.rs             publish and subscribe from inside the process
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
pub mod jetstream;
pub mod local;
pub mod mesh;
pub mod monitor;
pub mod protocol;
pub mod router;
pub mod server;
pub mod store;

pub use config::Config;
pub use local::{InvalidSubject, Received, Subscriber};
pub use server::{Server, ServerError, TestServer};

/// The Rust of the pages for people is compiled and run with the documentation tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/library.md")]
    struct Library;
}
