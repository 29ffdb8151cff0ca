//! The names in a client's certificate, and the user that one of them stands for (`verify_and_map`).
//!
//! Order of nats-server: e-mail addresses, DNS names, URIs, then the subject as RFC 2253 writes it. The parts of a subject
//! may stand in any order; a user that has them in the order of the certificate goes first. A user that has a password must
//! show it besides.
//! That a certificate is genuine has been seen to before: here it is only read.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Any, Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::protocol::connect::Connect;

use super::auth::{User, Users, Verdict};

/// Attribute types of subjects by the names they are written with; the first name of a type is the one shown.
const TYPES: [(&str, &str); 17] = [
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("TITLE", "2.5.4.12"),
    ("POSTALCODE", "2.5.4.17"),
    ("GIVENNAME", "2.5.4.42"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
    ("E", "1.2.840.113549.1.9.1"),
];

/// Parts of a name, each one or more attributes as type and value.
type Parts = Vec<Vec<(String, String)>>;

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// E-mail addresses, then DNS names, then URIs.
    alternatives: Vec<String>,
    /// The last part first, as it is written.
    subject: Parts,
    /// SHA-256 of the public key (its SPKI), in hexadecimal.
    pub key_sha256: String,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub sha256: String,
    /// When it expires.
    pub expires: SystemTime,
}

impl Certificate {
    /// Reads one in DER.
    pub fn parse(der: impl AsRef<[u8]>) -> Result<Self, String> {
        let der = der.as_ref();
        let certificate = x509_cert::Certificate::from_der(der).map_err(|error| error.to_string())?;
        let body = &certificate.tbs_certificate;
        let names = match body.get::<SubjectAltName>() {
            Ok(names) => names.map(|(_, names)| names.0).unwrap_or_default(),
            Err(error) => return Err(format!("subjectAltName: {error}")),
        };
        let kind = |wanted: fn(&GeneralName) -> Option<&str>| names.iter().filter_map(wanted);
        let alternatives = kind(|name| match name {
            GeneralName::Rfc822Name(email) => Some(email.as_str()),
            _ => None,
        })
        .chain(kind(|name| match name {
            GeneralName::DnsName(dns) => Some(dns.as_str()),
            _ => None,
        }))
        .chain(kind(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        }));
        let part = |part: &x509_cert::name::RelativeDistinguishedName| {
            let attributes = part.0.iter();
            let mut attributes: Vec<_> = attributes
                .map(|attribute| (attribute.oid.to_string(), text(&attribute.value)))
                .collect();
            attributes.sort();
            attributes
        };
        let key = body
            .subject_public_key_info
            .to_der()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            alternatives: alternatives.map(ToOwned::to_owned).collect(),
            subject: body.subject.0.iter().rev().map(part).collect(),
            key_sha256: hexadecimal(&key),
            sha256: hexadecimal(der),
            expires: body.validity.not_after.to_system_time(),
        })
    }

    /// Whether it names one of `users`, and that one's password is shown, if there is one.
    pub fn check(&self, users: &Users, connect: &Connect) -> Verdict {
        match self.user(users) {
            Some(user) => user.compared(connect),
            None => {
                let names = self.names();
                Verdict::Refused(format!("none of the users is named by its certificate: {names}"))
            }
        }
    }

    /// The one of `users` whom it names.
    fn user(&self, users: &Users) -> Option<Arc<User>> {
        let by_name = self.alternatives.iter().find_map(|name| users.get(name));
        if let Some(user) = by_name {
            return Some(user.clone());
        }
        if self.subject.is_empty() {
            return None;
        }
        let mut named: Vec<_> = users
            .iter()
            .filter_map(|user| Some((parts(&user.name)?, user)))
            .filter(|(parts, _)| sorted(parts) == sorted(&self.subject))
            .collect();
        // Two users may have the same parts in another order: the answer must not depend on chance.
        named.sort_by_key(|(parts, user)| (*parts != self.subject, user.name.clone()));
        named.first().map(|(_, user)| Arc::clone(user))
    }

    /// Its subject, as RFC 2253 writes it.
    pub fn subject(&self) -> String {
        let attribute = |(oid, value): &(String, String)| {
            let name = TYPES.iter().find(|(_, known)| known == oid);
            format!(
                "{}={}",
                name.map_or(oid.as_str(), |(name, _)| name),
                escaped(value)
            )
        };
        let part = |part: &Vec<_>| part.iter().map(attribute).collect::<Vec<_>>().join("+");
        self.subject.iter().map(part).collect::<Vec<_>>().join(",")
    }

    /// All names that a user might have by it, for the log.
    pub fn names(&self) -> impl fmt::Display + use<> {
        let names = self.alternatives.iter().cloned().chain([self.subject()]);
        let names: Vec<_> = names
            .filter(|name| !name.is_empty())
            .map(|name| format!("\"{}\"", name.escape_debug()))
            .collect();
        names.join(", ")
    }
}

