//! Rules held against history: what would have been told of, and how that compares with what people say were conflicts.
//!
//! Nothing is published. Labels are a line each: the events of one conflict by their places in the stream, and the key if that
//! matters. What `mesh conflicts --json` prints can be kept as labels once the wrong lines are struck out.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::conflict::Conflict;
use super::detector::Detector;
use super::rules::Rules;
use crate::mesh::{Error, Mesh, Reader, Selection, Start};

/// Largest file of labels.
const LABELS_BYTES_MAX: u64 = 64 << 20;

/// Rules on their way through history.
pub struct Replay {
    reader: Reader,
    detector: Detector,
    /// What came before is only there to be known of.
    from: Option<Timestamp>,
    ready: std::vec::IntoIter<Conflict>,
    events: u64,
    span: Option<(u64, u64)>,
}

impl Mesh {
    /// Begins a replay of what is stored from `start` on.
    pub async fn replay(&self, rules: &Rules, start: Start) -> Result<Replay, Error> {
        let reach = SignedDuration::try_from(rules.reach()).unwrap_or(SignedDuration::MAX);
        let (from, start) = match start {
            Start::At(time) => {
                let before = time.checked_sub(reach).unwrap_or(Timestamp::UNIX_EPOCH);
                (Some(time), Start::At(before))
            }
            start => (None, start),
        };
        Ok(Replay {
            reader: self.read(Selection::of(rules.subjects(), start)).await?,
            detector: Detector::new(rules),
            from,
            ready: Vec::new().into_iter(),
            events: 0,
            span: None,
        })
    }
}

impl Replay {
    /// The next conflict that would have been told of.
    pub async fn next(&mut self) -> Result<Option<Conflict>, Error> {
        loop {
            if let Some(conflict) = self.ready.next() {
                return Ok(Some(conflict));
            }
            let Some(event) = self.reader.next().await? else {
                return Ok(None);
            };
            let conflicts = self.detector.take(&event);
            if self.from.is_some_and(|from| event.stored < from) {
                continue;
            }
            self.events += 1;
            let first = self.span.map_or(event.stream_seq, |(first, _)| first);
            self.span = Some((first, event.stream_seq));
            self.ready = conflicts.into_iter();
        }
    }

    /// Events that were looked at so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The places of the first and the last of them.
    pub fn span(&self) -> Option<(u64, u64)> {
        self.span
    }
}

/// What people say is a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Its events.
    pub events: BTreeSet<u64>,
    /// What it is about, if that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its line in the file.
    pub line: usize,
    #[serde(skip)]
    hit: bool,
}

/// All labels of a file.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    labels: Vec<Label>,
}

/// How rules compare with labels.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// Alerts.
    pub fired: u64,
    /// Those that a label calls a conflict.
    pub right: u64,
    /// The share of alerts that are right; none if there are none.
    pub precision: Option<f64>,
    /// Labels of what was looked at.
    pub labels: u64,
    /// Those that were found.
    pub found: u64,
    /// The share of labels that were found; none if there are none.
    pub recall: Option<f64>,
    /// Labels of events beyond what was looked at, which do not count.
    pub beyond: u64,
    /// Labels that were not found.
    pub missed: Vec<Label>,
}

impl Labels {
    /// Reads a file of them.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bad = |problem: String| Error::BadConfig {
            path: path.to_owned(),
            problem,
        };
        let size = std::fs::metadata(path)
            .map_err(|error| bad(error.to_string()))?
            .len();
        if size > LABELS_BYTES_MAX {
            return Err(bad(format!("larger than {LABELS_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        Self::parse(&text).map_err(bad)
    }

    /// Reads their text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut labels = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = label(line, number).map_err(|why| format!("line {number}: {why}"))?;
            labels.extend(read);
        }
        Ok(Self { labels })
    }

    /// Whether a label calls it a conflict; that one is found then.
    pub fn is_right(&mut self, conflict: &Conflict) -> bool {
        let mut right = false;
        for label in &mut self.labels {
            let key_fits = label.key.as_ref().is_none_or(|key| *key == conflict.key);
            let sides = [&conflict.first, &conflict.second];
            if key_fits && sides.iter().all(|side| label.events.contains(&side.stream_seq)) {
                label.hit = true;
                right = true;
            }
        }
        right
    }

    /// The comparison, when `fired` alerts were asked about of which `right` were, in a replay of `span`.
    pub fn score(self, fired: u64, right: u64, span: Option<(u64, u64)>) -> Score {
        let within = |label: &Label| {
            let inside = |seq: &u64| span.is_some_and(|(first, last)| (first..=last).contains(seq));
            label.hit || label.events.iter().filter(|seq| inside(seq)).count() >= 2
        };
        let (counted, beyond): (Vec<Label>, Vec<Label>) = self.labels.into_iter().partition(within);
        let labels = counted.len() as u64;
        let missed: Vec<Label> = counted.into_iter().filter(|label| !label.hit).collect();
        let found = labels - missed.len() as u64;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        Score {
            fired,
            right,
            precision: share(right, fired),
            labels,
            found,
            recall: share(found, labels),
            beyond: beyond.len() as u64,
            missed,
        }
    }
}

/// Reads one line: `{"events": [12, 15]}`, or an alert as we print it. Our own summaries are no labels.
fn label(line: &str, number: usize) -> Result<Option<Label>, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    if value.get("summary").is_some() {
        return Ok(None);
    }
    let value = value.get("missed").unwrap_or(&value);
    let expected =
        || "expected the events of a conflict: {\"events\": [12, 15]}, two places in the stream or more";
    let listed = value
        .get("events")
        .and_then(Value::as_array)
        .ok_or_else(expected)?;
    let mut events = BTreeSet::new();
    for event in listed {
        let place = event.get("stream_seq").unwrap_or(event);
        events.insert(place.as_u64().ok_or_else(expected)?);
    }
    if events.len() < 2 {
        return Err(expected().to_owned());
    }
    let key = match value.get("key") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(_) => return Err("the \"key\" of a label is text".to_owned()),
    };
    Ok(Some(Label {
        events,
        key,
        line: number,
        hit: false,
    }))
}

impl Score {
    /// One object for programs, without what was missed.
    pub fn json(&self) -> Value {
        json!({
            "fired": self.fired, "right": self.right, "precision": self.precision,
            "labels": self.labels, "found": self.found, "recall": self.recall, "beyond": self.beyond,
        })
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
