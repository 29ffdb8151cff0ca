//! The JetStream API: `$JS.API.>` as subjects, JSON in and out.

pub mod error;
