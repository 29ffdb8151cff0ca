//! Item 4.1 of the roadmap: twelve systems on three instances, each speaking and each hearing all others,
//! while readers are restarted and the broker is killed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::on_each_server;
use super::support::{Running, Server, python, skipped, until};

on_each_server!(twelve_systems);

/// One event of each system, with a body that fits it.
const SYSTEMS: [(&str, &str, &str); 12] = [
    ("graph_update", "mesh.graph.update", r#"{"change":"added"}"#),
    ("fo_insight", "mesh.fo.insight", r#"{"text":"x"}"#),
    (
        "attention_decision",
        "mesh.attention.decision",
        r#"{"decision":"x"}"#,
    ),
    (
        "resonance_detected",
        "mesh.resonance.detected",
        r#"{"pattern":"x","threads":[]}"#,
    ),
    ("meta_fo_update", "mesh.fo.meta_update", r#"{"state":{}}"#),
    (
        "mission_control_synthesis",
        "mesh.mission_control.synthesis",
        r#"{"text":"x","sources":[]}"#,
    ),
    (
        "edge_discovery",
        "mesh.principle.edge_discovery",
        r#"{"from":"x","to":"y"}"#,
    ),
    ("monologue_chunk", "mesh.monologue.chunk", r#"{"text":"x"}"#),
    ("context_enter", "mesh.context.enter", r#"{"context":"x"}"#),
    ("session_debrief", "mesh.session.debrief", r#"{"summary":"x"}"#),
    (
        "hygiene_check",
        "mesh.phoenix.hygiene_check",
        r#"{"status":"ok"}"#,
    ),
    (
        "gravity_well_formed",
        "mesh.gravity.well_formed",
        r#"{"center":"x"}"#,
    ),
];
/// Events that each system says.
const EACH: usize = 12;
/// These are written in Python, if there is one with nats-py.
const IN_PYTHON: [usize; 3] = [3, 7, 11];

struct System {
    name: String,
    heard: PathBuf,
    reader: Option<Running>,
    speaker: Running,
}

fn instance(number: usize) -> String {
    format!("i{}", number % 3)
}

fn reader(server: &Server, number: usize, name: &str, heard: &PathBuf) -> Running {
    let out: File = OpenOptions::new().create(true).append(true).open(heard).unwrap();
    let mut watch = server.mesh(
        &instance(number),
        &["watch", "--since", "all", "--durable", name, "--json"],
    );
    watch.stdout(out);
    Running::start_silent(watch)
}

fn start(server: &Server, number: usize, python: Option<&PathBuf>) -> System {
    let (event, subject, body) = SYSTEMS[number];
    let name = format!("system-{number}");
    let heard = server.dir.path().join(&name);
    if let Some(python) = python.filter(|_| IN_PYTHON.contains(&number)) {
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesh/system.py"));
        command
            .args([event, subject, body, &EACH.to_string(), &name])
            .arg(&heard);
        server.environment(&mut command, &instance(number));
        command.stdout(Stdio::null());
        return System {
            name,
            heard,
            reader: None,
            speaker: Running::start_silent(command),
        };
    }
    let start = format!("{},\"n\":", body.strip_suffix('}').unwrap());
    // What a failed emit leaves behind is settled by saying the same again.
    let script = format!(
        r#"n=0; while [ $n -lt {EACH} ]; do n=$((n+1)); until "$MESH" emit {event} '{}'"$n}}" >/dev/null 2>&1; do sleep 0.2; done; sleep 0.1; done"#,
        start
    );
    let mut speaker = Command::new("sh");
    speaker.args(["-c", &script]).stdout(Stdio::null());
    server.environment(&mut speaker, &instance(number));
    let reader = reader(server, number, &name, &heard);
    System {
        name,
        heard,
        reader: Some(reader),
        speaker: Running::start_silent(speaker),
    }
}

fn heard(system: &System) -> Vec<Value> {
    let text = std::fs::read_to_string(&system.heard).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn twelve_systems(mut server: Server) {
    let python = python()
        .map_err(|why| skipped("the systems in Python (the shell ones stand in)", &why))
        .ok();
    server.ok("i0", &["setup"]);
    let mut systems: Vec<System> = (0..SYSTEMS.len())
        .map(|number| start(&server, number, python.as_ref()))
        .collect();

    // A daemon is restarted, another one killed and started again.
    until("the first events", || {
        (heard(&systems[0]).len() > 10).then_some(())
    });
    assert_eq!(systems[0].reader.take().unwrap().terminate(), 0);
    systems[1].reader.take().unwrap().kill();
    let killed_at = heard(&systems[1]).last().cloned();
    for number in [0, 1] {
        systems[number].reader = Some(reader(
            &server,
            number,
            &systems[number].name,
            &systems[number].heard,
        ));
    }
    // The broker is killed twice, in the middle of it all.
    for more in [30, 60] {
        until("more events", || (heard(&systems[2]).len() >= more).then_some(()));
        server.kill();
        thread::sleep(Duration::from_millis(300));
        server.restart();
    }
    for system in systems.iter_mut().filter(|system| system.reader.is_some()) {
        assert_eq!(system.speaker.wait(), 0, "{}", system.name);
    }

    let all = SYSTEMS.len() * EACH;
    for system in &systems {
        let distinct = || {
            let seqs: std::collections::BTreeSet<u64> = heard(system)
                .iter()
                .map(|event| event["stream_seq"].as_u64().unwrap())
                .collect();
            (seqs.len() >= all).then_some(())
        };
        until(&format!("{} to hear everything", system.name), distinct);
    }
    // Longer than an acknowledgement is waited for: what would come twice has come by then.
    thread::sleep(Duration::from_secs(6));
    for (number, system) in systems.iter().enumerate() {
        let mut events = heard(system);
        if number == 1 {
            // Killed between writing an event down and acknowledging it, it gets that one again, and no other.
            let twice = events.windows(2).position(|pair| pair[0] == pair[1]);
            if let Some(at) = twice {
                assert_eq!(Some(&events[at]), killed_at.as_ref());
                events.remove(at);
            }
        }
        check(&system.name, &events);
    }
    let health = &server.json("r", &["check"])[0];
    assert_eq!(health["silent"], serde_json::json!([]), "{health}");
}

/// Everything, in order, nothing twice.
fn check(reader: &str, events: &[Value]) {
    let places: Vec<u64> = events
        .iter()
        .map(|event| event["stream_seq"].as_u64().unwrap())
        .collect();
    assert!(places.is_sorted_by(|a, b| a < b), "{reader}: {places:?}");
    let mut said: HashMap<&str, Vec<u64>> = HashMap::new();
    let mut numbered: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for event in events {
        said.entry(event["event"].as_str().unwrap())
            .or_default()
            .push(event["body"]["n"].as_u64().unwrap());
        if let Some(seq) = event["seq"].as_u64() {
            numbered
                .entry(event["instance"].as_str().unwrap())
                .or_default()
                .push(seq);
        }
    }
    let counted: Vec<u64> = (1..=EACH as u64).collect();
    for (event, ..) in SYSTEMS {
        assert_eq!(said[event], counted, "{reader} hears {event}");
    }
    assert_eq!(numbered.len(), 3);
    for (instance, seqs) in numbered {
        assert_eq!(
            seqs,
            (1..=seqs.len() as u64).collect::<Vec<_>>(),
            "{reader} hears {instance}"
        );
    }
}
