//! `mesh config`, where settings come from, and what the real nats-server says of the same files.

use std::process::Command;

use crate::support::process::{mesh_command, nats_server};
use crate::support::{Process, Wire, skip};

use super::{Site, mesh, output};

#[test]
fn check_says_the_same_to_programs() {
    let site = Site::new("port: 5000\nping_interval: 5\n");
    let said = |code: i32| -> serde_json::Value {
        let (done, text) = mesh(&["config", "check", &site.file(), "--json"]);
        assert_eq!(done.status.code(), Some(code), "{text}");
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let usable = said(0);
    assert_eq!(usable["usable"], true);
    let settings = usable["settings"].as_array().unwrap();
    let port = serde_json::json!({"setting": "port: 5000", "reloads": false});
    assert!(settings.contains(&port), "{usable}");
    let warning = usable["warnings"][0].as_str().unwrap();
    assert!(warning.contains("is taken as seconds"), "{warning}");

    site.write("prot: 5000\n");
    let unusable = said(1);
    let problem = unusable["problem"].as_str().unwrap();
    assert!(problem.contains("did you mean \"port\"?"), "{problem}");
    assert_eq!(unusable["usable"], false);
}

#[test]
fn check_prints_what_holds_and_init_what_could() {
    let site = Site::new("port: 5000\nmax_payload: 2MB\nping_interval: 5\n");
    let (done, text) = mesh(&["config", "check", &site.file()]);
    assert_eq!(done.status.code(), Some(0), "{text}");
    let shown = String::from_utf8(done.stdout).unwrap();
    for line in ["port: 5000", "max_payload: 2MiB", "ping_interval: \"5s\""] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let how = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(how("port:").ends_with("# restart") && how("max_payload:").ends_with("# reload"));
    assert!(text.contains("warning: ") && text.contains("is taken as seconds"));
    // What it prints can be read again.
    site.write(&shown);
    assert_eq!(
        mesh(&["config", "check", &site.file()]).0.stdout,
        shown.as_bytes()
    );

    site.write("prot: 5000\nport: x\n");
    let (done, text) = mesh(&["config", "check", &site.file()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text.contains("mesh.conf:1:1: unknown field \"prot\", did you mean \"port\"?"),
        "{text}"
    );
    assert!(text.contains("mesh.conf:2:1: \"port\" is a number"), "{text}");
    assert_eq!(
        mesh(&["config", "check", "/nowhere.conf"]).0.status.code(),
        Some(1)
    );

    let sample = mesh(&["config", "init"]).0.stdout;
    site.write(std::str::from_utf8(&sample).unwrap());
    assert_eq!(mesh(&["config", "check", &site.file()]).0.status.code(), Some(0));
    let new = site.path("new.conf");
    let new = new.to_str().unwrap();
    assert_eq!(mesh(&["config", "init", new]).0.status.code(), Some(0));
    assert_eq!(std::fs::read(new).unwrap(), sample);
    assert_eq!(mesh(&["config", "init", new]).0.status.code(), Some(5));
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let site =
        Site::new("port: -1\nmonitor_port: 0\nserver_name: file\nmax_payload: 100\nmax_control_line: 100\n");
    let name = |variable: Option<&str>, flags: &[&str]| {
        let store = tempfile::TempDir::new().unwrap();
        let mut command = mesh_command();
        command.args(["serve", "-c", &site.file(), "--no-mesh", "--store-dir"]);
        command.arg(store.path()).args(flags);
        command.envs(variable.map(|name| ("MESH_NAME", name)));
        let server = Process::listening(command, store);
        let wire = Wire::connect(server.address());
        (
            wire.info()["server_name"].as_str().unwrap().to_owned(),
            wire.info()["max_payload"].clone(),
        )
    };
    assert_eq!(name(None, &[]), ("file".to_owned(), 100.into()));
    assert_eq!(name(Some("variable"), &[]).0, "variable");
    let all = name(Some("variable"), &["-n", "flag", "--max-payload", "200"]);
    assert_eq!(all, ("flag".to_owned(), 200.into()));
}

#[test]
fn an_open_monitor_is_refused_like_an_open_port() {
    for text in [
        "port: -1\nhttp: \"0.0.0.0:-1\"\n",
        "listen: \"0.0.0.0:-1\"\nhttp_port: 0\n",
    ] {
        let site = Site::new(text);
        let (done, text) = mesh(&["serve", "-c", &site.file()]);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains("without authentication"), "{text}");
    }
}

#[test]
fn declared_streams_are_there_once_it_serves() {
    let declared = |age: &str, wait: &str| {
        format!(
            "port: -1\nmonitor_port: 0\nno_mesh: true\n\
             streams {{ ORDERS {{ subjects: \"orders.>\", max_age: {age} }}, KEPT {{}} }}\n\
             consumers {{ ORDERS {{ billing {{ ack_policy: explicit, ack_wait: {wait} }} }} }}\n"
        )
    };
    let site = Site::new(&declared("1h", "30s"));
    let store = site.path("store");
    let serve = || {
        let mut command = mesh_command();
        command
            .args(["serve", "-c", &site.file(), "--store-dir"])
            .arg(&store);
        Process::listening(command, tempfile::TempDir::new().unwrap())
    };
    let info = |process: &Process| {
        let mut wire = Wire::quiet(process.address(), "");
        wire.ask(
            "SUB a 1\r\nPUB $JS.API.STREAM.INFO.ORDERS a 0\r\n\r\n",
            "MSG a 1 ",
        );
        let (_length, body) = (wire.line(), wire.line());
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["config"]["max_age"].as_i64().unwrap()
    };
    let stop = |mut process: Process| {
        process.signal(rustix::process::Signal::TERM);
        assert!(process.wait().success());
    };
    let process = serve();
    let said = |process: &Process, steps: [&str; 3]| {
        let log = process.wait_for("Listening");
        for step in steps {
            assert!(log.contains(&format!("[INF]   {step}\n")), "{step} in {log}");
        }
    };
    said(
        &process,
        [
            "create stream ORDERS",
            "create stream KEPT",
            "create consumer billing of ORDERS",
        ],
    );
    assert_eq!(info(&process), 3_600_000_000_000);
    stop(process);
    site.write(&declared("2h", "30s"));
    let process = serve();
    said(
        &process,
        [
            "update stream ORDERS",
            "keep stream KEPT",
            "keep consumer billing of ORDERS",
        ],
    );
    assert_eq!(info(&process), 7_200_000_000_000);
    stop(process);
    site.write(&declared("2h", "20s"));
    let process = serve();
    said(
        &process,
        [
            "keep stream ORDERS",
            "keep stream KEPT",
            "update consumer billing of ORDERS",
        ],
    );
    stop(process);
    // What cannot be had is said, and nothing is served.
    site.write("port: -1\nmonitor_port: 0\nstreams { OTHER { subjects: \"orders.x\" } }\n");
    let (done, text) = mesh(&[
        "serve",
        "-c",
        &site.file(),
        "--store-dir",
        store.to_str().unwrap(),
    ]);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot have the declared stream OTHER: subjects overlap"),
        "{text}"
    );
}

