//! Settings as text: the effective ones, and an annotated sample of the defaults. Both are files that can be read again.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::store::Sync;

use crate::connection::tls::{First, Pair, Version};

use super::{Config, LogFormat, Process};

/// One setting as a line of a file.
struct Row {
    key: &'static str,
    value: String,
    /// Commented out: nothing is set.
    absent: bool,
    /// Whether a reload can change it.
    reloads: bool,
    about: &'static str,
}

fn row(key: &'static str, value: impl Into<String>, reloads: bool, about: &'static str) -> Row {
    Row {
        key,
        value: value.into(),
        absent: false,
        reloads,
        about,
    }
}

/// A setting that may be absent; the sample shows `example` instead.
fn optional(
    key: &'static str,
    value: Option<String>,
    example: &str,
    reloads: bool,
    about: &'static str,
) -> Row {
    Row {
        absent: value.is_none(),
        ..row(key, value.unwrap_or_else(|| example.to_owned()), reloads, about)
    }
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

fn bytes(number: usize) -> String {
    match number {
        _ if number.is_multiple_of(1 << 20) => format!("{}MiB", number >> 20),
        _ if number.is_multiple_of(1 << 10) => format!("{}KiB", number >> 10),
        _ => number.to_string(),
    }
}

pub(super) fn time(duration: Duration) -> String {
    quoted(&format!(
        "{:#}",
        jiff::SignedDuration::try_from(duration).unwrap_or_default()
    ))
}

/// Port numbers as the file has them: a free one is -1.
fn port(number: u16) -> String {
    if number == 0 {
        "-1".to_owned()
    } else {
        number.to_string()
    }
}

fn network(config: &Config) -> Vec<Row> {
    let monitor = config.monitor_port.map_or_else(|| "0".to_owned(), port);
    let some = |text: &Option<String>| text.as_deref().map(quoted);
    vec![
        row("host", quoted(&config.host), false, "Address to listen on."),
        row(
            "port",
            port(config.port),
            false,
            "Client port; -1 picks a free one.",
        ),
        optional(
            "client_advertise",
            some(&config.advertise),
            "\"mesh.example.org:7778\"",
            false,
            "Where clients elsewhere reach this server, if not where it listens.",
        ),
        optional(
            "server_name",
            some(&config.name),
            "\"mesh-1\"",
            false,
            "The server's name; its id when absent.",
        ),
        row("server_tags", list(&config.tags), false, "Labels of the server."),
        row(
            if config.monitor_tls {
                "https_port"
            } else {
                "monitor_port"
            },
            monitor,
            false,
            "Monitoring port (HTTP; https_port: HTTPS); 0 turns it off, -1 picks a free one. `http: \"host:port\"` gives it an address too.",
        ),
        row(
            "monitor_hosts",
            list(&config.monitor_hosts),
            false,
            "Other names by which monitoring may be asked for.",
        ),
        row(
            "i_know_this_is_open",
            config.open_to_all.to_string(),
            false,
            "Listen beyond loopback although anybody may come in.",
        ),
    ]
}

fn limits(config: &Config) -> Vec<Row> {
    let options = &config.connections;
    let connections = i64::try_from(options.connections_max).unwrap_or(-1);
    vec![
        row(
            "max_payload",
            bytes(options.payload_max),
            true,
            "Largest message, headers and payload.",
        ),
        row(
            "max_connections",
            connections.to_string(),
            true,
            "Connections at a time; -1 is no limit.",
        ),
        row(
            "max_subscriptions",
            options.subscriptions_max.to_string(),
            true,
            "Subscriptions of one connection; 0 is no limit.",
        ),
        optional(
            "max_sub_tokens",
            (options.subscription_tokens_max > 0).then(|| options.subscription_tokens_max.to_string()),
            "16",
            true,
            "Tokens of a subscription's subject; no limit when absent.",
        ),
        row(
            "max_pending",
            bytes(options.pending_max),
            true,
            "Bytes waiting for one client before it is a slow consumer; of connections that come after a reload.",
        ),
        row(
            "max_control_line",
            bytes(options.control_line_max),
            true,
            "Longest control line.",
        ),
        row(
            "ping_interval",
            time(options.ping_interval),
            true,
            "Time between PINGs to a silent client.",
        ),
        row(
            "ping_max",
            options.pings_out_max.to_string(),
            true,
            "Unanswered PINGs before a connection is stale.",
        ),
        row(
            "write_deadline",
            time(options.write_deadline),
            true,
            "How long a write to a client may make no progress; of connections that come after a reload.",
        ),
        row(
            "trace",
            options.trace.to_string(),
            true,
            "Log every protocol operation.",
        ),
    ]
}

fn process(process: &Process) -> Vec<Row> {
    let some = |file: &Option<std::path::PathBuf>| file.as_deref().map(path);
    let format = match process.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    vec![
        row(
            "debug",
            process.debug.to_string(),
            true,
            "Log connections coming and going.",
        ),
        optional(
            "log_file",
            some(&process.log_file),
            "\"/var/log/mesh.log\"",
            true,
            "The log goes here instead of stderr.",
        ),
        row(
            "log_size_limit",
            process.log_size_limit.to_string(),
            true,
            "Bytes of the log file before a new one is begun; 0 is no limit.",
        ),
        row(
            "log_max_num",
            process.log_files_max.to_string(),
            true,
            "Log files kept, the one in use counted; 0 is all.",
        ),
        row("log_format", format, false, "Shape of the log: text or json."),
        row(
            "logtime",
            process.log_time.to_string(),
            false,
            "Lines of the log begin with the time.",
        ),
        row(
            "logtime_utc",
            process.log_utc.to_string(),
            false,
            "In UTC instead of local time.",
        ),
        optional(
            "pid_file",
            some(&process.pid_file),
            "\"/run/mesh.pid\"",
            true,
            "Where the process id is written.",
        ),
        optional(
            "ports_file_dir",
            some(&process.ports_file_dir),
            "\"/run\"",
            true,
            "A file here tells the ports, as JSON.",
        ),
        row(
            "no_mesh",
            process.no_mesh.to_string(),
            false,
            "Leave out the mesh's own stream and buckets; `mesh setup` makes them, too.",
        ),
        row(
            "lame_duck_duration",
            time(process.lame_duck_duration),
            true,
            "How long clients are given to move on after USR2.",
        ),
    ]
}

fn streams(config: &Config) -> Vec<Row> {
    let sync = match config.sync {
        Sync::Always => "always".to_owned(),
        Sync::Interval(every) => time(every),
    };
    let dir = config.store_dir.as_deref();
    vec![
        row(
            "enabled",
            dir.is_some().to_string(),
            false,
            "Whether streams are kept.",
        ),
        optional(
            "store_dir",
            dir.map(path),
            "\"/var/lib/mesh\"",
            false,
            "Where they are kept; the platform's data directory when absent.",
        ),
        row(
            "sync",
            sync,
            false,
            "`always`: before every acknowledgement. Or only this often (\"2s\"): then a power cut takes back what was\n\
             # acknowledged since.",
        ),
        optional(
            "domain",
            config.domain.as_deref().map(quoted),
            "\"hub\"",
            false,
            "The JetStream domain.",
        ),
        row(
            "strict",
            config.strict.to_string(),
            false,
            "Refuse requests with fields that are not known.",
        ),
        optional(
            "max_mem",
            config.memory_max.map(|bytes| bytes.to_string()),
            "1GiB",
            false,
            "Bytes of all memory streams together; no limit when absent.",
        ),
        optional(
            "max_file",
            config.storage_max.map(|bytes| bytes.to_string()),
            "100GiB",
            false,
            "Bytes of all other streams together; no limit when absent.",
        ),
    ]
}

/// An annotated file that says what holds without one.
pub fn sample() -> String {
    let config = Config::default();
    let mut out = String::from(
        "# Settings of `mesh serve -c FILE`: every one, with its default. The language is that of nats-server's files.\n\
         # Flags win over MESH_... variables, those over this file. `mesh config check FILE` reads it without serving;\n\
         # SIGHUP or `mesh ctl reload` reads it again: what is marked [reload] changes then, the rest with a restart.\n",
    );
    let mut section = |title: &str, indent: &str, rows: Vec<Row>| {
        writeln!(out, "\n{indent}# --- {title}").expect("writing to a string");
        for row in rows {
            let reload = if row.reloads { "[reload] " } else { "" };
            let about = row.about.replace("\n#", &format!("\n{indent}#"));
            let mark = if row.absent { "# " } else { "" };
            writeln!(
                out,
                "{indent}# {reload}{about}\n{indent}{mark}{}: {}",
                row.key, row.value
            )
            .expect("writing to a string");
        }
    };
    section("Where it is met", "", network(&config));
    section("Limits and times of connections", "", limits(&config));
    section("The process", "", process(&Process::default()));
    let mut kept = streams(&config);
    // The default of the command line, where streams are on.
    kept[0].value = "true".to_owned();
    out.push_str("\njetstream {\n");
    let mut inside = String::new();
    for row in kept {
        let about = row.about.replace("\n#", "\n  #");
        let mark = if row.absent { "# " } else { "" };
        writeln!(inside, "  # {about}\n  {mark}{}: {}", row.key, row.value).expect("writing to a string");
    }
    out.push_str(&inside);
    out.push_str(AFTERWORD);
    out
}

/// What has no default to show.
const AFTERWORD: &str = r#"}

# --- Who may come in; nobody is asked while there is no such block [reload]
# A token, or one user, or several. Secrets may be bcrypt hashes.
# authorization {
#   timeout: "2s"
#   # token: $MESH_SECRET
#   # user: mesh, password: $MESH_SECRET
#   default_permissions { publish: "public.>", subscribe: ["public.>", "_INBOX.>"] }
#   users: [
#     { user: orders, password: $ORDERS_SECRET, permissions {
#         publish: { allow: ["orders.>", "$JS.API.>"], deny: "orders.audit" }
#         subscribe: ["orders.>", "_INBOX.>", "work.* workers"]
#         allow_responses: { max: 1, expires: "2m" }
#     } }
#     { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }
#   ]
# }
# Who a client is that shows nothing.
# no_auth_user: orders

# --- TLS for clients; connections are in clear while there is no such block [reload, the files too]
# tls {
#   cert_file: "/etc/mesh/server.pem", key_file: "/etc/mesh/server.key"
#   # certs: [ { cert_file: ..., key_file: ... }, ... ]   several: chosen by the name a client asks for
#   ca_file: "/etc/mesh/ca.pem"   # the authorities whose client certificates are believed
#   verify: false                 # clients must show a certificate
#   verify_and_map: false         # and are the user that it names: e-mail, DNS name, URI or subject
#   # pinned_certs: [ ... ]       SHA-256 of the public keys that clients may have
#   timeout: "2s"                 # for a handshake
#   min_version: "1.2"
#   # cipher_suites: [ ... ], curve_preferences: [ ... ]
#   handshake_first: false        # true: before INFO; auto, "300ms": if the client begins in that time
#   connection_rate_limit: 0      # handshakes in a second; 0 is no limit
# }
# Clients may stay in clear.
# allow_non_tls: false
# Monitoring over HTTPS, with the same certificate, instead of monitor_port: `https_port: 8778`.
# --- Accounts: nothing crosses from one to another but by what one exports and another imports [reload]
# With accounts, those have streams that say so. Users of "authorization" are in the account $G.
# accounts {
#   SHOP {
#     users: [ { user: shop, password: $MESH_SECRET } ]
#     exports: [ { stream: "orders.>" }, { service: "prices", accounts: [OFFICE] } ]
#     jetstream { max_file: 10GiB, max_streams: 20 }
#   }
#   OFFICE {
#     users: [ { user: office, password: $MESH_SECRET } ]
#     imports: [ { stream: { account: SHOP, subject: "orders.>" }, prefix: shop }, { service: { account: SHOP, subject: prices } } ]
#     limits { max_connections: 100, max_payload: 64KiB }
#   }
#   WATCH { users: [ { user: admin, password: $MESH_SECRET } ] }
# }
# system_account: WATCH
# What clients of $G publish goes under another name.
# mappings { "old.orders.*": "orders.$1", "try": [ { destination: "new", weight: 10% } ] }

# --- Streams and consumers that are to be there: created or updated at start, never deleted
# streams {
#   ORDERS { subjects: ["orders.>"], max_age: "24h", duplicate_window: "2m" }
# }
# consumers {
#   ORDERS { billing { ack_policy: explicit, ack_wait: "30s" } }
# }
"#;

/// The settings as they are, as a file; secrets are left out. Each line says whether a reload could change it.
pub fn effective(config: &Config, process_settings: &Process) -> String {
    let lines = effective_lines(config, process_settings);
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|width| *width <= 60)
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (line, reloads) in lines {
        let how = if reloads { "reload" } else { "restart" };
        writeln!(out, "{line:width$}  # {how}").expect("writing to a string");
    }
    out
}

