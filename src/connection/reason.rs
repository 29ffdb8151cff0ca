//! Why a connection ended: what the client is told and what `connz` shows.

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the texts below")]
pub enum Reason {
    ClientClosed,
    AuthenticationTimeout,
    AuthenticationFailure,
    SlowConsumerPending,
    SlowConsumerDeadline,
    WriteError,
    ReadError,
    ParseError,
    StaleConnection,
    ProtocolViolation,
    BadClientProtocol,
    ConnectionsExceeded,
    PayloadExceeded,
    ControlLineExceeded,
    NoRespondersNeedsHeaders,
    ServerShutdown,
    InternalError,
}

impl Reason {
    /// The `-ERR` text sent before closing; NATS closes without a word for the others.
    pub fn error_text(self) -> Option<&'static str> {
        Some(match self {
            Reason::AuthenticationTimeout => "Authentication Timeout",
            Reason::AuthenticationFailure => "Authorization Violation",
            Reason::ParseError => "Unknown Protocol Operation",
            Reason::StaleConnection => "Stale Connection",
            Reason::BadClientProtocol => "invalid client protocol",
            Reason::ConnectionsExceeded => "maximum connections exceeded",
            Reason::PayloadExceeded => "Maximum Payload Violation",
            Reason::ControlLineExceeded => "maximum control line exceeded",
            Reason::NoRespondersNeedsHeaders => "no responders requires headers support",
            _ => return None,
        })
    }

    /// The text of `connz`.
    pub fn text(self) -> &'static str {
        match self {
            Reason::ClientClosed => "Client Closed",
            Reason::AuthenticationTimeout => "Authentication Timeout",
            Reason::AuthenticationFailure => "Authentication Failure",
            Reason::SlowConsumerPending => "Slow Consumer (Pending Bytes)",
            Reason::SlowConsumerDeadline => "Slow Consumer (Write Deadline)",
            Reason::WriteError => "Write Error",
            Reason::ReadError => "Read Error",
            Reason::ParseError => "Parse Error",
            Reason::StaleConnection => "Stale Connection",
            Reason::ProtocolViolation => "Protocol Violation",
            Reason::BadClientProtocol => "Bad Client Protocol Version",
            Reason::ConnectionsExceeded => "Maximum Connections Exceeded",
            Reason::PayloadExceeded => "Maximum Message Payload Exceeded",
            Reason::ControlLineExceeded => "Maximum Control Line Exceeded",
            Reason::NoRespondersNeedsHeaders => "No Responders Requires Headers",
            Reason::ServerShutdown => "Server Shutdown",
            Reason::InternalError => "Internal Client",
        }
    }
}
