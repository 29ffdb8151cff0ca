//! What files mean, and what they are told when they mean nothing.

use std::time::Duration;

use proptest::prelude::*;

use crate::account::Auth;
use crate::config::{LogFormat, effective, sample};
use crate::store::Sync;

use super::*;

mod accounts;

fn read(text: &str) -> Result<File, Vec<Problem>> {
    load_text("test.conf", text, Config::default(), Process::default())
}

/// All that a file is told, errors when there are any, else warnings.
fn says(text: &str) -> Vec<String> {
    let problems = match read(text) {
        Ok(file) => file.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_setting() {
    let file = read(
        r#"
        listen: "10.0.0.1:4000"
        http: "localhost:8000"
        server_name: one, server_tags: [a, b], client_advertise: "there:1"
        monitor_hosts: prometheus
        i_know_this_is_open: yes
        max_payload: 128KB, max_control_line: 2k, max_pending: "8MiB"
        max_connections: 10, max_subscriptions: 20
        ping_interval: "100ms", ping_max: 5, write_deadline: "3s"
        debug: true, trace: true, logtime: off, logtime_utc: on
        log_size_limit: 10M, log_max_num: 5, log_file: /tmp/log, log_format: json, pid_file: /tmp/pid, ports_file_dir: /tmp
        lame_duck_duration: "1m", no_mesh: true
        store_dir: /tmp/store
        jetstream { domain: hub, strict: false, sync_interval: "5s", max_mem: "1G", max_file: -1 }
        authorization { user: u, password: p, timeout: 0.5 }
        streams { S { subjects: "s.>", max_age: "1h", max_bytes: 1MB } }
        consumers { S { c { ack_wait: "30s", backoff: ["1s", "2s"] } } }
        "#,
    )
    .unwrap();
    let (config, options, process) = (&file.config, &file.config.connections, &file.process);
    assert_eq!((config.host.as_str(), config.port), ("10.0.0.1", 4000));
    assert_eq!(
        (config.monitor_host.as_deref(), config.monitor_port),
        (Some("localhost"), Some(8000))
    );
    assert_eq!(
        (config.name.as_deref(), config.advertise.as_deref()),
        (Some("one"), Some("there:1"))
    );
    assert_eq!(
        (config.tags.len(), &config.monitor_hosts[..]),
        (2, &["prometheus".to_owned()][..])
    );
    assert!(config.open_to_all && !config.strict && options.trace);
    assert_eq!((config.memory_max, config.storage_max), (Some(1 << 30), None));
    assert_eq!(
        (options.payload_max, options.control_line_max, options.pending_max),
        (131_072, 2000, 8 << 20)
    );
    assert_eq!((options.connections_max, options.subscriptions_max), (10, 20));
    assert_eq!(
        (options.ping_interval, options.pings_out_max),
        (Duration::from_millis(100), 5)
    );
    assert_eq!(options.write_deadline, Duration::from_secs(3));
    assert_eq!(options.auth_timeout, Duration::from_millis(500));
    let expected = Process {
        log_file: Some("/tmp/log".into()),
        log_size_limit: 10_000_000,
        log_files_max: 5,
        log_format: LogFormat::Json,
        log_time: false,
        log_utc: true,
        debug: true,
        pid_file: Some("/tmp/pid".into()),
        ports_file_dir: Some("/tmp".into()),
        no_mesh: true,
        lame_duck_duration: Duration::from_secs(60),
    };
    assert_eq!(*process, expected);
    assert_eq!(
        (file.jetstream, file.store_dir),
        (Some(true), Some("/tmp/store".into()))
    );
    assert_eq!(
        (config.domain.as_deref(), config.sync),
        (Some("hub"), Sync::Interval(Duration::from_secs(5)))
    );
    let user = Auth::User {
        user: "u".into(),
        pass: "p".into(),
    };
    assert_eq!(config.auth, user);
    let stream = &config.assets.streams[0];
    assert_eq!(
        (stream.name.as_str(), stream.max_age, stream.max_bytes),
        ("S", 3_600_000_000_000, 1 << 20)
    );
    let (stream, consumer) = &config.assets.consumers[0];
    assert_eq!((stream.as_str(), &consumer["durable_name"]), ("S", &"c".into()));
    assert_eq!(consumer["ack_wait"], 30_000_000_000_i64);
    assert_eq!(consumer["backoff"][1], 2_000_000_000_i64);
}

#[test]
fn ports_and_switches() {
    let config = |text: &str| read(text).unwrap().config;
    assert_eq!(config("port: -1").port, 0);
    assert_eq!(config("port: 0").port, crate::config::PORT);
    assert_eq!(config("listen: 4000").port, 4000);
    assert_eq!(config("listen: \"[::1]:4000\"").host, "[::1]");
    assert_eq!(config("http_port: 0").monitor_port, None);
    assert_eq!(config("http: -1").monitor_port, Some(0));
    assert_eq!(
        config("max_connections: -1").connections.connections_max,
        usize::MAX
    );
    // As in nats-server: no time at all is the usual time.
    let usual = config("port: 1").connections.auth_timeout;
    for zero in ["0", "0.0", "\"0s\""] {
        let text = format!("authorization {{ user: u, password: p, timeout: {zero} }}");
        assert_eq!(config(&text).connections.auth_timeout, usual, "{text}");
    }
    assert_eq!(config("max_connections: 0").connections.connections_max, 0);
    for (text, on) in [
        ("debug: on", None),
        ("jetstream: true", Some(true)),
        ("jetstream: enabled", Some(true)),
        ("jetstream: disabled", Some(false)),
        ("jetstream {}", Some(true)),
        ("jetstream { enabled: false }", Some(false)),
    ] {
        assert_eq!(read(text).unwrap().jetstream, on, "{text}");
    }
    assert_eq!(config("jetstream { sync: always }").sync, Sync::Always);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let table = [
        ("prot: 1", "1:1: unknown field \"prot\", did you mean \"port\"?"),
        ("zebra: 1", "1:1: unknown field \"zebra\""),
        ("port: x", "1:1: \"port\" is a number, not a string"),
        (
            "port: 70000",
            "1:1: 70000 is no port: expected 1 to 65535, or -1 for a free one",
        ),
        (
            "listen: foo",
            "1:1: cannot read the address \"foo\": expected host:port",
        ),
        (
            "listen: \"a:99999\"",
            "1:1: cannot read the address \"a:99999\": expected host:port",
        ),
        (
            "listen: \"::1\"",
            "1:1: cannot read the address \"::1\": expected host:port",
        ),
        (
            "server_name: 12",
            "1:1: \"server_name\" is a string (quote it), not a number",
        ),
        ("server_name: \"a b\"", "1:1: server name cannot contain spaces"),
        ("max_payload: 1t", "1:1: max_payload value is too big"),
        (
            "max_payload: 1kx",
            "1:1: \"max_payload\" is a number of bytes such as 4096, 64KB or 8MiB",
        ),
        (
            "max_payload: -1",
            "1:1: \"max_payload\" is a number of bytes such as 4096, 64KB or 8MiB",
        ),
        (
            "ping_interval: \"2 parsecs\"",
            "1:1: \"ping_interval\": expected a time such as 500ms, 10s or 2m",
        ),
        ("ping_interval: \"0s\"", "1:1: \"ping_interval\" cannot be zero"),
        (
            "ping_interval: 2m",
            "1:1: \"ping_interval\" of 2000000 seconds cannot be meant: quote a time, such as \"2m\"",
        ),
        ("ping_max: -1", "1:1: \"ping_max\" cannot be -1"),
        ("debug: ja", "1:1: \"debug\" is true or false, not a string"),
        ("log_format: xml", "1:1: \"log_format\" is text or json"),
        (
            "lame_duck_duration: \"1s\"",
            "1:1: invalid lame_duck_duration of 1s, minimum is 30 seconds",
        ),
        (
            "server_tags: [a, 1]",
            "1:18: \"server_tags\" is a list of strings, not of a number",
        ),
        (
            "jetstream: maybe",
            "1:1: \"jetstream\" is true, false, enabled, disabled or a map",
        ),
        (
            "jetstream { stor_dir: x }",
            "1:13: unknown field \"stor_dir\", did you mean \"store_dir\"?",
        ),
        (
            "jetstream { max_mem: 1.5 }",
            "1:13: \"max_mem\" is a number of bytes such as 1GB, or -1 for no limit",
        ),
        (
            "jetstream { limits { duplicate_widow: 1 } }",
            "1:22: unknown field \"duplicate_widow\", did you mean \"duplicate_window\"?",
        ),
        (
            "jetstream { key: x }",
            "1:13: \"key\": encryption at rest is not supported by this server",
        ),
        (
            "store_dir: a\njetstream { store_dir: b }",
            "2:13: Duplicate 'store_dir' configuration",
        ),
        (
            "authorization: x",
            "1:1: \"authorization\" is a map { ... }, not a string",
        ),
        (
            "authorization { usr: x }",
            "1:17: unknown field \"usr\", did you mean \"user\"?",
        ),
        (
            "authorization { user: u, password: p, token: t }",
            "1:1: Cannot have a user/pass and token",
        ),
        (
            "authorization { user: u, password: \"\" }",
            "1:26: \"password\" is empty",
        ),
        ("authorization { token: \"\" }", "1:17: \"token\" is empty"),
        ("authorization { password: p }", "1:1: a password without a user"),
        (
            "authorization { users: [] }",
            "1:1: \"users\" is empty: nobody could come in",
        ),
        ("authorization { users: [{user: a, password: $2a$11$x}] }", {
            "1:35: \"password\" looks like a bcrypt hash and is none"
        }),
        (
            "authorization { users: [{password: p}] }",
            "1:25: a user needs a \"user\" or an \"nkey\"",
        ),
        (
            "authorization { users: [{nkey: UABC}] }",
            "1:25: not a valid public nkey for a user",
        ),
        (
            "authorization { users: [{user: a, password: p}, {user: a, password: q}] }",
            { "1:49: Duplicate user \"a\" detected, first at test.conf:1:25" },
        ),
        (
            "authorization { users: [{user: a, password: p}] }\nno_auth_user: b",
            { "2:1: no_auth_user: \"b\" is none of the users in the authorization block or in accounts" },
        ),
        (
            "no_auth_user: b",
            "1:1: no_auth_user: \"b\" is none of the users in the authorization block or in accounts",
        ),
        (
            "authorization { users: [{user: a, password: p, permissions { publish: \"a..b\" }}] }",
            { "1:62: subject \"a..b\" is not a valid subject" },
        ),
        (
            "authorization { users: [{user: a, password: p, permissions { publish { alow: x } }}] }",
            { "1:72: unknown field \"alow\", did you mean \"allow\"?" },
        ),
        (
            "authorization { users: [{user: a, password: p, allowed_connection_types: [MQTT]}] }",
            {
                "1:48: connections other than STANDARD are not supported by this server yet: this user could not come in"
            },
        ),
        (
            "tls { cert_file: x }",
            "1:1: missing 'key_file' in TLS configuration",
        ),
        ("cluster { routes: [nats://a:1] }", {
            "1:1: \"cluster\" is not supported: this server connects to no other servers yet"
        }),
        ("websocket { port: 443, no_tls: true }", {
            "1:1: \"websocket\" is not supported: this server does not listen for that protocol yet"
        }),
        ("streams { \"A B\" {} }", {
            "1:11: stream A B: stream name is required and can not contain '.', '*', '>', '\\', '/' (10052)"
        }),
        (
            "streams { S { subject: x } }",
            "1:15: unknown field \"subject\", did you mean \"subjects\"?",
        ),
        (
            "streams { S { max_age: soon } }",
            "1:24: expected a time such as 500ms, 10s or 2m",
        ),
    ];
    for (text, expected) in table {
        assert!(read(text).is_err(), "{text}");
        assert_eq!(says(text)[0], format!("test.conf:{expected}"), "{text}");
    }
}

#[test]
fn harmless_things_are_warned_of() {
    for (text, expected) in [
        (
            "ping_interval: 5",
            "1:1: \"ping_interval\" of 5 is taken as seconds: write \"5s\"",
        ),
        (
            "syslog: true",
            "1:1: \"syslog\" has no effect: the log goes to stderr or to log_file",
        ),
        (
            "cluster { name: x, port: -1 }",
            "1:1: \"cluster\" has no effect: no port is opened for other servers",
        ),
        ("leafnodes { listen: \"127.0.0.1:-1\" }", {
            "1:1: \"leafnodes\" has no effect: no port is opened for other servers"
        }),
        ("websocket { port: -1, no_tls: true }", {
            "1:1: \"websocket\" has no effect: no such port is opened, and the ports file lists none"
        }),
        ("jetstream { limits { max_ack_pending: 5 } }", {
            "1:22: \"max_ack_pending\" has no effect on this server"
        }),
        ("authorization { user: a }", {
            "1:1: user \"a\" has no password: whoever knows the name comes in"
        }),
    ] {
        assert!(read(text).is_ok(), "{text}: {:?}", says(text));
        assert_eq!(says(text), [format!("test.conf:{expected}")], "{text}");
    }
    // Nothing to say.
    for text in [
        "system_account: \"$SYS\"",
        "cluster_: 1\nport: $cluster_\n",
        "x: 5\nping_max: $x",
    ] {
        assert_eq!(says(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn all_mistakes_at_once() {
    let all = says("prot: 1\nport: x\njetstream { foo: 1 }\nauthorization { bar: 1 }");
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn every_key_that_is_suggested_is_known() {
    for key in KEYS {
        let told = says(&format!("{key}: {{ }}"));
        assert!(
            told.iter().all(|told| !told.contains("unknown field")),
            "{key}: {told:?}"
        );
    }
}

proptest! {
    /// Whatever a key is given, it is taken or told of.
    #[test]
    fn no_value_is_too_odd(settings in prop::collection::vec((prop::sample::select(KEYS.to_vec()), odd()), 1..6)) {
        let text: String = settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        if let Ok(file) = read(&text) {
            // What holds can be shown, and read again.
            let shown = effective(&file.config, &file.process);
            prop_assert!(read(&shown).is_ok(), "{shown}");
        }
    }
}

fn odd() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "x",
        "\"\"",
        "0",
        "-1",
        "1",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "true",
        "\"2s\"",
        "\"-2s\"",
        "\"99999999999999999999s\"",
        "\"a:1\"",
        "\":-1\"",
        "\"[::1]:1\"",
        "$2a$04$x",
        "2018-05-04T12:00:00Z",
        "'a b'",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 4, |inner| {
        let keys = prop::sample::select(vec![
            "user",
            "password",
            "users",
            "token",
            "permissions",
            "publish",
            "allow",
            "deny",
            "allow_responses",
            "max",
            "expires",
            "S",
            "subjects",
            "max_age",
            "backoff",
            "store_dir",
            "sync",
            "domain",
            "port",
            "routes",
            "nkey",
            "exports",
            "imports",
            "mappings",
            "limits",
            "jetstream",
            "default_permissions",
            "stream",
            "service",
            "account",
            "subject",
            "accounts",
            "to",
            "prefix",
            "response_type",
            "account_token_position",
            "latency",
            "max_payload",
            "max_mem",
            "destination",
            "weight",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|nodes| format!("[{}]", nodes.join(", "))),
            prop::collection::vec((keys, inner), 0..4).prop_map(|entries| {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| format!("{key}: {value}"))
                    .collect();
                format!("{{ {} }}", entries.join(", "))
            }),
        ]
    })
}

#[test]
fn users_with_permissions() {
    let file = read(
        r#"
        allowed: ["a.>", "b"]
        authorization {
            default_permissions { subscribe: "public.>" }
            users: [
                { user: a, password: pa, permissions {
                    publish: $allowed
                    subscribe { allow: ["a.>", "q workers"], deny: "a.x" }
                    allow_responses { max: 3, expires: "1m" }
                } }
                { user: b, password: pb }
                { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4, permissions { allow_responses: true } }
            ]
        }
        no_auth_user: b
        "#,
    );
    // Values of a list stand on lines of their own or behind commas.
    let file = file.unwrap_or_else(|problems| panic!("{}", problems[0]));
    let Auth::Users(users) = &file.config.auth else {
        panic!("{:?}", file.config.auth)
    };
    let permissions = |name: &str| users.get(name).unwrap().permissions.clone().unwrap();
    let a = permissions("a");
    assert!(a.may_publish(b"a.b") && a.may_publish(b"b") && !a.may_publish(b"c"));
    assert!(
        a.may_subscribe(b"a.b", None)
            && !a.may_subscribe(b"a.x", None)
            && a.may_subscribe(b"q", Some(b"workers"))
    );
    assert_eq!(a.responses.map(|responses| responses.max), Some(3));
    assert!(permissions("b").may_publish(b"anything") && !permissions("b").may_subscribe(b"x", None));
    let key = permissions("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
    assert!(!key.may_publish(b"x") && key.may_subscribe(b"x", None));
    assert_eq!(users.default_user().unwrap().name, "b");
    assert!(users.get("a").unwrap().rule.starts_with("test.conf:"));
    assert!(!file.config.auth.is_required() && file.config.auth.has_nkeys());
}

#[test]
fn the_sample_is_the_defaults() {
    let file = read(&sample()).unwrap_or_else(|problems| panic!("{}", problems[0]));
    assert!(file.warnings.is_empty(), "{:?}", file.warnings);
    assert_eq!(format!("{:?}", file.config), format!("{:?}", Config::default()));
    assert_eq!(file.process, Process::default());
    assert_eq!((file.jetstream, file.store_dir), (Some(true), None));
    // What stands there commented out is readable too.
    let all: String = sample()
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let is_setting = bare.strip_prefix("# ").is_some_and(|rest| {
                let key = rest
                    .trim_start()
                    .split([':', ' ', '{', '}', ']'])
                    .next()
                    .unwrap_or_default();
                KEYS.contains(&key)
                    || rest.starts_with("  ")
                    || rest.starts_with('}')
                    || ["store_dir", "domain"].contains(&key)
            });
            let text = if is_setting {
                bare.trim_start_matches("# ")
            } else {
                line
            };
            format!("{text}\n")
        })
        .collect();
    let all = all.replace("$MESH_SECRET", "x").replace("$ORDERS_SECRET", "y");
    // The certificate that it names must be there.
    let directory = tempfile::TempDir::new().unwrap();
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("server.pem"), issued.cert.pem()).unwrap();
    std::fs::write(
        directory.path().join("server.key"),
        issued.signing_key.serialize_pem(),
    )
    .unwrap();
    let all = all.replace("/etc/mesh", directory.path().to_str().unwrap());
    let file = read(&all).unwrap_or_else(|problems| panic!("{}\n{all}", problems[0]));
    let assets = &file.config.assets;
    assert_eq!((assets.streams.len(), assets.consumers.len()), (1, 1));
    assert_eq!(file.config.accounts.len(), 4);
    assert!(file.config.auth.has_nkeys() && file.process.pid_file.is_some() && file.config.name.is_some());
}

#[test]
fn effective_settings_can_be_read_again() {
    let file = read("port: 5000\nmax_payload: 2MiB\nhttp: \"127.0.0.1:9000\"\njetstream: off").unwrap();
    let text = effective(&file.config, &file.process);
    let again = read(&text).unwrap_or_else(|problems| panic!("{}\n{text}", problems[0]));
    assert_eq!(again.jetstream, Some(false));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", file.config));
    assert!(text.contains("max_payload: 2MiB") && text.contains("# reload") && text.contains("# restart"));
    let secret = read("authorization { token: hunter2 }").unwrap();
    assert!(!effective(&secret.config, &secret.process).contains("hunter2"));
}
