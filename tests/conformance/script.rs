//! Reading, running and writing the cases; the format is in the parent's documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::{PATIENCE, Wire};

/// Whose answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Nats,
    Ours,
}

/// What a client does in one step.
#[derive(Clone, Debug)]
enum Act {
    /// Sends, then waits until both sides are at rest.
    Send(String),
    /// Sends only.
    Push(String),
    /// Connects and shows the greeting.
    Greet,
}

#[derive(Clone, Debug)]
struct Step {
    client: u32,
    act: Act,
    nats: Vec<String>,
    ours: Option<Vec<String>>,
}

/// One conversation.
pub struct Case {
    pub name: String,
    pub server: String,
    why: Option<String>,
    steps: Vec<Step>,
}

/// Answer lines, a list for each step.
pub type Answers = Vec<Vec<String>>;

/// Reads a file of cases.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: name.to_owned(),
                server: "plain".to_owned(),
                why: None,
                steps: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        if let Some(server) = line.strip_prefix("server: ") {
            server.clone_into(&mut case.server);
        } else if let Some(why) = line.strip_prefix("why: ") {
            case.why = Some(why.to_owned());
        } else {
            case.take_line(line);
        }
    }
    cases
}

impl Case {
    fn take_line(&mut self, line: &str) {
        let mark = line
            .find(|c: char| !c.is_ascii_digit())
            .expect("a mark behind the client");
        let client = line[..mark].parse().expect("a client's number");
        let (mark, rest) = line[mark..].split_at(1);
        let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        let act = match mark {
            ">" => Act::Send(rest),
            "|" => Act::Push(rest),
            "?" => Act::Greet,
            "<" | "." | "=" => {
                let step = self.steps.last_mut().expect("an answer follows a step");
                assert_eq!(
                    step.client, client,
                    "{}: answers follow their own step",
                    self.name
                );
                if mark == "=" {
                    let ours = step.ours.get_or_insert_default();
                    ours.extend((rest != "nothing").then_some(rest));
                } else {
                    step.nats
                        .push(if mark == "." { "closed".to_owned() } else { rest });
                }
                return;
            }
            _ => panic!("{}: what is {line:?}", self.name),
        };
        self.steps.push(Step {
            client,
            act,
            nats: Vec::new(),
            ours: None,
        });
    }

    /// What the record says.
    pub fn expected(&self, who: Who) -> Answers {
        let answer = |step: &Step| match (&step.ours, who) {
            (Some(ours), Who::Ours) => {
                assert!(self.why.is_some(), "{} differs without a why", self.name);
                ours.clone()
            }
            _ => step.nats.clone(),
        };
        self.steps.iter().map(answer).collect()
    }

    /// Holds the conversation.
    pub fn run(&self, address: &str) -> Answers {
        let mut clients: BTreeMap<u32, Wire> = BTreeMap::new();
        let mut answers = Vec::new();
        for step in &self.steps {
            let mut fresh = false;
            let wire = clients.entry(step.client).or_insert_with(|| {
                fresh = true;
                Wire::connect(address)
            });
            answers.push(match &step.act {
                Act::Greet => {
                    assert!(fresh, "{}: a greeting comes first", self.name);
                    vec![reduced(wire.info())]
                }
                Act::Push(text) => {
                    wire.send(unescape(text));
                    Vec::new()
                }
                Act::Send(text) => exchange(wire, &unescape(text)),
            });
        }
        // Nothing of this case may still listen when the next one begins.
        for wire in clients.values_mut() {
            wire.finish();
            wire.drain();
        }
        answers
    }

    /// The case as text, with `answers` as the record.
    pub fn written(&self, answers: &Answers) -> String {
        let mut out = format!("== {}\n", self.name);
        if self.server != "plain" {
            writeln!(out, "server: {}", self.server).unwrap();
        }
        if let Some(why) = &self.why {
            writeln!(out, "why: {why}").unwrap();
        }
        for (step, answer) in self.steps.iter().zip(answers) {
            let client = step.client;
            match &step.act {
                Act::Send(text) => writeln!(out, "{client}> {text}"),
                Act::Push(text) => writeln!(out, "{client}| {text}"),
                Act::Greet => writeln!(out, "{client}? INFO"),
            }
            .unwrap();
            for line in answer {
                let mark = if line == "closed" { '.' } else { '<' };
                writeln!(out, "{client}{mark} {line}").unwrap();
            }
            for line in step.ours.iter().flatten() {
                writeln!(out, "{client}= {line}").unwrap();
            }
            if step.ours.as_ref().is_some_and(Vec::is_empty) {
                writeln!(out, "{client}= nothing").unwrap();
            }
        }
        out.push('\n');
        out
    }
}

