use super::*;

fn rule(text: &str) -> Result<Rule, String> {
    text.parse()
}

fn quorum(needed: usize, of: usize) -> Quorum {
    Quorum::new(needed, of).unwrap()
}

#[test]
fn rules_are_read() {
    for (text, needed, of) in [
        ("2/3", 2, 3),
        ("1/1", 1, 1),
        ("3/3", 3, 3),
        ("majority/1", 1, 1),
        ("majority/2", 2, 2),
        ("majority/3", 2, 3),
        ("majority/4", 3, 4),
        ("all/4", 4, 4),
        ("1000/1000", 1000, 1000),
    ] {
        assert_eq!(rule(text), Ok(Rule::Of(quorum(needed, of))), "{text}");
    }
    assert_eq!(rule("majority"), Ok(Rule::MajorityPresent));
    assert_eq!(rule("all"), Ok(Rule::AllPresent));
}

#[test]
fn what_is_no_rule_is_refused_with_its_reason() {
    for (text, reason) in [
        ("4/3", "4 of 3 can never answer"),
        ("0/3", "at least 1"),
        ("0/0", "no instance at all"),
        ("all/0", "no instance at all"),
        ("majority/0", "no instance at all"),
        ("1/1001", "1000 instances at most"),
        ("2", "2 of how many? say 2/X"),
        ("", "expected N/X"),
        ("/", "expected N/X"),
        ("2/", "expected N/X"),
        ("/3", "expected N/X"),
        ("2/3/4", "expected N/X"),
        ("-1/3", "expected N/X"),
        ("+1/3", "expected N/X"),
        ("2 / 3", "expected N/X"),
        ("2of3", "expected N/X"),
        ("50%", "expected N/X"),
        ("most/3", "expected N/X"),
        ("2/99999999999999999999", "expected N/X"),
    ] {
        let error = rule(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn of_the_peers_present() {
    for (present, majority, all) in [(1, 1, 1), (2, 2, 2), (3, 2, 3), (4, 3, 4), (5, 3, 5)] {
        assert_eq!(Rule::MajorityPresent.of(present), Ok(quorum(majority, present)));
        assert_eq!(Rule::AllPresent.of(present), Ok(quorum(all, present)));
        assert_eq!(Rule::Of(quorum(2, 3)).of(present), Ok(quorum(2, 3)));
    }
    Rule::MajorityPresent.of(0).unwrap_err();
    Rule::AllPresent.of(0).unwrap_err();
}

/// `a=yes`: an answer; `a!`: a failure; `=yes`: one that does not say who gives it.
fn voice(text: &str) -> Voice {
    let (who, body, failed) = match text.split_once('=') {
        Some((who, body)) => (who, body, false),
        None => (text.trim_end_matches('!'), "", true),
    };
    Voice {
        instance: (!who.is_empty()).then(|| who.to_owned()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        failed,
    }
}

/// What the tally says after each answer.
fn outcomes(mut tally: Tally, answers: &str) -> Vec<Option<Outcome>> {
    let after = |answer: &str| {
        tally.hear(&voice(answer));
        tally.outcome()
    };
    answers.split_whitespace().map(after).collect()
}

#[test]
fn answers_are_counted_by_instance() {
    const OPEN: Option<Outcome> = None;
    const REACHED: Option<Outcome> = Some(Outcome::Reached);
    const FAILED: Option<Outcome> = Some(Outcome::Failed);
    let cases: [(usize, usize, &str, &[Option<Outcome>]); 9] = [
        (1, 1, "a=yes", &[REACHED]),
        (2, 3, "a=yes b=no", &[OPEN, REACHED]),
        // One voice each, however often they speak.
        (2, 3, "a=yes a=yes a=no b=x", &[OPEN, OPEN, OPEN, REACHED]),
        // Nobody's answers are nobody's.
        (2, 3, "=yes =yes =yes a=yes", &[OPEN, OPEN, OPEN, OPEN]),
        (3, 3, "a=1 b=2 c=3", &[OPEN, OPEN, REACHED]),
        // Who could not answer has had his turn.
        (2, 3, "a! b=yes c=yes", &[OPEN, OPEN, REACHED]),
        (2, 3, "a! a=yes b=yes", &[OPEN, OPEN, OPEN]),
        (2, 3, "a! b!", &[OPEN, FAILED]),
        (3, 3, "a=yes b!", &[OPEN, FAILED]),
    ];
    for (needed, of, answers, expected) in cases {
        let tally = Tally::new(quorum(needed, of), false);
        assert_eq!(outcomes(tally, answers), expected, "{needed}/{of}: {answers}");
    }
}

#[test]
fn agreement_is_the_same_answer_of_enough() {
    const OPEN: Option<Outcome> = None;
    const REACHED: Option<Outcome> = Some(Outcome::Reached);
    const DISAGREED: Option<Outcome> = Some(Outcome::Disagreed);
    const FAILED: Option<Outcome> = Some(Outcome::Failed);
    let cases: [(usize, usize, &str, &[Option<Outcome>]); 10] = [
        (2, 3, "a=yes b=yes", &[OPEN, REACHED]),
        (2, 3, "a=yes b=no c=yes", &[OPEN, OPEN, REACHED]),
        (2, 3, "a=yes b=no c=later", &[OPEN, OPEN, DISAGREED]),
        // Who changes his mind does not make a majority.
        (2, 3, "a=yes b=no a=no", &[OPEN, OPEN, OPEN]),
        // Known as soon as it is so, not when the last has spoken.
        (3, 3, "a=yes b=no", &[OPEN, DISAGREED]),
        (3, 5, "a=1 b=2 c=3 d=4", &[OPEN, OPEN, OPEN, DISAGREED]),
        (1, 3, "a=yes", &[REACHED]),
        (2, 3, "a! b=yes c=yes", &[OPEN, OPEN, REACHED]),
        // Two differ, but the third might have agreed with either: it is the failure that decides.
        (2, 3, "a! b=yes c=no", &[OPEN, OPEN, FAILED]),
        (2, 3, "=yes =yes a=yes", &[OPEN, OPEN, OPEN]),
    ];
    for (needed, of, answers, expected) in cases {
        let tally = Tally::new(quorum(needed, of), true);
        assert_eq!(outcomes(tally, answers), expected, "{needed}/{of}: {answers}");
    }
}

#[test]
fn what_an_answer_is_worth() {
    let members = ["a", "b", "c"].map(str::to_owned).into();
    let mut tally = Tally::new(quorum(2, 3), false).among(members);
    assert_eq!(tally.missing().unwrap(), ["a", "b", "c"]);
    for (answer, expected) in [
        ("=yes", Heard::Unsigned),
        ("z=yes", Heard::Stranger),
        ("a!", Heard::Failed),
        ("a=yes", Heard::Again),
        ("b=yes", Heard::Counted),
        ("c=no", Heard::Counted),
        ("c=no", Heard::Again),
    ] {
        assert_eq!(tally.hear(&voice(answer)), expected, "{answer}");
    }
    assert_eq!(tally.outcome(), Some(Outcome::Reached));
    assert_eq!((tally.answered(), tally.failed(), tally.best()), (2, 1, 2));
    assert_eq!(tally.missing().unwrap(), [""; 0]);

    let mut tally = Tally::new(quorum(1, 3), true);
    assert_eq!(tally.hear(&voice("a=yes")), Heard::Counted);
    assert_eq!(tally.hear(&voice("b=no")), Heard::Late);
    assert_eq!((tally.answered(), tally.missing()), (1, None));

    let mut open = Tally::open();
    for answer in ["a=1", "b=2", "c=1", "a=2"] {
        open.hear(&voice(answer));
    }
    assert_eq!((open.outcome(), open.answered()), (None, 3));
    let camps: Vec<_> = open.camps().iter().map(|camp| camp.instances.join(" ")).collect();
    assert_eq!(camps, ["a c", "b"]);
}

#[test]
fn sameness() {
    for (one, other) in [
        ("yes", "yes\n"),
        ("yes", "yes\r\n"),
        (
            r#"{"a":1,"b":[true,null]}"#,
            "{\"b\": [true, null],\n \"a\": 1}\n",
        ),
        (r#"{"a":{"c":1,"d":"x"}}"#, r#" {"a": {"d": "\u0078", "c": 1}} "#),
        (r#""caf\u00e9""#, "\"café\""),
        ("", "\n"),
        ("1", " 1 "),
        ("{\"a\":1", "{\"a\":1\n"),
    ] {
        assert_eq!(
            sense(one.as_bytes()),
            sense(other.as_bytes()),
            "{one:?} {other:?}"
        );
    }
    for (one, other) in [
        ("yes", "Yes"),
        ("yes", "yes "),
        ("yes", "\"yes\""),
        ("yes", "yes\n\n"),
        ("[1,2]", "[2,1]"),
        (r#"{"a":1}"#, r#"{"a":"1"}"#),
        // As written: 64-bit fractions could not tell these apart.
        ("1", "1.0"),
        ("18446744073709551617", "18446744073709551618"),
        ("0.1", "0.10000000000000001"),
        ("{\"a\":1", "{\"a\": 1"),
    ] {
        assert_ne!(
            sense(one.as_bytes()),
            sense(other.as_bytes()),
            "{one:?} {other:?}"
        );
    }
    assert_ne!(sense(b"\xff"), sense(b"\xfe"));
    // Deeper than any value that is read as one: by its bytes.
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(sense(deep.as_bytes()), deep.as_bytes());
}
