//! `pub`, `sub`, `request`, `reply`, `rtt`.

use super::mesh;
use crate::support::Server;

#[test]
fn sub_prints_what_pub_sends() {
    let Some(server) = Server::core() else { return };
    let sub = server.start(&["sub", "a.*", "b.>", "--count", "4"], "Subscribing on a.*, b.>");
    server
        .mesh(&["pub", "a.one", "first", "-H", "K:v1", "-H", "K: v2", "-H", "A:x"])
        .ok();
    server
        .mesh(&["pub", "b.x.y", "second {{Count}}", "--count", "2", "--reply", "r"])
        .ok();
    server.mesh(&["pub", "c", "not for us"]).ok();
    server.mesh_with(&["pub", "a.z"], b"from stdin\n").ok();
    let ran = sub.finish().ok();
    assert_eq!(
        ran.out,
        "[#1] Received on \"a.one\"\nA: x\nK: v1\nK: v2\n\nfirst\n\n\
         [#2] Received on \"b.x.y\" with reply \"r\"\nsecond 1\n\n\
         [#3] Received on \"b.x.y\" with reply \"r\"\nsecond 2\n\n\
         [#4] Received on \"a.z\"\nfrom stdin\n\n\n"
    );
    assert!(ran.err.contains("Received 4 messages, 32 B"), "{}", ran.err);
}

#[test]
fn sub_has_other_shapes() {
    let Some(server) = Server::core() else { return };
    let start = |flags: &[&str]| {
        let mut arguments = vec!["sub", "s", "--count", "1"];
        arguments.extend(flags);
        server.start(&arguments, "Subscribing")
    };
    let shapes = [
        start(&["--raw"]),
        start(&["--headers-only"]),
        start(&["--subjects-only"]),
        start(&["--json"]),
        start(&["--json", "--headers-only"]),
    ];
    server.mesh(&["pub", "s", "text", "-H", "K:v"]).ok();
    let out = shapes.map(|sub| sub.finish().ok().out);
    assert_eq!(
        out,
        [
            "text\n",
            "[#1] Received on \"s\"\nK: v\n\n",
            "s\n",
            "{\"subject\":\"s\",\"headers\":{\"K\":[\"v\"]},\"text\":\"text\"}\n",
            "{\"subject\":\"s\",\"headers\":{\"K\":[\"v\"]}}\n",
        ]
    );
    let sub = server.start(&["sub", "s", "--count", "1", "--json"], "Subscribing");
    server.mesh_with(&["pub", "s", "-"], &[0xff, 0x00]).ok();
    assert_eq!(sub.finish().ok().out, "{\"subject\":\"s\",\"data\":\"/wA=\"}\n");
}

#[test]
fn a_queue_member_takes_no_more_than_it_prints() {
    let Some(server) = Server::core() else { return };
    let one = server.start(
        &["sub", "q", "--queue", "g", "--count", "3", "--raw"],
        "Subscribing",
    );
    let rest = server.start(
        &[
            "sub", "q", "--queue", "g", "--raw", "--count", "57", "--wait", "20s",
        ],
        "Subscribing",
    );
    server
        .mesh(&["pub", "q", "{{Count}}", "--count", "30", "--no-templates"])
        .ok();
    server.mesh(&["pub", "q", "x", "--count", "30"]).ok();
    let taken = [one, rest].map(|sub| sub.finish().ok().out.lines().count());
    assert_eq!(taken, [3, 57]);
}

#[test]
fn pub_reads_lines_and_reports_in_bulk() {
    let Some(server) = Server::core() else { return };
    let sub = server.start(&["sub", "l", "--count", "3", "--raw"], "Subscribing");
    let ran = server
        .mesh_with(&["pub", "l", "--send-on", "newline"], b"one\ntwo\nthree")
        .ok();
    assert_eq!(ran.err.matches("Published").count(), 3, "{}", ran.err);
    assert_eq!(sub.finish().out, "one\ntwo\nthree\n");
    let ran = server.mesh(&["pub", "l", "x", "--count", "1000"]).ok();
    assert!(
        ran.err.contains("Published 1,000 messages, 1000 B"),
        "{}",
        ran.err
    );
    assert_eq!(ran.err.lines().count(), 1);
    assert_eq!(server.mesh(&["pub", "l", "x", "-q"]).ok().err, "");
}

