//! Push consumers: interest, heartbeats, flow control.
//!
//! Flow control keeps the bytes in flight within a window that starts at 2 MiB and doubles to 32 MiB with
//! each answer. A request goes out when half the window is used; when all of it is, delivery stops until
//! the answer comes. Heartbeats name the request that is not answered, so a client can answer it again.

use bytes::Bytes;

use super::state::Action;
use super::status::Status;

const WINDOW_BYTES_MAX: usize = 32 * 1024 * 1024;
const WINDOW_BYTES_FIRST: usize = WINDOW_BYTES_MAX / 16;

#[derive(Debug)]
pub(super) struct Push {
    /// Where messages go.
    pub to: Bytes,
    /// Whether somebody listens there.
    pub active: bool,
    heartbeat: i64,
    next_heartbeat: i64,
    pub flow: Option<Flow>,
}

#[derive(Debug)]
pub(super) struct Flow {
    /// `$JS.FC.<stream>.<consumer>.`
    prefix: Vec<u8>,
    window: usize,
    in_flight: usize,
    /// The request that waits for its answer, and the bytes it answers for.
    asked: Option<(Bytes, usize)>,
}

impl Push {
    pub fn new(to: &str, active: bool, heartbeat: i64, flow: Option<Flow>, now: i64) -> Push {
        let next_heartbeat = now.saturating_add(heartbeat);
        Push {
            to: Bytes::copy_from_slice(to.as_bytes()),
            active,
            heartbeat,
            next_heartbeat,
            flow,
        }
    }

    /// Whether a message may go out now.
    pub fn is_open(&self) -> bool {
        self.active
            && self
                .flow
                .as_ref()
                .is_none_or(|flow| flow.in_flight <= flow.window)
    }

    /// Accounts for a delivery.
    pub fn delivered(
        &mut self,
        bytes: usize,
        pending_full: bool,
        nonce: u64,
        now: i64,
        out: &mut Vec<Action>,
    ) {
        if self.heartbeat > 0 {
            self.next_heartbeat = now.saturating_add(self.heartbeat);
        }
        let Some(flow) = &mut self.flow else { return };
        flow.in_flight += bytes;
        match &mut flow.asked {
            None if flow.in_flight > flow.window / 2 || pending_full => self.ask(nonce, out),
            Some((_, answered)) if flow.in_flight - *answered >= flow.window => *answered += bytes,
            _ => {}
        }
    }

    /// Sends a flow-control request, unless one is out.
    pub fn ask(&mut self, nonce: u64, out: &mut Vec<Action>) {
        let Some(flow) = &mut self.flow else { return };
        if flow.asked.is_some() {
            return;
        }
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut reply = flow.prefix.clone();
        let mut rest = nonce;
        for _ in 0..4 {
            reply.push(DIGITS[(rest % 62) as usize]);
            rest /= 62;
        }
        let reply = Bytes::from(reply);
        flow.asked = Some((reply.clone(), flow.in_flight));
        out.push(Action::Status {
            to: self.to.clone(),
            reply: Some(reply),
            status: Status::FlowControlRequest,
        });
    }

    /// The answer to a flow-control request; whether it was the one asked last.
    pub fn answered(&mut self, subject: &[u8]) -> bool {
        let Some(flow) = &mut self.flow else { return false };
        let Some((_, bytes)) = flow.asked.take_if(|(asked, _)| *asked == subject) else {
            return false;
        };
        flow.window = (flow.window * 2).min(WINDOW_BYTES_MAX);
        flow.in_flight = flow.in_flight.saturating_sub(bytes);
        true
    }

    /// Sends a heartbeat if it is due; whether it did.
    pub fn tick(&mut self, now: i64, last_consumer: u64, last_stream: u64, out: &mut Vec<Action>) -> bool {
        if self.heartbeat == 0 || now < self.next_heartbeat {
            return false;
        }
        self.next_heartbeat = now.saturating_add(self.heartbeat);
        if self.active {
            let stalled = self.flow.as_ref().and_then(|flow| flow.asked.as_ref());
            let stalled = stalled.map(|(subject, _)| subject.clone());
            let status = Status::IdleHeartbeat {
                last_consumer,
                last_stream,
                stalled,
            };
            out.push(Action::status(self.to.clone(), status));
        }
        self.active
    }

