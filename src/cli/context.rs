//! What every client command shares: which server, who we are, how to print.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use futures_util::StreamExt;

use super::{Failure, output, units};
use crate::mesh::Complaints;

/// Longest pause between two tries to reconnect: a daemon is back soon after its broker is.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Connection and output flags, accepted before or after any subcommand.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Context {
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the text is the help, brackets and all"
    )]
    /// URL of the server, nats://[user:pass@]host:port or nats://[token@]host:port; tls:// insists on TLS
    #[arg(
        long,
        short = 's',
        env = "MESH_URL",
        default_value = "nats://127.0.0.1:7778",
        global = true,
        value_name = "URL"
    )]
    pub server: String,
    /// User name, when it is not in the URL
    #[arg(long, env = "MESH_USER", global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Password, when it is not in the URL
    #[arg(
        long,
        env = "MESH_PASS",
        global = true,
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub pass: Option<String>,
    /// Token, when it is not in the URL
    #[arg(
        long,
        env = "MESH_TOKEN",
        global = true,
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    /// File with a user's JWT and seed (.creds), for a server in operator mode
    #[arg(long, env = "MESH_CREDS", global = true, value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// How the server is believed, and what it is shown
    #[command(flatten)]
    /// How it is encrypted.
    pub tls: TlsArgs,
    /// Print machine-readable JSON
    #[arg(long, short = 'j', global = true, help_heading = None)]
    pub json: bool,
    /// How long to wait for answers: 2s, 500ms, or a number of seconds
    #[arg(long, global = true, default_value = "5s", value_name = "DURATION", value_parser = units::duration)]
    pub timeout: Duration,
}

/// How the server is believed, and what it is shown; names as in the `nats` tool.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct TlsArgs {
    /// Authorities that the server's certificate is believed by (PEM) [default: those of the system]
    #[arg(long, env = "MESH_CA", global = true, value_name = "FILE")]
    pub tlsca: Option<PathBuf>,
    /// Certificate to show to the server (PEM)
    #[arg(long, env = "MESH_CERT", global = true, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "MESH_KEY", global = true, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Begin the TLS handshake without waiting for the server (its handshake_first)
    #[arg(long, global = true)]
    pub tlsfirst: bool,
}

impl TlsArgs {
    fn apply(&self, mut options: ConnectOptions) -> Result<ConnectOptions, Failure> {
        for file in [&self.tlsca, &self.tlscert, &self.tlskey].into_iter().flatten() {
            if let Err(error) = std::fs::File::open(file) {
                return Err(Failure::usage(format!("cannot read {}: {error}", file.display())));
            }
        }
        if let Some(file) = &self.tlsca {
            options = options.add_root_certificates(file.clone()).require_tls(true);
        }
        options = match (&self.tlscert, &self.tlskey) {
            (Some(certificate), Some(key)) => options
                .add_client_certificate(certificate.clone(), key.clone())
                .require_tls(true),
            (None, None) => options,
            _ => return Err(Failure::usage("--tlscert and --tlskey belong together")),
        };
        Ok(if self.tlsfirst {
            options.tls_first()
        } else {
            options
        })
    }
}

impl Context {
    /// Connects to the server, or says plainly that it is not there.
    pub async fn connect(&self) -> Result<async_nats::Client, Failure> {
        Ok(self.open().await?.client)
    }

    /// Connects, and keeps what the server complains about afterwards (a refused subject, say).
    pub(super) async fn open(&self) -> Result<Connection, Failure> {
        let complaint = Complaint::default();
        let heard = complaint.clone();
        let options = self.tls.apply(ConnectOptions::new())?;
        let options = self
            .credentials(options)?
            .name("mesh")
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .reconnect_delay_callback(|tries| {
                RECONNECT_PAUSE_MAX.min(Duration::from_millis(20 * tries.saturating_sub(1) as u64))
            })
            .event_callback(move |event| {
                heard.hear(event);
                std::future::ready(())
            });
        let client = options
            .connect(self.shown_server())
            .await
            .map_err(|error| self.refused(&error))?;
        Ok(Connection {
            client,
            complaint,
            timeout: self.timeout,
        })
    }

    fn credentials(&self, options: ConnectOptions) -> Result<ConnectOptions, Failure> {
        if let Some(file) = &self.creds {
            if self.user.is_some() || self.pass.is_some() || self.token.is_some() {
                return Err(Failure::usage(
                    "--creds stands alone: without --user, --pass and --token",
                ));
            }
            let unusable = |error| {
                let file = file.display();
                Failure::usage(format!("{file} cannot be used as credentials: {error}"))
                    .hint("expected the JWT of a user and its seed, as `nsc generate creds` writes them")
            };
            let text = std::fs::read_to_string(file).map_err(unusable)?;
            return options.credentials(&text).map_err(unusable);
        }
        match (&self.user, &self.pass, &self.token) {
            (None, None, None) => Ok(match self.server.split(',').find_map(Userinfo::of) {
                None => options,
                Some(Userinfo::Token(token)) => options.token(token),
                Some(Userinfo::User(user, pass)) => options.user_and_password(user, pass),
            }),
            (None, None, Some(token)) => Ok(options.token(token.clone())),
            (Some(user), Some(pass), _) => Ok(options.user_and_password(user.clone(), pass.clone())),
            _ => Err(Failure::usage("--user and --pass belong together")
                .hint("or use --token, or a token in the URL")),
        }
    }

