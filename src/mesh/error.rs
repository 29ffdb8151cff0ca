//! Everything that goes wrong between a session and its mesh.

use std::path::PathBuf;

/// Why a mesh operation failed. The command line turns each kind into its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No event of that name is in the catalog.
    #[error("unknown event `{name}`")]
    UnknownEvent {
        /// What was asked for.
        name: String,
        /// Names close to it, best first.
        near: Vec<String>,
    },
    /// A body does not fit its event's fields.
    #[error("bad body for `{event}`: {problem}")]
    BadBody {
        /// The event.
        event: String,
        /// What is wrong, naming the field.
        problem: String,
    },
    /// A name, pattern or duration that cannot be used.
    #[error("{what} `{value}` {problem}")]
    BadName {
        /// What the value was meant to be.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file with the user's own events is wrong.
    #[error("{}: {problem}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A request to the server failed or was not answered.
    #[error("{what}: {why}")]
    Server {
        /// What was tried.
        what: String,
        /// What the server or the connection said.
        why: String,
    },
    /// The server answered that it will not store the event.
    #[error("the server refused `{event}`: {why}")]
    Refused {
        /// The event.
        event: String,
        /// The server's words.
        why: String,
    },
    /// An event went out and no acknowledgement came back.
    #[error("event {seq} is not confirmed: {why}")]
    Unconfirmed {
        /// The sequence it holds in the journal.
        seq: u64,
        /// What the connection said.
        why: String,
    },
    /// The journal on this machine cannot be used.
    #[error("journal {}: {why}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Git, or a repository of it, does not do what it is asked for.
    #[error("{what}: {why}")]
    Git {
        /// What was tried, with the repository, the ref or the commit.
        what: String,
        /// What git said.
        why: String,
        /// What the reader can do about it.
        next: String,
    },
    /// Events that were spooled in git must go first, and cannot yet.
    #[error("events up to {seq} wait in {place}: {why}")]
    Waiting {
        /// The last one that waits.
        seq: u64,
        /// The repositories.
        place: String,
        /// Why they cannot be imported.
        why: String,
    },
    /// Another instance has revived the session.
    #[error("session `{session}` was revived by {by} as `{new_session}` at {at}")]
    Superseded {
        /// The session asked for.
        session: String,
        /// The instance that revived it.
        by: String,
        /// The session it goes on as.
        new_session: String,
        /// When, in RFC 3339.
        at: String,
    },
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A stored record cannot be read.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// The record.
        what: String,
        /// How it shows.
        why: String,
    },
    /// A key of a bucket cannot be read.
    #[error("key `{key}` of bucket {bucket} is damaged: {why}")]
    DamagedKey {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// How it shows.
        why: String,
    },
    /// The server keeps no streams.
    #[error("JetStream is not enabled on this server")]
    NoStreams,
    /// A command could not be run.
    #[error("cannot run `{command}`: {why}")]
    Command {
        /// The command line.
        command: String,
        /// What the system said.
        why: String,
    },
    /// Reading input or writing output failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Whether it is the server's absence, or looks like it: the same may go well later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Unconfirmed { .. })
    }

    /// A failed request, with what it was for.
    pub(crate) fn server(what: impl Into<String>) -> impl FnOnce(Failed) -> Self {
        let what = what.into();
        move |Failed(why)| Self::Server { what, why }
    }
}

/// The text of a foreign error with its sources, so that no cause is lost on the way.
pub(crate) struct Failed(pub(crate) String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        Self(text)
    }
}

/// Shorthand for `result.map_err(...)` at the edge to the client library.
pub(crate) trait While<T> {
    /// Says what was being done when the server failed.
    fn while_doing(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T, E: std::error::Error> While<T> for Result<T, E> {
    fn while_doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|error| Error::server(what)(Failed::from(error)))
    }
}
