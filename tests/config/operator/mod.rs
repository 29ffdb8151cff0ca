//! Operator mode: the same file and the same tokens, shown to this server and to the real nats-server.

mod files;
mod tokens;

use std::fmt::Write;
use std::time::Duration;

use async_nats::ConnectOptions;
use futures_util::StreamExt;
use nkeys::KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::chain::{self, now, shown, sign, with};
use crate::support::{Process, Wire, skip};

use super::{Site, mesh};

/// An operator with its key; accounts come with each file.
struct Operator {
    key: KeyPair,
    claims: Value,
}

impl Operator {
    fn new() -> Self {
        let key = KeyPair::new_operator();
        Self {
            claims: chain::operator(&key),
            key,
        }
    }

    /// A file that preloads accounts, for either server.
    fn file(&self, accounts: &[Value], more: &str) -> String {
        let token = sign(&self.claims, &self.key);
        let mut text = format!("operator: {token}\nresolver: MEMORY\n{more}\nresolver_preload {{\n");
        for account in accounts {
            let key = account["sub"].as_str().unwrap();
            writeln!(text, "  {key}: {}", sign(account, &self.key)).unwrap();
        }
        text + "}\n"
    }
}

fn site(file: &str) -> Site {
    Site::new(&format!("port: -1\nmonitor_port: -1\n{file}"))
}

/// Both servers with one file, with their names.
fn both(test: &str, file: &str) -> Vec<(&'static str, Process)> {
    let mut servers = vec![("ours", site(file).serve(&[]))];
    match Process::nats(file) {
        Some(theirs) => servers.push(("theirs", theirs)),
        None => skip(test, "no nats-server in NATS_SERVER or on the search path"),
    }
    servers
}

/// Shows a token, and signs for it; what the server says.
fn come(server: &Process, token: &str, key: &KeyPair) -> (Wire, String) {
    let mut wire = Wire::connect(server.address());
    let nonce = wire.info()["nonce"].as_str().expect("a nonce").to_owned();
    wire.send(format!(
        "CONNECT {{\"verbose\":false,\"protocol\":1,{}}}\r\nPING\r\n",
        shown(token, key, &nonce)
    ));
    let line = wire.line();
    (wire, line)
}

/// The next line but for questions whether the client is still there, which come when they come.
fn told(wire: &mut Wire) -> String {
    loop {
        let line = wire.line();
        if line != "PING" {
            return line;
        }
    }
}

/// The same for one that is let in, past the INFO that follows.
fn enter(server: &Process, token: &str, key: &KeyPair) -> (Wire, Value) {
    let (mut wire, line) = come(server, token, key);
    assert_eq!(line, "PONG");
    let info = wire.line();
    let info = info.strip_prefix("INFO ").expect("INFO follows").to_owned();
    (wire, serde_json::from_str(&info).unwrap())
}

const REFUSED: &str = "-ERR 'Authorization Violation'";

#[test]
fn accounts_are_isolated_and_roles_hold() {
    let operator = Operator::new();
    let [one, two, role] = [(); 3].map(|()| KeyPair::new_account());
    let key = KeyPair::new_user();
    let template = json!({
        "pub": { "allow": ["done.{{name()}}.>"] }, "sub": { "allow": ["work.{{tag(team)}}"] },
        "subs": 2, "payload": 10,
    });
    let keys =
        json!([{ "kind": "user_scope", "key": role.public_key(), "role": "worker", "template": template }]);
    let first = with(
        chain::account(&one, "one"),
        &json!({ "nats": { "signing_keys": keys } }),
    );
    let file = operator.file(&[first, chain::account(&two, "two")], "");
    for (name, server) in both("isolation with nats-server", &file) {
        let (mut ours, info) = enter(&server, &sign(&chain::user(&key, "a"), &one), &key);
        assert_eq!(info["remote_account"], one.public_key(), "{name}");
        let (mut theirs, _) = enter(&server, &sign(&chain::user(&key, "b"), &two), &key);
        ours.send("SUB > 1\r\n");
        ours.expect_nothing();
        theirs.send("PUB secret 1\r\nx\r\n");
        theirs.expect_nothing();
        ours.expect_nothing();

        let worker = chain::user_of_role(&key, "ann", &one);
        let worker = with(worker, &json!({ "nats": { "tags": ["team:red"] } }));
        let (mut worker, _) = enter(&server, &sign(&worker, &role), &key);
        worker.send("PUB done.ann.x 1\r\ny\r\n");
        ours.expect("MSG done.ann.x 1 1\r\ny\r\n");
        worker.ask(
            "PUB done.bob.x 1\r\ny\r\n",
            "-ERR 'Permissions Violation for Publish to \"done.bob.x\"'\r\n",
        );
        worker.ask(
            "SUB work.blue 1\r\n",
            "-ERR 'Permissions Violation for Subscription to \"work.blue\"'\r\n",
        );
        worker.ask(
            "SUB work.red 2\r\nSUB work.red 3\r\nSUB work.red 4\r\n",
            "-ERR 'maximum subscriptions exceeded'\r\n",
        );
        worker.ask(
            "PUB done.ann.x 11\r\n01234567890\r\n",
            "-ERR 'Maximum Payload Violation'\r\n",
        );
        worker.expect_end();
    }
}