    fn refused(&self, error: &async_nats::ConnectError) -> Failure {
        let server = self.shown_server();
        let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        match error.kind() {
            // A server that asks for a certificate says so after the handshake.
            kind if kind == ConnectErrorKind::Tls
                || ["received fatal alert", "peer certificate"]
                    .iter()
                    .any(|says| cause.contains(says)) =>
            {
                Failure::unhealthy(format!("no TLS with the server at {server}: {cause}")).hint(
                    "--tlsca names the authority of its certificate; --tlscert and --tlskey show one of yours",
                )
            }
            ConnectErrorKind::ServerParse => Failure::usage(format!("not a server URL: {server}: {cause}"))
                .hint("expected nats://[user:pass@]host:port"),
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Failure::unhealthy(format!(
                    "the server at {server} refused these credentials: authorization violation"
                ))
                .hint("give them with --user and --pass, --token, --creds, or in the URL")
            }
            ConnectErrorKind::TimedOut => Failure::unhealthy(format!(
                "the server at {server} did not answer within {}",
                units::show_duration(self.timeout)
            ))
            .hint("is it a NATS server? wait longer with --timeout"),
            _ => Failure::unhealthy(format!("cannot reach a server at {server}: {cause}"))
                .hint("start one with `mesh serve`, or name another with --server or MESH_URL"),
        }
    }

    /// The host of the first URL, an IPv6 address in its brackets.
    pub(super) fn host(&self) -> String {
        let first = self.server.split(',').next().unwrap_or_default();
        let (_, _, address) = split_userinfo(first);
        let address = address.split('/').next().unwrap_or_default();
        match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host.to_owned(),
            _ => address.to_owned(),
        }
    }

    /// The credentials as an HTTP header has them; `userinfo`, from the URL of the page itself, goes before ours.
    pub(super) fn authorization(&self, userinfo: Option<&str>) -> Result<Option<String>, Failure> {
        let basic = |user: &str, pass: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{pass}")));
        let bearer = |token: &str| match token.contains(|c: char| c.is_control()) {
            false => Ok(Some(format!("Bearer {token}"))),
            true => Err(Failure::usage(
                "a token with control characters cannot be sent over HTTP",
            )),
        };
        let in_url = || self.server.split(',').find_map(Userinfo::of);
        match (userinfo, &self.user, &self.pass, &self.token) {
            (Some(userinfo), ..) => match Userinfo::parse(userinfo) {
                Userinfo::Token(token) => bearer(&token),
                Userinfo::User(user, pass) => Ok(Some(basic(&user, &pass))),
            },
            (None, Some(user), Some(pass), _) => Ok(Some(basic(user, pass))),
            (None, None, None, Some(token)) => bearer(token),
            (None, None, None, None) => match in_url() {
                Some(Userinfo::Token(token)) => bearer(&token),
                Some(Userinfo::User(user, pass)) => Ok(Some(basic(&user, &pass))),
                None => Ok(None),
            },
            _ => Err(Failure::usage("--user and --pass belong together")
                .hint("or use --token, or a token in the URL")),
        }
    }

    /// The URLs without their credentials: for the library, for terminals and for logs.
    pub(super) fn shown_server(&self) -> String {
        let bare = |url: &str| match split_userinfo(url) {
            (scheme, Some(_), address) => format!("{scheme}{address}"),
            _ => url.to_owned(),
        };
        self.server.split(',').map(bare).collect::<Vec<_>>().join(",")
    }
}

/// What stands before the @ of a URL.
#[derive(Debug, PartialEq, Eq)]
enum Userinfo {
    Token(String),
    User(String, String),
}

impl Userinfo {
    fn of(url: &str) -> Option<Self> {
        let (_, userinfo, _) = split_userinfo(url);
        userinfo.map(Self::parse)
    }

    fn parse(userinfo: &str) -> Self {
        match userinfo.split_once(':') {
            Some((user, pass)) => Self::User(percent_decode(user), percent_decode(pass)),
            None => Self::Token(percent_decode(userinfo)),
        }
    }
}

