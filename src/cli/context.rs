//! What every client command shares: which server, who we are, how to print.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerError};
use clap::Args;
use futures_util::StreamExt;

use super::{Failure, output, units};

/// Connection and output flags, accepted before or after any subcommand.
#[derive(Args, Clone, Debug)]
pub struct Context {
    /// URL of the server, nats://[user:pass@]host:port or nats://[token@]host:port
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
    /// Print machine-readable JSON
    #[arg(long, short = 'j', global = true)]
    pub json: bool,
    /// How long to wait for answers: 2s, 500ms, or a number of seconds
    #[arg(long, global = true, default_value = "5s", value_name = "DURATION", value_parser = units::duration)]
    pub timeout: Duration,
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
        let options = self
            .credentials(ConnectOptions::new())?
            .name("mesh")
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .event_callback(move |event| {
                heard.hear(event);
                std::future::ready(())
            });
        let client = options
            .connect(&self.server)
            .await
            .map_err(|error| self.refused(&error))?;
        Ok(Connection {
            client,
            complaint,
            timeout: self.timeout,
        })
    }

    fn credentials(&self, options: ConnectOptions) -> Result<ConnectOptions, Failure> {
        match (&self.user, &self.pass, &self.token) {
            (None, None, None) => Ok(options),
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
            ConnectErrorKind::ServerParse => Failure::usage(format!("not a server URL: {server}: {cause}"))
                .hint("expected nats://[user:pass@]host:port"),
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Failure::unhealthy(format!(
                    "the server at {server} refused these credentials: authorization violation"
                ))
                .hint("give them with --user and --pass, --token, or in the URL")
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

    /// The URL without its password: it goes to terminals and logs.
    pub(super) fn shown_server(&self) -> String {
        match (self.server.find("://"), self.server.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}{}", &self.server[..scheme + 3], &self.server[at + 1..])
            }
            (None, Some(at)) => self.server[at + 1..].to_owned(),
            _ => self.server.clone(),
        }
    }
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
        if let Some(text) = self.complaint.take() {
            return Err(Failure::failed(format!("the server refused: {text}")));
        }
        outcome.unwrap_or_else(|_| Err(Failure::unhealthy("the server stopped answering")))
    }
}

/// The last `-ERR` of the server that concerns what we asked for.
#[derive(Clone, Default)]
struct Complaint(Arc<Mutex<Option<String>>>);

impl Complaint {
    fn hear(&self, event: Event) {
        match event {
            Event::ServerError(ServerError::Other(text)) => {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                output::note("The server refuses these credentials");
            }
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                output::note("Too slow to keep up: messages are being dropped");
            }
            Event::Disconnected => output::note("Disconnected, trying to reconnect"),
            Event::LameDuckMode => output::note("The server is shutting down"),
            _ => {}
        }
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
