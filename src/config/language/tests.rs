//! The language: what is read, what is refused and where, and that nothing is too much for it.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "PORT" => "4333",
        "SIZE" => "8MiB",
        "TEXT" => "\"a b\"",
        "LIST" => "[a, b]",
        "LOOP" => "$LOOP",
        "ONE" => "[$TWO]",
        "TWO" => "[$ONE]",
        "BROKEN" => "\"no end",
        "EMPTY" => "",
        "TWICE" => "a b",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(text: &str) -> Result<Loaded, Problem> {
    load_text("test.conf", text, &environment)
}

fn as_json(map: &Map) -> Json {
    let fields = map.entries().iter();
    Json::Object(
        fields
            .map(|entry| (entry.key.clone(), entry.node.to_json()))
            .collect(),
    )
}

/// Texts and what they are, as JSON.
fn good(table: &[(&str, Json)]) {
    for (text, expected) in table {
        match read(text) {
            Ok(loaded) => assert_eq!(as_json(&loaded.map), *expected, "{text}"),
            Err(problem) => panic!("{text}: {problem}"),
        }
    }
}

#[test]
fn entries_and_comments() {
    good(&[
        ("", json!({})),
        ("\n# nothing\n// here\n", json!({})),
        ("a=1", json!({"a": 1})),
        ("a: 1\nb = 2\nc 3", json!({"a": 1, "b": 2, "c": 3})),
        ("a: 1, b: 2; c: 3", json!({"a": 1, "b": 2, "c": 3})),
        ("a\n1\n", json!({"a": 1})),
        ("a: 1 # x\nb: 2 // y\n", json!({"a": 1, "b": 2})),
        ("a { b: 1, c { d: x } }", json!({"a": {"b": 1, "c": {"d": "x"}}})),
        ("a{b:1}\nc[1]", json!({"a": {"b": 1}, "c": [1]})),
        ("a {\n  b: 1\n  c: 2\n}\n", json!({"a": {"b": 1, "c": 2}})),
        ("a = { b:\n 1 }", json!({"a": {"b": 1}})),
        ("a [1,2\n3\n]", json!({"a": [1, 2, 3]})),
        ("a: [ # x\n 1, # one\n // two\n 2 ]", json!({"a": [1, 2]})),
        ("a: [[1], [], {b: 2}]", json!({"a": [[1], [], {"b": 2}]})),
        ("'a b': 1\n\"c:d\" 2", json!({"a b": 1, "c:d": 2})),
        ("foo.>: 1\n$SYS: 2", json!({"foo.>": 1, "$SYS": 2})),
        ("{\"a\": 1, \"b\": [true, null, \"x\"],\n\"c\":\n{}\n}\n", {
            json!({"a": 1, "b": [true, "null", "x"], "c": {}})
        }),
        ("{\n\"a\": 1\n,\n\"b\": 2\n}", json!({"a": 1, "b": 2})),
        ("\u{feff}a: 1\r\nb: 2\r\n", json!({"a": 1, "b": 2})),
        ("a: 1\na: 2", json!({"a": 2})),
        ("a: 1\nA: 2", json!({"a": 1, "A": 2})),
        ("a: 1 }\nb: 2\n}", json!({"a": 1, "b": 2})),
        ("include: x\ninclude = y", json!({"include": "y"})),
    ]);
}