/// A URL as (scheme with its `://`, what stands before the @, the address).
fn split_userinfo(url: &str) -> (&str, Option<&str>, &str) {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    match rest.rsplit_once('@') {
        Some((userinfo, address)) => (scheme, Some(userinfo), address),
        None => (scheme, None, rest),
    }
}

/// Undoes `%40` and the like; what is no such escape stays.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A client, and what the server has said against it.
pub(super) struct Connection {
    pub(super) client: async_nats::Client,
    complaint: Complaint,
    timeout: Duration,
}

impl Connection {
    /// Waits until the server has handled everything sent so far, and fails if it refused any of it.
    ///
    /// A message to an inbox of our own comes back after all that went before; the client library
    /// has no PING of its own to offer.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let round_trip = async {
            let inbox = self.client.new_inbox();
            let mut echo = self
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(Failure::failed)?;
            self.client
                .publish(inbox, bytes::Bytes::new())
                .await
                .map_err(Failure::failed)?;
            echo.next().await;
            Ok(())
        };
        let outcome = tokio::time::timeout(self.timeout, round_trip).await;
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        outcome.unwrap_or_else(|_| Err(Failure::unhealthy("the server stopped answering")))
    }

    /// The same for the mesh; from here on it is also said at once.
    pub(super) fn complaints(&self) -> Complaints {
        self.complaint.aloud.store(true, Ordering::Relaxed);
        self.complaint.told.clone()
    }

    /// What the server has refused since last asked.
    pub(super) fn refusal(&self) -> Option<Failure> {
        let text = self.complaint.take()?;
        Some(Failure::failed(format!("the server refused: {text}")))
    }
}

/// The last `-ERR` of the server that concerns what we asked for.
#[derive(Clone, Default)]
struct Complaint {
    text: Arc<Mutex<Option<String>>>,
    disconnected: Arc<AtomicBool>,
    /// The mesh asks it when an answer does not come.
    told: Complaints,
    /// Whether it is said at once, because nobody asks afterwards.
    aloud: Arc<AtomicBool>,
}

impl Complaint {
    fn hear(&self, event: Event) {
        match event {
            Event::ServerError(ServerError::Other(text)) => {
                self.told.hear(&text);
                let mut last = self.text.lock().unwrap_or_else(PoisonError::into_inner);
                if self.aloud.load(Ordering::Relaxed) && last.as_ref() != Some(&text) {
                    output::note(format!("The server refuses: {text}"));
                }
                *last = Some(text);
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                output::note("The server refuses these credentials");
            }
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                output::note("Too slow to keep up: messages are being dropped");
            }
            Event::Disconnected => {
                self.disconnected.store(true, Ordering::Relaxed);
                output::note("Disconnected, trying to reconnect");
            }
            Event::Connected if self.disconnected.swap(false, Ordering::Relaxed) => {
                output::note("Reconnected")
            }
            Event::LameDuckMode => output::note("The server is shutting down"),
            _ => {}
        }
    }

    fn take(&self) -> Option<String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(server: &str) -> Context {
        Context {
            server: server.to_owned(),
            user: None,
            pass: None,
            token: None,
            creds: None,
            tls: TlsArgs::default(),
            json: false,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("nats://127.0.0.1:7778", "127.0.0.1"),
            ("nats://u:p@broker:4222,nats://other:1", "broker"),
            ("broker", "broker"),
            ("nats://[::1]:4222/", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(of(url).host(), host, "{url}");
        }
    }

    #[test]
    fn credentials_for_pages() {
        let shown = |context: &Context, userinfo| context.authorization(userinfo).unwrap();
        assert_eq!(shown(&of("nats://h"), None), None);
        assert_eq!(shown(&of("nats://tok@h"), None).unwrap(), "Bearer tok");
        assert_eq!(shown(&of("nats://a:b@h"), None).unwrap(), "Basic YTpi");
        assert_eq!(shown(&of("nats://tok@h"), Some("a:b")).unwrap(), "Basic YTpi");
        let mut half = of("nats://h");
        half.user = Some("a".to_owned());
        half.authorization(None).unwrap_err();
        let mut split = of("nats://h");
        split.token = Some("a\r\nX: y".to_owned());
        split.authorization(None).unwrap_err();
    }

    #[test]
    fn credentials_are_taken_out_of_urls() {
        let user = |user: &str, pass: &str| Some(Userinfo::User(user.to_owned(), pass.to_owned()));
        for (url, expected) in [
            ("nats://127.0.0.1:4222", None),
            ("nats://bob:s3cret@127.0.0.1:4222", user("bob", "s3cret")),
            ("nats://b%40b:a:b@h:1", user("b@b", "a:b")),
            ("tok@h:1", Some(Userinfo::Token("tok".to_owned()))),
            ("nats://100%@h", Some(Userinfo::Token("100%".to_owned()))),
        ] {
            assert_eq!(Userinfo::of(url), expected, "{url}");
        }
    }
}
