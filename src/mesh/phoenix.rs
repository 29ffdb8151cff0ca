//! Phoenix: a session's state outlives it and can be taken up by any instance, by one alone.
//!
//! A state is an object in the object store, never changed once written; the session's record in the
//! bucket points at it. The record is the fence: reviving sets its `revived` by compare-and-set, so of all who try at once
//! one wins, and from then on the old session can neither save nor join. The one who was revived goes on under a
//! new name, with a record of its own. Only a person can overrule the fence ([`Revival::take_over`]), as when the winner died.

use async_nats::jetstream::object_store::ObjectStore;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::While;
use super::rows::Row;
use super::{Error, Mesh, identity, setup};

/// Largest state of a session.
pub const STATE_BYTES_MAX: u64 = 256 << 20;
/// A state that no record points at is removed after this; younger ones may be just being saved.
const ORPHAN_AGE_SECONDS: i64 = 60 * 60;
/// How often a save that meets another one tries again.
const SAVES_MAX: usize = 16;

/// What the bucket holds of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The session.
    pub session: String,
    /// Lives so far; the first is 1.
    pub generation: u64,
    /// The instance it lives on.
    pub instance: String,
    /// The object that holds its state.
    pub object: String,
    /// The state's size.
    pub bytes: u64,
    /// When it was saved, by the saver's clock, RFC 3339.
    pub saved: String,
    /// The session it was revived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Who revived it; a session that has this is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revived: Option<Revived>,
    /// How the restore command that was run for it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
}

/// Who revived a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revived {
    /// The instance.
    pub by: String,
    /// The session it goes on as.
    pub session: String,
    /// When, by the reviver's clock, RFC 3339.
    pub at: String,
    /// Tells one attempt from another, also of the same instance.
    pub attempt: String,
}

impl Revived {
    /// What the old session, and whoever came too late, is told.
    pub fn error(&self, session: &str) -> Error {
        Error::Superseded {
            session: session.to_owned(),
            by: self.by.clone(),
            new_session: self.session.clone(),
            at: self.at.clone(),
        }
    }
}

/// Which session to revive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Session(String),
    /// The one that was saved last, of this instance or of any.
    Latest(Option<String>),
}

/// How to revive.
#[derive(Clone, Debug)]
pub struct Revival {
    /// Which session.
    pub target: Target,
    /// What it goes on as; else a name is made.
    pub new_session: Option<String>,
    /// Revive even what somebody else has revived.
    pub take_over: bool,
    /// Tells this attempt from others; a retry of the same one is known by it.
    pub attempt: String,
}

/// A session brought back.
#[derive(Clone, Debug)]
pub struct Back {
    /// The record of the session it goes on as.
    pub record: Record,
    /// The session it was.
    pub session: String,
    /// The state.
    pub state: Bytes,
}

impl Mesh {
    /// Saves a session's state; returns its record. Fails if another instance has revived the session.
    pub async fn save(&self, session: &str, state: &mut (impl AsyncRead + Unpin)) -> Result<Record, Error> {
        let session = identity::checked("session", session)?;
        self.unrevived(&session).await?;
        let states = self.states().await?;
        let object = format!("{session}/{}", nuid::next());
        let mut bounded = state.take(STATE_BYTES_MAX + 1);
        let stored = states
            .put(object.as_str(), &mut bounded)
            .await
            .while_doing("cannot store the state")?;
        let bytes = stored.size as u64;
        if bytes > STATE_BYTES_MAX {
            states.delete(&object).await.ok();
            return Err(Error::BadName {
                what: "state",
                value: session,
                problem: "is larger than 256 MiB",
            });
        }
        for _ in 0..SAVES_MAX {
            let before = self.unrevived(&session).await?;
            let (seen, last) = before.map_or((0, None), |(row, record)| (row.revision, Some(record)));
            let record = Record {
                session: session.clone(),
                generation: last.as_ref().map_or(1, |last| last.generation),
                instance: self.identity.instance.clone(),
                object: object.clone(),
                bytes,
                saved: Timestamp::now().to_string(),
                parent: last.and_then(|last| last.parent),
                revived: None,
                restored: None,
            };
            if self
                .swap(setup::PHOENIX, &session, json_of(&record), seen)
                .await?
                .is_some()
            {
                self.sweep(&states, &session).await?;
                return Ok(record);
            }
        }
        Err(Error::Server {
            what: format!("cannot save `{session}`"),
            why: "too many save it at once".to_owned(),
        })
    }

