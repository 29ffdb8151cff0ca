//! What the consumer state machine itself costs, without stream, router and store.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sovereign_mesh::jetstream::consumer::ack::Ack;
use sovereign_mesh::jetstream::consumer::ack_subject::{AckPrefix, AckSubject};
use sovereign_mesh::jetstream::consumer::config::{AckPolicy, ConsumerConfig};
use sovereign_mesh::jetstream::consumer::start::Start;
use sovereign_mesh::jetstream::consumer::state::{
    Action, Consumer, ConsumerOptions, Delivery, Interest, Offered, Want,
};

struct Everyone;

impl Interest for Everyone {
    fn generation(&self) -> u64 {
        0
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
}

const MESSAGES: u64 = 100_000;

fn consumer(config: &ConsumerConfig) -> Consumer {
    let options = ConsumerOptions {
        stream: "ORDERS",
        name: "worker",
        ack_prefix: AckPrefix::new("ORDERS", "worker"),
        reports_acks: false,
        durable_state: true,
        message_bytes_max: 1 << 20,
        active: true,
        seed: 1,
    };
    let start = Start {
        next_seq: 1,
        skip: Vec::new(),
        last_seq: MESSAGES,
        num_pending: MESSAGES,
    };
    Consumer::new(config, &options, start, 1)
}

/// Delivers until the consumer wants no more; writes the ack subjects as the owner would.
fn pump(
    consumer: &mut Consumer,
    now: i64,
    out: &mut Vec<Action>,
    subject: &mut Vec<u8>,
    sent: &mut Vec<Delivery>,
) {
    loop {
        let seq = match consumer.want(now, out) {
            Want::Message(seq) => seq,
            Want::From(seq) if seq <= MESSAGES => seq,
            _ => break,
        };
        consumer.offer(
            &Offered {
                seq,
                timestamp: now,
                subject_len: 12,
                body_len: 128,
            },
            now,
            &Everyone,
            out,
        );
        for action in out.drain(..) {
            if let Action::Deliver(delivery) = action {
                subject.clear();
                consumer.write_ack_subject(&delivery, subject);
                sent.push(delivery);
            }
        }
    }
}

fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("consumer");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(20);
    let push = ConsumerConfig {
        deliver_subject: "out".to_owned(),
        ..ConsumerConfig::default()
    };
    group.bench_function("replay to push without acks", |b| {
        b.iter_batched(
            || {
                (
                    consumer(&push),
                    Vec::new(),
                    Vec::new(),
                    Vec::with_capacity(MESSAGES as usize),
                )
            },
            |(mut consumer, mut out, mut subject, mut sent)| {
                pump(&mut consumer, 5, &mut out, &mut subject, &mut sent);
                assert_eq!(sent.len() as u64, MESSAGES);
            },
            BatchSize::PerIteration,
        );
    });
    let pull = ConsumerConfig {
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30_000_000_000,
        max_ack_pending: 1_000,
        max_waiting: 512,
        ..ConsumerConfig::default()
    };
    for (name, persist) in [
        ("pull 500, ack each", false),
        ("pull 500, ack each, state written per batch", true),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || (consumer(&pull), Vec::new(), Vec::new(), Vec::new()),
                |(mut consumer, mut out, mut subject, mut sent)| {
                    let (mut now, mut acked) = (5, 0);
                    while acked < MESSAGES {
                        now += 1_000;
                        let reply = Bytes::from_static(b"_INBOX.abcdefghijklmnopqrstuv.1");
                        consumer.pull(
                            br#"{"batch":500,"expires":5000000000}"#,
                            reply,
                            now,
                            &Everyone,
                            &mut out,
                        );
                        pump(&mut consumer, now, &mut out, &mut subject, &mut sent);
                        for delivery in sent.drain(..) {
                            subject.clear();
                            consumer.write_ack_subject(&delivery, &mut subject);
                            let parsed = AckSubject::parse(&subject).expect("just written");
                            consumer.ack(&parsed.numbers, Ack::Ack, None, now, &Everyone, &mut out);
                            acked += 1;
                        }
                        if persist {
                            consumer.persist().expect("something changed");
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// 100,000 messages in flight, 64 of them refused, out of order, between two commits.
fn commits(c: &mut Criterion) {
    let config = ConsumerConfig {
        deliver_subject: "out".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30_000_000_000,
        max_ack_pending: -1,
        ..ConsumerConfig::default()
    };
    let mut consumer = consumer(&config);
    let (mut out, mut subject, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    pump(&mut consumer, 5, &mut out, &mut subject, &mut sent);
    consumer.persist();
    let mut order: Vec<usize> = (1..sent.len()).collect();
    let mut random = 88_172_645_463_325_252u64;
    for at in (1..order.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(at, (random % (at as u64 + 1)) as usize);
    }
    let mut next = order.into_iter().cycle();
    c.bench_function("consumer/commit of 64 naks with 100,000 in flight", |b| {
        b.iter(|| {
            for index in next.by_ref().take(64) {
                let numbers = sent[index].numbers;
                consumer.ack(&numbers, Ack::Nak(1_000_000_000), None, 9, &Everyone, &mut out);
            }
            out.clear();
            consumer.persist()
        });
    });
}

criterion_group!(benches, replay, commits);
criterion_main!(benches);
