//! Client libraries and the command line over TLS.

use std::process::{Command, Stdio};

use async_nats::ConnectOptions;
use futures_util::StreamExt;
use rcgen::DnType;
use sovereign_mesh::connection::tls::{First, Options};
use sovereign_mesh::{Config, TestServer};

use crate::support::process::mesh_command;
use crate::support::{PATIENCE, Process, skip};

use super::Authority;

/// A server inside this program, as library users have it.
fn embedded(authority: &Authority, change: impl FnOnce(&mut Options)) -> TestServer {
    let mut options = Options::new(authority.path("server.pem"), authority.path("server.key"));
    change(&mut options);
    TestServer::with(Config {
        tls: Some(options),
        monitor_port: None,
        ..Config::default()
    })
}

fn believer(authority: &Authority) -> ConnectOptions {
    ConnectOptions::new().add_root_certificates(authority.path("ca.pem"))
}

async fn echo(client: &async_nats::Client) {
    let mut subscription = client.subscribe("tls.>").await.unwrap();
    client.publish("tls.a", vec![7; 300_000].into()).await.unwrap();
    client.publish("tls.b", "b".into()).await.unwrap();
    for expected in [300_000, 1] {
        let message = tokio::time::timeout(PATIENCE, subscription.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.payload.len(), expected);
    }
}

#[tokio::test]
async fn async_nats() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = embedded(&authority, |_| {});
    assert!(server.url().starts_with("tls://"), "{}", server.url());
    echo(&believer(&authority).connect(server.url()).await.unwrap()).await;
    // INFO asks for TLS, whatever the URL says.
    let port = server.server().local_addr().port();
    echo(
        &believer(&authority)
            .connect(format!("nats://localhost:{port}"))
            .await
            .unwrap(),
    )
    .await;
    let error = believer(&other).connect(server.url()).await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
    assert!(::async_nats::connect(server.url()).await.is_err());
}

#[tokio::test]
async fn async_nats_with_a_certificate() {
    let authority = Authority::new();
    authority.client("client", Vec::new(), &[(DnType::CommonName, "client")]);
    let server = embedded(&authority, |options| {
        options.verify = true;
        options.ca_file = Some(authority.path("ca.pem"));
    });
    let shown = || {
        believer(&authority)
            .add_client_certificate(authority.path("client.pem"), authority.path("client.key"))
    };
    echo(&shown().connect(server.url()).await.unwrap()).await;
    assert!(believer(&authority).connect(server.url()).await.is_err());
}

#[tokio::test]
async fn async_nats_that_begins() {
    let authority = Authority::new();
    let first = embedded(&authority, |options| options.first = First::Client);
    echo(
        &believer(&authority)
            .tls_first()
            .connect(first.url())
            .await
            .unwrap(),
    )
    .await;
    let auto = embedded(&authority, |options| {
        options.first = First::Either(PATIENCE / 100)
    });
    echo(
        &believer(&authority)
            .tls_first()
            .connect(auto.url())
            .await
            .unwrap(),
    )
    .await;
    echo(&believer(&authority).connect(auto.url()).await.unwrap()).await;
}

#[tokio::test]
async fn inside_the_process_there_is_no_tls() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let authority = Authority::new();
    let server = embedded(&authority, |_| {});
    let mut line = String::new();
    BufReader::new(server.server().connect_in_process())
        .read_line(&mut line)
        .await
        .unwrap();
    assert!(line.starts_with("INFO {") && !line.contains("tls_"), "{line}");
}

#[test]
fn the_command_line() {
    let authority = Authority::new();
    authority.client("client", Vec::new(), &[(DnType::CommonName, "client")]);
    let process = authority.serve(&format!("{}, verify: true", authority.believed()), "");
    let url = format!("tls://{}", process.address());
    let mesh = |flags: &[&str]| {
        let output = mesh_command()
            .args(["-s", &url, "rtt", "-n", "1"])
            .args(flags)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let files = ["ca.pem", "client.pem", "client.key"].map(|name| authority.text(name));
    let [ca, certificate, key] = files.each_ref().map(String::as_str);
    let (code, said) = mesh(&["--tlsca", ca, "--tlscert", certificate, "--tlskey", key]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = mesh(&["--tlscert", certificate, "--tlskey", key]);
    assert!(
        code != Some(0) && said.contains("UnknownIssuer") && said.contains("--tlsca"),
        "{said}"
    );
    let (code, said) = mesh(&["--tlsca", ca]);
    assert!(code != Some(0) && said.contains("--tlscert"), "{said}");
    let (code, said) = mesh(&["--tlsca", ca, "--tlscert", certificate]);
    assert!(code == Some(2) && said.contains("belong together"), "{said}");
    let (code, said) = mesh(&["--tlsca", "/nowhere.pem"]);
    assert!(
        code == Some(2) && said.contains("cannot read /nowhere.pem"),
        "{said}"
    );
}

#[test]
fn nats_py() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        return skip(
            "nats-py over TLS",
            "set MESH_TEST_PYTHON to a python that has nats-py",
        );
    };
    let authority = Authority::new();
    authority.client("client", Vec::new(), &[(DnType::CommonName, "client")]);
    let users = "authorization { users: [ { user: \"CN=client\" } ] }";
    let tls = format!("{}, verify_and_map: true", authority.believed());
    let servers: [(Process, &str); 2] = [
        (authority.serve(&tls, users), ""),
        (
            authority.serve(&format!("{tls}, handshake_first: true"), users),
            "first",
        ),
    ];
    for (process, first) in &servers {
        let walk = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/walk.py"))
            .args([process.address(), &authority.text(""), first])
            .stdin(Stdio::null())
            .output()
            .expect("the python of MESH_TEST_PYTHON starts");
        let said = String::from_utf8_lossy(&walk.stderr);
        assert!(walk.status.success() && walk.stdout == b"walked\n", "{said}");
    }
}
