//! What a stream derived from its log, as bytes: so that opening it takes time by what changed, not by what is stored.
//!
//! Layout: a version, the id of the last message, then the dedupe window, then what goes by its own time and what is
//! pinned, then the index. Numbers are varints, sequences deltas where they go up. Anything that does not read as
//! expected means the log is replayed instead.
//!
//! The index: subjects that begin alike one after the other, an empty one, then those that have no place among them, and
//! another empty one.

use std::collections::VecDeque;

use super::index::{SubjectIndex, SubjectState};

/// Appends a number, seven bits a byte.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number.
pub(super) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Appends a length and bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a length and bytes.
pub(super) fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take(input)?).ok()?;
    let bytes = input.get(..len)?;
    *input = &input[len..];
    Some(bytes)
}

/// Appends one subject; `sequences` are all of its own where they are kept and more than two.
pub(super) fn put_subject(
    out: &mut Vec<u8>,
    subject: &[u8],
    state: SubjectState,
    sequences: impl Iterator<Item = u64>,
) {
    put_bytes(out, subject);
    put(out, state.first);
    put(out, state.last.saturating_sub(state.first));
    let flags = u64::from(!state.first_exact) | u64::from(!state.last_exact) << 1;
    put(out, state.count << 2 | flags);
    if state.count > 2 {
        let mut last = state.first;
        for seq in sequences {
            put(out, seq - last);
            last = seq;
        }
    }
}

/// Reads an index; none if the bytes are not one, or one of the other kind.
pub(super) fn decode_index(input: &mut &[u8], keep_sequences: bool) -> Option<SubjectIndex> {
    let subjects = take(input)?;
    if take(input)? != u64::from(keep_sequences) {
        return None;
    }
    // A length that lies does not get more than what its bytes could hold.
    let room = usize::try_from(subjects).ok()?.min(input.len() / 4);
    let mut index = SubjectIndex::with_capacity(keep_sequences, room);
    while let Some((subject, state, sequences)) = take_subject(input, keep_sequences)? {
        index.restore(subject, state, sequences);
    }
    if !index.restored() {
        return None;
    }
    while let Some((subject, state, sequences)) = take_subject(input, keep_sequences)? {
        index.restore_anywhere(subject, state, sequences);
    }
    Some(index)
}

type Subject<'a> = (&'a [u8], SubjectState, Option<VecDeque<u64>>);

/// Reads one subject; an empty one ends them.
fn take_subject<'a>(input: &mut &'a [u8], keep_sequences: bool) -> Option<Option<Subject<'a>>> {
    let subject = take_bytes(input)?;
    if subject.is_empty() {
        return Some(None);
    }
    let first = take(input)?;
    let last = first.checked_add(take(input)?)?;
    let counted = take(input)?;
    let state = SubjectState {
        first,
        last,
        count: counted >> 2,
        first_exact: counted & 1 == 0,
        last_exact: counted & 2 == 0,
    };
    if state.count == 0 {
        return None;
    }
    let mut sequences = None;
    if keep_sequences && state.count > 2 {
        let room = usize::try_from(state.count).ok()?.min(input.len());
        let kept = sequences.insert(VecDeque::with_capacity(room));
        let mut seq = first;
        for _ in 0..state.count {
            seq = seq.checked_add(take(input)?)?;
            kept.push_back(seq);
        }
    }
    Some(Some((subject, state, sequences)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn found(index: &SubjectIndex, filter: &str) -> BTreeMap<Vec<u8>, (SubjectState, Vec<u64>)> {
        let mut found = BTreeMap::new();
        index.matching_ids(filter.as_bytes(), |id| {
            let subject = index.subject(id).to_vec();
            assert_eq!(index.id(&subject), Some(id));
            let sequences = index.sequences_of(id, 0).into_iter().flatten().collect();
            let known = (index.state(id), sequences);
            assert!(found.insert(subject, known).is_none());
            true
        });
        found
    }

    proptest! {
        #[test]
        fn an_index_survives(subjects in prop::collection::vec("[a-c.]{1,4}", 0..60), keep in any::<bool>()) {
            let mut index = SubjectIndex::new(keep);
            for (at, subject) in subjects.iter().enumerate() {
                index.insert(subject.as_bytes(), at as u64 * 3 + 1);
                if at % 4 == 3 {
                    index.remove(subjects[at / 2].as_bytes(), (at as u64 / 2) * 3 + 1);
                }
            }
            let bytes = index.encoded();
            let mut input = &bytes[..];
            let mut again = decode_index(&mut input, keep).expect("what was encoded");
            prop_assert!(input.is_empty());
            prop_assert_eq!(&again.encoded(), &bytes);
            prop_assert_eq!(again.len(), index.len());
            prop_assert_eq!(again.messages(), index.messages());
            for filter in [">", "a.>", "*", "*.*", "b.*", "*.c", "a.b", "c"] {
                prop_assert_eq!(found(&again, filter), found(&index, filter));
            }
            prop_assert!(decode_index(&mut &bytes[..], !keep).is_none());
            for cut in 0..bytes.len() {
                prop_assert!(decode_index(&mut &bytes[..cut], keep).is_none());
            }
        }
    }
}
