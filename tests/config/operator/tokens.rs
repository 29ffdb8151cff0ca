//! Tokens of users and of accounts, good and bad: both servers judge them alike.

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::Wire;
use crate::support::chain::{self, now, shown, sign, with};

use super::{Operator, REFUSED, both, come};

/// Tokens of a user, and whether they let it in.
fn table(
    account: &KeyPair,
    signer: &KeyPair,
    role: &KeyPair,
    key: &KeyPair,
) -> Vec<(&'static str, String, bool)> {
    let claims = |more: Value| with(chain::user(key, "ann"), &more);
    let signed = |more: Value| sign(&claims(more), account);
    let for_account = json!({ "nats": { "issuer_account": account.public_key() } });
    let old = json!({ "sub": key.public_key(), "name": "ann", "iat": now(), "type": "user",
        "nats": { "pub": {}, "sub": {} } });
    let of_role = chain::user_of_role(key, "ann", account);
    let stranger = KeyPair::new_account();
    let good = signed(json!({}));
    let cut = good[..good.len() - 2].to_owned();
    let tampered = {
        let other = signed(json!({ "name": "bob" }));
        let payload = other.split('.').nth(1).unwrap();
        let parts: Vec<_> = good.split('.').collect();
        format!("{}.{payload}.{}", parts[0], parts[2])
    };
    vec![
        ("plain", good, true),
        ("cut short", cut, false),
        ("another payload", tampered, false),
        ("later", signed(json!({ "exp": now() + 1000 })), true),
        ("over", signed(json!({ "exp": now() - 10 })), false),
        ("not yet", signed(json!({ "nbf": now() + 1000 })), false),
        (
            "at the right place",
            signed(json!({ "nats": { "src": ["10.0.0.0/8", "127.0.0.0/8"] } })),
            true,
        ),
        (
            "at the wrong place",
            signed(json!({ "nats": { "src": ["10.0.0.0/8"] } })),
            false,
        ),
        (
            "at no place",
            signed(json!({ "nats": { "src": ["everywhere"] } })),
            false,
        ),
        (
            "all day",
            signed(
                json!({ "nats": { "times": [{ "start": "00:00:00", "end": "23:59:59" }], "times_location": "UTC" } }),
            ),
            true,
        ),
        (
            "nowhere",
            signed(json!({ "nats": { "times_location": "Atlantis/Capital" } })),
            false,
        ),
        (
            "by wire",
            signed(json!({ "nats": { "allowed_connection_types": ["standard", "PIGEON"] } })),
            true,
        ),
        (
            "by mqtt",
            signed(json!({ "nats": { "allowed_connection_types": ["MQTT"] } })),
            false,
        ),
        (
            "by pigeon",
            signed(json!({ "nats": { "allowed_connection_types": ["PIGEON"] } })),
            false,
        ),
        (
            "three words",
            signed(json!({ "nats": { "sub": { "allow": ["a b c"] } } })),
            false,
        ),
        (
            "queue to publish",
            signed(json!({ "nats": { "pub": { "allow": ["a b"] } } })),
            false,
        ),
        ("by a stranger", sign(&claims(json!({})), &stranger), false),
        (
            "by a stranger for the account",
            sign(&claims(for_account.clone()), &stranger),
            false,
        ),
        ("by a signer for itself", sign(&claims(json!({})), signer), false),
        ("by a signer", sign(&claims(for_account.clone()), signer), true),
        ("by a role", sign(&of_role, role), true),
        (
            "by a role with rights",
            sign(&with(claims(for_account), &json!({})), role),
            false,
        ),
        ("old", sign(&old, account), true),
        (
            "old, over",
            sign(&with(old.clone(), &json!({ "exp": now() - 10 })), account),
            false,
        ),
        ("old, by a stranger", sign(&old, &stranger), false),
        (
            "old, by a signer",
            sign(
                &with(old, &json!({ "issuer_account": account.public_key() })),
                signer,
            ),
            true,
        ),
        (
            "of another kind",
            signed(json!({ "nats": { "type": "account" } })),
            false,
        ),
        (
            "of the future",
            signed(json!({ "nats": { "version": 3 } })),
            false,
        ),
        (
            "of no version",
            signed(json!({ "nats": { "version": 0 } })),
            false,
        ),
        (
            "with nulls",
            signed(json!({ "exp": null, "nats": { "src": null, "tags": null, "resp": null } })),
            true,
        ),
        ("nothing", String::new(), false),
        ("no token", "hello".to_owned(), false),
        ("some dots", "a.b.c".to_owned(), false),
    ]
}

