//! The files in `deploy/`, each by the program that will read it, where that is here.

use serde::Deserialize;
use serde_json::Value;

use super::*;

/// The documents of a YAML file.
pub(super) fn yaml(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

fn files_in(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_in(&path)),
            false => found.push(path),
        }
    }
    found
}

fn ending_in(endings: &[&str]) -> Vec<String> {
    let mut found = files_in("deploy");
    found.retain(|path| endings.iter().any(|ending| path.ends_with(ending)));
    found
}

#[test]
fn yaml_and_json_are_what_they_say() {
    let files = ending_in(&[".yaml", ".yml", ".json"]);
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        if path.ends_with(".json") {
            serde_json::from_str::<Value>(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else {
            let documents = yaml(&path);
            assert!(documents.iter().all(Value::is_object), "{path}");
        }
    }
}

#[test]
fn the_image_is_small_unprivileged_and_knows_its_health() {
    let text = read("deploy/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let bases: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("FROM "))
        .collect();
    assert_eq!(bases.len(), 2, "one stage builds, one runs");
    assert!(bases[0].ends_with(" AS build") && bases[1].contains("distroless"));
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let run = &lines[last..];
    let user = run.iter().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let id: u32 = user
        .split(':')
        .next()
        .unwrap()
        .parse()
        .expect("by number, so that Kubernetes can tell");
    assert_ne!(id, 0);
    let line = |word: &str| {
        run.iter()
            .find(|line| line.starts_with(word))
            .unwrap_or_else(|| panic!("no {word}"))
    };
    let probe = line("HEALTHCHECK ").split_once("CMD ").unwrap().1;
    let probe: Vec<String> = serde_json::from_str(probe).expect("in the form that needs no shell");
    let entry: Vec<String> = serde_json::from_str(&line("ENTRYPOINT ")["ENTRYPOINT ".len()..]).unwrap();
    assert_eq!(probe[0], entry[0], "the binary itself");
    // And the binary knows that command.
    let arguments: Vec<&str> = probe[1..].iter().map(String::as_str).collect();
    Ran::of(mesh(&[&arguments[..], &["--help"]].concat())).says(0, "Usage: mesh health");
    for variable in text
        .split_whitespace()
        .filter_map(|word| word.split_once('=')?.0.strip_prefix("MESH_"))
    {
        known_to_serve(&format!("MESH_{variable}"));
    }
}

/// Fails unless `mesh serve` reads the variable.
#[track_caller]
fn known_to_serve(variable: &str) {
    let help = Ran::of(mesh(&["serve", "--help"])).out;
    let is_read = ["=", "]"]
        .iter()
        .any(|end| help.contains(&format!("[env: {variable}{end}")));
    assert!(is_read, "mesh serve does not read {variable}");
}

#[test]
fn images_have_versions() {
    fn images(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                Value::String(image) if key == "image" => found.push(image.clone()),
                value => images(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| images(item, found)),
            _ => {}
        }
    }
    let mut found: Vec<String> = read("deploy/Dockerfile")
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    for path in ["deploy/compose.yaml", "deploy/kubernetes.yaml"] {
        let before = found.len();
        yaml(path)
            .iter()
            .for_each(|document| images(document, &mut found));
        assert!(found.len() > before, "{path} names no image");
    }
    for image in found {
        let (_, tag) = image
            .rsplit_once(':')
            .unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(tag != "latest" && !tag.contains('/'), "{image}");
        if image.starts_with("sovereign-mesh:") {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{image}");
        }
    }
}

#[test]
fn compose_mounts_what_is_there() {
    let compose = &yaml("deploy/compose.yaml")[0];
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for port in service["ports"].as_array().unwrap() {
            assert!(
                port.as_str().unwrap().starts_with("127.0.0.1:"),
                "{name}: {port} is open to all"
            );
        }
        for volume in service["volumes"].as_array().unwrap() {
            let from = volume.as_str().unwrap().split(':').next().unwrap();
            match from.strip_prefix("./") {
                Some(file) => assert!(repository("deploy").join(file).is_file(), "{name}: no {from}"),
                None => assert!(
                    compose["volumes"].as_object().unwrap().contains_key(from),
                    "{name}: {from}"
                ),
            }
        }
    }
    for variable in services["mesh"]["environment"].as_object().unwrap().keys() {
        known_to_serve(variable);
    }
    // The scraper asks by a name that the server answers to, and with its token.
    let scrape = &yaml("deploy/prometheus/compose.yml")[0]["scrape_configs"][0];
    let target = scrape["static_configs"][0]["targets"][0].as_str().unwrap();
    let host = services["mesh"]["environment"]["MESH_MONITOR_HOSTS"]
        .as_str()
        .unwrap();
    assert_eq!(target, format!("{host}:8778"));
    assert_eq!(
        scrape["authorization"]["credentials_file"],
        "/run/secrets/mesh_token"
    );
    assert_eq!(compose["secrets"]["mesh_token"]["environment"], "MESH_TOKEN");
}

