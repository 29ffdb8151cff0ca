//! Files of operator mode that cannot be: told where, and why.

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::chain::{self, now, sign, with};

use super::super::{Site, mesh};
use super::Operator;

#[test]
fn files_that_cannot_be_are_told_where_and_why() {
    let operator = Operator::new();
    let account = KeyPair::new_account();
    let claims = chain::account(&account, "acme");
    let good = operator.file(std::slice::from_ref(&claims), "");
    let stranger = Operator::new();
    let token = sign(&operator.claims, &operator.key);
    let own = |more: Value| Operator {
        claims: with(operator.claims.clone(), &more),
        key: KeyPair::from_seed(&operator.key.seed().unwrap()).unwrap(),
    };
    let key = account.public_key();
    let other = KeyPair::new_account().public_key();
    let foreign = sign(&claims, &stranger.key);
    for (file, says) in [
        (
            own(json!({ "exp": now() - 10 })).file(&[], ""),
            "1:11: error parsing operator JWT: it has expired",
        ),
        (
            format!("operator: {token}x\nresolver: MEMORY\n"),
            "1:11: error parsing operator JWT: its signature",
        ),
        (
            "operator: nowhere.jwt\nresolver: MEMORY\n".to_owned(),
            "1:11: error parsing operator JWT: cannot read",
        ),
        (
            "operator: []\nresolver: MEMORY\n".to_owned(),
            "1:1: \"operator\" is empty",
        ),
        (
            format!("operator: {token}\n"),
            "1:1: operators require an account resolver",
        ),
        (
            format!("operator: {token}\nresolver {{ type: full, dir: x }}\n"),
            "2:1: a resolver with a directory (\"full\") is not supported yet",
        ),
        (
            format!("operator: {token}\nresolver: \"URL(http://x/)\"\n"),
            "2:1: a resolver that fetches accounts by HTTP",
        ),
        (
            format!("operator: {token}\nresolver: foo\n"),
            "2:1: error parsing account resolver",
        ),
        (
            format!("operator: {token}\nresolver: MEMORY\nresolver_preload {{ {key}: {foreign} }}\n"),
            "3:20: invalid account JWT of A",
        ),
        (
            format!("operator: {token}\nresolver: MEMORY\nresolver_preload {{ {key}: {foreign} }}\n"),
            "no trusted operator has signed it",
        ),
        (
            format!(
                "operator: {token}\nresolver: MEMORY\nresolver_preload {{ {other}: {} }}\n",
                sign(&claims, &operator.key)
            ),
            "it is the token of another account",
        ),
        (
            good.clone() + "no_auth_user: x\n",
            "no_auth_user not compatible with Trusted Operator",
        ),
        (
            good.clone() + "accounts { A { } }\n",
            "operators do not allow Accounts to be configured directly",
        ),
        (
            good.clone() + "authorization { users: [ { user: a, password: b } ] }\n",
            "operators do not allow users to be configured directly",
        ),
        (
            good.clone() + "default_sentinel: x\n",
            "\"default_sentinel\" is not usable",
        ),
        (
            good.clone() + "resolver_pinned_accounts: [x]\n",
            "pinned account key \"x\" is not a valid",
        ),
        (
            good.clone() + &format!("system_account: {other}\n"),
            "error resolving system account",
        ),
        (good.clone() + "trusted: x\n", "conflicting options"),
        (
            own(json!({ "nats": { "system_account": key } }))
                .file(std::slice::from_ref(&claims), &format!("system_account: {other}")),
            "system_account in config and operator JWT must be identical",
        ),
        (
            own(json!({ "nats": { "assert_server_version": "99.0.0" } })).file(&[], ""),
            "wants nats-server 99.0.0",
        ),
        (
            "default_sentinel: x\n".to_owned(),
            "default sentinel requires operators and accounts",
        ),
    ] {
        let site = Site::new(&file);
        let (done, text) = mesh(&["config", "check", &site.file()]);
        assert_eq!(done.status.code(), Some(1), "{file}\n{text}");
        assert!(text.contains(says), "{says}\n{file}\n{text}");
    }
    let in_a_file = Site::new("operator: op.jwt\nresolver: MEMORY\n");
    let decorated =
        format!("-----BEGIN NATS OPERATOR JWT-----\n{token}\n------END NATS OPERATOR JWT------\n");
    std::fs::write(in_a_file.path("op.jwt"), decorated).unwrap();
    let trusted = format!("trusted: [{}]\nresolver: MEM\n", operator.key.public_key());
    let expired = operator.file(
        &[with(claims, &json!({ "exp": 10 }))],
        "authorization { timeout: 3 }",
    );
    for (site, says) in [
        (in_a_file, "0 accounts"),
        (Site::new(&trusted), "0 accounts"),
        (Site::new(&good), "1 accounts"),
        (
            Site::new(&expired),
            "nobody can come into account acme: it has expired",
        ),
    ] {
        let (done, text) = mesh(&["config", "check", &site.file()]);
        assert_eq!(done.status.code(), Some(0), "{text}");
        assert!(text.contains(says), "{text}");
    }
}
