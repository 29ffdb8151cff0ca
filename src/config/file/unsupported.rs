//! Keys of nats-server whose parts are not built here: named, never passed over in silence.
//!
//! An error where whoever wrote the key relies on what it does (who may come in, what is encrypted, where messages go), a
//! warning where the server is as good without it.

use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Value};

/// Notes a key that is known to nats-server; false when it is not.
pub(super) fn key(name: &str, entry: &Entry, notes: &mut Notes) -> bool {
    others(name, entry, notes) || credentials(name) || habits(name, entry, notes)
}

/// Other servers and other protocols.
fn others(name: &str, entry: &Entry, notes: &mut Notes) -> bool {
    match name {
        "cluster" => peers(entry, "routes", notes),
        "gateway" => peers(entry, "gateways", notes),
        "leaf" | "leafnodes" => peers(entry, "remotes", notes),
        "websocket" | "ws" | "mqtt" => listener(entry, notes),
        "ocsp" | "ocsp_cache" => ocsp(entry, notes),
        "proxies" => refuse(entry, "proxies are not supported by this server", notes),
        "proxy_protocol" | "no_header_support" => wanted(entry, notes),
        "connect_error_reports" | "reconnect_error_reports" => {}
        _ => return false,
    }
    true
}

/// Who may come in, and where their messages go.
fn credentials(name: &str) -> bool {
    match name {
        "no_system_account" | "no_system" | "no_sys_acc" => {}
        _ => return false,
    }
    true
}

/// Limits, logs and the tuning of another implementation.
fn habits(name: &str, entry: &Entry, notes: &mut Notes) -> bool {
    match name {
        "http_base_path" => {
            if !matches!(&entry.node.value, Value::Text(path) if path.is_empty() || path == "/") {
                refuse(entry, "monitoring is served at / alone", notes);
            }
        }
        "syslog" | "remote_syslog" => without(entry, "the log goes to stderr or to log_file", notes),
        "lame_duck_grace_period" => without(entry, "clients are told at once", notes),
        "write_timeout" => {
            if matches!(&entry.node.value, Value::Text(policy) if policy == "retry") {
                without(entry, "a client that does not read is closed", notes);
            }
        }
        "prof_port"
        | "prof_block_rate"
        | "max_traced_msg_len"
        | "max_closed_clients"
        | "server_metadata"
        | "feature_flags"
        | "default_js_domain"
        | "disable_sublist_cache"
        | "no_sublist_cache"
        | "no_fast_producer_stall" => without(entry, "this server works without", notes),
        _ => return false,
    }
    true
}

fn refuse(entry: &Entry, why: &str, notes: &mut Notes) {
    if !entry.is_variable {
        notes.error(entry, format!("\"{}\" is not supported: {why}", entry.key));
    }
}

fn without(entry: &Entry, why: &str, notes: &mut Notes) {
    if !entry.is_variable {
        notes.warn(entry, format!("\"{}\" has no effect: {why}", entry.key));
    }
}

/// A switch that would change what clients see when it is on.
fn wanted(entry: &Entry, notes: &mut Notes) {
    if entry.flag(notes) == Some(true) {
        refuse(entry, "this server does not do that", notes);
    }
}

/// Answers of the authority stapled to certificates: clients that insist on them would not come in.
fn ocsp(entry: &Entry, notes: &mut Notes) {
    let mode = match &entry.node.value {
        Value::Map(map) => map.get("mode").map(|entry| &entry.node.value),
        value => Some(value),
    };
    let insists = matches!(mode, Some(Value::Text(mode)) if mode.eq_ignore_ascii_case("always") || mode.eq_ignore_ascii_case("must"));
    if insists || entry.node.value == Value::Flag(true) {
        refuse(entry, "OCSP answers are not stapled to certificates", notes);
    } else {
        without(entry, "OCSP answers are not stapled to certificates", notes);
    }
}

/// A block that connects servers: with peers named in it somebody relies on them, without it is a port nobody uses.
fn peers(entry: &Entry, list: &str, notes: &mut Notes) {
    let names_peers = |map: &Map| {
        map.get(list)
            .is_some_and(|peers| !matches!(&peers.node.value, Value::Array(nodes) if nodes.is_empty()))
    };
    match &entry.node.value {
        Value::Map(map) if !names_peers(map) => without(entry, "no port is opened for other servers", notes),
        _ => refuse(entry, "this server connects to no other servers yet", notes),
    }
}

/// A listener for another protocol: on a port of its choice somebody will connect to it; on a free port nobody knows of it
/// but through the ports file, which does not list it.
fn listener(entry: &Entry, notes: &mut Notes) {
    let is_free = |map: &Map| {
        let port = map
            .get("port")
            .or_else(|| map.get("listen"))
            .map(|entry| &entry.node.value);
        match port {
            Some(Value::Integer(port)) => *port == -1,
            Some(Value::Text(listen)) => listen.ends_with(":-1"),
            _ => false,
        }
    };
    match &entry.node.value {
        Value::Map(map) if is_free(map) => {
            without(
                entry,
                "no such port is opened, and the ports file lists none",
                notes,
            );
        }
        _ => refuse(entry, "this server does not listen for that protocol yet", notes),
    }
}
