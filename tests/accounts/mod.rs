//! Several accounts on one server: nothing crosses but by export and import. The same walks against nats-server, which
//! has to agree.

mod model;
mod storage;

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, RequestErrorKind};
use futures_util::StreamExt;

use crate::support::{Process, Wire, skip};

/// Accounts of these walks: A offers, B and C take.
const ACCOUNTS: &str = r#"
accounts {
  A {
    users [ { user: a, password: a } ]
    exports [
      { stream: "ev.>" }
      { stream: "private.>", accounts: [B] }
      { service: "svc" }
      { service: "many", response_type: stream }
      { service: "nobody" }
      { service: "ask.*" }
      { service: "old.*" }
    ]
    mappings { "old.*": "new.$1", "shop.*.*": "orders.$2.{{wildcard(1)}}" }
  }
  B {
    users [ { user: b, password: b } ]
    imports [
      { stream: { account: A, subject: "ev.>" }, prefix: "from.a" }
      { stream: { account: A, subject: "private.x" } }
      { service: { account: A, subject: "svc" }, to: "b.svc" }
      { service: { account: A, subject: "many" }, share: true }
      { service: { account: A, subject: "nobody" } }
      { service: { account: A, subject: "ask.*" }, to: "please.ask.*" }
      { service: { account: A, subject: "old.*" } }
    ]
  }
  C {
    users [ { user: c, password: c } ]
    imports [ { stream: { account: A, subject: "ev.x" }, to: "mine" } ]
    limits { max_connections: 2, max_subscriptions: 3, max_payload: 100 }
  }
}
"#;

/// Runs a walk on our server and, where it is found, on nats-server.
async fn on_both<F: Future<Output = ()>>(config: &str, walk: impl Fn(String) -> F) {
    let ours = Process::mesh_with(config);
    walk(ours.address().to_owned()).await;
    match Process::nats(config) {
        Some(theirs) => walk(theirs.address().to_owned()).await,
        None => skip("the same on nats-server", "set NATS_SERVER to it"),
    }
}

async fn connect(address: &str, name: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(name.to_owned(), name.to_owned());
    options.connect(format!("nats://{address}")).await.unwrap()
}

/// What the client has told the server before is done: it hears itself.
async fn settled(client: &Client) {
    let inbox = client.new_inbox();
    let mut own = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    own.next().await.unwrap();
}

/// What arrives until nothing more does, as `subject payload`.
async fn heard(subscriber: &mut async_nats::Subscriber) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), subscriber.next()).await {
        if message.subject.starts_with("_INBOX.") {
            continue;
        }
        all.insert(format!(
            "{} {}",
            message.subject,
            String::from_utf8_lossy(&message.payload)
        ));
    }
    all
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[tokio::test]
async fn streams_flow_from_the_exporter_under_their_new_names() {
    on_both(ACCOUNTS, |address| async move {
        let (a, b, c) = (
            connect(&address, "a").await,
            connect(&address, "b").await,
            connect(&address, "c").await,
        );
        let mut in_a = a.subscribe(">").await.unwrap();
        let mut in_b = b.subscribe(">").await.unwrap();
        let mut in_c = c.subscribe(">").await.unwrap();
        let mut narrow = b.subscribe("from.*.ev.x").await.unwrap();
        for client in [&b, &c, &a] {
            settled(client).await;
        }
        for (to, payload) in [
            ("ev.x", "1"),
            ("ev.x.y", "2"),
            ("private.x", "3"),
            ("private.y", "4"),
            ("other", "5"),
        ] {
            a.publish(to, payload.into()).await.unwrap();
        }
        b.publish("from.a.ev.z", "b".into()).await.unwrap();
        c.publish("mine", "c".into()).await.unwrap();
        for client in [&a, &b, &c] {
            client.flush().await.unwrap();
        }
        let all_of_a = ["ev.x 1", "ev.x.y 2", "private.x 3", "private.y 4", "other 5"];
        assert_eq!(heard(&mut in_a).await, set(&all_of_a));
        assert_eq!(
            heard(&mut in_b).await,
            set(&["from.a.ev.x 1", "from.a.ev.x.y 2", "private.x 3", "from.a.ev.z b"])
        );
        assert_eq!(heard(&mut narrow).await, set(&["from.a.ev.x 1"]));
        assert_eq!(heard(&mut in_c).await, set(&["mine 1", "mine c"]));
    })
    .await;
}

