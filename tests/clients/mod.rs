//! The same walk with the client libraries that people use: async-nats here, nats-py in `walk.py`.

mod streams;

use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, RequestErrorKind};
use futures_util::StreamExt;
use sovereign_mesh::account::Auth;
use sovereign_mesh::{Config, Server, TestServer};

use crate::support::{PATIENCE, Process, skip};

fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    let mut config = Config {
        monitor_port: None,
        ..Config::default()
    };
    change(&mut config);
    TestServer::with(config)
}

async fn connect(server: &TestServer) -> Client {
    async_nats::connect(server.url()).await.unwrap()
}

/// Waits until the server has so many subscriptions: the library's flush is not answered by the server.
async fn subscribed(server: &Server, count: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.router().stats().subscriptions < count {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the client does not subscribe"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What comes next, or the test fails.
async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn publish_and_subscribe() {
    let server = server(|_| {});
    let (publisher, subscriber) = (connect(&server).await, connect(&server).await);
    let mut all = subscriber.subscribe("walk.>").await.unwrap();
    let mut one = subscriber.subscribe("walk.*.b").await.unwrap();
    subscribed(server.server(), 2).await;
    let mut headers = HeaderMap::new();
    headers.insert("Key", "value");
    headers.append("Key", "second");
    publisher.publish("walk.a", "plain".into()).await.unwrap();
    publisher
        .publish_with_headers("walk.a.b", headers.clone(), "with".into())
        .await
        .unwrap();
    publisher
        .publish_with_reply("walk.c", "answer.here", "".into())
        .await
        .unwrap();
    publisher
        .publish("walk.big", vec![7u8; 1 << 20].into())
        .await
        .unwrap();
    publisher.flush().await.unwrap();
    assert_eq!(next(&mut all).await.payload, "plain");
    let message = next(&mut all).await;
    assert_eq!(
        (message.subject.as_str(), message.headers),
        ("walk.a.b", Some(headers.clone()))
    );
    assert_eq!(next(&mut all).await.reply.unwrap().as_str(), "answer.here");
    assert_eq!(next(&mut all).await.payload, vec![7u8; 1 << 20]);
    assert_eq!(next(&mut one).await.headers, Some(headers));
    assert!(
        publisher
            .publish("walk.big", vec![7u8; (1 << 20) + 1].into())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn requests_and_nobody_there() {
    let server = server(|_| {});
    let (asking, answering) = (connect(&server).await, connect(&server).await);
    let error = asking.request("svc", "".into()).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    let mut requests = answering.subscribe("svc").await.unwrap();
    // The requester's own inbox is there since its first try.
    subscribed(server.server(), 2).await;
    let worker = answering.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let answer = [&request.payload[..], b"!"].concat();
            worker
                .publish(request.reply.unwrap(), answer.into())
                .await
                .unwrap();
        }
    });
    let mut all = futures_util::stream::FuturesUnordered::new();
    for number in 0..200 {
        let asking = asking.clone();
        all.push(async move {
            let answer = asking.request("svc", format!("{number}").into()).await.unwrap();
            assert_eq!(answer.payload, format!("{number}!"));
        });
    }
    let mut answered = 0;
    while tokio::time::timeout(PATIENCE, all.next())
        .await
        .unwrap()
        .is_some()
    {
        answered += 1;
    }
    assert_eq!(answered, 200);
}

#[tokio::test]
async fn queue_groups_and_limits() {
    let server = server(|_| {});
    let client = connect(&server).await;
    let mut first = client.queue_subscribe("work", "q".into()).await.unwrap();
    let mut second = client.queue_subscribe("work", "q".into()).await.unwrap();
    let mut limited = client.subscribe("work").await.unwrap();
    limited.unsubscribe_after(5).await.unwrap();
    for _ in 0..100 {
        client.publish("work", "".into()).await.unwrap();
    }
    first.drain().await.unwrap();
    second.drain().await.unwrap();
    let (one, two, five) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(first.count(), second.count(), limited.count())
    })
    .await
    .unwrap();
    assert_eq!((one + two, five), (100, 5));
    assert!(one > 10 && two > 10, "{one} and {two}");
}

#[tokio::test]
async fn drain_delivers_what_is_under_way() {
    let server = server(|_| {});
    let (publisher, subscriber) = (connect(&server).await, connect(&server).await);
    let received = subscriber.subscribe("d").await.unwrap();
    subscribed(server.server(), 1).await;
    for _ in 0..1000 {
        publisher.publish("d", "x".into()).await.unwrap();
    }
    publisher.drain().await.unwrap();
    // The messages of a drained publisher are all there before its connection is gone.
    while server.server().totals().connections > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    subscriber.drain().await.unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, received.count()).await.unwrap(),
        1000
    );
}

#[tokio::test]
async fn credentials() {
    let server = server(|config| {
        config.auth = Auth::User {
            user: "u".into(),
            pass: "p".into(),
        };
    });
    assert!(async_nats::connect(server.url()).await.is_err());
    let wrong = ConnectOptions::with_user_and_password("u".into(), "x".into());
    assert!(wrong.connect(server.url()).await.is_err());
    let right = ConnectOptions::with_user_and_password("u".into(), "p".into());
    right.connect(server.url()).await.unwrap().flush().await.unwrap();
}

/// A client finds its server again after a restart on the same port, with its subscriptions.
#[tokio::test]
async fn reconnects_after_a_restart() {
    let config = || Config {
        monitor_port: None,
        port: 0,
        ..Config::default()
    };
    let server = Server::start(config()).await.unwrap();
    let address = server.local_addr();
    let options = ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(20));
    let client = options.connect(server.client_url()).await.unwrap();
    let mut subscription = client.subscribe("again").await.unwrap();
    client.publish("again", "1".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await.payload, "1");
    server.shutdown().await;
    let mut config = config();
    config.port = address.port();
    let server = Server::start(config).await.expect("the port is free at once");
    subscribed(&server, 1).await;
    client.publish("again", "2".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await.payload, "2");
    server.shutdown().await;
}

#[tokio::test]
async fn many_clients_beside_garbage() {
    let server = server(|_| {});
    let watcher = connect(&server).await;
    let mut seen = watcher.subscribe("many").await.unwrap();
    subscribed(server.server(), 1).await;
    let address = server.server().local_addr();
    let garbage = std::thread::spawn(move || {
        for seed in 0..100u32 {
            let mut wire = crate::support::Wire::connect(address);
            let noise: Vec<u8> = (0..2000u32)
                .map(|at| (at.wrapping_mul(seed * 2 + 1) >> 3) as u8)
                .collect();
            wire.send(noise);
        }
    });
    for _ in 0..10 {
        let batch: Vec<_> = futures_util::future::join_all((0..20).map(|_| connect(&server))).await;
        for client in &batch {
            client.publish("many", "x".into()).await.unwrap();
            client.flush().await.unwrap();
        }
    }
    for _ in 0..200 {
        next(&mut seen).await;
    }
    garbage.join().unwrap();
}

#[test]
fn nats_py() {
    let Some(python) = std::env::var_os("MESH_TEST_PYTHON") else {
        return skip("nats-py", "set MESH_TEST_PYTHON to a python that has nats-py");
    };
    let process = Process::mesh(&[]);
    let guarded = Process::mesh(&["--token", "secret"]);
    let walk = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/walk.py"))
        .args([process.address(), guarded.address()])
        .stdin(Stdio::null())
        .output()
        .expect("the python of MESH_TEST_PYTHON starts");
    let said = String::from_utf8_lossy(&walk.stderr);
    assert!(walk.status.success() && walk.stdout == b"walked\n", "{said}");
}
