//! `mesh ask` and `mesh answer`: who answers, who counts, and how it ends.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::on_each_server;
use super::support::{Ran, Running, Server, until};

on_each_server!(
    answers_are_counted_until_it_is_certain,
    peers_that_are_present_are_asked,
    who_counts_and_who_does_not,
);

fn answer(server: &Server, instance: &str, words: &[&str]) -> Running {
    quietly(server.mesh(instance, &[&["answer"], words].concat()))
}

/// Starts it; what it says is of no interest.
fn quietly(mut command: Command) -> Running {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Running::start_silent(command)
}

/// Asks as often as it takes for so many instances to be there to answer.
fn until_there(server: &Server, subject: &str, count: usize) {
    let all = format!("{count}/{count}");
    until("everybody to answer", || {
        let ran = server.run("r", &["ask", subject, "", "-q", &all, "--timeout", "1s"]);
        (ran.code == 0).then_some(())
    });
}

/// Asks; who ends as soon as the outcome is certain may take long.
fn ask(server: &Server, words: &[&str]) -> Ran {
    server.run("r", &[&["ask"], words, &["--timeout", "60s"]].concat())
}

/// Asks for a second, again and again until all who can have answered within it.
fn briefly(server: &Server, words: &[&str], expected: impl Fn(&Ran) -> bool) -> Ran {
    until("all the answers within a second", || {
        let ran = server.run("r", &[&["ask"], words, &["--timeout", "1s"]].concat());
        expected(&ran).then_some(ran)
    })
}

fn says<'a>(code: i32, words: &'a [&str]) -> impl Fn(&Ran) -> bool + 'a {
    move |ran| ran.code == code && words.iter().all(|words| ran.err.contains(words))
}

#[track_caller]
fn fails(ran: &Ran, code: i32, words: &[&str]) {
    assert!(says(code, words)(ran), "{code} {words:?}: {ran:?}");
}

