//! Streams, buckets and objects with async-nats, also across a restart.

use std::path::Path;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, UpdateErrorKind};
use async_nats::jetstream::{self, object_store, stream};
use futures_util::{StreamExt, TryStreamExt};
use sovereign_mesh::{Config, TestServer};
use tokio::io::AsyncReadExt;

use super::connect;
use crate::support::PATIENCE;

fn server_in(directory: &Path) -> TestServer {
    TestServer::with(Config {
        store_dir: Some(directory.to_owned()),
        ..Config::embedded()
    })
}

async fn stream_with(context: &jetstream::Context, count: u64) -> stream::Stream {
    let config = stream::Config {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        ..Default::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    for at in 0..count {
        let ack = context
            .publish(format!("s.{}", at % 2), at.to_string().into())
            .await
            .unwrap();
        ack.await.unwrap();
    }
    stream
}

async fn durable(stream: &stream::Stream) -> PullConsumer {
    let config = pull::Config {
        durable_name: Some("WORK".into()),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    stream.get_or_create_consumer("WORK", config).await.unwrap()
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_durable_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_in(directory.path());
    let context = jetstream::new(connect(&server).await);
    let stream = stream_with(&context, 20).await;
    let consumer = durable(&stream).await;
    let taken: Vec<_> = consumer
        .fetch()
        .max_messages(10)
        .messages()
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(taken.len(), 10);
    for message in &taken[..5] {
        message.double_ack().await.unwrap();
    }
    for message in &taken[5..] {
        message.ack_with(jetstream::AckKind::Nak(None)).await.unwrap();
    }
    context
        .publish("s.last", "20".into())
        .await
        .unwrap()
        .await
        .unwrap();
    drop(server);

    let server = server_in(directory.path());
    let context = jetstream::new(connect(&server).await);
    let stream = context.get_stream("S").await.unwrap();
    let mut consumer = durable(&stream).await;
    let mut messages = consumer.messages().await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 16 {
        let message = tokio::time::timeout(PATIENCE, messages.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        message.double_ack().await.unwrap();
        rest.push(number(&message.payload));
    }
    rest.sort_unstable();
    assert_eq!(rest, (5..=20).collect::<Vec<_>>());
    let info = consumer.info().await.unwrap();
    assert_eq!(
        (
            info.num_pending,
            info.num_ack_pending,
            info.ack_floor.stream_sequence
        ),
        (0, 0, 21)
    );
}

#[tokio::test]
async fn in_order_and_the_last_of_each() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_in(directory.path());
    let context = jetstream::new(connect(&server).await);
    let stream = stream_with(&context, 200).await;
    let config = pull::OrderedConfig {
        filter_subject: "s.1".into(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap().take(100);
    let mut got = Vec::new();
    while let Some(message) = tokio::time::timeout(PATIENCE, messages.next()).await.unwrap() {
        got.push(number(&message.unwrap().payload));
    }
    assert_eq!(got, (0..100).map(|at| 2 * at + 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn buckets() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_in(directory.path());
    let context = jetstream::new(connect(&server).await);
    let config = kv::Config {
        bucket: "B".into(),
        history: 5,
        ..Default::default()
    };
    let bucket = context.create_key_value(config).await.unwrap();
    assert_eq!(bucket.create("a", "1".into()).await.unwrap(), 1);
    let refused = bucket.create("a", "2".into()).await.unwrap_err();
    assert_eq!(refused.kind(), CreateErrorKind::AlreadyExists);
    assert_eq!(bucket.update("a", "2".into(), 1).await.unwrap(), 2);
    let refused = bucket.update("a", "3".into(), 1).await.unwrap_err();
    assert_eq!(refused.kind(), UpdateErrorKind::WrongLastRevision);
    bucket.put("b", "x".into()).await.unwrap();

    let mut watch = bucket.watch_with_history(">").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if seen.len() == 2 {
            bucket.delete("b").await.unwrap();
        }
        let entry = tokio::time::timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.push((entry.key, entry.operation, entry.revision, entry.seen_current));
    }
    assert_eq!(
        seen,
        [
            ("a".to_owned(), Operation::Put, 2, false),
            ("b".to_owned(), Operation::Put, 3, true),
            ("b".to_owned(), Operation::Delete, 4, true)
        ]
    );
    let history: Vec<_> = bucket.history("b").await.unwrap().try_collect().await.unwrap();
    assert_eq!(
        history.iter().map(|entry| entry.revision).collect::<Vec<_>>(),
        [3, 4]
    );
    assert!(bucket.get("b").await.unwrap().is_none());
    assert_eq!(bucket.create("b", "again".into()).await.unwrap(), 5);
    bucket.purge("a").await.unwrap();
    let history: Vec<_> = bucket.history("a").await.unwrap().try_collect().await.unwrap();
    assert_eq!(
        history.iter().map(|entry| entry.operation).collect::<Vec<_>>(),
        [Operation::Purge]
    );
    let keys: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, ["b"]);
}

#[tokio::test]
async fn objects() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_in(directory.path());
    let context = jetstream::new(connect(&server).await);
    let config = object_store::Config {
        bucket: "O".into(),
        ..Default::default()
    };
    let store = context.create_object_store(config).await.unwrap();
    let mebibytes: usize = std::env::var("MESH_TEST_OBJECT_MIB").map_or(3, |text| text.parse().unwrap());
    let data: Vec<u8> = (0..mebibytes << 20).map(|at| (at * 31 % 251) as u8).collect();
    let info = store.put("big", &mut data.as_slice()).await.unwrap();
    assert_eq!(
        (info.size, info.chunks),
        (data.len(), data.len().div_ceil(128 << 10))
    );
    let mut back = Vec::new();
    store
        .get("big")
        .await
        .unwrap()
        .read_to_end(&mut back)
        .await
        .unwrap();
    assert!(back == data, "{} bytes came back", back.len());
    store.put("small", &mut "tiny".as_bytes()).await.unwrap();
    let mut names: Vec<String> = store
        .list()
        .await
        .unwrap()
        .map_ok(|info| info.name)
        .try_collect()
        .await
        .unwrap();
    names.sort();
    assert_eq!(names, ["big", "small"]);
    store.delete("big").await.unwrap();
    assert!(store.get("big").await.is_err());
    let held = context
        .get_stream("OBJ_O")
        .await
        .unwrap()
        .info()
        .await
        .unwrap()
        .state
        .messages;
    assert_eq!(held, 3, "the mark of a deleted one, and the small one");
}
