use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::mesh::Envelope;
use crate::mesh::conflicts::Path;

const SUBJECT: &str = "mesh.fo.insight";

fn rule(between: Between) -> Rule {
    let path = |text| Path::parse(text).unwrap();
    Rule {
        name: "test".to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        key: vec![path("key")],
        base: Some(path("base")),
        outcome: vec![path("outcome")],
        seen: vec![path("seen"), path("seen_of")],
        window: Duration::from_secs(10),
        between,
    }
}

fn detector(rule: Rule) -> Detector {
    Detector::new(&Rules::of(vec![rule]))
}

/// An event of `who` (instance, or instance/session), `second` after the first possible one.
fn event(stream_seq: u64, second: i64, who: &str, body: Value) -> Received {
    let (instance, session) = match who.split_once('/') {
        Some((instance, session)) => (instance, Some(session.to_owned())),
        None => (who, None),
    };
    Received {
        stream_seq,
        stored: Timestamp::from_second(1_700_000_000 + second).unwrap(),
        subject: SUBJECT.to_owned(),
        envelope: Envelope {
            instance: Some(instance.to_owned()),
            session,
            seq: Some(100 + stream_seq),
            ..Envelope::default()
        },
        marker: None,
        body: Bytes::from(body.to_string()),
        pending: 0,
        deliveries: 1,
        consumer_seq: stream_seq,
    }
}

/// The pairs of places in the stream that are told of.
fn told(detector: &mut Detector, events: &[Received]) -> Vec<(u64, u64)> {
    let mut told = Vec::new();
    for event in events {
        let conflicts = detector.take(event);
        told.extend(
            conflicts
                .iter()
                .map(|conflict| (conflict.first.stream_seq, conflict.second.stream_seq)),
        );
    }
    told
}

/// Events as (second, who, body), numbered from 1.
fn numbered(events: &[(i64, &str, Value)]) -> Vec<Received> {
    let numbered = events.iter().zip(1..);
    numbered
        .map(|((second, who, body), seq)| event(seq, *second, who, body.clone()))
        .collect()
}

fn acts(outcome: impl Into<Value>) -> Value {
    json!({"key": "k", "outcome": outcome.into()})
}

