//! End to end over loopback sockets: publish to delivery, and request to reply, through a running server.

use std::io::{Read, Write};
use std::net::TcpStream;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sovereign_mesh::{Config, TestServer};

const BATCH: usize = 1000;
const PAYLOAD: usize = 128;

fn connect(server: &TestServer) -> TcpStream {
    let mut socket = TcpStream::connect(server.server().local_addr()).expect("the server listens");
    socket.set_nodelay(true).expect("a socket takes the option");
    socket
        .write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")
        .expect("the server reads");
    read_until(&mut socket, b"PONG\r\n");
    socket
}

fn read_until(socket: &mut TcpStream, end: &[u8]) {
    let mut all = Vec::new();
    let mut byte = [0u8; 4096];
    while !all.ends_with(end) {
        let count = socket.read(&mut byte).expect("the server answers");
        assert!(count > 0, "the server has closed the connection");
        all.extend_from_slice(&byte[..count]);
    }
}

fn sockets(c: &mut Criterion) {
    let server = TestServer::with(Config {
        monitor_port: None,
        ..Config::default()
    });
    let mut group = c.benchmark_group("sockets");

    let (mut from, mut to) = (connect(&server), connect(&server));
    to.write_all(b"SUB bench 1\r\nPING\r\n")
        .expect("the server reads");
    read_until(&mut to, b"PONG\r\n");
    let publish = format!("PUB bench {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).repeat(BATCH);
    let delivery = format!("MSG bench 1 {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).len() * BATCH;
    let mut received = vec![0u8; delivery];
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("publish 1000 and receive them", |b| {
        b.iter(|| {
            from.write_all(publish.as_bytes()).expect("the server reads");
            to.read_exact(&mut received).expect("the server delivers");
        });
    });

    group.throughput(Throughput::Elements(1));
    let mut responder = connect(&server);
    responder
        .write_all(b"SUB ask 1\r\nPING\r\n")
        .expect("the server reads");
    read_until(&mut responder, b"PONG\r\n");
    from.write_all(b"SUB answer 1\r\nPING\r\n")
        .expect("the server reads");
    read_until(&mut from, b"PONG\r\n");
    let request_len = "MSG ask 1 answer 0\r\n\r\n".len();
    let answer_len = "MSG answer 1 0\r\n\r\n".len();
    let mut buffer = [0u8; 64];
    group.bench_function("request and reply", |b| {
        b.iter(|| {
            from.write_all(b"PUB ask answer 0\r\n\r\n")
                .expect("the server reads");
            responder
                .read_exact(&mut buffer[..request_len])
                .expect("the server delivers");
            responder
                .write_all(b"PUB answer 0\r\n\r\n")
                .expect("the server reads");
            from.read_exact(&mut buffer[..answer_len])
                .expect("the server delivers");
        });
    });
    group.finish();
}

criterion_group!(benches, sockets);
criterion_main!(benches);
