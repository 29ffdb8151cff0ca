//! The log line of a connection that ended badly, with the cause that its client is not told.
//!
//! One line a connection, when it has ended. What a client sent is shown shortened and escaped; credentials never are.

use std::any::Any;

use super::handle::Handle;
use super::reason::Reason;

/// Bytes of a line that are shown.
const SHOWN_MAX: usize = 64;

/// Logs the end of a connection: loudly unless it was orderly.
pub(super) fn log_end(handle: &Handle, reason: Reason) {
    let (ip, port, cid) = (handle.ip.as_str(), handle.port, handle.id());
    let text = reason.text();
    if reason.is_orderly() {
        return tracing::debug!("{ip}:{port} - cid:{cid} - client connection closed: {text}");
    }
    let connect = handle.connect();
    let name = if connect.name.is_empty() {
        String::new()
    } else {
        format!(" - {:?}", shown(connect.name.as_bytes()))
    };
    let cause = handle.cause().unwrap_or_default();
    let because = if cause.is_empty() {
        String::new()
    } else {
        format!(": {cause}")
    };
    let (client, reason_name) = (format!("{ip}:{port}"), reason.name());
    if reason == Reason::InternalError {
        tracing::error!(
            cid,
            client,
            reason = reason_name,
            cause,
            "{client} - cid:{cid}{name} - {text}{because}"
        );
    } else {
        tracing::warn!(
            cid,
            client,
            reason = reason_name,
            cause,
            "{client} - cid:{cid}{name} - {text}{because}"
        );
    }
}

/// The beginning of what a client sent, fit for a log.
pub(super) fn shown(bytes: &[u8]) -> String {
    let dots = if bytes.len() > SHOWN_MAX { "..." } else { "" };
    format!("{}{dots}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii())
}

/// What a client did before it had shown its credentials: the verb alone, for what follows might be one.
pub(super) fn too_early(line: &[u8]) -> String {
    let verb = line
        .split(|byte| b" \t\r\n".contains(byte))
        .next()
        .unwrap_or_default();
    format!(
        "{} came before the credentials",
        shown(&verb[..verb.len().min(16)])
    )
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(
            too_early(b"PUB secret.subject 5"),
            "PUB came before the credentials"
        );
        assert_eq!(shown(&[b'x'; 70]).len(), 67);
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
    }
}
