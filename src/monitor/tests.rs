//! What a source shows reaches the pages: a made-up JetStream behind a real listener.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::account::{Accounts, Auth};
use crate::connection::Options;
use crate::jetstream::stream::config::StreamConfig;
use crate::jetstream::stream::{StreamInfo, StreamState};
use crate::protocol::info::Info;

use super::*;

/// Shows what it is told to.
#[derive(Default)]
struct Told {
    ailments: Mutex<Vec<Ailment>>,
    asked: Mutex<Vec<String>>,
}

impl Source for Told {
    fn families(&self) -> Vec<Family> {
        let lag = |stream: &str, value| (vec![("stream", stream.to_owned())], Value::Gauge(value));
        vec![
            Family::many(
                "mesh_consumer_pending",
                "Messages a consumer is behind.",
                vec![lag("a", 3.0), lag("b\"", 0.5)],
            ),
            Family::one(
                "mesh_commit_seconds",
                "Time of a commit.",
                Value::Histogram {
                    buckets: vec![(0.001, 1), (0.1, 3)],
                    sum: 0.25,
                    count: 4,
                },
            ),
        ]
    }

    fn ailments(&self, scope: &Scope) -> Vec<Ailment> {
        self.asked.lock().unwrap().push(format!("{scope:?}"));
        self.ailments.lock().unwrap().clone()
    }

    fn jetstream(&self, detail: &Detail) -> Option<JetStream> {
        let stream = StreamDetail {
            info: StreamInfo {
                config: StreamConfig::default(),
                created: 0,
                state: StreamState {
                    messages: 7,
                    ..StreamState::default()
                },
                subjects: Vec::new(),
                deleted: Vec::new(),
                leader: None,
                domain: None,
                time: 0,
            },
            consumers: Vec::new(),
            config: false,
        };
        let account = AccountDetail {
            name: "$G".to_owned(),
            id: "$G".to_owned(),
            stream_detail: if detail.streams { vec![stream] } else { Vec::new() },
            ..AccountDetail::default()
        };
        Some(JetStream {
            streams: 1,
            messages: 7,
            accounts: 1,
            config: JetStreamConfig {
                sync_interval: Duration::from_secs(1),
                ..JetStreamConfig::default()
            },
            account_details: if detail.accounts {
                vec![account]
            } else {
                Vec::new()
            },
            ..JetStream::default()
        })
    }
}

async fn start(source: Arc<Told>) -> Monitor {
    let context = Context::new(
        Options::default(),
        Accounts::new(Auth::Open, &[], None),
        Info::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let view = View::new(Arc::new(context), address, CancellationToken::new()).with_sources(vec![source]);
    Monitor::start(listener, view)
}

/// Status line and body of a page.
async fn get(monitor: &Monitor, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(monitor.local_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.lines().next().unwrap().to_owned(),
        body.trim_end().to_owned(),
    )
}

#[tokio::test]
async fn families_of_a_source_are_exposed() {
    let monitor = start(Arc::default()).await;
    let (_, body) = get(&monitor, "/metrics").await;
    for line in [
        "# TYPE mesh_consumer_pending gauge",
        "mesh_consumer_pending{stream=\"a\"} 3",
        "mesh_consumer_pending{stream=\"b\\\"\"} 0.5",
        "# TYPE mesh_commit_seconds histogram",
        "mesh_commit_seconds_bucket{le=\"0.001\"} 1",
        "mesh_commit_seconds_bucket{le=\"0.1\"} 3",
        "mesh_commit_seconds_bucket{le=\"+Inf\"} 4",
        "mesh_commit_seconds_sum 0.25",
        "mesh_commit_seconds_count 4",
        "mesh_healthy 1",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is not in\n{body}"
        );
    }
    monitor.shutdown().await;
}

#[tokio::test]
async fn an_ailment_shows_with_its_reason_and_fix() {
    let source = Arc::new(Told::default());
    let monitor = start(source.clone()).await;
    *source.ailments.lock().unwrap() = vec![Ailment {
        kind: "JETSTREAM",
        error: "the disk is full: 0 bytes of 10 GiB left".to_owned(),
        fix: Some("make room in /data".to_owned()),
        ..Ailment::default()
    }];
    let (status, body) = get(&monitor, "/healthz").await;
    assert_eq!(status, "HTTP/1.0 503 Service Unavailable");
    assert_eq!(
        body,
        r#"{"status":"unavailable","error":"the disk is full: 0 bytes of 10 GiB left","fix":"make room in /data"}"#
    );
    let (_, body) = get(&monitor, "/healthz?details=1").await;
    assert_eq!(
        body,
        r#"{"status":"error","errors":[{"type":"JETSTREAM","error":"the disk is full: 0 bytes of 10 GiB left","fix":"make room in /data"}]}"#
    );
    assert_eq!(
        get(&monitor, "/readyz").await.0,
        "HTTP/1.0 503 Service Unavailable"
    );
    assert_eq!(get(&monitor, "/livez").await.0, "HTTP/1.0 200 OK");
    assert!(get(&monitor, "/metrics").await.1.contains("\nmesh_healthy 0\n"));
}

