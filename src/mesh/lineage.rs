//! Lineage: which session came from which, drawn from what was said on the mesh.
//!
//! Envelopes tell of sessions and their parents; `session_started`, `session_ended` and `session_resurrected` tell how.
//! The bucket `SESSIONS` is a projection of the stream with a cursor: events are folded in once, and what they said
//! outlives them. It can be rebuilt by emptying it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::reader::{Selection, Start};
use super::{Error, Mesh, Received, catalog, identity, setup};

/// Where the cursor is kept; no session's name has a dot.
const CURSOR: &str = "cursor.stream";
/// Events whose bodies tell of lineage.
const TELLING: [&str; 3] = [
    "mesh.session.started",
    "mesh.session.ended",
    "mesh.phoenix.resurrected",
];

/// How a session came from its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Started by it.
    #[default]
    Spawned,
    /// Goes on where it ended.
    Resumed,
    /// Took up its state after it was lost.
    Resurrected,
    /// Goes on beside it.
    Forked,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Spawned => "spawned",
            Self::Resumed => "resumed",
            Self::Resurrected => "resurrected",
            Self::Forked => "forked",
        }
    }

    fn of(word: &str) -> Self {
        let all = [Self::Resumed, Self::Resurrected, Self::Forked];
        all.into_iter().find(|how| how.word() == word).unwrap_or_default()
    }
}

/// What is known of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub session: String,
    /// The session it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How it did.
    #[serde(default)]
    pub how: How,
    /// The instance it was last heard from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When it was first heard of, by the server's clock, RFC 3339.
    pub first: String,
    /// When it was last heard of.
    pub last: String,
    /// When it said that it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// All sessions by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    sessions: BTreeMap<String, Session>,
}

/// Up to where the stream was folded in, and which stream that was.
#[derive(Serialize, Deserialize)]
struct Cursor {
    seq: u64,
    stream: String,
}

/// The fields of the telling events.
#[derive(Default, Deserialize)]
struct Told {
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    new_session: Option<String>,
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    how: Option<String>,
}

impl Mesh {
    /// The lineage up to now; what is new in the stream is folded into the bucket on the way.
    pub async fn lineage(&self) -> Result<Lineage, Error> {
        let info = self.stream().await?.cached_info().clone();
        let stream = info.created.unix_timestamp_nanos().to_string();
        let (mut lineage, mut revisions, mut after) = (Lineage::default(), BTreeMap::new(), 0);
        for row in self.live_rows(setup::SESSIONS).await? {
            if row.key == CURSOR {
                let cursor: Cursor = row.read()?;
                after = if cursor.stream == stream { cursor.seq } else { 0 };
            } else if identity::is_name(&row.key) {
                revisions.insert(row.key.clone(), row.revision);
                lineage.sessions.insert(row.key.clone(), row.read()?);
            }
        }
        let before = lineage.clone();
        let all = Selection::of(vec![catalog::ALL.to_owned()], Start::After(after));
        let telling = Selection::of(TELLING.map(str::to_owned).to_vec(), Start::After(after));
        for selection in [
            Selection {
                headers_only: true,
                ..all
            },
            telling,
        ] {
            let mut events = self.read(selection).await?;
            while let Some(event) = events.next().await? {
                // What came while we read is for the next time: both passes must end at the same place.
                if event.stream_seq <= info.state.last_sequence {
                    lineage.fold(&event);
                }
            }
        }
        for (name, session) in &lineage.sessions {
            if before.sessions.get(name) != Some(session) {
                let value = serde_json::to_vec(session).expect("strings are always JSON");
                let seen = revisions.get(name).copied().unwrap_or(0);
                if self.swap(setup::SESSIONS, name, value, seen).await?.is_none() {
                    // Somebody else is folding the same events in.
                    return Ok(lineage);
                }
            }
        }
        if info.state.last_sequence != after {
            let cursor = Cursor {
                seq: info.state.last_sequence,
                stream,
            };
            let value = serde_json::to_vec(&cursor).expect("strings and numbers are always JSON");
            let bucket = self.bucket(setup::SESSIONS).await?;
            super::error::While::while_doing(
                bucket.put(CURSOR, value.into()).await,
                "cannot move the cursor",
            )?;
        }
        Ok(lineage)
    }
}

