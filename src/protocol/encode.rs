//! What the server says to a client, as bytes: MSG, HMSG, -ERR and the short words.

/// `+OK`.
pub const OK: &[u8] = b"+OK\r\n";
/// `PING`.
pub const PING: &[u8] = b"PING\r\n";
/// `PONG`.
pub const PONG: &[u8] = b"PONG\r\n";

/// One message, borrowed from wherever its bytes lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// The subject shown to the receiver.
    pub subject: &'a [u8],
    /// The reply subject; empty when there is none.
    pub reply: &'a [u8],
    /// The header block with its final empty line; empty when there is none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// Header and payload bytes: what counters and limits count.
    pub fn len(&self) -> usize {
        self.headers.len() + self.payload.len()
    }

    /// Whether there is neither header nor payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes what the control line of a delivery begins with: `MSG <subject> <sid> `. HMSG puts an `H` before it.
pub fn delivery_start(out: &mut Vec<u8>, subject: &[u8], sid: &[u8]) {
    out.extend_from_slice(b"MSG ");
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
}

/// Writes the rest of that line. `headers_len` is zero for MSG; `total` counts headers and payload.
#[inline]
pub fn delivery_end(out: &mut Vec<u8>, reply: &[u8], headers_len: usize, total: usize) {
    if !reply.is_empty() {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if headers_len > 0 {
        decimal(out, headers_len);
        out.push(b' ');
    }
    decimal(out, total);
    out.extend_from_slice(b"\r\n");
}

/// `-ERR 'text'`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

/// Appends `number` in decimal.
pub fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut out = Vec::new();
        for (reply, headers_len, total) in [(&b""[..], 0, 0), (b"r", 0, 1234567890), (b"r", 12, 15)] {
            delivery_start(&mut out, b"a.b", b"7");
            delivery_end(&mut out, reply, headers_len, total);
        }
        error(&mut out, "Invalid Subject");
        let expected =
            "MSG a.b 7 0\r\nMSG a.b 7 r 1234567890\r\nMSG a.b 7 r 12 15\r\n-ERR 'Invalid Subject'\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
