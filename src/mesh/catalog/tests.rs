use super::*;

/// The specification's table, written out by hand: system, event, subject.
const SPECIFIED: &[(&str, &str, &str)] = &[
    ("Graph Feeder", "graph_update", "mesh.graph.update"),
    ("FO Local", "fo_insight", "mesh.fo.insight"),
    (
        "Attention Daemon",
        "attention_decision",
        "mesh.attention.decision",
    ),
    (
        "Attention Daemon",
        "coherence_alert",
        "mesh.attention.coherence_alert",
    ),
    ("Attention Daemon", "aha_moment", "mesh.attention.aha_moment"),
    (
        "Attention Daemon",
        "economics_session_start",
        "mesh.economics.session_start",
    ),
    (
        "Attention Daemon",
        "economics_session_end",
        "mesh.economics.session_end",
    ),
    (
        "Resonance Detector",
        "resonance_detected",
        "mesh.resonance.detected",
    ),
    ("Meta FO", "meta_fo_update", "mesh.fo.meta_update"),
    ("Meta FO", "conflict_alert", "mesh.fo.conflict_alert"),
    ("Meta FO", "recovery_beacon", "mesh.phoenix.recovery_beacon"),
    (
        "Mission Control",
        "mission_control_synthesis",
        "mesh.mission_control.synthesis",
    ),
    (
        "Principle Steward",
        "edge_discovery",
        "mesh.principle.edge_discovery",
    ),
    (
        "Principle Steward",
        "topology_update",
        "mesh.principle.topology_update",
    ),
    ("Monologue Sync", "monologue_chunk", "mesh.monologue.chunk"),
    ("Context Stream", "context_enter", "mesh.context.enter"),
    ("Context Stream", "context_exit", "mesh.context.exit"),
    ("Session Report", "session_debrief", "mesh.session.debrief"),
    ("Phoenix Hygiene", "hygiene_check", "mesh.phoenix.hygiene_check"),
    (
        "Gravity Tracker",
        "gravity_well_formed",
        "mesh.gravity.well_formed",
    ),
    ("Mesh", "session_started", "mesh.session.started"),
    ("Mesh", "session_ended", "mesh.session.ended"),
    ("Mesh", "session_resurrected", "mesh.phoenix.resurrected"),
    ("Mesh", "peer_joined", "mesh.peer.joined"),
    ("Mesh", "peer_left", "mesh.peer.left"),
];

#[test]
fn every_specified_event_is_there() {
    let catalog = Catalog::builtin();
    for (system, name, subject) in SPECIFIED {
        let event = catalog.get(name).unwrap();
        assert_eq!(
            (event.system.as_str(), event.subject.as_str()),
            (*system, *subject)
        );
        assert_eq!(catalog.by_subject(subject).unwrap().name, *name);
        assert!(!event.meaning.is_empty(), "{name}");
    }
    assert_eq!(catalog.systems().len(), SYSTEMS);
}

#[test]
fn the_table_obeys_the_rules_for_user_events() {
    let Catalog { events, .. } = Catalog::builtin();
    let empty = Catalog {
        events: Vec::new(),
        builtin: 0,
    };
    empty.with(events).unwrap();
}

