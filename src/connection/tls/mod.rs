//! TLS for clients: what is asked of them, the certificates shown to them, and the handshake.
//!
//! [`Options`] are the settings, [`Tls`] what was made of them once: files are read when it is made, not when a client
//! comes. A reload makes another one; connections that are in keep what they have agreed on.
//! INFO goes out in clear and the socket is upgraded then, as NATS has it, unless the client is to begin (`first`).
//!
//! Deliberately absent: OCSP, the certificate stores of an operating system (but for the roots it trusts), TLS inside
//! this process.

mod handshake;
mod load;
mod rate;
mod select;
mod stream;
mod suites;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::account::{Auth, Certificate, Users, Verdict};
use crate::protocol::connect::Connect;
use crate::protocol::info::Info;

use super::handle::Handle;

pub use load::Tls;
pub use suites::{CURVES, CipherName, Unknown, cipher, curve};

pub(super) use handshake::secure;
pub(super) use stream::{Read, Write, split};

/// How long a handshake may take, as in nats-server.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// How long `handshake_first: auto` waits for the client to begin.
pub const FALLBACK: Duration = Duration::from_millis(50);

/// A certificate with its chain, and its key: PEM files, which may be one and the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Who speaks first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum First {
    /// The server: INFO in clear, then the handshake.
    #[default]
    Server,
    /// The client: the handshake, then INFO.
    Client,
    /// The client if it begins in that time, else the server.
    Either(Duration),
}

/// The oldest version spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2
    #[default]
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// Settings of TLS for clients. The default has no certificate: name one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is shown to clients; of several, the first that fits what a client asks for.
    pub certificates: Vec<Pair>,
    /// PEM file of the authorities whose client certificates are believed; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// Clients must show a certificate.
    pub verify: bool,
    /// And are the user whose name is in it; needs `verify` and several users.
    pub map: bool,
    /// SHA-256 of the public keys (their SPKI) that clients may have, in hexadecimal; empty is any.
    pub pinned: BTreeSet<String>,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// The oldest version spoken.
    pub version_min: Version,
    /// Suites by the names of nats-server; empty is all that are there.
    pub cipher_suites: Vec<CipherName>,
    /// Key exchanges by the names of nats-server, the best first; empty is all that are there.
    pub curves: Vec<String>,
    /// Who speaks first.
    pub first: First,
    /// Handshakes begun in a second, above which clients are sent away; zero is no limit.
    pub rate_max: usize,
    /// Clients may stay in clear (`allow_non_tls`).
    pub allow_plain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            ca_file: None,
            verify: false,
            map: false,
            pinned: BTreeSet::new(),
            timeout: TIMEOUT,
            version_min: Version::Tls12,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
            first: First::Server,
            rate_max: 0,
            allow_plain: false,
        }
    }
}

impl Options {
    /// TLS with this certificate and key, everything else as usual.
    pub fn new(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self {
            certificates: vec![Pair {
                certificate: certificate.as_ref().to_owned(),
                key: key.as_ref().to_owned(),
            }],
            ..Self::default()
        }
    }
}

/// What cannot be made of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file that is wrong, if one is.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub why: String,
}

impl Error {
    /// Something other than a file is wrong.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            file: None,
            why: why.into(),
        }
    }

    fn file(path: &Path, why: impl fmt::Display) -> Self {
        Self {
            file: Some(path.to_owned()),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(f, "{}: {}", path.display(), self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl std::error::Error for Error {}

/// What a connection has agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The name of the suite, as nats-server shows it.
    pub cipher_suite: String,
    /// Whether the handshake came before INFO.
    pub first: bool,
    /// What the client has shown.
    pub certificate: Option<Certificate>,
}

/// Tells a client what is asked of it.
pub(crate) fn advertise(info: &mut Info, tls: Option<&Tls>, handle: &Handle) {
    let Some(options) = tls.map(Tls::options).filter(|_| !handle.is_in_process()) else {
        return;
    };
    let agreed_first = handle.tls().is_some_and(|agreed| agreed.first);
    info.tls_required = !options.allow_plain || agreed_first;
    info.tls_available = options.allow_plain;
    info.tls_verify = options.verify;
}

/// Who a client is by its certificate, where certificates say so; none where its credentials do.
///
/// As in nats-server an nkey goes first, the user it says it is counts for nothing, and a password is asked for where the user
/// has one.
pub(super) fn mapped(tls: Option<&Tls>, auth: &Auth, connect: &Connect, handle: &Handle) -> Option<Verdict> {
    let users = maps(tls, auth, handle)?;
    if connect.nkey.as_deref().is_some_and(|key| !key.is_empty()) && auth.has_nkeys() {
        return None;
    }
    let certificate = handle.tls().and_then(|agreed| agreed.certificate.as_ref());
    let Some(certificate) = certificate else {
        return Some(Verdict::Refused("it has shown no certificate".to_owned()));
    };
    Some(certificate.check(users, connect))
}

/// The users that certificates are mapped to, where they are.
pub(super) fn maps<'a>(tls: Option<&Tls>, auth: &'a Auth, handle: &Handle) -> Option<&'a Users> {
    match auth {
        Auth::Users(users) if tls.is_some_and(|tls| tls.options().map) && !handle.is_in_process() => {
            Some(users)
        }
        _ => None,
    }
}