    pub fn next_due(&self) -> Option<i64> {
        (self.heartbeat > 0).then_some(self.next_heartbeat)
    }
}

impl Flow {
    pub fn new(stream: &str, consumer: &str) -> Flow {
        let prefix = format!("$JS.FC.{stream}.{consumer}.").into_bytes();
        Flow {
            prefix,
            window: WINDOW_BYTES_FIRST,
            in_flight: 0,
            asked: None,
        }
    }
}

/// A limit on bytes a second, with a burst. Exact: counts billionths of a byte.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: i128,
    burst: i128,
    available: i128,
    at: i64,
}

const BYTE: i128 = 1_000_000_000;

impl Rate {
    /// `bits` a second; a burst of `burst` bytes, the largest message there can be.
    pub fn new(bits: u64, burst: usize, now: i64) -> Option<Rate> {
        let bytes_per_second = i128::from((bits / 8).max(1));
        let burst = burst.max(1) as i128 * BYTE;
        (bits > 0).then_some(Rate {
            bytes_per_second,
            burst,
            available: burst,
            at: now,
        })
    }

    /// Takes `bytes`, or says when there will be enough.
    pub fn take(&mut self, bytes: usize, now: i64) -> Result<(), i64> {
        let earned = i128::from((now - self.at).max(0)) * self.bytes_per_second;
        self.available = (self.available + earned).min(self.burst);
        self.at = now;
        // A message above the burst would wait for ever.
        let need = (bytes as i128 * BYTE).min(self.burst);
        if self.available >= need {
            self.available -= need;
            return Ok(());
        }
        let wait = (need - self.available + self.bytes_per_second - 1) / self.bytes_per_second;
        Err(now.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(out: &mut Vec<Action>) -> Vec<Bytes> {
        let reply = |action| match action {
            Action::Status {
                reply: Some(reply),
                status: Status::FlowControlRequest,
                ..
            } => Some(reply),
            _ => None,
        };
        out.drain(..).filter_map(reply).collect()
    }

    #[test]
    fn window() {
        let mut push = Push::new("out", true, 0, Some(Flow::new("S", "C")), 0);
        let mut out = Vec::new();
        let chunk = 256 * 1024;
        let mut sent = 0;
        while push.is_open() {
            push.delivered(chunk, false, sent, 0, &mut out);
            sent += 1;
        }
        // 2 MiB: stops with the chunk that passes it, asked once, at more than half.
        assert_eq!(sent, 9);
        let asked = requests(&mut out);
        assert_eq!(asked.len(), 1);
        assert!(asked[0].starts_with(b"$JS.FC.S.C.") && asked[0].len() == 15);
        assert!(!push.answered(b"$JS.FC.S.C.0000"));
        assert!(!push.is_open());
        assert!(push.answered(&asked[0]));
        assert!(push.is_open());
        assert!(!push.answered(&asked[0]), "once only");
        for _ in 0..10 {
            while requests(&mut out).is_empty() {
                push.delivered(chunk, false, 1, 0, &mut out);
            }
            let subject = push.flow.as_ref().unwrap().asked.clone().unwrap().0;
            assert!(push.answered(&subject));
        }
        assert_eq!(push.flow.as_ref().unwrap().window, WINDOW_BYTES_MAX);
    }

    #[test]
    fn heartbeats() {
        let mut push = Push::new("out", true, 100, None, 0);
        let mut out = Vec::new();
        assert!(!push.tick(99, 1, 2, &mut out));
        push.delivered(1, false, 0, 50, &mut out);
        assert!(!push.tick(149, 1, 2, &mut out));
        assert!(push.tick(150, 1, 2, &mut out));
        assert_eq!(push.next_due(), Some(250));
        push.active = false;
        assert!(!push.tick(300, 1, 2, &mut out));
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn rate() {
        let mut rate = Rate::new(8_000, 500, 0).unwrap();
        assert_eq!(rate.take(400, 0), Ok(()));
        let at = rate.take(400, 0).unwrap_err();
        assert_eq!(at, 300_000_000);
        assert!(rate.take(400, at - 1_000).is_err());
        assert_eq!(rate.take(400, at), Ok(()));
        assert_eq!(
            rate.take(10_000, at + 10_000_000_000),
            Ok(()),
            "larger than the burst"
        );
        assert!(Rate::new(0, 500, 0).is_none());
    }
}
