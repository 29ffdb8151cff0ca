//! The events of the twelve systems and of the mesh itself: the only place where they are written down.

use super::Kind::{self, Flag, Integer, List, Number, Object, Text};

/// One event as the table writes it.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) subject: &'static str,
    pub(super) system: &'static str,
    pub(super) meaning: &'static str,
    pub(super) fields: &'static [FieldRow],
}

/// A body field: name, type, whether it must be there, what it says.
pub(super) type FieldRow = (&'static str, Kind, bool, &'static str);

/// A field that must be there.
const MUST: bool = true;
/// A field that may be left out.
const MAY: bool = false;

/// The system name of events that the mesh itself publishes; it is none of the twelve.
pub(super) const MESH: &str = "Mesh";

const THREAD: FieldRow = ("thread", Text, MAY, "the thread of thought it belongs to");
const REASON: FieldRow = ("reason", Text, MAY, "why, for a reader");
const BASE: FieldRow = ("base", Text, MAY, "the state it starts from");
const SEEN: FieldRow = (
    "seen",
    Integer,
    MAY,
    "the last place in the stream its sender had read",
);
const SEEN_OF: FieldRow = (
    "seen_of",
    Object,
    MAY,
    "the last event of each instance its sender had read, by `Mesh-Seq`",
);

