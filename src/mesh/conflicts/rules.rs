//! Rules: which events act on what, from which base, with which outcome. Ours, and those of a file.
//!
//! A file is read in the language of configuration files, of which JSON is a part, so every mistake is told with its place:
//! `{"conflicts": {"window": "1m", "builtin": true, "rules": [{...}]}}`, beside the user's own events or alone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::fields::Notes;
use crate::config::language::{self, Entry, Map, Node, Problem, Value as Said};
use crate::mesh::{Catalog, identity};

/// The window of rules that say none.
const WINDOW: Duration = Duration::from_secs(60);
/// Longest window; what lies in it is kept in memory.
const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most rules of a file.
const RULES_MAX: usize = 1000;
/// The event that is told of conflicts, and no party to one.
pub(super) const ALERT: &str = "conflict_alert";

/// The rules that hold unless a file says otherwise, as a file would write them.
pub const BUILTIN: &str = r#"{"conflicts": {"rules": [
  {"name": "graph_nodes", "events": "graph_update", "key": "nodes.*", "base": "base", "outcome": "change"},
  {"name": "graph_edges", "events": "graph_update", "key": "edges.*", "base": "base", "outcome": "change"},
  {"name": "attention", "events": "attention_decision", "key": "focus", "base": "base", "outcome": "decision"},
  {"name": "principles", "events": "edge_discovery", "key": ["from", "to"], "base": "base", "outcome": "relation"},
  {"name": "meta_state", "events": "meta_fo_update", "key": "base", "outcome": "state"},
  {"name": "resurrection", "events": "session_resurrected", "key": "session", "outcome": "new_session"}
]}}"#;

const FILE_KEYS: [&str; 2] = ["conflicts", "events"];
const BLOCK_KEYS: [&str; 3] = ["builtin", "rules", "window"];
const RULE_KEYS: [&str; 8] = [
    "base", "between", "events", "key", "name", "outcome", "seen", "window",
];

/// A field of a body: `a.b` or a JSON pointer `/a/b`; in the dotted form `*` is every element of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Each,
}

impl Path {
    /// Reads one, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let (pointer, rest) = match text.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut steps = Vec::new();
        for part in rest.split(if pointer { '/' } else { '.' }) {
            steps.push(match part {
                "" => return Err(format!("\"{shown}\" is no path: a part of it is empty")),
                "*" if !pointer => Step::Each,
                part if pointer => Step::Field(
                    unescaped(part)
                        .ok_or_else(|| format!("\"{shown}\" is no JSON pointer: ~ stands before 0 or 1"))?,
                ),
                part => Step::Field(part.to_owned()),
            });
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// Whether it may lead to more than one value.
    pub fn is_many(&self) -> bool {
        self.steps.contains(&Step::Each)
    }

    /// What it leads to in `body`, at most `count_max` values; `null` counts as nothing.
    pub fn values<'v>(&self, body: &'v Value, count_max: usize) -> Vec<&'v Value> {
        let mut found = vec![body];
        for step in &self.steps {
            found = match step {
                Step::Field(name) => found
                    .into_iter()
                    .filter_map(|value| match value {
                        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
                        value => value.get(name),
                    })
                    .collect(),
                Step::Each => found
                    .into_iter()
                    .filter_map(Value::as_array)
                    .flatten()
                    .take(count_max)
                    .collect(),
            };
        }
        found.retain(|value| !value.is_null());
        found
    }

    /// The one value it leads to.
    pub fn value<'v>(&self, body: &'v Value) -> Option<&'v Value> {
        self.values(body, 1).first().copied()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// `~1` is a slash and `~0` a tilde.
fn unescaped(part: &str) -> Option<String> {
    let mut pieces = part.split('~');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let letter = match piece.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        };
        text.push(letter);
        text.push_str(&piece[1..]);
    }
    Some(text)
}

/// Who can be at odds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// Two instances.
    #[default]
    Instances,
    /// Two sessions, be they of one instance.
    Sessions,
}

impl Between {
    /// As a file writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Sessions => "sessions",
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// The subjects of its events.
    pub subjects: Vec<String>,
    /// What an event acts on: the values of these together, or each of the values of one.
    pub key: Vec<Path>,
    /// What it starts from; events that do not say have one base in common.
    pub base: Option<Path>,
    /// What it makes of it.
    pub outcome: Vec<Path>,
    /// What its sender had seen: a place in the stream, or an object of instances and their `Mesh-Seq`.
    pub seen: Vec<Path>,
    /// How far apart two events may be stored.
    pub window: Duration,
    /// Who can be at odds.
    pub between: Between,
}

