//! Streams and consumers that the configuration declares: created or updated when the server starts.
//!
//! What is there already and as declared is left alone, so a restart changes nothing; what is there and not declared is not
//! looked at, so nothing is ever deleted. Streams go through the same calls as the API's requests. Consumers are requests on
//! the API's own subjects.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::Assets;
use crate::jetstream::JetStream;
use crate::jetstream::stream::config::StreamConfig;
use crate::protocol::encode::Message;
use crate::router::Publisher;

use super::Server;

/// How long one request of the API may take.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of a declared asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is not there.
    Create,
    /// It is there, and otherwise.
    Update,
    /// It is there as declared.
    Keep,
}

/// A declared asset and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What becomes of it.
    pub step: Step,
    /// Such as `stream ORDERS`.
    pub what: String,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.step {
            Step::Create => "create",
            Step::Update => "update",
            Step::Keep => "keep",
        };
        write!(f, "{verb} {}", self.what)
    }
}

/// A declared asset that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AssetError {
    /// Such as `stream ORDERS`.
    pub what: String,
    /// What the API said.
    pub why: String,
}

/// Applies what is declared, in order; says each step before it is made. Stops at the first that fails.
pub(super) async fn apply(
    server: &Server,
    jetstream: &JetStream,
    assets: &Assets,
    mut say: impl FnMut(&Planned),
) -> Result<(), AssetError> {
    for config in &assets.streams {
        let what = format!("stream {}", config.name);
        let step = stream_step(jetstream, config);
        say(&Planned {
            step,
            what: what.clone(),
        });
        let outcome = match step {
            Step::Keep => continue,
            Step::Create => jetstream.create(config.clone(), false).await,
            Step::Update => jetstream.update(config.clone(), false).await,
        };
        outcome.map_err(|error| AssetError {
            what,
            why: error.to_string(),
        })?;
    }
    for (stream, config) in &assets.consumers {
        let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
        let what = format!("consumer {name} of {stream}");
        let failed = |why| AssetError {
            what: what.clone(),
            why,
        };
        let step = consumer_step(server, stream, name, config).await;
        say(&Planned {
            step,
            what: what.clone(),
        });
        if step != Step::Keep {
            let request = json!({"stream_name": stream, "config": config});
            let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
            ask(server, &subject, &request).await.map_err(failed)?;
        }
    }
    Ok(())
}

fn stream_step(jetstream: &JetStream, config: &StreamConfig) -> Step {
    match jetstream.stream(&config.name) {
        None => Step::Create,
        Some(stream) if *stream.config() == *config => Step::Keep,
        Some(_) => Step::Update,
    }
}

async fn consumer_step(server: &Server, stream: &str, name: &str, config: &Map<String, Value>) -> Step {
    match ask(server, &format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null).await {
        Err(_) => Step::Create,
        Ok(info) => {
            // What is not declared has the server's default, which need not be compared.
            let same = config
                .iter()
                .all(|(key, value)| info["config"].get(key) == Some(value));
            if same { Step::Keep } else { Step::Update }
        }
    }
}

/// One request of the API, from inside; an error of its answer comes back as text.
async fn ask(server: &Server, subject: &str, body: &Value) -> Result<Value, String> {
    let inbox = format!("_INBOX.{}", nuid::next());
    let mut answers = server.subscribe(&inbox).map_err(|error| error.to_string())?;
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let subject = format!("$JS.API.{subject}");
    let message = Message {
        subject: subject.as_bytes(),
        reply: inbox.as_bytes(),
        headers: &[],
        payload: &body,
    };
    let mut publisher = Publisher::new(server.router().clone());
    if publisher.publish(&message, None) == 0 {
        return Err("this server does not answer such requests".to_owned());
    }
    publisher.flush();
    let answer = tokio::time::timeout(API_TIMEOUT, answers.next()).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", API_TIMEOUT.as_secs()))?;
    let answer = answer.ok_or("the server has ended")?;
    let value: Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    match value.get("error") {
        Some(error) => Err(error["description"].as_str().unwrap_or("failed").to_owned()),
        None => Ok(value),
    }
}
