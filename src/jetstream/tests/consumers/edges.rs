//! Consumers where their stream has nothing for them yet, or no longer what it counts.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_before_a_start_to_come_is_not_pending() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.*"]})).await;
    let publish = async |messages: usize| {
        for at in 0..messages {
            rig.publish(&format!("s.{}", at % 2), &[], "x").await;
        }
    };
    publish(2).await;
    let start = json!({"ack_policy": "explicit", "deliver_policy": "by_start_sequence", "opt_start_seq": 6});
    let mut filtered = start.clone();
    filtered["filter_subject"] = "s.0".into();
    let pending = async |all: u64, some: u64| {
        for (name, expected) in [("ALL", all), ("SOME", some)] {
            let info = rig.info("S", name).await;
            assert_eq!(info["num_pending"], expected, "{name}: {info}");
        }
    };
    rig.consumer("S", "ALL", start).await;
    rig.consumer("S", "SOME", filtered).await;
    publish(2).await;
    pending(0, 0).await;
    assert_eq!(rig.pull("S", "ALL", 1).await.len(), 0, "nothing is there yet");
    // Not looked at between them: those before the start and those after it come in one look.
    publish(4).await;
    pending(3, 1).await;
    publish(2).await;
    pending(5, 2).await;
    let all = rig.pull("S", "ALL", 10).await;
    let numbers: Vec<_> = all
        .iter()
        .map(|came| (number(came, 5), number(came, 8)))
        .collect();
    assert_eq!(numbers, [(6, 4), (7, 3), (8, 2), (9, 1), (10, 0)]);
    let some = rig.pull("S", "SOME", 10).await;
    let numbers: Vec<_> = some
        .iter()
        .map(|came| (number(came, 5), number(came, 8)))
        .collect();
    assert_eq!(numbers, [(7, 1), (9, 0)]);
    // A consumer may be told to start over where nothing is yet, too.
    rig.consumer("S", "AGAIN", json!({"ack_policy": "explicit"}))
        .await;
    let reset = rig.api("CONSUMER.RESET.S.AGAIN", json!({"seq": 13})).await;
    assert_eq!(reset["num_pending"], 0, "{reset}");
    publish(1).await;
    assert_eq!(rig.info("S", "AGAIN").await["num_pending"], 0);
    publish(3).await;
    assert_eq!(rig.info("S", "AGAIN").await["num_pending"], 2);
    let again = rig.pull("S", "AGAIN", 10).await;
    assert_eq!(
        again.iter().map(|came| number(came, 5)).collect::<Vec<_>>(),
        [13, 14]
    );
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_passed_by() {
    let rig = Rig::on_disk();
    for (name, retention) in [("W", "workqueue"), ("I", "interest"), ("L", "limits")] {
        let subjects = json!([format!("{name}.*")]);
        rig.create(json!({"name": name, "subjects": subjects, "retention": retention}))
            .await;
        rig.consumer(name, "C", json!({"ack_policy": "explicit"})).await;
        for at in 1..=9 {
            let payload = format!("MARK-{name}-{at}-");
            rig.publish(&format!("{name}.{at}"), &[], &payload).await;
        }
        let first = rig.pull(name, "C", 2).await;
        rig.ack(&first[0], "").await;
    }
    let marks = ["W", "I", "L"].map(|name| format!("MARK-{name}-5-"));
    let rig = rig.restart_damaged(&marks).await;
    for name in ["W", "I", "L"] {
        rig.consumer(
            name,
            "C",
            json!({"ack_policy": "explicit", "ack_wait": 600_000_000_000u64}),
        )
        .await;
        let rest = rig.pull(name, "C", 10).await;
        let numbers: Vec<_> = rest.iter().map(|came| number(came, 5)).collect();
        assert_eq!(numbers, [3, 4, 6, 7, 8, 9], "{name}");
        let info = rig.info(name, "C").await;
        assert_eq!(
            (&info["num_pending"], &info["num_ack_pending"]),
            (&json!(0), &json!(7)),
            "{name}: {info}"
        );
        for came in &rest {
            rig.ack(came, "").await;
        }
        rig.publish(&format!("{name}.10"), &[], "more").await;
        assert_eq!(rig.info(name, "C").await["num_pending"], 1, "{name}");
        assert_eq!(payloads(&rig.pull(name, "C", 10).await), ["more"], "{name}");
    }
    rig.jetstream.shutdown().await;
}

