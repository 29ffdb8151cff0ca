//! Which settings a running server can change, and changing them.

use std::net::SocketAddr;

use crate::account;
use crate::config::Config;
use crate::connection::tls;

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Settings that differ and cannot change while the server runs.
    #[error("not changed by a reload, only by a restart: {}", .0.join(", "))]
    Fixed(Vec<&'static str>),
    /// Limits or times of connections that cannot be meant.
    #[error("{0}")]
    Limits(String),
    /// Accounts that make no sense together.
    #[error("accounts make no sense together: {}", told(.0))]
    Accounts(Vec<account::Problem>),
    /// Anybody who can reach the port could come in, as at a start.
    #[error("refusing to listen on {0} without authentication")]
    OpenBind(SocketAddr),
    /// A new certificate, or what else TLS is made of, is not usable: the old one stays in force.
    #[error("cannot have TLS: {0}")]
    Tls(#[from] tls::Error),
}

/// All problems in one line.
pub(super) fn told(problems: &[account::Problem]) -> String {
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    told.join("; ")
}

/// What a reload changed, by name; or what stands in its way. The server listens on `listens`.
pub(super) fn compare(
    old: &Config,
    new: &Config,
    listens: &[SocketAddr],
) -> Result<Vec<&'static str>, ReloadError> {
    let fixed = fixed(old, new);
    if !fixed.is_empty() {
        return Err(ReloadError::Fixed(fixed));
    }
    if let Some(problem) = new.connections.problem() {
        return Err(ReloadError::Limits(problem));
    }
    let problems = super::problems(new);
    if !problems.is_empty() {
        return Err(ReloadError::Accounts(problems));
    }
    // What was open before was so by the choice of who started it.
    if new.auth.admits_anybody() && !old.auth.admits_anybody() && !new.open_to_all {
        let beyond = listens.iter().find(|address| !super::is_loopback(address.ip()));
        if let Some(address) = beyond {
            return Err(ReloadError::OpenBind(*address));
        }
    }
    Ok(changed(old, new))
}

/// Settings that differ and cannot change while the server runs.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
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
        ("max_mem", old.memory_max != new.memory_max),
        ("max_file", old.storage_max != new.storage_max),
        ("streams, consumers", old.assets != new.assets),
    ];
    named(&fixed)
}

/// Settings that differ and change.
fn changed(old: &Config, new: &Config) -> Vec<&'static str> {
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
    named(&changed)
}

fn named(settings: &[(&'static str, bool)]) -> Vec<&'static str> {
    let differ = settings.iter().filter(|(_, differs)| *differs);
    differ.map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(old: &Config, new: &Config) -> Result<Vec<&'static str>, String> {
        compare(old, new, &["127.0.0.1:4222".parse().unwrap()]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_others_reach_is_not_opened_to_anybody() {
        let beyond = [
            "127.0.0.1:8222".parse().unwrap(),
            "192.0.2.1:4222".parse().unwrap(),
        ];
        let told = |old: &Config, new: &Config, listens: &[SocketAddr]| {
            compare(old, new, listens).map_err(|error| error.to_string())
        };
        let open = Config::default();
        let closed = Config {
            auth: crate::account::Auth::Token("t".to_owned()),
            ..Config::default()
        };
        let refused = "refusing to listen on 192.0.2.1:4222 without authentication";
        assert_eq!(told(&closed, &open, &beyond), Err(refused.to_owned()));
        assert_eq!(told(&closed, &open, &beyond[..1]), Ok(vec!["authorization"]));
        assert_eq!(told(&open, &closed, &beyond), Ok(vec!["authorization"]));
        // Whoever started it so knows.
        assert_eq!(told(&open, &open, &beyond), Ok(Vec::new()));
        let known = |config: Config| Config {
            open_to_all: true,
            ..config
        };
        let told = told(&known(closed), &known(open), &beyond);
        assert_eq!(told, Ok(vec!["authorization"]));
    }

    #[test]
    fn some_settings_change_and_some_stand_in_the_way() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(compared(&old, &new), Ok(Vec::new()));
        new.connections.payload_max = 100;
        new.auth = crate::account::Auth::Token("t".to_owned());
        assert_eq!(compared(&old, &new), Ok(vec!["authorization", "max_payload"]));
        new.accounts = vec![account::Spec::new("A")];
        assert_eq!(
            compared(&old, &new),
            Ok(vec!["authorization", "accounts", "max_payload"])
        );
        new.accounts.push(account::Spec::new("A"));
        let told = compared(&old, &new).unwrap_err();
        assert_eq!(
            told,
            "accounts make no sense together: account A: account \"A\" is there twice"
        );
        new.port = 1;
        new.store_dir = Some("x".into());
        assert_eq!(
            compared(&old, &new),
            Err("not changed by a reload, only by a restart: port, store_dir".to_owned())
        );
    }
}
