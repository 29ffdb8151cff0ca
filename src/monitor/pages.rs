//! The table of pages, and how a request becomes one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::metrics::Exposition;
use super::params::{Params, Problem};
use super::{View, accounts, connz, guard, health, jsz, storez, subsz, varz};

/// Pages rendered at a time: bounds the memory and the processors they take from messages.
const RENDERED_MAX: usize = 2;
/// How long a request waits for its turn and its page.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What answers a path.
#[derive(Clone, Copy)]
enum Render {
    View(fn(&View, &Params) -> Result<Page, Problem>),
    Metrics,
}

/// One page.
struct Row {
    path: &'static str,
    about: &'static str,
    render: Render,
    /// Needs no credentials: for probes, which have none.
    open: bool,
}

const fn row(path: &'static str, about: &'static str, render: Render) -> Row {
    Row {
        path,
        about,
        render,
        open: false,
    }
}

const fn probe(
    path: &'static str,
    about: &'static str,
    page: fn(&View, &Params) -> Result<Page, Problem>,
) -> Row {
    Row {
        path,
        about,
        render: Render::View(page),
        open: true,
    }
}

const TABLE: [Row; 16] = [
    row("/", "this page", Render::View(index)),
    row(
        "/metrics",
        "everything, for Prometheus; ?format=nats with the names of its NATS exporter",
        Render::Metrics,
    ),
    probe(
        "/healthz",
        "whether all is well, and if not why and what to do",
        health::page,
    ),
    probe("/livez", "whether the process answers", health::live),
    probe("/readyz", "whether clients should connect here", health::ready),
    row(
        "/varz",
        "the server: settings, traffic, memory",
        Render::View(varz::page),
    ),
    row(
        "/connz",
        "connections; ?sort=, ?subs=1, ?state=closed",
        Render::View(connz::page),
    ),
    row(
        "/subsz",
        "subscriptions; ?subs=1, ?test=SUBJECT",
        Render::View(subsz::page),
    ),
    row(
        "/subscriptionsz",
        "the same by its other name",
        Render::View(subsz::page),
    ),
    row(
        "/jsz",
        "streams and consumers; ?streams=1, ?consumers=1",
        Render::View(jsz::page),
    ),
    row(
        "/storez",
        "the store: bytes, commits, syncs",
        Render::View(storez::page),
    ),
    row(
        "/accountz",
        "accounts; ?acc=NAME",
        Render::View(accounts::accountz),
    ),
    row(
        "/accstatz",
        "traffic by account",
        Render::View(accounts::accstatz),
    ),
    row(
        "/routez",
        "routes to other servers: none",
        Render::View(accounts::routez),
    ),
    row("/gatewayz", "gateways: none", Render::View(accounts::gatewayz)),
    row("/leafz", "leaf nodes: none", Render::View(accounts::leafz)),
];

/// How often each page was asked for.
#[derive(Default)]
pub(super) struct Requests([AtomicU64; TABLE.len()]);

impl Requests {
    /// The pages asked for at least once.
    pub fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        TABLE
            .iter()
            .map(|row| row.path)
            .zip(counts)
            .filter(|(_, count)| *count > 0)
    }
}

/// A page that was made.
pub(super) struct Page {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl Page {
    pub fn text(kind: &'static str, body: String) -> Self {
        Self {
            status: StatusCode::OK,
            kind,
            body,
        }
    }

    /// Indented by two blanks, as nats-server does.
    pub fn json(value: &impl Serialize) -> Result<Self, Problem> {
        let mut body = serde_json::to_string_pretty(value)
            .map_err(|error| Problem::unavailable("the page cannot be written".to_owned()).cause(error))?;
        body.push('\n');
        Ok(Self::text("application/json", body))
    }

    /// What it says, for those who take JSON as it is; none for other pages.
    pub fn value(&self) -> Option<(u16, serde_json::Value)> {
        let value = serde_json::from_str(&self.body).ok()?;
        Some((self.status.as_u16(), value))
    }

    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        );
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = Page::text("application/json", self.body())
            .with_status(status)
            .into_response();
        let extra = match status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Basic realm=\"mesh\", Bearer")),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "GET, HEAD")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// What all requests share.
struct Desk {
    view: Arc<View>,
    metrics: Exposition,
    turns: Semaphore,
}

/// The pages as a service.
pub(super) fn router(view: Arc<View>) -> Router {
    let desk = Arc::new(Desk {
        metrics: Exposition::new(view.clone()),
        view,
        turns: Semaphore::new(RENDERED_MAX),
    });
    // One handler for all paths: what is checked is checked for every page, known or not.
    Router::new().fallback(move |request: Request| {
        let desk = desk.clone();
        async move {
            let waited = tokio::time::timeout(ANSWER_WAIT_MAX, answer(desk, request)).await;
            waited
                .unwrap_or_else(|_| {
                    Err(Problem::unavailable(
                        "the server is too busy to make this page".to_owned(),
                    ))
                })
                .into_response()
        }
    })
}

async fn answer(desk: Arc<Desk>, request: Request) -> Result<Page, Problem> {
    let path = request.uri().path();
    let at = TABLE.iter().position(|row| row.path == path);
    let open = at.is_some_and(|at| TABLE[at].open);
    let authority = request.uri().authority().map(ToString::to_string);
    guard::check(&desk.view, request.headers(), authority.as_deref(), open).await?;
    let at = at.ok_or_else(|| {
        let shown: String = path.chars().take(80).collect();
        Problem::not_found(format!("there is no page {shown:?}")).fix("the pages are listed on /")
    })?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::method(
            "pages are read with GET: nothing can be changed here".to_owned(),
        ));
    }
    let params = Params::of(request.uri())?;
    desk.view.requests.0[at].fetch_add(1, Ordering::Relaxed);
    let render = TABLE[at].render;
    let turn = desk.clone();
    let _turn = turn.turns.acquire().await;
    let page = tokio::task::spawn_blocking(move || match render {
        Render::View(render) => render(&desk.view, &params),
        Render::Metrics => desk.metrics.page(&params),
    });
    page.await.unwrap_or_else(|error| {
        Err(Problem::unavailable("the page could not be made".to_owned()).cause(error))
    })
}

/// A list of links.
fn index(view: &View, _: &Params) -> Result<Page, Problem> {
    let info = &view.context.info;
    let rows: String = TABLE
        .iter()
        .map(|row| format!("<tr><td><a href=\"{0}\">{0}</a><td>{1}\n", row.path, row.about))
        .collect();
    // A server's name is the operator's own, but it is text all the same.
    let name = escape(&info.server_name);
    Ok(Page::text(
        "text/html; charset=utf-8",
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>mesh {0}</title>\n\
             <style>:root{{color-scheme:light dark}}body{{font:1rem/1.6 system-ui;margin:2rem}}\
             td{{padding-right:1.5rem}}</style>\n\
             <h1>mesh {0}</h1>\n<p>{name}<br>clients: nats://{1}\n<table>\n{rows}</table>\n</html>\n",
            info.mesh, view.clients
        ),
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
