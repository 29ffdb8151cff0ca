//! TLS in files and on command lines: what is read, what is refused and where.

use std::process::Command;

use rcgen::DnType;

use crate::support::Process;
use crate::support::process::{mesh_command, nats_server};

use super::authority::page;
use super::{Authority, Secured, socket};

fn check(authority: &Authority, text: &str) -> (Option<i32>, String, String) {
    authority.write("mesh.conf", text);
    let output = mesh_command()
        .args(["config", "check", &authority.text("mesh.conf")])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_not_usable_is_named_with_its_line() {
    let authority = Authority::new();
    authority.client("other", Vec::new(), &[(DnType::CommonName, "x")]);
    authority.write("empty.pem", "\n");
    let base = |more: &str| authority.conf(more, "");
    let block = |certificate: &str, key: &str| {
        format!(
            "tls {{\n  cert_file: \"{}\"\n  key_file: \"{}\"\n}}\n",
            authority.text(certificate),
            authority.text(key)
        )
    };
    for (text, says) in [
        (block("nowhere.pem", "server.key"), ":2:3: tls: ".to_owned()),
        (
            block("empty.pem", "server.key"),
            "there is no certificate in it (PEM)".to_owned(),
        ),
        (block("server.pem", "empty.pem"), ":3:3: tls: ".to_owned()),
        (
            block("server.pem", "other.key"),
            format!("the private key is not that of {}", authority.text("server.pem")),
        ),
        (
            "tls { key_file: x }".to_owned(),
            "missing 'cert_file' in TLS configuration".to_owned(),
        ),
        (
            "tls { }".to_owned(),
            "missing 'cert_file' in TLS configuration".to_owned(),
        ),
        (
            base("certs: []"),
            "cannot combine 'cert_file' option with 'certs' option".to_owned(),
        ),
        (
            base("verify: true, ca_file: \"/nowhere\""),
            ":6:17: tls: /nowhere: ".to_owned(),
        ),
        (
            base("verfy: true"),
            "unknown field \"verfy\", did you mean \"verify\"?".to_owned(),
        ),
        (
            base("verify_and_map: true"),
            "there are no \"users\" that certificates could name".to_owned(),
        ),
        (
            base("min_version: \"1.1\""),
            "unsupported TLS version: 1.1".to_owned(),
        ),
        (
            base("cipher_suites: [TLS_NONE]"),
            "unrecognized cipher TLS_NONE".to_owned(),
        ),
        (
            base("cipher_suites: []"),
            "'cipher_suites' cannot be empty".to_owned(),
        ),
        (
            base("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"),
            "none of them is offered".to_owned(),
        ),
        (
            base("curve_preferences: [P1]"),
            "unrecognized curve preference P1".to_owned(),
        ),
        (
            base("handshake_first: sometimes"),
            "\"handshake_first\" is true, false, auto or a time".to_owned(),
        ),
        (base("pinned_certs: [abc]"), "abc is not hex sha256".to_owned()),
        (
            base(&format!("pinned_certs: [\"{}\"]", "a".repeat(64))),
            "pinned_certs without verify".to_owned(),
        ),
        (
            base("ocsp_peer: true"),
            "\"ocsp_peer\" is not supported".to_owned(),
        ),
        (
            base("cert_store: windowscurrentuser"),
            "\"cert_store\" is not supported".to_owned(),
        ),
        (
            "https_port: -1".to_owned(),
            "HTTPS needs a certificate".to_owned(),
        ),
        (
            authority.conf("", "https_port: -1"),
            "over HTTP or over HTTPS, not both".to_owned(),
        ),
    ] {
        let (code, _, said) = check(&authority, &text);
        assert!(code == Some(1) && said.contains(&says), "{text}\n{said}");
    }
    for (text, says) in [
        (
            "port: 1\nallow_non_tls: true".to_owned(),
            "\"allow_non_tls\" has no effect",
        ),
        (base("insecure: true"), "\"insecure\" has no effect"),
        (base("verify: true"), "verify without ca_file"),
        (
            base("curve_preferences: [X25519, CurveP521]"),
            "CurveP521 is not offered",
        ),
        (base("timeout: 90"), "a timeout of 90s is high"),
    ] {
        let (code, _, said) = check(&authority, &text);
        assert!(code == Some(0) && said.contains(says), "{text}\n{said}");
    }
}

#[test]
fn what_holds_is_shown_and_can_be_read_again() {
    let authority = Authority::new();
    let tls = format!(
        "{}, verify_and_map: true, timeout: 1.5, min_version: \"1.3\", handshake_first: auto, \
         connection_rate_limit: 9, pinned_certs: [\"{}\"], cipher_suites: [TLS_AES_128_GCM_SHA256], \
         curve_preferences: [CurveP256]",
        authority.believed(),
        "A".repeat(64)
    );
    let users = "allow_non_tls: true\nauthorization { users: [ { user: a, password: b } ] }";
    let (code, shown, said) = check(&authority, &authority.conf(&tls, users));
    assert_eq!(code, Some(0), "{said}");
    let line = shown.lines().find(|line| line.starts_with("tls {")).unwrap();
    for part in [
        "ca_file: \"",
        "verify: true, verify_and_map: true",
        "timeout: \"1s 500ms\"",
        "min_version: \"1.3\"",
        "handshake_first: \"50ms\"",
        "connection_rate_limit: 9",
        "cipher_suites: [\"TLS_AES_128_GCM_SHA256\"]",
        "curve_preferences: [\"CurveP256\"]",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(line.ends_with("# reload") && shown.contains("allow_non_tls: true"));
    let again =
        format!("{shown}authorization {{ timeout: \"2s 500ms\", users: [ {{ user: a, password: b }} ] }}\n");
    assert_eq!(check(&authority, &again).1, shown);
}

fn flags(authority: &Authority, cacert: bool) -> Vec<String> {
    let mut flags = vec![
        "--tls".to_owned(),
        format!("--tlscert={}", authority.text("server.pem")),
        format!("--tlskey={}", authority.text("server.key")),
    ];
    if cacert {
        flags.extend([
            "--tlsverify".to_owned(),
            format!("--tlscacert={}", authority.text("ca.pem")),
        ]);
    }
    flags
}

#[test]
fn flags_of_both_faces() {
    let authority = Authority::new();
    authority.client("client", Vec::new(), &[(DnType::CommonName, "client")]);
    let store = || tempfile::TempDir::new().unwrap();
    for face in [
        &["serve", "--monitor-port", "0", "--no-mesh"][..],
        &["nats-server", "-a", "127.0.0.1"],
    ] {
        for verify in [false, true] {
            let store = store();
            let mut command = mesh_command();
            command.args(face).args([
                "-p",
                "-1",
                "--store_dir"
                    .replace('_', if face[0] == "serve" { "-" } else { "_" })
                    .as_str(),
            ]);
            command.arg(store.path()).args(flags(&authority, verify));
            let process = Process::listening(command, store);
            let mut client = Secured::connect(process.address(), authority.bearer("client")).unwrap();
            assert_eq!(client.login("").unwrap(), "PONG");
            let without = Secured::connect(process.address(), authority.believer())
                .and_then(|mut client| client.login(""));
            assert_eq!(without.is_ok(), !verify, "{face:?}");
        }
        let mut command = mesh_command();
        command.args(face).args(["--tls", "--tlscert", "x"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("private key must be present"),
            "{said}"
        );
        let output = mesh_command()
            .args(face)
            .args(["-p", "-1", "--tlscert", "/nowhere", "--tlskey", "/nowhere"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("cannot have TLS: /nowhere: "),
            "{said}"
        );
    }
}

#[test]
fn the_stand_in_says_that_tls_is_required() {
    let authority = Authority::new();
    for (rest, says) in [
        ("", "TLS required for client"),
        ("allow_non_tls: true", "TLS available for client"),
    ] {
        authority.write("nats.conf", &authority.conf("", rest));
        let mut command = mesh_command();
        command.args([
            "nats-server",
            "-a",
            "127.0.0.1",
            "-c",
            &authority.text("nats.conf"),
        ]);
        Process::listening(command, tempfile::TempDir::new().unwrap()).wait_for(says);
    }
    // A file of nats-server's reads there as here.
    let Some(program) = nats_server() else {
        return crate::support::skip("tls files of nats-server", "set NATS_SERVER");
    };
    let text = authority.conf(
        &format!(
            "{}, verify: true, timeout: \"1s\", handshake_first: \"300ms\", connection_rate_limit: 5, \
             min_version: \"1.3\", curve_preferences: [X25519]",
            authority.believed()
        ),
        "allow_non_tls: true",
    );
    authority.write("both.conf", &text);
    let output = Command::new(program)
        .args(["-t", "-c", &authority.text("both.conf")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(check(&authority, &text).0, Some(0));
}

#[test]
fn pages_over_https() {
    let authority = Authority::new();
    authority.write(
        "mesh.conf",
        &authority
            .conf("", "")
            .replace("monitor_port: -1", "https_port: -1"),
    );
    let store = tempfile::TempDir::new().unwrap();
    let mut command = mesh_command();
    command
        .args([
            "serve",
            "-c",
            &authority.text("mesh.conf"),
            "--no-mesh",
            "--store-dir",
        ])
        .arg(store.path());
    let process = Process::listening(command, store);
    let log = process.wait_for("Monitor    https://");
    let address = log
        .split("Monitor    https://")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let mut client = Secured::upgrade(socket(address), authority.believer()).unwrap();
    let status = client
        .ask("GET /varz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK");
    let lines: Vec<_> = std::iter::from_fn(|| client.line().ok()).collect();
    let port = address.rsplit(':').next().unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.contains(&format!("\"https_port\": {port}"))),
        "{lines:?}"
    );
    let plain = authority.serve("", "");
    assert_eq!(page(&plain, "/varz")["https_port"], 0);
}
