//! The system account: what is answered to whom, what is told, and how it looks beside nats-server.

mod events;
mod flood;
mod likeness;
mod orders;
mod replies;
mod requests;

use std::sync::Arc;

use async_nats::{Client, ConnectOptions, RequestErrorKind, Subscriber};
use futures_util::StreamExt;
use serde_json::Value;
use sovereign_mesh::account::{Auth, Login, Permissions, Rule, Rules, Spec, StreamLimits, User, Users};
use sovereign_mesh::router::Responses;
use sovereign_mesh::{Config, TestServer};
use tokio::time::timeout;

use crate::support::PATIENCE;

/// The accounts of [`server`], as nats-server's configuration has them.
const THEIRS: &str = r#"
    server_name: likeness
    server_tags: [a, "b:c"]
    jetstream: {}
    accounts {
        SYS { users: [ { user: sys, password: sys } ] }
        A { users: [
            { user: a, password: a },
            { user: p, password: p, permissions {
                publish: ["x.>", "$SYS.REQ.USER.INFO"],
                subscribe { allow: ["_INBOX.>", "y", "q grp"], deny: "y.z" },
                allow_responses { max: 3, expires: "1m" }
            } }
        ] }
        B { users: [ { user: b, password: b } ] }
    }
    system_account: SYS
"#;

fn rules(texts: &[&str]) -> Vec<Rule> {
    let rule = |text: &&str| Rule::parse(text, true).unwrap();
    texts.iter().map(rule).collect()
}

fn users() -> Users {
    let mut users = Users::default();
    let permissions = Permissions {
        publish: Rules {
            allow: Some(rules(&["x.>", "$SYS.REQ.USER.INFO"])),
            deny: Vec::new(),
        },
        subscribe: Rules {
            allow: Some(rules(&["_INBOX.>", "y", "q grp"])),
            deny: rules(&["y.z"]),
        },
        responses: Some(Responses {
            max: 3,
            expires: Some(std::time::Duration::from_secs(60)),
        }),
    };
    for (name, account, permissions) in [
        ("sys", "SYS", None),
        ("a", "A", None),
        ("p", "A", Some(Arc::new(permissions))),
        ("b", "B", None),
    ] {
        assert!(users.add(User {
            name: name.to_owned(),
            login: Login::Password(name.to_owned()),
            permissions,
            account: account.into(),
            rule: format!("users.conf:{name}"),
        }));
    }
    users
}

/// A server with a system account and two others; the password of each user is its name.
fn server() -> TestServer {
    TestServer::with(Config {
        name: Some("likeness".to_owned()),
        tags: vec!["a".to_owned(), "b:c".to_owned()],
        auth: Auth::Users(Arc::new(users())),
        accounts: vec![
            Spec::new("SYS"),
            Spec::new("A"),
            Spec::new("B"),
            Spec {
                streams: Some(StreamLimits::default()),
                ..Spec::new("$G")
            },
        ],
        system_account: Some("SYS".to_owned()),
        ..Config::default()
    })
}

async fn connect(url: &str, user: &str) -> Client {
    ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned())
        .name(format!("client {user}"))
        .connect(url)
        .await
        .unwrap()
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answer(Value),
    NoResponders,
    /// Somebody listens, and does not answer: what was asked after it was answered first.
    Silence,
}

/// How long an answer may come after that to what was asked later: nats-server answers some questions at once.
const GRACE: std::time::Duration = std::time::Duration::from_millis(500);

/// Asks, and right after it something that is always answered: what has no answer when that has, and a moment later, has
/// none.
async fn ask(client: &Client, subject: &str, body: &str) -> Outcome {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await.unwrap();
    let (own, other) = (format!("{inbox}.own"), format!("{inbox}.other"));
    let body = body.to_owned().into();
    client
        .publish_with_reply(subject.to_owned(), own.clone(), body)
        .await
        .unwrap();
    client
        .publish_with_reply("$SYS.REQ.USER.INFO", other, "".into())
        .await
        .unwrap();
    let mut answer = next(&mut answers).await;
    if *answer.subject != *own {
        match timeout(GRACE, answers.next()).await {
            Ok(late) => answer = late.unwrap(),
            Err(_) => return Outcome::Silence,
        }
    }
    if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        return Outcome::NoResponders;
    }
    Outcome::Answer(serde_json::from_slice(&answer.payload).unwrap())
}

async fn next(messages: &mut Subscriber) -> async_nats::Message {
    let next = timeout(PATIENCE, messages.next()).await;
    next.expect("a message in time").expect("still subscribed")
}

/// The next message whose subject is this.
async fn event(messages: &mut Subscriber, subject: &str) -> Value {
    loop {
        let message = next(messages).await;
        if *message.subject == *subject {
            return serde_json::from_slice(&message.payload).unwrap();
        }
    }
}

/// A request that is answered.
async fn answer(client: &Client, subject: &str, body: &str) -> Value {
    let answer = client.request(subject.to_owned(), body.to_owned().into()).await;
    let answer = answer.unwrap_or_else(|error| panic!("{subject} {body}: {error}"));
    serde_json::from_slice(&answer.payload).unwrap()
}

/// A request that nobody takes.
async fn is_unheard(client: &Client, subject: &str) -> bool {
    let answer = client.request(subject.to_owned(), "".into()).await;
    answer.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
}
