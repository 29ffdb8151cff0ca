//! Isolation as a property: random accounts, exports, imports and permissions, against a model that follows every message
//! by the rules alone. No message crosses that should not, and none that should is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sovereign_mesh::account::{
    self, Auth, Export, Import, Kind, Login, Permissions, Response, Rule, Rules, Spec, User, Users,
};
use sovereign_mesh::protocol::subject;
use sovereign_mesh::{Config, Server};

use crate::support::Wire;

const NAMES: [&str; 3] = ["A", "B", "C"];
const SUBJECTS: [&str; 5] = ["x.a", "x.b", "y.a", "y.a.b", "z"];
const PATTERNS: [&str; 7] = ["x.*", "y.>", "x.a", "z", "*.a", ">", "y.*.b"];

/// What one import takes: from which account, which pattern, under which prefix; messages or requests.
#[derive(Clone, Debug)]
struct Taken {
    by: usize,
    from: usize,
    pattern: usize,
    prefixed: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
struct Case {
    /// By account: the patterns it exports, to whom (everyone, or one), and as what.
    exports: Vec<(usize, usize, Option<usize>, Kind)>,
    taken: Vec<Taken>,
    /// By account: what its user may not subscribe to.
    denied: Vec<Option<usize>>,
    subscriptions: Vec<(usize, usize, bool)>,
    /// By account: the subjects published on, as they are or as what is imported under a prefix.
    published: Vec<(usize, usize, bool)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let account = 0..NAMES.len();
    let pattern = 0..PATTERNS.len();
    let kind = prop_oneof![Just(Kind::Stream), Just(Kind::Service)];
    // Imports of what is exported, mostly: for this account or not.
    let taken = (account.clone(), any::<prop::sample::Index>(), any::<bool>());
    (
        prop::collection::vec(
            (
                account.clone(),
                pattern.clone(),
                prop::option::of(account.clone()),
                kind,
            ),
            1..6,
        ),
        prop::collection::vec(taken, 0..7),
        prop::collection::vec(prop::option::of(pattern.clone()), NAMES.len()),
        prop::collection::vec((account.clone(), pattern, any::<bool>()), 1..7),
        prop::collection::vec((account, 0..SUBJECTS.len(), any::<bool>()), 1..8),
    )
        .prop_map(|(exports, taken, denied, subscriptions, published)| {
            let take = |(by, which, prefixed): (usize, prop::sample::Index, bool)| {
                let &(from, pattern, _, kind) = which.get(&exports);
                Taken {
                    by,
                    from,
                    pattern,
                    prefixed,
                    kind,
                }
            };
            let taken = taken.into_iter().map(take).collect();
            Case {
                exports,
                taken,
                denied,
                subscriptions,
                published,
            }
        })
}

fn prefix(taken: &Taken) -> String {
    format!("from{}", NAMES[taken.from])
}

fn import(taken: &Taken) -> Import {
    let pattern = PATTERNS[taken.pattern];
    Import {
        kind: taken.kind,
        account: NAMES[taken.from].into(),
        subject: pattern.to_owned(),
        to: taken.prefixed.then(|| format!("{}.{pattern}", prefix(taken))),
        share: false,
        activated: false,
        rule: String::new(),
    }
}

/// The accounts of a case: imports that make no sense with what is there already are left out, by the check that servers use.
fn specs(case: &Case) -> (Vec<Spec>, Vec<Taken>) {
    let mut specs: Vec<_> = NAMES.iter().map(|name| Spec::new(name)).collect();
    for &(by, pattern, to, kind) in &case.exports {
        let export = Export {
            kind,
            subject: PATTERNS[pattern].to_owned(),
            accounts: to.map(|to| vec![NAMES[to].into()]),
            token_required: false,
            account_token_position: 0,
            response: Response::default(),
            threshold: account::THRESHOLD,
            rule: String::new(),
        };
        specs[by].exports.push(export);
        if !account::check(&specs).is_empty() {
            specs[by].exports.pop();
        }
    }
    let mut kept = Vec::new();
    for taken in &case.taken {
        specs[taken.by].imports.push(import(taken));
        if account::check(&specs).is_empty() {
            kept.push(taken.clone());
        } else {
            specs[taken.by].imports.pop();
        }
    }
    (specs, kept)
}

/// The names under which a message of `from` is seen in `by`.
fn seen(case_taken: &[Taken], by: usize, from: usize, published: &str) -> Vec<String> {
    let own = (by == from).then(|| published.to_owned());
    let imported = case_taken
        .iter()
        .filter(|taken| taken.kind == Kind::Stream && taken.by == by && taken.from == from)
        .filter(|taken| subject::matches(PATTERNS[taken.pattern].as_bytes(), published.as_bytes()))
        .map(|taken| match taken.prefixed {
            true => format!("{}.{published}", prefix(taken)),
            false => published.to_owned(),
        });
    own.into_iter().chain(imported).collect()
}

/// The accounts a message is published in, and its names there: that of its publisher, and those whose services it asks.
fn asks(taken: &[Taken], by: usize, name: &str, all: &mut Vec<(usize, String)>) {
    all.push((by, name.to_owned()));
    for taken_here in taken
        .iter()
        .filter(|taken| taken.kind == Kind::Service && taken.by == by)
    {
        let there = match taken_here.prefixed {
            true => name.strip_prefix(&format!("{}.", prefix(taken_here))),
            false => Some(name),
        };
        let pattern = PATTERNS[taken_here.pattern];
        if let Some(there) = there.filter(|there| subject::matches(pattern.as_bytes(), there.as_bytes())) {
            asks(taken, taken_here.from, there, all);
        }
    }
}

/// What is published, and where.
fn named(published: &(usize, usize, bool)) -> (usize, String) {
    let &(by, at, prefixed) = published;
    let name = match prefixed {
        true => format!("from{}.{}", NAMES[(by + 1) % NAMES.len()], SUBJECTS[at]),
        false => SUBJECTS[at].to_owned(),
    };
    (by, name)
}

/// The pattern of a subscription: a third of them ask for what is prefixed.
fn asked(subscription: &(usize, usize, bool)) -> String {
    let &(by, pattern, prefixed) = subscription;
    match prefixed {
        true => format!("from{}.{}", NAMES[(by + 1) % NAMES.len()], PATTERNS[pattern]),
        false => PATTERNS[pattern].to_owned(),
    }
}

type Counts = BTreeMap<(usize, String), usize>;

/// What arrives, by the rules: for each subscription the names it was seen under, and how often.
fn expected(case: &Case, taken: &[Taken]) -> Counts {
    let mut counts = Counts::new();
    for (sid, subscription) in case.subscriptions.iter().enumerate() {
        let by = subscription.0;
        let pattern = asked(subscription);
        let denied = case.denied[by].map(|denied| PATTERNS[denied]);
        let refused = denied.is_some_and(|denied| subject::matches(denied.as_bytes(), pattern.as_bytes()));
        if refused {
            continue;
        }
        let mut all = Vec::new();
        for published in &case.published {
            let (publisher, name) = named(published);
            asks(taken, publisher, &name, &mut all);
        }
        for (from, published) in all {
            for name in seen(taken, by, from, &published) {
                let fits = subject::matches(pattern.as_bytes(), name.as_bytes());
                let left_out =
                    denied.is_some_and(|denied| subject::matches(denied.as_bytes(), name.as_bytes()));
                if fits && !left_out {
                    *counts.entry((sid, name)).or_default() += 1;
                }
            }
        }
    }
    counts
}

fn users(case: &Case) -> Auth {
    let mut users = Users::default();
    for (at, name) in NAMES.iter().enumerate() {
        let deny = case.denied[at].map(|denied| Rule::parse(PATTERNS[denied], false).unwrap());
        let permissions = Permissions {
            subscribe: Rules {
                allow: None,
                deny: deny.into_iter().collect(),
            },
            ..Permissions::default()
        };
        users.add(User {
            name: (*name).to_owned(),
            login: Login::Password("p".to_owned()),
            permissions: Some(Arc::new(permissions)),
            account: (*name).into(),
            rule: String::new(),
        });
    }
    Auth::Users(Arc::new(users))
}

fn client(server: &Server, name: &str) -> Wire {
    Wire::quiet(
        server.local_addr(),
        &format!("\"user\":\"{name}\",\"pass\":\"p\""),
    )
}

/// Notes what comes before the next PONG.
fn note_until_pong(client: &mut Wire, counts: &mut Counts) {
    loop {
        let line = client.line();
        if line == "PONG" {
            return;
        }
        // What is no message is a refusal, which the model foresees.
        let Some(message) = line.strip_prefix("MSG ") else {
            continue;
        };
        let mut words = message.split(' ');
        let (name, sid) = (words.next().unwrap(), words.next().unwrap());
        *counts.entry((sid.parse().unwrap(), name.to_owned())).or_default() += 1;
        assert_eq!(client.line(), "x");
    }
}

fn run(case: &Case, accounts: Vec<Spec>, runtime: &tokio::runtime::Runtime) -> Counts {
    let config = Config {
        auth: users(case),
        accounts,
        ..Config::embedded()
    };
    let server = runtime.block_on(Server::start(config)).unwrap();
    let mut clients: Vec<_> = NAMES.iter().map(|name| client(&server, name)).collect();
    let mut counts = Counts::new();
    for (sid, subscription) in case.subscriptions.iter().enumerate() {
        let client = &mut clients[subscription.0];
        client.send(format!("SUB {} {sid}\r\nPING\r\n", asked(subscription)));
        note_until_pong(client, &mut counts);
    }
    for published in &case.published {
        let (from, name) = named(published);
        let client = &mut clients[from];
        client.send(format!("PUB {name} 1\r\nx\r\nPING\r\n"));
        note_until_pong(client, &mut counts);
    }
    // What was published is with its receivers before the publisher's PONG.
    for client in &mut clients {
        client.send("PING\r\n");
        note_until_pong(client, &mut counts);
    }
    runtime.block_on(server.shutdown());
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_crosses_but_by_export_and_import(case in cases()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (accounts, taken) = specs(&case);
        let told = run(&case, accounts, &runtime);
        prop_assert_eq!(told, expected(&case, &taken));
    }
}
