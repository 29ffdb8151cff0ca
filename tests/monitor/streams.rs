//! What is shown of streams and of the store: the same on every page, in the shape tools expect, and quickly.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_mesh::jetstream::stream::config::{Storage, StreamConfig};
use sovereign_mesh::{Config, TestServer};

use super::support::{Client, PATIENCE, eventually, get, metric, page, skipped};

/// A client that listens for answers on `made` and `acks`.
fn connect(server: &TestServer) -> Client {
    let mut client = Client::connect(server.server().local_addr(), ",\"headers\":true");
    client.send("SUB made 9\r\nSUB acks 8\r\nSUB pulled 7\r\n");
    client
}

/// Creates a stream over the wire.
fn create(client: &mut Client, config: &Value) {
    let body = config.to_string();
    let name = config["name"].as_str().unwrap();
    client.send(&format!(
        "PUB $JS.API.STREAM.CREATE.{name} made {}\r\n{body}\r\n",
        body.len()
    ));
    let answer = client.message();
    assert!(!answer.contains("\"error\""), "{answer}");
}

/// A server with two streams, of which one has messages and has refused and recognised some.
fn stage() -> (TestServer, Client) {
    let server = TestServer::start();
    let mut client = connect(&server);
    create(
        &mut client,
        &json!({"name": "ORDERS", "subjects": ["orders.>"], "storage": "file", "max_bytes": 1 << 20, "max_msgs": 1000}),
    );
    create(
        &mut client,
        &json!({"name": "LIVE", "subjects": ["live"], "storage": "memory", "max_msg_size": 4}),
    );
    for n in 0..5 {
        client.send(&format!("PUB orders.{n} acks 5\r\nhello\r\n"));
    }
    for _ in 0..3 {
        client.send("HPUB orders.same acks 30 32\r\nNATS/1.0\r\nNats-Msg-Id: one\r\n\r\nhi\r\n");
    }
    client.send("PUB live acks 4\r\nfits\r\nPUB live acks 5\r\nlarge\r\n");
    for _ in 0..10 {
        client.message();
    }
    let consumer =
        json!({"stream_name": "ORDERS", "config": {"durable_name": "reader", "ack_policy": "explicit"}});
    let body = consumer.to_string();
    client.send(&format!(
        "PUB $JS.API.CONSUMER.DURABLE.CREATE.ORDERS.reader made {}\r\n{body}\r\n",
        body.len()
    ));
    assert!(!client.message().contains("\"error\""));
    // Two of six are delivered, the first of them settled.
    client.send("PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.reader pulled 11\r\n{\"batch\":2}\r\n");
    let first = client.reply();
    client.reply();
    client.send(&format!("PUB {first} acks 4\r\n+ACK\r\n"));
    client.message();
    (server, client)
}

fn monitor(server: &TestServer) -> SocketAddr {
    server.server().monitor_addr().unwrap()
}

/// Fetches between two looks at the counters that agree: what a client has been sent is counted a moment later.
fn at_rest<T>(at: SocketAddr, fetch: impl Fn() -> T) -> T {
    let counters = || {
        let varz = page(at, "/varz");
        [
            "connections",
            "subscriptions",
            "in_msgs",
            "in_bytes",
            "out_msgs",
            "out_bytes",
        ]
        .map(|name| varz[name].clone())
    };
    let began = Instant::now();
    loop {
        let before = counters();
        let fetched = fetch();
        if before == counters() {
            return fetched;
        }
        assert!(began.elapsed() < PATIENCE, "it never rests: {before:?}");
    }
}

