//! Accounts: what a file makes of them, and what it is told.

use std::time::Duration;

use crate::account::{Auth, Kind, Response, Spec, StreamLimits, Users};
use crate::config::{Config, effective};

use super::{read, says};

fn config(text: &str) -> Config {
    match read(text) {
        Ok(file) => file.config,
        Err(problems) => panic!("{}\n{text}", problems[0]),
    }
}

fn spec<'a>(config: &'a Config, name: &str) -> &'a Spec {
    let mut named = config.accounts.iter().filter(|spec| &*spec.name == name);
    named.next().unwrap_or_else(|| panic!("no account {name}"))
}

fn users(config: &Config) -> &Users {
    match &config.auth {
        Auth::Users(users) => users,
        other => panic!("{other:?}"),
    }
}

const WHOLE: &str = r#"
authorization { users: [ { user: old, password: po } ] }
no_auth_user: guest
system_account: ADMIN
mappings { "old.*": "new.$1" }
accounts {
    SHOP: {
        nkey: AAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB776S
        default_permissions { publish: "shop.>" }
        users: [
            { user: shop, password: ps }
            { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4, permissions { publish: ">" } }
        ]
        exports: [
            { stream: "orders.>" }
            { stream: "own.*.>", account_token_position: 2 }
            { service: "price.*", accounts: [OFFICE, ADMIN], response: chunked, threshold: "5s" }
        ]
        limits { max_conn: 5, max_subs: -1, max_payload: "64KB" }
        jetstream {
            max_mem: 1M, max_file: 1GB, max_streams: 3, max_consumers: 4, max_ack_pending: 5
            mem_max_stream_bytes: 6, disk_max_stream_bytes: 7, max_bytes_required: true
        }
    }
    OFFICE {
        users = [ { user: guest } ]
        imports = [
            { stream: { account: SHOP, subject: "orders.>" }, prefix: shop }
            { stream: { account: SHOP, subject: "own.OFFICE.a" }, to: mine }
            { service: { account: SHOP, subject: "price.*" }, to: "ask.$1", share: true }
        ]
        mappings = {
            a: [ { destination: b, weight: 40% }, { dest: c, weight: 30 } ]
            "x.*": { destination: "y.$1", weight: 100% }
        }
        jetstream: enabled
    }
    ADMIN { users: [ { user: admin, password: pa } ] }
}
"#;

#[test]
fn a_file_makes_accounts() {
    let config = config(WHOLE);
    let names: Vec<_> = config.accounts.iter().map(|spec| &*spec.name).collect();
    assert_eq!(names, ["SHOP", "OFFICE", "ADMIN", "$G"]);
    assert_eq!(config.system_account.as_deref(), Some("ADMIN"));

    let shop = spec(&config, "SHOP");
    assert_eq!(shop.rule, "test.conf:7:5");
    let limits = &shop.limits;
    assert_eq!(
        (limits.connections, limits.subscriptions, limits.payload),
        (Some(5), None, Some(65_536))
    );
    let expected = StreamLimits {
        memory: 1_000_000,
        storage: 1 << 30,
        streams: 3,
        consumers: 4,
        ack_pending: 5,
        memory_stream: 6,
        storage_stream: 7,
        bytes_required: true,
    };
    assert_eq!(shop.streams, Some(expected));
    let [orders, own, price] = &shop.exports[..] else {
        panic!("{:?}", shop.exports)
    };
    assert_eq!((orders.kind, &orders.accounts), (Kind::Stream, &None));
    assert_eq!((own.account_token_position, own.token_required), (2, false));
    assert_eq!(price.kind, Kind::Service);
    assert_eq!(price.response, Response::Chunked);
    assert_eq!(price.threshold, Duration::from_secs(5));
    let accounts: Vec<_> = price.accounts.iter().flatten().map(|name| &**name).collect();
    assert_eq!(accounts, ["OFFICE", "ADMIN"]);
    assert_eq!(orders.rule, "test.conf:15:13");

    let office = spec(&config, "OFFICE");
    let names: Vec<_> = office
        .imports
        .iter()
        .map(|import| (import.to.as_deref().unwrap(), import.share))
        .collect();
    assert_eq!(
        names,
        [("shop.orders.>", false), ("mine", false), ("ask.$1", true)]
    );
    assert_eq!(office.imports[2].rule, "test.conf:30:13");
    assert_eq!(office.streams, Some(StreamLimits::default()));
    let weights = office.mappings.iter().map(|mapping| {
        let weight = |to: &crate::account::Weighted| (to.transform.destination().to_owned(), to.percent);
        mapping.destinations.iter().map(weight).collect::<Vec<_>>()
    });
    let weights: Vec<_> = weights.flatten().collect();
    let expected = [("b", 40), ("c", 30), ("y.$1", 100)].map(|(to, percent)| (to.to_owned(), percent));
    assert_eq!(weights, expected);
    // Other accounts have streams, this one did not ask.
    assert_eq!(spec(&config, "ADMIN").streams, None);
    assert_eq!(spec(&config, "$G").streams, None);
    assert_eq!(spec(&config, "$G").mappings.len(), 1);

    let users = users(&config);
    let account = |name: &str| users.get(name).map(|user| &*user.account);
    assert_eq!(
        [
            account("old"),
            account("shop"),
            account("guest"),
            account("admin")
        ],
        [Some("$G"), Some("SHOP"), Some("OFFICE"), Some("ADMIN")]
    );
    assert_eq!(users.default_user().unwrap().name, "guest");
    assert_eq!(users.get("shop").unwrap().rule, "test.conf:11:13");
    let may = |name: &str| {
        let permissions = users.get(name).unwrap().permissions.clone();
        permissions.is_none_or(|permissions| permissions.may_publish(b"x"))
    };
    assert!(!may("shop") && may("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4") && may("admin"));
}

