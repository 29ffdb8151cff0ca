//! The catalog: what each scenario does, and one run of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::js::{self, Refill};
use super::load::Load;
use super::report::Reading;
use super::wire::Target;
use super::{idle, process, request};

/// One line of the benchmark.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub work: Work,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Publishers and subscribers; the size is the scenario's own where it is not the run's.
    Load {
        publishers: u64,
        subscribers: usize,
        queue: bool,
        subjects: u64,
        size: Option<usize>,
    },
    /// Whether the responder has a thread of its own.
    Request {
        apart: bool,
    },
    Idle,
    Js(js::Work),
}

const fn load(publishers: u64, subscribers: usize) -> Work {
    Work::Load {
        publishers,
        subscribers,
        queue: false,
        subjects: 0,
        size: None,
    }
}

const fn sized(size: usize) -> Work {
    Work::Load {
        publishers: 1,
        subscribers: 1,
        queue: false,
        subjects: 0,
        size: Some(size),
    }
}

/// Distinct subjects of the wildcard scenario, more than any cache of matches holds.
const DISTINCT: u64 = 100_000;

/// The scenarios of the core, idle first: it wants memory nobody has used yet.
pub const CORE: &[Scenario] = &[
    Scenario {
        name: "idle",
        about: "memory of the server with 10,000 idle connections",
        work: Work::Idle,
    },
    Scenario {
        name: "pub",
        about: "publish only",
        work: load(1, 0),
    },
    Scenario {
        name: "1to1",
        about: "one publisher, one subscriber",
        work: load(1, 1),
    },
    Scenario {
        name: "4to1",
        about: "four publishers, one subscriber",
        work: load(4, 1),
    },
    Scenario {
        name: "4to1-wild",
        about: "four publishers, 100,000 subjects, one wildcard subscriber",
        work: Work::Load {
            publishers: 4,
            subscribers: 1,
            queue: false,
            subjects: DISTINCT,
            size: None,
        },
    },
    Scenario {
        name: "4to4-queue",
        about: "four publishers, a queue group of four",
        work: Work::Load {
            publishers: 4,
            subscribers: 4,
            queue: true,
            subjects: 0,
            size: None,
        },
    },
    Scenario {
        name: "1to4",
        about: "one publisher, four subscribers",
        work: load(1, 4),
    },
    Scenario {
        name: "4to4",
        about: "four publishers, four subscribers",
        work: load(4, 4),
    },
    Scenario {
        name: "1to100",
        about: "one publisher, a hundred subscribers",
        work: load(1, 100),
    },
    Scenario {
        name: "request",
        about: "request and reply, one in flight",
        work: Work::Request { apart: false },
    },
    Scenario {
        name: "request-apart",
        about: "the same, the responder on a thread of its own",
        work: Work::Request { apart: true },
    },
    Scenario {
        name: "1to1-16",
        about: "1to1 with 16-byte payloads",
        work: sized(16),
    },
    Scenario {
        name: "1to1-16k",
        about: "1to1 with 16 KiB payloads",
        work: sized(16 * 1024),
    },
];

const fn js(name: &'static str, about: &'static str, work: js::Work) -> Scenario {
    Scenario {
        name,
        about,
        work: Work::Js(work),
    }
}

const fn stored(publishers: u64, refill: Refill, memory: bool) -> js::Work {
    js::Work::Publish {
        publishers,
        refill,
        memory,
    }
}

/// The scenarios of streams and consumers, disk first: it wants room nobody has used yet.
pub const STREAMS: &[Scenario] = &[
    js(
        "js-disk",
        "bytes on disk a payload byte at 128 bytes",
        js::Work::Disk(128),
    ),
    js(
        "js-disk-1k",
        "bytes on disk a payload byte at 1 KiB",
        js::Work::Disk(1024),
    ),
    js(
        "js-pub",
        "one publisher to a file stream, 1,000 acks outstanding",
        stored(1, Refill::Steady, false),
    ),
    js(
        "js-pub-4",
        "four publishers, 1,000 acks outstanding each",
        stored(4, Refill::Steady, false),
    ),
    js(
        "js-pub-batch",
        "one publisher, the next 1,000 when all were acknowledged",
        stored(1, Refill::Batch, false),
    ),
    js(
        "js-pub-64",
        "64 publishers that wait for each ack",
        js::Work::Lone(64),
    ),
    js(
        "js-mem",
        "one publisher to a memory stream, 1,000 acks outstanding",
        stored(1, Refill::Steady, true),
    ),
    js(
        "js-subjects",
        "publishing to 1,000,000 subjects against 10",
        js::Work::Subjects,
    ),
    js(
        "js-replay",
        "500,000 messages to a push consumer without acks",
        js::Work::Replay,
    ),
    js(
        "js-ordered",
        "300,000 messages through the ordered consumer of a client library",
        js::Work::Ordered,
    ),
    js(
        "js-filters",
        "1,000 filtered consumers on 1,000,000 subjects: making them, and publishing meanwhile",
        js::Work::Filters,
    ),
    js(
        "js-pull",
        "pull in batches of 500, acknowledge each",
        js::Work::Pull,
    ),
    js(
        "js-queue",
        "work queue: four publishers, four pullers that acknowledge each",
        js::Work::Queue,
    ),
];

