//! N of X: how many instances must answer, or agree, and whether they have, or still can.
//!
//! Pure: answers go in, an outcome comes out; who asks, waits and gives up is in [`ask`](super::ask). An instance has one
//! voice, and its first answer is the one that counts. An answer that does not say who gives it has none: it may well be
//! the second one of somebody who has spoken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

/// Most instances that a quorum can be taken of.
pub const INSTANCES_MAX: usize = 1000;

/// So many of so many instances; at least one, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    needed: usize,
    of: usize,
}

impl Quorum {
    /// `needed` of `of` instances, or what is wrong with that.
    pub fn new(needed: usize, of: usize) -> Result<Self, String> {
        match (needed, of) {
            (_, 0) => Err("of no instance at all there is no quorum".to_owned()),
            (_, of) if of > INSTANCES_MAX => {
                Err(format!("of {INSTANCES_MAX} instances at most, not of {of}"))
            }
            (0, _) => Err("no answer at all is no quorum; at least 1 is needed".to_owned()),
            (needed, of) if needed > of => Err(format!("{needed} of {of} can never answer")),
            (needed, of) => Ok(Self { needed, of }),
        }
    }

    /// How many must answer, or agree.
    pub fn needed(self) -> usize {
        self.needed
    }

    /// How many there are.
    pub fn of(self) -> usize {
        self.of
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.needed, self.of)
    }
}

/// A quorum as people write it: `2/3`, `majority/5`, `all/3`; without a number, of the peers present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Of a number that was given.
    Of(Quorum),
    /// More than half of the peers present.
    MajorityPresent,
    /// Each of the peers present.
    AllPresent,
}

impl Rule {
    /// The quorum it comes to with so many peers present, or why it comes to none.
    pub fn of(self, present: usize) -> Result<Quorum, String> {
        match self {
            Self::Of(quorum) => Ok(quorum),
            Self::MajorityPresent => Quorum::new(majority(present), present),
            Self::AllPresent => Quorum::new(present, present),
        }
    }
}

/// The least number that is more than half.
fn majority(of: usize) -> usize {
    of / 2 + 1
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected N/X as in 2/3, `majority` or `all` of the peers present, or majority/X or all/X, not {text:?}"
            )
        };
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<usize>().map_err(|_| expected()),
            false => Err(expected()),
        };
        let Some((needed, of)) = text.split_once('/') else {
            return match text {
                "majority" => Ok(Self::MajorityPresent),
                "all" => Ok(Self::AllPresent),
                text if number(text).is_ok() => Err(format!("{text} of how many? say {text}/X")),
                _ => Err(expected()),
            };
        };
        let of = number(of)?;
        let needed = match needed {
            "majority" => majority(of),
            "all" => of,
            needed => number(needed)?,
        };
        Quorum::new(needed, of).map(Self::Of)
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Who gives it, if it says so.
    pub instance: Option<String>,
    /// What it says.
    pub body: Bytes,
    /// Whether it says that there is no answer, because something went wrong there.
    pub failed: bool,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    Counted,
    /// It uses up its instance's voice without being an answer.
    Failed,
    /// Its instance has answered before.
    Again,
    /// It does not say who gives it.
    Unsigned,
    /// Its instance is not one of those that are asked.
    Stranger,
    /// All was decided before.
    Late,
}

/// How the counting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many as are needed have answered, or agree.
    Reached,
    /// They say different things, and whoever is left cannot change that.
    Disagreed,
    /// Too many could not answer.
    Failed,
}

/// Instances that say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camp {
    /// Who, in the order they came.
    pub instances: Vec<String>,
    /// What, as the first of them put it.
    pub body: Bytes,
}

/// Counts answers.
#[derive(Debug, Default)]
pub struct Tally {
    quorum: Option<Quorum>,
    /// Whether they must say the same.
    agree: bool,
    /// Who has a voice; everybody if none.
    members: Option<BTreeSet<String>>,
    /// Who has used it.
    voices: HashSet<String>,
    camps: Vec<Camp>,
    /// The place in `camps` of each thing said.
    said: HashMap<Vec<u8>, usize>,
}

impl Tally {
    /// Counts towards a quorum of answers, or of the same answer.
    pub fn new(quorum: Quorum, agree: bool) -> Self {
        Self {
            quorum: Some(quorum),
            agree,
            ..Self::default()
        }
    }

