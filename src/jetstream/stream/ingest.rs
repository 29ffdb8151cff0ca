//! The way of a published message into a stream: checks in the order of the reference server, then the log, then limits.
//!
//! Refused by the first of: sealed, size, header size, batch, counter, expected stream, TTL not allowed, expected last
//! sequences, schedule, source; answered as duplicate; refused by expected last id, rollup, TTL syntax, full stream.

use crate::jetstream::api::error::{self, ApiError};
use crate::protocol::encode::Message;
use crate::store::{self, RecordRef};

use super::acks::{Acks, store_error};
use super::ask::{Asked, Rollup, Ttl, parse_ttl};
use super::config::{Discard, Retention, SEQ_MAX};
use super::state::State;

/// Bytes of headers a message may have.
const HEADERS_LEN_MAX: usize = (64 << 10) - 1;

/// What became of a message.
enum Taken {
    Stored(u64),
    Duplicate(u64),
}

impl State {
    /// Takes one message in and notes its answer.
    pub fn ingest(&mut self, message: &Message<'_>, now: i64, acks: &mut Acks) {
        match self.take_in(message, now) {
            Ok(Taken::Stored(seq)) => acks.stored(message.reply, seq),
            Ok(Taken::Duplicate(seq)) => acks.duplicate(message.reply, seq),
            Err(error) => acks.refused(message.reply, &error),
        }
    }

    fn take_in(&mut self, message: &Message<'_>, now: i64) -> Result<Taken, ApiError> {
        if self.config.sealed {
            return Err(error::STREAM_SEALED);
        }
        let size_max = self.config.max_msg_size;
        if size_max >= 0 && message.len() as i64 > size_max {
            return Err(error::MESSAGE_TOO_LARGE);
        }
        let bytes = (message.len() + message.subject.len() + store::RECORD_OVERHEAD) as u64;
        if message.headers.is_empty() {
            self.share.ask(self.bytes, bytes)?;
            return self
                .store(message, &Asked::default(), None, now)
                .map(Taken::Stored);
        }
        if message.headers.len() > HEADERS_LEN_MAX {
            return Err(error::HEADERS_TOO_LARGE);
        }
        let asked = Asked::read(message.headers);
        self.check_features(&asked)?;
        self.check_expected(&asked, message.subject)?;
        if asked.schedule.is_some() {
            return Err(error::SCHEDULES_DISABLED);
        }
        if asked.source.is_some() {
            return Err(error::STREAM_SOURCE_NOT_ALLOWED);
        }
        if let Some(id) = asked.msg_id {
            // The clock may be late, a checkpoint older: an id that has left the window is taken again all the same.
            self.forget_ids(now);
            if let Some(seq) = self.dedupe.find(id) {
                return Ok(Taken::Duplicate(seq));
            }
        }
        if let Some(id) = asked.last_msg_id
            && id != self.last_msg_id
        {
            let last = String::from_utf8_lossy(&self.last_msg_id);
            return Err(error::WRONG_LAST_MSG_ID.with(last));
        }
        self.check_rollup(&asked)?;
        self.share.ask(self.bytes, bytes)?;
        let ttl = self.ttl(&asked)?;
        self.store(message, &asked, ttl, now).map(Taken::Stored)
    }

    fn check_features(&self, asked: &Asked<'_>) -> Result<(), ApiError> {
        if asked.batch.is_some() {
            return Err(error::BATCH_DISABLED);
        }
        if asked.increment.is_some() {
            return Err(error::COUNTERS_DISABLED);
        }
        if asked
            .stream
            .is_some_and(|stream| stream != self.config.name.as_bytes())
        {
            return Err(error::EXPECTED_STREAM_MISMATCH);
        }
        match asked.ttl {
            Some(ttl) if !self.config.allow_msg_ttl => {
                let is_ttl = parse_ttl(ttl).is_some();
                Err(if is_ttl {
                    error::TTL_DISABLED
                } else {
                    error::TTL_INVALID
                })
            }
            _ => Ok(()),
        }
    }

    fn check_expected(&mut self, asked: &Asked<'_>, subject: &[u8]) -> Result<(), ApiError> {
        if let Some(expected) = asked.last_subject_seq {
            let filter = asked.last_subject_seq_subject.unwrap_or(subject);
            let last = self
                .last_of(filter)
                .map_err(|error| store_error(&error))?
                .unwrap_or(0);
            if number(expected) != Some(last) {
                return Err(error::WRONG_LAST_SEQUENCE.with(last));
            }
        } else if asked.last_subject_seq_subject.is_some() {
            return Err(error::EXPECTED_LAST_SUBJECT_SEQUENCE_MISSING);
        }
        if let Some(expected) = asked.last_seq
            && number(expected) != Some(self.last_seq)
        {
            return Err(error::WRONG_LAST_SEQUENCE.with(self.last_seq));
        }
        Ok(())
    }

