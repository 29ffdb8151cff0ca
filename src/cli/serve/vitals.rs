//! The mesh's health at `/metrics`: who is present, which systems were heard from, the last beacon, events by area.
//!
//! Read when scraped, from what the stream `MESH` and the bucket `PEERS` know of their subjects anyway: publishing pays
//! nothing for it. A message itself is read once, for its time, when it has become the last of its subject.
//!
//! The series are bounded: an area or a system is one of the catalog's, and what users publish beside it is the area
//! `other`. Peers are counted, never named.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jetstream::JetStream;
use crate::jetstream::stream::Stream;
use crate::jetstream::time::{SECOND, now_ns};
use crate::mesh::Catalog;
use crate::mesh::catalog::ALL;
use crate::mesh::check::HEARD;
use crate::mesh::setup::{PEERS, STREAM};
use crate::monitor::{Family, Source, Value};
use crate::protocol::headers;

/// Keys of the bucket that are looked at in one scrape; who has more peers than this sees this many.
const PEERS_READ_MAX: usize = 10_000;
/// The subject that asks for a session to be revived, and the one that says it was.
const BEACON: &str = "mesh.phoenix.recovery_beacon";
const RESURRECTED: &str = "mesh.phoenix.resurrected";

/// See the module documentation.
pub(super) struct Vitals {
    jetstream: Arc<JetStream>,
    catalog: Catalog,
    /// The last message of each subject of the catalog: its sequence and its time.
    last: Mutex<BTreeMap<String, (u64, i64)>>,
}

impl Vitals {
    /// The health of the mesh whose state is in `jetstream`.
    pub(super) fn new(jetstream: Arc<JetStream>) -> Self {
        Self {
            jetstream,
            catalog: Catalog::builtin(),
            last: Mutex::default(),
        }
    }

    /// When the last message of a subject was stored, if there is one.
    fn last_time(&self, stream: &Stream, subject: &str) -> Option<i64> {
        let found = stream.last_of_each(&[subject.as_bytes().into()]).ok()?;
        let seq = *found.last()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(subject) {
            Some(&(known, time)) if known == seq => Some(time),
            _ => {
                let time = stream.get(seq).ok()??.time_ns;
                last.insert(subject.to_owned(), (seq, time));
                Some(time)
            }
        }
    }

    fn of_events(&self, stream: &Stream, now: i64) -> Vec<Family> {
        let mut areas: BTreeMap<&str, u64> = BTreeMap::new();
        let mut systems: BTreeMap<&str, i64> = BTreeMap::new();
        let twelve = self.catalog.systems();
        for event in self.catalog.events() {
            let counted = stream.subjects(event.subject.as_bytes());
            let area = event.subject.split('.').nth(1).unwrap_or_default();
            *areas.entry(area).or_default() += counted.iter().map(|(_, count)| count).sum::<u64>();
            if !twelve.contains(&event.system.as_str()) {
                continue;
            }
            if let Some(time) = self.last_time(stream, &event.subject) {
                let last = systems.entry(&event.system).or_insert(time);
                *last = time.max(*last);
            }
        }
        let state = stream.state();
        // Counted a moment later, so that it may hold more but not less.
        let other = state.messages.saturating_sub(areas.values().sum());
        areas.insert("other", other);
        let seen = systems
            .values()
            .filter(|&&last| age(last, now) <= HEARD.as_secs_f64());
        let seen = seen.count() as f64;
        let mut families = vec![
            Family::many(
                "mesh_events",
                "Events the mesh keeps, by area.",
                areas
                    .into_iter()
                    .map(|(area, count)| (vec![("area", area.to_owned())], Value::Gauge(count as f64)))
                    .collect(),
            ),
            Family::one(
                "mesh_systems_seen",
                "Systems of the mesh heard from in the last 24 hours, of twelve.",
                Value::Gauge(seen),
            ),
            Family::many(
                "mesh_system_last_event_age_seconds",
                "How long ago a system was last heard from, for those that ever were.",
                systems
                    .into_iter()
                    .map(|(system, last)| (vec![("system", system.to_owned())], Value::Gauge(age(last, now))))
                    .collect(),
            ),
        ];
        for (name, help, last) in [
            (
                "mesh_last_event_age_seconds",
                "How long ago the last event of all was stored.",
                (state.last_time > 0).then_some(state.last_time),
            ),
            (
                "mesh_beacon_age_seconds",
                "How long ago a session last asked to be revived.",
                self.last_time(stream, BEACON),
            ),
            (
                "mesh_resurrection_age_seconds",
                "How long ago a session was last revived.",
                self.last_time(stream, RESURRECTED),
            ),
        ] {
            families.extend(last.map(|last| Family::one(name, help, Value::Gauge(age(last, now)))));
        }
        families
    }
}

impl Source for Vitals {
    fn families(&self) -> Vec<Family> {
        let now = now_ns();
        let mut families = Vec::new();
        // Somebody else's stream of that name says nothing about a mesh.
        let is_ours = |stream: &Arc<Stream>| stream.config().subjects.iter().any(|subject| subject == ALL);
        if let Some(stream) = self.jetstream.stream(STREAM).filter(is_ours) {
            families.extend(self.of_events(&stream, now));
        }
        if let Some(stream) = self.jetstream.stream(&format!("KV_{PEERS}")) {
            families.extend(of_peers(&stream, now));
        }
        families
    }
}

/// Seconds from `then` to `now`.
fn age(then: i64, now: i64) -> f64 {
    (now - then).max(0) as f64 / SECOND as f64
}

/// A key is a peer until its heartbeat lapses; then its trace is there until somebody has reported it.
fn of_peers(bucket: &Stream, now: i64) -> Vec<Family> {
    let (mut present, mut lapsed, mut oldest) = (0u32, 0u32, now);
    let keys = bucket.last_of_each(&[]).unwrap_or_default();
    for seq in keys.into_iter().take(PEERS_READ_MAX) {
        let Ok(Some(row)) = bucket.get(seq) else { continue };
        if headers::get(&row.headers, b"Nats-Marker-Reason") == Some(b"MaxAge") {
            lapsed += 1;
        } else if headers::get(&row.headers, b"Nats-Marker-Reason").is_none()
            && headers::get(&row.headers, b"KV-Operation").is_none()
        {
            present += 1;
            oldest = oldest.min(row.time_ns);
        }
    }
    let mut families = vec![
        Family::one(
            "mesh_peers",
            "Peers present: sessions and instances whose heartbeat lives.",
            Value::Gauge(f64::from(present)),
        ),
        Family::one(
            "mesh_peers_lapsed",
            "Peers whose heartbeat lapsed and whose end nobody has reported yet.",
            Value::Gauge(f64::from(lapsed)),
        ),
    ];
    if present > 0 {
        families.push(Family::one(
            "mesh_peer_heartbeat_age_seconds",
            "How long ago the peer that is silent for longest was last heard.",
            Value::Gauge(age(oldest, now)),
        ));
    }
    families
}