impl Lineage {
    /// Takes in one event; taking it in again changes nothing.
    pub fn fold(&mut self, event: &Received) {
        let at = event.stored.to_string();
        let envelope = &event.envelope;
        let instance = envelope.instance.as_deref();
        if let Some(session) = &envelope.session {
            self.heard(session, instance, &at);
            if let Some(parent) = &envelope.parent {
                self.link(session, parent, None);
            }
        }
        if !TELLING.contains(&event.subject.as_str()) || event.body.is_empty() {
            return;
        }
        let told: Told = serde_json::from_slice(&event.body).unwrap_or_default();
        let Some(session) = told.session.as_ref().or(envelope.session.as_ref()) else {
            return;
        };
        match event.subject.as_str() {
            "mesh.session.started" => {
                self.heard(session, instance, &at);
                if let Some(parent) = told.parent.as_ref().or(envelope.parent.as_ref()) {
                    self.link(
                        session,
                        parent,
                        Some(How::of(told.how.as_deref().unwrap_or_default())),
                    );
                }
            }
            "mesh.session.ended" => {
                self.heard(session, None, &at);
                if let Some(known) = self.sessions.get_mut(session) {
                    known.ended = Some(at);
                }
            }
            _ => {
                if let Some(new_session) = &told.new_session {
                    self.heard(new_session, instance, &at);
                    self.link(new_session, session, Some(How::Resurrected));
                }
            }
        }
    }

    fn heard(&mut self, name: &str, instance: Option<&str>, at: &str) {
        if !identity::is_name(name) {
            return;
        }
        let session = self.sessions.entry(name.to_owned()).or_insert_with(|| Session {
            session: name.to_owned(),
            first: at.to_owned(),
            ..Session::default()
        });
        // RFC 3339 in UTC sorts as text as long as it is as precise; ours is.
        if session.last.as_str() <= at {
            session.last = at.to_owned();
            if let Some(instance) = instance {
                session.instance = Some(instance.to_owned());
            }
        }
    }

    /// What says how outweighs a mere envelope.
    fn link(&mut self, name: &str, parent: &str, how: Option<How>) {
        if !identity::is_name(parent) {
            return;
        }
        if let Some(session) = self.sessions.get_mut(name) {
            if session.parent.is_none() || how.is_some() {
                session.parent = Some(parent.to_owned());
            }
            session.how = how.unwrap_or(session.how);
        }
    }

    /// All sessions by name.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// Whether anything is known of a session.
    pub fn knows(&self, session: &str) -> bool {
        self.sessions.contains_key(session)
    }

    /// The tree that holds `session`: what it came from at last, and all that came from that.
    pub fn tree_of(&self, session: &str) -> Self {
        let (mut root, mut seen) = (session, BTreeSet::from([session]));
        while let Some(parent) = self.sessions.get(root).and_then(|known| known.parent.as_deref()) {
            if !seen.insert(parent) {
                break;
            }
            root = parent;
        }
        let mut kept = BTreeSet::from([root]);
        let mut next = vec![root];
        while let Some(name) = next.pop() {
            for child in self.children(name) {
                if kept.insert(&child.session) {
                    next.push(&child.session);
                }
            }
        }
        let sessions = self
            .sessions
            .iter()
            .filter(|(name, _)| kept.contains(name.as_str()));
        Self {
            sessions: sessions
                .map(|(name, known)| (name.clone(), known.clone()))
                .collect(),
        }
    }

