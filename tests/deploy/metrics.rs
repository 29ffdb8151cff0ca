//! Every metric that the dashboard, the alerts and their tests ask for is one that a running server has.

use std::collections::BTreeSet;

use async_nats::jetstream;

use super::files::yaml;
use super::*;

/// The names of all series of a server that has clients, a stream and a consumer, and a mesh with all there can be.
fn served() -> BTreeSet<String> {
    let (server, monitor) = serve(mesh_command(), &[]);
    let url = format!("nats://{}", server.address());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(&url).await.unwrap();
        let context = jetstream::new(client);
        let stream = jetstream::stream::Config {
            name: "ORDERS".to_owned(),
            subjects: vec!["orders.>".to_owned()],
            ..Default::default()
        };
        let stream = context.create_stream(stream).await.unwrap();
        context
            .publish("orders.new", "one".into())
            .await
            .unwrap()
            .await
            .unwrap();
        let consumer = jetstream::consumer::pull::Config {
            durable_name: Some("workers".to_owned()),
            ..Default::default()
        };
        // Refusals are shown by reason once there was one.
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", "7");
        let refused = context
            .publish_with_headers("orders.new", headers, "two".into())
            .await
            .unwrap();
        refused.await.unwrap_err();
        stream.create_consumer(consumer).await.unwrap();
        for subject in [
            "mesh.phoenix.recovery_beacon",
            "mesh.phoenix.resurrected",
            "$KV.PEERS.alpha",
        ] {
            context
                .publish(subject, "{}".into())
                .await
                .unwrap()
                .await
                .unwrap();
        }
    });
    let text = get(monitor, "/metrics").unwrap();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        match kind {
            "histogram" => names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}"))),
            _ => drop(names.insert(name.to_owned())),
        }
    }
    names
}

/// The names in an expression that are ours.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("mesh_"))
}

/// The texts under `key`, however deep.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    value => under(value, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| under(item, key, found)),
        _ => {}
    }
}

#[test]
fn what_is_asked_for_is_served() {
    let served = served();
    assert!(
        served.contains("mesh_connections") && served.len() > 20,
        "{served:?}"
    );
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/mesh.json")).unwrap();
    let alerts = yaml("deploy/prometheus/alerts.yml");
    let tests = yaml("deploy/prometheus/alerts.test.yml");
    let mut missing = Vec::new();
    for (file, document, keys) in [
        (
            "grafana/mesh.json",
            &dashboard,
            &["expr", "query", "definition"][..],
        ),
        ("prometheus/alerts.yml", &alerts[0], &["expr"]),
        ("prometheus/alerts.test.yml", &tests[0], &["series"]),
    ] {
        let mut texts = Vec::new();
        keys.iter().for_each(|key| under(document, key, &mut texts));
        let names: BTreeSet<&str> = texts.iter().flat_map(|text| named(text)).collect();
        assert!(names.len() > 5, "{file} asks for {names:?}");
        missing.extend(
            names
                .into_iter()
                .filter(|name| !served.contains(*name))
                .map(|name| format!("{file} asks for {name}")),
        );
    }
    assert!(missing.is_empty(), "{}\nserved: {served:?}", missing.join("\n"));
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/mesh.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shown: Vec<&Value> = panels.iter().filter(|panel| panel["type"] != "row").collect();
    assert!(shown.len() >= 24, "{} panels", shown.len());
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are of one panel each");
    let mut cells = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(cells.insert((x, y)), "{} lies on another panel", panel["title"]);
        }
    }
    for panel in shown {
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{}",
            panel["title"]
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(
                expression.contains("$instance"),
                "{expression} shows all servers at once"
            );
        }
    }
}

#[test]
fn the_questions_of_the_dashboard_are_well_formed() {
    let Some(promtool) = program("promtool", "the dashboard's queries") else {
        return;
    };
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/mesh.json")).unwrap();
    let mut asked = Vec::new();
    under(&dashboard["panels"], "expr", &mut asked);
    assert!(asked.len() > 40, "{} queries", asked.len());
    // Each as a rule that records it, which promtool reads; Grafana's variables as they are filled in.
    let rules: Vec<Value> = asked
        .iter()
        .enumerate()
        .map(|(at, query)| {
            let filled = query
                .replace("$__rate_interval", "20s")
                .replace("$instance", ".*")
                .replace("$stream", ".*");
            assert!(!filled.contains('$'), "{query}");
            serde_json::json!({"record": format!("asked:{at}"), "expr": filled})
        })
        .collect();
    let group = serde_json::json!({"groups": [{"name": "asked", "rules": rules}]});
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(&file, group.to_string()).unwrap();
    let mut command = Command::new(promtool);
    command.args(["check", "rules"]).arg(file.path());
    Ran::of(command).says(0, &format!("{} rules found", asked.len()));
}

