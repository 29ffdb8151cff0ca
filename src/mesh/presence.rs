//! Who is here: a key in `PEERS` that lives as long as its heartbeat.
//!
//! The server's clock ends a presence (per-key TTL), so a killed peer lapses without anybody watching. Whoever is
//! present reports a lapse as `peer_left`: the report's message id is drawn from the trace that the server leaves, and the
//! trace is removed after the report, so it is told, and told once.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::error::While;
use super::phoenix::{Record, Revived};
use super::reader::{Selection, Start};
use super::rows::{self, Row, Rows, State};
use super::{Error, Identity, Mesh, catalog, setup};

/// How many events back the last one of each peer is looked for.
const LOOK_BACK: u64 = 2000;

/// How presence is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a peer says that it is there.
    pub heartbeat: Duration,
    /// How long a silent peer is still counted; whole seconds.
    pub lapse: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            lapse: Duration::from_secs(15),
        }
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Who it is.
    pub instance: String,
    /// Its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Where it runs.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Since when, by its own clock, RFC 3339.
    pub since: String,
}

/// A peer with what is known of it besides.
#[derive(Clone, Debug, Serialize)]
pub struct Present {
    /// The peer.
    #[serde(flatten)]
    pub peer: Peer,
    /// When its last heartbeat was stored, RFC 3339.
    pub heartbeat: String,
    /// The name of its last event, if that is among the latest of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<String>,
    /// When that was stored, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_at: Option<String>,
}

/// What happened while being present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A peer lapsed: instance and session.
    Lapsed(String, Option<String>),
    /// We had lapsed ourselves, as when the machine slept or the server was away, and are back.
    Returned,
    /// Another process says that it is us.
    Doubled(Peer),
    /// Another instance has revived our session.
    Superseded(Revived),
}

/// This process's presence; it lasts while [`Presence::next`] is called.
pub struct Presence {
    mesh: Mesh,
    peer: Peer,
    key: String,
    timing: Timing,
    beat: Interval,
    peers: Rows,
    own_state: Option<Rows>,
    /// The revision of our last heartbeat: if the key has another one, something happened to it.
    revision: u64,
    /// The other process with our name, once we have told of it.
    double: Option<Peer>,
}

/// The key of a peer: instances and sessions are names, so a dot parts them.
fn key(instance: &str, session: Option<&str>) -> String {
    session.map_or_else(|| instance.to_owned(), |session| format!("{instance}.{session}"))
}

/// The instance and the session of a key.
fn parts(key: &str) -> (&str, Option<&str>) {
    match key.split_once('.') {
        Some((instance, session)) => (instance, Some(session)),
        None => (key, None),
    }
}

