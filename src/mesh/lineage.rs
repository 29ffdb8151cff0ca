//! Lineage: which session came from which, drawn from what was said on the mesh.
//!
//! Envelopes tell of sessions and their parents; `session_started`, `session_ended` and `session_resurrected` tell how.
//! The records of revived sessions say it too, should their reviver have ended before he told of it.
//! The bucket `SESSIONS` is a projection of the stream with a cursor: events are folded in once, and what they said
//! outlives them. It can be rebuilt by emptying it; a row that cannot be read makes it be.
//!
//! Sessions come by the thousand, and a chain of them may be as long: nothing here recurses, or looks at all for each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::error::While;
use super::phoenix::Record;
use super::reader::{Selection, Start};
use super::rows::State;
use super::{Error, Mesh, Received, catalog, identity, setup};

/// Where the cursor is kept; no session's name has a dot.
const CURSOR: &str = "cursor.stream";
/// Trees are drawn to this depth, then they go on at the margin.
const DEPTH_MAX: usize = 40;
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
        let (mut lineage, mut revisions, after) = self.folded(&stream).await?;
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
        for (row, record) in self.readable::<Record>(setup::PHOENIX).await?.0 {
            lineage.took_up(&record, &row.stored.to_string());
        }
        let changed = lineage
            .sessions
            .iter()
            .filter(|(name, session)| before.sessions.get(*name) != Some(session))
            .map(|(name, session)| {
                let value = serde_json::to_vec(session).expect("strings are always JSON");
                (name.clone(), value, revisions.remove(name).unwrap_or(0))
            })
            .collect();
        if !self.swap_all(setup::SESSIONS, changed).await? {
            // Somebody else is folding the same events in.
            return Ok(lineage);
        }
        if info.state.last_sequence != after {
            let cursor = Cursor {
                seq: info.state.last_sequence,
                stream,
            };
            let value = serde_json::to_vec(&cursor).expect("strings and numbers are always JSON");
            let bucket = self.bucket(setup::SESSIONS).await?;
            let put = bucket.put(CURSOR, value.into()).await;
            put.while_doing("cannot move the cursor")?;
        }
        Ok(lineage)
    }

    /// What is in the bucket, the revision of each key, and the sequence up to which the stream is in it.
    async fn folded(&self, stream: &str) -> Result<(Lineage, BTreeMap<String, u64>, u64), Error> {
        let (mut lineage, mut revisions, mut after) = (Lineage::default(), BTreeMap::new(), 0);
        let mut damaged = false;
        for row in self.last_rows(setup::SESSIONS).await?.into_values() {
            let live = row.state == State::Live;
            if row.key == CURSOR && live {
                let cursor = row.read::<Cursor>().ok();
                let ours = cursor.filter(|cursor| cursor.stream == stream);
                after = ours.map_or(0, |cursor| cursor.seq);
            } else if identity::is_name(&row.key) {
                revisions.insert(row.key.clone(), row.revision);
                match row.read() {
                    _ if !live => {}
                    Ok(session) => drop(lineage.sessions.insert(row.key, session)),
                    Err(_) => {
                        self.forget(setup::SESSIONS, &row.key, row.revision).await?;
                        revisions.remove(&row.key);
                        damaged = true;
                    }
                }
            }
        }
        Ok((lineage, revisions, if damaged { 0 } else { after }))
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

    /// Takes in the record of a revived session: it knows its parent although no event may have said so.
    fn took_up(&mut self, record: &Record, at: &str) {
        let known = self
            .sessions
            .get(&record.session)
            .is_some_and(|session| session.parent.is_some());
        if let Some(parent) = record.parent.as_ref().filter(|_| !known) {
            self.heard(&record.session, Some(&record.instance), at);
            self.link(&record.session, parent, Some(How::Resurrected));
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
        let children = self.children();
        let mut kept = BTreeSet::from([root]);
        let mut next = vec![root];
        while let Some(name) = next.pop() {
            for child in children.get(name).into_iter().flatten() {
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

    /// Sessions by what they came from, the first heard of first.
    fn children(&self) -> BTreeMap<&str, Vec<&Session>> {
        let mut children: BTreeMap<&str, Vec<&Session>> = BTreeMap::new();
        for session in self.in_order() {
            if let Some(parent) = session.parent.as_deref() {
                children.entry(parent).or_default().push(session);
            }
        }
        children
    }

    /// All sessions, the first heard of first.
    fn in_order(&self) -> Vec<&Session> {
        let mut sessions: Vec<&Session> = self.sessions.values().collect();
        sessions.sort_by(|a, b| (&a.first, &a.session).cmp(&(&b.first, &b.session)));
        sessions
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

    /// Sessions from which following parents leads back to them.
    pub fn in_cycles(&self) -> BTreeSet<&str> {
        let parent = |name: &str| self.sessions.get(name).and_then(|known| known.parent.as_deref());
        let (mut found, mut walked) = (BTreeSet::new(), BTreeMap::new());
        for (walk, start) in self.sessions.keys().enumerate() {
            let mut at = Some(start.as_str());
            while let Some(name) = at.filter(|name| !walked.contains_key(name)) {
                walked.insert(name, walk);
                at = parent(name);
            }
            // Where a walk meets itself it has been round once.
            let mut round = at.filter(|name| walked.get(name) == Some(&walk));
            while let Some(name) = round.filter(|name| found.insert(*name)) {
                round = parent(name);
            }
        }
        found
    }

    /// The trees as text, one line a session.
    pub fn text(&self) -> String {
        let mut drawing = Drawing {
            children: self.children(),
            cycles: self.in_cycles(),
            drawn: BTreeSet::new(),
            deeper: VecDeque::new(),
            out: String::new(),
        };
        for unknown in self.unknown_parents() {
            writeln!(drawing.out, "{unknown}  (unknown: never heard from)").expect("a String takes all");
            drawing.below(unknown);
        }
        for root in self
            .in_order()
            .into_iter()
            .filter(|session| session.parent.is_none())
        {
            drawing.tree(root);
        }
        // What no root leads to goes in circles: begin with any of a circle, not with what hangs on it.
        for session in self.sessions.values() {
            let name = session.session.as_str();
            if drawing.cycles.contains(name) && !drawing.drawn.contains(name) {
                drawing.tree(session);
            }
        }
        drawing.out
    }

    /// The graph for Graphviz: unknown parents dashed, cycles red.
    pub fn dot(&self) -> String {
        let cycles = self.in_cycles();
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
                let color = if cycles.contains(name.as_str()) {
                    ", color=red"
                } else {
                    ""
                };
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

/// Trees while they are drawn.
struct Drawing<'a> {
    children: BTreeMap<&'a str, Vec<&'a Session>>,
    cycles: BTreeSet<&'a str>,
    drawn: BTreeSet<&'a str>,
    /// Sessions whose own are drawn at the margin, because they stand too far to the right.
    deeper: VecDeque<&'a str>,
    out: String,
}

/// A session to be drawn: what stands before its name, and before those below it.
struct Place<'a> {
    session: &'a Session,
    before: String,
    below: String,
    depth: usize,
}

impl<'a> Drawing<'a> {
    /// Draws a session at the margin, and all that came from it.
    fn tree(&mut self, root: &'a Session) {
        self.draw(vec![Place {
            session: root,
            before: String::new(),
            below: String::new(),
            depth: 0,
        }]);
    }

    /// Draws what came from `name`, which stands at the margin.
    fn below(&mut self, name: &str) {
        let places = self.places(name, "", 1);
        self.draw(places);
    }

    /// What came from `name`, the last of them first.
    fn places(&self, name: &str, indent: &str, depth: usize) -> Vec<Place<'a>> {
        let children = self.children.get(name).map_or(&[][..], Vec::as_slice);
        let place = |(at, session): (usize, &&'a Session)| {
            let (branch, below) = match at + 1 == children.len() {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            Place {
                session,
                before: format!("{indent}{branch}"),
                below: format!("{indent}{below}"),
                depth,
            }
        };
        children.iter().enumerate().rev().map(place).collect()
    }

    fn draw(&mut self, mut next: Vec<Place<'a>>) {
        loop {
            let Some(place) = next.pop() else {
                let Some(deeper) = self.deeper.pop_front() else {
                    return;
                };
                writeln!(self.out, "{deeper}  (drawn above, goes on here)").expect("a String takes all");
                next = self.places(deeper, "", 1);
                continue;
            };
            let name = place.session.session.as_str();
            let goes_on = self.line(&place);
            if !goes_on || !self.children.contains_key(name) {
                continue;
            }
            if place.depth < DEPTH_MAX {
                next.extend(self.places(name, &place.below, place.depth + 1));
            } else {
                self.deeper.push_back(name);
            }
        }
    }

    /// One line; whether those below it are to be drawn.
    fn line(&mut self, place: &Place<'a>) -> bool {
        let Place { session, before, .. } = place;
        let name = session.session.as_str();
        let how = match &session.parent {
            Some(_) => format!("  {}", session.how.word()),
            None => String::new(),
        };
        if !self.drawn.insert(name) {
            writeln!(self.out, "{before}{name}{how}  (cycle: drawn above)").expect("a String takes all");
            return false;
        }
        let instance = session
            .instance
            .as_ref()
            .map_or_else(String::new, |instance| format!("  on {instance}"));
        let ended = if session.ended.is_some() { "  ended" } else { "" };
        let cycle = if self.cycles.contains(name) {
            "  (in a cycle)"
        } else {
            ""
        };
        writeln!(self.out, "{before}{name}{how}{instance}{ended}{cycle}").expect("a String takes all");
        true
    }
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
