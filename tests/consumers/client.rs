//! A client of a conversation: it sends what a step says and shows what comes as one line a message.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{PATIENCE, Wire};

/// A message as it came.
pub struct Message {
    pub subject: String,
    pub reply: String,
    pub headers: String,
    pub payload: String,
}

/// The first thing in what came and its length, once it is whole: a message, or a line that is none.
pub fn parse(bytes: &[u8]) -> Option<(Option<Message>, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).expect("UTF-8");
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |back: usize| -> usize { words[words.len() - back].parse().expect("a size") };
    let (fixed, total, head) = match words[0] {
        "MSG" => (4, number(1), 0),
        "HMSG" => (5, number(1), number(2)),
        "PONG" | "PING" | "INFO" | "+OK" => return Some((None, end + 2)),
        _ => panic!("{line}"),
    };
    let start = end + 2;
    let body = bytes.get(start..start + total)?;
    let whole = start + total + 2;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = Message {
        subject: words[1].to_owned(),
        reply: if words.len() > fixed { words[3] } else { "" }.to_owned(),
        headers: text(&body[..head]),
        payload: text(&body[head..]),
    };
    (bytes.len() >= whole).then_some((Some(message), whole))
}

/// See the module documentation.
pub struct Client {
    wire: Wire,
    requests: u32,
    subscriptions: HashMap<String, u32>,
    /// By stream, consumer and sequence, where to ack.
    deliveries: HashMap<(String, String, u64), String>,
    /// Where the latest status can be answered.
    status_reply: String,
}

/// What is subscribed to for the answers to everything.
const INBOX: &str = "_in.";

