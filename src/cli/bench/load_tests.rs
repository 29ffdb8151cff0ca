//! The generator against servers that cannot be the bottleneck, and against servers that cheat.
//! Rates are printed, not asserted: `cargo test --release bench::load -- --nocapture`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::super::block::UNSTAMPED;
use super::super::wire::Scanner;
use super::*;

const SIZE: usize = 128;

/// What a fake server sends a subscriber instead of what it was told to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The second block of messages never comes.
    Loses,
    /// The second block comes twice.
    Doubles,
    /// More unstamped messages come than were published.
    Invents,
    /// A message that is too short.
    Truncates,
    /// The connection ends early.
    Closes,
    Refuses,
}

/// Accepts connections: the first that subscribes gets `count` messages, all that publish are discarded.
fn fake(connections: usize, count: u64, fault: Fault) -> (SocketAddr, thread::JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        // Nobody gets a message before one was published.
        let published = Arc::new(AtomicBool::new(false));
        let serving: Vec<_> = (0..connections)
            .map(|_| {
                let (socket, _) = listener.accept().unwrap();
                let published = published.clone();
                thread::spawn(move || serve(socket, count, fault, &published))
            })
            .collect();
        serving.into_iter().map(|one| one.join().unwrap()).sum()
    });
    (address, server)
}

/// Returns how many bytes of publishes came.
fn serve(mut socket: TcpStream, count: u64, fault: Fault, published: &AtomicBool) -> u64 {
    socket.write_all(b"INFO {}\r\n").unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap());
    let mut subject = None;
    let mut line = String::new();
    let mut pings = 0;
    // Publishers ping once (after CONNECT) before they publish, subscribers once more.
    while pings < 1 + usize::from(subject.is_some()) {
        line.clear();
        lines.read_line(&mut line).unwrap();
        if line == "PING\r\n" {
            pings += 1;
            socket.write_all(b"PONG\r\n").unwrap();
            if pings == 1 {
                // Only a subscriber's next bytes are a line; a publisher is known by its first byte.
                if lines.fill_buf().unwrap().first() != Some(&b'S') {
                    published.store(true, Ordering::SeqCst);
                    return sink(lines, socket);
                }
                subject = Some(String::new());
            }
        } else if let Some(rest) = line.strip_prefix("SUB ") {
            subject = rest.split(' ').next().map(str::to_owned);
        }
    }
    while !published.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    source(&socket, &subject.unwrap(), count, fault);
    0
}

fn sink(mut from: impl Read, mut socket: TcpStream) -> u64 {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return total;
        }
        total += read as u64;
        if buffer[..read].ends_with(b"PING\r\n") {
            socket.write_all(b"PONG\r\n").unwrap();
            return total - 6;
        }
    }
}

fn source(to: &TcpStream, subject: &str, count: u64, fault: Fault) {
    let head = format!("MSG {subject} 1 {SIZE}\r\n");
    let mut record = head.clone().into_bytes();
    record.extend_from_slice(&UNSTAMPED.to_le_bytes());
    record.extend_from_slice(&[0; SIZE - 8]);
    record.extend_from_slice(b"\r\n");
    let mut block = record.repeat(STAMP_EVERY as usize * 6);
    let in_block = STAMP_EVERY * 6;
    let mut socket = to;
    let mut send = |base: u64, count: u64| {
        for index in (0..count).step_by(STAMP_EVERY as usize) {
            let at = index as usize * record.len() + head.len();
            block[at..at + 8].copy_from_slice(&(base + index).to_le_bytes());
        }
        let mut to = to;
        to.write_all(&block[..count as usize * record.len()]).is_ok()
    };
    let mut base = 0;
    while base < count {
        let these = in_block.min(count - base);
        let second = base == in_block;
        let lost = fault == Fault::Loses && second;
        if !lost && !send(base, these) {
            return;
        }
        if second && fault == Fault::Invents {
            socket.write_all(&record.repeat(in_block as usize)).unwrap();
        }
        if second && fault == Fault::Doubles {
            send(base, these);
        }
        base += these;
        if second && fault == Fault::Closes {
            return;
        }
        if second && fault == Fault::Refuses {
            socket.write_all(b"-ERR 'Permissions Violation'\r\n").unwrap();
        }
        if second && fault == Fault::Truncates {
            socket
                .write_all(format!("MSG {subject} 1 3\r\nabc\r\n").as_bytes())
                .unwrap();
        }
    }
}

