//! `mesh serve` as a command: flags, environment, refusals and their exit codes.

use std::process::{Command, Output, Stdio};

use super::server;
use crate::support::process::mesh_command;
use crate::support::{Process, Wire};

fn serve(change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let store = tempfile::tempdir().unwrap();
    let mut command = mesh_command();
    command
        .args(["serve", "--monitor-port", "0", "--store-dir"])
        .arg(store.path());
    change(&mut command);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Fails unless the command ended with `code` and said `words`, in few lines.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(said.lines().count() <= 8, "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn refusals() {
    let taken = server(|_| {});
    let port = taken.server().local_addr().port().to_string();
    let in_use = serve(|command| command.args(["-p", &port]));
    refused(&in_use, 1, &format!("port {port} on 127.0.0.1 is in use"));
    let open = serve(|command| command.args(["-p", "-1", "-a", "0.0.0.0"]));
    refused(&open, 2, "without authentication");
    refused(&open, 2, "fix 1: mesh serve --token");
    let bad: [(&[&str], &str); 18] = [
        (&["--nope"], "--nope"),
        (&["-p", "70000"], "70000"),
        (&["-p", "x"], "invalid value 'x'"),
        (&["-p", "-2"], "-2"),
        (&["--max-payload", "0"], "--max-payload"),
        (&["--max-payload", "1x"], "--max-payload"),
        (&["--ping-interval", "x"], "--ping-interval"),
        (&["--write-deadline=-1s"], "--write-deadline"),
        (&["--user", "u"], "--pass"),
        (&["--pass", "p"], "--user"),
        (
            &["--token", "t", "--user", "u", "--pass", "p"],
            "cannot be used with",
        ),
        (&["--token", ""], "--token (or MESH_TOKEN) is empty"),
        (&["--user", "u", "--pass", ""], "--pass (or MESH_PASS) is empty"),
        (&["--log-format", "xml"], "xml"),
        (
            &["--max-connections", "0"],
            "0 would let nobody in; -1 is no limit",
        ),
        (
            &["--max-payload", "2MiB", "--max-pending", "1MiB"],
            "max_payload (2097152) cannot be higher than max_pending (1048576)",
        ),
        (&["--ping-interval", "0"], "ping_interval cannot be zero"),
        (&["--write-deadline", "0"], "write_deadline cannot be zero"),
    ];
    for (flags, words) in bad {
        let output = serve(|command| {
            let port: &[&str] = if flags[0] == "-p" { &[] } else { &["-p", "-1"] };
            command.args(port).args(flags)
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(words), "{flags:?}: {said}");
    }
    let nowhere = serve(|command| command.args(["-p", "-1", "-a", "no.such.host.invalid"]));
    refused(&nowhere, 1, "cannot resolve no.such.host.invalid");
    // An empty variable must not open what was meant to be closed.
    let empty = serve(|command| command.args(["-p", "-1", "-a", "0.0.0.0"]).env("MESH_TOKEN", ""));
    refused(&empty, 2, "--token (or MESH_TOKEN) is empty");
}

#[test]
fn settings_from_the_environment() {
    let store = tempfile::tempdir().unwrap();
    let mut command = mesh_command();
    command.arg("serve").envs([
        ("MESH_PORT", "0"),
        ("MESH_MONITOR_PORT", "0"),
        ("MESH_NAME", "from-env"),
        ("MESH_TOKEN", "secret"),
        ("MESH_MAX_PAYLOAD", "2k"),
        ("MESH_LOG_FORMAT", "json"),
        ("MESH_TRACE", "true"),
    ]);
    command.env("MESH_STORE_DIR", store.path());
    let process = Process::spawn(command, store);
    let log = process.wait_for("Server is ready");
    let address = log.split("Listening for client connections on ").nth(1).unwrap();
    let address = address.split('"').next().unwrap();
    let mut wire = Wire::quiet(address, "\"auth_token\":\"secret\"");
    let info = wire.info().clone();
    assert_eq!(info["server_name"], "from-env");
    assert_eq!(info["max_payload"], 2048);
    assert_eq!(info["auth_required"], true);
    wire.ask("PUB a 2049\r\n", "-ERR 'Maximum Payload Violation'\r\n");
    let log = process.wait_for("PUB a 2049");
    assert!(!log.contains("secret"), "a secret is in the log:\n{log}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn flags_go_before_the_environment() {
    let store = tempfile::tempdir().unwrap();
    let mut command = mesh_command();
    command.args([
        "serve",
        "-p",
        "-1",
        "--monitor-port",
        "0",
        "-n",
        "flag",
        "--user",
        "u",
        "--pass",
        "p",
    ]);
    command.arg("--store-dir").arg(store.path());
    command.envs([("MESH_NAME", "env"), ("MESH_PORT", "1")]);
    let process = Process::spawn(command, store);
    let log = process.wait_for("Server is ready");
    assert!(log.contains("loopback only, credentials needed"), "{log}");
    let address = log.split("Listening for client connections on ").nth(1).unwrap();
    let mut wire = Wire::connect(address.lines().next().unwrap());
    assert_eq!(wire.info()["server_name"], "flag");
    wire.ask("PING\r\n", "-ERR 'Authorization Violation'\r\n");
}

#[test]
fn info_says_what_it_is() {
    let process = Process::mesh(&[]);
    let wire = Wire::connect(process.address());
    let info = wire.info();
    assert_eq!(info["mesh"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["port"], process.port());
    assert_eq!(info["server_id"].as_str().unwrap().len(), 56);
    let version = info["version"].as_str().unwrap();
    assert_eq!(
        version
            .split('.')
            .filter(|part| part.parse::<u32>().is_ok())
            .count(),
        3,
        "{version}"
    );
}
