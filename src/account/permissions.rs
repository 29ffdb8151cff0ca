//! What a user may publish and subscribe to.
//!
//! Deny wins over allow. A wildcard subscription over a narrower deny is granted; what the deny names is left out at
//! delivery (see [`crate::router::Filter`]). Source: protocol page 2.1 and the answers of nats-server.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::subject;
use crate::router::{Denied, Filter, Responses};

/// A pattern that may be good for one queue group only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Subjects.
    pub pattern: String,
    /// The queue group, itself a pattern; none is any subscription.
    pub queue: Option<String>,
}

impl Rule {
    /// Reads `pattern`, or `pattern queue` where a queue is allowed.
    pub fn parse(text: &str, queue_allowed: bool) -> Result<Self, String> {
        let invalid = |text: &str| format!("subject \"{text}\" is not a valid subject");
        let is_pattern = |text: &str| subject::is_pattern(text.as_bytes());
        if is_pattern(text) {
            let pattern = text.to_owned();
            return Ok(Self { pattern, queue: None });
        }
        let words: Vec<_> = text.split_whitespace().collect();
        let &[pattern, queue] = words.as_slice() else {
            return Err(invalid(text));
        };
        if !queue_allowed {
            return Err(invalid(text));
        }
        if !is_pattern(pattern) {
            return Err(invalid(pattern));
        }
        if !is_pattern(queue) {
            return Err(format!("queue \"{queue}\" is not a valid queue"));
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            queue: Some(queue.to_owned()),
        })
    }
}

/// Subjects that are allowed and denied in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is allowed; none is everything, an empty list nothing.
    pub allow: Option<Vec<Rule>>,
    /// What is not, whatever is allowed.
    pub deny: Vec<Rule>,
}

impl Rules {
    /// Whether they grant everything.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

/// See the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Publishing.
    pub publish: Rules,
    /// Subscribing.
    pub subscribe: Rules,
    /// Whether the replies of received messages may be published to, how often and how long.
    pub responses: Option<Responses>,
}

/// How often a reply may be published to unless something else is said.
pub const RESPONSES_MAX: i64 = 1;
/// How long.
pub const RESPONSES_EXPIRE: Duration = Duration::from_secs(120);

impl Permissions {
    /// Whether they grant everything, so that nothing need be looked at.
    pub fn is_open(&self) -> bool {
        self.publish.is_open() && self.subscribe.is_open() && self.responses.is_none()
    }

    /// Whether a literal subject may be published to, replies apart.
    pub fn may_publish(&self, to: &[u8]) -> bool {
        let names = |rule: &Rule| subject::matches(rule.pattern.as_bytes(), to);
        let allowed = match &self.publish.allow {
            None => true,
            Some(rules) => rules.iter().any(names),
        };
        allowed && !self.publish.deny.iter().any(names)
    }

    /// Whether a pattern may be subscribed to, in a queue group or without.
    ///
    /// As in nats-server: of what is allowed, rules for queues speak before those for all subscriptions where a queue is
    /// given, and `a.>` is denied with `a.*`, though it is more. Not as there: `a.*` does not grant `a.>`.
    pub fn may_subscribe(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        let allowed = match &self.subscribe.allow {
            None => true,
            Some(rules) => subject::is_pattern(pattern) && is_allowed(rules, pattern, queue),
        };
        let denies = |rule: &Rule| {
            let own = rule.queue.as_deref().map(str::as_bytes);
            subject::matches(rule.pattern.as_bytes(), pattern)
                && own.is_none_or(|own| queue.is_some_and(|queue| subject::matches(own, queue)))
        };
        allowed && !self.subscribe.deny.iter().any(denies)
    }

    /// What must be left out at delivery.
    pub fn filter(&self) -> Option<Arc<Filter>> {
        let denied = |rule: &Rule| Denied {
            pattern: rule.pattern.clone().into_bytes(),
            queue: rule.queue.clone().map(String::into_bytes),
        };
        let denied: Vec<_> = self.subscribe.deny.iter().map(denied).collect();
        (!denied.is_empty()).then(|| Arc::new(Filter::new(denied)))
    }
}

