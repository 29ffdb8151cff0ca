//! An event as a commit of the spool holds it: file `event`, a line of JSON about it, then its body as it is.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mesh::envelope::{Envelope, Received};
use crate::mesh::journal::Pending;
use crate::mesh::{catalog, identity};
use crate::protocol::subject;

/// The file of a commit's tree.
pub(super) const FILE: &str = "event";
/// Longest first line.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Largest body that is spooled: what a server takes unless told otherwise, with room for headers.
pub(super) const BODY_BYTES_MAX: usize = (1 << 20) - 1024;
/// Largest blob that is read; one that is larger is none of ours.
pub(super) const BLOB_BYTES_MAX: u64 = (BODY_BYTES_MAX + HEAD_BYTES_MAX) as u64;
/// Longest text in a header.
const TEXT_BYTES_MAX: usize = 512;
/// How entries are written today.
const VERSION: u32 = 1;

/// All about an event but its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    pub(super) instance: String,
    /// The journal that numbered it.
    pub(super) journal: String,
    pub(super) seq: u64,
    /// The event of that journal that was spooled before it and was not known to be in the stream; 0 if there
    /// was none. Whoever imports this one must have imported that one: a hole in a spool shows, wherever it was read.
    pub(super) after: u64,
    pub(super) id: String,
    pub(super) event: String,
    pub(super) subject: String,
    pub(super) time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
}

impl Head {
    pub(super) fn of(pending: &Pending, instance: &str, journal: &str, after: u64) -> Self {
        Self {
            version: VERSION,
            instance: instance.to_owned(),
            journal: journal.to_owned(),
            seq: pending.seq,
            after,
            id: pending.id.clone(),
            event: pending.event.clone(),
            subject: pending.subject.clone(),
            time: pending.time.clone(),
            session: pending.session.clone(),
            parent: pending.parent.clone(),
        }
    }

    /// The blob.
    pub(super) fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut blob = serde_json::to_vec(self).expect("strings and numbers are always JSON");
        blob.push(b'\n');
        blob.extend_from_slice(body);
        blob
    }

    /// Reads a blob of the spool of `instance`; what comes from a repository is not to be trusted.
    pub(super) fn decode(instance: &str, blob: &[u8]) -> Result<(Self, Bytes), String> {
        let end = memchr::memchr(b'\n', blob).filter(|&end| end <= HEAD_BYTES_MAX);
        let end = end.ok_or("its file `event` has no first line")?;
        let head: Self = serde_json::from_slice(&blob[..end])
            .map_err(|error| format!("the first line of its file `event` is none of ours: {error}"))?;
        head.check(instance)?;
        let body = &blob[end + 1..];
        if body.len() > BODY_BYTES_MAX {
            return Err(format!(
                "its body has {} bytes, at most {BODY_BYTES_MAX}",
                body.len()
            ));
        }
        Ok((head, Bytes::copy_from_slice(body)))
    }

    fn check(&self, instance: &str) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("it is of version {}, known is {VERSION}", self.version));
        }
        if self.instance != instance {
            return Err(format!("it says that it is an event of `{}`", self.instance));
        }
        let is_text =
            |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
        let is_ours = subject::is_subject(self.subject.as_bytes())
            && subject::matches(catalog::ALL.as_bytes(), self.subject.as_bytes());
        let names = [&self.session, &self.parent];
        let named = names.into_iter().flatten().all(|name| identity::is_name(name));
        for (is_good, field) in [
            (identity::is_name(&self.journal), "journal"),
            (self.seq > self.after, "seq"),
            (is_text(&self.id), "id"),
            (is_text(&self.event), "event"),
            (is_ours, "subject"),
            (self.time.parse::<Timestamp>().is_ok(), "time"),
            (named, "session"),
        ] {
            if !is_good {
                return Err(format!("its `{field}` cannot be right"));
            }
        }
        Ok(())
    }

    /// When it was emitted, by the emitter's clock.
    pub(super) fn at(&self) -> Timestamp {
        self.time.parse().unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Its headers.
    pub(super) fn envelope(&self) -> Envelope {
        Envelope {
            event: Some(self.event.clone()),
            instance: Some(self.instance.clone()),
            session: self.session.clone(),
            parent: self.parent.clone(),
            seq: Some(self.seq),
            time: Some(self.time.clone()),
            id: Some(self.id.clone()),
        }
    }

    /// As a reader of events sees it: with no place in the stream, and the emitter's time for the server's.
    pub(super) fn received(&self, body: Bytes) -> Received {
        Received {
            stream_seq: 0,
            stored: self.at(),
            subject: self.subject.clone(),
            envelope: self.envelope(),
            marker: None,
            body,
            pending: 0,
            deliveries: 1,
            consumer_seq: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            version: VERSION,
            instance: "a".to_owned(),
            journal: "J1".to_owned(),
            seq: 7,
            after: 6,
            id: "a.J1.7".to_owned(),
            event: "fo_insight".to_owned(),
            subject: "mesh.fo.insight".to_owned(),
            time: "2026-11-23T05:20:01Z".to_owned(),
            session: Some("S1".to_owned()),
            parent: None,
        }
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        for body in [&b"{}"[..], b"", b"\n\0\xff\n"] {
            let (read, found) = Head::decode("a", &head().encode(body)).unwrap();
            assert_eq!((read, &found[..]), (head(), body));
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let refused = |change: &dyn Fn(&mut Head), expected: &str| {
            let mut wrong = head();
            change(&mut wrong);
            let why = Head::decode("a", &wrong.encode(b"{}")).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        refused(&|head| head.version = 2, "version 2");
        refused(&|head| head.instance = "b".to_owned(), "event of `b`");
        refused(&|head| head.journal = "a.b".to_owned(), "`journal`");
        refused(&|head| head.after = 7, "`seq`");
        refused(&|head| head.id = "x\r\nNats-Rollup: all".to_owned(), "`id`");
        refused(&|head| head.event = String::new(), "`event`");
        refused(&|head| head.subject = "mesh.>".to_owned(), "`subject`");
        refused(
            &|head| head.subject = "$JS.API.STREAM.DELETE.MESH".to_owned(),
            "`subject`",
        );
        refused(&|head| head.time = "yesterday".to_owned(), "`time`");
        refused(&|head| head.session = Some("a b".to_owned()), "`session`");
        for blob in [&b""[..], b"no line", b"{}\n", b"\xff\xfe\n"] {
            Head::decode("a", blob).unwrap_err();
        }
        let huge = head().encode(&vec![b'x'; BODY_BYTES_MAX + 1]);
        assert!(Head::decode("a", &huge).unwrap_err().contains("at most"));
    }
}