#[test]
fn what_is_over_ends() {
    let operator = Operator::new();
    let [lasting, short] = [(); 2].map(|()| KeyPair::new_account());
    let key = KeyPair::new_user();
    // Time for both servers to start.
    let passing = with(chain::account(&short, "short"), &json!({ "exp": now() + 6 }));
    let file = operator.file(&[chain::account(&lasting, "lasting"), passing], "");
    let servers = both("expiry with nats-server", &file);
    let soon_over = with(chain::user(&key, "a"), &json!({ "exp": now() + 2 }));
    let inside: Vec<_> = servers
        .iter()
        .map(|(name, server)| {
            let (user, _) = enter(server, &sign(&soon_over, &lasting), &key);
            let (stays, _) = enter(server, &sign(&chain::user(&key, "b"), &lasting), &key);
            let (account, _) = enter(server, &sign(&chain::user(&key, "c"), &short), &key);
            (name, server, user, stays, account)
        })
        .collect();
    for (name, server, mut user, mut stays, mut account) in inside {
        assert_eq!(told(&mut user), "-ERR 'User Authentication Expired'", "{name}");
        user.expect_end();
        assert_eq!(
            told(&mut account),
            "-ERR 'Account Authentication Expired'",
            "{name}"
        );
        account.expect_end();
        stays.send("PING\r\n");
        assert_eq!(told(&mut stays), "PONG", "{name}");
        let (_, line) = come(server, &sign(&soon_over, &lasting), &key);
        assert_eq!(line, REFUSED, "{name}");
    }
}

#[test]
fn a_reload_revokes_and_the_log_says_why() {
    let operator = Operator::new();
    let account = KeyPair::new_account();
    let [goes, stays, bearer] = [(); 3].map(|()| KeyPair::new_user());
    let claims = chain::account(&account, "acme");
    let revoked = json!({ "nats": {
        "revocations": { goes.public_key(): now() + 1 }, "limits": { "disallow_bearer": true },
    } });
    let head = "port: -1\nmonitor_port: -1\n";
    let conf = Site::new(&format!(
        "{head}{}",
        operator.file(std::slice::from_ref(&claims), "")
    ));
    let server = conf.serve(&[]);
    let token = |key: &KeyPair| sign(&chain::user(key, "u"), &account);
    let (mut leaving, _) = enter(&server, &token(&goes), &goes);
    let (mut staying, _) = enter(&server, &token(&stays), &stays);
    let secret = with(
        chain::user(&bearer, "b"),
        &json!({ "nats": { "bearer_token": true } }),
    );
    let mut carrying = Wire::quiet(
        server.address(),
        &format!("\"jwt\":\"{}\"", sign(&secret, &account)),
    );
    conf.write(&format!("{head}{}", operator.file(&[with(claims, &revoked)], "")));
    server.signal(Signal::HUP);
    leaving.expect("-ERR 'User Authentication Revoked'\r\n");
    leaving.expect_end();
    carrying.expect("-ERR 'Authorization Violation'\r\n");
    carrying.expect_end();
    staying.expect_nothing();
    let (_, line) = come(&server, &token(&goes), &goes);
    assert_eq!(line, REFUSED);
    let log = server.wait_for("account acme has revoked it");
    let who = format!("user {} of account {}", goes.public_key(), account.public_key());
    assert!(log.contains(&who), "{log}");
    // Nobody's secret is in the log.
    assert!(!log.contains(&sign(&secret, &account)), "{log}");
}

