//! Consumers over the wire.
//!
//! `*.txt` here hold conversations whose answers were recorded from nats-server 2.15.1. Ours is held against the record
//! always; a real nats-server as well where there is one, so that the record stays true. `MESH_RECORD=1` writes the
//! record anew from the real server; `MESH_TEST_CASE=text` runs the cases with that in their name.
//!
//! ```text
//! == name of the case          each has a server of its own
//! why: ...                     the reason, where ours differs on purpose
//! make CONSUMER.CREATE.S {..}  an API request that succeeds, its answer is not shown
//! api CONSUMER.INFO.S.C {..}   an API request and its answer
//! pub s.a text | Key: value    a publish that a stream acknowledges; `<<x*700>>` is that text so many times
//! sub out [queue]              subscribes; `unsub out` ends that
//! pull S C {"batch":1}         a pull request; what comes to its reply subject is marked `#1`, `#2` ...
//! ack S C 3 +ACK               acks the latest delivery of stream sequence 3 and waits for the confirmation
//! say S C 3 -NAK               the same without asking for a confirmation
//! answer Key: value            an empty message to the latest reply subject of a status, headers optional
//! send subject reply body      publishes, with `-` for no reply; `raw text` sends a line as it is
//! level S C 99                 a pull request that needs that API level
//! take [900]                   nothing but what comes (while recording: for that long)
//! quiet 300                    so many milliseconds in which nothing comes
//! sleep 300                    so many milliseconds; in any step `@300ms` is the time that long from now
//! < ...                        what came, before the next step
//! = ...                        what ours answers instead
//! ```
//!
//! Times, ids, random parts of subjects and versions are shown as `*`.

mod client;
mod crowd;
mod kill;
mod script;

use std::path::PathBuf;
use std::sync::Mutex;

use sovereign_mesh::{Config, TestServer};

use crate::support::{Process, process, skip};
use script::{Case, Who};

/// How often the reference server may try to answer as it did before.
const REFERENCE_TRIES: usize = 5;
/// Conversations held at a time: they mostly wait.
const AT_ONCE: usize = 6;

/// A server of ours with a store, in this process.
pub fn ours() -> (TestServer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::with(Config {
        store_dir: Some(directory.path().to_owned()),
        ..Config::embedded()
    });
    (server, directory)
}

fn cases() -> Vec<(PathBuf, Vec<Case>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        (file, script::parse(&text))
    };
    files.into_iter().map(read).collect()
}

fn is_chosen(case: &Case) -> bool {
    std::env::var("MESH_TEST_CASE").map_or(true, |text| case.name.contains(&text))
}

/// Holds every conversation, several at a time; `hold` says what differs.
fn all_hold(hold: impl Fn(&Case) -> Option<String> + Sync) {
    let cases: Vec<Case> = cases().into_iter().flat_map(|(_, cases)| cases).collect();
    let queue = Mutex::new(cases.iter().filter(|case| is_chosen(case)));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else {
                        return;
                    };
                    if let Some(difference) = hold(case) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{}\n{difference}", case.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

#[test]
fn ours_answers_as_recorded() {
    all_hold(|case| {
        let (server, _directory) = ours();
        case.hold(&server.server().local_addr().to_string(), Who::Ours)
    });
}

#[test]
fn nats_server_answers_as_recorded() {
    if process::nats_server().is_none() {
        return skip(
            "the consumers of nats-server",
            "no program in NATS_SERVER or on the search path",
        );
    }
    let start = || Process::nats("jetstream: enabled").expect("found above");
    if std::env::var_os("MESH_RECORD").is_some() {
        return record(start);
    }
    // It counts what is pending beside the publishes, and so races with itself: the record is what it can answer. Ours has
    // one try.
    all_hold(|case| {
        let mut tries = (0..REFERENCE_TRIES).map(|_| case.hold(start().address(), Who::Nats));
        let first = tries.next().flatten()?;
        tries.all(|difference| difference.is_some()).then_some(first)
    });
}

fn record(start: impl Fn() -> Process + Sync) {
    for (file, cases) in cases() {
        let text = std::fs::read_to_string(&file).unwrap();
        let head = text.split("== ").next().unwrap_or_default().to_owned();
        let written: Vec<String> = std::thread::scope(|scope| {
            let tasks: Vec<_> = cases
                .iter()
                .map(|case| {
                    let start = &start;
                    scope.spawn(move || match is_chosen(case) {
                        true => case.record(start().address()),
                        false => case.as_it_was(),
                    })
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).collect()
        });
        std::fs::write(&file, head + &written.concat()).unwrap();
    }
}
