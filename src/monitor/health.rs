//! Health: `/healthz` as nats-server answers it, with the reason and the way out; `/livez` and `/readyz` for probes.

use axum::http::StatusCode;
use serde::Serialize;

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::{Ailment, Detail, Scope};

#[derive(Default, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Error>,
    /// When what is stored counts as durable; ours beyond nats-server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<String>,
}

/// One of `errors`, which `details` asks for.
#[derive(Serialize)]
struct Error {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// Whether everything is well, or what was asked about.
pub(super) fn page(view: &View, params: &Params) -> Result<Page, Problem> {
    let named = |name| params.text(name).map(ToOwned::to_owned);
    let scope = Scope {
        // The second spelling is nats-server's older one.
        enabled_only: params.switch("js-enabled-only")? || params.switch("js-enabled")?,
        server_only: params.switch("js-server-only")?,
        account: named("account"),
        stream: named("stream"),
        consumer: named("consumer"),
    };
    let details = params.switch("details")?;
    if let Some(error) = contradiction(&scope) {
        return answer(StatusCode::BAD_REQUEST, "error", vec![bad(error)], details, None);
    }
    let (ailments, sync) = (ailments(view, &scope), view.sync());
    match ailments.first() {
        None => answer(StatusCode::OK, "ok", ailments, details, sync),
        Some(first) if first.missing => answer(StatusCode::NOT_FOUND, "unavailable", ailments, details, sync),
        Some(_) => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            ailments,
            details,
            sync,
        ),
    }
}

/// The process answers: nothing else is looked at, so that a probe never restarts a server that is busy recovering.
pub(super) fn live(_: &View, _: &Params) -> Result<Page, Problem> {
    answer(StatusCode::OK, "ok", Vec::new(), false, None)
}

/// Whether clients should be sent here: healthy, and taking new ones.
pub(super) fn ready(view: &View, _: &Params) -> Result<Page, Problem> {
    let mut ailments = ailments(view, &Scope::default());
    ailments.retain(|ailment| !ailment.serves);
    if view.draining.is_cancelled() {
        ailments.insert(
            0,
            Ailment {
                kind: "CONN",
                error: "the server is stopping and takes no new clients".to_owned(),
                fix: Some("connect to another server, or to this one once it is back".to_owned()),
                ..Ailment::default()
            },
        );
    }
    let status = if ailments.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if ailments.is_empty() { "ok" } else { "unavailable" };
    answer(status, word, ailments, false, None)
}

/// The same as a figure, for what was found wrong.
pub(super) fn is_ready(view: &View, ailments: &[Ailment]) -> bool {
    ailments.iter().all(|ailment| ailment.serves) && !view.draining.is_cancelled()
}

/// Everything that is wrong within `scope`.
pub(super) fn ailments(view: &View, scope: &Scope) -> Vec<Ailment> {
    if view.is_recovering() {
        return vec![recovering(view)];
    }
    let mut found: Vec<_> = view
        .sources()
        .iter()
        .flat_map(|source| source.ailments(scope))
        .collect();
    if scope.stream.is_some() && view.jetstream(&Detail::default()).is_none() {
        found.push(Ailment {
            kind: "JETSTREAM",
            error: "JetStream is not enabled, so there are no streams to check".to_owned(),
            ..Ailment::default()
        });
    }
    found
}

/// What a server that has not finished its start says: it is alive, and not to be restarted for it.
fn recovering(view: &View) -> Ailment {
    let far = match view.progress.get() {
        None => "reading the store".to_owned(),
        Some((done, streams)) => format!("{done} of {streams} streams are there"),
    };
    Ailment {
        kind: "JETSTREAM",
        error: format!(
            "the server is recovering what it has stored, for {:.1} s so far: {far}",
            view.started.elapsed().as_secs_f64()
        ),
        fix: Some("wait: it takes clients when it is done; a restart begins from the start".to_owned()),
        ..Ailment::default()
    }
}

fn contradiction(scope: &Scope) -> Option<&'static str> {
    match scope {
        Scope {
            stream: Some(_),
            account: None,
            ..
        } => Some("\"account\" must not be empty when checking stream health"),
        Scope {
            consumer: Some(_),
            stream: None,
            ..
        } => Some("\"stream\" must not be empty when checking consumer health"),
        _ => None,
    }
}

fn bad(error: &str) -> Ailment {
    Ailment {
        kind: "BAD_REQUEST",
        error: error.to_owned(),
        ..Ailment::default()
    }
}

fn answer(
    code: StatusCode,
    status: &'static str,
    ailments: Vec<Ailment>,
    details: bool,
    sync: Option<String>,
) -> Result<Page, Problem> {
    let mut health = Health {
        status,
        sync,
        ..Health::default()
    };
    if details && !ailments.is_empty() {
        health.status = "error";
        health.errors = ailments.into_iter().map(Error::from).collect();
    } else if let Some(first) = ailments.into_iter().next() {
        health.error = Some(first.error);
        health.fix = first.fix;
    }
    let body = serde_json::to_string(&health).map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Page::text("application/json", format!("{body}\n")).with_status(code))
}

impl From<Ailment> for Error {
    fn from(ailment: Ailment) -> Self {
        Self {
            kind: ailment.kind,
            account: ailment.account,
            stream: ailment.stream,
            consumer: ailment.consumer,
            error: ailment.error,
            fix: ailment.fix,
        }
    }
}
