//! Monitoring over HTTP: what the pages show, that they look like nats-server's, and who is turned away.

mod likeness;
mod pages;
mod safety;
mod serve;
mod streams;
mod support;
