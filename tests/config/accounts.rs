//! Accounts in files: what the real nats-server says of the same ones, and what a server does with them.

use sovereign_mesh::account::Spec;
use sovereign_mesh::server::ReloadError;
use sovereign_mesh::{Config, Server, ServerError};

use crate::support::Wire;

use super::check::compare;
use super::{Site, mesh};

const BOTH: &str = "the real one says so only when it serves";
const CIRCLE: &str = "the real one finds some circles only";
const HALF: &str = "the real one passes over what it cannot use";

/// Files as people have them, and why ours differs where it does on purpose.
const FILES: [(&str, Option<&str>); 68] = [
    // Tenants that share nothing.
    (
        "accounts {\n  A: { users: [ {user: a, password: a} ] }\n  B: { users: [ {user: b, password: b} ] }\n}\n",
        None,
    ),
    (
        "accounts: { A: { users: [ {user: a, password: a}, {user: c, password: c} ], }, }",
        None,
    ),
    ("accounts [A, B]", None),
    ("accounts {}", None),
    (
        "accounts { A: {} }\nauthorization { users: [ {user: x, password: y} ] }",
        None,
    ),
    (
        "accounts { A: { users: [ {nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4} ] } }",
        None,
    ),
    (
        "P = { publish: \"a.>\", subscribe: [\"a.>\", \"_INBOX.>\"] }\naccounts { A { users: [ {user: a, password: a, permissions: $P} ] } }",
        None,
    ),
    (
        "accounts { P = { publish: \"a.>\" }\nA { users: [ {user: a, password: a, permissions: $P} ] } }",
        None,
    ),
    (
        "accounts { A { default_permissions { publish: a, subscribe: { deny: b } }, users: [ {user: a, password: $2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG} ] } }",
        None,
    ),
    (
        "accounts { A { users: [ {user: a, password: a} ] }, B { users: [ {user: b} ] } }\nno_auth_user: b",
        None,
    ),
    // The system account.
    (
        "accounts { $SYS { users: [ {user: admin, password: secret} ] } }",
        None,
    ),
    (
        "accounts { SYS: { users: [ {user: admin, password: secret} ] }, APP: { users: [ {user: app, password: app} ], jetstream: enabled } }\nsystem_account: SYS\njetstream { store_dir: /tmp/x }",
        None,
    ),
    ("accounts { SYS {} }\nsystem: SYS", None),
    ("system_account: \"\"", None),
    ("no_system_account: true\naccounts { A {} }", None),
    // Streams that are shared.
    (
        "accounts {\n  A { users: [ {user: a, password: a} ], exports: [ {stream: \"orders.>\"} ] }\n  B { users: [ {user: b, password: b} ], imports: [ {stream: {account: A, subject: \"orders.>\"}, prefix: a} ] }\n}\n",
        None,
    ),
    (
        "accounts {\n  A { exports = [ {stream: puba.>}\n {service: pubq.>}\n {stream: b.>, accounts: [B]}\n {service: q.b, accounts: [B]} ] }\n  B { imports = [ {stream: {account: A, subject: b.>}}\n {service: {account: A, subject: q.b}} ] }\n  C { imports = [ {stream: {account: A, subject: puba.>}, prefix: from_a}\n {service: {account: A, subject: pubq.C}, to: Q} ] }\n}\n",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: \"a.*\"} ] }, B { imports: [ {stream: {account: A, subject: \"a.*\"}, to: \"b.*\"} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: \"a.*.*\"} ] }, B { imports: [ {stream: {account: A, subject: \"a.*.*\"}, to: \"b.$2.$1\"} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: \"x.>\"} ] }, B { imports: [ {stream: {account: A, subject: x.a}}, {stream: {account: A, subject: \"x.>\"}} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: \"x.>\"} ], imports: [ {stream: {account: B, subject: \"x.>\"}, prefix: b} ] }, B { exports: [ {stream: \"x.>\"} ], imports: [ {stream: {account: A, subject: \"x.>\"}, prefix: a} ] } }",
        None,
    ),
    // Services.
    (
        "accounts { A { exports: [ {service: \"help\", response_type: stream, threshold: \"30s\"} ] }, B { imports: [ {service: {account: A, subject: help}, to: \"ask.a\", share: true} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: \"req.*\", account_token_position: 2} ] }, B { imports: [ {service: {account: A, subject: req.B}, to: req} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: slow, latency: {sampling: 10%, subject: lat.slow}} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: slow, latency: lat.slow, response: singleton, allow_trace: true} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: \"a.*.*\"} ] }, B { imports: [ {service: {account: A, subject: \"a.*.*\"}, to: \"b.$2.$1\"} ] } }",
        None,
    ),
    (
        "accounts { JS { jetstream: enabled, exports: [ {service: \"$JS.API.>\"}, {stream: \"deliver.>\"} ] }, B { imports: [ {service: {account: JS, subject: \"$JS.API.>\"}, to: \"js.api.>\"}, {stream: {account: JS, subject: \"deliver.>\"}} ] } }",
        None,
    ),
    // Limits.
    (
        "accounts { A { limits { max_connections: 10, max_subs: 100, max_payload: 64k, max_leafnodes: 0 } } }",
        None,
    ),
    (
        "jetstream { max_mem: 1G, max_file: 10G }\naccounts { A { jetstream { max_mem: 512M, max_file: 1G, max_streams: 10, max_consumers: 100, max_ack_pending: 1000, max_bytes_required: true, mem_max_stream_bytes: 1M, disk_max_stream_bytes: 100M } } }",
        None,
    ),
    (
        "accounts { A { jetstream: true }, B { jetstream: disabled } }",
        None,
    ),
    (
        "accounts { A { msg_trace: {dest: \"t.a\", sampling: 50%} } }",
        None,
    ),
    (
        "jetstream { limits { max_ack_pending: 5, max_request_batch: 4, duplicate_window: \"1m\" } }",
        None,
    ),
    // Mappings.
    (
        "mappings { foo: bar, \"old.*\": \"new.$1\", \"a.*.*\": \"b.{{wildcard(2)}}.{{wildcard(1)}}\" }",
        None,
    ),
    (
        "mappings = {\n  canary: [\n    {destination: v1, weight: 90%}\n    {destination: v2, weight: 10%}\n  ]\n  lossy: {destination: lossy, weight: \"50%\"}\n  \"east.*\": [ {destination: \"e.$1\", weight: 100, cluster: east} ]\n}\n",
        None,
    ),
    (
        "mappings { \"orders.*\": \"orders.{{partition(3,1)}}.$1\", \"t.*\": \"t.{{splitfromleft(1,2)}}\" }",
        None,
    ),
    ("accounts { A { maps { a: b } } }", None),
    ("mappings { \"foo.*\": bar }", None),
    ("mappings { foo: [] }", None),
    // What neither takes.
    ("accounts { $G {} }", None),
    ("accounts [A, A]", None),
    ("accounts { A: [] }", None),
    ("accounts { A { foo: 5 } }", None),
    (
        "accounts { A { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 } }",
        None,
    ),
    (
        "accounts { A { users: [ {user: a, password: b} ] }, B { users: [ {user: a, password: c} ] } }",
        None,
    ),
    (
        "authorization { token: x }\naccounts { A { users: [ {user: a, password: b} ] } }",
        None,
    ),
    (
        "accounts { B { imports: [ {stream: {account: C, subject: x}} ] } }",
        None,
    ),
    (
        "accounts { A {}, B { imports: [ {stream: {account: A, subject: x}} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: x, accounts: [A]} ] }, B { imports: [ {stream: {account: A, subject: x}} ] } }",
        None,
    ),
    ("accounts { A { exports: [ {stream: x, accounts: [C]} ] } }", None),
    (
        "accounts { A { exports: [ {service: \"x.*\", account_token_position: 1} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: \"x.*\", account_token_position: 2} ] }, B { imports: [ {service: {account: A, subject: x.C}} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: x} ] }, B { imports: [ {stream: {account: A, subject: x}}, {stream: {account: A, subject: x}, to: y} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: x} ], imports: [ {service: {account: B, subject: x}} ] }, B { exports: [ {service: x} ], imports: [ {service: {account: A, subject: x}} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: x} ], imports: [ {stream: {account: B, subject: x}} ] }, B { exports: [ {stream: x} ], imports: [ {stream: {account: A, subject: x}} ] } }",
        None,
    ),
    ("accounts { A { exports: [ {stream: a, service: b} ] } }", None),
    (
        "accounts { A { exports: [ {service: a, response: twice} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {stream: a, response: stream} ] } }",
        None,
    ),
    (
        "accounts { A { exports: [ {service: a, latency: {sampling: 5}} ] } }",
        None,
    ),
    (
        "mappings { foo: [ {destination: a, weight: 60%}, {destination: b, weight: 50%} ] }",
        None,
    ),
    ("mappings { foo: [ {destination: a} ] }", None),
    ("mappings { \"foo.*\": \"bar.$2\" }", None),
    ("mappings { \"foo.>\": bar }", None),
    // Where they differ.
    ("accounts { A {} }\nsystem_account: B", Some(BOTH)),
    (
        "accounts { A { users: [ {user: a, password: b} ] } }\nno_auth_user: c",
        Some(BOTH),
    ),
    (
        "accounts { S { jetstream: true } }\nsystem_account: S",
        Some(BOTH),
    ),
    (
        "accounts { A { exports: [ {service: x} ], imports: [ {service: {account: A, subject: x}} ] } }",
        Some(CIRCLE),
    ),
    ("accounts { A { exports: [ {} ] } }", Some(HALF)),
    ("accounts { A { exports: [ {stream: \"a..b\"} ] } }", Some(HALF)),
];