impl Client {
    pub fn connect(address: &str) -> Self {
        let mut wire = Wire::quiet(address, r#""headers":true,"no_responders":true"#);
        wire.send(format!("SUB {INBOX}> 1\r\n"));
        wire.expect_nothing();
        Self {
            wire,
            requests: 0,
            subscriptions: HashMap::new(),
            deliveries: HashMap::new(),
            status_reply: String::new(),
        }
    }

    /// Does a step; what is answered at once and belongs to the step is returned.
    pub fn act(&mut self, verb: &str, rest: &str) -> Vec<String> {
        let rest = &timed(rest);
        let (first, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "make" => {
                let answer = self.request(&format!("$JS.API.{first}"), "", tail);
                let value: Value = serde_json::from_str(&answer.payload).expect("JSON");
                assert!(value.get("error").is_none(), "{rest}: {value}");
            }
            "api" => {
                let answer = self.request(&format!("$JS.API.{first}"), "", tail);
                return vec![shown_json(&answer)];
            }
            "pub" => {
                let (body, headers) = tail.split_once(" | ").unwrap_or((tail, ""));
                let answer = self.request(first, headers, body);
                assert!(answer.payload.contains("\"seq\""), "{rest}: {}", answer.payload);
            }
            "sub" => self.subscribe(first, tail),
            "unsub" => {
                let sid = self.subscriptions.remove(first).expect("it is subscribed");
                self.wire.send(format!("UNSUB {sid}\r\n"));
            }
            "pull" => {
                let (consumer, body) = tail.split_once(' ').unwrap_or((tail, ""));
                self.requests += 1;
                let reply = format!("{INBOX}{}", self.requests);
                let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{first}.{consumer}");
                self.publish(&subject, &reply, "", body);
            }
            "level" => {
                let (consumer, level) = tail.split_once(' ').expect("a consumer and a level");
                let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{first}.{consumer}");
                let header = format!("Nats-Required-Api-Level: {level}");
                self.publish(&subject, &format!("{INBOX}level"), &header, "1");
            }
            "ack" | "say" => return self.settle(verb == "ack", rest),
            "answer" => {
                let to = std::mem::take(&mut self.status_reply);
                assert!(!to.is_empty(), "no status that can be answered");
                self.publish(&to, "", rest, "");
            }
            "send" => {
                let (reply, body) = tail.split_once(' ').unwrap_or((tail, ""));
                let reply = if reply == "-" { "" } else { reply };
                self.publish(first, reply, "", body);
            }
            "raw" => self.wire.send(format!("{rest}\r\n")),
            "take" | "quiet" => {}
            "sleep" => std::thread::sleep(Duration::from_millis(rest.parse().expect("milliseconds"))),
            _ => panic!("what is {verb}?"),
        }
        Vec::new()
    }

    fn subscribe(&mut self, subject: &str, queue: &str) {
        let sid = 10 + u32::try_from(self.subscriptions.len()).expect("few");
        self.subscriptions.insert(subject.to_owned(), sid);
        self.wire.send(format!("SUB {subject} {queue} {sid}\r\n"));
    }

    fn settle(&mut self, confirm: bool, rest: &str) -> Vec<String> {
        let words: Vec<&str> = rest.splitn(4, ' ').collect();
        let (stream, consumer) = (words[0].to_owned(), words[1].to_owned());
        let seq: u64 = words[2].parse().expect("a sequence");
        let body = words.get(3).copied().unwrap_or_default();
        let to = self.deliveries.get(&(stream, consumer, seq));
        let to = to.unwrap_or_else(|| panic!("{rest}: not delivered")).clone();
        if !confirm {
            self.publish(&to, "", "", body);
            return Vec::new();
        }
        let answer = self.request(&to, "", body);
        match (answer.headers.as_str(), answer.payload.as_str()) {
            ("", "") => vec!["confirmed".to_owned()],
            (headers, payload) => vec![format!("answered {headers} {payload}")],
        }
    }

    fn publish(&mut self, subject: &str, reply: &str, headers: &str, body: &str) {
        let body = &grown(body);
        if headers.is_empty() {
            let line = format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
            return self.wire.send(line);
        }
        let block = format!("NATS/1.0\r\n{}\r\n\r\n", headers.replace(" ; ", "\r\n"));
        let total = block.len() + body.len();
        let line = format!(
            "HPUB {subject} {reply} {} {total}\r\n{block}{body}\r\n",
            block.len()
        );
        self.wire.send(line);
    }

    /// Asks, and gives the answer; other messages that come meanwhile stay for the next look.
    pub fn request(&mut self, subject: &str, headers: &str, body: &str) -> Message {
        self.requests += 1;
        let reply = format!("{INBOX}{}r", self.requests);
        self.publish(subject, &reply, headers, body);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.take_one(|message| message.subject == reply) {
                return message;
            }
            assert!(Instant::now() < deadline, "no answer to {subject} {body}");
            self.wire.read_some(Duration::from_millis(100));
        }
    }

