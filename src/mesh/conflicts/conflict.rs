//! What a conflict is made of: values that can be compared and shown, its two events, and its alert.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longer keys, bases and outcomes are cut, with a digest of the whole.
const TEXT_BYTES_MAX: usize = 200;

/// A value that can be compared and shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Said {
    pub(super) id: String,
    pub(super) shown: String,
}

impl Said {
    pub(super) fn of(value: &Value) -> Self {
        let id = canonical(value);
        let shown = value.as_str().map_or_else(|| id.clone(), str::to_owned);
        Self {
            id: bounded(id),
            shown: bounded(shown),
        }
    }

    /// Several values as one; what is not there counts too. Nothing if none of them is there.
    pub(super) fn all(values: &[Option<&Value>]) -> Option<Self> {
        if let [value] = values {
            return value.map(Self::of);
        }
        values.iter().find_map(|value| *value)?;
        let whole = Value::Array(
            values
                .iter()
                .map(|value| value.cloned().unwrap_or_default())
                .collect(),
        );
        let shown: Vec<String> = values
            .iter()
            .flatten()
            .map(|value| Self::of(value).shown)
            .collect();
        Some(Self {
            id: bounded(canonical(&whole)),
            shown: bounded(shown.join(" / ")),
        })
    }

    pub(super) fn cost(&self) -> usize {
        self.id.len() + self.shown.len()
    }
}

/// JSON that is the same whatever the order of fields was.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let parts: Vec<String> = list.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        Value::Object(map) => {
            let fields: BTreeMap<&String, &Value> = map.iter().collect();
            let field = |(name, value): (&String, &Value)| {
                format!("{}:{}", Value::from(name.as_str()), canonical(value))
            };
            let parts: Vec<String> = fields.into_iter().map(field).collect();
            format!("{{{}}}", parts.join(","))
        }
        value => value.to_string(),
    }
}

pub(super) fn bounded(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let letters = text.char_indices().map(|(at, _)| at);
    let end = letters
        .take_while(|at| *at <= TEXT_BYTES_MAX / 2)
        .last()
        .unwrap_or(0);
    format!("{}... #{}", &text[..end], digest(&[&text]))
}

/// Of the parts and where each ends.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest = digest.finalize();
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One event of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its place in the stream.
    pub stream_seq: u64,
    /// When it was stored.
    pub stored: Timestamp,
    /// Its name.
    pub event: String,
    /// Who said it.
    pub instance: String,
    /// In which session.
    pub session: Option<String>,
    /// Its place among the sender's events.
    pub seq: Option<u64>,
    /// What it makes of the key.
    pub outcome: String,
}

impl Side {
    fn json(&self) -> Value {
        let mut side = json!({
            "stream_seq": self.stream_seq,
            "event": self.event,
            "instance": self.instance,
        });
        if let Some(session) = &self.session {
            side["session"] = session.as_str().into();
        }
        if let Some(seq) = self.seq {
            side["seq"] = seq.into();
        }
        side["outcome"] = self.outcome.as_str().into();
        side
    }
}

/// Two events at odds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The rule that says so.
    pub rule: String,
    /// What both act on.
    pub key: String,
    /// What both start from, if they say so.
    pub base: Option<String>,
    /// The thread of thought that one of them belongs to.
    pub thread: Option<String>,
    /// The earlier event.
    pub first: Side,
    /// The later one: with it there is a conflict.
    pub second: Side,
    /// Tells keys from each other that read the same.
    pub(super) place: String,
}

impl Conflict {
    /// One that no detector has found.
    #[cfg(test)]
    pub(super) fn of(rule: &str, key: &str, first: Side, second: Side) -> Self {
        Self {
            rule: rule.to_owned(),
            key: key.to_owned(),
            base: None,
            thread: None,
            first,
            second,
            place: String::new(),
        }
    }

    /// The same for the same conflict, whoever finds it: what its alert is stored under, once.
    pub fn id(&self) -> String {
        format!(
            "conflict.{}.{}.{}.{}.{}",
            self.second.stream_seq,
            self.second.stored.as_nanosecond(),
            self.first.stream_seq,
            self.rule,
            self.place
        )
    }

    /// The body of its alert.
    pub fn body(&self) -> Value {
        let (first, second) = (&self.first, &self.second);
        let mut body = json!({
            "key": self.key,
            "instances": [first.instance, second.instance],
            "reason": self.reason(),
            "rule": self.rule,
            "events": [first.json(), second.json()],
        });
        for (name, value) in [("base", &self.base), ("thread", &self.thread)] {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        body
    }

    /// Why, for a reader.
    pub fn reason(&self) -> String {
        let who = |side: &Side| match &side.session {
            Some(session) => format!("{}/{session}", side.instance),
            None => side.instance.clone(),
        };
        let base = self
            .base
            .as_ref()
            .map(|base| format!(" from {base}"))
            .unwrap_or_default();
        format!(
            "{} says {}, {} says {}{base}; neither had seen the other",
            who(&self.first),
            self.first.outcome,
            who(&self.second),
            self.second.outcome
        )
    }
}