#[test]
fn the_real_nats_server_says_the_same_of_accounts() {
    compare(&FILES);
}

#[test]
fn all_that_makes_no_sense_together_is_told_at_once() {
    let site = Site::new(
        "accounts {\n  A { exports: [ {stream: a, accounts: [A]} ] }\n  B {\n    imports: [\n      {stream: {account: A, subject: a}}\n      {service: {account: X, subject: b}}\n    ]\n  }\n}\n",
    );
    for command in [&["config", "check"][..], &["serve", "-c"]] {
        let (done, text) = mesh(&[command, &[&site.file()]].concat());
        assert_eq!(done.status.code(), Some(1), "{text}");
        for line in [
            "mesh.conf:5:7: stream import \"a\" from account \"A\": not authorized, the export is not for account \"B\"",
            "mesh.conf:6:7: service import \"b\" from account \"X\": account \"X\" is not defined",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

#[test]
fn users_come_into_their_accounts() {
    let site = Site::new(
        "port: -1\nmonitor_port: 0\naccounts {\n  A { users: [ {user: a, password: pa} ] }\n  B { users: [ {user: b, password: pb} ] }\n}\nno_auth_user: b\n",
    );
    let server = site.serve(&[]);
    let account = |credentials: &str| {
        let mut wire = Wire::connect(server.address());
        wire.send(format!(
            "CONNECT {{\"verbose\":false,\"protocol\":1{credentials}}}\r\nPING\r\n"
        ));
        assert_eq!(wire.line(), "PONG");
        let info = wire.line();
        let info: serde_json::Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        info["remote_account"].as_str().unwrap().to_owned()
    };
    assert_eq!(account(",\"user\":\"a\",\"pass\":\"pa\""), "A");
    assert_eq!(account(",\"user\":\"b\",\"pass\":\"pb\""), "B");
    assert_eq!(account(""), "B");
    // The client is told nothing but that, the log by which line of the file.
    let mut wire = Wire::connect(server.address());
    wire.send("CONNECT {\"user\":\"a\",\"pass\":\"pb\"}\r\n");
    assert_eq!(wire.line(), "-ERR 'Authorization Violation'");
    let log = server.wait_for("mesh.conf:4:16");
    assert!(log.contains("user \"a\""), "{log}");
}

#[test]
fn accounts_change_with_a_reload_and_bad_ones_change_nothing() {
    let file = |import: &str| {
        format!(
            "port: -1\nmonitor_port: 0\naccounts {{\n  A {{ exports: [ {{stream: a}} ], users: [ {{user: a, password: pa}} ] }}\n  B {{ imports: [ {import} ], users: [ {{user: b, password: pb}} ] }}\n}}\n"
        )
    };
    let site = Site::new(&file(""));
    let server = site.serve(&[]);
    site.write(&file("{stream: {account: A, subject: x}}"));
    server.signal(rustix::process::Signal::HUP);
    server.wait_for("not authorized, there is no such export");
    site.write(&file("{stream: {account: A, subject: a}}"));
    server.signal(rustix::process::Signal::HUP);
    let log = server.wait_for("Reloaded server configuration: changed ");
    assert!(log.contains("accounts"), "{log}");
    Wire::quiet(server.address(), "\"user\":\"b\",\"pass\":\"pb\"");
}

#[tokio::test]
async fn who_starts_a_server_in_code_is_told_too() {
    let twice = || Config {
        accounts: vec![Spec::new("A"), Spec::new("A")],
        ..Config::embedded()
    };
    let refused = Server::start(twice()).await.err().expect("it is refused");
    assert!(matches!(&refused, ServerError::Accounts(problems) if problems.len() == 1));
    assert_eq!(
        refused.to_string(),
        "accounts make no sense together: account A: account \"A\" is there twice"
    );
    let server = Server::start(Config::embedded()).await.unwrap();
    let refused = server.reload(twice()).await.unwrap_err();
    assert!(matches!(refused, ReloadError::Accounts(_)), "{refused}");
    assert!(server.config().accounts.is_empty());
    server.shutdown().await;
}
