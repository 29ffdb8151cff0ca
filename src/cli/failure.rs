//! How a command ends badly: what happened, what to do next, and the exit code.

use std::fmt;
use std::io::{self, Write};

/// Why a command failed. Exit codes: 1 failed, 2 usage, 3 unhealthy, 4 not found, 5 conflict.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// The exit code of a call that was put wrongly.
    pub const USAGE: u8 = 2;
    /// The exit code when the server is down or not well.
    pub const UNHEALTHY: u8 = 3;
    /// The exit code when what was named is not there.
    pub const NOT_FOUND: u8 = 4;
    /// The exit code when someone else was there first.
    pub const CONFLICT: u8 = 5;

    /// Exit code 1.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::with_code(1, what)
    }

    /// Exit code 2: the call itself is wrong.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::with_code(Self::USAGE, what)
    }

    /// Exit code 3: the server is down or not well.
    pub fn unhealthy(what: impl fmt::Display) -> Self {
        Self::with_code(Self::UNHEALTHY, what)
    }

    /// Exit code 4.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::with_code(Self::NOT_FOUND, what)
    }

    /// Exit code 5.
    pub fn conflict(what: impl fmt::Display) -> Self {
        Self::with_code(Self::CONFLICT, what)
    }

    /// Whoever read our output has gone (`mesh ... | head`): stop at once, silently, with success.
    fn reader_gone() -> Self {
        Self::with_code(0, "")
    }

    /// Any exit code: that of a command which was run for the user.
    pub fn with_code(code: u8, what: impl fmt::Display) -> Self {
        Self {
            code,
            what: what.to_string(),
            hint: None,
        }
    }

    /// Adds the next step for the reader, one line or more.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// What happened and what to do next, a line each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let hint = self.hint.iter().flat_map(|hint| hint.lines());
        std::iter::once(self.what.as_str()).chain(hint)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the failure to stderr.
    pub fn report(&self) {
        if self.code != 0 {
            writeln!(anstream::stderr(), "{self}").ok();
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for line in self.hint.iter().flat_map(|hint| hint.lines()) {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::reader_gone(),
            _ => Self::failed(error),
        }
    }
}
