//! One round of a consumer: words taken in, time passed, messages delivered, a commit asked for.

use std::time::Duration;

use bytes::Bytes;

use crate::jetstream::api::error::{self, ApiError};
use crate::jetstream::consumer::ack::Ack;
use crate::jetstream::consumer::ack_subject::AckSubject;
use crate::jetstream::consumer::duration::MILLISECOND;
use crate::jetstream::consumer::state::{Action, Persist};
use crate::jetstream::consumer::status::Status;
use crate::jetstream::stream::config::Retention;
use crate::jetstream::time::now_ns;
use crate::protocol::encode::Message;
use crate::protocol::headers;
use crate::protocol::info::API_LEVEL;
use crate::store::RecordRef;

use super::driver::{Core, Driver, Listening, is_listened_to};
use super::news::stream_news;
use super::pump::{Pumped, pump};
use super::sender::Sender;

/// How long acks that nobody waits for may gather before their commit.
const ACKS_GATHER: i64 = 5 * MILLISECOND;
/// The same for deliveries: what a crash forgets of them is delivered again.
const DELIVERIES_GATHER: i64 = 250 * MILLISECOND;
/// How long until a stream that did not answer is asked again.
const RETRY: i64 = 1_000 * MILLISECOND;
/// How long a change waits for acked messages to be removed before it is refused.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// What the task does after a round.
pub(super) enum Next {
    /// Another round: there is more to deliver.
    Again,
    /// Sleep until then, unless woken.
    Sleep(Option<i64>),
    /// The consumer is going.
    Ended,
}

/// See the module documentation.
pub(super) fn round(driver: &Driver, sender: &mut Sender) -> Next {
    let now = now_ns();
    let (pumped, released, deadline) = {
        let mut core = driver.core();
        let core = &mut *core;
        if core.gone_itself {
            return Next::Ended;
        }
        take_words(driver, core, sender, now);
        let pumped = pump(driver, core, sender, now);
        super::dead_letter::send_due(driver, core, sender, now);
        let released = std::mem::take(&mut core.released);
        core.releasing += usize::from(!released.is_empty());
        (pumped, released, core.consumer.next_deadline())
    };
    sender.publisher.flush();
    let left = release(driver, &released);
    let (commit_due, inactive) = {
        let mut core = driver.core();
        core.releasing -= usize::from(!released.is_empty());
        core.released.extend(left);
        let due = commit(driver, &mut core, !released.is_empty(), now);
        let retry = core.dead_letters.next_due();
        ([due, retry].into_iter().flatten().min(), core.inactive)
    };
    if !released.is_empty() {
        driver.released.notify_waiters();
    }
    if inactive {
        driver.retire();
        return Next::Ended;
    }
    let retry = match pumped {
        Pumped::More => return Next::Again,
        Pumped::Done => None,
        Pumped::Failed => Some(now + RETRY),
        Pumped::Unsettled => Some(now + MILLISECOND),
    };
    Next::Sleep([deadline, commit_due, retry].into_iter().flatten().min())
}

/// Everything that was left in the inbox, and what time brings.
fn take_words(driver: &Driver, core: &mut Core, sender: &mut Sender, now: i64) {
    stream_news(driver, core, now);
    let (batches, pulls, landed) = {
        let mut inbox = driver.inbox();
        (
            std::mem::take(&mut inbox.batches),
            std::mem::take(&mut inbox.pulls),
            std::mem::take(&mut inbox.landed),
        )
    };
    driver.emptied();
    if landed {
        core.commit_in_flight = false;
    }
    look_who_listens(driver, core, now);
    if core.consumer.next_deadline().is_some_and(|due| due <= now) {
        let listening = Listening(&driver.context.router);
        core.consumer.tick(now, &listening, &mut core.out);
    }
    // What a restart or news of the stream brought, too.
    carry(driver, core, sender, None, now);
    for batch in &batches {
        for message in batch.iter() {
            word(driver, core, &message, now);
            carry(driver, core, sender, None, now);
        }
        if driver.is_durable {
            core.commit_by(now + ACKS_GATHER);
        }
    }
    for request in pulls.iter() {
        pull(driver, core, &request, now);
        carry(driver, core, sender, None, now);
    }
}

/// Push: whether somebody listens on the deliver subject.
fn look_who_listens(driver: &Driver, core: &mut Core, now: i64) {
    if !core.config.is_push() {
        return;
    }
    let router = &driver.context.router;
    let generation = router.generation();
    if std::mem::replace(&mut core.interest_seen, generation) != generation {
        let active = is_listened_to(router, &core.config);
        core.consumer.interest(active, now);
    }
}

