//! The alert rules: by promtool, and by a real Prometheus that reads a running server.

use async_nats::jetstream::{self, consumer, stream};
use sovereign_mesh::{Config, TestServer, connection};

use super::files::yaml;
use super::*;

const RULES: &str = "deploy/prometheus/alerts.yml";
const TESTS: &str = "deploy/prometheus/alerts.test.yml";

fn rules() -> Vec<Value> {
    let rules = &yaml(RULES)[0]["groups"][0]["rules"];
    rules.as_array().unwrap().clone()
}

#[test]
fn each_rule_says_what_it_means_and_what_to_do() {
    let page = read("docs/alerts.md");
    let anchors: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let rules = rules();
    assert!(rules.len() >= 11, "{} rules", rules.len());
    let mut names = Vec::new();
    for rule in &rules {
        let name = rule["alert"].as_str().unwrap();
        let annotation = |key: &str| {
            let text = rule["annotations"][key].as_str();
            text.filter(|text| !text.is_empty())
                .unwrap_or_else(|| panic!("{name} has no {key}"))
        };
        annotation("summary");
        annotation("description");
        let (file, anchor) = annotation("runbook_url").split_once('#').unwrap();
        assert_eq!(file, "docs/alerts.md", "{name}");
        assert_eq!(anchor, name.to_lowercase());
        assert!(
            anchors.iter().any(|found| found == anchor),
            "docs/alerts.md has no {name}"
        );
        assert!(
            ["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        names.push(name.to_lowercase());
    }
    // And no page about what there is not.
    for anchor in anchors.iter().filter(|anchor| anchor.starts_with("mesh")) {
        assert!(
            names.contains(anchor),
            "docs/alerts.md explains {anchor}, which is no rule"
        );
    }
}

#[test]
fn each_rule_is_tested_to_fire_and_not_to() {
    let document = &yaml(TESTS)[0];
    let cases: Vec<&Value> = document["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    for rule in rules() {
        let fires = cases
            .iter()
            .filter(|case| case["alertname"] == rule["alert"])
            .any(|case| !case["exp_alerts"].as_array().unwrap().is_empty());
        assert!(fires, "{} is not tested", rule["alert"]);
    }
}

#[test]
fn promtool_takes_them() {
    let Some(promtool) = program("promtool", "the alert rules") else {
        return;
    };
    let run = |arguments: &[&str], file: &str| {
        let mut command = Command::new(&promtool);
        command.args(arguments).arg(repository(file));
        Ran::of(command)
    };
    run(&["check", "rules"], RULES).says(0, "SUCCESS");
    run(&["test", "rules"], TESTS).says(0, "SUCCESS");
    for file in [
        "deploy/prometheus/prometheus.yml",
        "deploy/prometheus/compose.yml",
    ] {
        // The token of compose.yml is a file of its container.
        run(&["check", "config", "--syntax-only"], file).says(0, "SUCCESS");
    }
}

/// A real Prometheus that reads one server four times a second, with our rules, each without its patience.
struct Prometheus {
    child: std::process::Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Option<Self> {
        let program = program("prometheus", "a real Prometheus")?;
        let directory = tempfile::tempdir().unwrap();
        let patient = read(RULES);
        let rules: Vec<&str> = patient
            .lines()
            .filter(|line| !line.trim().starts_with("for: "))
            .collect();
        assert_ne!(rules.len(), patient.lines().count());
        std::fs::write(directory.path().join("alerts.yml"), rules.join("\n")).unwrap();
        let config = read("deploy/prometheus/prometheus.yml")
            .replace("5s", "250ms")
            .replace("127.0.0.1:8778", &target.to_string());
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Self {
            child: command.spawn().unwrap(),
            address,
            _directory: directory,
        })
    }

    /// The value of an expression of one series, once it has one.
    fn value(&self, expression: &str) -> Option<f64> {
        let answer = get(self.address, &format!("/api/v1/query?query={expression}"))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The alerts that fire.
    fn alerts(&self) -> Vec<String> {
        let answer = get(self.address, "/api/v1/alerts").unwrap_or_default();
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Subscribes and never reads, until the server cuts it off.
fn provoke_a_slow_consumer(at: SocketAddr) {
    let mut deaf = TcpStream::connect(at).unwrap();
    deaf.write_all(b"CONNECT {\"verbose\":false}\r\nSUB flood 1\r\n")
        .unwrap();
    let mut loud = TcpStream::connect(at).unwrap();
    let mut ear = loud.try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut ear, &mut std::io::sink()));
    loud.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    let message = [b"PUB flood 65536\r\n", &[b'x'; 65536][..], b"\r\n"].concat();
    for _ in 0..512 {
        loud.write_all(&message).unwrap();
    }
}

/// Messages for a stream of their own.
struct Messages {
    runtime: tokio::runtime::Runtime,
    client: async_nats::Client,
    subject: &'static str,
}

impl Messages {
    /// Makes a stream that takes `limit` messages and refuses the next, and perhaps a consumer that nobody reads.
    fn to(server: &TestServer, subject: &'static str, limit: Option<i64>, durable: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let client = async_nats::connect(server.url()).await.unwrap();
            let config = stream::Config {
                name: subject.to_owned(),
                max_messages: limit.unwrap_or(-1),
                discard: stream::DiscardPolicy::New,
                ..Default::default()
            };
            let stream = jetstream::new(client.clone())
                .create_stream(config)
                .await
                .unwrap();
            if let Some(durable) = durable {
                let config = consumer::pull::Config {
                    durable_name: Some(durable.to_owned()),
                    ..Default::default()
                };
                stream.create_consumer(config).await.unwrap();
            }
            client
        });
        Self {
            runtime,
            client,
            subject,
        }
    }

    fn publish(&self, count: usize) {
        self.runtime.block_on(async {
            for _ in 0..count {
                self.client.publish(self.subject, "x".into()).await.unwrap();
            }
            self.client.flush().await.unwrap();
        });
    }
}

