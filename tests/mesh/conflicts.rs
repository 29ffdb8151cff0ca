//! Conflicts: told of once, whoever is killed and however many look; rules held against history.

use std::fs;

use serde_json::{Value, json};

use super::on_each_server;
use super::support::{Running, Server, until};

on_each_server!(
    two_at_odds_are_told_of_once,
    a_killed_detector_goes_on_where_it_stopped,
    two_detectors_share_the_work,
    rules_are_held_against_history_and_labels,
);

/// Rules that are easy to speak to.
const RULES: &str = r#"{
  "events": [{"name": "lock_taken", "subject": "mesh.lock.taken", "system": "Locks",
    "fields": [{"name": "lock", "type": "text", "required": true}, {"name": "by", "type": "text", "required": true}]}],
  "conflicts": {
    "window": "10m", "builtin": false,
    "rules": [{"name": "locks", "events": "lock_taken", "key": "lock", "base": "base", "outcome": "by"}]
  }
}"#;

fn configure(server: &Server) {
    fs::write(server.dir.path().join("events.json"), RULES).unwrap();
}

/// Takes a lock; the event's place in the stream.
fn take(server: &Server, instance: &str, lock: &str, by: &str, more: Value) -> u64 {
    let mut body = json!({"lock": lock, "by": by});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let receipt = server.json(instance, &["emit", "lock_taken", &body.to_string()]);
    receipt[0]["stream_seq"].as_u64().unwrap()
}

/// The places of the events that all alerts so far name.
fn alerts(server: &Server) -> Vec<(u64, u64)> {
    let log = server.json("r", &["log", "-n", "10000"]);
    let alerts = log.iter().filter(|event| event["event"] == "conflict_alert");
    alerts.map(|alert| sides(&alert["body"])).collect()
}

fn sides(alert: &Value) -> (u64, u64) {
    let side = |at: usize| alert["events"][at]["stream_seq"].as_u64().unwrap();
    (side(0), side(1))
}

fn detector(server: &Server, more: &[&str]) -> Running {
    let args = [&["conflicts", "--since", "all", "--json"], more].concat();
    Running::start(server.mesh("detector", &args))
}

/// What has no configuration has rules all the same.
fn two_at_odds_are_told_of_once(server: Server) {
    let emit = |instance: &str, event: &str, body: &str| server.ok(instance, &["emit", event, body]);
    emit(
        "alpha",
        "graph_update",
        r#"{"change":"removed","nodes":["n1","n2"],"base":"r1"}"#,
    );
    emit(
        "beta",
        "graph_update",
        r#"{"change":"changed","nodes":[{"id":"n2"}],"base":"r1"}"#,
    );
    emit(
        "alpha",
        "attention_decision",
        r#"{"decision":"rewrite","focus":"parser"}"#,
    );
    emit(
        "beta",
        "attention_decision",
        r#"{"decision":"keep","focus":"parser","seen":3}"#,
    );
    emit(
        "gamma",
        "attention_decision",
        r#"{"decision":"drop","focus":"parser","seen_of":{"alpha":2,"beta":1}}"#,
    );
    // Beta's decision was its second event.
    let mut first = detector(&server, &[]);
    let told = [first.json(), first.json()];
    assert_eq!(
        (sides(&told[0]), &told[0]["key"]),
        ((1, 2), &json!("n2")),
        "{told:?}"
    );
    assert_eq!(
        (sides(&told[1]), &told[1]["key"]),
        ((4, 5), &json!("parser")),
        "{told:?}"
    );
    assert_eq!(told[0]["instances"], json!(["alpha", "beta"]));
    assert_eq!(told[0]["events"][1]["outcome"], "changed");
    assert_eq!(first.terminate(), 0);
    // The stream holds what the command said, in the catalog's shape.
    let stored = server.json("r", &["watch", "conflict_alert", "--since", "all", "-n", "2"]);
    assert_eq!(stored[0]["body"]["rule"], "graph_nodes");
    assert_eq!(stored[1]["instance"], "detector");
    server.ok(
        "r",
        &[
            "emit",
            "conflict_alert",
            &stored[0]["body"].to_string(),
            "--id",
            "again",
        ],
    );

    // Another one, that knows nothing of the first, comes to the same and tells of nothing anew.
    let second = detector(&server, &["--durable", "other"]);
    for told in told {
        let again = second.json();
        assert_eq!((sides(&again), &again["new"]), (sides(&told), &json!(false)));
        assert_eq!(again["alert"], told["alert"]);
    }
    assert_eq!(alerts(&server), [(1, 2), (4, 5), (1, 2)]);
}