/// The same line by line, each with whether a reload could change it.
pub fn effective_lines(config: &Config, process_settings: &Process) -> Vec<(String, bool)> {
    let mut lines = Vec::new();
    let rows = network(config)
        .into_iter()
        .chain(limits(config))
        .chain(process(process_settings));
    for row in rows.filter(|row| !row.absent) {
        lines.push((format!("{}: {}", row.key, row.value), row.reloads));
    }
    if let Some(host) = &config.monitor_host {
        lines.push((
            format!(
                "{}: {}",
                if config.monitor_tls { "https" } else { "http" },
                quoted(&format!(
                    "{host}:{}",
                    config.monitor_port.map_or_else(|| "0".to_owned(), port)
                ))
            ),
            false,
        ));
    }
    let kept: Vec<_> = streams(config)
        .iter()
        .filter(|row| !row.absent)
        .map(|row| format!("{}: {}", row.key, row.value))
        .collect();
    lines.push((format!("jetstream {{ {} }}", kept.join(", ")), false));
    lines.extend(encryption(config).map(|line| (line, true)));
    lines.push((super::shown::authorization(config), true));
    if let Some(system) = &config.system_account {
        lines.push((format!("# system_account: {}", quoted(system)), false));
    }
    let of_accounts = super::shown::accounts(config);
    lines.extend(of_accounts.into_iter().map(|line| (line, true)));
    for stream in &config.assets.streams {
        lines.push((
            format!("# stream {} on {}", stream.name, stream.subjects.join(", ")),
            false,
        ));
    }
    for (stream, consumer) in &config.assets.consumers {
        let name = consumer
            .get("name")
            .and_then(|name| name.as_str())
            .unwrap_or_default();
        lines.push((format!("# consumer {name} of {stream}"), false));
    }
    lines
}

