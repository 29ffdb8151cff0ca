//! Consumers as the store has them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::jetstream::consumer::config::ConsumerConfig;
use crate::jetstream::consumer::snapshot::Snapshot;
use crate::jetstream::consumer::start::{Start, StreamIndex};
use crate::jetstream::consumer::state::Consumer;
use crate::jetstream::stream::config::Retention;
use crate::jetstream::time::now_ns;
use crate::store::ConsumerRow;

use super::driver::{Driver, Parts, filters_of};
use super::set::{Consumers, Meta};

/// How long until a store that does not commit is asked again.
const REVIVAL_PAUSE: Duration = Duration::from_secs(1);

impl Consumers {
    /// Makes the consumers that the stream's log holds; they do not work before [`Consumers::begin`]. One that cannot be
    /// read is named and stays in the store: its row is not touched.
    pub(in crate::jetstream) fn recover(&self) {
        for (name, row) in self.stream.log().consumers() {
            if row.meta.is_empty() {
                // A crash came before its creation was promised.
                self.stream.log().remove_consumer(&name);
                continue;
            }
            if let Err(why) = self.restore(&name, &row) {
                self.forget(&name);
                self.unread.store(true, Ordering::Relaxed);
                tracing::error!(
                    stream = self.stream.name(),
                    consumer = name,
                    "a consumer is not served, its row stays in the store: {why}"
                );
            }
        }
    }

    /// Lets those that were recovered work: when all of all streams are there, for one may feed another.
    pub(in crate::jetstream) fn begin(&self) {
        for driver in self.all() {
            self.admit(&driver);
        }
        let waits = self.stream.config().retention != Retention::Limits;
        if let Some(me) = self.me.upgrade().filter(|_| waits && !self.is_empty()) {
            let sweep = async move {
                tokio::select! {
                    () = me.context.stopping.cancelled() => {}
                    () = me.sweep() => {}
                }
            };
            self.context.tasks.spawn_on(sweep, &self.context.runtime);
        }
    }

    /// Removes what consumers take and all of them have done with: the last one to wait for it was not kept over the
    /// restart, or it could not be removed when that one had done. What no consumer takes stays, as in nats-server.
    async fn sweep(&self) {
        if self.unread.load(Ordering::Relaxed) {
            return;
        }
        let _one = self.one_change().await;
        let mut gone = 0;
        for driver in self.all() {
            let (filters, next) = {
                let core = driver.core();
                (core.filters.clone(), core.consumer.next_seq())
            };
            // What it has not come to yet it needs.
            gone += self.let_go(&filters, 0..next).await;
        }
        if gone == 0 {
            return;
        }
        let stream = self.stream.name();
        tracing::info!(
            stream,
            "{gone} messages that every consumer has done with are removed"
        );
        if let Err(error) = self.committed().await {
            tracing::warn!(stream, "removing what every consumer has done with: {error}");
        }
    }

    /// Removes from a stream what is on these filters within a range and nobody has still to do. Says how much that was.
    pub(super) async fn let_go(&self, filters: &[Box<[u8]>], range: Range<u64>) -> usize {
        // What is on its way to the disk is not to be missed.
        self.stream.settled().await;
        let (mut from, mut gone) = (range.start, 0);
        loop {
            let released = self
                .stream
                .read(from, filters, 1_000, 4 << 20)
                .and_then(|(found, next)| {
                    from = next;
                    let seqs = found.iter().map(|record| record.seq);
                    let seqs: Vec<u64> = seqs.take_while(|seq| *seq < range.end).collect();
                    Ok((seqs.len(), self.stream.release(&seqs, true)?))
                });
            match released {
                Ok((0, _)) => return gone,
                Ok((_, released)) => gone += released,
                Err(error) => {
                    tracing::warn!(stream = self.stream.name(), "letting messages go: {error}");
                    return gone;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Makes a consumer anew whose task has panicked, as it was written last; one that is not written goes.
    pub(super) async fn revive(&self, driver: &Arc<Driver>) {
        let _one = self.one_change().await;
        if self.take_out(driver).is_none() {
            return;
        }
        // What it wrote last may still be on its way; an older row would take back what is confirmed when it lands.
        while self.committed_if(driver.is_durable).await.is_err() {
            if self.stream.is_gone() {
                return;
            }
            tokio::select! {
                () = self.context.stopping.cancelled() => return,
                () = tokio::time::sleep(REVIVAL_PAUSE) => {}
            }
        }
        let rows = self.stream.log().consumers();
        let row = rows.into_iter().find(|(name, _)| name == driver.name());
        let Some((name, row)) = row.filter(|_| driver.is_durable) else {
            return;
        };
        match self.restore(&name, &row) {
            Ok(driver) => drop(self.admit(&driver)),
            Err(why) => {
                self.forget(&name);
                tracing::error!(
                    stream = self.stream.name(),
                    consumer = name,
                    "not served any more: {why}"
                );
            }
        }
    }

    fn restore(&self, name: &str, row: &ConsumerRow) -> Result<Arc<Driver>, String> {
        let meta: Meta<ConsumerConfig> = serde_json::from_slice(&row.meta)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        let rows = std::iter::once(&row.state).chain(&row.deltas).map(|row| &row[..]);
        let snapshot = Snapshot::read(rows)
            .map_err(|error| format!("its state cannot be read: {error}"))?
            .ok_or("it has no state")?;
        let config = Arc::new(meta.config);
        let filters = filters_of(&config);
        let skip = match snapshot.skip_until {
            0 => Vec::new(),
            until => {
                let mut last = self
                    .stream
                    .last_of_each_upto(&filters, until)
                    .map_err(|error| error.to_string())?;
                last.retain(|&seq| seq >= snapshot.next_seq);
                last
            }
        };
        let stream = self.stream.config();
        let now = now_ns();
        let driver = self.stream.with_index(|index| {
            let from = match skip.is_empty() {
                true => snapshot.next_seq,
                false => snapshot.skip_until + 1,
            };
            let start = Start {
                next_seq: snapshot.next_seq,
                last_seq: index.last_seq(),
                num_pending: index.count(&filters, from) + skip.len() as u64,
                skip,
            };
            let options = self.options(&config, &stream, true);
            let mut out = Vec::new();
            let consumer = Consumer::restore(&config, &options, &snapshot, start, now, &mut out);
            let parts = Parts {
                name: name.to_owned(),
                created: meta.created,
                config: config.clone(),
                is_durable: true,
                consumer,
                out,
            };
            self.let_in(parts, index)
        });
        driver.map_err(|error| error.to_string())
    }
}
