//! Reading for whoever draws conclusions from many events: all events in order, though others share the durable reader, and
//! telling of each conclusion once.
//!
//! A durable reader hands an event to one of those who share it, and a restarted one begins after what it settled. Here
//! the events that somebody else was given, or that came before a restart, are read from the stream. A conclusion
//! is told under an id drawn from the events it comes from, and the event is settled after that. So whatever is
//! killed in between, it is told, and told once: the server knows the ids of the last minutes, and older ones are looked up.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::reader::{Selection, Start};
use super::watch::{Delivery, Durable, Wanted};
use super::{Error, Mesh, Received};

/// Pause before what failed for want of a server is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Ids that are remembered; with more than these they are read anew when needed.
const IDS_MAX: usize = 100_000;

/// What is known of the events so far.
pub(super) trait Fold {
    /// How far back events matter to one that comes; none if the fold cannot be begun anew in the middle. Such a one passes
    /// over what it is given again.
    fn reach(&self) -> Option<Duration>;
    /// Forgets everything.
    fn forget(&mut self);
    /// Takes in an event from which nobody asks for conclusions.
    fn past(&mut self, event: &Received);
}

/// How far the fold has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// In the stream.
    pub(super) stream_seq: u64,
    /// Among the deliveries of the consumer.
    consumer_seq: u64,
    /// In which life of the consumer.
    opened: u64,
}

/// A durable reader that knows of the events between its deliveries.
pub(super) struct Follow {
    mesh: Mesh,
    pub(super) durable: Durable,
    patterns: Vec<String>,
    place: Option<Place>,
}

impl Mesh {
    pub(super) async fn follow(&self, wanted: Wanted) -> Result<Follow, Error> {
        Ok(Follow {
            mesh: self.clone(),
            patterns: wanted.patterns.clone(),
            durable: self.durable(wanted).await?,
            place: None,
        })
    }
}

impl Follow {
    /// What is read.
    pub(super) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether nothing is known of what came before.
    pub(super) fn begins(&self) -> bool {
        self.place.is_none()
    }

    /// Brings `fold` up to what was delivered. The event comes next, and the caller takes it in, unless the fold
    /// knows it.
    pub(super) async fn fill(&mut self, delivery: &Delivery, fold: &mut impl Fold) -> Result<(), Error> {
        let event = &delivery.event;
        let opened = self.durable.opened();
        let behind = self
            .place
            .is_some_and(|place| event.stream_seq <= place.stream_seq);
        let next = Place {
            stream_seq: event.stream_seq,
            consumer_seq: event.consumer_seq,
            opened,
        };
        match (self.place, fold.reach()) {
            (Some(place), None) if behind => {
                self.place = Some(Place {
                    stream_seq: place.stream_seq,
                    ..next
                });
                return Ok(());
            }
            (Some(place), reach) if !behind => {
                let all_came = place.opened == opened && place.consumer_seq + 1 == event.consumer_seq;
                if !all_came {
                    // Given up in the middle, it is begun anew.
                    self.place = self.place.filter(|_| reach.is_none());
                    let between = self.between(Start::After(place.stream_seq), event.stream_seq, fold);
                    delivery.while_working(between).await?;
                }
            }
            (_, Some(reach)) => {
                // Nothing is known, or more than was known when this event came.
                self.place = None;
                fold.forget();
                let since = event.stored.checked_sub(reach).unwrap_or(Timestamp::UNIX_EPOCH);
                let before = self.between(Start::At(since), event.stream_seq, fold);
                delivery.while_working(before).await?;
            }
            (_, None) => {}
        }
        self.place = Some(next);
        Ok(())
    }

    /// Reads on to the end of the stream, or to an event that was not there when this began.
    pub(super) async fn read_on(&mut self, fold: &mut impl Fold) -> Result<(), Error> {
        let Some(place) = self.place else {
            return Ok(());
        };
        let read = self
            .between(Start::After(place.stream_seq), u64::MAX, fold)
            .await?;
        self.passed(place.stream_seq.max(read));
        Ok(())
    }

