//! The API errors a consumer request can end in: codes and texts as nats-server 2.15.1 sends them.

use std::borrow::Cow;

use serde::Serialize;

/// The `error` object of a JetStream API reply. Clients decide by `err_code`, some by `description`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct ApiError {
    /// HTTP-like class: 400, 404, 412, 500, 503.
    pub code: u16,
    /// The JetStream error number, 10000 and up.
    pub err_code: u16,
    /// Text for people.
    pub description: Cow<'static, str>,
}

/// A 400 error with a fixed text.
pub(super) const fn bad(err_code: u16, description: &'static str) -> ApiError {
    ApiError {
        code: 400,
        err_code,
        description: Cow::Borrowed(description),
    }
}

/// A 400 error with a text made at run time.
pub(super) fn bad_with(err_code: u16, description: String) -> ApiError {
    ApiError {
        code: 400,
        err_code,
        description: Cow::Owned(description),
    }
}

/// 10052: a configuration error without a number of its own.
pub(super) fn invalid_config(description: &'static str) -> ApiError {
    ApiError {
        code: 500,
        err_code: 10052,
        description: Cow::Borrowed(description),
    }
}

/// 10012: an update that is not allowed.
pub(super) fn create_failed(description: &'static str) -> ApiError {
    ApiError {
        code: 500,
        err_code: 10012,
        description: Cow::Borrowed(description),
    }
}

/// 10025: the request is not the JSON it should be.
pub(super) fn invalid_json(why: impl std::fmt::Display) -> ApiError {
    bad_with(10025, format!("invalid JSON: {why}"))
}
