use bytes::Bytes;

use super::*;
use crate::mesh::{Catalog, Envelope};

fn event(stream_seq: u64, second: i64, name: &str, body: Value) -> Received {
    Received {
        stream_seq,
        stored: Timestamp::from_second(1_700_000_000 + second).unwrap(),
        subject: format!("mesh.x.{name}"),
        envelope: Envelope {
            event: Some(name.to_owned()),
            instance: Some(format!("i{}", stream_seq % 2)),
            session: Some("S".to_owned()),
            ..Envelope::default()
        },
        marker: None,
        body: Bytes::from(body.to_string()),
        pending: 0,
        deliveries: 1,
        consumer_seq: stream_seq,
    }
}

fn aha(stream_seq: u64, second: i64, thread: &str) -> Received {
    event(
        stream_seq,
        second,
        "aha_moment",
        json!({"text": format!("n{stream_seq}"), "thread": thread}),
    )
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn groups(at_least: usize) -> Groups {
    Groups::new(Duration::from_secs(10), at_least)
}

/// Thread and sources of what is over, in order.
fn over(groups: &mut Groups) -> Vec<(String, Vec<u64>)> {
    let over = std::mem::take(&mut groups.over).into_iter();
    over.map(|group| {
        let sources = group.sources.iter().map(|source| source.stream_seq).collect();
        (group.thread, sources)
    })
    .collect()
}

fn of(thread: &str, sources: &[u64]) -> (String, Vec<u64>) {
    (thread.to_owned(), sources.to_vec())
}

#[test]
fn a_window_begins_with_its_first_event() {
    let mut groups = groups(1);
    for event in [aha(1, 0, "T"), aha(2, 3, "U"), aha(3, 9, "T")] {
        groups.take(&event);
    }
    assert_eq!(over(&mut groups), []);
    groups.take(&aha(4, 10, "T"));
    assert_eq!(over(&mut groups), [of("T", &[1, 3])]);
    assert_eq!(groups.next_end(), Some(second(13)));
    groups.close(second(12));
    assert_eq!(over(&mut groups), []);
    groups.close(second(20));
    assert_eq!(over(&mut groups), [of("U", &[2]), of("T", &[4])]);
    assert_eq!(groups.next_end(), None);
}

#[test]
fn an_event_is_in_once_for_each_of_its_threads() {
    let mut groups = groups(1);
    let resonance = event(
        1,
        0,
        "resonance_detected",
        json!({"pattern": "p", "threads": ["T", "U", "T", 7]}),
    );
    for _ in 0..2 {
        groups.take(&resonance);
    }
    groups.take(&event(
        2,
        1,
        "conflict_alert",
        json!({"key": "k", "instances": ["a", "b"]}),
    ));
    groups.take(&event(3, 2, "aha_moment", json!({"text": "x"})));
    groups.take(&event(4, 3, "coherence_alert", json!([])));
    groups.close(second(100));
    let over = over(&mut groups);
    assert_eq!(over[..3], [of("7", &[1]), of("T", &[1]), of("U", &[1])]);
    assert_eq!(over[3..], [of("k", &[2]), of("S", &[3, 4])]);
}

#[test]
fn what_was_told_of_is_not_told_again() {
    let mut groups = groups(1);
    groups.name([("T".to_owned(), 1), ("T".to_owned(), 2)].into());
    for event in [
        aha(1, 0, "T"),
        aha(2, 1, "T"),
        event(3, 2, "resonance_detected", json!({"threads": ["T", "U"]})),
    ] {
        groups.take(&event);
    }
    groups.close(second(100));
    assert_eq!(over(&mut groups), [of("T", &[3]), of("U", &[3])]);
    assert!(groups.named.is_empty());
}

#[test]
fn a_group_is_full_and_groups_are_counted() {
    let mut groups = groups(2);
    for seq in 1..=EVENTS_MAX as u64 + 1 {
        groups.take(&aha(seq, 0, "T"));
    }
    let full = over(&mut groups);
    assert_eq!((full.len(), full[0].1.len()), (1, EVENTS_MAX));
    groups.close(second(100));
    // The one that was left is less than was asked for.
    assert_eq!(over(&mut groups), []);
    for seq in 0..=GROUPS_MAX as u64 {
        groups.take(&aha(1000 + seq, 200, &format!("T{seq:05}")));
    }
    assert_eq!((groups.open.len(), groups.ends.len()), (GROUPS_MAX, GROUPS_MAX));
    assert!(!groups.open.contains_key("T00000"));
}

#[test]
fn a_stream_made_anew_begins_anew() {
    let mut groups = groups(1);
    groups.take(&aha(500, 0, "T"));
    groups.take(&aha(1, 5, "T"));
    groups.close(second(100));
    assert_eq!(over(&mut groups), [of("T", &[1])]);
}

#[test]
fn the_synthesis_fits_the_catalog() {
    let mut groups = groups(1);
    groups.take(&aha(1, 0, "T"));
    groups.take(&event(
        2,
        1,
        "resonance_detected",
        json!({"pattern": "p".repeat(1000), "threads": ["T"]}),
    ));
    groups.close(second(10));
    let group = groups.over.pop_front().unwrap();
    let body = group.body();
    let catalog = Catalog::builtin();
    catalog
        .get(SYNTHESIS)
        .unwrap()
        .check(body.to_string().as_bytes())
        .unwrap();
    assert_eq!(
        body["sources"][0],
        json!({"stream_seq": 1, "event": "aha_moment", "instance": "i1", "session": "S"})
    );
    assert_eq!(
        (&body["thread"], &body["instances"]),
        (&json!("T"), &json!(["i0", "i1"]))
    );
    assert_eq!(body["until"], second(10).to_string());
    let text = body["text"].as_str().unwrap();
    assert!(
        text.starts_with("T: 1 aha_moment, 1 resonance_detected from i0, i1: n1; ppp"),
        "{text}"
    );
    assert!(text.len() < 300, "{text}");
    assert!(
        group.id().starts_with("synthesis.1.1700000000000000000."),
        "{}",
        group.id()
    );
}