#[test]
fn values() {
    good(&[
        (r#"a: "x\ty\n\r\"\\\x41""#, json!({"a": "x\ty\n\r\"\\A"})),
        (
            r#"a: "\u00e9 \ud83d\ude00 \/ \b\f""#,
            json!({"a": "é 😀 / \u{8}\u{c}"}),
        ),
        (r"a: 'x\ty'", json!({"a": r"x\ty"})),
        (r"a: x\ty", json!({"a": "x\ty"})),
        ("a: foo.bar-baz_*:>", json!({"a": "foo.bar-baz_*:>"})),
        ("a: x=y#z//w", json!({"a": "x=y#z//w"})),
        ("a: /tmp/x", json!({"a": "/tmp/x"})),
        ("a: nats://u:p@h:1", json!({"a": "nats://u:p@h:1"})),
        ("a: it's", json!({"a": "it's"})),
        (
            "a (\nx {\n y )\n )z\n)\nb 1",
            json!({"a": "\nx {\n y )\n )z\n", "b": 1}),
        ),
        ("a: -5\nb: 5k\nc: 5KB\nd: 5ki\ne: 5MiB\nf: 1t\ng: 2Gb", {
            json!({"a": -5, "b": 5000, "c": 5120, "d": 5120, "e": 5_242_880, "f": 1_000_000_000_000_i64,
                "g": 2_147_483_648_i64})
        }),
        ("a: 1.5\nb: -0.25", json!({"a": 1.5, "b": -0.25})),
        (
            "a: 127.0.0.1:4222\nb: 1.2.3",
            json!({"a": "127.0.0.1:4222", "b": "1.2.3"}),
        ),
        (
            "a: 5abc\nb: 2s\nc: 1.5s\nd: 3xb",
            json!({"a": "5abc", "b": "2s", "c": "1.5s", "d": "3xb"}),
        ),
        ("a: TRUE\nb: Yes\nc: on\nd: false\ne: NO\nf: off", {
            json!({"a": true, "b": true, "c": true, "d": false, "e": false, "f": false})
        }),
        ("a: 2018-05-04T12:00:00Z", json!({"a": "2018-05-04T12:00:00Z"})),
    ]);
}

#[test]
fn variables() {
    let hash = "$2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG";
    good(&[
        ("x: 7\na: $x", json!({"x": 7, "a": 7})),
        ("x: 7\na { x: 8, b { c: $x } }\nd: $x", {
            json!({"x": 7, "a": {"x": 8, "b": {"c": 8}}, "d": 7})
        }),
        (
            "x { y: 1 }\na: $x\nb: [$x]",
            json!({"x": {"y": 1}, "a": {"y": 1}, "b": [{"y": 1}]}),
        ),
        ("a: $PORT\nb: $SIZE\nc: $TEXT\nd: $LIST", {
            json!({"a": 4333, "b": 8_388_608, "c": "a b", "d": ["a", "b"]})
        }),
        ("a: \"$PORT\"\nb: '$PORT'", json!({"a": "$PORT", "b": "$PORT"})),
        (&format!("a: {hash}\nb: $2b$x"), json!({"a": hash, "b": "$2b$x"})),
        ("a: $", json!({"a": "$"})),
    ]);
    let loaded = read("x: 1\ny: 2\na { z: $x }").unwrap();
    let marked: Vec<_> = loaded
        .map
        .entries()
        .iter()
        .map(|entry| entry.is_variable)
        .collect();
    assert_eq!(marked, [true, false, false]);
}

#[test]
fn bad_files() {
    let escapes = "no such escape: there are \\t \\n \\r \\\" \\\\ \\/ \\b \\f, \\xHH and \\uHHHH";
    let terminator = "expected the end of the line, `,` or `;` behind the value, got";
    let table: [(&str, &str, &str); 32] = [
        ("a", "1:2", "expected a value for \"a\", got the end of the file"),
        (
            "a:\n1",
            "1:3",
            "expected a value for \"a\", got the end of the line",
        ),
        ("a: 1 b: 2", "1:6", &format!("{terminator} `b`")),
        ("= 1", "1:1", "expected a key, got `=`"),
        ("a: 1\n: 2", "2:1", "expected a key, got `:`"),
        ("a: {", "1:4", "this `{` has no `}`"),
        ("a: [1, 2", "1:4", "this `[` has no `]`"),
        ("{ \"a\": 1", "1:1", "this `{` has no `}`"),
        ("{ a: 1 }\nb: 2", "2:1", "`b` stands behind the closing `}`"),
        ("a: [1,,2]", "1:7", "expected a value, got `,`"),
        ("a: [1 2]", "1:7", "expected `,` or `]`, got `2`"),
        (
            "a: { b: 1 c: 2 }",
            "1:11",
            "expected `,`, a new line or `}`, got `c`",
        ),
        ("a: { b }", "1:8", "expected a value, got `}`"),
        ("a: ]", "1:4", "expected a value, got `]`"),
        ("a: [1]]", "1:7", &format!("{terminator} `]`")),
        ("a: \"x", "1:4", "this string has no end: a `\"` is missing"),
        ("a: 'x", "1:4", "this string has no end: a `'` is missing"),
        ("\"a: 1", "1:1", "this quoted key has no end"),
        (
            "a: (\nx",
            "1:4",
            "this block has no end: a line with `)` alone is missing",
        ),
        ("a: \"\\q\"", "1:5", escapes),
        ("a: x\\qy", "1:5", escapes),
        (
            "a: \"\\xff\"",
            "1:5",
            "the escapes of this string do not make UTF-8",
        ),
        (
            "a: 99999999999999999999",
            "1:4",
            "99999999999999999999 is out of range",
        ),
        (
            "a: 9223372036854775807k",
            "1:4",
            "9223372036854775807k is out of range",
        ),
        (
            "a: $b\nb: 1",
            "1:4",
            "variable $b is set neither above nor in the environment",
        ),
        (
            "a: $LOOP",
            "1:4",
            "variables of the environment go round in a circle: LOOP -> LOOP",
        ),
        (
            "a: $ONE",
            "1:4",
            "variables of the environment go round in a circle: ONE -> TWO -> ONE",
        ),
        (
            "a: $BROKEN",
            "1:4",
            "$BROKEN of the environment: this string has no end: a `\"` is missing",
        ),
        (
            "a: $EMPTY",
            "1:4",
            "$EMPTY of the environment: expected a value, got the end of the file",
        ),
        (
            "a: $TWICE",
            "1:4",
            "$TWICE of the environment: one value was expected, and more stands behind it",
        ),
        ("listen: [::1]:4222", "1:14", &format!("{terminator} `:`")),
        (
            "include [x]",
            "1:9",
            "expected the path of a file to include, got `[`",
        ),
    ];
    for (text, place, what) in table {
        let problem = read(text).expect_err(text);
        assert_eq!(
            problem.to_string(),
            format!("test.conf:{place}: {what}"),
            "{text}"
        );
    }
    let characters = read("é: 1\n  ü: [1").unwrap_err();
    assert_eq!(characters.spot.unwrap().to_string(), "test.conf:2:6");
}

#[test]
fn oddities_are_warned_of() {
    let warnings = |text: &str| {
        let loaded = read(text).unwrap();
        loaded
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        warnings("a: 1\n a: 2"),
        ["test.conf:2:2: \"a\" was set at test.conf:1:1 already: the later one counts"]
    );
    assert_eq!(warnings("a: 1 }"), ["test.conf:1:6: this `}` closes nothing"]);
    assert!(warnings("a { b: 1 }\nc { b: 1 }").is_empty());
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn files_include_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write(
        at,
        "main.conf",
        "x: 1\ninclude 'sub/one.conf'\na { include \"sub/two.conf\", c: 3 }\nb: $y",
    );
    write(at, "sub/one.conf", "y: 5\ninclude ./two.conf\n");
    write(at, "sub/two.conf", "z: 6");
    let loaded = load_file(&at.join("main.conf"), &nothing).unwrap();
    assert_eq!(
        as_json(&loaded.map),
        json!({"x": 1, "y": 5, "z": 6, "a": {"z": 6, "c": 3}, "b": 5})
    );
    let spot = &loaded.map.get("z").unwrap().spot;
    assert!(spot.file.ends_with("sub/./two.conf") && spot.line == 1, "{spot}");

    // An included file does not see what is set outside of it.
    write(at, "sub/two.conf", "z: $x");
    let problem = load_file(&at.join("main.conf"), &nothing)
        .unwrap_err()
        .to_string();
    assert!(
        problem.ends_with("two.conf:1:4: variable $x is set neither above nor in the environment"),
        "{problem}"
    );

    write(at, "sub/two.conf", "z: 1\n");
    let before = loaded.digest;
    let after = load_file(&at.join("main.conf"), &nothing).unwrap().digest;
    assert!(before != after && after.len() == 64);
}

#[test]
fn includes_that_cannot_be_had() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let says = |name: &str| load_file(&at.join(name), &nothing).unwrap_err().to_string();
    write(at, "self.conf", "a: 1\ninclude self.conf");
    assert!(says("self.conf").contains("self.conf:2:1: this include goes round in a circle"));
    write(at, "a.conf", "include b.conf");
    write(at, "b.conf", "include sub/../a.conf");
    write(at, "sub/x.conf", "");
    let circle = says("a.conf");
    assert!(circle.contains("b.conf:1:1: this include goes round"), "{circle}");
    assert_eq!(circle.matches(" -> ").count(), 2, "{circle}");
    write(at, "lost.conf", "\n include nowhere.conf");
    assert!(says("lost.conf").contains("lost.conf:2:2: cannot read "));
    assert!(says("absent.conf").starts_with("cannot read "));
    assert!(says("sub").starts_with("cannot read "));
    std::fs::write(at.join("binary.conf"), [0xff, 0xfe, 0]).unwrap();
    assert!(says("binary.conf").ends_with("is not UTF-8 text"));
    // Each level includes the next one twice.
    for level in 0..20 {
        let next = level + 1;
        write(
            at,
            &format!("l{level}"),
            &format!("include l{next}\ninclude l{next}\n"),
        );
    }
    write(at, "l20", "");
    assert!(says("l0").ends_with("more than 1000 files are included"));
}

