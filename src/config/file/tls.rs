//! The `tls` block and what stands beside it: `allow_non_tls`, `https`.
//!
//! Names, defaults and complaints are nats-server's. The files are read here too, so that a certificate which is not
//! usable is reported with the line that names it. What cannot be done is an error where somebody relies on it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Node, Problem, Value};
use crate::connection::tls::{self, FALLBACK, First, Options, Pair, Tls, Version, cipher, curve};

const KEYS: [&str; 16] = [
    "ca_file",
    "cert_file",
    "certificates",
    "certs",
    "cipher_suites",
    "connection_rate_limit",
    "curve_preferences",
    "handshake_first",
    "insecure",
    "key_file",
    "min_version",
    "ocsp_peer",
    "pinned_certs",
    "timeout",
    "verify",
    "verify_and_map",
];

/// The block as it was read, with the entries that name files.
pub(super) struct Block {
    entry: Entry,
    options: Options,
    files: Vec<(PathBuf, Entry)>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    pairs: Vec<Pair>,
    /// An entry was wrong: the rest is not looked at as a whole.
    is_broken: bool,
}

/// Reads the block; what is wrong is noted.
pub(super) fn read(block: &Entry, notes: &mut Notes) -> Option<Block> {
    let map = block.map(notes)?;
    let mut read = Block {
        entry: block.clone(),
        options: Options::default(),
        files: Vec::new(),
        certificate: None,
        key: None,
        pairs: Vec::new(),
        is_broken: false,
    };
    let before = notes.errors.len();
    for entry in map.entries() {
        let name = entry.name();
        if !(read.certificates(&name, entry, notes)
            || read.clients(&name, entry, notes)
            || read.protocol(&name, entry, notes)
            || unsupported(&name, entry, notes))
        {
            notes.unknown(entry, &KEYS);
        }
    }
    read.pair(block, map, notes);
    read.is_broken = notes.errors.len() > before;
    Some(read)
}

impl Block {
    fn file(&mut self, entry: &Entry, notes: &mut Notes) -> Option<PathBuf> {
        let text = entry.text(notes)?;
        if text.is_empty() {
            notes.error(entry, format!("\"{}\" is empty", entry.key));
            return None;
        }
        let path = PathBuf::from(text);
        self.files.push((path.clone(), entry.clone()));
        Some(path)
    }

    /// What is shown to clients.
    fn certificates(&mut self, name: &str, entry: &Entry, notes: &mut Notes) -> bool {
        match name {
            "cert_file" => self.certificate = self.file(entry, notes),
            "key_file" => self.key = self.file(entry, notes),
            "ca_file" => self.options.ca_file = self.file(entry, notes),
            "certs" | "certificates" => {
                for node in entry.list(notes).unwrap_or_default() {
                    self.one_of_several(node, notes);
                }
            }
            _ => return false,
        }
        true
    }

    fn one_of_several(&mut self, node: &Node, notes: &mut Notes) {
        let Value::Map(map) = &node.value else {
            let text = format!(
                "a certificate is a map {{ cert_file, key_file }}, not {}",
                node.kind()
            );
            return notes.errors.push(Problem::at(&node.spot, text));
        };
        let (mut certificate, mut key) = (None, None);
        for entry in map.entries() {
            match entry.name().as_str() {
                "cert_file" => certificate = self.file(entry, notes),
                "key_file" => key = self.file(entry, notes),
                _ => notes.unknown(entry, &["cert_file", "key_file"]),
            }
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => self.pairs.push(Pair { certificate, key }),
            _ => {
                let text = "a certificate needs both its cert_file and its key_file";
                notes.errors.push(Problem::at(&node.spot, text));
            }
        }
    }

