//! A thousand filtered consumers on a stream of a million subjects: what making them takes, and what publishing is worth
//! while they wait for messages.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::publish::{Publish, Refill};
use super::{Stream, filled_with};
use crate::cli::bench::report::Reading;
use crate::cli::bench::wire::Conn;

const SUBJECTS: u64 = 1_000_000;
const CONSUMERS: u64 = 1_000;
/// Publishes that are timed, before and after.
const PUBLISHES: u64 = 200_000;

/// See the module documentation.
pub fn measure(mut stream: Stream, size: usize, count: u64) -> io::Result<Vec<Reading>> {
    let publish = |count| Publish {
        publishers: 1,
        subjects: SUBJECTS,
        refill: Refill::Steady,
        size,
        count,
    };
    filled_with(&mut stream, &publish(count))?;
    let without = publish(PUBLISHES).again(&stream)?;
    let mut took = Vec::new();
    for at in 0..CONSUMERS {
        let start = Instant::now();
        let filter = format!("{}.{:06}", stream.subject, at * (SUBJECTS / CONSUMERS));
        let config = json!({"durable_name": format!("C{at}"), "name": format!("C{at}"), "ack_policy": "explicit",
            "filter_subject": filter});
        stream.create_consumer(&format!("C{at}"), config)?;
        took.push(start.elapsed());
    }
    let live = wait_at_each(&stream)?;
    let with = publish(PUBLISHES).again(&stream)?;
    drop(live);
    took.sort_unstable();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    Ok(vec![
        Reading::less("create", "ms", ms(took[took.len() / 2])),
        Reading::less("create p99", "ms", ms(took[took.len() * 99 / 100])),
        Reading::more("publish with", "msg/s", PUBLISHES as f64 / with.as_secs_f64()),
        Reading::more("with of without", "", without.as_secs_f64() / with.as_secs_f64()),
    ])
}

/// A pull request at each consumer, so that all are live; and somebody who reads what comes.
fn wait_at_each(stream: &Stream) -> io::Result<Conn> {
    let inbox = format!("_INBOX.{}", nuid::next());
    let mut conn = Conn::open(&stream.target, 0)?;
    conn.send(format!("SUB {inbox} 1\r\n").as_bytes())?;
    let body = r#"{"batch":1000000,"expires":600000000000}"#;
    for at in 0..CONSUMERS {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.C{at}", stream.name);
        let request = format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len());
        conn.send(request.as_bytes())?;
    }
    conn.flush()?;
    let mut reader = conn.stream.try_clone()?;
    thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    Ok(conn)
}