#[test]
fn every_page_says_the_same() {
    let (server, _client) = stage();
    let at = monitor(&server);
    let (metrics, jsz, varz) = at_rest(at, || {
        (
            get(at, "/metrics").body,
            page(at, "/jsz?streams=1&config=1"),
            page(at, "/varz"),
        )
    });
    let stats = &varz["jetstream"]["stats"];
    assert_eq!(jsz["config"], varz["jetstream"]["config"]);
    for (field, name) in [
        ("memory", "mesh_jetstream_memory_bytes"),
        ("storage", "mesh_jetstream_storage_bytes"),
    ] {
        let shown = metric(&metrics, name);
        assert_eq!(
            (jsz[field].as_f64(), stats[field].as_f64()),
            (Some(shown), Some(shown)),
            "{field}"
        );
    }
    for (field, name) in [
        ("streams", "mesh_jetstream_streams"),
        ("consumers", "mesh_jetstream_consumers"),
        ("messages", "mesh_jetstream_messages"),
    ] {
        assert_eq!(jsz[field].as_f64(), Some(metric(&metrics, name)), "{field}");
    }
    assert_eq!(jsz["api"], stats["api"]);
    assert_eq!(
        jsz["api"]["total"].as_f64(),
        Some(metric(&metrics, "mesh_jetstream_api_requests_total"))
    );
    for (field, name) in [
        ("connections", "mesh_connections"),
        ("in_msgs", "mesh_in_msgs_total"),
        ("out_bytes", "mesh_out_bytes_total"),
        ("subscriptions", "mesh_subscriptions"),
    ] {
        assert_eq!(varz[field].as_f64(), Some(metric(&metrics, name)), "{field}");
    }
    let streams = jsz["account_details"][0]["stream_detail"].as_array().unwrap();
    assert_eq!(streams.len(), 2);
    for stream in streams {
        let name = stream["name"].as_str().unwrap();
        for (field, metric_name) in [
            ("messages", "messages"),
            ("bytes", "bytes"),
            ("first_seq", "first_sequence"),
            ("last_seq", "last_sequence"),
            ("consumer_count", "consumers"),
        ] {
            let series = format!("mesh_stream_{metric_name}{{stream=\"{name}\"}}");
            assert_eq!(
                stream["state"][field].as_f64(),
                Some(metric(&metrics, &series)),
                "{series}"
            );
        }
    }
    let of = |name: &str, stream: &str| metric(&metrics, &format!("{name}{{stream=\"{stream}\"}}"));
    assert_eq!(of("mesh_stream_published_total", "ORDERS"), 6.0);
    assert_eq!(of("mesh_stream_duplicates_total", "ORDERS"), 2.0);
    assert_eq!(of("mesh_stream_bytes_max", "ORDERS"), f64::from(1 << 20));
    assert_eq!(of("mesh_stream_durable", "LIVE"), 0.0);
    let refused = "mesh_stream_refused_total{stream=\"LIVE\",reason=\"too_large\"}";
    assert_eq!(metric(&metrics, refused), 1.0);
    let consumer =
        &page(at, "/jsz?consumers=1")["account_details"][0]["stream_detail"][1]["consumer_detail"][0];
    for (path, name, value) in [
        ("/num_pending", "pending", 4.0),
        ("/num_ack_pending", "ack_pending", 1.0),
        ("/num_redelivered", "redelivered", 0.0),
        ("/num_waiting", "waiting", 0.0),
        ("/delivered/consumer_seq", "deliveries_total", 2.0),
        ("/ack_floor/stream_seq", "ack_floor_sequence", 1.0),
    ] {
        let series = format!("mesh_consumer_{name}{{stream=\"ORDERS\",consumer=\"reader\"}}");
        let shown = metric(&metrics, &series);
        assert_eq!(
            (consumer.pointer(path).unwrap().as_f64(), shown),
            (Some(value), value),
            "{series}"
        );
    }
    assert!(consumer.get("config").is_none());
    let store = &page(at, "/storez")["store"];
    for (field, name) in [
        ("logical_bytes", "mesh_store_logical_bytes"),
        ("commits", "mesh_store_commit_seconds_count"),
        ("records", "mesh_store_batch_records_sum"),
        ("cache_misses", "mesh_store_cache_misses_total"),
    ] {
        assert_eq!(store[field].as_f64(), Some(metric(&metrics, name)), "{field}");
    }
    assert_eq!(store["logical_bytes"], jsz["storage"]);
    assert!(metric(&metrics, "mesh_store_sync_seconds_count") >= 2.0);
    assert_eq!(metric(&metrics, "mesh_store_state{state=\"ok\"}"), 1.0);
}

#[test]
fn jsz_shows_what_is_asked_for() {
    let (server, _client) = stage();
    let at = monitor(&server);
    let accounts = |query: &str| page(at, &format!("/jsz?{query}"))["account_details"].clone();
    for query in [
        "",
        "config=1",
        "accounts=1&offset=1",
        "acc=other",
        "acc=other&streams=1",
    ] {
        assert_eq!(accounts(query), Value::Null, "{query}");
    }
    for query in ["accounts=1", "acc=$G", "acc=$G&offset=3"] {
        assert_eq!(accounts(query)[0]["name"], "$G", "{query}");
        assert_eq!(accounts(query)[0]["stream_detail"], Value::Null, "{query}");
    }
    for (query, config) in [
        ("streams=1", false),
        ("consumers=1&config=1", true),
        ("acc=$G&streams=1&config=1", true),
    ] {
        let found = accounts(query)[0]["stream_detail"].clone();
        assert_eq!(
            (&found[0]["name"], &found[1]["name"]),
            (&json!("LIVE"), &json!("ORDERS")),
            "{query}"
        );
        assert_eq!(found[1]["config"].is_object(), config, "{query}");
        assert_eq!(found[1]["state"]["last_seq"], 6, "{query}");
    }
    let config = page(at, "/jsz")["config"].clone();
    assert_eq!(
        (&config["sync_always"], config.get("sync_interval")),
        (&json!(true), None)
    );
}

