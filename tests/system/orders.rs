//! What the system account has a server do: kick, send away, reload.

use std::time::Duration;

use async_nats::ServerInfo;
use serde_json::json;

use crate::support::{PATIENCE, Wire};

use super::{answer, connect, event, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_kicked_by_its_number() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let mut told = system.subscribe("$SYS.ACCOUNT.A.DISCONNECT").await.unwrap();
    system.flush().await.unwrap();
    let mut victim = Wire::quiet(server.server().local_addr(), r#""user":"a","pass":"a""#);
    let cid = victim.info()["client_id"].clone();
    let kick = format!("$SYS.REQ.SERVER.{id}.KICK");
    let done = answer(&system, &kick, &json!({ "cid": cid }).to_string()).await;
    assert!(done.get("error").is_none(), "{done}");
    victim.expect_end();
    let gone = event(&mut told, "$SYS.ACCOUNT.A.DISCONNECT").await;
    assert_eq!((&gone["client"]["id"], &gone["reason"]), (&cid, &json!("Kicked")));
    let nobody = answer(&system, &kick, r#"{"cid":999}"#).await;
    assert_eq!(
        nobody["error"],
        json!({ "code": 500, "description": "no such client or leafnode id" })
    );
    for bad in ["", "x", "{}", r#"{"cid":"1"}"#] {
        assert_eq!(answer(&system, &kick, bad).await["error"]["code"], 400, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_to_move_on() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let order = format!("$SYS.REQ.SERVER.{id}.LDM");
    let address = server.server().local_addr();
    let mut old = Wire::quiet(address, r#""user":"a","pass":"a""#);
    let mut new = Wire::quiet(address, r#""user":"a","pass":"a","protocol":1"#);
    let body = |wire: &Wire| json!({ "cid": wire.info()["client_id"] }).to_string();
    let deaf = answer(&system, &order, &body(&old)).await;
    assert_eq!(deaf["error"]["code"], 500, "{deaf}");
    let done = answer(&system, &order, &body(&new)).await;
    assert!(done.get("error").is_none(), "{done}");
    // What came with the first PONG, then the order.
    let line = loop {
        let line = new.line();
        let info = line.strip_prefix("INFO ").expect("INFO").to_owned();
        if info.contains("\"ldm\":true") {
            break info;
        }
    };
    let info: ServerInfo = serde_json::from_str(&line).unwrap();
    assert!(info.lame_duck_mode && json!(info.client_id) == new.info()["client_id"]);
    for wire in [&mut old, &mut new] {
        wire.expect_nothing();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_for_who_runs_the_server() {
    let server = server();
    let id = server.server().id().to_owned();
    let system = connect(&server.url(), "sys").await;
    let subject = format!("$SYS.REQ.SERVER.{id}.RELOAD");
    let refused = answer(&system, &subject, "").await;
    assert_eq!(refused["error"]["code"], 500);
    let why = refused["error"]["description"].as_str().unwrap();
    assert!(why.contains("part of another program"), "{why}");

    let mut requests = server.server().reload_requests();
    let runs = tokio::spawn(async move {
        for outcome in [Ok(()), Err("the file is gone".to_owned())] {
            let request = tokio::time::timeout(PATIENCE, requests.recv()).await.unwrap();
            request.unwrap().answer(outcome);
        }
        // The third is dropped without an answer.
        drop(requests.recv().await);
    });
    let done = answer(&system, &subject, "").await;
    assert!(done.get("error").is_none(), "{done}");
    let failed = answer(&system, &subject, "").await;
    assert_eq!(failed["error"]["description"], "the file is gone");
    let dropped = answer(&system, &subject, "").await;
    assert_eq!(dropped["error"]["code"], 500, "{dropped}");
    tokio::time::timeout(Duration::from_secs(5), runs)
        .await
        .unwrap()
        .unwrap();
}