/// Another consumer than the one that goes may have what both take still to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_goes_leaves_what_others_need() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "I", "subjects": ["i.*"], "retention": "interest"}))
        .await;
    rig.consumer(
        "I",
        "A",
        json!({"ack_policy": "explicit", "filter_subject": "i.a"}),
    )
    .await;
    rig.consumer("I", "B", json!({"ack_policy": "explicit"})).await;
    rig.consumer("I", "C", json!({"ack_policy": "explicit", "max_deliver": 1}))
        .await;
    for at in 0..6 {
        rig.publish(["i.a", "i.b"][at % 2], &[], "x").await;
    }
    // Both have the first two done, and C has given the third up, which it keeps until it goes.
    for name in ["B", "C"] {
        let came = rig.pull("I", name, 3).await;
        rig.ack(&came[0], "").await;
        rig.ack(&came[1], "").await;
        rig.ack(&came[2], if name == "B" { "" } else { "-NAK" }).await;
    }
    assert_eq!(summary(&rig.state("I").await), (5, 1, 6));
    let came = rig.pull("I", "A", 2).await;
    for came in &came {
        rig.ack(came, "").await;
    }
    assert_eq!(summary(&rig.state("I").await), (4, 3, 6));
    rig.api("CONSUMER.DELETE.I.C", Value::Null).await;
    assert_eq!(summary(&rig.state("I").await), (3, 4, 6));
    rig.api("CONSUMER.DELETE.I.B", Value::Null).await;
    assert_eq!(summary(&rig.state("I").await), (1, 5, 6));
    rig.jetstream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_filters_are_as_each_of_them() {
    let rig = Rig::on_disk();
    rig.create(json!({"name": "S", "subjects": ["s.>", "t.*"]})).await;
    let subjects = [
        "s.1.1", "s.1.2", "s.2.2", "s.2.1", "t.30", "t.3", "s.1", "s.1.1.1",
    ];
    let publish = async || {
        for subject in subjects {
            rig.publish(subject, &[], subject).await;
        }
    };
    publish().await;
    let mut filters: Vec<_> = (0..20).map(|n| format!("t.{n}")).collect();
    // Some subjects are taken by two of them.
    filters.extend(["s.1.*", "s.*.1"].map(str::to_owned));
    let config = json!({"ack_policy": "none", "filter_subjects": filters});
    let made = rig.consumer("S", "C", config.clone()).await;
    assert_eq!(made["num_pending"], 4, "{made}");
    publish().await;
    let wanted = ["s.1.1", "s.1.2", "s.2.1", "t.3"];
    assert_eq!(payloads(&rig.pull("S", "C", 10).await), [wanted, wanted].concat());
    assert_eq!(rig.info("S", "C").await["num_pending"], 0);
    // Others from here on.
    let fewer = json!({"ack_policy": "none", "filter_subjects": &filters[..9]});
    rig.consumer("S", "C", fewer).await;
    publish().await;
    assert_eq!(payloads(&rig.pull("S", "C", 10).await), ["t.3"]);
    for twice in ["t.3", "*.30", "t.>", "s.1.*"] {
        let mut filters = filters.clone();
        filters.push(twice.to_owned());
        let config = json!({"durable_name": "D", "ack_policy": "none", "filter_subjects": filters});
        let body = json!({"stream_name": "S", "config": config});
        let refused = rig.api("CONSUMER.CREATE.S.D", body).await;
        let overlaps = refused["error"]["err_code"] == 10138;
        assert_eq!(overlaps, twice != "*.30", "{twice}: {refused}");
    }
    rig.jetstream.shutdown().await;
}