/// Deliveries of a throughput run: about a second's worth.
const LOAD_COUNT: u64 = 2_000_000;
const LOAD_BYTES_MAX: u64 = 2 << 30;
const REQUEST_COUNT: u64 = 20_000;
const IDLE_COUNT: u64 = 10_000;

/// A server and what is known of its process.
#[derive(Debug)]
pub struct Side {
    pub target: Target,
    pub pid: Option<u32>,
    /// Where it stores.
    pub store: Option<PathBuf>,
}

impl Scenario {
    /// Payload bytes when the run as a whole has `size`.
    pub fn size(&self, size: usize) -> usize {
        match self.work {
            Work::Load { size: Some(own), .. } => own,
            Work::Js(js::Work::Disk(own)) => own,
            Work::Idle => 0,
            _ => size,
        }
    }

    /// Whether a run may be as long as tells most; otherwise the count is part of what is measured.
    pub fn paced(&self) -> bool {
        match self.work {
            Work::Load { .. } | Work::Request { .. } => true,
            Work::Js(work) => work.paced(),
            Work::Idle => false,
        }
    }

    /// Messages (requests, connections) of a run when none is asked for; where paced, ten warm-ups' worth.
    pub fn count(&self, size: usize) -> u64 {
        match self.work {
            Work::Load { .. } => LOAD_COUNT.min(LOAD_BYTES_MAX / self.size(size).max(1) as u64),
            Work::Request { .. } => REQUEST_COUNT,
            Work::Idle => IDLE_COUNT,
            Work::Js(work) => work.count(),
        }
    }

    /// Whether more than one run of a server tells anything: memory and files grow only once.
    pub fn repeats(&self) -> bool {
        !matches!(self.work, Work::Idle | Work::Js(js::Work::Disk(_)))
    }

    /// One run.
    pub fn run(&self, side: &Side, size: usize, count: u64) -> io::Result<Vec<Reading>> {
        let size = self.size(size);
        let mut cpu = CpuMeter::new(side.pid);
        match self.work {
            Work::Load {
                publishers,
                subscribers,
                queue,
                subjects,
                ..
            } => {
                let load = Load {
                    publishers,
                    subscribers,
                    queue,
                    subjects,
                    size,
                    count,
                };
                let took = load.run(&side.target, || cpu.mark())?;
                let mut readings = vec![Reading::more(
                    "rate",
                    "msg/s",
                    took.count as f64 / took.time.as_secs_f64(),
                )];
                readings.extend(cpu.reading(took.count));
                Ok(readings)
            }
            Work::Request { apart } => {
                let latencies = request::run(&side.target, count, size, apart, || cpu.mark())?;
                let at = |name, quantile| {
                    Reading::less(
                        name,
                        "us",
                        latencies.histogram.value_at_quantile(quantile) as f64 / 1000.0,
                    )
                };
                let mut readings = vec![
                    Reading::more("rate", "req/s", count as f64 / latencies.time.as_secs_f64()),
                    at("p50", 0.5),
                    at("p90", 0.9),
                    at("p99", 0.99),
                    at("p99.9", 0.999),
                ];
                readings.extend(cpu.reading(count));
                Ok(readings)
            }
            Work::Js(work) => work.run(side, size, count, &mut cpu),
            Work::Idle => {
                let pid = side.pid.ok_or_else(|| {
                    io::Error::other(
                        "the server's process is not to be seen here: name it with --pid or --compare-pid",
                    )
                })?;
                let memory = idle::run(&side.target, pid, count)?;
                Ok(vec![
                    Reading::less("resident", "MiB", memory.resident as f64 / f64::from(1 << 20)),
                    Reading::less("a connection", "bytes", memory.per_connection),
                ])
            }
        }
    }
}

/// Processor time of a server between two marks.
pub struct CpuMeter {
    pid: Option<u32>,
    marks: Vec<Duration>,
}

impl CpuMeter {
    fn new(pid: Option<u32>) -> Self {
        Self {
            pid,
            marks: Vec::new(),
        }
    }

    /// Called right before and right after what is measured.
    pub fn mark(&mut self) {
        self.marks.extend(self.pid.and_then(process::cpu_time));
    }

    /// What a message cost.
    pub fn reading(&self, count: u64) -> Option<Reading> {
        let [start, end] = self.marks[..] else { return None };
        let micros = (end - start).as_secs_f64() * 1e6;
        Some(Reading::less("server cpu", "us/msg", micros / count as f64))
    }
}