    /// What is asked of clients.
    fn clients(&mut self, name: &str, entry: &Entry, notes: &mut Notes) -> bool {
        let options = &mut self.options;
        match name {
            "verify" => options.verify |= entry.flag(notes) == Some(true),
            "verify_and_map" => {
                options.map = entry.flag(notes) == Some(true);
                options.verify |= options.map;
            }
            "pinned_certs" => options.pinned = pinned(entry, notes),
            "insecure" => {
                if entry.flag(notes) == Some(true) {
                    let text =
                        "\"insecure\" has no effect: it is about connections that this server would make";
                    notes.warn(entry, text);
                }
            }
            _ => return false,
        }
        true
    }

    /// How it is spoken.
    fn protocol(&mut self, name: &str, entry: &Entry, notes: &mut Notes) -> bool {
        let options = &mut self.options;
        match name {
            "timeout" => {
                if let Some(timeout) = super::authorization::timeout(entry, notes) {
                    options.timeout = timeout;
                }
            }
            "min_version" => match entry.text(notes).as_deref() {
                Some("1.2") => options.version_min = Version::Tls12,
                Some("1.3") => options.version_min = Version::Tls13,
                Some(other) => {
                    let other = other.escape_debug();
                    notes.error(
                        entry,
                        format!("unsupported TLS version: {other} (\"1.2\" or \"1.3\")"),
                    );
                }
                None => {}
            },
            "handshake_first" | "first" | "immediate" => match first(entry) {
                Some(first) => options.first = first,
                None => notes.error(
                    entry,
                    format!(
                        "\"{}\" is true, false, auto or a time such as \"300ms\"",
                        entry.key
                    ),
                ),
            },
            "connection_rate_limit" => options.rate_max = entry.count(notes).unwrap_or(0),
            "cipher_suites" => ciphers(entry, options, notes),
            "curve_preferences" => curves(entry, options, notes),
            _ => return false,
        }
        true
    }

    /// Puts certificates and keys together.
    fn pair(&mut self, block: &Entry, map: &Map, notes: &mut Notes) {
        let several = std::mem::take(&mut self.pairs);
        let has_several = map.get("certs").or(map.get("certificates")).is_some();
        match (self.certificate.take(), self.key.take()) {
            (None, None) if has_several => self.options.certificates = several,
            (Some(_), _) | (_, Some(_)) if has_several => {
                notes.error(block, "cannot combine 'cert_file' option with 'certs' option");
            }
            (Some(certificate), Some(key)) => self.options.certificates = vec![Pair { certificate, key }],
            (Some(_), None) if map.get("key_file").is_none() => {
                notes.error(block, "missing 'key_file' in TLS configuration");
            }
            (None, _) if map.get("cert_file").is_none() => {
                notes.error(block, "missing 'cert_file' in TLS configuration");
            }
            // The entry itself has been noted.
            _ => {}
        }
    }

    /// The settings, once all of the file is read: whether clients may stay in clear, and whether there are users to map
    /// certificates to.
    pub fn options(mut self, allow_plain: bool, has_users: bool, notes: &mut Notes) -> Option<Options> {
        if self.is_broken {
            return None;
        }
        self.options.allow_plain = allow_plain;
        let options = self.options;
        if options.map && !has_users {
            let text = "verify_and_map: there are no \"users\" that certificates could name";
            notes.error(&self.entry, text);
        }
        if !options.pinned.is_empty() && !options.verify {
            let text =
                "pinned_certs without verify: no client is asked for a certificate, and none could come in";
            notes.error(&self.entry, text);
        }
        if options.verify && options.ca_file.is_none() {
            let text = "verify without ca_file: every authority that the system trusts may vouch for clients";
            notes.warn(&self.entry, text);
        }
        if let Err(error) = Tls::load(options.clone()) {
            let named = |path: &PathBuf| self.files.iter().find(|(file, _)| file == path);
            let entry = error
                .file
                .as_ref()
                .and_then(named)
                .map_or(&self.entry, |(_, entry)| entry);
            notes.error(entry, format!("tls: {error}"));
            return None;
        }
        Some(options)
    }
}