#[test]
fn who_has_streams() {
    let streams = |text: &str| -> Vec<String> {
        let config = config(text);
        let having = config.accounts.iter().filter(|spec| spec.streams.is_some());
        having.map(|spec| spec.name.to_string()).collect()
    };
    assert!(config("port: 1").has_streams("$G") && !config("port: 1").has_streams("$SYS"));
    assert!(!config("accounts { A {} }").has_streams("$G") && config("mappings { a: b }").has_streams("$G"));
    for (text, expected) in [
        ("accounts { A {} }", &[][..]),
        ("accounts [A, B]", &[]),
        (
            "accounts { A { jetstream: true }, B { jetstream: disabled } }",
            &["A"],
        ),
        ("accounts { A { jetstream {} } }\nmappings { a: b }", &["A"]),
        ("mappings { a: b }", &["$G"]),
        (
            "accounts { $SYS { users: [ { user: a, password: b } ] } }",
            &["$G"],
        ),
        ("accounts { S {} }\nsystem_account: S", &["$G"]),
        ("accounts { S {}, A {} }\nsystem_account: S", &[]),
    ] {
        assert_eq!(streams(text), expected, "{text}");
    }
    // None at all: `$G` has streams without being among them.
    for text in [
        "accounts {}",
        "accounts []",
        "system_account: \"$SYS\"",
        "port: 1",
    ] {
        assert!(config(text).accounts.is_empty(), "{text}");
        assert_eq!(config(text).system_account, None, "{text}");
    }
    assert_eq!(
        config("system_account: \"$G\"").system_account.as_deref(),
        Some("$G")
    );
}

#[test]
fn who_comes_in() {
    let auth = |text: &str| config(text).auth;
    assert_eq!(auth("accounts { A {} }"), Auth::Open);
    let single = Auth::User {
        user: "u".into(),
        pass: "p".into(),
    };
    assert_eq!(
        auth("accounts { A {} }\nauthorization { user: u, password: p }"),
        single
    );
    // The system account alone has users: everyone else is in `$G`, as without accounts.
    let admins = "accounts { S { users: [ { user: a, password: b } ] } }\nsystem_account: S\n";
    let config_ = config(admins);
    let default = users(&config_).default_user().unwrap();
    assert_eq!(&*default.account, "$G");
    assert_eq!(auth(admins), auth(admins));
    assert!(auth(&format!("{admins}authorization {{ timeout: 5 }}")).is_required());
    assert!(auth("accounts { A { users: [ { user: a, password: b } ] } }").is_required());
}

