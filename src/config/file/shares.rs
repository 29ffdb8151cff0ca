//! `exports` and `imports` of an account. What is wrong with them together, `account::check` says.

use std::sync::Arc;
use std::time::Duration;

use crate::account::{Export, Import, Kind, Response, THRESHOLD};
use crate::config::fields::Notes;
use crate::config::language::{Entry, Node, Problem, Value};
use crate::protocol::subject;

const EXPORT_KEYS: [&str; 8] = [
    "stream",
    "service",
    "accounts",
    "response_type",
    "response_threshold",
    "account_token_position",
    "latency",
    "allow_trace",
];
const IMPORT_KEYS: [&str; 6] = ["stream", "service", "prefix", "to", "share", "allow_trace"];

/// Reads a list of exports; what is wrong is noted and left out.
pub(super) fn exports(block: &Entry, notes: &mut Notes) -> Vec<Export> {
    let nodes = block.list(notes).unwrap_or_default();
    nodes.iter().filter_map(|node| export(node, notes)).collect()
}

/// Reads a list of imports; what is wrong is noted and left out.
pub(super) fn imports(block: &Entry, notes: &mut Notes) -> Vec<Import> {
    let nodes = block.list(notes).unwrap_or_default();
    nodes.iter().filter_map(|node| import(node, notes)).collect()
}

fn export(node: &Node, notes: &mut Notes) -> Option<Export> {
    let map = node.map("an export { stream: ... } or { service: ... }", notes)?;
    let mut shared = None;
    let mut export = Export {
        kind: Kind::Stream,
        subject: String::new(),
        accounts: None,
        token_required: false,
        account_token_position: 0,
        response: Response::default(),
        threshold: THRESHOLD,
        rule: node.spot.to_string(),
    };
    let (mut latency, mut of_services) = (None, Vec::new());
    for entry in map.entries() {
        let name = entry.name();
        match name.as_str() {
            "stream" | "service" => share(&mut shared, entry, node, notes),
            "accounts" => {
                let names = entry.texts(notes).unwrap_or_default();
                export.accounts = Some(names.into_iter().map(Arc::from).collect());
            }
            "account_token_position" => {
                super::set(&mut export.account_token_position, entry.count(notes));
            }
            "response" | "response_type" => {
                super::set(&mut export.response, response(entry, notes));
                of_services.push(entry);
            }
            "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
                let threshold = entry.duration(notes).filter(|time| *time > Duration::ZERO);
                super::set(&mut export.threshold, threshold);
                of_services.push(entry);
            }
            "latency" => {
                check_latency(entry, notes);
                latency = Some(entry);
                of_services.push(entry);
            }
            "allow_trace" => {
                untraced(entry, notes);
                of_services.push(entry);
            }
            _ => notes.unknown(entry, &EXPORT_KEYS),
        }
    }
    let (kind, entry) = either(shared, "an export", node, notes)?;
    (export.kind, export.subject) = (kind, entry.text(notes)?);
    for entry in of_services.iter().filter(|_| kind == Kind::Stream) {
        notes.error(
            entry,
            format!("\"{}\" is for services, and this is a stream", entry.key),
        );
    }
    if let Some(entry) = latency.filter(|_| export.response != Response::Singleton) {
        notes.error(
            entry,
            "\"latency\" is of services with single responses: bad service response type",
        );
    }
    Some(export)
}

fn import(node: &Node, notes: &mut Notes) -> Option<Import> {
    let map = node.map(
        "an import { stream: { account, subject } } or { service: ... }",
        notes,
    )?;
    let (mut shared, mut prefix, mut to) = (None, None, None);
    let (mut share_info, mut trace) = (None, None);
    for entry in map.entries() {
        match entry.name().as_str() {
            "stream" | "service" => share(&mut shared, entry, node, notes),
            "prefix" => prefix = entry.text(notes).map(|text| (entry, text)),
            "to" => to = entry.text(notes).map(|text| (entry, text)),
            "share" => share_info = entry.flag(notes).map(|flag| (entry, flag)),
            "allow_trace" => {
                untraced(entry, notes);
                trace = Some(entry);
            }
            _ => notes.unknown(entry, &IMPORT_KEYS),
        }
    }
    let (kind, entry) = either(shared, "an import", node, notes)?;
    let (account, subject) = source(entry, notes)?;
    match (kind, trace, share_info) {
        (Kind::Service, Some(entry), _) => {
            notes.error(entry, "\"allow_trace\" is for streams, and this is a service");
        }
        (Kind::Stream, _, Some((entry, true))) => {
            notes.warn(entry, "\"share\" has no effect on a stream: nobody asks");
        }
        _ => {}
    }
    let to = match (prefix, to) {
        (Some((entry, _)), _) if kind == Kind::Service => {
            notes.warn(
                entry,
                "\"prefix\" has no effect on a service: name it with \"to\"",
            );
            None
        }
        (Some(_), Some((entry, _))) => {
            notes.error(entry, "Stream import can not have a 'prefix' and a 'to' property");
            None
        }
        (Some((entry, prefix)), None) => prefixed(entry, &prefix, &subject, notes),
        (None, Some((_, to))) => Some(to).filter(|to| !to.is_empty()),
        (None, None) => None,
    };
    Some(Import {
        kind,
        account: account.into(),
        subject,
        to,
        share: share_info.is_some_and(|(_, flag)| flag) && kind == Kind::Service,
        activated: false,
        rule: node.spot.to_string(),
    })
}

