//! The `authorization` block, and users wherever they stand: credentials and permissions.

use std::sync::Arc;
use std::time::Duration;

use crate::account::{
    Auth, GLOBAL, Login, Permissions, RESPONSES_EXPIRE, RESPONSES_MAX, Rule, Rules, User, Users, is_bcrypt,
    is_usable_bcrypt, is_user_nkey,
};
use crate::config::fields::Notes;
use crate::config::language::{Entry, Node, Problem, Spot, Value};
use crate::router::Responses;

const KEYS: [&str; 8] = [
    "user",
    "username",
    "pass",
    "password",
    "token",
    "timeout",
    "users",
    "default_permissions",
];
const USER_KEYS: [&str; 7] = [
    "user",
    "username",
    "pass",
    "password",
    "nkey",
    "permissions",
    "allowed_connection_types",
];
const PERMISSION_KEYS: [&str; 5] = ["publish", "subscribe", "pub", "sub", "allow_responses"];
/// What is said of a user without a password, unless its certificate says who it is.
pub(super) const NAME_ALONE: &str = "has no password: whoever knows the name comes in";
/// Above this a timeout is probably a mistake.
const TIMEOUT_HIGH: Duration = Duration::from_secs(60);
/// Ways to connect that this server has.
const CONNECTION_TYPES: [&str; 2] = ["STANDARD", "IN_PROCESS"];

/// The block as it was read.
pub(super) struct Authorization {
    entry: Entry,
    user: Option<String>,
    pass: Option<String>,
    token: Option<String>,
    pub timeout: Option<Duration>,
    users: Option<Vec<Found>>,
    default_permissions: Option<Arc<Permissions>>,
}

/// A user, and where it stands.
pub(super) struct Found {
    pub spot: Spot,
    pub user: User,
}

/// Reads the block; what is wrong is noted.
pub(super) fn read(block: &Entry, notes: &mut Notes) -> Option<Authorization> {
    let map = block.map(notes)?;
    let mut read = Authorization {
        entry: block.clone(),
        user: None,
        pass: None,
        token: None,
        timeout: None,
        users: None,
        default_permissions: None,
    };
    for entry in map.entries() {
        match entry.name().as_str() {
            "user" | "username" => read.user = secret(entry, notes),
            "pass" | "password" => read.pass = secret(entry, notes),
            "token" => read.token = secret(entry, notes),
            "timeout" => read.timeout = timeout(entry, notes),
            "users" => read.users = Some(users(entry, notes)),
            "default_permissions" | "default_permission" | "permissions" => {
                read.default_permissions = permissions(entry, notes).map(Arc::new);
            }
            "auth_callout" | "auth_hook" => {
                notes.error(
                    entry,
                    format!("\"{}\" is not supported by this server yet", entry.key),
                );
            }
            "proxy_required" => proxy_required(entry, notes),
            _ => notes.unknown(entry, &KEYS),
        }
    }
    Some(read)
}

/// A name or secret: there, it must say something, and a hash must be one.
fn secret(entry: &Entry, notes: &mut Notes) -> Option<String> {
    let text = entry.text(notes)?;
    if text.is_empty() {
        notes.error(entry, format!("\"{}\" is empty", entry.key));
    } else if is_bcrypt(&text) && !is_usable_bcrypt(&text) {
        notes.error(
            entry,
            format!("\"{}\" looks like a bcrypt hash and is none", entry.key),
        );
    }
    Some(text)
}

/// Seconds, with a fraction if need be, or a time such as "2s"; none where it is zero, which is the usual one as in nats-server.
pub(super) fn timeout(entry: &Entry, notes: &mut Notes) -> Option<Duration> {
    let timeout = match &entry.node.value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        _ => return entry.duration(notes).filter(|timeout| !timeout.is_zero()),
    };
    match timeout {
        Some(timeout) if timeout > TIMEOUT_HIGH => {
            notes.warn(
                entry,
                format!("a timeout of {timeout:?} is high: write '1m', quoted, for one minute"),
            );
        }
        Some(_) => {}
        None => notes.error(entry, "\"timeout\" is a time such as 2 or \"2s\""),
    }
    timeout.filter(|timeout| !timeout.is_zero())
}

fn proxy_required(entry: &Entry, notes: &mut Notes) {
    if entry.flag(notes) == Some(true) {
        notes.error(
            entry,
            format!("\"{}\" is not supported by this server", entry.key),
        );
    }
}

/// A list of users, those that are usable.
pub(super) fn users(entry: &Entry, notes: &mut Notes) -> Vec<Found> {
    let Some(nodes) = entry.list(notes) else {
        return Vec::new();
    };
    let found = |node: &Node| {
        let spot = node.spot.clone();
        Some(Found {
            user: user(node, notes)?,
            spot,
        })
    };
    nodes.iter().filter_map(found).collect()
}

