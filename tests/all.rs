//! The one integration-test binary: a module a feature.

mod conformance;
mod support;
mod tidy;
