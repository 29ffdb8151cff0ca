//! A scraper beside a run: asks for the metrics page once a second, as Prometheus does at its most eager.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::report::Reading;
use crate::cli::monitoring::Monitoring;

const EVERY: Duration = Duration::from_secs(1);

/// A scraper at work. It asks at once, and then every second until it is ended.
pub struct Scraper {
    stop: Sender<()>,
    work: JoinHandle<io::Result<Vec<Duration>>>,
}

impl Scraper {
    /// Begins to ask.
    pub fn start(pages: &Monitoring) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let pages = pages.clone();
        let work = move || {
            let mut took = Vec::new();
            loop {
                let began = Instant::now();
                let answer = runtime.block_on(pages.get("/metrics"));
                let answer = answer.map_err(|failure| io::Error::other(failure.to_string()))?;
                if answer.status != 200 {
                    let url = pages.url();
                    return Err(io::Error::other(format!(
                        "{url}/metrics answered {}",
                        answer.status
                    )));
                }
                took.push(began.elapsed());
                match stopped.recv_timeout(EVERY.saturating_sub(began.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(took),
                }
            }
        };
        let work = thread::Builder::new().name("scraper".to_owned()).spawn(work)?;
        Ok(Self { stop, work })
    }

    /// Ends it; says how often it asked, and how long a page took on average.
    pub fn end(self) -> io::Result<[Reading; 2]> {
        // One that has failed has ended before: it says so below.
        self.stop.send(()).ok();
        let took = self
            .work
            .join()
            .map_err(|_| io::Error::other("the scraper panicked"))??;
        let mean = took.iter().sum::<Duration>().as_secs_f64() * 1e3 / took.len().max(1) as f64;
        Ok([
            Reading::more("scrapes", "a run", took.len() as f64),
            Reading::less("page", "ms", mean),
        ])
    }
}
