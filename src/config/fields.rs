//! Values as settings: each accessor says what was expected, and where, when something else is there.

use std::time::Duration;

use super::language::{Entry, Map, Node, Problem, Value};

/// Seconds that a bare number may be.
const SECONDS_MAX: i64 = 86_400;

/// What is wrong with a file, all of it, and what is odd.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Notes {
    pub fn error(&mut self, entry: &Entry, text: impl Into<String>) {
        self.errors.push(Problem::at(&entry.spot, text));
    }

    pub fn warn(&mut self, entry: &Entry, text: impl Into<String>) {
        self.warnings.push(Problem::at(&entry.spot, text));
    }

    /// A key that means nothing, unless a variable took its value; `known` are those that would.
    pub fn unknown(&mut self, entry: &Entry, known: &[&str]) {
        if !entry.is_variable {
            self.error(entry, unknown(&entry.key, known));
        }
    }
}

/// Says that a key is unknown, and which one may have been meant.
fn unknown(key: &str, known: &[&str]) -> String {
    let mut text = format!("unknown field \"{}\"", key.escape_debug());
    if let Some(near) = nearest(key, known) {
        text.push_str(&format!(", did you mean \"{near}\"?"));
    }
    text
}

/// The known name that is nearest, if it is near.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_ascii_lowercase();
    let far = (key.chars().count() / 3).max(1);
    let distance = |name: &&'a str| (strsim::damerau_levenshtein(&key, name), *name);
    // A long key is no misspelling of anything, and comparing it would take its time.
    if key.len() > 64 {
        return None;
    }
    let (distance, name) = known.iter().map(distance).min()?;
    (distance <= far).then_some(name)
}

impl Node {
    /// A map in a list of `what`.
    pub(crate) fn map(&self, what: &str, notes: &mut Notes) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => {
                let text = format!("expected {what}, not {}", self.kind());
                notes.errors.push(Problem::at(&self.spot, text));
                None
            }
        }
    }
}

impl Entry {
    /// The key for comparison.
    pub(crate) fn name(&self) -> String {
        self.key.to_ascii_lowercase()
    }

    fn wrong<T>(&self, notes: &mut Notes, expected: &str) -> Option<T> {
        let text = format!("\"{}\" is {expected}, not {}", self.key, self.node.kind());
        notes.error(self, text);
        None
    }

