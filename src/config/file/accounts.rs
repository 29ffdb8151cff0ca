//! The `accounts` block, and what stands beside it: `mappings` of `$G`, and `system_account`.
//!
//! With accounts, those have streams that ask for them with `jetstream`. While there is none but `$G` and the system account,
//! `$G` has streams, as without any. Deliberately absent: latency samples of services, traces of messages.

use std::sync::Arc;

use crate::account::{self, GLOBAL, Limits, Mapping, SYSTEM, Spec, StreamLimits};
use crate::config::Config;
use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Node, Problem, Spot, Value};

use super::authorization::{self, Found};
use super::{mappings, shares};

const KEYS: [&str; 8] = [
    "users",
    "nkey",
    "exports",
    "imports",
    "mappings",
    "limits",
    "jetstream",
    "default_permissions",
];
const LIMIT_KEYS: [&str; 4] = [
    "max_connections",
    "max_subscriptions",
    "max_payload",
    "max_leafnodes",
];
const STREAM_KEYS: [&str; 8] = [
    "max_mem",
    "max_file",
    "max_streams",
    "max_consumers",
    "max_bytes_required",
    "mem_max_stream_bytes",
    "disk_max_stream_bytes",
    "max_ack_pending",
];

/// What a file says of accounts.
#[derive(Default)]
pub(super) struct Accounts {
    specs: Vec<Spec>,
    users: Vec<Found>,
    /// Mappings of `$G`, and where they are.
    global: Option<(Spot, Vec<Mapping>)>,
    system: Option<Entry>,
}

impl Accounts {
    /// The block: a map of accounts, or a list of names.
    pub fn read(&mut self, block: &Entry, notes: &mut Notes) {
        match &block.node.value {
            Value::Map(map) => {
                // As in nats-server: a value that a variable took may stand here for its own sake.
                for entry in map.entries().iter().filter(|entry| !entry.is_variable) {
                    if is_reserved(&entry.key, &entry.spot, notes) {
                        continue;
                    }
                    if let Some(map) = entry.map(notes) {
                        self.account(entry, map, notes);
                    }
                }
            }
            Value::Array(nodes) => nodes.iter().for_each(|node| self.name(node, notes)),
            _ => notes.error(
                block,
                "\"accounts\" is a map { NAME { users: ... } } or a list of names",
            ),
        }
    }

    fn name(&mut self, node: &Node, notes: &mut Notes) {
        let Value::Text(name) = &node.value else {
            let text = format!("\"accounts\" is a list of names, not of {}", node.kind());
            return notes.errors.push(Problem::at(&node.spot, text));
        };
        if !is_reserved(name, &node.spot, notes) {
            self.specs.push(Spec {
                rule: node.spot.to_string(),
                ..Spec::new(name)
            });
        }
    }

    fn account(&mut self, entry: &Entry, map: &Map, notes: &mut Notes) {
        let mut spec = Spec {
            rule: entry.spot.to_string(),
            ..Spec::new(&entry.key)
        };
        let (mut users, mut default_permissions) = (Vec::new(), None);
        for entry in map.entries() {
            match entry.name().as_str() {
                "users" => users = authorization::users(entry, notes),
                "nkey" => account_key(entry, notes),
                "exports" => spec.exports = shares::exports(entry, notes),
                "imports" => spec.imports = shares::imports(entry, notes),
                "mappings" | "maps" => spec.mappings.extend(mappings::read(entry, notes)),
                "limits" => spec.limits = limits(entry, notes),
                "jetstream" => spec.streams = streams(entry, notes),
                "default_permissions" => {
                    default_permissions = authorization::permissions(entry, notes).map(Arc::new);
                }
                "msg_trace" | "trace_dest" => {
                    notes.warn(
                        entry,
                        format!("\"{}\" has no effect: messages are not traced here", entry.key),
                    );
                }
                _ => notes.unknown(entry, &KEYS),
            }
        }
        for mut found in users {
            found.user.account = spec.name.clone();
            if found.user.permissions.is_none() {
                found.user.permissions.clone_from(&default_permissions);
            }
            self.users.push(found);
        }
        self.specs.push(spec);
    }