/// An ack, or an answer to something the consumer asked.
fn word(driver: &Driver, core: &mut Core, message: &Message<'_>, now: i64) {
    let listening = Listening(&driver.context.router);
    if let Some(subject) = AckSubject::parse(message.subject) {
        if let Some(ack) = Ack::parse(message.payload) {
            let reply = (!message.reply.is_empty()).then(|| Bytes::copy_from_slice(message.reply));
            core.consumer
                .ack(&subject.numbers, ack, reply, now, &listening, &mut core.out);
        }
    } else if message.subject.starts_with(b"$JS.FC.") {
        let last = headers::get(message.headers, b"Nats-Last-Stream")
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        core.consumer
            .flow_control_answered(message.subject, last, now, &mut core.out);
    } else {
        super::dead_letter::answered(core, message, now);
    }
}

fn pull(driver: &Driver, core: &mut Core, request: &Message<'_>, now: i64) {
    let reply = Bytes::copy_from_slice(request.reply);
    let level = headers::get(request.headers, b"Nats-Required-Api-Level");
    let level_ok = level.is_none_or(|level| {
        let level = std::str::from_utf8(level)
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        level.is_some_and(|level| level <= API_LEVEL)
    });
    if !level_ok {
        core.out.push(Action::Status {
            to: reply,
            reply: None,
            status: Status::RequiredApiLevel,
        });
        return;
    }
    let listening = Listening(&driver.context.router);
    core.consumer
        .pull(request.payload, reply, now, &listening, &mut core.out);
}

/// Does what the state machine asked for. `record` is the message that was just offered.
pub(super) fn carry(
    driver: &Driver,
    core: &mut Core,
    sender: &mut Sender,
    record: Option<&RecordRef<'_>>,
    now: i64,
) {
    if core.out.is_empty() {
        return;
    }
    let mut out = std::mem::take(&mut core.out);
    for action in out.drain(..) {
        match action {
            Action::Deliver(delivery) => {
                let record = record.expect("only what was offered is delivered");
                let headers_only = core.config.headers_only;
                let taken = sender.deliver(&core.consumer, &delivery, record, headers_only);
                if taken == 0 {
                    core.consumer.undelivered(&delivery, now);
                }
            }
            Action::Status { to, reply, status } => sender.status(&to, reply.as_deref(), &status),
            Action::AckReply { to } => core.replies.push(to),
            Action::Acked { seq } => core.released.push(seq),
            Action::DeadLetter {
                seq,
                deliveries,
                reason,
            } => core.dead_letters.add(seq, deliveries, reason),
            Action::Advisory(advisory) => sender.advise(&advisory, now),
            Action::Inactive => core.inactive = true,
        }
    }
    // The buffer goes back; nothing was pushed meanwhile that is lost.
    out.append(&mut core.out);
    core.out = out;
    if driver.is_durable {
        core.commit_by(now + DELIVERIES_GATHER);
    }
}

/// Removes what is done with from a stream that waits for that, unless another consumer has it still to do. Returns what
/// could not be removed now.
fn release<'a>(driver: &Driver, seqs: &'a [u64]) -> &'a [u64] {
    if seqs.is_empty() {
        return seqs;
    }
    let asks = driver.stream.config().retention == Retention::Interest;
    match driver.stream.release(seqs, asks) {
        Ok(_) => &[],
        Err(error) => {
            tracing::warn!(
                stream = driver.stream.name(),
                consumer = driver.name,
                "removing acked messages: {error}"
            );
            seqs
        }
    }
}

/// Asks for a commit when one is due, one at a time; says when to look again.
fn commit(driver: &Driver, core: &mut Core, released: bool, now: i64) -> Option<i64> {
    if released {
        core.has_released = true;
        core.commit_by(now + ACKS_GATHER);
    }
    if !core.released.is_empty() {
        // They could not be removed: before that no ack is written.
        return Some(now + RETRY);
    }
    let urgent = !core.replies.is_empty();
    if !urgent && core.commit_due.is_none_or(|due| due > now) {
        return core.commit_due;
    }
    if core.commit_in_flight {
        // Its landing wakes us.
        return None;
    }
    core.commit_due = None;
    let changed = driver.is_durable && driver.put_state(core);
    let has_released = std::mem::take(&mut core.has_released);
    let replies = std::mem::take(&mut core.replies);
    if !driver.is_durable && !has_released {
        driver.stream.confirm(replies.iter().map(|to| &to[..]));
        return None;
    }
    // Answers wait even if nothing has changed: what they promise may be in a commit that is under way.
    if !changed && !has_released && replies.is_empty() {
        return None;
    }
    core.commit_in_flight = true;
    let me = driver.me.upgrade().expect("a driver is alive while it is called");
    driver
        .stream
        .commit(move |result| me.landed(&replies, result.is_ok()));
    None
}

