//! The wire: subjects, headers, client operations, their grammar and their encoding.
//!
//! Pure: no IO, no clock, no locks. The only room that imports `nom`.

pub mod encode;
pub mod headers;
pub mod subject;
