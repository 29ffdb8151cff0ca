//! Who speaks: instance, session and host, and where this machine keeps what it must remember.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use super::Error;

/// Longest name of an instance, session or durable.
pub const NAME_BYTES_MAX: usize = 64;

/// Who an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `$MESH_INSTANCE`, else the host's name.
    pub instance: String,
    /// `$MESH_SESSION`, if set.
    pub session: Option<String>,
    /// `$MESH_PARENT_SESSION`, if set.
    pub parent: Option<String>,
    /// The host's name.
    pub host: String,
}

impl Identity {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, Error> {
        let host = host();
        let instance = match variable("MESH_INSTANCE") {
            Some(name) => checked("instance", &name)?,
            None => host.clone(),
        };
        let session = variable("MESH_SESSION")
            .map(|name| checked("session", &name))
            .transpose()?;
        let parent = variable("MESH_PARENT_SESSION")
            .map(|name| checked("session", &name))
            .transpose()?;
        Ok(Self {
            instance,
            session,
            parent,
            host,
        })
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether `name` can name an instance, a session or a durable: it becomes a key, a consumer and a file.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// `name` if it [`is_name`], else an error that says what a name may be.
pub fn checked(what: &'static str, name: &str) -> Result<String, Error> {
    if is_name(name) {
        return Ok(name.to_owned());
    }
    Err(Error::BadName {
        what,
        value: name.to_owned(),
        problem: "must be 1 to 64 letters, digits, _ or -",
    })
}

/// The host's name up to the first dot, made fit to be a name.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| {
            let output = Command::new("hostname").output().ok()?;
            String::from_utf8(output.stdout).ok()
        })
        .unwrap_or_default();
    let first = name.trim().split('.').next().unwrap_or_default();
    let fit: String = first
        .chars()
        .take(NAME_BYTES_MAX)
        .map(|letter| {
            if letter.is_ascii_alphanumeric() || letter == '_' {
                letter
            } else {
                '-'
            }
        })
        .collect();
    if fit.is_empty() {
        "localhost".to_owned()
    } else {
        fit
    }
}

/// Where journals live: `$MESH_STATE_DIR`, else `mesh` in the user's state directory.
pub fn state_dir() -> PathBuf {
    variable("MESH_STATE_DIR").map_or_else(
        || base("XDG_STATE_HOME", ".local/state").join("mesh"),
        PathBuf::from,
    )
}

/// The file of the user's own events: `$MESH_EVENTS`, else `mesh/events.json` in the configuration directory.
pub fn events_file() -> PathBuf {
    variable("MESH_EVENTS").map_or_else(
        || base("XDG_CONFIG_HOME", ".config").join("mesh/events.json"),
        PathBuf::from,
    )
}

fn base(variable_name: &str, in_home: &str) -> PathBuf {
    variable(variable_name).map_or_else(
        || PathBuf::from(variable("HOME").unwrap_or_else(|| ".".to_owned())).join(in_home),
        PathBuf::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "mac-mini", "S_1", "0b6f3c0e-6d0c-4a3e-9a41-0f6a52b7f5a1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a.b", "a b", "é", "*", "../x", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name(&host()));
    }
}