/// Damage is for somebody to look at, and no reason to send clients away from all the rest.
#[tokio::test]
async fn damage_is_told_and_clients_are_served() {
    let source = Arc::new(Told::default());
    let monitor = start(source.clone()).await;
    *source.ailments.lock().unwrap() = vec![Ailment {
        kind: "STREAM",
        serves: true,
        account: Some("$G".to_owned()),
        stream: Some("ORDERS".to_owned()),
        error: "stream ORDERS is offline: its row is damaged".to_owned(),
        fix: Some("repair it".to_owned()),
        ..Ailment::default()
    }];
    let (status, body) = get(&monitor, "/healthz").await;
    assert_eq!(status, "HTTP/1.0 503 Service Unavailable");
    assert_eq!(
        body,
        r#"{"status":"unavailable","error":"stream ORDERS is offline: its row is damaged","fix":"repair it"}"#
    );
    let (_, body) = get(&monitor, "/healthz?details=1").await;
    assert_eq!(
        body,
        r#"{"status":"error","errors":[{"type":"STREAM","account":"$G","stream":"ORDERS","error":"stream ORDERS is offline: its row is damaged","fix":"repair it"}]}"#
    );
    for (path, expected) in [("/readyz", "200 OK"), ("/livez", "200 OK")] {
        assert_eq!(get(&monitor, path).await.0, format!("HTTP/1.0 {expected}"));
    }
    let metrics = get(&monitor, "/metrics").await.1;
    assert!(metrics.contains("\nmesh_healthy 0\n") && metrics.contains("\nmesh_ready 1\n"));
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_not_found() {
    let source = Arc::new(Told::default());
    let monitor = start(source.clone()).await;
    *source.ailments.lock().unwrap() = vec![Ailment {
        kind: "STREAM",
        missing: true,
        error: "JetStream stream \"x\" not found".to_owned(),
        ..Ailment::default()
    }];
    let (status, body) = get(
        &monitor,
        "/healthz?account=$G&stream=x&consumer=c&js-server-only=1",
    )
    .await;
    assert_eq!(status, "HTTP/1.0 404 Not Found");
    assert_eq!(
        body,
        r#"{"status":"unavailable","error":"JetStream stream \"x\" not found"}"#
    );
    let asked = source.asked.lock().unwrap().pop().unwrap();
    for part in ["server_only: true", "Some(\"$G\")", "Some(\"x\")", "Some(\"c\")"] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
}

#[tokio::test]
async fn jsz_shows_as_much_as_is_asked_for() {
    let monitor = start(Arc::default()).await;
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let brief = json(get(&monitor, "/jsz").await.1);
    assert_eq!((&brief["messages"], &brief["total"]), (&7.into(), &1.into()));
    assert_eq!(brief["config"]["sync_interval"], 1_000_000_000);
    assert!(brief.get("disabled").is_none() && brief.get("account_details").is_none());
    let accounts = json(get(&monitor, "/jsz?accounts=1").await.1);
    assert!(accounts["account_details"][0].get("stream_detail").is_none());
    let streams = json(get(&monitor, "/jsz?consumers=1").await.1);
    assert_eq!(
        streams["account_details"][0]["stream_detail"][0]["state"]["messages"],
        7
    );
    assert_eq!(
        json(get(&monitor, "/varz").await.1)["jetstream"]["stats"]["accounts"],
        1
    );
}

#[tokio::test]
async fn a_server_that_recovers_is_alive_and_not_ready() {
    let context = Context::new(
        Options::default(),
        Accounts::new(Auth::Open, &[], None),
        Info::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let progress = Arc::new(Progress::default());
    let monitor = Monitor::start(
        listener,
        View::new(Arc::new(context), address, CancellationToken::new()).with_progress(progress.clone()),
    );
    let statuses = async |paths: [&str; 3]| {
        let mut found = Vec::new();
        for path in paths {
            let (status, body) = get(&monitor, path).await;
            found.push((status.split(' ').nth(1).unwrap().to_owned(), body));
        }
        found
    };
    let paths = ["/livez", "/readyz", "/healthz"];
    let recovering = statuses(paths).await;
    assert_eq!(recovering[0].0, "200");
    for (status, body) in &recovering[1..] {
        assert_eq!(status, "503");
        assert!(
            body.contains("so far: reading the store\"") && body.contains("fix"),
            "{body}"
        );
    }
    assert!(get(&monitor, "/metrics").await.1.contains("\nmesh_ready 0\n"));
    progress.begin(2);
    progress.one_done();
    for (_, body) in &statuses(paths).await[1..] {
        assert!(body.contains("so far: 1 of 2 streams are there\""), "{body}");
    }
    monitor.recovered(Vec::new());
    assert!(statuses(paths).await.iter().all(|(status, _)| status == "200"));
    monitor.shutdown().await;
}