#[test]
fn bodies() {
    let catalog = Catalog::builtin();
    for (event, body, expected) in [
        ("fo_insight", r#"{"text":"x"}"#, None),
        ("fo_insight", r#"{"text":"x","confidence":0.5,"extra":[1]}"#, None),
        ("fo_insight", "{}", Some("field `text` (text) is missing")),
        (
            "fo_insight",
            r#"{"text":7}"#,
            Some("field `text` must be text, got number"),
        ),
        ("fo_insight", r#"{"text":null}"#, Some("must be text, got null")),
        (
            "fo_insight",
            r#"{"text":"x","confidence":"high"}"#,
            Some("field `confidence` must be number"),
        ),
        ("fo_insight", "[]", Some("expected an object, got list")),
        ("fo_insight", "nonsense", Some("not JSON")),
        ("fo_insight", "", Some("not JSON")),
        ("economics_session_end", r#"{"sats":21}"#, None),
        (
            "economics_session_end",
            r#"{"sats":2.5}"#,
            Some("field `sats` must be integer"),
        ),
        (
            "resonance_detected",
            r#"{"pattern":"p","threads":{}}"#,
            Some("field `threads` must be list"),
        ),
        ("meta_fo_update", r#"{"state":{"a":1}}"#, None),
        (
            "dead_letter",
            r#"{"consumer":"c","sequence":1,"subject":"s","reason":"r","tries":5,"gave_up":"no"}"#,
            Some("`gave_up` must be flag"),
        ),
    ] {
        let result = catalog.get(event).unwrap().check(body.as_bytes());
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (result, expected) => panic!("{event} {body}: {result:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn the_nearest_names_are_offered() {
    let catalog = Catalog::builtin();
    for (typed, expected) in [
        ("fo_insigt", "fo_insight"),
        ("FO-Insight", "fo_insight"),
        ("insight", "fo_insight"),
        ("hygeine_check", "hygiene_check"),
        ("peer_left_", "peer_left"),
    ] {
        match catalog.get(typed) {
            Err(Error::UnknownEvent { near, .. }) => {
                assert_eq!(
                    near.first().map(String::as_str),
                    Some(expected),
                    "{typed}: {near:?}"
                );
            }
            other => panic!("{typed}: {other:?}"),
        }
    }
    let Err(Error::UnknownEvent { near, .. }) = catalog.get("zzzzzzzzzzzz") else {
        panic!()
    };
    assert!(near.is_empty(), "{near:?}");
}

#[test]
fn user_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.json");
    assert_eq!(
        Catalog::load(&path).unwrap().events().len(),
        Catalog::builtin().events().len()
    );
    for (text, expected) in [
        (
            r#"{"events":[{"name":"build_done","subject":"mesh.build.done","system":"B","fields":[{"name":"ok","type":"flag","required":true}]}]}"#,
            None,
        ),
        (
            r#"{"events":[{"name":"Build","subject":"mesh.build.done","system":"B"}]}"#,
            Some("lower-case"),
        ),
        (
            r#"{"events":[{"name":"b","subject":"other.build","system":"B"}]}"#,
            Some("under mesh."),
        ),
        (
            r#"{"events":[{"name":"b","subject":"mesh.*","system":"B"}]}"#,
            Some("wildcards"),
        ),
        (
            r#"{"events":[{"name":"b","subject":"mesh.fo.insight","system":"B"}]}"#,
            Some("taken by `fo_insight`"),
        ),
        (
            r#"{"events":[{"name":"b","subject":"mesh.b.c","system":"B","fields":[{"name":"x","type":"colour"}]}]}"#,
            Some("colour"),
        ),
        (
            r#"{"events":[{"name":"b","subject":"mesh.b.c","system":"B","feilds":[]}]}"#,
            Some("feilds"),
        ),
        (
            r#"{"events":[{"name":"b","subject":"mesh.b.c","system":"B","fields":[{"name":"x","type":"text"},{"name":"x","type":"text"}]}]}"#,
            Some("twice"),
        ),
        ("{", Some("EOF")),
    ] {
        std::fs::write(&path, text).unwrap();
        match (Catalog::load(&path), expected) {
            (Ok(catalog), None) => catalog
                .get("build_done")
                .unwrap()
                .check(br#"{"ok":true}"#)
                .unwrap(),
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(
                    error.contains(expected) && error.contains("events.json"),
                    "{error}"
                );
            }
            (result, expected) => panic!("{text}: {result:?}, expected {expected:?}"),
        }
    }
}

/// `MESH_BLESS=1 cargo test the_docs_page` writes the page anew.
#[test]
fn the_docs_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let page = Catalog::builtin().markdown();
    if std::env::var_os("MESH_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/events.md is not what the catalog says; MESH_BLESS=1 rewrites it"
    );
}
