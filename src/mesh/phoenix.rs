//! Phoenix: a session's state outlives it and can be taken up by any instance, by one alone.
//!
//! A state is an object in the object store, never changed once written; the session's record in the
//! bucket points at it. The record is the fence: reviving sets its `revived` by compare-and-set, so of all who try at once
//! one wins, and from then on the old session can neither save nor join. The one who was revived goes on under a
//! new name, with a record of its own. Only a person can overrule the fence ([`Revival::take_over`]), as when the winner died.

use std::time::Duration;

use async_nats::jetstream::object_store::ObjectStore;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::error::While;
use super::rows::{Row, State};
use super::{Error, Mesh, identity, setup};

/// Largest state of a session.
pub const STATE_BYTES_MAX: u64 = 256 << 20;
/// A state that no record points at is removed after this; younger ones may be just being saved.
const ORPHAN_AGE_SECONDS: i64 = 60 * 60;
/// How often a save that meets another one tries again.
const SAVES_MAX: usize = 16;
/// Pause before a change is asked for again whose outcome is not known.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Tells who wrote the first record of a revived session: of all who hold the same claim, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
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

/// Records of sessions.
#[derive(Debug, Default)]
pub struct Records {
    /// Those that can be read, with the time the server stored each.
    pub found: Vec<(Timestamp, Record)>,
    /// What is wrong with the others.
    pub damaged: Vec<Error>,
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
    /// Tells this attempt from others; one that was interrupted between its claim and the session's first record goes
    /// on under the same name.
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
    /// Why the mesh was not told of it. The session is revived all the same, and its record says so.
    pub untold: Option<String>,
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
            let (seen, last) = self.unrevived(&session).await?;
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
                begun: None,
            };
            if self
                .swap(setup::PHOENIX, &session, json_of(&record), seen)
                .await?
                .is_some()
            {
                // It is saved. What could not be removed is, with a later save.
                self.sweep(&states, &session).await.ok();
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
        let claimed = old
            .revived
            .as_ref()
            .filter(|revived| revived.attempt == revival.attempt);
        if let Some(revived) = &old.revived
            && claimed.is_none()
            && !revival.take_over
        {
            return Err(revived.error(&old.session));
        }
        // Read before claiming: a state that cannot be read must not be claimed.
        let state = self.state(&old).await?;
        let (new_session, generation) = match claimed {
            Some(ours) => (
                ours.session.clone(),
                life(&ours.session).unwrap_or(old.generation + 1),
            ),
            None => self.next_life(&old, revival.new_session.as_deref()).await?,
        };
        if claimed.is_none() {
            let revived = Revived {
                by: self.identity.instance.clone(),
                session: new_session.clone(),
                at: Timestamp::now().to_string(),
                attempt: revival.attempt.clone(),
            };
            self.claim(&old, row.revision, revived).await?;
        }
        let record = Record {
            session: new_session.clone(),
            generation,
            instance: self.identity.instance.clone(),
            parent: Some(old.session.clone()),
            revived: None,
            restored: None,
            begun: Some(nuid::next().to_string()),
            ..old.clone()
        };
        self.begin(&record, &old.session).await?;
        let body = json!({"session": old.session, "new_session": new_session, "generation": generation});
        let told = self.tell("session_resurrected", &body, None).await;
        Ok(Back {
            record,
            session: old.session,
            state,
            untold: told.err().map(|error| error.to_string()),
        })
    }

    /// Passes the fence, or says who was first. Asked for until the answer is known: a claim that stands without its
    /// owner's knowing would shut everybody out.
    async fn claim(&self, old: &Record, seen: u64, revived: Revived) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout * 2;
        let claimed = json_of(&Record {
            revived: Some(revived.clone()),
            ..old.clone()
        });
        loop {
            match self
                .swap(setup::PHOENIX, &old.session, claimed.clone(), seen)
                .await
            {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => break,
                Err(error) if deadline <= Instant::now() => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        // Somebody changed it: perhaps we did, in a try whose answer was lost.
        let stands = self.record(&old.session).await?.and_then(|record| record.revived);
        if stands.is_some_and(|stands| stands.attempt == revived.attempt) {
            return Ok(());
        }
        Err(self.who_won(&old.session).await)
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
    pub async fn records(&self) -> Result<Records, Error> {
        let (rows, damaged) = self.readable(setup::PHOENIX).await?;
        let mut found: Vec<(Timestamp, Record)> = rows
            .into_iter()
            .map(|(row, record)| (row.stored, record))
            .collect();
        found.sort_by_key(|(stored, _)| std::cmp::Reverse(*stored));
        Ok(Records { found, damaged })
    }

    /// What is kept of a session's records, the latest first.
    pub async fn record_history(&self, session: &str) -> Result<Records, Error> {
        identity::checked("session", session)?;
        let mut records = Records::default();
        for row in self.row_history(setup::PHOENIX, session).await?.iter().rev() {
            match row.read() {
                Ok(record) => records.found.push((row.stored, record)),
                Err(error) => records.damaged.push(error),
            }
        }
        Ok(records)
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
                let (rows, _) = self.readable::<Record>(setup::PHOENIX).await?;
                for (row, record) in rows {
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

    /// The session's record, if there is one, and the revision to set it at; fails if somebody has revived it.
    async fn unrevived(&self, session: &str) -> Result<(u64, Option<Record>), Error> {
        let Some(row) = self.last_row(setup::PHOENIX, session).await? else {
            return Ok((0, None));
        };
        if row.state != State::Live {
            return Ok((row.revision, None));
        }
        let record: Record = row.read()?;
        match &record.revived {
            Some(revived) => Err(revived.error(session)),
            None => Ok((row.revision, Some(record))),
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

    /// Writes the first record of a session that begins by being revived, if nobody has: a claim that was interrupted is
    /// taken up again by whoever is given the same beacon, and one alone may go on.
    async fn begin(&self, record: &Record, old: &str) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout * 2;
        loop {
            let set = match self.last_row(setup::PHOENIX, &record.session).await {
                Ok(Some(row)) if row.state == State::Live => return begun(row.read()?, record, old),
                Ok(row) => {
                    let seen = row.map_or(0, |row| row.revision);
                    self.swap(setup::PHOENIX, &record.session, json_of(record), seen)
                        .await
                }
                Err(error) => Err(error),
            };
            match set {
                Ok(Some(_)) => return Ok(()),
                // The next look says who was first; perhaps we were, in a try whose answer was lost.
                Ok(None) => {}
                Err(error) if deadline <= Instant::now() => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
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
            let Ok(record) = row.read::<Record>() else {
                return Ok(());
            };
            kept.push(record.object);
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

/// Whether the first record that stands for a revived session is the one we wrote.
fn begun(stands: Record, ours: &Record, old: &str) -> Result<(), Error> {
    if stands.begun == ours.begun {
        return Ok(());
    }
    if stands.parent == ours.parent {
        return Err(Error::Superseded {
            session: old.to_owned(),
            by: stands.instance,
            new_session: stands.session,
            at: stands.saved,
        });
    }
    Err(Error::Server {
        what: format!("cannot record session `{}`", ours.session),
        why: format!(
            "somebody saved a state under that name meanwhile; `mesh phoenix resurrect {old} --take-over` takes another"
        ),
    })
}

/// A session's name without the mark of a later life.
fn stem(session: &str) -> &str {
    match session.rsplit_once("-g") {
        Some((stem, _)) if life(session).is_some() => stem,
        _ => session,
    }
}

/// Which life the mark of a session's name stands for.
fn life(session: &str) -> Option<u64> {
    let (stem, life) = session.rsplit_once("-g")?;
    let marked = !stem.is_empty() && life.bytes().all(|b| b.is_ascii_digit());
    life.parse().ok().filter(|_| marked)
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