    /// Counts without an aim.
    pub fn open() -> Self {
        Self::default()
    }

    /// Gives a voice to these alone.
    #[must_use]
    pub fn among(mut self, members: BTreeSet<String>) -> Self {
        self.members = Some(members);
        self
    }

    /// What is aimed at.
    pub fn quorum(&self) -> Option<Quorum> {
        self.quorum
    }

    /// Takes an answer and says what it is worth.
    pub fn hear(&mut self, voice: &Voice) -> Heard {
        let Some(instance) = &voice.instance else {
            return Heard::Unsigned;
        };
        if self
            .members
            .as_ref()
            .is_some_and(|members| !members.contains(instance))
        {
            return Heard::Stranger;
        }
        if self.voices.contains(instance) {
            return Heard::Again;
        }
        if self.outcome().is_some() {
            return Heard::Late;
        }
        self.voices.insert(instance.clone());
        if voice.failed {
            return Heard::Failed;
        }
        let camps = &mut self.camps;
        let place = *self.said.entry(sense(&voice.body)).or_insert_with(|| {
            camps.push(Camp {
                instances: Vec::new(),
                body: voice.body.clone(),
            });
            camps.len() - 1
        });
        self.camps[place].instances.push(instance.clone());
        Heard::Counted
    }

    /// How many instances have answered.
    pub fn answered(&self) -> usize {
        self.camps.iter().map(|camp| camp.instances.len()).sum()
    }

    /// How many instances could not answer.
    pub fn failed(&self) -> usize {
        self.voices.len() - self.answered()
    }

    /// Who says what, the largest camp first.
    pub fn camps(&self) -> Vec<&Camp> {
        let mut camps: Vec<_> = self.camps.iter().collect();
        camps.sort_by_key(|camp| std::cmp::Reverse(camp.instances.len()));
        camps
    }

    /// How many count towards the quorum: those who answered, or those who agree.
    pub fn best(&self) -> usize {
        match self.agree {
            false => self.answered(),
            true => self.camps().first().map_or(0, |camp| camp.instances.len()),
        }
    }

    /// Who has a voice and has not used it; known only if those are.
    pub fn missing(&self) -> Option<Vec<&str>> {
        let members = self.members.as_ref()?.iter();
        let silent = members.filter(|member| !self.voices.contains(*member));
        Some(silent.map(String::as_str).collect())
    }

    /// How it ended; nothing while more answers can change it.
    pub fn outcome(&self) -> Option<Outcome> {
        let quorum = self.quorum?;
        let best = self.best();
        if best >= quorum.needed {
            return Some(Outcome::Reached);
        }
        let left = quorum.of.saturating_sub(self.voices.len());
        if best + left >= quorum.needed {
            return None;
        }
        Some(match self.camps.len() {
            // Had all who failed said the same as the largest camp, it would still not do.
            2.. if self.agree && best + left + self.failed() < quorum.needed => Outcome::Disagreed,
            _ => Outcome::Failed,
        })
    }
}

/// What an answer says: two with the same sense are the same answer. JSON counts as the value that it is, whatever the
/// order of keys and the blanks, with its numbers as they are written; all else by its bytes, but for a line end at the end.
fn sense(body: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(body).ok();
    // The whole is read first: that bounds how deep it goes.
    let json = text.filter(|text| serde_json::from_str::<Value>(text).is_ok());
    if let Some(sense) = json.and_then(json_sense) {
        return sense.into_bytes();
    }
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    body.strip_suffix(b"\r").unwrap_or(body).to_vec()
}

/// The one way to write a JSON value: keys in order, no blanks, letters escaped alike. Numbers stay as text: as
/// binary fractions two different ones may look alike.
fn json_sense(text: &str) -> Option<String> {
    let text = text.trim();
    Some(match text.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            let fields = fields.iter().map(|(key, value)| {
                let key = Value::from(key.as_str());
                Some(format!("{key}:{}", json_sense(value.get())?))
            });
            format!("{{{}}}", fields.collect::<Option<Vec<_>>>()?.join(","))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let items = items.iter().map(|item| json_sense(item.get()));
            format!("[{}]", items.collect::<Option<Vec<_>>>()?.join(","))
        }
        b'"' => Value::from(serde_json::from_str::<String>(text).ok()?).to_string(),
        _ => text.to_owned(),
    })
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
