//! A raw socket speaking the client protocol: `send("...")`, `expect("...")`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// See the module documentation.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    ended: bool,
    info: serde_json::Value,
}

impl Wire {
    /// Connects and takes the greeting.
    pub fn connect(address: impl std::net::ToSocketAddrs) -> Self {
        let mut wire = Self::raw(address);
        let line = wire.line();
        let json = line
            .strip_prefix("INFO ")
            .unwrap_or_else(|| panic!("INFO expected, got {line:?}"));
        wire.info = serde_json::from_str(json).expect("INFO is JSON");
        wire
    }

    /// Connects and says CONNECT with `fields` and without verbose and pedantic.
    pub fn quiet(address: impl std::net::ToSocketAddrs, fields: &str) -> Self {
        let mut wire = Self::connect(address);
        let comma = if fields.is_empty() { "" } else { "," };
        wire.send(format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false{comma}{fields}}}\r\nPING\r\n"
        ));
        wire.expect("PONG\r\n");
        wire
    }

    /// Connects and reads nothing.
    pub fn raw(address: impl std::net::ToSocketAddrs) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
        Self {
            stream,
            received: Vec::new(),
            ended: false,
            info: serde_json::Value::Null,
        }
    }

    /// The first INFO.
    pub fn info(&self) -> &serde_json::Value {
        &self.info
    }

    /// Sends bytes; the server may have closed already.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).ok();
    }

    /// Sends bytes.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more comes from here.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Reads once; false at the end of the stream or when nothing came in time.
    pub fn read_some(&mut self, timeout: Duration) -> bool {
        if self.ended {
            return false;
        }
        self.stream.set_read_timeout(Some(timeout)).expect("a TCP socket");
        let mut chunk = [0u8; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.received.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.ended = true,
        }
        !self.received.is_empty() && !self.ended
    }

    fn read_more(&mut self) -> bool {
        let before = self.received.len();
        self.read_some(PATIENCE);
        self.received.len() > before
    }

    /// What has come and was not taken yet.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes what has come so far.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Sets what has come and was not taken yet.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        self.received = bytes;
    }

    /// Whether the server has closed.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return String::from_utf8(line).expect("UTF-8").trim_end().to_owned();
            }
            let more = self.read_more();
            assert!(
                more,
                "no whole line, only {:?}",
                self.received.escape_ascii().to_string()
            );
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count && self.read_more() {}
        let count = count.min(self.received.len());
        self.received.drain(..count).collect()
    }

    /// Takes exactly these bytes, or fails.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.received.len() < expected.len() && self.read_more() {}
        let count = expected.len().min(self.received.len());
        let got: Vec<u8> = self.received.drain(..count).collect();
        assert!(
            got == expected,
            "expected {}\n     got {}\n    then {}",
            expected.escape_ascii(),
            got.escape_ascii(),
            self.received.escape_ascii()
        );
    }

    /// Expects that everything said before has been dealt with, and that nothing else comes.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send("PING\r\n");
        self.expect("PONG\r\n");
    }

    /// Sends, then expects.
    #[track_caller]
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(bytes);
        self.expect(expected);
    }

    /// Expects the server to close, with nothing more to say.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.drain();
        assert!(rest.is_empty(), "more came: {}", rest.escape_ascii());
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub fn drain(&mut self) -> Vec<u8> {
        while !self.ended {
            let before = self.received.len();
            self.read_some(PATIENCE);
            assert!(
                self.ended || self.received.len() > before,
                "the server does not close"
            );
        }
        self.take()
    }
}
