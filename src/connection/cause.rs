//! The log line of a connection that ended badly, with the cause that its client is not told.
//!
//! One line a connection, when it has ended. What a client sent is shown shortened and escaped; credentials never are.

use std::any::Any;

use crate::account::Auth;
use crate::protocol::connect::Connect;

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

/// Why credentials do not admit.
pub(super) fn refused(auth: &Auth, connect: &Connect) -> String {
    if !connect.account.is_empty() || connect.new_account {
        return format!(
            "it asked for account {:?}; there is only one",
            shown(connect.account.as_bytes())
        );
    }
    let user = connect.user.as_deref().filter(|user| !user.is_empty());
    let token = connect.auth_token.as_deref().filter(|token| !token.is_empty());
    match (auth, user, token) {
        (Auth::Token(_), _, Some(_)) => "the token is another one".to_owned(),
        (Auth::Token(_), Some(user), None) => {
            format!("a token is needed, it showed user {:?}", shown(user.as_bytes()))
        }
        (Auth::User { user: ours, .. }, Some(user), _) if ours == user => {
            format!("the password of user {:?} is another one", shown(user.as_bytes()))
        }
        (Auth::User { .. }, Some(user), _) => format!("there is no user {:?}", shown(user.as_bytes())),
        (Auth::User { .. }, None, Some(_)) => "user and password are needed, it showed a token".to_owned(),
        _ => "it showed no credentials".to_owned(),
    }
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
    fn secrets_are_never_shown() {
        let token = Auth::Token("right".to_owned());
        let user = Auth::User {
            user: "ann".to_owned(),
            pass: "right".to_owned(),
        };
        let table = [
            (&token, r#"{"auth_token":"wrong"}"#, "the token is another one"),
            (
                &token,
                r#"{"user":"ann","pass":"wrong"}"#,
                r#"a token is needed, it showed user "ann""#,
            ),
            (
                &user,
                r#"{"user":"ann","pass":"wrong"}"#,
                r#"the password of user "ann" is another one"#,
            ),
            (
                &user,
                r#"{"user":"bob","pass":"wrong"}"#,
                r#"there is no user "bob""#,
            ),
            (
                &user,
                r#"{"auth_token":"wrong"}"#,
                "user and password are needed, it showed a token",
            ),
            (&user, "{}", "it showed no credentials"),
            (
                &Auth::Open,
                r#"{"account":"x"}"#,
                r#"it asked for account "x"; there is only one"#,
            ),
        ];
        for (auth, json, expected) in table {
            let said = refused(auth, &Connect::parse(json.as_bytes()).unwrap());
            assert_eq!(said, expected);
            assert!(!said.contains("wrong") && !said.contains("right"));
        }
        assert_eq!(
            too_early(b"PUB secret.subject 5"),
            "PUB came before the credentials"
        );
        assert_eq!(shown(&[b'x'; 70]).len(), 67);
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
    }
}
