//! How commands end: exit codes, Ctrl-C, readers that go away, credentials.

use std::process::Stdio;

use super::{command, mesh, run_with};
use crate::support::Server;

#[test]
fn exit_codes_tell_the_cause() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nowhere = format!("nats://127.0.0.1:{port}");
    let ran = mesh(&["-s", &nowhere, "pub", "a", "b"]).fails(3, "cannot reach a server");
    assert!(ran.err.contains("mesh serve"), "{}", ran.err);
    mesh(&["pub"]).fails(2, "required");
    mesh(&["nonsense"]).fails(2, "nonsense");
    mesh(&["rtt", "--timeout", "soon"]).fails(2, "duration");
    assert_eq!(mesh(&["stream", "add", "--help"]).code, 0);
    assert_eq!(mesh(&["--version"]).code, 0);
}

#[test]
fn without_jetstream_the_server_is_unhealthy_not_empty() {
    let Some(server) = Server::core() else { return };
    if server.mesh(&["stream", "ls"]).code != 0 {
        server
            .mesh(&["stream", "ls"])
            .fails(3, "JetStream is not enabled");
    }
}

#[test]
fn ctrl_c_ends_cleanly() {
    let Some(server) = Server::core() else { return };
    let sub = server.start(&["sub", "a", "--raw"], "Subscribing");
    server.mesh(&["pub", "a", "x"]).ok();
    // The message is on its way to the subscriber; one that waits for it is not interrupted too early.
    let seen = server.start(&["sub", "a", "--count", "1"], "Subscribing");
    server.mesh(&["pub", "a", "y"]).ok();
    seen.finish().ok();
    let ran = sub.interrupt().ok();
    assert!(
        ran.err.contains("Received ") && ran.err.contains(" messages, "),
        "{ran:?}"
    );
    let reply = server
        .start(&["reply", "r", "x"], "Listening on")
        .interrupt()
        .ok();
    assert!(reply.err.contains("Answered 0 requests"), "{reply:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Some(server) = Server::core() else { return };
    let mut sub = server
        .command(&["sub", "a", "--raw"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    drop(sub.stdout.take());
    // Published until the subscriber has tried to print, and gone.
    let code = (0..500).find_map(|_| {
        server.mesh(&["pub", "a", "x"]).ok();
        sub.try_wait().unwrap().map(|status| status.code())
    });
    sub.kill().ok();
    assert_eq!(code, Some(Some(0)), "ended by itself, with success");
    for arguments in [
        ["completions", "bash"].as_slice(),
        &["man"],
        &["man", "stream", "add"],
    ] {
        let mut child = command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
    }
}

#[test]
fn credentials_come_from_url_flags_or_environment() {
    let Some(server) = Server::core_with(&["--user", "bob", "--pass", "p@ss"]) else {
        return;
    };
    let address = server.address();
    let url = format!("nats://bob:p%40ss@{address}");
    assert_eq!(
        mesh(&["rtt", "--json", "-s", &url]).ok().json()["url"],
        format!("nats://{address}")
    );
    mesh(&["rtt", "-s", &address, "--user", "bob", "--pass", "p@ss"]).ok();
    let mut by_environment = command(&["rtt", "-s", &address]);
    by_environment.env("MESH_USER", "bob").env("MESH_PASS", "p@ss");
    run_with(by_environment, b"").ok();
    let ran =
        mesh(&["rtt", "-s", &format!("nats://bob:wrong@{address}")]).fails(3, "refused these credentials");
    assert!(!ran.err.contains("wrong"), "the password is shown: {}", ran.err);
    mesh(&["rtt", "-s", &address]).fails(3, "refused these credentials");
    mesh(&["rtt", "-s", &address, "--user", "bob"]).fails(2, "--pass");
}

#[test]
fn completions_and_manual_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = mesh(&["completions", shell]).ok().out;
        assert!(
            script.contains("consumer") && script.contains("max-age"),
            "{shell}"
        );
    }
    assert!(mesh(&["man", "stream", "add"]).ok().out.contains("max\\-age"));
    mesh(&["man", "nonsense"]).fails(2, "nonsense");
}

#[test]
fn what_the_server_refuses_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nats.conf");
    let user =
        r#"{user: u, password: p, permissions: {publish: ["ok", "_INBOX.>"], subscribe: ["_INBOX.>"]}}"#;
    std::fs::write(&path, format!("authorization {{ users: [{user}] }}")).unwrap();
    // Permissions come from a configuration file, which only nats-server reads so far.
    let Some(server) = Server::nats(&["-c", path.to_str().unwrap()]) else {
        return;
    };
    let as_user = |arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--user", "u", "--pass", "p", "--timeout", "2s"]);
        server.mesh(&arguments)
    };
    as_user(&["pub", "ok", "x"]).ok();
    as_user(&["pub", "no", "x"]).fails(1, "Permissions Violation for Publish to \"no\"");
    as_user(&["sub", "no"]).fails(1, "Permissions Violation for Subscription to \"no\"");
    as_user(&["request", "no", "x"]).fails(1, "Permissions Violation for Publish to \"no\"");
    as_user(&["stream", "ls"]).fails(1, "Permissions Violation for Publish");
}
