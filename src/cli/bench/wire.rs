//! A NATS connection as lean as a load generator needs it: a blocking socket and a scanner that
//! skips from one control line to the next by the length it names, without allocation.
//!
//! Deliberately absent: TLS, reconnects, and any view of a payload beyond the first bytes asked for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use memchr::memchr;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

/// How long a silent server is waited for before what is missing counts as lost.
pub const SILENCE: Duration = Duration::from_secs(10);

/// One read takes at most this much; above it the generator's own cache misses show.
pub const READ_BYTES: usize = 128 * 1024;

/// No control line of a server is longer than this.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A server to drive: where it is and how to log in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address connections go to.
    pub address: SocketAddr,
    /// As a client library takes it.
    pub url: String,
    connect: String,
}

impl Target {
    /// Reads `nats://[user:pass@|token@]host[:port]`.
    pub fn parse(url: &str) -> io::Result<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (login, host) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(login, host)| (Some(login), host));
        let host = host.trim_end_matches('/');
        let named_port = !host.ends_with(']') && host.contains(':');
        let full = if named_port {
            host.to_owned()
        } else {
            format!("{host}:4222")
        };
        let address = full
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("{full} has no address")))?;
        let mut connect = json!({
            "verbose": false, "pedantic": false, "echo": true, "headers": true, "no_responders": true,
            "protocol": 1, "lang": "rust", "name": "mesh bench", "version": env!("CARGO_PKG_VERSION"),
        });
        match login.map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, pass))) => {
                connect["user"] = user.into();
                connect["pass"] = pass.into();
            }
            Some(Err(token)) => connect["auth_token"] = token.into(),
            None => {}
        }
        let login = login.map_or(String::new(), |login| format!("{login}@"));
        Ok(Self {
            address,
            url: format!("nats://{login}{full}"),
            connect: format!("CONNECT {connect}\r\nPING\r\n"),
        })
    }
}

/// What a server sent.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    /// `MSG` or `HMSG`: its control line, the size it names, and as much of the body as was asked for or is there.
    Message {
        line: &'a [u8],
        size: usize,
        body: &'a [u8],
    },
    /// Any other line, without its end.
    Control(&'a [u8]),
}

/// Finds the frames in what was read, across reads.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The start of a frame that is not whole yet; goes in front of the next read.
    tail: Vec<u8>,
    /// Bytes of a body already reported that are still to come.
    owed: usize,
    /// A message is reported when this much of its body (or all of it) is there.
    head: usize,
}

impl Scanner {
    /// A scanner that reports messages as soon as `head` bytes of the body are there.
    pub fn new(head: usize) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// Whether every message reported so far has arrived to its last byte.
    pub fn settled(&self) -> bool {
        self.owed == 0
    }

    /// Puts the carried-over bytes in front of `buffer` and says how many they are.
    pub fn carry(&self, buffer: &mut Vec<u8>) -> usize {
        let carried = self.tail.len();
        if buffer.len() < carried + READ_BYTES {
            buffer.resize(carried + READ_BYTES, 0);
        }
        buffer[..carried].copy_from_slice(&self.tail);
        carried
    }

    /// Reports every frame of `data`, which starts with what [`carry`](Self::carry) put there.
    pub fn scan<'a>(
        &mut self,
        data: &'a [u8],
        mut on: impl FnMut(Frame<'a>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = self.owed.min(data.len());
        self.owed -= at;
        while let Some(end) = memchr(b'\n', &data[at..]) {
            let start = at + end + 1;
            let line = &data[at..start - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !matches!(line.first(), Some(b'M' | b'H')) {
                on(Frame::Control(line))?;
                at = start;
                continue;
            }
            let size = trailing_number(line);
            let here = data.len() - start;
            if here < size.min(self.head) {
                break;
            }
            let body = &data[start..start + size.min(here)];
            on(Frame::Message { line, size, body })?;
            let whole = size + 2;
            if here < whole {
                self.owed = whole - here;
                at = data.len();
                break;
            }
            at = start + whole;
        }
        self.tail.clear();
        self.tail.extend_from_slice(&data[at..]);
        if self.tail.len() > LINE_BYTES_MAX.max(self.head.saturating_mul(2)) {
            return Err(io::Error::other("the server sent a line without an end"));
        }
        Ok(())
    }
}

/// The decimal number a control line ends with, its payload size.
fn trailing_number(line: &[u8]) -> usize {
    let mut value = 0_usize;
    let mut unit = 1_usize;
    for &byte in line.iter().rev() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_add(usize::from(digit).wrapping_mul(unit));
        unit = unit.wrapping_mul(10);
    }
    value
}