    /// `mappings` at the top.
    pub fn global_mappings(&mut self, entry: &Entry, notes: &mut Notes) {
        let read = mappings::read(entry, notes);
        let (_, mappings) = self
            .global
            .get_or_insert_with(|| (entry.spot.clone(), Vec::new()));
        mappings.extend(read);
    }

    /// `system_account`.
    pub fn set_system(&mut self, entry: &Entry) {
        self.system = Some(entry.clone());
    }

    /// Puts them into `config` once all of the file is read; what is wrong with them together is noted.
    pub fn finish(self, config: &mut Config, notes: &mut Notes) -> Finished {
        let mut specs = self.specs;
        let named = self.system.as_ref().and_then(|entry| entry.text(notes));
        let named = named.filter(|name| !name.is_empty());
        let system = named.as_deref().unwrap_or(SYSTEM);
        let is_alone = specs.iter().all(|spec| &*spec.name == system);
        let has_own = specs.iter().any(|spec| &*spec.name == system);
        if let Some(entry) = self.system.as_ref().filter(|_| !has_own)
            && ![GLOBAL, SYSTEM].contains(&system)
        {
            let system = system.escape_debug();
            notes.error(
                entry,
                format!("\"{}\": account \"{system}\" is not defined", entry.key),
            );
        }
        for spec in specs
            .iter()
            .filter(|spec| &*spec.name == system && spec.streams.is_some())
        {
            let text = format!("{}: the system account cannot have streams", spec.rule);
            notes.errors.push(Problem { spot: None, text });
        }
        let global = match self.global {
            Some((spot, mappings)) => Some(Spec {
                mappings,
                rule: spot.to_string(),
                ..Spec::new(GLOBAL)
            }),
            None => (is_alone && has_own).then(|| Spec::new(GLOBAL)),
        };
        specs.extend(global.map(|spec| Spec {
            streams: is_alone.then(StreamLimits::default),
            ..spec
        }));
        for problem in account::check(&specs) {
            let text = problem.to_string();
            notes.errors.push(Problem { spot: None, text });
        }
        reservations(&specs, config, notes);
        if !specs.is_empty() {
            config.accounts = specs;
        }
        if self.system.is_some() {
            config.system_account = named.filter(|name| name != SYSTEM);
        }
        Finished {
            users: self.users,
            is_system_alone: is_alone,
        }
    }
}

/// What is left to say of credentials.
pub(super) struct Finished {
    /// Who may come into accounts.
    pub users: Vec<Found>,
    /// Whether there is no account to come into but `$G` and the system account.
    pub is_system_alone: bool,
}

/// As in nats-server: what accounts may use is set aside for them, so that it must be there.
fn reservations(specs: &[Spec], config: &Config, notes: &mut Notes) {
    let asked = |limit: fn(&StreamLimits) -> i64| -> u64 {
        let limits = specs.iter().filter_map(|spec| spec.streams.as_ref());
        let bytes = limits.map(|limits| u64::try_from(limit(limits)).unwrap_or(0));
        bytes.fold(0, u64::saturating_add)
    };
    for (what, asked, max) in [
        ("max_mem", asked(|limits| limits.memory), config.memory_max),
        ("max_file", asked(|limits| limits.storage), config.storage_max),
    ] {
        if let Some(max) = max.filter(|max| asked > *max) {
            let text = format!(
                "the \"{what}\" of all accounts are {asked} bytes together, more than the {max} of the server: insufficient \
                 resources"
            );
            notes.errors.push(Problem { spot: None, text });
        }
    }
}

fn is_reserved(name: &str, spot: &Spot, notes: &mut Notes) -> bool {
    let is_reserved = name == GLOBAL;
    if is_reserved {
        let text = format!("\"{name}\" is a Reserved Account: its users are those of \"authorization\"");
        notes.errors.push(Problem::at(spot, text));
    }
    is_reserved
}

