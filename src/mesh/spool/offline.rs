//! Emitting without a mesh: numbered as ever, and kept in git.

use std::path::PathBuf;
use std::time::Duration;

use super::Repository;
use super::entry::Head;
use crate::mesh::emit::numbered;
use crate::mesh::journal::{Held, Journal, Pending};
use crate::mesh::{Draft, Error, Identity};

/// How long a push, and whoever waits for one, may keep an emitter.
const PUSH: Duration = Duration::from_secs(30);

/// An instance that cannot reach its mesh.
#[derive(Clone, Debug)]
pub struct Offline {
    /// Who speaks.
    pub identity: Identity,
    /// Where its journal is.
    pub state_dir: PathBuf,
    /// How long to wait for other emitters of the instance.
    pub timeout: Duration,
    /// Where its spool is.
    pub repository: Repository,
}

/// An event that is kept in git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number among the instance's events.
    pub seq: u64,
    /// The ref of the spool.
    pub reference: String,
    /// The commit that holds it.
    pub commit: String,
}

impl Offline {
    /// Keeps an event until the mesh is back; what an earlier emitter left unsettled goes first.
    pub async fn emit(&self, draft: &Draft) -> Result<Kept, Error> {
        let instance = &self.identity.instance;
        let mut held = Journal::new(&self.state_dir, instance)
            .hold(self.timeout * 2)
            .await?;
        if let Some(earlier) = held.pending().cloned() {
            let kept = self.put(&mut held, &earlier).await?;
            if earlier.is_same(draft, &self.identity) {
                return Ok(kept);
            }
        }
        let pending = numbered(&held, draft, &self.identity);
        held.spooling(self.repository.path())?;
        held.reserve(pending.clone())?;
        match self.put(&mut held, &pending).await {
            Err(error) if !self.may_hold(&pending).await => {
                held.free()?;
                Err(error)
            }
            outcome => outcome,
        }
    }

    async fn put(&self, held: &mut Held, pending: &Pending) -> Result<Kept, Error> {
        let instance = &self.identity.instance;
        held.spooling(self.repository.path())?;
        let base = held.base();
        let after = base.spool.as_ref().map_or(0, |spool| spool.seq);
        let head = Head::of(pending, instance, &base.journal, after);
        let commit = self.repository.append(&head, &pending.body).await?;
        held.spooled()?;
        Ok(Kept {
            seq: pending.seq,
            reference: super::reference(instance),
            commit,
        })
    }

    /// Whether the spool may hold an event though putting it there failed: then its number is taken.
    async fn may_hold(&self, pending: &Pending) -> bool {
        match self.repository.check().await {
            Ok(()) => {
                let instance = &self.identity.instance;
                self.repository.may_end_with(instance, &pending.id).await
            }
            // There is nothing that could hold it.
            Err(_) => false,
        }
    }

    /// Pushes the spool to the repository's remote, if it has one; gives what went wrong, which is no loss.
    pub async fn push(&self) -> Result<Option<String>, Error> {
        let Some(remote) = self.repository.remote().await? else {
            return Ok(None);
        };
        let instance = &self.identity.instance;
        // Many emitters at once: whoever comes later mostly finds that its event went along.
        let journal = Journal::new(&self.state_dir, instance);
        let Some(_lock) = journal.lock_for("push", PUSH).await? else {
            return Ok(Some("another push takes very long".to_owned()));
        };
        self.repository.push(&remote, instance, PUSH).await
    }
}
