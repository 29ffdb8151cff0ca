//! `kill -9` of the server in the middle of delivering and acking, again and again over the same store.
//!
//! A ledger knows what was confirmed: to publishers, and to those who acked with a reply. What must hold after every
//! restart: nothing comes again whose ack was confirmed, everything else comes at least once, and the streams that wait
//! for acks hold what is not done and nothing that is. `MESH_TEST_KILL_ROUNDS` sets the number of lives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, Process, Wire};

use super::client::{Client, Message, parse};

/// Lives that end by a kill.
const ROUNDS: u64 = 4;
/// Publishes and acks under way at a time.
const WINDOW: usize = 64;
/// Stream and consumer of those who work.
const WORKERS: [(&str, &str); 4] = [("W", "C"), ("I", "A"), ("I", "B"), ("L", "D")];

type Seqs = BTreeSet<u64>;

/// What has been said and what has been confirmed, over all lives.
#[derive(Default)]
struct Ledger {
    /// By stream, confirmed to the publisher.
    published: BTreeMap<&'static str, Seqs>,
    /// By consumer.
    delivered: BTreeMap<&'static str, Seqs>,
    acked: BTreeMap<&'static str, Seqs>,
    confirmed: BTreeMap<&'static str, Seqs>,
    broken: Vec<String>,
}

type Shared = Arc<Mutex<Ledger>>;

/// Calls `each` with every message that comes, until the server is gone or `each` says that it is enough.
fn read_all(wire: &mut Wire, mut each: impl FnMut(&mut Wire, Message) -> bool) {
    loop {
        while let Some((message, length)) = parse(wire.received()) {
            let mut rest = wire.take();
            rest.drain(..length);
            wire.put_back(rest);
            if message.is_some_and(|message| !each(wire, message)) {
                return;
            }
        }
        if wire.ended() {
            return;
        }
        wire.read_some(Duration::from_millis(200));
    }
}