#[test]
fn what_grows_without_end_is_refused() {
    let mut doubling = "v0: [1, 1]\n".to_owned();
    for at in 1..40 {
        doubling += &format!("v{at}: [$v{0}, $v{0}]\n", at - 1);
    }
    assert!(
        read(&doubling)
            .unwrap_err()
            .text
            .starts_with("more than 1048576 values")
    );
    let mut deepening = "v0: [[[[[[[[1]]]]]]]]\n".to_owned();
    for at in 1..40 {
        deepening += &format!("v{at}: [[[[[[[[$v{}]]]]]]]]\n", at - 1);
    }
    assert!(
        read(&deepening)
            .unwrap_err()
            .text
            .ends_with("by way of variables")
    );
    for open in ["[", "{a:"] {
        let deep = format!("a: {}", open.repeat(100_000));
        let text = read(&deep).unwrap_err().text;
        assert_eq!(text, "more than 100 maps and lists inside each other");
    }
    let wide: Vec<_> = (0..100_000).map(|at| format!("\"k{at}\": {at}")).collect();
    let text = format!("{{{}, \"last\": [é]}}", wide.join(", "));
    let wide = read(&text).unwrap();
    assert_eq!(wide.map.entries().len(), 100_001);
    let last = &wide.map.get("last").unwrap().spot;
    assert_eq!((last.line, last.column), (1, text.find("\"last\"").unwrap() + 1));
    let long = format!("a: \"{}\"\nb: {}", "x".repeat(1 << 20), "y".repeat(1 << 20));
    assert_eq!(read(&long).unwrap().map.entries().len(), 2);
}

