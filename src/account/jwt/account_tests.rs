//! What accounts are to be, and what they may import.

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::account::spec::{Kind, Response};

use super::chain::{self, sign, with};
use super::tests::{NOW, Site, admitted, at};
use super::*;

#[test]
fn accounts_are_what_their_tokens_say() {
    let site = Site::new();
    let mut accounts = Accounts::new(site.trust(&json!({})));
    let token = site.account_token(&json!({ "nats": {
        "limits": {
            "conn": 7, "subs": 9, "payload": 100, "mem_storage": 0, "disk_storage": 1000, "streams": 2,
            "consumer": 0, "max_ack_pending": 5, "disk_max_stream_bytes": 50, "max_bytes_required": true,
        },
        "exports": [
            { "subject": "s.*", "type": "stream", "token_req": true },
            { "subject": "help", "type": "service", "response_type": "Chunked", "response_threshold": 1_000_000_000 },
            { "subject": "by.*.x", "type": "service", "account_token_position": 2 },
        ],
        "mappings": { "a.*": [{ "subject": "b.$1", "weight": 60 }, { "subject": "c.$1", "weight": 40 }] },
        "default_permissions": { "pub": { "deny": ["no"] } },
    } }));
    let key = site.account.public_key();
    assert_eq!(accounts.add(&key, &token, "f:1:2", at(NOW)), Ok(None));
    let (operator, specs, warnings) = accounts.finish(at(NOW));
    let spec = &specs[0];
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((&*spec.name, &*spec.rule), (&*key, "f:1:2"));
    assert_eq!(
        (
            spec.limits.connections,
            spec.limits.subscriptions,
            spec.limits.payload
        ),
        (Some(7), Some(9), Some(100))
    );
    let streams = spec.streams.as_ref().unwrap();
    assert_eq!((streams.memory, streams.storage, streams.streams), (0, 1000, 2));
    assert_eq!((streams.consumers, streams.ack_pending), (-1, 5));
    assert_eq!((streams.memory_stream, streams.storage_stream), (-1, 50));
    assert!(streams.bytes_required && spec.exports[0].token_required);
    assert_eq!(
        (spec.exports[1].response, spec.exports[1].threshold.as_secs()),
        (Response::Chunked, 1)
    );
    assert_eq!(spec.exports[2].account_token_position, 2);
    let percents: Vec<_> = spec.mappings[0]
        .destinations
        .iter()
        .map(|to| to.percent)
        .collect();
    assert_eq!(percents, [60, 40]);
    let user = admitted(site.check(&operator, &site.user_token(&json!({ "nats": { "payload": 50 } }))));
    assert!(!user.permissions.as_ref().unwrap().may_publish(b"no"));
    let grant = user.grant().unwrap();
    assert_eq!((grant.subscriptions, grant.payload), (Some(9), Some(50)));
}

#[test]
fn accounts_that_make_no_sense_are_refused() {
    let site = Site::new();
    let export = |subject: &str, kind: &str| json!({ "subject": subject, "type": kind });
    let from = KeyPair::new_account().public_key();
    let import = |more: Value| {
        with(
            json!({ "subject": "a", "type": "stream", "account": from }),
            &more,
        )
    };
    for (nats, says) in [
        (
            json!({ "exports": [export("a", "stone")] }),
            "neither a stream nor a service",
        ),
        (
            json!({ "exports": [export("a..b", "stream")] }),
            "not a valid subject",
        ),
        (
            json!({ "exports": [export("a.*", "stream"), export("a.b", "stream")] }),
            "within each other",
        ),
        (
            json!({ "exports": [export("a", "stream")], "limits": { "exports": 0 } }),
            "1 exports, its operator allows 0",
        ),
        (
            json!({ "exports": [export("a.*", "stream")], "limits": { "exports": 5, "wildcards": false } }),
            "wildcards",
        ),
        (
            json!({ "exports": [with(export("a", "stream"), &json!({ "response_type": "Stream" }))] }),
            "response type",
        ),
        (
            json!({ "exports": [with(export("a.b", "service"), &json!({ "account_token_position": 2 }))] }),
            "is no *",
        ),
        (
            json!({ "imports": [import(json!({ "account": "" }))] }),
            "is of no account",
        ),
        (
            json!({ "imports": [import(json!({ "share": true }))] }),
            "nobody asks a stream",
        ),
        (
            json!({ "imports": [import(json!({ "to": "x", "local_subject": "y" }))] }),
            "both to and local_subject",
        ),
        (
            json!({ "imports": [import(json!({ "local_subject": "y.$1" }))] }),
            "its import \"a\"",
        ),
        (
            json!({ "mappings": { "a": [{ "subject": "b", "weight": 60 }, { "subject": "c", "weight": 50 }] } }),
            "hundredths",
        ),
        (
            json!({ "authorization": { "auth_users": [site.user.public_key()] } }),
            "asked for elsewhere",
        ),
        (
            json!({ "default_permissions": { "pub": { "allow": [""] } } }),
            "not a valid subject",
        ),
    ] {
        let why = site.operator(&json!({ "nats": nats })).unwrap_err();
        assert!(why.contains(says), "{nats}: {why}");
    }
    let mut accounts = Accounts::new(site.trust(&json!({})));
    let other = KeyPair::new_account();
    let token = site.account_token(&json!({}));
    let why = accounts
        .add(&other.public_key(), &token, "test", at(NOW))
        .unwrap_err();
    assert!(why.contains("the token of another account"), "{why}");
    let self_signed = sign(&chain::account(&site.account, "acme"), &site.account);
    let why = accounts
        .add(&site.account.public_key(), &self_signed, "test", at(NOW))
        .unwrap_err();
    assert!(why.contains("no trusted operator has signed it"), "{why}");
    let mut trust = Trust::default();
    let expired = sign(
        &with(chain::operator(&site.operator), &json!({ "exp": NOW })),
        &site.operator,
    );
    assert!(
        trust
            .add_operator(&expired, at(NOW))
            .unwrap_err()
            .contains("it has expired")
    );
}

