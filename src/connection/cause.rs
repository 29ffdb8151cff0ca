//! The log line of a connection that ended badly, with the cause that its client is not told.
//!
//! One line a connection, when it has ended, and so many a second at most: what is more is counted, and the count is said
//! when the second is over. What a client sent is shown shortened and escaped; credentials never are.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::connect::Connect;

use super::handle::Handle;
use super::reason::Reason;

/// Bytes of a line that are shown.
const SHOWN_MAX: usize = 64;
/// Lines about bad ends in one span, and how long that is.
const LINES_MAX: u32 = 20;
const SPAN: Duration = Duration::from_secs(1);

/// How many bad ends were told lately. A panic is told always.
#[derive(Default)]
pub(super) struct Endings(Mutex<Window>);

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

/// What becomes of one more bad end.
#[derive(Debug, PartialEq, Eq)]
enum Telling {
    Now,
    /// Counted; the first of a span sees to it that the count is told.
    Later {
        is_first: bool,
    },
}

impl Window {
    fn take(&mut self, now: Instant) -> Telling {
        if self.began.is_none_or(|began| now.duration_since(began) >= SPAN) {
            self.began = Some(now);
            self.told = 0;
        }
        if self.told < LINES_MAX {
            self.told += 1;
            return Telling::Now;
        }
        self.untold += 1;
        Telling::Later {
            is_first: self.untold == 1,
        }
    }
}

impl Endings {
    /// Logs the end of a connection: loudly unless it was orderly.
    pub fn log(self: &Arc<Self>, handle: &Handle, reason: Reason) {
        if reason.is_orderly() {
            let (ip, port, cid) = (&handle.ip, handle.port, handle.id());
            let text = reason.text();
            return tracing::debug!("{ip}:{port} - cid:{cid} - client connection closed: {text}");
        }
        let telling = if reason == Reason::InternalError {
            Telling::Now
        } else {
            self.window().take(Instant::now())
        };
        match telling {
            Telling::Now => tell(handle, reason),
            Telling::Later { is_first: false } => {}
            Telling::Later { is_first: true } => {
                let endings = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(SPAN).await;
                    let untold = std::mem::take(&mut endings.window().untold);
                    tracing::warn!(
                        "{untold} more connections ended badly within a second, not told one by one"
                    );
                });
            }
        }
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(handle: &Handle, reason: Reason) {
    let (ip, port, cid) = (handle.ip.as_str(), handle.port, handle.id());
    let text = reason.text();
    let connect = handle.connect();
    let name = if connect.name.is_empty() {
        String::new()
    } else {
        format!(" - {:?}", shown(connect.name.as_bytes()))
    };
    let cause = harmless(handle.cause().unwrap_or_default());
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

/// What is kept of a refused CONNECT: who it said it was, shortened, and no secret.
pub(super) fn remains(connect: &Connect) -> Connect {
    let short = |text: &str| text.chars().take(SHOWN_MAX).collect::<String>();
    Connect {
        name: short(&connect.name),
        lang: short(&connect.lang),
        version: short(&connect.version),
        user: connect.user.as_deref().map(short),
        nkey: connect.nkey.as_deref().map(short),
        auth_token: connect.auth_token.as_ref().map(|_| String::new()),
        ..Connect::default()
    }
}

/// A text for the log without what would end its line or steer a terminal; the rest as it is.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\'' | '"' | '\\' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
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
    fn so_many_lines_a_second() {
        let mut window = Window::default();
        let now = Instant::now();
        for _ in 0..LINES_MAX {
            assert_eq!(window.take(now), Telling::Now);
        }
        for n in 0..1000 {
            let later = Telling::Later { is_first: n == 0 };
            assert_eq!(window.take(now + SPAN / 2), later);
        }
        assert_eq!((window.take(now + SPAN), window.untold), (Telling::Now, 1000));
    }

    #[test]
    fn no_secret_remains() {
        let json = r#"{"user":"a","pass":"secret","auth_token":"secret","sig":"secret","name":"n"}"#;
        let remains = remains(&Connect::parse(json.as_bytes()).unwrap());
        assert_eq!((remains.user.as_deref(), &*remains.name), (Some("a"), "n"));
        assert!(!format!("{remains:?}").contains("secret"));
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(4000));
        assert_eq!(
            super::remains(&Connect::parse(long.as_bytes()).unwrap())
                .name
                .len(),
            SHOWN_MAX
        );
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(
            too_early(b"PUB secret.subject 5"),
            "PUB came before the credentials"
        );
        assert_eq!(shown(&[b'x'; 70]).len(), 67);
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
        assert_eq!(harmless("no \"\u{e4}\"\n\x1b[2J"), "no \"\u{e4}\"\\n\\u{1b}[2J");
    }
}
