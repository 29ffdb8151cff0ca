//! The event catalog: which events there are, where they go, what their bodies hold.
//!
//! One table is the only source (`table`); commands, validation and the docs page are drawn from it. Users
//! add events of their own in a JSON file. Bodies may carry more fields than listed: the catalog
//! says what a reader can count on, not all that a daemon may say.

mod docs;
mod table;

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use crate::protocol::subject;

/// How many systems publish to the mesh.
pub const SYSTEMS: usize = 12;
/// Subject that every event of the mesh is under.
pub const ALL: &str = "mesh.>";
/// Largest file of user events that is read.
const USER_FILE_BYTES_MAX: u64 = 1 << 20;

/// The JSON type of a body field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A string.
    Text,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Flag,
    /// An array.
    List,
    /// An object.
    Object,
}

impl Kind {
    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Flag => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    /// The type's name, as the file of user events writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Flag => "flag",
            Self::List => "list",
            Self::Object => "object",
        }
    }
}

/// One field of an event's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its key in the body.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether a body without it is refused.
    #[serde(default)]
    pub required: bool,
    /// What it says.
    #[serde(default)]
    pub meaning: String,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Name, as `mesh emit` takes it.
    pub name: String,
    /// Subject it is published on.
    pub subject: String,
    /// The system that publishes it.
    pub system: String,
    /// What it means.
    #[serde(default)]
    pub meaning: String,
    /// What its body holds.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// All events that are known here.
#[derive(Clone, Debug)]
pub struct Catalog {
    events: Vec<Event>,
    builtin: usize,
}

/// The file of user events: `{"events": [...]}`.
#[derive(Deserialize)]
struct UserFile {
    #[serde(default)]
    events: Vec<Event>,
}

impl Catalog {
    /// The events of the twelve systems and of the mesh itself.
    pub fn builtin() -> Self {
        let field = |&(name, kind, required, meaning): &table::FieldRow| Field {
            name: name.to_owned(),
            kind,
            required,
            meaning: meaning.to_owned(),
        };
        let event = |row: &table::Row| Event {
            name: row.name.to_owned(),
            subject: row.subject.to_owned(),
            system: row.system.to_owned(),
            meaning: row.meaning.to_owned(),
            fields: row.fields.iter().map(field).collect(),
        };
        let events: Vec<Event> = table::TABLE.iter().map(event).collect();
        let builtin = events.len();
        Self { events, builtin }
    }

    /// The built-in events and those of a user's file; a missing file adds none.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bad = |problem: String| Error::BadConfig {
            path: path.to_owned(),
            problem,
        };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::builtin()),
            Err(error) => return Err(bad(error.to_string())),
            Ok(found) if found.len() > USER_FILE_BYTES_MAX => {
                return Err(bad(format!("larger than {USER_FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let file: UserFile = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        Self::builtin().with(file.events).map_err(bad)
    }

    /// Adds events; names and subjects must be new, subjects under `mesh.`.
    pub fn with(mut self, events: Vec<Event>) -> Result<Self, String> {
        for event in events {
            let name_ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if event.name.is_empty() || !event.name.bytes().all(name_ok) {
                return Err(format!(
                    "event name `{}` must be lower-case letters, digits and _",
                    event.name
                ));
            }
            let subject = event.subject.as_bytes();
            if !subject::is_subject(subject) || !subject::matches(ALL.as_bytes(), subject) {
                return Err(format!(
                    "subject `{}` of `{}` must be under mesh., without wildcards",
                    event.subject, event.name
                ));
            }
            if let Some(taken) = self
                .events
                .iter()
                .find(|known| known.name == event.name || known.subject == event.subject)
            {
                return Err(format!(
                    "`{}` ({}) is taken by `{}`",
                    event.name, event.subject, taken.name
                ));
            }
            let mut names = HashSet::new();
            if let Some(twice) = event.fields.iter().find(|field| !names.insert(&field.name)) {
                return Err(format!("`{}` names field `{}` twice", event.name, twice.name));
            }
            self.events.push(event);
        }
        Ok(self)
    }

    /// All events, the built-in ones first.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The event of that name, or an error that names the nearest ones.
    pub fn get(&self, name: &str) -> Result<&Event, Error> {
        let found = self.events.iter().find(|event| event.name == name);
        found.ok_or_else(|| Error::UnknownEvent {
            name: name.to_owned(),
            near: self.nearest(name),
        })
    }

    /// The event published on `subject`.
    pub fn by_subject(&self, subject: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.subject == subject)
    }

    /// The twelve systems in the order of the table.
    pub fn systems(&self) -> Vec<&str> {
        let mut systems: Vec<&str> = Vec::with_capacity(SYSTEMS);
        for event in &self.events[..self.builtin] {
            if event.system != table::MESH && !systems.contains(&event.system.as_str()) {
                systems.push(&event.system);
            }
        }
        systems
    }

    /// Up to three names a typing mistake away from `name`, best first.
    fn nearest(&self, name: &str) -> Vec<String> {
        let name = name.to_lowercase().replace('-', "_");
        let bound = (name.chars().count() / 3).max(2);
        let mut near: Vec<(usize, &str)> = self
            .events
            .iter()
            .map(|event| {
                let contained = name.len() > 2 && event.name.contains(&name);
                let distance = if contained {
                    1
                } else {
                    distance(&name, &event.name)
                };
                (distance, event.name.as_str())
            })
            .filter(|&(distance, _)| distance <= bound)
            .collect();
        near.sort_unstable();
        near.into_iter()
            .take(3)
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    /// The docs page: every event with its fields, in Markdown.
    pub fn markdown(&self) -> String {
        docs::page(self)
    }
}

impl Event {
    /// Checks a body against the fields; the error names the field.
    pub fn check(&self, body: &[u8]) -> Result<(), Error> {
        let bad = |problem: String| Error::BadBody {
            event: self.name.clone(),
            problem,
        };
        let value: Value = serde_json::from_slice(body).map_err(|error| bad(format!("not JSON: {error}")))?;
        let Some(body) = value.as_object() else {
            return Err(bad(format!("expected an object, got {}", json_type(&value))));
        };
        for field in &self.fields {
            let (name, kind) = (&field.name, field.kind.name());
            match body.get(name) {
                None if field.required => {
                    return Err(bad(format!(
                        "field `{name}` ({kind}) is missing: {}",
                        field.meaning
                    )));
                }
                Some(value) if !field.kind.accepts(value) => {
                    return Err(bad(format!(
                        "field `{name}` must be {kind}, got {}",
                        json_type(value)
                    )));
                }
                None | Some(_) => {}
            }
        }
        Ok(())
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "flag",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Edits (insert, delete, replace) that turn one text into the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