#[test]
fn kubernetes_probes_what_the_server_answers() {
    let documents = yaml("deploy/kubernetes.yaml");
    let kind = |kind: &str| {
        documents
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap()
    };
    let (service, set) = (kind("Service"), kind("StatefulSet"));
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    let server = sovereign_mesh::TestServer::start();
    let monitor = server.server().monitor_addr().unwrap();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        assert!(get(monitor, path).is_some(), "{probe}: {path} is not there");
    }
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        if name.starts_with("MESH_") {
            known_to_serve(name);
        }
    }
    let mounted = container["volumeMounts"][0]["name"].as_str().unwrap();
    assert_eq!(
        set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"],
        mounted
    );
    let store = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    assert!(read("deploy/Dockerfile").contains(&format!("MESH_STORE_DIR={store}")));
}

#[test]
fn plists_are_agents_of_the_mesh() {
    let plists = ending_in(&[".plist"]);
    let Some(python) = python("the plists") else {
        return;
    };
    let check = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let mut labels = Vec::new();
    for path in &plists {
        let mut command = Command::new(&python);
        command.args(["-c", check]).arg(repository(path));
        let plist = Ran::of(command).says(0, "").json();
        let label = plist["Label"].as_str().unwrap().to_owned();
        let file = path.rsplit('/').next().unwrap().trim_end_matches(".plist");
        assert!(
            label == file || label.starts_with(&format!("{file}.")),
            "{path}: {label}"
        );
        assert_eq!(plist["RunAtLoad"], true, "{path}");
        assert!(
            !plist["KeepAlive"].is_null() && plist["ProgramArguments"].is_array(),
            "{path}"
        );
        labels.push(file.to_owned());
    }
    labels.sort();
    assert_eq!(labels, ["com.sovereign.mesh", "com.sovereign.mesh.daemon"]);
}

/// The unit with the binary under test for the one it names, which need not be here.
pub(super) fn unit_here(directory: &Path) -> PathBuf {
    let text = read("deploy/mesh.service").replace("/usr/local/bin/mesh", env!("CARGO_BIN_EXE_mesh"));
    let file = directory.join("mesh.service");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn systemd_takes_the_units() {
    let Some(analyze) = program("systemd-analyze", "the systemd units") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(&analyze);
    command.arg("verify").arg(unit_here(directory.path()));
    // It says what it does not know or cannot find, and is silent else.
    let ran = Ran::of(command).says(0, "");
    assert_eq!(ran.err.replace('\n', ""), "", "{ran:?}");
    let mut command = Command::new(&analyze);
    let daemon = directory.path().join("mesh-daemon@x.service");
    std::fs::copy(repository("deploy/mesh-daemon@.service"), &daemon).unwrap();
    command
        .args(["--user", "verify"])
        .arg(daemon)
        .env("XDG_RUNTIME_DIR", directory.path());
    Ran::of(command).says(0, "");
}

#[test]
fn the_unit_of_the_machine_is_locked_up() {
    let Some(analyze) = program("systemd-analyze", "the hardening of the unit") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(analyze);
    // Tenths of the 0 to 10 that it rates the exposure with.
    command.args(["security", "--offline=true", "--threshold=15"]);
    command.arg(unit_here(directory.path()));
    Ran::of(command).says(0, "Overall exposure level");
}
