//! The codec: control lines in, deliveries out, as time a frame and bytes a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sovereign_mesh::protocol::encode::{self, Message};
use sovereign_mesh::protocol::grammar::control_line;
use sovereign_mesh::router::WireBuf;

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let lines: [(&str, &[u8]); 5] = [
        ("PUB", b"PUB mesh.fo.insight 128"),
        (
            "PUB with reply",
            b"PUB mesh.fo.insight _INBOX.abcdefghijklmnop.42 128",
        ),
        ("HPUB", b"HPUB mesh.fo.insight 40 168"),
        ("SUB", b"SUB mesh.fo.* workers 17"),
        ("PING", b"PING"),
    ];
    for (name, line) in lines {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |b| b.iter(|| control_line(black_box(line)).is_ok()));
    }
    group.finish();
}

fn encode_deliveries(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let payload = [b'x'; 128];
    let message = Message {
        subject: b"mesh.fo.insight",
        payload: &payload,
        ..Message::default()
    };
    let mut line = Vec::new();
    encode::delivery_start(&mut line, message.subject, b"17");
    let frame = line.len() + "128\r\n".len() + payload.len() + 2;
    group.throughput(Throughput::Bytes(frame as u64));
    let mut wire = WireBuf::default();
    group.bench_function("MSG", |b| {
        b.iter(|| {
            wire.delivery(b"17", black_box(&message), false, None);
            if wire.len() > 1 << 16 {
                wire.clear();
            }
        });
    });
    group.bench_function("MSG, line at hand", |b| {
        b.iter(|| {
            wire.delivery_with(&line, black_box(&message), false, None);
            if wire.len() > 1 << 16 {
                wire.clear();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, parse, encode_deliveries);
criterion_main!(benches);
