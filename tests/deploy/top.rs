//! `mesh top` and `mesh health` against running servers.

use sovereign_mesh::account::Auth;
use sovereign_mesh::{Config, TestServer};

use super::*;

/// A client that has said who it is, and publishes while the test looks.
struct Busy {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn start(at: SocketAddr, name: &str) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (stopped, name) = (stop.clone(), name.to_owned());
        let mut socket = TcpStream::connect(at).unwrap();
        let connect = serde_json::json!({"verbose": false, "name": name, "lang": "test", "version": "1"});
        socket
            .write_all(format!("CONNECT {connect}\r\nSUB busy 1\r\n").as_bytes())
            .unwrap();
        let mut reader = socket.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                socket.write_all(b"PUB busy 5\r\nhello\r\n").unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            socket.shutdown(std::net::Shutdown::Both).ok();
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.take().unwrap().join().ok();
    }
}

fn top(monitor: &str, arguments: &[&str]) -> Ran {
    Ran::of(mesh(
        &[&["top", "--interval", "200ms", "--monitor", monitor], arguments].concat(),
    ))
}

/// The figures of a busy server, whichever it is.
fn one_picture(clients: SocketAddr, monitor: &str) -> Value {
    let _busy = Busy::start(clients, "shouter");
    until("the client is seen", || {
        let picture = top(monitor, &["--once", "--json"]).says(0, "").json();
        let row = picture["connections"][0].clone();
        let moved = row["rates"]["in_msgs"].as_f64().is_some_and(|rate| rate > 1.0);
        moved.then(|| {
            assert_eq!(
                (&row["name"], &row["lang"], &row["subscriptions"]),
                (&"shouter".into(), &"test".into(), &1.into())
            );
            assert!(row["rates"]["out_bytes"].as_f64().unwrap() > 5.0, "{row}");
            let rates = &picture["rates"];
            assert!(rates["in_msgs"].as_f64().unwrap() > 1.0 && rates["out_msgs"].as_f64().unwrap() > 1.0);
            assert_eq!(picture["connections_now"], 1);
            picture
        })
    })
}

