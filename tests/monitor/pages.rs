//! What the pages show is what happened.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sovereign_mesh::{Config, Server, TestServer, account::Auth, config};

use super::support::{Client, eventually, get, metric, page};

struct Stage {
    server: TestServer,
}

impl Stage {
    fn new() -> Self {
        Self {
            server: TestServer::start(),
        }
    }

    fn clients(&self) -> SocketAddr {
        self.server.server().local_addr()
    }

    fn monitor(&self) -> SocketAddr {
        self.server.server().monitor_addr().unwrap()
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(
            self.clients(),
            &format!(",\"name\":\"{name}\",\"lang\":\"test\",\"version\":\"1\""),
        )
    }

    fn names(&self, query: &str) -> Vec<String> {
        let found = page(self.monitor(), &format!("/connz?{query}"));
        let rows = found["connections"].as_array().unwrap();
        rows.iter()
            .map(|row| row["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

#[test]
fn varz_and_metrics_agree_with_the_traffic() {
    let stage = Stage::new();
    let (mut sender, mut reader) = (stage.client("sender"), stage.client("reader"));
    reader.send("SUB a.* 1\r\nSUB b 2\r\n");
    reader.flush();
    sender.send("PUB a.x 5\r\nhello\r\nPUB a.y 3\r\nhey\r\nPUB nobody 2\r\nhm\r\n");
    sender.flush();
    reader.flush();
    drop(stage.client("gone"));

    let varz = eventually(stage.monitor(), "/varz", |varz| varz["connections"] == 2);
    let expected = [
        ("in_msgs", 3),
        ("in_bytes", 10),
        ("in_client_msgs", 3),
        ("out_msgs", 2),
        ("out_bytes", 8),
        ("total_connections", 3),
        ("subscriptions", 2),
        ("slow_consumers", 0),
        ("port", u64::from(stage.clients().port())),
        ("http_port", u64::from(stage.monitor().port())),
    ];
    for (field, value) in expected {
        assert_eq!(varz[field], value, "{field}");
    }
    assert!(varz["mem"].as_u64().unwrap() > 0 || !cfg!(target_os = "linux"));
    assert_eq!(varz["jetstream"]["stats"]["api"]["errors"], 0);

    let metrics = get(stage.monitor(), "/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let expected = [
        ("mesh_in_msgs_total", 3.0),
        ("mesh_in_bytes_total", 10.0),
        ("mesh_out_msgs_total", 2.0),
        ("mesh_out_bytes_total", 8.0),
        ("mesh_connections", 2.0),
        ("mesh_connections_total", 3.0),
        ("mesh_subscriptions", 2.0),
        ("mesh_subscription_inserts_total", 2.0),
        ("mesh_slow_consumers_total", 0.0),
        ("mesh_stale_connections_total", 0.0),
        ("mesh_auth_failures_total", 0.0),
        ("mesh_stalls_total", 0.0),
        ("mesh_pending_bytes", 0.0),
        ("mesh_router_matches_total", 3.0),
        ("mesh_healthy", 1.0),
        ("mesh_ready", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(metric(&metrics.body, name), value, "{name}");
    }
    assert!(metric(&metrics.body, "mesh_uptime_seconds") > 0.0);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let stage = Stage::new();
    let body = get(stage.monitor(), "/metrics").body;
    let mut typed = std::collections::HashMap::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(typed.insert(name, kind).is_none(), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let parts = ["_bucket", "_sum", "_count"].iter();
            let of_histogram = parts
                .filter_map(|part| name.strip_suffix(part))
                .any(|name| typed.get(name) == Some(&"histogram"));
            assert!(
                name.starts_with("mesh_") && (typed.contains_key(name) || of_histogram),
                "{line}"
            );
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(typed.len() > 20, "{body}");
}

#[test]
fn connz_sorts_filters_and_pages() {
    let stage = Stage::new();
    // Three clients that differ in everything that can be sorted by.
    let mut first = stage.client("first");
    let mut second = stage.client("second");
    let mut third = stage.client("third");
    first.send("SUB one 1\r\nSUB two 2\r\nSUB three 3\r\n");
    second.send("SUB one 1\r\n");
    first.flush();
    second.flush();
    third.send("PUB one 2\r\nhi\r\nPUB two 2\r\nhi\r\n");
    second.send("PUB nobody 50\r\n12345678901234567890123456789012345678901234567890\r\n");
    for client in [&mut third, &mut second, &mut first] {
        client.flush();
    }
    let names = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
    let table = [
        ("", "first second third"),
        ("sort=cid", "first second third"),
        ("sort=start", "first second third"),
        ("sort=uptime", "third second first"),
        ("sort=subs", "first second third"),
        ("sort=msgs_to", "first second third"),
        ("sort=msgs_from", "third second first"),
        ("sort=bytes_to", "first second third"),
        ("sort=bytes_from", "second third first"),
        ("sort=pending", "first second third"),
        ("limit=2", "first second"),
        ("offset=1&limit=1", "second"),
        ("cid=2", "second"),
        ("acc=$G", "first second third"),
    ];
    for (query, expected) in table {
        assert_eq!(stage.names(query), names(expected), "{query}");
    }
    for query in ["cid=99", "acc=other", "user=nobody", "state=closed", "offset=9"] {
        assert_eq!(stage.names(query), Vec::<String>::new(), "{query}");
    }
    let second_page = page(stage.monitor(), "/connz?offset=2&limit=2");
    let figures =
        ["num_connections", "total", "offset", "limit"].map(|field| second_page[field].as_u64().unwrap());
    assert_eq!(figures, [1, 3, 2, 2]);
}

#[test]
fn connz_shows_a_connection_whole() {
    let stage = Stage::new();
    let mut client = stage.client("whole");
    client.send("SUB a.> 1\r\nSUB jobs workers 2\r\nSUB few 3\r\nUNSUB 3 5\r\nPUB a.b 4\r\nself\r\n");
    client.flush();
    let row = page(stage.monitor(), "/connz?subs=1&auth=1")["connections"][0].clone();
    assert_eq!(row["subscriptions_list"], json!(["a.>", "jobs", "few"]));
    assert_eq!((&row["in_bytes"], &row["out_msgs"]), (&json!(4), &json!(1)));
    assert_eq!(
        (&row["lang"], &row["version"], &row["ip"]),
        (&json!("test"), &json!("1"), &json!("127.0.0.1"))
    );
    let detail =
        page(stage.monitor(), "/connz?subs=detail")["connections"][0]["subscriptions_list_detail"].clone();
    assert_eq!(
        detail,
        json!([
            { "subject": "a.>", "sid": "1", "msgs": 1, "cid": 1 },
            { "subject": "jobs", "qgroup": "workers", "sid": "2", "msgs": 0, "cid": 1 },
            { "subject": "few", "sid": "3", "msgs": 0, "max": 5, "cid": 1 },
        ])
    );
}

#[test]
fn connz_remembers_the_closed() {
    let stage = Stage::new();
    let stays = stage.client("stays");
    drop(stage.client("left"));
    let mut wrong = stage.client("wrong");
    wrong.send("GARBAGE\r\n");
    while !wrong.line().is_empty() {}
    let closed = eventually(stage.monitor(), "/connz?state=closed&sort=reason", |found| {
        found["num_connections"] == 2
    });
    let of = |row: &Value| {
        (
            row["name"].clone(),
            row["reason"].clone(),
            row["stop"].is_string(),
        )
    };
    assert_eq!(
        of(&closed["connections"][0]),
        (json!("left"), json!("Client Closed"), true)
    );
    assert_eq!(
        of(&closed["connections"][1]),
        (json!("wrong"), json!("Parse Error"), true)
    );
    assert_eq!(stage.names("state=closed&sort=stop"), ["wrong", "left"]);
    assert_eq!(stage.names("state=any"), ["stays", "left", "wrong"]);
    drop(stays);
}

#[test]
fn connz_shows_users_and_hides_tokens() {
    let secret = "s3cret-of-the-token";
    for (auth, fields, shown) in [
        (
            Auth::Token(secret.to_owned()),
            format!(",\"auth_token\":\"{secret}\""),
            "[REDACTED]",
        ),
        (
            Auth::User {
                user: "ann".to_owned(),
                pass: secret.to_owned(),
            },
            format!(",\"user\":\"ann\",\"pass\":\"{secret}\""),
            "ann",
        ),
    ] {
        let server = TestServer::with(Config {
            auth,
            ..Config::default()
        });
        let monitor = server.server().monitor_addr().unwrap();
        let _client = Client::connect(server.server().local_addr(), &fields);
        assert_eq!(
            page(monitor, "/connz?auth=1")["connections"][0]["authorized_user"],
            shown
        );
        assert_eq!(
            page(monitor, "/connz?user=ann")["num_connections"],
            u64::from(shown == "ann")
        );
        for path in ["/connz?auth=1&state=any", "/varz", "/metrics", "/"] {
            assert!(!get(monitor, path).body.contains(secret), "{path}");
        }
        let mut refused = Client::open(server.server().local_addr());
        refused.send("CONNECT {\"auth_token\":\"no\",\"user\":\"ann\",\"pass\":\"no\"}\r\nPING\r\n");
        while !refused.line().is_empty() {}
        eventually(monitor, "/connz?state=closed", |found| found["total"] == 1);
        assert_eq!(
            metric(&get(monitor, "/metrics").body, "mesh_auth_failures_total"),
            1.0
        );
    }
}

#[test]
fn subsz_lists_and_tests() {
    let stage = Stage::new();
    let (mut first, mut second) = (stage.client("first"), stage.client("second"));
    first.send("SUB a.b 1\r\nSUB a.* q 2\r\nSUB c 3\r\n");
    second.send("SUB > 1\r\n");
    first.flush();
    second.flush();
    let plain = page(stage.monitor(), "/subsz");
    assert_eq!(
        (&plain["num_subscriptions"], &plain["num_inserts"]),
        (&json!(4), &json!(4))
    );
    assert!(plain.get("subscriptions_list").is_none());
    let subjects = |query: &str| {
        let found = page(stage.monitor(), &format!("/subsz?subs=1{query}"));
        let list = found["subscriptions_list"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let subjects: Vec<_> = list
            .iter()
            .map(|row| row["subject"].as_str().unwrap().to_owned())
            .collect();
        (subjects.join(" "), found["total"].as_u64().unwrap())
    };
    let table = [
        ("", "a.b a.* c >", 4),
        ("&limit=2", "a.b a.*", 4),
        ("&offset=2&limit=1", "c", 4),
        ("&offset=3", ">", 4),
        ("&test=a.b", "a.b a.* >", 3),
        ("&test=a.b&offset=2", ">", 3),
        ("&test=x.y.z", ">", 1),
        ("&acc=other", "", 0),
    ];
    for (query, list, total) in table {
        assert_eq!(subjects(query), (list.to_owned(), total), "{query}");
    }
    assert_eq!(get(stage.monitor(), "/subsz?test=a..b").status, 400);
    assert_eq!(page(stage.monitor(), "/subscriptionsz")["num_subscriptions"], 4);
}

#[test]
fn there_are_two_accounts_and_no_link() {
    let stage = Stage::new();
    let _client = stage.client("one");
    assert_eq!(
        page(stage.monitor(), "/accountz")["accounts"],
        json!(["$G", "$SYS"])
    );
    let detail = page(stage.monitor(), "/accountz?acc=$G")["account_detail"].clone();
    assert_eq!(
        (&detail["client_connections"], &detail["jetstream_enabled"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(page(stage.monitor(), "/accstatz")["account_statz"][0]["conns"], 1);
    assert_eq!(page(stage.monitor(), "/leafz")["leafnodes"], 0);
    assert_eq!(page(stage.monitor(), "/routez")["num_routes"], 0);
    assert_eq!(page(stage.monitor(), "/gatewayz")["inbound_gateways"], json!({}));
}

#[tokio::test]
async fn health_without_a_store() {
    let server = Server::start(Config {
        monitor_port: Some(0),
        ..Config::embedded()
    });
    let server = server.await.unwrap();
    let monitor = server.monitor_addr().unwrap();
    tokio::task::spawn_blocking(move || {
        for path in [
            "/healthz",
            "/healthz?js-enabled-only=1",
            "/healthz?js-server-only=true",
            "/livez",
            "/readyz",
        ] {
            let answer = get(monitor, path);
            assert_eq!(
                (answer.status, answer.body.trim()),
                (200, "{\"status\":\"ok\"}"),
                "{path}"
            );
        }
        // A question about streams is not answered with a yes where there are none.
        let answer = get(monitor, "/healthz?account=$G&stream=orders");
        assert_eq!(
            (answer.status, answer.json()["status"].as_str()),
            (503, Some("unavailable"))
        );
        for path in ["/healthz?stream=orders", "/healthz?account=$G&consumer=c"] {
            let answer = get(monitor, path);
            assert_eq!(
                (answer.status, answer.json()["status"].as_str()),
                (400, Some("error")),
                "{path}"
            );
        }
        assert_eq!(page(monitor, "/jsz")["disabled"], true);
        assert_eq!(page(monitor, "/varz")["jetstream"], json!({}));
        assert!(page(monitor, "/storez").get("store").is_none());
        let metrics = get(monitor, "/metrics?format=nats").body;
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("jetstream_server_jetstream_disabled") && line.ends_with(" 1"))
        );
    })
    .await
    .unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_drains_is_alive_and_not_ready() {
    let server = Server::start(Config {
        monitor_port: Some(0),
        ..Config::embedded()
    });
    let server = std::sync::Arc::new(server.await.unwrap());
    let (clients, monitor) = (server.local_addr(), server.monitor_addr().unwrap());
    let on_a_thread = |work: fn(SocketAddr) -> u16, at| tokio::task::spawn_blocking(move || work(at));
    assert_eq!(
        on_a_thread(|at| get(at, "/readyz").status, monitor)
            .await
            .unwrap(),
        200
    );

    let client = tokio::task::spawn_blocking(move || Client::connect(clients, ""))
        .await
        .unwrap();
    let draining = server.clone();
    let duck = tokio::spawn(async move { draining.lame_duck(super::support::PATIENCE).await });
    let mut ready = 200;
    while ready == 200 {
        ready = on_a_thread(|at| get(at, "/readyz").status, monitor)
            .await
            .unwrap();
    }
    assert_eq!(ready, 503);
    assert_eq!(
        on_a_thread(|at| get(at, "/livez").status, monitor).await.unwrap(),
        200
    );
    drop(client);
    duck.await.unwrap();
    let server = std::sync::Arc::into_inner(server).unwrap();
    server.shutdown().await;
    assert!(
        std::net::TcpStream::connect(monitor).is_err(),
        "monitoring ends with the server"
    );
}

/// What the configuration gives and a client does not say is shown as nats-server shows it.
#[test]
fn tags_and_the_user_of_those_who_show_nothing() {
    let text = "server_tags: [a, \"b:c\"]\nno_auth_user: alice\n\
                authorization { users: [{user: alice, password: x}, {user: bob, password: y}] }\n";
    let loaded = config::load_text("tags.conf", text, Config::default(), config::Process::default());
    let loaded = loaded.unwrap();
    let server = TestServer::with(loaded.config);
    let (at, monitor) = (
        server.server().local_addr(),
        server.server().monitor_addr().unwrap(),
    );
    assert_eq!(page(monitor, "/varz")["tags"], json!(["a", "b:c"]));
    let _nobody = Client::connect(at, ",\"name\":\"nobody\"");
    let _bob = Client::connect(at, ",\"name\":\"bob\",\"user\":\"bob\",\"pass\":\"y\"");
    let rows = |query: &str| -> Vec<(String, String)> {
        let found = page(monitor, &format!("/connz?auth=1{query}"));
        let rows = found["connections"].as_array().unwrap();
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        rows.iter()
            .map(|row| (text(row, "name"), text(row, "authorized_user")))
            .collect()
    };
    let named = |name: &str, user: &str| (name.to_owned(), user.to_owned());
    assert_eq!(rows(""), [named("nobody", "alice"), named("bob", "bob")]);
    assert_eq!(rows("&user=alice"), [named("nobody", "alice")]);
}