/// Pieces that mean something, in any order.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "a",
        "include",
        "$a",
        "$PORT",
        "$LOOP",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\n",
        "\r\n",
        " ",
        ":",
        "=",
        ",",
        ";",
        "\"",
        "'",
        "#",
        "//",
        "\\",
        "\\x4",
        "\\u12",
        "\\ud800",
        "1",
        "-",
        "1k",
        "1.5",
        "9999999999",
        "true",
        "\n)\n",
        "é",
        "$2a$",
        "2018-05-04T12:00:00Z",
        "\u{feff}",
        "/dev/null",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => ".{0,6}".prop_map(|text| text)]
}

proptest! {
    /// Whatever is read, there is an outcome, and a problem has a place in the text.
    #[test]
    fn nothing_is_too_much(pieces in prop::collection::vec(piece(), 0..80)) {
        let text = pieces.concat();
        if let Err(problem) = read(&text)
            && let Some(spot) = problem.spot
        {
            prop_assert!(spot.line <= text.matches('\n').count() + 1, "{}", problem.text);
        }
    }

    /// All of JSON is read as what it is; null is a word here.
    #[test]
    fn json_is_read(
        keys in prop::collection::btree_map("[a-z]{1,5}", ("[^\u{0}]{0,8}", any::<i64>(), any::<bool>()), 0..6),
    ) {
        let fields = keys.iter().map(|(key, (text, number, flag))| {
            (key.clone(), json!({"t": text, "n": [number, -1], "f": flag}))
        });
        let whole = Json::Object(fields.collect());
        for text in [whole.to_string(), serde_json::to_string_pretty(&whole).unwrap()] {
            let loaded = read(&text).map_err(|problem| TestCaseError::fail(format!("{problem}\n{text}")))?;
            prop_assert_eq!(as_json(&loaded.map), whole.clone());
        }
    }
}
