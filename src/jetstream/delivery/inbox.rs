//! What has been left for a consumer since its last round.

use crate::protocol::encode::Message;
use crate::router::Batch;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Inbox {
    /// Messages that came to the stream, the last of them with this sequence.
    pub appended: u64,
    pub last_seq: u64,
    /// Messages removed from the stream, and the commit that readers may see them until.
    pub removed: Vec<u64>,
    pub removed_until: u64,
    /// Count anew: many messages have gone.
    pub trimmed: bool,
    /// Acks, answers to flow control, answers to dead letters.
    pub batches: Vec<Batch>,
    /// Pull requests.
    pub pulls: Batch,
    /// A commit has ended.
    pub landed: bool,
    /// The consumer has gone: no more pull requests.
    pub closed: bool,
}

impl Inbox {
    /// Adds a pull request.
    pub fn pull(&mut self, request: &Message<'_>) {
        self.pulls.push(request);
    }

    /// Bytes held for the clients.
    pub fn bytes(&self) -> usize {
        self.pulls.bytes() + self.batches.iter().map(Batch::bytes).sum::<usize>()
    }
}