fn load(subscribers: usize, count: u64) -> Load {
    Load {
        publishers: 1,
        subscribers,
        queue: false,
        subjects: 0,
        size: SIZE,
        count,
    }
}

fn against_fake(subscribers: usize, count: u64, fault: Fault) -> io::Result<Took> {
    let (address, server) = fake(subscribers + 1, count, fault);
    let target = Target::parse(&format!("nats://{address}")).unwrap();
    let took = load(subscribers, count).run(&target, || ());
    let received = server.join().unwrap();
    if took.is_ok() {
        let record = "PUB bench.123456 128\r\n".len() + SIZE + 2;
        assert_eq!(received, count * record as u64);
    }
    took
}

#[test]
fn publishes_into_a_sink() {
    let count = if cfg!(debug_assertions) {
        100_000
    } else {
        20_000_000
    };
    let took = against_fake(0, count, Fault::None).unwrap();
    assert_eq!(took.count, count);
    println!(
        "sink: {:.1} M msg/s",
        count as f64 / took.time.as_secs_f64() / 1e6
    );
}

#[test]
fn counts_from_a_source() {
    let count = if cfg!(debug_assertions) {
        100_000
    } else {
        20_000_000
    };
    let took = against_fake(1, count, Fault::None).unwrap();
    assert_eq!(took.count, count);
    println!(
        "source: {:.1} M msg/s",
        count as f64 / took.time.as_secs_f64() / 1e6
    );
}

#[test]
fn cheating_servers_are_found_out() {
    let cases = [
        (Fault::Loses, "message 768 of publisher 0 came where 384 was due"),
        (
            Fault::Doubles,
            "message 384 of publisher 0 came where 768 was due",
        ),
        (Fault::Invents, "messages came of 10000"),
        (Fault::Truncates, "shorter than it was sent"),
        (Fault::Closes, "the server closed the connection"),
        (Fault::Refuses, "Permissions Violation"),
    ];
    for (fault, expected) in cases {
        let error = against_fake(1, 10_000, fault).unwrap_err().to_string();
        assert!(error.contains(expected), "{fault:?}: {error}");
    }
}

#[test]
fn blocks_are_whole_publishes_with_stamps_and_subjects() {
    for size in [0, 15, 16, 128, 4096, 100_000] {
        let load = Load {
            size,
            subjects: 1000,
            publishers: 2,
            ..load(1, 10)
        };
        let mut block = load.block("bench.abc", 1);
        let count = block.count.min(200);
        let bytes = block.fill(128, count).to_vec();
        let mut rest = &bytes[..];
        for index in 0..count {
            let head = format!("PUB bench.abc.{:06} {size}\r\n", (500 + 128 + index) % 1000);
            rest = rest.strip_prefix(head.as_bytes()).expect(&head);
            if size >= STAMP_BYTES {
                let stamp = u64::from_le_bytes(rest[..8].try_into().unwrap());
                let stamped = index % load.stamp_every() == 0;
                assert_eq!(stamp, if stamped { 128 + index } else { UNSTAMPED });
                assert_eq!(rest[8], 1);
            }
            rest = rest[size..].strip_prefix(b"\r\n").unwrap();
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn a_subscriber_counts_what_is_in_memory() {
    let rounds = if cfg!(debug_assertions) { 10 } else { 20_000 };
    let mut record = format!("MSG bench.123456 1 {SIZE}\r\n").into_bytes();
    record.extend_from_slice(&UNSTAMPED.to_le_bytes());
    record.extend_from_slice(&[0; SIZE - 8]);
    record.extend_from_slice(b"\r\n");
    let data = record.repeat(1000);
    let mut check = load(1, 1000).check();
    let mut scanner = Scanner::new(STAMP_BYTES);
    let start = Instant::now();
    for _ in 0..rounds {
        scanner.scan(&data, |frame| check.frame(&frame)).unwrap();
    }
    assert_eq!(check.count, rounds * 1000);
    println!(
        "scan: {:.1} M msg/s",
        check.count as f64 / start.elapsed().as_secs_f64() / 1e6
    );
}
