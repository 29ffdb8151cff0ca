//! What stands around every answer and event: who the server is. And the filters by which a request names the servers meant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::monitor::{Refusal, timestamp};
use crate::protocol::info::Info;

/// The flag of a server that has streams.
const JETSTREAM: u64 = 1;

/// Who the server is.
pub(super) struct Identity {
    pub id: String,
    name: String,
    host: String,
    version: String,
    domain: Option<String>,
    tags: Vec<String>,
    jetstream: bool,
    /// Answers and events so far.
    sequence: AtomicU64,
}

impl Identity {
    pub fn new(config: &Config, info: &Info) -> Self {
        Self {
            id: info.server_id.clone(),
            name: info.server_name.clone(),
            host: info.host.clone(),
            version: info.version.clone(),
            domain: config.domain.clone(),
            tags: config.tags.clone(),
            jetstream: info.jetstream,
            sequence: AtomicU64::new(0),
        }
    }

    /// The `server` of the next answer or event.
    pub fn stamp(&self) -> Value {
        let mut server = json!({ "name": self.name, "host": self.host, "id": self.id });
        if let Some(domain) = &self.domain {
            server["domain"] = json!(domain);
        }
        server["ver"] = json!(self.version);
        if !self.tags.is_empty() {
            server["tags"] = json!(self.tags);
        }
        server["jetstream"] = json!(self.jetstream);
        server["flags"] = json!(if self.jetstream { JETSTREAM } else { 0 });
        server["seq"] = json!(self.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        server["time"] = json!(timestamp(SystemTime::now()));
        server
    }

    /// The answer to IDZ, which has no envelope.
    pub fn short(&self) -> Value {
        json!({ "name": self.name, "host": self.host, "id": self.id })
    }

    /// Whether a request is for this server.
    pub fn is_meant(&self, filter: &Filter) -> bool {
        let exact = filter.exact_match.unwrap_or_default();
        let fits = |wanted: &Option<String>, own: &str| match wanted.as_deref() {
            None | Some("") => true,
            Some(wanted) if exact => own == wanted,
            Some(wanted) => own.contains(wanted),
        };
        let domain = filter.domain.as_deref().unwrap_or_default();
        fits(&filter.server_name, &self.name)
            && fits(&filter.host, &self.host)
            // It is in no cluster.
            && fits(&filter.cluster, "")
            && filter.tags.iter().flatten().all(|tag| self.has_tag(tag))
            && (domain.is_empty() || self.domain.as_deref() == Some(domain))
    }

    /// Tags are the same in any case.
    fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own.eq_ignore_ascii_case(tag.trim()))
    }
}

/// Which servers are meant; what is not given fits all.
#[derive(Default, Deserialize)]
pub(super) struct Filter {
    server_name: Option<String>,
    cluster: Option<String>,
    host: Option<String>,
    exact_match: Option<bool>,
    tags: Option<Vec<String>>,
    domain: Option<String>,
}

/// The options of a request: its filter and all of it; an empty payload has none.
pub(super) fn options(payload: &[u8]) -> Result<(Filter, Map<String, Value>), Refusal> {
    let bad = |text: String| Refusal { code: 400, text };
    if payload.is_empty() {
        return Ok(Default::default());
    }
    let value: Value = serde_json::from_slice(payload).map_err(|error| bad(error.to_string()))?;
    let map = match value {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(bad("the options must be a JSON object".to_owned())),
    };
    let filter = Filter::deserialize(&map).map_err(|error| bad(error.to_string()))?;
    Ok((filter, map))
}

/// What is answered.
pub(super) enum Answer {
    /// Nothing: another server is meant, or there is nothing to say.
    Silence,
    /// Without an envelope.
    Bare(Value),
    /// In the envelope, under this name.
    Of(&'static str, Value),
    /// It is done.
    Done,
    /// Why not.
    Refused(Refusal),
    /// The same where data was asked for: there is none.
    NoData(Refusal),
}

impl Answer {
    /// What goes out.
    pub fn into_json(self, identity: &Identity) -> Option<Value> {
        let mut whole = match self {
            Answer::Silence => return None,
            Answer::Bare(value) => return Some(value),
            _ => json!({ "server": identity.stamp() }),
        };
        match self {
            Answer::Of(name, value) => whole[name] = value,
            Answer::Refused(refusal) => whole["error"] = error(&refusal),
            Answer::NoData(refusal) => {
                whole["data"] = Value::Null;
                whole["error"] = error(&refusal);
            }
            Answer::Silence | Answer::Bare(_) | Answer::Done => {}
        }
        Some(whole)
    }
}

impl From<Result<Value, Refusal>> for Answer {
    fn from(outcome: Result<Value, Refusal>) -> Self {
        match outcome {
            Ok(value) => Answer::Of("data", value),
            Err(refusal) if refusal.code == 400 => Answer::Refused(refusal),
            Err(refusal) => Answer::NoData(refusal),
        }
    }
}

fn error(refusal: &Refusal) -> Value {
    json!({ "code": refusal.code, "description": refusal.text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let config = Config {
            tags: vec!["a".to_owned(), "b:c".to_owned()],
            domain: Some("hub".to_owned()),
            ..Config::default()
        };
        let info = Info {
            server_id: "ID".to_owned(),
            server_name: "broker-1".to_owned(),
            host: "127.0.0.1".to_owned(),
            ..Info::default()
        };
        Identity::new(&config, &info)
    }

    #[test]
    fn filters() {
        let identity = identity();
        let table = [
            (json!({}), true),
            (json!({ "server_name": "broker" }), true),
            (json!({ "server_name": "broker", "exact_match": true }), false),
            (json!({ "server_name": "broker-1", "exact_match": true }), true),
            (json!({ "server_name": "other" }), false),
            (json!({ "host": "127" }), true),
            (json!({ "cluster": "c" }), false),
            (json!({ "tags": ["A", "b:c"] }), true),
            (json!({ "tags": ["a", "z"] }), false),
            (json!({ "domain": "hub", "tags": null }), true),
            (json!({ "domain": "hu" }), false),
        ];
        for (given, expected) in table {
            let (filter, _) = options(given.to_string().as_bytes()).unwrap();
            assert_eq!(identity.is_meant(&filter), expected, "{given}");
        }
    }

    #[test]
    fn options_that_cannot_be_read_are_refused() {
        for bad in ["garbage", "[1]", "{\"tags\":1}", "{\"server_name\":1}"] {
            assert_eq!(
                options(bad.as_bytes()).map(|_| ()).unwrap_err().code,
                400,
                "{bad}"
            );
        }
        assert!(options(b"null").is_ok() && options(b"").is_ok());
    }

    #[test]
    fn each_envelope_has_its_number() {
        let identity = identity();
        let done = |answer: Answer| answer.into_json(&identity).unwrap();
        assert_eq!(done(Answer::Done)["server"]["seq"], 1);
        let refused = done(Answer::NoData(Refusal {
            code: 500,
            text: "no".to_owned(),
        }));
        assert_eq!(
            (&refused["server"]["seq"], &refused["data"]),
            (&json!(2), &Value::Null)
        );
        assert_eq!(refused["error"], json!({ "code": 500, "description": "no" }));
        assert!(Answer::Silence.into_json(&identity).is_none());
    }
}