#[test]
fn wrong_tokens_slow_nobody() {
    let operator = Operator::new();
    let account = KeyPair::new_account();
    let key = KeyPair::new_user();
    let file = operator.file(&[chain::account(&account, "acme")], "");
    let server = site(&file).serve(&[]);
    let good = sign(&chain::user(&key, "ann"), &account);
    // As costly as a wrong one can be: all but the last signature holds.
    let (mut honest, _) = enter(&server, &good, &key);
    let before = server.resident_kib();
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let wrong: Vec<_> = (0..10)
            .map(|_| {
                let mut wire = Wire::connect(server.address());
                let fields = shown(&good, &key, "PXoWU7zWAMt75FY");
                wire.send(format!("CONNECT {{\"verbose\":false,{fields}}}\r\n"));
                wire
            })
            .collect();
        let began = std::time::Instant::now();
        honest.send("PING\r\n");
        while honest.line() != "PONG" {}
        slowest = slowest.max(began.elapsed());
        for mut wire in wrong {
            wire.expect(format!("{REFUSED}\r\n"));
        }
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn client_libraries_come_with_credentials() {
    let operator = Operator::new();
    let account = KeyPair::new_account();
    let key = KeyPair::new_user();
    let server = site(&operator.file(&[chain::account(&account, "acme")], "")).serve(&[]);
    let token = sign(&chain::user(&key, "ann"), &account);
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        key.seed().unwrap()
    );
    let options = ConnectOptions::with_credentials(&credentials).unwrap();
    let client = options.connect(server.address()).await.unwrap();
    let mut subscriber = client.subscribe("a.*").await.unwrap();
    client.publish("a.b", "hello".into()).await.unwrap();
    let message = tokio::time::timeout(crate::support::PATIENCE, subscriber.next()).await;
    assert_eq!(&*message.unwrap().unwrap().payload, b"hello");

    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("ann.creds");
    std::fs::write(&file, credentials).unwrap();
    let url = format!("nats://{}", server.address());
    let publish = |more: &[&str]| mesh(&[&["-s", &url, "pub", "a.c", "again"], more].concat());
    let (done, text) = publish(&[]);
    assert!(!done.status.success() && text.contains("--creds"), "{text}");
    let (done, text) = publish(&["--creds", file.to_str().unwrap()]);
    assert!(done.status.success(), "{text}");
    let message = tokio::time::timeout(crate::support::PATIENCE, subscriber.next()).await;
    assert_eq!(&*message.unwrap().unwrap().payload, b"again");
    let (done, text) = publish(&["--creds", "/nowhere.creds"]);
    assert!(
        !done.status.success() && text.contains("/nowhere.creds"),
        "{text}"
    );
}

/// The page of connections, by HTTP.
fn connections(server: &Process) -> Value {
    use std::io::{Read, Write};
    let log = server.wait_for("Listening for client connections");
    let mut says = ["http://", "http monitor on "].iter();
    let monitor = says.find_map(|says| log.split(says).nth(1));
    let monitor = monitor.expect("monitoring is on");
    let monitor = monitor.split_whitespace().next().unwrap();
    let mut socket = std::net::TcpStream::connect(monitor).unwrap();
    write!(socket, "GET /connz?auth=1 HTTP/1.0\r\nHost: {monitor}\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn connections_show_who_came_with_which_token() {
    let operator = Operator::new();
    let account = KeyPair::new_account();
    let key = KeyPair::new_user();
    let file = operator.file(&[chain::account(&account, "acme")], "http: \"127.0.0.1:-1\"");
    let claims = with(
        chain::user(&key, "ann"),
        &json!({ "nats": { "tags": ["team:red"] } }),
    );
    let token = sign(&claims, &account);
    let secret = with(claims, &json!({ "nats": { "bearer_token": true } }));
    let secret = sign(&secret, &account);
    for (name, server) in both("connz with nats-server", &file) {
        let (_wire, _) = enter(&server, &token, &key);
        let _bearer = Wire::quiet(server.address(), &format!("\"jwt\":\"{secret}\""));
        let page = connections(&server);
        let rows = page["connections"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{page}");
        for row in rows {
            assert_eq!(row["authorized_user"], key.public_key(), "{name}: {row}");
            assert_eq!(row["account"], account.public_key(), "{name}: {row}");
            assert_eq!(row["issuer_key"], account.public_key(), "{name}: {row}");
            assert_eq!(row["name_tag"], "acme", "{name}: {row}");
            assert_eq!(row["tags"], json!(["team:red"]), "{name}: {row}");
        }
        assert_eq!(rows[0]["jwt"], token, "{name}");
        assert_eq!(rows[1].get("jwt"), None, "{name}");
    }
}