#[test]
fn a_real_prometheus_reads_a_server_and_alerts_when_it_is_provoked() {
    let server = TestServer::with(Config {
        connections: connection::Options {
            pending_max: 1 << 20,
            write_deadline: Duration::from_millis(200),
            ..connection::Options::default()
        },
        ..Config::default()
    });
    let monitor = server.server().monitor_addr().unwrap();
    let Some(prometheus) = Prometheus::start(monitor) else {
        return;
    };
    let up = until("a scrape", || prometheus.value("up").filter(|&up| up == 1.0));
    assert_eq!(up, 1.0);
    let client = TcpStream::connect(server.server().local_addr()).unwrap();
    until("the client is counted", || {
        prometheus.value("mesh_connections").filter(|&count| count == 1.0)
    });
    until("a slow consumer to compare with", || {
        prometheus.value("mesh_slow_consumers_total")
    });
    assert!(prometheus.alerts().is_empty(), "{:?}", prometheus.alerts());
    provoke_a_slow_consumer(server.server().local_addr());
    let fires = |name: &str| {
        prometheus
            .alerts()
            .iter()
            .any(|alert| alert == name)
            .then_some(())
    };
    until("MeshSlowConsumers", || fires("MeshSlowConsumers"));
    let messages = Messages::to(&server, "full", Some(1), None);
    until("MeshPublishesRefused", || {
        messages.publish(1);
        fires("MeshPublishesRefused")
    });
    let messages = Messages::to(&server, "lag", None, Some("idle"));
    messages.publish(10_000);
    until("MeshConsumerLag", || {
        messages.publish(10);
        fires("MeshConsumerLag")
    });
    drop(client);
    drop(server);
    until("MeshDown", || fires("MeshDown"));
}

/// What a small disk is mounted at, seen by one server alone: the mount ends with the process.
fn serve_on_a_small_disk(bytes: &str) -> Option<(Process, SocketAddr, tempfile::TempDir)> {
    const MOUNT: &str = "mount -t tmpfs -o size=\"$1\" mesh \"$2\" && shift 2 && exec \"$@\"";
    let unshare = program("unshare", "a disk that fills up")?;
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().to_str().unwrap();
    let small = |command: &[&str]| {
        let mut small = mesh_command_of(&unshare);
        small
            .args(["-rm", "sh", "-c", MOUNT, "sh", bytes, path])
            .args(command);
        small
    };
    if Ran::of(small(&["true"])).code != 0 {
        crate::support::skip_here("a disk that fills up", "mounts are not permitted here");
        return None;
    }
    let binary = mesh_command().get_program().to_str().unwrap().to_owned();
    let (server, monitor) = serve(small(&[&binary]), &["--store-dir", path]);
    Some((server, monitor, disk))
}

/// Another program with the environment of ours.
fn mesh_command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, value) in mesh_command().get_envs() {
        if value.is_none() {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn a_real_prometheus_alerts_when_the_disk_fills_up() {
    let Some((server, monitor, _disk)) = serve_on_a_small_disk("12m") else {
        return;
    };
    let Some(prometheus) = Prometheus::start(monitor) else {
        return;
    };
    let fires = |name: &str| {
        prometheus
            .alerts()
            .iter()
            .any(|alert| alert == name)
            .then_some(())
    };
    until("MeshStoreNearlyFull", || fires("MeshStoreNearlyFull"));
    assert_eq!(fires("MeshStoreFull"), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let refused = runtime.block_on(async {
        let client = async_nats::connect(format!("nats://{}", server.address()))
            .await
            .unwrap();
        let context = jetstream::new(client);
        let config = stream::Config {
            name: "flood".to_owned(),
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        let payload: bytes::Bytes = vec![b'x'; 256 << 10].into();
        for _ in 0..200 {
            let sent = context.publish("flood", payload.clone()).await.unwrap();
            if let Err(error) = sent.await {
                return Some(error.to_string());
            }
        }
        None
    });
    let refused = refused.expect("50 MiB do not fit on 12");
    assert!(refused.contains("insufficient storage resources"), "{refused}");
    until("MeshStoreFull", || fires("MeshStoreFull"));
    until("MeshUnhealthy", || fires("MeshUnhealthy"));
    assert_eq!(
        prometheus.value("mesh_store_state%7Bstate%3D%22full%22%7D"),
        Some(1.0)
    );
}

#[test]
fn a_real_prometheus_alerts_when_the_peers_are_gone() {
    let (server, monitor) = serve(mesh_command(), &[]);
    let Some(prometheus) = Prometheus::start(monitor) else {
        return;
    };
    let peers = |count: f64| prometheus.value("mesh_peers").filter(|&peers| peers == count);
    until("a mesh without peers", || peers(0.0));
    let state = tempfile::tempdir().unwrap();
    let mut joined = mesh(&["join", "--heartbeat", "1s", "--lapse", "2s"])
        .env("MESH_URL", format!("nats://{}", server.address()))
        .env("MESH_STATE_DIR", state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a peer", || peers(1.0));
    let fires = |name: &str| {
        let alerts = prometheus.alerts();
        alerts.iter().any(|alert| alert == name).then_some(())
    };
    for name in ["MeshPeersGone", "MeshLapseUnreported"] {
        assert_eq!(fires(name), None, "{name}");
    }
    joined.kill().unwrap();
    joined.wait().unwrap();
    until("MeshPeersGone", || fires("MeshPeersGone"));
    until("MeshLapseUnreported", || fires("MeshLapseUnreported"));
}
