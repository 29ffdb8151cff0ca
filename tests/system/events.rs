//! What is told in the system account.

use async_nats::ConnectOptions;
use serde_json::json;

use super::{connect, event, next, server};

#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_is_told() {
    let server = server();
    let system = connect(&server.url(), "sys").await;
    let mut told = system.subscribe("$SYS.ACCOUNT.A.>").await.unwrap();
    let mut older = system.subscribe("$SYS.SERVER.ACCOUNT.*.CONNS").await.unwrap();
    system.flush().await.unwrap();
    let client = connect(&server.url(), "a").await;
    let came = event(&mut told, "$SYS.ACCOUNT.A.CONNECT").await;
    assert_eq!(came["type"], "io.nats.server.advisory.v1.client_connect");
    assert_eq!(came["server"]["id"], server.server().id());
    let shown = &came["client"];
    assert_eq!(
        (&shown["acc"], &shown["user"], &shown["name"], &shown["kind"]),
        (&json!("A"), &json!("a"), &json!("client a"), &json!("Client"))
    );
    let count = event(&mut told, "$SYS.ACCOUNT.A.SERVER.CONNS").await;
    assert_eq!(
        (&count["acc"], &count["conns"]),
        (&json!("A"), &json!(1)),
        "{count}"
    );
    assert_eq!(count["type"], "io.nats.server.advisory.v1.account_connections");
    assert_eq!(event(&mut older, "$SYS.SERVER.ACCOUNT.A.CONNS").await["conns"], 1);

    client.publish("x", "1234".into()).await.unwrap();
    client.drain().await.unwrap();
    let gone = event(&mut told, "$SYS.ACCOUNT.A.DISCONNECT").await;
    assert_eq!(gone["type"], "io.nats.server.advisory.v1.client_disconnect");
    assert_eq!(
        (&gone["sent"], &gone["reason"]),
        (&json!({ "msgs": 1, "bytes": 4 }), &json!("Client Closed")),
        "{gone}"
    );
    assert_eq!(gone["client"]["id"], shown["id"]);
    assert_eq!(event(&mut told, "$SYS.ACCOUNT.A.SERVER.CONNS").await["conns"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_with_the_rule() {
    let server = server();
    let system = connect(&server.url(), "sys").await;
    let owner = connect(&server.url(), "a").await;
    let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", server.server().id());
    let mut told = system.subscribe(subject.clone()).await.unwrap();
    let mut own = owner.subscribe("$SYS.ACCOUNT.CLIENT.AUTH.ERR").await.unwrap();
    system.flush().await.unwrap();
    owner.flush().await.unwrap();
    for (user, rule) in [
        ("a", "password of user \"a\" (users.conf:a)"),
        ("x", "no user \"x\" is configured"),
    ] {
        let guess = ConnectOptions::with_user_and_password(user.to_owned(), "guess".to_owned());
        assert!(guess.name("guesser").connect(server.url()).await.is_err());
        let refused = event(&mut told, &subject).await;
        assert_eq!(refused["type"], "io.nats.server.advisory.v1.client_disconnect");
        let shown = &refused["client"];
        assert_eq!(
            (&shown["user"], &shown["name"], &shown["acc"]),
            (&json!(user), &json!("guesser"), &json!("$G"))
        );
        assert_eq!(
            (&refused["reason"], &refused["rule"]),
            (&json!("Authentication Failure"), &json!(rule))
        );
        assert!(!refused.to_string().contains("guess\""), "{refused}");
    }
    // The account whose user was named hears of it, not by which rule.
    let refused = event(&mut own, "$SYS.ACCOUNT.CLIENT.AUTH.ERR").await;
    assert_eq!(
        (&refused["client"]["user"], &refused["client"]["acc"]),
        (&json!("a"), &json!("A"))
    );
    assert!(refused.get("rule").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_speaks_of_itself() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let mut told = system.subscribe(format!("$SYS.SERVER.{id}.>")).await.unwrap();
    system.flush().await.unwrap();
    // Asked for without a reply, the figures are told to all who listen.
    system
        .publish("$SYS.REQ.SERVER.PING.STATSZ", "".into())
        .await
        .unwrap();
    let figures = event(&mut told, &format!("$SYS.SERVER.{id}.STATSZ")).await;
    assert_eq!(
        (&figures["server"]["id"], &figures["statsz"]["active_accounts"]),
        (&json!(id), &json!(1)),
        "{figures}"
    );
    server
        .server()
        .lame_duck(std::time::Duration::from_millis(1))
        .await;
    let leaving = event(&mut told, &format!("$SYS.SERVER.{id}.LAMEDUCK")).await;
    assert_eq!(
        (&leaving["id"], &leaving["name"]),
        (&json!(id), &json!("likeness"))
    );
    let stopping = std::thread::spawn(move || drop(server));
    let gone = loop {
        let message = next(&mut told).await;
        if message.subject.ends_with("SHUTDOWN") {
            break message;
        }
    };
    assert!(String::from_utf8_lossy(&gone.payload).contains(&id));
    stopping.join().unwrap();
}