    /// Sessions that came from `name`, the first heard of first.
    fn children<'a>(&'a self, name: &str) -> Vec<&'a Session> {
        let mut children: Vec<&Session> = self
            .sessions
            .values()
            .filter(|session| session.parent.as_deref() == Some(name))
            .collect();
        children.sort_by(|a, b| (&a.first, &a.session).cmp(&(&b.first, &b.session)));
        children
    }

    /// Parents that are spoken of and were never heard from.
    pub fn unknown_parents(&self) -> BTreeSet<&str> {
        let parents = self
            .sessions
            .values()
            .filter_map(|session| session.parent.as_deref());
        parents
            .filter(|parent| !self.sessions.contains_key(*parent))
            .collect()
    }

    /// Whether following parents from `session` leads back to it.
    pub fn in_cycle(&self, session: &str) -> bool {
        let mut at = session;
        for _ in 0..=self.sessions.len() {
            match self.sessions.get(at).and_then(|known| known.parent.as_deref()) {
                None => return false,
                Some(parent) if parent == session => return true,
                Some(parent) => at = parent,
            }
        }
        false
    }

    /// The trees as text, one line a session.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut drawn = BTreeSet::new();
        for unknown in self.unknown_parents() {
            writeln!(out, "{unknown}  (unknown: never heard from)").expect("a String takes all");
            self.draw_children(&mut out, &mut drawn, unknown, "");
        }
        let roots = self.sessions.values().filter(|session| session.parent.is_none());
        let mut roots: Vec<&Session> = roots.collect();
        roots.sort_by(|a, b| (&a.first, &a.session).cmp(&(&b.first, &b.session)));
        for root in roots {
            self.draw(&mut out, &mut drawn, root, "", "", "");
        }
        // What no root leads to goes in circles: begin with any of a circle, not with what hangs on it.
        for session in self.sessions.values() {
            if self.in_cycle(&session.session) && !drawn.contains(session.session.as_str()) {
                self.draw(&mut out, &mut drawn, session, "", "", "");
            }
        }
        out
    }

    fn draw<'a>(
        &'a self,
        out: &mut String,
        drawn: &mut BTreeSet<&'a str>,
        session: &'a Session,
        indent: &str,
        branch: &str,
        below: &str,
    ) {
        let name = &session.session;
        let how = if session.parent.is_some() {
            format!("  {}", session.how.word())
        } else {
            String::new()
        };
        if !drawn.insert(name) {
            writeln!(out, "{indent}{branch}{name}{how}  (cycle: drawn above)").expect("a String takes all");
            return;
        }
        let instance = session
            .instance
            .as_ref()
            .map_or_else(String::new, |instance| format!("  on {instance}"));
        let ended = if session.ended.is_some() { "  ended" } else { "" };
        let cycle = if self.in_cycle(name) { "  (in a cycle)" } else { "" };
        writeln!(out, "{indent}{branch}{name}{how}{instance}{ended}{cycle}").expect("a String takes all");
        self.draw_children(out, drawn, name, &format!("{indent}{below}"));
    }

    fn draw_children<'a>(
        &'a self,
        out: &mut String,
        drawn: &mut BTreeSet<&'a str>,
        name: &str,
        indent: &str,
    ) {
        let children = self.children(name);
        for (at, child) in children.iter().enumerate() {
            let last = at + 1 == children.len();
            let (branch, below) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            self.draw(out, drawn, child, indent, branch, below);
        }
    }

    /// The graph for Graphviz: unknown parents dashed, cycles red.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph lineage {\n  rankdir=LR;\n  node [shape=box];\n");
        for unknown in self.unknown_parents() {
            writeln!(out, "  \"{unknown}\" [style=dashed];").expect("a String takes all");
        }
        for session in self.sessions.values() {
            let name = &session.session;
            let instance = session
                .instance
                .as_ref()
                .map_or_else(String::new, |instance| format!("\\n{instance}"));
            writeln!(out, "  \"{name}\" [label=\"{name}{instance}\"];").expect("a String takes all");
            if let Some(parent) = &session.parent {
                let color = if self.in_cycle(name) { ", color=red" } else { "" };
                writeln!(
                    out,
                    "  \"{parent}\" -> \"{name}\" [label={}{color}];",
                    session.how.word()
                )
                .expect("a String takes all");
            }
        }
        out.push_str("}\n");
        out
    }
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