/// What `--json` says in the end.
fn outcome(ran: &Ran) -> Value {
    serde_json::from_str(ran.out.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{ran:?}"))
}

fn what_cannot_be_asked(server: &Server) {
    let ask = |words: &[&str]| ask(server, words);
    fails(
        &ask(&["q", "?"]),
        4,
        &["nobody listens on \"q\"", "mesh answer q"],
    );
    let nobody = ask(&["q", "?", "--quorum", "1/2", "--json"]);
    fails(&nobody, 4, &["nobody listens"]);
    assert_eq!(outcome(&nobody), json!({"outcome": "nobody"}));
    for (rule, words) in [
        ("4/3", "4 of 3"),
        ("0/3", "at least 1"),
        ("2", "2 of how many"),
        ("some", "expected N/X"),
        ("-1/3", "expected N/X"),
    ] {
        fails(&ask(&["q", "?", "--quorum", rule]), 2, &[words]);
    }
    fails(&ask(&["q", "?", "--agree"]), 2, &["--quorum"]);
    for subject in ["a..b", "a b", "a.*", ">"] {
        fails(&ask(&[subject, "?"]), 2, &["subject"]);
    }
    let large = server.mesh("r", &["ask", "q", "-", "--quorum", "1/3"]);
    fails(&Ran::fed(large, &[b'x'; 1_100_000]), 2, &["1100000 bytes"]);
}

fn answers_are_counted_until_it_is_certain(server: Server) {
    what_cannot_be_asked(&server);
    let ask = |words: &[&str]| ask(&server, words);
    let voices = [
        answer(&server, "alpha", &["q", r#"{"go": true, "at": 7}"#]),
        answer(
            &server,
            "beta",
            &["q", "--command", r#"cat > /dev/null; echo '{"at":7,"go":true}'"#],
        ),
        answer(&server, "gamma", &["q", "no"]),
    ];
    until_there(&server, "q", 3);

    let agreed = ask(&["q", "?", "--quorum", "2/3", "--agree", "--json"]);
    assert_eq!(agreed.code, 0, "{agreed:?}");
    let end = outcome(&agreed);
    let expected = (&json!("reached"), &json!(2), &json!(3));
    assert_eq!((&end["outcome"], &end["best"], &end["of"]), expected);
    let mut who: Vec<_> = end["answers"][0]["instances"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    who.sort_by_key(|name| name.to_string());
    assert_eq!(who, ["alpha", "beta"]);
    let raw = ask(&["q", "?", "--quorum", "2/3", "--agree", "--raw"]).out;
    let value: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(value, json!({"go": true, "at": 7}));

    let split = ask(&["q", "?", "--quorum", "all/3", "--agree", "--json"]);
    fails(&split, 5, &["they disagree", "gamma: no"]);
    assert_eq!(outcome(&split)["outcome"], "disagreed");
    // A fourth that is not there: three answers are enough for three, and not for four.
    let three = ask(&["q", "?", "--quorum", "3/4"]).out;
    let mut lines: Vec<_> = three.lines().collect();
    assert_eq!(lines.pop(), Some("quorum: 3 of 4 answered"));
    lines.sort_unstable();
    let alpha = r#"alpha: {"go": true, "at": 7}"#;
    assert_eq!(lines, [alpha, r#"beta: {"at":7,"go":true}"#, "gamma: no"]);
    let late = ["3 of 4 answered within 1s; the quorum is 4 of 4", "--timeout"];
    let four = briefly(
        &server,
        &["q", "?", "--quorum", "all/4", "--json"],
        says(1, &late),
    );
    assert_eq!(outcome(&four)["outcome"], "timed_out");
    // Without an aim, all that comes.
    let open = briefly(&server, &["q", "?"], |ran| ran.out.lines().count() == 3);
    assert_eq!(open.code, 0, "{open:?}");
    drop(voices);
}

fn peers_that_are_present_are_asked(server: Server) {
    let ask = |words: &[&str]| ask(&server, &[&["q", "?", "--quorum"], words].concat());
    fails(&ask(&["majority"]), 4, &["no peer is present", "majority/3"]);
    let voices = ["alpha", "beta", "gamma"].map(|name| answer(&server, name, &["q", "yes"]));
    let join = |name: &str, session: &str| {
        let words = [
            "join",
            "--heartbeat",
            "1s",
            "--lapse",
            "60s",
            "--session",
            session,
        ];
        quietly(server.mesh(name, &words))
    };
    let present = |count: usize| {
        until("the peers", || {
            (server.json("r", &["peers"]).len() == count).then_some(())
        });
    };
    // Of two sessions of one instance, one voice.
    let peers = [join("alpha", "S1"), join("alpha", "S2"), join("beta", "S3")];
    present(3);
    until_there(&server, "q", 3);
    let all = ask(&["all", "--json"]);
    assert_eq!(all.code, 0, "{all:?}");
    let end = outcome(&all);
    let expected = (&json!(2), &json!(2), &json!([]));
    assert_eq!((&end["of"], &end["best"], &end["missing"]), expected);

    let silent = join("delta", "S4");
    present(4);
    let most = ask(&["majority", "--agree", "--raw"]);
    assert_eq!((most.code, most.out.as_str()), (0, "yes\n"), "{most:?}");
    let gamma = "no peers are present of that name: gamma";
    let short = ["2 of 3 answered", "no answer from delta", gamma];
    briefly(&server, &["q", "?", "--quorum", "all"], says(1, &short));
    drop((voices, peers, silent));
}

fn who_counts_and_who_does_not(server: Server) {
    let voices = [
        answer(&server, "alpha", &["twice", "yes"]),
        answer(&server, "alpha", &["twice", "no"]),
        answer(&server, "beta", &["broken", "--command", "exit 3"]),
        answer(&server, "gamma", &["mirror"]),
        quietly(server.mesh("delta", &["reply", "nameless", "yes"])),
    ];
    for subject in ["broken", "mirror"] {
        until("it to listen", || {
            let ran = server.run("r", &["request", subject, ""]);
            (ran.code == 0).then_some(())
        });
    }
    let twice = ["1 of 2 answered", "(again: not counted)"];
    briefly(&server, &["twice", "?", "--quorum", "2/2"], says(1, &twice));
    // Known at once: there is no time to wait for.
    let broken = ask(&server, &["broken", "?", "--quorum", "1/1"]);
    let words = ["1 of 1 could not answer", "could not answer: beta"];
    fails(&broken, 1, &words);
    let unsigned = ["0 of 1 answered", "Mesh-Instance"];
    briefly(&server, &["nameless", "?", "--quorum", "1/1"], says(1, &unsigned));
    let open = briefly(&server, &["nameless", "?"], |ran| ran.code == 0);
    assert_eq!(open.out, "-: yes\n", "{open:?}");
    // An echo brings the asker's headers along, and yet is signed by who gives it.
    let mirror = ask(&server, &["mirror", "as I say", "--quorum", "1/1"]);
    assert_eq!(
        mirror.out, "gamma: as I say\nquorum: 1 of 1 answered\n",
        "{mirror:?}"
    );
    drop(voices);
}
