//! Subjects and patterns: validity, matching, overlap.
//!
//! A subject is non-empty tokens joined by `.`; a pattern may have `*` (one token) and a final `>`
//! (one token or more), each only as a whole token. Case-sensitive; no length limit of its own.
//! Source: the NATS documentation, "Subject-Based Messaging".

/// Whether every token is non-empty and free of blanks; wildcards are ordinary characters here.
pub fn is_well_formed(text: &[u8]) -> bool {
    let mut token_len = 0usize;
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => return false,
            b'.' if token_len == 0 => return false,
            b'.' => token_len = 0,
            _ => token_len += 1,
        }
    }
    token_len > 0
}

/// The tokens of a subject or pattern.
pub fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'.')
}

/// Tokens of a pattern: the router's trie is as deep, and walks it by recursion. More than a control line of the default
/// length can hold.
pub const PATTERN_TOKENS_MAX: usize = 2048;

/// Whether `text` can be subscribed to: tokens are non-empty and not too many, `>` stands last only.
pub fn is_pattern(text: &[u8]) -> bool {
    if !is_well_formed(text) {
        return false;
    }
    let mut rest = tokens(text).peekable();
    let mut count = 0;
    while let Some(token) = rest.next() {
        count += 1;
        if count > PATTERN_TOKENS_MAX || token == b">" && rest.peek().is_some() {
            return false;
        }
    }
    true
}

/// Whether `text` holds a wildcard token.
pub fn has_wildcard(text: &[u8]) -> bool {
    tokens(text).any(|token| token == b"*" || token == b">")
}

/// Whether `text` can be published to: a valid pattern without wildcard tokens.
pub fn is_subject(text: &[u8]) -> bool {
    is_well_formed(text) && !has_wildcard(text)
}

