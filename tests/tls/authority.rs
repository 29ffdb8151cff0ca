//! An authority with a directory for what it has issued, and a server that shows it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::support::Process;
use crate::support::process::mesh_command;

pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that has issued `server.pem` for this machine; its own certificate is `ca.pem`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Authority {}", nuid::next()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let authority = Self {
            directory: TempDir::new().unwrap(),
            issuer: Issuer::new(params, key),
        };
        authority.write("ca.pem", &certificate.pem());
        authority.server("server");
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Issues `name.pem` with its `name.key`.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    pub fn server(&self, name: &str) {
        self.issue(name, |params| {
            params.distinguished_name.push(DnType::CommonName, "localhost");
            params.subject_alt_names = vec![
                SanType::DnsName("localhost".try_into().unwrap()),
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ];
        });
    }

    /// Issues a client's `name.pem`, with other names and the parts of a subject.
    pub fn client(&self, name: &str, names: Vec<SanType>, subject: &[(DnType, &str)]) {
        self.issue(name, |params| {
            for (kind, value) in subject {
                params.distinguished_name.push(kind.clone(), *value);
            }
            params.subject_alt_names = names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
    }

    /// A configuration whose tls block shows `server.pem` and has `tls` besides.
    pub fn conf(&self, tls: &str, rest: &str) -> String {
        let (certificate, key) = (self.text("server.pem"), self.text("server.key"));
        format!(
            "port: -1\nmonitor_port: -1\n\
             tls {{\n  cert_file: \"{certificate}\"\n  key_file: \"{key}\"\n  {tls}\n}}\n{rest}\n"
        )
    }

    /// The line of the tls block that believes this authority's clients.
    pub fn believed(&self) -> String {
        format!("ca_file: \"{}\"", self.text("ca.pem"))
    }

    /// `mesh serve` with that configuration.
    pub fn serve(&self, tls: &str, rest: &str) -> Process {
        self.write("mesh.conf", &self.conf(tls, rest));
        let store = TempDir::new().unwrap();
        let mut command = mesh_command();
        command.args([
            "serve",
            "-D",
            "-c",
            &self.text("mesh.conf"),
            "--no-mesh",
            "--store-dir",
        ]);
        command.arg(store.path());
        Process::listening(command, store)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap())
            .unwrap();
        roots
    }

    /// A client that believes this authority.
    pub fn believer(&self) -> ClientConfig {
        self.believer_of(rustls::ALL_VERSIONS)
    }

    pub fn believer_of(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// A client that believes this authority and shows `name.pem`.
    pub fn bearer(&self, name: &str) -> ClientConfig {
        let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }
}

/// A page of the server's monitoring, as JSON.
pub fn page(process: &Process, path: &str) -> serde_json::Value {
    let log = process.wait_for("Monitor    http://");
    let after = log.split("Monitor    http://").nth(1).unwrap();
    let address = after.split_whitespace().next().unwrap();
    let mut wire = crate::support::Wire::raw(address);
    wire.send(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let answer = String::from_utf8(wire.drain()).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
