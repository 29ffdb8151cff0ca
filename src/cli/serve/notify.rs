//! What a service manager is told: ready, stopping, and that the server still answers (systemd's `sd_notify` protocol,
//! a datagram a message to the socket that `$NOTIFY_SOCKET` names). Without such a manager nothing is said.
//!
//! A watchdog that the process feeds from a timer only proves that it has a timer. Ours is fed after a message went
//! through the router and a new connection was greeted, so a server that is up and deaf is started again. What is
//! stored is not looked at: a restart cures no full disk, and /healthz tells of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use crate::Server;

/// Longest greeting that is read.
const GREETING_BYTES_MAX: u64 = 64 << 10;

/// The connection to the service manager, if there is one.
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that we are well, halved.
    pulse: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("cannot reach the service manager at {name}: {error}");
                None
            }
        });
        let pulse = pulse(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
        );
        Self { socket, pulse }
    }

    /// The server serves.
    pub fn ready(&self, server: &Server) {
        let clients = server.client_url();
        self.say(&format!("READY=1\nSTATUS=Serving {clients}"));
    }

    /// Clients are asked to leave; the watchdog goes on.
    pub fn leaving(&self) {
        self.say("STATUS=Lame duck: clients are asked to move on");
    }

    /// The server stops: from here on the manager's own timeout counts.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=Stopping");
    }

    /// Feeds the watchdog for as long as it is polled and the server answers; never resolves.
    ///
    /// `accepting` is false once new clients are turned away: then only messages are tried.
    pub async fn watch(&self, server: &Server, accepting: bool) {
        let Some(pulse) = self.pulse.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(pulse);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers = tokio::time::timeout(pulse, async {
                delivers(server).await && (!accepting || greets(server.local_addr()).await)
            });
            if answers.await == Ok(true) {
                self.say("WATCHDOG=1");
            } else {
                tracing::error!(
                    "The server does not answer itself: the service manager is not told that it is well"
                );
            }
        }
    }

    fn say(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!("cannot tell the service manager: {error}");
        }
    }
}

/// A socket to the manager: a path, or with `@` a name in Linux' abstract namespace.
fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the server.
    socket.set_nonblocking(true)?;
    match name.strip_prefix('@') {
        None => socket.connect(name)?,
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.connect_addr(&address)?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(std::io::ErrorKind::Unsupported.into()),
    }
    Ok(socket)
}

/// Half the watchdog's time, if it is ours to feed: the variables are inherited by children too.
fn pulse(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let micros: u64 = micros?.parse().ok()?;
    let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
    (ours && micros > 0).then(|| Duration::from_micros(micros) / 2)
}

/// Whether a message published in this process reaches a subscriber in it.
async fn delivers(server: &Server) -> bool {
    let subject = format!("_INBOX.watchdog.{}", nuid::next());
    let Ok(mut echo) = server.subscribe(&subject) else {
        return false;
    };
    if server.publish(&subject, "").await.is_err() {
        return false;
    }
    echo.next().await.is_some()
}

/// Whether a new connection is greeted, be it with a refusal.
async fn greets(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let Ok(socket) = TcpStream::connect((ip, address.port())).await else {
        return false;
    };
    // To its end: closing on what is unread would look like a broken client.
    let mut greeting = Vec::new();
    let mut lines = BufReader::new(socket.take(GREETING_BYTES_MAX));
    let read = lines.read_until(b'\n', &mut greeting).await;
    read.is_ok()
        && greeting.ends_with(b"\n")
        && (greeting.starts_with(b"INFO ") || greeting.starts_with(b"-ERR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_in_half_its_time_and_by_its_own_process() {
        let own = std::process::id().to_string();
        assert_eq!(pulse(Some("3000000"), None), Some(Duration::from_millis(1500)));
        assert_eq!(
            pulse(Some("3000000"), Some(&own)),
            Some(Duration::from_millis(1500))
        );
        for (micros, pid) in [
            (None, None),
            (Some("0"), None),
            (Some("x"), None),
            (Some("3000000"), Some("1")),
        ] {
            assert_eq!(pulse(micros, pid), None, "{micros:?} {pid:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_says_nothing_is_no_server() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let asked = tokio::time::timeout(Duration::from_millis(50), greets(address)).await;
        assert!(asked.is_err(), "it waits for a greeting");
        drop(silent);
        assert!(!greets(address).await, "nobody listens");
    }

    #[tokio::test]
    async fn a_server_that_serves_answers_itself() {
        let server = crate::TestServer::start();
        assert!(delivers(server.server()).await);
        assert!(greets(server.server().local_addr()).await);
    }
}