impl Mesh {
    /// Becomes present; fails if another instance has revived our session.
    pub async fn join(&self, timing: Timing) -> Result<Presence, Error> {
        let Identity {
            instance,
            session,
            host,
            ..
        } = self.identity.clone();
        if let Some(session) = &session
            && let Some(row) = self.row(setup::PHOENIX, session).await?
            && let Some(revived) = row.read::<Record>()?.revived
        {
            return Err(revived.error(session));
        }
        let own_state = match &session {
            Some(session) => Some(self.rows(setup::PHOENIX, session, true).await?),
            None => None,
        };
        let mut beat = tokio::time::interval_at(Instant::now() + timing.heartbeat, timing.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut presence = Presence {
            mesh: self.clone(),
            key: key(&instance, session.as_deref()),
            peer: Peer {
                instance,
                session,
                host,
                pid: std::process::id(),
                since: Timestamp::now().to_string(),
            },
            timing,
            beat,
            peers: self.rows(setup::PEERS, ">", true).await?,
            own_state,
            revision: 0,
            double: None,
        };
        // Whoever had our name before us may be dead for less than it takes to lapse: the next heartbeat shows it.
        presence.say(None).await?;
        presence.tell_joined("joined").await?;
        Ok(presence)
    }

    /// Who is present, by instance and session; and what is wrong with the keys that cannot be read.
    pub async fn peers(&self) -> Result<(Vec<Present>, Vec<Error>), Error> {
        let mut latest: HashMap<String, (String, String)> = HashMap::new();
        let from = Start::After(self.last_sequence().await?.saturating_sub(LOOK_BACK));
        let selection = Selection {
            headers_only: true,
            ..Selection::of(vec![catalog::ALL.to_owned()], from)
        };
        let mut events = self.read(selection).await?;
        while let Some(event) = events.next().await? {
            if let Some(instance) = &event.envelope.instance {
                let key = key(instance, event.envelope.session.as_deref());
                latest.insert(key, (event.name().to_owned(), event.stored.to_string()));
            }
        }
        let mut peers = Vec::new();
        let (rows, damaged) = self.readable(setup::PEERS).await?;
        for (row, peer) in rows {
            let (last_event, last_event_at) = latest.remove(&row.key).unzip();
            peers.push(Present {
                peer,
                heartbeat: row.stored.to_string(),
                last_event,
                last_event_at,
            });
        }
        peers.sort_by(|a, b| (&a.peer.instance, &a.peer.session).cmp(&(&b.peer.instance, &b.peer.session)));
        Ok((peers, damaged))
    }

    /// The instances that are present, each once whatever its sessions.
    pub(super) async fn instances_present(&self) -> Result<BTreeSet<String>, Error> {
        let rows = self.last_rows(setup::PEERS).await?.into_values();
        let live = rows.filter(|row| row.state == State::Live);
        Ok(live.map(|row| parts(&row.key).0.to_owned()).collect())
    }

    /// Whether that peer is present.
    pub(super) async fn is_present(&self, instance: &str, session: Option<&str>) -> Result<bool, Error> {
        Ok(self.row(setup::PEERS, &key(instance, session)).await?.is_some())
    }

    /// Reports every lapse there is and will be; for whoever is not present himself.
    pub async fn report_lapses(&self) -> Result<(), Error> {
        let mut peers = self.rows(setup::PEERS, ">", true).await?;
        while let Some(row) = peers.next().await? {
            if row.state == State::Lapsed {
                self.report(&row).await?;
            }
        }
        Ok(())
    }

    /// Tells that the peer of a lapsed row has left, unless somebody has.
    async fn report(&self, row: &Row) -> Result<Option<News>, Error> {
        if self.row(setup::PEERS, &row.key).await?.is_some() {
            // It is back, as all are when the server was away, and says so itself.
            return Ok(None);
        }
        let (instance, session) = parts(&row.key);
        let mut body = json!({"cause": "lapsed", "instance": instance});
        if let Some(session) = session {
            body["session"] = session.into();
        }
        let id = format!("peer_left.{}.{}", row.key, row.stored.as_nanosecond());
        self.tell("peer_left", &body, Some(id)).await?;
        self.forget(setup::PEERS, &row.key, row.revision).await?;
        Ok(Some(News::Lapsed(
            instance.to_owned(),
            session.map(str::to_owned),
        )))
    }
}

impl Presence {
    /// Stays present until something happens that is worth telling.
    pub async fn next(&mut self) -> Result<News, Error> {
        loop {
            let row = tokio::select! {
                _ = self.beat.tick() => {
                    // Without a server there is nothing to be present at: the next beat tries again.
                    match self.heartbeat().await {
                        Ok(Some(news)) => return Ok(news),
                        Ok(None) | Err(_) => continue,
                    }
                }
                row = self.peers.next() => row?,
                revived = superseded(&mut self.own_state) => return Ok(News::Superseded(revived?)),
            };
            match row {
                Some(row) if row.state == State::Lapsed && row.key == self.key => {
                    if let Some(news) = self.heartbeat().await? {
                        return Ok(news);
                    }
                }
                Some(row) if row.state == State::Lapsed => {
                    if let Some(news) = self.mesh.report(&row).await? {
                        return Ok(news);
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends the presence and says why.
    pub async fn leave(self, cause: &str) -> Result<(), Error> {
        // The heartbeat of another process with our name stays.
        self.mesh.forget(setup::PEERS, &self.key, self.revision).await?;
        let mut body = json!({"cause": cause, "instance": self.peer.instance});
        if let Some(session) = &self.peer.session {
            body["session"] = session.as_str().into();
        }
        self.mesh.tell("peer_left", &body, None).await.map(drop)
    }

    /// Says that we are here, and finds out whether we were taken for gone since the last time, or somebody else has
    /// our name.
    async fn heartbeat(&mut self) -> Result<Option<News>, Error> {
        if self.say(Some(self.revision)).await? {
            return Ok(None);
        }
        let stands = self.mesh.row(setup::PEERS, &self.key).await?;
        let by = stands.and_then(|row| row.read::<Peer>().ok());
        self.say(None).await?;
        match by {
            None => {
                self.tell_joined("returned").await?;
                Ok(Some(News::Returned))
            }
            // A heartbeat of ours whose answer was lost.
            Some(peer) if peer == self.peer => Ok(None),
            Some(peer) if self.double.as_ref() == Some(&peer) => Ok(None),
            Some(peer) => {
                self.double = Some(peer.clone());
                Ok(Some(News::Doubled(peer)))
            }
        }
    }

    /// Sets our key if it has the revision that was seen, or whatever it has; whether it is set.
    async fn say(&mut self, seen: Option<u64>) -> Result<bool, Error> {
        let what = "cannot say that we are here";
        let value = serde_json::to_vec(&self.peer).expect("strings and numbers are always JSON");
        let mut message = PublishMessage::build()
            .payload(value.into())
            .ttl(self.timing.lapse);
        if let Some(seen) = seen {
            message = message.expected_last_subject_sequence(seen);
        }
        let sent = self
            .mesh
            .jetstream
            .send_publish(rows::subject(setup::PEERS, &self.key), message)
            .await;
        match sent.while_doing(what)?.await {
            Ok(ack) => {
                self.revision = ack.sequence;
                Ok(true)
            }
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(error).while_doing(what),
        }
    }

    async fn tell_joined(&self, cause: &str) -> Result<(), Error> {
        let mut body = json!({"host": self.peer.host, "cause": cause});
        if let Some(session) = &self.peer.session {
            body["session"] = session.as_str().into();
        }
        self.mesh.tell("peer_joined", &body, None).await.map(drop)
    }
}

/// Waits until our session's state says that it was revived elsewhere.
async fn superseded(own_state: &mut Option<Rows>) -> Result<Revived, Error> {
    let Some(rows) = own_state else {
        return std::future::pending().await;
    };
    loop {
        if let Some(row) = rows.next().await?
            && row.state == State::Live
            && let Some(revived) = row.read::<Record>()?.revived
        {
            return Ok(revived);
        }
    }
}
