//! The first moments of a connection where there is TLS: INFO and the handshake, in the order that is set.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::account::Certificate;
use crate::connection::handle::Handle;
use crate::connection::reason::Reason;
use crate::connection::session::Session;
use crate::connection::transport::Transport;
use crate::protocol::encode;

use super::{Agreed, First, Tls, suites};

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// How long one who is sent away may take to read why, and bytes of it that are read meanwhile.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
const FAREWELL_BYTES: usize = 64 << 10;
/// What is said to who stays in clear.
const REQUIRED: &str = "Secure Connection - TLS Required";
const THROTTLED: &str = "Connection throttling is active. Please try again later.";

/// Greets a client and brings its connection to where operations can be read from it: encrypted, or in clear where that
/// is allowed.
pub(crate) async fn secure(
    transport: Transport,
    tls: &Tls,
    session: &mut Session,
) -> Result<Transport, Reason> {
    let stream = match transport {
        Transport::Tcp(stream) => stream,
        inside => {
            session.greet();
            return Ok(inside);
        }
    };
    let handle = session.handle();
    tokio::select! {
        biased;
        reason = handle.stopped() => Err(reason),
        secured = upgrade(stream, tls, session) => secured,
    }
}

async fn upgrade(mut stream: TcpStream, tls: &Tls, session: &mut Session) -> Result<Transport, Reason> {
    let (handle, options) = (session.handle(), tls.options());
    // Records are whole messages here.
    stream.set_nodelay(true).ok();
    let client_first = match options.first {
        First::Server => false,
        First::Client => true,
        First::Either(patience) => timeout(patience, first_byte(&stream)).await.is_ok(),
    };
    if !client_first {
        let greeting = session.greeting();
        let written = timeout(session.options().write_deadline, stream.write_all(&greeting)).await;
        if let Err(error) = written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            handle.note(error.to_string());
            return Err(Reason::WriteError);
        }
    }
    let deadline = Instant::now() + options.timeout;
    let in_time = timeout_at(deadline, first_byte(&stream)).await;
    let plain_is_fine = options.allow_plain && !client_first;
    match in_time {
        Ok(Ok(Some(HANDSHAKE))) => {}
        // Who says nothing is waiting to be spoken to in clear.
        Ok(Ok(Some(_))) | Err(_) if plain_is_fine => return Ok(Transport::Tcp(stream)),
        Ok(Ok(None)) => return Err(Reason::ClientClosed),
        Ok(Err(error)) => return Err(failed(&handle, &error.to_string())),
        Ok(Ok(Some(_))) => {
            farewell(&mut stream, REQUIRED).await;
            return Err(failed(
                &handle,
                "it does not begin a TLS handshake, and TLS is required",
            ));
        }
        Err(_) => {
            farewell(&mut stream, REQUIRED).await;
            let why = format!("no TLS handshake within {:?}", options.timeout);
            return Err(failed(&handle, &why));
        }
    }
    if !tls.allow() {
        farewell(&mut stream, THROTTLED).await;
        handle.note(format!(
            "more than {} TLS handshakes in a second",
            options.rate_max
        ));
        return Err(Reason::ConnectionsExceeded);
    }
    let accepting = TlsAcceptor::from(tls.clients().clone()).accept(stream);
    let stream = match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(&handle, &format!("TLS handshake error: {error}"))),
        Err(_) => {
            let why = format!("TLS handshake not done within {:?}", options.timeout);
            return Err(failed(&handle, &why));
        }
    };
    let agreed = agreed(&stream, client_first).map_err(|why| failed(&handle, &why))?;
    if !tls.is_pinned(agreed.certificate.as_ref()) {
        let key = agreed.certificate.map(|certificate| certificate.key_sha256);
        let why = format!("its key is none of pinned_certs: {}", key.unwrap_or_default());
        return Err(failed(&handle, &why));
    }
    tracing::debug!(
        "{} - TLS handshake complete, version {}, cipher suite {}",
        session.label(),
        agreed.version,
        agreed.cipher_suite
    );
    handle.set_tls(agreed);
    if client_first {
        session.greet();
    }
    Ok(Transport::Tls(Box::new(stream)))
}

/// The first byte that comes, left where it is; none when the client hangs up.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let count = stream.peek(&mut byte).await?;
    Ok((count > 0).then_some(byte[0]))
}

fn failed(handle: &Handle, why: &str) -> Reason {
    handle.note(why.to_owned());
    Reason::TlsHandshake
}

/// Says in clear why the connection ends. What came is read first: closing over it would take the words back.
async fn farewell(stream: &mut TcpStream, text: &str) {
    let mut line = Vec::new();
    encode::error(&mut line, text);
    let said = async {
        stream.write_all(&line).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(FAREWELL_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    timeout(FAREWELL_MAX, said).await.ok();
}

fn agreed(stream: &TlsStream<TcpStream>, first: bool) -> Result<Agreed, String> {
    let (_, state) = stream.get_ref();
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    let certificate = leaf
        .map(Certificate::parse)
        .transpose()
        .map_err(|why| format!("a client certificate that cannot be read: {why}"))?;
    Ok(Agreed {
        version: match state.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        cipher_suite: state
            .negotiated_cipher_suite()
            .map(|suite| suites::shown(suite.suite()))
            .unwrap_or_default(),
        first,
        certificate,
    })
}
