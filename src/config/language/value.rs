//! What a configuration file says, each part with the place where it says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A place in a file; lines and columns are counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Its line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Something wrong, or worth a warning, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place; none when the file as a whole is meant.
    pub spot: Option<Spot>,
    /// What is wrong, in one line.
    pub text: String,
}

impl Problem {
    /// A problem at a place.
    pub fn at(spot: &Spot, text: impl Into<String>) -> Self {
        Self {
            spot: Some(spot.clone()),
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spot {
            Some(spot) => write!(f, "{spot}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for Problem {}

/// A value, variables replaced.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string, quoted, bare or in a block.
    Text(String),
    /// A whole number, its suffix multiplied in.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true`, `yes`, `on` and their opposites.
    Flag(bool),
    /// An ISO date and time, as it was written.
    Time(String),
    /// `[ ... ]`
    Array(Vec<Node>),
    /// `{ ... }`
    Map(Map),
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins; of a variable, where it is used.
    pub spot: Spot,
    /// What it is.
    pub value: Value,
}

impl Node {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Flag(_) => "true or false",
            Value::Time(_) => "a date",
            Value::Array(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Time(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Flag(flag) => (*flag).into(),
            Value::Array(nodes) => nodes.iter().map(Node::to_json).collect::<Vec<_>>().into(),
            Value::Map(map) => {
                let fields = map
                    .entries()
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_json()));
                serde_json::Value::Object(fields.collect())
            }
        }
    }

    /// How many values it is made of, itself included, and how deep they lie.
    pub(super) fn measure(&self) -> (usize, usize) {
        let inner: &mut dyn Iterator<Item = &Node> = match &self.value {
            Value::Array(nodes) => &mut nodes.iter(),
            Value::Map(map) => &mut map.entries.iter().map(|entry| &entry.node),
            _ => return (1, 0),
        };
        let add = |(weight, depth): (usize, usize), (more, below): (usize, usize)| {
            (weight + more, depth.max(below))
        };
        let (weight, depth) = inner.map(Node::measure).fold((1, 0), add);
        (weight, depth + 1)
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As it was written; what a key means does not depend on its case.
    pub key: String,
    /// Where the key stands.
    pub spot: Spot,
    /// Its value.
    pub node: Node,
    /// Whether a variable took its value: then it need not mean anything else.
    pub is_variable: bool,
}

/// Entries in the order they were written, each spelling of a key once: names of streams differ by case, settings do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
    /// Where each key stands among them.
    places: HashMap<String, usize>,
}

impl Map {
    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a key, in any case.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(key))
    }

    /// The value a variable takes: that of the key spelt exactly so.
    pub(super) fn variable(&mut self, name: &str) -> Option<&Node> {
        let entry = &mut self.entries[*self.places.get(name)?];
        entry.is_variable = true;
        Some(&entry.node)
    }

    /// Sets a key; what it had is returned.
    pub(super) fn set(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(&place) = self.places.get(&entry.key) {
            return Some(std::mem::replace(&mut self.entries[place], entry));
        }
        self.places.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
        None
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}
