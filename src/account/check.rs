//! Whether accounts make sense together: every import has an export that grants it, and nothing goes around in circles.
//!
//! What is allowed is what nats-server allows, but that a circle is found however many accounts it goes through. A list of
//! accounts that is refused here is refused whole: half of it is not what anybody wrote.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::protocol::subject;
use crate::protocol::transform::Transform;

use super::spec::{Export, Import, Kind, Mapping, Spec};
use super::{GLOBAL, SYSTEM};

/// Something about an account that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The account.
    pub account: Arc<str>,
    /// Where it was configured: the import or export if it is one, else the account; empty where nobody said.
    pub rule: String,
    /// What is wrong, in one line.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule.as_str() {
            "" => write!(f, "account {}: {}", self.account.escape_debug(), self.text),
            rule => write!(f, "{rule}: {}", self.text),
        }
    }
}

/// All that is wrong with a list of accounts; `$G` and `$SYS` are there whether it names them or not.
pub fn check(specs: &[Spec]) -> Vec<Problem> {
    let mut check = Check::default();
    for spec in specs {
        if !is_name(&spec.name) {
            let text = format!("\"{}\" is no name for an account", spec.name.escape_debug());
            check.note(spec, &spec.rule, text);
        }
        if check.by_name.insert(&spec.name, spec).is_some() {
            let text = format!("account \"{}\" is there twice", spec.name.escape_debug());
            check.note(spec, &spec.rule, text);
        }
    }
    for spec in specs {
        check.exports(spec);
        check.mappings(spec);
    }
    for spec in specs {
        check.imports(spec);
    }
    check.circles(specs);
    check.problems
}

/// The export of `exporter` that lets `importer` have what `import` names; none when nothing does. One with the very subject
/// decides alone, as in nats-server: what is granted to a few is not had by way of a wider one.
pub fn granting<'a>(exporter: &'a Spec, importer: &str, import: &Import) -> Option<&'a Export> {
    let of_kind = || {
        exporter
            .exports
            .iter()
            .filter(|export| export.kind == import.kind)
    };
    if let Some(export) = of_kind().find(|export| export.subject == import.subject) {
        return admits(export, importer, import, true).then_some(export);
    }
    let covers = |export: &&Export| subject::is_subset(import.subject.as_bytes(), export.subject.as_bytes());
    of_kind()
        .filter(covers)
        .find(|export| admits(export, importer, import, false))
}

/// Whether an export that covers an import is for this importer.
fn admits(export: &Export, importer: &str, import: &Import, is_same: bool) -> bool {
    if export.account_token_position > 0 {
        // The pattern itself names no importer.
        let token = import.subject.split('.').nth(export.account_token_position - 1);
        return !is_same && token == Some(importer);
    }
    if export.token_required {
        return import.activated;
    }
    let named = |accounts: &Vec<Arc<str>>| accounts.iter().any(|name| &**name == importer);
    export.accounts.as_ref().is_none_or(named)
}

/// What an import is called where it comes in: its name there to its name here.
pub fn renaming(import: &Import) -> Result<Transform, String> {
    let here = import.to.as_deref().unwrap_or(&import.subject);
    Transform::between(&import.subject, here)
}

