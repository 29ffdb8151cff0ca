//! Restoring by itself: a beacon or a lapse makes the restore command run with the session's state.
//!
//! The fence of [`phoenix`](super::phoenix) is also what keeps a command from running twice for one beacon: the
//! claim carries the beacon's id. Whoever finds his own claim has been interrupted. If the session it was to go on as has
//! no record yet, no command was run, and he goes on; else he cannot know how far the command came, and gives up
//! loudly instead of running it again.

use std::time::Duration;

use serde::Deserialize;

use super::exec::{Backoff, Outcome, Run};
use super::phoenix::{Back, Revival, Target};
use super::watch::{Delivery, Durable};
use super::{Error, Mesh};

/// What a restorer reads.
pub const SUBJECTS: [&str; 2] = ["mesh.phoenix.recovery_beacon", "mesh.peer.left"];
/// Pause before an event is taken again that could not be looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// How to restore.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The command: state on stdin, ids in the environment.
    pub command: String,
    /// How often it is tried.
    pub backoff: Backoff,
    /// How long a lapsed peer may take to come back by itself: after a restart of the broker all seem to have lapsed.
    pub grace: Duration,
}

/// The parts of a beacon's or a leaving peer's body that matter here.
#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    cause: Option<String>,
}

impl Restore {
    /// Does what an event asks for and settles it. What is returned is for the log; nothing if it was no concern of ours.
    pub async fn handle(&self, mesh: &Mesh, durable: &mut Durable, delivery: &Delivery) -> Option<String> {
        let outcome = self.decide(mesh, durable, delivery).await;
        match outcome {
            Ok(said) => said,
            Err(error) => {
                durable.retry(delivery, PAUSE).await;
                Some(format!("{error}; again in {PAUSE:?}"))
            }
        }
    }

    async fn decide(
        &self,
        mesh: &Mesh,
        durable: &mut Durable,
        delivery: &Delivery,
    ) -> Result<Option<String>, Error> {
        let event = &delivery.event;
        let beacon = event.subject == SUBJECTS[0];
        let asked: Asked = serde_json::from_slice(&event.body).unwrap_or_default();
        let session = match (asked.session, asked.cause.as_deref()) {
            (Some(session), _) if beacon => session,
            (Some(session), Some("lapsed")) => session,
            (None, _) if beacon => {
                durable.give_up(delivery, "the beacon names no session").await?;
                return Ok(Some("the beacon names no session".to_owned()));
            }
            _ => {
                durable.ack(delivery).await;
                return Ok(None);
            }
        };
        if !beacon && let Some(instance) = &asked.instance {
            delivery.while_working(tokio::time::sleep(self.grace)).await;
            if mesh.is_present(instance, Some(&session)).await? {
                durable.ack(delivery).await;
                return Ok(Some(format!("`{session}` is back by itself")));
            }
        }
        let attempt = format!("{}.{}", event.stream_seq, event.stored.as_nanosecond());
        let revival = Revival {
            target: Target::Session(session.clone()),
            new_session: None,
            take_over: false,
            attempt,
        };
        match delivery.while_working(mesh.resurrect(&revival)).await {
            Ok(back) => {
                let said = self.run(mesh, durable, delivery, &back, &revival.attempt).await?;
                Ok(Some(match &back.untold {
                    None => said,
                    Some(why) => format!("{said}; the mesh is not told: {why}"),
                }))
            }
            Err(Error::Superseded { .. }) => {
                self.too_late(mesh, durable, delivery, &session, &revival.attempt)
                    .await
            }
            // A peer need not have saved anything; who sends a beacon expects more.
            Err(Error::NotFound(_)) if !beacon => {
                durable.ack(delivery).await;
                Ok(None)
            }
            Err(error @ (Error::NotFound(_) | Error::BadName { .. } | Error::Damaged { .. })) => {
                durable.give_up(delivery, &error.to_string()).await?;
                Ok(Some(format!("{error}; given up, see event dead_letter")))
            }
            Err(error) => Err(error),
        }
    }

    /// Somebody was first; it may have been ourselves, before we were interrupted.
    async fn too_late(
        &self,
        mesh: &Mesh,
        durable: &mut Durable,
        delivery: &Delivery,
        session: &str,
        attempt: &str,
    ) -> Result<Option<String>, Error> {
        let Some(revived) = mesh.record(session).await?.and_then(|record| record.revived) else {
            return Err(Error::NotFound(format!("the record of `{session}` is gone")));
        };
        let known = mesh
            .record(&revived.session)
            .await?
            .and_then(|record| record.restored);
        if revived.attempt != attempt || known.is_some() {
            durable.ack(delivery).await;
            return Ok(Some(revived.error(session).to_string()));
        }
        let why = format!(
            "interrupted while restoring `{session}`; its state is with `{}`",
            revived.session
        );
        durable.give_up(delivery, &why).await?;
        Ok(Some(format!("{why}; given up, see event dead_letter")))
    }

    async fn run(
        &self,
        mesh: &Mesh,
        durable: &mut Durable,
        delivery: &Delivery,
        back: &Back,
        attempt: &str,
    ) -> Result<String, Error> {
        let (old, new) = (&back.session, &back.record.session);
        let mut tries = 0;
        let failed = loop {
            tries += 1;
            let run = Run {
                command: self.command.clone(),
                input: back.state.clone(),
                environment: vec![
                    ("MESH_SESSION", new.clone()),
                    ("MESH_PARENT_SESSION", old.clone()),
                    ("MESH_PHOENIX_GENERATION", back.record.generation.to_string()),
                    ("MESH_PHOENIX_BEACON", attempt.to_owned()),
                    ("MESH_PHOENIX_TRY", tries.to_string()),
                ],
            };
            let why = match delivery.while_working(run.finish()).await {
                Ok(Outcome::Done) => {
                    mesh.restored(new, "done").await?;
                    durable.ack(delivery).await;
                    return Ok(format!("`{old}` goes on as `{new}`"));
                }
                Ok(Outcome::Failed(why)) => why,
                Err(error) => error.to_string(),
            };
            let Some(pause) = self.backoff.after(tries) else {
                break why;
            };
            delivery.while_working(tokio::time::sleep(pause)).await;
        };
        let why = format!("restoring `{old}` as `{new}` failed {tries} times, the last one {failed}");
        mesh.restored(new, &why).await?;
        durable.give_up(delivery, &why).await?;
        Ok(format!("{why}; given up, see event dead_letter"))
    }
}
