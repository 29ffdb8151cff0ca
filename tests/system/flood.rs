//! Wrong credentials by the thousand: honest clients go on, the server stays small, and so does its log.
//!
//! Speed is printed, not asserted: other work may share the machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use crate::support::process::mesh_command;
use crate::support::{PATIENCE, Process, Wire};

/// How long wrong credentials come, and how many at most.
const FLOOD: Duration = Duration::from_secs(3);
const GUESSES_MAX: usize = 40_000;
const GUESSERS: usize = 4;
/// What the server may grow by: ten thousand ended connections are remembered.
const GROWTH_MAX_KIB: u64 = 96 << 10;

fn server(authorization: &str) -> Process {
    let store = TempDir::new().unwrap();
    let file = store.path().join("mesh.conf");
    let text = format!("port: -1\nmonitor_port: 0\nauthorization {{ {authorization} }}\n");
    std::fs::write(&file, text).unwrap();
    let mut command = mesh_command();
    command.args(["serve", "--no-mesh", "-c"]).arg(&file);
    command.arg("--store-dir").arg(store.path().join("store"));
    Process::listening(command, store)
}

/// One wrong login on a connection of its own; says whether it was refused as it should be.
fn guess(address: &str, connect: &str) -> bool {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    // Not waiting for INFO: as hard as it gets.
    socket.write_all(connect.as_bytes()).unwrap();
    let mut answer = String::new();
    // A reset may take the last words with it.
    let ended = socket.read_to_string(&mut answer);
    ended.is_err() || answer.ends_with("-ERR 'Authorization Violation'\r\n")
}

/// Round trips of an honest pair until told to stop; each message arrives once and in order.
fn ping_pong(address: &str, login: &str, stop: &AtomicBool) -> Vec<Duration> {
    let (mut one, mut two) = (Wire::quiet(address, login), Wire::quiet(address, login));
    one.ask("SUB back 1\r\nPING\r\n", "PONG\r\n");
    two.ask("SUB there 1\r\nPING\r\n", "PONG\r\n");
    let mut trips = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{:08}", trips.len());
        let began = Instant::now();
        one.send(format!("PUB there 8\r\n{text}\r\n"));
        expect(&mut two, &format!("MSG there 1 8\r\n{text}\r\n"));
        two.send(format!("PUB back 8\r\n{text}\r\n"));
        expect(&mut one, &format!("MSG back 1 8\r\n{text}\r\n"));
        trips.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    trips
}

/// Takes what is expected; a PING of the server is answered on the way.
fn expect(wire: &mut Wire, message: &str) {
    let mut lines = Vec::new();
    while lines.len() < 2 {
        match wire.line().as_str() {
            "PING" => wire.send("PONG\r\n"),
            line => lines.push(line.to_owned()),
        }
    }
    assert_eq!(lines.join("\r\n") + "\r\n", message);
}

/// Processor time that the server has used.
fn processor_time(server: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn median_and_worst(mut trips: Vec<Duration>) -> (Duration, Duration) {
    trips.sort();
    (trips[trips.len() / 2], trips[trips.len() - 1])
}

fn flood(what: &str, authorization: &str, login: &str, wrong: &[String]) {
    let server = server(authorization);
    let address = server.address();
    let quiet = {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let trips = scope.spawn(|| ping_pong(address, login, &stop));
            std::thread::sleep(Duration::from_millis(500));
            stop.store(true, Ordering::Relaxed);
            trips.join().unwrap()
        })
    };
    let (before, used) = (server.resident_kib(), processor_time(&server));
    let (stop, guesses) = (AtomicBool::new(false), AtomicUsize::new(0));
    let began = Instant::now();
    let trips = std::thread::scope(|scope| {
        let honest = scope.spawn(|| ping_pong(address, login, &stop));
        let guessers: Vec<_> = (0..GUESSERS)
            .map(|_| {
                scope.spawn(|| {
                    while began.elapsed() < FLOOD {
                        let n = guesses.fetch_add(1, Ordering::Relaxed);
                        if n >= GUESSES_MAX {
                            return;
                        }
                        assert!(guess(address, &wrong[n % wrong.len()]), "{what}: guess {n}");
                    }
                })
            })
            .collect();
        // Somebody honest comes in the midst of it.
        Wire::quiet(address, login);
        for guesser in guessers {
            guesser.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        honest.join().unwrap()
    });
    let elapsed = began.elapsed();
    let grown = server.resident_kib().saturating_sub(before);
    let guesses = guesses.load(Ordering::Relaxed).min(GUESSES_MAX);
    assert!(
        guesses > 100 && trips.len() > 10,
        "{what}: {guesses} guesses, {} trips",
        trips.len()
    );
    assert!(
        grown < GROWTH_MAX_KIB,
        "{what}: {grown} KiB more after {guesses} guesses"
    );
    let log = server.wait_for("more connections ended badly");
    let told = log.matches("Authentication Failure").count();
    let most = 20 * (elapsed.as_secs() as usize + 3);
    assert!(told > 0 && told <= most, "{what}: {told} lines");
    let each = (processor_time(&server) - used) / guesses as u32;
    let (quiet, loud) = (median_and_worst(quiet), median_and_worst(trips));
    let rate = guesses as f64 / elapsed.as_secs_f64();
    println!(
        "{what}: {guesses} wrong logins in {elapsed:.1?} ({rate:.0}/s, {each:.0?} of a processor each), {grown} KiB more, {told} lines"
    );
    println!(
        "{what}: round trip p50 {:.0?}, worst {:.0?}; before {:.0?}, worst {:.0?}",
        loud.0, loud.1, quiet.0, quiet.1
    );
}

#[test]
fn wrong_tokens_slow_nobody() {
    let wrong = ["CONNECT {\"auth_token\":\"guess\"}\r\n".to_owned()];
    flood("tokens", "token: right", "\"auth_token\":\"right\"", &wrong);
}

#[test]
fn wrong_users_passwords_and_nkeys_slow_nobody() {
    let (known, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let signature = URL_SAFE_NO_PAD.encode(other.sign(b"another nonce").unwrap());
    let nkey = |key: &nkeys::KeyPair| {
        let key = key.public_key();
        format!("CONNECT {{\"nkey\":\"{key}\",\"sig\":\"{signature}\"}}\r\n")
    };
    let long = "x".repeat(1000);
    let wrong = [
        "CONNECT {\"user\":\"a\",\"pass\":\"guess\"}\r\n".to_owned(),
        "CONNECT {\"user\":\"nobody\",\"pass\":\"guess\"}\r\n".to_owned(),
        "CONNECT {}\r\n".to_owned(),
        // Long names are not kept long.
        format!("CONNECT {{\"user\":\"{long}\",\"pass\":\"{long}\",\"name\":\"{long}\"}}\r\n"),
        nkey(&known),
        nkey(&other),
    ];
    let users = format!(
        "users: [ {{ user: a, password: pa }}, {{ nkey: {} }} ]",
        known.public_key()
    );
    flood("users", &users, "\"user\":\"a\",\"pass\":\"pa\"", &wrong);
}
