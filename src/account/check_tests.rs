//! What accounts are told that make no sense together.

use super::*;
use crate::account::Response;

fn export(kind: Kind, subject: &str, accounts: Option<&[&str]>) -> Export {
    Export {
        kind,
        subject: subject.to_owned(),
        accounts: accounts.map(|names| names.iter().map(|name| Arc::from(*name)).collect()),
        token_required: false,
        account_token_position: 0,
        response: Response::Singleton,
        threshold: crate::account::THRESHOLD,
        rule: format!("export {subject}"),
    }
}

fn import(kind: Kind, account: &str, subject: &str, to: Option<&str>) -> Import {
    Import {
        kind,
        account: account.into(),
        subject: subject.to_owned(),
        to: to.map(str::to_owned),
        share: false,
        activated: false,
        rule: format!("import {subject}"),
    }
}

fn account(name: &str, exports: Vec<Export>, imports: Vec<Import>) -> Spec {
    Spec {
        exports,
        imports,
        rule: format!("account {name}"),
        ..Spec::new(name)
    }
}

fn says(specs: &[Spec]) -> Vec<String> {
    check(specs).iter().map(ToString::to_string).collect()
}

use Kind::{Service, Stream};

#[test]
fn an_import_needs_an_export_that_grants_it() {
    let exports = || {
        let mut personal = export(Stream, "own.*.>", None);
        personal.account_token_position = 2;
        let mut signed = export(Stream, "signed", None);
        signed.token_required = true;
        vec![
            export(Stream, "open.>", None),
            export(Stream, "open.secret", Some(&["B"])),
            export(Service, "ask.*", Some(&["B", "C"])),
            export(Stream, "nobody", Some(&[])),
            personal,
            signed,
        ]
    };
    for (importer, kind, subject, why) in [
        ("C", Stream, "open.a", None),
        ("C", Stream, "open.>", None),
        ("B", Stream, "open.secret", None),
        ("B", Service, "ask.*", None),
        ("B", Service, "ask.x", None),
        ("B", Stream, "own.B.x", None),
        ("B", Stream, "own.B.>", None),
        (
            "C",
            Stream,
            "open.secret",
            Some("not authorized, the export is not for account \"C\""),
        ),
        (
            "D",
            Service,
            "ask.x",
            Some("not authorized, the export is not for account \"D\""),
        ),
        (
            "B",
            Stream,
            "own.C.x",
            Some("not authorized, the export is not for account \"B\""),
        ),
        (
            "B",
            Stream,
            "own.*.>",
            Some("not authorized, the export is not for account \"B\""),
        ),
        (
            "B",
            Stream,
            "nobody",
            Some("not authorized, the export is not for account \"B\""),
        ),
        (
            "B",
            Stream,
            "signed",
            Some("not authorized, the export is not for account \"B\""),
        ),
        (
            "B",
            Service,
            "open.a",
            Some("not authorized, there is no such export"),
        ),
        ("B", Stream, ">", Some("not authorized, there is no such export")),
        (
            "B",
            Service,
            "ask.>",
            Some("not authorized, there is no such export"),
        ),
    ] {
        let mut specs = vec![account("A", exports(), Vec::new())];
        specs.extend(["B", "C", "D"].map(|name| {
            let imports = (name == importer).then(|| import(kind, "A", subject, None));
            account(name, Vec::new(), imports.into_iter().collect())
        }));
        let expected =
            why.map(|why| format!("import {subject}: {kind} import \"{subject}\" from account \"A\": {why}"));
        assert_eq!(says(&specs), Vec::from_iter(expected), "{importer} {subject}");
    }
    let mut with_token = import(Stream, "A", "signed", None);
    with_token.activated = true;
    let specs = [
        account("A", exports(), Vec::new()),
        account("B", Vec::new(), vec![with_token]),
        account("C", Vec::new(), Vec::new()),
    ];
    assert_eq!(says(&specs), [""; 0]);
}

