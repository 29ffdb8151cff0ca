//! The language of configuration files, that of nats-server: keys and values, maps, arrays, variables, includes.
//!
//! `grammar` turns text into entries (nom; pure), `load` reads files, follows includes and puts values for variables,
//! `value` is what comes out: a [`Map`] in which everything knows where it was written. What the keys mean is said
//! elsewhere.
//!
//! Beyond nats-server: all of JSON is taken (a newline before a comma, `\/` and `\u00e9` in strings), numbers that do not
//! fit are errors instead of wrapping around, and an include that comes back to itself is an error instead of a hang.
//! Deliberately absent: writing files.

mod grammar;
mod load;
#[cfg(test)]
mod tests;
mod value;

pub use load::{Loaded, load_file, load_text};
pub use value::{Entry, Map, Node, Problem, Spot, Value};