macro_rules! event {
    ($name:literal, $subject:literal, $system:expr, $meaning:literal, [$($field:expr),* $(,)?]) => {
        Row { name: $name, subject: $subject, system: $system, meaning: $meaning, fields: &[$($field),*] }
    };
}

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    event!("graph_update", "mesh.graph.update", "Graph Feeder", "nodes or edges of the graph changed", [
        ("change", Text, MUST, "what happened: added, changed, removed"),
        ("nodes", List, MAY, "the nodes concerned"), ("edges", List, MAY, "the edges concerned"),
        BASE, SEEN, SEEN_OF,
    ]),
    event!("fo_insight", "mesh.fo.insight", "FO Local", "the First Officer of an instance noticed something", [
        ("text", Text, MUST, "the insight"), ("confidence", Number, MAY, "from 0 to 1"), THREAD,
    ]),
    event!("attention_decision", "mesh.attention.decision", "Attention Daemon", "attention was turned to something", [
        ("decision", Text, MUST, "what was decided"), ("focus", Text, MAY, "what attention is on now"), REASON,
        BASE, SEEN, SEEN_OF,
    ]),
    event!("coherence_alert", "mesh.attention.coherence_alert", "Attention Daemon", "a session drifts from its thread", [
        ("score", Number, MUST, "coherence, from 0 to 1"), ("text", Text, MAY, "what drifted"), THREAD,
    ]),
    event!("aha_moment", "mesh.attention.aha_moment", "Attention Daemon", "something fell into place", [
        ("text", Text, MUST, "what was understood"), THREAD,
    ]),
    event!("economics_session_start", "mesh.economics.session_start", "Attention Daemon", "a session's account was opened", [
        ("sats", Integer, MUST, "balance at the start"), ("budget", Integer, MAY, "sats it may spend"),
    ]),
    event!("economics_session_end", "mesh.economics.session_end", "Attention Daemon", "a session's account was closed", [
        ("sats", Integer, MUST, "balance at the end"), ("spent", Integer, MAY, "sats spent"),
    ]),
    event!("resonance_detected", "mesh.resonance.detected", "Resonance Detector", "one pattern shows in several threads", [
        ("pattern", Text, MUST, "the pattern"), ("threads", List, MUST, "where it shows"),
        ("strength", Number, MAY, "from 0 to 1"),
    ]),
    event!("meta_fo_update", "mesh.fo.meta_update", "Meta FO", "the state across instances changed", [
        ("state", Object, MUST, "the state as a whole"), ("text", Text, MAY, "what changed, for a reader"),
        BASE, SEEN, SEEN_OF,
    ]),
    event!("conflict_alert", "mesh.fo.conflict_alert", "Meta FO", "two instances act against each other", [
        ("key", Text, MUST, "what they both act on"), ("instances", List, MUST, "who they are"), REASON,
        ("rule", Text, MAY, "the rule that found it"), ("base", Text, MAY, "the state both start from, if they say so"),
        ("events", List, MAY, "the two events: `stream_seq`, `event`, `instance`, `session`, `seq`, `outcome`"), THREAD,
    ]),
    event!("recovery_beacon", "mesh.phoenix.recovery_beacon", "Meta FO", "a session asks to be revived", [
        ("session", Text, MUST, "the session to revive"), REASON,
    ]),
    event!("mission_control_synthesis", "mesh.mission_control.synthesis", "Mission Control", "threads drawn together", [
        ("text", Text, MUST, "the synthesis"), ("sources", List, MUST, "the events it was drawn from: `stream_seq`, `event`, `instance`, `session`"), THREAD,
        ("instances", List, MAY, "who said them"), ("from", Text, MAY, "when the first was stored, RFC 3339"),
        ("until", Text, MAY, "when the window ended, RFC 3339"),
    ]),
    event!("edge_discovery", "mesh.principle.edge_discovery", "Principle Steward", "two principles are connected", [
        ("from", Text, MUST, "one principle"), ("to", Text, MUST, "the other"),
        ("relation", Text, MAY, "how they are connected"),
        BASE, SEEN, SEEN_OF,
    ]),
    event!("topology_update", "mesh.principle.topology_update", "Principle Steward", "the principle graph changed shape", [
        ("change", Text, MUST, "what changed"), ("nodes", Integer, MAY, "principles now"), ("edges", Integer, MAY, "edges now"),
    ]),
    event!("monologue_chunk", "mesh.monologue.chunk", "Monologue Sync", "a piece of inner monologue", [
        ("text", Text, MUST, "the piece"), ("index", Integer, MAY, "its place, from 0"), THREAD,
    ]),
    event!("context_enter", "mesh.context.enter", "Context Stream", "attention entered a context", [
        ("context", Text, MUST, "the context"), REASON,
    ]),
    event!("context_exit", "mesh.context.exit", "Context Stream", "attention left a context", [
        ("context", Text, MUST, "the context"), ("seconds", Number, MAY, "time spent there"), REASON,
    ]),
    event!("session_debrief", "mesh.session.debrief", "Session Report", "a session sums itself up at its end", [
        ("summary", Text, MUST, "what was done"), ("decisions", List, MAY, "what was decided"), ("open", List, MAY, "what is left"),
    ]),
    event!("hygiene_check", "mesh.phoenix.hygiene_check", "Phoenix Hygiene", "the health of an instance's system", [
        ("status", Text, MUST, "ok, degraded or failed"), ("checks", Object, MAY, "each check and its result"),
    ]),
    event!("gravity_well_formed", "mesh.gravity.well_formed", "Gravity Tracker", "thoughts gather around a centre", [
        ("center", Text, MUST, "the centre"), ("mass", Number, MAY, "its weight"), ("members", List, MAY, "what gathers there"),
    ]),
    event!("session_started", "mesh.session.started", MESH, "a session began", [
        ("session", Text, MAY, "the session, else that of the envelope"), ("parent", Text, MAY, "the session it came from"),
        ("how", Text, MAY, "spawned, resumed or forked"),
    ]),
    event!("session_ended", "mesh.session.ended", MESH, "a session ended", [
        ("session", Text, MAY, "the session, else that of the envelope"), REASON,
    ]),
    event!("session_resurrected", "mesh.phoenix.resurrected", MESH, "a session's state was taken up by another", [
        ("session", Text, MUST, "the session that was revived"), ("new_session", Text, MUST, "the session it goes on as"),
        ("generation", Integer, MAY, "lives so far"),
    ]),
    event!("peer_joined", "mesh.peer.joined", MESH, "an instance is present", [
        ("host", Text, MAY, "where it runs"), ("session", Text, MAY, "its session"), ("cause", Text, MAY, "joined or returned"),
    ]),
    event!("peer_left", "mesh.peer.left", MESH, "an instance is no longer present", [
        ("cause", Text, MUST, "left, lapsed, or how its command ended"), ("instance", Text, MUST, "who left"),
        ("session", Text, MAY, "its session"),
    ]),
    event!("dead_letter", "mesh.dead.letter", MESH, "a command gave up on an event", [
        ("consumer", Text, MUST, "the durable that gave up"), ("sequence", Integer, MUST, "the event's place in the stream"),
        ("subject", Text, MUST, "the event's subject"), ("reason", Text, MUST, "how the last try ended"),
        ("tries", Integer, MUST, "times it was tried"), ("gave_up", Flag, MAY, "false if it was never run"),
    ]),
    event!("check_message", "mesh.check.message", MESH, "a round trip asked for by `mesh check send`", [
        ("text", Text, MUST, "what was sent"),
    ]),
];
