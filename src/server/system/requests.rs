//! Which requests there are, and who answers them.
//!
//! As in nats-server a request without a reply subject does nothing, but for STATSZ: that tells the figures to all.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::connection::Reason;
use crate::monitor::{self, Refusal};
use crate::protocol::encode::Message;
use crate::router::Publisher;

use super::envelope::{Answer, options};
use super::queue::{Asked, Queue};
use super::{ReloadRequest, System, accounts, publish, pulse, user};

/// What every account but the system account may ask: about itself alone.
pub(super) const OWN: [&str; 4] = [
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.STATZ",
];

/// What a server is asked for, one by its id or all by `PING`.
const OF_SERVER: [&str; 15] = [
    "IDZ",
    "STATSZ",
    "VARZ",
    "SUBSZ",
    "CONNZ",
    "ROUTEZ",
    "GATEWAYZ",
    "LEAFZ",
    "ACCOUNTZ",
    "JSZ",
    "HEALTHZ",
    "EXPVARZ",
    "IPQUEUESZ",
    "RAFTZ",
    "PROFILEZ",
];
/// What one server is told to do.
const ORDERS: [&str; 3] = ["RELOAD", "KICK", "LDM"];
/// What is asked about an account.
const OF_ACCOUNT: [&str; 7] = ["SUBSZ", "CONNZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS"];

/// How long a reload may take before the asker is told so.
const RELOAD_MAX: Duration = Duration::from_secs(20);

/// How long those who do not take their answers hold up others.
const RELIEF_MAX: Duration = Duration::from_millis(200);

/// All subjects that are answered in the system account.
pub(super) fn subjects(id: &str) -> Vec<String> {
    let mut subjects = vec!["$SYS.REQ.SERVER.PING".to_owned(), OWN[0].to_owned()];
    for name in OF_SERVER {
        subjects.push(format!("$SYS.REQ.SERVER.PING.{name}"));
        subjects.push(format!("$SYS.REQ.SERVER.{id}.{name}"));
    }
    subjects.extend(ORDERS.iter().map(|name| format!("$SYS.REQ.SERVER.{id}.{name}")));
    subjects.extend(OF_ACCOUNT.iter().map(|name| format!("$SYS.REQ.ACCOUNT.*.{name}")));
    subjects
}

/// Answers what comes in a queue, in order.
pub(super) async fn serve(system: Arc<System>, queue: Arc<Queue>) {
    loop {
        let asked = tokio::select! {
            () = system.stop.cancelled() => return,
            asked = queue.next() => asked,
        };
        let mut publisher = Publisher::of_answers(asked.account.router.clone());
        for request in asked.batch.iter().filter(|request| is_wanted(&asked, request)) {
            // Pages that are still to be made hold up no shutdown.
            let answer = tokio::select! {
                () = system.stop.cancelled() => return,
                answer = answer(&system, &asked, &request) => answer,
            };
            let reply = std::str::from_utf8(request.reply).unwrap_or_default();
            if let Some(json) = answer.into_json(&system.identity).filter(|_| !reply.is_empty()) {
                publish(&mut publisher, reply, &json);
            }
            publisher.flush();
        }
        queue.done(&asked);
        publisher.relieve_within(RELIEF_MAX).await;
    }
}

/// Whether anybody would get the answer. None goes to where requests are made.
fn is_wanted(asked: &Asked, request: &Message<'_>) -> bool {
    let reply = request.reply;
    reply.is_empty() || (!reply.starts_with(b"$SYS.REQ.") && asked.account.router.has_interest(reply))
}