/// The tls block, which holds no secrets: it names files.
fn encryption(config: &Config) -> impl Iterator<Item = String> + use<> {
    let block = config.tls.as_ref().map(|options| {
        let mut parts = Vec::new();
        let mut part = |key: &str, value: String| parts.push(format!("{key}: {value}"));
        match &options.certificates[..] {
            [pair] => {
                part("cert_file", path(&pair.certificate));
                part("key_file", path(&pair.key));
            }
            pairs => {
                let pair = |pair: &Pair| {
                    let (certificate, key) = (path(&pair.certificate), path(&pair.key));
                    format!("{{ cert_file: {certificate}, key_file: {key} }}")
                };
                let pairs: Vec<_> = pairs.iter().map(pair).collect();
                part("certs", format!("[{}]", pairs.join(", ")));
            }
        }
        if let Some(file) = &options.ca_file {
            part("ca_file", path(file));
        }
        part("verify", options.verify.to_string());
        part("verify_and_map", options.map.to_string());
        if !options.pinned.is_empty() {
            part(
                "pinned_certs",
                list(&options.pinned.iter().cloned().collect::<Vec<_>>()),
            );
        }
        part("timeout", time(options.timeout));
        part(
            "min_version",
            quoted(if options.version_min == Version::Tls13 {
                "1.3"
            } else {
                "1.2"
            }),
        );
        if !options.cipher_suites.is_empty() {
            let names: Vec<_> = options.cipher_suites.iter().map(ToString::to_string).collect();
            part("cipher_suites", list(&names));
        }
        if !options.curves.is_empty() {
            part("curve_preferences", list(&options.curves));
        }
        let first = match options.first {
            First::Server => "false".to_owned(),
            First::Client => "true".to_owned(),
            First::Either(wait) => time(wait),
        };
        part("handshake_first", first);
        part("connection_rate_limit", options.rate_max.to_string());
        format!("tls {{ {} }}", parts.join(", "))
    });
    let plain = config.tls.as_ref().is_some_and(|options| options.allow_plain);
    block
        .into_iter()
        .chain(plain.then(|| "allow_non_tls: true".to_owned()))
}
