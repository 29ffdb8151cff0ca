//! The CONNECT object: what a client says of itself.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Fields of CONNECT that the server heeds; unknown ones are passed over.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of the NATS client protocol")]
pub struct Connect {
    pub verbose: bool,
    pub pedantic: bool,
    pub echo: bool,
    pub protocol: i64,
    pub headers: bool,
    pub no_responders: bool,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub auth_token: Option<String>,
    pub nkey: Option<String>,
    pub sig: Option<String>,
    pub jwt: Option<String>,
    pub name: String,
    pub lang: String,
    pub version: String,
    pub account: String,
    pub new_account: bool,
}

impl Default for Connect {
    /// What holds for a client that never sends CONNECT.
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            protocol: 0,
            headers: false,
            no_responders: false,
            user: None,
            pass: None,
            auth_token: None,
            nkey: None,
            sig: None,
            jwt: None,
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            account: String::new(),
            new_account: false,
        }
    }
}

impl Connect {
    /// Reads the JSON of a first CONNECT line.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        Self::default().merged(json)
    }

    /// Reads the JSON of a CONNECT line; what it does not mention stays as it was. As in nats-server, keys count in any
    /// case, the last of two wins, and null mentions nothing.
    pub fn merged(&self, json: &[u8]) -> Result<Self, serde_json::Error> {
        // What is no UTF-8 is replaced, not refused.
        let text = String::from_utf8_lossy(json);
        let Fields(fields) = serde_json::from_str::<Option<Fields>>(&text)?.unwrap_or_default();
        let mut merged = self.clone();
        for field in fields {
            merged.set(field);
        }
        Ok(merged)
    }

    fn set(&mut self, field: Field) {
        match field {
            Field::Flag(name, value) => match name {
                "verbose" => self.verbose = value,
                "pedantic" => self.pedantic = value,
                "echo" => self.echo = value,
                "headers" => self.headers = value,
                "no_responders" => self.no_responders = value,
                "new_account" => self.new_account = value,
                _ => {}
            },
            Field::Text(name, value) => match name {
                "user" => self.user = Some(value),
                "pass" => self.pass = Some(value),
                "auth_token" => self.auth_token = Some(value),
                "nkey" => self.nkey = Some(value),
                "sig" => self.sig = Some(value),
                "jwt" => self.jwt = Some(value),
                "name" => self.name = value,
                "lang" => self.lang = value,
                "version" => self.version = value,
                "account" => self.account = value,
                _ => {}
            },
            Field::Protocol(value) => self.protocol = value,
        }
    }
}

/// Boolean fields; of those that mean nothing here only the type is checked.
const FLAGS: [&str; 7] = [
    "verbose",
    "pedantic",
    "echo",
    "headers",
    "no_responders",
    "new_account",
    "tls_required",
];
/// Text fields, likewise.
const TEXTS: [&str; 12] = [
    "user",
    "pass",
    "auth_token",
    "name",
    "lang",
    "version",
    "account",
    "jwt",
    "nkey",
    "sig",
    "remote_account",
    "proxy_sig",
];

enum Field {
    Flag(&'static str, bool),
    Text(&'static str, String),
    Protocol(i64),
}

/// The fields of the object that have a value, in order.
#[derive(Default)]
struct Fields(Vec<Field>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = |name: &&&'static str| name.eq_ignore_ascii_case(&key);
            let field = if let Some(name) = FLAGS.iter().find(known) {
                map.next_value::<Option<bool>>()?
                    .map(|value| Field::Flag(name, value))
            } else if let Some(name) = TEXTS.iter().find(known) {
                map.next_value::<Option<String>>()?
                    .map(|value| Field::Text(name, value))
            } else if key.eq_ignore_ascii_case("protocol") {
                map.next_value::<Option<i64>>()?.map(Field::Protocol)
            } else {
                map.next_value::<IgnoredAny>()?;
                None
            };
            fields.extend(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_means_the_default() {
        for empty in [&b"{}"[..], b"null", br#"{"verbose":null}"#] {
            let empty = Connect::parse(empty).unwrap();
            assert!(empty.verbose && empty.pedantic && empty.echo && !empty.headers && empty.protocol == 0);
        }
        let given =
            Connect::parse(br#"{"Verbose":false,"user":"u","pass":null,"jwt":"x","tls_required":true}"#);
        let given = given.unwrap();
        assert_eq!(
            (given.verbose, given.user.as_deref(), given.pass),
            (false, Some("u"), None)
        );
        let nulls = br#"{"verbose":null,"name":null,"lang":null,"protocol":null,"headers":null,"user":null}"#;
        let nulls = Connect::parse(nulls).unwrap();
        assert!(nulls.verbose && nulls.name.is_empty() && nulls.protocol == 0 && !nulls.headers);
        for bad in [
            &b"{"[..],
            b"[]",
            b"",
            br#"{"verbose":"x"}"#,
            br#"{"jwt":1}"#,
            b"{}{}",
        ] {
            assert!(Connect::parse(bad).is_err());
        }
    }

    #[test]
    fn a_second_one_adds_to_the_first() {
        let first = Connect::parse(br#"{"verbose":false,"headers":true,"name":"n"}"#).unwrap();
        let second = first.merged(br#"{"headers":false,"echo":false}"#).unwrap();
        assert_eq!(
            (second.verbose, second.headers, second.echo),
            (false, false, false)
        );
        assert_eq!(second.name, "n");
    }
}
