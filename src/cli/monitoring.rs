//! The pages of a server's monitoring port, read: what `mesh health`, `mesh top` and
//! `mesh store info` ask.
//!
//! Works against nats-server's monitoring port too. Deliberately absent: HTTPS, redirects, kept connections; a page is
//! one HTTP/1.0 request, which no server answers in chunks.

use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Context, Failure, units};
use crate::config;

/// Longest answer that is read: `/connz` of 16,384 connections is some 8 MiB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the pages are.
#[derive(Args, Clone, Debug)]
pub struct MonitoringArgs {
    /// Monitoring address [default: the host of --server, port $MESH_MONITOR_PORT or 8778]
    #[arg(long, short = 'm', env = "MESH_MONITOR_URL", value_name = "URL")]
    monitor: Option<String>,
}

impl MonitoringArgs {
    /// Whether an address was given.
    pub fn is_named(&self) -> bool {
        self.monitor.is_some()
    }

    /// The pages at an address that is known.
    pub fn at(url: &str) -> Self {
        Self {
            monitor: Some(url.to_owned()),
        }
    }

    /// The pages of the server that is meant.
    pub fn open(&self, context: &Context) -> Result<Monitoring, Failure> {
        self.open_on(context, &context.host())
    }

    /// The same, on `host` where no address was given.
    pub fn open_on(&self, context: &Context, host: &str) -> Result<Monitoring, Failure> {
        let url = self.monitor.as_deref();
        let (userinfo, authority) = match url {
            None => (None, default_authority(host)),
            Some(url) => {
                let (userinfo, authority) = split(url).ok_or_else(|| {
                    Failure::usage(format!("not a monitoring address: {url}"))
                        .hint("expected http://host:port, or host:port; there is no TLS")
                })?;
                (userinfo, with_port(authority, config::MONITOR_PORT))
            }
        };
        Ok(Monitoring {
            authority,
            authorization: context.authorization(userinfo)?,
            timeout: context.timeout,
        })
    }
}

/// `user:pass` or a token before the `@` of an address, and its `host[:port]`.
fn split(url: &str) -> Option<(Option<&str>, &str)> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => url,
    };
    let rest = rest.trim_end_matches('/');
    let (userinfo, authority) = match rest.rsplit_once('@') {
        Some((userinfo, authority)) => (Some(userinfo), authority),
        None => (None, rest),
    };
    let fit = |c: char| c.is_alphanumeric() || "-._:[]%".contains(c);
    let well_formed = !authority.is_empty() && authority.chars().all(fit) && has_good_port(authority);
    well_formed.then_some((userinfo, authority))
}

/// What stands after the colon of `host:port`; a colon within brackets belongs to the host.
fn port(authority: &str) -> Option<&str> {
    let (_, port) = authority.rsplit_once(':')?;
    (!port.contains(']')).then_some(port)
}

fn has_good_port(authority: &str) -> bool {
    port(authority).is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn with_port(authority: &str, otherwise: u16) -> String {
    match port(authority) {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:{otherwise}"),
    }
}

/// Monitoring beside the client port of `host`: where a `mesh serve` with the same environment has it.
fn default_authority(host: &str) -> String {
    let named = std::env::var("MESH_MONITOR_PORT")
        .ok()
        .and_then(|port| port.parse().ok());
    let port = named
        .filter(|&port: &u16| port > 0)
        .unwrap_or(config::MONITOR_PORT);
    format!("{host}:{port}")
}

/// The monitoring pages of one server.
#[derive(Clone, Debug)]
pub struct Monitoring {
    authority: String,
    authorization: Option<String>,
    timeout: Duration,
}

/// What a page said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Monitoring {
    /// The address without credentials, for people.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Asks for one page; an answer of any status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let answered = tokio::time::timeout(self.timeout, self.exchange(path)).await;
        let bytes = answered
            .map_err(|_| {
                Failure::unhealthy(format!(
                    "{} did not answer within {}",
                    self.url(),
                    units::show_duration(self.timeout)
                ))
                .hint("wait longer with --timeout")
            })?
            .map_err(|error| {
                Failure::unhealthy(format!("cannot reach monitoring at {}: {error}", self.url())).hint(
                    "is the server running, with monitoring on? name another address with --monitor or MESH_MONITOR_URL",
                )
            })?;
        parse(&bytes).ok_or_else(|| {
            Failure::unhealthy(format!("{} does not speak HTTP", self.url())).hint(
                "is it the port for clients? name that of monitoring with --monitor or MESH_MONITOR_URL",
            )
        })
    }

    /// Asks for one page of JSON and fails unless it is there.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let page = format!("{}{path}", self.url());
        let answer = self.get(path).await?;
        match answer.status {
            200 => {}
            401 => {
                return Err(
                    Failure::failed(format!("{page} wants the credentials of the server"))
                        .hint("give them with --token, or with --user and --pass"),
                );
            }
            status => {
                return Err(Failure::failed(format!(
                    "{page} answered {status}: {}",
                    answer.body.trim()
                )));
            }
        }
        serde_json::from_str(&answer.body)
            .map_err(|error| Failure::failed(format!("{page} answered with something else: {error}")))
    }

    async fn exchange(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(&self.authority).await?;
        let authorization = self.authorization.as_ref();
        let authorization =
            authorization.map_or_else(String::new, |text| format!("Authorization: {text}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: */*\r\n{authorization}Connection: close\r\n\r\n",
            self.authority
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Status and body of an HTTP answer that was read to its end; none when it is no HTTP, or cut short.
fn parse(answer: &[u8]) -> Option<Answer> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let (version, rest) = lines.next()?.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = length.is_none_or(|length| body.len() == length);
    (version.starts_with("HTTP/1.") && whole).then(|| Answer {
        status,
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, expected) in [
            ("http://127.0.0.1:8222", Some((None, "127.0.0.1:8222"))),
            ("broker:1/", Some((None, "broker:1"))),
            ("http://u:p@h", Some((Some("u:p"), "h"))),
            ("[::1]:9", Some((None, "[::1]:9"))),
            ("https://h", None),
            ("", None),
            ("h:x", None),
            ("h:0", None),
            ("h:1/varz", None),
            ("h\r\nX: y", None),
        ] {
            assert_eq!(split(url), expected, "{url:?}");
        }
        assert_eq!(with_port("[::1]", 5), "[::1]:5");
        assert_eq!(with_port("h:4", 5), "h:4");
    }

    #[test]
    fn answers() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no"));
        let without_length = parse(b"HTTP/1.1 200 OK\r\n\r\nall of it").unwrap();
        assert_eq!(without_length.body, "all of it");
        for bad in [
            "",
            "INFO {}\r\n\r\n",
            "HTTP/1.0 abc\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