/// Whether `pattern` matches the literal `subject`. Both must be valid.
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut wanted = tokens(pattern);
    let mut given = tokens(subject);
    loop {
        match (wanted.next(), given.next()) {
            (Some(b">"), Some(_)) => return true,
            (Some(b"*"), Some(_)) => {}
            (Some(want), Some(got)) if want == got => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether every subject that `inner` matches is matched by `outer` too.
pub fn is_subset(inner: &[u8], outer: &[u8]) -> bool {
    let mut inner = tokens(inner);
    let mut outer = tokens(outer);
    loop {
        match (outer.next(), inner.next()) {
            (Some(b">"), Some(_)) => return true,
            (Some(b"*"), Some(token)) if token != b">" => {}
            (Some(out), Some(token)) if out == token && token != b">" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both patterns.
pub fn overlap(left: &[u8], right: &[u8]) -> bool {
    let mut left = tokens(left);
    let mut right = tokens(right);
    loop {
        match (left.next(), right.next()) {
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(a), Some(b)) if a == b || a == b"*" || b == b"*" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// The pattern of the subjects that both match; none when there are none.
pub fn intersection(left: &[u8], right: &[u8]) -> Option<Vec<u8>> {
    let mut both: Vec<u8> = Vec::with_capacity(left.len().max(right.len()));
    let mut left = tokens(left);
    let mut right = tokens(right);
    loop {
        let token = match (left.next(), right.next()) {
            (Some(b">"), Some(token)) => return Some(with_rest(both, token, right)),
            (Some(token), Some(b">")) => return Some(with_rest(both, token, left)),
            (Some(b"*"), Some(token)) | (Some(token), Some(b"*")) => token,
            (Some(a), Some(b)) if a == b => a,
            (None, None) => return Some(both),
            _ => return None,
        };
        push_token(&mut both, token);
    }
}

fn push_token(text: &mut Vec<u8>, token: &[u8]) {
    if !text.is_empty() {
        text.push(b'.');
    }
    text.extend_from_slice(token);
}

fn with_rest<'a>(mut text: Vec<u8>, token: &[u8], rest: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    push_token(&mut text, token);
    rest.for_each(|token| push_token(&mut text, token));
    text
}

/// Whether requests to the server itself are made on such subjects. Nobody's answers or deliveries go there: the server would
/// be asked by whoever answers, with rights that the asker may not have.
pub fn is_for_requests(subject: &[u8]) -> bool {
    if subject.starts_with(b"$SYS.REQ.") {
        return true;
    }
    let Some(rest) = subject.strip_prefix(b"$JS.") else {
        return false;
    };
    // With a domain between, or without.
    let after = rest
        .iter()
        .position(|&byte| byte == b'.')
        .map(|dot| &rest[dot + 1..]);
    rest.starts_with(b"API.") || after.is_some_and(|rest| rest.starts_with(b"API."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_for_requests() {
        for yes in [
            "$JS.API.STREAM.DELETE.S",
            "$JS.hub.API.INFO",
            "$SYS.REQ.USER.INFO",
            "$JS.API.",
        ] {
            assert!(is_for_requests(yes.as_bytes()), "{yes}");
        }
        for no in [
            "$JS.API",
            "$JS.a.b.API.x",
            "_INBOX.$JS.API.x",
            "$SYS.REQ",
            "$JS.hub.APIs.x",
        ] {
            assert!(!is_for_requests(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn validity() {
        for good in ["a", "a.b", "$JS.API.>x", "a.*b.c", "é"] {
            assert!(is_subject(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a b", "a\t", "*", ">", "a.>", "a.*.b",
        ] {
            assert!(!is_subject(bad.as_bytes()), "{bad}");
        }
        for good in ["*", ">", "a.>", "*.*.>", "a.*.b", "a>.b"] {
            assert!(is_pattern(good.as_bytes()), "{good}");
        }
        for bad in ["", ">.a", "a.>.b", "a..>", "a. b"] {
            assert!(!is_pattern(bad.as_bytes()), "{bad}");
        }
        for (tokens, expected) in [(PATTERN_TOKENS_MAX, true), (PATTERN_TOKENS_MAX + 1, false)] {
            assert_eq!(is_pattern(vec!["a"; tokens].join(".").as_bytes()), expected);
        }
    }

    #[test]
    fn what_two_patterns_have_in_common() {
        for (left, right, expected) in [
            ("a.b", "a.b", Some("a.b")),
            ("a.*", "*.b", Some("a.b")),
            ("a.>", "*.b.*", Some("a.b.*")),
            (">", "a.*.>", Some("a.*.>")),
            ("a.*", "a.>", Some("a.*")),
            ("a.>", "a", None),
            ("a.b", "a.c", None),
            ("a.*", "a.b.c", None),
        ] {
            for (left, right) in [(left, right), (right, left)] {
                let both = intersection(left.as_bytes(), right.as_bytes());
                assert_eq!(both.as_deref(), expected.map(str::as_bytes), "{left} {right}");
                assert_eq!(both.is_some(), overlap(left.as_bytes(), right.as_bytes()));
            }
        }
    }

    #[test]
    fn matching() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("*.b", "a.b", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), subject.as_bytes()),
                expected,
                "{pattern} {subject}"
            );
        }
    }

    #[test]
    fn sets() {
        for (left, right, overlaps, subset) in [
            ("a.*", "a.b", true, false),
            ("a.b", "a.*", true, true),
            ("a.>", "a.*", true, false),
            ("a.*", "a.>", true, true),
            ("a.b.*", "a.*.c", true, false),
            ("a.b", "a.c", false, false),
            ("a", "a.>", false, false),
            (">", "a.b", true, false),
            ("a.*.>", "a.>", true, true),
        ] {
            assert_eq!(
                overlap(left.as_bytes(), right.as_bytes()),
                overlaps,
                "{left} {right}"
            );
            assert_eq!(
                overlap(right.as_bytes(), left.as_bytes()),
                overlaps,
                "{right} {left}"
            );
            assert_eq!(
                is_subset(left.as_bytes(), right.as_bytes()),
                subset,
                "{left} in {right}"
            );
        }
    }
}
