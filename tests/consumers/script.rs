//! Reading, holding and writing the cases; the format is in the parent's documentation.

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::PATIENCE;

use super::client::Client;

/// In which time everything comes that a step brings, while recording.
const SETTLED: Duration = Duration::from_millis(400);
/// The same for what should not come.
const SURPLUS: Duration = Duration::from_millis(20);

/// Whose answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Nats,
    Ours,
}

struct Step {
    verb: String,
    rest: String,
    nats: Vec<String>,
    ours: Option<Vec<String>>,
}

/// One conversation.
pub struct Case {
    pub name: String,
    why: Option<String>,
    steps: Vec<Step>,
}

/// Reads a file of cases.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: name.to_owned(),
                why: None,
                steps: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "why:" => case.why = Some(rest.to_owned()),
            "<" => case.last().nats.push(rest.to_owned()),
            "=" => {
                let ours = case.last().ours.get_or_insert_default();
                ours.extend((rest != "nothing").then(|| rest.to_owned()));
            }
            _ => case.steps.push(Step {
                verb: verb.to_owned(),
                rest: rest.to_owned(),
                nats: Vec::new(),
                ours: None,
            }),
        }
    }
    cases
}

impl Step {
    /// Whether what comes is shown under it.
    fn gathers(&self) -> bool {
        !matches!(self.verb.as_str(), "make" | "api" | "pub" | "raw" | "sleep")
    }
}

impl Case {
    fn last(&mut self) -> &mut Step {
        self.steps.last_mut().expect("an answer follows a step")
    }

    /// Holds the conversation; what differs from the record.
    pub fn hold(&self, address: &str, who: Who) -> Option<String> {
        let mut client = Client::connect(address);
        let mut out = String::new();
        for step in &self.steps {
            let expected = match (&step.ours, who) {
                (Some(ours), Who::Ours) => {
                    assert!(self.why.is_some(), "{} differs without a why", self.name);
                    ours
                }
                _ => &step.nats,
            };
            let mut got = client.act(&step.verb, &step.rest);
            if step.verb == "quiet" {
                let quiet = Duration::from_millis(step.rest.parse().expect("milliseconds"));
                got.extend(client.gather(quiet, usize::MAX));
            } else {
                let left = expected.len().saturating_sub(got.len());
                got.extend(client.gather(PATIENCE / 2, left));
                if left > 0 {
                    got.extend(client.gather(SURPLUS, usize::MAX));
                }
            }
            if &got != expected {
                writeln!(out, "  {} {}", step.verb, step.rest).unwrap();
                for line in expected {
                    writeln!(out, "    record {line}").unwrap();
                }
                for line in &got {
                    writeln!(out, "    got    {line}").unwrap();
                }
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// The case with the answers of the server there.
    pub fn record(&self, address: &str) -> String {
        let mut client = Client::connect(address);
        let mut answers = Vec::new();
        for step in &self.steps {
            let mut got = client.act(&step.verb, &step.rest);
            let within = match step.verb.as_str() {
                "take" if !step.rest.is_empty() => {
                    Duration::from_millis(step.rest.parse().expect("milliseconds"))
                }
                "quiet" => Duration::from_millis(step.rest.parse().expect("milliseconds")),
                _ => SETTLED,
            };
            if step.gathers() {
                got.extend(client.gather(within, usize::MAX));
            }
            answers.push(got);
        }
        self.written(answers.iter())
    }

    /// The case with the record it has.
    pub fn as_it_was(&self) -> String {
        self.written(self.steps.iter().map(|step| &step.nats))
    }

    fn written<'a>(&self, answers: impl Iterator<Item = &'a Vec<String>>) -> String {
        let mut out = format!("== {}\n", self.name);
        if let Some(why) = &self.why {
            writeln!(out, "why: {why}").unwrap();
        }
        for (step, answer) in self.steps.iter().zip(answers) {
            writeln!(out, "{}", format!("{} {}", step.verb, step.rest).trim_end()).unwrap();
            for line in answer {
                writeln!(out, "< {line}").unwrap();
            }
            for line in step.ours.iter().flatten() {
                writeln!(out, "= {line}").unwrap();
            }
            if step.ours.as_ref().is_some_and(Vec::is_empty) {
                writeln!(out, "= nothing").unwrap();
            }
        }
        out.push('\n');
        out
    }
}