/// Takes what is shared, once.
fn share<'a>(shared: &mut Option<(Kind, &'a Entry)>, entry: &'a Entry, node: &Node, notes: &mut Notes) {
    let kind = match entry.name().as_str() {
        "stream" => Kind::Stream,
        _ => Kind::Service,
    };
    if shared.replace((kind, entry)).is_some() {
        let text = "a stream and a service: they are shared one by one";
        notes.errors.push(Problem::at(&node.spot, text));
    }
}

fn either<'a>(
    shared: Option<(Kind, &'a Entry)>,
    what: &str,
    node: &Node,
    notes: &mut Notes,
) -> Option<(Kind, &'a Entry)> {
    if shared.is_none() {
        let text = format!("{what} is of a \"stream\" or a \"service\"");
        notes.errors.push(Problem::at(&node.spot, text));
    }
    shared
}

/// `{ account: A, subject: s }`
fn source(block: &Entry, notes: &mut Notes) -> Option<(String, String)> {
    let map = block.map(notes)?;
    let (mut account, mut subject) = (None, None);
    for entry in map.entries() {
        match entry.name().as_str() {
            "account" => account = entry.text(notes),
            "subject" => subject = entry.text(notes),
            _ => notes.unknown(entry, &["account", "subject"]),
        }
    }
    let is_there = |text: &String| !text.is_empty();
    match (account.filter(is_there), subject.filter(is_there)) {
        (Some(account), Some(subject)) => Some((account, subject)),
        _ => {
            notes.error(block, "Expect an account name and a subject");
            None
        }
    }
}

fn prefixed(entry: &Entry, prefix: &str, subject: &str, notes: &mut Notes) -> Option<String> {
    let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
    if prefix.is_empty() {
        return None;
    }
    if !subject::is_subject(prefix.as_bytes()) {
        notes.error(
            entry,
            "\"prefix\" is not a valid subject: stream import prefix can not contain wildcard tokens",
        );
        return None;
    }
    Some(format!("{prefix}.{subject}"))
}

fn response(entry: &Entry, notes: &mut Notes) -> Option<Response> {
    match entry.text(notes)?.to_ascii_lowercase().as_str() {
        "single" | "singleton" => Some(Response::Singleton),
        "stream" => Some(Response::Stream),
        "chunk" | "chunked" => Some(Response::Chunked),
        other => {
            let other = other.escape_debug();
            let text = format!("unknown response type \"{other}\": it is singleton, stream or chunked");
            notes.error(entry, text);
            None
        }
    }
}

fn untraced(entry: &Entry, notes: &mut Notes) {
    if entry.flag(notes) == Some(true) {
        notes.warn(
            entry,
            "\"allow_trace\" has no effect: messages are not traced here",
        );
    }
}

/// Nothing is sampled, but what is written should make sense.
fn check_latency(block: &Entry, notes: &mut Notes) {
    let mut subject = None;
    match &block.node.value {
        Value::Text(text) => subject = Some(text.clone()),
        Value::Map(map) => {
            for entry in map.entries() {
                match entry.name().as_str() {
                    "subject" => subject = entry.text(notes),
                    "sampling" if !is_sampling(&entry.node.value) => {
                        notes.error(entry, "bad sampling percentage, should be 1-100");
                    }
                    "sampling" => {}
                    _ => notes.unknown(entry, &["subject", "sampling"]),
                }
            }
        }
        _ => {}
    }
    match subject {
        Some(subject) if subject::is_subject(subject.as_bytes()) => {
            notes.warn(block, "\"latency\" has no effect: services are not measured here");
        }
        _ => notes.error(block, "\"latency\" needs the subject that it is published to"),
    }
}

fn is_sampling(value: &Value) -> bool {
    match value {
        Value::Integer(number) => (1..=100).contains(number),
        Value::Text(text) if text.trim().eq_ignore_ascii_case("headers") => true,
        Value::Text(text) => {
            let number = text.strip_suffix('%').unwrap_or(text).parse::<i64>();
            number.is_ok_and(|number| (1..=100).contains(&number))
        }
        _ => false,
    }
}
