//! One page of a server's monitoring, over HTTP by hand: one request, one answer, plain text.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cli::Context;

/// Bytes of an answer that are read at most.
const ANSWER_MAX: u64 = 16 << 20;

/// The JSON of a page.
pub(super) fn get(context: &Context, url: &str, path: &str) -> std::io::Result<Value> {
    let invalid = |what: &str| Error::new(ErrorKind::InvalidInput, what.to_owned());
    let host = url
        .strip_prefix("http://")
        .ok_or_else(|| invalid("expected http://HOST:PORT"))?
        .trim_end_matches('/');
    let address = host
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| invalid("the name has no address"))?;
    let mut socket = TcpStream::connect_timeout(&address, context.timeout)?;
    socket.set_read_timeout(Some(context.timeout))?;
    socket.set_write_timeout(Some(context.timeout))?;
    let credentials = match (&context.token, &context.user, &context.pass) {
        (Some(token), ..) => format!("Authorization: Bearer {token}\r\n"),
        (None, Some(user), Some(pass)) => {
            let both = STANDARD.encode(format!("{user}:{pass}"));
            format!("Authorization: Basic {both}\r\n")
        }
        _ => String::new(),
    };
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{credentials}\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER_MAX).read_to_string(&mut answer)?;
    read(&answer)
}

fn read(answer: &str) -> std::io::Result<Value> {
    let broken = |what: String| Error::new(ErrorKind::InvalidData, what);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| broken("no HTTP answer".to_owned()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    let value: Option<Value> = serde_json::from_str(body).ok();
    match (status, value) {
        ("200", Some(value)) => Ok(value),
        ("200", None) => Err(broken("the page is no JSON".to_owned())),
        (status, value) => {
            let error = value.as_ref().and_then(|value| value["error"].as_str());
            Err(broken(format!(
                "{status} {}",
                error.unwrap_or("without a reason")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_none() {
        let ok = "HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":1}";
        assert_eq!(read(ok).unwrap()["a"], 1);
        let refused = "HTTP/1.0 401 Unauthorized\r\n\r\n{\"error\":\"credentials\"}";
        assert_eq!(read(refused).unwrap_err().to_string(), "401 credentials");
        for bad in ["", "HTTP/1.0 200 OK\r\n\r\n<html>", "SSH-2.0"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
