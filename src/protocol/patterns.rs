//! A set of patterns, asked as one. A question walks the tokens of what is asked about, however many patterns there are;
//! asking each of ten thousand about each other takes a minute.
//!
//! Deliberately absent: removal. All patterns must be valid ones.

use std::collections::HashMap;

use super::subject;

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<[u8]>, Node>,
    star: Option<Box<Node>>,
    /// How many patterns end here with `>`.
    tail: u32,
    /// How many patterns end here.
    here: u32,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Patterns {
    root: Node,
}

/// The first token, and what follows it.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'.', text) {
        Some(dot) => (&text[..dot], Some(&text[dot + 1..])),
        None => (text, None),
    }
}

impl Node {
    /// Whether the literal `rest` is taken.
    fn takes(&self, rest: Option<&[u8]>) -> bool {
        let Some(rest) = rest else {
            return self.here > 0;
        };
        let (token, rest) = split(rest);
        self.tail > 0
            || self.children.get(token).is_some_and(|child| child.takes(rest))
            || self.star.as_ref().is_some_and(|star| star.takes(rest))
    }

    /// Whether all of the pattern `rest` is taken by one that is not itself; `is_same` as long as the way here was its own.
    fn covers(&self, rest: Option<&[u8]>, is_same: bool) -> bool {
        let Some(rest) = rest else {
            return self.here > u32::from(is_same);
        };
        let (token, rest) = split(rest);
        let is_tail = token == b">";
        if self.tail > u32::from(is_same && is_tail) {
            return true;
        }
        let is_star = token == b"*";
        let literal = || self.children.get(token).filter(|_| !is_star);
        let star = || self.star.as_ref();
        !is_tail
            && (star().is_some_and(|star| star.covers(rest, is_same && is_star))
                || literal().is_some_and(|child| child.covers(rest, is_same)))
    }

    /// Whether some subject is taken that the pattern `rest` takes, too.
    fn overlaps(&self, rest: Option<&[u8]>) -> bool {
        let Some(rest) = rest else {
            return self.here > 0;
        };
        let (token, rest) = split(rest);
        if self.tail > 0 {
            return true;
        }
        let mut star = self.star.iter();
        match token {
            b">" => !self.children.is_empty() || self.star.is_some(),
            b"*" => {
                star.any(|star| star.overlaps(rest))
                    || self.children.values().any(|child| child.overlaps(rest))
            }
            _ => {
                star.any(|star| star.overlaps(rest))
                    || self.children.get(token).is_some_and(|child| child.overlaps(rest))
            }
        }
    }
}

impl Patterns {
    /// Adds a pattern.
    pub fn insert(&mut self, pattern: &[u8]) {
        let mut node = &mut self.root;
        for token in subject::tokens(pattern) {
            node = match token {
                b">" => {
                    node.tail += 1;
                    return;
                }
                b"*" => node.star.get_or_insert_default(),
                _ => node.children.entry(token.into()).or_default(),
            };
        }
        node.here += 1;
    }

    /// Whether a pattern takes the literal `to`.
    pub fn takes(&self, to: &[u8]) -> bool {
        self.root.takes(Some(to))
    }

    /// Whether another pattern than `pattern`, which is one of them, takes all that it takes; its double is another.
    pub fn covers(&self, pattern: &[u8]) -> bool {
        self.root.covers(Some(pattern), true)
    }

    /// Whether a pattern takes some subject that `pattern` takes.
    pub fn overlaps(&self, pattern: &[u8]) -> bool {
        self.root.overlaps(Some(pattern))
    }
}

impl<'a> FromIterator<&'a [u8]> for Patterns {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(patterns: I) -> Self {
        let mut all = Self::default();
        patterns.into_iter().for_each(|pattern| all.insert(pattern));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![Just("a"), Just("b"), Just("*")];
        let tail = prop::option::of(Just(">"));
        (prop::collection::vec(token, 0..4), tail).prop_map(|(mut tokens, tail)| {
            tokens.extend(tail);
            if tokens.is_empty() {
                tokens.push("a");
            }
            tokens.join(".")
        })
    }

    proptest! {
        /// As the patterns say one by one.
        #[test]
        fn agrees_with_each(all in prop::collection::vec(pattern(), 0..8), asked in pattern()) {
            let set: Patterns = all.iter().map(String::as_bytes).collect();
            let any = |f: fn(&[u8], &[u8]) -> bool| all.iter().any(|one| f(one.as_bytes(), asked.as_bytes()));
            prop_assert_eq!(set.overlaps(asked.as_bytes()), any(subject::overlap));
            if !subject::has_wildcard(asked.as_bytes()) {
                prop_assert_eq!(set.takes(asked.as_bytes()), any(subject::matches));
            }
            for (at, one) in all.iter().enumerate() {
                let covered = all.iter().enumerate().any(|(other_at, other)| {
                    other_at != at && subject::is_subset(one.as_bytes(), other.as_bytes())
                });
                prop_assert_eq!(set.covers(one.as_bytes()), covered, "{} of {:?}", one, all);
            }
        }
    }
}
