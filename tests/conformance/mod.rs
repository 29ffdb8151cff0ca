//! Conversations whose answers were recorded from nats-server 2.15.1, byte for byte.
//!
//! `*.txt` here hold the cases. Ours is held against the record always; a real nats-server as well where there is one,
//! so that the record stays true. `MESH_RECORD=1` writes the record anew from the real server.
//!
//! ```text
//! == name of the case
//! server: small               which settings (default `plain`)
//! why: ...                    the reason, where ours differs on purpose
//! 1> PING\r\n                 client 1 sends (macros: <<a*300>>), then both sides come to rest
//! 1| PUB foo 2\r\n            client 1 sends, and nothing is waited for
//! 1? INFO                     client 1 connects and shows the greeting
//! 1< PONG\r\n                 what it is answered
//! 1= ...                      what ours answers instead
//! 1. closed                   the server closed the connection
//! ```
//!
//! INFO is reduced to the values that the protocol fixes.

mod script;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sovereign_mesh::account::Auth;
use sovereign_mesh::{Config, TestServer, config};

use crate::support::{Process, process, skip};
use script::{Case, Who};

/// A file that both read.
const USERS: &str = include_str!("9-users.conf");
const DEFAULT_USER: &str = concat!(include_str!("9-users.conf"), "no_auth_user: plain\n");

/// Settings by name, for ours and for nats-server.
fn settings(name: &str) -> (Config, &'static str) {
    let read = |text| {
        let file = config::load_text(name, text, Config::default(), config::Process::default());
        (file.expect("a file that is good").config, text)
    };
    match name {
        "users" => return read(USERS),
        "default" => return read(DEFAULT_USER),
        _ => {}
    }
    let mut config = Config::default();
    let nats = match name {
        "plain" => "",
        "token" => {
            config.auth = Auth::Token("secret".into());
            "authorization { token: secret }"
        }
        "user" => {
            config.auth = Auth::User {
                user: "u".into(),
                pass: "p".into(),
            };
            "authorization { user: u, password: p }"
        }
        "small" => {
            config.connections.payload_max = 64;
            config.connections.control_line_max = 64;
            config.connections.subscriptions_max = 2;
            config.connections.subscription_tokens_max = 4;
            "max_payload: 64\nmax_control_line: 64\nmax_subscriptions: 2\nmax_sub_tokens: 4"
        }
        "few" => {
            config.connections.connections_max = 1;
            "max_connections: 1"
        }
        _ => panic!("no settings named {name}"),
    };
    (config, nats)
}

fn files() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// Runs every case against servers that `start` makes, one for each kind of settings.
fn run_all<S>(who: Who, start: impl Fn(&str) -> S, address: impl Fn(&S) -> String) -> Vec<String> {
    let mut servers: BTreeMap<String, S> = BTreeMap::new();
    let mut failures = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        for case in script::parse(&text) {
            let server = servers
                .entry(case.server.clone())
                .or_insert_with_key(|name| start(name));
            let expected = case.expected(who);
            let mut got = case.run(&address(server));
            // nats-server forgets the subscriptions of the case before a moment after it has closed the connection.
            for _ in 0..3 {
                if who == Who::Nats && got != expected {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    got = case.run(&address(server));
                }
            }
            if got != expected {
                failures.push(format!("{}\n{}", case.name, script::difference(&expected, &got)));
            }
        }
    }
    failures
}

#[test]
fn ours_answers_as_recorded() {
    let failures = run_all(
        Who::Ours,
        |name| TestServer::with(settings(name).0),
        |server| server.server().local_addr().to_string(),
    );
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn nats_server_answers_as_recorded() {
    if process::nats_server().is_none() {
        return skip(
            "conformance with nats-server",
            "no program in NATS_SERVER or on the search path",
        );
    }
    let start = |name: &str| Process::nats(settings(name).1).expect("found above");
    if std::env::var_os("MESH_RECORD").is_some() {
        return record(start);
    }
    let failures = run_all(Who::Nats, start, |server| server.address().to_owned());
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn record(start: impl Fn(&str) -> Process) {
    let mut servers: BTreeMap<String, Process> = BTreeMap::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let head: String = text.split("== ").next().unwrap_or_default().to_owned();
        let mut out = head;
        for case in script::parse(&text) {
            let server = servers
                .entry(case.server.clone())
                .or_insert_with_key(|name| start(name));
            let answers = case.run(server.address());
            out.push_str(&Case::written(&case, &answers));
        }
        std::fs::write(&file, out).unwrap();
    }
}
