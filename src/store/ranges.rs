//! A set of sequences kept as merged ranges.

use std::collections::BTreeMap;

/// Start of a range -> its end, both inclusive; ranges neither overlap nor touch.
#[derive(Debug, Default, Clone)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// The range that holds `seq`.
    pub fn covering(&self, seq: u64) -> Option<(u64, u64)> {
        let (&a, &b) = self.0.range(..=seq).next_back()?;
        (seq <= b).then_some((a, b))
    }

    /// Where the first range above `seq` starts.
    pub fn next_start(&self, seq: u64) -> Option<u64> {
        self.0.range(seq..).next().map(|(&a, _)| a)
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.covering(seq).is_some()
    }

    pub fn insert(&mut self, mut a: u64, mut b: u64) {
        debug_assert!(a <= b);
        while let Some((&start, &end)) = self.0.range(..=b.saturating_add(1)).next_back() {
            if end.saturating_add(1) < a {
                break;
            }
            (a, b) = (a.min(start), b.max(end));
            self.0.remove(&start);
        }
        self.0.insert(a, b);
    }

    pub fn remove(&mut self, a: u64, b: u64) {
        while let Some((&start, &end)) = self.0.range(..=b).next_back() {
            if end < a {
                break;
            }
            self.0.remove(&start);
            if end > b {
                self.0.insert(b + 1, end);
            }
            if start < a {
                self.0.insert(start, a - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RangeSet;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..8), 0..60)) {
            let (mut ranges, mut plain) = (RangeSet::default(), BTreeSet::new());
            for (add, a, n) in ops {
                if add {
                    ranges.insert(a, a + n);
                    plain.extend(a..=a + n);
                } else {
                    ranges.remove(a, a + n);
                    plain.retain(|s| !(a..=a + n).contains(s));
                }
                for s in 0..70 {
                    prop_assert_eq!(ranges.contains(s), plain.contains(&s));
                }
                let flat: Vec<_> = ranges.0.iter().map(|(&a, &b)| (a, b)).collect();
                prop_assert!(flat.windows(2).all(|w| w[0].1 + 1 < w[1].0), "not merged: {:?}", flat);
            }
        }
    }
}
