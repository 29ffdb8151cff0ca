//! Which settings a running server can change, and changing them.

use crate::config::Config;
use crate::connection::tls;

/// Settings that differ and cannot change while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not changed by a reload, only by a restart: {}", .0.join(", "))]
pub struct Fixed(pub Vec<&'static str>);

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Settings differ that only a restart changes.
    #[error(transparent)]
    Fixed(#[from] Fixed),
    /// A new certificate, or what else TLS is made of, is not usable: the old one stays in force.
    #[error("cannot have TLS: {0}")]
    Tls(#[from] tls::Error),
}

/// What a reload changed, by name; or what stands in its way.
pub(super) fn compare(old: &Config, new: &Config) -> Result<Vec<&'static str>, Fixed> {
    let fixed = [
        ("host", old.host != new.host),
        ("port", old.port != new.port),
        ("client_advertise", old.advertise != new.advertise),
        ("server_name", old.name != new.name),
        ("server_tags", old.tags != new.tags),
        (
            "monitor_port",
            (old.monitor_port, &old.monitor_host) != (new.monitor_port, &new.monitor_host),
        ),
        ("monitor_hosts", old.monitor_hosts != new.monitor_hosts),
        ("system_account", old.system_account != new.system_account),
        ("https_port", old.monitor_tls != new.monitor_tls),
        ("i_know_this_is_open", old.open_to_all != new.open_to_all),
        ("store_dir", old.store_dir != new.store_dir),
        ("sync", old.sync != new.sync),
        ("domain", old.domain != new.domain),
        ("strict", old.strict != new.strict),
        ("streams, consumers", old.assets != new.assets),
    ];
    let fixed: Vec<_> = fixed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    if !fixed.is_empty() {
        return Err(Fixed(fixed));
    }
    let (before, after) = (&old.connections, &new.connections);
    let changed = [
        ("authorization", old.auth != new.auth),
        ("accounts", old.accounts != new.accounts),
        ("authorization.timeout", before.auth_timeout != after.auth_timeout),
        ("max_payload", before.payload_max != after.payload_max),
        ("max_connections", before.connections_max != after.connections_max),
        (
            "max_subscriptions",
            before.subscriptions_max != after.subscriptions_max,
        ),
        (
            "max_sub_tokens",
            before.subscription_tokens_max != after.subscription_tokens_max,
        ),
        ("max_pending", before.pending_max != after.pending_max),
        (
            "max_control_line",
            before.control_line_max != after.control_line_max,
        ),
        ("ping_interval", before.ping_interval != after.ping_interval),
        ("ping_max", before.pings_out_max != after.pings_out_max),
        ("write_deadline", before.write_deadline != after.write_deadline),
        ("trace", before.trace != after.trace),
    ];
    Ok(changed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_settings_change_and_some_stand_in_the_way() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(compare(&old, &new), Ok(Vec::new()));
        new.connections.payload_max = 100;
        new.auth = crate::account::Auth::Token("t".to_owned());
        assert_eq!(compare(&old, &new), Ok(vec!["authorization", "max_payload"]));
        new.port = 1;
        new.store_dir = Some("x".into());
        assert_eq!(compare(&old, &new), Err(Fixed(vec!["port", "store_dir"])));
    }
}