    pub(crate) fn text(&self, notes: &mut Notes) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) | Value::Flag(_) | Value::Time(_) => {
                self.wrong(notes, "a string (quote it)")
            }
            _ => self.wrong(notes, "a string"),
        }
    }

    pub(crate) fn flag(&self, notes: &mut Notes) -> Option<bool> {
        match &self.node.value {
            Value::Flag(flag) => Some(*flag),
            _ => self.wrong(notes, "true or false"),
        }
    }

    pub(crate) fn map(&self, notes: &mut Notes) -> Option<&Map> {
        match &self.node.value {
            Value::Map(map) => Some(map),
            _ => self.wrong(notes, "a map { ... }"),
        }
    }

    pub(crate) fn list(&self, notes: &mut Notes) -> Option<&[Node]> {
        match &self.node.value {
            Value::Array(nodes) => Some(nodes),
            _ => self.wrong(notes, "a list [ ... ]"),
        }
    }

    pub(crate) fn integer(&self, notes: &mut Notes) -> Option<i64> {
        match &self.node.value {
            Value::Integer(number) => Some(*number),
            _ => self.wrong(notes, "a number"),
        }
    }

    /// A number that is not negative.
    pub(super) fn count(&self, notes: &mut Notes) -> Option<usize> {
        let number = self.integer(notes)?;
        match usize::try_from(number) {
            Ok(number) => Some(number),
            Err(_) => {
                notes.error(self, format!("\"{}\" cannot be {number}", self.key));
                None
            }
        }
    }

    /// Bytes, more than none: a number, or a string such as "8MB".
    pub(super) fn bytes(&self, notes: &mut Notes) -> Option<usize> {
        let number = match &self.node.value {
            Value::Text(text) => super::size(text).ok(),
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        match number {
            Some(number) if number > 0 => Some(number),
            _ => {
                let text = format!("\"{}\" is a number of bytes such as 4096, 64KB or 8MiB", self.key);
                notes.error(self, text);
                None
            }
        }
    }

    /// A time: a string such as "2s"; a bare number is seconds, as in old files.
    pub(crate) fn duration(&self, notes: &mut Notes) -> Option<Duration> {
        match &self.node.value {
            Value::Text(text) if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                match super::duration(text) {
                    Ok(duration) => Some(duration),
                    Err(error) => {
                        notes.error(self, format!("\"{}\": {error}", self.key));
                        None
                    }
                }
            }
            // 2m is two million: what was meant are two minutes.
            Value::Integer(seconds) if *seconds > SECONDS_MAX => {
                let text = format!(
                    "\"{}\" of {seconds} seconds cannot be meant: quote a time, such as \"2m\"",
                    self.key
                );
                notes.error(self, text);
                None
            }
            Value::Integer(seconds) if *seconds >= 0 => {
                let text = format!(
                    "\"{}\" of {seconds} is taken as seconds: write \"{seconds}s\"",
                    self.key
                );
                notes.warn(self, text);
                Some(Duration::from_secs(seconds.unsigned_abs()))
            }
            _ => self.wrong(notes, "a time such as \"500ms\", \"10s\" or \"2m\""),
        }
    }

    /// One string or a list of them.
    pub(crate) fn texts(&self, notes: &mut Notes) -> Option<Vec<String>> {
        match &self.node.value {
            Value::Text(text) => Some(vec![text.clone()]),
            Value::Array(nodes) => {
                let mut texts = Vec::new();
                for node in nodes {
                    let Value::Text(text) = &node.value else {
                        let text = format!("\"{}\" is a list of strings, not of {}", self.key, node.kind());
                        notes.errors.push(Problem::at(&node.spot, text));
                        return None;
                    };
                    texts.push(text.clone());
                }
                Some(texts)
            }
            _ => self.wrong(notes, "a string or a list of strings"),
        }
    }

    /// A port; -1 is a free one.
    pub(super) fn port(&self, notes: &mut Notes) -> Option<i64> {
        let port = self.integer(notes)?;
        if (-1..=65_535).contains(&port) {
            Some(port)
        } else {
            notes.error(
                self,
                format!("{port} is no port: expected 1 to 65535, or -1 for a free one"),
            );
            None
        }
    }

    /// `host:port`, `"[::1]:port"`, or a port alone.
    pub(super) fn listen(&self, notes: &mut Notes) -> Option<(Option<String>, i64)> {
        let text = match &self.node.value {
            Value::Integer(_) => return self.port(notes).map(|port| (None, port)),
            Value::Text(text) => text,
            _ => return self.wrong(notes, "a port or host:port"),
        };
        let split = text.rsplit_once(':').filter(|(host, _)| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.len() != host.len() || !host.contains(':')
        });
        let parsed = split.and_then(|(host, port)| Some((host, port.parse::<i64>().ok()?)));
        match parsed {
            Some((host, port)) if (-1..=65_535).contains(&port) => {
                Some(((!host.is_empty()).then(|| host.to_owned()), port))
            }
            _ => {
                let text = format!(
                    "cannot read the address \"{}\": expected host:port",
                    text.escape_debug()
                );
                notes.error(self, text);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_named_when_it_is_near() {
        let known = ["port", "ping_interval", "authorization", "http"];
        for (key, near) in [
            ("prot", Some("port")),
            ("PORTS", Some("port")),
            ("autorisation", Some("authorization")),
            ("ping_intervall", Some("ping_interval")),
            ("zebra", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(key, &known), near, "{key}");
        }
        assert_eq!(nearest(&"port".repeat(100), &known), None);
        assert_eq!(
            unknown("prot", &known),
            "unknown field \"prot\", did you mean \"port\"?"
        );
    }
}