/// All rules that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    /// Those that hold when nothing is configured.
    pub fn builtin() -> Self {
        let read = Self::parse("built-in rules", BUILTIN, &Catalog::builtin());
        read.expect("a test reads them")
    }

    /// Those of a file and the built-in ones that it leaves in force, or all that is wrong with it.
    pub fn load(path: &std::path::Path, catalog: &Catalog) -> Result<Self, Vec<Problem>> {
        let loaded =
            language::load_file(path, &|name| std::env::var(name).ok()).map_err(|problem| vec![problem])?;
        Self::builtin().with(&loaded.map, catalog)
    }

    /// These alone.
    #[cfg(test)]
    pub(super) fn of(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Those of a text alone.
    fn parse(name: &str, text: &str, catalog: &Catalog) -> Result<Self, Vec<Problem>> {
        let loaded = language::load_text(name, text, &|_| None).map_err(|problem| vec![problem])?;
        Self { rules: Vec::new() }.with(&loaded.map, catalog)
    }

    fn with(mut self, file: &Map, catalog: &Catalog) -> Result<Self, Vec<Problem>> {
        let mut notes = Notes::default();
        for entry in file.entries() {
            match entry.name().as_str() {
                "conflicts" => {
                    if let Some(block) = entry.map(&mut notes) {
                        self.block(block, catalog, &mut notes);
                    }
                }
                // Their own reader looks at those.
                "events" => {}
                _ => notes.unknown(entry, &FILE_KEYS),
            }
        }
        if notes.errors.is_empty() && self.rules.is_empty() {
            let text = "no rule is left: nothing would be looked at".to_owned();
            notes.errors.push(Problem { spot: None, text });
        }
        match notes.errors.is_empty() {
            true => Ok(self),
            false => Err(notes.errors),
        }
    }

    fn block(&mut self, block: &Map, catalog: &Catalog, notes: &mut Notes) {
        // First what the others hang on, wherever it stands.
        let mut window = WINDOW;
        for entry in block.entries() {
            match entry.name().as_str() {
                "window" => window = self::window(entry, notes).unwrap_or(WINDOW),
                "builtin" => self.keep(entry, notes),
                "rules" => {}
                _ => notes.unknown(entry, &BLOCK_KEYS),
            }
        }
        for rule in &mut self.rules {
            rule.window = window;
        }
        let listed = block.get("rules").and_then(|entry| entry.list(notes));
        let mut names = Vec::new();
        for node in listed.into_iter().flatten() {
            let Some(rule) = rule(node, window, catalog, notes) else {
                continue;
            };
            if names.contains(&rule.name) {
                let text = format!("a rule \"{}\" is there already", rule.name);
                notes.errors.push(Problem::at(&node.spot, text));
            }
            if names.len() == RULES_MAX {
                let text = format!("more than {RULES_MAX} rules");
                notes.errors.push(Problem::at(&node.spot, text));
                break;
            }
            names.push(rule.name.clone());
            self.rules.retain(|known| known.name != rule.name);
            self.rules.push(rule);
        }
    }

    /// `builtin`: whether ours hold, or which of them.
    fn keep(&mut self, entry: &Entry, notes: &mut Notes) {
        if let Said::Flag(all) = entry.node.value {
            self.rules.retain(|_| all);
            return;
        }
        let Some(names) = entry.texts(notes) else {
            return;
        };
        for name in &names {
            if !self.rules.iter().any(|rule| rule.name == *name) {
                let known: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
                let text = format!(
                    "no built-in rule is called \"{}\"; there are {}",
                    name.escape_debug(),
                    known.join(", ")
                );
                notes.error(entry, text);
                return;
            }
        }
        self.rules.retain(|rule| names.contains(&rule.name));
    }

    /// The rules, ours first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Each as a line for programs.
    pub fn lines(&self) -> Vec<Value> {
        let texts = |paths: &[Path]| -> Vec<String> { paths.iter().map(|path| path.text.clone()).collect() };
        let line = |rule: &Rule| {
            json!({
                "name": rule.name,
                "subjects": rule.subjects,
                "key": texts(&rule.key),
                "base": rule.base.as_ref().map(|base| &base.text),
                "outcome": texts(&rule.outcome),
                "seen": texts(&rule.seen),
                "window_seconds": rule.window.as_secs_f64(),
                "between": rule.between.name(),
            })
        };
        self.rules.iter().map(line).collect()
    }

    /// What must be read for them.
    pub fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<String> = self.rules.iter().flat_map(|rule| rule.subjects.clone()).collect();
        subjects.sort();
        subjects.dedup();
        subjects
    }

    /// How far back an event can bear on what comes of a later one: the two may be a window apart, each has seen what its
    /// sender named within a window before, and what was told within a window before is not told again.
    pub fn reach(&self) -> Duration {
        let longest = self.rules.iter().map(|rule| rule.window).max();
        longest.unwrap_or_default() * 3
    }
}

