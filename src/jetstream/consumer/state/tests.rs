//! What the model does not know: statuses and their moments, heartbeats, replay pace, rate, skip lists,
//! inactivity, flow-control acks. Expected statuses are those nats-server 2.15.1 gave on the wire.

use std::cell::Cell;

use super::*;
use crate::jetstream::consumer::ack::Ack;
use crate::jetstream::consumer::duration::{MILLISECOND, SECOND};

/// Everybody listens until nobody does.
#[derive(Default)]
struct Listeners {
    gone: Cell<bool>,
}

impl Interest for Listeners {
    fn generation(&self) -> u64 {
        self.gone.get().into()
    }
    fn listens(&self, _: &[u8]) -> bool {
        !self.gone.get()
    }
}

struct Bench {
    consumer: Consumer,
    /// Sequences 1 to here exist; all are wanted. The message at n was stored at n seconds.
    last: u64,
    now: i64,
    listeners: Listeners,
    out: Vec<Action>,
}

fn options() -> ConsumerOptions<'static> {
    ConsumerOptions {
        stream: "S",
        name: "C",
        ack_prefix: AckPrefix::new("S", "C"),
        reports_acks: false,
        durable_state: false,
        message_bytes_max: 1024,
        active: true,
        seed: 3,
    }
}

impl Bench {
    fn new(config: &str, last: u64) -> Bench {
        let start = Start {
            next_seq: 1,
            skip: Vec::new(),
            last_seq: last,
            num_pending: last,
        };
        Bench::starting(config, start)
    }

    fn starting(config: &str, start: Start) -> Bench {
        let mut config: ConsumerConfig = serde_json::from_str(config).unwrap();
        if !config.is_push() && config.max_waiting == 0 {
            config.max_waiting = 512;
        }
        let last = start.last_seq;
        let consumer = Consumer::new(&config, &options(), start, 0);
        Bench {
            consumer,
            last,
            now: 0,
            listeners: Listeners::default(),
            out: Vec::new(),
        }
    }

    /// Pumps and says what came out: `seq>to` for a delivery, the header block for a status.
    fn pump(&mut self) -> Vec<String> {
        loop {
            let seq = match self.consumer.want(self.now, &mut self.out) {
                Want::Nothing => break,
                Want::From(seq) if seq > self.last => {
                    self.consumer.caught_up(self.last, &mut self.out);
                    break;
                }
                Want::Message(seq) | Want::From(seq) => seq,
            };
            // Subject 3, ack subject 26 or so, body 50.
            let message = Offered {
                seq,
                timestamp: seq as i64 * SECOND,
                subject_len: 3,
                body_len: 50,
            };
            self.consumer
                .offer(&message, self.now, &self.listeners, &mut self.out);
        }
        self.said()
    }

    fn said(&mut self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let say = |action| match action {
            Action::Deliver(delivery) => format!("{}>{}", delivery.numbers.stream_seq, text(&delivery.to)),
            Action::Status { status, .. } => {
                let mut block = Vec::new();
                status.write(&mut block);
                text(&block)
                    .trim_start_matches("NATS/1.0 ")
                    .trim_end()
                    .replace("\r\n", "|")
            }
            other => format!("{other:?}"),
        };
        self.out.drain(..).map(say).collect()
    }

    fn pull(&mut self, body: &str, to: &'static str) -> Vec<String> {
        let to = Bytes::from_static(to.as_bytes());
        self.consumer
            .pull(body.as_bytes(), to, self.now, &self.listeners, &mut self.out);
        self.pump()
    }

    fn at(&mut self, now: i64) -> Vec<String> {
        self.now = now;
        self.consumer.tick(now, &self.listeners, &mut self.out);
        self.pump()
    }

    fn append(&mut self) {
        self.last += 1;
        assert!(self.consumer.appended(1, self.last));
    }

