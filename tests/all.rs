//! The one integration-test binary: a module a feature.

mod cli;
mod mesh;
mod support;