fn window(entry: &Entry, notes: &mut Notes) -> Option<Duration> {
    let window = entry.duration(notes)?;
    if window.is_zero() || window > WINDOW_MAX {
        notes.error(entry, "\"window\" is more than nothing and at most 7 days");
        return None;
    }
    Some(window)
}

/// Reads one rule; what is wrong is noted.
fn rule(node: &Node, window: Duration, catalog: &Catalog, notes: &mut Notes) -> Option<Rule> {
    let map = node.map("a rule { name, events, key, outcome }", notes)?;
    let before = notes.errors.len();
    let mut rule = Rule {
        name: String::new(),
        subjects: Vec::new(),
        key: Vec::new(),
        base: None,
        outcome: Vec::new(),
        seen: ["seen", "seen_of"]
            .iter()
            .filter_map(|path| Path::parse(path).ok())
            .collect(),
        window,
        between: Between::Instances,
    };
    for entry in map.entries() {
        match entry.name().as_str() {
            "name" => rule.name = name(entry, notes),
            "events" => rule.subjects = subjects(entry, catalog, notes),
            "key" => {
                rule.key = paths(entry, notes);
                if rule.key.len() > 1 && rule.key.iter().any(Path::is_many) {
                    notes.error(entry, "\"key\" is several fields or one with *, not both");
                }
            }
            "base" => rule.base = single(entry, notes).into_iter().next(),
            "outcome" => rule.outcome = single(entry, notes),
            "seen" => rule.seen = single(entry, notes),
            "window" => rule.window = self::window(entry, notes).unwrap_or(window),
            "between" => match entry.text(notes).as_deref() {
                Some("instances") | None => {}
                Some("sessions") => rule.between = Between::Sessions,
                Some(_) => notes.error(entry, "\"between\" is instances or sessions"),
            },
            _ => notes.unknown(entry, &RULE_KEYS),
        }
    }
    for needed in ["name", "events", "key", "outcome"] {
        if map.get(needed).is_none() {
            let text = format!("the rule says no \"{needed}\"");
            notes.errors.push(Problem::at(&node.spot, text));
        }
    }
    if let Some(entry) = map
        .get("base")
        .filter(|entry| matches!(entry.node.value, Said::Array(_)))
    {
        notes.error(entry, "\"base\" is one field");
    }
    (notes.errors.len() == before).then_some(rule)
}

fn name(entry: &Entry, notes: &mut Notes) -> String {
    let name = entry.text(notes).unwrap_or_default();
    if !identity::is_name(&name) {
        notes.error(entry, "a rule's \"name\" is 1 to 64 letters, digits, _ or -");
    }
    name
}

/// Names of events, looked up.
fn subjects(entry: &Entry, catalog: &Catalog, notes: &mut Notes) -> Vec<String> {
    let names = entry.texts(notes).unwrap_or_default();
    let mut subjects = Vec::new();
    for name in &names {
        match catalog.get(name) {
            Ok(_) if name == ALERT => notes.error(entry, "conflict_alert is what comes of the rules"),
            Ok(event) => subjects.push(event.subject.clone()),
            Err(error) => notes.error(entry, format!("{error}; `mesh events` lists those there are")),
        }
    }
    if names.is_empty() && matches!(entry.node.value, Said::Array(_)) {
        notes.error(entry, "\"events\" names no event");
    }
    subjects
}

fn paths(entry: &Entry, notes: &mut Notes) -> Vec<Path> {
    let texts = entry.texts(notes).unwrap_or_default();
    let mut paths = Vec::new();
    for text in &texts {
        match Path::parse(text) {
            Ok(path) => paths.push(path),
            Err(error) => notes.error(entry, error),
        }
    }
    if texts.is_empty() && matches!(entry.node.value, Said::Array(_)) {
        notes.error(entry, format!("\"{}\" names no field", entry.key));
    }
    paths
}

/// Paths that lead to one value each.
fn single(entry: &Entry, notes: &mut Notes) -> Vec<Path> {
    let paths = paths(entry, notes);
    if paths.iter().any(Path::is_many) {
        notes.error(entry, format!("* is for \"key\": \"{}\" is one value", entry.key));
    }
    paths
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
