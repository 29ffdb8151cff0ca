//! Who may ask what, and what is answered.

use serde_json::{Value, json};
use sovereign_mesh::{Config, TestServer};

use super::{Outcome, answer, ask, connect, is_unheard, server};

#[tokio::test(flavor = "multi_thread")]
async fn the_system_account_asks_by_id_and_by_ping() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let short = answer(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await;
    assert_eq!(
        short,
        json!({ "name": "likeness", "host": "127.0.0.1", "id": id })
    );
    for target in ["PING", &id] {
        for (name, field) in [
            ("VARZ", "max_payload"),
            ("SUBSZ", "num_subscriptions"),
            ("CONNZ", "num_connections"),
            ("ROUTEZ", "num_routes"),
            ("GATEWAYZ", "outbound_gateways"),
            ("LEAFZ", "leafnodes"),
            ("ACCOUNTZ", "accounts"),
            ("JSZ", "streams"),
            ("HEALTHZ", "status_code"),
            ("EXPVARZ", "memstats"),
            ("IPQUEUESZ", "System recvQ"),
            ("PROFILEZ", "error"),
        ] {
            let found = answer(&system, &format!("$SYS.REQ.SERVER.{target}.{name}"), "").await;
            assert_eq!(found["server"]["id"], id.as_str(), "{name}");
            assert_eq!(found["server"]["tags"], json!(["a", "b:c"]), "{name}");
            assert!(!found["data"][field].is_null(), "{name}: {found}");
        }
        let stats = answer(&system, &format!("$SYS.REQ.SERVER.{target}.STATSZ"), "").await;
        assert_eq!(stats["statsz"]["connections"], 1, "{stats}");
        let groups = answer(&system, &format!("$SYS.REQ.SERVER.{target}.RAFTZ"), "").await;
        assert_eq!(groups["data"], json!({}));
    }
    let first = answer(&system, "$SYS.REQ.SERVER.PING", "").await;
    let second = answer(&system, "$SYS.REQ.SERVER.PING", "").await;
    let seq = |found: &Value| found["server"]["seq"].as_u64().unwrap();
    assert!(seq(&second) > seq(&first));
    for unknown in [
        "$SYS.REQ.SERVER.PING.BOGUS",
        "$SYS.REQ.SERVER.PING.KICK",
        "$SYS.REQ.SERVER.PING.RELOAD",
        "$SYS.REQ.SERVER.NOBODY.VARZ",
        "$SYS.REQ.ACCOUNT.A.BOGUS",
    ] {
        assert!(is_unheard(&system, unknown).await, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_filters() {
    let server = server();
    let system = connect(&server.url(), "sys").await;
    let one = connect(&server.url(), "a").await;
    let two = connect(&server.url(), "b").await;
    let _listens = one.subscribe("foo.*").await.unwrap();
    one.flush().await.unwrap();
    two.flush().await.unwrap();
    let connz = |body: Value| {
        let system = system.clone();
        async move { answer(&system, "$SYS.REQ.SERVER.PING.CONNZ", &body.to_string()).await }
    };
    let all = connz(json!({ "auth": true })).await;
    let users: Vec<_> = all["data"]["connections"].as_array().unwrap().iter().collect();
    let shown: Vec<_> = users
        .iter()
        .map(|row| (&row["authorized_user"], &row["account"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("sys"), &json!("SYS")),
            (&json!("a"), &json!("A")),
            (&json!("b"), &json!("B"))
        ]
    );
    let some = connz(json!({ "acc": "A", "subscriptions": true })).await;
    assert_eq!(
        some["data"]["connections"][0]["subscriptions_list"],
        json!(["foo.*"]),
        "{some}"
    );
    assert_eq!(some["data"]["total"], 1);
    let page = connz(json!({ "limit": 1, "offset": 1, "sort": "cid" })).await;
    assert_eq!(
        (&page["data"]["num_connections"], &page["data"]["total"]),
        (&json!(1), &json!(3))
    );
    let senseless = connz(json!({ "sort": "bogus" })).await;
    assert_eq!(
        senseless["error"],
        json!({ "code": 500, "description": "invalid sorting option: bogus" })
    );
    for bad in ["garbage", "[]", "{\"sort\":1}", "{\"tags\":\"a\"}"] {
        let refused = answer(&system, "$SYS.REQ.SERVER.PING.CONNZ", bad).await;
        assert_eq!(refused["error"]["code"], 400, "{bad}: {refused}");
    }
    for (body, is_meant) in [
        (json!({ "server_name": "like" }), true),
        (json!({ "server_name": "like", "exact_match": true }), false),
        (json!({ "tags": ["a"] }), true),
        (json!({ "tags": ["a", "z"] }), false),
        (json!({ "cluster": "c" }), false),
        (json!({ "domain": "hub" }), false),
        (json!({ "host": "127.0.0.1", "exact_match": true }), true),
    ] {
        let outcome = ask(&system, "$SYS.REQ.SERVER.PING.VARZ", &body.to_string()).await;
        assert_eq!(outcome != Outcome::Silence, is_meant, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_asked_about_one_by_one() {
    let server = server();
    let system = connect(&server.url(), "sys").await;
    let client = connect(&server.url(), "a").await;
    let mut own = client.subscribe("foo").await.unwrap();
    client.publish("foo", "12345".into()).await.unwrap();
    super::next(&mut own).await;
    let of = |name: &str| format!("$SYS.REQ.ACCOUNT.A.{name}");
    let stats = answer(&system, &of("STATZ"), "").await;
    let row = &stats["data"]["account_statz"][0];
    assert_eq!(
        (
            &row["acc"],
            &row["conns"],
            &row["received"]["bytes"],
            &row["sent"]["msgs"]
        ),
        (&json!("A"), &json!(1), &json!(5), &json!(1)),
        "{stats}"
    );
    // What those who have left have sent stays counted.
    drop(own);
    client.drain().await.unwrap();
    while !matches!(ask(&system, &of("STATZ"), "").await, Outcome::Silence) {}
    let stats = answer(&system, &of("STATZ"), r#"{"include_unused":true}"#).await;
    let row = &stats["data"]["account_statz"][0];
    assert_eq!(
        (&row["conns"], &row["received"]["bytes"]),
        (&json!(0), &json!(5)),
        "{stats}"
    );

    let _client = connect(&server.url(), "a").await;
    let info = answer(&system, &of("INFO"), "").await;
    assert_eq!(
        (&info["data"]["account_name"], &info["data"]["client_connections"]),
        (&json!("A"), &json!(1))
    );
    assert_eq!(
        answer(&system, &of("CONNZ"), r#"{"acc":"SYS"}"#).await["data"]["total"],
        1
    );
    assert_eq!(answer(&system, &of("CONNS"), "").await["conns"], 1);
    let streams = answer(&system, &of("JSZ"), "").await;
    assert_eq!(
        streams["error"]["description"],
        "account \"A\" not jetstream enabled"
    );
    let streams = answer(&system, "$SYS.REQ.ACCOUNT.$G.JSZ", "").await;
    assert_eq!(streams["data"]["name"], "$G", "{streams}");
    for silent in ["STATZ", "CONNS"] {
        let subject = format!("$SYS.REQ.ACCOUNT.NOPE.{silent}");
        assert_eq!(ask(&system, &subject, "").await, Outcome::Silence);
    }
    let all = answer(&system, "$SYS.REQ.ACCOUNT.PING.STATZ", "").await;
    let names = |all: &Value| -> Vec<String> {
        let rows = all["data"]["account_statz"].as_array().unwrap().iter();
        rows.map(|row| row["acc"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&all), ["A", "SYS"]);
    let one = answer(
        &system,
        "$SYS.REQ.ACCOUNT.PING.STATZ",
        r#"{"accounts":["A","NOPE"]}"#,
    )
    .await;
    assert_eq!(names(&one), ["A"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_accounts_see_themselves_alone() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let mut told = system.subscribe("$SYS.>").await.unwrap();
    system.flush().await.unwrap();
    let (client, _other) = (
        connect(&server.url(), "a").await,
        connect(&server.url(), "b").await,
    );
    for (subject, body) in [
        ("$SYS.REQ.SERVER.PING.CONNZ", r#"{"acc":"B","auth":true}"#),
        (
            "$SYS.REQ.ACCOUNT.PING.CONNZ",
            r#"{"acc":"B","account":"B","auth":true}"#,
        ),
    ] {
        let found = answer(&client, subject, body).await;
        let rows = found["data"]["connections"].as_array().unwrap();
        assert_eq!(
            (rows.len(), &rows[0]["account"]),
            (1, &json!("A")),
            "{subject}: {found}"
        );
    }
    let stats = answer(&client, "$SYS.REQ.ACCOUNT.PING.STATZ", r#"{"accounts":["B"]}"#).await;
    assert_eq!(stats["data"]["account_statz"].as_array().unwrap().len(), 1);
    assert_eq!(stats["data"]["account_statz"][0]["acc"], "A");
    for name in ["IDZ", "STATSZ", "VARZ", "SUBSZ", "ACCOUNTZ", "JSZ", "HEALTHZ"] {
        assert!(
            is_unheard(&client, &format!("$SYS.REQ.SERVER.PING.{name}")).await,
            "{name}"
        );
    }
    for name in ["VARZ", "CONNZ", "KICK", "LDM", "RELOAD", "IDZ"] {
        assert!(
            is_unheard(&client, &format!("$SYS.REQ.SERVER.{id}.{name}")).await,
            "{name}"
        );
    }
    for account in ["A", "B", "SYS"] {
        for name in ["CONNZ", "STATZ", "SUBSZ", "JSZ", "INFO", "CONNS"] {
            let subject = format!("$SYS.REQ.ACCOUNT.{account}.{name}");
            assert!(is_unheard(&client, &subject).await, "{subject}");
        }
    }
    // What it publishes by the names of events nobody takes for one.
    for feigned in [
        "$SYS.ACCOUNT.A.CONNECT",
        "$SYS.SERVER.x.STATSZ",
        "$SYS.SERVER.feigned",
    ] {
        client.publish(feigned, "feigned".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    system.publish("$SYS.end", "".into()).await.unwrap();
    loop {
        let message = super::next(&mut told).await;
        assert_ne!(&*message.payload, b"feigned", "{}", message.subject);
        if &*message.subject == "$SYS.end" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_learns_who_it_is() {
    let server = server();
    let info = |user: &'static str| {
        let url = server.url();
        async move {
            let client = connect(&url, user).await;
            answer(&client, "$SYS.REQ.USER.INFO", "").await["data"].take()
        }
    };
    assert_eq!(
        info("sys").await,
        json!({ "user": "sys", "account": "SYS", "account_name": "SYS" })
    );
    assert_eq!(
        info("a").await,
        json!({ "user": "a", "account": "A", "account_name": "A" })
    );
    assert_eq!(
        info("p").await,
        json!({
            "user": "p",
            "account": "A",
            "account_name": "A",
            "permissions": {
                "publish": { "allow": ["x.>", "$SYS.REQ.USER.INFO"] },
                "subscribe": { "allow": ["_INBOX.>", "y", "q grp"], "deny": ["y.z"] },
                "responses": { "max": 3, "ttl": 60_000_000_000_i64 },
            },
        })
    );
    // Without accounts everybody is in the one that all are in who have no other.
    let open = TestServer::with(Config::default());
    let client = async_nats::connect(open.url()).await.unwrap();
    let found = answer(&client, "$SYS.REQ.USER.INFO", "").await;
    assert_eq!(
        (&found["data"]["account"], &found["data"]["user"]),
        (&json!("$G"), &json!(""))
    );
    assert_eq!(
        answer(&client, "$SYS.REQ.ACCOUNT.PING.CONNZ", "").await["data"]["total"],
        1
    );
    assert!(is_unheard(&client, "$SYS.REQ.SERVER.PING").await);
}