#[test]
fn mistakes_in_accounts_are_told_with_their_place() {
    let export = |text: &str| format!("accounts {{ A {{ exports: [{{{text}}}] }} }}");
    let import = |text: &str| {
        format!(
            "accounts {{ A {{ exports: [{{stream: \"s.>\"}}, {{service: \"q.>\"}}] }}\nB {{ imports: [\n{{{text}}}] }} }}"
        )
    };
    let table = [
        ("accounts: x".to_owned(), "1:1: \"accounts\" is a map { NAME { users: ... } } or a list of names"),
        ("accounts { A: x }".to_owned(), "1:12: \"A\" is a map { ... }, not a string"),
        ("accounts [1 ]".to_owned(), "1:11: \"accounts\" is a list of names, not of a number"),
        ("accounts { $G {} }".to_owned(), "1:12: \"$G\" is a Reserved Account: its users are those of \"authorization\""),
        ("accounts [A, A]".to_owned(), "1:14: account \"A\" is there twice"),
        ("accounts { \"A B\" {} }".to_owned(), "1:12: \"A B\" is no name for an account"),
        ("accounts { A { user: x } }".to_owned(), "1:16: unknown field \"user\", did you mean \"users\"?"),
        ("accounts { A { nkey: UABC } }".to_owned(), "1:16: not a valid public nkey for an account"),
        ("accounts { A { limits { max_connection: 1 } } }".to_owned(), "1:25: unknown field \"max_connection\", did you mean \"max_connections\"?"),
        ("accounts { A { limits { max_conn: -2 } } }".to_owned(), "1:25: \"max_conn\" is a number such as 100 or 1GB, or -1 for no limit"),
        ("accounts { A { jetstream: maybe } }".to_owned(), "1:16: \"jetstream\" is true, false, enabled, disabled or a map"),
        ("accounts { A { jetstream { max_stream: 1 } } }".to_owned(), "1:28: unknown field \"max_stream\", did you mean \"max_streams\"?"),
        ("accounts { A { jetstream: true } }\nsystem_account: A".to_owned(), "1:12: the system account cannot have streams"),
        ("system_account: A".to_owned(), "1:1: \"system_account\": account \"A\" is not defined"),
        ("accounts { A { jetstream { max_mem: 2G } } }\njetstream { max_mem: 1G }".to_owned(), "the \"max_mem\" of all accounts are 2000000000 bytes together, more than the 1000000000 of the server: insufficient resources"),
        ("accounts { A { users: [{user: a, password: b}] }\nB { users: [{user: a, password: c}] } }".to_owned(), "2:13: Duplicate user \"a\" detected, first at test.conf:1:24"),
        ("authorization { users: [{user: a, password: b}] }\naccounts { A { users: [{user: a, password: c}] } }".to_owned(), "2:24: Duplicate user \"a\" detected, first at test.conf:1:25"),
        ("accounts { A { users: [{user: a, password: b}] } }\nauthorization { token: t }".to_owned(), "2:1: Can not have a token and accounts"),
        ("accounts { A { users: [{user: a, password: b}] } }\nauthorization { user: u, password: p }".to_owned(), "2:1: Can not have a single user/pass and accounts"),
        ("accounts { A { users: [{user: a, password: b}] } }\nno_auth_user: b".to_owned(), "2:1: no_auth_user: \"b\" is none of the users in the authorization block or in accounts"),
        (export(""), "1:26: an export is of a \"stream\" or a \"service\""),
        (export("stream: a, service: b"), "1:26: a stream and a service: they are shared one by one"),
        (export("stream: \"a..b\""), "1:26: stream export \"a..b\" is not a valid subject"),
        (export("stream: a, response: stream"), "1:38: \"response\" is for services, and this is a stream"),
        (export("service: a, response: twice"), "1:39: unknown response type \"twice\": it is singleton, stream or chunked"),
        (export("service: a, latency: b, response: stream"), "1:39: \"latency\" is of services with single responses: bad service response type"),
        (export("service: a, latency: {sampling: 5}"), "1:39: \"latency\" needs the subject that it is published to"),
        (export("service: a, latency: {subject: b, sampling: 101}"), "1:61: bad sampling percentage, should be 1-100"),
        (export("stream: a, accounts: [B]"), "1:26: account \"B\" of stream export \"a\" is not defined"),
        (export("stream: \"a.*\", account_token_position: 1"), "1:26: account_token_position of stream export \"a.*\": token 1 is not a *"),
        (import("stream: x"), "3:2: \"stream\" is a map { ... }, not a string"),
        (import("stream: {account: A}"), "3:2: Expect an account name and a subject"),
        (import("stream: {account: C, subject: a}"), "3:1: stream import \"a\" from account \"C\": account \"C\" is not defined"),
        (import("stream: {account: A, subject: a}"), "3:1: stream import \"a\" from account \"A\": not authorized, there is no such export"),
        (import("stream: {account: A, subject: s.a}, prefix: p, to: t"), "3:49: Stream import can not have a 'prefix' and a 'to' property"),
        (import("stream: {account: A, subject: s.a}, prefix: \"p.*\""), "3:38: \"prefix\" is not a valid subject: stream import prefix can not contain wildcard tokens"),
        (import("service: {account: A, subject: q.a}, allow_trace: false"), "3:39: \"allow_trace\" is for streams, and this is a service"),
        ("mappings { \"a..b\": c }".to_owned(), "1:12: \"a..b\" is not a valid subject"),
        ("mappings { a: 1 }".to_owned(), "1:12: \"a\" is mapped to a subject or to { destination, weight }, or to a list of those, not to a number"),
        ("mappings { a: [x] }".to_owned(), "1:16: expected a destination { destination, weight }, not a string"),
        ("mappings { a: {destination: b} }".to_owned(), "1:15: Missing weight for mapping destination \"b\""),
        ("mappings { a: {weight: 1} }".to_owned(), "1:15: a \"destination\" is missing"),
        ("mappings { a: {destination: b, weight: 101%} }".to_owned(), "1:32: \"weight\" is a share of a hundred such as 40 or \"40%\""),
        ("mappings { a: [{destination: b, weight: 60}, {destination: c, weight: 50}] }".to_owned(), "1:12: the weights of mapping \"a\" are 110% together, more than 100%"),
        ("mappings { a: b }\nmaps { a: c }".to_owned(), "1:1: mapping \"a\" is there twice"),
    ];
    for (text, expected) in table {
        let told = match read(&text) {
            Ok(_) => panic!("{text}"),
            Err(problems) => problems[0].to_string(),
        };
        let place = if expected.starts_with("the ") {
            ""
        } else {
            "test.conf:"
        };
        assert_eq!(told, format!("{place}{expected}"), "{text}");
    }
    let many = says(
        "accounts { A { exports: [{stream: \"a..b\"}], imports: [{stream: {account: C, subject: x}}] }\nB: 5 }",
    );
    assert_eq!(many.len(), 3, "{many:?}");
}