fn is_account_key(text: &str) -> bool {
    text.starts_with('A') && nkeys::KeyPair::from_public_key(text).is_ok()
}

/// Nothing depends on it, but it should be one.
fn account_key(entry: &Entry, notes: &mut Notes) {
    if let Some(key) = entry.text(notes)
        && !is_account_key(&key)
    {
        notes.error(entry, "not a valid public nkey for an account");
    }
}

fn limits(block: &Entry, notes: &mut Notes) -> Limits {
    let mut limits = Limits::default();
    let Some(map) = block.map(notes) else {
        return limits;
    };
    for entry in map.entries() {
        match entry.name().as_str() {
            "max_connections" | "max_conn" => limits.connections = limit(entry, notes),
            "max_subscriptions" | "max_subs" => limits.subscriptions = limit(entry, notes),
            "max_payload" | "max_pay" => limits.payload = limit(entry, notes),
            "max_leafnodes" | "max_leafs" => {
                if limit(entry, notes).is_some() {
                    notes.warn(entry, format!("\"{}\" has no effect on this server", entry.key));
                }
            }
            _ => notes.unknown(entry, &LIMIT_KEYS),
        }
    }
    limits
}

/// As in nats-server: -1 is no limit, and 0 is none of it.
fn limit(entry: &Entry, notes: &mut Notes) -> Option<usize> {
    let number = quantity(entry, notes)?;
    usize::try_from(number).ok()
}

/// A number or a size; -1 stands for no limit.
fn quantity(entry: &Entry, notes: &mut Notes) -> Option<i64> {
    let number = match &entry.node.value {
        Value::Integer(number) => Some(*number).filter(|number| *number >= -1),
        Value::Text(text) => {
            let size = crate::config::size(text).ok();
            size.and_then(|size| i64::try_from(size).ok())
        }
        _ => None,
    };
    if number.is_none() {
        let text = format!(
            "\"{}\" is a number such as 100 or 1GB, or -1 for no limit",
            entry.key
        );
        notes.error(entry, text);
    }
    number
}

/// `jetstream` of an account: a switch, or limits.
fn streams(entry: &Entry, notes: &mut Notes) -> Option<StreamLimits> {
    let is = |text: &str, words: [&str; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match &entry.node.value {
        Value::Flag(flag) => flag.then(StreamLimits::default),
        Value::Text(text) if is(text, ["enabled", "enable"]) => Some(StreamLimits::default()),
        Value::Text(text) if is(text, ["disabled", "disable"]) => None,
        Value::Map(map) => Some(stream_limits(map, notes)),
        _ => {
            notes.error(entry, "\"jetstream\" is true, false, enabled, disabled or a map");
            None
        }
    }
}

fn stream_limits(map: &Map, notes: &mut Notes) -> StreamLimits {
    let mut limits = StreamLimits::default();
    for entry in map.entries() {
        let name = entry.name();
        let limit = match name.as_str() {
            "max_mem" | "max_memory" | "max_memory_store" | "max_mem_store" | "mem" | "memory" => {
                &mut limits.memory
            }
            "max_file" | "max_file_store" | "max_store" | "max_disk" | "store" | "disk" => {
                &mut limits.storage
            }
            "max_streams" | "streams" => &mut limits.streams,
            "max_consumers" | "consumers" => &mut limits.consumers,
            "mem_max_stream_bytes" | "memory_max_stream_bytes" => &mut limits.memory_stream,
            "disk_max_stream_bytes" | "store_max_stream_bytes" => &mut limits.storage_stream,
            "max_ack_pending" => &mut limits.ack_pending,
            "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
                super::set(&mut limits.bytes_required, entry.flag(notes));
                continue;
            }
            "cluster_traffic" => {
                notes.warn(entry, "\"cluster_traffic\" has no effect: there is no cluster");
                continue;
            }
            _ => {
                notes.unknown(entry, &STREAM_KEYS);
                continue;
            }
        };
        super::set(limit, quantity(entry, notes));
    }
    limits
}
