//! The reply subject of a delivered message, which is where its ack goes (ADR-15).
//!
//! v1, the default, has nine tokens; v2 has eleven or more and names the domain and the account too:
//!
//! ```text
//! $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<unix ns>.<pending>
//! $JS.ACK.<domain or _>.<account hash>.<stream>.<consumer>.<the same five>[.<more>]
//! ```
//!
//! Written for every delivery and read for every ack: no allocation on either way but the caller's buffer.

/// The five numbers of an ack subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckNumbers {
    /// How often the message was delivered, this time included.
    pub deliveries: u64,
    /// Its sequence in the stream.
    pub stream_seq: u64,
    /// The sequence of this delivery.
    pub consumer_seq: u64,
    /// When the stream stored it, unix nanoseconds.
    pub timestamp: i64,
    /// Matching messages still to be delivered after this one.
    pub num_pending: u64,
}

/// An ack subject taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// The stream's name.
    pub stream: &'a [u8],
    /// The consumer's name.
    pub consumer: &'a [u8],
    /// The numbers.
    pub numbers: AckNumbers,
}

impl<'a> AckSubject<'a> {
    /// Reads either version; `None` for anything else.
    pub fn parse(subject: &'a [u8]) -> Option<AckSubject<'a>> {
        let rest = subject.strip_prefix(b"$JS.ACK.")?;
        let dots = memchr::memchr_iter(b'.', rest).count();
        let mut tokens = rest.split(|&byte| byte == b'.');
        match dots {
            6 => {}
            8.. => {
                tokens.next()?;
                tokens.next()?;
            }
            _ => return None,
        }
        let (stream, consumer) = (tokens.next()?, tokens.next()?);
        if stream.is_empty() || consumer.is_empty() {
            return None;
        }
        let mut number = || decimal(tokens.next()?);
        let (deliveries, stream_seq, consumer_seq) = (number()?, number()?, number()?);
        let (timestamp, num_pending) = (i64::try_from(number()?).ok()?, number()?);
        let numbers = AckNumbers {
            deliveries,
            stream_seq,
            consumer_seq,
            timestamp,
            num_pending,
        };
        Some(AckSubject {
            stream,
            consumer,
            numbers,
        })
    }
}

fn decimal(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > 20 {
        return None;
    }
    token.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            None
        } else {
            sum.checked_mul(10)?.checked_add(u64::from(digit))
        }
    })
}

/// The part of a consumer's ack subjects that never changes, up to and with the dot before the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckPrefix(Box<[u8]>);

impl AckPrefix {
    /// The v1 form.
    pub fn new(stream: &str, consumer: &str) -> AckPrefix {
        AckPrefix(format!("$JS.ACK.{stream}.{consumer}.").into_bytes().into())
    }

    /// The v2 form; `None` is no domain.
    pub fn v2(domain: Option<&str>, account_hash: &str, stream: &str, consumer: &str) -> AckPrefix {
        let domain = domain.unwrap_or("_");
        AckPrefix(
            format!("$JS.ACK.{domain}.{account_hash}.{stream}.{consumer}.")
                .into_bytes()
                .into(),
        )
    }

    /// The prefix itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends the subject with these numbers.
    pub fn write(&self, numbers: &AckNumbers, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
        write_decimal(numbers.deliveries, out);
        for number in [
            numbers.stream_seq,
            numbers.consumer_seq,
            numbers.timestamp.max(0).unsigned_abs(),
            numbers.num_pending,
        ] {
            out.push(b'.');
            write_decimal(number, out);
        }
    }

    /// How many bytes [`AckPrefix::write`] appends.
    pub fn len_with(&self, numbers: &AckNumbers) -> usize {
        let digits = |number: u64| number.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.0.len()
            + 4
            + digits(numbers.deliveries)
            + digits(numbers.stream_seq)
            + digits(numbers.consumer_seq)
            + digits(numbers.timestamp.max(0).unsigned_abs())
            + digits(numbers.num_pending)
    }
}

const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut value = 0;
    while value < 100 {
        pairs[value * 2] = b'0' + (value / 10) as u8;
        pairs[value * 2 + 1] = b'0' + (value % 10) as u8;
        value += 1;
    }
    pairs
};

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while number >= 10 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + number as u8;
    } else if digits[at] == b'0' {
        // An odd number of digits ends on a pair with a leading zero.
        at += 1;
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known() {
        let numbers = AckNumbers {
            deliveries: 1,
            stream_seq: 20,
            consumer_seq: 3,
            timestamp: 1_234_567,
            num_pending: 0,
        };
        let cases = [
            (AckPrefix::new("S", "C"), "$JS.ACK.S.C.1.20.3.1234567.0"),
            (
                AckPrefix::v2(None, "Hash", "S", "C"),
                "$JS.ACK._.Hash.S.C.1.20.3.1234567.0",
            ),
            (
                AckPrefix::v2(Some("hub"), "H", "S", "C"),
                "$JS.ACK.hub.H.S.C.1.20.3.1234567.0",
            ),
        ];
        for (prefix, expected) in cases {
            let mut out = Vec::new();
            prefix.write(&numbers, &mut out);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(prefix.len_with(&numbers), out.len());
            let parsed = AckSubject::parse(&out).unwrap();
            assert_eq!(
                (parsed.stream, parsed.consumer, parsed.numbers),
                (&b"S"[..], &b"C"[..], numbers)
            );
        }
        let random = AckSubject::parse(b"$JS.ACK._.H.S.C.1.20.3.1234567.0.rnd").unwrap();
        assert_eq!(random.numbers, numbers);
        for bad in [
            "",
            "$JS.ACK",
            "$JS.ACK.S.C.1.2.3.4",
            "$JS.ACK.S.C.1.2.3.4.5.6",
            "$JS.ACK.S.C.1.2.3.4.x",
            "$JS.ACK.S.C.1.-2.3.4.5",
            "$JS.ACK.S.C.1..3.4.5",
            "$JS.ACK..C.1.2.3.4.5",
            "$JS.FC.S.C.1.2.3.4.5",
            "$JS.ACK.S.C.1.18446744073709551616.3.4.5",
            "$JS.ACK.S.C.1.2.3.18446744073709551615.5",
        ] {
            assert_eq!(AckSubject::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(a: u64, b: u64, c: u64, t in 0..i64::MAX, d: u64, shift in 0u32..64) {
            let numbers = AckNumbers {
                deliveries: a >> shift, stream_seq: b >> shift, consumer_seq: c, timestamp: t >> shift, num_pending: d,
            };
            let prefix = AckPrefix::new("orders", "worker");
            let mut out = Vec::new();
            prefix.write(&numbers, &mut out);
            prop_assert_eq!(out.len(), prefix.len_with(&numbers));
            let text = format!("$JS.ACK.orders.worker.{}.{}.{c}.{}.{d}", a >> shift, b >> shift, t >> shift);
            prop_assert_eq!(&out, text.as_bytes());
            prop_assert_eq!(AckSubject::parse(&out).unwrap().numbers, numbers);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = AckSubject::parse(&bytes);
        }
    }
}