#[test]
fn pub_refuses_what_cannot_be_sent() {
    let Some(server) = Server::core() else { return };
    server.mesh(&["pub", "a b", "x"]).fails(2, "a b");
    server.mesh(&["pub", "a.*", "x"]).fails(2, "wildcard");
    server
        .mesh(&["pub", "a", "x", "-H", ": x"])
        .fails(2, "a header has a name");
    for broken in ["K\nL:x", "K:x\ny", "K: x\ry", "K:x\n"] {
        server
            .mesh(&["pub", "a", "x", "-H", broken])
            .fails(2, "a header is one line");
    }
    server
        .mesh(&["pub", "a", "x", "-H", "nocolon"])
        .fails(2, "Key:Value");
    server
        .mesh_with(&["pub", "a"], &[b'x'; 1_100_000])
        .fails(2, "payload");
    server.mesh(&["sub", "a..b"]).fails(2, "a..b");
}

#[test]
fn a_request_is_answered() {
    let Some(server) = Server::core() else { return };
    let _text = server.start(
        &["reply", "text", "n{{Count}} {{Request}}", "-H", "K:v"],
        "Listening on",
    );
    let _echo = server.start(&["reply", "echo", "--echo"], "Listening on");
    let command = "printf '%s:' $MESH_SUBJECT; tr a-z A-Z";
    let _shell = server.start(&["reply", "sh.*", "--command", command], "Listening on");
    let _broken = server.start(&["reply", "broken", "--command", "exit 3"], "Listening on");

    let ran = server.mesh(&["request", "text", "hi"]).ok();
    assert_eq!(ran.out, "n1 hi\n");
    assert!(
        ran.err.contains("K: v") && ran.err.contains("Received with rtt"),
        "{}",
        ran.err
    );
    assert_eq!(server.mesh(&["req", "text", "x", "--raw"]).ok().out, "n2 x\n");
    assert_eq!(
        server.mesh_with(&["req", "sh.up", "--raw"], b"abc").ok().out,
        "sh.up:ABC\n"
    );
    let answer = server
        .mesh(&["req", "echo", "x", "-H", "A:b", "--json"])
        .ok()
        .json();
    assert_eq!(answer["text"], "x");
    assert_eq!(answer["headers"]["A"][0], "b");
    assert!(answer["rtt_ns"].as_u64().unwrap() > 0);
    let answer = server.mesh(&["req", "broken", "x", "--json"]).ok().json();
    assert_eq!(answer["headers"]["Nats-Service-Error-Code"][0], "500");
}

#[test]
fn a_request_that_is_not_answered_says_why() {
    let Some(server) = Server::core() else { return };
    server
        .mesh(&["request", "nobody", "x"])
        .fails(4, "nobody listens on \"nobody\"");
    let _mute = server.start(&["sub", "mute"], "Subscribing");
    server
        .mesh(&["request", "mute", "x", "--timeout", "200ms"])
        .fails(1, "no reply");
}

#[test]
fn a_request_takes_several_replies() {
    let Some(server) = Server::core() else { return };
    let _members =
        ["a", "b", "c"].map(|name| server.start(&["reply", "all", name, "--queue", name], "Listening on"));
    let sorted = |out: &str| {
        let mut lines: Vec<_> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let ran = server.mesh(&["req", "all", "", "--raw", "--replies", "3"]).ok();
    assert_eq!(sorted(&ran.out), ["a", "b", "c"]);
    let ran = server
        .mesh(&["req", "all", "", "--raw", "--replies", "0", "--timeout", "500ms"])
        .ok();
    assert_eq!(sorted(&ran.out), ["a", "b", "c"]);
    server
        .mesh(&["req", "all", "", "--replies", "4"])
        .fails(1, "3 of 4 replies");
}

#[test]
fn rtt_measures() {
    let Some(server) = Server::core() else { return };
    let rtt = server.mesh(&["rtt", "-n", "20", "--json"]).ok().json();
    assert_eq!(rtt["iterations"], 20);
    let times = ["min_ns", "p50_ns", "p99_ns", "max_ns"].map(|field| rtt[field].as_u64().unwrap());
    assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    assert!(rtt["client_id"].as_u64().unwrap() > 0);
    let page = server.mesh(&["rtt", "3"]).ok();
    assert_eq!(page.row("Round Trips"), "3");
}

#[test]
fn counts_of_nothing_are_refused() {
    for flag in ["--msgs", "--runs"] {
        for count in ["0", "-1"] {
            mesh(&["bench", "1to1", flag, count]).fails(2, "is not in 1..");
        }
    }
    for flag in ["--instances", "--seconds", "--window", "--rate"] {
        for count in ["0", "-1"] {
            mesh(&["hammer", flag, count]).fails(2, "is not in 1..");
        }
    }
}