#[tokio::test]
async fn requests_cross_over_and_answers_find_back() {
    on_both(ACCOUNTS, |address| async move {
        let (a, b) = (connect(&address, "a").await, connect(&address, "b").await);
        let mut served = a.subscribe("*").await.unwrap();
        let mut asked = a.subscribe("ask.*").await.unwrap();
        a.flush().await.unwrap();
        let answering = {
            let a = a.clone();
            tokio::spawn(async move {
                loop {
                    let request = tokio::select! {
                        Some(request) = served.next() => request,
                        Some(request) = asked.next() => request,
                        else => return,
                    };
                    let Some(reply) = request.reply.clone() else {
                        continue;
                    };
                    assert!(reply.starts_with("_R_."), "{reply}");
                    let info = request
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get("Nats-Request-Info"));
                    let info = info.map(|info| info.as_str().to_owned()).unwrap_or_default();
                    for n in 0..3 {
                        let text = format!("{} {n} {info}", request.subject);
                        a.publish(reply.clone(), text.into()).await.unwrap();
                    }
                }
            })
        };
        settled(&a).await;
        let text = |message: async_nats::Message| String::from_utf8(message.payload.to_vec()).unwrap();
        let answer = text(b.request("b.svc", "".into()).await.unwrap());
        assert!(answer.starts_with(r#"svc 0 {"acc":"B","rtt":"#), "{answer}");
        let answer = text(b.request("please.ask.me", "".into()).await.unwrap());
        assert!(answer.starts_with("ask.me 0 "), "{answer}");
        // One answer for a service that answers once, all for one that streams.
        let mut inbox = b.subscribe("my.inbox").await.unwrap();
        b.publish_with_reply("b.svc", "my.inbox", "".into())
            .await
            .unwrap();
        assert_eq!(heard(&mut inbox).await.len(), 1);
        b.publish_with_reply("many", "my.inbox", "".into()).await.unwrap();
        let answers = heard(&mut inbox).await;
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert!(
            answers
                .iter()
                .all(|answer| answer.contains(r#""acc":"B""#) && answer.contains(r#""user":"b""#))
        );
        answering.abort();
        drop(answering.await);
    })
    .await;
}

#[tokio::test]
async fn who_asks_what_nobody_answers_is_told() {
    on_both(ACCOUNTS, |address| async move {
        let (a, b) = (connect(&address, "a").await, connect(&address, "b").await);
        settled(&a).await;
        let error = b.request("nobody", "".into()).await.unwrap_err();
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
        // The exporter's own names are nothing here.
        let error = b.request("svc", "".into()).await.unwrap_err();
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    })
    .await;
}

/// A service that goes through two accounts.
const CHAIN: &str = r#"
accounts {
  A { users [ { user: a, password: a } ], exports [ { service: "svc" } ] }
  B {
    users [ { user: b, password: b } ]
    imports [ { service: { account: A, subject: "svc" }, to: "b.svc" } ]
    exports [ { service: "b.svc" } ]
  }
  C {
    users [ { user: c, password: c } ]
    imports [ { service: { account: B, subject: "b.svc" }, to: "c.svc" } ]
  }
}
"#;

#[tokio::test]
async fn requests_cross_more_than_one_border() {
    on_both(CHAIN, |address| async move {
        let (a, c) = (connect(&address, "a").await, connect(&address, "c").await);
        let mut served = a.subscribe("svc").await.unwrap();
        settled(&a).await;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Request-Info", "forged");
        let asking = c.request_with_headers("c.svc", headers, "".into());
        let answering = async {
            let request = served.next().await.unwrap();
            let info = request.headers.as_ref().unwrap().get("Nats-Request-Info");
            let info = info.unwrap().as_str().to_owned();
            a.publish(request.reply.unwrap(), info.into()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asking, answering);
        let answer = String::from_utf8(answer.unwrap().payload.to_vec()).unwrap();
        assert!(answer.starts_with(r#"{"acc":"C""#), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn what_clients_publish_is_renamed() {
    on_both(ACCOUNTS, |address| async move {
        let a = connect(&address, "a").await;
        let mut all = a.subscribe(">").await.unwrap();
        for to in ["old.x", "shop.berlin.7", "old.x.y"] {
            a.publish(to, "".into()).await.unwrap();
        }
        a.flush().await.unwrap();
        assert_eq!(
            heard(&mut all).await,
            set(&["new.x ", "orders.7.berlin ", "old.x.y "])
        );
        // Requests of others too, where they come in.
        let b = connect(&address, "b").await;
        let answering = async {
            let request = all.next().await.unwrap();
            a.publish(request.reply.unwrap(), request.subject.as_str().to_owned().into())
                .await
                .unwrap();
        };
        let (answer, ()) = tokio::join!(b.request("old.y", "".into()), answering);
        assert_eq!(&answer.unwrap().payload[..], b"new.y");
    })
    .await;
}

#[tokio::test]
async fn an_account_has_limits_of_its_own() {
    on_both(ACCOUNTS, |address| async move {
        let c = connect(&address, "c").await;
        let mut wire = Wire::quiet(&*address, r#""user":"a","pass":"a""#);
        wire.ask(
            format!("PUB x 101\r\n{}\r\nPING\r\n", "x".repeat(101)),
            "PONG\r\n",
        );
        let mut wire = Wire::quiet(&*address, r#""user":"c","pass":"c""#);
        wire.ask("PUB x 101\r\n", "-ERR 'Maximum Payload Violation'\r\n");
        wire.expect_end();
        let mut wire = Wire::quiet(&*address, r#""user":"c","pass":"c""#);
        wire.ask("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nPING\r\n", "PONG\r\n");
        wire.ask(
            "SUB d 4\r\nPING\r\n",
            "-ERR 'maximum subscriptions exceeded'\r\nPONG\r\n",
        );
        let options = ConnectOptions::with_user_and_password("c".to_owned(), "c".to_owned());
        let third = options.connect(format!("nats://{address}")).await;
        assert!(third.is_err(), "a third connection came in");
        drop((c, wire));
        let others = connect(&address, "a").await;
        settled(&others).await;
    })
    .await;
}

/// Those who need not show anything fill their own account, not the door of the others.
#[tokio::test]
async fn a_full_account_of_guests_keeps_nobody_else_out() {
    let config = r#"
accounts {
  GUESTS { users [ { user: guest, password: guest } ], limits { max_connections: 1 } }
  STAFF { users [ { user: a, password: a } ] }
}
no_auth_user: guest
"#;
    let server = Process::mesh_with(config);
    let guest = Wire::quiet(server.address(), "");
    let mut second = Wire::connect(server.address());
    second.ask(
        "CONNECT {}\r\n",
        "-ERR 'maximum account active connections exceeded'\r\n",
    );
    second.expect_end();
    let mut third = Wire::connect(server.address());
    third.ask(
        "PUB a 0\r\n\r\n",
        "-ERR 'maximum account active connections exceeded'\r\n",
    );
    third.expect_end();
    let staff = connect(server.address(), "a").await;
    settled(&staff).await;
    drop(guest);
}

/// What both kinds of export offer under one name: the import of one is not taken for the other.
#[tokio::test]
async fn a_service_inside_an_imported_stream_is_asked_once() {
    let config = r#"
accounts {
  A { users [ { user: a, password: a } ], exports [ { stream: "sensors.>" }, { service: "sensors.cmd" } ] }
  B {
    users [ { user: b, password: b } ]
    imports [
      { stream: { account: A, subject: "sensors.>" } }
      { service: { account: A, subject: "sensors.cmd" } }
    ]
  }
}
"#;
    on_both(config, |address| async move {
        let (a, b) = (connect(&address, "a").await, connect(&address, "b").await);
        let mut asked = a.subscribe("sensors.cmd").await.unwrap();
        settled(&a).await;
        b.publish("sensors.cmd", "1".into()).await.unwrap();
        a.publish("sensors.cmd", "2".into()).await.unwrap();
        settled(&b).await;
        assert_eq!(heard(&mut asked).await, set(&["sensors.cmd 1", "sensors.cmd 2"]));
    })
    .await;
}
