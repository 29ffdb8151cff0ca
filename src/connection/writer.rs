//! The writing task of a connection: outbox to socket, nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;

use crate::router::{Closed, Idle, WireBuf};

use super::handle::Handle;
use super::reason::Reason;
use super::transport::WriteHalf;

/// Writes until the outbox is closed and drained, or the socket fails.
pub(super) async fn run(handle: Arc<Handle>, socket: WriteHalf, deadline: Duration) {
    drain(&handle, socket, deadline).await;
    // The record of a closed connection is kept: without the bytes it was still owed.
    handle.client.outbox.discard();
}

async fn drain(handle: &Handle, mut socket: WriteHalf, deadline: Duration) {
    let outbox = &handle.client.outbox;
    let mut wire = WireBuf::default();
    let mut idle = Idle::default();
    while outbox.take(&mut wire, &mut idle).await.is_some() {
        let mut rest = wire.cursor();
        while rest.has_remaining() {
            let written = tokio::select! {
                biased;
                written = socket.write(&mut rest, deadline) => written,
                () = outbox.cut() => break,
            };
            match written {
                Ok(0) => {
                    handle.note("the socket takes nothing more".to_owned());
                    return handle.stop(Reason::WriteError);
                }
                Ok(count) => outbox.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let pending = outbox.pending();
                    handle.note(format!(
                        "it read nothing for {deadline:?}, with {pending} bytes pending"
                    ));
                    return handle.stop(Reason::SlowConsumerDeadline);
                }
                Err(error) => {
                    handle.note(error.to_string());
                    return handle.stop(Reason::WriteError);
                }
            }
        }
    }
    if outbox.closed() == Some(Closed::SlowConsumer) {
        handle.note(format!("more than {} bytes were pending", outbox.pending_max()));
        handle.stop(Reason::SlowConsumerPending);
    }
    socket.shutdown().await;
}