/// Sends, then two PINGs as a fence: the first may bring an INFO along, behind the second nothing is missing.
fn exchange(wire: &mut Wire, bytes: &[u8]) -> Vec<String> {
    const FENCE: &[u8] = b"PING\r\nPING\r\n";
    let pings = bytes
        .windows(4)
        .filter(|word| word.eq_ignore_ascii_case(b"PING"))
        .count();
    wire.send([bytes, FENCE].concat());
    let mut patience = PATIENCE;
    while !wire.ended() && pongs(wire.received()) < pings + 2 {
        let before = wire.received().len();
        wire.read_some(patience);
        // A PING inside a payload gets no PONG: what came until now is all.
        patience = if pings > 0 {
            Duration::from_millis(300)
        } else {
            PATIENCE
        };
        if !wire.ended() && wire.received().len() == before {
            break;
        }
    }
    let mut lines = lines(&wire.take());
    if wire.ended() {
        lines.push("closed".to_owned());
        return lines;
    }
    for _ in 0..2 {
        let at = lines
            .iter()
            .rposition(|line| line == "PONG\\r\\n")
            .expect("the fence answers");
        lines.remove(at);
    }
    lines
}

fn pongs(bytes: &[u8]) -> usize {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| *line == b"PONG\r")
        .count()
}

/// Bytes as escaped lines, INFO reduced.
fn lines(bytes: &[u8]) -> Vec<String> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| match line.strip_prefix(b"INFO ") {
            Some(json) => {
                serde_json::from_slice(json.trim_ascii()).map_or_else(|_| escape(line), |info| reduced(&info))
            }
            None => escape(line),
        })
        .collect()
}

/// INFO as the values that the protocol fixes.
fn reduced(info: &Value) -> String {
    const FIXED: [&str; 12] = [
        "proto",
        "headers",
        "max_payload",
        "auth_required",
        "tls_required",
        "tls_verify",
        "tls_available",
        "nonce",
        "ldm",
        "connect_info",
        "remote_account",
        "client_ip",
    ];
    let mut text = "INFO".to_owned();
    for key in FIXED {
        if let Some(nonce) = info.get(key).filter(|_| key == "nonce") {
            let length = nonce.as_str().expect("text").len();
            write!(text, " nonce=({length})").unwrap();
        } else if let Some(value) = info.get(key) {
            write!(text, " {key}={value}").unwrap();
        }
    }
    for (key, length) in [
        ("server_id", 56),
        ("server_name", 1),
        ("version", 5),
        ("go", 1),
        ("host", 1),
    ] {
        let value = info[key].as_str().unwrap_or_default();
        assert!(value.len() >= length, "{key} is {value:?} in {info}");
    }
    assert!(info["port"].is_u64() && info["client_id"].is_u64(), "{info}");
    text
}

/// Printable, with runs shortened to macros.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        let shown = match run[0] {
            b'"' | b'\'' => char::from(run[0]).to_string(),
            byte => byte.escape_ascii().to_string(),
        };
        if run.len() > 20 {
            write!(out, "<<{shown}*{}>>", run.len()).unwrap();
        } else {
            out.push_str(&shown.repeat(run.len()));
        }
    }
    out
}

/// The bytes of an escaped text with macros.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("<<") {
        out.extend(unescape_plain(&rest[..at]));
        let end = rest[at..].find(">>").expect("a macro ends") + at;
        let (unit, count) = rest[at + 2..end].rsplit_once('*').expect("<<text*count>>");
        out.extend(unescape_plain(unit).repeat(count.parse().expect("a count")));
        rest = &rest[end + 2..];
    }
    out.extend(unescape_plain(rest));
    out
}

fn unescape_plain(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.expect("two digits"));
                let digits = std::str::from_utf8(&digits).expect("two digits");
                out.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
            }
            other => panic!("what is \\{other:?}"),
        }
    }
    out
}

/// Both, line by line.
pub fn difference(expected: &Answers, got: &Answers) -> String {
    let mut out = String::new();
    for (at, (expected, got)) in expected.iter().zip(got).enumerate() {
        if expected != got {
            writeln!(
                out,
                "  step {}:\n    record {expected:?}\n    got    {got:?}",
                at + 1
            )
            .unwrap();
        }
    }
    out
}
