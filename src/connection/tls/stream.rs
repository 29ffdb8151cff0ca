//! The two halves of an encrypted socket: its reader and its writer are tasks apart and share one TLS state.
//!
//! The lock is held while bytes are encrypted or decrypted, never across a wait.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Pieces handed over in one go.
const SLICES_MAX: usize = 32;

#[derive(Clone)]
struct Shared(Arc<Mutex<TlsStream<TcpStream>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the reading task has.
pub(crate) struct Read(Shared);

/// What the writing task has.
pub(crate) struct Write(Shared);

/// Takes a socket apart after its handshake.
pub(crate) fn split(stream: TlsStream<TcpStream>) -> (Read, Write) {
    let shared = Shared(Arc::new(Mutex::new(stream)));
    (Read(shared.clone()), Write(shared))
}

impl Read {
    /// Completes when there is something to read.
    pub async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut stream = self.0.lock();
            let filled = Pin::new(&mut *stream).poll_fill_buf(cx);
            filled.map(|filled| ended(filled.map(|_| 0)).map(|_| ()))
        })
        .await
    }

    /// Reads what is there, at most `max` bytes, into the spare capacity of `buffer`; zero at the end.
    pub async fn read(&mut self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut stream = self.0.lock();
            let mut stream = Pin::new(&mut *stream);
            let mut count = 0;
            loop {
                let spare = (buffer.capacity() - buffer.len()).min(max - count);
                if spare == 0 {
                    return Poll::Ready(Ok(count));
                }
                // A record at a time: several make one batch.
                let taken = match stream.as_mut().poll_fill_buf(cx) {
                    Poll::Pending if count == 0 => return Poll::Pending,
                    Poll::Ready(Err(error)) if count == 0 => return Poll::Ready(ended(Err(error))),
                    Poll::Pending | Poll::Ready(Err(_)) => return Poll::Ready(Ok(count)),
                    Poll::Ready(Ok(bytes)) => {
                        let taken = bytes.len().min(spare);
                        buffer.put_slice(&bytes[..taken]);
                        taken
                    }
                };
                if taken == 0 {
                    return Poll::Ready(Ok(count));
                }
                stream.as_mut().consume(taken);
                count += taken;
            }
        })
        .await
    }
}

/// Clients hang up without a word of TLS; no message can be cut short by that unnoticed, they carry their lengths.
fn ended(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

impl Write {
    /// Encrypts some of `bytes` and sends it. Once all of them are taken, nothing of them is held back.
    pub async fn write(&mut self, bytes: &mut impl Buf) -> io::Result<usize> {
        let count = poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = bytes.chunks_vectored(&mut slices);
            Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, &slices[..filled])
        })
        .await?;
        bytes.advance(count);
        if !bytes.has_remaining() {
            poll_fn(|cx| Pin::new(&mut *self.0.lock()).poll_flush(cx)).await?;
        }
        Ok(count)
    }

    /// Says that nothing more comes.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.lock()).poll_shutdown(cx)).await
    }
}
