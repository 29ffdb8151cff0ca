//! Publishers that wait for acks.

use std::cell::RefCell;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use memchr::memmem;

use super::{Job, OUTSTANDING, Stream, together};
use crate::cli::bench::block::{Block, Messages};
use crate::cli::bench::wire::{Conn, Frame, SILENCE};

/// When a publisher goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refill {
    /// As acks come, so that the window is always full.
    Steady,
    /// When the whole window was acknowledged.
    Batch,
    /// After each ack; all publishers on one thread.
    OneByOne,
}

/// Publishes to a stream.
#[derive(Clone, Copy, Debug)]
pub struct Publish {
    pub publishers: u64,
    /// As in [`Messages`]; 0: all to one.
    pub subjects: u64,
    pub refill: Refill,
    pub size: usize,
    pub count: u64,
}

/// What has been acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acks {
    pub count: u64,
    /// Sum of the sequences: with the count it shows that each was given once.
    sum: u64,
}

impl Acks {
    fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let Frame::Message { body, .. } = frame else {
            return Ok(());
        };
        let sequence = sequence(body).ok_or_else(|| {
            io::Error::other(format!("not an ack: {}", String::from_utf8_lossy(body).trim()))
        })?;
        self.count += 1;
        self.sum = self.sum.wrapping_add(sequence);
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The sequence an ack names; none if it names none or zero, as those with an error do.
fn sequence(body: &[u8]) -> Option<u64> {
    let at = memmem::find(body, br#""seq":"#)? + br#""seq":"#.len();
    let digits = body[at..]
        .iter()
        .skip_while(|byte| **byte == b' ')
        .map_while(|byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit <= 9).then_some(u64::from(digit))
        });
    let sequence = digits.fold(0_u64, |value, digit| value.wrapping_mul(10).wrapping_add(digit));
    (sequence > 0).then_some(sequence)
}

impl Publish {
    fn per_publisher(&self) -> u64 {
        (self.count / self.publishers).max(1)
    }

    /// Publishes of all publishers.
    pub fn total(&self) -> u64 {
        self.per_publisher() * self.publishers
    }

    /// Publishes all to an empty stream, and checks that it holds all.
    pub fn measure(&self, stream: &mut Stream, mark: impl FnMut()) -> io::Result<Duration> {
        let acks = Mutex::new(Acks::default());
        let took = together(self.jobs(stream, &acks)?, mark)?;
        self.verify(&acks)?;
        let held = stream.messages()?;
        if held != self.total() {
            return Err(io::Error::other(format!(
                "{} messages were acknowledged, {held} are there",
                self.total()
            )));
        }
        Ok(took)
    }

    /// Publishes all to a stream that holds messages already; every publish is acknowledged with a sequence.
    pub fn again(&self, stream: &Stream) -> io::Result<Duration> {
        together(self.jobs(stream, &Mutex::new(Acks::default()))?, || ())
    }

    /// That the acks are one for each publish and no sequence twice.
    pub fn verify(&self, acks: &Mutex<Acks>) -> io::Result<()> {
        let acks = *acks.lock().unwrap_or_else(PoisonError::into_inner);
        let total = self.total();
        if acks.count != total || acks.sum != (total * (total + 1) / 2) {
            return Err(io::Error::other(format!(
                "{total} publishes were acknowledged {} times or with wrong sequences",
                acks.count
            )));
        }
        Ok(())
    }

    /// The publishers, connected.
    pub fn jobs<'a>(&'a self, stream: &Stream, acks: &'a Mutex<Acks>) -> io::Result<Vec<Job<'a>>> {
        let mut publishers = Vec::new();
        for publisher in 0..self.publishers {
            let inbox = format!("_INBOX.{}", nuid::next());
            let mut conn = Conn::open(&stream.target, usize::MAX)?;
            conn.send(format!("SUB {inbox}.* 1\r\n").as_bytes())?;
            conn.flush()?;
            let block = Block::new(&Messages {
                subject: &if self.subjects > 0 {
                    stream.subject.clone()
                } else {
                    format!("{}.one", stream.subject)
                },
                subjects: self.subjects,
                inbox: Some(&inbox),
                size: self.size,
                publisher: publisher as usize,
                offset: 0,
                stamp_every: 1,
            });
            publishers.push((conn, block));
        }
        let done = move |ended: Acks| {
            acks.lock().unwrap_or_else(PoisonError::into_inner).add(ended);
            Ok(Instant::now())
        };
        if self.refill == Refill::OneByOne {
            return Ok(vec![Box::new(move || done(self.one_by_one(publishers)?))]);
        }
        let job = |(conn, block)| -> Job<'a> { Box::new(move || done(self.windowed(conn, block)?)) };
        Ok(publishers.into_iter().map(job).collect())
    }

    fn windowed(&self, mut conn: Conn, mut block: Block) -> io::Result<Acks> {
        let total = self.per_publisher();
        let mut acks = Acks::default();
        let mut sent = 0;
        while acks.count < total {
            let outstanding = sent - acks.count;
            let room = match self.refill {
                Refill::Batch if outstanding > 0 => 0,
                _ => OUTSTANDING - outstanding,
            };
            let mut room = room.min(total - sent);
            while room > 0 {
                let count = room.min(block.count);
                conn.send(block.fill(sent, count))?;
                sent += count;
                room -= count;
            }
            conn.receive(|frame| acks.frame(&frame))?;
            if acks.count > sent {
                return Err(io::Error::other("more acks came than messages were sent"));
            }
        }
        Ok(acks)
    }

    fn one_by_one(&self, publishers: Vec<(Conn, Block)>) -> io::Result<Acks> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let total = self.per_publisher();
        let buffer = RefCell::new(Vec::new());
        let all = publishers.into_iter().map(|(conn, mut block)| {
            let buffer = &buffer;
            async move {
                let mut conn = conn.into_shared()?;
                let mut acks = Acks::default();
                for sent in 0..total {
                    conn.send(block.fill(sent, 1)).await?;
                    while acks.count <= sent {
                        conn.receive(buffer, |frame| acks.frame(&frame)).await?;
                    }
                }
                io::Result::Ok(acks)
            }
        });
        // A whole run is bounded, not each ack: a timer a message would be measured too.
        let limit = SILENCE + Duration::from_millis(20) * total as u32;
        let ended = runtime.block_on(async { tokio::time::timeout(limit, try_join_all(all)).await })??;
        let mut sum = Acks::default();
        ended.into_iter().for_each(|acks| sum.add(acks));
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_name_a_sequence_or_are_none() {
        let cases = [
            (r#"{"stream":"S","seq":1}"#, Some(1)),
            (r#"{"stream":"S", "seq": 1234567, "domain":"x"}"#, Some(1_234_567)),
            (
                r#"{"error":{"code":503,"err_code":10077,"description":"x"},"stream":"S","seq":0}"#,
                None,
            ),
            (r#"{"error":{"code":400}}"#, None),
            ("", None),
        ];
        for (body, expected) in cases {
            assert_eq!(sequence(body.as_bytes()), expected, "{body}");
        }
    }
}