#[test]
fn what_accounts_have_and_we_have_not_is_warned_of() {
    for (text, expected) in [
        (
            "accounts { A { msg_trace: \"t.x\" } }",
            "1:16: \"msg_trace\" has no effect: messages are not traced here",
        ),
        (
            "accounts { A { limits { max_leafs: 3 } } }",
            "1:25: \"max_leafs\" has no effect on this server",
        ),
        (
            "accounts { A { jetstream { cluster_traffic: owner } } }",
            "1:28: \"cluster_traffic\" has no effect: there is no cluster",
        ),
        (
            "accounts { A { exports: [{service: a, latency: b}] } }",
            "1:39: \"latency\" has no effect: services are not measured here",
        ),
        (
            "accounts { A { exports: [{service: a, allow_trace: true}] } }",
            "1:39: \"allow_trace\" has no effect: messages are not traced here",
        ),
        (
            "mappings { a: {destination: b, weight: 1, cluster: east} }",
            "1:43: it has no effect: this server is not in cluster \"east\"",
        ),
    ] {
        assert!(read(text).is_ok(), "{text}: {:?}", says(text));
        assert_eq!(says(text), [format!("test.conf:{expected}")], "{text}");
    }
    // A value that a variable takes may stand among accounts.
    assert_eq!(
        config("accounts { P = { publish: a }\nA { users: [{user: a, password: b, permissions: $P}] } }")
            .accounts
            .len(),
        1
    );
}

#[test]
fn effective_settings_show_accounts_and_no_secrets() {
    let file = read(WHOLE).unwrap_or_else(|problems| panic!("{}", problems[0]));
    let shown = effective(&file.config, &file.process);
    for line in [
        "# authorization { users: [\"old\"], timeout: \"2s\" }, who shows nothing is \"guest\"",
        "# system_account: \"ADMIN\"",
        "# account \"SHOP\" { users: [\"UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4\" with permissions, \"shop\" with permissions], limits { max_connections: 5, max_payload: 65536 }, jetstream { max_mem: 1000000, max_file: 1073741824, max_streams: 3, max_consumers: 4, mem_max_stream_bytes: 6, disk_max_stream_bytes: 7, max_ack_pending: 5, max_bytes_required: true } }",
        "#   export { stream: \"own.*.>\", account_token_position: 2 }",
        "#   export { service: \"price.*\", accounts: [\"OFFICE\", \"ADMIN\"], response_type: chunked, response_threshold: \"5s\" }",
        "#   import { stream: { account: \"SHOP\", subject: \"orders.>\" }, to: \"shop.orders.>\" }",
        "#   import { service: { account: \"SHOP\", subject: \"price.*\" }, to: \"ask.$1\", share: true }",
        "#   mapping \"a\": \"b\" 40%, \"c\" 30%",
        "# account \"ADMIN\" { users: [\"admin\"], jetstream: disabled }",
    ] {
        let is_there = shown.lines().any(|shown| {
            shown
                .strip_prefix(line)
                .is_some_and(|rest| rest.trim_start().starts_with("# re"))
        });
        assert!(is_there, "{line}\n{shown}");
    }
    for secret in ["\"ps\"", "\"po\"", "\"pa\""] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(read(&shown).is_ok());
}
