//! Emitting: numbered without gaps, stored once, refused clearly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::on_each_server;
use super::support::{Kind, Ran, Server, mesh_bin, until};
use crate::support::free_port;

on_each_server!(
    an_event_is_stored_with_its_envelope,
    wrong_events_are_refused,
    sequences_have_no_gap_whoever_emits,
    an_unheard_acknowledgement_neither_doubles_nor_skips,
    an_id_is_stored_once,
    a_lost_clock_changes_nothing,
    without_room_an_event_is_kept_and_goes_out_later,
);

fn an_event_is_stored_with_its_envelope(server: Server) {
    let mut command = server.mesh("alpha", &["emit", "fo_insight", r#"{"text":"a"}"#, "--json"]);
    command.env("MESH_SESSION", "S1").env("MESH_PARENT_SESSION", "S0");
    let ran = Ran::of(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let receipt: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        receipt,
        serde_json::json!({"stream": "MESH", "stream_seq": 1, "instance": "alpha", "seq": 1})
    );
    let fed = Ran::fed(
        server.mesh("alpha", &["emit", "aha_moment", "-"]),
        b"{\"text\":\"from stdin\"}",
    );
    assert_eq!((fed.code, fed.out.as_str()), (0, "2 alpha 2\n"), "{fed:?}");

    let stored = server.json("beta", &["log"]);
    assert_eq!(stored.len(), 2);
    let first = &stored[0];
    for (key, expected) in [
        ("event", "fo_insight"),
        ("subject", "mesh.fo.insight"),
        ("instance", "alpha"),
        ("session", "S1"),
        ("parent", "S0"),
    ] {
        assert_eq!(first[key], expected, "{first}");
    }
    assert_eq!((&first["seq"], &first["body"]["text"]), (&1.into(), &"a".into()));
    assert!(stored[1].get("session").is_none(), "{}", stored[1]);
}

fn wrong_events_are_refused(server: Server) {
    for (args, code, expected) in [
        (&["emit", "fo_insigt", "{}"][..], 4, "did you mean `fo_insight`"),
        (&["emit", "fo_insight", "{}"], 2, "field `text` (text) is missing"),
        (
            &["emit", "fo_insight", r#"{"text":1}"#],
            2,
            "field `text` must be text, got number",
        ),
        (&["emit", "fo_insight", "no"], 2, "not JSON"),
        (&["watch", "fo_insigt"], 4, "did you mean `fo_insight`"),
        (&["watch", "other.>"], 2, "under mesh."),
        (&["watch", "mesh..x"], 2, "under mesh."),
        (&["watch", "--since", "yesterday"], 2, "expected a duration"),
        (&["watch", "--exec", "true"], 2, "--durable"),
        (&["watch", "--durable", "a.b"], 2, "letters, digits"),
    ] {
        let ran = server.run("alpha", args);
        assert_eq!(ran.code, code, "{args:?} {ran:?}");
        assert!(ran.err.contains(expected), "{args:?} {ran:?}");
    }
    // What was refused took no number.
    assert_eq!(
        server.ok("alpha", &["emit", "fo_insight", "not JSON", "--force"]),
        "1 alpha 1\n"
    );
    let huge = Ran::fed(
        server.mesh("alpha", &["emit", "fo_insight", "-"]),
        format!("{{\"text\":\"{}\"}}", "x".repeat(2 << 20)).as_bytes(),
    );
    assert!(
        huge.code == 1 && huge.err.contains("the server takes"),
        "{huge:?}"
    );
    assert_eq!(
        server.ok("alpha", &["emit", "fo_insight", r#"{"text":"b"}"#]),
        "2 alpha 2\n"
    );

    std::fs::write(
        server.dir.path().join("events.json"),
        r#"{"events":[{"name":"build_done","subject":"mesh.build.done","system":"B","fields":[{"name":"ok","type":"flag","required":true}]}]}"#,
    )
    .unwrap();
    assert_eq!(
        server.ok("alpha", &["emit", "build_done", r#"{"ok":true}"#]),
        "3 alpha 3\n"
    );
    assert_eq!(server.run("alpha", &["emit", "build_done"]).code, 2);
    assert!(server.ok("alpha", &["events"]).contains("mesh.build.done"));
}

fn sequences_have_no_gap_whoever_emits(server: Server) {
    let (writers, each) = (6, 5);
    thread::scope(|scope| {
        for writer in 0..writers {
            let server = &server;
            scope.spawn(move || {
                for n in 0..each {
                    let instance = if writer % 2 == 0 { "even" } else { "odd" };
                    server.ok(
                        instance,
                        &[
                            "emit",
                            "monologue_chunk",
                            &format!(r#"{{"text":"{writer}.{n}"}}"#),
                        ],
                    );
                }
            });
        }
    });
    let stored = server.json("reader", &["log"]);
    for instance in ["even", "odd"] {
        let of_it = stored.iter().filter(|event| event["instance"] == instance);
        let seqs: Vec<u64> = of_it.map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=writers / 2 * each).collect::<Vec<u64>>(), "{instance}");
    }
}

/// A relay that passes bytes on until it is told to lose what the server says.
pub struct Relay {
    pub port: u16,
    open: Arc<AtomicBool>,
}

impl Relay {
    /// `lose_after`: how many `+`/`MSG` replies reach the client; what follows is swallowed, then the line is cut.
    pub fn start(server: u16, swallow_replies: bool) -> Self {
        Self::begin(server, swallow_replies, true)
    }

    /// One that hangs up on everybody until it is opened.
    pub fn closed(server: u16) -> Self {
        Self::begin(server, false, false)
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    fn begin(server: u16, swallow_replies: bool, open: bool) -> Self {
        let open = Arc::new(AtomicBool::new(open));
        let is_open = Arc::clone(&open);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !is_open.load(Ordering::Acquire) {
                    continue;
                }
                let upstream = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (mut from_client, mut to_server) =
                    (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
                let (mut from_server, mut to_client) = (upstream, client);
                thread::spawn(move || {
                    let mut bytes = [0; 65536];
                    while let Ok(read @ 1..) = from_server.read(&mut bytes) {
                        let reply = bytes[..read].windows(4).any(|word| word == b"MSG ");
                        if swallow_replies && reply {
                            continue;
                        }
                        if to_client.write_all(&bytes[..read]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, open }
    }
}

/// The worst moment for an emitter to die: the event is stored, the acknowledgement never came.
fn an_unheard_acknowledgement_neither_doubles_nor_skips(server: Server) {
    server.ok("alpha", &["emit", "fo_insight", r#"{"text":"first"}"#]);
    let deaf = Relay::start(server.port, true);
    let through = format!("nats://127.0.0.1:{}", deaf.port);
    let emit = |body: &str, url: &str| {
        server.run(
            "alpha",
            &["emit", "fo_insight", body, "--server", url, "--timeout", "2"],
        )
    };

    let ran = emit(r#"{"text":"unheard"}"#, &through);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.contains("event 2 is not confirmed") && ran.err.contains("it is kept"),
        "{ran:?}"
    );
    // Another event comes after it; the same event again only settles it.
    assert_eq!(emit(r#"{"text":"next"}"#, &server.url()).out, "3 alpha 3\n");
    let ran = emit(r#"{"text":"unheard again"}"#, &through);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(
        emit(r#"{"text":"unheard again"}"#, &server.url()).out,
        "4 alpha 4\n"
    );

    // Killed while it waits.
    let mut killed = server.mesh(
        "alpha",
        &["emit", "fo_insight", r#"{"text":"killed"}"#, "--server", &through],
    );
    let mut child = killed.spawn().unwrap();
    until("the killed one's event", || {
        (server.json("beta", &["log"]).len() == 5).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(emit(r#"{"text":"last"}"#, &server.url()).out, "6 alpha 6\n");

    let texts: Vec<(u64, String)> = server
        .json("beta", &["log"])
        .iter()
        .map(|event| {
            (
                event["seq"].as_u64().unwrap(),
                event["body"]["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = ["first", "unheard", "next", "unheard again", "killed", "last"];
    let expected: Vec<(u64, String)> = (1..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(texts, expected);
}

fn an_id_is_stored_once(server: Server) {
    let emit = |instance: &str| {
        server.ok(
            instance,
            &["emit", "fo_insight", r#"{"text":"x"}"#, "--id", "the-one"],
        )
    };
    assert_eq!(emit("alpha"), "1 alpha 1\n");
    assert_eq!(emit("beta"), "1 was there already\n");
    assert_eq!(emit("alpha"), "1 was there already\n");
    // What was there already took no number.
    for instance in ["alpha", "beta"] {
        server.ok(instance, &["emit", "fo_insight", r#"{"text":"y"}"#]);
    }
    let stored: Vec<(String, u64)> = server
        .json("r", &["log"])
        .iter()
        .map(|event| {
            (
                event["instance"].as_str().unwrap().to_owned(),
                event["seq"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        stored,
        [
            ("alpha".to_owned(), 1),
            ("alpha".to_owned(), 2),
            ("beta".to_owned(), 1)
        ]
    );
}

fn without_room_an_event_is_kept_and_goes_out_later(server: Server) {
    let limit = |bytes: &str| {
        let edit = [
            "stream",
            "edit",
            "MESH",
            "--discard",
            "new",
            "--max-bytes",
            bytes,
            "-f",
        ];
        server.ok("alpha", &edit);
    };
    server.ok("alpha", &["setup"]);
    limit("4096");
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(6000));
    let ran = Ran::of(server.mesh("alpha", &["emit", "fo_insight", &large]));
    assert_eq!(ran.code, 3, "{ran:?}");
    // A nats-server may leave such a publish without an answer; ours names the cause.
    let cause = match server.kind {
        Kind::MeshServe => "maximum bytes exceeded",
        Kind::NatsServer => "not confirmed",
    };
    for part in [cause, "it is kept"] {
        assert!(ran.err.contains(part), "{ran:?}");
    }
    assert!(server.json("r", &["log"]).is_empty());
    limit("1000000");
    server.ok("alpha", &["emit", "fo_insight", r#"{"text":"small"}"#]);
    let stored = server.json("r", &["log"]);
    let seqs: Vec<_> = stored.iter().map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(1), Some(2)], "in order, none lost");
    assert_eq!(stored[1]["body"]["text"], "small");
}

/// Order and `--since` go by the server's clock, not by what senders claim.
fn a_lost_clock_changes_nothing(server: Server) {
    server.ok("alpha", &["setup"]);
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let body = r#"{"text":"from the past"}"#;
    let headers = "NATS/1.0\r\nMesh-Instance: old\r\nMesh-Time: 1999-01-01T00:00:00Z\r\nMesh-Seq: 1\r\n\r\n";
    write!(
        socket,
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB mesh.fo.insight {} {}\r\n{headers}{body}\r\nPING\r\n",
        headers.len(),
        headers.len() + body.len()
    )
    .unwrap();
    until("the event", || {
        (server.json("r", &["log"]).len() == 1).then_some(())
    });
    let events = server.json("r", &["watch", "--since", "1h", "-n", "1"]);
    assert_eq!(
        (&events[0]["time"], &events[0]["instance"]),
        (&"1999-01-01T00:00:00Z".into(), &"old".into())
    );
    assert!(
        !events[0]["stored"].as_str().unwrap().starts_with("1999"),
        "{}",
        events[0]
    );
}

#[test]
fn without_a_broker_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("nats://127.0.0.1:{}", free_port());
    for args in [
        &["emit", "fo_insight", r#"{"text":"a"}"#][..],
        &["watch"],
        &["log"],
        &["setup"],
    ] {
        let mut command = std::process::Command::new(mesh_bin());
        command
            .args(args)
            .env("MESH_STATE_DIR", dir.path())
            .env("MESH_URL", &url)
            .env("MESH_INSTANCE", "a");
        let ran = Ran::of(command);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{args:?} {ran:?}");
        assert!(
            ran.err.contains(&url) && ran.err.contains("mesh serve"),
            "{args:?} {ran:?}"
        );
    }
    // Nothing was promised, so nothing was written down.
    assert!(!dir.path().join("a.journal").exists());
}

#[test]
fn a_skip_is_for_a_reason() {
    if std::env::var_os("NATS_SERVER").is_some() {
        assert!(Server::start(Kind::NatsServer).is_some());
    }
}
