//! The catalog: what each scenario does, and one run of it.

use std::io;
use std::time::Duration;

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
    Request,
    Idle,
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
        work: Work::Request,
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
}

impl Scenario {
    /// Payload bytes when the run as a whole has `size`.
    pub fn size(&self, size: usize) -> usize {
        match self.work {
            Work::Load { size: Some(own), .. } => own,
            Work::Idle => 0,
            _ => size,
        }
    }

    /// Messages (requests, connections) of a run when none is asked for.
    pub fn count(&self, size: usize) -> u64 {
        match self.work {
            Work::Load { .. } => LOAD_COUNT.min(LOAD_BYTES_MAX / self.size(size).max(1) as u64),
            Work::Request => REQUEST_COUNT,
            Work::Idle => IDLE_COUNT,
        }
    }

    /// Whether more than one run of a server tells anything.
    pub fn repeats(&self) -> bool {
        !matches!(self.work, Work::Idle)
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
            Work::Request => {
                let latencies = request::run(&side.target, count, size, || cpu.mark())?;
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
struct CpuMeter {
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

    fn mark(&mut self) {
        self.marks.extend(self.pid.and_then(process::cpu_time));
    }

    fn reading(&self, count: u64) -> Option<Reading> {
        let [start, end] = self.marks[..] else { return None };
        let micros = (end - start).as_secs_f64() * 1e6;
        Some(Reading::less("server cpu", "us/msg", micros / count as f64))
    }
}
