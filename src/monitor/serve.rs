//! The HTTP connections: how many, how long, how large.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
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
    let pages = pages::router(view);
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
                let (pages, stop) = (pages.clone(), stop.clone());
                tasks.spawn(async move {
                    serve(socket, peer, pages, stop).await;
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

async fn serve(socket: TcpStream, peer: SocketAddr, pages: axum::Router, stop: CancellationToken) {
    socket.set_nodelay(true).ok();
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