    /// Brings a session's state back and makes this instance the one that has it.
    pub async fn resurrect(&self, revival: &Revival) -> Result<Back, Error> {
        let (row, old) = self.target(&revival.target).await?;
        if let Some(revived) = &old.revived
            && !revival.take_over
        {
            return Err(revived.error(&old.session));
        }
        // Read before claiming: a state that cannot be read must not be claimed.
        let state = self.state(&old).await?;
        let (new_session, generation) = self.next_life(&old, revival.new_session.as_deref()).await?;
        let claimed = Record {
            revived: Some(Revived {
                by: self.identity.instance.clone(),
                session: new_session.clone(),
                at: Timestamp::now().to_string(),
                attempt: revival.attempt.clone(),
            }),
            ..old.clone()
        };
        if self
            .swap(setup::PHOENIX, &old.session, json_of(&claimed), row.revision)
            .await?
            .is_none()
        {
            return Err(self.who_won(&old.session).await);
        }
        let record = Record {
            session: new_session.clone(),
            generation,
            instance: self.identity.instance.clone(),
            parent: Some(old.session.clone()),
            revived: None,
            restored: None,
            ..old.clone()
        };
        self.begin(&record).await?;
        let body = json!({"session": old.session, "new_session": new_session, "generation": generation});
        self.tell("session_resurrected", &body, None).await?;
        Ok(Back {
            record,
            session: old.session,
            state,
        })
    }

    /// What a session goes on as, and which of its lives that is.
    async fn next_life(&self, old: &Record, asked: Option<&str>) -> Result<(String, u64), Error> {
        let mut generation = old.generation + 1;
        if let Some(asked) = asked {
            let session = identity::checked("session", asked)?;
            if session == old.session || self.row(setup::PHOENIX, &session).await?.is_some() {
                let problem = "has a state of its own; it must go on under a new name";
                return Err(Error::BadName {
                    what: "session",
                    value: session,
                    problem,
                });
            }
            return Ok((session, generation));
        }
        loop {
            let session = identity::checked("session", &format!("{}-g{generation}", stem(&old.session)))?;
            if self.row(setup::PHOENIX, &session).await?.is_none() {
                return Ok((session, generation));
            }
            generation += 1;
        }
    }

    /// Writes down how the restore command for a revived session ended.
    pub(super) async fn restored(&self, session: &str, how: &str) -> Result<(), Error> {
        let Some(row) = self.row(setup::PHOENIX, session).await? else {
            return Ok(());
        };
        let record = Record {
            restored: Some(how.to_owned()),
            ..row.read()?
        };
        // Whoever changed it meanwhile is alive, and that says more.
        self.swap(setup::PHOENIX, session, json_of(&record), row.revision)
            .await
            .map(drop)
    }

    /// The record of a session and who wrote it when.
    pub async fn record(&self, session: &str) -> Result<Option<Record>, Error> {
        identity::checked("session", session)?;
        let row = self.row(setup::PHOENIX, session).await?;
        row.map(|row| row.read()).transpose()
    }

    /// Every session with a saved state, the last saved first, with the time the server stored it.
    pub async fn records(&self) -> Result<Vec<(Timestamp, Record)>, Error> {
        let rows = self.live_rows(setup::PHOENIX).await?;
        let mut records: Vec<(Timestamp, Record)> = rows
            .iter()
            .map(|row| Ok((row.stored, row.read()?)))
            .collect::<Result<_, Error>>()?;
        records.sort_by_key(|(stored, _)| std::cmp::Reverse(*stored));
        Ok(records)
    }

    /// What is kept of a session's records, the latest first.
    pub async fn record_history(&self, session: &str) -> Result<Vec<(Timestamp, Record)>, Error> {
        identity::checked("session", session)?;
        let mut rows = self.row_history(setup::PHOENIX, session).await?;
        rows.reverse();
        rows.iter().map(|row| Ok((row.stored, row.read()?))).collect()
    }

    async fn target(&self, target: &Target) -> Result<(Row, Record), Error> {
        match target {
            Target::Session(session) => {
                identity::checked("session", session)?;
                let row = self.row(setup::PHOENIX, session).await?;
                let row =
                    row.ok_or_else(|| Error::NotFound(format!("no state is saved for session `{session}`")))?;
                let record = row.read()?;
                Ok((row, record))
            }
            Target::Latest(instance) => {
                let mut latest: Option<(Row, Record)> = None;
                for row in self.live_rows(setup::PHOENIX).await? {
                    let record: Record = row.read()?;
                    let fits = instance
                        .as_ref()
                        .is_none_or(|instance| *instance == record.instance);
                    let newer = latest
                        .as_ref()
                        .is_none_or(|(newest, _)| newest.stored < row.stored);
                    if record.revived.is_none() && fits && newer {
                        latest = Some((row, record));
                    }
                }
                let of = instance
                    .as_ref()
                    .map_or_else(String::new, |instance| format!(" of instance `{instance}`"));
                latest.ok_or_else(|| Error::NotFound(format!("no session{of} can be revived")))
            }
        }
    }

