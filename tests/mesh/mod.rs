//! The mesh, tested through its command line against each kind of server there is: the same tests on
//! nats-server and on `mesh serve`.

mod ask;
mod conflicts;
mod emit;
mod end_to_end;
mod git;
mod mishaps;
mod mission;
mod patterns;
mod phoenix;
mod presence;
mod support;
mod watch;
mod wiring;

/// Makes of each `fn name(server: Server)` two tests, one a kind of server.
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod nats_server {
            $(#[test] fn $name() {
                if let Some(server) = crate::mesh::support::Server::start(crate::mesh::support::Kind::NatsServer) { super::$name(server); }
            })*
        }
        mod mesh_serve {
            $(#[test] fn $name() {
                if let Some(server) = crate::mesh::support::Server::start(crate::mesh::support::Kind::MeshServe) { super::$name(server); }
            })*
        }
    };
}
use on_each_server;
