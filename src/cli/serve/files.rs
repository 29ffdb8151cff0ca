//! Files that tell of a running server: its process id, its ports. Removed when it ends.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::Server;
use crate::config::Process;

use super::super::Failure;

/// The files written for one server.
#[derive(Default)]
pub(super) struct Files {
    pid: Option<PathBuf>,
    ports: Option<PathBuf>,
}

impl Files {
    /// Writes the process id, where that is asked for: digits alone, as nats-server writes it.
    pub fn write_pid(&mut self, process: &Process) -> Result<(), Failure> {
        if self.pid == process.pid_file {
            return Ok(());
        }
        remove(self.pid.take());
        if let Some(path) = &process.pid_file {
            std::fs::write(path, std::process::id().to_string()).map_err(|error| {
                Failure::failed(format!("Could not write pidfile: {}: {error}", path.display()))
            })?;
            self.pid = Some(path.clone());
        }
        Ok(())
    }

    /// Writes where clients and monitoring are met; a file that cannot be written is logged, as in nats-server.
    pub fn write_ports(&mut self, process: &Process, program: &str, server: &Server) {
        let path = process
            .ports_file_dir
            .as_ref()
            .map(|dir| dir.join(format!("{program}_{}.ports", std::process::id())));
        if self.ports == path {
            return;
        }
        remove(self.ports.take());
        let Some(path) = path else { return };
        let monitor = server.monitor_addr();
        let mut ports = json!({"nats": urls("nats", server.local_addr())});
        if let Some(monitor) = monitor {
            let scheme = if server.config().monitor_tls {
                "https"
            } else {
                "http"
            };
            ports["monitoring"] = urls(scheme, monitor).into();
        }
        match write(&path, &ports.to_string()) {
            Ok(()) => self.ports = Some(path),
            Err(error) => tracing::error!("Error writing ports file ({}): {error}", path.display()),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        remove(self.pid.take());
        remove(self.ports.take());
    }
}

fn remove(path: Option<PathBuf>) {
    if let Some(path) = path {
        std::fs::remove_file(path).ok();
    }
}

/// Writes beside and renames, so that who reads it never finds half of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

/// An address as URLs; one that stands for all of them is shown as loopback, which reaches it from here.
fn urls(scheme: &str, address: SocketAddr) -> Vec<String> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    vec![format!("{scheme}://{}", SocketAddr::new(ip, address.port()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_one_can_connect_to() {
        for (address, url) in [
            ("127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("0.0.0.0:4222", "nats://127.0.0.1:4222"),
            ("[::]:1", "nats://[::1]:1"),
            ("10.0.0.1:1", "nats://10.0.0.1:1"),
        ] {
            assert_eq!(urls("nats", address.parse().unwrap()), [url]);
        }
    }
}
