//! Every metric that the dashboard, the alerts and their tests ask for is one that a running server has.

use std::collections::BTreeSet;

use async_nats::jetstream;
use sovereign_mesh::TestServer;

use super::files::yaml;
use super::*;

/// The names of all series of a server that has clients, a stream and a consumer.
fn served() -> BTreeSet<String> {
    let server = TestServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap();
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
    });
    let text = get(server.server().monitor_addr().unwrap(), "/metrics").unwrap();
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
