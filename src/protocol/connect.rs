//! The CONNECT object: what a client says of itself.

use serde::Deserialize;

fn yes() -> bool {
    true
}

/// Fields of CONNECT that the server heeds; unknown ones are passed over.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are those of the NATS client protocol")]
pub struct Connect {
    #[serde(default = "yes")]
    pub verbose: bool,
    #[serde(default = "yes")]
    pub pedantic: bool,
    #[serde(default = "yes")]
    pub echo: bool,
    pub protocol: i64,
    pub headers: bool,
    pub no_responders: bool,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub auth_token: Option<String>,
    pub name: String,
    pub lang: String,
    pub version: String,
    pub account: String,
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
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            account: String::new(),
        }
    }
}

impl Connect {
    /// Reads the JSON of a CONNECT line.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        // serde would take an array for a struct.
        if json.first() != Some(&b'{') {
            return Err(serde::de::Error::custom("CONNECT takes a JSON object"));
        }
        serde_json::from_slice(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_means_the_default() {
        let empty = Connect::parse(b"{}").unwrap();
        assert!(empty.verbose && empty.pedantic && empty.echo && !empty.headers && empty.protocol == 0);
        let given =
            Connect::parse(br#"{"verbose":false,"user":"u","pass":null,"jwt":"x","tls_required":true}"#);
        let given = given.unwrap();
        assert_eq!(
            (given.verbose, given.user.as_deref(), given.pass),
            (false, Some("u"), None)
        );
        for bad in [&b"{"[..], b"[]", b"", br#"{"verbose":"x"}"#] {
            assert!(Connect::parse(bad).is_err());
        }
    }
}
