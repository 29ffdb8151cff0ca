//! The INFO object: what the server says of itself to one client.

use serde::{Deserialize, Serialize};

/// The NATS release whose client-visible features this server has: client libraries switch features by it.
pub const NATS_VERSION: &str = "2.11.0";

/// JetStream API level, as NATS counts it: 1 is that of 2.11.
pub const API_LEVEL: u32 = 1;

/// See the module documentation; field names are those of the NATS client protocol, `mesh` is our own version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the NATS client protocol")]
pub struct Info {
    pub server_id: String,
    pub server_name: String,
    pub version: String,
    pub mesh: String,
    pub proto: i32,
    pub go: String,
    pub host: String,
    pub port: u16,
    pub headers: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub auth_required: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls_required: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls_available: bool,
    pub max_payload: usize,
    #[serde(default, skip_serializing_if = "is_false")]
    pub jetstream: bool,
    pub client_id: u64,
    pub client_ip: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub ldm: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub connect_info: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// Whether that is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    #[serde(default)]
    pub api_lvl: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Info {
    /// The line that goes to the client.
    pub fn line(&self) -> Vec<u8> {
        let mut line = b"INFO ".to_vec();
        serde_json::to_writer(&mut line, self).expect("plain fields serialise");
        line.extend_from_slice(b" \r\n");
        line
    }
}