async fn answer(system: &Arc<System>, asked: &Asked, request: &Message<'_>) -> Answer {
    let subject = std::str::from_utf8(request.subject).unwrap_or_default();
    let Some(endpoint) = subject.strip_prefix("$SYS.REQ.") else {
        return Answer::Silence;
    };
    let (first, rest) = endpoint.split_once('.').unwrap_or((endpoint, ""));
    let (of, name) = rest.rsplit_once('.').unwrap_or((rest, "STATSZ"));
    let is_silent = request.reply.is_empty();
    if is_silent {
        if system.is_system(&asked.account) && (first, name) == ("SERVER", "STATSZ") {
            pulse::tell(system).await;
        }
        return Answer::Silence;
    }
    if (first, rest) == ("USER", "INFO") {
        return user::info(system, asked);
    }
    if (first, name) == ("SERVER", "IDZ") {
        return Answer::Bare(system.identity.short());
    }
    let (filter, map) = match options(request.payload) {
        Ok((filter, _)) if !system.identity.is_meant(&filter) => return Answer::Silence,
        Ok((filter, map)) => (filter, map),
        Err(refusal) => return Answer::Refused(refusal),
    };
    drop(filter);
    if !system.is_system(&asked.account) {
        // Whatever the options say: its own account.
        return accounts::answer(system, asked.account.name(), name, map).await;
    }
    match (first, name) {
        ("ACCOUNT", _) if of == "PING" => accounts::answer_all(system, name, map).await,
        ("ACCOUNT", _) => accounts::answer(system, of, name, map).await,
        (_, "STATSZ") => Answer::Of("statsz", pulse::figures(system).await),
        (_, "RELOAD") => reload(system).await,
        (_, "KICK") => client(&map).map_or_else(Answer::Refused, |cid| kick(system, cid)),
        (_, "LDM") => client(&map).map_or_else(Answer::Refused, |cid| lame_duck(system, cid)),
        (_, "IPQUEUESZ") => Answer::Of("data", queues(system)),
        _ => page(system, name, map).await,
    }
}

/// A monitoring page, made where it may take its time.
pub(super) async fn page(system: &Arc<System>, name: &str, map: Map<String, Value>) -> Answer {
    let name = name.to_owned();
    made(system, move |system| {
        let page = monitor::ask(&system.view, &name, &map);
        page.map_or(Answer::Silence, Answer::from)
    })
    .await
}

/// Runs `make` on the blocking pool.
pub(super) async fn made(
    system: &Arc<System>,
    make: impl FnOnce(&System) -> Answer + Send + 'static,
) -> Answer {
    let system = system.clone();
    let made = tokio::task::spawn_blocking(move || make(&system)).await;
    made.unwrap_or_else(|error| Answer::Refused(refused(format!("the answer could not be made: {error}"))))
}

pub(super) fn refused(text: String) -> Refusal {
    Refusal { code: 500, text }
}

/// Requests that wait, by queue.
fn queues(system: &System) -> Value {
    let row = |queue: &Queue| json!({ "pending": queue.len(), "in_progress": 1 });
    json!({ "System recvQ": row(&system.inside), "Accounts recvQ": row(&system.outside) })
}

/// The `cid` of an order.
fn client(map: &Map<String, Value>) -> Result<u64, Refusal> {
    map.get("cid").and_then(Value::as_u64).ok_or_else(|| Refusal {
        code: 400,
        text: "\"cid\" must be the number of a client".to_owned(),
    })
}

fn kick(system: &System, cid: u64) -> Answer {
    let Some(handle) = system.context.registry.get(cid) else {
        return Answer::Refused(refused("no such client or leafnode id".to_owned()));
    };
    tracing::info!("cid:{cid} - closed by a request in the system account");
    handle.stop(Reason::Kicked);
    Answer::Done
}

fn lame_duck(system: &System, cid: u64) -> Answer {
    let Some(handle) = system.context.registry.get(cid) else {
        return Answer::Refused(refused("no such client id".to_owned()));
    };
    if system.context.tell_lame_duck(&handle) {
        return Answer::Done;
    }
    let text = "client does not support Lame Duck Mode or is not ready to receive the notification";
    Answer::Refused(refused(text.to_owned()))
}

/// Has whoever runs the server read its configuration again.
async fn reload(system: &System) -> Answer {
    let Some(reloads) = system.reloads.get() else {
        let text = "this server is part of another program, which reads no configuration again";
        return Answer::Refused(refused(text.to_owned()));
    };
    let (sender, outcome) = oneshot::channel();
    if reloads.try_send(ReloadRequest(sender)).is_err() {
        return Answer::Refused(refused("nobody takes requests for a reload now".to_owned()));
    }
    match tokio::time::timeout(RELOAD_MAX, outcome).await {
        Ok(Ok(Ok(()))) => Answer::Done,
        Ok(Ok(Err(why))) => Answer::Refused(refused(why)),
        Ok(Err(_)) => Answer::Refused(refused("the reload was given up".to_owned())),
        Err(_) => Answer::Refused(refused(format!("the reload takes longer than {RELOAD_MAX:?}"))),
    }
}
