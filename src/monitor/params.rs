//! Query parameters as nats-server reads them, and what is answered to a bad one.

use std::collections::HashMap;

use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use serde_json::json;

/// Why a request gets no page.
#[derive(Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    error: String,
    cause: Option<String>,
    fix: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, error: String) -> Self {
        Self {
            status,
            error,
            cause: None,
            fix: None,
        }
    }

    pub fn bad(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub fn forbidden(error: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }

    pub fn unauthorized(error: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    pub fn not_found(error: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub fn method(error: String) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, error)
    }

    pub fn unavailable(error: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// What is wrong, without what lies behind.
    pub fn text(&self) -> &str {
        &self.error
    }

    pub fn cause(mut self, cause: impl ToString) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    pub fn fix(mut self, fix: impl ToString) -> Self {
        self.fix = Some(fix.to_string());
        self
    }

    /// `{"status":400,"error":...}` with `cause` and `fix` where there are any.
    pub fn body(&self) -> String {
        let mut body = json!({ "status": self.status.as_u16(), "error": self.error });
        for (name, text) in [("cause", &self.cause), ("fix", &self.fix)] {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        format!("{body}\n")
    }
}

/// The parameters of one request. Unknown ones are passed over, as nats-server does.
#[derive(Debug, Default)]
pub(super) struct Params(HashMap<String, String>);

impl Params {
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::bad("the query cannot be read".to_owned()).cause(error))?;
        let mut params = HashMap::new();
        for (name, value) in pairs {
            // The first one counts, as in Go.
            params.entry(name).or_insert(value);
        }
        Ok(Self(params))
    }

    /// Parameters that did not come in a query.
    pub fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// A text that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A switch: the spellings of Go's `ParseBool`; absent or empty is off.
    pub fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None => Ok(false),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => Err(Problem::bad(format!("Error decoding boolean for '{name}'"))
                .cause(format!("{other:?} is neither true nor false"))),
        }
    }

    /// A whole number; absent or empty is `None`.
    pub fn number<N: std::str::FromStr<Err: ToString>>(&self, name: &str) -> Result<Option<N>, Problem> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|error: N::Err| {
                    let cause = format!("{text:?}: {}", error.to_string());
                    Problem::bad(format!("Error decoding number for '{name}'")).cause(cause)
                })
            })
            .transpose()
    }

    /// `offset` and `limit` of a list: below zero counts as absent, `limit` absent is `default`, and at most `max`.
    pub fn page(&self, default: usize, max: usize) -> Result<(usize, usize), Problem> {
        let read = |name| -> Result<usize, Problem> {
            Ok(usize::try_from(self.number::<i64>(name)?.unwrap_or(0)).unwrap_or(0))
        };
        let limit = match read("limit")? {
            0 => default,
            limit => limit.min(max),
        };
        Ok((read("offset")?, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn reads_as_nats_does() {
        let given = params("a=1&b=False&c=&d=%24G&d=second&n=12");
        assert!(given.switch("a").unwrap());
        assert!(!given.switch("b").unwrap() && !given.switch("c").unwrap() && !given.switch("zz").unwrap());
        assert_eq!((given.text("d"), given.text("c")), (Some("$G"), None));
        assert_eq!(given.number::<u64>("n").unwrap(), Some(12));
        for bad in ["a=maybe", "a=YES", "a=2"] {
            assert!(params(bad).switch("a").is_err(), "{bad}");
        }
        assert!(params("n=x").number::<u64>("n").is_err() && params("n=-1").number::<u64>("n").is_err());
    }

    #[test]
    fn pages() {
        let table = [
            ("", (0, 1024)),
            ("limit=0", (0, 1024)),
            ("limit=-1&offset=-1", (0, 1024)),
            ("limit=7&offset=3", (3, 7)),
            ("limit=99999999", (0, 5000)),
        ];
        for (query, expected) in table {
            assert_eq!(params(query).page(1024, 5000).unwrap(), expected, "{query}");
        }
        assert!(params("limit=z").page(1, 1).is_err());
    }

    #[test]
    fn problems_say_what_and_why() {
        let problem = Problem::bad("no".to_owned()).cause("because").fix("do");
        assert_eq!(
            problem.body(),
            "{\"status\":400,\"error\":\"no\",\"cause\":\"because\",\"fix\":\"do\"}\n"
        );
    }
}
