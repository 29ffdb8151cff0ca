use super::super::conflict::Side;
use super::*;

fn conflict(key: &str, first: u64, second: u64) -> Conflict {
    let side = |stream_seq| Side {
        stream_seq,
        stored: Timestamp::UNIX_EPOCH,
        event: "e".to_owned(),
        instance: format!("i{stream_seq}"),
        session: None,
        seq: None,
        outcome: "o".to_owned(),
    };
    Conflict::of("rule", key, side(first), side(second))
}

#[test]
fn precision_and_recall() {
    let text = r#"
# found, the second time as well
{"events": [1, 2, 3], "key": "k"}
{"events": [4, 5], "key": "another key"}
{"events": [{"stream_seq": 6}, {"stream_seq": 7}], "rule": "x", "instances": ["a", "b"]}
{"missed": {"events": [8, 9]}}
{"events": [100, 200]}
{"summary": {"fired": 2}}
"#;
    let mut labels = Labels::parse(text).unwrap();
    let verdicts: Vec<bool> = [(1, 2), (2, 3), (4, 5), (6, 7)]
        .map(|(first, second)| labels.is_right(&conflict("k", first, second)))
        .to_vec();
    assert_eq!(verdicts, [true, true, false, true]);
    let score = labels.score(4, 3, Some((1, 50)));
    assert_eq!((score.labels, score.found, score.beyond), (4, 2, 1));
    assert_eq!((score.precision, score.recall), (Some(0.75), Some(0.5)));
    let missed: Vec<usize> = score.missed.iter().map(|label| label.line).collect();
    assert_eq!(missed, [4, 6]);
    let none = Labels::default().score(0, 0, None);
    assert_eq!((none.precision, none.recall), (None, None));
}

#[test]
fn what_is_no_label_is_told_with_its_line() {
    for (text, expected) in [
        ("\n{", "line 2: not JSON"),
        ("[1, 2]", "line 1: expected the events"),
        (r#"{"events": [1]}"#, "two places"),
        (r#"{"events": [1, 1]}"#, "two places"),
        (r#"{"events": [1, "x"]}"#, "line 1: expected"),
        (r#"{"events": [1, -2]}"#, "line 1: expected"),
        (r#"{"events": [1, 2], "key": 3}"#, "is text"),
    ] {
        let error = Labels::parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let mut what_we_print = Labels::parse(&conflict("k", 1, 2).json().to_string()).unwrap();
    assert!(what_we_print.is_right(&conflict("k", 1, 2)));
}
