//! What a token's subjects permit, templates of a role filled in.

use std::sync::Arc;
use std::time::Duration;

use crate::account::permissions::{Permissions, RESPONSES_EXPIRE, RESPONSES_MAX, Rule, Rules};
use crate::protocol::subject;
use crate::router::Responses;

use super::claims::{Grants, PermissionsClaim, ResponsesClaim, RulesClaim, UserClaims};
use super::token::short;

/// Subjects that one template may stand for.
const FILLED_MAX: usize = 1000;

/// Of whom the templates of a role speak.
pub(super) struct Subject<'a> {
    pub user: &'a UserClaims,
    pub account_name: &'a str,
    pub account_tags: &'a [String],
}

impl Subject<'_> {
    /// The rights of a role for this user.
    pub fn fill(&self, template: &Grants) -> Result<Grants, String> {
        let mut grants = template.clone();
        for rules in [&mut grants.publish, &mut grants.subscribe] {
            if let Some(allow) = &mut rules.allow {
                let was_empty = allow.is_empty();
                self.fill_list(allow, false)?;
                // What comes to nothing is not leave for everything.
                if allow.is_empty() && !was_empty {
                    rules.deny.get_or_insert_default().push(">".to_owned());
                }
            }
            if let Some(deny) = &mut rules.deny {
                self.fill_list(deny, true)?;
            }
        }
        Ok(grants)
    }

    /// Templates of a list replaced by what they stand for. One that stands for no subject is left out, but not from a
    /// list of what is denied.
    fn fill_list(&self, list: &mut Vec<String>, all_needed: bool) -> Result<(), String> {
        let mut filled = Vec::new();
        for text in list.iter() {
            if !text.split('.').any(is_template) {
                filled.push(text.clone());
                continue;
            }
            let subjects = self.fill_text(text)?;
            let count = subjects.len();
            let good = subjects
                .into_iter()
                .filter(|text| subject::is_pattern(text.as_bytes()));
            let before = filled.len();
            filled.extend(good);
            if all_needed && (count == 0 || filled.len() - before < count) {
                return Err(format!("its role denies \"{text}\", which is no subject for it"));
            }
        }
        *list = filled;
        Ok(())
    }

    /// All that a text stands for: each combination of the values of its tags.
    fn fill_text(&self, text: &str) -> Result<Vec<String>, String> {
        let mut filled = vec![String::new()];
        for (at, token) in text.split('.').enumerate() {
            let values = if is_template(token) {
                self.values(token)
            } else {
                vec![token.to_owned()]
            };
            if filled.len() * values.len() > FILLED_MAX {
                return Err(format!(
                    "its role's \"{text}\" stands for more than {FILLED_MAX} subjects"
                ));
            }
            let dot = if at == 0 { "" } else { "." };
            filled = filled
                .iter()
                .flat_map(|start| values.iter().map(move |value| format!("{start}{dot}{value}")))
                .collect();
        }
        Ok(filled)
    }

    fn values(&self, token: &str) -> Vec<String> {
        let operation = token[2..token.len() - 2].to_ascii_lowercase();
        let of_tags = |tags: &[String], name: &str| {
            let prefix = format!("{name}:");
            tags.iter()
                .filter_map(|tag| tag.strip_prefix(&prefix).map(ToOwned::to_owned))
                .collect()
        };
        let argument = |name: &str| operation.strip_prefix(name)?.strip_suffix(')');
        match &*operation {
            "name()" => vec![self.user.common.name.clone()],
            "subject()" => vec![self.user.common.subject.clone()],
            "account-name()" => vec![self.account_name.to_owned()],
            "account-subject()" => vec![self.user.account().to_owned()],
            _ => {
                if let Some(name) = argument("tag(") {
                    of_tags(&self.user.tags, name)
                } else if let Some(name) = argument("account-tag(") {
                    of_tags(self.account_tags, name)
                } else {
                    Vec::new()
                }
            }
        }
    }
}

fn is_template(token: &str) -> bool {
    token.len() >= 4 && token.starts_with("{{") && token.ends_with("}}")
}

/// The permissions of a user; none when its token names none.
pub(super) fn of_user(grants: &Grants) -> Result<Option<Arc<Permissions>>, String> {
    of(&grants.publish, &grants.subscribe, grants.resp)
}

/// Those of users that have none.
pub(super) fn by_default(claim: &PermissionsClaim) -> Result<Option<Arc<Permissions>>, String> {
    of(&claim.publish, &claim.subscribe, claim.resp)
}

fn of(
    publish: &RulesClaim,
    subscribe: &RulesClaim,
    responses: Option<ResponsesClaim>,
) -> Result<Option<Arc<Permissions>>, String> {
    let mut permissions = Permissions {
        publish: rules(publish, false)?,
        subscribe: rules(subscribe, true)?,
        responses: responses.map(|claim| Responses {
            max: if claim.max == 0 { RESPONSES_MAX } else { claim.max },
            expires: match claim.ttl {
                0 => Some(RESPONSES_EXPIRE),
                ttl => u64::try_from(ttl).ok().map(Duration::from_nanos),
            },
        }),
    };
    if permissions.responses.is_some() {
        // Who may answer may not do everything else besides, unless it says so.
        permissions.publish.allow.get_or_insert_default();
    }
    Ok((!permissions.is_open()).then(|| Arc::new(permissions)))
}

