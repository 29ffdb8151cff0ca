//! `CONSUMER.CREATE` requests: the three subject forms and the body.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::wire::ConsumerConfig;
use crate::jetstream::api::error::{self, ApiError};

/// What a request wants of a consumer that exists, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// Create it, or update it if it is there.
    #[default]
    #[serde(rename = "")]
    CreateOrUpdate,
    /// Create it; an existing one must be the same.
    #[serde(rename = "create")]
    Create,
    /// Update it; it must exist.
    #[serde(rename = "update")]
    Update,
}

/// A create request whose subject and body agree.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRequest {
    /// The stream named by both.
    pub stream: String,
    /// The configuration asked for, its name settled; an empty name asks for one to be made up.
    pub config: ConsumerConfig,
    /// Create, update or either.
    pub action: Action,
    /// Refuse what would silently be adjusted.
    pub pedantic: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    stream_name: String,
    config: ConsumerConfig,
    action: Action,
    pedantic: bool,
}

enum Form {
    Ephemeral,
    Durable,
    Named,
}

impl CreateRequest {
    /// Reads a request from its subject below `$JS.API.CONSUMER.` (`CREATE.s`, `CREATE.s.c[.filter]`,
    /// `DURABLE.CREATE.s.c`) and its body. `strict` refuses unknown fields, as nats-server does by default.
    pub fn parse(tail: &str, body: &[u8], strict: bool) -> Result<CreateRequest, ApiError> {
        let Body {
            stream_name,
            mut config,
            action,
            pedantic,
        } = read_body(body, strict)?;
        let (form, rest) = match (tail.strip_prefix("DURABLE.CREATE."), tail.strip_prefix("CREATE.")) {
            (Some(rest), _) => (Form::Durable, rest),
            (_, Some(rest)) if rest.contains('.') => (Form::Named, rest),
            (_, Some(rest)) => (Form::Ephemeral, rest),
            _ => return Err(error::BAD_REQUEST),
        };
        let mut tokens = rest.splitn(3, '.');
        let stream = tokens.next().unwrap_or_default();
        let named = tokens.next();
        let filter = tokens.next();
        if matches!(form, Form::Durable) && (named.is_none() || filter.is_some()) {
            return Err(error::CONSUMER_DURABLE_NOT_IN_SUBJECT);
        }
        if stream != stream_name {
            return Err(error::STREAM_NAME_MISMATCH);
        }
        let name = named.unwrap_or(&config.name).to_owned();
        if name.contains(['/', '\\']) {
            return Err(error::CONSUMER_NAME_PATH_SEPARATORS);
        }
        let durable = config.durable_name.as_str();
        match form {
            Form::Durable if durable.is_empty() => {
                return Err(error::CONSUMER_DURABLE_NOT_SET);
            }
            Form::Durable | Form::Named if !durable.is_empty() && durable != name => {
                return Err(error::CONSUMER_DURABLE_NAME_MISMATCH);
            }
            Form::Ephemeral if !durable.is_empty() => {
                return Err(error::CONSUMER_EPHEMERAL_DURABLE_NAME);
            }
            _ => config.name = name,
        }
        if let Some(filter) = filter {
            if !config.filter_subjects.is_empty() {
                return Err(error::CONSUMER_MULTIPLE_FILTERS);
            }
            if config.filter_subject != filter {
                return Err(error::CONSUMER_CREATE_FILTER_MISMATCH);
            }
        }
        if config.num_replicas > 1 {
            return Err(ApiError {
                code: 500,
                err_code: 10074,
                description: "replicas > 1 not supported in non-clustered mode".into(),
            });
        }
        Ok(CreateRequest {
            stream: stream_name,
            config,
            action,
            pedantic,
        })
    }
}

fn read_body(body: &[u8], strict: bool) -> Result<Body, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Body::default());
    }
    let mut value: Value = serde_json::from_slice(body).map_err(|error| error::INVALID_JSON.with(error))?;
    let Value::Object(request) = &mut value else {
        return Err(error::INVALID_JSON.with("a create request is an object"));
    };
    known_fields(request, &["stream_name", "config", "action", "pedantic"], strict)?;
    match request.get_mut("config") {
        Some(Value::Object(config)) => known_fields(config, ConsumerConfig::FIELDS, strict)?,
        Some(_) => return Err(error::INVALID_JSON.with("a configuration is an object")),
        None => {}
    }
    serde_json::from_value(value).map_err(|error| error::INVALID_JSON.with(error))
}

/// Drops nulls (a null is a field not given, but for the policies) and finds unknown fields.
fn known_fields(object: &mut Map<String, Value>, known: &[&str], strict: bool) -> Result<(), ApiError> {
    object.retain(|key, value| !value.is_null() || key.ends_with("_policy") || key == "action");
    match object.keys().find(|key| strict && !known.contains(&key.as_str())) {
        Some(unknown) => Err(error::INVALID_JSON.with(format_args!("json: unknown field {unknown:?}"))),
        None => Ok(()),
    }
}
