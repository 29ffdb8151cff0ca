//! The names of suites and of key exchanges in nats-server's files, and what is there of them.

use std::fmt;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedCipherSuite};

use super::Error;

/// Suites that nats-server knows and that are not here: without forward secrecy, or with CBC, RC4, 3DES.
const WEAK: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// Key exchanges by name; what is not here has no group.
pub const CURVES: [(&str, Option<NamedGroup>); 7] = [
    ("X25519", Some(NamedGroup::X25519)),
    ("CurveP256", Some(NamedGroup::secp256r1)),
    ("CurveP384", Some(NamedGroup::secp384r1)),
    ("CurveP521", None),
    ("X25519MLKEM768", None),
    ("SecP256r1MLKEM768", None),
    ("SecP384r1MLKEM1024", None),
];

/// A suite that is here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CipherName(CipherSuite);

impl fmt::Display for CipherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

impl fmt::Debug for CipherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a suite as nats-server has it.
pub(super) fn shown(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or("UNKNOWN").replace("TLS13_", "TLS_")
}

/// A name that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// A suite by its name; none for one that is not here because it is weak.
pub fn cipher(name: &str) -> Result<Option<CipherName>, Unknown> {
    let name = match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        name => name,
    };
    let ours = ring::ALL_CIPHER_SUITES.iter().map(SupportedCipherSuite::suite);
    let found = ours.into_iter().find(|suite| shown(*suite) == name);
    match found {
        Some(suite) => Ok(Some(CipherName(suite))),
        None if WEAK.contains(&name) => Ok(None),
        None => Err(Unknown),
    }
}

/// Whether a key exchange of that name is here.
pub fn curve(name: &str) -> Result<bool, Unknown> {
    let known = CURVES.iter().find(|(known, _)| *known == name);
    known.map(|(_, group)| group.is_some()).ok_or(Unknown)
}

/// The provider with nothing but what is named. As in nats-server suites of TLS 1.3 stay when none of them is named.
pub(super) fn provider(ciphers: &[CipherName], curves: &[String]) -> Result<CryptoProvider, Error> {
    let mut provider = ring::default_provider();
    if !ciphers.is_empty() {
        let is_13 = |suite: &SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_3;
        let is_named =
            |suite: &SupportedCipherSuite| ciphers.iter().any(|CipherName(named)| *named == suite.suite());
        let any_13 = provider
            .cipher_suites
            .iter()
            .any(|suite| is_13(suite) && is_named(suite));
        provider
            .cipher_suites
            .retain(|suite| is_named(suite) || is_13(suite) && !any_13);
    }
    if !curves.is_empty() {
        let group = |name: &String| -> Option<&'static dyn SupportedKxGroup> {
            let (_, group) = CURVES.iter().find(|(known, _)| known == name)?;
            let ours = provider.kx_groups.iter().find(|ours| Some(ours.name()) == *group);
            ours.copied()
        };
        let groups: Vec<_> = curves.iter().filter_map(group).collect();
        if groups.is_empty() {
            return Err(Error::new("none of the curve_preferences is supported"));
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_suites() {
        let here = |name| cipher(name).map(|cipher| cipher.map(|cipher| cipher.to_string()));
        let aes = "TLS_AES_128_GCM_SHA256";
        assert_eq!(here(aes), Ok(Some(aes.to_owned())));
        let chacha = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        assert_eq!(here(chacha), Ok(Some(format!("{chacha}_SHA256"))));
        assert_eq!(here("TLS_RSA_WITH_AES_128_CBC_SHA"), Ok(None));
        assert_eq!(here("TLS_NO_SUCH"), Err(Unknown));
        assert_eq!(
            (curve("X25519"), curve("CurveP521"), curve("P1")),
            (Ok(true), Ok(false), Err(Unknown))
        );
    }

    #[test]
    fn only_what_is_named_is_offered() {
        let names = |ciphers: &[&str], curves: &[&str]| {
            let ciphers: Vec<_> = ciphers.iter().filter_map(|name| cipher(name).unwrap()).collect();
            let curves: Vec<_> = curves.iter().map(|&name| name.to_owned()).collect();
            provider(&ciphers, &curves).map(|provider| {
                let suites: Vec<_> = provider
                    .cipher_suites
                    .iter()
                    .map(|suite| shown(suite.suite()))
                    .collect();
                (
                    suites.join(" "),
                    provider
                        .kx_groups
                        .iter()
                        .map(|group| group.name())
                        .collect::<Vec<_>>(),
                )
            })
        };
        let one = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        let (suites, _) = names(&[one], &[]).unwrap();
        assert_eq!(
            (suites.split(' ').count(), suites.ends_with(one)),
            (4, true),
            "{suites}"
        );
        let (suites, groups) = names(
            &[one, "TLS_AES_256_GCM_SHA384"],
            &["CurveP384", "CurveP521", "X25519"],
        )
        .unwrap();
        assert_eq!(suites, format!("TLS_AES_256_GCM_SHA384 {one}"));
        assert_eq!(groups, [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert!(names(&[], &["CurveP521"]).is_err());
    }
}
