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

/// However long the chain, a line stays readable, and no stack is used up by it.
#[test]
fn a_long_chain_goes_on_at_the_margin() {
    let sessions = 20_000;
    let parent = |n: u64| (n > 0).then(|| format!("s{}", n - 1));
    let events: Vec<Received> = (0..sessions)
        .map(|n| {
            let (session, parent) = (format!("s{n}"), parent(n));
            event(n, "mesh.fo.insight", Some(&session), parent.as_deref(), "")
        })
        .collect();
    let lineage = of(&events);
    let text = lineage.text();
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest < 200, "{longest}");
    assert!(text.contains("\ns40  (drawn above, goes on here)\n└─ s41  spawned  on i\n"));
    assert!(text.ends_with("s19999  spawned  on i\n"));
    assert_eq!(lineage.tree_of("s7").sessions().count(), 20_000);
    assert!(lineage.in_cycles().is_empty());
}

#[test]
fn a_record_tells_of_a_revival_that_no_event_tells_of() {
    let record = |session: &str, parent: Option<&str>| Record {
        session: session.to_owned(),
        generation: 2,
        instance: "i".to_owned(),
        object: String::new(),
        bytes: 0,
        saved: String::new(),
        parent: parent.map(str::to_owned),
        revived: None,
        restored: None,
        begun: None,
    };
    let mut lineage = of(&[
        event(1, "mesh.session.started", Some("A"), None, "{}"),
        event(
            2,
            "mesh.session.started",
            Some("B"),
            Some("A"),
            r#"{"how":"forked"}"#,
        ),
    ]);
    for record in [
        record("A", None),
        record("A-g2", Some("A")),
        record("B", Some("X")),
    ] {
        lineage.took_up(&record, "2026-11-26T00:00:00Z");
    }
    assert_eq!(
        lineage.text(),
        "A  on i\n├─ B  forked  on i\n└─ A-g2  resurrected  on i\n"
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
        for session in lineage.sessions() {
            // Followed far enough, parents end or lead back.
            let mut at = Some(session);
            let leads_back = (0..50).any(|_| {
                at = at.and_then(|at| lineage.sessions.get(at.parent.as_deref()?));
                at.is_some_and(|at| at.session == session.session)
            });
            prop_assert_eq!(lineage.in_cycles().contains(session.session.as_str()), leads_back);
        }
        let mut again = lineage.clone();
        for event in &events {
            again.fold(event);
        }
        let names = |lineage: &Lineage| lineage.sessions().map(|s| s.session.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&again), names(&lineage));
    }
}
