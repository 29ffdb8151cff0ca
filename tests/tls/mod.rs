//! TLS as clients meet it, with certificates made here.

mod authority;
mod clients;
mod handshake;
mod mapping;
mod reload;
mod settings;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::PATIENCE;
use authority::Authority;

/// A client after its handshake: lines, one by one.
struct Secured {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Secured {
    /// Takes INFO in clear, then upgrades.
    fn connect(address: &str, config: ClientConfig) -> std::io::Result<Self> {
        let mut socket = socket(address);
        let mut byte = [0];
        while byte != *b"\n" {
            socket.read_exact(&mut byte)?;
        }
        Self::upgrade(socket, config)
    }

    /// Upgrades at once.
    fn upgrade(mut socket: TcpStream, config: ClientConfig) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self {
            stream: StreamOwned::new(connection, socket),
        })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn ask(&mut self, what: &str) -> std::io::Result<String> {
        self.stream.write_all(what.as_bytes())?;
        self.line()
    }

    /// Says CONNECT with `fields` and waits for the server.
    fn login(&mut self, fields: &str) -> std::io::Result<String> {
        self.ask(&format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false{fields}}}\r\nPING\r\n"
        ))
    }
}

fn socket(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}
