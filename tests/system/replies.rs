//! What the server answers or delivers is no request, whatever subject it is sent to.

use std::sync::Arc;

use sovereign_mesh::account::{Auth, Login, Permissions, Rules, Spec, StreamLimits, User, Users};
use sovereign_mesh::protocol::encode::Message;
use sovereign_mesh::{Config, TestServer};

use crate::support::Wire;

use super::rules;

const DELETE: &str = "$JS.API.STREAM.DELETE.ORDERS";

/// One who may do everything, and one who may read messages of streams and no more.
fn server() -> TestServer {
    let reader = Permissions {
        publish: Rules {
            allow: Some(rules(&["$JS.API.DIRECT.GET.>", "$SYS.REQ.USER.INFO"])),
            deny: Vec::new(),
        },
        ..Permissions::default()
    };
    let mut users = Users::default();
    for (name, permissions) in [("all", None), ("reader", Some(Arc::new(reader)))] {
        assert!(users.add(User {
            name: name.to_owned(),
            login: Login::Password(name.to_owned()),
            permissions,
            account: "$G".into(),
            rule: format!("users.conf:{name}"),
        }));
    }
    TestServer::with(Config {
        auth: Auth::Users(Arc::new(users)),
        accounts: vec![Spec {
            streams: Some(StreamLimits::default()),
            ..Spec::new("$G")
        }],
        ..Config::default()
    })
}

fn login(server: &TestServer, name: &str) -> Wire {
    let fields = format!("\"user\":\"{name}\",\"pass\":\"{name}\",\"headers\":true");
    let mut wire = Wire::quiet(server.server().local_addr(), &fields);
    wire.send("SUB in.> 1\r\n");
    wire.expect_nothing();
    wire
}

/// Asks the API, and takes the answer.
fn api(wire: &mut Wire, to: &str, body: &str) -> String {
    wire.send(format!("PUB $JS.API.{to} in.api {}\r\n{body}\r\n", body.len()));
    let line = wire.line();
    assert!(line.starts_with("MSG in.api 1 "), "{line}");
    wire.line()
}

#[test]
fn nobody_has_the_server_ask_itself() {
    let server = server();
    let mut all = login(&server, "all");
    let made = api(
        &mut all,
        "STREAM.CREATE.ORDERS",
        r#"{"name":"ORDERS","subjects":["orders.>"],"allow_direct":true}"#,
    );
    assert!(!made.contains("error"), "{made}");
    all.send("PUB orders.a in.ack 1\r\nx\r\n");
    assert!(all.line().starts_with("MSG in.ack") && all.line().contains("ORDERS"));

    let mut reader = login(&server, "reader");
    for reply in [DELETE, "$JS.hub.API.STREAM.DELETE.ORDERS", "$SYS.REQ.USER.INFO"] {
        for to in [
            "$JS.API.DIRECT.GET.NONE",
            "$JS.API.DIRECT.GET.ORDERS",
            "$SYS.REQ.USER.INFO",
        ] {
            reader.ask(
                format!("PUB {to} {reply} 0\r\n\r\n"),
                format!("-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n"),
            );
        }
    }
    for deliver in [DELETE, "$SYS.REQ.USER.INFO"] {
        let body = format!(r#"{{"stream_name":"ORDERS","config":{{"deliver_subject":"{deliver}"}}}}"#);
        let refused = api(&mut all, "CONSUMER.CREATE.ORDERS", &body);
        assert!(
            refused.contains("invalid push consumer deliver subject"),
            "{refused}"
        );
    }

    // From within, where no reply is refused: errors, answers, acks and messages are no requests either.
    let mut publisher = server.server().publisher();
    let next = r#"{"stream_name":"ORDERS","config":{"name":"P","durable_name":"P","ack_policy":"explicit"}}"#;
    let pull = api(&mut all, "CONSUMER.DURABLE.CREATE.ORDERS.P", next);
    assert!(!pull.contains("error"), "{pull}");
    for (to, payload) in [
        ("$JS.API.DIRECT.GET.NONE", "{}"),
        ("$JS.API.DIRECT.GET.ORDERS", r#"{"seq":1}"#),
        ("$JS.API.STREAM.NAMES", ""),
        ("$JS.API.CONSUMER.MSG.NEXT.ORDERS.P", "1"),
        ("$JS.API.CONSUMER.MSG.NEXT.ORDERS.NONE", "1"),
        ("orders.b", "y"),
    ] {
        publisher.publish(
            &Message {
                subject: to.as_bytes(),
                reply: DELETE.as_bytes(),
                payload: payload.as_bytes(),
                ..Message::default()
            },
            None,
        );
    }
    publisher.flush();
    // Requests without an asker are worked off in order; what they led to would have come before the second of these.
    for _ in 0..2 {
        publisher.publish(
            &Message {
                subject: b"$JS.API.STREAM.NAMES",
                reply: b"in.names",
                ..Message::default()
            },
            None,
        );
        publisher.flush();
        assert!(all.line().starts_with("MSG in.names 1 "));
        assert!(all.line().contains("ORDERS"));
    }
    let there = api(&mut all, "STREAM.INFO.ORDERS", "");
    assert!(there.contains("\"messages\":2"), "{there}");
    // Who is asked to, does it.
    assert!(api(&mut all, "STREAM.DELETE.ORDERS", "").contains("\"success\":true"));
}
