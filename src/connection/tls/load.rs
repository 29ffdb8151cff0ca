//! From settings to what handshakes are made with: reads certificates and keys, and says which of them is wrong.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::account::Certificate;

use super::rate::Rate;
use super::select::Choice;
use super::{Error, Options, Pair, Version, suites};

/// Sessions of TLS 1.2 that clients can take up again.
const SESSIONS_KEPT_MAX: usize = 4096;

/// See the module documentation.
pub struct Tls {
    options: Options,
    clients: Arc<ServerConfig>,
    /// For HTTP: nobody there is asked for a certificate.
    pages: Arc<ServerConfig>,
    /// When the first of its certificates to expire does.
    expires: Option<SystemTime>,
    /// Of everything that was read.
    digest: [u8; 32],
    rate: Mutex<Rate>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files that `options` names.
    pub fn load(options: Options) -> Result<Self, Error> {
        if options.certificates.is_empty() {
            return Err(Error::new("missing 'cert_file' in TLS configuration"));
        }
        let provider = Arc::new(suites::provider(&options.cipher_suites, &options.curves)?);
        let mut digest = Sha256::new();
        let mut expires = None;
        let mut keys = Vec::new();
        for pair in &options.certificates {
            let key = certified(pair, &provider, &mut digest)?;
            let leaf = key
                .end_entity_cert()
                .ok()
                .and_then(|leaf| Certificate::parse(leaf).ok());
            if let Some(until) = leaf.map(|leaf| leaf.expires) {
                expires = Some(expires.map_or(until, |earlier: SystemTime| earlier.min(until)));
            }
            keys.push(Arc::new(key));
        }
        let roots = match options.verify {
            false => None,
            true => Some(Arc::new(roots(options.ca_file.as_deref(), &mut digest)?)),
        };
        let choice = Arc::new(Choice(keys));
        let clients = server_config(&options, &provider, roots, &choice)?;
        let pages = server_config(&options, &provider, None, &choice)?;
        Ok(Self {
            clients: Arc::new(clients),
            pages: Arc::new(pages),
            expires,
            digest: digest.finalize().into(),
            rate: Mutex::new(Rate::new(options.rate_max)),
            options,
        })
    }

    /// The settings it was made of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// When the first of its certificates to expire does.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// For handshakes with clients.
    pub fn clients(&self) -> &Arc<ServerConfig> {
        &self.clients
    }

    /// For handshakes with those who read pages.
    pub fn pages(&self) -> &Arc<ServerConfig> {
        &self.pages
    }

    /// Whether settings and files are those of `other`.
    pub fn is_same(&self, other: &Tls) -> bool {
        self.options == other.options && self.digest == other.digest
    }

    /// Whether a client with this certificate may come in.
    pub fn is_pinned(&self, certificate: Option<&Certificate>) -> bool {
        let pinned = &self.options.pinned;
        pinned.is_empty() || certificate.is_some_and(|certificate| pinned.contains(&certificate.key_sha256))
    }

    /// Whether one more handshake may begin.
    pub(super) fn allow(&self) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.allow(Instant::now())
    }
}

fn server_config(
    options: &Options,
    provider: &Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
    choice: &Arc<Choice>,
) -> Result<ServerConfig, Error> {
    let versions: &[_] = match options.version_min {
        Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| Error::new(error.to_string()))?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| Error::new(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(choice.clone());
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_KEPT_MAX);
    Ok(config)
}

fn read(path: &Path, digest: &mut Sha256) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    digest.update(bytes.len().to_le_bytes());
    digest.update(&bytes);
    Ok(bytes)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|error| Error::file(path, format!("no usable PEM: {error}")))?;
    if read.is_empty() {
        return Err(Error::file(path, "there is no certificate in it (PEM)"));
    }
    Ok(read)
}

/// A certificate and its key, which must be its own.
fn certified(pair: &Pair, provider: &CryptoProvider, digest: &mut Sha256) -> Result<CertifiedKey, Error> {
    let chain = certificates(&pair.certificate, &read(&pair.certificate, digest)?)?;
    let bytes = read(&pair.key, digest)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if bytes.windows(9).any(|window| window == b"ENCRYPTED") => Error::file(
            &pair.key,
            "the private key is encrypted, and there is no passphrase to be asked",
        ),
        pem::Error::NoItemsFound => Error::file(&pair.key, "there is no private key in it (PEM)"),
        error => Error::file(&pair.key, format!("no usable PEM: {error}")),
    })?;
    let signing = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| Error::file(&pair.key, format!("no usable private key: {error}")))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let why = format!("the private key is not that of {}", pair.certificate.display());
            Err(Error::file(&pair.key, why))
        }
        Err(error) => Err(Error::file(
            &pair.certificate,
            format!("no usable certificate: {error}"),
        )),
    }
}

/// The authorities that are believed.
fn roots(file: Option<&Path>, digest: &mut Sha256) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            return Err(Error::new(
                "clients are to be verified, but there is no 'ca_file' and the system trusts no authority",
            ));
        }
        return Ok(roots);
    };
    for certificate in certificates(path, &read(path, digest)?)? {
        roots
            .add(certificate)
            .map_err(|error| Error::file(path, format!("no usable authority: {error}")))?;
    }
    Ok(roots)
}