    fn check_rollup(&self, asked: &Asked<'_>) -> Result<(), ApiError> {
        match asked.rollup() {
            None => Ok(()),
            Some(_) if !self.config.allow_rollup_hdrs => {
                Err(error::ROLLUP_FAILED.with("rollup not permitted"))
            }
            Some(Rollup::Unknown(value)) => {
                let value = String::from_utf8_lossy(value);
                Err(error::ROLLUP_FAILED.with(format_args!("rollup value invalid: {value:?}")))
            }
            Some(_) => Ok(()),
        }
    }

    /// The time to live asked for.
    fn ttl(&self, asked: &Asked<'_>) -> Result<Option<Ttl>, ApiError> {
        let Some(value) = asked.ttl else { return Ok(None) };
        let ttl = parse_ttl(value).ok_or(error::TTL_INVALID)?;
        Ok(Some(match ttl {
            Ttl::After(ns) => Ttl::After(ns.max(self.least_ttl())),
            Ttl::Never => Ttl::Never,
        }))
    }

    /// A full stream refuses, unless the message takes the place of others of its subject, and no more room than they
    /// had or there is.
    fn check_room(&self, message: &Message<'_>) -> Result<(), ApiError> {
        let config = &self.config;
        let full = |what| Err(error::STORE_FAILED.with(what));
        let per_subject = config.max_msgs_per_subject;
        let mut replaced = 0;
        if per_subject > 0 {
            let count = self.index.get(message.subject).map_or(0, |state| state.count);
            replaced = (count + 1).saturating_sub(per_subject as u64);
            if replaced > 0 && config.discard_new_per_subject {
                return full("maximum messages per subject exceeded");
            }
        }
        if config.max_msgs > 0 && self.messages >= config.max_msgs as u64 && replaced == 0 {
            return full("maximum messages exceeded");
        }
        let bytes = (message.len() + message.subject.len() + store::RECORD_OVERHEAD) as u64;
        if config.max_bytes > 0 && self.bytes + bytes > config.max_bytes as u64 {
            let freed = self
                .first_bytes(message.subject, replaced)
                .map_err(|error| store_error(&error))?;
            if freed <= bytes && self.bytes.saturating_sub(freed) + bytes > config.max_bytes as u64 {
                return full("maximum bytes exceeded");
            }
        }
        Ok(())
    }

    /// Bytes of the first messages of a subject, on a stream that keeps the sequences of each.
    fn first_bytes(&self, subject: &[u8], messages: u64) -> Result<u64, store::Error> {
        let mut bytes = 0;
        let seqs = self.index.sequences_from(subject, 0).into_iter().flatten();
        for seq in seqs.take(usize::try_from(messages).unwrap_or(usize::MAX)) {
            let on_its_way = self.tail.binary_search_by_key(&seq, |record| record.seq);
            bytes += match on_its_way {
                Ok(at) => self.tail[at].bytes,
                Err(_) => self.log.get(seq)?.map_or(0, |record| record.stored_len()),
            };
        }
        Ok(bytes)
    }

    fn store(
        &mut self,
        message: &Message<'_>,
        asked: &Asked<'_>,
        ttl: Option<Ttl>,
        now: i64,
    ) -> Result<u64, ApiError> {
        if self.last_seq >= SEQ_MAX {
            return Err(error::STORE_FAILED.with("maximum sequence reached"));
        }
        if self.config.discard == Discard::New {
            self.check_room(message)?;
        }
        let lost = |error: store::Error| store_error(&error);
        let is_kept =
            self.config.retention != Retention::Interest || self.audience.is_wanted(message.subject);
        let seq = if !is_kept {
            self.pass_by(message, asked.msg_id, now).map_err(lost)?
        } else {
            self.append(message.subject, message.headers, message.payload, now)
                .map_err(lost)?
        };
        // What went by has no time to live.
        match ttl.filter(|_| is_kept) {
            Some(Ttl::After(ns)) => {
                self.expiries.insert((now.saturating_add(ns), seq));
            }
            Some(Ttl::Never) => {
                self.pinned.insert(seq);
            }
            None => {}
        }
        if let Some(id) = asked.msg_id {
            self.last_id_is(seq, id);
            self.dedupe.insert(id, seq, now);
        }
        // It is in the log: what is removed on its account can no longer refuse it.
        if let Err(error) = self.make_way(message.subject, asked.rollup(), seq) {
            tracing::warn!(stream = self.config.name, "removing what {seq} replaces: {error}");
        }
        Ok(seq)
    }