/// A name stands in subjects, as a token or as several.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[derive(Default)]
struct Check<'a> {
    by_name: HashMap<&'a str, &'a Spec>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn note(&mut self, spec: &Spec, rule: &str, text: String) {
        self.problems.push(Problem {
            account: spec.name.clone(),
            rule: rule.to_owned(),
            text,
        });
    }

    fn is_there(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || name == GLOBAL || name == SYSTEM
    }

    fn exports(&mut self, spec: &Spec) {
        let mut seen = HashSet::new();
        for export in &spec.exports {
            let (kind, subject) = (export.kind, export.subject.as_str());
            let shown = subject.escape_debug();
            if !subject::is_pattern(subject.as_bytes()) {
                let text = format!("{kind} export \"{shown}\" is not a valid subject");
                self.note(spec, &export.rule, text);
            } else if !seen.insert((kind == Kind::Service, subject)) {
                let text = format!("{kind} export \"{shown}\" is there twice: say once who may import it");
                self.note(spec, &export.rule, text);
            }
            let position = export.account_token_position;
            if position > 0 && subject.split('.').nth(position - 1) != Some("*") {
                let text = format!(
                    "account_token_position of {kind} export \"{shown}\": token {position} is not a *"
                );
                self.note(spec, &export.rule, text);
            }
            for name in export.accounts.iter().flatten() {
                if !self.is_there(name) {
                    let name = name.escape_debug();
                    let text = format!("account \"{name}\" of {kind} export \"{shown}\" is not defined");
                    self.note(spec, &export.rule, text);
                }
            }
        }
    }

    fn mappings(&mut self, spec: &Spec) {
        let mut seen = HashSet::new();
        for mapping in &spec.mappings {
            if let Err(error) = mapping.check() {
                self.note(spec, &spec.rule, error);
            }
            if !seen.insert(mapping.source.as_str()) {
                let text = format!("mapping \"{}\" is there twice", mapping.source.escape_debug());
                self.note(spec, &spec.rule, text);
            }
        }
    }

    fn imports(&mut self, spec: &Spec) {
        let mut seen: HashMap<_, &str> = HashMap::new();
        for import in &spec.imports {
            let wrong = self.import(spec, import);
            let twice = seen.insert(place(import), &import.rule).map(|other| {
                let at = if other.is_empty() {
                    String::new()
                } else {
                    format!(", first at {other}")
                };
                format!("{} is there twice{at}", named(import))
            });
            for text in wrong.into_iter().chain(twice) {
                self.note(spec, &import.rule, text);
            }
        }
    }

    /// What is wrong with one import.
    fn import(&self, spec: &Spec, import: &Import) -> Option<String> {
        let what = named(import);
        let subject = import.subject.as_bytes();
        if !subject::is_pattern(subject) {
            return Some(format!("{what} is not a valid subject"));
        }
        if !self.is_there(&import.account) {
            return Some(format!(
                "{what}: account \"{}\" is not defined",
                import.account.escape_debug()
            ));
        }
        let exporter = self.by_name.get(&*import.account);
        let covers = |export: &Export| {
            export.kind == import.kind && subject::is_subset(subject, export.subject.as_bytes())
        };
        let Some(exporter) = exporter.filter(|exporter| exporter.exports.iter().any(covers)) else {
            return Some(format!("{what}: not authorized, there is no such export"));
        };
        if granting(exporter, &spec.name, import).is_none() {
            let name = spec.name.escape_debug();
            return Some(format!(
                "{what}: not authorized, the export is not for account \"{name}\""
            ));
        }
        renaming(import).err().map(|error| format!("{what}: {error}"))
    }

    /// Circles of requests, and of messages: each import leads on to those of the account it leads to.
    fn circles(&mut self, specs: &'a [Spec]) {
        for kind in [Kind::Service, Kind::Stream] {
            let of_kind = |spec: &'a Spec| {
                let imports = spec.imports.iter().filter(|import| import.kind == kind);
                imports.map(move |import| (spec, import))
            };
            let imports: Vec<_> = specs.iter().flat_map(of_kind).collect();
            for at in Graph::new(&imports).on_a_circle() {
                let (spec, import) = imports[at];
                self.note(
                    spec,
                    &import.rule,
                    format!("{}: import forms a cycle", named(import)),
                );
            }
        }
    }
}

/// What one import of an account has alone: streams are told apart by where they come from, services by where they are
/// asked.
fn place(import: &Import) -> (bool, &str, &str) {
    let key = match import.kind {
        Kind::Stream => import.subject.as_str(),
        Kind::Service => import.to.as_deref().unwrap_or(&import.subject),
    };
    (import.kind == Kind::Service, &*import.account, key)
}

/// Of imports, each with who imports: those that have to be left out for the rest to make sense, in order, and why.
pub(super) fn unsound(imports: &[(&Spec, &Import)]) -> Vec<(usize, &'static str)> {
    let mut seen = HashSet::new();
    let is_new = |at: &usize| {
        let (spec, import) = imports[*at];
        seen.insert((&spec.name, place(import)))
    };
    let (once, twice): (Vec<_>, Vec<_>) = (0..imports.len()).partition(is_new);
    let mut found: Vec<_> = twice.into_iter().map(|at| (at, "it is there twice")).collect();
    for kind in [Kind::Service, Kind::Stream] {
        let of_kind = |at: &&usize| imports[**at].1.kind == kind;
        let at: Vec<_> = once.iter().filter(of_kind).copied().collect();
        let nodes: Vec<_> = at.iter().map(|&at| imports[at]).collect();
        let circles = Graph::new(&nodes).on_a_circle().into_iter();
        found.extend(circles.map(|node| (at[node], "it forms a cycle")));
    }
    found.sort_unstable();
    found
}

