//! A server that dies whenever it changes its database for the first time, which redb can make it do over a damaged list of
//! free pages: after two deaths the database is read whole instead, so that what is wrong is said and not met again.
//!
//! What kills it here is a limit on the size of its files, which holds between the first and the second change.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::Client;
use crate::support::process::{Process, mesh_command};

/// Messages a life, and their length: more than what the limit leaves room for.
const MESSAGES: u64 = 3000;
const LENGTH: usize = 400;
/// In blocks of 512 bytes, or of 1,024.
const LIMIT: &str = "512";

fn serve(directory: &Path) -> Process {
    let directory = directory.to_str().unwrap();
    Process::mesh(&["--no-mesh", "--store-dir", directory])
}

/// Publishes messages that say their number; all are acknowledged.
fn publish(server: &Process, first: u64) {
    let mut client = Client::connect(server.address()).unwrap();
    let mut out = Vec::new();
    for number in first..first + MESSAGES {
        let mut payload = format!("message {number:08} ").into_bytes();
        payload.resize(LENGTH, b'.');
        client.publish(&mut out, "deaths", None, &payload);
    }
    let sender = std::thread::spawn({
        let mut socket = client.reader.get_ref().try_clone().unwrap();
        move || socket.write_all(&out).unwrap()
    });
    for _ in 0..MESSAGES {
        let ack = client.answer().unwrap().payload;
        assert!(!String::from_utf8_lossy(&ack).contains("error"));
    }
    sender.join().unwrap();
}

/// The numbers of the messages that are there.
fn numbers(server: &Process) -> Vec<u64> {
    let mut client = Client::connect(server.address()).unwrap();
    let number = |payload: &[u8]| String::from_utf8_lossy(&payload[8..16]).parse().unwrap();
    let all = client.read_all("DEATHS").into_iter();
    all.map(|(_, _, payload)| number(&payload)).collect()
}

fn tries(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("tries")).unwrap()
}

/// Two starts that end with the first change.
fn die_twice(directory: &Path) {
    for count in 1..=2u8 {
        let mesh = mesh_command();
        let mut command = Command::new("sh");
        let script = format!(
            "ulimit -f {LIMIT}; exec \"$0\" serve -p -1 --monitor-port 0 --no-mesh --store-dir \"$1\""
        );
        command
            .arg("-c")
            .arg(script)
            .arg(mesh.get_program())
            .arg(directory);
        for (name, value) in mesh.get_envs() {
            assert!(value.is_none());
            command.env_remove(name);
        }
        let mut server = Process::spawn(command, TempDir::new().unwrap());
        assert_eq!(server.wait().signal(), Some(Signal::XFSZ.as_raw()));
        assert_eq!(tries(directory), [count]);
    }
}

fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.wait();
}

fn stop(mut server: Process) {
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

/// Changes a letter of a message in the tables.
fn hurt(directory: &Path, number: u64) {
    let path = directory.join("mesh.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let wanted = format!("message {number:08} ");
    let places: Vec<_> = (0..bytes.len() - wanted.len())
        .filter(|&at| bytes[at..].starts_with(wanted.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    places.iter().for_each(|&at| bytes[at] ^= 1);
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn who_has_died_twice_reads_all_and_says_what_is_wrong() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let server = serve(directory);
    let config = json!({ "name": "DEATHS", "subjects": ["deaths"], "allow_direct": true });
    let mut client = Client::connect(server.address()).unwrap();
    client.ask("$JS.API.STREAM.CREATE.DEATHS", &config);
    publish(&server, 1);
    kill(server);
    die_twice(directory);
    // Nothing is wrong with it: it goes on, and what was acknowledged is there.
    let server = serve(directory);
    assert!(tries(directory).is_empty());
    assert_eq!(numbers(&server), (1..=MESSAGES).collect::<Vec<_>>());
    publish(&server, MESSAGES + 1);
    kill(server);
    hurt(directory, 7);
    die_twice(directory);
    let store = ["--store-dir", directory.to_str().unwrap()];
    for _ in 0..2 {
        let mut command = mesh_command();
        command.args(["serve", "-p", "-1", "--monitor-port", "0", "--no-mesh"]);
        let output = command.args(store).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains("store is damaged: ") && said.contains("`mesh store check --repair`"),
            "{said}"
        );
    }
    let repaired = mesh_command()
        .args(["store", "check", "--repair"])
        .args(store)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(said.contains("1 damaged records taken out"), "{said}");
    let server = serve(directory);
    assert!(tries(directory).is_empty());
    let left = (1..=2 * MESSAGES).filter(|&number| number != 7);
    assert_eq!(numbers(&server), left.collect::<Vec<_>>());
    stop(server);
}