#[test]
fn both_servers_let_the_same_tokens_in() {
    let operator = Operator::new();
    let [account, signer, role] = [(); 3].map(|()| KeyPair::new_account());
    let key = KeyPair::new_user();
    let keys = json!([signer.public_key(), {
        "kind": "user_scope", "key": role.public_key(), "role": "r", "template": { "pub": { "allow": ["a"] } },
    }]);
    let claims = with(
        chain::account(&account, "acme"),
        &json!({ "nats": { "signing_keys": keys } }),
    );
    let file = operator.file(&[claims], "");
    for (name, server) in both("tokens with nats-server", &file) {
        for (what, token, good) in table(&account, &signer, &role, &key) {
            let (_, line) = come(&server, &token, &key);
            let expected = if good { "PONG" } else { REFUSED };
            assert_eq!(line, expected, "{name}: {what}");
            if good {
                let (_, line) = come(&server, &token, &KeyPair::new_user());
                assert_eq!(line, REFUSED, "{name}: {what}, signed by another");
            }
        }
        // Without a signature, and without a nonce of this connection.
        let token = sign(&chain::user(&key, "ann"), &account);
        for fields in [
            format!("\"jwt\":\"{token}\""),
            shown(&token, &key, "PXoWU7zWAMt75FY"),
        ] {
            let mut wire = Wire::connect(server.address());
            assert_eq!(wire.info()["auth_required"], true);
            wire.ask(
                format!("CONNECT {{\"verbose\":false,{fields}}}\r\n"),
                format!("{REFUSED}\r\n"),
            );
            wire.expect_end();
        }
        let bearer = with(
            chain::user(&key, "ann"),
            &json!({ "nats": { "bearer_token": true } }),
        );
        let bearer = sign(&bearer, &account);
        Wire::quiet(server.address(), &format!("\"jwt\":\"{bearer}\""));
    }
}

#[test]
fn both_servers_judge_accounts_alike() {
    let operator = Operator::new();
    let key = KeyPair::new_user();
    let accounts: Vec<_> = (0..6).map(|_| KeyPair::new_account()).collect();
    let nats = |more: Value| json!({ "nats": more });
    let more = [
        json!({}),
        json!({ "exp": now() - 10 }),
        nats(json!({ "revocations": { key.public_key(): now() + 600 } })),
        nats(json!({ "revocations": { "*": now() - 1000 } })),
        nats(json!({ "limits": { "disallow_bearer": true } })),
        nats(json!({ "limits": { "conn": 0 } })),
    ];
    let claims: Vec<_> = accounts
        .iter()
        .zip(&more)
        .map(|(account, more)| with(chain::account(account, "one"), more))
        .collect();
    let bearer = json!({ "nats": { "bearer_token": true } });
    let expected = [
        ("PONG", "PONG"),
        (REFUSED, REFUSED),
        (REFUSED, REFUSED),
        ("PONG", "PONG"),
        ("PONG", REFUSED),
        (
            "-ERR 'maximum account active connections exceeded'",
            "-ERR 'maximum account active connections exceeded'",
        ),
    ];
    for (name, server) in both("accounts with nats-server", &operator.file(&claims, "")) {
        for ((account, more), expected) in accounts.iter().zip(&more).zip(expected) {
            let user = chain::user(&key, "ann");
            let (_, plain) = come(&server, &sign(&user, account), &key);
            let (_, of_bearer) = come(&server, &sign(&with(user, &bearer), account), &key);
            assert_eq!((&*plain, &*of_bearer), expected, "{name}: {more}");
        }
    }
}
