//! `mesh service`, in a home of its own, with stand-ins for systemctl and launchctl that write down what they are told.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(home.path("bin")).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path(".config/systemd/user/mesh.service")
    }

    fn agent(&self) -> PathBuf {
        self.path("Library/LaunchAgents/com.sovereign.mesh.plist")
    }

    /// Puts a stand-in on the search path: it notes its arguments, then does `script`.
    fn stand_in(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        let calls = self.path("calls");
        std::fs::write(
            &file,
            format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display()),
        )
        .unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// What the stand-ins were told since last asked.
    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        std::fs::remove_file(self.path("calls")).ok();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mesh(&["service"]);
        command
            .args(arguments)
            .env("HOME", self.0.path())
            .env_remove("XDG_CONFIG_HOME")
            .env("PATH", self.path("bin"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }
}

const INSTALL: [&str; 4] = ["install", "--user", "--manager", "systemd"];
const UNINSTALL: [&str; 4] = ["uninstall", "--user", "--manager", "systemd"];
const STATUS: [&str; 4] = ["status", "--user", "--manager", "systemd"];

fn and<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

#[test]
fn printing_changes_nothing() {
    let home = Home::new();
    let ran = home.run(&and(&INSTALL, &["--print", "--", "-p", "4222"]));
    let start = format!("ExecStart={} serve -p 4222\n", env!("CARGO_BIN_EXE_mesh"));
    assert!(ran.out.contains(&start), "{ran:?}");
    assert_eq!(ran.err.trim(), home.unit().display().to_string());
    assert!(!home.path(".config").exists());
}

#[test]
fn installing_again_changes_what_changed() {
    let home = Home::new();
    let install = and(&INSTALL, &["--no-start"]);
    home.run(&install).says(0, "mesh.service written");
    let written = std::fs::read_to_string(home.unit()).unwrap();
    let mode = std::fs::metadata(home.unit()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "settings may hold a secret");
    home.run(&install).says(0, "is as it should be");
    assert_eq!(std::fs::read_to_string(home.unit()).unwrap(), written);
    home.run(&and(&install, &["--", "--token", "s3cret"]))
        .says(0, "mesh.service changed");
    assert!(
        std::fs::read_to_string(home.unit())
            .unwrap()
            .contains("serve --token s3cret\n")
    );
    let only = std::fs::read_dir(home.unit().parent().unwrap()).unwrap().count();
    assert_eq!(only, 1, "nothing is left beside it");
    let uninstall = and(&UNINSTALL, &["--no-stop"]);
    home.run(&uninstall).says(0, "removed");
    assert!(!home.unit().exists());
    home.run(&uninstall).says(0, "not installed");
}

#[test]
fn the_configuration_directory_may_be_elsewhere() {
    let home = Home::new();
    let mut command = home.command(&and(&INSTALL, &["--no-start"]));
    command.env("XDG_CONFIG_HOME", home.path("elsewhere"));
    Ran::of(command).says(0, "written");
    assert!(home.path("elsewhere/systemd/user/mesh.service").is_file());
}

#[test]
fn files_of_others_are_left_alone() {
    let home = Home::new();
    std::fs::create_dir_all(home.unit().parent().unwrap()).unwrap();
    std::fs::write(home.unit(), "[Service]\nExecStart=/bin/true\n").unwrap();
    home.run(&and(&INSTALL, &["--no-start"]))
        .says(5, "not written by");
    home.run(&and(&UNINSTALL, &["--no-stop"]))
        .says(5, "not written by");
    assert!(
        std::fs::read_to_string(home.unit())
            .unwrap()
            .contains("/bin/true")
    );
    home.run(&and(&INSTALL, &["--no-start", "--force"]))
        .says(0, "changed");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let home = Home::new();
    home.run(&["install", "--no-start"]).says(2, "say --user");
    let mut command = home.command(&["install", "--no-start"]);
    command.env("MESH_USER", "somebody");
    Ran::of(command).says(2, "say --user");
    home.run(&and(&INSTALL, &["--", "--prot", "1"]))
        .says(2, "unexpected argument '--prot'");
    home.run(&INSTALL).says(1, "there is no systemd here");
    home.run(&["install", "--user", "--manager", "launchd"])
        .says(1, "there is no launchd here");
    home.stand_in(
        "systemctl",
        "echo 'Failed to connect to bus: No medium found' >&2; exit 1",
    );
    let ran = home.run(&INSTALL).says(1, "No medium found");
    assert!(ran.err.contains("loginctl enable-linger"), "{ran:?}");
    assert!(!home.path(".config").exists() && !home.path("Library").exists());
    let mut command = home.command(&and(&INSTALL, &["--no-start"]));
    command.env_remove("HOME");
    Ran::of(command).says(1, "HOME names no directory");
}

