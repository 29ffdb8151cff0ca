//! The stand-in, started as the test suites of client libraries start nats-server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::mesh_command;
use crate::support::{Process, Wire, free_port};

use super::{Site, mesh, output, wait_for_file};

/// This binary under the name of nats-server.
struct NatsServer {
    directory: TempDir,
}

impl NatsServer {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mesh"), directory.path().join("nats-server")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("nats-server"));
        command.args(arguments);
        command
    }

    /// Started, once it says on stderr that it listens.
    fn start(&self, arguments: &[&str]) -> Process {
        Process::listening(self.command(arguments), TempDir::new().unwrap())
    }
}

fn get(address: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// nats.rs: a log file, a pid file, a file; stopped by `--signal ldm`.
#[test]
fn as_the_rust_client_starts_it() {
    let site = NatsServer::new();
    let (log, pid, store) = (site.text("log"), site.text("pid"), site.text("store"));
    std::fs::write(
        site.path("js.conf"),
        "jetstream { domain: hub }\nmax_payload: 4096\n",
    )
    .unwrap();
    let arguments = [
        "--store_dir",
        &store,
        "-p",
        "-1",
        "-l",
        &log,
        "-P",
        &pid,
        "-c",
        &site.text("js.conf"),
    ];
    let mut process = Process::spawn(site.command(&arguments), TempDir::new().unwrap());
    let text = wait_for_file(&site.path("log"), |text| text.contains("Server is ready"));
    let address = text
        .split("client connections on ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(address.starts_with("0.0.0.0:"), "{address}");
    assert!(
        text.contains(&format!("Store Directory: \"{store}/jetstream\"")),
        "{text}"
    );
    assert!(text.contains("  Domain:          hub"), "{text}");
    assert_eq!(std::fs::read_to_string(&pid).unwrap(), process.id().to_string());
    let port = address.rsplit(':').next().unwrap();
    let wire = Wire::connect(format!("127.0.0.1:{port}"));
    assert_eq!(
        (
            &wire.info()["host"],
            &wire.info()["jetstream"],
            &wire.info()["max_payload"]
        ),
        (&"0.0.0.0".into(), &true.into(), &4096.into())
    );
    assert_eq!(wire.info()["client_ip"], "127.0.0.1");
    drop(wire);
    let (done, text) = output(&mut site.command(&["--signal", &format!("ldm={}", process.id())]));
    assert!(done.status.success(), "{text}");
    assert!(process.wait().success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("[INF] Entering lame duck mode, stop accepting new clients"),
        "{text}"
    );
    assert!(!site.path("pid").exists());
}

/// nats.py, the old one: ports given, credentials as flags, `/varz` polled.
#[test]
fn as_the_python_client_starts_it() {
    let site = NatsServer::new();
    let (port, monitor, store) = (
        free_port().to_string(),
        free_port().to_string(),
        format!("-sd={}", site.text("store")),
    );
    let arguments = [
        "-p",
        &port,
        "-m",
        &monitor,
        "-a",
        "127.0.0.1",
        "--user",
        "u",
        "--pass",
        "p",
        "-DV",
        "-js",
        &store,
    ];
    let process = site.start(&arguments);
    let varz = get(&format!("127.0.0.1:{monitor}"), "/varz");
    assert_eq!(varz["port"].to_string(), port);
    let mut wire = Wire::connect(process.address());
    wire.ask(
        "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nPING\r\n",
        "PONG\r\n",
    );
    let log = process.wait_for("<<- [CONNECT");
    assert!(log.contains("[DBG]") && log.contains("[TRC]"), "{log}");
    let mut wrong = Wire::connect(process.address());
    wrong.ask(
        "CONNECT {\"user\":\"u\",\"pass\":\"x\"}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    );
    wrong.expect_end();
}

/// nats.py, the new one: long flags, lines on stderr, USR2.
#[test]
fn as_the_new_python_client_starts_it() {
    let site = NatsServer::new();
    let store = site.text("store");
    let long = [
        "--addr",
        "127.0.0.1",
        "--port",
        "-1",
        "--debug",
        "--jetstream",
        "--store_dir",
        &store,
        "--server_name",
        "one",
    ];
    let mut process = site.start(&long);
    let log = process.wait_for("[INF] Server is ready");
    assert!(
        log.contains("[INF] Listening for client connections on 127.0.0.1:"),
        "{log}"
    );
    assert!(
        log.contains("[INF] Starting nats-server") && log.contains("  Version:  "),
        "{log}"
    );
    assert_eq!(Wire::connect(process.address()).info()["server_name"], "one");
    process.signal(Signal::USR2);
    assert!(process.wait().success());
    for flag in ["--version", "-v", "version"] {
        let (done, text) = output(&mut site.command(&[flag]));
        assert!(
            done.status.success() && text.starts_with("nats-server: v2."),
            "{text}"
        );
    }
}

/// nats.c: short flags with one dash.
#[test]
fn as_the_c_client_starts_it() {
    let site = NatsServer::new();
    let process = site.start(&[
        "-p",
        "-1",
        "-a",
        "127.0.0.1",
        "-user",
        "u",
        "-pass",
        "p",
        "-server_name",
        "x",
    ]);
    let mut wire = Wire::connect(process.address());
    assert_eq!(wire.info().get("jetstream"), None);
    wire.ask(
        "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nPING\r\n",
        "PONG\r\n",
    );
}

/// nats.js: a file alone, the ports in a file of the program's name, HUP.
#[test]
fn as_the_javascript_client_starts_it() {
    let site = NatsServer::new();
    let directory = site.directory.path().display();
    let file = format!(
        "host: 127.0.0.1\nport: -1\nhttp: 127.0.0.1:-1\nleafnodes {{ listen: 127.0.0.1:-1 }}\n\
         websocket {{ port: -1, no_tls: true }}\nserver_tags: [a, b]\nports_file_dir: {directory}\n\
         jetstream {{ max_file_store: 1GB, max_mem_store: 1GB, store_dir: \"{directory}/js\" }}\n"
    );
    std::fs::write(site.path("c.conf"), file).unwrap();
    let mut process = Process::spawn(
        site.command(&["-c", &site.text("c.conf")]),
        TempDir::new().unwrap(),
    );
    let ports = site.path(&format!("nats-server_{}.ports", process.id()));
    let told: Value = serde_json::from_str(&wait_for_file(&ports, |text| !text.is_empty())).unwrap();
    let url = |name: &str| told[name][0].as_str().unwrap().to_owned();
    let nats = url("nats");
    let address = nats.strip_prefix("nats://").unwrap();
    assert!(
        address.starts_with("127.0.0.1:") && told.get("websocket").is_none(),
        "{told}"
    );
    assert_eq!(Wire::connect(address).info()["jetstream"], true);
    let monitoring = url("monitoring");
    let jsz = get(monitoring.strip_prefix("http://").unwrap(), "/jsz");
    assert_eq!(jsz["streams"], 0);
    let log = process.wait_for("Server is ready");
    assert!(log.contains("\"websocket\" has no effect"), "{log}");
    process.signal(Signal::HUP);
    process.wait_for("Reloaded server configuration");
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    assert!(!ports.exists());
}

#[test]
fn what_cannot_start_says_so_at_once() {
    let site = NatsServer::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    std::fs::write(site.path("file"), "x").unwrap();
    std::fs::write(site.path("bad.conf"), "prot: 1\n").unwrap();
    std::fs::write(site.path("tls.conf"), "tls { cert_file: x }\n").unwrap();
    let (file, bad, tls) = (site.text("file"), site.text("bad.conf"), site.text("tls.conf"));
    for (arguments, says) in [
        (vec!["-c", &bad], "bad.conf:1:1: unknown field \"prot\""),
        (vec!["-c", "/nowhere.conf"], "cannot read /nowhere.conf"),
        (
            vec!["-c", &tls],
            "tls.conf:1:1: missing 'key_file' in TLS configuration",
        ),
        (
            vec!["-a", "127.0.0.1", "-p", &port],
            "Error listening on port: 127.0.0.1:",
        ),
        (
            vec!["-a", "no.such.host.invalid", "-p", "-1"],
            "Error listening on port: no.such.host.invalid",
        ),
        (vec!["-p", "99999"], "99999: invalid port"),
        (
            vec!["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", &file],
            "Can't start JetStream",
        ),
        (
            vec!["-a", "127.0.0.1", "-p", "-1", "-P", "/nowhere/pid"],
            "Could not write pidfile",
        ),
        (
            vec!["-p", "-1", "--tls", "--tlscert", "x"],
            "TLS Server private key must be present and valid",
        ),
        (
            vec!["-p", "-1", "--routes", "nats://a:1"],
            "connects to no other servers",
        ),
    ] {
        let began = Instant::now();
        let (done, text) = output(&mut site.command(&arguments));
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(
            text.contains("[FTL]") && text.contains(says),
            "{arguments:?}: {text}"
        );
        assert!(began.elapsed().as_secs() < 10);
    }
    for (arguments, code, says) in [
        (vec!["--foo"], 2, "flag provided but not defined: -foo"),
        (vec!["-p", "x"], 2, "invalid value \"x\" for flag -p"),
        (vec!["foo"], 1, "nats-server: unrecognized command: \"foo\""),
        (vec!["-t"], 1, "must specify [-c, --config] option"),
        (
            vec!["-t", "-c", &bad],
            1,
            "unknown field \"prot\", did you mean \"port\"?",
        ),
        (vec!["--signal", "bogus=1"], 1, "unknown signal \"bogus\""),
        (vec!["--signal", "reload=/nowhere"], 1, "cannot read /nowhere"),
        (vec!["-h"], 0, "Usage: nats-server [options]"),
    ] {
        let (done, text) = output(&mut site.command(&arguments));
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
}

#[test]
fn by_its_own_name_too() {
    let (done, text) = mesh(&["nats-server", "-v"]);
    assert!(
        done.status.success() && text.starts_with("nats-server: v2."),
        "{text}"
    );
    let site = Site::new("port: -1\nhost: 127.0.0.1\n");
    let mut command = mesh_command();
    command.args(["nats-server", "-c", &site.file(), "--http_port=-1"]);
    // Its variables are not those of `mesh serve`.
    command.env("MESH_TOKEN", "x");
    let process = Process::listening(command, TempDir::new().unwrap());
    Wire::quiet(process.address(), "");
    process.wait_for("Starting http monitor on 127.0.0.1:");
}

#[test]
fn the_log_is_opened_anew() {
    let site = NatsServer::new();
    let log = site.text("log");
    let process = Process::spawn(
        site.command(&["-a", "127.0.0.1", "-p", "-1", "-l", &log, "-T=false"]),
        TempDir::new().unwrap(),
    );
    let text = wait_for_file(&site.path("log"), |text| text.contains("Server is ready"));
    assert!(
        text.starts_with(&format!("[{}] [INF] Starting", process.id())),
        "{text}"
    );
    std::fs::rename(site.path("log"), site.path("log.1")).unwrap();
    process.signal(Signal::USR1);
    wait_for_file(&site.path("log"), |text| text.contains("File log re-opened"));
}
