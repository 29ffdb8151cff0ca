//! Reading the stream in order, without leaving a trace: an ephemeral consumer that is made anew wherever it broke.
//!
//! Order and completeness come from the sequences, not from the connection: each delivery must be
//! the consumer's next one; if it is not, or the consumer is gone, reading resumes after the last event returned. A
//! stream that was removed and made anew is read from its beginning.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::error::While;
use super::{Error, Mesh, Received, catalog, setup};
use crate::protocol::subject;

/// How long a consumer outlives its reader on the server.
const INACTIVE: Duration = Duration::from_secs(30);
/// An idle server speaks this often, so a dead one is noticed after twice that.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one pull request stands.
const EXPIRES: Duration = Duration::from_secs(20);
/// Who reads to the end asks what is left when nothing has come for this long.
const QUIET: Duration = Duration::from_secs(1);
/// Pause before a broken consumer is made anew.
const PAUSE: Duration = Duration::from_millis(100);

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this sequence; 0 is the beginning.
    After(u64),
    /// At the first event stored at this time of the server's clock or later.
    At(Timestamp),
    /// With the next event to come.
    Now,
    /// With the last one on each subject.
    Latest,
}

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The stream; its events are wanted, or the rows of a bucket.
    pub stream: String,
    /// Patterns; an event is wanted if one of them matches.
    pub patterns: Vec<String>,
    /// Where reading begins.
    pub start: Start,
    /// Whether to wait for events to come, or to end after what is there.
    pub follow: bool,
    /// Whether bodies are left out.
    pub headers_only: bool,
}

impl Selection {
    /// What is stored under `patterns` from `start` on, bodies and all.
    pub fn of(patterns: Vec<String>, start: Start) -> Self {
        Self {
            stream: setup::STREAM.to_owned(),
            patterns,
            start,
            follow: false,
            headers_only: false,
        }
    }

    pub(super) fn wants(&self, subject: &str) -> bool {
        wants(&self.patterns, subject)
    }

    /// Where reading without following ends in a stream that ends at `last_sequence`. The latest of a subject may be said
    /// anew meanwhile and lie behind that: then the server alone knows when there is no more.
    fn end(&self, last_sequence: u64) -> u64 {
        match self.start {
            Start::Latest => u64::MAX,
            _ => last_sequence,
        }
    }
}

/// Whether one of `patterns` matches.
pub(super) fn wants(patterns: &[String], subject: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| subject::matches(pattern.as_bytes(), subject.as_bytes()))
}

/// The filters to give a consumer: a server refuses overlapping ones, so then all events are asked
/// for and sorted out here.
pub(super) fn filters(patterns: &[String]) -> Vec<String> {
    let mut filters: Vec<String> = Vec::new();
    for pattern in patterns {
        let covered = |by: &String| subject::is_subset(pattern.as_bytes(), by.as_bytes());
        if filters.iter().any(covered) {
            continue;
        }
        filters.retain(|known| !subject::is_subset(known.as_bytes(), pattern.as_bytes()));
        if filters
            .iter()
            .any(|known| subject::overlap(known.as_bytes(), pattern.as_bytes()))
        {
            return vec![catalog::ALL.to_owned()];
        }
        filters.push(pattern.clone());
    }
    filters
}

/// Events of a [`Selection`], in the order of the stream.
pub struct Reader {
    mesh: Mesh,
    selection: Selection,
    open: Option<Open>,
    /// The last sequence that was returned or passed over.
    last: u64,
    /// Reading without following ends here.
    end: u64,
    /// When the stream was made; another one of its name counts from 1 again.
    created: i128,
}

struct Open {
    messages: pull::Stream,
    delivered: u64,
}

impl Mesh {
    /// Begins to read.
    pub async fn read(&self, mut selection: Selection) -> Result<Reader, Error> {
        let stream = self.stream_named(&selection.stream).await?;
        let info = stream.cached_info();
        let (last_sequence, created) = (info.state.last_sequence, info.created.unix_timestamp_nanos());
        if selection.start == Start::Now {
            // A sequence survives a broken connection, "new" does not.
            selection.start = Start::After(last_sequence);
        }
        let end = selection.end(last_sequence);
        let mut reader = Reader {
            mesh: self.clone(),
            selection,
            open: None,
            last: 0,
            end,
            created,
        };
        if let Start::After(last) = reader.selection.start {
            // A stream made anew counts from 1 again.
            reader.last = if last > end { 0 } else { last };
        }
        Ok(reader)
    }
}

