//! The header block of HPUB and HMSG: `NATS/1.0[ code[ text]]`, `Key: value` lines, an empty line.
//!
//! Read in place, without copying. Keys keep their case; upstream compares them exactly.
//! Source: ADR-4 of the NATS architecture and design records.

/// The first bytes of every header block.
pub const VERSION: &[u8] = b"NATS/1.0";

/// The `key`/`value` lines of a block, in order; malformed lines are passed over.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The first value of `key`.
pub fn get<'a>(block: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    lines(block)
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// The status code of a block such as `NATS/1.0 503`, if it has one.
pub fn status(block: &[u8]) -> Option<u16> {
    let line = block.split(|&byte| byte == b'\r' || byte == b'\n').next()?;
    let rest = line.strip_prefix(VERSION)?.trim_ascii_start();
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// A block with one more line; lines of the same name that it had, whatever the case, are dropped.
pub fn with(block: &[u8], key: &str, value: &str) -> Vec<u8> {
    let mut rest = block.split_inclusive(|&byte| byte == b'\n').peekable();
    let mut made = match rest.next_if(|first| first.starts_with(VERSION)) {
        Some(first) => first.trim_ascii_end().to_vec(),
        None => VERSION.to_vec(),
    };
    made.extend_from_slice(b"\r\n");
    for line in rest.filter(|line| !line.trim_ascii().is_empty()) {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if !name.trim_ascii().eq_ignore_ascii_case(key.as_bytes()) {
            made.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line).trim_ascii_end());
            made.extend_from_slice(b"\r\n");
        }
    }
    made.extend_from_slice(format!("{key}: {value}\r\n\r\n").as_bytes());
    made
}

/// Builds a block: `status` such as `"404 No Messages"` (or empty), then the lines.
pub fn build<'a>(status: &str, lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = VERSION.to_vec();
    if !status.is_empty() {
        block.push(b' ');
        block.extend_from_slice(status.as_bytes());
    }
    block.extend_from_slice(b"\r\n");
    for (key, value) in lines {
        block.extend_from_slice(key.as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    block.extend_from_slice(b"\r\n");
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_builds() {
        let block = build("404 No Messages", [("A", "1"), ("a", "2"), ("A", "3")]);
        assert_eq!(block, b"NATS/1.0 404 No Messages\r\nA: 1\r\na: 2\r\nA: 3\r\n\r\n");
        assert_eq!(status(&block), Some(404));
        assert_eq!(get(&block, b"a"), Some(&b"2"[..]));
        assert_eq!(lines(&block).count(), 3);
        assert_eq!(status(&build("", [])), None);
    }

    #[test]
    fn passes_over_garbage() {
        let block = b"NATS/1.0\r\nno colon\r\nKey:value\r\n\r\n";
        assert_eq!(lines(block).collect::<Vec<_>>(), [(&b"Key"[..], &b"value"[..])]);
        assert_eq!(status(b"NATS/1.0 x"), None);
    }

    #[test]
    fn a_line_is_added_whatever_stood_there() {
        for (block, made) in [
            ("", "NATS/1.0\r\nK: v\r\n\r\n"),
            ("NATS/1.0\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\nK: v\r\n\r\n"),
            ("NATS/1.0 503\r\n\r\n", "NATS/1.0 503\r\nK: v\r\n\r\n"),
            // What stands there under the name is gone, however it is written, and nothing swallows the new line.
            (
                "NATS/1.0\r\nk : x\r\nA: b\r\nK:y\r\n\r\n",
                "NATS/1.0\r\nA: b\r\nK: v\r\n\r\n",
            ),
            ("NATS/1.0\r\nA: b", "NATS/1.0\r\nA: b\r\nK: v\r\n\r\n"),
            ("K: x\r\n", "NATS/1.0\r\nK: v\r\n\r\n"),
            ("NATS/1.0\nA: b\n\n", "NATS/1.0\r\nA: b\r\nK: v\r\n\r\n"),
        ] {
            assert_eq!(with(block.as_bytes(), "K", "v"), made.as_bytes(), "{block:?}");
        }
    }
}
