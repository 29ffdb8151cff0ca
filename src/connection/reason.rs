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
    TlsHandshake,
    ServerShutdown,
    InternalError,
    AccountConnectionsExceeded,
    MissingAccount,
    AuthenticationExpired,
    AccountExpired,
    CredentialsRevoked,
    Kicked,
    SubscriptionsExceeded,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Reason; 25] = [
        Reason::ClientClosed,
        Reason::AuthenticationTimeout,
        Reason::AuthenticationFailure,
        Reason::SlowConsumerPending,
        Reason::SlowConsumerDeadline,
        Reason::WriteError,
        Reason::ReadError,
        Reason::ParseError,
        Reason::StaleConnection,
        Reason::ProtocolViolation,
        Reason::BadClientProtocol,
        Reason::ConnectionsExceeded,
        Reason::PayloadExceeded,
        Reason::ControlLineExceeded,
        Reason::NoRespondersNeedsHeaders,
        Reason::TlsHandshake,
        Reason::ServerShutdown,
        Reason::InternalError,
        Reason::AccountConnectionsExceeded,
        Reason::MissingAccount,
        Reason::AuthenticationExpired,
        Reason::AccountExpired,
        Reason::CredentialsRevoked,
        Reason::Kicked,
        Reason::SubscriptionsExceeded,
    ];

    /// Whether it is nobody's fault: the client left, or the server stops.
    pub fn is_orderly(self) -> bool {
        matches!(
            self,
            Reason::ClientClosed | Reason::ServerShutdown | Reason::Kicked
        )
    }

    /// Whether it was sent away for what it showed, or did not show, to come in.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Reason::AuthenticationFailure
                | Reason::MissingAccount
                | Reason::AuthenticationExpired
                | Reason::AccountExpired
                | Reason::CredentialsRevoked
        )
    }

    /// The name of metrics: `parse_error`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ClientClosed => "client_closed",
            Reason::AuthenticationTimeout => "authentication_timeout",
            Reason::AuthenticationFailure => "authentication_failure",
            Reason::SlowConsumerPending => "slow_consumer_pending",
            Reason::SlowConsumerDeadline => "slow_consumer_deadline",
            Reason::WriteError => "write_error",
            Reason::ReadError => "read_error",
            Reason::ParseError => "parse_error",
            Reason::StaleConnection => "stale_connection",
            Reason::ProtocolViolation => "protocol_violation",
            Reason::BadClientProtocol => "bad_client_protocol",
            Reason::ConnectionsExceeded => "connections_exceeded",
            Reason::PayloadExceeded => "payload_exceeded",
            Reason::ControlLineExceeded => "control_line_exceeded",
            Reason::NoRespondersNeedsHeaders => "no_responders_needs_headers",
            Reason::TlsHandshake => "tls_handshake",
            Reason::ServerShutdown => "server_shutdown",
            Reason::InternalError => "internal_error",
            Reason::AccountConnectionsExceeded => "account_connections_exceeded",
            Reason::MissingAccount => "missing_account",
            Reason::AuthenticationExpired => "authentication_expired",
            Reason::AccountExpired => "account_expired",
            Reason::CredentialsRevoked => "credentials_revoked",
            Reason::Kicked => "kicked",
            Reason::SubscriptionsExceeded => "subscriptions_exceeded",
        }
    }

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
            Reason::AccountConnectionsExceeded => "maximum account active connections exceeded",
            Reason::AuthenticationExpired => "User Authentication Expired",
            Reason::AccountExpired => "Account Authentication Expired",
            Reason::CredentialsRevoked => "User Authentication Revoked",
            Reason::SubscriptionsExceeded => "maximum subscriptions exceeded",
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
            Reason::TlsHandshake => "TLS Handshake Failure",
            Reason::ServerShutdown => "Server Shutdown",
            Reason::InternalError => "Internal Client",
            Reason::AccountConnectionsExceeded => "Maximum Account Connections Exceeded",
            Reason::MissingAccount => "Missing Account",
            Reason::AuthenticationExpired => "Authentication Expired",
            Reason::AccountExpired => "Authentication Expired",
            Reason::CredentialsRevoked => "Credentials Revoked",
            Reason::Kicked => "Kicked",
            Reason::SubscriptionsExceeded => "Maximum Subscriptions Exceeded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_in_order() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason:?}");
        }
        assert_eq!(Reason::ALL.len(), Reason::SubscriptionsExceeded as usize + 1);
    }
}
