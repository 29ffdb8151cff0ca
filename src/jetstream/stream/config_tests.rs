use serde_json::json;

use super::*;

fn parse(value: Value) -> StreamConfig {
    let mut whole = json!({"name": "T"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(value.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

/// The text of the error, or what differs from a stream created with nothing but its name.
fn outcome(result: Result<StreamConfig, ApiError>) -> String {
    let plain = serde_json::to_value(parse(json!({})).for_create(false).unwrap()).unwrap();
    match result {
        Err(error) => format!("{} {}", error.err_code, error.description),
        Ok(config) => {
            let mut value = serde_json::to_value(config).unwrap();
            let fields = value.as_object_mut().unwrap();
            fields.retain(|key, value| plain.get(key) != Some(value));
            value.to_string()
        }
    }
}

#[test]
fn a_name_alone_becomes_what_the_reference_shows() {
    let config = parse(json!({})).for_create(false).unwrap();
    let expected = r#"{"name":"T","subjects":["T"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false,"metadata":{"_nats.level":"1","_nats.req.level":"0","_nats.ver":"2.15.1"}}"#;
    assert_eq!(
        serde_json::to_string(&config.shown("2.15.1", 1)).unwrap(),
        expected
    );
}

#[test]
fn create() {
    let long = "x".repeat(4097);
    let cases = [
        (json!({"subjects": [""]}), "10052 invalid subject"),
        (json!({"subjects": ["a..b"]}), "10052 invalid subject"),
        (
            json!({"subjects": ["a", "a"]}),
            r#"10052 subject "a" overlaps with "a""#,
        ),
        (
            json!({"subjects": ["a", "a.>", "a.b"]}),
            r#"10052 subject "a.>" overlaps with "a.b""#,
        ),
        (
            json!({"subjects": [">"]}),
            "10052 capturing all subjects requires no-ack to be true",
        ),
        (
            json!({"subjects": [">"], "no_ack": true}),
            r#"{"subjects":[">"],"no_ack":true}"#,
        ),
        (
            json!({"subjects": ["$JS.API.>"]}),
            "10052 subjects that overlap with jetstream api require no-ack to be true",
        ),
        (
            json!({"subjects": ["*.x"]}),
            "10052 subjects that overlap with jetstream api require no-ack to be true",
        ),
        (
            json!({"subjects": ["$JS.EVENT.>"]}),
            r#"{"subjects":["$JS.EVENT.>"]}"#,
        ),
        (
            json!({"subjects": ["$SYS.>"]}),
            "10052 subjects that overlap with system api require no-ack to be true",
        ),
        (
            json!({"subjects": ["$SYS.ACCOUNT.>"]}),
            r#"{"subjects":["$SYS.ACCOUNT.>"]}"#,
        ),
        (
            json!({"persist_mode": "async", "storage": "memory"}),
            "10052 async persist mode is only supported on file storage",
        ),
        (json!({"max_age": 1}), "10052 max age needs to be >= 100ms"),
        (json!({"max_age": -1}), "10052 max age can not be negative"),
        (
            json!({"max_age": 100_000_000}),
            r#"{"max_age":100000000,"duplicate_window":100000000}"#,
        ),
        (
            json!({"duplicate_window": 1}),
            "10052 duplicates window needs to be >= 100ms",
        ),
        (
            json!({"duplicate_window": -1}),
            "10052 duplicates window can not be negative",
        ),
        (
            json!({"duplicate_window": 1_000_000_000, "max_age": 500_000_000}),
            "10052 duplicates window can not be larger then max age",
        ),
        (json!({"max_msgs": -5, "max_bytes": 0, "max_msg_size": -2}), "{}"),
        (
            json!({"num_replicas": 3}),
            "10074 replicas > 1 not supported in non-clustered mode",
        ),
        (
            json!({"num_replicas": -1}),
            "10133 replicas count cannot be negative",
        ),
        (json!({"num_replicas": 6}), "10052 maximum replicas is 5"),
        (
            json!({"discard_new_per_subject": true}),
            "10052 discard new per subject requires discard new policy to be set",
        ),
        (
            json!({"discard_new_per_subject": true, "discard": "new"}),
            "10052 discard new per subject requires max msgs per subject > 0",
        ),
        (
            json!({"sealed": true}),
            "10052 stream configuration for create can not be sealed",
        ),
        (
            json!({"mirror_direct": true}),
            "10052 stream has no mirror but does have mirror direct",
        ),
        (
            json!({"deny_purge": true, "allow_rollup_hdrs": true}),
            "10052 roll-ups require the purge permission",
        ),
        (
            json!({"description": long}),
            "10052 stream description is too long, maximum allowed is 4096",
        ),
        (
            json!({"metadata": {"k": "x".repeat(140_000)}}),
            "10052 stream metadata exceeds maximum size of 131072 bytes",
        ),
        (
            json!({"subject_delete_marker_ttl": 1_000_000_000, "deny_purge": true}),
            r#"{"allow_rollup_hdrs":true,"allow_msg_ttl":true,"subject_delete_marker_ttl":1000000000,"metadata":{"_nats.req.level":"1"}}"#,
        ),
        (
            json!({"subject_delete_marker_ttl": 100_000_000}),
            "10052 subject delete marker TTL must be at least 1 second",
        ),
        (
            json!({"subject_delete_marker_ttl": -1}),
            "10052 subject delete marker TTL must not be negative",
        ),
        (
            json!({"metadata": {"_nats.foo": "1", "_nats.ver": "x"}}),
            r#"{"metadata":{"_nats.foo":"1","_nats.req.level":"0"}}"#,
        ),
        (
            json!({"mirror": {"name": "M"}}),
            "10052 mirror is not supported by this server",
        ),
        (
            json!({"allow_atomic": true}),
            "10052 allow_atomic is not supported by this server",
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(
            outcome(parse(value.clone()).for_create(false)),
            expected,
            "{value}"
        );
    }
    assert_eq!(
        outcome(parse(json!({"max_age": 1_000_000_000})).for_create(true)),
        "10157 pedantic mode: duplicate window cannot be bigger than max age"
    );
}

#[test]
fn names() {
    let dots = "10052 stream name is required and can not contain '.', '*', '>', '\\', '/'";
    for (name, expected) in [
        ("", dots),
        ("a*", dots),
        ("a b", dots),
        ("a/b", "10128 Stream name can not contain path separators"),
        ("a\\b", "10128 Stream name can not contain path separators"),
    ] {
        let error = check_name(name).unwrap_err();
        assert_eq!(
            format!("{} {}", error.err_code, error.description),
            expected,
            "{name}"
        );
    }
    assert!(check_name(&"x".repeat(255)).is_ok());
    assert!(check_name(&"x".repeat(256)).is_err());
}

#[test]
fn update() {
    let cases = [
        (
            json!({}),
            json!({"storage": "memory"}),
            "10052 stream configuration update can not change storage type",
        ),
        (
            json!({}),
            json!({"retention": "workqueue"}),
            "10052 stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            json!({}),
            json!({"retention": "interest"}),
            r#"{"retention":"interest"}"#,
        ),
        (
            json!({"deny_delete": true}),
            json!({}),
            "10052 stream configuration update can not cancel deny message deletes",
        ),
        (
            json!({"deny_purge": true}),
            json!({}),
            "10052 stream configuration update can not cancel deny purge",
        ),
        (
            json!({"allow_msg_ttl": true}),
            json!({}),
            "10052 message TTL status can not be disabled",
        ),
        (
            json!({}),
            json!({"persist_mode": "async"}),
            "10052 stream configuration update can not change persist mode",
        ),
        (json!({"first_seq": 7}), json!({}), "{}"),
        (
            json!({"max_age": 1_000_000_000}),
            json!({"sealed": true}),
            r#"{"discard":"new","sealed":true,"deny_delete":true,"deny_purge":true}"#,
        ),
    ];
    for (before, after, expected) in cases {
        let old = parse(before.clone()).for_create(false).unwrap();
        assert_eq!(
            outcome(old.for_update(parse(after.clone()), false)),
            expected,
            "{before} {after}"
        );
    }
    let sealed = StreamConfig {
        sealed: true,
        ..parse(json!({})).for_create(false).unwrap()
    };
    assert_eq!(
        outcome(sealed.for_update(parse(json!({})), false)),
        "10052 stream configuration update can not unseal a sealed stream"
    );
}

#[test]
fn all_fields_are_listed() {
    let all = json!({"description": "d", "no_ack": true, "placement": {}, "first_seq": 1,
        "subject_delete_marker_ttl": 1, "discard_new_per_subject": true, "persist_mode": "async",
        "mirror": {}, "sources": [{}], "subject_transform": {}, "republish": {}, "allow_msg_counter": true,
        "allow_atomic": true, "allow_msg_schedules": true, "allow_batched": true, "duplicate_window": 1,
        "subjects": ["x"], "metadata": {"a": "b"}});
    let value = serde_json::to_value(parse(all)).unwrap();
    let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, FIELDS[..FIELDS.len() - 1]);
}