#[test]
fn imports_need_an_export_and_sometimes_an_activation() {
    let (site, importer) = (Site::new(), KeyPair::new_account());
    let key = site.account.public_key();
    let exports = json!({ "nats": { "signing_keys": [site.signer.public_key()], "exports": [
        { "subject": "open.>", "type": "stream" },
        { "subject": "help.*.*", "type": "service" },
        { "subject": "private.*", "type": "stream", "token_req": true,
          "revocations": { importer.public_key(): NOW - 50 } },
        { "subject": "by.*", "type": "stream", "account_token_position": 2 },
    ] } });
    let activation = |more: &Value, signer: &KeyPair| {
        let claims = json!({
            "sub": importer.public_key(), "iat": NOW,
            "nats": { "type": "activation", "version": 2, "kind": "stream", "subject": "private.*" },
        });
        sign(&with(claims, more), signer)
    };
    let outcome = |import: Value| {
        let mut accounts = Accounts::new(site.trust(&json!({})));
        let import = with(json!({ "type": "stream", "account": key }), &import);
        let claims = with(
            chain::account(&importer, "client"),
            &json!({ "nats": { "imports": [import] } }),
        );
        let token = sign(&claims, &site.operator);
        accounts
            .add(&importer.public_key(), &token, "test", at(NOW))
            .unwrap();
        accounts
            .add(&key, &site.account_token(&exports), "test", at(NOW))
            .unwrap();
        let (_, mut specs, warnings) = accounts.finish(at(NOW));
        specs.remove(0).imports.pop().ok_or_else(|| warnings.join("; "))
    };
    let open = outcome(json!({ "subject": "open.a.*", "local_subject": "mine.$1" })).unwrap();
    assert_eq!(
        (open.kind, &*open.subject, open.to.as_deref()),
        (Kind::Stream, "open.a.*", Some("mine.$1"))
    );
    let prefixed = outcome(json!({ "subject": "open.a", "to": "from.there" })).unwrap();
    assert_eq!(prefixed.to.as_deref(), Some("from.there.open.a"));
    let service = json!({ "type": "service", "subject": "ask.*.*", "to": "help.$2.$1" });
    let service = outcome(service).unwrap();
    assert_eq!(
        (&*service.subject, service.to.as_deref()),
        ("help.*.*", Some("ask.$2.$1"))
    );
    let named = format!("by.{}", importer.public_key());
    assert!(outcome(json!({ "subject": named })).is_ok());
    let private = |token: String| outcome(json!({ "subject": "private.x", "token": token }));
    assert!(private(activation(&json!({}), &site.account)).unwrap().activated);
    let by_signer = json!({ "nats": { "issuer_account": key } });
    assert!(private(activation(&by_signer, &site.signer)).unwrap().activated);
    for (import, says) in [
        (json!({ "subject": "none" }), "exports no such stream"),
        (json!({ "subject": ">" }), "exports no such stream"),
        (
            json!({ "subject": "open.a", "type": "service" }),
            "exports no such service",
        ),
        (
            json!({ "subject": "open.a", "account": importer.public_key() }),
            "exports no such stream",
        ),
        (
            json!({ "subject": "open.a", "account": "AXX" }),
            "there is no account AXX",
        ),
        (json!({ "subject": "by.x" }), "does not name the account"),
        (json!({ "subject": "private.x" }), "its activation: there is none"),
        (json!({ "subject": "private.x", "token": "x" }), "three segments"),
    ] {
        let why = outcome(import.clone()).unwrap_err();
        assert!(why.contains(says), "{import}: {why}");
    }
    let stranger = KeyPair::new_account();
    for (more, signer, says) in [
        (json!({}), &stranger, "not signed for account"),
        (json!({}), &site.signer, "not signed for account"),
        (
            json!({ "sub": stranger.public_key() }),
            &site.account,
            "for another account",
        ),
        (
            json!({ "nats": { "kind": "service" } }),
            &site.account,
            "it is for a service",
        ),
        (
            json!({ "nats": { "subject": "private.y" } }),
            &site.account,
            "it is for \"private.y\"",
        ),
        (json!({ "exp": NOW - 1 }), &site.account, "it has expired"),
        (json!({ "iat": NOW - 60 }), &site.account, "it has been revoked"),
    ] {
        let why = private(activation(&more, signer)).unwrap_err();
        assert!(why.contains(says), "{more}: {why}");
    }
}

#[test]
fn imports_in_circles_or_twice_are_left_out() {
    let site = Site::new();
    let key = site.account.public_key();
    let own = json!({ "subject": "svc", "type": "service", "account": key });
    let mine = json!({ "subject": "mine", "to": "svc", "type": "service", "account": key });
    let claims = json!({ "nats": {
        "exports": [{ "subject": "svc", "type": "service" }],
        "imports": [own, mine, mine],
    } });
    let mut accounts = Accounts::new(site.trust(&json!({})));
    accounts
        .add(&key, &site.account_token(&claims), "test", at(NOW))
        .unwrap();
    let (_, specs, warnings) = accounts.finish(at(NOW));
    assert_eq!(specs[0].imports.len(), 1, "{warnings:?}");
    assert_eq!(specs[0].imports[0].to.as_deref(), Some("mine"));
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings
            .iter()
            .any(|warning| warning.ends_with("it forms a cycle"))
    );
    assert!(
        warnings
            .iter()
            .any(|warning| warning.ends_with("it is there twice"))
    );
}
