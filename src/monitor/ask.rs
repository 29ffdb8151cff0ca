//! The pages for who asks without HTTP: by the names and with the options of nats-server's system requests.
//!
//! Options are JSON and typed; they become the parameters of the page. Unknown ones are passed over, as nats-server does.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::pages::Page;
use super::params::{Params, Problem};
use super::{View, accounts, connz, health, jsz, process, subsz, varz};

/// Why there is no page: 400 for options that cannot be read, 500 for those that make no sense.
#[derive(Debug)]
pub struct Refusal {
    /// As in HTTP.
    pub code: u16,
    /// What is wrong.
    pub text: String,
}

/// What an option is, and what becomes of it.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Switch,
    Number,
    /// A switch that gives its parameter this value.
    As(&'static str),
    /// A number that picks one of these values.
    Choice(&'static [&'static str]),
}

/// Name of an option, its kind, and the parameter of the page.
type Row = (&'static str, Kind, &'static str);

const CONNZ: [Row; 10] = [
    ("sort", Kind::Text, "sort"),
    ("auth", Kind::Switch, "auth"),
    ("subscriptions", Kind::As("1"), "subs"),
    ("subscriptions_detail", Kind::As("detail"), "subs"),
    ("offset", Kind::Number, "offset"),
    ("limit", Kind::Number, "limit"),
    ("cid", Kind::Number, "cid"),
    ("state", Kind::Choice(&["open", "closed", "any"]), "state"),
    ("user", Kind::Text, "user"),
    ("acc", Kind::Text, "acc"),
];
const SUBSZ: [Row; 5] = [
    ("offset", Kind::Number, "offset"),
    ("limit", Kind::Number, "limit"),
    ("subscriptions", Kind::As("1"), "subs"),
    ("account", Kind::Text, "acc"),
    ("test", Kind::Text, "test"),
];
const JSZ: [Row; 7] = [
    ("account", Kind::Text, "acc"),
    ("accounts", Kind::Switch, "accounts"),
    ("streams", Kind::Switch, "streams"),
    ("consumer", Kind::Switch, "consumers"),
    ("config", Kind::Switch, "config"),
    ("offset", Kind::Number, "offset"),
    ("limit", Kind::Number, "limit"),
];
const HEALTHZ: [Row; 7] = [
    ("js-enabled", Kind::Switch, "js-enabled"),
    ("js-enabled-only", Kind::Switch, "js-enabled-only"),
    ("js-server-only", Kind::Switch, "js-server-only"),
    ("account", Kind::Text, "account"),
    ("stream", Kind::Text, "stream"),
    ("consumer", Kind::Text, "consumer"),
    ("details", Kind::Switch, "details"),
];
const ACCOUNTZ: [Row; 1] = [("account", Kind::Text, "acc")];

/// The page called `name`, made with `options`; none when no page is called so.
pub fn ask(view: &View, name: &str, options: &Map<String, Value>) -> Option<Result<Value, Refusal>> {
    type Render = fn(&View, &Params) -> Result<Page, Problem>;
    let (rows, render): (&[Row], Render) = match name {
        "VARZ" => (&[], varz::page),
        "CONNZ" => (&CONNZ, connz::page),
        "SUBSZ" => (&SUBSZ, subsz::page),
        "JSZ" => (&JSZ, jsz::page),
        "HEALTHZ" => (&HEALTHZ, health::page),
        "ACCOUNTZ" => (&ACCOUNTZ, accounts::accountz),
        "ROUTEZ" => (&[], accounts::routez),
        "GATEWAYZ" => (&[], accounts::gatewayz),
        "LEAFZ" => (&[], accounts::leafz),
        "EXPVARZ" => return Some(Ok(variables())),
        // There are no groups of servers that agree on anything.
        "RAFTZ" => return Some(Ok(json!({}))),
        "PROFILEZ" => return Some(profile(options)),
        _ => return None,
    };
    Some(params(rows, options).and_then(|params| made(render(view, &params), name)))
}

