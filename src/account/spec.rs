//! What an account is to be: its exports, imports, mappings and limits, as a configuration file or a JWT says.
//!
//! Plain data: whoever reads a configuration makes sure that it makes sense together.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::transform::Transform;

/// How long the answers of a service may take unless the export says something else, as in nats-server.
pub const THRESHOLD: Duration = Duration::from_secs(120);

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name; its public key where JWTs say who is who.
    pub name: Arc<str>,
    /// What people call it, where its name is a key.
    pub title: Option<String>,
    /// What others may import.
    pub exports: Vec<Export>,
    /// What comes from others.
    pub imports: Vec<Import>,
    /// What its clients' messages are renamed to.
    pub mappings: Vec<Mapping>,
    /// What its clients may use.
    pub limits: Limits,
    /// What its streams may use; none: it has no streams.
    pub streams: Option<StreamLimits>,
    /// Where it was configured, for the log.
    pub rule: String,
}

impl Default for Spec {
    fn default() -> Self {
        Self::new("")
    }
}

impl Spec {
    /// An account with nothing but a name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            title: None,
            exports: Vec::new(),
            imports: Vec::new(),
            mappings: Vec::new(),
            limits: Limits::default(),
            streams: None,
            rule: String::new(),
        }
    }
}

/// What is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages flow from the exporting account.
    Stream,
    /// Requests flow to the exporting account, answers back.
    Service,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Stream => "stream",
            Kind::Service => "service",
        })
    }
}

/// How many answers a request may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Response {
    /// One.
    #[default]
    Singleton,
    /// Any number, until none has come for the threshold.
    Stream,
    /// One in pieces, which is treated like any number.
    Chunked,
}

/// Something others may import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Messages or requests.
    pub kind: Kind,
    /// What, in the names of this account.
    pub subject: String,
    /// Who may import it; none is everyone.
    pub accounts: Option<Vec<Arc<str>>>,
    /// Only with an activation that the exporting account has signed (JWTs).
    pub token_required: bool,
    /// The token of the subject, counted from one, that must be the importing account's name; zero for none.
    pub account_token_position: usize,
    /// How many answers.
    pub response: Response,
    /// How long answers may take.
    pub threshold: Duration,
    /// Where it was configured.
    pub rule: String,
}

/// Something that comes from another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Messages or requests.
    pub kind: Kind,
    /// Whose it is.
    pub account: Arc<str>,
    /// What, in the names of the exporting account.
    pub subject: String,
    /// What it is called here: a pattern with as many wildcards, or a destination with `$1`; none is the same name.
    pub to: Option<String>,
    /// Whether requests say who asks.
    pub share: bool,
    /// Whether an activation that comes with it was found good (JWTs).
    pub activated: bool,
    /// Where it was configured.
    pub rule: String,
}

/// A renaming of what clients publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is renamed.
    pub source: String,
    /// To what, and which hundredths of it; what is missing from a hundred is dropped only where a destination says so.
    pub destinations: Vec<Weighted>,
}

/// One outcome of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The renaming.
    pub transform: Transform,
    /// Hundredths.
    pub percent: u8,
}

/// What the clients of an account may use; none is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: Option<usize>,
    /// Subscriptions of one connection, as in nats-server.
    pub subscriptions: Option<usize>,
    /// Bytes of headers and payload in one message.
    pub payload: Option<usize>,
}

/// What the streams of an account may use; -1 is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes of memory streams.
    pub memory: i64,
    /// Bytes of file streams.
    pub storage: i64,
    /// Streams.
    pub streams: i64,
    /// Consumers.
    pub consumers: i64,
    /// Unacknowledged messages of one consumer.
    pub ack_pending: i64,
    /// `max_bytes` of one memory stream.
    pub memory_stream: i64,
    /// `max_bytes` of one file stream.
    pub storage_stream: i64,
    /// Whether each stream must say its `max_bytes`.
    pub bytes_required: bool,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            memory: -1,
            storage: -1,
            streams: -1,
            consumers: -1,
            ack_pending: -1,
            memory_stream: -1,
            storage_stream: -1,
            bytes_required: false,
        }
    }
}
