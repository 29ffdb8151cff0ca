//! HTTP by hand, and clients whose every byte is known.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says on the terminal, whatever the test harness captures, that something was not tested.
pub fn skipped(what: &str, why: &str) {
    assert!(
        std::env::var_os("MESH_TEST_REQUIRE_ALL").is_none(),
        "not tested: {what}: {why}"
    );
    writeln!(std::io::stderr(), "SKIPPED {what}: {why}").ok();
}

/// What came back for one request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends `request` as it stands and reads until the other side closes.
pub fn raw(at: SocketAddr, request: &str) -> Answer {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {answer:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A GET with more header lines.
pub fn get_with(at: SocketAddr, path: &str, lines: &str) -> Answer {
    // HTTP/1.0, so that the body comes in one piece and the connection ends.
    raw(at, &format!("GET {path} HTTP/1.0\r\n{lines}\r\n"))
}

/// A GET as `curl` would send it.
pub fn get(at: SocketAddr, path: &str) -> Answer {
    get_with(at, path, &format!("Host: {at}\r\n"))
}

/// The JSON of a page that is there.
pub fn page(at: SocketAddr, path: &str) -> Value {
    let answer = get(at, path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// Asks again until `holds`; what a snapshot shows may be a moment behind.
pub fn eventually(at: SocketAddr, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let value = page(at, path);
        if holds(&value) {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "{path} never held: {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value of a series, named as it stands in the text.
pub fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A client on a socket.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects with the fields of CONNECT, and waits until the server has taken it.
    pub fn connect(at: SocketAddr, fields: &str) -> Self {
        let mut client = Self::open(at);
        client.send(&format!(
            "CONNECT {{\"verbose\":false,\"protocol\":1{fields}}}\r\n"
        ));
        client.flush();
        client
    }

    /// Connects and reads INFO.
    pub fn open(at: SocketAddr) -> Self {
        let socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self {
            reader: BufReader::new(socket),
        };
        assert!(client.line().starts_with("INFO "));
        client
    }

    pub fn send(&mut self, bytes: &str) {
        self.reader.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// The reply subject of the next message, which asks for one.
    pub fn reply(&mut self) -> String {
        let line = self.line();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["MSG", _, _, reply, length] = words[..] else {
            panic!("a message with a reply expected, got {line:?}");
        };
        let mut payload = vec![0; length.parse::<usize>().unwrap() + 2];
        self.reader.read_exact(&mut payload).unwrap();
        reply.to_owned()
    }

    /// The payload of the next message.
    pub fn message(&mut self) -> String {
        loop {
            let line = self.line();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("MSG") => {
                    let mut payload = vec![0; words.next_back().unwrap().parse::<usize>().unwrap() + 2];
                    self.reader.read_exact(&mut payload).unwrap();
                    return String::from_utf8(payload).unwrap().trim_end().to_owned();
                }
                Some("PING") => self.send("PONG\r\n"),
                Some("INFO" | "PONG") => {}
                _ => panic!("a message expected, got {line:?}"),
            }
        }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    /// Returns when everything sent so far has been done. A PING of the server is answered on the way.
    pub fn flush(&mut self) {
        self.send("PING\r\n");
        loop {
            match self.line().trim_end() {
                "PONG" => return,
                "PING" => self.send("PONG\r\n"),
                "" => panic!("the server has closed"),
                _ => {}
            }
        }
    }
}

/// A nats-server with monitoring, if there is one to run; dropped, it is killed.
pub struct NatsServer {
    child: Child,
    pub clients: SocketAddr,
    pub monitor: SocketAddr,
    _dir: tempfile::TempDir,
}

impl NatsServer {
    pub fn start(arguments: &[&str]) -> Result<Self, String> {
        let program = Self::program()?;
        let dir = tempfile::tempdir().unwrap();
        let ports = dir.path().to_str().unwrap().to_owned();
        let child = Command::new(&program)
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                "-1",
                "-m",
                "-1",
                "--ports_file_dir",
                &ports,
            ])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut server = Self {
            child,
            clients: ([127, 0, 0, 1], 0).into(),
            monitor: ([127, 0, 0, 1], 0).into(),
            _dir: dir,
        };
        let began = Instant::now();
        loop {
            let files = std::fs::read_dir(&ports).unwrap().filter_map(Result::ok);
            let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
            let found: Option<Value> = texts.filter_map(|text| serde_json::from_str(&text).ok()).next();
            if let Some(found) = found {
                let port_of = |key: &str| {
                    found[key][0]
                        .as_str()
                        .unwrap()
                        .rsplit_once(':')
                        .unwrap()
                        .1
                        .parse()
                };
                server.clients.set_port(port_of("nats").unwrap());
                server.monitor.set_port(port_of("monitoring").unwrap());
                return Ok(server);
            }
            assert!(began.elapsed() < PATIENCE, "nats-server wrote no ports file");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn program() -> Result<PathBuf, String> {
        if let Some(named) = std::env::var_os("NATS_SERVER") {
            return Ok(named.into());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join("nats-server"))
            .find(|file| file.is_file())
            .ok_or_else(|| "no nats-server: set NATS_SERVER or put it on PATH".to_owned())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