impl Reader {
    /// Where the stream ended when reading began, if not following.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// When the stream that is read was made, in nanoseconds since 1970.
    pub(super) fn created(&self) -> i128 {
        self.created
    }

    /// The next event; `None` at the end of what was stored when reading began, if not following.
    pub async fn next(&mut self) -> Result<Option<Received>, Error> {
        let mut deadline = Instant::now() + self.mesh.timeout;
        loop {
            if !self.selection.follow && self.last >= self.end {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                match self.reopen().await {
                    Ok(true) => {}
                    Ok(false) => return Ok(None),
                    Err(error) if !self.selection.follow && deadline <= Instant::now() => return Err(error),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                continue;
            };
            let next = open.messages.next();
            let message = match self.selection.follow {
                true => next.await,
                false => match tokio::time::timeout(QUIET, next).await {
                    // What was left may have been removed: is anything?
                    Err(_) if Instant::now() < deadline => {
                        self.open = None;
                        continue;
                    }
                    Err(_) => None,
                    Ok(message) => message,
                },
            };
            let message = match message {
                Some(Ok(message)) => message,
                // Consumers can be made, and give nothing: a user may lack the right to ask them.
                broken if !self.selection.follow && deadline <= Instant::now() => {
                    let why = broken
                        .and_then(Result::err)
                        .map_or_else(|| "nothing comes".to_owned(), |error| error.to_string());
                    let what = format!("cannot read stream {}", self.selection.stream);
                    return Err(Error::Server { what, why });
                }
                _ => {
                    self.open = None;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            deadline = Instant::now() + self.mesh.timeout;
            let event = Received::from_consumer(&message)?;
            if event.consumer_seq != open.delivered + 1 {
                self.open = None;
                continue;
            }
            open.delivered += 1;
            self.last = event.stream_seq;
            if event.pending == 0 && !self.selection.follow {
                self.end = event.stream_seq;
            }
            if self.selection.wants(&event.subject) {
                return Ok(Some(event));
            }
        }
    }

    /// Makes a consumer that starts after the last event; `false` if nothing is left to read.
    async fn reopen(&mut self) -> Result<bool, Error> {
        let what = "cannot read the stream";
        let stream = self.mesh.stream_named(&self.selection.stream).await?;
        let info = stream.cached_info();
        let created = info.created.unix_timestamp_nanos();
        if created != self.created {
            (self.created, self.last) = (created, 0);
            self.end = self.selection.end(info.state.last_sequence);
        } else if self.last > info.state.last_sequence {
            // It was set back, to a copy or by a power cut: what comes now is new.
            self.last = info.state.last_sequence;
        }
        let deliver_policy = match self.selection.start {
            Start::At(time) if self.last == 0 => DeliverPolicy::ByStartTime {
                start_time: async_nats::datetime::from_nanos(time.as_nanosecond()).map_err(|error| {
                    Error::Server {
                        what: what.to_owned(),
                        why: error.to_string(),
                    }
                })?,
            },
            Start::Latest if self.last == 0 => DeliverPolicy::LastPerSubject,
            _ => DeliverPolicy::ByStartSequence {
                start_sequence: self.last + 1,
            },
        };
        let config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subjects: filters(&self.selection.patterns),
            headers_only: self.selection.headers_only,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.while_doing(what)?;
        if !self.selection.follow && consumer.cached_info().num_pending == 0 {
            return Ok(false);
        }
        let pull = consumer.stream().heartbeat(HEARTBEAT).expires(EXPIRES);
        let messages = pull.messages().await.while_doing(what)?;
        self.open = Some(Open {
            messages,
            delivered: 0,
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_never_overlap() {
        for (patterns, expected) in [
            (&["mesh.fo.insight"][..], &["mesh.fo.insight"][..]),
            (&["mesh.fo.insight", "mesh.fo.*"], &["mesh.fo.*"]),
            (
                &["mesh.fo.*", "mesh.fo.insight", "mesh.graph.update"],
                &["mesh.fo.*", "mesh.graph.update"],
            ),
            (&["mesh.>", "mesh.fo.insight"], &["mesh.>"]),
            (&["mesh.*.update", "mesh.graph.*"], &["mesh.>"]),
            (&["mesh.fo.insight", "mesh.fo.insight"], &["mesh.fo.insight"]),
        ] {
            let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            assert_eq!(filters(&patterns), expected, "{patterns:?}");
        }
    }
}