    /// What is up to here is in the fold.
    pub(super) fn passed(&mut self, stream_seq: u64) {
        let place = self.place.get_or_insert_default();
        place.stream_seq = stream_seq;
    }

    /// Gives `fold` what is stored from `start` to before `end`; the last sequence it was given.
    async fn between(&self, start: Start, end: u64, fold: &mut impl Fold) -> Result<u64, Error> {
        let mut events = self
            .mesh
            .read(Selection::of(self.patterns.clone(), start))
            .await?;
        let mut last = 0;
        while let Some(event) = events.next().await?.filter(|event| event.stream_seq < end) {
            fold.past(&event);
            last = event.stream_seq;
        }
        Ok(last)
    }
}

/// The ids under which an event is stored.
#[derive(Debug)]
pub(super) struct Told {
    event: &'static str,
    ids: HashMap<String, u64>,
    /// From when on all ids are known.
    since: Timestamp,
    /// Up to where they were read.
    last: u64,
    /// When they were read, and how long the server itself knows ids from then on.
    looked: Option<(Instant, Duration)>,
}

/// Where something that is told once is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    /// Its place in the stream.
    pub(super) stream_seq: u64,
    /// Whether it was stored now.
    pub(super) is_new: bool,
}

impl Told {
    /// Ids of this event.
    pub(super) fn new(event: &'static str) -> Self {
        Self {
            event,
            ids: HashMap::new(),
            since: Timestamp::MAX,
            last: 0,
            looked: None,
        }
    }

    /// Stores the event under `id` unless it is; nothing with that id was stored before `since`. Tries for a while; who
    /// is told that the server is not to be had may ask again, with the same id.
    pub(super) async fn tell(
        &mut self,
        mesh: &Mesh,
        body: &Value,
        id: &str,
        since: Timestamp,
    ) -> Result<Telling, Error> {
        let deadline = Instant::now() + mesh.timeout * 2;
        loop {
            match self.try_to_tell(mesh, body, id, since).await {
                Err(error) if error.is_passing() && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                told => return told,
            }
        }
    }

    async fn try_to_tell(
        &mut self,
        mesh: &Mesh,
        body: &Value,
        id: &str,
        since: Timestamp,
    ) -> Result<Telling, Error> {
        self.look(mesh, since).await?;
        if let Some(&stream_seq) = self.ids.get(id) {
            return Ok(Telling {
                stream_seq,
                is_new: false,
            });
        }
        let receipt = mesh.tell(self.event, body, Some(id.to_owned())).await?;
        self.ids.insert(id.to_owned(), receipt.stream_seq);
        Ok(Telling {
            stream_seq: receipt.stream_seq,
            is_new: receipt.seq.is_some(),
        })
    }

    /// Reads the ids that were stored meanwhile, before the server forgets them.
    async fn look(&mut self, mesh: &Mesh, since: Timestamp) -> Result<(), Error> {
        let anew = since < self.since || self.ids.len() > IDS_MAX;
        // Half of what the server keeps: it takes its time, too, until we publish.
        if let Some((at, kept)) = self.looked
            && !anew
            && at.elapsed() < kept / 2
        {
            return Ok(());
        }
        let subject = mesh.catalog.get(self.event)?.subject.clone();
        let at = Instant::now();
        let kept = mesh.stream().await?.cached_info().config.duplicate_window;
        if anew {
            *self = Self {
                since,
                ..Self::new(self.event)
            };
        }
        let start = if self.last == 0 {
            Start::At(self.since)
        } else {
            Start::After(self.last)
        };
        let selection = Selection {
            headers_only: true,
            ..Selection::of(vec![subject], start)
        };
        let mut stored = mesh.read(selection).await?;
        while let Some(event) = stored.next().await? {
            self.last = event.stream_seq;
            if let Some(id) = event.envelope.id {
                self.ids.insert(id, event.stream_seq);
            }
        }
        self.looked = Some((at, kept));
        Ok(())
    }
}
