//! Renaming of subjects: what `{ "orders.*": "shop.$1.orders" }` does to a subject.
//!
//! A destination's tokens are literal, `$n` or `{{wildcard(n)}}` for the n-th wildcard of the source, or one of the functions
//! of nats-server (its documentation, "Subject Mapping and Partitioning"): `partition`, `split`, `splitFromLeft`,
//! `splitFromRight`, `sliceFromLeft`, `sliceFromRight`, `left`, `right`, `random`. A final `>` stands for all that the
//! source's `>` matched. Chance is an argument, so that this room stays pure.

use super::subject;

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Box<[u8]>,
    destination: Box<str>,
    parts: Vec<Part>,
}

/// What makes a token of the new subject, or several. Wildcards of the source are counted from zero.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Wildcard(usize),
    /// All that `>` matched.
    Rest,
    Partition(u32, Vec<usize>),
    Random(u32),
    Split(usize, Box<[u8]>),
    SplitFromLeft(usize, usize),
    SplitFromRight(usize, usize),
    SliceFromLeft(usize, usize),
    SliceFromRight(usize, usize),
    Left(usize, usize),
    Right(usize, usize),
}

impl Transform {
    /// From a pattern to a destination.
    pub fn new(source: &str, destination: &str) -> Result<Self, String> {
        if !subject::is_pattern(source.as_bytes()) {
            return Err(format!("\"{}\" is not a valid subject", source.escape_debug()));
        }
        let invalid = |why: &str| {
            format!(
                "invalid mapping destination \"{}\": {why}",
                destination.escape_debug()
            )
        };
        let wildcards = source.split('.').filter(|token| *token == "*").count();
        let has_rest = source.ends_with('>') && source.split('.').next_back() == Some(">");
        let mut parts = Vec::new();
        let mut rest = false;
        for token in tokens_of(destination) {
            if token.is_empty() || rest {
                return Err(invalid("it is not a valid subject"));
            }
            let part = part(token, wildcards).map_err(|why| invalid(&why))?;
            rest = part == Part::Rest;
            parts.push(part);
        }
        let literal = |part: &Part| match part {
            Part::Literal(text) => subject::is_subject(text),
            _ => true,
        };
        if !parts.iter().all(literal) {
            return Err(invalid("it is not a valid subject"));
        }
        if rest && !has_rest {
            return Err(invalid("it ends with > and its source does not"));
        }
        Ok(Self {
            source: source.as_bytes().into(),
            destination: destination.into(),
            parts,
        })
    }

    /// From a pattern to another one of the same shape, each `*` standing for the one at the same place among them; `$n` is
    /// understood too. Nothing is lost on the way, so that it has an [`Transform::inverse`].
    pub fn between(source: &str, destination: &str) -> Result<Self, String> {
        let mut count = 0;
        let numbered: Vec<_> = destination
            .split('.')
            .map(|token| match token {
                "*" => {
                    count += 1;
                    format!("${count}")
                }
                other => other.to_owned(),
            })
            .collect();
        let transform = Self::new(source, &numbered.join("."))?;
        if transform.inverse().is_none() {
            return Err(format!(
                "\"{}\" and \"{}\" do not have the same wildcards",
                source.escape_debug(),
                destination.escape_debug()
            ));
        }
        Ok(transform)
    }

    /// What it takes.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// What it makes of it, as it was given.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The pattern that all its outcomes match, where it is made of literals and wildcards.
    pub fn outcome(&self) -> Option<String> {
        let token = |part: &Part| match part {
            Part::Literal(text) => String::from_utf8(text.to_vec()).ok(),
            Part::Wildcard(_) => Some("*".to_owned()),
            Part::Rest => Some(">".to_owned()),
            Part::Partition(..) | Part::Random(_) | Part::Left(..) | Part::Right(..) => Some("*".to_owned()),
            // They may make several tokens of one.
            _ => None,
        };
        let tokens: Option<Vec<_>> = self.parts.iter().map(token).collect();
        Some(tokens?.join("."))
    }

