//! What clients publish, under other names: an account's mappings at work.
//!
//! The first mapping whose source matches decides, literal sources before patterns, narrower ones before wider ones. Of
//! several destinations one is drawn by its weight; when they make less than a hundred, the rest keeps its name, unless the source
//! itself is among them, and then it is dropped.

use std::collections::HashMap;

use crate::protocol::subject;

use super::spec::Mapping;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Mappings {
    literal: HashMap<Box<[u8]>, Mapping>,
    /// Narrower ones first.
    patterns: Vec<Mapping>,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Mapped {
    /// It keeps its name.
    Kept,
    /// It has another one.
    To(Vec<u8>),
    /// It goes nowhere.
    Dropped,
}

impl Mappings {
    /// Those of a configuration; none when there are none.
    pub fn new(mappings: &[Mapping]) -> Option<Self> {
        let mut made = Self::default();
        for mapping in mappings {
            if subject::has_wildcard(mapping.source.as_bytes()) {
                made.patterns.push(mapping.clone());
            } else {
                made.literal
                    .insert(mapping.source.as_bytes().into(), mapping.clone());
            }
        }
        let width = |mapping: &Mapping| {
            let tokens = mapping.source.split('.');
            let kinds: Vec<_> = tokens
                .map(|token| ["*", ">"].iter().position(|wild| *wild == token))
                .collect();
            // A literal token before `*`, `*` before `>`, from the left.
            kinds
                .into_iter()
                .map(|kind| kind.map_or(0, |at| at + 1))
                .collect::<Vec<_>>()
        };
        made.patterns.sort_by_key(width);
        (!mappings.is_empty()).then_some(made)
    }

    /// What becomes of a message on `from`.
    pub fn map(&self, from: &[u8], mut random: impl FnMut() -> u32) -> Mapped {
        let pattern = || {
            let takes = |mapping: &&Mapping| subject::matches(mapping.source.as_bytes(), from);
            self.patterns.iter().find(takes)
        };
        let Some(mapping) = self.literal.get(from).or_else(pattern) else {
            return Mapped::Kept;
        };
        let draw = (random() % 100) as u8;
        let mut upto = 0u8;
        for weighted in &mapping.destinations {
            upto = upto.saturating_add(weighted.percent);
            if draw < upto {
                return match weighted.transform.map(from, random()) {
                    Some(to) if to == from => Mapped::Kept,
                    Some(to) => Mapped::To(to),
                    None => Mapped::Kept,
                };
            }
        }
        let names_itself = mapping
            .destinations
            .iter()
            .any(|weighted| weighted.transform.destination() == mapping.source);
        if names_itself {
            Mapped::Dropped
        } else {
            Mapped::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Weighted;
    use super::*;
    use crate::protocol::transform::Transform;

    fn mapping(source: &str, destinations: &[(&str, u8)]) -> Mapping {
        let weighted = |&(to, percent): &(&str, u8)| Weighted {
            transform: Transform::new(source, to).unwrap(),
            percent,
        };
        Mapping {
            source: source.to_owned(),
            destinations: destinations.iter().map(weighted).collect(),
        }
    }

    #[test]
    fn the_narrowest_source_decides() {
        assert!(Mappings::new(&[]).is_none());
        let mappings = Mappings::new(&[
            mapping("a.>", &[("wide.>", 100)]),
            mapping("a.*", &[("star.$1", 100)]),
            mapping("a.b", &[("literal", 100)]),
            mapping("*.b", &[("first.$1", 100)]),
        ])
        .unwrap();
        for (from, to) in [
            ("a.b", "literal"),
            ("a.c", "star.c"),
            ("a.c.d", "wide.c.d"),
            ("x.b", "first.x"),
        ] {
            assert_eq!(
                mappings.map(from.as_bytes(), || 0),
                Mapped::To(to.into()),
                "{from}"
            );
        }
        assert_eq!(mappings.map(b"b", || 0), Mapped::Kept);
    }

    #[test]
    fn destinations_are_drawn_by_weight() {
        let mappings = Mappings::new(&[
            mapping("a", &[("x", 20), ("y", 30)]),
            mapping("b", &[("b", 50)]),
            mapping("c", &[("c", 40), ("z", 60)]),
        ])
        .unwrap();
        let drawn = |from: &[u8], draw: u32| mappings.map(from, || draw);
        assert_eq!(drawn(b"a", 119), Mapped::To(b"x".to_vec()));
        assert_eq!(drawn(b"a", 120), Mapped::To(b"y".to_vec()));
        assert_eq!((drawn(b"a", 50), drawn(b"a", 99)), (Mapped::Kept, Mapped::Kept));
        assert_eq!(
            (drawn(b"b", 49), drawn(b"b", 50)),
            (Mapped::Kept, Mapped::Dropped)
        );
        assert_eq!(
            (drawn(b"c", 39), drawn(b"c", 40)),
            (Mapped::Kept, Mapped::To(b"z".to_vec()))
        );
    }
}
