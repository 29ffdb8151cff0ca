//! Advisories: what happens to a consumer and its messages, told to whoever listens.

use serde::Serialize;

use super::config::WireTime;

/// Something worth telling. [`Advisory::subject`] and [`Advisory::body`] make the message of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advisory {
    /// The consumer was created.
    Created,
    /// The consumer was deleted, by a person or for want of use.
    Deleted,
    /// It was paused, or goes on (`paused: false`); `until` in unix nanoseconds.
    #[allow(missing_docs)]
    Paused { paused: bool, until: i64 },
    /// A message had all the deliveries it may have.
    #[allow(missing_docs)]
    MaxDeliveries { stream_seq: u64, deliveries: u64 },
    /// A message was refused.
    #[allow(missing_docs)]
    Naked {
        consumer_seq: u64,
        stream_seq: u64,
        deliveries: u64,
    },
    /// A message will not be delivered again.
    #[allow(missing_docs)]
    Terminated {
        consumer_seq: u64,
        stream_seq: u64,
        deliveries: u64,
        reason: String,
    },
    /// A sampled ack and how long it took, in nanoseconds.
    #[allow(missing_docs)]
    AckSampled {
        consumer_seq: u64,
        stream_seq: u64,
        deliveries: u64,
        ack_time: i64,
    },
}

/// What an advisory carries besides its own facts.
#[derive(Clone, Copy, Debug)]
pub struct AdvisoryContext<'a> {
    /// A unique id, a nuid.
    pub id: &'a str,
    /// Unix nanoseconds.
    pub now: i64,
    /// The stream's name.
    pub stream: &'a str,
    /// The consumer's name.
    pub consumer: &'a str,
    /// The JetStream domain, empty if none.
    pub domain: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    id: &'a str,
    timestamp: WireTime,
    stream: &'a str,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<WireTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
}

fn utc(nanos: i64) -> WireTime {
    WireTime::utc(
        jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("every i64 is a time within range"),
    )
}

impl Advisory {
    /// The subject it is published on.
    pub fn subject(&self, stream: &str, consumer: &str) -> String {
        let kind = match self {
            Advisory::AckSampled { .. } => {
                return format!("$JS.EVENT.METRIC.CONSUMER.ACK.{stream}.{consumer}");
            }
            Advisory::Created => "CREATED",
            Advisory::Deleted => "DELETED",
            Advisory::Paused { .. } => "PAUSE",
            Advisory::MaxDeliveries { .. } => "MAX_DELIVERIES",
            Advisory::Naked { .. } => "MSG_NAKED",
            Advisory::Terminated { .. } => "MSG_TERMINATED",
        };
        format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{stream}.{consumer}")
    }

    /// Its JSON.
    pub fn body(&self, context: &AdvisoryContext<'_>) -> String {
        let mut body = Body {
            r#type: "",
            id: context.id,
            timestamp: utc(context.now),
            stream: context.stream,
            consumer: context.consumer,
            action: None,
            paused: None,
            pause_until: None,
            consumer_seq: None,
            stream_seq: None,
            ack_time: None,
            deliveries: None,
            reason: "",
            domain: context.domain,
        };
        match self {
            Advisory::Created | Advisory::Deleted => {
                body.r#type = "io.nats.jetstream.advisory.v1.consumer_action";
                body.action = Some(if *self == Advisory::Created {
                    "create"
                } else {
                    "delete"
                });
            }
            Advisory::Paused { paused, until } => {
                body.r#type = "io.nats.jetstream.advisory.v1.consumer_pause";
                (body.paused, body.pause_until) = (Some(*paused), Some(utc(*until)));
            }
            Advisory::MaxDeliveries {
                stream_seq,
                deliveries,
            } => {
                body.r#type = "io.nats.jetstream.advisory.v1.max_deliver";
                (body.stream_seq, body.deliveries) = (Some(*stream_seq), Some(*deliveries));
            }
            Advisory::Naked {
                consumer_seq,
                stream_seq,
                deliveries,
            } => {
                body.r#type = "io.nats.jetstream.advisory.v1.nak";
                body.consumer_seq = Some(*consumer_seq);
                (body.stream_seq, body.deliveries) = (Some(*stream_seq), Some(*deliveries));
            }
            Advisory::Terminated {
                consumer_seq,
                stream_seq,
                deliveries,
                reason,
            } => {
                body.r#type = "io.nats.jetstream.advisory.v1.terminated";
                body.consumer_seq = Some(*consumer_seq);
                (body.stream_seq, body.deliveries) = (Some(*stream_seq), Some(*deliveries));
                body.reason = reason;
            }
            Advisory::AckSampled {
                consumer_seq,
                stream_seq,
                deliveries,
                ack_time,
            } => {
                body.r#type = "io.nats.jetstream.metric.v1.consumer_ack";
                body.consumer_seq = Some(*consumer_seq);
                (body.stream_seq, body.deliveries) = (Some(*stream_seq), Some(*deliveries));
                body.ack_time = Some(*ack_time);
            }
        }
        serde_json::to_string(&body).expect("strings and numbers always serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let context = AdvisoryContext {
            id: "ID",
            now: 1_500_000_000,
            stream: "S",
            consumer: "C",
            domain: "",
        };
        let head = |kind: &str| {
            format!(
                r#"{{"type":"io.nats.jetstream.{kind}","id":"ID","timestamp":"1970-01-01T00:00:01.5Z","stream":"S","consumer":"C","#
            )
        };
        for (advisory, subject, kind, rest) in [
            (
                Advisory::Created,
                "$JS.EVENT.ADVISORY.CONSUMER.CREATED.S.C",
                "advisory.v1.consumer_action",
                r#""action":"create"}"#,
            ),
            (
                Advisory::Deleted,
                "$JS.EVENT.ADVISORY.CONSUMER.DELETED.S.C",
                "advisory.v1.consumer_action",
                r#""action":"delete"}"#,
            ),
            (
                Advisory::Paused {
                    paused: true,
                    until: 0,
                },
                "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.C",
                "advisory.v1.consumer_pause",
                r#""paused":true,"pause_until":"1970-01-01T00:00:00Z"}"#,
            ),
            (
                Advisory::MaxDeliveries {
                    stream_seq: 4,
                    deliveries: 2,
                },
                "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C",
                "advisory.v1.max_deliver",
                r#""stream_seq":4,"deliveries":2}"#,
            ),
            (
                Advisory::Naked {
                    consumer_seq: 9,
                    stream_seq: 4,
                    deliveries: 2,
                },
                "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.S.C",
                "advisory.v1.nak",
                r#""consumer_seq":9,"stream_seq":4,"deliveries":2}"#,
            ),
            (
                Advisory::Terminated {
                    consumer_seq: 9,
                    stream_seq: 4,
                    deliveries: 2,
                    reason: "bad".into(),
                },
                "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C",
                "advisory.v1.terminated",
                r#""consumer_seq":9,"stream_seq":4,"deliveries":2,"reason":"bad"}"#,
            ),
            (
                Advisory::AckSampled {
                    consumer_seq: 9,
                    stream_seq: 4,
                    deliveries: 1,
                    ack_time: 77,
                },
                "$JS.EVENT.METRIC.CONSUMER.ACK.S.C",
                "metric.v1.consumer_ack",
                r#""consumer_seq":9,"stream_seq":4,"ack_time":77,"deliveries":1}"#,
            ),
        ] {
            assert_eq!(advisory.subject("S", "C"), subject);
            assert_eq!(advisory.body(&context), head(kind) + rest);
        }
    }
}