fn with(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

#[test]
fn what_is_a_conflict_and_what_is_not() {
    let pair = vec![(1, 2)];
    for (what, events, expected) in [
        (
            "two at odds",
            vec![(0, "a", acts(1)), (10, "b", acts(2))],
            pair.clone(),
        ),
        (
            "too far apart",
            vec![(0, "a", acts(1)), (11, "b", acts(2))],
            vec![],
        ),
        ("of one mind", vec![(0, "a", acts(1)), (1, "b", acts(1))], vec![]),
        ("one alone", vec![(0, "a", acts(1)), (1, "a", acts(2))], vec![]),
        (
            "fields in another order are no difference",
            vec![
                (0, "a", acts(json!({"x": 1, "y": 2}))),
                (1, "b", acts(json!({"y": 2, "x": 1}))),
            ],
            vec![],
        ),
        (
            "text is no number",
            vec![(0, "a", acts(1)), (1, "b", acts("1"))],
            pair.clone(),
        ),
        (
            "another key",
            vec![(0, "a", acts(1)), (1, "b", with(acts(2), "key", "other"))],
            vec![],
        ),
        (
            "another base",
            vec![
                (0, "a", with(acts(1), "base", "r1")),
                (1, "b", with(acts(2), "base", "r2")),
            ],
            vec![],
        ),
        (
            "one base",
            vec![
                (0, "a", with(acts(1), "base", "r1")),
                (1, "b", with(acts(2), "base", "r1")),
            ],
            pair.clone(),
        ),
        (
            "a base or none",
            vec![(0, "a", acts(1)), (1, "b", with(acts(2), "base", "r1"))],
            vec![],
        ),
        (
            "no outcome",
            vec![(0, "a", acts(1)), (1, "b", json!({"key": "k"}))],
            vec![],
        ),
        ("no object", vec![(0, "a", acts(1)), (1, "b", json!([1]))], vec![]),
        (
            "seen by place",
            vec![(0, "a", acts(1)), (1, "b", with(acts(2), "seen", 1))],
            vec![],
        ),
        (
            "an earlier place",
            vec![
                (0, "c", acts(1)),
                (0, "a", acts(1)),
                (1, "b", with(acts(2), "seen", 1)),
            ],
            vec![(2, 3)],
        ),
        (
            "seen by number",
            vec![
                (0, "a", acts(1)),
                (1, "b", with(acts(2), "seen_of", json!({"a": 101}))),
            ],
            vec![],
        ),
        (
            "a later number",
            vec![
                (0, "a", acts(1)),
                (1, "b", with(acts(2), "seen_of", json!({"a": 999}))),
            ],
            vec![],
        ),
        (
            "an earlier number",
            vec![
                (0, "a", acts(1)),
                (1, "b", with(acts(2), "seen_of", json!({"a": 100}))),
            ],
            pair.clone(),
        ),
        (
            "seen by the earlier one, that was stored late",
            vec![
                (0, "a", with(acts(1), "seen_of", json!({"b": 102}))),
                (1, "b", acts(2)),
            ],
            vec![],
        ),
        (
            "seen before",
            vec![(0, "a", acts(1)), (1, "b", json!({"seen": 1})), (9, "b", acts(2))],
            vec![],
        ),
        (
            "what was said before is taken back",
            vec![(0, "a", acts(1)), (1, "a", acts(2)), (2, "b", acts(2))],
            vec![],
        ),
        (
            "the latest counts",
            vec![(0, "a", acts(1)), (1, "a", acts(2)), (2, "b", acts(1))],
            vec![(2, 3)],
        ),
        (
            "told once as long as it lasts",
            vec![
                (0, "a", acts(1)),
                (5, "b", acts(2)),
                (9, "a", acts(1)),
                (14, "b", acts(2)),
                (22, "a", acts(1)),
            ],
            pair.clone(),
        ),
        (
            "told again after a window of peace",
            vec![
                (0, "a", acts(1)),
                (5, "b", acts(2)),
                (16, "a", acts(1)),
                (17, "b", acts(2)),
            ],
            vec![(1, 2), (3, 4)],
        ),
        (
            "each two of three",
            vec![(0, "a", acts(1)), (1, "b", acts(2)), (2, "c", acts(3))],
            vec![(1, 2), (2, 3), (1, 3)],
        ),
        (
            "the server's clock goes back",
            vec![(20, "a", acts(1)), (0, "b", acts(2))],
            pair.clone(),
        ),
        (
            "two sessions of one instance",
            vec![(0, "a/S1", acts(1)), (1, "a/S2", acts(2))],
            vec![],
        ),
    ] {
        let mut detector = detector(rule(Between::Instances));
        assert_eq!(told(&mut detector, &numbered(&events)), expected, "{what}");
    }
}

#[test]
fn sessions_can_be_at_odds() {
    let events = numbered(&[(0, "a/S1", acts(1)), (1, "a/S2", acts(2)), (2, "a/S1", acts(1))]);
    assert_eq!(told(&mut detector(rule(Between::Sessions)), &events), [(1, 2)]);
    // A session knows what the one it came from has said, and not the other way round.
    let mut child = events.clone();
    child[1].envelope.parent = Some("S1".to_owned());
    assert_eq!(told(&mut detector(rule(Between::Sessions)), &child), [(2, 3)]);
}

#[test]
fn who_has_no_envelope_says_who_he_is() {
    let mut events = numbered(&[(0, "a", acts(1)), (1, "b", with(acts(2), "instance", "c"))]);
    events[1].envelope = Envelope::default();
    let conflicts: Vec<Conflict> = {
        let mut detector = detector(rule(Between::Instances));
        events.iter().flat_map(|event| detector.take(event)).collect()
    };
    assert_eq!(conflicts[0].second.instance, "c");
    events[1].body = Bytes::from(acts(2).to_string());
    assert_eq!(told(&mut detector(rule(Between::Instances)), &events), []);
}

#[test]
fn many_keys_of_one_event() {
    let nodes = |nodes: Value, change: &str| json!({"nodes": nodes, "change": change});
    let mut rule = rule(Between::Instances);
    rule.key = vec![Path::parse("nodes.*").unwrap()];
    rule.outcome = vec![Path::parse("change").unwrap()];
    let mut several = rule.clone();
    let events = numbered(&[
        (
            0,
            "a",
            nodes(json!(["x", "y", "y", {"id": "z", "w": 1}, 7]), "removed"),
        ),
        (1, "b", nodes(json!([{"id": "z"}, "y", "q", 7]), "changed")),
    ]);
    let mut detector = detector(rule);
    assert!(detector.take(&events[0]).is_empty());
    let conflicts = detector.take(&events[1]);
    let keys: Vec<&str> = conflicts.iter().map(|conflict| conflict.key.as_str()).collect();
    assert_eq!(keys, ["z", "y", "7"]);
    let ids: std::collections::HashSet<String> = conflicts.iter().map(Conflict::id).collect();
    assert_eq!(ids.len(), 3);

    several.key = ["from", "to"]
        .iter()
        .map(|path| Path::parse(path).unwrap())
        .collect();
    let edge = |from: &str, to: &str, relation: &str| json!({"from": from, "to": to, "change": relation});
    let events = numbered(&[
        (0, "a", edge("x", "y", "1")),
        (1, "b", edge("y", "x", "2")),
        (2, "b", edge("x", "y", "2")),
    ]);
    let mut detector = super::tests::detector(several);
    assert_eq!(told(&mut detector, &events), [(1, 3)]);
}

#[test]
fn the_alert_fits_the_catalog_and_has_one_id() {
    let events = numbered(&[
        (0, "a/S1", with(with(acts("left"), "base", 7), "thread", "T")),
        (1, "b/S2", with(acts("x".repeat(100_000)), "base", 7)),
    ]);
    let find = || {
        let mut detector = detector(rule(Between::Instances));
        detector.take(&events[0]);
        detector.take(&events[1]).remove(0)
    };
    let conflict = find();
    let catalog = crate::mesh::Catalog::builtin();
    let body = conflict.body();
    catalog
        .get("conflict_alert")
        .unwrap()
        .check(body.to_string().as_bytes())
        .unwrap();
    assert!(body.to_string().len() < 2000, "{body}");
    assert_eq!(
        (&body["key"], &body["base"], &body["thread"]),
        (&json!("k"), &json!("7"), &json!("T"))
    );
    assert_eq!(body["instances"], json!(["a", "b"]));
    assert_eq!(
        body["events"][0],
        json!({"stream_seq": 1, "event": "fo.insight", "instance": "a", "session": "S1", "seq": 101, "outcome": "left"})
    );
    assert_eq!(find().id(), conflict.id());
    assert!(
        conflict
            .id()
            .starts_with("conflict.2.1700000001000000000.1.test."),
        "{}",
        conflict.id()
    );
}

#[test]
fn memory_is_bounded() {
    let mut detector = Detector::with_limit(&Rules::of(vec![rule(Between::Instances)]), 100_000);
    for seq in 1..5000 {
        let body =
            json!({"key": format!("k{seq}"), "outcome": "o".repeat(100), "seen_of": {"x": seq, "y": 1}});
        detector.take(&event(seq, 0, &format!("i{}", seq % 300), body));
        let watch = &detector.rules[0];
        let sum: usize = watch.acts.iter().map(|act| act.cost()).sum();
        assert!(watch.bytes <= 100_000 && watch.bytes == sum);
    }
    let watch = &detector.rules[0];
    assert!(watch.acts.len() < 200 && watch.latest.len() == watch.acts.len());
    assert!(watch.parties.len() <= watch.acts.len());
    // Nothing stays once the window is over.
    detector.take(&event(5000, 100, "z", json!({})));
    let watch = &detector.rules[0];
    assert_eq!(
        (watch.acts.len(), watch.latest.len(), watch.parties.len()),
        (1, 0, 1)
    );
    assert!(watch.parties["z"].of.is_empty());
}

#[test]
fn one_event_makes_a_bounded_number_of_conflicts() {
    let mut rule = rule(Between::Instances);
    rule.key = vec![Path::parse("nodes.*").unwrap()];
    let nodes: Vec<u64> = (0..2000).collect();
    let mut detector = detector(rule);
    for seq in 1..=30 {
        let body = json!({"nodes": nodes, "outcome": seq});
        let conflicts = detector.take(&event(seq, 0, &format!("i{seq}"), body));
        assert_eq!(conflicts.len(), if seq == 1 { 0 } else { CONFLICTS_MAX });
    }
}

/// What is made of in the property: the module's documentation, word for word, without any forgetting.
fn by_the_book(events: &[Received], window: i64) -> Vec<(u64, u64)> {
    struct Plain {
        at: i64,
        seq: u64,
        number: u64,
        who: String,
        key: Option<(Value, Value)>,
        outcome: Value,
        seen: (u64, Vec<(String, u64)>),
    }
    let mut clock = i64::MIN;
    let plain: Vec<Plain> = events
        .iter()
        .map(|event| {
            clock = clock.max(event.stored.as_second());
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            let of = body["seen_of"].as_object().into_iter().flatten();
            let acts = !body["outcome"].is_null() && !body["key"].is_null();
            Plain {
                at: clock,
                seq: event.stream_seq,
                number: event.envelope.seq.unwrap(),
                who: event.envelope.instance.clone().unwrap(),
                key: acts.then(|| (body["key"].clone(), body["base"].clone())),
                outcome: body["outcome"].clone(),
                seen: (
                    body["seen"].as_u64().unwrap_or(0),
                    of.map(|(who, number)| (who.clone(), number.as_u64().unwrap()))
                        .collect(),
                ),
            }
        })
        .collect();
    // Whether the party of event `i`, at that time, had seen event `j`.
    let saw = |i: usize, j: usize| {
        let (me, other) = (&plain[i], &plain[j]);
        plain[..=i]
            .iter()
            .filter(|said| said.who == me.who && me.at - said.at <= window)
            .any(|said| {
                said.seen.0 >= other.seq
                    || said
                        .seen
                        .1
                        .iter()
                        .any(|(who, number)| *who == other.who && *number >= other.number)
            })
    };
    let mut at_odds: Vec<(usize, usize)> = Vec::new();
    for j in 0..plain.len() {
        for i in (0..j).rev() {
            let (first, second) = (&plain[i], &plain[j]);
            let is_latest = !plain[i + 1..j]
                .iter()
                .any(|other| other.who == first.who && other.key == first.key);
            if first.key.is_some()
                && first.key == second.key
                && first.who != second.who
                && first.outcome != second.outcome
                && second.at - first.at <= window
                && is_latest
                && !saw(i, j)
                && !saw(j, i)
            {
                at_odds.push((i, j));
            }
        }
    }
    let matter = |&(i, j): &(usize, usize)| {
        let mut sides = [i, j].map(|at| (plain[at].who.clone(), plain[at].outcome.to_string()));
        sides.sort();
        (plain[i].key.clone(), sides)
    };
    let is_new = |nth: usize| {
        let (_, now) = at_odds[nth];
        !at_odds[..nth]
            .iter()
            .any(|pair| matter(pair) == matter(&at_odds[nth]) && plain[now].at - plain[pair.1].at <= window)
    };
    (0..at_odds.len())
        .filter(|&nth| is_new(nth))
        .map(|nth| (plain[at_odds[nth].0].seq, plain[at_odds[nth].1].seq))
        .collect()
}

prop_compose! {
    fn any_events()(said in prop::collection::vec(
        (0..8_i64, 0..3_usize, 0..2_u8, 0..3_u8, 0..3_u8, prop::option::weighted(0.3, 0..12_u64),
         prop::option::weighted(0.3, (0..3_usize, 0..12_u64))),
        0..40,
    )) -> Vec<Received> {
        let names = ["a", "b", "c"];
        let mut second = 0;
        said.into_iter().zip(1_u64..).map(|((step, who, key, base, outcome, seen, seen_of), seq)| {
            // Now and then the clock goes back.
            second += if step == 7 { -3 } else { step };
            let mut body = json!({"key": key, "outcome": outcome});
            if base > 0 {
                body["base"] = base.into();
            }
            if outcome == 2 && key == 1 {
                body["outcome"] = Value::Null;
            }
            if let Some(back) = seen {
                body["seen"] = seq.saturating_sub(back).into();
            }
            if let Some((whom, back)) = seen_of {
                body["seen_of"] = json!({names[whom]: (100 + seq + 3).saturating_sub(back)});
            }
            event(seq, second, names[who], body)
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_does_what_the_book_says(events in any_events()) {
        let mut detector = detector(rule(Between::Instances));
        prop_assert_eq!(told(&mut detector, &events), by_the_book(&events, 10));
    }

    /// Who begins in the middle, with no more than the reach of the rules behind him, finds what the others find.
    #[test]
    fn a_restart_changes_nothing(mut events in any_events(), at in 0..40_usize) {
        // A clock that goes back would have to be known of.
        let mut clock = Timestamp::MIN;
        for event in &mut events {
            clock = clock.max(event.stored);
            event.stored = clock;
        }
        let at = at.min(events.len().saturating_sub(1));
        prop_assume!(!events.is_empty());
        let rules = Rules::of(vec![rule(Between::Instances)]);
        let since = events[at].stored - SignedDuration::try_from(rules.reach()).unwrap();
        let mut whole = Detector::new(&rules);
        told(&mut whole, &events[..at]);
        let mut late = Detector::new(&rules);
        let before: Vec<Received> = events[..at].iter().filter(|event| event.stored >= since).cloned().collect();
        told(&mut late, &before);
        prop_assert_eq!(told(&mut whole, &events[at..]), told(&mut late, &events[at..]));
    }
}