    /// What has come within the time, or as soon as there are `enough` lines.
    pub fn gather(&mut self, within: Duration, enough: usize) -> Vec<String> {
        let deadline = Instant::now() + within;
        let mut lines = Vec::new();
        loop {
            while lines.len() < enough {
                let Some(message) = self.take_one(|_| true) else {
                    break;
                };
                lines.push(self.shown(&message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.len() >= enough || left.is_zero() {
                return lines;
            }
            self.wire.read_some(left);
        }
    }

    /// The first whole message that has come and is wanted.
    fn take_one(&mut self, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        let bytes = self.wire.received();
        let mut at = 0;
        loop {
            let (message, length) = parse(&bytes[at..])?;
            if let Some(message) = message.filter(&wanted) {
                let rest = [&bytes[..at], &bytes[at + length..]].concat();
                self.wire.put_back(rest);
                return Some(message);
            }
            at += length;
        }
    }

    /// A message as a line.
    fn shown(&mut self, message: &Message) -> String {
        let mut line = match message.subject.strip_prefix(INBOX) {
            Some(request) => format!("#{request}"),
            None => masked(&message.subject),
        };
        let tokens: Vec<&str> = message.reply.split('.').collect();
        if tokens.len() == 9 && message.reply.starts_with("$JS.ACK.") {
            let seq = tokens[5].parse().expect("a sequence");
            let key = (tokens[2].to_owned(), tokens[3].to_owned(), seq);
            self.deliveries.insert(key, message.reply.clone());
            write!(
                line,
                " {} times {} seq {} cseq {} left {}",
                tokens[3], tokens[4], tokens[5], tokens[6], tokens[8]
            )
            .unwrap();
        } else if !message.reply.is_empty() {
            self.status_reply.clone_from(&message.reply);
            write!(line, " reply {}", masked(&message.reply)).unwrap();
        }
        let headers: Vec<&str> = message
            .headers
            .split("\r\n")
            .filter(|line| !line.is_empty())
            .collect();
        if !headers.is_empty() {
            let headers: Vec<String> = headers.iter().map(|header| masked(header)).collect();
            write!(line, " [{}]", headers.join(" ; ")).unwrap();
        }
        if message.payload.starts_with('{') {
            return format!("{line} {}", shown_json(message));
        }
        if message.payload.len() > 60 {
            return format!("{line} <{} bytes>", message.payload.len());
        }
        if !message.payload.is_empty() {
            write!(line, " {:?}", message.payload).unwrap();
        }
        line
    }
}

/// `@700ms` as the time that long from now.
fn timed(text: &str) -> String {
    let Some((before, after)) = text.split_once('@') else {
        return text.to_owned();
    };
    let (number, rest) = after.split_once("ms").expect("milliseconds");
    let after = jiff::SignedDuration::from_millis(number.parse().expect("a number"));
    format!("{before}{}{rest}", jiff::Timestamp::now() + after)
}

/// `<<x*700>>` as that many.
fn grown(body: &str) -> String {
    let Some((unit, count)) = body
        .strip_prefix("<<")
        .and_then(|text| text.strip_suffix(">>")?.split_once('*'))
    else {
        return body.to_owned();
    };
    unit.repeat(count.parse().expect("a count"))
}

/// A subject or header without its random part.
fn masked(text: &str) -> String {
    match text.find("$JS.FC.") {
        Some(_) => format!("{}.*", text.rsplit_once('.').expect("tokens").0),
        None => text.to_owned(),
    }
}

/// JSON with sorted keys, short, without what differs from run to run.
fn shown_json(message: &Message) -> String {
    let Ok(value) = serde_json::from_str::<Value>(&message.payload) else {
        return format!("{} {:?}", message.headers.trim_end(), message.payload);
    };
    if let Some(error) = value.get("error") {
        return format!(
            "error {} {} {}",
            error["code"], error["err_code"], error["description"]
        );
    }
    steady(&value)
}

fn steady(value: &Value) -> String {
    // `sync` is ours alone: when a stream's messages are on the disk.
    const HIDDEN: [&str; 8] = [
        "cluster",
        "sync",
        "_nats.ver",
        "domain",
        "client",
        "server",
        "type",
        "_nats.level",
    ];
    const VARYING: [&str; 11] = [
        "created",
        "ts",
        "timestamp",
        "last_active",
        "id",
        "pause_remaining",
        "pause_until",
        "first_ts",
        "last_ts",
        "bytes",
        "ack_time",
    ];
    match value {
        Value::Object(fields) => {
            let mut shown: Vec<String> = fields
                .iter()
                .filter(|(key, _)| !HIDDEN.contains(&key.as_str()))
                .filter(|(_, value)| *value != &serde_json::json!({}))
                .map(|(key, value)| match VARYING.contains(&key.as_str()) {
                    true => format!("{key}:*"),
                    false => format!("{key}:{}", steady(value)),
                })
                .filter(|field| field != "metadata:{}")
                .collect();
            shown.sort();
            format!("{{{}}}", shown.join(" "))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(steady).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}