#[test]
fn the_page_names_the_figures_of_the_mesh() {
    let page = read("docs/monitoring.md");
    let (_, rest) = page.split_once("`mesh serve` adds").unwrap();
    let named: Vec<&str> = rest
        .lines()
        .filter(|line| line.starts_with("| `mesh_"))
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`'))
        .filter(|word| word.starts_with("mesh_"))
        .collect();
    let served = served();
    assert!(named.len() >= 9, "{named:?}");
    for name in &named {
        assert!(
            served.contains(*name),
            "docs/monitoring.md names {name}, which is not there"
        );
    }
    for name in &served {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(name.as_str(), |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/monitoring.md does not name {name}"
        );
    }
}

/// The mesh's own figures follow what happens on it, and probes leave nothing behind.
#[test]
fn the_health_of_the_mesh_is_shown() {
    let (server, monitor) = serve(mesh_command(), &[]);
    let state = tempfile::tempdir().unwrap();
    let mesh = |arguments: &[&str]| {
        let mut command = mesh(arguments);
        command
            .env("MESH_URL", format!("nats://{}", server.address()))
            .env("MESH_INSTANCE", "alpha")
            .env("MESH_STATE_DIR", state.path());
        command
    };
    let value = |series: &str| -> Option<f64> {
        let text = get(monitor, "/metrics").unwrap();
        let line = text
            .lines()
            .find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    assert_eq!(value("mesh_peers"), Some(0.0));
    assert_eq!(value("mesh_systems_seen"), Some(0.0));
    assert_eq!(
        (
            value("mesh_beacon_age_seconds"),
            value("mesh_peer_heartbeat_age_seconds")
        ),
        (None, None)
    );
    Ran::of(mesh(&["emit", "fo_insight", r#"{"text":"x"}"#])).says(0, "");
    Ran::of(mesh(&["emit", "recovery_beacon", r#"{"session":"S9"}"#])).says(0, "");
    Ran::of(mesh(&["pub", "mesh.own.thing", "x"])).says(0, "");
    let mut joined = mesh(&["join", "--session", "S1", "--heartbeat", "1s", "--lapse", "2s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a peer", || value("mesh_peers").filter(|&peers| peers == 1.0));
    until("that peer's event", || {
        value("mesh_events{area=\"peer\"}").filter(|&events| events == 1.0)
    });
    for (series, expected) in [
        ("mesh_events{area=\"fo\"}", 1.0),
        ("mesh_events{area=\"phoenix\"}", 1.0),
        ("mesh_events{area=\"graph\"}", 0.0),
        ("mesh_events{area=\"other\"}", 1.0),
        ("mesh_systems_seen", 2.0),
        ("mesh_peers_lapsed", 0.0),
    ] {
        assert_eq!(value(series), Some(expected), "{series}");
    }
    for series in [
        "mesh_beacon_age_seconds",
        "mesh_last_event_age_seconds",
        "mesh_peer_heartbeat_age_seconds",
        "mesh_system_last_event_age_seconds{system=\"FO Local\"}",
        "mesh_system_last_event_age_seconds{system=\"Meta FO\"}",
    ] {
        let age = value(series).unwrap_or_else(|| panic!("no {series}"));
        assert!((0.0..60.0).contains(&age), "{series} {age}");
    }
    assert_eq!(
        value("mesh_system_last_event_age_seconds{system=\"Graph Feeder\"}"),
        None
    );
    assert_eq!(value("mesh_resurrection_age_seconds"), None);
    let sessions = value("mesh_stream_messages{stream=\"KV_SESSIONS\"}");
    Ran::of(mesh(&["check"])).says(0, "one record stored in");
    assert_eq!(value("mesh_stream_messages{stream=\"KV_SESSIONS\"}"), sessions);
    // Dead without a word: nobody is there to report it.
    joined.kill().unwrap();
    joined.wait().unwrap();
    until("its lapse", || {
        value("mesh_peers_lapsed").filter(|&lapsed| lapsed == 1.0)
    });
    assert_eq!(value("mesh_peers"), Some(0.0));
    assert_eq!(value("mesh_events{area=\"peer\"}"), Some(1.0));
}

/// `mesh bench --scrape` runs each scenario with a scraper and without, and compares.
#[test]
fn a_benchmark_says_what_scraping_costs() {
    let ran = Ran::of(mesh(&[
        "bench", "1to1", "--spawn", "--scrape", "--msgs", "2000", "--runs", "2", "--json",
    ]))
    .says(0, "scrapes");
    let outcome = ran.json();
    let figure = |name: &str| {
        let figures = outcome["figures"].as_array().unwrap();
        figures
            .iter()
            .find(|figure| figure["name"] == name)
            .cloned()
            .unwrap()
    };
    let rate = figure("rate");
    assert!(
        rate["ours"].as_f64() > Some(0.0) && rate["theirs"].as_f64() > Some(0.0),
        "{rate}"
    );
    assert!(rate["ratio"].as_f64() > Some(0.0), "{rate}");
    let scrapes = figure("scrapes");
    assert!(
        scrapes["ours"].as_f64() >= Some(1.0) && scrapes.get("theirs").is_none(),
        "{scrapes}"
    );
    // Pages that are not there are an error, not a figure.
    let (server, _) = serve(mesh_command(), &[]);
    let url = format!("nats://{}", server.address());
    let nowhere = [
        "--scrape",
        "--monitor",
        "http://127.0.0.1:1",
        "--msgs",
        "10",
        "--runs",
        "1",
    ];
    let ran = Ran::of(mesh(&[&["bench", "1to1", "-s", &url][..], &nowhere[..]].concat()));
    ran.says(1, "cannot reach monitoring at http://127.0.0.1:1");
}