    async fn state(&self, record: &Record) -> Result<Bytes, Error> {
        let what = format!("cannot read the state of `{}`", record.session);
        let states = self.states().await?;
        let mut object = states.get(&record.object).await.while_doing(what.clone())?;
        let mut state = Vec::new();
        object.read_to_end(&mut state).await.while_doing(what)?;
        if state.len() as u64 != record.bytes {
            let why = format!("{} of {} bytes are there", state.len(), record.bytes);
            return Err(Error::Damaged {
                what: format!("the state of `{}`", record.session),
                why,
            });
        }
        Ok(state.into())
    }

    /// The session's record, if there is one and nobody has revived it.
    async fn unrevived(&self, session: &str) -> Result<Option<(Row, Record)>, Error> {
        let Some(row) = self.row(setup::PHOENIX, session).await? else {
            return Ok(None);
        };
        let record: Record = row.read()?;
        match &record.revived {
            Some(revived) => Err(revived.error(session)),
            None => Ok(Some((row, record))),
        }
    }

    /// Our compare-and-set came too late: says who was first.
    async fn who_won(&self, session: &str) -> Error {
        match self.unrevived(session).await {
            Err(error) => error,
            Ok(_) => Error::Server {
                what: format!("cannot revive `{session}`"),
                why: "it saved its state at that moment: it is alive".to_owned(),
            },
        }
    }

    /// Writes the record of a session that begins by being revived. The fence was passed: this one is ours.
    async fn begin(&self, record: &Record) -> Result<(), Error> {
        for _ in 0..SAVES_MAX {
            let seen = self
                .row(setup::PHOENIX, &record.session)
                .await?
                .map_or(0, |row| row.revision);
            if self
                .swap(setup::PHOENIX, &record.session, json_of(record), seen)
                .await?
                .is_some()
            {
                return Ok(());
            }
        }
        Err(Error::Server {
            what: format!("cannot record session `{}`", record.session),
            why: "somebody else keeps changing it".to_owned(),
        })
    }

    async fn states(&self) -> Result<ObjectStore, Error> {
        if let Ok(states) = self.jetstream.get_object_store(setup::PHOENIX).await {
            return Ok(states);
        }
        self.ensure().await?;
        let states = self.jetstream.get_object_store(setup::PHOENIX).await;
        states.while_doing("cannot open the store of states")
    }

    /// Removes states of a session that no kept record of any session points at.
    async fn sweep(&self, states: &ObjectStore, session: &str) -> Result<(), Error> {
        let what = "cannot list the states";
        let prefix = format!("{session}/");
        let mut old = Vec::new();
        let mut list = states.list().await.while_doing(what)?;
        while let Some(found) = list.next().await {
            let found = found.while_doing(what)?;
            let age = found
                .modified
                .map_or(0, |time| Timestamp::now().as_second() - time.unix_timestamp());
            if found.name.starts_with(&prefix) && age > ORPHAN_AGE_SECONDS {
                old.push(found.name);
            }
        }
        if old.is_empty() {
            return Ok(());
        }
        let mut kept: Vec<String> = Vec::new();
        for row in self.row_history(setup::PHOENIX, ">").await? {
            // A record that cannot be read keeps everything: better a lost byte than a lost state.
            kept.push(row.read::<Record>()?.object);
        }
        for name in old.into_iter().filter(|name| !kept.contains(name)) {
            states
                .delete(&name)
                .await
                .while_doing("cannot remove an old state")?;
        }
        Ok(())
    }
}

fn json_of(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("strings and numbers are always JSON")
}

/// A session's name without the mark of a later life.
fn stem(session: &str) -> &str {
    match session.rsplit_once("-g") {
        Some((stem, life))
            if !stem.is_empty() && !life.is_empty() && life.bytes().all(|b| b.is_ascii_digit()) =>
        {
            stem
        }
        _ => session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems() {
        for (session, expected) in [
            ("alpha", "alpha"),
            ("alpha-g2", "alpha"),
            ("alpha-g", "alpha-g"),
            ("-g2", "-g2"),
            ("my-goal", "my-goal"),
        ] {
            assert_eq!(stem(session), expected);
        }
    }
}
