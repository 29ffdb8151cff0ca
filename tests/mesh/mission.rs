//! Mission control: what comes in a thread's window is drawn together once, whoever is killed meanwhile.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::on_each_server;
use super::support::{Running, Server, until};

on_each_server!(
    threads_are_drawn_together,
    killed_in_the_middle_it_takes_up_its_groups,
    every_event_is_drawn_from_once,
);

fn control(server: &Server, window: &str, more: &[&str]) -> Running {
    let args = [
        &["mission-control", "--since", "all", "--json", "--window", window],
        more,
    ]
    .concat();
    Running::start(server.mesh("control", &args))
}

/// Says all of it at once, in a stream that was empty: who, on which subject, what. The first is stored at 1.
fn burst(server: &Server, said: &[(&str, &str, Value)]) {
    server.ok("r", &["setup"]);
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut text = "CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_owned();
    for (instance, subject, body) in said {
        let headers = format!("NATS/1.0\r\nMesh-Instance: {instance}\r\n\r\n");
        let whole = format!("{headers}{body}");
        text += &format!("HPUB {subject} {} {}\r\n{whole}\r\n", headers.len(), whole.len());
    }
    socket.write_all(text.as_bytes()).unwrap();
    until("the events to be stored", || {
        (server.json("r", &["log", "-n", "100"]).len() >= said.len()).then_some(())
    });
}

fn aha(server: &Server, instance: &str, thread: &str) -> u64 {
    let body = json!({"text": "x", "thread": thread});
    let receipt = server.json(instance, &["emit", "aha_moment", &body.to_string()]);
    receipt[0]["stream_seq"].as_u64().unwrap()
}

fn sources(body: &Value) -> Vec<u64> {
    let sources = body["sources"].as_array().unwrap().iter();
    sources
        .map(|source| source["stream_seq"].as_u64().unwrap())
        .collect()
}

/// Thread and sources of all syntheses that are stored.
fn stored(server: &Server) -> Vec<(String, Vec<u64>)> {
    let log = server.json("r", &["log", "-n", "10000"]);
    log.iter()
        .filter(|event| event["event"] == "mission_control_synthesis")
        .map(|event| {
            (
                event["body"]["thread"].as_str().unwrap().to_owned(),
                sources(&event["body"]),
            )
        })
        .collect()
}

fn threads_are_drawn_together(server: Server) {
    let (aha, alert) = ("mesh.attention.aha_moment", "mesh.attention.coherence_alert");
    burst(
        &server,
        &[
            ("alpha", aha, json!({"text": "x", "thread": "T"})),
            (
                "beta",
                "mesh.resonance.detected",
                json!({"pattern": "loops", "threads": ["T", "U"]}),
            ),
            ("beta", alert, json!({"score": 0.2, "thread": "U"})),
            (
                "detector",
                "mesh.fo.conflict_alert",
                json!({"key": "n1", "instances": ["alpha", "beta"]}),
            ),
            (
                "alpha",
                "mesh.fo.insight",
                json!({"text": "of no concern", "thread": "T"}),
            ),
        ],
    );
    let mut running = control(&server, "1s", &[]);
    let mut told: BTreeMap<String, Value> = BTreeMap::new();
    while told.len() < 3 {
        let line = running.json();
        told.insert(line["thread"].as_str().unwrap().to_owned(), line);
    }
    let drawn: Vec<(&str, Vec<u64>)> = told
        .iter()
        .map(|(thread, line)| (thread.as_str(), sources(line)))
        .collect();
    assert_eq!(drawn, [("T", vec![1, 2]), ("U", vec![2, 3]), ("n1", vec![4])]);
    assert_eq!(told["T"]["instances"], json!(["alpha", "beta"]));
    assert!(
        told["T"]["text"].as_str().unwrap().ends_with(": x; loops"),
        "{told:?}"
    );
    assert_eq!(running.terminate(), 0);
    // Somebody else, from the beginning, tells of nothing anew.
    let other = control(&server, "1s", &["--durable", "other"]);
    for _ in 0..3 {
        assert_eq!(other.json()["new"], false);
    }
    assert_eq!(stored(&server).len(), 3);
    let checked = server.run("r", &["mission-control", "--window", "0s"]);
    assert!(
        checked.code == 2 && checked.err.contains("--window"),
        "{checked:?}"
    );
}

fn killed_in_the_middle_it_takes_up_its_groups(server: Server) {
    let aha_of = |who, thread| {
        (
            who,
            "mesh.attention.aha_moment",
            json!({"text": "x", "thread": thread}),
        )
    };
    burst(
        &server,
        &[aha_of("alpha", "T"), aha_of("beta", "U"), aha_of("beta", "T")],
    );
    // Nothing is over before the kill, unless this machine is very slow; what is told is the same then.
    let window = "4s";
    let mut first = control(&server, window, &[]);
    // What is settled comes to nobody again.
    until("the events to be settled", || {
        let info = server.run("r", &["consumer", "info", "MESH", "mission-control", "--json"]);
        let info: Value = serde_json::from_str(&info.out).ok()?;
        (info["ack_floor"]["stream_seq"] == 3).then_some(())
    });
    first.kill();
    let _second = control(&server, window, &[]);
    let last = aha(&server, "gamma", "V");
    let mut told = until("all to be drawn together", || {
        let told = stored(&server);
        (told.len() >= 3).then_some(told)
    });
    told.sort();
    let of = |thread: &str, sources: &[u64]| (thread.to_owned(), sources.to_vec());
    assert_eq!(told, [of("T", &[1, 3]), of("U", &[2]), of("V", &[last])]);
}

fn every_event_is_drawn_from_once(mut server: Server) {
    let mut running = control(&server, "500ms", &[]);
    let beside = control(&server, "500ms", &[]);
    let mut said: Vec<(String, u64)> = Vec::new();
    for round in 0..24 {
        let thread = format!("T{}", round % 3);
        said.push((thread.clone(), aha(&server, "alpha", &thread)));
        match round {
            5 | 11 | 17 => {
                running.kill();
                running = control(&server, "500ms", &[]);
            }
            14 => {
                server.kill();
                server.restart();
            }
            _ => {}
        }
    }
    let drawn = until("all events to be drawn from", || {
        let mut drawn: Vec<(String, u64)> = Vec::new();
        for (thread, sources) in stored(&server) {
            drawn.extend(sources.into_iter().map(|source| (thread.clone(), source)));
        }
        (drawn.len() >= said.len()).then_some(drawn)
    });
    let sorted = |mut list: Vec<(String, u64)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(drawn), sorted(said));
    drop(beside);
}
