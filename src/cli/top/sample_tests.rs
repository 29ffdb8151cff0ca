use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn sample(id: &str, in_msgs: u64, connz: Value, jsz: Value) -> Sample {
    let varz = json!({
        "server_id": id, "server_name": "s", "version": "2.15.1", "uptime": "1s", "now": "t", "cpu": 0.5, "mem": 1,
        "connections": 1, "total_connections": 2, "subscriptions": 3, "slow_consumers": 0,
        "in_msgs": in_msgs, "out_msgs": 0, "in_bytes": 10 * in_msgs, "out_bytes": 0,
    });
    let from = |value| serde_json::from_value(value).unwrap();
    Sample::new(
        from(varz),
        serde_json::from_value(connz).unwrap(),
        serde_json::from_value(jsz).unwrap(),
    )
}

fn connection(cid: u64, in_msgs: u64) -> Value {
    json!({
        "cid": cid, "ip": "127.0.0.1", "port": 5, "uptime": "1s", "idle": "0s", "subscriptions": 0, "pending_bytes": 0,
        "in_msgs": in_msgs, "out_msgs": 0, "in_bytes": 0, "out_bytes": 0,
    })
}

fn nothing() -> Value {
    json!({"disabled": true, "streams": 0, "consumers": 0, "messages": 0, "bytes": 0})
}

/// `after` this long later than `before`.
fn frame(before: &Sample, mut after: Sample, later: Duration, sort: Sort, rows: usize) -> Frame {
    after.at = before.at + later;
    Frame::between(Some(before), &after, sort, rows)
}

#[test]
fn rates_are_over_the_time_between_two_looks() {
    let before = sample("A", 100, json!({"connections": [connection(1, 100)]}), nothing());
    let after = sample(
        "A",
        300,
        json!({"connections": [connection(1, 150), connection(2, 9)]}),
        nothing(),
    );
    let frame = frame(&before, after, Duration::from_secs(2), Sort::Cid, 10);
    let rates = frame.rates.unwrap();
    assert_eq!((rates.in_msgs, rates.in_bytes), (100.0, 1000.0));
    assert_eq!(frame.connections[0].rates.unwrap().in_msgs, 25.0);
    assert!(frame.connections[1].rates.is_none(), "it was not there before");
    assert!(frame.jetstream.is_none());
}

#[test]
fn another_server_has_no_rates() {
    let before = sample("A", 100, json!({"connections": [connection(1, 100)]}), nothing());
    let after = sample("B", 1, json!({"connections": [connection(1, 1)]}), nothing());
    let frame = frame(&before, after, Duration::from_secs(1), Sort::Cid, 10);
    assert!(frame.rates.is_none() && frame.connections[0].rates.is_none());
}

#[test]
fn the_busiest_come_first_and_only_so_many() {
    let connz = |busy| json!({"connections": [connection(1, 1), connection(2, 5), connection(3, busy)]});
    let before = sample("A", 0, connz(7), nothing());
    let after = sample("A", 0, connz(20), nothing());
    let frame = frame(&before, after, Duration::from_secs(1), Sort::Rate, 2);
    let cids: Vec<_> = frame.connections.iter().map(|row| row.cid).collect();
    assert_eq!(cids, [3, 1]);
}

#[test]
fn streams_and_consumers_of_all_accounts() {
    let jsz = |last: u64, delivered: u64, acked: u64| {
        let consumer = |name: &str, pending: u64| {
            json!({
                "name": name, "num_ack_pending": 2, "num_redelivered": 1, "num_waiting": 4, "num_pending": pending,
                "delivered": {"consumer_seq": delivered}, "ack_floor": {"consumer_seq": acked},
            })
        };
        let state = |last| json!({"messages": 9, "bytes": 90, "first_seq": 1, "last_seq": last});
        json!({
            "streams": 2, "consumers": 2, "messages": 18, "bytes": 180,
            "account_details": [
                {"name": "$G", "stream_detail": [
                    {"name": "quiet", "state": state(3), "consumer_detail": null},
                    {"name": "busy", "state": state(last), "consumer_detail": [consumer("a", 1), consumer("b", 5)]},
                ]},
                {"name": "EMPTY"},
            ],
        })
    };
    let before = sample("A", 0, json!({"connections": []}), jsz(10, 10, 10));
    let after = sample("A", 0, json!({"connections": []}), jsz(30, 14, 12));
    let frame = frame(&before, after, Duration::from_secs(1), Sort::Cid, 10);
    let streams: Vec<_> = frame
        .streams
        .iter()
        .map(|row| (row.name.as_str(), row.stored_rate))
        .collect();
    assert_eq!(streams, [("busy", Some(20.0)), ("quiet", Some(0.0))]);
    let consumers: Vec<_> = frame
        .consumers
        .iter()
        .map(|row| (row.name.as_str(), row.pending, row.delivered_rate, row.acked_rate))
        .collect();
    assert_eq!(
        consumers,
        [("b", 5, Some(4.0), Some(2.0)), ("a", 1, Some(4.0), Some(2.0))]
    );
}
