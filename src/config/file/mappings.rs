//! `mappings { SUBJECT: DESTINATION }`: what clients publish goes under another name, all of it or by weight.

use crate::account::Mapping;
use crate::config::fields::Notes;
use crate::config::language::{Entry, Node, Problem, Value};

const KEYS: [&str; 3] = ["destination", "weight", "cluster"];

/// Reads the block; what is wrong is noted.
pub(super) fn read(block: &Entry, notes: &mut Notes) -> Vec<Mapping> {
    let Some(map) = block.map(notes) else {
        return Vec::new();
    };
    let mut mappings = Vec::new();
    for entry in map.entries() {
        let destinations = match &entry.node.value {
            Value::Text(to) => Some(vec![(to.clone(), 100)]),
            // All are looked at, so that all mistakes are told of.
            Value::Array(nodes) => {
                let read: Vec<_> = nodes.iter().map(|node| destination(node, notes)).collect();
                read.into_iter().collect::<Option<Vec<_>>>().map(here)
            }
            Value::Map(_) => destination(&entry.node, notes).map(|read| here(vec![read])),
            _ => {
                let text = format!(
                    "\"{}\" is mapped to a subject or to {{ destination, weight }}, or to a list of those, not to {}",
                    entry.key.escape_debug(),
                    entry.node.kind()
                );
                notes.error(entry, text);
                None
            }
        };
        match destinations.map(|destinations| Mapping::weighted(&entry.key, &destinations)) {
            Some(Ok(mapping)) => mappings.push(mapping),
            Some(Err(error)) => notes.error(entry, error),
            None => {}
        }
    }
    mappings
}

/// One of several destinations; none in it: it is for servers of a cluster.
type Weighted = Option<(String, u8)>;

/// As in nats-server: a server that is in no such cluster goes by those for everyone.
fn here(destinations: Vec<Weighted>) -> Vec<(String, u8)> {
    destinations.into_iter().flatten().collect()
}

fn destination(node: &Node, notes: &mut Notes) -> Option<Weighted> {
    let map = node.map("a destination { destination, weight }", notes)?;
    let (mut to, mut weight, mut cluster) = (None, None, None);
    let before = notes.errors.len();
    for entry in map.entries() {
        match entry.name().as_str() {
            "dest" | "destination" => to = entry.text(notes),
            "weight" => weight = hundredths(entry, notes),
            "cluster" => cluster = entry.text(notes).map(|name| (entry, name)),
            _ => notes.unknown(entry, &KEYS),
        }
    }
    match (to, weight) {
        (Some(to), Some(weight)) if cluster.is_none() => return Some(Some((to, weight))),
        (Some(_), Some(_)) => {
            if let Some((entry, name)) = cluster {
                let name = name.escape_debug();
                notes.warn(
                    entry,
                    format!("it has no effect: this server is not in cluster \"{name}\""),
                );
            }
            return Some(None);
        }
        _ if notes.errors.len() > before => {}
        (None, _) => {
            let text = "a \"destination\" is missing";
            notes.errors.push(Problem::at(&node.spot, text));
        }
        (Some(to), None) => {
            let text = format!("Missing weight for mapping destination \"{}\"", to.escape_debug());
            notes.errors.push(Problem::at(&node.spot, text));
        }
    }
    None
}

/// `50`, `"50"` or `50%`.
fn hundredths(entry: &Entry, notes: &mut Notes) -> Option<u8> {
    let number = match &entry.node.value {
        Value::Integer(number) => u8::try_from(*number).ok(),
        Value::Text(text) => text.strip_suffix('%').unwrap_or(text).parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| *number <= 100);
    if number.is_none() {
        notes.error(entry, "\"weight\" is a share of a hundred such as 40 or \"40%\"");
    }
    number
}
