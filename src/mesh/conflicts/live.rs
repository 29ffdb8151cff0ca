//! Following the stream and telling of each conflict once, whoever is restarted and however many follow.

use jiff::Timestamp;
use serde_json::Value;

use super::conflict::Conflict;
use super::detector::Detector;
use super::rules::{ALERT, Rules};
use crate::mesh::follow::{Fold, Follow, Told};
use crate::mesh::watch::{Filter, Wanted};
use crate::mesh::{Error, Mesh, Received, Start};

/// A conflict that the mesh was told of.
#[derive(Clone, Debug)]
pub struct Alert {
    /// What it says.
    pub conflict: Conflict,
    /// Where it is stored.
    pub stream_seq: u64,
    /// Whether it was stored now, and not before or by somebody else.
    pub is_new: bool,
}

impl Alert {
    /// The alert's body, with its place in the stream.
    pub fn json(&self) -> Value {
        let mut line = self.conflict.json();
        line["alert"] = self.stream_seq.into();
        line["new"] = self.is_new.into();
        line
    }
}

impl Conflict {
    /// One line for programs.
    pub fn json(&self) -> Value {
        let mut line = self.body();
        line["stored"] = self.second.stored.to_string().into();
        line
    }
}

/// A detector that follows the stream.
pub struct Detecting {
    mesh: Mesh,
    follow: Follow,
    rules: Rules,
    detector: Detector,
    told: Told,
}

impl Mesh {
    /// Follows the stream by `rules` as the durable reader `name`, from `start` the very first time.
    pub async fn detect(&self, rules: Rules, name: String, start: Start) -> Result<Detecting, Error> {
        let wanted = Wanted {
            name,
            patterns: rules.subjects(),
            start,
            filter: Filter::default(),
        };
        Ok(Detecting {
            mesh: self.clone(),
            follow: self.follow(wanted).await?,
            detector: Detector::new(&rules),
            rules,
            told: Told::new(ALERT),
        })
    }
}

impl Detecting {
    /// The next conflicts, told of. May be dropped at any await, and called again after an error that is passing: what
    /// was not settled comes again.
    pub async fn next(&mut self) -> Result<Vec<Alert>, Error> {
        loop {
            let delivery = self.follow.durable.next().await;
            let mut fold = Folding {
                rules: &self.rules,
                detector: &mut self.detector,
            };
            self.follow.fill(&delivery, &mut fold).await?;
            let conflicts = self.detector.take(&delivery.event);
            let telling = tell(&mut self.told, &self.mesh, conflicts);
            let alerts = delivery.while_working(telling).await?;
            // Unconfirmed, it comes again, and is settled by the reader then.
            self.follow.durable.ack(&delivery).await;
            if !alerts.is_empty() {
                return Ok(alerts);
            }
        }
    }
}

async fn tell(told: &mut Told, mesh: &Mesh, conflicts: Vec<Conflict>) -> Result<Vec<Alert>, Error> {
    let mut alerts = Vec::with_capacity(conflicts.len());
    for conflict in conflicts {
        let since: Timestamp = conflict.second.stored;
        let telling = told.tell(mesh, &conflict.body(), &conflict.id(), since).await?;
        alerts.push(Alert {
            conflict,
            stream_seq: telling.stream_seq,
            is_new: telling.is_new,
        });
    }
    Ok(alerts)
}

/// The detector as what catches up.
struct Folding<'d> {
    rules: &'d Rules,
    detector: &'d mut Detector,
}

impl Fold for Folding<'_> {
    fn reach(&self) -> Option<std::time::Duration> {
        Some(self.rules.reach())
    }

    fn forget(&mut self) {
        *self.detector = Detector::new(self.rules);
    }

    fn past(&mut self, event: &Received) {
        self.detector.take(event);
    }
}