fn sorted(parts: &Parts) -> Parts {
    let mut sorted = parts.clone();
    sorted.sort();
    sorted
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn text(value: &Any) -> String {
    let text = match value.tag() {
        Tag::PrintableString => PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned()),
        Tag::Utf8String => Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned()),
        Tag::Ia5String => Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()),
        Tag::TeletexString => TeletexStringRef::try_from(value).map(|text| text.as_str().to_owned()),
        _ => Ok(format!(
            "#{}",
            value
                .value()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        )),
    };
    text.unwrap_or_default()
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (at, letter) in value.chars().enumerate() {
        let at_an_end = letter == ' ' && (at == 0 || at == last) || letter == '#' && at == 0;
        if at_an_end || "\"+,;<>\\=".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// The parts of a name as RFC 2253 writes it; none when it is no such name.
fn parts(name: &str) -> Option<Parts> {
    let mut parts: Parts = vec![Vec::new()];
    let mut rest = name;
    loop {
        let (kind, after) = rest.split_once('=')?;
        let kind = kind.trim().to_ascii_uppercase();
        if kind.is_empty()
            || !kind
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        {
            return None;
        }
        let oid = TYPES.iter().find(|(known, _)| *known == kind);
        let oid = oid.map_or(kind, |(_, oid)| (*oid).to_owned());
        let (value, end, after) = value(after)?;
        let part = parts.last_mut()?;
        part.push((oid.trim_start_matches("OID.").to_owned(), value));
        part.sort();
        match end {
            None => return Some(parts),
            Some('+') => {}
            Some(_) => parts.push(Vec::new()),
        }
        rest = after;
    }
}

/// A value up to its separator: the value, the separator, what follows.
fn value(text: &str) -> Option<(String, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    let mut bytes = Vec::new();
    // Where the last letter stands that is no blank to be left out.
    let mut kept = 0;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            ',' | ';' | '+' => {
                bytes.truncate(kept);
                return Some((String::from_utf8(bytes).ok()?, Some(letter), &text[at + 1..]));
            }
            '\\' => {
                let (_, next) = letters.next()?;
                if next.is_ascii_hexdigit() {
                    let (_, second) = letters.next()?;
                    bytes.push(u8::from_str_radix(&format!("{next}{second}"), 16).ok()?);
                } else {
                    bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                }
                kept = bytes.len();
            }
            _ => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                if letter != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    Some((String::from_utf8(bytes).ok()?, None, ""))
}

#[cfg(test)]
mod tests {
    use super::super::auth::Login;
    use super::*;

    fn users(names: &[&str]) -> Users {
        let mut users = Users::default();
        for name in names {
            let user = User {
                name: (*name).to_owned(),
                login: Login::Password(String::new()),
                permissions: None,
                account: super::super::GLOBAL.into(),
                rule: "test".to_owned(),
            };
            assert!(users.add(user));
        }
        users
    }

    fn certificate(alternatives: &[&str], subject: &str) -> Certificate {
        Certificate {
            alternatives: alternatives.iter().map(|&name| name.to_owned()).collect(),
            subject: parts(subject).unwrap_or_default(),
            key_sha256: String::new(),
            sha256: String::new(),
            expires: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for (name, written) in [
            ("CN=a", "CN=a"),
            ("cn = a b , O= c ;OU=d", "CN=a b,O=c,OU=d"),
            (r"CN=a\, b+OU=\20c\e4\bd\a0,DC=x", "OU=\\ c你+CN=a\\, b,DC=x"),
            ("1.2.3=x,OID.2.5.4.3=y,E=m@x", "1.2.3=x,CN=y,EMAILADDRESS=m@x"),
        ] {
            assert_eq!(certificate(&[], name).subject(), written, "{name}");
        }
        for other in ["", "bob", "CN", "=x", "CN=a,b", "CN=a\\", "a b=c", r"CN=\f"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn a_user_is_found_by_the_first_name_that_fits() {
        let found = |names: &[&str], certificate: &Certificate| {
            certificate.user(&users(names)).map(|user| user.name.clone())
        };
        let full = certificate(&["m@x", "dns.x", "spiffe://x/y"], "CN=a,OU=b,O=c");
        for (names, expected) in [
            (vec!["spiffe://x/y", "dns.x", "m@x"], Some("m@x")),
            (vec!["spiffe://x/y", "dns.x"], Some("dns.x")),
            (vec!["CN=a,OU=b,O=c", "spiffe://x/y"], Some("spiffe://x/y")),
            (vec!["O=c,CN=a,OU=b", "CN=a,OU=b,O=c"], Some("CN=a,OU=b,O=c")),
            (vec!["O=c, ou=b, CN=a"], Some("O=c, ou=b, CN=a")),
            (vec!["CN=a,OU=b", "CN=a", "a", "CN=A,OU=b,O=c"], None),
            (vec![], None),
        ] {
            assert_eq!(found(&names, &full).as_deref(), expected, "{names:?}");
        }
        assert_eq!(found(&["", "x"], &certificate(&[], "")), None);
    }

    #[test]
    fn a_password_is_asked_for_besides() {
        let user = |name: &str, login| User {
            name: name.to_owned(),
            login,
            permissions: None,
            account: super::super::GLOBAL.into(),
            rule: "test".to_owned(),
        };
        let mut users = Users::default();
        assert!(users.add(user("bare", Login::Password(String::new()))));
        assert!(users.add(user("both", Login::Password("secret".to_owned()))));
        assert!(users.add(user("key", Login::NKey)));
        let hash = bcrypt::hash("secret", 4).unwrap();
        assert!(users.add(user("hashed", Login::Password(hash))));
        for (name, json, comes_in) in [
            ("bare", "{}", true),
            ("bare", r#"{"user":"both"}"#, true),
            ("bare", r#"{"pass":"secret"}"#, false),
            ("both", "{}", false),
            ("both", r#"{"user":"bare","pass":""}"#, false),
            ("both", r#"{"user":"bare","pass":"secret"}"#, true),
            ("hashed", r#"{"pass":"secret"}"#, true),
            ("hashed", r#"{"pass":"other"}"#, false),
            ("key", "{}", false),
            ("nobody", r#"{"user":"bare"}"#, false),
        ] {
            let connect = Connect::parse(json.as_bytes()).unwrap();
            let verdict = match certificate(&[name], "").check(&users, &connect) {
                Verdict::Later(verification) => {
                    assert_eq!(verification.user().unwrap().name, name);
                    verification.run()
                }
                verdict => verdict,
            };
            match verdict {
                Verdict::Admitted(Some(user)) if comes_in => assert_eq!(user.name, name),
                Verdict::Refused(_) if !comes_in => {}
                other => panic!("{name} {json}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        assert!(Certificate::parse(b"").is_err());
        assert!(Certificate::parse([0x30; 100]).is_err());
    }
}