fn a_killed_detector_goes_on_where_it_stopped(mut server: Server) {
    configure(&server);
    let mut expected = Vec::new();
    let mut detector = detector(&server, &[]);
    for round in 0..6 {
        let lock = format!("l{round}");
        let first = take(&server, "alpha", &lock, "alpha", json!({}));
        let second = take(&server, "beta", &lock, "beta", json!({}));
        expected.push((first, second));
        match round {
            // Somewhere between the two, or in the middle of telling.
            1 | 3 => detector.kill(),
            2 => {
                server.kill();
                server.restart();
                continue;
            }
            _ => continue,
        }
        detector = super::conflicts::detector(&server, &[]);
    }
    until("all alerts", || {
        (alerts(&server).len() >= expected.len()).then_some(())
    });
    // What is at odds with an event from before the restart is found all the same.
    let late = take(&server, "gamma", "l0", "gamma", json!({}));
    expected.extend([(expected[0].1, late), (expected[0].0, late)]);
    until("the last alerts", || {
        (alerts(&server).len() >= expected.len()).then_some(())
    });
    detector.kill();
    // Looked at again from the beginning, when the server has forgotten all ids: whoever tells must look himself.
    server.ok(
        "r",
        &["stream", "edit", "MESH", "--dupe-window", "100ms", "--force"],
    );
    let again = super::conflicts::detector(&server, &["--durable", "again"]);
    let mut told: Vec<(u64, u64)> = expected.iter().map(|_| sides(&again.json())).collect();
    assert_eq!(told, expected);
    let mut stored = alerts(&server);
    stored.sort_unstable();
    told.sort_unstable();
    assert_eq!(stored, told);
}

fn two_detectors_share_the_work(server: Server) {
    configure(&server);
    let pair = [detector(&server, &[]), detector(&server, &[])];
    let mut expected = Vec::new();
    let mut first = 0;
    for round in 0..20 {
        let (who, by) = (format!("i{}", round % 2), format!("i{}", round % 2));
        let this = take(
            &server,
            &who,
            "l",
            &by,
            json!({"base": format!("r{}", round / 2)}),
        );
        if round % 2 == 1 {
            expected.push((first, this));
        }
        first = this;
    }
    until("all alerts", || {
        (alerts(&server).len() >= expected.len()).then_some(())
    });
    assert_eq!(alerts(&server), expected);
    drop(pair);
}

fn rules_are_held_against_history_and_labels(server: Server) {
    configure(&server);
    let one = take(&server, "alpha", "a", "alpha", json!({}));
    let two = take(&server, "beta", "a", "beta", json!({}));
    let three = take(&server, "alpha", "b", "alpha", json!({"base": "r1"}));
    let four = take(&server, "beta", "b", "beta", json!({"base": "r2"}));
    let five = take(&server, "gamma", "a", "gamma", json!({"seen": two}));
    let file = |name: &str, text: &str| {
        let path = server.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let labels = file(
        "labels",
        &format!("{{\"events\": [{one}, {two}]}}\n{{\"events\": [{three}, {four}], \"key\": \"b\"}}\n"),
    );
    let replay = |more: &[&str]| server.run("r", &[&["conflicts", "replay"], more].concat());
    let as_configured = replay(&["--labels", &labels]);
    assert_eq!(as_configured.code, 0, "{as_configured:?}");
    assert!(as_configured.out.starts_with("right  "), "{as_configured:?}");
    assert!(
        as_configured.out.contains(&format!(
            "MISSED       b  events {three} and {four} (line 2 of the labels)"
        )) && as_configured.out.ends_with(
            "1 conflicts in 5 events: precision 1.00 (1 of 1 right), recall 0.50 (1 of 2 found)\n"
        ),
        "{as_configured:?}"
    );
    // Without bases and without asking who had seen what, more is found, and too much.
    let wider = file(
        "wider",
        "conflicts {\n builtin: false\n rules: [ { name: wide, events: lock_taken, key: lock, outcome: by, seen: none } ]\n}\n",
    );
    let json = replay(&["--rules", &wider, "--labels", &labels, "--since", "all", "--json"]);
    let lines: Vec<Value> = json
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let right: Vec<(u64, u64, bool)> = lines[..lines.len() - 1]
        .iter()
        .map(|line| (sides(line).0, sides(line).1, line["right"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        right,
        [
            (one, two, true),
            (three, four, true),
            (two, five, false),
            (one, five, false)
        ]
    );
    let summary = &lines[lines.len() - 1]["summary"];
    assert_eq!(
        (&summary["precision"], &summary["recall"]),
        (&json!(0.5), &json!(1.0))
    );
    let alarm = replay(&["--rules", &wider, "--labels", &labels]);
    assert_eq!(alarm.out.matches("FALSE ALARM").count(), 2, "{alarm:?}");
    // Nobody was told.
    assert_eq!(alerts(&server), []);

    let bad = file("bad", "{\"conflicts\": {\n\"rules\": [{\"nam\": \"x\"}]}}");
    for args in [
        &["conflicts", "--rules", &bad][..],
        &["conflicts", "replay", "--rules", &bad],
    ] {
        let ran = server.run("r", args);
        assert!(
            ran.code == 2 && ran.err.contains(&format!("{bad}:2:12: unknown field \"nam\"")),
            "{ran:?}"
        );
    }
    let checked = server.run("r", &["config", "check", &bad]);
    assert!(
        checked.code == 1 && checked.err.contains(&format!("{bad}:2:12")),
        "{checked:?}"
    );
    let good = server.dir.path().join("events.json");
    let checked = server.run("r", &["config", "check", good.to_str().unwrap()]);
    assert!(
        checked.code == 0 && checked.out.contains("mesh.lock.taken"),
        "{checked:?}"
    );
    let listed = server.json("r", &["conflicts", "rules"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &json!("locks")));
    let nonsense = file("nonsense", "{\"events\": 1}\n");
    let ran = replay(&["--labels", &nonsense]);
    assert!(
        ran.code == 2 && ran.err.contains("nonsense: line 1: expected the events"),
        "{ran:?}"
    );
}