/// Whether a subscription is within `rules`.
fn is_allowed(rules: &[Rule], pattern: &[u8], queue: Option<&[u8]>) -> bool {
    let is_within = |pattern: &[u8], rule: &str| subject::is_subset(pattern, rule.as_bytes());
    let on_subject: Vec<_> = rules
        .iter()
        .filter(|rule| is_within(pattern, &rule.pattern))
        .collect();
    let queues: Vec<_> = on_subject
        .iter()
        .filter_map(|rule| rule.queue.as_deref())
        .collect();
    match queue {
        Some(queue) if !queues.is_empty() => queues.iter().any(|rule| is_within(queue, rule)),
        _ => on_subject.iter().any(|rule| rule.queue.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts
            .iter()
            .map(|text| Rule::parse(text, true).unwrap())
            .collect()
    }

    #[test]
    fn rules_are_subjects_and_queues() {
        for good in ["a", "a.*", ">", "a.> q", " a   q.* ", "a.* >"] {
            assert!(Rule::parse(good, true).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("", "subject \"\" is not a valid subject"),
            ("a..b", "subject \"a..b\" is not a valid subject"),
            ("a.>.b q", "subject \"a.>.b\" is not a valid subject"),
            ("a q r", "subject \"a q r\" is not a valid subject"),
            ("a q..r", "queue \"q..r\" is not a valid queue"),
        ] {
            assert_eq!(Rule::parse(bad, true).unwrap_err(), says);
        }
        assert!(Rule::parse("a q", false).is_err());
    }

    #[test]
    fn publishing() {
        let permissions = Permissions {
            publish: Rules {
                allow: Some(rules(&["a.>", "b"])),
                deny: rules(&["a.secret", "a.*.secret"]),
            },
            ..Permissions::default()
        };
        for (to, may) in [
            ("a.b", true),
            ("b", true),
            ("c", false),
            ("a", false),
            ("a.secret", false),
            ("a.b.secret", false),
            ("a.b.c.secret", true),
        ] {
            assert_eq!(permissions.may_publish(to.as_bytes()), may, "{to}");
        }
        assert!(Permissions::default().may_publish(b"anything"));
        assert!(Permissions::default().is_open());
        assert!(!permissions.is_open());
    }

    #[test]
    fn subscribing() {
        let permissions = Permissions {
            subscribe: Rules {
                allow: Some(rules(&["a.*", "q v1.*", "d.>"])),
                deny: rules(&["a.secret", "d.x", "d.x odd", "d.> bad"]),
            },
            ..Permissions::default()
        };
        for (pattern, queue, may) in [
            ("a.b", None, true),
            ("a.*", None, true),
            ("a.>", None, false),
            (">", None, false),
            ("a.secret", None, false),
            ("q", None, false),
            ("q", Some("v1.x"), true),
            ("q", Some("v2"), false),
            ("a.b", Some("any"), true),
            ("d.>", None, true),
            ("d.x", None, false),
            ("d..y", None, false),
            ("d.y", Some("bad"), false),
            ("d.y", Some("good"), true),
            ("d.x", Some("good"), false),
            ("d.x", Some("odd"), false),
        ] {
            let asked = permissions.may_subscribe(pattern.as_bytes(), queue.map(str::as_bytes));
            assert_eq!(asked, may, "{pattern} {queue:?}");
        }
        let filter = permissions.filter().unwrap();
        assert!(filter.leaves_out(b"d.x", None) && !filter.leaves_out(b"d.y", None));
        assert!(filter.leaves_out(b"d.y", Some(b"bad")) && !filter.leaves_out(b"d.y", Some(b"good")));
        assert!(Permissions::default().filter().is_none());
    }
}
