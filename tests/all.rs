//! The one integration-test binary: a module a feature.
// All of it is tests, helpers included: a broken expectation may panic anywhere.
#![allow(clippy::unwrap_used)]

mod accounts;
mod cli;
mod clients;
mod config;
mod conformance;
mod consumers;
mod deploy;
mod durability;
mod mesh;
mod monitor;
mod outside;
mod readme;
mod store;
mod support;
mod system;
mod tidy;
mod tls;
mod wire;
