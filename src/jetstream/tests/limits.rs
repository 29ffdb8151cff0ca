//! Streams at their limits: who gives way, what is refused, and that nothing overflows.

use super::*;

/// The configuration of a stream in memory that takes `<name>.>`.
fn config(name: &str, more: Value) -> Value {
    let mut config = json!({"name": name, "subjects": [format!("{name}.>")], "storage": "memory"});
    let fields = config.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    config
}

fn err_code(answer: &Value) -> u64 {
    answer["error"]["err_code"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_takes_no_more_room_than_there_is() {
    for storage in ["memory", "file"] {
        let rig = Rig::on_disk();
        // A record of ten bytes: three, five and three of the subject, 30 beside.
        let new = json!({"discard": "new", "max_msgs_per_subject": 1, "max_bytes": 200, "storage": storage});
        rig.create(config("N", new)).await;
        for n in 1..=4 {
            let subject = format!("N.{n}");
            assert_eq!(rig.publish(&subject, &[], "0123456789").await, n.to_string());
        }
        let before = rig.state("N").await;
        let bytes = before["bytes"].as_u64().unwrap();
        assert!(bytes < 200 && bytes > 160, "{before}");
        let full = "10077 maximum bytes exceeded";
        let room = usize::try_from(200 - bytes).unwrap();
        let larger = "x".repeat(10 + room + 1);
        assert_eq!(rig.publish("N.4", &[], &larger).await, full, "{storage}");
        assert_eq!(rig.publish("N.5", &[], "").await, full);
        assert_eq!(rig.state("N").await, before, "nothing has given way");
        // Just as large as fits in the place of the old one, and then as small as one likes.
        assert_eq!(rig.publish("N.4", &[], &larger[1..]).await, "5");
        assert_eq!(rig.publish("N.3", &[], "0123456789").await, "6");
        assert_eq!(rig.publish("N.3", &[], "").await, "7");
        let subjects = json!({"N.1": 1, "N.2": 1, "N.3": 1, "N.4": 1});
        assert_eq!(rig.state("N").await["subjects"], subjects);
        rig.jetstream.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_limits_take_nothing_where_new_messages_give_way() {
    let rig = Rig::new(None, None);
    for (lower, refusal) in [
        (json!({"max_msgs": 2}), "10077 maximum messages exceeded"),
        (json!({"max_bytes": 50}), "10077 maximum bytes exceeded"),
    ] {
        for (discard, left) in [("new", 4), ("old", 0)] {
            let name = format!("{discard}-{}", lower.as_object().unwrap().len());
            rig.create(config(&name, json!({"discard": discard}))).await;
            for _ in 0..4 {
                rig.publish(&format!("{name}.a"), &[], "x").await;
            }
            let mut update = config(&name, lower.clone());
            update["discard"] = discard.into();
            let answer = rig.api(&format!("STREAM.UPDATE.{name}"), update).await;
            assert_eq!(err_code(&answer), 0, "{answer}");
            let messages = answer["state"]["messages"].as_u64().unwrap();
            assert!(
                if left == 0 { messages < 4 } else { messages == left },
                "{answer}"
            );
            let next = rig.publish(&format!("{name}.a"), &[], "x").await;
            assert_eq!(next, if left == 0 { "5" } else { refusal });
            rig.api(&format!("STREAM.DELETE.{name}"), Value::Null).await;
        }
    }
    // A limit a subject is another matter: there the old ones give way.
    rig.create(config("P", json!({"discard": "new"}))).await;
    for _ in 0..3 {
        rig.publish("P.a", &[], "x").await;
    }
    let update = config("P", json!({"discard": "new", "max_msgs_per_subject": 1}));
    let answer = rig.api("STREAM.UPDATE.P", update).await;
    assert_eq!(summary(&answer["state"]), (1, 3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_end_before_they_overflow() {
    let rig = Rig::on_disk();
    let max = i64::MAX as u64;
    let seq = |seq: u64| json!({"seq": seq});
    for beyond in [max + 1, u64::MAX] {
        let answer = rig
            .api("STREAM.CREATE.F", config("F", json!({"first_seq": beyond})))
            .await;
        assert_eq!(err_code(&answer), 10052, "{answer}");
    }
    for storage in ["memory", "file"] {
        rig.create(config("S", json!({"storage": storage}))).await;
        assert_eq!(rig.publish("S.a", &[], "x").await, "1");
        for beyond in [max + 1, u64::MAX] {
            let answer = rig.api("STREAM.PURGE.S", seq(beyond)).await;
            assert_eq!((err_code(&answer), &answer["purged"]), (10110, &json!(0)));
        }
        assert_eq!(
            err_code(&rig.api("STREAM.MSG.DELETE.S", seq(u64::MAX)).await),
            10057
        );
        let purged = rig.api("STREAM.PURGE.S", seq(max)).await;
        assert_eq!(purged["purged"], 1, "{purged}");
        assert_eq!(summary(&rig.state("S").await), (0, max, max - 1));
        assert_eq!(rig.publish("S.a", &[], "x").await, max.to_string());
        let ended = "10077 maximum sequence reached";
        assert_eq!(rig.publish("S.a", &[], "x").await, ended);
        let found = rig.api("STREAM.MSG.GET.S", seq(max)).await;
        assert_eq!(found["message"]["seq"], max);
        for endpoint in ["STREAM.MSG.DELETE.S", "STREAM.PURGE.S"] {
            let answer = rig.api(endpoint, seq(max)).await;
            assert_eq!(answer["success"], true, "{answer}");
            assert_eq!(summary(&rig.state("S").await), (0, max + 1, max));
            assert_eq!(rig.publish("S.a", &[], "x").await, ended);
        }
        rig.api("STREAM.DELETE.S", Value::Null).await;
    }
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_no_disk_can_hold_are_refused() {
    let rig = Rig::on_disk();
    for (storage, refusal) in [("file", 10047), ("memory", 10028)] {
        for bytes in [1i64 << 62, i64::MAX] {
            let asked = json!({"max_bytes": bytes, "storage": storage});
            let answer = rig.api("STREAM.CREATE.S", config("S", asked)).await;
            assert_eq!(err_code(&answer), refusal, "{answer}");
        }
        let (half, name) = (1i64 << 55, format!("{storage}-half"));
        let asked = json!({"max_bytes": half, "storage": storage});
        rig.create(config(&name, asked)).await;
        let asked = json!({"max_bytes": half + 1, "storage": storage});
        let answer = rig.api("STREAM.CREATE.T", config("T", asked)).await;
        assert_eq!(err_code(&answer), refusal, "together they are too much");
    }
    rig.jetstream.shutdown().await;
}
