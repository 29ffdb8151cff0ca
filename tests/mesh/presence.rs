//! Presence: who is here, who left and why; and what `mesh check` says.

use std::thread;
use std::time::Duration;

use super::on_each_server;
use super::support::{Ran, Running, Server, mesh_bin, until};

on_each_server!(
    peers_come_and_go,
    a_killed_peer_lapses_once,
    a_command_is_present_while_it_runs,
    a_broker_restart_loses_no_peer,
    check_says_how_it_is,
);

/// Nobody lapses for the machine being busy.
const JOIN: [&str; 5] = ["join", "--heartbeat", "1s", "--lapse", "60s"];
const LAPSE_SOON: [&str; 5] = ["join", "--heartbeat", "1s", "--lapse", "4s"];

fn join(server: &Server, instance: &str, session: Option<&str>) -> Running {
    join_as(server, instance, session, &JOIN)
}

fn join_as(server: &Server, instance: &str, session: Option<&str>, join: &[&str]) -> Running {
    let mut command = server.mesh(instance, join);
    if let Some(session) = session {
        command.args(["--session", session]);
    }
    let running = Running::start(command);
    // It tells of its coming when it is there already.
    until("the peer", || {
        let joined = |told: &(String, String, String)| told.0 == "peer_joined" && told.1 == instance;
        let is_here = peers(server).iter().any(|peer| peer.0 == instance);
        (is_here && told(server).iter().any(joined)).then_some(())
    });
    running
}

/// Instance and session of each peer.
fn peers(server: &Server) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let peers = server.json("reader", &["peers"]);
    peers
        .iter()
        .map(|peer| (text(&peer["instance"]), text(&peer["session"])))
        .collect()
}

fn named(peers: &[(&str, &str)]) -> Vec<(String, String)> {
    peers
        .iter()
        .map(|&(instance, session)| (instance.to_owned(), session.to_owned()))
        .collect()
}

/// (event, instance spoken of, cause) of each event about peers.
fn told(server: &Server) -> Vec<(String, String, String)> {
    let events = server.json("reader", &["log", "-n", "1000"]);
    let about = events
        .iter()
        .filter(|event| event["subject"].as_str().unwrap().starts_with("mesh.peer."));
    about
        .map(|event| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let subject = event["body"].get("instance").unwrap_or(&event["instance"]);
            (
                text(&event["event"]),
                text(subject),
                text(&event["body"]["cause"]),
            )
        })
        .collect()
}