#[test]
fn the_page_is_true() {
    let page = include_str!("../../docs/configuration.md");
    let blocks: Vec<_> = page
        .split("```conf\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        // Certificates and an operator are somebody's own.
        .filter(|block| !block.contains("cert_file") && !block.contains("op.jwt"))
        .collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let site = Site::new(block);
        let (done, text) = mesh(&["config", "check", &site.file()]);
        assert!(done.status.success(), "{block}\n{text}");
        assert!(!text.contains("warning: "), "{text}");
    }
}

/// Files, and why ours differs where it does on purpose.
const FILES: [(&str, Option<&str>); 58] = [
    ("port: 4222", None),
    (
        "{\n  \"port\": 4567,\n  \"http\": 8222,\n  \"authorization\": {\"token\": \"s\"}\n}\n",
        None,
    ),
    (
        "# a comment\nlisten: 127.0.0.1:-1 // another\nhttp: 127.0.0.1:-1\n",
        None,
    ),
    ("host = 127.0.0.1; port = 4222, debug on", None),
    ("port: 4222 }\n", None),
    ("'port' 4222\n\"http_port\": 8222", None),
    ("PORT: 4222", None),
    (
        "max_payload: 1MiB\nmax_pending: 64MB\nmax_control_line: 4k\nmax_connections: 1K",
        None,
    ),
    (
        "ping_interval: \"100ms\"\nping_max: 3\nwrite_deadline: \"2s\"",
        None,
    ),
    ("ping_interval: 2m", None),
    ("authorization { user: a, password: b }", None),
    ("authorization { user: a }", None),
    ("authorization { token: abc, timeout: \"2s\" }", None),
    ("authorization { timeout: 1.5, user: u, pass: p }", None),
    (
        "authorization {\n users = [\n  {user: a, password: b}\n  {user: c, password: d}\n ]\n}",
        None,
    ),
    (
        "authorization { users: [ {user: a, password: b, permissions: { publish: a, subscribe: [b, \"c q\"] }} ] }",
        None,
    ),
    (
        "authorization { users: [ {user: a, password: b, permissions: { publish: { allow: a, deny: [b] } }} ] }",
        None,
    ),
    (
        "P = { publish: a }\nauthorization { users: [ {user: a, password: b, permissions: $P} ] }",
        None,
    ),
    (
        "authorization { users: [ {user: a, password: b} ], default_permissions { sub: a } }\nno_auth_user: a",
        None,
    ),
    (
        "authorization { users: [ {nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4} ] }",
        None,
    ),
    (
        "authorization { user: d, password: $2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG }",
        None,
    ),
    (
        "authorization { users: [ {user: a, password: b, permissions { allow_responses { max: 5, expires: \"1m\" } }} ] }",
        None,
    ),
    ("jetstream: true\nstore_dir: /tmp/x", None),
    (
        "jetstream { store_dir: \"/tmp/x\", max_mem: 1G, max_file: 10GB, domain: hub, strict: true }",
        None,
    ),
    ("jetstream { sync_interval: always }", None),
    (
        "server_name: n\nserver_tags: [a, b\n c]\npid_file: /tmp/p\nports_file_dir: /tmp\nlog_file: /tmp/l",
        None,
    ),
    (
        "lame_duck_duration: \"60s\"\nlame_duck_grace_period: \"1s\"\nlogtime: false",
        None,
    ),
    (
        "leafnodes { listen: \"127.0.0.1:-1\" }\nwebsocket { port: -1, no_tls: true }",
        None,
    ),
    ("x: 5\nping_max: $x", None),
    ("x (\nabc\n)\nserver_name: $x", None),
    // What neither takes.
    ("prot: 4222", None),
    ("port: \"4222\"", None),
    ("port: 4222 port", None),
    ("port: $nope", None),
    ("port: 5.5", None),
    ("port:\n4222\n", None),
    ("listen: foo", None),
    ("listen: [::1]:4222", None),
    ("server_name: \"a b\"", None),
    ("server_name: 12", None),
    ("server_tags: [a,,b]", None),
    ("server_tags: [a b]", None),
    ("debug: ja", None),
    ("x {", None),
    ("server_name: \"\\q\"", None),
    ("max_payload: 1t", None),
    ("max_payload: 1kx", None),
    ("max_pending: 9999999999999999999999", None),
    ("authorization { user: a, password: b, token: c }", None),
    ("authorization { users: [ {user: a, pasword: c} ] }", None),
    (
        "authorization { users: [ {user: a, password: b}, {user: a, password: c} ] }",
        None,
    ),
    (
        "authorization { users: [ {user: a, password: b, permissions: { publish: { allow: x, deni: y } }} ] }",
        None,
    ),
    ("authorization { users: [ {nkey: UABC} ] }", None),
    (
        "authorization { users: [ {user: a, password: b, permissions: { publish: \"a..b\" }} ] }",
        None,
    ),
    ("jetstream { max_mem: 1G, stored: x }", None),
    ("include nowhere.conf", None),
    ("lame_duck_duration: \"1s\"", None),
    ("ping_interval: \"2 parsecs\"", None),
];

#[test]
fn the_real_nats_server_says_the_same_of_files() {
    compare(&FILES);
}

/// Fails with the files of which ours does not say what the real nats-server says, but where it should differ.
pub(super) fn compare(files: &[(&str, Option<&str>)]) {
    let Some(program) = nats_server() else {
        return skip(
            "files and nats-server",
            "no program in NATS_SERVER or on the search path",
        );
    };
    let mut differ = Vec::new();
    for (text, why) in files {
        let site = Site::new(text);
        let (theirs, says) = output(Command::new(&program).args(["-t", "-c", &site.file()]));
        let (ours, we_say) = mesh(&["nats-server", "-t", "-c", &site.file()]);
        if (theirs.status.success() == ours.status.success()) == why.is_some() {
            differ.push(format!("{text}\n  nats-server: {says}\n  ours: {we_say}"));
        }
        let verdict = if ours.status.success() {
            "is valid (sha256:"
        } else {
            "nats-server: "
        };
        assert!(we_say.contains(verdict), "{we_say}");
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
