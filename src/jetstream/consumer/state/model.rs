//! The consumer against a model: a list of messages, a map of what is unacked, full scans everywhere.
//!
//! Each case is a configuration and a list of operations. The harness plays the owner: it holds the
//! stream, pumps after each operation, keeps the persisted rows. Whatever the consumer does is checked
//! against what the model allows, and after each pump that nothing the model demands was left undone.

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::jetstream::consumer::ack::Ack;
use crate::jetstream::consumer::duration::MILLISECOND;
use harness::Harness;

struct Everyone;

impl Interest for Everyone {
    fn generation(&self) -> u64 {
        0
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append {
        wanted: bool,
    },
    Delete {
        pick: usize,
    },
    Purge {
        keep: u64,
    },
    Pull {
        batch: i64,
        expires_ms: i64,
        no_wait: bool,
    },
    Ack {
        pick: usize,
    },
    AckAgain {
        pick: usize,
    },
    Nak {
        pick: usize,
        delay_ms: i64,
    },
    Progress {
        pick: usize,
    },
    Term {
        pick: usize,
    },
    Advance {
        ms: i64,
    },
    Pause {
        ms: i64,
    },
    Listen {
        active: bool,
    },
    Lost {
        pick: usize,
    },
    Commit,
    Restart,
    Crash,
    Reset {
        pick: usize,
    },
    MaxAckPending {
        max: i64,
    },
}

#[derive(Clone, Debug)]
struct Unacked {
    deliveries: u64,
    /// When it is late; 0 when it is to be delivered again, `NEVER` if never.
    due: i64,
}

/// What must be true, kept the slow way.
#[derive(Clone, Debug, Default)]
struct Model {
    cursor: u64,
    unacked: BTreeMap<u64, Unacked>,
    done: BTreeSet<u64>,
    exhausted: BTreeMap<u64, u64>,
    floor: u64,
}

#[derive(Clone, Debug)]
struct Case {
    config: ConsumerConfig,
    ops: Vec<Op>,
}

fn ops() -> impl Strategy<Value = Op> {
    let pick = || any::<usize>();
    prop_oneof![
        8 => prop::bool::weighted(0.7).prop_map(|wanted| Op::Append { wanted }),
        1 => pick().prop_map(|pick| Op::Delete { pick }),
        1 => (0u64..12).prop_map(|keep| Op::Purge { keep }),
        6 => (1i64..6, prop_oneof![Just(0i64), 1i64..80], any::<bool>())
            .prop_map(|(batch, expires_ms, no_wait)| Op::Pull { batch, expires_ms, no_wait }),
        6 => pick().prop_map(|pick| Op::Ack { pick }),
        1 => pick().prop_map(|pick| Op::AckAgain { pick }),
        2 => (pick(), 0i64..40).prop_map(|(pick, delay_ms)| Op::Nak { pick, delay_ms: delay_ms.max(20) - 20 }),
        1 => pick().prop_map(|pick| Op::Progress { pick }),
        1 => pick().prop_map(|pick| Op::Term { pick }),
        4 => (0i64..50).prop_map(|ms| Op::Advance { ms }),
        1 => (0i64..40).prop_map(|ms| Op::Pause { ms: ms.max(15) - 15 }),
        1 => prop::bool::weighted(0.7).prop_map(|active| Op::Listen { active }),
        1 => pick().prop_map(|pick| Op::Lost { pick }),
        3 => Just(Op::Commit),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
        1 => pick().prop_map(|pick| Op::Reset { pick }),
        1 => (0i64..6).prop_map(|max| Op::MaxAckPending { max }),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let policy =
        prop_oneof![3 => Just(AckPolicy::Explicit), 1 => Just(AckPolicy::All), 1 => Just(AckPolicy::None)];
    let config = (
        policy,
        any::<bool>(),
        -1i64..4,
        -1i64..6,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(ack_policy, push, max_deliver, max_ack_pending, backoff, dead_letter)| {
                let mut config = ConsumerConfig {
                    ack_policy,
                    ack_wait: 30 * MILLISECOND,
                    max_deliver: if max_deliver == 0 { -1 } else { max_deliver },
                    max_ack_pending,
                    max_waiting: 512,
                    durable_name: "C".to_owned(),
                    ..ConsumerConfig::default()
                };
                if push {
                    config.deliver_subject = "out".to_owned();
                }
                if backoff {
                    config.backoff = vec![10 * MILLISECOND, 25 * MILLISECOND];
                    config.ack_wait = 10 * MILLISECOND;
                }
                if dead_letter {
                    config
                        .metadata
                        .insert("mesh.dead_letter".to_owned(), "dead".to_owned());
                }
                config
            },
        );
    (config, prop::collection::vec(ops(), 1..120)).prop_map(|(config, ops)| Case { config, ops })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn behaves_as_the_model(case in cases()) {
        let mut harness = Harness::new(case.config);
        for op in &case.ops {
            harness.apply(op);
            harness.settle_actions();
            harness.pump();
        }
    }
}
