//! The control line of a publish: the last one kept, and what it may not name.

use std::ops::Range;

use crate::protocol::subject;

/// The last publish's control line and where its arguments stand in it. Publishers repeat themselves: a line equal to the
/// one before it need not be found or parsed again.
#[derive(Default)]
pub(super) struct PublishLine {
    /// With its line end; empty before the first publish.
    pub line: Vec<u8>,
    pub subject: Range<usize>,
    pub reply: Range<usize>,
    pub headers: usize,
    pub total: usize,
}

impl PublishLine {
    /// Whether the same line stands at the front of `data`.
    #[inline]
    pub fn stands_at(&self, data: &[u8]) -> bool {
        !self.line.is_empty() && data.starts_with(&self.line)
    }

    /// Keeps a line, of which the arguments are slices.
    pub fn remember(&mut self, line: &[u8], subject: &[u8], reply: &[u8], headers: usize, total: usize) {
        let span = |part: &[u8]| {
            // An argument is a slice of the line; an absent one lies elsewhere and is empty.
            let start = if part.is_empty() {
                0
            } else {
                part.as_ptr() as usize - line.as_ptr() as usize
            };
            start..start + part.len()
        };
        (self.subject, self.reply, self.headers, self.total) = (span(subject), span(reply), headers, total);
        self.line.clear();
        self.line.extend_from_slice(line);
    }

    /// A copy without the line itself.
    pub fn spans(&self) -> Self {
        Self {
            line: Vec::new(),
            subject: self.subject.clone(),
            reply: self.reply.clone(),
            ..*self
        }
    }
}

/// Subjects that clients cannot publish to: routing between clusters and Raft in NATS.
#[inline]
pub(super) fn is_reserved_subject(subject: &[u8]) -> bool {
    matches!(subject.first(), Some(b'_' | b'$'))
        && (subject.starts_with(b"$NRG.") || is_longer(subject, b"_GR_.") || is_longer(subject, b"$GR."))
}

/// Replies that only the server itself may ask for, and those by which whoever answers would make a request: that takes rights
/// which the asker may not have. Beyond nats-server, which executes such a request.
#[inline]
pub(super) fn is_reserved_reply(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'_' | b'$'))
        && (reply.starts_with(b"_R_.")
            || is_longer(reply, b"_GR_.")
            || is_longer(reply, b"$GR.")
            || is_longer(reply, b"$JS.ACK.")
            || subject::is_for_requests(reply))
}

fn is_longer(text: &[u8], prefix: &[u8]) -> bool {
    text.len() > prefix.len() && text.starts_with(prefix)
}