#[test]
fn what_is_no_use_is_told() {
    let open = |subject: &str| export(Stream, subject, None);
    let ask = |subject: &str| export(Service, subject, None);
    let mut position = ask("x.*");
    position.account_token_position = 1;
    let exporter = || account("A", vec![open("s.>"), ask("q.>")], Vec::new());
    let importer = |imports| vec![exporter(), account("B", Vec::new(), imports)];
    let from = |kind, subject: &str, to| import(kind, "A", subject, to);
    for (specs, expected) in [
        (
            vec![account("A", vec![open("a..b")], Vec::new())],
            "export a..b: stream export \"a..b\" is not a valid subject",
        ),
        (
            vec![account("A", vec![open("a"), ask("a"), open("a")], Vec::new())],
            "export a: stream export \"a\" is there twice: say once who may import it",
        ),
        (
            vec![account("A", vec![position], Vec::new())],
            "export x.*: account_token_position of service export \"x.*\": token 1 is not a *",
        ),
        (
            vec![account(
                "A",
                vec![export(Stream, "a", Some(&["$G", "C"]))],
                Vec::new(),
            )],
            "export a: account \"C\" of stream export \"a\" is not defined",
        ),
        (
            importer(vec![import(Stream, "C", "s.a", None)]),
            "import s.a: stream import \"s.a\" from account \"C\": account \"C\" is not defined",
        ),
        (
            importer(vec![import(Stream, "$SYS", "s.a", None)]),
            "import s.a: stream import \"s.a\" from account \"$SYS\": not authorized, there is no such export",
        ),
        (
            importer(vec![from(Stream, "s.*", Some("x"))]),
            "import s.*: stream import \"s.*\" from account \"A\": \"s.*\" and \"x\" do not have the same wildcards",
        ),
        (
            importer(vec![from(Stream, "s.a", None), from(Stream, "s.a", Some("x"))]),
            "import s.a: stream import \"s.a\" from account \"A\" is there twice, first at import s.a",
        ),
        (
            importer(vec![
                from(Service, "q.a", None),
                from(Service, "q.b", Some("q.a")),
            ]),
            "import q.b: service import \"q.b\" from account \"A\" is there twice, first at import q.a",
        ),
        (
            vec![account("A", vec![], vec![]), account("A", vec![], vec![])],
            "account A: account \"A\" is there twice",
        ),
        (
            vec![account("A B", vec![], vec![])],
            "account A B: \"A B\" is no name for an account",
        ),
        (
            vec![account("", vec![], vec![])],
            "account : \"\" is no name for an account",
        ),
    ] {
        assert_eq!(says(&specs), [expected]);
    }
    let fine = importer(vec![
        from(Stream, "s.a", None),
        from(Stream, "s.>", Some("x.>")),
        from(Service, "q.a", Some("one")),
        from(Service, "q.a", Some("two")),
    ]);
    assert_eq!(says(&fine), [""; 0]);
    let unnamed = Problem {
        account: "A".into(),
        rule: String::new(),
        text: "text".to_owned(),
    };
    assert_eq!(unnamed.to_string(), "account A: text");
}

#[test]
fn circles_are_found_however_long() {
    for kind in [Service, Stream] {
        // Each account gets from the next one what it passes on.
        let ring = |size: usize, last: &str| -> Vec<Spec> {
            let one = |n: usize| {
                let next = (n + 1) % size;
                let here = if n == 0 {
                    last.to_owned()
                } else {
                    format!("s{n}.*")
                };
                let import = import(kind, &format!("A{next}"), &format!("s{next}.*"), Some(&here));
                account(
                    &format!("A{n}"),
                    vec![export(kind, &format!("s{n}.*"), None)],
                    vec![import],
                )
            };
            (0..size).map(one).collect()
        };
        for size in [1, 2, 3, 300] {
            let told = says(&ring(size, "s0.*"));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].ends_with("import forms a cycle"), "{told:?}");
            // It comes in by a name nobody passes on.
            assert_eq!(says(&ring(size, "other.*")), [""; 0]);
        }
    }
    // Both ways, each under a name of its own.
    let each = |name: &str, other: &str| {
        let prefixed = format!("{other}.x.>");
        account(
            name,
            vec![export(Stream, "x.>", None)],
            vec![import(Stream, other, "x.>", Some(&prefixed))],
        )
    };
    assert_eq!(says(&[each("A", "B"), each("B", "A")]), [""; 0]);
}

#[test]
fn mappings_have_weights_that_fit() {
    let weighted = |source: &str, to: &[(&str, u8)]| {
        let to: Vec<_> = to
            .iter()
            .map(|(to, percent)| ((*to).to_owned(), *percent))
            .collect();
        Mapping::weighted(source, &to)
            .map(|_| ())
            .map_err(|error| error.replace('"', ""))
    };
    for (source, to) in [
        ("a", &[("b", 100)][..]),
        ("a", &[("b", 40), ("c", 60)]),
        ("a", &[("a", 50)]),
        ("a.*", &[("b", 10)]),
        ("a.>", &[("b.>", 0)]),
        ("a", &[]),
    ] {
        assert_eq!(weighted(source, to), Ok(()), "{source}");
    }
    for (source, to, expected) in [
        ("a..b", &[("b", 100)][..], "a..b is not a valid subject"),
        ("a..b", &[], "mapping a..b is not a valid subject"),
        (
            "a",
            &[("b", 60), ("c", 50)],
            "the weights of mapping a are 110% together, more than 100%",
        ),
        ("a", &[("b", 60), ("b", 10)], "mapping a names b twice"),
        (
            "a.>",
            &[("b", 60)],
            "mapping a.> to b: its source ends with > and it does not",
        ),
        (
            "a",
            &[("b.$1", 60)],
            "invalid mapping destination b.$1: wildcard 1 is out of range, its source has 0",
        ),
    ] {
        assert_eq!(weighted(source, to), Err(expected.to_owned()), "{source}");
    }
    let mut spec = account("A", vec![], vec![]);
    spec.mappings = ["a", "a"]
        .map(|source| Mapping::weighted(source, &[]).unwrap())
        .to_vec();
    assert_eq!(says(&[spec.clone()]), ["account A: mapping \"a\" is there twice"]);
    spec.mappings.truncate(1);
    spec.mappings[0].source = "b".to_owned();
    spec.mappings[0].destinations = Mapping::weighted("a", &[("c".to_owned(), 100)])
        .unwrap()
        .destinations;
    assert_eq!(
        says(&[spec]),
        ["account A: mapping \"b\" to \"c\" renames another subject"]
    );
}
