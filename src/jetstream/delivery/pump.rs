//! Delivering what a consumer wants, from the log, a bounded amount a round.

use std::ops::ControlFlow;

use crate::jetstream::consumer::state::{Offered, Want};
use crate::store::{self, RecordRef, Scanned};

use super::driver::{Core, Driver, Listening};
use super::news::stream_news;
use super::round::carry;
use super::sender::{Sender, body_len};

/// Bytes delivered in one round.
const ROUND_BYTES: u64 = 1 << 20;
/// Bytes of messages passed over before the subject index is asked where the next one may be.
const PASSED_OVER_MAX: u64 = 64 << 10;
/// The same for a whole round: others want the consumer, too.
const PASSED_OVER_ROUND: u64 = 8 << 20;

/// How a round's deliveries ended.
pub(super) enum Pumped {
    /// There is more that could be delivered at once.
    More,
    /// Nothing is wanted, or nothing is there.
    Done,
    /// The stream could not be read.
    Failed,
    /// Removed messages have to become invisible first.
    Unsettled,
}

/// See the module documentation.
pub(super) fn pump(driver: &Driver, core: &mut Core, sender: &mut Sender, now: i64) -> Pumped {
    driver.set_hungry(true);
    let landed = driver.stream.visible_commit();
    core.forget_gone(landed);
    if core.unsettled_until > landed {
        return Pumped::Unsettled;
    }
    let mut budget = ROUND_BYTES;
    let mut passed_over_max = PASSED_OVER_MAX;
    let mut passed_over = 0;
    loop {
        // In this order: whatever is durable has been told of before, so that all that is delivered has been counted.
        let durable = driver.stream.log().durable_seq();
        driver.stream.tell();
        stream_news(driver, core, now);
        carry(driver, core, sender, None, now);
        if core.unsettled_until > landed {
            return Pumped::Unsettled;
        }
        let want = core.consumer.want(now, &mut core.out);
        carry(driver, core, sender, None, now);
        let step = match want {
            Want::Nothing => {
                let state = core.consumer.state();
                driver.set_full(state.num_ack_pending > 0 && (state.num_waiting > 0 || state.push_bound));
                driver.set_hungry(false);
                return Pumped::Done;
            }
            Want::Message(seq) => one(driver, core, sender, (seq, durable), &mut budget, now),
            Want::From(seq) => {
                let bounds = (&mut budget, passed_over_max, durable);
                run(driver, core, sender, seq, bounds, now)
            }
        };
        match step {
            Ok(Step::On) if budget > 0 => {}
            Ok(Step::On) => return Pumped::More,
            Ok(Step::Sparse) => {
                passed_over += passed_over_max;
                passed_over_max = passed_over_max.saturating_mul(2).min(PASSED_OVER_ROUND);
                if passed_over >= PASSED_OVER_ROUND {
                    return Pumped::More;
                }
            }
            Ok(Step::CaughtUp) => return Pumped::Done,
            Err(error) => {
                tracing::warn!(
                    stream = driver.stream.name(),
                    consumer = driver.name,
                    "reading on: {error}"
                );
                return Pumped::Failed;
            }
        }
    }
}

enum Step {
    /// Ask again what is wanted.
    On,
    /// Many messages that are not for this consumer lie ahead; the index has told where they end.
    Sparse,
    /// Everything there is was delivered.
    CaughtUp,
}

fn offer(
    driver: &Driver,
    core: &mut Core,
    sender: &mut Sender,
    record: &RecordRef<'_>,
    budget: &mut u64,
    now: i64,
) -> bool {
    let offered = Offered {
        seq: record.seq,
        timestamp: record.time_ns,
        subject_len: record.subject.len(),
        body_len: body_len(record, core.config.headers_only),
    };
    let listening = Listening(&driver.context.router);
    let taken = core.consumer.offer(&offered, now, &listening, &mut core.out);
    carry(driver, core, sender, Some(record), now);
    if taken {
        if core.offered.last().is_none_or(|&last| last < record.seq) {
            core.offered.push(record.seq);
        }
        *budget = budget.saturating_sub(record.stored_len());
    }
    taken
}

/// One message by its sequence: a redelivery, or the last of its subject.
fn one(
    driver: &Driver,
    core: &mut Core,
    sender: &mut Sender,
    (seq, durable): (u64, u64),
    budget: &mut u64,
    now: i64,
) -> Result<Step, store::Error> {
    let log = driver.stream.log();
    let record = match log.get(seq) {
        Ok(record) => record.filter(|_| !core.gone.contains(&seq)),
        // Named and counted by the store; it is not to be had.
        Err(store::Error::DamagedRecord { .. }) => None,
        Err(error) => return Err(error),
    };
    match record {
        Some(record) => {
            offer(driver, core, sender, &record.as_ref(), budget, now);
        }
        // The last of a subject may still be on its way to the disk.
        None if seq > durable => return Ok(Step::CaughtUp),
        None => {
            core.consumer.missing(seq, now, &mut core.out);
            carry(driver, core, sender, None, now);
        }
    }
    Ok(Step::On)
}

/// Messages from a sequence on up to what was durable, as long as they are wanted.
fn run(
    driver: &Driver,
    core: &mut Core,
    sender: &mut Sender,
    from: u64,
    (budget, passed_over_max, durable): (&mut u64, u64, u64),
    now: i64,
) -> Result<Step, store::Error> {
    let log = driver.stream.log();
    core.cursor = core.cursor.max(from);
    let mut ended = false;
    let mut passed_over = 0;
    if core.cursor <= durable {
        let next = log.scan_all(core.cursor, *budget, |scanned| {
            let record = match scanned {
                Scanned::Record(record) => record,
                Scanned::Damaged { .. } => {
                    core.consumer.passed_unread();
                    return ControlFlow::Continue(());
                }
            };
            if record.seq > durable {
                ended = true;
                return ControlFlow::Break(());
            }
            let is_ours = core.takes(record.subject) && !core.gone.contains(&record.seq);
            if !is_ours {
                core.cursor = record.seq + 1;
                passed_over += record.stored_len();
                ended = !core.filters.is_empty() && passed_over > passed_over_max;
                return if ended {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                };
            }
            ended = match core.consumer.want(now, &mut core.out) {
                Want::From(wanted) if wanted <= record.seq => {
                    !offer(driver, core, sender, record, budget, now) || *budget == 0
                }
                _ => true,
            };
            if core.consumer.next_seq() > record.seq {
                core.cursor = record.seq + 1;
            }
            if ended {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if passed_over > passed_over_max {
            match driver.stream.next_bound(&core.filters, core.cursor) {
                Ok(Some(bound)) => {
                    core.cursor = core.cursor.max(bound);
                    return Ok(Step::Sparse);
                }
                // The index does not answer now: go on message by message.
                Err(_) => return Ok(Step::Sparse),
                Ok(None) => {}
            }
        } else if ended || next.is_some() {
            return Ok(Step::On);
        }
        core.cursor = core.cursor.max(durable + 1);
    }
    core.consumer.caught_up(durable, &mut core.out);
    carry(driver, core, sender, None, now);
    Ok(Step::CaughtUp)
}