/// One user; one that is not usable is noted and left out.
fn user(node: &Node, notes: &mut Notes) -> Option<User> {
    let Value::Map(map) = &node.value else {
        let text = format!(
            "a user is a map {{ user: ..., password: ... }}, not {}",
            node.kind()
        );
        notes.errors.push(Problem::at(&node.spot, text));
        return None;
    };
    let (mut name, mut pass, mut nkey, mut granted) = (None, None, None, None);
    for entry in map.entries() {
        match entry.name().as_str() {
            "user" | "username" => name = secret(entry, notes),
            "pass" | "password" => pass = secret(entry, notes),
            "nkey" => nkey = entry.text(notes),
            "permission" | "permissions" | "authorization" => {
                granted = permissions(entry, notes).map(Arc::new)
            }
            "allowed_connection_types" | "connection_types" | "clients" => connection_types(entry, notes),
            "proxy_required" => proxy_required(entry, notes),
            _ => notes.unknown(entry, &USER_KEYS),
        }
    }
    let mut wrong = |text: &str| {
        notes.errors.push(Problem::at(&node.spot, text));
        None
    };
    let (name, login) = match (name, nkey) {
        (None, None) => return wrong("a user needs a \"user\" or an \"nkey\""),
        (_, Some(nkey)) if !is_user_nkey(&nkey) => return wrong("not a valid public nkey for a user"),
        (None, Some(nkey)) if pass.is_none() => (nkey, Login::NKey),
        (_, Some(_)) => return wrong("nkey users do not take usernames or passwords"),
        (Some(name), None) => (name, Login::Password(pass.unwrap_or_default())),
    };
    Some(User {
        name,
        login,
        permissions: granted,
        account: GLOBAL.into(),
        rule: node.spot.to_string(),
    })
}

/// Only what this server has may be asked for: leaving a user out by a way there is none of would let it in by all.
fn connection_types(entry: &Entry, notes: &mut Notes) {
    let Some(types) = entry.texts(notes) else { return };
    let is_ours = |kind: &String| {
        CONNECTION_TYPES
            .iter()
            .any(|ours| kind.eq_ignore_ascii_case(ours))
    };
    if !types.iter().any(|kind| kind.eq_ignore_ascii_case("STANDARD")) {
        let text = "connections other than STANDARD are not supported by this server yet: this user could not come in";
        notes.error(entry, text);
    }
    for other in types.iter().filter(|kind| !is_ours(kind)) {
        let text = format!(
            "connections of type {} are not supported by this server yet",
            other.escape_debug()
        );
        notes.warn(entry, text);
    }
}

pub(super) fn permissions(block: &Entry, notes: &mut Notes) -> Option<Permissions> {
    let map = block.map(notes)?;
    let mut permissions = Permissions::default();
    for entry in map.entries() {
        match entry.name().as_str() {
            "pub" | "publish" | "import" => permissions.publish = rules(entry, false, notes),
            "sub" | "subscribe" | "export" => permissions.subscribe = rules(entry, true, notes),
            "publish_allow_responses" | "allow_responses" => permissions.responses = responses(entry, notes),
            _ => notes.unknown(entry, &PERMISSION_KEYS),
        }
    }
    if permissions.responses.is_some() {
        // Who may answer may not do everything else besides, unless it says so.
        permissions.publish.allow.get_or_insert_default();
    }
    Some(permissions)
}

/// A subject, a list of them, or lists to allow and deny.
fn rules(entry: &Entry, queues: bool, notes: &mut Notes) -> Rules {
    let Value::Map(map) = &entry.node.value else {
        return Rules {
            allow: Some(subjects(entry, queues, notes)),
            deny: Vec::new(),
        };
    };
    let mut rules = Rules::default();
    for entry in map.entries() {
        match entry.name().as_str() {
            "allow" => rules.allow = Some(subjects(entry, queues, notes)),
            "deny" => rules.deny = subjects(entry, queues, notes),
            _ => notes.unknown(entry, &["allow", "deny"]),
        }
    }
    rules
}

fn subjects(entry: &Entry, queues: bool, notes: &mut Notes) -> Vec<Rule> {
    let mut rules = Vec::new();
    for text in entry.texts(notes).unwrap_or_default() {
        match Rule::parse(&text, queues) {
            Ok(rule) => rules.push(rule),
            Err(error) => notes.error(entry, error),
        }
    }
    rules
}

fn responses(entry: &Entry, notes: &mut Notes) -> Option<Responses> {
    let mut responses = Responses {
        max: RESPONSES_MAX,
        expires: Some(RESPONSES_EXPIRE),
    };
    let map = match &entry.node.value {
        Value::Flag(flag) => return flag.then_some(responses),
        Value::Map(map) => map,
        _ => {
            notes.error(
                entry,
                "\"allow_responses\" is true, false or a map { max, expires }",
            );
            return None;
        }
    };
    for entry in map.entries() {
        match entry.name().as_str() {
            "max" | "max_msgs" | "max_messages" | "max_responses" => match entry.integer(notes) {
                Some(0) | None => {}
                Some(max) => responses.max = max,
            },
            // As in nats-server: less than none is for ever, none is the default.
            "expires" | "expiration" | "ttl" => match entry.text(notes) {
                Some(text) if text.starts_with('-') => responses.expires = None,
                Some(_) => match entry.duration(notes) {
                    Some(Duration::ZERO) | None => {}
                    expires => responses.expires = expires,
                },
                None => {}
            },
            _ => notes.unknown(entry, &["max", "expires"]),
        }
    }
    Some(responses)
}