impl Core {
    /// Whether messages it has done with are still to be removed.
    fn is_releasing(&self) -> bool {
        self.releasing > 0 || !self.released.is_empty()
    }

    /// Lets a commit be made by then.
    pub(super) fn commit_by(&mut self, due: i64) {
        self.commit_due = Some(self.commit_due.map_or(due, |known| known.min(due)));
    }
}

impl Driver {
    /// Puts what has changed of its state into the log, for the next commit.
    pub(super) fn put_state(&self, core: &mut Core) -> bool {
        if core.gone_itself || core.is_releasing() {
            // Its row is not its own any more; or an ack would be written before what it releases has gone.
            return false;
        }
        let log = self.stream.log();
        match core.consumer.persist() {
            None => return false,
            Some(Persist::Base(bytes)) => log.put_consumer_state(&self.name, bytes),
            Some(Persist::Delta { row, bytes }) => log.put_consumer_delta(&self.name, row, bytes),
        }
        true
    }

    /// The same for who confirms it: once what an ack has released is gone, for no commit holds the state before that.
    pub(super) async fn put_state_for_sure(&self) -> Result<(), ApiError> {
        let put = async {
            loop {
                let released = self.released.notified();
                tokio::pin!(released);
                released.as_mut().enable();
                {
                    let mut core = self.core();
                    if !core.is_releasing() {
                        self.put_state(&mut core);
                        return;
                    }
                }
                released.await;
            }
        };
        tokio::select! {
            () = put => Ok(()),
            () = self.stop.cancelled() => Err(error::STORE_FAILED.with("consumer stops")),
            () = tokio::time::sleep(RELEASE_MAX) => {
                Err(error::STORE_FAILED.with("acked messages could not be removed"))
            }
        }
    }

    /// Lets a test be in the middle of a removal.
    #[cfg(test)]
    pub(in crate::jetstream) fn hold_release(&self, holds: bool) {
        let mut core = self.core();
        match holds {
            true => core.releasing += 1,
            false => core.releasing -= 1,
        }
        drop(core);
        self.released.notify_waiters();
    }

    /// A commit has ended: on a thread of the store, or at once.
    fn landed(&self, replies: &[Bytes], ok: bool) {
        if ok {
            self.stream.confirm(replies.iter().map(|to| &to[..]));
        }
        self.inbox().landed = true;
        self.nudge();
    }

    /// Lets the set remove it: it was not used for too long.
    fn retire(&self) {
        let (Some(set), Some(me)) = (self.set.upgrade(), self.me.upgrade()) else {
            return;
        };
        let removal = async move { set.remove(&me).await };
        self.context.tasks.spawn_on(removal, &self.context.runtime);
    }

    /// It has been removed: what was said before is heard, and those who wait are told. Returns whom to confirm once the
    /// removal is durable.
    pub(super) fn take_leave(&self) -> Vec<Bytes> {
        let mut sender = self.sender();
        self.inbox().closed = true;
        let (released, confirmed) = {
            let mut core = self.core();
            let core = &mut *core;
            let now = now_ns();
            take_words(self, core, &mut sender, now);
            core.consumer.delete(&mut core.out);
            carry(self, core, &mut sender, None, now);
            core.gone_itself = true;
            (
                std::mem::take(&mut core.released),
                std::mem::take(&mut core.replies),
            )
        };
        sender.publisher.flush();
        release(self, &released);
        confirmed
    }

    /// Waiting pull requests are told that the server stops.
    pub(super) fn end_pulls(&self) {
        let mut sender = self.sender();
        {
            let mut core = self.core();
            let Core { consumer, out, .. } = &mut *core;
            consumer.shut_down(out);
            carry(self, &mut core, &mut sender, None, now_ns());
        }
        sender.publisher.flush();
    }

    /// The server stops and the task has ended: everything that is known is put into the log.
    pub(super) fn shut_down(&self) {
        let mut sender = self.sender();
        let now = now_ns();
        let released = {
            let mut core = self.core();
            take_words(self, &mut core, &mut sender, now);
            std::mem::take(&mut core.released)
        };
        sender.publisher.flush();
        release(self, &released);
        let mut core = self.core();
        core.commit_in_flight = false;
        core.commit_due = Some(now);
        commit(self, &mut core, !released.is_empty(), now);
    }
}
