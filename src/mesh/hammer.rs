//! Load: many made-up instances that say everything there is to say, and a reader that counts.
//!
//! Events go into a stream of their own under a subject of their own, so that nobody acts on a made-up beacon; the stream is
//! configured like the real one and removed at the end. What was acknowledged must arrive, once, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishAckFuture;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalog::{Catalog, Kind};
use super::error::While;
use super::reader::{Reader, Selection, Start};
use super::{Envelope, Error, Mesh, setup};

/// Longest wait for events that were acknowledged and have not come.
const DRAIN: Duration = Duration::from_secs(10);
/// Latencies are recorded up to a minute, in microseconds.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// How hard to hammer.
#[derive(Clone, Debug)]
pub struct Load {
    /// One connection for each instance that speaks.
    pub clients: Vec<async_nats::Client>,
    /// How long they speak.
    pub time: Duration,
    /// How many events each has on the way at most.
    pub window: usize,
    /// Events a second of each; as many as go if none.
    pub rate: Option<u32>,
}

/// Counters that a progress bar can look at meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events that the server has acknowledged.
    pub acked: AtomicU64,
    /// Events that came back.
    pub received: AtomicU64,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half were faster.
    pub p50: f64,
    /// Nine of ten were.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
    /// All but one of a thousand.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Instances that spoke.
    pub instances: usize,
    /// From the first event to the last acknowledgement.
    pub seconds: f64,
    /// Events the server acknowledged.
    pub acked: u64,
    /// Events it did not acknowledge.
    pub failed: u64,
    /// Events that came back.
    pub received: u64,
    /// Acknowledged, and never came.
    pub lost: u64,
    /// Came more than once.
    pub doubled: u64,
    /// Came after one that its instance had said later.
    pub misordered: u64,
    /// Acknowledged events a second.
    pub events_per_second: f64,
    /// From saying an event to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From saying an event to its arrival at the reader.
    pub delivery_ms: Percentiles,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.failed + self.lost + self.doubled + self.misordered == 0
    }
}

/// What one instance did.
struct Said {
    acked: Vec<bool>,
    latency: Histogram<u64>,
}

/// What the reader saw.
struct Heard {
    /// Arrivals of each event, by instance and sequence.
    counts: Vec<Vec<u32>>,
    misordered: u64,
    latency: Histogram<u64>,
}