/// An empty list beside an empty list says nothing, as in nats-server.
fn rules(claim: &RulesClaim, queues: bool) -> Result<Rules, String> {
    let read = |list: &Vec<String>| -> Result<Vec<Rule>, String> {
        let rules = list.iter().map(|text| Rule::parse(text, queues));
        rules
            .collect::<Result<_, _>>()
            .map_err(|error| format!("its permissions: {}", short(&error)))
    };
    let allow = claim.allow.as_ref().map(read).transpose()?;
    let deny = claim.deny.as_ref().map(read).transpose()?.unwrap_or_default();
    Ok(Rules {
        allow: allow.filter(|allow| !allow.is_empty() || !deny.is_empty()),
        deny,
    })
}

#[cfg(test)]
mod tests {
    use super::super::token::Common;
    use super::*;

    fn user() -> UserClaims {
        UserClaims {
            common: Common {
                name: "ann".to_owned(),
                subject: "UKEY".to_owned(),
                issuer: "ASIGNER".to_owned(),
                ..Common::default()
            },
            issuer_account: "AKEY".to_owned(),
            tags: ["team:red", "team:blue", "floor:3", "bad:a b"]
                .map(ToOwned::to_owned)
                .to_vec(),
            ..UserClaims::default()
        }
    }

    fn filled(allow: &[&str]) -> Result<RulesClaim, String> {
        let user = user();
        let subject = Subject {
            user: &user,
            account_name: "acme",
            account_tags: &["zone:eu".to_owned()],
        };
        let list: Vec<_> = allow.iter().map(|text| (*text).to_owned()).collect();
        let template = Grants {
            publish: RulesClaim {
                allow: Some(list),
                deny: None,
            },
            ..Grants::default()
        };
        Ok(subject.fill(&template)?.publish)
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, expected) in [
            ("plain.*", &["plain.*"][..]),
            ("u.{{name()}}.>", &["u.ann.>"]),
            (
                "{{Account-Name()}}.{{account-subject()}}.{{subject()}}",
                &["acme.AKEY.UKEY"],
            ),
            ("{{tag(team)}}.x", &["red.x", "blue.x"]),
            (
                "{{tag(team)}}.{{tag(floor)}}.{{account-tag(zone)}}",
                &["red.3.eu", "blue.3.eu"],
            ),
            ("half.{{name()", &["half.{{name()"]),
        ] {
            assert_eq!(
                filled(&[template]).unwrap().allow.unwrap(),
                expected,
                "{template}"
            );
        }
        // What stands for nothing grants nothing, and a list of such not everything.
        for nothing in ["{{tag(none)}}.x", "{{tag(bad)}}", "{{magic()}}", "{{}}.x"] {
            let rules = filled(&[nothing]).unwrap();
            assert_eq!(
                (rules.allow.unwrap().len(), rules.deny.unwrap()),
                (0, vec![">".to_owned()])
            );
            assert_eq!(filled(&[nothing, "y"]).unwrap().allow.unwrap(), ["y"]);
        }
    }

    #[test]
    fn what_a_role_denies_must_be_a_subject() {
        let user = user();
        let subject = Subject {
            user: &user,
            account_name: "acme",
            account_tags: &[],
        };
        let deny = |text: &str| {
            let rules = RulesClaim {
                allow: None,
                deny: Some(vec![text.to_owned()]),
            };
            subject.fill(&Grants {
                subscribe: rules,
                ..Grants::default()
            })
        };
        let deny_of = |text| deny(text).unwrap().subscribe.deny.unwrap();
        assert_eq!(deny_of("not.{{tag(team)}}"), ["not.red", "not.blue"]);
        for bad in ["not.{{tag(none)}}", "{{tag(bad)}}", "{{magic()}}.x"] {
            assert!(deny(bad).is_err(), "{bad}");
        }
        let mut many = user.clone();
        many.tags = (0..40).map(|at| format!("t:{at}")).collect();
        let subject = Subject {
            user: &many,
            ..subject
        };
        let template = Grants {
            publish: RulesClaim {
                allow: Some(vec!["{{tag(t)}}.{{tag(t)}}".to_owned()]),
                deny: None,
            },
            ..Grants::default()
        };
        assert!(subject.fill(&template).unwrap_err().contains("more than 1000"));
    }

    #[test]
    fn permissions_of_claims() {
        let of = |json: &str| of_user(&serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(of("{}"), None);
        assert_eq!(of(r#"{"pub":{"allow":[]},"sub":{}}"#), None);
        let some = of(r#"{"pub":{"allow":["a","b.>"],"deny":["b.x"]},"sub":{"allow":["q work"]}}"#).unwrap();
        assert!(some.may_publish(b"a") && some.may_publish(b"b.y") && !some.may_publish(b"b.x"));
        assert!(some.may_subscribe(b"q", Some(b"work")) && !some.may_subscribe(b"q", None));
        let answers = of(r#"{"resp":{"max":0,"ttl":0}}"#).unwrap();
        assert!(!answers.may_publish(b"a") && answers.may_subscribe(b"a", None));
        let responses = answers.responses.unwrap();
        assert_eq!(
            (responses.max, responses.expires),
            (RESPONSES_MAX, Some(RESPONSES_EXPIRE))
        );
        let bad = serde_json::from_str(r#"{"pub":{"allow":["a b"]}}"#).unwrap();
        assert!(of_user(&bad).is_err());
    }
}
