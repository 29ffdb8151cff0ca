use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::mesh::Envelope;

fn event(seq: u64, subject: &str, session: Option<&str>, parent: Option<&str>, body: &str) -> Received {
    Received {
        stream_seq: seq,
        stored: Timestamp::from_second(1_700_000_000 + seq as i64).unwrap(),
        subject: subject.to_owned(),
        envelope: Envelope {
            instance: Some("i".to_owned()),
            session: session.map(str::to_owned),
            parent: parent.map(str::to_owned),
            ..Envelope::default()
        },
        marker: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        pending: 0,
        deliveries: 1,
        consumer_seq: seq,
    }
}

fn of(events: &[Received]) -> Lineage {
    let mut lineage = Lineage::default();
    for event in events {
        lineage.fold(event);
    }
    lineage
}

#[test]
fn a_family() {
    let lineage = of(&[
        event(1, "mesh.session.started", Some("A"), None, "{}"),
        event(2, "mesh.fo.insight", Some("B"), Some("A"), "{}"),
        event(
            3,
            "mesh.session.started",
            Some("C"),
            Some("A"),
            r#"{"how":"forked"}"#,
        ),
        event(
            4,
            "mesh.phoenix.resurrected",
            None,
            None,
            r#"{"session":"B","new_session":"B-g2"}"#,
        ),
        event(5, "mesh.session.ended", Some("C"), None, "{}"),
        event(
            6,
            "mesh.session.started",
            Some("X"),
            Some("lost"),
            r#"{"how":"resumed"}"#,
        ),
        event(
            7,
            "mesh.session.started",
            None,
            None,
            r#"{"session":"D","parent":"C"}"#,
        ),
        event(8, "mesh.session.started", None, None, "not JSON"),
        event(9, "mesh.fo.insight", Some("no name!"), Some("A"), ""),
    ]);
    assert_eq!(
        lineage.text(),
        "\
lost  (unknown: never heard from)
└─ X  resumed  on i
A  on i
├─ B  spawned  on i
│  └─ B-g2  resurrected  on i
└─ C  forked  on i  ended
   └─ D  spawned  on i
"
    );
    assert_eq!(lineage.tree_of("D"), lineage.tree_of("A"));
    assert_eq!(lineage.tree_of("X").sessions().count(), 1);
    let dot = lineage.dot();
    for line in [r#""A" -> "C" [label=forked];"#, r#""lost" [style=dashed];"#] {
        assert!(dot.contains(line), "{dot}");
    }
}

#[test]
fn cycles_are_shown_as_such() {
    let lineage = of(&[
        event(1, "mesh.session.started", Some("A"), Some("B"), "{}"),
        event(2, "mesh.session.started", Some("B"), Some("A"), "{}"),
        event(3, "mesh.session.started", Some("C"), Some("B"), "{}"),
        event(4, "mesh.session.started", Some("S"), Some("S"), "{}"),
    ]);
    assert_eq!(
        lineage.text(),
        "\
A  spawned  on i  (in a cycle)
└─ B  spawned  on i  (in a cycle)
   ├─ A  spawned  (cycle: drawn above)
   └─ C  spawned  on i
S  spawned  on i  (in a cycle)
└─ S  spawned  (cycle: drawn above)
"
    );
    assert!(
        lineage
            .dot()
            .contains(r#""A" -> "B" [label=spawned, color=red];"#)
    );
}

proptest! {
    /// Whatever is claimed of whom: every session is drawn in full exactly once, and folding twice changes nothing.
    #[test]
    fn every_session_is_drawn_once(links in prop::collection::vec((0u8..9, prop::option::of(0u8..12)), 0..40)) {
        let events: Vec<Received> = links
            .iter()
            .enumerate()
            .map(|(at, (session, parent))| {
                let parent = parent.map(|parent| format!("s{parent}"));
                event(at as u64, "mesh.session.started", Some(&format!("s{session}")), parent.as_deref(), "{}")
            })
            .collect();
        let lineage = of(&events);
        let text = lineage.text();
        for session in lineage.sessions() {
            let full = text.lines().filter(|line| {
                let name = line.trim_start_matches(['└', '├', '─', '│', ' ']).split_whitespace().next();
                name == Some(&session.session) && !line.contains("drawn above")
            });
            prop_assert_eq!(full.count(), 1, "{} in\n{}", session.session, text);
        }
        let mut again = lineage.clone();
        for event in &events {
            again.fold(event);
        }
        let names = |lineage: &Lineage| lineage.sessions().map(|s| s.session.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&again), names(&lineage));
    }
}
