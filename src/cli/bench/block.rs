//! What publishers write and what receivers check it by: blocks of ready-made publishes, in which
//! only stamps, subjects and reply tokens are overwritten from write to write.

use std::io;

use super::wire::Frame;

/// Publishers write blocks of about this size.
const BLOCK_BYTES: usize = 64 * 1024;
/// Sequence (8 bytes), publisher (1), padding.
pub const STAMP_BYTES: usize = 16;
/// In place of the sequence in messages without a stamp.
pub const UNSTAMPED: u64 = u64::MAX;
/// Digits of a message's own token in its subject or reply.
const NUMBER_DIGITS: usize = 6;
const NUMBERS: u64 = 1_000_000;

/// The messages of one publisher.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    pub subject: &'a str,
    /// Each message appends the next of this many tokens to the subject; 0: none.
    pub subjects: u64,
    /// Each message asks for an answer at this inbox and a token of its own.
    pub inbox: Option<&'a str>,
    /// Payload bytes.
    pub size: usize,
    pub publisher: usize,
    /// Where in the subjects this publisher starts.
    pub offset: u64,
    /// One message of this many is stamped. Above one, only whole multiples of it may be filled, but for the last.
    pub stamp_every: u64,
}

/// Publishes of one length each.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    record: usize,
    /// How many it holds.
    pub count: u64,
    subject_at: usize,
    inbox_at: Option<usize>,
    stamp_at: Option<usize>,
    every: u64,
    subjects: u64,
    offset: u64,
}

impl Block {
    /// A block of the size that is good for throughput.
    pub fn new(messages: &Messages<'_>) -> Self {
        let Messages { subject, size, .. } = *messages;
        let token = if messages.subjects > 0 { ".000000" } else { "" };
        let mut head = format!("PUB {subject}{token} ");
        let inbox_at = messages.inbox.map(|inbox| {
            head.push_str(inbox);
            head.push_str(".000000 ");
            head.len() - 1 - NUMBER_DIGITS
        });
        head.push_str(&format!("{size}\r\n"));
        let stamped = size >= STAMP_BYTES;
        let mut record = head.clone().into_bytes();
        record.resize(head.len() + size, b'x');
        if stamped {
            record[head.len()..][..8].copy_from_slice(&UNSTAMPED.to_le_bytes());
            record[head.len() + 8] = messages.publisher as u8;
        }
        record.extend_from_slice(b"\r\n");
        // A whole number of stamps, so that every block is stamped at the same places.
        let every = messages.stamp_every;
        let count = ((BLOCK_BYTES / record.len()) as u64 / every * every).max(every);
        Self {
            bytes: record.repeat(count as usize),
            record: record.len(),
            count,
            subject_at: "PUB ".len() + subject.len() + 1,
            inbox_at,
            stamp_at: stamped.then_some(head.len()),
            every,
            subjects: messages.subjects,
            offset: messages.offset,
        }
    }

    /// The next `count` messages, the first of which has sequence `base`.
    pub fn fill(&mut self, base: u64, count: u64) -> &[u8] {
        if let Some(at) = self.stamp_at {
            for index in (0..count).step_by(self.every as usize) {
                let at = index as usize * self.record + at;
                self.bytes[at..at + 8].copy_from_slice(&(base + index).to_le_bytes());
            }
        }
        if self.subjects > 0 {
            self.number(self.subject_at, count, self.offset + base, self.subjects);
        }
        if let Some(at) = self.inbox_at {
            self.number(at, count, base, NUMBERS);
        }
        &self.bytes[..count as usize * self.record]
    }

    /// Writes the next numbers from `first` at the same place of each message.
    fn number(&mut self, at: usize, count: u64, first: u64, modulus: u64) {
        for (index, record) in self
            .bytes
            .chunks_exact_mut(self.record)
            .take(count as usize)
            .enumerate()
        {
            write_digits(
                &mut record[at..at + NUMBER_DIGITS],
                (first + index as u64) % modulus,
            );
        }
    }
}

/// Writes `number` in decimal over all of `out`.
fn write_digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Counts and checks what one subscriber receives.
#[derive(Debug)]
pub struct Check {
    next: Vec<u64>,
    every: u64,
    some: bool,
    stamped: bool,
    /// Messages seen.
    pub count: u64,
}

impl Check {
    /// For messages of `size` bytes by so many publishers, of which every so-manieth is stamped.
    /// `some`: other receivers get the rest of them, so sequences may skip.
    pub fn new(publishers: u64, stamp_every: u64, size: usize, some: bool) -> Self {
        Self {
            next: vec![0; publishers as usize],
            every: stamp_every,
            some,
            stamped: size >= STAMP_BYTES,
            count: 0,
        }
    }

    /// Counts a frame if it is a message.
    pub fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        match frame {
            Frame::Message { body, .. } => self.message(body),
            Frame::Control(_) => Ok(()),
        }
    }

    /// Counts a message.
    pub fn message(&mut self, body: &[u8]) -> io::Result<()> {
        self.count += 1;
        if !self.stamped {
            return Ok(());
        }
        let Some((Ok(stamp), &publisher)) = body.get(..8).map(<[u8; 8]>::try_from).zip(body.get(8)) else {
            return Err(io::Error::other("a message came shorter than it was sent"));
        };
        let stamp = u64::from_le_bytes(stamp);
        if stamp == UNSTAMPED {
            return Ok(());
        }
        let Some(next) = self.next.get_mut(usize::from(publisher)) else {
            return Err(io::Error::other("a message came damaged"));
        };
        // A member of a queue group sees some of the messages, any other subscriber all of them.
        if stamp < *next || (!self.some && stamp != *next) {
            return Err(io::Error::other(format!(
                "message {stamp} of publisher {publisher} came where {next} was due: lost, doubled or reordered"
            )));
        }
        *next = stamp + self.every;
        Ok(())
    }
}
