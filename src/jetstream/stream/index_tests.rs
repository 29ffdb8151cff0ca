use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Sequences by subject: what the index stands for.
type Model = BTreeMap<String, Vec<u64>>;

fn subject_of() -> impl Strategy<Value = String> {
    let token = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("c")];
    prop::collection::vec(token, 1..4).prop_map(|tokens| tokens.join("."))
}

fn filter_of() -> impl Strategy<Value = String> {
    let token = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just("ab"), 2 => Just("*")];
    (prop::collection::vec(token, 0..3), any::<bool>()).prop_map(|(mut tokens, tail)| {
        if tail || tokens.is_empty() {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String),
    Remove(usize),
    Ask(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => subject_of().prop_map(Step::Insert),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => filter_of().prop_map(Step::Ask),
    ]
}

fn check(index: &SubjectIndex, model: &Model, filter: &str) {
    let expected: Vec<_> = model
        .iter()
        .filter(|(subject, _)| subject::matches(filter.as_bytes(), subject.as_bytes()))
        .collect();
    let mut seen = Vec::new();
    index.matching(filter.as_bytes(), |subject, state| {
        seen.push((String::from_utf8(subject.to_vec()).unwrap(), state));
        true
    });
    assert_eq!(seen.len(), expected.len(), "{filter}");
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    for ((subject, state), (name, seqs)) in seen.iter().zip(&expected) {
        assert_eq!(subject, *name);
        assert_eq!(state.count, seqs.len() as u64);
        let (first, last) = (seqs[0], seqs[seqs.len() - 1]);
        assert!(if state.first_exact {
            state.first == first
        } else {
            state.first <= first
        });
        assert!(if state.last_exact {
            state.last == last
        } else {
            state.last >= last
        });
        if index.keeps_sequences() {
            assert!(state.first_exact && state.last_exact);
            assert_eq!(
                index
                    .sequences_from(subject.as_bytes(), 0)
                    .unwrap()
                    .collect::<Vec<_>>(),
                **seqs
            );
        }
    }
    let messages: usize = expected.iter().map(|(_, seqs)| seqs.len()).sum();
    assert_eq!(index.count(filter.as_bytes()), messages as u64, "{filter}");
}

proptest! {
    #[test]
    fn agrees_with_lists_of_sequences(steps in prop::collection::vec(step(), 1..150), keep in any::<bool>()) {
        let mut index = SubjectIndex::new(keep);
        let mut model = Model::new();
        let mut next = 1;
        for step in steps {
            match step {
                Step::Insert(subject) => {
                    index.insert(subject.as_bytes(), next);
                    model.entry(subject).or_default().push(next);
                    next += 1;
                }
                Step::Remove(pick) => {
                    let all: Vec<_> = model.iter().flat_map(|(name, seqs)| seqs.iter().map(move |seq| (name.clone(), *seq))).collect();
                    if all.is_empty() {
                        continue;
                    }
                    let (subject, seq) = all[pick % all.len()].clone();
                    prop_assert!(index.remove(subject.as_bytes(), seq));
                    let seqs = model.get_mut(&subject).unwrap();
                    seqs.retain(|kept| *kept != seq);
                    if seqs.is_empty() {
                        model.remove(&subject);
                    }
                }
                Step::Ask(filter) => check(&index, &model, &filter),
            }
            prop_assert_eq!(index.len(), model.len());
        }
        check(&index, &model, ">");
    }
}

#[test]
fn many_subjects_come_and_go() {
    let mut index = SubjectIndex::new(false);
    for n in 0..5000u64 {
        index.insert(format!("s.{}", n * 7919 % 5000).as_bytes(), n + 1);
    }
    assert_eq!(index.count(b"s.>"), 5000);
    assert_eq!(index.count(b"s.1*"), 0);
    assert_eq!(index.count(b"*.42"), 1);
    for n in (0..5000u64).filter(|n| n % 5 != 0) {
        assert!(index.remove(format!("s.{}", n * 7919 % 5000).as_bytes(), n + 1));
    }
    assert_eq!((index.len(), index.messages()), (1000, 1000));
}

/// Figures for people: `MESH_TEST_SUBJECTS=1000000 cargo test --release index_figures -- --nocapture`.
#[test]
fn index_figures() {
    let subjects = std::env::var("MESH_TEST_SUBJECTS").map_or(10_000, |count| count.parse().unwrap());
    let subjects: Vec<_> = (0..subjects)
        .map(|n: u64| format!("orders.{}.new", n * 7919 % 1_000_003).into_bytes())
        .collect();
    let mut index = SubjectIndex::new(false);
    let start = std::time::Instant::now();
    for (n, subject) in subjects.iter().enumerate() {
        index.insert(subject, n as u64 + 1);
    }
    println!("new subjects: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for (n, subject) in subjects.iter().enumerate() {
        index.insert(subject, (subjects.len() + n) as u64 + 1);
    }
    println!("known subjects: {:?}", start.elapsed());
    assert_eq!(
        (index.len(), index.messages()),
        (subjects.len(), 2 * subjects.len() as u64)
    );
    let text: usize = subjects.iter().map(Vec::len).sum();
    println!(
        "bytes a subject beside its text: {}",
        (index.weight() - text) / subjects.len()
    );
    for filter in [
        "orders.>",
        "orders.*.new",
        "orders.77*",
        "*.77.new",
        "orders.77.new",
        "orders.77.*",
    ] {
        let start = std::time::Instant::now();
        let count = index.count(filter.as_bytes());
        println!("{filter}: {count} in {:?}", start.elapsed());
    }
    let start = std::time::Instant::now();
    let bytes = index.encoded();
    println!("encoded {} bytes in {:?}", bytes.len(), start.elapsed());
    let start = std::time::Instant::now();
    let again = super::super::checkpoint::decode_index(&mut &bytes[..], false).unwrap();
    println!("decoded {} subjects in {:?}", again.len(), start.elapsed());
    assert_eq!((again.len(), again.messages()), (index.len(), index.messages()));
    for filter in [
        "orders.77.new",
        "orders.*.new",
        "orders.77.*",
        "*.78.>",
        "nothing.>",
    ] {
        let filter = filter.as_bytes();
        assert_eq!(again.count(filter), index.count(filter));
    }
}