#[test]
fn health_knows_streams_and_says_how_messages_are_kept() {
    let (server, _client) = stage();
    let at = monitor(&server);
    assert_eq!(
        get(at, "/healthz").body.trim(),
        "{\"status\":\"ok\",\"sync\":\"always\"}"
    );
    for (query, status) in [
        ("account=$G", 200),
        ("account=$G&stream=ORDERS", 200),
        ("account=$G&stream=NONE", 404),
        ("account=other", 404),
        ("account=other&stream=ORDERS", 404),
        ("account=$G&stream=ORDERS&consumer=none", 404),
        ("account=$G&stream=ORDERS&consumer=reader", 200),
        ("js-server-only=1&account=$G&stream=NONE", 200),
        ("js-enabled-only=1&account=$G&stream=NONE", 200),
        ("stream=ORDERS", 400),
    ] {
        assert_eq!(get(at, &format!("/healthz?{query}")).status, status, "{query}");
    }
    let answer = get(at, "/healthz?account=$G&stream=NONE&details=1");
    let error = &answer.json()["errors"][0];
    assert_eq!(
        (&error["type"], &error["stream"]),
        (&json!("STREAM"), &json!("NONE"))
    );
    assert_eq!(
        error["error"],
        "JetStream stream \"NONE\" not found on account \"$G\""
    );
    // By interval, and said so everywhere.
    let lazy = TestServer::with(Config {
        sync: sovereign_mesh::store::Sync::Interval(Duration::from_millis(250)),
        ..Config::default()
    });
    let at = monitor(&lazy);
    assert_eq!(get(at, "/healthz").json()["sync"], "250ms");
    assert_eq!(page(at, "/jsz")["config"]["sync_interval"], 250_000_000);
    assert_eq!(
        metric(&get(at, "/metrics").body, "mesh_store_sync_interval_seconds"),
        0.25
    );
    let mut client = connect(&lazy);
    create(
        &mut client,
        &json!({"name": "S", "subjects": ["s"], "storage": "file"}),
    );
    client.send("PUB $JS.API.STREAM.INFO.S made 0\r\n\r\n");
    let info: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(info["sync"], "250ms");
}

#[test]
fn the_metrics_are_clean_to_promtool() {
    let (server, _client) = stage();
    let body = get(monitor(&server), "/metrics").body;
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) => return skipped("promtool check metrics", &error.to_string()),
    };
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(),
        "{}{}",
        text(&said.stdout),
        text(&said.stderr)
    );
}

/// Families that not every server has to show.
const SOMETIMES: [&str; 3] = [
    // Only known to Linux.
    "mesh_process_resident_memory_bytes",
    "mesh_process_cpu_seconds_total",
    "mesh_process_open_fds",
];

#[test]
fn the_page_for_people_names_all_metrics_and_no_others() {
    let (server, _client) = stage();
    let at = monitor(&server);
    get(at, "/varz");
    let body = get(at, "/metrics").body;
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: Vec<_> = types.map(|line| line.split(' ').next().unwrap()).collect();
    // The health of the mesh is what `mesh serve` adds: looked at where that is run.
    let text = include_str!("../../docs/monitoring.md");
    let (text, _) = text.split_once("`mesh serve` adds").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `mesh_"));
    let named: Vec<_> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`'))
        .filter(|word| word.starts_with("mesh_"))
        .collect();
    for name in &shown {
        assert!(named.contains(name), "docs/monitoring.md does not name {name}");
    }
    for name in named {
        assert!(
            shown.contains(&name) || SOMETIMES.contains(&name),
            "docs/monitoring.md names {name}, which is not there"
        );
    }
}

