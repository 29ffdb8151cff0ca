//! Consumers.

pub mod config;
pub mod duration;
mod errors;

pub use errors::ApiError;
