//! What a consumer hears of its stream: messages that came, that were removed, that went from the front.
//!
//! A round reads the log while news may be on their way: what it delivered, and where it had counted from, is kept until
//! the next news, so that a message that went unseen in between is counted down and one that was delivered is not.

use crate::jetstream::consumer::start::StreamIndex;

use super::driver::{Core, Driver};

/// Removals that are noted one by one; beyond that everything is counted anew.
pub(super) const REMOVED_MAX: usize = 10_000;

/// Removed messages of an inbox, and until which commit readers may see them.
struct Removals {
    seqs: Vec<u64>,
    until: u64,
}

/// Counts what has come to the stream and gone from it.
pub(super) fn stream_news(driver: &Driver, core: &mut Core, now: i64) {
    let removals = {
        let mut inbox = driver.inbox();
        let mut trimmed = inbox.trimmed;
        if !trimmed && inbox.appended > 0 {
            let appended = std::mem::take(&mut inbox.appended);
            if !core.consumer.appended(appended, inbox.last_seq) {
                core.news_at = 0;
                trimmed = true;
            }
        }
        if trimmed {
            drop(inbox);
            return count_anew(driver, core, now);
        }
        Removals {
            seqs: std::mem::take(&mut inbox.removed),
            until: inbox.removed_until,
        }
    };
    core.removed(&removals, now);
    core.heard();
}

/// Many messages have gone from the front at once, or not all that came are for it. Counts what is left, if some of it was
/// still to come.
fn count_anew(driver: &Driver, core: &mut Core, now: i64) {
    let from = core.consumer.counts_from();
    let (appended, last_told, removals) = {
        let mut inbox = driver.inbox();
        inbox.trimmed = false;
        let removals = Removals {
            seqs: std::mem::take(&mut inbox.removed),
            until: inbox.removed_until,
        };
        (std::mem::take(&mut inbox.appended), inbox.last_seq, removals)
    };
    if !core.consumer.appended(appended, last_told) {
        core.news_at = 0;
    }
    let overflowed = removals.seqs.len() >= REMOVED_MAX;
    core.removed(&removals, now);
    if overflowed {
        // Some were not noted: the log will no longer show them after that commit.
        core.unsettled_until = core.unsettled_until.max(removals.until);
    }
    let (news_at, filters) = (core.news_at, &core.filters);
    let counted = driver.stream.with_index(|index| {
        let first = index.first_seq();
        if !overflowed && news_at >= first {
            return (first, None);
        }
        // What was told of between the two looks is in the count; what is removed may still be read.
        let from = first.max(from);
        let unsettled = {
            let mut inbox = driver.inbox();
            (inbox.appended, inbox.trimmed) = (0, false);
            let before = inbox.removed.len();
            inbox.removed.retain(|&seq| seq < from);
            if inbox.removed.len() < before {
                inbox.removed_until
            } else {
                0
            }
        };
        (
            first,
            Some((index.count(filters, from), index.last_seq(), unsettled)),
        )
    });
    match counted {
        Ok((first, None)) => core.consumer.trimmed(first),
        Ok((first, Some((count, last_seq, unsettled)))) => {
            core.consumer.purged(first, count, |_| true);
            core.consumer.counted_upto(last_seq);
            core.unsettled_until = core.unsettled_until.max(unsettled);
        }
        Err(error) => {
            // Another time; until then nothing counts as known.
            driver.inbox().trimmed = true;
            core.news_at = 0;
            tracing::warn!(
                stream = driver.stream.name(),
                consumer = driver.name,
                "counting anew: {error}"
            );
            return;
        }
    }
    core.heard();
}

impl Core {
    /// Messages were removed from the stream.
    fn removed(&mut self, removals: &Removals, now: i64) {
        for &seq in &removals.seqs {
            let next = self.consumer.next_seq();
            if seq >= next && self.gone.insert(seq) {
                self.gone_until.push_back((removals.until, seq));
            }
            if seq >= self.news_at && seq < next && self.offered.binary_search(&seq).is_err() {
                self.consumer.passed_over();
            }
            self.consumer.message_deleted(seq, true, now, &mut self.out);
        }
    }

    /// Everything is counted up to here.
    pub(super) fn heard(&mut self) {
        self.news_at = self.consumer.counts_from();
        self.offered.clear();
    }

    /// Forgets removed messages that the log no longer shows.
    pub(super) fn forget_gone(&mut self, landed: u64) {
        while let Some(&(commit, seq)) = self.gone_until.front() {
            if commit > landed {
                break;
            }
            self.gone_until.pop_front();
            self.gone.remove(&seq);
        }
    }
}
