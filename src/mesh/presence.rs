//! Who is here: a key in `PEERS` that lives as long as its heartbeat.
//!
//! The server's clock ends a presence (per-key TTL), so a killed peer lapses without anybody watching. Whoever is
//! present reports a lapse as `peer_left`: the report's message id is drawn from the trace that the server leaves, and the
//! trace is removed after the report, so it is told, and told once.

use std::collections::HashMap;
use std::time::Duration;

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
    /// We had lapsed ourselves, as when the machine slept, and are back.
    Returned,
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
}

/// The key of a peer: instances and sessions are names, so a dot parts them.
fn key(instance: &str, session: Option<&str>) -> String {
    session.map_or_else(|| instance.to_owned(), |session| format!("{instance}.{session}"))
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
        let presence = Presence {
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
        };
        presence.heartbeat().await?;
        presence.tell_joined("joined").await?;
        Ok(presence)
    }

    /// Who is present, by instance and session.
    pub async fn peers(&self) -> Result<Vec<Present>, Error> {
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
        for row in self.live_rows(setup::PEERS).await? {
            let (last_event, last_event_at) = latest.remove(&row.key).unzip();
            peers.push(Present {
                peer: row.read()?,
                heartbeat: row.stored.to_string(),
                last_event,
                last_event_at,
            });
        }
        peers.sort_by(|a, b| (&a.peer.instance, &a.peer.session).cmp(&(&b.peer.instance, &b.peer.session)));
        Ok(peers)
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
    async fn report(&self, row: &Row) -> Result<News, Error> {
        let (instance, session) = match row.key.split_once('.') {
            Some((instance, session)) => (instance, Some(session)),
            None => (row.key.as_str(), None),
        };
        let mut body = json!({"cause": "lapsed", "instance": instance});
        if let Some(session) = session {
            body["session"] = session.into();
        }
        let id = format!("peer_left.{}.{}", row.key, row.stored.as_nanosecond());
        self.tell("peer_left", &body, Some(id)).await?;
        self.forget(setup::PEERS, &row.key, row.revision).await?;
        Ok(News::Lapsed(instance.to_owned(), session.map(str::to_owned)))
    }
}

impl Presence {
    /// Stays present until something happens that is worth telling.
    pub async fn next(&mut self) -> Result<News, Error> {
        loop {
            let row = tokio::select! {
                _ = self.beat.tick() => {
                    // Without a server there is nothing to be present at: the next beat tries again.
                    self.heartbeat().await.ok();
                    continue;
                }
                row = self.peers.next() => row?,
                revived = superseded(&mut self.own_state) => return Ok(News::Superseded(revived?)),
            };
            match row {
                Some(row) if row.state == State::Lapsed && row.key == self.key => {
                    self.heartbeat().await?;
                    self.tell_joined("returned").await?;
                    return Ok(News::Returned);
                }
                Some(row) if row.state == State::Lapsed => return self.mesh.report(&row).await,
                _ => {}
            }
        }
    }

    /// Ends the presence and says why.
    pub async fn leave(self, cause: &str) -> Result<(), Error> {
        self.mesh.forget(setup::PEERS, &self.key, u64::MAX - 1).await?;
        let mut body = json!({"cause": cause, "instance": self.peer.instance});
        if let Some(session) = &self.peer.session {
            body["session"] = session.as_str().into();
        }
        self.mesh.tell("peer_left", &body, None).await.map(drop)
    }

    async fn heartbeat(&self) -> Result<(), Error> {
        let what = "cannot say that we are here";
        let value = serde_json::to_vec(&self.peer).expect("strings and numbers are always JSON");
        let message = PublishMessage::build()
            .payload(value.into())
            .ttl(self.timing.lapse);
        let sent = self
            .mesh
            .jetstream
            .send_publish(rows::subject(setup::PEERS, &self.key), message)
            .await;
        sent.while_doing(what)?.await.map(drop).while_doing(what)
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