/// Says that `no_auth_user` names nobody.
fn no_such_user(entry: &Entry, notes: &mut Notes) {
    let name = entry.text(notes).unwrap_or_default();
    let name = name.escape_debug();
    notes.error(
        entry,
        format!("no_auth_user: \"{name}\" is none of the users in the authorization block or in accounts"),
    );
}

impl Authorization {
    /// What clients must show, where accounts have users too; none when nothing is asked for.
    pub fn auth(self, mut more: Vec<Found>, no_auth_user: Option<&Entry>, notes: &mut Notes) -> Option<Auth> {
        let block = &self.entry;
        let single = self.user.is_some() || self.pass.is_some();
        match (&self.users, single, &self.token) {
            (_, true, Some(_)) => notes.error(block, "Cannot have a user/pass and token"),
            (Some(_), true, _) => notes.error(block, "Can not have a single user/pass and a users array"),
            (Some(_), _, Some(_)) => notes.error(block, "Can not have a token and a users array"),
            (_, true, _) if !more.is_empty() => {
                notes.error(block, "Can not have a single user/pass and accounts");
            }
            (_, _, Some(_)) if !more.is_empty() => notes.error(block, "Can not have a token and accounts"),
            _ => {}
        }
        if self.default_permissions.is_some() && self.users.is_none() {
            notes.warn(block, "permissions hold for \"users\" alone, and there are none");
        }
        if self.users.as_ref().is_some_and(Vec::is_empty) && more.is_empty() {
            notes.error(block, "\"users\" is empty: nobody could come in");
        }
        if let Some(mut users) = self.users {
            for found in users.iter_mut().filter(|found| found.user.permissions.is_none()) {
                found.user.permissions.clone_from(&self.default_permissions);
            }
            users.append(&mut more);
            return Some(with_default(users, no_auth_user, notes));
        }
        if !more.is_empty() {
            return Some(with_default(more, no_auth_user, notes));
        }
        if let Some(entry) = no_auth_user {
            no_such_user(entry, notes);
        }
        match (self.token, self.user, self.pass) {
            (Some(token), _, _) => Some(Auth::Token(token)),
            (None, Some(user), Some(pass)) => Some(Auth::User { user, pass }),
            (None, Some(name), None) => {
                let user = User {
                    name,
                    login: Login::Password(String::new()),
                    permissions: None,
                    account: GLOBAL.into(),
                    rule: block.spot.to_string(),
                };
                let spot = block.spot.clone();
                Some(with_default(vec![Found { spot, user }], None, notes))
            }
            (None, None, Some(_)) => {
                notes.error(block, "a password without a user");
                None
            }
            (None, None, None) => None,
        }
    }
}

/// What clients must show when accounts alone have users; none when they have none. Where the system account alone has users
/// (`is_system_alone`), whoever shows nothing is let into `$G`, as in nats-server.
pub(super) fn of_accounts(
    mut list: Vec<Found>,
    is_system_alone: bool,
    no_auth_user: Option<&Entry>,
    notes: &mut Notes,
) -> Option<Auth> {
    let Some(first) = list.first() else {
        if let Some(entry) = no_auth_user {
            no_such_user(entry, notes);
        }
        return None;
    };
    if no_auth_user.is_some() || !is_system_alone {
        return Some(with_default(list, no_auth_user, notes));
    }
    let anybody = User {
        name: GLOBAL.to_owned(),
        login: Login::Password(String::new()),
        permissions: None,
        account: GLOBAL.into(),
        rule: first.spot.to_string(),
    };
    let spot = first.spot.clone();
    list.push(Found { spot, user: anybody });
    Some(Auth::Users(Arc::new(several(list, Some(GLOBAL), notes))))
}

fn with_default(list: Vec<Found>, no_auth_user: Option<&Entry>, notes: &mut Notes) -> Auth {
    let name = no_auth_user.and_then(|entry| entry.text(notes));
    let users = several(list, name.as_deref(), notes);
    if let Some(entry) = no_auth_user
        && users.default_user().is_none()
    {
        no_such_user(entry, notes);
    }
    Auth::Users(Arc::new(users))
}

/// All of them; `default` is who a client is that shows nothing.
fn several(list: Vec<Found>, default: Option<&str>, notes: &mut Notes) -> Users {
    let mut users = Users::default();
    for Found { spot, user } in list {
        let name = user.name.clone();
        if user.login == Login::Password(String::new()) && Some(name.as_str()) != default {
            let text = format!("user \"{name}\" {NAME_ALONE}");
            notes.warnings.push(Problem::at(&spot, text));
        }
        if let Some(other) = users.get(&name) {
            let what = match user.login {
                Login::NKey => "nkey",
                Login::Password(_) | Login::Jwt(_) => "user",
            };
            let text = format!("Duplicate {what} \"{name}\" detected, first at {}", other.rule);
            notes.errors.push(Problem::at(&spot, text));
        }
        users.add(user);
    }
    if let Some(name) = default {
        users.set_default(name);
    }
    users
}
