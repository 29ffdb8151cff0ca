//! Status messages: an empty message whose header line tells a receiver how its consumer is doing.
//!
//! The texts are matched by client libraries and are byte-exact (the table of statuses in the protocol page).

use std::io::Write;

use bytes::Bytes;

use super::duration;

/// What was left of a pull request when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfilled {
    /// Messages not delivered.
    pub messages: i64,
    /// Bytes left of `max_bytes`; 0 when none was set.
    pub bytes: i64,
}

/// A status of a consumer to the one it delivers to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its text")]
pub enum Status {
    IdleHeartbeat {
        last_consumer: u64,
        last_stream: u64,
        /// The subject of the flow-control request that is not answered yet.
        stalled: Option<Bytes>,
    },
    FlowControlRequest,
    NoMessages,
    RequestTimeout(Unfilled),
    RequestsPending,
    BatchCompleted(Unfilled),
    MessageSizeExceedsMaxBytes(Unfilled),
    ExceededMaxWaiting,
    ExceededMaxRequestBatch(i64),
    /// Nanoseconds.
    ExceededMaxRequestExpires(i64),
    ExceededMaxRequestMaxBytes(i64),
    ConsumerDeleted,
    ConsumerIsPushBased,
    ServerShutdown(Unfilled),
    BadRequest(String),
    RequiredApiLevel,
}

impl Status {
    /// Whether the pull request it answers is over.
    pub fn ends_request(&self) -> bool {
        !matches!(self, Status::IdleHeartbeat { .. } | Status::FlowControlRequest)
    }

    /// Appends the header block, its closing blank line included.
    pub fn write(&self, out: &mut Vec<u8>) {
        let line = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(b"NATS/1.0 ");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        match self {
            Status::IdleHeartbeat {
                last_consumer,
                last_stream,
                stalled,
            } => {
                line(out, "100 Idle Heartbeat");
                header(out, "Nats-Last-Consumer", last_consumer);
                header(out, "Nats-Last-Stream", last_stream);
                if let Some(subject) = stalled {
                    header(out, "Nats-Consumer-Stalled", String::from_utf8_lossy(subject));
                }
            }
            Status::FlowControlRequest => line(out, "100 FlowControl Request"),
            Status::NoMessages => line(out, "404 No Messages"),
            Status::RequestTimeout(left) => {
                line(out, "408 Request Timeout");
                unfilled(out, left);
            }
            Status::RequestsPending => line(out, "408 Requests Pending"),
            Status::BatchCompleted(left) => {
                line(out, "409 Batch Completed");
                unfilled(out, left);
            }
            Status::MessageSizeExceedsMaxBytes(left) => {
                line(out, "409 Message Size Exceeds MaxBytes");
                unfilled(out, left);
            }
            Status::ExceededMaxWaiting => line(out, "409 Exceeded MaxWaiting"),
            Status::ExceededMaxRequestBatch(max) => {
                line(out, &format!("409 Exceeded MaxRequestBatch of {max}"));
            }
            Status::ExceededMaxRequestExpires(max) => {
                line(
                    out,
                    &format!("409 Exceeded MaxRequestExpires of {}", duration::text(*max)),
                );
            }
            Status::ExceededMaxRequestMaxBytes(max) => {
                line(out, &format!("409 Exceeded MaxRequestMaxBytes of {max}"));
            }
            Status::ConsumerDeleted => line(out, "409 Consumer Deleted"),
            Status::ConsumerIsPushBased => line(out, "409 Consumer is push based"),
            Status::ServerShutdown(left) => {
                line(out, "409 Server Shutdown");
                unfilled(out, left);
            }
            Status::BadRequest(why) => line(
                out,
                &format!("400 Bad Request - {}", why.replace(['\r', '\n'], " ")),
            ),
            Status::RequiredApiLevel => line(out, "412 Required Api Level"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn header(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    write!(out, "{name}: {value}\r\n").expect("writing to memory");
}

fn unfilled(out: &mut Vec<u8>, left: &Unfilled) {
    header(out, "Nats-Pending-Messages", left.messages);
    header(out, "Nats-Pending-Bytes", left.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let left = Unfilled {
            messages: 3,
            bytes: 1024,
        };
        let pending = "Nats-Pending-Messages: 3\r\nNats-Pending-Bytes: 1024\r\n";
        let heartbeat = |stalled| Status::IdleHeartbeat {
            last_consumer: 7,
            last_stream: 12,
            stalled,
        };
        let last = "Nats-Last-Consumer: 7\r\nNats-Last-Stream: 12\r\n";
        for (status, line, headers) in [
            (heartbeat(None), "100 Idle Heartbeat", last.to_owned()),
            (
                heartbeat(Some(Bytes::from_static(b"$JS.FC.S.C.abcd"))),
                "100 Idle Heartbeat",
                format!("{last}Nats-Consumer-Stalled: $JS.FC.S.C.abcd\r\n"),
            ),
            (
                Status::FlowControlRequest,
                "100 FlowControl Request",
                String::new(),
            ),
            (Status::NoMessages, "404 No Messages", String::new()),
            (
                Status::RequestTimeout(left),
                "408 Request Timeout",
                pending.to_owned(),
            ),
            (Status::RequestsPending, "408 Requests Pending", String::new()),
            (
                Status::BatchCompleted(left),
                "409 Batch Completed",
                pending.to_owned(),
            ),
            (
                Status::MessageSizeExceedsMaxBytes(left),
                "409 Message Size Exceeds MaxBytes",
                pending.to_owned(),
            ),
            (
                Status::ExceededMaxWaiting,
                "409 Exceeded MaxWaiting",
                String::new(),
            ),
            (
                Status::ExceededMaxRequestBatch(5),
                "409 Exceeded MaxRequestBatch of 5",
                String::new(),
            ),
            (
                Status::ExceededMaxRequestExpires(90_500_000_000),
                "409 Exceeded MaxRequestExpires of 1m30.5s",
                String::new(),
            ),
            (
                Status::ExceededMaxRequestMaxBytes(9),
                "409 Exceeded MaxRequestMaxBytes of 9",
                String::new(),
            ),
            (Status::ConsumerDeleted, "409 Consumer Deleted", String::new()),
            (
                Status::ConsumerIsPushBased,
                "409 Consumer is push based",
                String::new(),
            ),
            (
                Status::ServerShutdown(left),
                "409 Server Shutdown",
                pending.to_owned(),
            ),
            (
                Status::BadRequest("heartbeat value too large".into()),
                "400 Bad Request - heartbeat value too large",
                String::new(),
            ),
            (Status::RequiredApiLevel, "412 Required Api Level", String::new()),
        ] {
            let mut out = Vec::new();
            status.write(&mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("NATS/1.0 {line}\r\n{headers}\r\n")
            );
        }
    }
}
