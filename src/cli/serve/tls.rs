//! Flags of TLS, of `mesh serve` and of the stand-in for nats-server, where they have the same names.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::Failure;
use crate::config::Config;
use crate::connection::tls::Options;

/// What the flags say; none of them leaves what the file says.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct TlsFlags {
    /// Encrypt client connections (TLS); the other TLS flags imply it
    #[arg(long, env = "MESH_TLS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    pub tls: Option<bool>,
    /// Certificate of the server, with those between it and the root (PEM)
    #[arg(long, env = "MESH_TLSCERT", value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "MESH_TLSKEY", value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Authorities whose client certificates are believed (PEM)
    #[arg(long, env = "MESH_TLSCACERT", value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Clients must show a certificate
    #[arg(long, env = "MESH_TLSVERIFY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    pub tlsverify: Option<bool>,
}

impl TlsFlags {
    /// Puts the flags over what holds already.
    pub fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        let files = [&self.tlscert, &self.tlskey, &self.tlscacert];
        let implied = files.iter().any(|file| file.is_some()) || self.tlsverify == Some(true);
        match self.tls {
            Some(false) => {
                config.tls = None;
                return Ok(());
            }
            None if !implied => return Ok(()),
            _ => {}
        }
        let options = config.tls.get_or_insert_with(Options::default);
        match (&self.tlscert, &self.tlskey) {
            (Some(certificate), Some(key)) => {
                options.certificates = Options::new(certificate, key).certificates;
            }
            (None, None) if !options.certificates.is_empty() => {}
            (None, _) => return Err(missing("certificate", "--tlscert")),
            (_, None) => return Err(missing("private key", "--tlskey")),
        }
        if self.tlscacert.is_some() {
            options.ca_file.clone_from(&self.tlscacert);
        }
        if let Some(verify) = self.tlsverify {
            options.verify = verify;
            options.map &= verify;
        }
        Ok(())
    }
}

/// In the words of nats-server.
fn missing(what: &str, flag: &str) -> Failure {
    Failure::usage(format!("TLS Server {what} must be present and valid"))
        .hint(format!("name its file with {flag}"))
}
