use std::path::Path as FilePath;

use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Rules, Vec<String>> {
    let loaded =
        language::load_text("rules", text, &|_| None).map_err(|problem| vec![problem.to_string()])?;
    let read = Rules::builtin().with(&loaded.map, &Catalog::builtin());
    read.map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn names(rules: &Rules) -> Vec<&str> {
    rules.rules().iter().map(|rule| rule.name.as_str()).collect()
}

#[test]
fn ours_hold_unless_a_file_says_otherwise() {
    let ours = Rules::builtin();
    assert_eq!(
        names(&ours),
        [
            "graph_nodes",
            "graph_edges",
            "attention",
            "principles",
            "meta_state",
            "resurrection"
        ]
    );
    assert_eq!(ours.reach(), WINDOW * 3);
    let catalog = Catalog::builtin();
    for subject in ours.subjects() {
        let event = catalog.by_subject(&subject).unwrap();
        // What a rule looks at is a field that the catalog tells of.
        for rule in ours
            .rules()
            .iter()
            .filter(|rule| rule.subjects.contains(&subject))
        {
            for path in rule.key.iter().chain(&rule.base).chain(&rule.outcome) {
                let field = path.text().split('.').next().unwrap();
                assert!(
                    event.fields.iter().any(|known| known.name == field),
                    "{}: {field}",
                    rule.name
                );
            }
        }
    }

    let one = read(
        r#"{"events": [], "conflicts": {"rules": [
            {"name": "attention", "events": ["fo_insight", "aha_moment"], "key": ["/a~1b/0", "c"], "outcome": "d.e",
             "seen": "f", "window": "5s", "between": "sessions"}
           ], "window": "2m", "builtin": ["attention", "principles"]}}"#,
    )
    .unwrap();
    assert_eq!(names(&one), ["principles", "attention"]);
    assert_eq!(one.rules()[0].window, Duration::from_secs(120));
    let mine = &one.rules()[1];
    assert_eq!(mine.window, Duration::from_secs(5));
    assert_eq!(mine.subjects, ["mesh.fo.insight", "mesh.attention.aha_moment"]);
    assert_eq!((mine.between, mine.base.as_ref()), (Between::Sessions, None));
    assert_eq!(mine.seen, [Path::parse("f").unwrap()]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let rule = |fields: &str| format!("{{\"conflicts\": {{\"rules\": [\n{{{fields}}}\n]}}}}");
    let good = r#""name": "x", "events": "fo_insight", "key": "a", "outcome": "b""#;
    read(&rule(good)).unwrap();
    for (fields, expected) in [
        (
            r#""name": "x", "events": "fo_insight", "key": "a""#,
            "rules:2:1: the rule says no \"outcome\"",
        ),
        (
            r#""name": "a b", "events": "fo_insight", "key": "a", "outcome": "b""#,
            "rules:2:2: a rule's \"name\" is",
        ),
        (
            r#""name": "x", "events": "fo_insigt", "key": "a", "outcome": "b""#,
            "rules:2:15: unknown event `fo_insigt`",
        ),
        (
            r#""name": "x", "events": [], "key": "a", "outcome": "b""#,
            "\"events\" names no event",
        ),
        (
            r#""name": "x", "events": "conflict_alert", "key": "a", "outcome": "b""#,
            "what comes of the rules",
        ),
        (
            &format!("{good}, \"kee\": 1"),
            "unknown field \"kee\", did you mean \"key\"?",
        ),
        (&format!("{good}, \"window\": \"0s\""), "more than nothing"),
        (&format!("{good}, \"window\": \"8d\""), "\"window\""),
        (&format!("{good}, \"window\": \"soon\""), "expected a time"),
        (
            &format!("{good}, \"between\": \"hosts\""),
            "instances or sessions",
        ),
        (
            &format!("{good}, \"base\": [\"a\", \"b\"]"),
            "\"base\" is one field",
        ),
        (&format!("{good}, \"base\": \"a.*\""), "* is for \"key\""),
        (
            r#""name": "x", "events": "fo_insight", "key": ["a.*", "b"], "outcome": "b""#,
            "not both",
        ),
        (
            r#""name": "x", "events": "fo_insight", "key": [], "outcome": "b""#,
            "\"key\" names no field",
        ),
        (
            r#""name": "x", "events": "fo_insight", "key": "a..b", "outcome": "b""#,
            "a part of it is empty",
        ),
        (
            r#""name": "x", "events": "fo_insight", "key": "/a~2", "outcome": "b""#,
            "~ stands before",
        ),
        (
            r#""name": "x", "events": "fo_insight", "key": 7, "outcome": "b""#,
            "\"key\" is a string or a list",
        ),
    ] {
        let problems = read(&rule(fields)).unwrap_err();
        assert!(
            problems
                .iter()
                .any(|problem| problem.starts_with("rules:2:") && problem.contains(expected)),
            "{fields}: {problems:?}"
        );
    }
    for (text, expected) in [
        ("{", "rules:1"),
        (r#"{"conflict": {}}"#, "did you mean \"conflicts\"?"),
        (r#"{"conflicts": []}"#, "is a map"),
        (r#"{"conflicts": {"builtin": false}}"#, "no rule is left"),
        (
            r#"{"conflicts": {"builtin": ["nope"]}}"#,
            "no built-in rule is called \"nope\"",
        ),
        (
            r#"{"conflicts": {"rules": [{"name": "x", "events": "fo_insight", "key": "a", "outcome": "b"},
                {"name": "x", "events": "fo_insight", "key": "a", "outcome": "b"}]}}"#,
            "rules:2:17: a rule \"x\" is there already",
        ),
    ] {
        let problems = read(text).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{text}: {problems:?}"
        );
    }
    let missing = Rules::load(FilePath::new("/nowhere/rules"), &Catalog::builtin()).unwrap_err();
    assert!(
        missing[0].to_string().contains("cannot read /nowhere/rules"),
        "{missing:?}"
    );
}

#[test]
fn paths_lead_to_values() {
    let body = json!({"a": {"b": [1, {"c": 2}, null]}, "x/y": 3, "*": 4, "n": null});
    for (path, expected) in [
        ("a.b.*", vec![json!(1), json!({"c": 2})]),
        ("a.b.*.c", vec![json!(2)]),
        ("a.b.0", vec![json!(1)]),
        ("/a/b/1/c", vec![json!(2)]),
        ("/x~1y", vec![json!(3)]),
        ("/*", vec![json!(4)]),
        ("n", vec![]),
        ("a.b.c", vec![]),
        ("a.b.9", vec![]),
        ("no.such", vec![]),
    ] {
        let found = Path::parse(path).unwrap();
        let found: Vec<Value> = found.values(&body, 10).into_iter().cloned().collect();
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(Path::parse("a.b.*").unwrap().values(&body, 1).len(), 1);
}

#[test]
fn the_docs_page_has_the_rules() {
    let page = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("docs/conflicts.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.contains(&format!("```json\n{BUILTIN}\n```")),
        "docs/conflicts.md has other built-in rules"
    );
}
