//! The writing task of a connection: outbox to socket, nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;

use crate::router::{Closed, WireBuf};

use super::handle::Handle;
use super::reason::Reason;
use super::transport::WriteHalf;

/// Writes until the outbox is closed and drained, or the socket fails.
pub(super) async fn run(handle: Arc<Handle>, mut socket: WriteHalf, deadline: Duration) {
    let outbox = &handle.client.outbox;
    let mut wire = WireBuf::default();
    while outbox.take(&mut wire).await.is_some() {
        let mut rest = wire.cursor();
        while rest.has_remaining() {
            match socket.write(&mut rest, deadline).await {
                Ok(0) => return give_up(&handle, Reason::WriteError),
                Ok(count) => outbox.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return give_up(&handle, Reason::SlowConsumerDeadline);
                }
                Err(_) => return give_up(&handle, Reason::WriteError),
            }
        }
    }
    if outbox.closed() == Some(Closed::SlowConsumer) {
        handle.stop(Reason::SlowConsumerPending);
    }
    socket.shutdown().await;
}

fn give_up(handle: &Handle, reason: Reason) {
    handle.stop(reason);
    handle.client.outbox.close(Closed::Done);
}
