//! What happens rarely to a consumer: deliveries that reach nobody, and starting over.

use super::*;

impl Harness {
    /// The message was sent and nobody was there.
    pub(super) fn lose(&mut self, pick: usize) {
        if self.config.is_push() {
            return;
        }
        let picked = self
            .model
            .unacked
            .iter()
            .nth(pick % self.model.unacked.len().max(1));
        let Some((seq, deliveries)) = picked
            .filter(|(_, unacked)| unacked.due > 0 && unacked.deliveries > 0)
            .map(|(&seq, unacked)| (seq, unacked.deliveries))
        else {
            return;
        };
        let numbers = AckNumbers {
            deliveries,
            stream_seq: seq,
            consumer_seq: 1,
            timestamp: 0,
            num_pending: 0,
        };
        self.consumer.undelivered(
            &Delivery {
                to: Bytes::from_static(b"nobody"),
                numbers,
            },
            self.now,
        );
        *self.model.unacked.get_mut(&seq).unwrap() = Unacked {
            deliveries: deliveries - 1,
            due: 0,
        };
    }

    pub(super) fn reset(&mut self, pick: usize) {
        let end = self.stream.len() as u64;
        let to = match pick as u64 % (end + 5) {
            0 => 0,
            seq => seq.max(self.first),
        };
        let to = self.consumer.check_reset(&self.config, to, 0).unwrap();
        self.model = Model {
            cursor: to,
            ..Model::default()
        };
        let count = self.undelivered().count() as u64;
        self.consumer.reset(to, count, end);
        for seq in 1..to {
            self.model.done.insert(seq);
        }
        self.commit();
    }
}
