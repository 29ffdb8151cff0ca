//! What `mesh serve` tells its service manager, on a socket of the test.

use std::os::unix::net::UnixDatagram;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

struct Manager {
    socket: UnixDatagram,
    child: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Manager {
    /// Starts a server that is to say every 100 ms that it is well.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = mesh(&["serve", "-p", "-1", "--monitor-port", "0", "--store-dir"]);
        command
            .arg(directory.path().join("store"))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        Self {
            socket,
            child,
            _directory: directory,
        }
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next word that is not of the watchdog.
    fn hear_news(&self) -> String {
        std::iter::repeat_with(|| self.hear())
            .find(|message| message != "WATCHDOG=1")
            .unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn ready_well_and_stopping() {
    let mut manager = Manager::start();
    let ready = manager.hear();
    assert!(
        ready.starts_with("READY=1\nSTATUS=Serving nats://127.0.0.1:"),
        "{ready}"
    );
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    manager.signal(Signal::TERM);
    assert!(manager.hear_news().starts_with("STOPPING=1\n"));
    assert!(manager.child.wait().unwrap().success());
}

#[test]
fn it_is_well_while_clients_leave() {
    let mut manager = Manager::start();
    let ready = manager.hear();
    let address = ready.trim().rsplit('/').next().unwrap();
    // A client that stays keeps lame duck going, once it is known to be there.
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    manager.signal(Signal::USR2);
    assert!(manager.hear_news().starts_with("STATUS=Lame duck"));
    for _ in 0..2 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    manager.signal(Signal::TERM);
    assert!(manager.hear_news().starts_with("STOPPING=1\n"));
    assert!(manager.child.wait().unwrap().success());
}

#[test]
fn a_manager_that_is_not_there_is_no_reason_not_to_serve() {
    let mut command = mesh(&["serve", "-p", "-1", "--monitor-port", "0", "--store-dir"]);
    let directory = tempfile::tempdir().unwrap();
    command
        .arg(directory.path())
        .env("NOTIFY_SOCKET", directory.path().join("nobody"));
    let process = crate::support::Process::spawn(command, directory);
    let log = process.wait_for("cannot reach the service manager at ");
    assert!(log.contains("Server is ready"), "{log}");
}