/// A connected, logged-in client.
#[derive(Debug)]
pub struct Conn {
    /// The socket; publishers write to it directly.
    pub stream: TcpStream,
    scanner: Scanner,
    buffer: Vec<u8>,
}

impl Conn {
    /// Connects and waits until the server has accepted the login. Messages are reported when
    /// `head` bytes of their body have come.
    pub fn open(target: &Target, head: usize) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut conn = Self {
            stream,
            scanner: Scanner::new(head),
            buffer: Vec::new(),
        };
        conn.send(target.connect.as_bytes())?;
        conn.until_pong()?;
        Ok(conn)
    }

    /// Writes all of `bytes`; when that fails, the server's own reason is the error.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words().unwrap_or(error)),
        }
    }

    /// Reads once and reports the frames that came; pings are answered, `-ERR` is an error.
    pub fn receive(&mut self, mut on: impl FnMut(Frame<'_>) -> io::Result<()>) -> io::Result<()> {
        let carried = self.scanner.carry(&mut self.buffer);
        let read = self.stream.read(&mut self.buffer[carried..])?;
        if read == 0 {
            return Err(closed());
        }
        let stream = &self.stream;
        self.scanner
            .scan(&self.buffer[..carried + read], |frame| match frame {
                Frame::Control(line) => control(line, stream).and_then(|()| on(frame)),
                message => on(message),
            })
    }

    /// Whether every message reported so far has arrived to its last byte.
    pub fn settled(&self) -> bool {
        self.scanner.settled()
    }

    /// A barrier: everything sent before was processed by the server.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send(b"PING\r\n")?;
        self.until_pong()
    }

    fn until_pong(&mut self) -> io::Result<()> {
        let mut pong = false;
        while !pong {
            self.receive(|frame| {
                pong |= frame == Frame::Control(b"PONG");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The `-ERR` a server sent before it closed, if it did.
    fn last_words(&mut self) -> Option<io::Error> {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .ok()?;
        let reads = (0..100).find_map(|_| self.receive(|_| Ok(())).err());
        reads.filter(|error| error.kind() == io::ErrorKind::Other)
    }

    /// The socket alone: it stays open, what comes is not read.
    pub fn into_socket(self) -> TcpStream {
        self.stream
    }

    /// For the runtime this is called in.
    pub fn into_shared(self) -> io::Result<SharedConn> {
        self.stream.set_nonblocking(true)?;
        Ok(SharedConn {
            stream: tokio::net::TcpStream::from_std(self.stream)?,
            scanner: self.scanner,
        })
    }
}

/// A connection that shares its thread, and the buffer it reads into, with many others: what is
/// measured is the server, not a hundred cold caches.
#[derive(Debug)]
pub struct SharedConn {
    stream: tokio::net::TcpStream,
    scanner: Scanner,
}

impl SharedConn {
    /// As [`Conn::receive`].
    pub async fn receive(
        &mut self,
        buffer: &RefCell<Vec<u8>>,
        mut on: impl FnMut(Frame<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        poll_fn(|cx| {
            let mut buffer = buffer.borrow_mut();
            let carried = self.scanner.carry(&mut buffer);
            let mut into = ReadBuf::new(&mut buffer[carried..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
            let read = into.filled().len();
            if read == 0 {
                return Poll::Ready(Err(closed()));
            }
            let stream = &self.stream;
            Poll::Ready(self.scanner.scan(&buffer[..carried + read], |frame| match frame {
                Frame::Control(line) => control(line, Unsent(stream)).and_then(|()| on(frame)),
                message => on(message),
            }))
        })
        .await
    }

    /// As [`Conn::send`].
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// As [`Conn::settled`].
    pub fn settled(&self) -> bool {
        self.scanner.settled()
    }
}

/// A pong fits into any socket buffer of a connection that sends little else.
struct Unsent<'a>(&'a tokio::net::TcpStream);

impl Write for Unsent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

/// What every client owes a server's control line.
fn control(line: &[u8], mut reply: impl Write) -> io::Result<()> {
    match line {
        b"PING" => reply.write_all(b"PONG\r\n"),
        _ if line.starts_with(b"-ERR") => Err(io::Error::other(format!(
            "the server said {}",
            String::from_utf8_lossy(line)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
