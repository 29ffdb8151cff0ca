//! Streams of several accounts in one store: names, limits, restarts, and the API across accounts.

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use sovereign_mesh::account::{Auth, Login, Spec, StreamLimits, User, Users};
use sovereign_mesh::{Config, Server};

use super::{connect, on_both};

const ACCOUNTS: &str = r#"
jetstream { max_mem: 64MB, max_file: 1GB }
accounts {
  A {
    users [ { user: a, password: a } ]
    jetstream { max_file: 100KB, max_mem: 10KB, max_streams: 3, max_consumers: 2 }
    exports [ { service: "$JS.API.>", response_type: stream }, { service: "$JS.ACK.>" } ]
  }
  B {
    users [ { user: b, password: b } ]
    jetstream: enabled
    imports [
      { service: { account: A, subject: "$JS.API.>" }, to: "JS.A.API.>" }
      { service: { account: A, subject: "$JS.ACK.>" } }
    ]
  }
  C { users [ { user: c, password: c } ] }
}
"#;

fn config(name: &str) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        ..stream::Config::default()
    }
}

#[tokio::test]
async fn one_name_is_another_stream_in_each_account() {
    on_both(ACCOUNTS, |address| async move {
        let (a, b, c) = (
            connect(&address, "a").await,
            connect(&address, "b").await,
            connect(&address, "c").await,
        );
        let (in_a, in_b) = (jetstream::new(a.clone()), jetstream::new(b.clone()));
        let mut of_a = in_a.create_stream(config("S")).await.unwrap();
        let mut of_b = in_b.create_stream(config("S")).await.unwrap();
        in_a.publish("S.x", "a".into()).await.unwrap().await.unwrap();
        in_a.publish("S.x", "a".into()).await.unwrap().await.unwrap();
        in_b.publish("S.x", "b".into()).await.unwrap().await.unwrap();
        let counts = (
            of_a.info().await.unwrap().state.messages,
            of_b.info().await.unwrap().state.messages,
        );
        assert_eq!(counts, (2, 1));
        let error = jetstream::new(c).create_stream(config("S")).await.unwrap_err();
        assert!(error.to_string().contains("not enabled for account"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_account_holds_no_more_than_it_may() {
    on_both(ACCOUNTS, |address| async move {
        let a = jetstream::new(connect(&address, "a").await);
        let stream = a.create_stream(config("S")).await.unwrap();
        let payload = bytes::Bytes::from(vec![0; 10_000]);
        let mut stored = 0;
        let refused = loop {
            match a.publish("S.x", payload.clone()).await.unwrap().await {
                Ok(_) => stored += 1,
                Err(error) => break error.to_string(),
            }
            assert!(stored < 12, "no limit holds");
        };
        assert!(
            refused.contains("resource limits exceeded for account"),
            "{refused}"
        );
        assert!((8..=10).contains(&stored), "{stored}");
        // Room comes back with what goes.
        stream.purge().await.unwrap();
        a.publish("S.x", payload.clone()).await.unwrap().await.unwrap();
        let big = stream::Config {
            max_bytes: 200_000,
            ..config("BIG")
        };
        let refused = a.create_stream(big).await.unwrap_err().to_string();
        assert!(
            refused.contains("insufficient storage resources available"),
            "{refused}"
        );
        for name in ["T", "U"] {
            a.create_stream(config(name)).await.unwrap();
        }
        let refused = a.create_stream(config("V")).await.unwrap_err().to_string();
        assert!(refused.contains("maximum number of streams reached"), "{refused}");
        let durable = |name: &str| consumer::pull::Config {
            durable_name: Some(name.to_owned()),
            ..consumer::pull::Config::default()
        };
        for name in ["one", "two"] {
            stream.create_consumer(durable(name)).await.unwrap();
        }
        let refused = stream
            .create_consumer(durable("three"))
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("maximum consumers limit reached"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn streams_are_used_from_another_account() {
    on_both(ACCOUNTS, |address| async move {
        let (a, b) = (connect(&address, "a").await, connect(&address, "b").await);
        let in_a = jetstream::new(a);
        in_a.create_stream(config("S")).await.unwrap();
        for n in 0..5 {
            in_a.publish("S.x", n.to_string().into())
                .await
                .unwrap()
                .await
                .unwrap();
        }
        let through = jetstream::with_prefix(b, "JS.A.API");
        let mut stream = through.get_stream("S").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 5);
        let pulling = consumer::pull::Config {
            durable_name: Some("b".to_owned()),
            ..consumer::pull::Config::default()
        };
        let mut consumer = stream.create_consumer(pulling).await.unwrap();
        let batch = consumer.fetch().max_messages(5).expires(Duration::from_secs(5));
        let mut messages = batch.messages().await.unwrap();
        let mut got = Vec::new();
        while let Some(Ok(message)) = messages.next().await {
            // Shown by the subject it was published on, though it came by way of a reply.
            assert_eq!(message.subject.as_str(), "S.x");
            message.double_ack().await.unwrap();
            got.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        assert_eq!(got, ["0", "1", "2", "3", "4"]);
        assert_eq!(consumer.info().await.unwrap().num_ack_pending, 0);
    })
    .await;
}

/// A publisher that knows a stream still which is gone does not hold its room.
#[tokio::test]
async fn room_comes_back_with_a_stream_that_goes() {
    on_both(ACCOUNTS, |address| async move {
        let a = jetstream::new(connect(&address, "a").await);
        let payload = bytes::Bytes::from(vec![0; 10_000]);
        for round in 0..3 {
            let name = format!("S{round}");
            a.create_stream(config(&name)).await.unwrap();
            for _ in 0..8 {
                let subject = format!("{name}.x");
                a.publish(subject, payload.clone()).await.unwrap().await.unwrap();
            }
            a.delete_stream(&name).await.unwrap();
        }
    })
    .await;
}

/// An account without streams may have another one's API under the usual name.
#[tokio::test]
async fn the_api_of_another_account_under_its_own_name() {
    let accounts = r#"
jetstream: enabled
accounts {
  A { users [ { user: a, password: a } ], jetstream: enabled, exports [ { service: "$JS.API.>", response_type: stream } ] }
  B { users [ { user: b, password: b } ], imports [ { service: { account: A, subject: "$JS.API.>" } } ] }
}
"#;
    on_both(accounts, |address| async move {
        let in_a = jetstream::new(connect(&address, "a").await);
        in_a.create_stream(config("S")).await.unwrap();
        let in_b = jetstream::new(connect(&address, "b").await);
        let mut stream = in_b.get_stream("S").await.unwrap();
        assert_eq!(stream.info().await.unwrap().config.name, "S");
    })
    .await;
}

fn specs() -> (Vec<Spec>, Auth) {
    let mut users = Users::default();
    let specs = ["A", "B"].map(|name| {
        users.add(User {
            name: name.to_lowercase(),
            login: Login::Password(name.to_lowercase()),
            permissions: None,
            account: name.into(),
            rule: String::new(),
        });
        Spec {
            streams: Some(StreamLimits::default()),
            ..Spec::new(name)
        }
    });
    (specs.to_vec(), Auth::Users(std::sync::Arc::new(users)))
}

async fn client(server: &Server, name: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(name.to_owned(), name.to_owned());
    options.connect(server.client_url()).await.unwrap()
}

/// What an account has stored is there after a restart, in that account; an account that has gone keeps what it stored until
/// it is back.
#[tokio::test]
async fn each_account_finds_its_own_again() {
    let directory = tempfile::tempdir().unwrap();
    let (accounts, auth) = specs();
    let with = |accounts: Vec<Spec>| Config {
        port: 0,
        monitor_port: None,
        store_dir: Some(directory.path().to_owned()),
        auth: auth.clone(),
        accounts,
        ..Config::default()
    };
    let server = Server::start(with(accounts.clone())).await.unwrap();
    for (name, count) in [("a", 3), ("b", 1)] {
        let jetstream = jetstream::new(client(&server, name).await);
        jetstream.create_stream(config("S")).await.unwrap();
        for _ in 0..count {
            jetstream
                .publish("S.x", name.to_owned().into())
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }
    server.shutdown().await;
    // B is not there for a while, then comes back by a reload.
    let server = Server::start(with(accounts[..1].to_vec())).await.unwrap();
    assert!(server.jetstream_of("B").is_none());
    assert_eq!(server.jetstream_of("A").unwrap().snapshot().messages, 3);
    let changed = server.reload(with(accounts.clone())).await.unwrap();
    assert!(changed.contains(&"accounts"), "{changed:?}");
    assert_eq!(server.jetstream_of("B").unwrap().snapshot().messages, 1);
    let b = jetstream::new(client(&server, "b").await);
    b.publish("S.x", "b".into()).await.unwrap().await.unwrap();
    server.shutdown().await;
    let server = Server::start(with(accounts)).await.unwrap();
    let counts = ["A", "B"].map(|name| server.jetstream_of(name).unwrap().snapshot().messages);
    assert_eq!(counts, [3, 2]);
    server.shutdown().await;
}