    /// The way back; none where something is lost on the way.
    pub fn inverse(&self) -> Option<Self> {
        let outcome = self.outcome()?;
        let order: Vec<_> = self
            .parts
            .iter()
            .filter(|part| !matches!(part, Part::Literal(_) | Part::Rest))
            .map(|part| match part {
                Part::Wildcard(n) => Some(*n),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let mut next = 0;
        let mut tokens = Vec::new();
        for token in subject::tokens(&self.source) {
            tokens.push(match token {
                b"*" => {
                    next += 1;
                    let mut places = (0..order.len()).filter(|&at| order[at] == next - 1);
                    let place = places.next()?;
                    if places.next().is_some() {
                        return None;
                    }
                    format!("${}", place + 1)
                }
                token => String::from_utf8(token.to_vec()).ok()?,
            });
        }
        let keeps_rest = self.source.ends_with(b">") == (self.parts.last() == Some(&Part::Rest));
        (order.len() == next && keeps_rest)
            .then(|| Self::new(&outcome, &tokens.join(".")).ok())
            .flatten()
    }

    /// The new name of a subject; none when it is not one that is renamed. Tokens are taken as they are: a pattern within the
    /// source is renamed as well.
    pub fn map(&self, from: &[u8], random: u32) -> Option<Vec<u8>> {
        if !subject::matches(&self.source, from) {
            return None;
        }
        let mut found = Vec::new();
        let mut rest: &[u8] = &[];
        let mut at = 0;
        for token in subject::tokens(&self.source) {
            if token == b">" {
                rest = &from[at..];
                break;
            }
            let end = memchr::memchr(b'.', &from[at..]).map_or(from.len(), |dot| at + dot);
            if token == b"*" {
                found.push(&from[at..end]);
            }
            at = end + 1;
        }
        let mut to = Vec::with_capacity(from.len() + self.destination.len());
        for part in &self.parts {
            if !to.is_empty() {
                to.push(b'.');
            }
            part.write(&mut to, &found, rest, from, random);
        }
        Some(to)
    }
}

impl Part {
    fn write(&self, to: &mut Vec<u8>, found: &[&[u8]], rest: &[u8], whole: &[u8], random: u32) {
        match self {
            Part::Literal(text) => to.extend_from_slice(text),
            Part::Wildcard(n) => to.extend_from_slice(found[*n]),
            Part::Rest => to.extend_from_slice(rest),
            Part::Partition(buckets, tokens) => {
                let hash = if tokens.is_empty() {
                    fnv1a([whole])
                } else {
                    fnv1a(tokens.iter().map(|&n| found[n]))
                };
                to.extend_from_slice((hash % buckets).to_string().as_bytes());
            }
            Part::Random(buckets) => to.extend_from_slice((random % buckets).to_string().as_bytes()),
            Part::Split(n, delimiter) => split(to, found[*n], delimiter),
            Part::SplitFromLeft(n, at) => halves(to, found[*n], *at),
            Part::SplitFromRight(n, at) => halves(to, found[*n], found[*n].len().saturating_sub(*at)),
            Part::SliceFromLeft(n, size) => slices(to, found[*n], 0, *size),
            Part::SliceFromRight(n, size) => slices(to, found[*n], found[*n].len() % size, *size),
            Part::Left(n, len) => to.extend_from_slice(&found[*n][..found[*n].len().min(*len)]),
            Part::Right(n, len) => {
                let token = found[*n];
                to.extend_from_slice(&token[token.len().saturating_sub(*len)..]);
            }
        }
    }
}

/// FNV-1a, 32 bits: every server has to put the same subject into the same partition.
fn fnv1a<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = pieces.into_iter().flatten();
    bytes.fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The token at each occurrence of the delimiter; empty pieces make no tokens.
fn split(to: &mut Vec<u8>, token: &[u8], delimiter: &[u8]) {
    let mut first = true;
    let mut from = 0;
    let ends = memchr::memmem::find_iter(token, delimiter).chain([token.len()]);
    for end in ends {
        let piece = &token[from.min(end)..end];
        from = end + delimiter.len();
        if piece.is_empty() {
            continue;
        }
        if !std::mem::take(&mut first) {
            to.push(b'.');
        }
        to.extend_from_slice(piece);
    }
}

fn halves(to: &mut Vec<u8>, token: &[u8], at: usize) {
    if at == 0 || at >= token.len() {
        return to.extend_from_slice(token);
    }
    to.extend_from_slice(&token[..at]);
    to.push(b'.');
    to.extend_from_slice(&token[at..]);
}

/// Pieces of `size`, the first one shorter by what does not divide when it comes from the right.
fn slices(to: &mut Vec<u8>, token: &[u8], first: usize, size: usize) {
    let (head, tail) = token.split_at(first);
    to.extend_from_slice(head);
    for (n, piece) in tail.chunks(size).enumerate() {
        if n > 0 || first > 0 {
            to.push(b'.');
        }
        to.extend_from_slice(piece);
    }
}

/// Splits at dots outside of braces: a delimiter may be anything.
fn tokens_of(destination: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < destination.len() {
        let rest = &destination[at..];
        if rest.starts_with("{{") {
            at += rest.find("}}").map_or(rest.len(), |end| end + 2);
        } else if rest.starts_with('.') {
            tokens.push(&destination[from..at]);
            at += 1;
            from = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    tokens.push(&destination[from..]);
    tokens
}

/// Reads one token of a destination.
fn part(token: &str, wildcards: usize) -> Result<Part, String> {
    let index = |text: &str| match text.trim().parse::<usize>() {
        Ok(n) if (1..=wildcards).contains(&n) => Ok(n - 1),
        Ok(n) => Err(format!(
            "wildcard {n} is out of range, its source has {wildcards}"
        )),
        Err(_) => Err(format!(
            "\"{}\" is no wildcard's number",
            text.trim().escape_debug()
        )),
    };
    if token == ">" {
        return Ok(Part::Rest);
    }
    if token == "*" {
        return Err("it holds *: name the source's wildcards with $1, $2".to_owned());
    }
    if let Some(number) = token.strip_prefix('$')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        return index(number).map(Part::Wildcard);
    }
    let Some(call) = token.strip_prefix("{{") else {
        return Ok(Part::Literal(token.as_bytes().into()));
    };
    let unknown = || format!("\"{token}\" is no mapping function");
    let call = call.strip_suffix("}}").ok_or_else(unknown)?;
    let (name, arguments) = call.trim().split_once('(').ok_or_else(unknown)?;
    let arguments = arguments.strip_suffix(')').ok_or_else(unknown)?;
    let name = name.trim().to_ascii_lowercase();
    let arguments: Vec<&str> = match name.as_str() {
        // A delimiter may be a comma.
        "split" => arguments.splitn(2, ',').collect(),
        _ => arguments.split(',').collect(),
    };
    let number = |text: &str| match text.trim().parse::<u32>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!(
            "\"{}\" is no positive number",
            text.trim().escape_debug()
        )),
    };
    let function: fn(usize, usize) -> Part = match (name.as_str(), arguments.as_slice()) {
        ("wildcard", [n]) => return index(n).map(Part::Wildcard),
        ("random", [buckets]) => return number(buckets).map(Part::Random),
        ("partition", [buckets, tokens @ ..]) => {
            let tokens: Result<_, _> = tokens.iter().map(|token| index(token)).collect();
            return Ok(Part::Partition(number(buckets)?, tokens?));
        }
        ("split", [n, delimiter]) => return delimited(index(n)?, delimiter),
        ("splitfromleft", _) => Part::SplitFromLeft,
        ("splitfromright", _) => Part::SplitFromRight,
        ("slicefromleft", _) => Part::SliceFromLeft,
        ("slicefromright", _) => Part::SliceFromRight,
        ("left", _) => Part::Left,
        ("right", _) => Part::Right,
        ("wildcard" | "random" | "partition" | "split", _) => {
            return Err(format!(
                "\"{token}\" has another number of arguments than {name} takes"
            ));
        }
        _ => return Err(unknown()),
    };
    match arguments.as_slice() {
        [n, size] => Ok(function(index(n)?, number(size)? as usize)),
        _ => Err(format!(
            "\"{token}\" has another number of arguments than {name} takes"
        )),
    }
}

fn delimited(n: usize, delimiter: &str) -> Result<Part, String> {
    let delimiter = delimiter.trim();
    if delimiter.is_empty() || delimiter.contains(['.', ' ']) {
        return Err("a delimiter is neither empty nor holds a dot or a blank".to_owned());
    }
    Ok(Part::Split(n, delimiter.as_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(source: &str, destination: &str, from: &str) -> Option<String> {
        let to = Transform::new(source, destination)
            .unwrap()
            .map(from.as_bytes(), 7);
        to.map(|to| String::from_utf8(to).unwrap())
    }

    #[test]
    fn subjects_are_renamed() {
        for (source, destination, from, to) in [
            ("foo", "bar", "foo", Some("bar")),
            ("foo", "bar", "foo.x", None),
            ("foo.*", "bar.$1.x", "foo.a", Some("bar.a.x")),
            ("a.*.*", "b.$2.{{ Wildcard(1) }}", "a.x.y", Some("b.y.x")),
            ("foo.>", "bar.>", "foo.a.b", Some("bar.a.b")),
            ("*.>", "$1.n.>", "foo.a.b", Some("foo.n.a.b")),
            ("foo.*", "p.{{partition(10,1)}}", "foo.a", Some("p.0")),
            ("foo.*", "p.{{random(5)}}.$1", "foo.a", Some("p.2.a")),
            ("*", "{{split(1,-)}}", "-a--b-c-", Some("a.b.c")),
            ("*", "{{splitFromLeft(1,2)}}", "abcde", Some("ab.cde")),
            ("*", "{{splitFromRight(1,2)}}", "abcde", Some("abc.de")),
            ("*", "{{splitFromLeft(1,9)}}", "abcde", Some("abcde")),
            ("*", "{{splitFromRight(1,9)}}", "abcde", Some("abcde")),
            ("*", "{{sliceFromLeft(1,2)}}", "abcde", Some("ab.cd.e")),
            ("*", "{{sliceFromRight(1,2)}}", "abcde", Some("a.bc.de")),
            ("*", "{{sliceFromRight(1,2)}}", "abcd", Some("ab.cd")),
            ("*", "{{left(1,2)}}.x", "abcde", Some("ab.x")),
            ("*", "{{right(1,2)}}", "abcde", Some("de")),
            ("*", "{{right(1,9)}}", "abcde", Some("abcde")),
        ] {
            assert_eq!(
                mapped(source, destination, from).as_deref(),
                to,
                "{source} {destination} {from}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (source, destination) in [
            ("a..b", "x"),
            ("a", ""),
            ("a", "x..y"),
            ("a", "x y"),
            ("a", "$1"),
            ("a.*", "$2"),
            ("a.*", "$0"),
            ("a.*", "x.*"),
            ("a", "x.>"),
            ("a.>", "x.>.y"),
            ("*", "{{nothing(1)}}"),
            ("*", "{{partition(0,1)}}"),
            ("*", "{{partition(3,2)}}"),
            ("*", "{{split(1)}}"),
            ("*", "{{split(1,.)}}"),
            ("*", "{{left(1)}}"),
            ("*", "{{left(1,0)}}"),
            ("*", "{{wildcard(1"),
        ] {
            assert!(
                Transform::new(source, destination).is_err(),
                "{source} {destination}"
            );
        }
    }

    #[test]
    fn what_loses_nothing_has_a_way_back() {
        for (source, destination, from) in [
            ("foo.*.*", "bar.$2.x.$1", "foo.a.b"),
            ("foo.>", "bar.x.>", "foo.a.b"),
            ("foo.*.bar.>", "x.*.>", "foo.a.bar.c.d"),
            ("a", "b", "a"),
        ] {
            let transform = Transform::between(source, destination).unwrap();
            let to = transform.map(from.as_bytes(), 0).unwrap();
            let back = transform.inverse().unwrap().map(&to, 0).unwrap();
            assert_eq!(back, from.as_bytes(), "{source} {destination}");
        }
        for (source, destination) in [
            ("a.*", "b"),
            ("a", "b.*"),
            ("a.>", "b"),
            ("a.*", "b.$1.$1"),
            ("a.*", "b.{{left(1,2)}}"),
        ] {
            assert!(
                Transform::between(source, destination).is_err(),
                "{source} {destination}"
            );
        }
        let patterns = Transform::between("foo.*.>", "bar.*.>").unwrap();
        assert_eq!(patterns.map(b"foo.*.x.>", 0).unwrap(), b"bar.*.x.>");
    }
}
