//! `mesh serve` and its monitoring port.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::support::get;

fn serve(dir: &std::path::Path, monitor_port: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(["serve", "-p", "-1", "--monitor-port", monitor_port, "--store-dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn the_banner_says_where_and_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve(dir.path(), "-1").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let line = lines.find(|line| line.contains("Monitor ")).unwrap();
    let url = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("http://"))
        .unwrap();
    let answer = get(url.parse().unwrap(), "/healthz");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.status, 200);
    assert!(line.ends_with("/metrics, /healthz"), "{line}");
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = serve(dir.path(), &port.to_string()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!("monitoring port {port} on 127.0.0.1 is in use")),
        "{text}"
    );
    assert!(
        text.contains("--monitor-port 0"),
        "says how to turn it off: {text}"
    );
}

#[test]
fn it_can_be_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve(dir.path(), "0").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let line = lines.find(|line| line.contains("Monitor "));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.unwrap().ends_with("Monitor    off"));
}

#[test]
fn the_start_says_when_messages_are_on_the_disk() {
    for (sync, said, health) in [
        ("always", "synced before every ack", "always"),
        ("2s", "synced every 2s, NOT before acks", "2s"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = serve(dir.path(), "-1");
        let mut child = command.args(["--sync", sync]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let monitor = lines.find(|line| line.contains("Monitor ")).unwrap();
        let streams = lines.find(|line| line.contains("Streams ")).unwrap();
        let url = monitor
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"));
        let answer = get(url.unwrap().parse().unwrap(), "/healthz");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(streams.ends_with(said), "{streams}");
        assert_eq!(answer.json()["sync"], health);
    }
}

#[test]
fn the_log_says_what_was_recovered() {
    let dir = tempfile::tempdir().unwrap();
    // At its first start the server makes the streams of the mesh: events, four buckets, a store of states.
    for said in ["Server is ready", "Recovered 6 streams in "] {
        let mut child = serve(dir.path(), "0").spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let found = lines.find(|line| line.contains(said) || line.contains("Server is ready"));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found.expect("it starts");
        assert!(found.contains(said), "{found}");
    }
}