fn first(entry: &Entry) -> Option<First> {
    let text = match &entry.node.value {
        Value::Flag(true) => return Some(First::Client),
        Value::Flag(false) => return Some(First::Server),
        Value::Text(text) => text.to_ascii_lowercase(),
        _ => return None,
    };
    match text.as_str() {
        "true" | "on" => Some(First::Client),
        "false" | "off" => Some(First::Server),
        "auto" | "auto_fallback" => Some(First::Either(FALLBACK)),
        other if other.bytes().all(|byte| byte.is_ascii_digit()) => None,
        other => crate::config::duration(other).ok().map(First::Either),
    }
}

/// Hashes of keys, in a list or as the keys of a map.
fn pinned(entry: &Entry, notes: &mut Notes) -> BTreeSet<String> {
    let hashes = match &entry.node.value {
        Value::Map(map) => map.entries().iter().map(|entry| entry.key.clone()).collect(),
        _ => entry.texts(notes).unwrap_or_default(),
    };
    if hashes.is_empty() {
        notes.error(entry, "\"pinned_certs\" is empty: nobody could come in");
    }
    let mut pinned = BTreeSet::new();
    for hash in hashes {
        let hash = hash.to_ascii_lowercase();
        if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            pinned.insert(hash);
        } else {
            let text = format!(
                "error parsing 'pinned_certs': {} is not hex sha256",
                hash.escape_debug()
            );
            notes.error(entry, text);
        }
    }
    pinned
}

fn ciphers(entry: &Entry, options: &mut Options, notes: &mut Notes) {
    let Some(names) = entry.texts(notes) else { return };
    if names.is_empty() {
        return notes.error(entry, "'cipher_suites' cannot be empty");
    }
    for name in &names {
        match cipher(name) {
            Ok(Some(cipher)) => options.cipher_suites.push(cipher),
            Ok(None) => notes.warn(entry, format!("{name} is not offered: it is weak")),
            Err(_) => notes.error(entry, format!("unrecognized cipher {}", name.escape_debug())),
        }
    }
    if options.cipher_suites.is_empty() {
        notes.error(entry, "'cipher_suites': none of them is offered by this server");
    }
}

fn curves(entry: &Entry, options: &mut Options, notes: &mut Notes) {
    let Some(names) = entry.texts(notes) else { return };
    if names.is_empty() {
        return notes.error(entry, "'curve_preferences' cannot be empty");
    }
    for name in names {
        match curve(&name) {
            Ok(true) => options.curves.push(name),
            Ok(false) => notes.warn(entry, format!("{name} is not offered by this server")),
            Err(_) => {
                let known: Vec<_> = tls::CURVES.iter().map(|(known, _)| *known).collect();
                let name = name.escape_debug();
                let text = format!(
                    "unrecognized curve preference {name}: one of {}",
                    known.join(", ")
                );
                notes.error(entry, text);
            }
        }
    }
    if options.curves.is_empty() {
        notes.error(
            entry,
            "'curve_preferences': none of them is offered by this server",
        );
    }
}

/// Keys that nats-server has and this server has not.
fn unsupported(name: &str, entry: &Entry, notes: &mut Notes) -> bool {
    let why = match name {
        "allow_insecure_cipher_suites" => {
            if entry.flag(notes) == Some(true) {
                notes.warn(
                    entry,
                    "\"allow_insecure_cipher_suites\" has no effect: none are offered",
                );
            }
            return true;
        }
        "ocsp_peer" => {
            if entry.node.value == Value::Flag(false) {
                return true;
            }
            "client certificates are not asked about by OCSP"
        }
        "cert_store" | "cert_match" | "cert_match_by" | "cert_match_skip_invalid" | "ca_certs_match" => {
            "certificates are read from files alone"
        }
        "verify_cert_and_check_known_urls" => "it is about connections between servers",
        _ => return false,
    };
    if !entry.is_variable {
        notes.error(entry, format!("\"{}\" is not supported: {why}", entry.key));
    }
    true
}