#[test]
fn systemd_is_told_what_it_must_know() {
    let home = Home::new();
    home.stand_in("systemctl", "");
    home.run(&INSTALL).says(0, "journalctl --user -u mesh");
    let reachable = "--user show --property=Version";
    assert_eq!(
        home.told(),
        [
            reachable,
            "--user daemon-reload",
            "--user enable mesh.service",
            "--user restart mesh.service"
        ]
    );
    home.run(&INSTALL).says(0, "is as it should be");
    assert_eq!(home.told().last().unwrap(), "--user start mesh.service");
    home.run(&UNINSTALL).says(0, "removed");
    assert_eq!(
        home.told(),
        [
            reachable,
            "--user disable --now mesh.service",
            "--user daemon-reload"
        ]
    );
    // A start that fails is an error, with the place to look.
    home.stand_in(
        "systemctl",
        "case $* in *restart*) echo 'Job failed.' >&2; exit 1;; esac",
    );
    home.run(&INSTALL)
        .says(1, "`systemctl --user restart mesh.service` failed: Job failed.");
}

#[test]
fn launchd_is_told_what_it_must_know() {
    let home = Home::new();
    let install = ["install", "--user", "--manager", "launchd"];
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    let target = format!("{domain}/com.sovereign.mesh");
    let print = format!("print {target}");
    // Loaded once a file says so.
    let loaded = home.path("loaded");
    let script = format!(
        "case $* in 'print {domain}') ;; print*) test -e '{0}';; bootstrap*) : > '{0}';; bootout*) /bin/rm '{0}';; esac",
        loaded.display()
    );
    home.stand_in("launchctl", &script);
    home.run(&install).says(0, "com.sovereign.mesh.plist written");
    let bootstrap = format!("bootstrap {domain} {}", home.agent().display());
    assert_eq!(
        home.told(),
        [format!("print {domain}"), print.clone(), bootstrap.clone()]
    );
    home.run(&install).says(0, "is as it should be");
    assert_eq!(home.told().last().unwrap(), &format!("kickstart {target}"));
    home.run(&and(&install, &["--", "-p", "4222"])).says(0, "changed");
    assert_eq!(home.told()[2..], [format!("bootout {target}"), bootstrap]);
    home.run(&["uninstall", "--user", "--manager", "launchd"])
        .says(0, "removed");
    assert_eq!(home.told().last().unwrap(), &format!("bootout {target}"));
    assert!(!home.agent().exists());
}

#[test]
fn status_tells_absent_stopped_unwell_and_well_apart() {
    let server = sovereign_mesh::TestServer::start();
    let monitor = server.monitor_url();
    let home = Home::new();
    let status = |monitor: &str| home.run(&and(&STATUS, &["--json", "--monitor", monitor]));
    let absent = status(&monitor).says(4, "the service is not installed");
    assert_eq!(absent.json()["installed"], false);
    home.run(&and(&INSTALL, &["--no-start"])).says(0, "written");
    home.stand_in("systemctl", "echo inactive; exit 3");
    let stopped = status(&monitor).says(3, "does not run: inactive").json();
    assert_eq!(
        (&stopped["running"], &stopped["healthy"]),
        (&false.into(), &Value::Null)
    );
    home.stand_in("systemctl", "echo active");
    let unwell = status("127.0.0.1:1").says(3, "is not well");
    assert_eq!(unwell.json()["healthy"], false);
    let well = status(&monitor).says(0, "").json();
    assert_eq!((&well["running"], &well["healthy"]), (&true.into(), &true.into()));
    home.run(&and(&STATUS, &["--monitor", &monitor]))
        .says(0, "Health: ok");
}

/// Words that a careless writer would split or expand.
const ODD: [&str; 4] = ["--name", "100% \"mine\" $HOME \\ <&>", "--token", "a b;c"];

#[test]
fn systemd_takes_the_unit_with_the_words_as_they_are() {
    let Some(analyze) = program("systemd-analyze", "the unit that is installed") else {
        return;
    };
    let home = Home::new();
    home.run(&and(&INSTALL, &[&["--no-start", "--"][..], &ODD].concat()))
        .says(0, "written");
    let mut command = Command::new(analyze);
    command
        .args(["--user", "verify"])
        .arg(home.unit())
        .env("HOME", home.0.path())
        .env("XDG_RUNTIME_DIR", home.0.path());
    let ran = Ran::of(command).says(0, "");
    assert!(!ran.err.contains("mesh.service:"), "{ran:?}");
}

#[test]
fn launchd_gets_the_words_as_they_are() {
    let Some(python) = python("the agent that is installed") else {
        return;
    };
    let home = Home::new();
    let install = ["install", "--user", "--manager", "launchd", "--no-start", "--"];
    home.run(&and(&install, &ODD)).says(0, "written");
    let mut command = Command::new(python);
    let check = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    command.args(["-c", check]).arg(home.agent());
    let plist = Ran::of(command).says(0, "").json();
    assert_eq!(plist["Label"], "com.sovereign.mesh");
    let words: Vec<&str> = plist["ProgramArguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(words, and(&[env!("CARGO_BIN_EXE_mesh"), "serve"], &ODD));
}
