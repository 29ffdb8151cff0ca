//! Bodies of requests: JSON objects, read as the reference server reads them.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{self, ApiError};

/// Fields for which null is no value, where others are absent then.
const NEVER_NULL: [&str; 5] = ["retention", "discard", "storage", "compression", "persist_mode"];

/// Reads a JSON object: keys without regard to case, a null field as if absent, and null as no field at all.
pub(super) fn object(body: &[u8], fields: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error::INVALID_JSON.with(error))?;
    let mut object = match value {
        Value::Object(object) => object,
        Value::Null => Map::new(),
        _ => return Err(error::INVALID_JSON.with("a request is an object")),
    };
    let is_odd = |key: &String| key.bytes().any(|byte| byte.is_ascii_uppercase());
    if object.keys().any(is_odd) {
        let known = |key: &str| fields.iter().find(|field| field.eq_ignore_ascii_case(key));
        let named = object.into_iter().map(|(key, value)| match known(&key) {
            Some(field) => ((*field).to_owned(), value),
            None => (key, value),
        });
        object = named.collect();
    }
    object.retain(|key, value| !value.is_null() || NEVER_NULL.contains(&key.as_str()));
    Ok(object)
}

/// Reads a request. An unknown field is refused if `strict`.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], fields: &[&str], strict: bool) -> Result<T, ApiError> {
    let object = object(body, fields)?;
    if strict && let Some(unknown) = object.keys().find(|key| !fields.contains(&key.as_str())) {
        return Err(error::INVALID_JSON.with(format_args!("json: unknown field \"{unknown}\"")));
    }
    serde_json::from_value(Value::Object(object)).map_err(|error| error::INVALID_JSON.with(error))
}

/// Reads a request that may be absent: anything that does not look like JSON counts as nothing.
pub(super) fn parse_optional<T: DeserializeOwned + Default>(
    body: &[u8],
    fields: &[&str],
    strict: bool,
) -> Result<T, ApiError> {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => parse(body, fields, strict),
        _ => Ok(T::default()),
    }
}

/// Refuses a body where there must be none; an empty object is none.
pub(super) fn expect_empty(body: &[u8]) -> Result<(), ApiError> {
    let trimmed = body.trim_ascii();
    let object = trimmed
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"));
    if trimmed.is_empty() || object.is_some_and(|inside| inside.trim_ascii().is_empty()) {
        Ok(())
    } else {
        Err(error::NOT_EMPTY_REQUEST)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        a: u64,
    }

    #[test]
    fn bodies() {
        let read = |body: &str, strict| parse::<Sample>(body.as_bytes(), &["a"], strict);
        assert_eq!(read(r#"{"a":1}"#, true), Ok(Sample { a: 1 }));
        assert_eq!(read(r#"{"a":null}"#, true), Ok(Sample { a: 0 }));
        assert_eq!(read(r#"{"a":1,"b":2}"#, false), Ok(Sample { a: 1 }));
        assert_eq!(
            read(r#"{"b":2}"#, true).unwrap_err().description,
            r#"invalid JSON: json: unknown field "b""#
        );
        for bad in ["", "{", "[1]", r#"{"a":"x"}"#, "{} x"] {
            assert_eq!(read(bad, true).unwrap_err().err_code, 10025, "{bad}");
        }
        assert_eq!(parse_optional::<Sample>(b"x", &[], true), Ok(Sample { a: 0 }));
        assert_eq!(expect_empty(b" {} "), Ok(()));
        assert_eq!(expect_empty(b"x"), Err(error::NOT_EMPTY_REQUEST));
    }
}
