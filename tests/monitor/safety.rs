//! Who is turned away, and that nobody can take too much.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use nkeys::KeyPair;
use serde_json::json;
use sovereign_mesh::account::{Auth, jwt};
use sovereign_mesh::{Config, Server, TestServer};

use crate::support::chain::{self, sign, with};

use super::support::{PATIENCE, get, get_with, raw};

fn monitored(config: Config) -> (TestServer, SocketAddr) {
    let server = TestServer::with(config);
    let monitor = server.server().monitor_addr().unwrap();
    (server, monitor)
}

#[test]
fn only_our_own_names_are_answered() {
    let (_server, monitor) = monitored(Config {
        monitor_hosts: vec!["broker.internal".to_owned()],
        ..Config::default()
    });
    let port = monitor.port();
    let table = [
        ("Host: localhost\r\n".to_owned(), 200),
        (format!("Host: localhost:{port}\r\n"), 200),
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        (format!("Host: [::1]:{port}\r\n"), 200),
        ("Host: BROKER.internal.:80\r\n".to_owned(), 200),
        // By hand, without a browser.
        (String::new(), 200),
        ("Host: evil.example\r\n".to_owned(), 403),
        (format!("Host: evil.example:{port}\r\n"), 403),
        ("Host: localhost.evil.example\r\n".to_owned(), 403),
        ("Host: 10.0.0.1\r\n".to_owned(), 403),
        ("Host: \r\n".to_owned(), 403),
        (
            "Host: localhost\r\nOrigin: http://localhost:3000\r\n".to_owned(),
            200,
        ),
        (
            "Host: localhost\r\nOrigin: https://evil.example\r\n".to_owned(),
            403,
        ),
        ("Host: localhost\r\nOrigin: null\r\n".to_owned(), 403),
    ];
    for (lines, status) in table {
        for path in ["/varz", "/healthz", "/"] {
            let answer = get_with(monitor, path, &lines);
            assert_eq!(answer.status, status, "{path} {lines:?}: {answer:?}");
        }
    }
    // A target that names its authority is held to it.
    assert_eq!(
        raw(monitor, "GET http://evil.example/varz HTTP/1.0\r\n\r\n").status,
        403
    );
}

#[test]
fn nothing_is_shared_with_other_origins() {
    let (_server, monitor) = monitored(Config::default());
    for path in ["/varz", "/varz?callback=f", "/metrics", "/", "/nothing"] {
        let answer = get_with(monitor, path, "Host: localhost\r\nOrigin: http://localhost\r\n");
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{answer:?}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{answer:?}"
        );
        assert!(!answer.body.starts_with("f("), "no JSONP");
    }
}

#[test]
fn errors_are_json_with_their_cause() {
    let (_server, monitor) = monitored(Config::default());
    let table = [
        ("/connz?sort=bogus", 400, "invalid sorting option: bogus"),
        (
            "/connz?sort=stop",
            400,
            "sort by stop only valid on closed connections",
        ),
        ("/connz?state=foo", 400, "Error decoding state for foo"),
        ("/connz?limit=x", 400, "Error decoding number for 'limit'"),
        ("/connz?cid=-1", 400, "Error decoding number for 'cid'"),
        ("/connz?subs=maybe", 400, "Error decoding boolean for 'subs'"),
        ("/jsz?streams=maybe", 400, "Error decoding boolean for 'streams'"),
        ("/healthz?details=2", 400, "Error decoding boolean for 'details'"),
        ("/accountz?acc=zzz", 400, "Account zzz does not exist"),
        ("/nothing", 404, "there is no page \"/nothing\""),
    ];
    for (path, status, error) in table {
        let answer = get(monitor, path);
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (status, Some(error)),
            "{path}"
        );
    }
    let posted = raw(
        monitor,
        "POST /varz HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn a_request_head_has_a_bound() {
    let (_server, monitor) = monitored(Config::default());
    let long = "x".repeat(64 << 10);
    let answer = get(monitor, &format!("/varz?{long}"));
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let answer = get_with(
        monitor,
        "/varz",
        &format!("Host: localhost\r\nX-Long: {long}\r\n"),
    );
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!(get(monitor, "/varz").status, 200, "and the next one is answered");
}

#[test]
fn those_who_say_nothing_do_not_keep_others_out() {
    let (_server, monitor) = monitored(Config::default());
    // More than there may be at a time: each is let go after a while without a request.
    let mut silent: Vec<_> = (0..80).map(|_| TcpStream::connect(monitor).unwrap()).collect();
    silent[0].write_all(b"GET /varz HTTP/1.1\r\nHost: loc").unwrap();
    assert_eq!(get(monitor, "/healthz").status, 200);
    silent[0].set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).ok();
}

#[test]
fn beyond_loopback_pages_need_the_credentials() {
    let token = "s3cret";
    let (_server, monitor) = monitored(Config {
        host: "0.0.0.0".to_owned(),
        auth: Auth::Token(token.to_owned()),
        ..Config::default()
    });
    let monitor = SocketAddr::from(([127, 0, 0, 1], monitor.port()));
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(
            get(monitor, path).status,
            200,
            "{path}: probes have no credentials"
        );
    }
    for path in ["/varz", "/connz", "/metrics", "/"] {
        let refused = get(monitor, path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.header("www-authenticate").is_some());
        let shown = get_with(
            monitor,
            path,
            &format!("Host: 192.0.2.7\r\nAuthorization: Bearer {token}\r\n"),
        );
        assert_eq!(shown.status, 200, "{path}");
        let wrong = get_with(monitor, path, "Host: localhost\r\nAuthorization: Bearer no\r\n");
        assert_eq!(wrong.status, 401, "{path}");
    }
}

#[test]
fn the_token_of_those_who_show_none_opens_no_page_and_no_address() {
    let [operator, account, user] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    ];
    let now = jiff::Timestamp::now();
    let mut trust = jwt::Trust::default();
    trust.add_key(&operator.public_key()).unwrap();
    let mut accounts = jwt::Accounts::new(trust);
    let token = sign(&chain::account(&account, "acme"), &operator);
    accounts.add(&account.public_key(), &token, "test", now).unwrap();
    let bearer = json!({ "nats": { "bearer_token": true } });
    let guest = sign(&with(chain::user(&user, "guest"), &bearer), &account);
    accounts.set_sentinel(&guest).unwrap();
    let (operator, accounts, _) = accounts.finish(now);
    let config = Config {
        host: "0.0.0.0".to_owned(),
        auth: Auth::Operator(Arc::new(operator)),
        accounts,
        store_dir: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let closed = runtime.block_on(Server::start(Config {
        port: 0,
        ..config.clone()
    }));
    let why = closed.err().expect("open to everybody").to_string();
    assert!(why.contains("without authentication"), "{why}");

    let (_server, monitor) = monitored(Config {
        open_to_all: true,
        ..config
    });
    let monitor = SocketAddr::from(([127, 0, 0, 1], monitor.port()));
    assert_eq!(get(monitor, "/healthz").status, 200);
    for shown in [
        "",
        "Authorization: Basic dTpw\r\n",
        &format!("Authorization: Bearer {guest}\r\n"),
    ] {
        let refused = get_with(monitor, "/connz", &format!("Host: localhost\r\n{shown}"));
        assert_eq!(refused.status, 403, "{shown}");
    }
}