    fn ack(&mut self, stream_seq: u64) -> Vec<String> {
        let numbers = AckNumbers {
            deliveries: 1,
            stream_seq,
            consumer_seq: stream_seq,
            timestamp: 0,
            num_pending: 0,
        };
        self.consumer
            .ack(&numbers, Ack::Ack, None, self.now, &self.listeners, &mut self.out);
        self.pump()
    }
}

const EXPLICIT: &str = r#"{"ack_policy":"explicit","ack_wait":30000000000}"#;
const CAPPED: &str =
    r#"{"ack_policy":"explicit","max_batch":5,"max_expires":1000000000,"max_bytes":100,"max_waiting":1}"#;
const LEFT: &str = "Nats-Pending-Messages: ";

#[test]
fn pull_statuses_at_once() {
    for (config, messages, body, expected) in [
        (
            EXPLICIT,
            0,
            r#"{"batch":1,"no_wait":true}"#,
            vec!["404 No Messages"],
        ),
        (
            EXPLICIT,
            0,
            r#"{"batch":1,"no_wait":true,"expires":1000}"#,
            vec![],
        ),
        (EXPLICIT, 0, r#"{"batch":1}"#, vec![]),
        (
            EXPLICIT,
            1,
            r#"{"batch":3,"no_wait":true}"#,
            vec!["1>r", "404 No Messages"],
        ),
        (
            EXPLICIT,
            1,
            r#"{"batch":3,"no_wait":true,"expires":1000}"#,
            vec!["1>r", "404 No Messages"],
        ),
        (EXPLICIT, 3, "", vec!["1>r"]),
        (EXPLICIT, 3, "2", vec!["1>r", "2>r"]),
        (EXPLICIT, 3, "0", vec!["1>r"]),
        (EXPLICIT, 3, "nonsense", vec!["1>r"]),
        (
            EXPLICIT,
            0,
            r#"{"expires":100,"idle_heartbeat":51}"#,
            vec!["400 Bad Request - heartbeat value too large"],
        ),
        (
            EXPLICIT,
            0,
            r#"{"min_pending":1}"#,
            vec!["400 Bad Request - Not a Overflow Priority consumer"],
        ),
        (
            EXPLICIT,
            0,
            r#"{"id":"x"}"#,
            vec!["400 Bad Request - Not a Pinned Client Priority consumer"],
        ),
        (
            EXPLICIT,
            0,
            r#"{"priority":10}"#,
            vec!["400 Bad Request - Priority must be between 0 and 9"],
        ),
        (
            CAPPED,
            0,
            r#"{"batch":6}"#,
            vec!["409 Exceeded MaxRequestBatch of 5"],
        ),
        (
            CAPPED,
            0,
            r#"{"expires":2000000000}"#,
            vec!["409 Exceeded MaxRequestExpires of 1s"],
        ),
        (
            CAPPED,
            0,
            r#"{"max_bytes":101}"#,
            vec!["409 Exceeded MaxRequestMaxBytes of 100"],
        ),
        (
            r#"{"deliver_subject":"out"}"#,
            0,
            "1",
            vec!["409 Consumer is push based"],
        ),
    ] {
        assert_eq!(Bench::new(config, messages).pull(body, "r"), expected, "{body}");
    }
    let mut garbage = Bench::new(EXPLICIT, 0);
    assert!(garbage.pull(r#"{"batch":"x"}"#, "r")[0].starts_with("400 Bad Request - "));
}

#[test]
fn pull_statuses_in_time() {
    let mut bench = Bench::new(EXPLICIT, 1);
    assert_eq!(
        bench.pull(r#"{"batch":3,"expires":1000,"max_bytes":500}"#, "r"),
        ["1>r"]
    );
    assert!(bench.at(1000).is_empty());
    assert_eq!(bench.consumer.next_deadline(), Some(1001));
    let said = bench.at(1001);
    // 500 less subject 3, body 50 and the ack subject `$JS.ACK.S.C.1.1.1.1000000000.0`.
    assert_eq!(
        said,
        [format!("408 Request Timeout|{LEFT}2|Nats-Pending-Bytes: 417")]
    );

    let mut bench = Bench::new(EXPLICIT, 9);
    let said = bench.pull(r#"{"batch":2,"max_bytes":100,"expires":1000}"#, "r");
    assert_eq!(
        said,
        [
            "1>r",
            &format!("409 Message Size Exceeds MaxBytes|{LEFT}1|Nats-Pending-Bytes: 17")
        ]
    );
    let said = bench.pull(r#"{"batch":1,"max_bytes":1000,"expires":1000}"#, "r");
    assert_eq!(
        said,
        [
            "2>r",
            &format!("409 Batch Completed|{LEFT}0|Nats-Pending-Bytes: 917")
        ]
    );
    // Exactly used up: nothing to say.
    assert_eq!(
        bench.pull(r#"{"batch":5,"max_bytes":83,"expires":1000}"#, "r"),
        ["3>r"]
    );

    let mut bench = Bench::new(EXPLICIT, 0);
    assert!(
        bench
            .pull(r#"{"batch":1,"expires":1000,"idle_heartbeat":300}"#, "r")
            .is_empty()
    );
    let beat = "100 Idle Heartbeat|Nats-Last-Consumer: 0|Nats-Last-Stream: 0";
    assert!(bench.at(299).is_empty());
    assert_eq!(bench.at(300), [beat]);
    assert_eq!(bench.at(600), [beat]);
    bench.append();
    assert_eq!(bench.pump(), ["1>r"]);

    let mut bench = Bench::new(CAPPED, 0);
    assert!(bench.pull(r#"{"expires":1000000}"#, "one").is_empty());
    assert_eq!(
        bench.pull(r#"{"expires":1000000}"#, "two"),
        ["409 Exceeded MaxWaiting"]
    );
    assert!(
        bench
            .pull(r#"{"expires":1000000,"idle_heartbeat":500}"#, "three")
            .is_empty()
    );
    assert_eq!(bench.consumer.state().num_waiting, 1);
    // Those who went make room, looked for once a second.
    bench.listeners.gone.set(true);
    bench.now = 2 * SECOND;
    bench.pull(r#"{"expires":1000000}"#, "four");
    assert_eq!(bench.said(), Vec::<String>::new());

    let mut bench = Bench::new(r#"{"ack_policy":"explicit","max_ack_pending":1}"#, 3);
    assert_eq!(bench.pull(r#"{"batch":9,"expires":1000}"#, "r"), ["1>r"]);
    assert_eq!(
        bench.pull(r#"{"batch":1,"no_wait":true}"#, "s"),
        ["408 Requests Pending"]
    );
    assert_eq!(bench.ack(1), ["2>r"]);
    bench.consumer.delete(&mut bench.out);
    assert_eq!(bench.said(), ["409 Consumer Deleted", "Advisory(Deleted)"]);

    let mut bench = Bench::new(EXPLICIT, 0);
    bench.pull(r#"{"batch":7,"max_bytes":10}"#, "r");
    bench.consumer.shut_down(&mut bench.out);
    assert_eq!(
        bench.said(),
        [format!("409 Server Shutdown|{LEFT}7|Nats-Pending-Bytes: 10")]
    );
}

#[test]
fn requests_take_turns_and_the_absent_lose_theirs() {
    let mut bench = Bench::new(EXPLICIT, 0);
    bench.pull("3", "a");
    bench.pull("2", "b");
    for _ in 0..6 {
        bench.append();
    }
    assert_eq!(bench.pump(), ["1>a", "2>b", "3>a", "4>b", "5>a"]);
    bench.pull("1", "c");
    bench.pull("1", "d");
    assert_eq!(bench.consumer.state().num_waiting, 1);
    bench.listeners.gone.set(true);
    bench.append();
    assert!(bench.pump().is_empty());
    assert_eq!(
        (
            bench.consumer.state().num_waiting,
            bench.consumer.state().num_pending
        ),
        (0, 1)
    );
}

#[test]
fn pause_and_push_heartbeat() {
    let mut bench = Bench::new(r#"{"deliver_subject":"out","idle_heartbeat":1000}"#, 2);
    bench.consumer.pause(Some(5_500), 0, &mut bench.out);
    assert_eq!(bench.pump(), ["Advisory(Paused { paused: true, until: 5500 })"]);
    assert!(bench.at(999).is_empty());
    assert_eq!(bench.at(1000).len(), 1);
    let said = bench.at(5_500);
    assert_eq!(said[0], "Advisory(Paused { paused: false, until: 5500 })");
    assert_eq!(said[2..], ["1>out", "2>out"]);
    assert_eq!(
        bench.at(6_500),
        ["100 Idle Heartbeat|Nats-Last-Consumer: 2|Nats-Last-Stream: 2"]
    );
    bench.consumer.interest(false, 6_500);
    bench.append();
    assert!(bench.at(9_000).is_empty());
    bench.consumer.interest(true, 9_000);
    assert_eq!(bench.pump(), ["3>out"]);
}

#[test]
fn replay_pace_and_rate() {
    let mut bench = Bench::new(r#"{"deliver_subject":"out","replay_policy":"original"}"#, 3);
    assert_eq!(bench.pump(), ["1>out"]);
    assert_eq!(bench.consumer.next_deadline(), Some(SECOND));
    assert!(bench.at(SECOND - 1).is_empty());
    assert_eq!(bench.at(SECOND), ["2>out"]);
    bench.append();
    assert_eq!(
        bench.at(3 * SECOND),
        ["3>out", "4>out"],
        "what came later is not paced"
    );

    // 1,000 bytes a second, a burst of 1,024; a message is 83 bytes and the burst lets 12 through.
    let mut bench = Bench::new(r#"{"deliver_subject":"out","rate_limit_bps":8000}"#, 100);
    assert_eq!(bench.pump().len(), 12);
    let mut sent = 12;
    while bench.now < 2 * SECOND {
        let next = bench.consumer.next_deadline().unwrap();
        assert!(next > bench.now);
        sent += bench.at(next).len();
    }
    assert!((35..=37).contains(&sent), "{sent} after two seconds");
}

#[test]
fn last_per_subject_delivers_the_list_and_goes_on() {
    let config = r#"{"deliver_subject":"out","deliver_policy":"last_per_subject","ack_policy":"explicit"}"#;
    let start = Start {
        next_seq: 3,
        skip: vec![3, 5, 8],
        last_seq: 9,
        num_pending: 3,
    };
    let mut bench = Bench::starting(config, start);
    bench.append();
    assert_eq!(bench.consumer.state().num_pending, 4);
    bench.consumer.message_deleted(5, true, 0, &mut bench.out);
    bench.consumer.message_deleted(6, true, 0, &mut bench.out);
    assert_eq!(bench.consumer.state().num_pending, 3);
    assert_eq!(bench.pump(), ["3>out", "8>out", "10>out"]);
    assert_eq!(bench.consumer.state().num_pending, 0);
}

#[test]
fn inactivity() {
    let config = r#"{"ack_policy":"explicit","ack_wait":2000000000,"inactive_threshold":5000000000}"#;
    let mut bench = Bench::new(config, 0);
    assert!(bench.at(5 * SECOND - 1).is_empty());
    assert_eq!(bench.at(5 * SECOND), ["Inactive"]);

    let mut bench = Bench::new(config, 1);
    bench.at(4 * SECOND);
    assert_eq!(bench.pull("", "r"), ["1>r"]);
    assert!(bench.at(6 * SECOND).is_empty());
    assert!(
        bench.at(9 * SECOND).is_empty(),
        "its reader may be at work until 6 s, and 5 s from there"
    );
    assert_eq!(bench.at(11 * SECOND), ["Inactive"]);

    let mut bench = Bench::new(config, 0);
    bench.pull("", "r");
    assert!(
        bench.at(5 * SECOND).is_empty() && bench.at(10 * SECOND).is_empty(),
        "a request waits"
    );
    bench.listeners.gone.set(true);
    assert_eq!(bench.at(15 * SECOND), ["Inactive"]);

    let mut bench = Bench::new(r#"{"deliver_subject":"out","inactive_threshold":5000000000}"#, 0);
    assert_eq!(bench.consumer.next_deadline(), None);
    bench.consumer.interest(false, SECOND);
    assert!(bench.at(5 * SECOND).is_empty());
    bench.consumer.interest(true, 5 * SECOND);
    assert!(bench.at(50 * SECOND).is_empty());
    bench.consumer.interest(false, 50 * SECOND);
    assert_eq!(bench.at(55 * SECOND), ["Inactive"]);
}

#[test]
fn flow_control_acks() {
    let config = r#"{"deliver_subject":"out","ack_policy":"flow_control","flow_control":true,
        "idle_heartbeat":1000000000,"max_ack_pending":3}"#;
    let mut bench = Bench::new(config, 9);
    let said = bench.pump();
    assert_eq!(said, ["1>out", "2>out", "3>out", "100 FlowControl Request"]);
    let beat = bench.at(SECOND);
    let (head, subject) = beat[0].split_once("|Nats-Consumer-Stalled: ").unwrap();
    assert_eq!(
        head,
        "100 Idle Heartbeat|Nats-Last-Consumer: 3|Nats-Last-Stream: 3"
    );
    let now = bench.now;
    bench
        .consumer
        .flow_control_answered(b"$JS.FC.S.C.....", Some(2), now, &mut bench.out);
    assert_eq!(bench.consumer.state().num_ack_pending, 3);
    bench
        .consumer
        .flow_control_answered(subject.as_bytes(), Some(2), now, &mut bench.out);
    assert_eq!(
        bench.consumer.state().ack_floor,
        Position {
            consumer: 2,
            stream: 2
        }
    );
    assert_eq!(bench.pump()[..2], ["4>out", "5>out"]);
    assert_eq!(
        bench.consumer.next_deadline(),
        Some(2 * SECOND),
        "only the heartbeat: no ack wait"
    );
}

#[test]
fn samples_and_reasons() {
    let config =
        r#"{"deliver_subject":"out","ack_policy":"explicit","sample_freq":"100%","ack_wait":9000000000}"#;
    let mut bench = Bench::new(config, 2);
    bench.pump();
    bench.now = 70;
    assert_eq!(
        bench.ack(1),
        ["Advisory(AckSampled { consumer_seq: 1, stream_seq: 1, deliveries: 1, ack_time: 70 })"]
    );
    assert!(bench.ack(1).is_empty(), "an ack of what is acked is no sample");
    let numbers = AckNumbers {
        deliveries: 1,
        stream_seq: 2,
        consumer_seq: 2,
        timestamp: 0,
        num_pending: 0,
    };
    let long = "é".repeat(5_000);
    bench.consumer.ack(
        &numbers,
        Ack::Term(long),
        None,
        70,
        &bench.listeners,
        &mut bench.out,
    );
    let Action::Advisory(Advisory::Terminated { reason, .. }) = &bench.out[0] else {
        panic!()
    };
    assert_eq!(reason.len(), 512);
}

#[test]
fn ack_wait_changes_reach_what_is_in_flight() {
    let mut bench = Bench::new(
        r#"{"deliver_subject":"out","ack_policy":"explicit","ack_wait":9000000000}"#,
        1,
    );
    bench.pump();
    let config: ConsumerConfig =
        serde_json::from_str(r#"{"deliver_subject":"out","ack_policy":"explicit","ack_wait":1000000}"#)
            .unwrap();
    bench.consumer.reconfigure(&config, None, 0);
    assert!(bench.at(MILLISECOND - 1).is_empty());
    assert_eq!(bench.at(MILLISECOND), ["1>out"]);
}