    /// Nobody wants it: its sequence goes by, and of it only the id is remembered.
    fn pass_by(&mut self, message: &Message<'_>, id: Option<&[u8]>, now: i64) -> Result<u64, store::Error> {
        let record = RecordRef {
            seq: self.last_seq + 1,
            time_ns: now.max(self.last_time),
            subject: message.subject,
            headers: b"",
            payload: b"",
        };
        if self.messages == 0 {
            self.first_seq = record.seq + 1;
            self.skipped = true;
        } else {
            // A gap among messages is durable as a message that is removed with the same commit.
            self.log.append_removed(&record)?;
        }
        (self.last_seq, self.last_time) = (record.seq, record.time_ns);
        self.last_id_is(record.seq, b"");
        self.note_passed(record.seq, now, id);
        self.changes += 1;
        Ok(record.seq)
    }

    /// Removes what a new message replaces.
    fn make_way(&mut self, subject: &[u8], rollup: Option<Rollup<'_>>, seq: u64) -> Result<(), store::Error> {
        match rollup {
            Some(Rollup::All) => {
                self.remove_below(seq)?;
            }
            Some(Rollup::Subject) => {
                self.purge_subject(subject, seq, 0)?;
            }
            _ => {}
        }
        let per_subject = self.config.max_msgs_per_subject;
        if per_subject > 0 {
            self.trim_subject(subject, per_subject as u64)?;
        }
        Ok(())
    }

    /// Limits of the whole stream; the oldest messages give way, unless it is the new ones that do.
    pub fn enforce_limits(&mut self) -> Result<(), store::Error> {
        if self.config.discard == Discard::New {
            return Ok(());
        }
        let over = |limit: i64, value: u64| limit > 0 && value > limit as u64;
        let (messages_max, bytes_max) = (self.config.max_msgs, self.config.max_bytes);
        if over(messages_max, self.messages) || over(bytes_max, self.bytes) {
            self.trim_front(|messages, bytes| over(messages_max, messages) || over(bytes_max, bytes))?;
        }
        Ok(())
    }
}

/// A decimal number without a sign.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::jetstream::stream::audience::Listener;
    use crate::jetstream::stream::config::StreamConfig;
    use crate::store::Log;

    use super::*;

    struct Anyone;

    impl Listener for Anyone {
        fn appended(&self, _: u64, _: u64) {}
        fn removed(&self, _: u64, _: u64) {}
        fn trimmed(&self) {}
        fn durable(&self) {}
        fn needs(&self, _: u64) -> bool {
            true
        }
    }

    /// Commits come at any moment, from other threads: none may hold a message that nobody wants without its removal.
    #[test]
    fn what_goes_by_is_never_there() {
        const MESSAGES: u64 = 20_000;
        let config = StreamConfig {
            retention: Retention::Interest,
            max_msg_size: -1,
            ..StreamConfig::default()
        };
        let log = Log::memory();
        let mut state = State::new(Arc::new(config), log.clone());
        state
            .audience
            .admit("some", vec![b"wanted"[..].into()], Arc::new(Anyone), None);
        let mut publish = |subject: &'static [u8]| {
            let message = Message {
                subject,
                ..Message::default()
            };
            assert!(matches!(state.take_in(&message, 1), Ok(Taken::Stored(_))));
        };
        publish(b"wanted");
        std::thread::scope(|scope| {
            let commits = scope.spawn(|| {
                while log.durable_seq() <= MESSAGES {
                    log.commit(Box::new(|landed| landed.unwrap()));
                    assert_eq!(log.state().messages, 1);
                }
            });
            for _ in 0..MESSAGES {
                publish(b"unwanted");
            }
            commits.join().unwrap();
        });
        assert_eq!((state.messages, state.last_seq), (1, MESSAGES + 1));
    }

    /// Nothing but a publish looks at the window here: the clock of a busy server is late, too.
    #[test]
    fn an_id_is_a_duplicate_to_the_end_of_its_window() {
        let config = StreamConfig {
            duplicate_window: 100,
            max_msg_size: -1,
            ..StreamConfig::default()
        };
        let mut state = State::new(Arc::new(config), Log::memory());
        let mut publish = |id: &str, now| {
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
            let message = Message {
                subject: b"s",
                headers: headers.as_bytes(),
                ..Message::default()
            };
            match state.take_in(&message, now) {
                Ok(Taken::Stored(seq)) => (false, seq),
                Ok(Taken::Duplicate(seq)) => (true, seq),
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(publish("a", 1_000), (false, 1));
        assert_eq!(publish("b", 1_050), (false, 2));
        assert_eq!(publish("a", 1_100), (true, 1));
        assert_eq!(publish("a", 1_101), (false, 3));
        assert_eq!(publish("b", 1_101), (true, 2));
        assert_eq!(publish("a", 1_200), (true, 3));
    }
}