#[test]
fn one_picture_as_json() {
    let server = TestServer::start();
    let picture = one_picture(server.server().local_addr(), &server.monitor_url());
    assert_eq!(picture["server"]["id"], server.server().id());
    assert_eq!(picture["server"]["mesh"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn one_picture_of_a_nats_server() {
    let Some(program) = crate::support::process::nats_server() else {
        return crate::support::skip("mesh top on nats-server", "there is no nats-server");
    };
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-js", "-sd"])
        .arg(directory.path());
    let process = crate::support::Process::spawn(command, directory);
    let log = process.wait_for("Server is ready");
    let after = |text: &str| {
        let at = log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}")) + text.len();
        log[at..].lines().next().unwrap().trim().to_owned()
    };
    let clients = after("Listening for client connections on ").parse().unwrap();
    let picture = one_picture(clients, &after("Starting http monitor on "));
    assert_eq!(picture["server"]["mesh"], Value::Null);
    assert_eq!(picture["jetstream"]["streams"], 0);
}

#[test]
fn as_many_pictures_as_asked_in_the_order_asked() {
    let server = TestServer::start();
    let _busy = Busy::start(server.server().local_addr(), "shouter");
    let _idle = TcpStream::connect(server.server().local_addr()).unwrap();
    let ran = top(
        &server.monitor_url(),
        &["--count", "3", "--json", "--sort", "rate"],
    )
    .says(0, "");
    let pictures: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(pictures.len(), 3);
    assert_eq!(pictures[2]["connections"][0]["name"], "shouter");
    let one = top(
        &server.monitor_url(),
        &["--once", "--json", "-n", "1", "--sort", "cid"],
    )
    .json();
    assert_eq!(one["connections"].as_array().unwrap().len(), 1);
}

#[test]
fn text_for_people_without_colours_in_a_pipe() {
    let server = TestServer::start();
    let name = "evil\u{1b}[2Jname";
    let _busy = Busy::start(server.server().local_addr(), name);
    let ran = until("the client is named", || {
        let ran = top(&server.monitor_url(), &["--once"]).says(0, "Connections by msgs_to");
        ran.out.contains("evil").then_some(ran)
    });
    assert!(
        ran.out.contains("evil?[2Jname") && !ran.out.contains('\u{1b}'),
        "{ran:?}"
    );
    assert!(
        ran.out.contains(" msgs/s ") && ran.out.contains("MSGS_FROM"),
        "{ran:?}"
    );
    let ran = top(&server.monitor_url(), &["--once", "--view", "streams"]).says(0, "STORED/s");
    assert!(!ran.out.contains("MSGS_FROM"), "{ran:?}");
}

#[test]
fn what_is_not_there_is_said_plainly() {
    top("127.0.0.1:1", &["--once"]).says(3, "cannot reach monitoring at http://127.0.0.1:1");
    top("https://127.0.0.1", &["--once"]).says(2, "not a monitoring address");
    Ran::of(mesh(&["top", "--once", "--interval", "1ms"])).says(2, "at least 100ms");
    // The client port is not the monitoring port.
    let server = TestServer::start();
    let clients = server.server().local_addr().to_string();
    let ran = top(&clients, &["--once", "--timeout", "1s"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

/// Runs `mesh top` on a terminal of 100 columns, ends it by `$2`, and checks what the terminal was told and left with.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
mesh, how, monitor = sys.argv[1:4]
child, terminal = pty.fork()
if child == 0:
    os.execv(mesh, [mesh, "top", "--interval", "100ms", "--monitor", monitor])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 100, 0, 0))
before = termios.tcgetattr(terminal)
seen = b""
def read_until(what):
    global seen
    end = time.monotonic() + 20
    while what not in seen:
        assert time.monotonic() < end, (what, seen)
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                return
read_until(b"q quit")
assert b"\x1b[?1049h" in seen and b"[1 connections]" in seen, seen
os.write(terminal, b"2")
read_until(b"[2 streams]")
os.write(terminal, b" ")
read_until(b"Paused")
if how == "q":
    os.write(terminal, b"q")
else:
    os.kill(child, signal.SIGTERM)
read_until(b"\x1b[?1049l")
_, status = os.waitpid(child, 0)
assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
assert termios.tcgetattr(terminal)[3] == before[3], "echo and line mode are back"
print(seen.decode())
"#;

#[test]
fn the_terminal_is_given_back() {
    let Some(python) = python("mesh top on a terminal") else {
        return;
    };
    let server = TestServer::start();
    for (how, colour) in [("q", true), ("term", false)] {
        let mut command = Command::new(&python);
        command.args([
            "-c",
            TERMINAL,
            env!("CARGO_BIN_EXE_mesh"),
            how,
            &server.monitor_url(),
        ]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        if !colour {
            command.env("NO_COLOR", "1");
        }
        let ran = Ran::of(command).says(0, "");
        assert_eq!(ran.out.contains("\u{1b}[1m"), colour, "{ran:?}");
        assert!(ran.out.contains("\u{1b}[?25h"), "the cursor is back: {ran:?}");
    }
}

fn with_token() -> TestServer {
    TestServer::with(Config {
        // Beyond loopback the pages want credentials; this address is of all interfaces, loopback among them.
        host: "0.0.0.0".to_owned(),
        auth: Auth::Token("s3cret".to_owned()),
        ..Config::default()
    })
}

#[test]
fn pages_that_want_credentials_get_them() {
    let server = with_token();
    let monitor = format!("127.0.0.1:{}", server.server().monitor_addr().unwrap().port());
    top(&monitor, &["--once"]).says(1, "wants the credentials");
    top(&monitor, &["--once", "--token", "wrong"]).says(1, "wants the credentials");
    top(&monitor, &["--once", "--token", "s3cret"]).says(0, "msgs/s");
    top(&format!("http://s3cret@{monitor}"), &["--once"]).says(0, "msgs/s");
    top(&monitor, &["--once", "--server", "nats://s3cret@127.0.0.1"]).says(0, "msgs/s");
    // Health is asked by probes that know no secret.
    Ran::of(mesh(&["health", "--monitor", &monitor])).says(0, "ok");
}

#[test]
fn health_is_an_exit_code() {
    let server = TestServer::start();
    let monitor = server.monitor_url();
    for page in [&[][..], &["--live"], &["--ready"]] {
        Ran::of(mesh(&[&["health", "--monitor", &monitor], page].concat())).says(0, "ok");
    }
    let ran = Ran::of(mesh(&["health", "--json", "--monitor", &monitor]));
    assert_eq!(ran.json()["status"], "ok");
    // By the host of --server and the port of the environment, as a probe in a container has it.
    let port = server.server().monitor_addr().unwrap().port().to_string();
    let mut command = mesh(&["health"]);
    command.env("MESH_MONITOR_PORT", &port);
    Ran::of(command).says(0, "ok");
    drop(server);
    Ran::of(mesh(&["health", "--monitor", &monitor])).says(3, "cannot reach monitoring");
}

#[test]
fn a_server_that_drains_is_well_and_not_ready() {
    let mut command = mesh(&["serve", "-p", "-1", "--monitor-port", "-1", "--store-dir"]);
    let directory = tempfile::tempdir().unwrap();
    command.arg(directory.path());
    let process = crate::support::Process::spawn(command, directory);
    let log = process.wait_for("Server is ready");
    let word = |start: &str| {
        let at = log.find(start).unwrap() + start.len();
        log[at..].split_whitespace().next().unwrap().to_owned()
    };
    let mut client = TcpStream::connect(word("Listening for client connections on ")).unwrap();
    // Greeted, so that it is one whom the server waits for.
    let greeted = std::io::Read::read(&mut client, &mut [0; 16]).unwrap();
    assert!(greeted > 0);
    let monitor = word("Monitor    ");
    process.signal(rustix::process::Signal::USR2);
    process.wait_for("lame duck");
    let ready = Ran::of(mesh(&["health", "--ready", "--monitor", &monitor]));
    ready.says(3, "takes no new clients");
    Ran::of(mesh(&["health", "--monitor", &monitor])).says(0, "ok");
}
