//! Where a new consumer starts in its stream.

use super::config::{ConsumerConfig, DeliverPolicy};

/// What the start needs to know of the stream; the subject index answers all of it.
pub trait StreamIndex {
    /// The lowest sequence there is; 0 when the stream never held a message.
    fn first_seq(&self) -> u64;
    /// The highest sequence ever given.
    fn last_seq(&self) -> u64;
    /// `max_msgs_per_subject`; 0 or less is no limit.
    fn max_msgs_per_subject(&self) -> i64;
    /// The first message stored at or after `unix_nanos`; `last_seq + 1` if there is none.
    fn seq_at_time(&self, unix_nanos: i64) -> u64;
    /// The last message that matches any of `filters` (all messages when empty), or 0.
    fn last_matching(&self, filters: &[&str]) -> u64;
    /// The last message of each subject that matches any of `filters`, ascending.
    fn last_per_subject(&self, filters: &[&str]) -> Vec<u64>;
    /// How many messages at or after `seq` match.
    fn count_from(&self, seq: u64, filters: &[&str]) -> u64;
}

/// Where a consumer starts, and how much there is for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The first sequence it looks at.
    pub next_seq: u64,
    /// `last_per_subject`: what it delivers before going on after `last_seq`.
    pub skip: Vec<u64>,
    /// The stream's last sequence at that moment.
    pub last_seq: u64,
    /// Matching messages it has not delivered.
    pub num_pending: u64,
}

impl Start {
    /// The start of a new consumer.
    pub fn select(config: &ConsumerConfig, stream: &impl StreamIndex) -> Start {
        let filters: Vec<&str> = config.filters().collect();
        let (first, last) = (stream.first_seq(), stream.last_seq());
        let mut skip = Vec::new();
        let mut next_seq = match config.deliver_policy {
            _ if config.opt_start_seq > 0 => config.opt_start_seq,
            DeliverPolicy::All | DeliverPolicy::ByStartSequence => first,
            DeliverPolicy::Last => stream.last_matching(&filters),
            DeliverPolicy::New => last + 1,
            DeliverPolicy::ByStartTime => config
                .opt_start_time
                .map_or(first, |time| stream.seq_at_time(time.unix_nanos())),
            DeliverPolicy::LastPerSubject if stream.max_msgs_per_subject() == 1 => first,
            DeliverPolicy::LastPerSubject => {
                skip = stream.last_per_subject(&filters);
                skip.first().copied().unwrap_or(last + 1)
            }
        };
        if config.opt_start_seq == 0 {
            next_seq = next_seq.min(last + 1);
        }
        next_seq = next_seq.max(first).max(1);
        let num_pending = if skip.is_empty() {
            stream.count_from(next_seq, &filters)
        } else {
            skip.len() as u64
        };
        Start {
            next_seq,
            skip,
            last_seq: last,
            num_pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences 3 to 9; even ones are "even", odd ones "odd".
    struct Tiny {
        first: u64,
        last: u64,
        per_subject: i64,
    }

    impl Tiny {
        fn matching(&self, filters: &[&str]) -> impl DoubleEndedIterator<Item = u64> {
            let wants = |kind| filters.is_empty() || filters.contains(&kind);
            let (even, odd) = (wants("even"), wants("odd"));
            (self.first.max(1)..=self.last).filter(move |seq| if seq % 2 == 0 { even } else { odd })
        }
    }

    impl StreamIndex for Tiny {
        fn first_seq(&self) -> u64 {
            self.first
        }
        fn last_seq(&self) -> u64 {
            self.last
        }
        fn max_msgs_per_subject(&self) -> i64 {
            self.per_subject
        }
        fn seq_at_time(&self, at: i64) -> u64 {
            (at as u64).clamp(self.first, self.last + 1)
        }
        fn last_matching(&self, filters: &[&str]) -> u64 {
            self.matching(filters).next_back().unwrap_or(0)
        }
        fn last_per_subject(&self, filters: &[&str]) -> Vec<u64> {
            let mut last: Vec<u64> = ["even", "odd"]
                .iter()
                .filter(|kind| filters.contains(kind))
                .map(|kind| self.last_matching(&[kind]))
                .filter(|&seq| seq > 0)
                .collect();
            last.sort_unstable();
            last
        }
        fn count_from(&self, from: u64, filters: &[&str]) -> u64 {
            self.matching(filters).filter(|&seq| seq >= from).count() as u64
        }
    }

    #[test]
    fn policies() {
        let full = Tiny {
            first: 3,
            last: 9,
            per_subject: -1,
        };
        let empty = Tiny {
            first: 0,
            last: 0,
            per_subject: -1,
        };
        let purged = Tiny {
            first: 10,
            last: 9,
            per_subject: -1,
        };
        let one = Tiny {
            first: 3,
            last: 9,
            per_subject: 1,
        };
        let all = r#"{}"#;
        for (stream, config, next_seq, skip, num_pending) in [
            (&full, all, 3, vec![], 7),
            (&empty, all, 1, vec![], 0),
            (&purged, all, 10, vec![], 0),
            (&full, r#"{"filter_subject":"even"}"#, 3, vec![], 3),
            (&full, r#"{"deliver_policy":"last"}"#, 9, vec![], 1),
            (
                &full,
                r#"{"deliver_policy":"last","filter_subject":"even"}"#,
                8,
                vec![],
                1,
            ),
            (
                &full,
                r#"{"deliver_policy":"last","filter_subject":"none"}"#,
                3,
                vec![],
                0,
            ),
            (&empty, r#"{"deliver_policy":"last"}"#, 1, vec![], 0),
            (&full, r#"{"deliver_policy":"new"}"#, 10, vec![], 0),
            (&empty, r#"{"deliver_policy":"new"}"#, 1, vec![], 0),
            (
                &full,
                r#"{"deliver_policy":"by_start_sequence","opt_start_seq":5}"#,
                5,
                vec![],
                5,
            ),
            (
                &full,
                r#"{"deliver_policy":"by_start_sequence","opt_start_seq":1}"#,
                3,
                vec![],
                7,
            ),
            (
                &full,
                r#"{"deliver_policy":"by_start_sequence","opt_start_seq":50}"#,
                50,
                vec![],
                0,
            ),
            (
                &full,
                r#"{"deliver_policy":"by_start_time","opt_start_time":"1970-01-01T00:00:00.000000006Z"}"#,
                6,
                vec![],
                4,
            ),
            (
                &full,
                r#"{"deliver_policy":"by_start_time","opt_start_time":"2200-01-01T00:00:00Z"}"#,
                10,
                vec![],
                0,
            ),
            (
                &full,
                r#"{"deliver_policy":"last_per_subject","filter_subjects":["even","odd"]}"#,
                8,
                vec![8, 9],
                2,
            ),
            (
                &full,
                r#"{"deliver_policy":"last_per_subject","filter_subject":"none"}"#,
                10,
                vec![],
                0,
            ),
            (
                &one,
                r#"{"deliver_policy":"last_per_subject","filter_subject":"odd"}"#,
                3,
                vec![],
                4,
            ),
        ] {
            let config_value: ConsumerConfig = serde_json::from_str(config).unwrap();
            let start = Start::select(&config_value, stream);
            let expected = Start {
                next_seq,
                skip,
                last_seq: stream.last,
                num_pending,
            };
            assert_eq!(start, expected, "{config}");
        }
    }
}