/// What of options is for a page, as its parameters.
fn params(rows: &[Row], options: &Map<String, Value>) -> Result<Params, Refusal> {
    let mut pairs = Vec::new();
    for &(name, kind, parameter) in rows {
        let given = options.get(name).filter(|value| !value.is_null());
        let Some(given) = given else { continue };
        let value = match (kind, given) {
            (Kind::Text, Value::String(text)) => Some(text.clone()),
            (Kind::Switch, Value::Bool(on)) => Some(on.to_string()),
            (Kind::As(value), Value::Bool(on)) => on.then(|| value.to_owned()),
            (Kind::Number, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Some(number.to_string())
            }
            (Kind::Choice(values), Value::Number(number)) => {
                let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                let value = at.and_then(|at| values.get(at));
                let last = values.len() - 1;
                let value = value.ok_or_else(|| unreadable(name, &format!("a number from 0 to {last}")))?;
                Some((*value).to_owned())
            }
            (kind, _) => return Err(unreadable(name, kind.name())),
        };
        pairs.extend(value.map(|value| (parameter.to_owned(), value)));
    }
    Ok(Params::of_pairs(pairs))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "a text",
            Kind::Switch | Kind::As(_) => "true or false",
            Kind::Number | Kind::Choice(_) => "a whole number",
        }
    }
}

fn unreadable(name: &str, expected: &str) -> Refusal {
    Refusal {
        code: StatusCode::BAD_REQUEST.as_u16(),
        text: format!("option \"{name}\" must be {expected}"),
    }
}

fn made(page: Result<Page, Problem>, name: &str) -> Result<Value, Refusal> {
    let refused = |text: String| Refusal {
        code: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        text,
    };
    let page = page.map_err(|problem| refused(problem.text().to_owned()))?;
    let found = page.value();
    let (status, mut value) = found.ok_or_else(|| refused("the page is no JSON".to_owned()))?;
    if name == "HEALTHZ" {
        value["status_code"] = json!(status);
    }
    Ok(value)
}

/// What Go's `expvar` shows, as far as it means something here: memory, and the program. Not its arguments: there may be
/// secrets among them.
fn variables() -> Value {
    let program = std::env::args_os().next().unwrap_or_default();
    json!({
        "memstats": { "Sys": process::resident_bytes().unwrap_or_default() },
        "cmdline": [program.to_string_lossy()],
    })
}

/// Profiles are made with the tools of the operating system.
fn profile(options: &Map<String, Value>) -> Result<Value, Refusal> {
    let error = match options.get("name") {
        None | Some(Value::Null) => "Profile name not specified".to_owned(),
        Some(Value::String(name)) if name.is_empty() => "Profile name not specified".to_owned(),
        Some(Value::String(name)) => {
            let name: String = name.chars().take(80).collect();
            format!("Profile {name:?} not found: this server makes none")
        }
        Some(_) => return Err(unreadable("name", Kind::Text.name())),
    };
    Ok(json!({ "profile": null, "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[Row], options: Value) -> Result<Params, String> {
        params(rows, options.as_object().unwrap())
            .map_err(|refusal| format!("{}: {}", refusal.code, refusal.text))
    }

    #[test]
    fn options_become_parameters() {
        let params = read(
            &CONNZ,
            json!({ "sort": "cid", "auth": true, "subscriptions": true, "limit": 3, "state": 1, "acc": null, "other": [1] }),
        )
        .unwrap();
        let text = |name| params.text(name).unwrap_or_default().to_owned();
        assert_eq!(
            [
                text("sort"),
                text("auth"),
                text("subs"),
                text("limit"),
                text("state"),
                text("acc")
            ],
            ["cid", "true", "1", "3", "closed", ""]
        );
        let both = read(
            &CONNZ,
            json!({ "subscriptions": true, "subscriptions_detail": true }),
        );
        assert_eq!(both.unwrap().text("subs"), Some("detail"));
        let off = read(&CONNZ, json!({ "subscriptions": false }));
        assert_eq!(off.unwrap().text("subs"), None);
    }

    #[test]
    fn options_of_another_type_are_refused() {
        for options in [
            json!({ "sort": 1 }),
            json!({ "auth": "yes" }),
            json!({ "limit": 1.5 }),
            json!({ "state": 3 }),
            json!({ "state": "closed" }),
        ] {
            let error = read(&CONNZ, options.clone()).unwrap_err();
            assert!(error.starts_with("400: option \""), "{options}: {error}");
        }
    }
}
