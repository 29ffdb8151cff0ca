//! Who speaks first, who is sent away and with which words.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Process, Wire};

use super::authority::page;
use super::{Authority, Secured, socket};

const REQUIRED: &str = "-ERR 'Secure Connection - TLS Required'\r\n";

fn ended_for(process: &Process, cause: &str) {
    process.wait_for(&format!(" - TLS Handshake Failure: {cause}"));
}

#[test]
fn info_comes_first_and_says_so() {
    let authority = Authority::new();
    let process = authority.serve("", "");
    let info = Wire::connect(process.address()).info().clone();
    assert_eq!(
        (&info["tls_required"], &info["tls_verify"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let mut client = Secured::connect(process.address(), authority.believer()).unwrap();
    assert_eq!(client.login("").unwrap(), "PONG");
    assert_eq!(client.ask("SUB a 1\r\nPUB a 2\r\nhi\r\n").unwrap(), "MSG a 1 2");

    let varz = page(&process, "/varz");
    assert_eq!(
        (&varz["tls_required"], &varz["tls_timeout"]),
        (&true.into(), &2.into())
    );
    assert_eq!(varz["auth_timeout"], 3);
    assert!(varz["tls_cert_not_after"].as_str().unwrap().ends_with('Z'));
    let row = &page(&process, "/connz")["connections"][0];
    assert_eq!(row["tls_version"], "1.3");
    assert!(
        row["tls_cipher_suite"].as_str().unwrap().starts_with("TLS_AES_"),
        "{row}"
    );
    assert!(row.get("tls_first").is_none() && row.get("tls_peer_certs").is_none());
    process.wait_for("TLS handshake complete, version 1.3");
}

#[test]
fn who_stays_in_clear_is_told_so() {
    let authority = Authority::new();
    let process = authority.serve("timeout: \"300ms\"", "");
    let mut plain = Wire::connect(process.address());
    plain.send("CONNECT {}\r\nPING\r\n");
    plain.expect(REQUIRED);
    plain.expect_end();
    ended_for(&process, "it does not begin a TLS handshake, and TLS is required");

    let mut silent = Wire::connect(process.address());
    silent.expect(REQUIRED);
    silent.expect_end();
    ended_for(&process, "no TLS handshake within 300ms");

    // One that begins and then stalls is in the middle of its handshake: nothing in clear would be understood.
    let mut slow = Wire::connect(process.address());
    slow.send([0x16, 3, 1]);
    slow.expect_end();
    ended_for(&process, "TLS handshake not done within 300ms");

    let mut garbage = Wire::connect(process.address());
    garbage.send([&[0x16, 9, 9, 9, 9][..], &[7; 4000]].concat());
    garbage.drain();
    ended_for(&process, "TLS handshake error: ");
    let closed = page(&process, "/connz?state=closed");
    for row in closed["connections"].as_array().unwrap() {
        assert_eq!(row["reason"], "TLS Handshake Failure");
    }
    assert_eq!(closed["num_connections"], 4);
}

#[test]
fn both_kinds_where_both_are_allowed() {
    let authority = Authority::new();
    let process = authority.serve("timeout: \"300ms\"", "allow_non_tls: true");
    let mut plain = Wire::connect(process.address());
    assert_eq!(plain.info().get("tls_required"), None);
    assert_eq!(plain.info()["tls_available"], true);
    plain.expect_nothing();
    // Who only listens is served once it is clear that no handshake comes.
    let mut silent = Wire::connect(process.address());
    std::thread::sleep(Duration::from_millis(400));
    silent.expect_nothing();
    let mut client = Secured::connect(process.address(), authority.believer()).unwrap();
    assert_eq!(client.login("").unwrap(), "PONG");
    let rows = page(&process, "/connz")["connections"].clone();
    let encrypted = |row: &serde_json::Value| row.get("tls_version").is_some();
    assert_eq!(
        rows.as_array()
            .unwrap()
            .iter()
            .filter(|row| encrypted(row))
            .count(),
        1
    );
    assert_eq!(page(&process, "/varz").get("tls_required"), None);
}

#[test]
fn the_client_may_begin() {
    let authority = Authority::new();
    let process = authority.serve("handshake_first: true, timeout: \"300ms\"", "");
    let mut client = Secured::upgrade(socket(process.address()), authority.believer()).unwrap();
    let info = client.line().unwrap();
    assert!(
        info.starts_with("INFO {") && info.contains("\"tls_required\":true"),
        "{info}"
    );
    assert_eq!(client.login("").unwrap(), "PONG");
    assert_eq!(page(&process, "/connz")["connections"][0]["tls_first"], true);
    // Who waits for INFO waits in vain.
    let mut waiting = Wire::raw(process.address());
    waiting.expect(REQUIRED);
    waiting.expect_end();
}

#[test]
fn either_may_begin() {
    let authority = Authority::new();
    for first in ["auto", "\"400ms\""] {
        let process = authority.serve(&format!("handshake_first: {first}"), "");
        let mut early = Secured::upgrade(socket(process.address()), authority.believer()).unwrap();
        assert!(early.line().unwrap().starts_with("INFO {"));
        assert_eq!(early.login("").unwrap(), "PONG");
        let mut late = Secured::connect(process.address(), authority.believer()).unwrap();
        assert_eq!(late.login("").unwrap(), "PONG");
    }
}

#[test]
fn versions_and_suites_are_those_that_are_set() {
    let authority = Authority::new();
    let process = authority.serve("min_version: \"1.3\"", "");
    let old = authority.believer_of(&[&rustls::version::TLS12]);
    let error = Secured::connect(process.address(), old.clone()).err().unwrap();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    ended_for(&process, "TLS handshake error: ");
    drop(process);

    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let process = authority.serve(
        &format!("cipher_suites: [{suite}]\ncurve_preferences: [CurveP384]"),
        "",
    );
    let mut client = Secured::connect(process.address(), old).unwrap();
    assert_eq!(client.login("").unwrap(), "PONG");
    let group = client.stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::secp384r1);
    let row = &page(&process, "/connz")["connections"][0];
    assert_eq!(
        (&row["tls_version"], &row["tls_cipher_suite"]),
        (&"1.2".into(), &suite.into())
    );
}

#[test]
fn handshakes_in_a_second_are_limited() {
    let authority = Authority::new();
    let process = authority.serve("connection_rate_limit: 1", "");
    let throttled = (0..1000).find_map(|_| {
        let mut wire = Wire::connect(process.address());
        // No real handshake: it counts all the same.
        wire.send([&[0x16, 9, 9, 9, 9][..], &[7; 100]].concat());
        String::from_utf8(wire.drain())
            .ok()
            .filter(|said| said.starts_with("-ERR"))
    });
    let text = "-ERR 'Connection throttling is active. Please try again later.'\r\n";
    assert_eq!(throttled.as_deref(), Some(text));
    process.wait_for("Maximum Connections Exceeded: more than 1 TLS handshakes in a second");
}

#[test]
fn the_certificate_is_the_one_that_bears_the_name() {
    let authority = Authority::new();
    authority.issue("other", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("other.example".try_into().unwrap())];
    });
    let pair = |name: &str| {
        let (certificate, key) = (
            authority.text(&format!("{name}.pem")),
            authority.text(&format!("{name}.key")),
        );
        format!("{{ cert_file: \"{certificate}\", key_file: \"{key}\" }}")
    };
    let text = format!(
        "port: -1\nmonitor_port: 0\ntls {{ certs: [ {}, {} ] }}\n",
        pair("other"),
        pair("server")
    );
    authority.write("mesh.conf", &text);
    let store = tempfile::TempDir::new().unwrap();
    let mut command = crate::support::process::mesh_command();
    command
        .args([
            "serve",
            "--no-mesh",
            "-c",
            &authority.text("mesh.conf"),
            "--store-dir",
        ])
        .arg(store.path());
    let process = Process::listening(command, store);
    // The client asks for localhost, the second one's name, and would refuse the first.
    let mut client = Secured::connect(process.address(), authority.believer()).unwrap();
    assert_eq!(client.login("").unwrap(), "PONG");
}