/// Publishes to a stream as long as the server lives.
fn publish(address: &str, stream: &'static str, ledger: &Shared) {
    let mut wire = Wire::quiet(address, r#""headers":true,"no_responders":true"#);
    wire.send(format!("SUB _p.{stream} 1\r\n"));
    let line = format!("PUB {}.x _p.{stream} 5\r\nhello\r\n", stream.to_lowercase());
    wire.send(line.repeat(WINDOW));
    read_all(&mut wire, |wire, message| {
        let ack: Value = serde_json::from_str(&message.payload).expect("an ack");
        let seq = ack["seq"].as_u64().unwrap_or_else(|| panic!("{ack}"));
        let mut ledger = ledger.lock().unwrap();
        if !ledger.published.entry(stream).or_default().insert(seq) {
            ledger.broken.push(format!("{stream} {seq} was given twice"));
        }
        wire.send(&line);
        true
    });
}

/// Works for a consumer as long as the server lives; leaves some undone at first.
fn work(address: &str, stream: &'static str, consumer: &'static str, ledger: &Shared, thorough: bool) {
    let mut wire = Wire::quiet(address, r#""headers":true,"no_responders":true"#);
    wire.send(format!("SUB _d.{consumer} 1\r\nSUB _a.{consumer}.* 2\r\n"));
    let confirmation = format!("_a.{consumer}.");
    let ask = format!(r#"{{"batch":{WINDOW},"expires":1000000000}}"#);
    let pull = format!(
        "PUB $JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer} _d.{consumer} {}\r\n{ask}\r\n",
        ask.len()
    );
    wire.send(&pull);
    let mut taken = 0;
    read_all(&mut wire, |wire, message| {
        let mut ledger = ledger.lock().unwrap();
        if let Some(seq) = message.subject.strip_prefix(&confirmation) {
            let seq = seq.parse().expect("a sequence");
            ledger.confirmed.entry(consumer).or_default().insert(seq);
            return true;
        }
        if message.headers.is_empty() {
            let seq: u64 = message
                .reply
                .split('.')
                .nth(5)
                .expect("an ack subject")
                .parse()
                .expect("a sequence");
            if ledger.confirmed.entry(consumer).or_default().contains(&seq) {
                ledger
                    .broken
                    .push(format!("{consumer} got {seq} after its ack was confirmed"));
            }
            let again = !ledger.delivered.entry(consumer).or_default().insert(seq);
            if again || thorough || !seq.is_multiple_of(10) {
                ledger.acked.entry(consumer).or_default().insert(seq);
                wire.send(format!("PUB {} {confirmation}{seq} 4\r\n+ACK\r\n", message.reply));
            }
            taken += 1;
            if taken < WINDOW {
                return true;
            }
        } else if message.headers.contains(" 100 ") {
            return true;
        } else if message.headers.contains(" 409 Consumer Deleted") {
            return false;
        }
        taken = 0;
        wire.send(&pull);
        true
    });
}

fn start(store: &Path) -> Process {
    let store = store.to_str().expect("UTF-8");
    Process::mesh(&["--no-mesh", "--store-dir", store])
}

fn create_all(client: &mut Client) {
    for (name, retention) in [("W", "workqueue"), ("I", "interest"), ("L", "limits")] {
        let subject = name.to_lowercase();
        client.act(
            "make",
            &format!(r#"STREAM.CREATE.{name} {{"name":"{name}","subjects":["{subject}.>"],"retention":"{retention}"}}"#),
        );
    }
    for (stream, consumer) in WORKERS {
        let config = format!(
            r#"{{"name":"{consumer}","durable_name":"{consumer}","ack_policy":"explicit","ack_wait":700000000}}"#
        );
        client.act(
            "make",
            &format!(r#"CONSUMER.CREATE.{stream}.{consumer} {{"stream_name":"{stream}","config":{config}}}"#),
        );
    }
}

fn api(client: &mut Client, subject: &str, body: &str) -> Value {
    let answer = client.request(&format!("$JS.API.{subject}"), "", body);
    serde_json::from_str(&answer.payload).expect("JSON")
}

/// What a stream holds.
fn held(client: &mut Client, stream: &str) -> Seqs {
    let info = api(
        client,
        &format!("STREAM.INFO.{stream}"),
        r#"{"deleted_details":true}"#,
    );
    let state = &info["state"];
    if state["messages"] == 0 {
        return Seqs::new();
    }
    let mut held: Seqs =
        (state["first_seq"].as_u64().unwrap()..=state["last_seq"].as_u64().unwrap()).collect();
    for gone in state["deleted"].as_array().into_iter().flatten() {
        held.remove(&gone.as_u64().unwrap());
    }
    assert_eq!(held.len() as u64, state["messages"], "{state}");
    held
}

/// Holds the streams against the ledger, right after a start.
fn check(client: &mut Client, ledger: &Shared) {
    for stream in ["W", "I", "L"] {
        let held = held(client, stream);
        let ledger = &mut *ledger.lock().unwrap();
        let consumers: Vec<&str> = WORKERS
            .iter()
            .filter(|worker| worker.0 == stream)
            .map(|worker| worker.1)
            .collect();
        let by_all = |acks: &BTreeMap<&str, Seqs>, seq: &u64| {
            let mut consumers = consumers.iter();
            consumers.all(|consumer| acks.get(consumer).is_some_and(|seqs| seqs.contains(seq)))
        };
        for seq in ledger.published.get(stream).into_iter().flatten() {
            let may_be_gone = stream != "L" && by_all(&ledger.acked, seq);
            let must_be_gone = stream != "L" && by_all(&ledger.confirmed, seq);
            if held.contains(seq) && must_be_gone {
                ledger
                    .broken
                    .push(format!("{stream} still holds {seq}, which is done"));
            }
            if !held.contains(seq) && !may_be_gone {
                ledger.broken.push(format!("{stream} has lost {seq}"));
            }
        }
    }
    let broken = std::mem::take(&mut ledger.lock().unwrap().broken);
    assert!(
        broken.is_empty(),
        "{} broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// Lets everyone finish, and says that nothing is left.
fn finish(client: &mut Client, ledger: &Shared) {
    let deadline = Instant::now() + PATIENCE;
    for (stream, consumer) in WORKERS {
        loop {
            let info = api(client, &format!("CONSUMER.INFO.{stream}.{consumer}"), "");
            if info["num_pending"] == 0 && info["num_ack_pending"] == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{info}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(held(client, "W").len(), 0);
    assert_eq!(held(client, "I").len(), 0);
    let ledger = ledger.lock().unwrap();
    for (stream, consumer) in WORKERS {
        let published = &ledger.published[stream];
        let missed: Vec<_> = published.difference(&ledger.delivered[consumer]).collect();
        assert!(missed.is_empty(), "{consumer} of {stream} never got {missed:?}");
        assert!(published.len() > 50, "only {} in {stream}", published.len());
        assert!(ledger.confirmed[consumer].len() > 50, "{consumer}");
    }
}

#[test]
fn no_confirmed_ack_is_forgotten_and_no_message_is_lost() {
    let rounds =
        std::env::var("MESH_TEST_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let store = tempfile::tempdir().unwrap();
    let ledger = Shared::default();
    for round in 0..=rounds {
        let last = round == rounds;
        let mut server = start(store.path());
        let address = server.address().to_owned();
        let mut client = Client::connect(&address);
        if round == 0 {
            create_all(&mut client);
        }
        check(&mut client, &ledger);
        std::thread::scope(|scope| {
            let (address, ledger) = (&address, &ledger);
            for (stream, consumer) in WORKERS {
                scope.spawn(move || work(address, stream, consumer, ledger, last));
            }
            if last {
                finish(&mut client, ledger);
            } else {
                for stream in ["W", "I", "L"] {
                    scope.spawn(move || publish(address, stream, ledger));
                }
                std::thread::sleep(Duration::from_millis(250 + round * 173 % 400));
            }
            server.signal(Signal::KILL);
            server.wait();
        });
        check_broken(&ledger);
    }
}

fn check_broken(ledger: &Shared) {
    let ledger = ledger.lock().unwrap();
    assert!(ledger.broken.is_empty(), "{}", ledger.broken.join("\n"));
}