fn peers_come_and_go(server: Server) {
    assert_eq!(peers(&server), []);
    let mut alpha = join(&server, "alpha", Some("S1"));
    let second = join(&server, "beta", None);
    let other_session = join(&server, "gamma", Some("S2"));
    server.ok("beta", &["emit", "fo_insight", r#"{"text":"x"}"#]);
    assert_eq!(
        peers(&server),
        named(&[("alpha", "S1"), ("beta", ""), ("gamma", "S2")])
    );
    let listed = server.json("reader", &["peers"]);
    assert_eq!(
        (&listed[0]["last_event"], &listed[1]["last_event"]),
        (&"peer_joined".into(), &"fo_insight".into())
    );
    assert!(
        server
            .ok("reader", &["check"])
            .starts_with("Online, 3 peers connected\n")
    );
    assert_eq!(alpha.terminate(), 0);
    assert_eq!(peers(&server), named(&[("beta", ""), ("gamma", "S2")]));
    let last = told(&server).pop().unwrap();
    assert_eq!(last, ("peer_left".into(), "alpha".into(), "left".into()));
    drop((second, other_session));
}

fn a_killed_peer_lapses_once(server: Server) {
    let mut alpha = join_as(&server, "alpha", Some("S1"), &LAPSE_SOON);
    let witnesses = [join(&server, "beta", None), join(&server, "gamma", None)];
    alpha.kill();
    let lapse = ("peer_left".into(), "alpha".into(), "lapsed".into());
    until("the report", || told(&server).contains(&lapse).then_some(()));
    assert_eq!(peers(&server), named(&[("beta", ""), ("gamma", "")]));
    // Who comes later finds it reported.
    let late = join(&server, "late", None);
    let seen = told(&server);
    assert_eq!(
        seen.iter().filter(|event| **event == lapse).count(),
        1,
        "{seen:?}"
    );
    drop((witnesses, late));
}

fn a_command_is_present_while_it_runs(server: Server) {
    let mut command = server.mesh("alpha", &JOIN);
    command.args(["--session", "S1", "--"]);
    command.arg(mesh_bin()).args(["peers", "--json"]);
    let ran = Ran::of(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains(r#""instance":"alpha","session":"S1""#),
        "{ran:?}"
    );
    let mut command = server.mesh("alpha", &JOIN);
    command.args([
        "--session",
        "S2",
        "--",
        "sh",
        "-c",
        "test $MESH_SESSION = S2 && exit 7",
    ]);
    assert_eq!(Ran::of(command).code, 7);
    assert_eq!(peers(&server), []);
    assert_eq!(
        told(&server).pop().unwrap(),
        ("peer_left".into(), "alpha".into(), "exited with 7".into())
    );
    assert_eq!(
        server.ok("r", &["lineage"]),
        "S1  on alpha  ended\nS2  on alpha  ended\n"
    );
    assert_eq!(server.run("alpha", &["join", "--", "/no/such/command"]).code, 1);
    assert_eq!(server.run("alpha", &["join", "--lapse", "3s"]).code, 2);
    assert_eq!(server.run("alpha", &["join", "--heartbeat", "0s"]).code, 2);
}

fn a_broker_restart_loses_no_peer(mut server: Server) {
    let alpha = join_as(&server, "alpha", Some("S1"), &LAPSE_SOON);
    server.kill();
    // Longer than it takes to lapse: a peer cannot speak to a server that is not there.
    thread::sleep(Duration::from_secs(5));
    server.restart();
    until("its return", || {
        (peers(&server) == named(&[("alpha", "S1")])).then_some(())
    });
    drop(alpha);
}

fn check_says_how_it_is(mut server: Server) {
    let fresh = server.ok("r", &["check"]);
    assert!(
        fresh.starts_with("Online, 0 peers connected\n0 of 12 systems seen in the last 24 h\n"),
        "{fresh}"
    );
    server.ok("alpha", &["emit", "fo_insight", r#"{"text":"x"}"#]);
    server.ok("alpha", &["emit", "aha_moment", r#"{"text":"x"}"#]);
    server.ok("alpha", &["emit", "coherence_alert", r#"{"score":0.2}"#]);
    server.ok("alpha", &["emit", "recovery_beacon", r#"{"session":"S9"}"#]);
    let watch = Running::start(server.mesh("r", &["watch", "--since", "all", "--durable", "d", "--json"]));
    for _ in 0..4 {
        watch.line();
    }
    drop(watch);
    server.ok("alpha", &["emit", "fo_insight", r#"{"text":"unread"}"#]);
    let health = &server.json("r", &["check"])[0];
    assert_eq!(health["online"], true);
    assert_eq!(
        health["systems"],
        serde_json::json!(["FO Local", "Attention Daemon", "Meta FO"])
    );
    assert_eq!(
        (&health["events"], &health["silent"].as_array().unwrap().len()),
        (&5.into(), &9)
    );
    assert_eq!(
        (&health["consumers"][0]["name"], &health["beacon"]["instance"]),
        (&"d".into(), &"alpha".into())
    );
    let text = server.ok("r", &["check"]);
    assert!(
        text.contains("3 of 12 systems seen in the last 24 h; not Graph Feeder"),
        "{text}"
    );
    let sent = server.ok("r", &["check", "send", "hello there"]);
    assert!(sent.starts_with("stored as 6 after "), "{sent}");

    server.kill();
    let ran = server.run("r", &["check"]);
    assert_eq!((ran.code, ran.out.as_str()), (3, "Offline\n"), "{ran:?}");
    assert_eq!(server.run("r", &["check", "send", "x"]).code, 3);
    server.restart();
    assert!(
        server
            .ok("r", &["check"])
            .starts_with("Online, 0 peers connected\n3 of 12")
    );
}
