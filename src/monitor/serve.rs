//! The HTTP connections, in clear or encrypted: how many, how long, how large.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{View, pages};

/// Connections at a time; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a request may take to arrive, and a kept connection to send its next one.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long one connection may last, kept alive or reading slowly; a scraper connects again without noticing.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long requests under way get to finish once they should.
const FINISH_MAX: Duration = Duration::from_secs(2);
/// Bytes of request line and headers.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Accepts until told to stop.
pub(super) async fn accept(
    listener: TcpListener,
    view: Arc<View>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let pages = pages::router(view.clone());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            permit = room.clone().acquire_owned() => {
                let permit = permit.expect("the semaphore is never closed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted.map(|accepted| (accepted, permit)),
                }
            }
        };
        match accepted {
            Ok(((socket, peer), permit)) => {
                let (view, pages, stop) = (view.clone(), pages.clone(), stop.clone());
                tasks.spawn(async move {
                    welcome(socket, peer, &view, pages, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!("cannot accept a monitoring connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn welcome(
    socket: TcpStream,
    peer: SocketAddr,
    view: &View,
    pages: axum::Router,
    stop: CancellationToken,
) {
    socket.set_nodelay(true).ok();
    if !view.encrypted {
        return serve(socket, peer, pages, stop).await;
    }
    // As it is now: a reload may have brought a new certificate.
    let Some(tls) = view.context.tls() else { return };
    let accepting = TlsAcceptor::from(tls.pages().clone()).accept(socket);
    let accepted = tokio::select! {
        () = stop.cancelled() => return,
        accepted = tokio::time::timeout(HEAD_WAIT_MAX, accepting) => accepted,
    };
    match accepted {
        Ok(Ok(stream)) => serve(stream, peer, pages, stop).await,
        Ok(Err(error)) => tracing::debug!("{peer} - monitoring connection: TLS handshake error: {error}"),
        Err(_) => tracing::debug!("{peer} - monitoring connection: no TLS handshake in time"),
    }
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    pages: axum::Router,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(pages));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = wait(&stop) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FINISH_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("{peer} - monitoring connection: {error}");
    }
}

async fn wait(stop: &CancellationToken) {
    tokio::time::timeout(CONNECTION_MAX, stop.cancelled()).await.ok();
}
