//! What a connection runs over: a TCP socket, in clear or encrypted, or a pipe inside this process.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

use super::tls;

/// How long a client may take to take the end of an encrypted stream.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;

/// The address of who is in this process. No socket has it, not even one that cannot say where its peer is.
pub(super) const IN_PROCESS: &str = "in-process";

/// See the module documentation.
pub enum Transport {
    /// From the network.
    Tcp(TcpStream),
    /// From the network, after its TLS handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// From this process.
    Pipe(DuplexStream),
}

pub(super) enum ReadHalf {
    Tcp(OwnedReadHalf),
    Tls(tls::Read),
    Pipe(tokio::io::ReadHalf<DuplexStream>),
}

pub(super) enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Tls(tls::Write),
    Pipe(tokio::io::WriteHalf<DuplexStream>),
}

impl Transport {
    /// Remote address and port.
    pub(super) fn peer(&self) -> (String, u16) {
        match self {
            Transport::Tcp(stream) => address(stream),
            Transport::Tls(stream) => address(stream.get_ref().0),
            Transport::Pipe(_) => (IN_PROCESS.to_owned(), 0),
        }
    }

    pub(super) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Transport::Tcp(stream) => {
                // Deliveries leave in batches already: waiting to fill a segment would only add delay.
                stream.set_nodelay(true).ok();
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Transport::Tls(stream) => {
                let (read, write) = tls::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
            Transport::Pipe(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Pipe(read), WriteHalf::Pipe(write))
            }
        }
    }
}

fn try_write(socket: &OwnedWriteHalf, bytes: &mut impl Buf) -> io::Result<usize> {
    let written = if bytes.chunk().len() == bytes.remaining() {
        socket.try_write(bytes.chunk())?
    } else {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let count = bytes.chunks_vectored(&mut pieces);
        socket.try_write_vectored(&pieces[..count])?
    };
    bytes.advance(written);
    Ok(written)
}

fn address(stream: &TcpStream) -> (String, u16) {
    stream.peer_addr().map_or_else(
        |_| (String::new(), 0),
        |peer| (peer.ip().to_canonical().to_string(), peer.port()),
    )
}

impl ReadHalf {
    /// Completes when there is something to read, without holding a buffer meanwhile. A pipe cannot tell: it
    /// completes at once.
    pub async fn ready(&self) -> io::Result<()> {
        match self {
            ReadHalf::Tcp(read) => read.readable().await,
            ReadHalf::Tls(read) => read.ready().await,
            ReadHalf::Pipe(_) => Ok(()),
        }
    }

    /// Reads once, at most `max` bytes, into the spare capacity of `buffer`; zero at the end.
    pub async fn read(&mut self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        match self {
            ReadHalf::Tcp(read) => read.read_buf(&mut buffer.limit(max)).await,
            ReadHalf::Tls(read) => read.read(buffer, max).await,
            ReadHalf::Pipe(read) => read.read_buf(&mut buffer.limit(max)).await,
        }
    }
}

impl WriteHalf {
    /// Writes some of `bytes`; an error of kind `TimedOut` when nothing moved for `deadline`.
    pub async fn write(&mut self, bytes: &mut impl Buf, deadline: Duration) -> io::Result<usize> {
        // A socket mostly has room: then there is nothing to wait for, and no timer to set.
        if let WriteHalf::Tcp(write) = self {
            match try_write(write, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    tokio::task::coop::consume_budget().await;
                    return done;
                }
            }
        }
        let write = async {
            match self {
                WriteHalf::Tcp(write) => write.write_buf(bytes).await,
                WriteHalf::Tls(write) => write.write(bytes).await,
                WriteHalf::Pipe(write) => write.write_buf(bytes).await,
            }
        };
        tokio::time::timeout(deadline, write)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says that nothing more comes.
    pub async fn shutdown(&mut self) {
        match self {
            WriteHalf::Tcp(write) => write.shutdown().await.ok(),
            WriteHalf::Tls(write) => tokio::time::timeout(GOODBYE_MAX, write.shutdown())
                .await
                .ok()
                .and_then(Result::ok),
            WriteHalf::Pipe(write) => write.shutdown().await.ok(),
        };
    }
}
