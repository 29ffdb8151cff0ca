//! Bodies of requests: JSON objects, read as the reference server reads them.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{self, ApiError};

/// Reads a request. A null field counts as absent; an unknown one is refused if `strict`.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], fields: &[&str], strict: bool) -> Result<T, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error::INVALID_JSON.with(error))?;
    let Value::Object(mut object) = value else {
        return Err(error::INVALID_JSON.with("a request is an object"));
    };
    if strict && let Some(unknown) = object.keys().find(|key| !fields.contains(&key.as_str())) {
        return Err(error::INVALID_JSON.with(format_args!("json: unknown field \"{unknown}\"")));
    }
    object.retain(|_, value| !value.is_null());
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
