//! Streams and consumers: what storing, replaying and working off costs.
//!
//! Every run has a stream of its own, made over the wire and deleted afterwards. Every ack is read and
//! checked: as many as publishes, each sequence once, and the stream holds what they promise.

mod consume;
mod filters;
mod library;
mod publish;

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process;
use super::report::Reading;
use super::scenario::{CpuMeter, Side};
use super::wire::{Conn, Frame, Target};
use publish::Publish;
pub use publish::Refill;

/// What is done with a stream.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Publish {
        publishers: u64,
        refill: Refill,
        memory: bool,
    },
    /// So many publishers, each of which waits for every ack.
    Lone(u64),
    /// Ten subjects, then a million.
    Subjects,
    /// Bytes on disk a payload byte, at this payload size.
    Disk(usize),
    Replay,
    Ordered,
    Pull,
    Queue,
    Filters,
}

/// Publishes outstanding where a publisher does not wait for each.
const OUTSTANDING: u64 = 1000;
/// Long enough for a server to write out what it keeps in memory.
const DISK_SETTLE: Duration = Duration::from_secs(3);

impl Work {
    /// Messages of a run: a second or two.
    pub fn count(self) -> u64 {
        match self {
            Self::Publish { memory: false, .. } | Self::Pull | Self::Ordered | Self::Disk(_) => 300_000,
            Self::Publish { memory: true, .. } | Self::Replay => 500_000,
            Self::Lone(_) | Self::Queue => 100_000,
            Self::Subjects | Self::Filters => 1_000_000,
        }
    }

    /// As [`Scenario::paced`](super::scenario::Scenario::paced).
    pub fn paced(self) -> bool {
        !matches!(
            self,
            Self::Subjects | Self::Filters | Self::Disk(_) | Self::Replay | Self::Ordered
        )
    }