#[test]
fn dashboards_for_the_exporter_find_their_names() {
    let (server, _client) = stage();
    let at = monitor(&server);
    let (body, varz) = at_rest(at, || (get(at, "/metrics?format=nats").body, page(at, "/varz")));
    let id = varz["server_id"].as_str().unwrap();
    let own = |name: &str| metric(&body, &format!("{name}{{server_id=\"{id}\"}}"));
    for name in [
        "connections",
        "in_msgs",
        "out_msgs",
        "in_bytes",
        "out_bytes",
        "slow_consumers",
        "subscriptions",
        "max_payload",
    ] {
        assert_eq!(
            varz[name].as_f64(),
            Some(own(&format!("gnatsd_varz_{name}"))),
            "{name}"
        );
    }
    for name in [
        "mem",
        "cpu",
        "jetstream_config_max_storage",
        "jetstream_stats_memory",
        "start",
    ] {
        own(&format!("gnatsd_varz_{name}"));
    }
    assert!(own("gnatsd_varz_jetstream_stats_storage") > 0.0);
    assert_eq!(own("gnatsd_connz_num_connections"), 1.0);
    assert_eq!(own("gnatsd_healthz_status"), 0.0);
    assert_eq!(
        own("gnatsd_subsz_num_subscriptions"),
        varz["subscriptions"].as_f64().unwrap()
    );
    let line = |start: &str, with: &str| {
        let found = body
            .lines()
            .find(|line| line.starts_with(start) && line.contains(with));
        found
            .unwrap_or_else(|| panic!("no {start} with {with} in\n{body}"))
            .to_owned()
    };
    for (name, with, value) in [
        ("jetstream_server_total_streams", "is_meta_leader=\"true\"", " 2"),
        ("jetstream_server_jetstream_disabled", "server_name", " 0"),
        ("jetstream_account_storage_used", "account_name=\"$G\"", ""),
        ("jetstream_stream_total_messages", "stream_name=\"ORDERS\"", " 6"),
        ("jetstream_stream_last_seq", "stream_name=\"ORDERS\"", " 6"),
        ("jetstream_stream_limit_bytes", "stream_name=\"LIVE\"", " -1"),
        ("jetstream_consumer_num_pending", "consumer_name=\"reader\"", " 4"),
        (
            "jetstream_consumer_delivered_consumer_seq",
            "stream_name=\"ORDERS\"",
            " 2",
        ),
        (
            "jetstream_consumer_last_ack_seconds",
            "consumer_name=\"reader\"",
            "",
        ),
        ("gnatsd_varz_version", "value=\"", " 1"),
    ] {
        assert!(line(name, with).ends_with(value), "{name}");
    }
    assert_eq!(get(at, "/metrics?format=xml").status, 400);
    assert_eq!(get(at, "/metrics?format=prometheus").status, 200);
}

/// Streams beyond those that have metrics of their own are counted.
#[test]
fn pages_stay_bounded_with_many_streams_and_connections() {
    const STREAMS: usize = 1_010;
    let connections = std::env::var("MESH_TEST_CONNECTIONS").map_or(400, |count| count.parse().unwrap());
    let server = TestServer::start();
    let jetstream = server.server().jetstream().unwrap().clone();
    // Connections run here: the server's own runtime is its own.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for n in 0..STREAMS {
            let config = StreamConfig {
                name: format!("S{n:05}"),
                subjects: vec![format!("s.{n}")],
                storage: Storage::Memory,
                ..StreamConfig::default()
            };
            jetstream.create(config, false).await.unwrap();
        }
    });
    let at = monitor(&server);
    // In process: a socket would take two descriptors of this one process.
    let _inside = runtime.enter();
    let _clients: Vec<_> = (0..connections)
        .map(|_| server.server().connect_in_process())
        .collect();
    eventually(at, "/varz", |varz| varz["connections"] == connections);
    let body = get(at, "/metrics").body;
    assert_eq!(metric(&body, "mesh_jetstream_streams"), STREAMS as f64);
    assert_eq!(metric(&body, "mesh_streams_hidden"), (STREAMS - 1000) as f64);
    assert_eq!(body.matches("\nmesh_stream_messages{").count(), 1000);
    // What is stated holds for a release build on a machine that has nothing else to do: it is asked for by the variable.
    let most = std::env::var_os("MESH_TEST_CONNECTIONS")
        .map(|_| Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 }));
    for path in [
        "/metrics",
        "/metrics?format=nats",
        "/varz",
        "/healthz",
        "/jsz?streams=1&config=1",
        "/connz?limit=16384&subs=1",
        "/subsz?subs=1",
        "/storez",
    ] {
        let best = (0..3)
            .map(|_| {
                let began = Instant::now();
                assert_eq!(get(at, path).status, 200);
                began.elapsed()
            })
            .min()
            .unwrap();
        if let Some(most) = most {
            eprintln!("{connections} connections, {STREAMS} streams: {path} {best:.1?}");
            assert!(best < most, "{path} took {best:?} at best");
        }
    }
}