impl Mesh {
    /// Runs the load to its end, or to a stop, and counts.
    pub async fn hammer(
        &self,
        load: &Load,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<Report, Error> {
        let run = nuid::next().to_string();
        let root = format!("mesh-hammer.{run}");
        let config = jetstream::stream::Config {
            name: format!("{}_HAMMER_{run}", setup::STREAM),
            subjects: vec![format!("{root}.>")],
            ..setup::stream_config(&setup::Options::default())
        };
        let name = config.name.clone();
        self.jetstream
            .create_stream(config)
            .await
            .while_doing("cannot make a stream to hammer on")?;
        let report = self.hammer_on(&name, &root, load, progress, stop).await;
        self.jetstream
            .delete_stream(&name)
            .await
            .while_doing(format!("cannot remove stream {name}"))?;
        report
    }

    async fn hammer_on(
        &self,
        stream: &str,
        root: &str,
        load: &Load,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<Report, Error> {
        let selection = Selection {
            stream: stream.to_owned(),
            follow: true,
            ..Selection::of(vec![format!("{root}.>")], Start::After(0))
        };
        let reader = self.read(selection).await?;
        let spoken = CancellationToken::new();
        let hearing = tokio::spawn(hear(
            reader,
            load.clients.len(),
            Arc::clone(&progress),
            spoken.clone(),
        ));
        let mix: Arc<[(String, Bytes)]> = mix(&self.catalog, root).into();
        let begun = Instant::now();
        let mut speaking = Vec::with_capacity(load.clients.len());
        for (number, client) in load.clients.iter().enumerate() {
            let speaker = Speaker {
                number,
                jetstream: jetstream::context::ContextBuilder::new()
                    .ack_timeout(self.timeout)
                    .max_ack_inflight(load.window)
                    .build(client.clone()),
                mix: Arc::clone(&mix),
                progress: Arc::clone(&progress),
            };
            speaking.push(tokio::spawn(speaker.speak(load.clone(), stop.clone())));
        }
        let mut said = Vec::with_capacity(load.clients.len());
        for speaker in speaking {
            said.push(speaker.await.map_err(std::io::Error::other)?);
        }
        let seconds = begun.elapsed().as_secs_f64();
        spoken.cancel();
        let heard = hearing.await.map_err(std::io::Error::other)??;
        Ok(report(load.clients.len(), seconds, &said, &heard))
    }
}

/// One made-up instance.
struct Speaker {
    number: usize,
    jetstream: jetstream::Context,
    mix: Arc<[(String, Bytes)]>,
    progress: Arc<Progress>,
}

impl Speaker {
    async fn speak(self, load: Load, stop: CancellationToken) -> Said {
        let mut said = Said {
            acked: Vec::new(),
            latency: histogram(),
        };
        let mut on_the_way = FuturesUnordered::new();
        let deadline = Instant::now() + load.time;
        let mut pace = load
            .rate
            .map(|rate| tokio::time::interval(Duration::from_secs(1) / rate.max(1)));
        let mut next = self.number % self.mix.len();
        while Instant::now() < deadline && !stop.is_cancelled() {
            // Acknowledgements are taken as they come, or waiting here would count as theirs.
            let full = on_the_way.len() >= load.window;
            tokio::select! {
                biased;
                Some(settled) = on_the_way.next() => {
                    self.settle(&mut said, settled);
                    continue;
                }
                () = due(&mut pace), if !full => {}
            }
            let at = said.acked.len();
            said.acked.push(false);
            let sent = Instant::now();
            if let Ok(ack) = self.publish(at, next).await {
                on_the_way.push(async move {
                    let acked = ack.await.is_ok();
                    (at, sent.elapsed(), acked)
                });
            }
            next = (next + 1) % self.mix.len();
        }
        while let Some(settled) = on_the_way.next().await {
            self.settle(&mut said, settled);
        }
        said
    }

    fn settle(&self, said: &mut Said, (at, took, acked): (usize, Duration, bool)) {
        if acked {
            said.acked[at] = true;
            record(&mut said.latency, took);
            self.progress.acked.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn publish(&self, at: usize, next: usize) -> Result<PublishAckFuture, Error> {
        let (subject, body) = &self.mix[next];
        let seq = at as u64 + 1;
        let envelope = Envelope {
            event: subject.rsplit('.').next().map(str::to_owned),
            instance: Some(self.number.to_string()),
            session: Some(format!("hammer-{}", self.number)),
            parent: None,
            seq: Some(seq),
            time: Some(Timestamp::now().to_string()),
            id: Some(format!("{}.{seq}", self.number)),
        };
        let sent = self
            .jetstream
            .publish_with_headers(subject.clone(), envelope.headers(), body.clone())
            .await;
        sent.while_doing("cannot publish")
    }
}

/// When an instance may speak next: at once if nothing holds it back.
async fn due(pace: &mut Option<tokio::time::Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

/// Reads until everybody has spoken and nothing more comes.
async fn hear(
    mut reader: Reader,
    instances: usize,
    progress: Arc<Progress>,
    spoken: CancellationToken,
) -> Result<Heard, Error> {
    let mut heard = Heard {
        counts: vec![Vec::new(); instances],
        misordered: 0,
        latency: histogram(),
    };
    loop {
        let waiting = progress.received.load(Ordering::Relaxed) < progress.acked.load(Ordering::Relaxed);
        if spoken.is_cancelled() && !waiting {
            return Ok(heard);
        }
        let event = tokio::select! {
            event = reader.next() => event?,
            () = spoken.cancelled(), if !spoken.is_cancelled() => continue,
            () = tokio::time::sleep(DRAIN), if spoken.is_cancelled() => return Ok(heard),
        };
        let Some(event) = event else { return Ok(heard) };
        let instance = event
            .envelope
            .instance
            .as_deref()
            .and_then(|instance| instance.parse::<usize>().ok());
        let place = instance
            .and_then(|instance| heard.counts.get_mut(instance))
            .zip(event.envelope.seq);
        let Some((counts, seq)) = place else { continue };
        let at = usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX);
        if at < counts.len() {
            heard.misordered += u64::from(counts[at] == 0);
        } else if at - counts.len() < 1 << 24 {
            counts.resize(at + 1, 0);
        } else {
            continue;
        }
        counts[at] += 1;
        progress.received.fetch_add(1, Ordering::Relaxed);
        let sent = event
            .envelope
            .time
            .and_then(|time| time.parse::<Timestamp>().ok());
        if let Some(took) =
            sent.and_then(|sent| Duration::try_from(Timestamp::now().duration_since(sent)).ok())
        {
            record(&mut heard.latency, took);
        }
    }
}

fn report(instances: usize, seconds: f64, said: &[Said], heard: &Heard) -> Report {
    let mut ack_latency = histogram();
    let (mut acked, mut failed, mut lost, mut doubled, mut received) = (0, 0, 0, 0, 0);
    for (said, counts) in said.iter().zip(&heard.counts) {
        ack_latency.add(&said.latency).expect("both have the same bounds");
        for (at, &was_acked) in said.acked.iter().enumerate() {
            let arrivals = counts.get(at).copied().unwrap_or(0);
            acked += u64::from(was_acked);
            failed += u64::from(!was_acked);
            lost += u64::from(was_acked && arrivals == 0);
            doubled += u64::from(arrivals > 1);
            received += u64::from(arrivals);
        }
    }
    Report {
        instances,
        seconds,
        acked,
        failed,
        received,
        lost,
        doubled,
        misordered: heard.misordered,
        events_per_second: acked as f64 / seconds.max(f64::EPSILON),
        ack_ms: percentiles(&ack_latency),
        delivery_ms: percentiles(&heard.latency),
    }
}

/// Every event of the catalog once, with a body that fits.
fn mix(catalog: &Catalog, root: &str) -> Vec<(String, Bytes)> {
    let value = |kind: Kind, meaning: &str| match kind {
        Kind::Text => Value::from(format!("{meaning}, said by nobody to nobody")),
        Kind::Number => Value::from(0.5),
        Kind::Integer => Value::from(21),
        Kind::Flag => Value::from(true),
        Kind::List => json!(["one", "two", "three"]),
        Kind::Object => json!({"one": 1, "two": 2}),
    };
    catalog
        .events()
        .iter()
        .map(|event| {
            let fields = event
                .fields
                .iter()
                .map(|field| (field.name.clone(), value(field.kind, &field.meaning)));
            let body = Value::from(fields.collect::<Map<_, _>>()).to_string();
            let path = event.subject.strip_prefix("mesh.").unwrap_or(&event.subject);
            (format!("{root}.{path}"), Bytes::from(body))
        })
        .collect()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are constants that fit")
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let millis = |percentile: f64| histogram.value_at_percentile(percentile) as f64 / 1000.0;
    Percentiles {
        p50: millis(50.0),
        p90: millis(90.0),
        p99: millis(99.0),
        p999: millis(99.9),
        max: histogram.max() as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_the_catalog_and_fits_it() {
        let catalog = Catalog::builtin();
        let mix = mix(&catalog, "mesh-hammer.x");
        assert_eq!(mix.len(), catalog.events().len());
        for ((subject, body), event) in mix.iter().zip(catalog.events()) {
            assert_eq!(
                subject.strip_prefix("mesh-hammer.x."),
                event.subject.strip_prefix("mesh.")
            );
            event.check(body).unwrap();
        }
    }

    #[test]
    fn what_went_wrong_is_counted() {
        let said = [Said {
            acked: vec![true, true, false, true],
            latency: histogram(),
        }];
        let heard = Heard {
            counts: vec![vec![1, 0, 0, 2]],
            misordered: 1,
            latency: histogram(),
        };
        let report = report(1, 2.0, &said, &heard);
        let counts = [
            report.acked,
            report.failed,
            report.lost,
            report.doubled,
            report.received,
            report.misordered,
        ];
        assert_eq!(counts, [3, 1, 1, 1, 3, 1]);
        assert!(!report.is_clean());
    }
}