/// An import as people are told of it.
pub(super) fn named(import: &Import) -> String {
    format!(
        "{} import \"{}\" from account \"{}\"",
        import.kind,
        import.subject.escape_debug(),
        import.account.escape_debug()
    )
}

/// Imports of one kind: which lead on to which.
struct Graph {
    next: Vec<Vec<usize>>,
}

/// The pattern of what an import is called where it comes in; none when its renaming is wrong, which has been told of.
fn here(import: &Import) -> Option<String> {
    let transform = renaming(import).ok()?;
    Some(transform.outcome().unwrap_or_else(|| ">".to_owned()))
}

impl Graph {
    fn new(imports: &[(&Spec, &Import)]) -> Self {
        let names: Vec<_> = imports.iter().map(|(_, import)| here(import)).collect();
        let mut into: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, (spec, _)) in imports.iter().enumerate() {
            into.entry(&spec.name).or_default().push(at);
        }
        // A request goes on from the account that exports, by the imports of that one; the way of a message is the same one
        // backwards, and a circle is a circle both ways.
        let follow = |(_, import): &(&Spec, &Import)| {
            let candidates = into.get(&*import.account).into_iter().flatten();
            let leads_on = |&&at: &&usize| {
                let name: Option<&String> = names[at].as_ref();
                name.is_some_and(|name| subject::overlap(import.subject.as_bytes(), name.as_bytes()))
            };
            candidates.filter(leads_on).copied().collect()
        };
        Self {
            next: imports.iter().map(follow).collect(),
        }
    }

    /// One import of each circle, the first one met: without them there is no circle.
    fn on_a_circle(&self) -> Vec<usize> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.next.len()];
        let mut found = Vec::new();
        for start in 0..self.next.len() {
            if marks[start] != Mark::New {
                continue;
            }
            // By hand: a chain may be as long as the list.
            let mut path = vec![(start, 0)];
            marks[start] = Mark::Open;
            while let Some((at, edge)) = path.last_mut() {
                let Some(&to) = self.next[*at].get(*edge) else {
                    marks[*at] = Mark::Done;
                    path.pop();
                    continue;
                };
                *edge += 1;
                match marks[to] {
                    Mark::New => {
                        marks[to] = Mark::Open;
                        path.push((to, 0));
                    }
                    Mark::Open => found.push(*at),
                    Mark::Done => {}
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Mapping {
    /// From a source to destinations with hundredths each.
    pub fn weighted(source: &str, destinations: &[(String, u8)]) -> Result<Self, String> {
        let weighted = |(to, percent): &(String, u8)| {
            let transform = Transform::new(source, to)?;
            Ok(super::Weighted {
                transform,
                percent: *percent,
            })
        };
        let mapping = Self {
            source: source.to_owned(),
            destinations: destinations.iter().map(weighted).collect::<Result<_, String>>()?,
        };
        mapping.check()?;
        Ok(mapping)
    }

    /// Whether its weights and destinations go together.
    fn check(&self) -> Result<(), String> {
        let source = self.source.escape_debug();
        if !subject::is_pattern(self.source.as_bytes()) {
            return Err(format!("mapping \"{source}\" is not a valid subject"));
        }
        let sum: u32 = self.destinations.iter().map(|to| u32::from(to.percent)).sum();
        if sum > 100 {
            return Err(format!(
                "the weights of mapping \"{source}\" are {sum}% together, more than 100%"
            ));
        }
        let mut seen = HashSet::new();
        for to in &self.destinations {
            let destination = to.transform.destination();
            let shown = destination.escape_debug();
            if to.transform.source() != self.source.as_bytes() {
                return Err(format!(
                    "mapping \"{source}\" to \"{shown}\" renames another subject"
                ));
            }
            if !seen.insert(destination) {
                return Err(format!("mapping \"{source}\" names \"{shown}\" twice"));
            }
            // Other wildcards may be left out; what `>` matched has no other place.
            if is_open(&self.source) && !is_open(destination) {
                return Err(format!(
                    "mapping \"{source}\" to \"{shown}\": its source ends with > and it does not"
                ));
            }
        }
        Ok(())
    }
}

fn is_open(pattern: &str) -> bool {
    pattern == ">" || pattern.ends_with(".>")
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