/// What is larger than buffers, records and batches arrives whole, both ways.
#[test]
fn much_arrives_whole() {
    let authority = Authority::new();
    let process = authority.serve("", "");
    let mut client = Secured::connect(process.address(), authority.believer()).unwrap();
    client.login("").unwrap();
    client.stream.write_all(b"SUB big 1\r\n").unwrap();
    let body: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    for _ in 0..8 {
        client
            .stream
            .write_all(format!("PUB big {}\r\n", body.len()).as_bytes())
            .unwrap();
        client.stream.write_all(&body).unwrap();
        client.stream.write_all(b"\r\n").unwrap();
        assert_eq!(client.line().unwrap(), format!("MSG big 1 {}", body.len()));
        let mut got = vec![0; body.len() + 2];
        client.stream.read_exact(&mut got).unwrap();
        assert!(got[..body.len()] == body);
    }
    let small = "PUB big 1\r\nx\r\n".repeat(20_000);
    client.stream.write_all(small.as_bytes()).unwrap();
    let mut got = vec![0; 20_000 * "MSG big 1 1\r\nx\r\n".len()];
    client.stream.read_exact(&mut got).unwrap();
    assert_eq!(got, "MSG big 1 1\r\nx\r\n".repeat(20_000).as_bytes());
    drop(client);
    process.wait_for("client connection closed: Client Closed");
}