    /// One run.
    pub fn run(self, side: &Side, size: usize, count: u64, cpu: &mut CpuMeter) -> io::Result<Vec<Reading>> {
        let retention = if matches!(self, Self::Queue) {
            "workqueue"
        } else {
            "limits"
        };
        let memory = matches!(self, Self::Publish { memory: true, .. });
        let stream = || Stream::create(&side.target, retention, memory);
        let publish = |publishers, subjects, refill| Publish {
            publishers,
            subjects,
            refill,
            size,
            count,
        };
        match self {
            Self::Publish {
                publishers, refill, ..
            } => publish(publishers, 0, refill)
                .measure(&mut stream()?, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
            Self::Lone(publishers) => publish(publishers, 0, Refill::OneByOne)
                .measure(&mut stream()?, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
            Self::Subjects => {
                let few = publish(1, 10, Refill::Steady).measure(&mut stream()?, || ())?;
                let many = publish(1, 1_000_000, Refill::Steady).measure(&mut stream()?, || ())?;
                let per_second = |took: Duration| count as f64 / took.as_secs_f64();
                Ok(vec![
                    Reading::more("10 subjects", "msg/s", per_second(few)),
                    Reading::more("1 M subjects", "msg/s", per_second(many)),
                    Reading::more("1 M of 10", "", few.as_secs_f64() / many.as_secs_f64()),
                ])
            }
            Self::Disk(_) => {
                let directory = side.store.as_deref().ok_or_else(|| {
                    io::Error::other("name the store's directory with --store or --compare-store")
                })?;
                let before = process::disk_bytes(directory);
                let mut stream = stream()?;
                publish(1, 0, Refill::Steady).measure(&mut stream, || ())?;
                thread::sleep(DISK_SETTLE);
                let bytes = process::disk_bytes(directory).saturating_sub(before);
                let stored = count * size as u64;
                Ok(vec![Reading::less(
                    "on disk",
                    "bytes/byte",
                    bytes as f64 / stored as f64,
                )])
            }
            Self::Replay => consume::replay(&mut filled(stream()?, size, count)?, size, count, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
            Self::Ordered => library::ordered(&filled(stream()?, size, count)?, count, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
            Self::Filters => filters::measure(stream()?, size, count),
            Self::Pull => consume::pull(&mut filled(stream()?, size, count)?, size, count, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
            Self::Queue => consume::work_queue(&mut stream()?, size, count, || cpu.mark())
                .map(|took| rate(count, took, cpu)),
        }
    }
}

fn rate(count: u64, took: Duration, cpu: &CpuMeter) -> Vec<Reading> {
    let mut readings = vec![Reading::more("rate", "msg/s", count as f64 / took.as_secs_f64())];
    readings.extend(cpu.reading(count));
    readings
}

fn filled(mut stream: Stream, size: usize, count: u64) -> io::Result<Stream> {
    let publish = Publish {
        publishers: 1,
        subjects: 0,
        refill: Refill::Steady,
        size,
        count,
    };
    filled_with(&mut stream, &publish)?;
    Ok(stream)
}

fn filled_with(stream: &mut Stream, publish: &Publish) -> io::Result<()> {
    publish.measure(stream, || ())?;
    Ok(())
}

/// A stream of one run, deleted when dropped.
pub struct Stream {
    target: Target,
    api: Conn,
    inbox: String,
    name: String,
    /// What is published to it begins so.
    subject: String,
}

impl Stream {
    fn create(target: &Target, retention: &str, memory: bool) -> io::Result<Self> {
        let id = nuid::next()[16..].to_owned();
        let mut api = Conn::open(target, usize::MAX)?;
        let inbox = format!("_INBOX.{}", nuid::next());
        api.send(format!("SUB {inbox} 1\r\n").as_bytes())?;
        let mut stream = Self {
            target: target.clone(),
            api,
            inbox,
            name: format!("BENCH_{id}"),
            subject: format!("bench.{id}"),
        };
        let config = json!({
            "name": stream.name, "subjects": [format!("{}.>", stream.subject)], "retention": retention,
            "storage": if memory { "memory" } else { "file" }, "num_replicas": 1,
        });
        stream.request(&format!("STREAM.CREATE.{}", stream.name), &config)?;
        Ok(stream)
    }

    /// Asks the API; an answer that is an error is one.
    fn request(&mut self, subject: &str, body: &Value) -> io::Result<Value> {
        let body = body.to_string();
        let request = format!(
            "PUB $JS.API.{subject} {} {}\r\n{body}\r\n",
            self.inbox,
            body.len()
        );
        self.api.send(request.as_bytes())?;
        let mut answer = None;
        while answer.is_none() {
            self.api.receive(|frame| {
                if let Frame::Message { line, body, .. } = frame {
                    answer = Some(if line.starts_with(b"HMSG") {
                        Value::Null
                    } else {
                        serde_json::from_slice(body)?
                    });
                }
                Ok(())
            })?;
        }
        let answer = answer.unwrap_or_default();
        if answer.is_null() {
            return Err(io::Error::other(
                "nobody answers the JetStream API: is it enabled?",
            ));
        }
        match answer.get("error") {
            Some(error) => Err(io::Error::other(format!("{subject}: {error}"))),
            None => Ok(answer),
        }
    }

    /// How many messages it holds.
    fn messages(&mut self) -> io::Result<u64> {
        let info = self.request(&format!("STREAM.INFO.{}", self.name), &json!({}))?;
        info["state"]["messages"]
            .as_u64()
            .ok_or_else(|| io::Error::other("stream info without a count"))
    }

    fn create_consumer(&mut self, name: &str, config: Value) -> io::Result<()> {
        let subject = format!("CONSUMER.CREATE.{}.{name}", self.name);
        self.request(
            &subject,
            &json!({"stream_name": self.name, "action": "create", "config": config}),
        )?;
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What is left behind on an error only costs the server room.
        self.request(&format!("STREAM.DELETE.{}", self.name), &json!({}))
            .ok();
    }
}

/// What one of several clients does; returns when it ended and what it counted.
type Job<'a> = Box<dyn FnOnce() -> io::Result<Instant> + Send + 'a>;

/// Runs all jobs at once, each on a thread, until the last has ended; `mark` is called before and after.
fn together(jobs: Vec<Job<'_>>, mut mark: impl FnMut()) -> io::Result<Duration> {
    let gate = Barrier::new(jobs.len() + 1);
    let gate = &gate;
    let (start, ends) = thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                scope.spawn(move || {
                    gate.wait();
                    job()
                })
            })
            .collect();
        mark();
        let start = Instant::now();
        gate.wait();
        let ends: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
            })
            .collect();
        (start, ends)
    });
    mark();
    let mut last = start;
    for end in ends {
        last = last.max(end?);
    }
    Ok(last - start)
}
