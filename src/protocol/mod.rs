//! The wire: subjects, headers, client operations, their grammar and their encoding.
//!
//! Pure: no IO, no clock, no locks. The only room that imports `nom`. Control lines are parsed from complete
//! slices; payloads are never parsed, they are length-prefixed. Deliberately absent: anything that needs to
//! know who is connected.

pub mod connect;
pub mod encode;
pub mod grammar;
pub mod headers;
pub mod info;
pub mod patterns;
pub mod plain;
pub mod subject;
pub mod transform;
